"""The papers' tables: their numbers, what is run of them, and what is refused."""

import dataclasses
import json
import os
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import training
from adv_plugins.methods import METHODS
from adv_plugins_cli import paper
from adv_plugins_cli.checkpoints.architecture import WORD_ARCHS
from adv_plugins_cli.recipes import paper_scores, paper_tables, paper_times, recipes, run_folder, runs
from adv_plugins_cli.recipes.methods import PLAIN
from adv_plugins_cli.recipes.paper_tables import Cell, Column, Row

ROOT = training.ROOT
PAPERS = Path(os.environ.get("ADV_PLUGINS_TEST_DATA", ROOT / "data")).parent / "papers"
TABLES = paper_tables.load_all()
TINY = (
    "--encoder-layers 3 --encoder-embed-dim 8 --encoder-ffn-embed-dim 8 --encoder-attention-heads 2 "
    "--max-positions 32"
)
# Averages of the papers that are not the means of what they average.
OWN_AVERAGES = {("rat-table1", "BERT-base"), ("rat-table3", "TextHAN + AT")}
OWN_AVERAGES |= {("rapt-table3", name) for name in ("Standard", "SMART", "RAPT")}
KNOWN = {PLAIN, "rat", "freelb", "rapt", "asa", "fgm", "pgd", "freeat", "yopo", "smart", "rdrop"}


def test_all_of_them_are_there():
    expected = {
        "rat": "table1 table3 table4 table8 figure2 figure3 figure5",
        "freelb": "table1 table4 table9",
        "rapt": "table2 table3 figure2 figure3",
        "asa": "table1 table3 table4 figure4a figure4b",
    }
    names = {f"{paper}-{each}" for paper, places in expected.items() for each in places.split()}
    assert set(TABLES) == names
    files = {path.stem for path in (ROOT / "examples" / "papers").glob("*.tsv")}
    assert files == {*names, "papers"}


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.id)
def test_the_tables_are_sound(table):
    tasks = {row["task"] for row in recipes.read_table(recipes.TABLES / "tasks.tsv")}
    assert len({row.name for row in table.rows}) == len(table.rows)
    assert len({column.name for column in table.columns}) == len(table.columns)
    for column in table.columns:
        if table.measures == "scores":
            assert column.task in tasks or column.name == paper_tables.AVERAGE
    for row in table.rows:
        assert row.method in {None, *KNOWN} and row.recipe in {"-", *KNOWN}
        assert row.arch in (None, *WORD_ARCHS)
        for column in table.columns:
            cell = row.cells[column.name]
            assert len(cell.values) in (0, len(column.meters) or 1), (row.name, column.name)
    published = [cell for row in table.rows for cell in row.cells.values() if cell.values]
    assert bool(published) != ("no values" in table.note or "nor its values" in table.note)
    assert (table.spread != "-") == any(cell.spread is not None for cell in published)


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.id)
def test_averages_are_those_of_the_copied_numbers(table):
    """A number that was copied wrongly would show here."""
    for row in table.rows:
        if paper_tables.AVERAGE not in row.cells or not row.cells[paper_tables.AVERAGE].values:
            continue
        values = [
            value
            for name, cell in row.cells.items()
            if name != paper_tables.AVERAGE
            for value in cell.values
        ]
        (average,) = row.cells[paper_tables.AVERAGE].values
        agrees = abs(sum(values) / len(values) - average) <= 0.051
        assert agrees != ((table.id, row.name) in OWN_AVERAGES), row.name


