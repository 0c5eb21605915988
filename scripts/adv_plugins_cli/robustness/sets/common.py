"""What all sets share: their description, what their labels mean to a model, and their tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adv_plugins_cli.checkpoints.trained_model import TrainedModel, describe
from adv_plugins_cli.command import UserError, read_text
from adv_plugins_cli.data.formats.common import one_line
from adv_plugins_cli.robustness.rows import TextRow

# A label of the set -> those of the model that it is right with.
Meaning = Mapping[str, tuple[str, ...]]

SENTIMENT: tuple[Meaning, ...] = (
    {"negative": ("0",), "positive": ("1",)},  # SST-2
    {"negative": ("neg",), "positive": ("pos",)},  # IMDB
    {"negative": ("negative",), "positive": ("positive",)},
)
INFERENCE: tuple[Meaning, ...] = (
    {
        "entailment": ("entailment",),
        "neutral": ("neutral",),
        "contradiction": ("contradiction",),
    },
    # RTE and QNLI do not tell the other two apart
    {
        "entailment": ("entailment",),
        "neutral": ("not_entailment",),
        "contradiction": ("not_entailment",),
    },
)
ENTAILMENT: tuple[Meaning, ...] = (
    {"entailment": ("entailment",), "not_entailment": ("not_entailment",)},
    {"entailment": ("entailment",), "not_entailment": ("neutral", "contradiction")},
)
PARAPHRASE: tuple[Meaning, ...] = ({"0": ("0",), "1": ("1",)},)


@dataclass(frozen=True)
class TextSet:
    """One set of labelled text.

    read: from its official file or folder; meanings: of its labels, of which the first is taken that
    has just the model's labels; texts: how many a row has; expects: the official file, in words.
    """

    name: str
    texts: int
    meanings: Sequence[Meaning]
    read: Callable[[Path], list[TextRow]]
    expects: str
    paper: str

    def meaning_among(self, labels: Sequence[str]) -> Meaning | None:
        """What its labels are among these; None if they are no such."""
        for meaning in self.meanings:
            if {label for each in meaning.values() for label in each} == set(labels):
                return meaning
        return None

    def meaning(self, model: TrainedModel) -> Meaning:
        """What its labels are among the model's.

        Raises:
            UserError: the model predicts something else, or reads another number of texts.
        """
        found = self.meaning_among(model.labels)
        if found is not None and model.kind == "classification" and self.texts in model.columns():
            return found
        ours = " or ".join(
            ", ".join(dict.fromkeys(label for labels in meaning.values() for label in labels))
            for meaning in self.meanings
        )
        raise UserError(
            f"{model.checkpoint}: predicts {describe(model)} of {model.columns()[0]} texts; the set "
            f"{self.name} is for models of {self.texts} with the classes {ours}"
        )


def checked(rows: Sequence[TextRow], meanings: Sequence[Meaning], path: Path) -> list[TextRow]:
    """Rows whose labels are the set's.

    Raises:
        UserError: naming the first one whose label is not, or that there are none.
    """
    known = set(meanings[0])
    for row in rows:
        if row.label not in known:
            names = ", ".join(meanings[0])
            raise UserError(f"{row.place}: bad label {row.label!r}; the set has {names}")
        if not all(row.texts):
            raise UserError(f"{row.place}: an empty text")
    if not rows:
        raise UserError(f"{path}: the file has no rows")
    return list(rows)


def table(path: Path, *columns: str, quoted: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The wanted columns of each row of a table with a header, parted by tabs: place and fields.

    Args:
        quoted: whether a field in double quotes is one, as csv writes it; else quotes are text.

    Raises:
        UserError: there is no such file, or no such table in it.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(
        io.StringIO(read_text(path), newline=""),
        delimiter="\t",
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
    )
    try:
        header = next(reader, [])
        missing = [column for column in columns if column not in header]
        if missing:
            raise UserError(f"{path}:1: no column {', '.join(missing)}; is this the official file?")
        places = [header.index(column) for column in columns]
        for fields in reader:
            place = f"{path}:{reader.line_num}"
            if not fields:
                continue
            if len(fields) != len(header):
                raise UserError(f"{place}: {len(fields)} columns, the header has {len(header)}")
            yield place, tuple(one_line(fields[at]) for at in places)
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: no such table ({error})") from error


def plain(text: str) -> str:
    """A review without its line breaks of HTML."""
    return one_line(text.replace("<br />", " "))
