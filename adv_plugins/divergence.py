"""Divergences between two sets of logits: pure functions, one number per row, then summed.

Shapes: both logits are (N, C), N rows (sentences, questions, masked or labelled tokens) over C classes.
Every function returns the SUM over the N rows as a scalar, so a weight on it means the same at
every batch size (fairseq divides by the sample size later). Gradients flow through BOTH arguments.
"""

from itertools import combinations
from typing import Callable, Dict, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_compat.errors import UserError


def full_precision(tensor: Tensor) -> Tensor:
    """float16 and bfloat16 become float32; float32 and float64 stay what they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _log_softmax(logits: Tensor) -> Tensor:
    return F.log_softmax(full_precision(logits), dim=-1)


def kl(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """KL(P || Q) = sum_c P_c (log P_c - log Q_c)."""
    log_p, log_q = _log_softmax(logits_p), _log_softmax(logits_q)
    return (log_p.exp() * (log_p - log_q)).sum()


def bi_kl(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """Bidirectional KL = 1/2 [ KL(P || Q) + KL(Q || P) ], HALF the sum (R-AT, Eq. 7)."""
    log_p, log_q = _log_softmax(logits_p), _log_softmax(logits_q)
    return 0.5 * ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum()


def js(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """Jensen-Shannon = 1/2 KL(P || M) + 1/2 KL(Q || M), M = (P + Q) / 2."""
    log_p, log_q = _log_softmax(logits_p), _log_softmax(logits_q)
    log_m = torch.logaddexp(log_p, log_q) - torch.log(log_p.new_tensor(2.0))
    return 0.5 * (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)).sum()


def ce(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """Cross entropy H(P, Q) = - sum_c P_c log Q_c (not zero at P = Q: it holds P's entropy)."""
    return -(_log_softmax(logits_p).exp() * _log_softmax(logits_q)).sum()


def mse(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """Mean over the C classes of (P_c - Q_c)^2, on probabilities."""
    difference = _log_softmax(logits_p).exp() - _log_softmax(logits_q).exp()
    return difference.pow(2).mean(dim=-1).sum()


def mae(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """Mean over the C classes of |P_c - Q_c|, on probabilities."""
    difference = _log_softmax(logits_p).exp() - _log_softmax(logits_q).exp()
    return difference.abs().mean(dim=-1).sum()


def squared_difference(outputs_p: Tensor, outputs_q: Tensor) -> Tensor:
    """For regression: sum over sentences of the squared difference of the two raw outputs."""
    return (full_precision(outputs_p) - full_precision(outputs_q)).pow(2).sum()


def mean_over_pairs(divergence: Callable[[Tensor, Tensor], Tensor], logits: Sequence[Tensor]) -> Tensor:
    """The mean divergence between any two of the (N, C) logits, of which there are two at least."""
    return torch.stack([divergence(p, q) for p, q in combinations(logits, 2)]).mean()


DIVERGENCES: Dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bi-kl": bi_kl,
    "js": js,
    "kl": kl,
    "ce": ce,
    "mse": mse,
    "mae": mae,
}


def get_divergence(name: str, *, regression: bool = False) -> Callable[[Tensor, Tensor], Tensor]:
    """The divergence called ``name``; for regression always :func:`squared_difference`.

    Raises:
        UserError: ``name`` is not one of :data:`DIVERGENCES`.
    """
    if name not in DIVERGENCES:
        raise UserError(
            f"--consistency-loss {name!r} is unknown: choose one of {', '.join(DIVERGENCES)}"
        )
    return squared_difference if regression else DIVERGENCES[name]