@pytest.mark.skipif(not PAPERS.is_dir(), reason="the papers' texts are not there")
@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.id)
def test_every_published_number_is_in_the_papers_text(table):
    """All numbers of a row in one line, in the order of its columns; of a column those of its rows,
    where the paper has it the other way round."""
    text = (PAPERS / f"{table.id.partition('-')[0]}.txt").read_text()
    text = re.sub(r"\*\*|\$|\\textbf|\\star|[{}]|\\pm|\\uparrow [\d.]+", "", text).replace("±", " ")
    lines = [" ".join(re.findall(r"\d+\.\d*|\.\d+|\d+", line)) for line in text.splitlines()]

    def numbers(cells):
        parts = (re.findall(r"\d+\.\d*|\.\d+|\d+", cell.text.partition(" x")[0]) for cell in cells)
        return " ".join(part for each in parts for part in each)

    by_row = [numbers(row.cells.values()) for row in table.rows]
    by_column = [numbers(row.cells[column.name] for row in table.rows) for column in table.columns]
    if table.id == "rat-table4":  # pairs of rows are a line
        by_row = [f"{first} {second}" for first, second in zip(by_row[::2], by_row[1::2])]

    def found(wanted):
        return [any(each in line for line in lines) for each in wanted if each]

    if table.id == "asa-figure4a":
        assert by_row == ["", "2", "", "", "", ""] and "about twice the period" in text
    elif table.id == "freelb-table1":  # the columns of two rows are missing in the text
        assert all(found([by_row[1], by_row[4]]))
        assert all(found(by_row[0].rsplit(" ", 1))) and all(found(by_row[2:4]))
    else:
        assert all(found(by_row)) or all(found(by_column)), table.id


def test_cells_and_columns():
    assert paper_tables.parse_cell("-") == Cell("-")
    assert paper_tables.parse_cell("85.61 (1.7)") == Cell("85.61 (1.7)", (85.61,), 1.7)
    assert paper_tables.parse_cell("92.55 (.05) x4").runs == 4
    assert paper_tables.parse_cell("89.7/85.3").values == (89.7, 85.3)
    with pytest.raises(ValueError, match="'89,7' is no cell"):
        paper_tables.parse_cell("89,7")
    assert paper_tables.parse_column("Avg") == Column("Avg")
    column = paper_tables.parse_column("MNLI@10%=accuracy+valid1:accuracy/f1 x3")
    assert (column.name, column.task, column.share, column.runs) == ("MNLI@10%", "MNLI", 10, 3)
    result = {"validations": [{}, {"valid_accuracy": 80.0, "valid1_accuracy": 82.0, "valid_f1": 70.0}]}
    assert column.meters == (("accuracy", "valid1:accuracy"), ("f1",))
    assert paper_scores.scores_of(result, column) == [81.0, 70.0]
    with pytest.raises(ValueError, match="and no valid_mcc"):
        paper_scores.scores_of(result, Column("x", "x", (("mcc",),)))


def row(method, recipe=None, flags=""):
    return Row("x", method, recipe or method, flags, "BERT-base", None, {})


