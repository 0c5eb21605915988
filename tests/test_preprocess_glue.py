"""GLUE preprocessing against fairseq's own: the same ids, the same bytes, and no silent faults."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fairseq import options
from fairseq.data import Dictionary, data_utils
from fairseq.data.encoders.gpt2_bpe_utils import get_encoder
from fairseq.tasks.sentence_prediction import SentencePredictionTask
from fairseq_cli import preprocess as fairseq_preprocess
from tokenizers import ByteLevelBPETokenizer

from adv_plugins_cli import preprocess
from adv_plugins_cli.command import UserError
from adv_plugins_cli.data import binarize
from adv_plugins_cli.data.glue_format import TASKS, read_split

ODD_TEXTS = [
    "Plain words, don't we'll it's 2024.",
    'He said "quoted and "unclosed',
    "non\u00a0breaking\u00a0 spaces\u2003and\u3000wide ones",
    "curly \u201cquotes\u201d \u2018single\u2019 \u2013 dash\u2026",
    "emoji \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea e\u0301",
    "trailing spaces   ",
    "   leading and   inner    runs",
    "<s> </s> <unk> <mask> <|endoftext|>",
    "line\u2028separator \x85 next \x1c file \x0b tab",
    "\u4e2d\u6587 \u0627\u0644\u0639\u0631\u0628 \u0939\u093f\u0928\u094d\u0926",
    "fractions \u00bd \u2167 x\u00b2",
    "",
]

# Per task: the official header of train and dev (None: no header), of test, and two rows.
OFFICIAL = {
    "CoLA": (None, "index\tsentence", ["gj04\t1\t\tOne.", "gj04\t0\t*\tTwo."]),
    "SST-2": ("sentence\tlabel", "index\tsentence", ["One. \t1", "Two. \t0"]),
    "MRPC": (
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        "index\t#1 ID\t#2 ID\t#1 String\t#2 String",
        ["1\t11\t12\tOne.\tTwo.", "0\t13\t14\tThree.\tFour."],
    ),
    "STS-B": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2",
        ["0\tg\tf\ty\t1\tn\tn\tOne.\tTwo.\t5.000", "1\tg\tf\ty\t1\tn\tn\tA\tB\t1.53333333333333"],
    ),
    "QQP": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        "id\tquestion1\tquestion2",
        ["7\t1\t2\tOne?\tTwo?\t0", "8\t3\t4\tThree?\tFour?\t1"],
    ),
    "MNLI": (
        "index\tpromptID\tpairID\tgenre\tbinary1\tbinary2\tparse1\tparse2\tsentence1\tsentence2"
        "\tlabel1\tgold_label",
        "index\tpromptID\tpairID\tgenre\tbinary1\tbinary2\tparse1\tparse2\tsentence1\tsentence2",
        [
            "0\t1\t1n\tg\tb\tb\tp\tp\tOne.\tTwo.\tentailment\tneutral",
            "1\t1\t1n\tg\tb\tb\tp\tp\tA\tB\tneutral\tcontradiction",
        ],
    ),
    "QNLI": (
        "index\tquestion\tsentence\tlabel",
        "index\tquestion\tsentence",
        ["0\tWho?\tThey.\tentailment", "1\tWhen?\tNow.\tnot_entailment"],
    ),
    "RTE": (
        "index\tsentence1\tsentence2\tlabel",
        "index\tsentence1\tsentence2",
        ["0\tOne.\tTwo.\tnot_entailment", "1\tA\tB\tentailment", "2\tC\tD\tnot_entailment"],
    ),
    "WNLI": (
        "index\tsentence1\tsentence2\tlabel",
        "index\tsentence1\tsentence2",
        ["0\tOne.\tTwo.\t1", "1\tA\tB\t0"],
    ),
}


def write_lines(path: Path, lines: list[str], end: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + end for line in lines).encode("utf-8"))


def write_official(glue_dir: Path, name: str) -> None:
    """Write a task's files in the official layout, the test file with its own columns."""
    task = TASKS[name]
    header, test_header, rows = OFFICIAL[name]
    labelled = ([] if header is None else [header]) + rows
    columns = list(task.columns_without_header) if header is None else header.split("\t")
    test_rows = [
        "\t".join(
            str(number) if column not in columns else fields[columns.index(column)]
            for column in test_header.split("\t")
        )
        for number, fields in enumerate(row.split("\t") for row in rows)
    ]
    for file_name in ("train.tsv", *task.valid_files):
        write_lines(glue_dir / name / file_name, labelled)
    for file_name in task.test_files:
        write_lines(glue_dir / name / file_name, [test_header, *test_rows])


