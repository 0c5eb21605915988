"""Several passes whose predictions are compared, with the activations of one pass in memory at a time.

A comparison of K passes needs the outputs of all of them, and its gradient through all of them. Their
VALUES are enough to know the comparison's gradient for each pass's outputs. So a pass is run without
gradients first, and again, with the same dropout masks, to send that gradient back: one more forward
for the memory of a pass.
"""

from typing import Any, Callable, Generic, List, NamedTuple, Sequence, TypeVar

import torch
from torch import Tensor

from adv_plugins.dropout import SameMasks, random_state_kept
from adv_plugins.gradients import KeptGradients

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


class Compared(NamedTuple):
    """What :func:`compare_one_by_one` computes.

    summed_loss, consistency: scalars without gradient; term: a scalar whose backward, together with the
    gradients kept meanwhile, is that of weight * summed_loss + consistency.
    """

    summed_loss: Tensor
    consistency: Tensor
    term: Tensor


def compare_one_by_one(
    passes: Sequence[Callable[[bool], Any]],
    *,
    weight: float,
    compare: Callable[[List[Tensor]], Tensor],
    kept: KeptGradients,
    device: torch.device,
) -> Compared:
    """L = weight * sum_k loss_k + compare(logits_1, ..., logits_K), one pass at a time.

    Args:
        passes: each runs a pass and returns its ``BasePass``, as for :class:`Postponed`.
        compare: scalar function of the K logits, each (N, C).
        kept: collects the gradients of all passes but the last one that runs.
        device: of the model.
    """
    *others, last = passes
    postponed = [Postponed(run, device) for run in others]
    leaves = [leaf(each.values.logits) for each in postponed]
    result = last(not others)
    consistency = compare([*leaves, result.logits])
    total = weight * result.loss + consistency
    if not others:
        return Compared(result.loss.detach(), consistency.detach(), total)
    gradients = kept.backward(total, leaves)
    summed_loss = result.loss.detach()
    del result, total
    for index, (each, gradient) in enumerate(zip(postponed, gradients)):
        final = index == len(others) - 1
        again = each.again(final)
        summed_loss = summed_loss + again.loss.detach()
        term = weight * again.loss + delivered([again.logits], [gradient])
        if not final:
            kept.backward(term, [])
    return Compared(summed_loss, consistency.detach(), term)