def test_a_row_has_the_recipe_that_it_names():
    own = recipes.get_recipe("MRPC", "freelb")
    assert paper_tables.recipe_of(row("freelb"), "MRPC") == own
    masks = paper_tables.recipe_of(row("freelb", flags="--no-reuse-dropout-mask"), "MRPC")
    assert masks.flags == f"{own.flags} --no-reuse-dropout-mask" and masks.lr == own.lr
    larger = paper_tables.recipe_of(row("freelb", flags="--adv-step-size {--adv-step-size * 2}"), "MRPC")
    assert larger.flags.endswith("--adv-step-size 0.08")

    # plain fine-tuning as ASA's: its learning rate, batch, epochs and lengths, nothing of its adversary
    asa, plain = recipes.get_recipe("QQP", "asa"), paper_tables.recipe_of(row(PLAIN, "asa"), "QQP")
    assert (plain.lr, plain.batch, plain.epochs) == (asa.lr, asa.batch, asa.epochs)
    assert plain.criterion is None and not plain.adversaries
    assert plain.flags == "--weight-decay 0.01 --shorten-method truncate --max-positions 128"

    # FreeLB as ASA's: so is the rest, with FreeLB's own options and none of ASA beside another method
    freelb = paper_tables.recipe_of(row("freelb", "asa"), "QQP")
    assert (freelb.lr, freelb.epochs, freelb.criterion) == (asa.lr, asa.epochs, "freelb_criterion")
    steps = "--adv-steps 3 --adv-step-size 0.15 --adv-init-eps 0.32 --adv-eps 0.62"
    assert freelb.flags == f"{steps} {plain.flags}"

    # options that both methods have are those of the one whose recipe it is
    shared = paper_tables.recipe_of(row("rat", "freelb"), "MRPC")
    options = run_folder.options(["", *shlex.split(shared.flags)])
    assert options["--adv-eps"] == "0.4" and options["--consistency-weight"] == "0.8"
    assert options["--adam-betas"] == "(0.9, 0.999)" and "--adv-steps" not in options


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.id)
def test_rows_of_registered_methods_have_options_that_their_criterions_have(table, monkeypatch):
    methods = {PLAIN, *METHODS}
    naive = "asa_masking" in {field.name for field in dataclasses.fields(METHODS["asa"].options)}
    for each in table.rows:
        if each.method not in methods or ("--asa-masking" in each.flags and not naive):
            continue
        for column in table.columns:
            if column.task is None or (each.recipe not in methods):
                continue
            recipe = paper_tables.recipe_of(each, column.task, arch=each.arch)
            start = recipes.Start.of(None, each.arch or "roberta")
            monkeypatch.setattr(recipes, "count_rows", lambda _: 100)
            command = recipe.command(Path("x"), start=start, save_dir=Path("y"), seed=1)
            paper_scores.check_command(command)


def test_what_it_prints(capsys):
    assert paper.main([]) == 0
    listed = capsys.readouterr().out
    for table in TABLES.values():
        assert f"{table.id}: {table.paper}, {table.place}: " in listed
    assert "    rows: Vanilla; FreeLB-3*; FreeLB-3; YOPO-3-2; YOPO-3-3\n" in listed
    assert "    columns: STS-B SST-2 QNLI QQP MNLI\n" in listed
    for name, table in TABLES.items():
        assert paper.main([name]) == 0
        shown = capsys.readouterr().out
        assert table.note in shown or table.note == "-"
        for each in table.rows:
            cells = [each.name, each.encoder, *(each.cells[c.name].text for c in table.columns)]
            assert re.search("(?m)^" + r" +".join(map(re.escape, cells)) + "$", shown), name
    own = ["freelb-table4", "--rows", "Vanilla", "YOPO-3-3", "--tasks", "RTE", "QNLI"]
    assert paper.main(own) == 0
    shown = capsys.readouterr().out
    assert "85.61" in shown and "87.05 (0.20)" in shown and "67.57" not in shown and "88.13" not in shown
    assert "median (standard deviation) of 5 runs, dev set" in shown and "QNLI" in shown


@pytest.fixture
def data(tmp_path):
    """The preprocessed folders of two tasks of three classes."""
    for task in ("RTE", "CoLA"):
        training.write_data(tmp_path / "bin" / f"{task}-bin", "classification", sizes=(20, 6))


def request(tmp_path, table, *own):
    return [
        *(table, "--from-scratch", "--arch", "roberta", "--data-bin", str(tmp_path / "bin")),
        *("--out-dir", str(tmp_path / "out"), *own),
        *("--", *TINY.split(), "--num-classes", "3", "--cpu"),
    ]


