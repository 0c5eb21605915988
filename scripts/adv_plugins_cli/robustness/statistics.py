"""What chance alone could make of a score: bootstrap intervals, and paired tests of two models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adv_plugins_cli.robustness.metrics import Metric, Numbers

CONFIDENCE = 95  # percent


class Estimate(NamedTuple):
    """value: of all rows; low, high: the limits of the middle 95 % of the bootstrap's values."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """Of another model's score and the first one's, on the same rows.

    value, low, high: as of :class:`Estimate`; p: two-sided, by the bootstrap: twice the smaller share of
    differences that are not above, or not below, 0.
    """

    value: float
    low: float
    high: float
    p: float


def draws(rows: int, count: int, seed: int) -> NDArray[np.int32]:
    """(count, rows) numbers of rows, drawn with replacement; the same for all models and metrics."""
    return np.random.default_rng(seed).integers(rows, size=(count, rows), dtype=np.int32)


def estimate(metric: Metric, rows: int, samples: Sequence[Numbers]) -> Estimate:
    """A metric and its percentile interval."""
    values = [metric(sample) for sample in samples]
    return Estimate(metric(np.arange(rows)), *limits(values))


def difference(metric: Metric, first: Metric, rows: int, samples: Sequence[Numbers]) -> Difference:
    """metric - first, both on the same draws."""
    values = np.array([metric(sample) - first(sample) for sample in samples])
    everything = np.arange(rows)
    share = 1.0
    if len(values):
        # The observed data count as a draw: no p is 0 for want of more of them.
        below, above = ((values <= 0).sum() + 1, (values >= 0).sum() + 1)
        share = min(1.0, 2 * min(below, above) / (len(values) + 1))
    return Difference(metric(everything) - first(everything), *limits(values), float(share))


def limits(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 %; NaN where there are no values."""
    if not len(values):
        return float("nan"), float("nan")
    tail = (100 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def mcnemar(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    r"""p of McNemar's exact test: whether two models err as often, by the rows where one alone errs.

    .. math:: p = P(|B - n/2| \ge |b - n/2|), \quad B \sim \mathrm{Bin}(n, 1/2)

    Args:
        one, other: (N,) whether each is right; n of the rows only one is, b of these it is ``one``.
    """
    from scipy.stats import binomtest

    alone = int((one & ~other).sum()), int((other & ~one).sum())
    return float(binomtest(alone[0], sum(alone)).pvalue) if sum(alone) else 1.0
