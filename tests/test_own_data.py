"""Data of one's own: tables as they are, what is wrong with them, and all the way to predictions."""

import csv
import json

import numpy as np
import pytest

import test_predict
import training
from adv_plugins_cli import compare, evaluate, finetune, predict
from adv_plugins_cli.command import UserError
from adv_plugins_cli.data import lengths, own, own_tables
from adv_plugins_cli.recipes import recipes, runs

WORDS = test_predict.WORDS


@pytest.fixture(autouse=True)
def no_task_stays(monkeypatch):
    from adv_plugins_cli import preprocess

    monkeypatch.setattr(recipes, "OWN", {})
    monkeypatch.setattr(preprocess, "TASKS", dict(preprocess.TASKS))


def sentence(number):
    return " ".join(WORDS[(number * step + step) % len(WORDS)] for step in range(1, 4 + number % 5))


def write_csv(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def request(train, *more):
    parser = finetune.make_parser(None)
    own.add_options(parser)
    parser.add_argument("--data-dir")
    return parser.parse_args(["--from-scratch", "--train", str(train), *more])


def table(path, split="train"):
    return [dict(cells) for _, cells in own_tables.rows(path, split)]


def test_a_csv_is_read_as_spreadsheets_write_it(tmp_path):
    text = 'a "quoted" word, a comma\nand a line break'
    path = write_csv(tmp_path / "a.csv", ["review", "stars"], [[text, "1"], ["plain", "2"]])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert table(path) == [{"review": text, "stars": "1"}, {"review": "plain", "stars": "2"}]
    places = [place for place, _ in own_tables.rows(path)]
    assert places == [f"{path}:2", f"{path}:4"], "where a row begins"
    data = own.read(request(path, "--text", "review", "--label", "stars", "--valid", str(path)))
    assert data.splits["train"].inputs == (['a "quoted" word, a comma and a line break', "plain"],)


def test_quotes_of_a_tsv_are_text_and_json_lines_hold_numbers(tmp_path):
    (tmp_path / "a.tsv").write_text('text\tlabel\n"a\tx\nb"\ty\n')
    assert table(tmp_path / "a.tsv") == [{"text": '"a', "label": "x"}, {"text": 'b"', "label": "y"}]
    lines = [{"text": "a", "label": 1}, {"text": "b", "label": True}, {"text": "c", "label": 0.5}]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = [own_tables.cell(row, "label") for row in own_tables.rows(tmp_path / "a.jsonl")]
    assert found == ["1", "true", "0.5"]


def test_parquet_and_folders_of_datasets(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="the extra tables installs pyarrow")
    datasets = pytest.importorskip("datasets", reason="the extra tables installs datasets")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": ["a", "b"], "label": [1, 2]}), tmp_path / "a.parquet")
    assert table(tmp_path / "a.parquet") == [{"text": "a", "label": 1}, {"text": "b", "label": 2}]
    names = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    columns: dict[str, list] = {"text": ["a", "b"], "label": [1, 0]}
    rows, last = (
        datasets.Dataset(
            pyarrow.table(values, schema=names.arrow_schema),
            info=datasets.DatasetInfo(features=names),
            fingerprint=name,  # which it would make of all that Python has loaded
        )
        for name, values in (("a", columns), ("b", {name: v[1:] for name, v in columns.items()}))
    )
    datasets.DatasetDict({"train": rows, "validation": last}).save_to_disk(tmp_path / "both")
    rows.save_to_disk(tmp_path / "one")
    assert [row["label"] for row in table(tmp_path / "both")] == ["yes", "no"]
    assert [row["label"] for row in table(tmp_path / "both", "valid")] == ["no"]
    assert [row["label"] for row in table(tmp_path / "one")] == ["yes", "no"]
    (tmp_path / "bad.parquet").write_text("no")
    (tmp_path / "none").mkdir()
    for path in ("bad.parquet", "none"):
        with pytest.raises(UserError, match=path):
            table(tmp_path / path)


@pytest.mark.parametrize("package", ["pyarrow", "datasets"])
def test_a_missing_library_is_named(tmp_path, monkeypatch, package):
    import sys

    path = tmp_path / ("a.parquet" if package == "pyarrow" else "folder")
    path.write_text("") if package == "pyarrow" else path.mkdir()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit, match=f"{package} is missing: pip install {package}"):
        finetune.main(["--train", str(path), "--method", "plain", "--from-scratch"])