@pytest.fixture(scope="module")
def bpe_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small byte-level BPE in fairseq's three files, its dictionary in another order."""
    folder = tmp_path_factory.mktemp("bpe")
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(ODD_TEXTS * 3, vocab_size=400, min_frequency=2)
    tokenizer.save_model(str(folder))
    (folder / "vocab.json").rename(folder / "encoder.json")
    (folder / "merges.txt").rename(folder / "vocab.bpe")
    ids = np.random.default_rng(0).permutation(tokenizer.get_vocab_size())
    write_lines(folder / "dict.txt", [f"{index} 1" for index in ids])
    return folder


def fairseq_indices(bpe_dir: Path, texts: list[str]) -> list[list[int]]:
    """fairseq's own way: BPE ids as text, then its dictionary, word by word."""
    encoder = get_encoder(str(bpe_dir / "encoder.json"), str(bpe_dir / "vocab.bpe"))
    dictionary = Dictionary.load(str(bpe_dir / "dict.txt"))
    return [[dictionary.index(str(index)) for index in encoder.encode(text)] for text in texts]


def run(glue_dir: Path, bpe_dir: Path, out_dir: Path, *more: object) -> None:
    options_ = ["--data-dir", glue_dir, "--bpe-dir", bpe_dir, "--out-dir", out_dir, *more]
    preprocess.run(preprocess.parse_arguments([str(option) for option in options_]))


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "preprocess.log"
    }


def test_gpt2_bpe_equals_fairseq(bpe_dir: Path) -> None:
    ours = binarize.Gpt2Bpe(bpe_dir).encode_batch(ODD_TEXTS)
    assert [array.tolist() for array in ours] == fairseq_indices(bpe_dir, ODD_TEXTS)


def test_gpt2_bpe_equals_fairseq_on_glue(real_data: Path) -> None:
    texts = list(ODD_TEXTS)
    for name in ("CoLA", "RTE", "MRPC", "STS-B"):
        for column in read_split(real_data / "glue" / name / "dev.tsv", TASKS[name]).inputs:
            texts += column[:400]
    ours = binarize.Gpt2Bpe(real_data / "gpt2_bpe").encode_batch(texts)
    assert [array.tolist() for array in ours] == fairseq_indices(real_data / "gpt2_bpe", texts)


