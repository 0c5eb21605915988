"""ASA, adversarial self-attention (Wu et al., AAAI 2023)."""

from dataclasses import dataclass, field
from typing import Any, Dict, List

import torch
from torch import Tensor, nn

from adv_plugins.criterions.base import (
    CONSISTENCY_CHOICES,
    WrappingCriterion,
    WrappingCriterionConfig,
    check_range,
)
from adv_plugins.divergence import get_divergence
from adv_plugins.models.asa_roberta import adversaries, biased
from adv_plugins.perturbation import captured_features, unwrap
from fairseq import metrics
from fairseq.criterions import register_criterion

PROPORTION = "masked_layer"  # prefix of the meters of the masked proportion, followed by the layer


@dataclass
class AsaCriterionConfig(WrappingCriterionConfig):
    """Options of ASA."""

    asa_tau: float = field(
        default=0.3,
        metadata={"help": "price tau of a masked unit: the lower, the stronger the adversary"},
    )
    consistency_weight: float = field(
        default=1.0, metadata={"help": "weight alpha of the divergence from the clean prediction"}
    )
    consistency_loss: CONSISTENCY_CHOICES = field(  # type: ignore[valid-type]
        default="bi-kl",
        metadata={"help": "divergence from the clean prediction (regression: squared difference)"},
    )


@register_criterion("asa_criterion", dataclass=AsaCriterionConfig)
class AsaCriterion(WrappingCriterion):
    r"""A clean pass, a pass whose attention an adversary masks, and a game between the two.

    .. math::
        \min_\theta\; L_e + \alpha L_{asa}, \quad \max_\eta\; \alpha L_{asa} - \tau L_c, \qquad
        L_{asa} = D(f(x), f(x, \mu_\eta)), \quad L_c = \sum_i \mathrm{mean}(\mu_i)

    over the self-attention layers i (Eq. 9; gradient reversal makes both one backward pass). L_c of a
    sentence is the sum over layers of its masked PROPORTION, so tau means the same at every length.
    (The paper's Eq. 8 adds the penalty, with the norm of a keep-mask in mind: a lower tau is a stronger
    attack.) For multiple choice a question's L_c is the mean over its candidates. For masked LM this is
    the paper's continual pre-training (Eq. 10): L_asa on the masked tokens, plus the same divergence of
    the final hidden state (softmax over its units) at the first position.

    Meters: ``loss`` (and all of the base's) is the clean loss; ``asa_loss``, ``sentence_asa_loss``
    (masked LM), ``penalty_loss`` (tau L_c) and ``objective`` are in the same units;
    ``masked_proportion`` is the mean over layers, ``masked_layer1`` ... each layer's (Figure 5).

    The authors' released code adds the Gumbel noise and subtracts it again, divides by a temperature of
    1e-12, adds a finite -1e4 to the scores of masked units and penalises by tau^2 times the number of
    kept units.

    Raises:
        ValueError: options out of range, a task whose criterion cannot be wrapped, or (at the first
            batch) a model without adversaries or with activation checkpointing.
    """

    LOSS_METERS = ("objective", "asa_loss", "penalty_loss", "sentence_asa_loss")
    MEAN_METERS = ("masked_proportion",)

    def __init__(self, cfg: AsaCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        check_range(cfg, "asa_tau", "consistency_weight", at_least=0)
        self.tau = cfg.asa_tau
        self.consistency_weight = cfg.consistency_weight
        self.divergence = get_divergence(str(cfg.consistency_loss), regression=self.regression)
        self.sentence_divergence = get_divergence(str(cfg.consistency_loss))
        self.pre_training = _is_masked_lm(self.base)

    def is_active(self) -> bool:
        """Plain fine-tuning when the weight is 0."""
        return self.consistency_weight != 0

    def perturbed_forward(self, model: nn.Module, sample: Dict[str, Any]) -> Any:
        """Eq. 9 (Eq. 10 for masked LM) on one batch: two forwards, one backward."""
        module = unwrap(model)
        _check(module)
        with captured_features(module) as clean_features:
            clean = self.run_base(module, sample, write=True)
        with captured_features(module) as biased_features, biased(module) as proportions:
            attacked = self.run_base(model, sample)

        # Per-sentence terms weigh one for each sentence, whatever the base divides its loss by
        # (masked LM: the number of masked tokens).
        def per_sentence(total: Tensor) -> Tensor:
            return total * clean.sample_size / clean.logging["nsentences"]

        asa_loss = self.divergence(clean.logits, attacked.logits)
        sentence_loss = torch.zeros_like(asa_loss)
        if self.pre_training:
            sentence_loss = per_sentence(
                self.sentence_divergence(clean_features[0], biased_features[0])
            )
        masked = _per_layer(proportions)
        penalty_loss = self.tau * per_sentence(masked.sum())
        loss = clean.loss + self.consistency_weight * (asa_loss + sentence_loss) + penalty_loss
        clean.logging.update(
            objective=loss.detach(),
            asa_loss=asa_loss.detach(),
            penalty_loss=penalty_loss.detach(),
            sentence_asa_loss=sentence_loss.detach(),
            masked_proportion=masked.detach().mean(dim=0).sum(),
        )
        for layer, proportion in enumerate(masked.detach().sum(dim=1)):
            clean.logging[f"{PROPORTION}{layer + 1}"] = proportion
        return loss, clean.sample_size, clean.logging

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """The base's and the method's metrics, and the masked proportion of each layer."""
        super().reduce_metrics(logging_outputs)
        sentences = sum(log.get("nsentences", 0) for log in logging_outputs)
        for key in logging_outputs[0] if logging_outputs else ():
            if key.startswith(PROPORTION):
                total = sum(log.get(key, 0) for log in logging_outputs)
                metrics.log_scalar(key, total / sentences, sentences, round=4)


def _per_layer(proportions: List[List[Tensor]]) -> Tensor:
    """(layers, B) masked proportions; the candidates of a question are averaged."""
    return torch.stack([torch.stack(calls).mean(dim=0) for calls in proportions])


def _is_masked_lm(base: nn.Module) -> bool:
    from fairseq.criterions.masked_lm import MaskedLmLoss

    return isinstance(base, MaskedLmLoss)


def _check(model: nn.Module) -> None:
    if not adversaries(model):
        raise ValueError(
            f"asa_criterion needs a model with adversaries, and {type(model).__name__} has none: "
            "give --arch asa_roberta, asa_roberta_base or asa_roberta_large"
        )
    if any(hasattr(module, "precheckpoint_forward") for module in model.modules()):
        raise ValueError(
            "asa_criterion cannot train its adversary under --checkpoint-activations, which hides "
            "the masks of the forward pass from the penalty: leave that flag out"
        )
