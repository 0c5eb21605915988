"""Self-attention some of whose units are masked (ASA), and the gradient that the mask hears."""

import math
from typing import Any, Callable, Optional, Tuple, Union

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from adv_plugins.divergence import full_precision


def masked_attention(
    attention: nn.Module,
    query: Tensor,
    padding: Optional[Tensor],
    mask: Union[Tensor, Callable[[Tensor], Tensor]],
) -> Tensor:
    r"""The output of a fairseq self-attention whose units are masked.

    .. math:: o = \mathrm{dropout}(a) v, \qquad a = \frac{p (1 - \mu)}{\sum p (1 - \mu)}, \quad
        p = \mathrm{softmax}(q k^T / \sqrt d)

    In value that is the softmax with -inf at the masked units. In gradient a masked unit hears what its
    return would change: the output would move by w (v - o), with v its value and w its weight beside the
    units that are left, so that is its gradient. The formula's own derivative has exp(score - logsumexp
    of the scores left) in the place of w, which has no bound: one unit with a high score that the mask
    hides drowns all that the adversary could learn from the others.
    Units that are left have the formula's derivative, in which w is their weight.

    With log(1 - mu) added to the scores, which torch's fused kernels could compute, a masked unit would
    hear the penalty alone; the adversary then soon masked nothing at the default tau in our tests.

    Args:
        attention: with fairseq's projections, ``num_heads``, ``scaling`` and ``dropout_module``.
        query: (T, B, d); padding: (B, T), True at padding, or None; mask: mu (B, T, T), shared by heads,
            float32 or float64; it leaves at least one unit of a row. Or what chooses it, without
            gradient, from the (B, heads, T, T) scores, which are then computed once for both.

    Returns:
        (T, B, d)
    """
    q, k = _query_and_key(attention, query)
    v = _heads(attention, attention.v_proj(query))
    dropout = attention.dropout_module
    rate = dropout.p if dropout.training or dropout.apply_during_inference else 0.0
    scores = None
    if not isinstance(mask, Tensor):
        with torch.no_grad():
            scores = q @ k.transpose(-1, -2)
            mask = mask(scores)
    keep = _kept_units(mask, padding)
    mixed = _MaskedAttention.apply(q, k, v, keep, rate, recomputes_scores(query), scores)
    return attention.out_proj(mixed.permute(2, 0, 1, 3).reshape(query.shape))


def attention_weights(
    attention: nn.Module, query: Tensor, padding: Optional[Tensor], mask: Tensor
) -> Tensor:
    """The (B, heads, T, T) weights, at least float32; arguments as for :func:`masked_attention`.

    To look at: the mask gets no gradient from them.
    """
    q, k = _query_and_key(attention, query)
    kept = _kept_units(mask, padding) > 0.5
    return _softmax_of_kept(q @ k.transpose(-1, -2), kept)[0] * kept


def recomputes_scores(query: Tensor) -> bool:
    """Whether the backward computes what has the size of the scores again, instead of keeping it.

    On a GPU, where torch's fused kernels do so in the clean pass; on a CPU they keep it.
    """
    return query.is_cuda


