"""Words as a vocabulary, R-AT's splits, and trainings from scratch from raw text to predictions."""

import io
import json
import tarfile
from argparse import Namespace

import pytest

from adv_plugins_cli import compare, finetune, paper, predict, preprocess
from adv_plugins_cli.command import UserError
from adv_plugins_cli.data.formats import TASKS
from adv_plugins_cli.data.tokenizer_options import Tokenizer, find_tokenizer, load_encoder
from adv_plugins_cli.data.words import Words
from adv_plugins_cli.recipes import recipes

GOOD, BAD = "A fine, fine film!<br />I liked it.", "Bad: the worst film; don't go."
TINY = "--encoder-embed-dim 8 --kernel-sizes 2,3 --kernel-maps 4".split()


def write_reviews(root, count=20):
    """IMDB's archive, with so many reviews in each of its four folders."""
    root.mkdir(parents=True)
    with tarfile.open(root / "aclImdb_v1.tar.gz", "w:gz") as archive:
        for split in ("train", "test"):
            for label, review in (("pos", GOOD), ("neg", BAD)):
                for number in range(count):
                    text = f"{review} {split} {number}".encode()
                    entry = tarfile.TarInfo(f"aclImdb/{split}/{label}/{number}_7.txt")
                    entry.size = len(text)
                    archive.addfile(entry, io.BytesIO(text))
            noise = tarfile.TarInfo(f"aclImdb/{split}/unsup/0_0.txt")
            archive.addfile(noise, io.BytesIO(b""))
    return root


def run(tmp_path, *more, tasks=("IMDB",)):
    request = [*tasks, "--data-dir", str(tmp_path / "data"), "--out-dir", str(tmp_path / "bin")]
    return preprocess.run(preprocess.parse_arguments([*request, *more]))


def test_words_and_characters():
    texts = ["Don't stop, NOW now!", "now 价格12元 stop"]
    english = Words.of_texts("words", texts, size=100, minimum_count=1)
    known = english.dictionary
    # by their counts, then their letters; special symbols first
    assert known.symbols[4:] == ["now", "stop", "!", "'", ",", "don", "t", "价格12元"]
    assert known.count[4:7] == [3, 2, 1]
    (ids,) = english.encode_batch(["Don't go now"])
    assert [known[index] for index in ids] == ["don", "'", "t", "<unk>", "now"]
    chinese = Words.of_texts("characters", texts, size=100, minimum_count=1)
    (ids,) = chinese.encode_batch(["价格 12元"])
    assert [chinese.dictionary[index] for index in ids] == ["价", "格", "12", "元"]
    small = Words.of_texts("words", texts, size=100, minimum_count=2)
    assert small.dictionary.symbols[4:] == ["now", "stop"]
    assert len(Words.of_texts("words", texts, size=1, minimum_count=1).dictionary) == 5
    with pytest.raises(UserError, match="--minimum-count 9: no word"):
        Words.of_texts("words", texts, size=9, minimum_count=9)
    # what a text calls a special symbol is none
    assert english.dictionary.eos() not in english.encode_batch(["</s> <s>"])[0]


def test_imdb_is_read_from_its_archive_and_parted_as_r_at_does(tmp_path):
    folder = write_reviews(tmp_path / "IMDB")
    official = TASKS["IMDB"].reader("official")(folder)
    assert {name: len(split.lines) for name, split in official.items()} == {
        "train": 36,
        "valid": 4,
        "test": 40,
    }
    assert all(" test " in text for text in official["test"].inputs[0])
    ours = TASKS["IMDB"].reader("r-at")(folder)
    assert {name: len(split.lines) for name, split in ours.items()} == {
        "train": 64,
        "valid": 8,
        "test": 8,
    }
    texts = [text for split in ours.values() for text in split.inputs[0]]
    assert len(set(texts)) == 80
    assert {" train " in text for text in ours["test"].inputs[0]} == {True, False}
    again = TASKS["IMDB"].reader("r-at")(folder)
    assert again["test"].inputs == ours["test"].inputs
    for text, label in zip(ours["test"].inputs[0], ours["test"].labels or []):
        assert text.startswith("A fine") == (label == "pos") and "<br" not in text
    (folder / "aclImdb_v1.tar.gz").write_bytes((folder / "aclImdb_v1.tar.gz").read_bytes()[:300])
    with pytest.raises(UserError, match=r"aclImdb_v1.tar.gz: is damaged"):
        TASKS["IMDB"].read(folder)


