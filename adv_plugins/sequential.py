"""Several passes whose predictions are compared, with the activations of one pass in memory at a time.

A comparison of K passes needs the outputs of all of them, and its gradient through all of them. Their
VALUES are enough to know the comparison's gradient for each pass's outputs. So a pass is run without
gradients first, and again, with the same dropout masks, to send that gradient back: one more forward
for the memory of a pass.
"""

from typing import Callable, Generic, Sequence, TypeVar

import torch
from torch import Tensor

from adv_plugins.dropout import SameMasks, random_state_kept

Outputs = TypeVar("Outputs")


class Postponed(Generic[Outputs]):
    """A pass of which only the ``values`` are known until it is run again to be differentiated.

    Args:
        run: runs the pass; its argument says that the trainer differentiates what it returns (the
            distributed wrapper has to be used).
        device: of the model, whose random state the dropout masks come from.
    """

    def __init__(self, run: Callable[[bool], Outputs], device: torch.device) -> None:
        self._run, self._device = run, device
        self._masks = SameMasks(device)
        with torch.no_grad(), self._masks.replayed():
            self.values = run(False)
        # torch 2.6 would use the weights that --amp casts here where gradients are wanted, too.
        torch.clear_autocast_cache()

    def again(self, differentiated: bool) -> Outputs:
        """The same pass, with gradients; the run's random stream goes on as without it."""
        with random_state_kept(self._device), self._masks.replayed():
            return self._run(differentiated)


def leaf(value: Tensor) -> Tensor:
    """``value`` as an input whose gradient is wanted."""
    return value.detach().requires_grad_()


def delivered(outputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """A scalar whose backward sends each output the gradient that is known already."""
    return torch.stack([(each * g).sum() for each, g in zip(outputs, gradients)]).sum()


def with_value(term: Tensor, value: Tensor) -> Tensor:
    """``value``, with the gradient of ``term`` alone: the rest of its gradient is kept already."""
    return term + (value - term).detach()
