"""A pass of which some layers' self-attention is masked, whoever chooses the units.

Who does says how a layer attends (:data:`Attend`): ASA's adversary (``models/asa_roberta.py``) or one of
the naive strategies that the paper compares it with (``naive_masks.py``).
"""

import contextlib
import math
from typing import Any, Callable, Iterable, Iterator, List, Optional, Tuple

import torch
from torch import Tensor, nn

from adv_plugins.batch import at_least_one
from adv_plugins.checkpointing import computing, plain_forward
from adv_plugins.perturbation import replaced_forward

# Called with a self-attention, its (T, B, d) query and the (B, T) padding or None; returns its (T, B, d)
# output under a mask and the (B,) proportion of each sentence's units that is masked.
Attend = Callable[[nn.Module, Tensor, Optional[Tensor]], Tuple[Tensor, Tensor]]


@contextlib.contextmanager
def masked_layers(layers: Iterable[nn.Module], attend: Attend) -> Iterator[List[List[Tensor]]]:
    """Within the context these Transformer layers attend so.

    Works with ``--checkpoint-activations``, also when the backward runs after the context: what such a
    layer computes again is the masked layer, which returns its masked proportion as a second output.

    Yields:
        for each layer a list that gets the (B,) masked proportion, one entry a call of the model.
    """
    proportions: List[List[Tensor]] = []
    with contextlib.ExitStack() as stack:
        for layer in layers:
            proportions.append([])
            forward = _masked_forward(layer, attend, proportions[-1])
            stack.enter_context(replaced_forward(layer, forward))
        yield proportions


def _masked_forward(
    layer: nn.Module, attend: Attend, proportions: List[Tensor]
) -> Callable[..., Tensor]:
    """The forward of a Transformer layer that attends so."""
    plain = plain_forward(layer)

    def masked(*args: Any, **kwargs: Any) -> Tuple[Tensor, Tensor]:
        with _attending(layer.self_attn, attend) as proportion:
            output = plain(*args, **kwargs)
        return output, proportion[0]

    compute = computing(layer, masked)

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        output, proportion = compute(*args, **kwargs)
        proportions.append(proportion)
        return output

    return forward


@contextlib.contextmanager
def _attending(attention: nn.Module, attend: Attend) -> Iterator[List[Tensor]]:
    """Within the context ``attention`` attends so; yields a list that gets the masked proportion."""
    proportions: List[Tensor] = []

    def forward(query: Tensor, *args: Any, key_padding_mask: Any = None, **kwargs: Any) -> Any:
        output, proportion = attend(attention, query, key_padding_mask)
        proportions.append(proportion)
        return output, None

    with replaced_forward(attention, forward):
        yield proportions


def real_positions(like: Tensor, padding: Optional[Tensor]) -> Tensor:
    """(B, T) booleans, True where the token is not padding, from (B, T, T) and the padding or None."""
    if padding is None:
        return torch.ones(like.shape[:2], dtype=torch.bool, device=like.device)
    return ~padding.bool()


def maskable(wish: Tensor, real: Tensor) -> Tensor:
    """Which units may be masked: (B, T, T) booleans, never at padding and never a whole row.

    Args:
        wish: (B, T, T), how much each is wanted masked. A token keeps at least the unit that is wanted
            least.
        real: (B, T), see :func:`real_positions`.
    """
    least = wish.masked_fill(~real[:, None, :], math.inf).argmin(dim=-1, keepdim=True)
    return (real[:, None, :] & real[:, :, None]).scatter(2, least, False)


def masked_proportion(mask: Tensor, real: Tensor) -> Tensor:
    """The (B,) proportion of each sentence's real units that a (B, T, T) mask hides."""
    return mask.sum(dim=(1, 2)) / real_units(real).to(mask.dtype)


def real_units(real: Tensor) -> Tensor:
    """How many units each sentence has, (B,), at least one."""
    return at_least_one(real.sum(dim=1)).pow(2)
