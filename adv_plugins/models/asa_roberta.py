"""RoBERTa with an adversary beside every self-attention (ASA, Wu et al., AAAI 2023).

The model is fairseq's RoBERTa; each self-attention only carries two more linear maps. They act inside
:func:`biased` alone: everywhere else, so in evaluation and with fairseq's own criterions, an
``asa_roberta`` is a RoBERTa, bit for bit.
"""

import contextlib
import logging
import math
from typing import Any, Dict, Iterator, List, Optional, Tuple

import torch
from fairseq.models import register_model, register_model_architecture
from fairseq.models.roberta import RobertaModel
from fairseq.models.roberta.model import (
    base_architecture,
    roberta_base_architecture,
    roberta_large_architecture,
)
from torch import Tensor, nn

from adv_plugins.divergence import full_precision

logger = logging.getLogger(__name__)

ADVERSARY = ".self_attn.adversary."  # part of the names of the adversary's weights


class Adversary(nn.Module):
    r"""Which attention units of a layer to mask, from that layer's input.

    .. math:: s = \tilde Q \tilde K^T / \sqrt d, \qquad
        \mu = \mathbb 1[\sigma((s + g) / T) > 1/2], \quad g \sim \mathrm{Logistic}(0, 1)

    with the straight-through gradient of the sigmoid (binary concrete; section "Fast
    implementation"). One (T, T) mask a sentence, shared by all heads.
    """

    def __init__(self, width: int, temperature: float = 1.0) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.temperature = temperature
        for linear in (self.query, self.key):  # as RoBERTa initialises its own
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, hidden: Tensor, padding: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
        """Draw a mask.

        Args:
            hidden: (T, B, d), the input of the layer. It is detached: the model is no part of its
                own adversary (as in the authors' code; in the paper the penalty "is not associated
                with theta").
            padding: (B, T), True at padding, or None.

        Returns:
            mu (B, T, T), 1 on a masked unit (row: query, column: key), never a whole row and never
            at padding; and the (B,) proportion of the real units that is masked. Both in float32.
        """
        hidden = hidden.detach()
        query, key = (linear(hidden).transpose(0, 1) for linear in (self.query, self.key))
        scores = full_precision(torch.bmm(query, key.transpose(1, 2))) / math.sqrt(query.size(-1))
        if padding is None:
            padding = torch.zeros(scores.shape[:2], dtype=torch.bool, device=scores.device)
        real_key = ~padding.bool()[:, None, :]
        noisy = scores + logistic_noise(scores)
        soft = torch.sigmoid(noisy / self.temperature)
        # A token keeps at least the unit that the adversary wants least; no row is masked wholly.
        least = noisy.masked_fill(~real_key, math.inf).argmin(dim=-1, keepdim=True)
        allowed = (real_key & ~padding.bool()[:, :, None]).scatter(2, least, False)
        hard = (soft > 0.5).to(soft.dtype)
        mask = torch.where(allowed, hard - soft.detach() + soft, 0.0)
        real_units = (~padding.bool()).sum(dim=1).to(soft.dtype).pow(2)
        return mask, mask.sum(dim=(1, 2)) / real_units


def logistic_noise(like: Tensor) -> Tensor:
    """A draw of the logistic distribution (the difference of two Gumbel variables)."""
    uniform = torch.rand_like(like).clamp(1e-6, 1 - 1e-6)
    return torch.log(uniform) - torch.log1p(-uniform)


class _ReversedBias(torch.autograd.Function):
    """log(1 - mu), to be added to the attention scores, with the sign of mu's gradient reversed.

    d log(1 - mu) / d mu is -1 where nothing is masked. At a masked unit it is infinite, but the
    attention's own derivative is 0 there: the unit gets no weight, so the product's limit is 0. So
    the gradient is -1 times the bias's everywhere, and reversed (gradient reversal layer) it is the
    bias's: descent on it is ascent of the adversary. Nothing is multiplied by a large number, so it is
    finite in float16 too.
    """

    @staticmethod
    def forward(ctx: Any, mask: Tensor, dtype: torch.dtype) -> Tensor:  # type: ignore[override]
        ctx.dtype = mask.dtype
        bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        return bias.masked_fill(mask > 0.5, -math.inf)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return gradient.to(ctx.dtype), None


def adversaries(model: nn.Module) -> List[nn.Module]:
    """The self-attentions of ``model`` that carry an adversary, lowest first."""
    return [module for module in model.modules() if hasattr(module, "adversary")]


@contextlib.contextmanager
def biased(model: nn.Module) -> Iterator[List[List[Tensor]]]:
    """Within the context every self-attention of ``model`` is masked by its adversary.

    Yields:
        for each layer a list that gets the (B,) masked proportion, one entry a call of the model.
    """
    proportions: List[List[Tensor]] = []
    handles = []

    def add_mask(layer: int) -> Any:
        def hook(attention: nn.Module, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
            hidden, padding = kwargs["query"], kwargs["key_padding_mask"]
            mask, proportion = attention.adversary(hidden, padding)
            proportions[layer].append(proportion)
            bias = _ReversedBias.apply(mask, hidden.dtype)
            if padding is not None:  # one mask for both, of one kind, as torch wants them
                bias = bias.masked_fill(padding.bool()[:, None, :], -math.inf)
            # (B, T, T) -> (B * heads, T, T), as fairseq's attention takes it
            bias = bias.repeat_interleave(attention.num_heads, dim=0)
            return args, {**kwargs, "attn_mask": bias, "key_padding_mask": None}

        return hook

    try:
        for layer, attention in enumerate(adversaries(model)):
            proportions.append([])
            handles.append(attention.register_forward_pre_hook(add_mask(layer), with_kwargs=True))
        yield proportions
    finally:
        for handle in handles:
            handle.remove()


@register_model("asa_roberta")
class AsaRobertaModel(RobertaModel):
    """RoBERTa whose self-attentions carry adversaries; see the module's docstring.

    It loads any RoBERTa checkpoint: the adversary, and it alone, then starts fresh.
    """

    def __init__(self, args: Any, encoder: Any) -> None:
        super().__init__(args, encoder)
        # The adversary draws its weights beside the run's random stream: a RoBERTa with the same
        # seed has the same weights.
        with torch.random.fork_rng(devices=[]):
            for layer in encoder.sentence_encoder.layers:
                layer.self_attn.adversary = Adversary(layer.self_attn.embed_dim)

    def upgrade_state_dict_named(self, state_dict: Dict[str, Tensor], name: str) -> None:
        """Give a checkpoint without adversary the fresh one of this model."""
        super().upgrade_state_dict_named(state_dict, name)
        prefix = f"{name}." if name else ""
        fresh = {
            prefix + key: value
            for key, value in self.state_dict().items()
            if ADVERSARY in key and prefix + key not in state_dict
        }
        if fresh:
            state_dict.update(fresh)
            logger.info("the checkpoint has no adversary: asa_roberta's starts fresh")


def strip_adversary(state_dict: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """The weights of a plain RoBERTa from those of an ``asa_roberta``."""
    return {key: value for key, value in state_dict.items() if ADVERSARY not in key}


register_model_architecture("asa_roberta", "asa_roberta")(base_architecture)
register_model_architecture("asa_roberta", "asa_roberta_base")(roberta_base_architecture)
register_model_architecture("asa_roberta", "asa_roberta_large")(roberta_large_architecture)