class _MaskedAttention(torch.autograd.Function):
    """The gradient by hand, as a masked unit has weight 0 but not gradient 0, in few passes over (T, T).

    With w a unit's weight beside those that are kept (itself included), a = w (1 - mu), m the dropout's
    multipliers, and for the gradient g of o = (a m) v: G = (g v^T) m, D = sum a G = sum o g, row by row.
    Then the gradient of s is a (G - D), that of 1 - mu is w (G - D), that of v is (a m)^T g. Of the
    scores' size w is kept, if it is not computed again, and where m is not 0. A row without units, of a
    sentence that is all padding, gives 0 and gets 0, as in torch's own attention.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        keep: Tensor,
        rate: float,
        recompute: bool,
        scores: Optional[Tensor] = None,
    ) -> Tensor:
        """q, k, v: (B, heads, T, d / heads); keep: (B, 1, T, T); rate: dropout's; scores: q k^T, where
        they are known."""
        scores, kept = q @ k.transpose(-1, -2) if scores is None else scores, keep > 0.5
        weights, total = _softmax_of_kept(scores, kept)
        shares = None if recompute else _shares(scores, kept, total)
        spared = None
        if rate > 0:
            spared = torch.empty_like(weights, dtype=torch.bool).bernoulli_(1 - rate)
            weights = weights.mul_(spared)
        ctx.multiplier = 1 / (1 - rate) if rate < 1 else 0.0
        output = (weights.to(v.dtype) @ v).mul_(ctx.multiplier).mul_(kept.any(dim=-1, keepdim=True))
        ctx.save_for_backward(q, k, v, kept, total, shares, spared, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        q, k, v, kept, total, shares, spared, output = ctx.saved_tensors
        if shares is None:
            shares = _shares(q @ k.transpose(-1, -2), kept, total)
        mean = (full_precision(output) * full_precision(gradient)).sum(dim=-1, keepdim=True)
        gradient = (gradient * ctx.multiplier).mul_(kept.any(dim=-1, keepdim=True))
        change = full_precision(gradient @ v.transpose(-1, -2))
        dropped = shares * kept
        if spared is not None:
            change, dropped = change.mul_(spared), dropped.mul_(spared)
        v_gradient = dropped.to(v.dtype).transpose(-1, -2) @ gradient
        change = change.sub_(mean).mul_(shares)
        keep_gradient = None
        if ctx.needs_input_grad[3]:
            keep_gradient = change.sum(dim=1, keepdim=True)  # one mask for all heads
        scores_gradient = change.mul_(kept).to(q.dtype)
        q_gradient = scores_gradient @ k
        k_gradient = scores_gradient.transpose(-1, -2) @ q
        return q_gradient, k_gradient, v_gradient, keep_gradient, None, None, None


def _softmax_of_kept(scores: Tensor, kept: Tensor) -> Tuple[Tensor, Tensor]:
    """The softmax over the kept units of each row, or over all where there is none, and its logsumexp,
    both at least float32."""
    bias = torch.zeros(kept.shape, dtype=torch.float32, device=kept.device)
    scores_left = scores + bias.masked_fill_(~kept & kept.any(dim=-1, keepdim=True), -math.inf)
    weights = torch.softmax(scores_left, dim=-1)
    # Read off the largest weight; torch.logsumexp is many times slower where there are -inf.
    total = scores_left.amax(dim=-1, keepdim=True) - weights.amax(dim=-1, keepdim=True).log()
    return weights, total


def _shares(scores: Tensor, kept: Tensor, total: Tensor) -> Tensor:
    """Each unit's weight in the softmax over those that are kept and itself."""
    # exp() of more than this could overflow; the weight is 1 then anyhow.
    ratios = (scores - total).clamp_(max=80.0).exp_()
    return ratios.div_((ratios * (~kept).to(ratios.dtype)).add_(1))


def _heads(attention: nn.Module, projected: Tensor) -> Tensor:
    """(T, B, d) -> (B, heads, T, d / heads)"""
    length, batch, _ = projected.shape
    return projected.view(length, batch, attention.num_heads, -1).permute(1, 2, 0, 3)


def _query_and_key(attention: nn.Module, query: Tensor) -> Tuple[Tensor, Tensor]:
    scaled = _heads(attention, attention.q_proj(query)) * attention.scaling
    return scaled, _heads(attention, attention.k_proj(query))


def _kept_units(mask: Tensor, padding: Optional[Tensor]) -> Tensor:
    """(B, 1, T, T): 1 - mask, and 0 at padding."""
    keep = (1 - mask)[:, None]
    return keep if padding is None else keep.masked_fill(padding.bool()[:, None, None, :], 0.0)
