"""How the authors' releases compute an update, for the benchmark alone: FreeLB's, R-AT's and ASA's.

Plain re-implementations of what their code does that costs time or memory, on the same models and
through the same trainer. They are no methods to train with: where a release differs from its paper,
so do these.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.criterions import register_criterion
from fairseq.criterions.sentence_prediction import (
    SentencePredictionConfig,
    SentencePredictionCriterion,
)
from torch import Tensor, nn

from adv_plugins.models.asa_roberta import adversaries
from adv_plugins.perturbation import perturbed, word_embedding


class Release(SentencePredictionCriterion):
    """fairseq's criterion, called several times in an update."""

    def __init__(self, cfg: Any, task: Any) -> None:
        super().__init__(cfg, task)
        self.cfg = cfg

    @classmethod
    def build_criterion(cls, cfg: Any, task: Any) -> "Release":
        """With the whole configuration."""
        return cls(cfg, task)

    def logits(self, model: nn.Module, sample: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """(B, C) logits and their summed cross entropy."""
        logits, _ = model(
            **sample["net_input"],
            features_only=True,
            classification_head_name=self.classification_head_name,
        )
        loss = nn.functional.cross_entropy(logits.float(), sample["target"].view(-1), reduction="sum")
        return logits.float(), loss


@dataclass
class FreelbReleaseConfig(SentencePredictionConfig):
    """Options."""

    release_adv_steps: int = field(default=3, metadata={"help": "ascents after a first pass"})


@register_criterion("freelb_release", dataclass=FreelbReleaseConfig)
class FreelbRelease(Release):
    """K + 1 passes for K ascents, each with a backward of its own into ``.grad``.

    With several workers each of these backwards is reduced.
    """

    def forward(self, model: nn.Module, sample: dict[str, Any], reduce: bool = True) -> Any:
        """The last pass is the trainer's."""
        embedding, steps = word_embedding(model), self.cfg.release_adv_steps
        shape = (*sample["net_input"]["src_tokens"].shape, embedding.embedding_dim)
        delta = torch.zeros(shape, device=embedding.weight.device).uniform_(-1, 1) / math.sqrt(shape[1])
        for step in range(steps + 1):
            delta = delta.detach().requires_grad_()
            with perturbed(embedding, [delta]):
                loss, size, logging = super().forward(model, sample, reduce)
            loss = loss / (1 + steps)
            if step == steps:
                return loss, size, logging
            loss.backward()
            gradient = delta.grad
            norm = gradient.view(shape[0], -1).norm(dim=1).view(-1, 1, 1).clamp(min=1e-8)
            delta = delta + 0.1 * gradient / norm
            norm = delta.detach().view(shape[0], -1).norm(dim=1).view(-1, 1, 1)
            delta = delta * (0.3 / norm).clamp(max=1)
        raise AssertionError("unreachable")


@register_criterion("rat_release", dataclass=SentencePredictionConfig)
class RatRelease(Release):
    """The embedding matrix perturbed in place (and restored), two sequential passes."""

    def forward(self, model: nn.Module, sample: dict[str, Any], reduce: bool = True) -> Any:
        """The trainer differentiates the two adversarial passes; the clean one is done here."""
        loss, size, logging = super().forward(model, sample, reduce)
        loss.backward()
        weight = word_embedding(model).weight
        backup = weight.data.clone()
        norm = torch.norm(weight.grad)
        weight.data.add_(1.0 * weight.grad / norm)
        passes = [self.logits(model, sample) for _ in range(2)]
        weight.data = backup
        p, q = (logits.log_softmax(dim=-1) for logits, _ in passes)
        kl = nn.functional.kl_div(p, q, log_target=True, reduction="sum")
        kl = (kl + nn.functional.kl_div(q, p, log_target=True, reduction="sum")) / 2
        return 0.5 * (passes[0][1] + passes[1][1]) + 0.5 * kl, size, logging


@register_criterion("asa_release", dataclass=SentencePredictionConfig)
class AsaRelease(Release):
    """Two full passes, attention written out in both; the masks enter as a finite -1e4.

    Needs an ``asa_roberta``, whose adversaries' maps it uses.
    """

    def forward(self, model: nn.Module, sample: dict[str, Any], reduce: bool = True) -> Any:
        """Both passes are the trainer's."""
        with written_out(model, masked=False):
            clean, loss = self.logits(model, sample)
        with written_out(model, masked=True) as penalties:
            attacked, _ = self.logits(model, sample)
        p, q = clean.log_softmax(dim=-1), attacked.log_softmax(dim=-1)
        kl = nn.functional.kl_div(p, q, log_target=True, reduction="sum")
        kl = (kl + nn.functional.kl_div(q, p, log_target=True, reduction="sum")) / 2
        size = sample["target"].size(0)
        logging = {"loss": loss.detach(), "ntokens": sample["ntokens"], "nsentences": size}
        logging["sample_size"] = size
        return loss + kl + 0.3**2 * sum(penalties) / size, size, logging


class written_out:
    """Within the context attention is matrix products and a softmax, as in 2019's code."""

    def __init__(self, model: nn.Module, *, masked: bool) -> None:
        self.attentions, self.masked = adversaries(model), masked
        self.penalties: list[Tensor] = []

    def __enter__(self) -> list[Tensor]:
        for attention in self.attentions:
            attention.forward = self._forward(attention)
        return self.penalties

    def __exit__(self, *error: Any) -> None:
        for attention in self.attentions:
            vars(attention).pop("forward", None)

    def _forward(self, attention: nn.Module) -> Any:
        def heads(projected: Tensor) -> Tensor:
            length, batch, _ = projected.shape
            return projected.view(length, batch, attention.num_heads, -1).permute(1, 2, 0, 3)

        def forward(query: Tensor, *unused: Any, **also: Any) -> Any:
            q = heads(attention.q_proj(query)) * attention.scaling
            k, v = heads(attention.k_proj(query)), heads(attention.v_proj(query))
            scores = q @ k.transpose(-1, -2)
            if self.masked:
                maps, hidden = attention.adversary, query.detach().transpose(0, 1)
                s = maps.query(hidden) @ maps.key(hidden).transpose(-1, -2)
                keep = torch.sigmoid(s / math.sqrt(hidden.size(-1)))
                keep = (keep > 0.5).to(keep) - keep.detach() + keep
                scores = scores + ((1 - keep) * -1e4)[:, None]
                self.penalties.append(keep.sum())
            weights = attention.dropout_module(scores.float().softmax(dim=-1).to(v))
            return attention.out_proj((weights @ v).permute(2, 0, 1, 3).reshape(query.shape)), None

        return forward
