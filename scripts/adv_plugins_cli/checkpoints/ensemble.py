"""Several models' predictions as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Predictions(NamedTuple):
    """values: (N, C) probabilities, or (N, 1) scores; chosen: (N,) number of the class."""

    values: Array
    chosen: NDArray[np.int64]


def combine(models: Sequence[Array], how: str) -> Predictions:
    """One prediction of several (N, C) arrays.

    Args:
        how: ``mean`` chooses the class of the highest mean probability; ``majority`` the one with the
            most votes, and among as many votes that of the higher mean. The values are means in
            either case.
    """
    stacked = np.stack(models)
    mean = stacked.mean(axis=0)
    if how == "mean":
        return Predictions(mean, mean.argmax(axis=1))
    votes = np.eye(mean.shape[1])[stacked.argmax(axis=2)].sum(axis=0)
    # A mean is at most 1: half of it never outweighs a vote.
    return Predictions(mean, (votes + mean / 2).argmax(axis=1))
