"""GLUE's own files, which attacks in text begin with."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from adv_plugins_cli.command import UserError
from adv_plugins_cli.data.glue_format import TASKS, GlueTask, Split, read_split
from adv_plugins_cli.robustness.rows import TextRow
from adv_plugins_cli.robustness.sets.common import TextSet


def rows_of(split: Split) -> list[TextRow]:
    """The rows of a split, which has labels."""
    assert split.labels is not None
    texts = zip(*split.inputs)
    return [
        TextRow(row, label, f"{split.path}:{line}")
        for row, label, line in zip(texts, split.labels, split.lines)
    ]


def read(path: Path, *, task: GlueTask) -> list[TextRow]:
    """One of the task's labelled files."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    return rows_of(read_split(path, task))


SETS = tuple(
    TextSet(
        task.name,
        len(task.inputs),
        ({label: (label,) for label in task.labels},),
        partial(read, task=task),
        f"{task.valid_files[0]}, or another labelled file",
        "https://arxiv.org/abs/1804.07461",
    )
    for task in TASKS.values()
    if not task.regression
)
