"""The masks that ASA is compared with: no adversary learns them (Wu et al., section 5.1, Table 3)."""

from dataclasses import dataclass
from functools import partial
from typing import Callable, ContextManager, List, Optional, Tuple

import torch
from torch import Tensor, nn

from adv_plugins.divergence import full_precision
from adv_plugins.fork import encoder_layers
from adv_plugins.masked_attention import masked_attention
from adv_plugins.masked_layers import (
    maskable,
    masked_layers,
    masked_proportion,
    real_positions,
    real_units,
)
from fairseq_compat.errors import UserError

# (update, proportion): what ASA's adversary masked of MiniLM on SST-2 (docs/results.md), the means of
# its blocks of 20 updates at their middles; it begins by masking half.
MEASURED_SCHEDULE = "0:0.5,10:0.469,30:0.381,50:0.275,70:0.192,90:0.135,110:0.111"
DEFAULT_RATE = 0.1  # the larger of the paper's two for Bernoulli


@dataclass(frozen=True)
class NaiveMasks:
    """A strategy, and how much it masks at which update.

    by_magnitude: the largest attention scores instead of random units; schedule: points (update,
    proportion) by their updates, between which it is a straight line and beyond which it is constant.
    """

    by_magnitude: bool
    schedule: List[Tuple[int, float]]

    def masked(self, model: nn.Module, update: int) -> ContextManager[List[List[Tensor]]]:
        """Within the context every self-attention of a RoBERTa-like ``model`` is masked as after so many
        updates; yields the masked proportions as ``masked_layers`` does.

        Raises:
            UserError: the model has no Transformer layers.
        """
        rate = self.rate(update)
        attend = partial(_attend, choose=largest_scores if self.by_magnitude else bernoulli, rate=rate)
        return masked_layers(encoder_layers(model), attend)

    def rate(self, update: int) -> float:
        """The proportion to mask after so many updates."""
        (before, rate), *later = self.schedule
        for after, next_rate in later:
            if update < after:
                return rate + (next_rate - rate) * max(update - before, 0) / (after - before)
            before, rate = after, next_rate
        return rate


def _attend(
    attention: nn.Module,
    query: Tensor,
    padding: Optional[Tensor],
    *,
    choose: Callable[[Tensor, Tensor, float], Tensor],
    rate: float,
) -> Tuple[Tensor, Tensor]:
    """A self-attention that is masked so; see :data:`masked_layers.Attend`."""
    proportions: List[Tensor] = []

    def mask_of(scores: Tensor) -> Tensor:
        real = real_positions(scores[:, 0], padding)
        mask = choose(scores, real, rate)
        proportions.append(masked_proportion(mask, real))
        return mask

    return masked_attention(attention, query, padding, mask_of), proportions[0]


def bernoulli(scores: Tensor, real: Tensor, rate: float) -> Tensor:
    """Each unit by itself with probability ``rate``: (B, T, T), 1 on a masked one.

    A token whose units are all drawn keeps one of them, at random.

    Args:
        scores: (B, heads, T, T), only their size counts; real: (B, T), True where no padding is.
    """
    drawn = uniform(scores[:, 0])
    return ((drawn < rate) & maskable(-drawn, real)).to(drawn.dtype)


def uniform(like: Tensor) -> Tensor:
    """Numbers from 0 to 1, drawn in float32."""
    return torch.rand(like.shape, dtype=torch.float32, device=like.device)


def largest_scores(scores: Tensor, real: Tensor, rate: float) -> Tensor:
    """The units of the largest weights in the mean of all heads' softmax: (B, T, T), 1 on a masked one.

    (The paper calls a unit of the softmax an attention score, Eq. 3.) Of a sentence of n tokens
    round(rate n^2) units, wherever in its (n, n) matrix they are; but a token always keeps the unit of
    its smallest weight.

    Args:
        scores: (B, heads, T, T), before the softmax; real: (B, T), True where no padding is.
    """
    scores = full_precision(scores)
    # Finite, as a sentence of padding has no other scores.
    left = scores.masked_fill(~real[:, None, None, :], torch.finfo(scores.dtype).min)
    weights = left.softmax(dim=-1).mean(dim=1)
    allowed = maskable(weights, real)
    order = weights.masked_fill(~allowed, -1).flatten(1).argsort(dim=1, descending=True, stable=True)
    count = (rate * real_units(real)).round()
    largest = torch.arange(order.size(1), device=order.device) < count[:, None]
    mask = torch.zeros_like(largest).scatter(1, order, largest).view_as(allowed)
    return (mask & allowed).to(weights.dtype)


def naive_masks(masking: str, rate: Optional[float], schedule: Optional[str]) -> Optional[NaiveMasks]:
    """What ``--asa-masking`` and its options ask for; None for the adversary.

    Raises:
        UserError: a rate out of range, a schedule that cannot be read, or an option of another masking.
    """
    if rate is not None and masking not in ("bernoulli", "magnitude"):
        raise UserError(
            f"--asa-masking-rate is for --asa-masking bernoulli and magnitude, not for {masking}"
        )
    if schedule is not None and masking != "scheduled":
        raise UserError(f"--asa-masking-schedule is for --asa-masking scheduled, not for {masking}")
    if masking == "adversary":
        return None
    if masking == "scheduled":
        return NaiveMasks(False, parse_schedule(MEASURED_SCHEDULE if schedule is None else schedule))
    rate = DEFAULT_RATE if rate is None else rate
    if not 0 <= rate < 1:
        raise UserError(f"--asa-masking-rate must be at least 0 and below 1, but is {rate}")
    return NaiveMasks(masking == "magnitude", [(0, rate)])


def parse_schedule(text: str) -> List[Tuple[int, float]]:
    """The points of UPDATE:PROPORTION,...

    Raises:
        UserError: it is no such text, the updates do not rise, or a proportion is out of range.
    """
    try:
        pairs = [point.split(":") for point in text.split(",")]
        points = [(int(update), float(rate)) for update, rate in pairs]
    except ValueError:
        raise UserError(
            f"--asa-masking-schedule needs UPDATE:PROPORTION,... such as 0:0.5,100:0.1, not {text!r}"
        ) from None
    updates = [update for update, _ in points]
    if updates != sorted(set(updates)) or updates[0] < 0:
        raise UserError(f"--asa-masking-schedule needs updates from 0 on that rise, not {text!r}")
    if not all(0 <= rate < 1 for _, rate in points):
        raise UserError(
            f"--asa-masking-schedule needs proportions of at least 0 and below 1, not {text!r}"
        )
    return points
