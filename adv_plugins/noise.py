"""Random perturbations of word embeddings that do not ask for a gradient."""

from typing import Callable, Dict, List

import torch
from torch import Tensor

from adv_plugins.step import Step

# In place: from 0 to numbers of size 1.
DISTRIBUTIONS: Dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": lambda empty: empty.uniform_(-1, 1),
    "normal": lambda empty: empty.normal_(),
}


def embedding_noise(step: Step, distribution: str, size: float) -> List[Tensor]:
    """Independent numbers for every unit of every real token, 0 at padding.

    Args:
        distribution: of :data:`DISTRIBUTIONS`.
        size: the standard deviation of ``normal``, half the width of ``uniform``.

    Returns:
        (B, T, d) for each call of the model, at least float32.
    """
    table = step.embedding.weight
    dtype = torch.promote_types(table.dtype, torch.float32)
    draw = DISTRIBUTIONS[distribution]
    return [
        draw(torch.empty(*real.shape[:2], table.size(1), dtype=dtype, device=real.device)) * size * real
        for real in step.real
    ]