def test_it_runs_the_rows_and_goes_on_where_it_stopped(data, tmp_path, capsys):
    own = ["--rows", "Vanilla", "FreeLB-3*", "--tasks", "RTE", "--seeds", "1", "2", "3", "--jobs", "2"]
    own += ["--train-rows", "16", "--epochs", "2", "--lr", "1e-3"]
    arguments = request(tmp_path, "freelb-table4", *own)
    assert paper.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "FreeLB, Table 4: median (standard deviation) of 5 runs, dev set" in shown
    assert "RTE, accuracy; own: median (standard deviation) of 3 seeds" in shown
    assert "What differs: encoder: random weights (roberta), theirs: RoBERTa-large; " in shown
    assert "RTE: 16 of 20 training rows; seeds: 3, theirs: 5; " in shown
    assert "learning rate: 1e-3 for every row; epochs: 2 for every row; " in shown

    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    (column,) = summary["columns"]
    assert column["train_rows"] == [16, 20] and summary["statistic"] == "median"
    vanilla, masks = column["rows"]
    assert vanilla["published"]["values"] == [85.61] and masks["published"]["spread"] == 1.29
    for each in (vanilla, masks):
        scores = sorted(score for (score,) in each["own"]["scores"].values())
        assert each["own"]["values"] == [scores[1]] and len(scores) == 3 and not each["own"]["failed"]
        assert f"{scores[1]:.2f}" in shown
    folder = tmp_path / "out" / "RTE" / "freelb-no-reuse-dropout-mask"
    result = json.loads((folder / "seed2" / runs.RESULT).read_text())
    options = run_folder.options(result["command"])
    assert "--no-reuse-dropout-mask" in options and options["--lr"] == "1e-3"
    # FreeLB's RTE: 2 sentences, 8 times an update: 1 update an epoch, not 16
    assert options["--total-num-update"] == "2" and options["--warmup-updates"] == "1"
    assert result["lr"] == "1e-3" and result["recipe"] == "FreeLB-u"

    # again: only what is missing is trained, and it comes out as before
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob(runs.RESULT)}
    assert len(stamps) == 6
    (folder / "seed2" / runs.RESULT).unlink()
    assert paper.main(arguments) == 0
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob(runs.RESULT)}
    assert {path for path in after if after[path] != stamps[path]} == {folder / "seed2" / runs.RESULT}
    again = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert again["columns"][0]["rows"][1]["own"]["scores"] == masks["own"]["scores"]

    with pytest.raises(SystemExit, match=r"--dropout 0.1 -> 0.3\): choose another --out-dir"):
        paper.main([*arguments, "--dropout", "0.3"])


def fail(run):
    run.save_dir.mkdir(parents=True)
    (run.save_dir / runs.FAILURE).write_text('{"reason": "exit code 7"}')


def test_rows_that_differ_in_the_encoder_share_their_runs(data, tmp_path, monkeypatch, capsys):
    waiting = []

    def execute(every, *_):
        waiting.extend(every)
        for run in every:
            fail(run)

    monkeypatch.setattr(paper_scores, "execute", execute)
    assert (
        paper.main(request(tmp_path, "rat-table1", "--tasks", "RTE", "CoLA", "--seeds", "1", "2")) == 1
    )
    assert len(waiting) == 2 * 2 * 2, "two methods, tasks and seeds, for six rows"
    shown = capsys.readouterr().out
    assert shown.count("FAILED: seeds 1 2") == 12
    assert "8 of 8 runs FAILED, the first: exit code 7; see " in shown
    assert "theirs: BERT-base and RoBERTa-base and ALBERT-base" in shown


def test_shares_of_the_training_set(data, tmp_path, capsys):
    training.write_data(tmp_path / "bin" / "IMDB-bin", "classification", sizes=(40, 6))
    own = ["--rows", "BERT-base", "BERT-base + R-AT", "--seeds", "1", "--train-rows", "20"]
    assert paper.main(request(tmp_path, "rat-figure2", *own, "--print-only")) == 0
    counts = {}
    for line in capsys.readouterr().out.splitlines():
        command = shlex.split(line)
        folder = Path(run_folder.options(command)["--save-dir"]).relative_to(tmp_path / "out")
        counts[str(folder.parent)] = recipes.count_rows(Path(command[1]))
    assert len(counts) == 8
    assert counts["IMDB/10-percent/plain"] == 2 and counts["IMDB/50-percent/rat"] == 10
    assert counts["IMDB/rat"] == 20