def test_r_ats_sizes_of_the_whole(real_data):
    ours = TASKS["IMDB"].reader("r-at")(real_data / "IMDB")
    assert {name: len(split.lines) for name, split in ours.items()} == {
        "train": 40000,
        "valid": 5000,
        "test": 5000,
    }


def test_a_vocabulary_is_of_the_training_set_and_lies_beside_the_data(tmp_path):
    write_reviews(tmp_path / "data" / "IMDB")
    run(tmp_path, "--whole-words", "words", "--split", "r-at", "--minimum-count", "1")
    place = tmp_path / "bin" / "IMDB-bin" / "input0"
    assert json.loads((place / "words.json").read_text()) == {"splitter": "words"}
    found = find_tokenizer(place)
    assert found == Tokenizer("words", place, ("words.json",))
    encoder = load_encoder(found)
    (ids,) = encoder.encode_batch(["A FINE film"])
    assert [encoder.dictionary[index] for index in ids] == ["a", "fine", "film"]
    # the same vocabulary for other data
    request = ["IMDB", f"--data-dir={tmp_path / 'data'}", f"--out-dir={tmp_path / 'other'}"]
    preprocess.run(preprocess.parse_arguments([*request, *found.arguments()]))
    other = tmp_path / "other" / "IMDB-bin" / "input0"
    assert (other / "dict.txt").read_bytes() == (place / "dict.txt").read_bytes()


@pytest.mark.parametrize(
    "flags,message",
    [
        (
            ("--whole-words", "letters"),
            "letters.words.json: no such file; --whole-words takes words or characters",
        ),
        (("--whole-words", "words", "--minimum-count", "1000"), "--minimum-count 1000: no word"),
    ],
)
def test_bad_requests_name_the_knob(tmp_path, flags, message):
    write_reviews(tmp_path / "data" / "IMDB")
    with pytest.raises(UserError, match=message):
        run(tmp_path, *flags)
    assert not (tmp_path / "bin" / "IMDB-bin").exists()


def test_a_split_that_a_task_does_not_have(tmp_path):
    with pytest.raises(UserError, match="--split r-at: RTE has the official split alone"):
        run(tmp_path, "--whole-words", "words", "--split", "r-at", tasks=("RTE",))
    (tmp_path / "data" / "ANLI").mkdir(parents=True)
    with pytest.raises(UserError, match="--split r-at: ANLI is no task of R-AT's Table 6"):
        run(tmp_path, "--whole-words", "words", "--split", "r-at", tasks=("ANLI",))


def test_from_raw_text_to_predictions(tmp_path, capfd):
    """finetune makes data and vocabulary, resumes nothing, and its folder is enough for predict."""
    write_reviews(tmp_path / "data" / "IMDB")
    folder = tmp_path / "run"
    request = [
        *("IMDB", "rat", "--from-scratch", "--arch", "text_cnn", "--split", "r-at"),
        *("--data-dir", str(tmp_path / "data"), "--data-bin", str(tmp_path / "bin")),
        *("--save-dir", str(folder), "--", *TINY, "--max-epoch", "6", "--lr", "0.1"),
        *("--batch-size", "8", "--total-num-update", "48", "--max-update", "48"),
        *("--num-workers", "0", "--validate-interval", "6"),
    ]
    assert finetune.main(request) == 0
    result = json.loads((folder / "result.json").read_text())
    assert result["best"] == 100
    described = json.loads((folder / "architecture.json").read_text())
    assert described["flags"][:2] == ["--arch", "text_cnn"]
    assert described["tokenizer"]["kind"] == "words"
    assert set(described["tokenizer"]["files"]) == {"words.json", "dict.txt"}
    text = tmp_path / "texts.txt"
    text.write_text("fine fine film, I liked it\nthe worst film; don't go\n")
    capfd.readouterr()
    predict.main([str(folder / "checkpoint_best.pt"), "--input", str(text)])
    rows = capfd.readouterr().out.splitlines()
    assert "pos" in rows[-2] and "neg" in rows[-1]


