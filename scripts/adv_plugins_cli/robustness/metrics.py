"""The task's metrics of a checkpoint's outputs, as functions of which rows are counted.

Of all rows they are what ``fairseq-validate`` reports; of rows drawn with replacement they are the
bootstrap's.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adv_plugins.entities import ENTITY_SCORES, EntityCounts, check_available, count_entities
from adv_plugins.scores import SCORES
from adv_plugins_cli.robustness.outputs import Outputs
from fairseq_compat.errors import UserError

Numbers = NDArray[np.integer[Any]]
# Of the rows with these numbers, which may repeat.
Metric = Callable[[Numbers], float]
LOSS = "loss"


def metrics_of(outputs: Outputs, flags: Sequence[str], labels: Sequence[str]) -> dict[str, Metric]:
    """By fairseq-validate's names, all but the loss in percent.

    Args:
        flags: of ``scores.SCORES``, those that the training reported. A regression has its correlations
            in any case, token labelling F1 of entities where its labels mark some.
        labels: names of the classes.
    """
    found: dict[str, Metric] = {LOSS: _loss(outputs)}
    if outputs.kind == "tokens":
        return found | _of_words(outputs, labels)
    if outputs.kind == "regression":
        flags = ["report_pearson_and_spearman"]
    else:
        found["accuracy"] = _accuracy(outputs)
    predictions, targets = outputs.chosen, outputs.targets
    for flag in flags:
        if flag == "report_acc_and_f1":
            positive = labels.index("1") if "1" in labels else 1
            predictions, targets = outputs.chosen == positive, outputs.targets == positive
        for name, score in SCORES[flag].items():
            found[name] = _percent(score, predictions, targets)
    return found


def _loss(outputs: Outputs) -> Metric:
    """Mean over the units, to base 2, as fairseq logs it."""
    sums = np.bincount(outputs.rows, weights=outputs.losses, minlength=outputs.count)
    units = np.bincount(outputs.rows, minlength=outputs.count)
    return lambda rows: float(sums[rows].sum() / max(units[rows].sum(), 1) / math.log(2))


def _accuracy(outputs: Outputs) -> Metric:
    """Over the units."""
    right = outputs.chosen == outputs.targets
    sums = np.bincount(outputs.rows, weights=right, minlength=outputs.count)
    units = np.bincount(outputs.rows, minlength=outputs.count)
    return lambda rows: float(100 * sums[rows].sum() / max(units[rows].sum(), 1))


def _percent(
    score: Callable[..., float], predictions: NDArray[np.float64], targets: NDArray[np.float64]
) -> Metric:
    """A score of ``adv_plugins.scores``; 0 where it is undefined, as there."""

    def metric(rows: Numbers) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = 100 * float(score(predictions[rows], targets[rows]))
        return value if math.isfinite(value) else 0.0

    return metric


def _of_words(outputs: Outputs, labels: Sequence[str]) -> dict[str, Metric]:
    found: dict[str, Metric] = {"accuracy": _accuracy(outputs)}
    try:
        check_available("f1", labels)
    except UserError:  # no entities, or nobody to count them
        return found
    counts = np.zeros((outputs.count, 3), dtype=np.int64)
    begins = np.searchsorted(outputs.rows, np.arange(outputs.count + 1))
    for row, (first, last) in enumerate(itertools.pairwise(begins)):
        names = [
            [labels[number] for number in numbers[first:last]]
            for numbers in (outputs.chosen, outputs.targets)
        ]
        counts[row] = count_entities([names[0]], [names[1]])
    for name, score in ENTITY_SCORES.items():
        found[name] = _of_entities(score, counts)
    return found


def _of_entities(score: Callable[[EntityCounts], float], counts: Numbers) -> Metric:
    """A score of the (rows, 3) counts."""
    return lambda rows: float(100 * score(EntityCounts(*counts[rows].sum(axis=0))))
