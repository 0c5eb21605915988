"""RoBERTa with an adversary beside every self-attention (ASA, Wu et al., AAAI 2023).

The model is fairseq's RoBERTa; each self-attention only carries two more linear maps. They act inside
:func:`biased` alone: everywhere else, so in evaluation and with fairseq's own criterions, an
``asa_roberta`` is a RoBERTa, bit for bit.
"""

import contextlib
import logging
import math
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import torch
from fairseq.models import register_model, register_model_architecture
from fairseq.models.roberta import RobertaModel
from fairseq.models.roberta.model import (
    base_architecture,
    roberta_base_architecture,
    roberta_large_architecture,
)
from torch import Tensor, nn

from adv_plugins.batch import at_least_one
from adv_plugins.checkpointing import computing, plain_forward
from adv_plugins.divergence import full_precision
from adv_plugins.masked_attention import masked_attention
from adv_plugins.perturbation import replaced_forward

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
        if padding is None:
            padding = torch.zeros(scores.shape[:2], dtype=torch.bool, device=scores.device)
        real_key = ~padding.bool()[:, None, :]
        noisy = scores + logistic_noise(scores)
        soft = torch.sigmoid(noisy)
        # A token keeps at least the unit that the adversary wants least; no row is masked wholly.
        least = noisy.masked_fill(~real_key, math.inf).argmin(dim=-1, keepdim=True)
        allowed = (real_key & ~padding.bool()[:, :, None]).scatter(2, least, False)
        hard = (soft > 0.5).to(soft.dtype)
        mask = torch.where(allowed, hard - soft.detach() + soft, 0.0)
        real_units = at_least_one((~padding.bool()).sum(dim=1)).to(soft.dtype).pow(2)
        return mask, mask.sum(dim=(1, 2)) / real_units


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


@contextlib.contextmanager
def biased(model: nn.Module) -> Iterator[List[List[Tensor]]]:
    """Within the context every self-attention of ``model`` is masked by its adversary.

    Works with ``--checkpoint-activations``, also when the backward runs after the context: what such a
    layer computes again is the masked layer, which returns its masked proportion as a second output.

    Yields:
        for each layer a list that gets the (B,) masked proportion, one entry a call of the model.
    """
    proportions: List[List[Tensor]] = []
    with contextlib.ExitStack() as stack:
        for layer in _attacked_layers(model):
            proportions.append([])
            forward = _masked_forward(layer, proportions[-1])
            stack.enter_context(replaced_forward(layer, forward))
        yield proportions


def _masked_forward(layer: nn.Module, proportions: List[Tensor]) -> Callable[..., Tensor]:
    """The forward of a Transformer layer whose attention its adversary masks."""
    plain = plain_forward(layer)

    def masked(*args: Any, **kwargs: Any) -> Tuple[Tensor, Tensor]:
        with _masked_by_adversary(layer.self_attn) as proportion:
            output = plain(*args, **kwargs)
        return output, proportion[0]

    compute = computing(layer, masked)

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        output, proportion = compute(*args, **kwargs)
        proportions.append(proportion)
        return output

    return forward


@contextlib.contextmanager
def _masked_by_adversary(attention: nn.Module) -> Iterator[List[Tensor]]:
    """Within the context ``attention`` is masked; yields a list that gets the masked proportion."""
    proportions: List[Tensor] = []

    def forward(query: Tensor, *args: Any, key_padding_mask: Any = None, **kwargs: Any) -> Any:
        mask, proportion = attention.adversary(query, key_padding_mask)
        proportions.append(proportion)
        reversed_mask = _Reversed.apply(mask)
        return masked_attention(attention, query, key_padding_mask, reversed_mask), None

    with replaced_forward(attention, forward):
        yield proportions


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
