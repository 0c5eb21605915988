"""The official GLUE files: what each task's columns mean, and a reader that checks them.

The files look like TSV but are not what a CSV reader expects: fields hold unescaped double quotes,
so a CSV reader swallows rows. Here a line is split at tabs and nothing else. Every complaint names
the file and the line, because a shifted column otherwise trains without any error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from adv_plugins_cli.command import UserError, read_lines


@dataclass(frozen=True)
class GlueTask:
    """One GLUE task; `inputs` and `label` are column names of the official header."""

    name: str
    inputs: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    # MNLI has two sets of validation and test files; fairseq calls the second valid1 and test1.
    valid_files: tuple[str, ...] = ("dev.tsv",)
    test_files: tuple[str, ...] = ("test.tsv",)
    # CoLA's train and dev files have no header (its test file does).
    columns_without_header: tuple[str, ...] = ()
    # The official QQP files have rows broken by line feeds; fairseq's script drops them.
    skip_misshapen_rows: bool = False

    @property
    def regression(self) -> bool:
        """Scores instead of classes: STS-B."""
        return not self.labels

    def files(self, split: str) -> dict[str, str]:
        """Map fairseq's names of one split (`train`, `valid` or `test`) to official file names."""
        names = {"train": ("train.tsv",), "valid": self.valid_files, "test": self.test_files}[split]
        return {f"{split}{index or ''}": name for index, name in enumerate(names)}


ENTAILMENT = ("entailment", "not_entailment")
SENTENCES = ("sentence1", "sentence2")
MAXIMUM_SCORE = 5.0

TASKS = {
    task.name: task
    for task in (
        GlueTask(
            name="CoLA",
            inputs=("sentence",),
            label="label",
            labels=("0", "1"),
            metrics=("mcc",),
            columns_without_header=("source", "label", "original_label", "sentence"),
        ),
        GlueTask(
            name="SST-2",
            inputs=("sentence",),
            label="label",
            labels=("0", "1"),
            metrics=("accuracy",),
        ),
        GlueTask(
            name="MRPC",
            inputs=("#1 String", "#2 String"),
            label="Quality",
            labels=("0", "1"),
            metrics=("accuracy", "f1"),
        ),
        GlueTask(
            name="STS-B",
            inputs=SENTENCES,
            label="score",
            labels=(),
            metrics=("pearson", "spearman"),
        ),
        GlueTask(
            name="QQP",
            inputs=("question1", "question2"),
            label="is_duplicate",
            labels=("0", "1"),
            metrics=("accuracy", "f1"),
            skip_misshapen_rows=True,
        ),
        GlueTask(
            name="MNLI",
            inputs=SENTENCES,
            label="gold_label",
            labels=("contradiction", "entailment", "neutral"),
            metrics=("accuracy",),
            valid_files=("dev_matched.tsv", "dev_mismatched.tsv"),
            test_files=("test_matched.tsv", "test_mismatched.tsv"),
        ),
        GlueTask(
            name="QNLI",
            inputs=("question", "sentence"),
            label="label",
            labels=ENTAILMENT,
            metrics=("accuracy",),
        ),
        GlueTask(
            name="RTE",
            inputs=SENTENCES,
            label="label",
            labels=ENTAILMENT,
            metrics=("accuracy",),
        ),
        GlueTask(
            name="WNLI",
            inputs=SENTENCES,
            label="label",
            labels=("0", "1"),
            metrics=("accuracy",),
        ),
    )
}


class Row(NamedTuple):
    """One example, with the number of its line for messages."""

    line: int
    inputs: tuple[str, ...]
    label: str | None


@dataclass(frozen=True)
class Split:
    """One file: `inputs[i][row]` is the text of input i; `labels` is None in an unlabelled file.

    Of two kinds of lines a user is told how many there are: `skipped_lines`, which are no examples, and
    `mended_lines`, whose fault the reader could put right.
    """

    path: Path
    inputs: tuple[list[str], ...]
    labels: list[str] | None
    lines: list[int]
    skipped_lines: list[int]
    mended_lines: list[int] = field(default_factory=list)


def _check_label(task: GlueTask, label: str, place: str) -> None:
    if not task.regression:
        if label not in task.labels:
            raise UserError(f"{place}: bad label {label!r}; {task.name} has {', '.join(task.labels)}")
        return
    try:
        score = float(label)
    except ValueError:
        score = math.nan
    if not 0 <= score <= MAXIMUM_SCORE:
        raise UserError(
            f"{place}: bad score {label!r}; {task.name} has numbers from 0 to {MAXIMUM_SCORE:g}"
        )


def _positions(
    task: GlueTask, columns: list[str], labelled: bool, place: str
) -> tuple[list[int], int | None]:
    """Find the columns of the inputs and, where there is one, of the label."""
    wanted = [*task.inputs, task.label] if labelled else list(task.inputs)
    for name in wanted:
        if name not in columns:
            found = ", ".join(columns)
            raise UserError(
                f"{place}: no column {name!r} in the header ({found[:200]}); "
                f"is this the official {task.name} file?"
            )
        if columns.count(name) > 1:
            raise UserError(f"{place}: the column {name!r} is there {columns.count(name)} times")
    label = columns.index(task.label) if task.label in columns else None
    return [columns.index(name) for name in task.inputs], label


def rows(path: Path, task: GlueTask, *, test: bool, skipped: list[int]) -> Iterator[Row]:
    """Yield the checked rows of one file; a test file may lack labels.

    Texts are stripped as fairseq's own encoder script strips its lines. Numbers of dropped lines
    (QQP only, see `GlueTask.skip_misshapen_rows`) are appended to `skipped`.
    """
    lines = read_lines(path)
    if task.columns_without_header and not test:
        columns = list(task.columns_without_header)
        place = f"{path}:1"
    else:
        number, header = next(lines, (1, ""))
        if not header.strip():
            raise UserError(f"{path}:{number}: no header; the file has no rows")
        columns = [name.strip() for name in header.split("\t")]
        place = f"{path}:{number}"
    inputs, label = _positions(task, columns, not test, place)
    for number, line in lines:
        place = f"{path}:{number}"
        fields = line.split("\t")
        if len(fields) != len(columns):
            if task.skip_misshapen_rows and not test:
                skipped.append(number)
                continue
            raise UserError(
                f"{place}: {len(fields)} columns instead of {len(columns)}; "
                f"is this the official {task.name} file?"
            )
        value = None if label is None else fields[label].strip()
        if value is not None:
            _check_label(task, value, place)
        yield Row(number, tuple(fields[index].strip() for index in inputs), value)


def read_split(path: Path, task: GlueTask, *, test: bool = False) -> Split:
    """Read and check one whole file; raises UserError on the first fault."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; {task.name} needs it")
    skipped: list[int] = []
    found = list(rows(path, task, test=test, skipped=skipped))
    if not found:
        raise UserError(f"{path}:1: the file has no rows")
    inputs = tuple([row.inputs[index] for row in found] for index in range(len(task.inputs)))
    labels = [row.label for row in found if row.label is not None]
    return Split(path, inputs, labels or None, [row.line for row in found], skipped)
