"""What one checkpoint says of all rows: the logits, and from them losses, hits and probabilities.

A *unit* is what is predicted: a row, or of token labelling a labelled word.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adv_plugins_cli.robustness.rows import NO_LABEL, Rows

if TYPE_CHECKING:
    from adv_plugins_cli.checkpoints.predictor import Predictor

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Outputs:
    """kind: of the model; values: (M, C) logits of the units, of a regression (M, 1) scores; targets:
    (M,) classes or scores; rows: (M,) the row of each unit, ascending; count: of the rows."""

    kind: str
    values: Array
    targets: NDArray[Any]
    rows: NDArray[np.int64]
    count: int

    @cached_property
    def probabilities(self) -> Array:
        """(M, C)."""
        from adv_plugins_cli.checkpoints.predictor import softmax

        return softmax(self.values)

    @cached_property
    def chosen(self) -> NDArray[Any]:
        """(M,) classes, or scores."""
        return self.values[:, 0] if self.kind == "regression" else self.values.argmax(axis=1)

    @cached_property
    def losses(self) -> Array:
        """(M,) cross entropy, or squared error, in nats."""
        if self.kind == "regression":
            return (self.values[:, 0] - self.targets) ** 2
        highest = self.values.max(axis=1, keepdims=True)
        normaliser = np.log(np.exp(self.values - highest).sum(axis=1)) + highest[:, 0]
        return normaliser - self.values[np.arange(len(self.values)), self.targets]

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """(rows,) whether all of a row's units are right; of a regression always true."""
        if self.kind == "regression":
            return np.ones(self.count, dtype=bool)
        wrong = np.bincount(self.rows, weights=self.chosen != self.targets, minlength=self.count)
        return wrong == 0


def outputs_of(predictor: Predictor, rows: Rows, batch_size: int) -> Outputs:
    """Run the model on all rows."""
    flat = [sequence for calls in rows.sequences for sequence in calls]
    logits = predictor.logits(flat, batch_size)
    kind = predictor.trained.kind
    if kind == "tokens":
        shown = [target != NO_LABEL for target in rows.targets]
        labelled = np.concatenate([each[at] for each, at in zip(logits, shown)])
        classes = np.concatenate([target[at] for target, at in zip(rows.targets, shown)])
        numbers = np.repeat(np.arange(len(rows)), [int(at.sum()) for at in shown])
        return Outputs(kind, labelled, classes, numbers, len(rows))
    values = np.reshape(np.stack(logits), (len(rows), -1))
    targets = np.concatenate(rows.targets)
    return Outputs(kind, values, targets, np.arange(len(rows)), len(rows))
