"""RoBERTa with an adversary beside every self-attention (ASA, Wu et al., AAAI 2023).

The model is fairseq's RoBERTa; each self-attention only carries two more linear maps. They act inside
:func:`biased` alone: everywhere else, so in evaluation and with fairseq's own criterions, an
``asa_roberta`` is a RoBERTa, bit for bit.
"""

import logging
import math
from typing import Any, ContextManager, Dict, List, Optional, Tuple

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
from adv_plugins.masked_attention import masked_attention
from adv_plugins.masked_layers import maskable, masked_layers, masked_proportion, real_positions

logger = logging.getLogger(__name__)

ADVERSARY = ".self_attn.adversary."  # part of the names of the adversary's weights


class Adversary(nn.Module):
    r"""Which attention units of a layer to mask, from that layer's input.

    .. math:: s = \tilde Q \tilde K^T / \sqrt d, \qquad
        \mu = \mathbb 1[\sigma(s + g) > 1/2], \quad g \sim \mathrm{Logistic}(0, 1)

    with the straight-through gradient of the sigmoid (binary concrete; section "Fast
    implementation"). One (T, T) mask a sentence, shared by all heads.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
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
        real = real_positions(scores, padding)
        noisy = scores + logistic_noise(scores)
        soft = torch.sigmoid(noisy)
        hard = (soft > 0.5).to(soft.dtype)
        mask = torch.where(maskable(noisy, real), hard - soft.detach() + soft, 0.0)
        return mask, masked_proportion(mask, real)


def logistic_noise(like: Tensor) -> Tensor:
    """A draw of the logistic distribution (the difference of two Gumbel variables)."""
    uniform = torch.rand_like(like).clamp(1e-6, 1 - 1e-6)
    return torch.log(uniform) - torch.log1p(-uniform)


class _Reversed(torch.autograd.Function):
    """Gradient reversal: the identity, whose backward turns the sign round."""

    @staticmethod
    def forward(ctx: Any, mask: Tensor) -> Tensor:
        return mask.view_as(mask)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


def adversaries(model: nn.Module) -> List[nn.Module]:
    """The self-attentions of ``model`` that carry an adversary, lowest first."""
    return [layer.self_attn for layer in _attacked_layers(model)]


def _attacked_layers(model: nn.Module) -> List[nn.Module]:
    return [m for m in model.modules() if hasattr(getattr(m, "self_attn", None), "adversary")]


def biased(model: nn.Module) -> ContextManager[List[List[Tensor]]]:
    """Within the context every self-attention of ``model`` is masked by its adversary; yields the masked
    proportions as :func:`masked_layers` does."""
    return masked_layers(_attacked_layers(model), _attend_under_attack)


def _attend_under_attack(
    attention: nn.Module, query: Tensor, padding: Optional[Tensor]
) -> Tuple[Tensor, Tensor]:
    """A self-attention masked by its adversary; see :data:`masked_layers.Attend`."""
    mask, proportion = attention.adversary(query, padding)
    return masked_attention(attention, query, padding, _Reversed.apply(mask)), proportion


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
            # Not by iteration, which under LayerDrop leaves layers out.
            for layer in vars(encoder.sentence_encoder.layers)["_modules"].values():
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
