"""How passes that are compared are run: together, or with the activations of one in memory at a time.

Each comparison of ``Step`` is here in both ways; ``in_turn`` is the second, with the same gradients
(``sequential.py`` says how). The last pass is the one that goes through the distributed wrapper.
"""

from functools import partial
from typing import TYPE_CHECKING, List, Sequence, Tuple

import torch
from torch import Tensor

from adv_plugins.base_pass import BasePass, mean_pass
from adv_plugins.batch import repeat_sample
from adv_plugins.divergence import full_precision
from adv_plugins.dropout import drops_layers
from adv_plugins.fork import forked, hidden_states, resumed
from adv_plugins.passes import (
    Compare,
    Compared,
    Found,
    Noise,
    OfTwo,
    Pass,
    Ran,
    compared,
    without_graph,
)
from adv_plugins.sequential import Postponed, delivered, leaf

if TYPE_CHECKING:
    from adv_plugins.step import Step


def passes(
    step: "Step", of: Sequence[Pass], compare: Compare, weight: float, *, features: bool
) -> Compared:
    """Passes of one batch, if they can be as one larger batch."""
    if _are_alike(of) and not features and not drops_layers(step.module):
        return _joined(step, of, compare, weight)
    ran = [
        step.run_pass(each, features=features, last=number == len(of))
        for number, each in enumerate(of, start=1)
    ]
    parts = compare(ran)
    term = weight * parts.sum() + sum(
        each.weight * one.base.loss for each, one in zip(of, ran) if each.weight
    )
    return compared(ran, parts, term)._replace(first=_first(of, ran))


def _joined(step: "Step", of: Sequence[Pass], compare: Compare, weight: float) -> Compared:
    """All passes as one of a larger batch."""
    deltas = [torch.cat(calls) for calls in zip(*(each.deltas or () for each in of))]
    with step.perturbed(deltas):
        whole = step.criterion.run_base(step.model, repeat_sample(step.sample, len(of)))
    parts = compare([Ran(whole, (each,), None) for each in whole.logits.chunk(len(of))])
    term = of[0].weight * whole.loss + weight * parts.sum()
    joined = compared([Ran(whole, (whole.logits,), None)], parts, term)
    return joined._replace(first=joined.first.mean_of(len(of)))


def _are_alike(passes: Sequence[Pass]) -> bool:
    """Whether they differ by their deltas (all have some, or none) and dropout masks alone."""
    return all(
        (each.deltas is None) == (passes[0].deltas is None)
        and each.dropout is None
        and each.within is None
        and each.weight == passes[0].weight
        and not each.write
        for each in passes
    )


def _first(passes: Sequence[Pass], ran: Sequence[Ran]) -> BasePass:
    """What to log of passes that were made one by one."""
    if len(ran) > 1 and _are_alike(passes):
        return mean_pass([each.base for each in ran])
    return ran[0].base


def passes_in_turn(
    step: "Step", of: Sequence[Pass], compare: Compare, weight: float, *, features: bool
) -> Compared:
    """The others' values are enough to know the comparison's gradient for the first; then each is run
    again to receive its own."""

    def run(each: Pass, last: bool) -> Ran:
        return step.run_pass(each, features=features, last=last)

    first = run(of[0], len(of) == 1)
    postponed = [Postponed(partial(run, each), step.device) for each in of[1:]]
    leaves = [each.values._replace(outputs=tuple(map(leaf, each.values.outputs))) for each in postponed]
    parts = compare([first, *leaves])
    term = of[0].weight * first.base.loss + weight * parts.sum()
    if not postponed:
        return compared([first], parts, term)
    gradients = iter(step.backward(term, [output for each in leaves for output in each.outputs]))
    value, parts = term.detach(), parts.detach()
    ran = [Ran(without_graph(first.base), (), first.inside)]
    del first, term
    for number, (each, waiting) in enumerate(zip(of[1:], postponed), start=2):
        last = number == len(of)
        again = waiting.again(last)
        value = value + each.weight * again.base.loss.detach()
        term = delivered(again.outputs, [next(gradients) for _ in again.outputs])
        if each.weight:
            term = term + each.weight * again.base.loss
        if not last:
            step.backward(term)
            again = Ran(without_graph(again.base), (), again.inside)
        ran.append(again)
    loss = torch.stack([each.base.loss.detach() for each in ran]).sum()
    return Compared(ran, _first(of, ran), loss, parts, value, term)


def forked_at(step: "Step", layer: int, noise: Noise, compare: OfTwo, weight: float) -> Compared:
    """A clean pass, and a noisy one from a layer on."""
    with forked(step.module, layer=layer, noise=noise) as noisy_outputs:
        clean = step.predict(last=True, write=True)
    noisy = step.criterion.join([full_precision(each) for each in noisy_outputs], step.sample)
    parts = compare(noisy, clean.logits)
    return compared([Ran(clean, (), None)], parts, clean.loss + weight * parts)


def forked_at_in_turn(step: "Step", layer: int, noise: Noise, compare: OfTwo, weight: float) -> Compared:
    """The noisy pass first, from the clean one's values."""

    def run(differentiated: bool) -> Tuple[BasePass, List[Tensor]]:
        with hidden_states(step.module, layer=layer) as states:
            return step.predict(last=differentiated, write=differentiated), states

    postponed = Postponed(run, step.device)
    leaves = [leaf(each) for each in (postponed.values[0].logits, *postponed.values[1])]
    noisy_states = [state + noise(state, call) for call, state in enumerate(leaves[1:])]
    with resumed(step.module, layer=layer, states=noisy_states):
        noisy = step.predict(last=False)
    parts = compare(noisy.logits, leaves[0])
    gradients = step.backward(weight * parts, leaves)
    parts = parts.detach()
    del noisy, noisy_states
    clean, states = postponed.again(True)
    term = clean.loss + delivered([clean.logits, *states], gradients)
    loss = clean.loss.detach()
    return Compared([Ran(clean, (), None)], clean, loss, parts, loss + weight * parts, term)


def from_clean(step: "Step", deltas: Found, compare: OfTwo, weights: Sequence[float]) -> Compared:
    """A clean pass, and one on what is found from its prediction."""
    clean = step.predict(last=False, write=True)
    there = step.run_pass(Pass(deltas=deltas(clean.logits.detach())), last=True).base
    parts = compare(there.logits, clean.logits)
    return compared([Ran(clean, (), None)], parts, clean.loss + _weighed(parts, weights))


def from_clean_in_turn(
    step: "Step", deltas: Found, compare: OfTwo, weights: Sequence[float]
) -> Compared:
    """The clean pass's values, then the others, then it again."""
    postponed = Postponed(lambda last: step.predict(last=last, write=last), step.device)
    logits = leaf(postponed.values.logits)
    there = step.run_pass(Pass(deltas=deltas(logits.detach())), last=False).base
    parts = compare(there.logits, logits)
    (gradient,) = step.backward(_weighed(parts, weights), [logits])
    parts = parts.detach()
    del there
    clean = postponed.again(True)
    loss = clean.loss.detach()
    term = clean.loss + delivered([clean.logits], [gradient])
    value = loss + _weighed(parts, weights)
    return Compared([Ran(clean, (), None)], clean, loss, parts, value, term)


def _weighed(parts: Tensor, weights: Sequence[float]) -> Tensor:
    return torch.stack([weight * part for weight, part in zip(weights, parts.unbind())]).sum()
