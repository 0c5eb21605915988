"""GLUE's submission files: one prediction a line of the official test file, named as it wants them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adv_plugins_cli.checkpoints.ensemble import Predictions
from adv_plugins_cli.command import UserError, read_text
from adv_plugins_cli.data.glue_format import MAXIMUM_SCORE, GlueTask

# Our name of a test set -> the file that GLUE's server expects.
FILES = {("MNLI", "test"): "MNLI-m.tsv", ("MNLI", "test1"): "MNLI-mm.tsv"}
INDEX = ("index", "id")  # id in QQP's file


def file_name(task: GlueTask, split: str) -> str:
    """The name of the submission for one test set."""
    return FILES.get((task.name, split), f"{task.name}.tsv")


def read_indices(path: Path) -> list[str]:
    """What the official test file calls its rows: its first column.

    Raises:
        UserError: it is no such number.
    """
    header, *rows = (line.split("\t", 1)[0].strip() for line in read_text(path).split("\n"))
    if header not in INDEX:
        raise UserError(f"{path}: the first column is {header!r} instead of index (--glue-dir)")
    if rows and not rows[-1]:
        rows.pop()
    return rows


def lines(
    task: GlueTask, labels: Sequence[str], predictions: Predictions, indices: Sequence[str]
) -> list[str]:
    """The file's lines: a header, then index and prediction.

    Args:
        labels: the classes' names; predictions: of N rows, scores from 0 to 1; indices: the N rows'.
    """
    if task.regression:
        scores = np.clip(MAXIMUM_SCORE * predictions.values[:, 0], 0, MAXIMUM_SCORE)
        values = [f"{score:.3f}" for score in scores]
    else:
        values = [labels[index] for index in predictions.chosen]
    rows = [f"{index}\t{value}" for index, value in zip(indices, values, strict=True)]
    return ["index\tprediction", *rows]


def from_pairs(
    rows: Sequence[tuple[int, int]], chosen: Iterable[int], count: int, positive: str
) -> NDArray[np.bool_]:
    """Which of ``count`` official rows are positive, by a ranking of pairs of them.

    Args:
        rows: of each pair the official rows of its candidates, negative for one of another file.
        chosen: of each pair the winner, 0 or 1.
        positive: the label of the winner, for the message.

    A row without a partner gets no vote and stays negative; one in several pairs needs most of them.
    """
    votes = np.zeros(count)
    for pair, winner in zip(rows, chosen):
        for place, row in enumerate(pair):
            if row >= 0:
                votes[row] += 1 if place == winner else -1
    alone = count - len({row for pair in rows for row in pair if row >= 0})
    if alone:
        print(f"{alone} of {count} rows have no partner: they are not predicted as {positive}")
    return votes > 0
