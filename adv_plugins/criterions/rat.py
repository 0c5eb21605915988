"""R-AT, regularized adversarial training (Ni et al., Findings of EMNLP 2022)."""

import logging
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum
from torch import Tensor, nn

from adv_plugins.batch import at_least_one, repeat_sample
from adv_plugins.criterions.base import (
    CONSISTENCY_CHOICES,
    AsaAdditionConfig,
    BasePass,
    WrappingCriterion,
    check_range,
)
from adv_plugins.divergence import get_divergence
from adv_plugins.dropout import (
    dropout_modules,
    dropout_rate,
    drops_layers,
)
from adv_plugins.errors import UserError
from adv_plugins.gradients import KeptGradients
from adv_plugins.perturbation import (
    Direction,
    embedding_matrix_direction,
    perturbed,
    recorded,
    sentence_direction,
    sentence_norms,
    unwrap,
    word_embedding,
)
from adv_plugins.sequential import compare_one_by_one, with_value

logger = logging.getLogger(__name__)

DIRECTIONS = {"embedding-matrix": embedding_matrix_direction, "sentence": sentence_direction}


@dataclass
class RatCriterionConfig(AsaAdditionConfig):
    """Options of R-AT; the defaults are the paper's for most GLUE tasks (Table 7)."""

    adv_eps: float = field(
        default=0.1, metadata={"help": "L2 norm of the perturbation of the word embeddings"}
    )
    adv_passes: int = field(
        default=2, metadata={"help": "number K of adversarial passes, each with its own dropout"}
    )
    adv_weight: float = field(
        default=1.0, metadata={"help": "weight of the adversarial loss (the paper's is 1)"}
    )
    consistency_weight: float = field(
        default=0.5, metadata={"help": "weight alpha of the consistency between the passes"}
    )
    consistency_loss: CONSISTENCY_CHOICES = field(  # type: ignore[valid-type]
        default="bi-kl",
        metadata={"help": "divergence between two passes (regression: squared difference)"},
    )
    adv_norm_over: ChoiceEnum(list(DIRECTIONS)) = field(  # type: ignore[valid-type]
        default="embedding-matrix",
        metadata={
            "help": "what has norm eps: the perturbation of the embedding matrix, or that of each "
            "sentence (of each question, over all its choices)"
        },
    )
    adv_eps_per_pass: Optional[str] = field(
        default=None,
        metadata={"help": "K comma-separated norms, one a pass, instead of --adv-eps"},
    )
    adv_dropout_per_pass: Optional[str] = field(
        default=None,
        metadata={"help": "K comma-separated dropout rates, one a pass, instead of the model's"},
    )


