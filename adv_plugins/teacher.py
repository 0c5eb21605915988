"""A model whose weights are the moving average of another's: what it predicted, lately.

No module holds it as a part, so fairseq neither saves it as weights nor optimises or reduces it.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from adv_plugins.divergence import full_precision
from fairseq_compat.errors import UserError


class Teacher:
    """A copy of a model in evaluation, at least in float32, that follows it.

    Args:
        model: to begin with. number: of the updates that have been made.
    """

    def __init__(self, model: nn.Module, number: int) -> None:
        self.number = number
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        for weight in self.module.parameters():
            weight.data = full_precision(weight.data)

    def follow(self, model: nn.Module, number: int, momentum: float) -> None:
        r"""Once an update: :math:`\tilde\theta \leftarrow \beta \tilde\theta + (1 - \beta) \theta`.

        Args:
            number: of the updates that ``model`` has made; as before, nothing is done.
        """
        if number == self.number:
            return
        self.number = number
        with torch.no_grad():
            for own, other in zip(self.module.parameters(), model.parameters()):
                own.lerp_(other.to(own.dtype), 1 - momentum)

    def state(self) -> dict[str, Any]:
        """Its number and weights, which :meth:`restore` takes."""
        return {"number": self.number, "weights": dict(self.module.named_parameters())}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state`.

        Raises:
            UserError: it is another model's.
        """
        own, weights = dict(self.module.named_parameters()), state["weights"]
        if {n: w.shape for n, w in own.items()} != {n: w.shape for n, w in weights.items()}:
            raise UserError(
                "the teacher in the checkpoint is another model's: give --reset-optimizer to begin with "
                "a new one"
            )
        self.number = state["number"]
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(weights[name])