def test_sentencepiece_equals_fairseq(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    from fairseq.data.encoders.sentencepiece_bpe import SentencepieceBPE, SentencepieceConfig

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text for text in ODD_TEXTS if text),
        model_prefix=str(tmp_path / "sp"), vocab_size=140, pad_id=3, minloglevel=2,
        hard_vocab_limit=False,
    )  # fmt: skip
    texts = [*ODD_TEXTS, "unseen \u0416 letters"]
    encoder = binarize.SentencePiece(tmp_path / "sp.model")
    encoder.dictionary.save(str(tmp_path / "dict.txt"))
    dictionary = Dictionary.load(str(tmp_path / "dict.txt"))
    reference = SentencepieceBPE(SentencepieceConfig(sentencepiece_model=str(tmp_path / "sp.model")))
    expected = [
        dictionary.encode_line(reference.encode(text), add_if_not_exist=False, append_eos=False).tolist()
        for text in texts
    ]
    ours = [array.tolist() for array in encoder.encode_batch(texts)]
    assert ours == expected
    assert dictionary.unk() in ours[-1]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_bytes_equal_fairseq_preprocess(tmp_path: Path, bpe_dir: Path, end: str) -> None:
    """RTE with odd texts, against what fairseq's GLUE script does with its columns."""
    pairs = list(zip(ODD_TEXTS, reversed(ODD_TEXTS), strict=True))
    labels = ["not_entailment" if index % 3 else "entailment" for index in range(len(pairs))]
    rows = [f"{i}\t{a}\t{b}\t{labels[i]}" for i, (a, b) in enumerate(pairs)]
    for name in ("train", "dev"):
        header = "\ufeffindex\tsentence1\tsentence2\tlabel"
        write_lines(tmp_path / "glue" / "RTE" / f"{name}.tsv", [header, *rows], end)
    run(tmp_path / "glue", bpe_dir, tmp_path / "out", "RTE")

    encoder = get_encoder(str(bpe_dir / "encoder.json"), str(bpe_dir / "vocab.bpe"))
    for index, column in enumerate(zip(*pairs, strict=True)):
        ids = [" ".join(map(str, encoder.encode(text.strip()))) for text in column]
        write_lines(tmp_path / f"input{index}", ids)
    write_lines(tmp_path / "label", labels)
    for name in ("input0", "input1", "label"):
        arguments = ["--only-source", "--destdir", str(tmp_path / "reference" / name)]
        arguments += ["--trainpref", str(tmp_path / name), "--validpref", str(tmp_path / name)]
        if name != "label":
            arguments += ["--srcdict", str(bpe_dir / "dict.txt")]
        fairseq_preprocess.main(options.get_preprocessing_parser().parse_args(arguments))
    assert files(tmp_path / "out" / "RTE-bin") == files(tmp_path / "reference")


@pytest.mark.parametrize("name", TASKS)
def test_official_columns(tmp_path: Path, bpe_dir: Path, name: str) -> None:
    write_official(tmp_path, name)
    run(tmp_path, bpe_dir, tmp_path, name)
    folder = tmp_path / f"{name}-bin"
    splits = ["train", "valid", "test", *(["valid1", "test1"] if name == "MNLI" else [])]
    texts = {
        "CoLA": [["One.", "Two."]],
        "SST-2": [["One.", "Two."]],
        "MRPC": [["One.", "Three."], ["Two.", "Four."]],
        "QQP": [["One?", "Three?"], ["Two?", "Four?"]],
        "QNLI": [["Who?", "When?"], ["They.", "Now."]],
        "RTE": [["One.", "A", "C"], ["Two.", "B", "D"]],
    }.get(name, [["One.", "A"], ["Two.", "B"]])
    dictionary = Dictionary.load(str(folder / "input0" / "dict.txt"))
    for index, column in enumerate(texts):
        expected = [[*ids, dictionary.eos()] for ids in fairseq_indices(bpe_dir, column)]
        for split in splits:
            data = data_utils.load_indexed_dataset(str(folder / f"input{index}" / split), dictionary)
            assert [item.tolist() for item in data] == expected
    assert len(list(folder.glob("input*"))) == len(texts)
    if TASKS[name].regression:
        assert (folder / "label" / "valid.label").read_text() == "1\n0.306667\n"
        assert sorted(path.name for path in (folder / "label").iterdir()) == [
            "train.label",
            "valid.label",
        ]
        return
    labels = Dictionary.load(str(folder / "label" / "dict.txt"))
    rows = [row.split("\t") for row in OFFICIAL[name][2]]
    place = {"CoLA": 1, "MRPC": 0}.get(name, -1)
    for split in splits:
        data = data_utils.load_indexed_dataset(str(folder / "label" / split), labels)
        if split.startswith("test"):
            assert data is None
        else:
            assert [labels[item[0]] for item in data] == [fields[place] for fields in rows]


def test_fairseq_task_reads_the_folder(tmp_path: Path, bpe_dir: Path) -> None:
    """Targets are numbered by the training file's counts, most frequent first."""
    write_official(tmp_path, "RTE")
    run(tmp_path, bpe_dir, tmp_path, "RTE")
    from argparse import Namespace

    settings = Namespace(
        data=str(tmp_path / "RTE-bin"), num_classes=2, regression_target=False, init_token=0,
        separator_token=2, no_shuffle=True, seed=1, shorten_data_split_list="", max_positions=512,
        shorten_method="none", tokens_per_sample=512, add_prev_output_tokens=False,
    )  # fmt: skip
    task = SentencePredictionTask.setup_task(settings)
    data = task.load_dataset("valid")
    assert [int(data[index]["target"]) for index in range(3)] == [0, 1, 0]


