"""Several passes whose predictions are compared, with the activations of one pass in memory at a time.

A comparison of K passes needs the logits of all of them, and its gradient through all of them. Their
VALUES are enough to know the comparison's gradient for each pass's logits, so the first K - 1 passes
run without gradients first, and again, with the same dropout masks, to send those gradients back:
K - 1 more forwards for the memory of one pass.
"""

from typing import Any, Callable, List, NamedTuple, Sequence

import torch
from torch import Tensor

from adv_plugins.dropout import SameMasks, random_state_kept
from adv_plugins.gradients import KeptGradients


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
        passes: each runs a pass and returns its ``BasePass``; its argument says that the trainer
            differentiates this pass (the distributed wrapper has to be used).
        compare: scalar function of the K logits, each (N, C).
        kept: collects the gradients of all passes but the last one that runs.
        device: of the model, whose random state the masks come from.
    """
    *others, last = passes
    masks = [SameMasks(device) for _ in others]
    leaves = []
    for run, same in zip(others, masks):
        with torch.no_grad(), same.replayed():
            leaves.append(run(False).logits)
    leaves = [logits.detach().requires_grad_() for logits in leaves]
    result = last(not others)
    consistency = compare([*leaves, result.logits])
    total = weight * result.loss + consistency
    if not others:
        return Compared(result.loss.detach(), consistency.detach(), total)
    gradients = kept.backward(total, leaves)
    summed_loss = result.loss.detach()
    del result, total
    for index, (run, same) in enumerate(zip(others, masks)):
        final = index == len(others) - 1
        with random_state_kept(device), same.replayed():
            again = run(final)
        summed_loss = summed_loss + again.loss.detach()
        term = weight * again.loss + (again.logits * gradients[index]).sum()
        if not final:
            kept.backward(term, [])
    return Compared(summed_loss, consistency.detach(), term)
