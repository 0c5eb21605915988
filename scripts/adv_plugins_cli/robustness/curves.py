"""How accuracy falls: under PGD against epsilon, under random noise as large, under noise at a layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from adv_plugins_cli.robustness.attacked_model import AttackedModel
from adv_plugins_cli.robustness.worst_case import directions, hash_of, norms, worst_case

STEPS = 20
# A step is this part of the ball's radius over the number of steps (Madry et al.): enough to reach the
# border from anywhere, and still a path.
REACH = 2.5


def under_attack(attacked: AttackedModel, size: float) -> Any:
    """(B,) whether the prediction is right, and stays right on the path of PGD-20.

    Args:
        size: epsilon as a share of ||X||_F.
    """
    radius = size * norms(attacked)
    if size == 0:
        return attacked.judge().right
    return worst_case(attacked, radius, steps=STEPS, step_size=REACH * radius / STEPS).held


def under_noise(attacked: AttackedModel, size: float, draws: int, seeds: Sequence[int]) -> Any:
    """(B,) the share of random directions of norm epsilon with which the prediction is right."""
    import torch

    radius = size * norms(attacked)
    right = [
        attacked.judge(directions(attacked, radius, [hash_of(seed, draw) for seed in seeds])).right
        for draw in range(draws)
    ]
    return torch.stack(right).float().mean(dim=0)


def under_layer_noise(
    attacked: AttackedModel, layer: int, size: float, draws: int, seeds: Sequence[int]
) -> Any:
    """(B,) the same with Gaussian noise on the hidden states h of a layer, of norm ``size`` ||h||_F.

    Args:
        layer: 1-based; 0 is the embeddings' output.
    """
    import torch

    from adv_plugins.perturbation import divide_by_norm

    def noise(draw: int, hidden: Any, call: int) -> Any:
        real = attacked.real[call].transpose(0, 1)
        drawn = torch.zeros_like(hidden)
        for number, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(hash_of(seed, draw, call))
            shown = real[:, number, 0]
            one = torch.randn(int(shown.sum()), hidden.size(-1), generator=generator)
            drawn[shown, number] = one.to(hidden)
        wanted = size * (hidden * real).norm(dim=(0, 2), keepdim=True)
        return divide_by_norm(drawn, drawn.norm(dim=(0, 2), keepdim=True)) * wanted

    right = [attacked.judge_noisy(layer, partial(noise, draw)).right for draw in range(draws)]
    return torch.stack(right).float().mean(dim=0)