@register_criterion("rat_criterion", dataclass=RatCriterionConfig)
class RatCriterion(WrappingCriterion):
    r"""Regularized adversarial training: the loss under one perturbation and K dropout masks.

    .. math::
        \delta = \epsilon\, g / \|g\|_2, \quad g = \nabla_E L_{st}, \qquad
        L = L_{st} + \tfrac1K \sum_k CE(P_k, y)
            + \alpha \operatorname{mean}_{k<l} \tfrac12 [KL(P_k \| P_l) + KL(P_l \| P_k)]

    with P_k the prediction for the embeddings E + delta under the k-th dropout mask (Eq. 5 to 9,
    Algorithm 1; K > 2: section 5.3, where alpha weighs the MEAN over pairs). delta is a constant:
    no gradient flows through it. Losses are sums over the batch, so alpha means the same at every
    batch size. The batch is the one a worker sees in one forward.

    Meters: ``loss`` (and all of the base's) is the clean loss in training and validation;
    ``adv_loss``, ``consistency_loss`` and ``objective`` are in the same units; ``perturbation_norm``
    is the L2 norm of a sentence's perturbation; ``embedding_gradient_norm`` is ||g||_2, of the mean
    loss for the embedding matrix, of its own loss for a sentence.

    The authors' released code perturbs the embedding matrix in place, uses eps = 1, and adds the KL
    summed over the batch to a mean cross entropy, so its alpha grows with the batch size.

    Raises:
        UserError: options out of range, a task whose criterion cannot be wrapped, or (at the first
            batch) a model without word embeddings.
    """

    ADVICE_ON_NAN = ", or a smaller --adv-eps"
    LOSS_METERS = ("objective", "adv_loss", "consistency_loss")
    MEAN_METERS = ("perturbation_norm", "embedding_gradient_norm")

    def __init__(self, cfg: RatCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        check_range(cfg, "adv_passes", at_least=1)
        check_range(cfg, "adv_eps", "adv_weight", "consistency_weight", at_least=0)
        self.passes = cfg.adv_passes
        if self.passes < 2 and cfg.consistency_weight != 0:
            raise UserError(
                "--adv-passes 1 leaves nothing to compare: give --adv-passes 2 or more, or "
                "--consistency-weight 0"
            )
        self.eps = _per_pass("--adv-eps-per-pass", cfg.adv_eps_per_pass, self.passes)
        self.eps = self.eps or [cfg.adv_eps] * self.passes
        self.dropouts = _per_pass("--adv-dropout-per-pass", cfg.adv_dropout_per_pass, self.passes)
        if any(rate >= 1 for rate in self.dropouts):
            raise UserError(f"--adv-dropout-per-pass needs rates below 1, not {self.dropouts}")
        self.adv_weight = cfg.adv_weight
        self.consistency_weight = cfg.consistency_weight
        self.divergence = get_divergence(str(cfg.consistency_loss), regression=self.regression)
        self.direction = DIRECTIONS[str(cfg.adv_norm_over)]
        self._model_checked = False

    def is_active(self) -> bool:
        """With both weights at 0 R-AT is plain fine-tuning."""
        return self.adv_weight != 0 or self.consistency_weight != 0

    def check_model(self, model: nn.Module) -> None:
        """It needs word embeddings."""
        super().check_model(model)
        if self.is_active():
            word_embedding(model)

    def perturbed_forward(self, model: nn.Module, sample: Dict[str, Any]) -> Any:
        """Algorithm 1 on one batch: 3 forwards and backwards' worth of work for K = 2."""
        module = unwrap(model)
        embedding = word_embedding(module)
        self._check(module)
        kept = self.kept_gradients(model)

        with recorded(embedding) as words:
            clean = self.run_base(module, sample, write=True, logits=False)
        gradients = kept.backward(clean.loss, words.outputs)
        direction = self.direction(gradients, words.tokens, embedding.padding_idx)

        if self.sequential:
            adv_loss, consistency_loss, term = self._one_by_one(model, sample, direction, kept)
        else:
            summed_loss, logits = self._adversarial_passes(model, sample, direction)
            adv_loss, consistency_loss = summed_loss / self.passes, self._consistency(logits)
            term = self.adv_weight * adv_loss + self.consistency_weight * consistency_loss
        value = self.adv_weight * adv_loss + self.consistency_weight * consistency_loss
        loss = kept.attach(with_value(term, clean.loss + value))
        clean.logging.update(
            objective=loss.detach(),
            adv_loss=adv_loss.detach(),
            consistency_loss=consistency_loss.detach(),
            **self._norms(direction, clean),
        )
        return loss, clean.sample_size, clean.logging

    def _adversarial_passes(
        self, model: nn.Module, sample: Dict[str, Any], direction: Direction
    ) -> Tuple[Tensor, List[Tensor]]:
        """Summed loss and the logits of each of the K passes of E + delta.

        Where that is the same, they are one forward of a K times larger batch.
        """
        module = unwrap(model)
        embedding = word_embedding(module)
        if not self.dropouts and not drops_layers(module):
            deltas = [torch.cat([eps * delta for eps in self.eps]) for delta in direction.deltas]
            with perturbed(embedding, deltas):
                whole = self.run_base(model, repeat_sample(sample, self.passes))
            return whole.loss, list(whole.logits.chunk(self.passes))
        # One dropout rate a pass, or layers dropped for a whole batch: pass by pass. Only the last
        # goes through the distributed wrapper, which prepares one backward.
        passes = []
        for index, eps in enumerate(self.eps):
            rate = dropout_rate(module, self.dropouts[index]) if self.dropouts else nullcontext()
            with rate, perturbed(embedding, [eps * delta for delta in direction.deltas]):
                last = index == self.passes - 1
                passes.append(self.run_base(model if last else module, sample))
        return sum(each.loss for each in passes), [each.logits for each in passes]

    def _one_by_one(
        self, model: nn.Module, sample: Dict[str, Any], direction: Direction, kept: KeptGradients
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """L_adv and L_kl, without gradient, and the term that is left to differentiate."""
        module = unwrap(model)
        embedding = word_embedding(module)

        def make_pass(index: int) -> Callable[[bool], BasePass]:
            deltas = [self.eps[index] * delta for delta in direction.deltas]

            def run(differentiated: bool) -> BasePass:
                rate = dropout_rate(module, self.dropouts[index]) if self.dropouts else nullcontext()
                with rate, perturbed(embedding, deltas):
                    return self.run_base(model if differentiated else module, sample)

            return run

        compared = compare_one_by_one(
            [make_pass(index) for index in range(self.passes)],
            weight=self.adv_weight / self.passes,
            compare=lambda logits: self.consistency_weight * self._consistency(logits),
            kept=kept,
            device=embedding.weight.device,
        )
        consistency_loss = compared.consistency / (self.consistency_weight or 1)
        return compared.summed_loss / self.passes, consistency_loss, compared.term

    def _consistency(self, logits: List[Tensor]) -> Tensor:
        """Mean divergence over the pairs of passes."""
        pairs = list(combinations(logits, 2))
        if self.consistency_weight == 0 or not pairs:
            return logits[0].new_zeros(())
        return sum(self.divergence(p, q) for p, q in pairs) / len(pairs)

    def _norms(self, direction: Direction, clean: BasePass) -> Dict[str, Tensor]:
        """Sums over sentences of the two norms that are logged."""
        sentences = clean.logging["nsentences"]
        unit_norms = sentence_norms(direction.deltas).sum()
        gradient_norm = (
            direction.norm.sum()
            if direction.norm.dim()
            else direction.norm * sentences / at_least_one(clean.sample_size)
        )
        return {
            "perturbation_norm": unit_norms * sum(self.eps) / self.passes,
            "embedding_gradient_norm": gradient_norm,
        }

    def _check(self, model: nn.Module) -> None:
        """Once: say so when the K passes cannot differ."""
        if self._model_checked:
            return
        self._model_checked = True
        dropout = bool(dropout_modules(model)) and (any(self.dropouts) or not self.dropouts)
        if self.passes > 1 and not dropout and len(set(self.eps)) == 1:
            logger.warning(
                "the model has no dropout, so the %d adversarial passes (--adv-passes) are equal "
                "and their consistency is 0: give --dropout or --attention-dropout",
                self.passes,
            )


def _per_pass(flag: str, text: Optional[str], passes: int) -> List[float]:
    """Comma-separated numbers >= 0, one for each pass; [] when the option is not given."""
    if not text:
        return []
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError:
        raise UserError(f"{flag} needs comma-separated numbers, not {text!r}") from None
    if len(values) != passes or not all(value >= 0 for value in values):
        raise UserError(
            f"{flag} needs {passes} numbers of at least 0 (one for each of --adv-passes), not {text!r}"
        )
    return values