def test_recipes_from_scratch(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "count_rows", lambda _: 640)
    for arch in ("bilstm", "text_cnn", "text_han"):
        rat = recipes.get_recipe("IMDB", "rat", arch=arch)
        assert (rat.lr, rat.batch, rat.flags) == ("1e-3", "64", "--consistency-weight 0.5 --adv-eps 5")
        start = recipes.Start.of(None, arch)
        command = rat.command(tmp_path, start=start, save_dir=tmp_path, seed=1)
        assert "--attention-dropout" not in command and "--init-token" not in command
        assert command[command.index("--dropout") + 1] == "0.5"
        assert command[command.index("--total-num-update") + 1] == "100"
    r3f = recipes.get_recipe("IMDB", "r3f", arch="bilstm")
    assert r3f.lr == "1e-3" and "method's own options" in r3f.source
    with pytest.raises(UserError, match="--arch text_han has no self-attention"):
        asa = recipes.get_recipe("IMDB", "asa", arch="bilstm")
        asa.command(tmp_path, start=start, save_dir=tmp_path, seed=1)
    (tmp_path / "model.pt").touch()
    with pytest.raises(UserError, match="--arch bilstm is trained from scratch"):
        recipes.Start.of(tmp_path / "model.pt", "bilstm")


def test_what_a_comparison_tries():
    def tried(arch, method):
        arguments = Namespace(arch=arch, lr=["1e-3"], user_dir=None)
        return [each["flags"] for each in compare.candidates(method, arguments, "1e-3")]

    assert [each.split()[-1] for each in tried("bilstm", "rat")] == ["1", "5", "9"]
    assert len({len(tried("text_cnn", method)) for method in ("rat", "fgm", "rdrop", "freelb")}) == 1
    assert tried(None, "rat") != tried("text_han", "rat")


@pytest.mark.parametrize(
    "own,reason",
    [
        (("--checkpoint", "x.pt"), "is of a BiLSTM, which is trained from scratch .--from-scratch."),
        (("--from-scratch", "--arch", "text_cnn"), "not of --arch text_cnn"),
    ],
)
def test_a_table_whose_rows_need_another_start(own, reason, tmp_path):
    with pytest.raises(SystemExit, match=f"rat-table8: the row 'CE Loss' .*{reason}.*; no row"):
        paper.main(["rat-table8", *own, "--out-dir", str(tmp_path)])


@pytest.mark.parametrize(
    "table,models",
    [
        ("rat-table3", {"bilstm": 6, "text_cnn": 6, "text_han": 6}),
        ("rat-table4", {"bilstm": 2, "text_cnn": 2, "text_han": 2}),
        ("rat-table8", {"bilstm": 6}),
        ("rat-figure2", {"bilstm": 16, "text_cnn": 16, "text_han": 16}),
        ("rat-figure3", {"bilstm": 25}),
        ("rat-figure5", {"bilstm": 25}),
    ],
)
def test_r_ats_tables_are_run_on_them(table, models, tmp_path, capsys):
    write_reviews(tmp_path / "data" / "IMDB")
    own = ["--arch", "bilstm"] if table in ("rat-figure3", "rat-figure5") else []
    request = [
        *(table, "--from-scratch", *own, "--tasks", "IMDB", "--print-only", "--split", "r-at"),
        *("--data-dir", str(tmp_path / "data"), "--data-bin", str(tmp_path / "bin")),
        *("--out-dir", str(tmp_path / "out")),
    ]
    assert paper.main(request) == 0
    shown = capsys.readouterr()
    lines = [line for line in shown.out.splitlines() if line.startswith("fairseq-train")]
    counts = {arch: sum(f"--arch {arch} " in line for line in lines) for arch in models}
    assert counts == models and len(lines) == sum(models.values())
    if table == "rat-table4":
        assert "left out: the row 'BERT-base, K = 2'" in shown.err
    if table == "rat-table3":
        assert sum("--dropout 0.5" in line and "--dropout 0 " in line for line in lines) == 3
