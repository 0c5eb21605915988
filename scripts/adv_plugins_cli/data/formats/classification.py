"""One or two sentences and a class: TNEWS, IFLYTEK, AG News, IMDB, ANLI, PAWS-QQP."""

from __future__ import annotations

import ast
import csv
import io
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from adv_plugins_cli.command import UserError, read_lines, read_text
from adv_plugins_cli.data.formats.common import (
    SEED,
    Format,
    Read,
    check_label,
    entry,
    first_file,
    json_lines,
    listed,
    make_split,
    need,
    one_line,
    read_files,
)
from adv_plugins_cli.data.glue_format import Split

# CLUE leaves out 105 and 111.
TNEWS = tuple(str(label) for label in range(100, 117) if label not in (105, 111))
IFLYTEK = tuple(str(label) for label in range(119))
AG_NEWS = ("1", "2", "3", "4")
IMDB = ("neg", "pos")
ANLI = ("entailment", "neutral", "contradiction")
# CLUE's files, or those of its few-shot edition
CLUE_FILES = {
    "train": ("train.json", "train_few_all.json"),
    "valid": ("dev.json", "dev_few_all.json"),
    "test": ("test.json", "test_public.json"),
}
# Of data sets without an official validation set (R-AT's appendix A holds out about as much).
HELD_OUT = 0.1
R_AT_AG_NEWS = 10_000 / 120_000  # its Table 6: 110,000 for training, 10,000 for validation
R_AT_IMDB = 0.1  # for validation, and as many for testing, of all 50,000
IMDB_ARCHIVE = "aclImdb_v1.tar.gz"
LONGEST_FIELD = 2**31 - 1  # of a CSV file: Python refuses more than 131,072 characters otherwise


def _clue(labels: Sequence[str]) -> Read:
    def read(path: Path) -> Split:
        rows = []
        for number, row in json_lines(path):
            place = f"{path}:{number}"
            label = None if row.get("label") is None else str(row["label"])
            if label is not None:
                check_label(label, labels, place)
            rows.append((number, (one_line(entry(row, "sentence", str, place)),), label))
        return make_split(path, rows)

    return lambda folder: read_files(folder, CLUE_FILES, read)


def hold_out(split: Split, share: float = HELD_OUT) -> dict[str, Split]:
    """Training rows, a random tenth of which (always the same) becomes the validation set."""
    import numpy as np

    order = np.random.default_rng(SEED).permutation(len(split.lines))
    count = round(share * len(order))
    return {
        "train": take(split, sorted(order[count:].tolist())),
        "valid": take(split, sorted(order[:count].tolist())),
    }


def take(split: Split, rows: Sequence[int]) -> Split:
    """Some rows of a split."""
    inputs = tuple([column[row] for row in rows] for column in split.inputs)
    labels = None if split.labels is None else [split.labels[row] for row in rows]
    return Split(split.path, inputs, labels, [split.lines[row] for row in rows], [])


def _ag_news(folder: Path, held_out: float = HELD_OUT) -> dict[str, Split]:
    def read(path: Path) -> Split:
        rows = []
        csv.field_size_limit(LONGEST_FIELD)
        reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
        try:
            for fields in reader:
                place = f"{path}:{reader.line_num}"
                if len(fields) != 3:
                    raise UserError(f"{place}: {len(fields)} columns instead of 3 (class, title, text)")
                label = check_label(fields[0], AG_NEWS, place)
                # In these files a backslash stands for a line break.
                text = one_line(" ".join(fields[1:]).replace("\\", " "))
                rows.append((reader.line_num, (text,), label))
        except csv.Error as error:
            raise UserError(f"{path}:{reader.line_num}: not CSV ({error})") from error
        return make_split(path, rows)

    train = need(first_file(folder, "train.csv"), folder, "train.csv")
    test = first_file(folder, "test.csv")
    return {**hold_out(read(train), held_out), **({"test": read(test)} if test else {})}


def _r_at_ag_news(folder: Path) -> dict[str, Split]:
    return _ag_news(folder, R_AT_AG_NEWS)


def _reviews(folder: Path, split: str) -> Split:
    """One half of IMDB, from its files or from the official archive; by label, then by name."""
    if not (folder / split).is_dir() and (folder / IMDB_ARCHIVE).is_file():
        return _archived_reviews(folder / IMDB_ARCHIVE, split)
    rows = []
    for label in IMDB:
        files = sorted((folder / split / label).glob("*.txt"))
        if not files:
            raise UserError(f"{folder / split / label}: no reviews (*.txt)")
        rows += [_review(str(file), read_text(file), label) for file in files]
    return make_split(folder / split, rows)


def _review(place: str, text: str, label: str) -> tuple[int, Sequence[str], str]:
    text = one_line(text.replace("<br />", " "))
    if not text:
        raise UserError(f"{place}: the review is empty")
    return 1, (text,), label


def _archived_reviews(archive: Path, split: str) -> Split:
    """The same from the archive, of which nothing is unpacked."""
    import tarfile

    found: dict[str, dict[str, str]] = {label: {} for label in IMDB}
    try:
        with tarfile.open(archive, "r:gz") as members:
            for member in members:
                *_, half, label, name = ("", "", *member.name.split("/"))
                if half == split and label in found and name.endswith(".txt") and member.isfile():
                    file = members.extractfile(member)
                    assert file is not None  # it is a file
                    found[label][name] = file.read().decode("utf-8")
    except (tarfile.TarError, EOFError, OSError, UnicodeDecodeError, zlib.error) as error:
        raise UserError(f"{archive}: is damaged, or is not IMDB's ({error})") from error
    rows = [
        _review(f"{archive}: {split}/{label}/{name}", text, label)
        for label in IMDB
        for name, text in sorted(found[label].items())
    ]
    if not rows:
        raise UserError(f"{archive}: no reviews of {split}")
    return make_split(archive, rows)