def test_labelled_test_file(tmp_path: Path, bpe_dir: Path) -> None:
    write_official(tmp_path, "STS-B")
    shutil.copy(tmp_path / "STS-B" / "dev.tsv", tmp_path / "STS-B" / "test.tsv")
    run(tmp_path, bpe_dir, tmp_path, "STS-B")
    assert (tmp_path / "STS-B-bin" / "label" / "test.label").read_text() == "1\n0.306667\n"


def test_qqp_drops_broken_rows_as_fairseq_does(
    tmp_path: Path, bpe_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_official(tmp_path, "QQP")
    train = tmp_path / "QQP" / "train.tsv"
    write_lines(train, [*train.read_text("utf-8").splitlines(), "9\t5\t6\tbroken"])
    run(tmp_path, bpe_dir, tmp_path, "QQP")
    assert "dropped 1 rows" in capsys.readouterr().out
    assert len(np.fromfile(tmp_path / "QQP-bin" / "label" / "train.bin", dtype=np.uint16)) == 4


def spoil(glue_dir: Path, name: str, fault: str) -> None:
    """Break one file of a task in the way that `fault` names."""
    folder = glue_dir / name
    train = (folder / "train.tsv").read_text("utf-8").splitlines()
    if fault == "missing column":
        train[0] = train[0].replace("label", "lable")
    elif fault == "a column twice":
        train = [line.replace("sentence1", "sentence2") for line in train]
        train[0] = train[0].replace("index", "sentence1")
    elif fault == "empty file":
        train = []
    elif fault == "infinite":
        train[1] = train[1].rsplit("\t", 1)[0] + "\tinf"
    elif fault == "empty split":
        train = train[:1]
    elif fault == "bad label":
        train[2] = train[2].rsplit("\t", 1)[0] + "\tmaybe"
    elif fault == "too few columns":
        train[1] = train[1].split("\t", 1)[1]
    elif fault == "too many columns":
        train[1] = "0\t" + train[1]
    elif fault == "another task's file":
        write_official(glue_dir, "CoLA")
        train = (glue_dir / "CoLA" / "train.tsv").read_text("utf-8").splitlines()
    elif fault == "score out of range":
        train[2] = train[2].rsplit("\t", 1)[0] + "\t5.5"
    elif fault == "not a number":
        train[1] = train[1].rsplit("\t", 1)[0] + "\tnan"
    elif fault == "no train file":
        (folder / "train.tsv").unlink()
        return
    elif fault == "not UTF-8":
        (folder / "train.tsv").write_bytes("\n".join(train).encode("utf-16"))
        return
    write_lines(folder / "train.tsv", train)


@pytest.mark.parametrize(
    ("name", "fault", "message"),
    [
        ("RTE", "missing column", r"RTE/train\.tsv:1: no column 'label'"),
        ("RTE", "another task's file", r"RTE/train\.tsv:1: no column 'sentence1'"),
        ("RTE", "empty split", r"RTE/train\.tsv:1: the file has no rows"),
        ("RTE", "a column twice", r"RTE/train\.tsv:1: the column 'sentence2' is there 2 times"),
        ("RTE", "empty file", r"RTE/train\.tsv:1: no header"),
        ("CoLA", "empty file", r"CoLA/train\.tsv"),
        ("STS-B", "infinite", r"STS-B/train\.tsv:2: bad score 'inf'"),
        ("RTE", "bad label", r"RTE/train\.tsv:3: bad label 'maybe'"),
        ("CoLA", "bad label", r"CoLA/train\.tsv:3: "),
        ("RTE", "too few columns", r"RTE/train\.tsv:2: 3 columns instead of 4"),
        ("RTE", "too many columns", r"RTE/train\.tsv:2: 5 columns instead of 4"),
        ("STS-B", "score out of range", r"STS-B/train\.tsv:3: bad score '5\.5'"),
        ("STS-B", "not a number", r"STS-B/train\.tsv:2: bad score 'nan'"),
        ("QNLI", "no train file", r"QNLI/train\.tsv: no such file.*--splits"),
        ("RTE", "not UTF-8", r"RTE/train\.tsv:1: not UTF-8"),
    ],
)
def test_bad_input_stops_before_writing(
    tmp_path: Path, bpe_dir: Path, name: str, fault: str, message: str
) -> None:
    """The sound task comes first and must not be written either."""
    write_official(tmp_path, "WNLI")
    write_official(tmp_path, name)
    if name == "CoLA":
        write_lines(tmp_path / "CoLA" / "train.tsv", ["a\t1\t\tOne.", "a\t0\t*\tTwo.", "a\t\t\tThree."])
    else:
        spoil(tmp_path, name, fault)
    with pytest.raises(UserError, match=message) as caught:
        run(tmp_path, bpe_dir, tmp_path / "out", "WNLI", name)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_existing_output_is_kept_unless_told(tmp_path: Path, bpe_dir: Path) -> None:
    write_official(tmp_path, "RTE")
    kept = tmp_path / "RTE-bin" / "kept"
    write_lines(kept, ["mine"])
    with pytest.raises(UserError, match="no folder of preprocessed data"):
        run(tmp_path, bpe_dir, tmp_path, "RTE", "--overwrite")
    write_lines(kept.parent / "input0" / "dict.txt", ["a 1"])
    with pytest.raises(UserError, match="--overwrite"):
        run(tmp_path, bpe_dir, tmp_path, "RTE")
    assert kept.exists()
    run(tmp_path, bpe_dir, tmp_path, "RTE", "--overwrite")
    assert not kept.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["RTE", "RTE-bin"]


def test_splits_without_train_need_a_label_dictionary(tmp_path: Path, bpe_dir: Path) -> None:
    """Validation data alone cannot tell which class is number 0."""
    write_official(tmp_path, "QNLI")
    (tmp_path / "QNLI" / "train.tsv").unlink()
    write_lines(tmp_path / "dict.txt", ["not_entailment 2", "entailment 1"])
    arguments = ["QNLI", "--splits", "valid", "test"]
    with pytest.raises(UserError, match="--label-dict"):
        run(tmp_path, bpe_dir, tmp_path, *arguments)
    run(tmp_path, bpe_dir, tmp_path, *arguments, "--label-dict", tmp_path / "dict.txt")
    stored = np.fromfile(tmp_path / "QNLI-bin" / "label" / "valid.bin", dtype=np.uint16)
    assert stored.tolist() == [5, 2, 4, 2]
    write_lines(tmp_path / "dict.txt", ["0 2", "1 1"])
    with pytest.raises(UserError, match=r"dev\.tsv:2: label 'entailment' is not in"):
        run(tmp_path, bpe_dir, tmp_path / "out", *arguments, "--label-dict", tmp_path / "dict.txt")
    assert not (tmp_path / "out").exists()


def test_label_without_training_rows_is_numbered_last(tmp_path: Path, bpe_dir: Path) -> None:
    """fairseq-preprocess would store it as unknown, which training turns into class -1."""
    write_official(tmp_path, "MNLI")
    run(tmp_path, bpe_dir, tmp_path, "MNLI")
    lines = (tmp_path / "MNLI-bin" / "label" / "dict.txt").read_text().splitlines()
    assert lines[:3] == ["contradiction 1", "neutral 1", "entailment 0"]
    assert not (tmp_path / "QNLI-bin" / "input0" / "train.bin").exists()


def test_every_official_file_is_parsed_once(
    tmp_path: Path, bpe_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adv_plugins_cli.data import glue_folder

    write_official(tmp_path, "RTE")
    parsed: list[str] = []
    read = glue_folder.read_split

    def counting(path: Path, *arguments: Any, **options: Any) -> Any:
        parsed.append(path.name)
        return read(path, *arguments, **options)

    monkeypatch.setattr(glue_folder, "read_split", counting)
    run(tmp_path, bpe_dir, tmp_path / "out", "RTE")
    assert sorted(parsed) == ["dev.tsv", "test.tsv", "train.tsv"]
