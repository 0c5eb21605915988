"""A pass that is to be compared with others, one that was made, and what the comparison leaves."""

from dataclasses import dataclass
from typing import Any, Callable, ContextManager, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from adv_plugins.base_pass import BasePass
from adv_plugins.fork import Call


@dataclass(frozen=True)
class Pass:
    """One of the passes that a method compares.

    weight: of its loss in the objective; deltas: what to add to the word embeddings, (B, T, d) for each
    call of the model; dropout: the rate of this pass alone; within: makes a context to be in meanwhile,
    whose value is kept; write: whether the base may write its predictions file.
    """

    weight: float = 0.0
    deltas: Optional[Sequence[Tensor]] = None
    dropout: Optional[float] = None
    within: Optional[Callable[[], ContextManager[Any]]] = None
    write: bool = False


class Ran(NamedTuple):
    """A pass that was made.

    base: what the base criterion made of it; outputs: its logits (N, C) and, if they were asked for, the
    (B, d) final hidden states of the first position for each call; inside: the value of its context.
    """

    base: BasePass
    outputs: Tuple[Tensor, ...]
    inside: Any


# The parts of a comparison of passes, a scalar or (P,); of the logits of two, the second one clean.
Compare = Callable[[List[Ran]], Tensor]
OfTwo = Callable[[Tensor, Tensor], Tensor]
# What to add to the hidden states of a call; to the word embeddings of each, from the clean logits.
Noise = Callable[[Tensor, int], Tensor]
Found = Callable[[Tensor], Sequence[Tensor]]


class Compared(NamedTuple):
    """Passes and their comparison.

    passes: in their order; together, as one, if they were one batch. first: the first one, or the mean
    of passes that are alike, to log. loss: sum of their losses; parts: of the comparison; value: the
    objective. All three without gradient. term: a scalar whose backward, with the gradients that the
    step keeps, is that of the objective.
    """

    passes: List[Ran]
    first: BasePass
    loss: Tensor
    parts: Tensor
    value: Tensor
    term: Tensor


class FirstLayer(NamedTuple):
    """Of a pass, with an entry for each call of the model: the (T, B, d) states at the first layer's
    output, the arguments, and the random states that the dropout masks come from."""

    states: List[Tensor]
    calls: List[Call]
    masks: List[List[Tensor]]


def compared(ran: List[Ran], parts: Tensor, term: Tensor) -> Compared:
    """Of passes whose graphs are all in memory: ``term`` is the objective itself."""
    loss = torch.stack([each.base.loss.detach() for each in ran]).sum()
    return Compared(ran, ran[0].base, loss, parts.detach(), term.detach(), term)


def without_graph(base: BasePass) -> BasePass:
    """What there is to log of a pass."""
    return base._replace(loss=base.loss.detach(), logits=None)
