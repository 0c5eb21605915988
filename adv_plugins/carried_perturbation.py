"""A perturbation that one update trains on and the next one goes on from.

It is a leaf of the graph, so that the backward which the trainer runs, after the criterion has returned,
leaves its gradient there. It climbs along that when it is asked for again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adv_plugins.ball import Ball


class CarriedPerturbation:
    """(B, T, d) tensors, one for each call of the model.

    Args:
        deltas: the perturbation; real: (B, T, 1) booleans, False at padding, where it is 0.
    """

    def __init__(self, deltas: Sequence[Tensor], real: Sequence[Tensor]) -> None:
        self.real = real
        self.deltas = [
            torch.where(each, delta.to(each.device), 0.0).detach().requires_grad_()
            for delta, each in zip(deltas, real, strict=True)
        ]

    def fits(self, real: Sequence[Tensor]) -> bool:
        """Whether a batch of this shape can go on with it."""
        return [each.shape[:2] for each in self.deltas] == [each.shape[:2] for each in real]

    def climbed(self, ball: Ball, step_size: float) -> list[Tensor]:
        """It, after an ascent along the gradient that it was given since it was made, if any.

        How large that is, and so the trainer's loss scale, makes no difference; not finite, it moves
        nothing.
        """
        gradients = [delta.grad for delta in self.deltas if delta.grad is not None]
        if not gradients:
            return [delta.detach() for delta in self.deltas]
        return ball.ascend(self.deltas, gradients, self.real, step_size)
