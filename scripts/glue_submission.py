"""GLUE's submission files: one prediction a line of the official test file, named as it wants them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from glue_format import MAXIMUM_SCORE, GlueTask
from numpy.typing import NDArray

# Our name of a test set -> the file that GLUE's server expects.
FILES = {("MNLI", "test"): "MNLI-m.tsv", ("MNLI", "test1"): "MNLI-mm.tsv"}


def file_name(task: GlueTask, split: str) -> str:
    """The name of the submission for one test set."""
    return FILES.get((task.name, split), f"{task.name}.tsv")


def lines(task: GlueTask, labels: Sequence[str], predictions: NDArray[np.float64]) -> list[str]:
    """The file's lines: a header, then index and prediction.

    Args:
        labels: the classes' names; predictions: (N, C) probabilities, (N, 1) scores from 0 to 1.

    Raises:
        ValueError: the model's classes are not the task's.
    """
    if task.regression:
        if predictions.shape[1] != 1:
            raise ValueError(f"{task.name} needs a model with --regression-target")
        scores = np.clip(MAXIMUM_SCORE * predictions[:, 0], 0, MAXIMUM_SCORE)
        values = [f"{score:.3f}" for score in scores]
    else:
        if set(labels) != set(task.labels):
            raise ValueError(
                f"the model's classes are {', '.join(labels) or 'scores'}; {task.name} has "
                f"{', '.join(task.labels)} (--glue-task)"
            )
        values = [labels[index] for index in predictions.argmax(axis=1)]
    return ["index\tprediction", *(f"{index}\t{value}" for index, value in enumerate(values))]


def from_pairs(
    rows: Sequence[tuple[int, int]], predictions: NDArray[np.float64], count: int, positive: str
) -> NDArray[np.bool_]:
    """Which of ``count`` official rows are positive, by a ranking of pairs of them.

    Args:
        rows: of each pair the official rows of its candidates, negative for one of another file.
        predictions: (pairs, 2).
        positive: the label of the winner, for the message.

    A row without a partner gets no vote and stays negative; one in several pairs needs most of them.
    """
    votes = np.zeros(count)
    for pair, scores in zip(rows, predictions):
        winner = int(scores.argmax())
        for place, row in enumerate(pair):
            if row >= 0:
                votes[row] += 1 if place == winner else -1
    alone = count - len({row for pair in rows for row in pair if row >= 0})
    if alone:
        print(f"{alone} of {count} rows have no partner: they are not predicted as {positive}")
    return votes > 0
