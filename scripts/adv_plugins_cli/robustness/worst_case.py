r"""The worst case of a sentence within a ball around its word embeddings (FreeLB, section 4.3).

.. math::
    \Delta L_{\max}(X, \epsilon) = \max_{\|\delta\|_F \le \epsilon} L(f(X + \delta), y) - L(f(X), y)

found by projected gradient ascent (their Eq. 2) of each sentence by itself,

.. math:: \delta_{t+1} = \Pi_{\|\delta\|_F \le \epsilon}(\delta_t + \alpha\, g / \|g\|_F)

The largest loss on the way counts, the clean one included: more steps, or more starts, never lower it,
and with epsilon 0 it is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from adv_plugins_cli.robustness.attacked_model import AttackedModel

LATE = 0.1  # the last part of an ascent, whose gain says whether it has converged


class Found(NamedTuple):
    """Of each sentence, all (B,).

    clean: the loss; increase: its largest one; least: that of the start that found least; late: how much
    the last tenth of the steps brought; held: whether the prediction was right all the way.
    """

    clean: Any
    increase: Any
    least: Any
    late: Any
    held: Any


def worst_case(
    attacked: AttackedModel,
    radius: Any,
    *,
    steps: int,
    step_size: Any,
    starts: int = 1,
    seeds: Sequence[int] = (),
) -> Found:
    """Ascend from 0 and, for further starts, from random points of the ball.

    Args:
        radius: (B,) epsilon of each sentence, in the Frobenius norm.
        step_size: alpha, a number or (B,) of each sentence.
        seeds: of each sentence, from which its random starts are drawn: they do not depend on what else
            is in the batch.
    """
    import torch

    from adv_plugins.ball import Ball

    clean = attacked.judge()
    ball = Ball("l2", radius[:, None, None])
    if torch.is_tensor(step_size):
        step_size = step_size[:, None, None]
    held = clean.right.clone()
    increases, late = [], torch.zeros_like(clean.losses)
    for start in range(starts):
        deltas = [torch.zeros_like(each) for each in attacked.embeddings]
        if start:
            deltas = ball.project(_random(attacked, radius, [(seed, start) for seed in seeds]))
        highest, before = clean.losses, clean.losses
        for step in range(steps + 1):
            if step == steps:
                judged = attacked.judge(deltas)
            else:
                judged, gradients = attacked.gradient(deltas)
                deltas = ball.ascend(deltas, gradients, attacked.real, step_size)
            if step <= steps - max(1, round(LATE * steps)):
                before = torch.maximum(before, judged.losses)
            highest = torch.maximum(highest, judged.losses)
            held &= judged.right
        increases.append(highest - clean.losses)
        late = torch.maximum(late, highest - before)
    every = torch.stack(increases)
    return Found(clean.losses, every.amax(dim=0), every.amin(dim=0), late, held)


def _random(attacked: AttackedModel, radius: Any, seeds: Sequence[tuple[int, int]]) -> list[Any]:
    """Directions uniform on the sphere, with norms uniform up to the radius."""
    sizes = _uniform(seeds).to(radius)
    return [
        delta * sizes[:, None, None]
        for delta in directions(attacked, radius, [hash_of(*each) for each in seeds])
    ]


def directions(attacked: AttackedModel, radius: Any, seeds: Sequence[int]) -> list[Any]:
    """Of each sentence a random direction of that norm, over all its calls together; 0 at padding."""
    import torch

    from adv_plugins.perturbation import divide_by_norm, sentence_norms

    calls = [torch.zeros_like(each) for each in attacked.embeddings]
    for number, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        for call, real in zip(calls, attacked.real):
            length = int(real[number].sum())
            drawn = torch.randn(length, call.size(-1), generator=generator).to(call)
            call[number][real[number, :, 0]] = drawn
    norm = sentence_norms(calls)
    return [divide_by_norm(call, norm[:, None, None]) * radius[:, None, None] for call in calls]


def _uniform(seeds: Sequence[tuple[int, int]]) -> Any:
    import torch

    drawn = [torch.rand(1, generator=torch.Generator().manual_seed(hash_of(*s) + 1)) for s in seeds]
    return torch.cat(drawn)


def hash_of(*numbers: int) -> int:
    """One seed of several numbers, the same on every machine."""
    import numpy as np

    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def norms(attacked: AttackedModel) -> Any:
    """(B,) ||X||_F of the word embeddings."""
    from adv_plugins.perturbation import sentence_norms

    return sentence_norms(attacked.embeddings)


def safe_radius(attacked: AttackedModel, start: Any, *, decrements: int, **ascent: Any) -> Any:
    """(B,) the largest of start, start (1 - 1/n), ... within which the prediction stays right under the
    ascent (FreeLB's footnote 12); 0 where it does within none.

    Args:
        start: (B,); decrements: n; ascent: as for :func:`worst_case`.
    """
    import torch

    found = torch.zeros_like(start)
    undecided = torch.ones_like(start, dtype=torch.bool)
    for number in range(decrements):
        radius = start * (1 - number / decrements)
        held = worst_case(attacked, radius, **ascent).held
        found = torch.where(undecided & held, radius, found)
        undecided &= ~held
        if not undecided.any():
            break
    return found