def _imdb(folder: Path) -> dict[str, Split]:
    archived = not (folder / "train").is_dir() and (folder / IMDB_ARCHIVE).is_file()
    has_test = archived or (folder / "test").is_dir()
    train = hold_out(_reviews(folder, "train"))
    return {**train, **({"test": _reviews(folder, "test")} if has_test else {})}


def _r_at_imdb(folder: Path) -> dict[str, Split]:
    """Both halves together, parted anew: 40,000, 5,000 and 5,000 reviews."""
    import numpy as np

    halves = [_reviews(folder, split) for split in ("train", "test")]
    rows = [
        (line, (text,), label)
        for half in halves
        for line, text, label in zip(half.lines, half.inputs[0], half.labels or [])
    ]
    whole = make_split(folder, rows)
    order = np.random.default_rng(SEED).permutation(len(rows)).tolist()
    count = round(R_AT_IMDB * len(rows))
    return {
        "train": take(whole, sorted(order[2 * count :])),
        "valid": take(whole, sorted(order[:count])),
        "test": take(whole, sorted(order[count : 2 * count])),
    }


def anli_rows(path: Path) -> list[tuple[int, Sequence[str], str | None]]:
    """The rows of one of ANLI's files."""
    names = {label[0]: label for label in ANLI}
    rows: list[tuple[int, Sequence[str], str | None]] = []
    for number, row in json_lines(path):
        place = f"{path}:{number}"
        label = check_label(entry(row, "label", str, place), tuple(names), place)
        pair = tuple(one_line(entry(row, name, str, place)) for name in ("context", "hypothesis"))
        rows.append((number, pair, names[label]))
    return rows


def _anli(folder: Path) -> dict[str, Split]:
    """Three rounds: one training set; valid is all rounds, valid1 to valid3 are each one; so is test."""
    found: dict[str, Split] = {}
    for split, file in (("train", "train"), ("valid", "dev"), ("test", "test")):
        rounds = []
        for number in (1, 2, 3):
            path = folder / f"R{number}" / f"{file}.jsonl"
            if not path.is_file() and split == "test":
                continue
            rounds.append(anli_rows(need(first_file(path.parent, path.name), path.parent, path.name)))
            one_round = make_split(path, rounds[-1])  # refuses an empty file, also of train
            if split != "train":
                found[f"{split}{number}"] = one_round
        if rounds:
            found[split] = make_split(folder, [row for rows in rounds for row in rows])
    return found


def _literal(field: str, place: str) -> str:
    """The official generator of PAWS-QQP writes Python's byte literals: b'...'."""
    if field[:2] in ("b'", 'b"'):
        try:
            return one_line(ast.literal_eval(field).decode("utf-8"))
        except (AttributeError, MemoryError, RecursionError, SyntaxError, ValueError) as error:
            raise UserError(f"{place}: not a literal: {field[:80]} ({error})") from None
    return one_line(field)


def paws_split(path: Path) -> Split:
    """One of PAWS's files."""
    rows, columns = [], ["id", "sentence1", "sentence2", "label"]
    for number, line in read_lines(path):
        place, fields = f"{path}:{number}", line.rstrip("\r").split("\t")
        if number == 1:
            if fields != columns:
                raise UserError(f"{place}: the header is not {' '.join(columns)}")
            continue
        if len(fields) != 4:
            raise UserError(f"{place}: {len(fields)} columns instead of 4")
        label = check_label(fields[3], ("0", "1"), place)
        rows.append((number, (_literal(fields[1], place), _literal(fields[2], place)), label))
    return make_split(path, rows)


def _paws(folder: Path) -> Mapping[str, Split]:
    return read_files(folder, {"train": ("train.tsv",), "valid": ("dev_and_test.tsv",)}, paws_split)


TASKS = (
    # R-AT's sizes of CLUE's tasks are the official ones.
    Format("TNEWS", "classification", TNEWS, _clue(TNEWS), listed(CLUE_FILES), r_at=_clue(TNEWS)),
    Format(
        "IFLYTEK", "classification", IFLYTEK, _clue(IFLYTEK), listed(CLUE_FILES), r_at=_clue(IFLYTEK)
    ),
    Format("AG-News", "classification", AG_NEWS, _ag_news, "train.csv, test.csv", r_at=_r_at_ag_news),
    Format(
        "IMDB",
        "classification",
        IMDB,
        _imdb,
        f"{{train,test}}/{{pos,neg}}/*.txt, or {IMDB_ARCHIVE}",
        folders=("aclImdb",),
        r_at=_r_at_imdb,
    ),
    Format(
        "ANLI",
        "classification",
        ANLI,
        _anli,
        "R1, R2 and R3, each with train.jsonl, dev.jsonl and perhaps test.jsonl",
        folders=("anli_v1.0",),
    ),
    Format("PAWS-QQP", "classification", ("0", "1"), _paws, "train.tsv, dev_and_test.tsv"),
)