def test_updates_are_those_of_the_rows_and_of_what_a_batch_gets(data, tmp_path, monkeypatch, capsys):
    own = ["--tasks", "CoLA", "--rows", "FreeLB-3", "--seeds", "1"]

    def updates(*more):
        arguments = request(tmp_path, "freelb-table4", *own, *more, "--print-only")
        capsys.readouterr()
        assert paper.main(arguments) == 0
        options = run_folder.options(shlex.split(capsys.readouterr().out))
        return options["--total-num-update"], options["--warmup-updates"], options["--max-epoch"]

    assert updates() == ("5536", "320", "10"), "the recipe's own"
    # 16 rows, batches of 8, 2 an update: 1 update an epoch, and 320 / 5536 of 10 of them
    assert updates("--train-rows", "16") == ("10", "1", "10")
    assert updates("--epochs", "30") == ("60", "4", "30")
    replayed = {"freelb": SimpleNamespace(replays="adv_steps")}
    monkeypatch.setattr(paper_scores, "load_methods", lambda _: replayed)
    assert updates() == (str(4 * 5536), "1280", "10")
    assert updates("--train-rows", "16") == ("40", "3", "10")


def test_an_average_is_one_of_all_columns():
    table = TABLES["rapt-table2"].chosen(["Standard dev"], TABLES["rapt-table2"].columns)
    columns = []
    for number, column in enumerate(table.columns[:-1]):
        own = {"values": [float(number)] * len(column.meters), "failed": [7] if number == 2 else []}
        columns.append({"column": column.name, "rows": [{"own": own}]})
    found = paper_scores.averages(table, columns)
    assert found is not None
    (entry,) = found["rows"]
    assert entry["published"]["values"] == (84.5,) and entry["own"]["failed"] == [7]
    assert entry["own"]["values"] == [(0 + 0 + 1 + 1 + 2 + 3 + 4 + 4 + 5 + 6 + 7 + 7) / 12]
    assert paper_scores.averages(table, columns[:3]) is None


