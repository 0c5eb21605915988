"""Whether a probability is as good as its word: expected calibration error, Brier score, reliability."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 15  # Guo et al., ICML 2017

Array = NDArray[np.float64]


class Reliability(NamedTuple):
    """Of each of the bins, all (BINS,): how many units fall into it, their mean confidence (the highest
    probability) and the share that is right; 0 where there are none."""

    counts: NDArray[np.int64]
    confidence: Array
    accuracy: Array


def reliability(probabilities: Array, targets: NDArray[np.int64]) -> Reliability:
    """The bins ((m - 1)/M, m/M] of confidence (Guo et al., section 2; 0 is in the first one)."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    shown = np.maximum(counts, 1)
    means = [np.bincount(bins, weights=each, minlength=BINS) / shown for each in (confidence, right)]
    return Reliability(counts, *means)


def calibration_error(bins: Reliability) -> float:
    r"""Expected calibration error in percent (their Eq. 3).

    .. math:: \mathrm{ECE} = \sum_m \frac{|B_m|}{n} |\mathrm{acc}(B_m) - \mathrm{conf}(B_m)|
    """
    total = max(int(bins.counts.sum()), 1)
    return float(100 * (bins.counts * np.abs(bins.accuracy - bins.confidence)).sum() / total)


def brier(probabilities: Array, targets: NDArray[np.int64]) -> float:
    r"""Brier's score of all classes, from 0 to 2.

    .. math:: \frac{1}{n} \sum_i \sum_c (p_{ic} - [c = y_i])^2
    """
    wanted = np.eye(probabilities.shape[1])[targets]
    return float(((probabilities - wanted) ** 2).sum(axis=1).mean())


def confusion(chosen: NDArray[np.int64], targets: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """(classes, classes) counts: the true class is the row, the chosen one the column."""
    table = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(table, (targets, chosen), 1)
    return table
