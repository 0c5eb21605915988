"""The rows that all checkpoints are evaluated on: a split of a task's data folder, or labelled text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adv_plugins_cli.checkpoints.trained_model import TrainedModel, describe
from adv_plugins_cli.command import UserError, read_lines
from adv_plugins_cli.data import own_tables

if TYPE_CHECKING:
    from adv_plugins_cli.checkpoints.predictor import Predictor
    from adv_plugins_cli.data.binarize import Indices, TextEncoder

NO_LABEL = -100  # of a token without a label of its own, as the task marks it
LABEL = "label"  # the last column's name, where a file has a header


@dataclass(frozen=True)
class TextRow:
    """texts: one a column; label: by its name, of a regression a number; place: for messages and
    reports; part: of its set, whose accuracy is told apart; group: rows that must be right together."""

    texts: tuple[str, ...]
    label: str
    place: str
    part: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Rows:
    """What a model reads of each row, and what it should say.

    sequences: of each row one (T,) array a call of the model (of a ranking one a choice). targets: of
    each row (1,) class or score, of token labelling (T,) classes with ``NO_LABEL`` elsewhere.
    """

    sequences: list[list[Indices]]
    targets: list[NDArray[Any]]

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, numbers: Sequence[int]) -> Rows:
        """Some of them, in this order."""
        return Rows([self.sequences[i] for i in numbers], [self.targets[i] for i in numbers])

    def lengths(self) -> list[int]:
        """The longest sequence of each row."""
        return [max(map(len, calls)) for calls in self.sequences]


def splits_of(model: TrainedModel) -> list[str]:
    """The splits in the folder of a model's data."""
    if model.task.raw_text:
        return sorted(path.stem for path in model.data.glob("*.jsonl"))
    return sorted(path.stem for path in (model.data / "input0").glob("*.idx"))


def check_split(model: TrainedModel, split: str) -> None:
    """Make sure that the folder of a model's data has this split.

    Raises:
        UserError: it has not.
    """
    known = splits_of(model)
    if split not in known:
        raise UserError(f"{model.data}: has no split {split}; it has {', '.join(known)} (--split)")


def read_split(predictor: Predictor, split: str) -> Rows:
    """The rows of a split as fairseq's task reads them, in the order of the official file.

    Raises:
        UserError: the split has no labels.
    """
    task = predictor.task
    task.load_dataset(split)
    dataset = task.dataset(split)
    found: dict[int, tuple[list[Indices], NDArray[Any]]] = {}
    for number in range(len(dataset)):
        batch = dataset.collater([dataset[number]])
        if batch.get("target") is None:
            raise UserError(f"{predictor.trained.data}: the split {split} has no labels (--split)")
        inputs = [batch[key] for key in sorted(batch) if key.startswith("net_input")]
        calls = predictor.cut([each["src_tokens"][0].numpy() for each in inputs], tell=False)
        target = batch["target"].view(-1).numpy()
        if predictor.trained.kind == "tokens":
            target = target[: len(calls[0])]
        found[int(batch["id"])] = calls, target
    ordered = [found[number] for number in sorted(found)]
    return Rows([calls for calls, _ in ordered], [target for _, target in ordered])


def read_labelled(path: Path, model: TrainedModel) -> list[TextRow]:
    """A labelled file: the texts parted by tabs, the label last; a header names the last column label.

    Raises:
        UserError: naming the line that is not so, or a label that the model does not know.
    """
    if model.kind not in ("classification", "regression"):
        raise UserError(
            f"{path}: a labelled file has sentences; {model.checkpoint} predicts {describe(model)}"
        )
    found: list[TextRow] = []
    for number, line in read_lines(path):
        fields = [field.strip() for field in line.split("\t")]
        if fields == [""] or (number == 1 and fields[-1].lower() == LABEL):
            continue
        place = f"{path}:{number}"
        if len(fields) - 1 not in model.columns():
            wanted = " or ".join(map(str, model.columns()))
            raise UserError(
                f"{place}: {len(fields)} columns; {model.checkpoint} reads {wanted}, then the label"
            )
        found.append(TextRow(tuple(fields[:-1]), fields[-1], place))
    if not found:
        raise UserError(f"{path}: the file has no rows")
    check_labels(found, model)
    return found


def read_table(path: Path, columns: Sequence[str], label: str, model: TrainedModel) -> list[TextRow]:
    """The same of a table with named columns: csv, tsv, JSON lines, parquet.

    Raises:
        UserError: naming the row that is not so.
    """
    if len(columns) not in model.columns():
        wanted = " or ".join(map(str, model.columns()))
        raise UserError(
            f"{path}: {len(columns)} texts a row (--text, --text2); {model.checkpoint} reads {wanted}"
        )
    found = [
        TextRow(
            tuple(own_tables.cell(row, column) for column in columns),
            own_tables.cell(row, label),
            row[0],
        )
        for row in own_tables.rows(path)
    ]
    if not found:
        raise UserError(f"{path}: the file has no rows")
    check_labels(found, model)
    return found


def check_labels(rows: Sequence[TextRow], model: TrainedModel) -> None:
    """Make sure that the model knows every label.

    Raises:
        UserError: naming the first row whose label it does not know.
    """
    for row in rows:
        if model.kind == "regression":
            score(row)
        elif row.label not in model.labels:
            raise UserError(
                f"{row.place}: the label {row.label!r}; {model.checkpoint} predicts {describe(model)}"
            )


def score(row: TextRow) -> float:
    """The number that a row of a regression has for a label.

    Raises:
        UserError: it is none.
    """
    try:
        value = float(row.label)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{row.place}: the label {row.label!r} is no number")
    return value


def encode_rows(predictor: Predictor, encoder: TextEncoder, rows: Sequence[TextRow]) -> Rows:
    """Labelled text as the model reads it."""
    from adv_plugins_cli.checkpoints.predictor import encode_texts

    trained = predictor.trained
    encoded = encode_texts(encoder, [row.texts for row in rows], trained.task)
    flat = predictor.cut([sequence for texts in encoded for sequence in predictor.sequences(texts)])
    calls = len(flat) // max(len(rows), 1)
    sequences = [flat[start : start + calls] for start in range(0, len(flat), calls)]
    if trained.kind == "regression":
        return Rows(sequences, [np.array([score(row)]) for row in rows])
    return Rows(sequences, [np.array([trained.labels.index(row.label)]) for row in rows])