@pytest.mark.parametrize(
    "own,message",
    [
        (("freelb-table5",), "no table 'freelb-table5': choose one of rat-table1, "),
        (("freelb-table4", "--rows", "FreeLB"), "--rows 'FreeLB': freelb-table4 has 'Vanilla', "),
        (("freelb-table4", "--rows", "Vanilla", "Vanilla"), "--rows: Vanilla is given twice"),
        (("freelb-table4", "--tasks", "RTE", "X"), "unknown task 'X': choose one of CoLA, "),
        (("freelb-table1", "--rows", "Reported"), "'Reported' is of published numbers alone"),
        (
            ("rat-table4", "--rows", "BiLSTM, K = 2"),
            "'BiLSTM, K = 2' is of a BiLSTM .--arch bilstm., and not of --arch roberta",
        ),
        (("rat-table8",), "not of --arch roberta; no row of it can be run"),
        (("freelb-table4", "--seeds", "1", "1"), "--seeds: 1 is given twice"),
        (("freelb-table4", "--lr", "fast"), "--lr fast: no positive number"),
        (("freelb-table4", "--batch", "8"), "--batch: freelb-table4 is a table of scores"),
        (("rapt-table3", "--seeds", "1"), "--seeds: rapt-table3 is a table of times"),
        (("asa-figure4a", "--tasks", "RTE"), "--tasks: asa-figure4a is a table of times"),
        (("freelb-table4", "--rows", "Vanilla", "--train-rows", "99"), "--train-rows 99: .* has 20"),
        (("freelb-table4", "--rows", "Vanilla", "--precision", "fp16"), "fp16 needs a GPU"),
        (("freelb-table1", "--rows", "ReImp"), "no such folder; give --data-bin"),
    ],
)
def test_bad_requests_name_the_knob(own, message, data, tmp_path, monkeypatch):
    monkeypatch.setattr(paper_scores, "execute", lambda *_: pytest.fail("something was trained"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tasks = ("--tasks", "RTE") if "Vanilla" in own and "--tasks" not in own else ()
    with pytest.raises(SystemExit, match=f"^adv-plugins paper: error: .*{message}") as error:
        paper.main(request(tmp_path, *own, *tasks))
    assert "\n" not in str(error.value)


def test_a_method_that_is_not_registered_is_named(data, tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "load_methods", lambda _: {"freelb": None})
    reason = "'YOPO-3-2' needs the method 'yopo', which is not here .*; --rows \"Vanilla\" \"FreeLB-3"
    with pytest.raises(SystemExit, match=reason):
        paper.main(request(tmp_path, "freelb-table4", "--tasks", "RTE"))


def test_an_option_that_does_not_exist_stops_it_before_anything_is_trained(data, tmp_path, monkeypatch):
    monkeypatch.setattr(paper_scores, "execute", lambda *_: pytest.fail("something was trained"))
    own = request(tmp_path, "freelb-table4", "--rows", "Vanilla", "FreeLB-3", "--tasks", "RTE")
    with pytest.raises(SystemExit, match="the row 'FreeLB-3': fairseq-train: .* --adv-step: |--no-such"):
        paper.main([*own, "--no-such"])
    with pytest.raises(SystemExit, match="--disable-validation"):
        paper.main([*own, "--disable-validation"])


@pytest.mark.parametrize(
    "option", [("--seeds", "1"), ("--data-dir", "x"), ("--lengths", "8"), ("--", "--x")]
)
def test_options_of_runs_need_a_checkpoint(option):
    with pytest.raises(SystemExit, match=rf"^adv-plugins paper: error: {option[0]} needs --checkpoint"):
        paper.main(["freelb-table4", *option])
    with pytest.raises(SystemExit, match=r"no\.pt: no such checkpoint"):
        paper.main(["rapt-table3", "--rows", "RAPT", "--checkpoint", "no.pt"])


def test_times_are_ratios_to_plain_fine_tuning(data, tmp_path, capsys):
    words = tmp_path / "bin" / "RTE-bin" / "input0"
    own = ["--bpe-dir", str(words), "--batch", "3", "--repeats", "2", "--out-dir", str(tmp_path / "out")]
    start = ["--from-scratch", "--arch", "roberta", *own]
    line = ["rapt-table3", "--rows", "RAPT", "--lengths", "6", "9", *start, "--", *TINY.split()]
    assert paper.main(line) == 0
    shown = capsys.readouterr().out
    assert "length 6:" in shown and "length 9:" in shown
    assert re.search(r"\nRAPT +1\.32 \(1\.20 - 2\.00\) +\d", shown), "of the paper's minutes"
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    plain, rapt = summary["lengths"][1]["rows"]
    assert (plain["row"], rapt["row"]) == ("Standard", "RAPT") and plain["ratio"]["max"] == 1
    ratios = [a / b for a, b in zip(rapt["seconds"], plain["seconds"])]
    assert rapt["ratio"]["min"] == min(ratios) and len(ratios) == 2

    with pytest.raises(SystemExit, match="--lengths 33: the model has 32 positions"):
        paper.main([*line[:3], "--lengths", "33", *line[6:]])
    with pytest.raises(SystemExit, match=r"dict\.txt: no such file"):
        paper.main([*line[:3], "--from-scratch", "--bpe-dir", str(tmp_path)])


def test_published_ratios():
    table = TABLES["asa-figure4a"]
    plain, asa = table.rows[:2]
    assert paper_times.published_ratios(plain, asa, 512) == [2]
    assert (
        paper_times.published_ratios(plain, asa, 128)
        == paper_times.published_ratios(plain, asa, 64)
        == []
    )
