"""Data of the user's own: a table with a text or two and a label, as a task like the others."""

from __future__ import annotations

import argparse
import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adv_plugins_cli.command import UserError, read_json
from adv_plugins_cli.data.formats.common import SEED, Format, make_split
from adv_plugins_cli.data.glue_format import Split
from adv_plugins_cli.data.own_tables import READABLE, cell, rows
from adv_plugins_cli.data.task_folder import SOURCE

CLASSES, SCORES = "classes", "scores"
MOST_CLASSES = 50  # of whole numbers; more of them are scores, unless --label-kind says otherwise
HELD_OUT = 10  # every so manieth row, where --valid is not given
IMBALANCED = 10  # times as many rows of one class as of another
USUAL_NAMES = ("train", "training", "data")  # of a file, which say nothing of what is in it
OPTIONS = ("valid", "text", "text2", "label", "label_kind", "name")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add --train and what belongs to it."""
    own = parser.add_argument_group("data of your own, in the place of TASK")
    own.add_argument("--train", type=Path, metavar="FILE", help=READABLE)
    own.add_argument(
        "--valid", type=Path, metavar="FILE", help="(default: a tenth of --train is held out)"
    )
    own.add_argument("--text", metavar="COLUMN", help="the text (default: text)")
    own.add_argument("--text2", metavar="COLUMN", help="the second one, of pairs")
    own.add_argument("--label", metavar="COLUMN", help="its class or score (default: label)")
    own.add_argument(
        "--label-kind",
        choices=(CLASSES, SCORES),
        help=f"(default: scores if all are numbers, and fractions or more than {MOST_CLASSES}; "
        "else classes)",
    )
    own.add_argument("--name", help="what to call it (default: the file's name)")


class OwnFormat(Format):
    """A table, wherever it lies."""

    def find(self, data_dir: Path) -> Path:
        """Its folder."""
        return data_dir


@dataclass(frozen=True)
class OwnData:
    """name: of the task; labels: of its classes, in the order of their numbers, none of scores; splits:
    train and valid, that were read; held_out: whether valid is a part of --train; source: what says
    whether other data are the same."""

    name: str
    labels: tuple[str, ...]
    splits: Mapping[str, Split]
    held_out: bool
    source: Mapping[str, Any]

    @property
    def format(self) -> Format:
        """How it is preprocessed."""
        return OwnFormat(
            name=self.name,
            kind="classification" if self.labels else "scores",
            labels=self.labels,
            read=lambda _: self.splits,
            expects="",
            source=self.source,
        )

    def check_folder(self, data: Path) -> None:
        """Refuse data that were made of something else.

        Raises:
            UserError: saying what to do.
        """
        if not data.is_dir():
            return
        made_of = read_json(data / SOURCE) if (data / SOURCE).is_file() else None
        if made_of != dict(self.source):
            raise UserError(
                f"{data}: was made of other files or columns: give another --name, or delete it"
            )


def asked(arguments: argparse.Namespace, *, task: bool) -> bool:
    """Whether the data are the user's own.

    Args:
        task: whether a TASK was named.

    Raises:
        UserError: neither or both were named, or an option would do nothing.
    """
    if arguments.train is None:
        for option in OPTIONS:
            if getattr(arguments, option) is not None:
                raise UserError(f"--{option.replace('_', '-')} does nothing without --train")
        if not task:
            raise UserError("name a TASK (adv-plugins tasks lists them), or data of your own: --train")
        return False
    if task:
        raise UserError("a TASK and --train: give one of them (and the method with --method)")
    if arguments.data_dir is not None:
        raise UserError("--data-dir does nothing with --train")
    return True


def name_of(arguments: argparse.Namespace) -> str:
    """What the data are called.

    Raises:
        UserError: it cannot be the name of a folder, or is that of a task.
    """
    from adv_plugins_cli.preprocess import TASKS

    path = arguments.train.resolve()
    stem = path.name if path.is_dir() else path.stem
    name = arguments.name or (path.parent.name if stem.lower() in USUAL_NAMES else stem)
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(f"{name!r} cannot be the name of a folder: give --name")
    if name in TASKS and not isinstance(TASKS[name][1], OwnFormat):
        raise UserError(f"{name} is one of the tasks that are known: give --name")
    return name


def read(arguments: argparse.Namespace) -> OwnData:
    """Read and check it.

    Raises:
        UserError: naming the file and the row, or the option to change.
    """
    name = name_of(arguments)
    texts = [arguments.text or "text", *([arguments.text2] if arguments.text2 else [])]
    label = arguments.label or "label"
    train = _read(arguments.train, "train", texts, label)
    source: dict[str, Any] = {"train": _digest(arguments.train), "texts": texts, "label": label}
    assert train.labels is not None
    labels = () if _are_scores(train.labels, arguments.label_kind) else _classes(train)
    source["kind"] = CLASSES if labels else SCORES
    if arguments.valid is not None:
        valid = _read(arguments.valid, "valid", texts, label)
        source["valid"] = _digest(arguments.valid)
    else:
        train, valid = _hold_out(train, stratified=bool(labels))
    for split in (train, valid):
        _check_labels(split, labels)
    splits = {"train": train, "valid": valid}
    return OwnData(name, labels, splits, arguments.valid is None, source)


def _read(path: Path, split: str, texts: Sequence[str], label: str) -> Split:
    found = []
    for number, row in enumerate(rows(path, split), start=1):
        line = row[0].rpartition(":")[2]
        place = int(line) if line.isdecimal() else number
        found.append((place, [cell(row, text) for text in texts], cell(row, label)))
    return make_split(path, found)


def _digest(path: Path) -> dict[str, str]:
    """What says whether files are the same ones: their SHA-256."""
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    return {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in files}


def _number(label: str) -> float:
    try:
        return float(label)
    except ValueError:
        return math.nan


def _are_scores(labels: Sequence[str], kind: str | None) -> bool:
    if kind is not None:
        return kind == SCORES
    numbers = [_number(label) for label in labels]
    if not all(map(math.isfinite, numbers)):
        return False
    whole = all(number.is_integer() for number in numbers)
    return not whole or len(set(numbers)) > MOST_CLASSES


def _classes(split: Split) -> tuple[str, ...]:
    """Names of the classes: numbers in their order, else words in theirs."""
    assert split.labels is not None
    names = set(split.labels)
    if len(names) < 2:
        raise UserError(f"{split.path}: all rows have the label {names.pop()!r} (--label)")
    numeric = all(math.isfinite(_number(name)) for name in names)
    return tuple(sorted(names, key=lambda name: (_number(name), name) if numeric else (0.0, name)))


def _check_labels(split: Split, labels: Sequence[str]) -> None:
    """Refuse scores that are no numbers, and classes that were never trained."""
    for line, label in zip(split.lines, split.labels or ()):
        if labels and label not in labels:
            raise UserError(f"{split.path}:{line}: the label {label!r} is not in the training data")
        if not labels and not math.isfinite(_number(label)):
            raise UserError(f"{split.path}:{line}: the label {label!r} is no number (--label-kind)")


def _hold_out(split: Split, *, stratified: bool) -> tuple[Split, Split]:
    """A tenth of the rows, drawn always alike; of each class a tenth.

    Raises:
        UserError: there are too few rows.
    """
    import numpy as np

    order = np.random.default_rng(SEED).permutation(len(split.lines)).tolist()
    groups: dict[str, list[int]] = {}
    for number in order:
        group = split.labels[number] if stratified and split.labels else ""
        groups.setdefault(group, []).append(number)
    taken = {number for group in groups.values() for number in group[: len(group) // HELD_OUT]}
    if not taken:
        raise UserError(
            f"{split.path}: {len(split.lines)} rows are too few to hold a tenth out: give --valid"
        )
    kept = [number for number in range(len(split.lines)) if number not in taken]
    return _part(split, kept), _part(split, sorted(taken))


def _part(split: Split, numbers: Sequence[int]) -> Split:
    take: Callable[[Sequence[Any]], list[Any]] = lambda values: [values[n] for n in numbers]  # noqa: E731
    labels = None if split.labels is None else take(split.labels)
    return Split(split.path, tuple(map(take, split.inputs)), labels, take(split.lines), [])


def report(data: OwnData) -> list[str]:
    """What to know of the data before training, a line each: sizes, classes, contradictions, leaks."""
    import numpy as np

    train, valid = data.splits["train"], data.splits["valid"]
    assert train.labels is not None
    how = "a tenth, held out" if data.held_out else str(valid.path)
    lines = [f"{data.name}: {len(train.lines)} rows to train on, {len(valid.lines)} to validate ({how})"]
    if data.labels:
        counts = Counter(train.labels)
        total = len(train.lines)
        shown = ", ".join(f"{label} {counts[label]}" for label in data.labels[:20])
        most = max(counts.values())
        lines.append(
            f"classes: {shown}{' ...' if len(data.labels) > 20 else ''}; always the most frequent one "
            f"would be right {100 * most / total:.1f} % of the time"
        )
        least = min(counts.values())
        if most >= IMBALANCED * least:
            lines.append(
                f"imbalanced: one class has {most / least:.0f} times the rows of another; accuracy says "
                "little of the rare ones"
            )
    else:
        scores = np.array([float(label) for label in train.labels])
        lines.append(
            f"scores: {scores.min():g} to {scores.max():g}, mean {scores.mean():.3g}, standard "
            f"deviation {scores.std():.3g}"
        )
        if max(abs(scores.min()), abs(scores.max())) > 10:
            lines.append("such large scores are learnt slowly: divide them so that most are below 1")
    lines += _repeated(train, valid)
    return lines


def _repeated(train: Split, valid: Split) -> list[str]:
    """Texts with several labels, and those of the validation that are trained on."""
    known: dict[tuple[str, ...], dict[str, int]] = {}
    for line, label, *texts in zip(train.lines, train.labels or (), *train.inputs):
        known.setdefault(tuple(texts), {}).setdefault(label, line)
    lines = []
    contradictions = [labels for labels in known.values() if len(labels) > 1]
    if contradictions:
        where = ", ".join(f"{label!r} in line {line}" for label, line in contradictions[0].items())
        lines.append(f"{len(contradictions)} texts have several labels (the first: {where})")
    leaked = sum(tuple(texts) in known for texts in zip(*valid.inputs))
    if leaked:
        lines.append(f"{leaked} of the rows to validate with are trained on, too: scores will flatter")
    return lines