@pytest.mark.parametrize(
    "name,content,more,message",
    [
        ("a.csv", "text,label\na,x\nb\n", "", r"a\.csv:3: 1 columns, the header has 2"),
        ("a.csv", 'text,label\n"a,x\n', "", r"a\.csv:\d: no such table"),
        ("a.csv", "text,label\n,x\n", "", r"a\.csv:2: 'text' is empty"),
        ("a.csv", "text,text,label\na,b,x\n", "", r"a\.csv:1: the column 'text' is there twice"),
        ("a.csv", "text,label\na,\n", "", r"a\.csv:2: 'label' is empty"),
        ("a.csv", "review,label\na,x\n", "", r"no column 'text'; there are 'review', 'label'"),
        ("a.csv", "text,label\n", "", r"a\.csv: the file has no rows"),
        ("a.csv", "", "", r"a\.csv: the file has no rows"),
        ("a.csv", "text,label\na,x\nb,x\n", "", "all rows have the label 'x'"),
        ("a.csv", "text,label\na,x\nb,y\n", "", "too few to hold a tenth out: give --valid"),
        ("a.csv", "text,label\na,x\nb,y\n", "--label-kind scores --valid {}", "'x' is no number"),
        ("a.jsonl", '{"text": null, "label": 1}\n', "", r"a\.jsonl:1: 'text' is 'None', no text"),
        ("a.jsonl", '{"text": "a"\n', "", r"a\.jsonl:1: no JSON"),
        ("a.jsonl", "[]\n", "", r"a\.jsonl:1: not an object"),
        ("a.xlsx", "", "", r"a\.xlsx: no table that is known: \.csv, \.tsv"),
        ("a.csv", b"text,label\ncaf\xe9,x\n", "", r"a\.csv:2: not UTF-8"),
        ("RTE.csv", "text,label\na,x\n", "", "RTE is one of the tasks that are known: give --name"),
        ("a.csv", "text,label\na,x\n", "--name a/b", "cannot be the name of a folder: give --name"),
    ],
)
def test_bad_rows_are_named(tmp_path, name, content, more, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as error:
        own.read(request(path, *more.format(path).split()))
    assert "\n" not in str(error.value)


def test_labels_of_the_validation_must_have_been_trained(tmp_path):
    train = write_csv(tmp_path / "train.csv", ["text", "label"], [["a", "x"], ["b", "y"]])
    valid = write_csv(tmp_path / "valid.csv", ["text", "label"], [["a", "x"], ["b", "z"]])
    with pytest.raises(UserError, match=r"valid\.csv:3: the label 'z' is not in the training data"):
        own.read(request(train, "--valid", str(valid)))


@pytest.mark.parametrize(
    "arguments,message",
    [
        ("RTE plain --train a.csv", "a TASK and --train: give one of them"),
        ("plain --train a.csv --method plain", "a TASK and --train"),
        ("--train none.csv --method plain", r"none\.csv: no such file"),
        ("--train none.csv", "name a METHOD"),
        ("RTE", "name a METHOD"),
        ("RTE plain --method rat", "METHOD and --method: give one of them"),
        ("--method plain", "name a TASK .*--train"),
        ("RTE plain --text review", "--text does nothing without --train"),
        ("--train a.csv --method plain --data-dir x", "--data-dir does nothing with --train"),
    ],
)
def test_bad_requests_name_the_knob(arguments, message):
    with pytest.raises(SystemExit, match=f"^adv-plugins finetune: error: .*{message}"):
        finetune.main([*arguments.split(), "--from-scratch"])


def test_scores_and_classes_are_told_apart(tmp_path):
    def kind(labels, *more):
        rows = [[f"text {n}", label] for n, label in enumerate(labels)]
        path = write_csv(tmp_path / "a.csv", ["text", "label"], rows)
        return own.read(request(path, "--valid", str(path), *more)).labels

    assert kind(["b", "a", "c", "so so"]) == ("a", "b", "c", "so so")
    assert kind(["10", "9", "1"]) == ("1", "9", "10"), "numbers in their order"
    assert kind(["1.5", "2", "3"]) == ()
    assert kind(map(str, range(60))) == ()
    assert kind(["1", "2"], "--label-kind", "scores") == ()
    assert kind(["1.5", "2"], "--label-kind", "classes") == ("1.5", "2")


@pytest.mark.parametrize("every", [4, 7, 10, 20])
def test_a_tenth_of_each_class_is_held_out_always_alike(tmp_path, every):
    rows = [[sentence(n) + f" {n}", "rare" if n % every == 0 else "usual"] for n in range(200)]
    path = write_csv(tmp_path / "a.csv", ["text", "label"], rows)
    data, again = own.read(request(path)), own.read(request(path))
    train, valid = data.splits["train"], data.splits["valid"]
    for label in ("rare", "usual"):
        there = sum(row[1] == label for row in rows)
        assert (valid.labels or []).count(label) == there // 10
    assert sorted([*train.lines, *valid.lines]) == list(range(2, 202)), "each row once"
    assert again.splits["valid"].lines == valid.lines
    assert own.read(request(path, "--valid", str(path))).splits["train"].lines == list(range(2, 202))


def test_the_report_tells_what_spoils_a_score(tmp_path):
    rows = [[f"text {n}", "usual"] for n in range(30)] + [["text 3", "rare"], ["text 4", "rare"]]
    train = write_csv(tmp_path / "train.csv", ["text", "label"], rows)
    valid = write_csv(tmp_path / "v.csv", ["text", "label"], [["text 5", "usual"], ["new", "rare"]])
    lines = own.report(own.read(request(train, "--valid", str(valid), "--name", "mine")))
    shown = "\n".join(lines)
    assert "mine: 32 rows to train on, 2 to validate" in shown
    assert "classes: rare 2, usual 30; always the most frequent one would be right 93.8 %" in shown
    assert "imbalanced: one class has 15 times" in shown
    assert "2 texts have several labels (the first: 'usual' in line 5, 'rare' in line 32)" in shown
    assert "1 of the rows to validate with are trained on, too" in shown
    rows = [[f"text {n}", f"{n}.5"] for n in range(30)]
    scores = write_csv(tmp_path / "s.csv", ["text", "label"], rows)
    shown = "\n".join(own.report(own.read(request(scores))))
    assert "scores: 0.5 to 29.5" in shown and "divide them" in shown and "a tenth, held out" in shown


def test_padding_is_what_batches_of_these_lengths_have():
    sizes = np.array([2, 8] * 100)
    assert lengths.padding(sizes, 1) == 0
    assert lengths.padding(sizes, 200) == pytest.approx(1 - 5 / 8)
    assert lengths.padding(sizes, 4, pool=50) == 0 < lengths.padding(sizes, 4)


KINDS = {
    "classes": ("--text review --label stars", ["bad", "so so", "good"]),
    "scores": ("--text review --label stars", [f"{n / 8}" for n in range(8)]),
    "pairs": ("--text review --text2 second --label stars", ["yes", "no"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_from_a_table_to_predictions_and_scores(kind, tmp_path, monkeypatch, capsys):
    """On whole words, so that no encoder is needed; in place of fairseq-train, this process trains."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        runs, "run_in_foreground", lambda command, *_, **__: training.run(command[1:]) or 0
    )
    columns, labels = KINDS[kind]
    rows = [[sentence(n), sentence(n + 1), labels[n % len(labels)]] for n in range(60)]
    path = write_csv(tmp_path / "reviews.csv", ["review", "second", "stars"], rows)
    line = f"--train {path} {columns} --method rdrop --from-scratch --arch bilstm"
    sizes = "--encoder-embed-dim 8 --encoder-hidden-size 4 --cpu --num-workers 0 --max-epoch 1"
    assert finetune.main([*line.split(), "--", *sizes.split()]) == 0
    shown = capsys.readouterr().out
    assert "60 rows" in shown or "54 rows to train on, 6 to validate" in shown
    assert "tokens: median" in shown and "settings: lr" in shown
    inputs = own.read(request(path, *columns.split())).splits["train"].inputs
    words = [sum(len(text.split()) + 2 for text in texts) for texts in zip(*inputs)]
    assert lengths.lengths(tmp_path / "data-bin" / "reviews-bin").tolist() == words, "and two symbols"
    folder = tmp_path / "checkpoints" / "reviews" / "rdrop" / "seed1"
    result = json.loads((folder / "result.json").read_text())
    assert result["metric"] == ("pearson_and_spearman" if kind == "scores" else "accuracy")
    described = json.loads((folder / "architecture.json").read_text())
    if kind != "scores":
        assert sorted(described["labels"]) == sorted(labels)

    checkpoint = str(folder / "checkpoint_best.pt")
    texts = columns.partition(" --label")[0].split()
    predict.main([checkpoint, "--input", str(path), *texts, "--output", "found.txt"])
    found = (tmp_path / "found.txt").read_text().splitlines()
    assert len(found) == 60
    assert all(each in labels for each in found) or (kind == "scores" and all(map(float, found)))
    (tmp_path / "tabs").write_text(
        "".join("\t".join(row[: len(texts) // 2]) + "\n" for row in rows), encoding="utf-8"
    )
    predict.main([checkpoint, "--input", "tabs", "--output", "again.txt"])
    assert (tmp_path / "again.txt").read_text().splitlines() == found

    report = tmp_path / "report"
    labelled = ["--data", str(path), *columns.split(), "--bootstrap", "5", "--report", str(report)]
    evaluate.main([checkpoint, *labelled])
    scores = json.loads((report / "results.json").read_text())["scores"]["seed1"]
    if kind != "scores":
        right = np.mean([row[2] == each for row, each in zip(rows, found)])
        assert scores["accuracy"]["value"] == pytest.approx(100 * right)

    # Other rows in that file would silently be trained on as the old ones.
    write_csv(path, ["review", "second", "stars"], rows[:50])
    with pytest.raises(SystemExit, match="reviews-bin: was made of other files or columns"):
        finetune.main([*line.split(), "--seed", "2", "--", *sizes.split()])


def test_compare_takes_them_too(tmp_path, capsys):
    rows = [[sentence(n), "bad" if n % 2 else "good"] for n in range(60)]
    path = write_csv(tmp_path / "mine.csv", ["text", "label"], rows)
    line = f"--train {path} --from-scratch --arch bilstm --methods plain --seeds 1 2 --lr 1e-3"
    line += (
        f" --epochs 1 --batch 8 --data-bin {tmp_path / 'bin'} --out-dir {tmp_path / 'out'} --print-only"
    )
    assert compare.main([*line.split(), "--", *"--encoder-embed-dim 8 --cpu".split()]) == 0
    shown = capsys.readouterr().out
    assert "mine: 54 rows" in shown and "--num-classes 2" in shown and "mine/search-bin" in shown
    with pytest.raises(SystemExit, match="adv-plugins compare: error: name a TASK"):
        compare.main(["--from-scratch"])
