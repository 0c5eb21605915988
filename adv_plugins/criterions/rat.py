"""R-AT, regularized adversarial training (Ni et al., Findings of EMNLP 2022)."""

from dataclasses import dataclass, field
from typing import Any, List, Optional

from fairseq.criterions import register_criterion
from torch import Tensor, nn

from adv_plugins.criterions.options import (
    CONSISTENCY_CHOICES,
    EmbeddingStepConfig,
    check_range,
    one_for_each_pass,
)
from adv_plugins.criterions.with_asa import AsaAdditionConfig, WithAsa
from adv_plugins.divergence import get_divergence, mean_over_pairs
from adv_plugins.dropout import warn_of_equal_passes
from adv_plugins.methods import register_method
from adv_plugins.perturbation import DIRECTIONS, sentence_norms, word_embedding
from adv_plugins.step import Pass, Ran, Step
from fairseq_compat.errors import UserError


@dataclass
class RatCriterionConfig(EmbeddingStepConfig, AsaAdditionConfig):
    """Options of R-AT; the defaults are the paper's for most GLUE tasks (Table 7)."""

    adv_passes: int = field(
        default=2, metadata={"help": "number K of adversarial passes, each with its own dropout"}
    )
    consistency_weight: float = field(
        default=0.5, metadata={"help": "weight alpha of the consistency between the passes"}
    )
    consistency_loss: CONSISTENCY_CHOICES = field(
        default="bi-kl",
        metadata={"help": "divergence between two passes (regression: squared difference)"},
    )
    adv_eps_per_pass: Optional[str] = field(
        default=None,
        metadata={"help": "K comma-separated norms, one a pass, instead of --adv-eps"},
    )
    adv_dropout_per_pass: Optional[str] = field(
        default=None,
        metadata={"help": "K comma-separated dropout rates, one a pass, instead of the model's"},
    )


@register_method(
    "rat",
    title="R-AT, regularized adversarial training",
    paper="Ni et al., Findings of EMNLP 2022",
    address="https://github.com/IKMLab/R-AT",
    summary="gradient step in embedding space, then K passes there, each with its masks, that agree",
    passes="1 + K",
)
@register_criterion("rat_criterion", dataclass=RatCriterionConfig)
class RatCriterion(WithAsa):
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
        self.eps = one_for_each_pass(cfg, "adv_eps_per_pass", otherwise=cfg.adv_eps)
        self.dropouts = one_for_each_pass(cfg, "adv_dropout_per_pass", otherwise=None, below=1)
        self.adv_weight = cfg.adv_weight
        self.consistency_weight = cfg.consistency_weight
        self.divergence = get_divergence(str(cfg.consistency_loss), regression=self.regression)
        self.direction = DIRECTIONS[str(cfg.adv_norm_over)]

    def is_active(self) -> bool:
        """With both weights at 0 R-AT is plain fine-tuning."""
        return self.adv_weight != 0 or self.consistency_weight != 0

    def check_model(self, model: nn.Module) -> None:
        """It needs word embeddings; and a word where the K passes cannot differ."""
        super().check_model(model)
        if self.is_active():
            word_embedding(model)
            if self.passes > 1 and len(set(self.eps)) == 1:
                warn_of_equal_passes(model, self.dropouts)

    def perturbed_forward(self, step: Step) -> Any:
        """Algorithm 1 on one batch: 3 forwards and backwards' worth of work for K = 2."""
        clean, words = step.clean()
        gradients = step.backward(clean.loss, words.outputs)
        direction = self.direction(gradients, words.tokens, step.embedding.padding_idx)
        passes = [
            Pass(self.adv_weight / self.passes, [eps * delta for delta in direction.deltas], rate)
            for eps, rate in zip(self.eps, self.dropouts)
        ]
        compared = step.compare(passes, self._consistency, compare_weight=self.consistency_weight)
        return step.finish(
            clean,
            compared.term,
            clean.loss.detach() + compared.value,
            adv_loss=compared.loss / self.passes,
            consistency_loss=compared.parts,
            perturbation_norm=sentence_norms(direction.deltas).sum() * sum(self.eps) / self.passes,
            embedding_gradient_norm=direction.total_norm(clean.sample_size, clean.logging["nsentences"]),
        )

    def _consistency(self, passes: List[Ran]) -> Tensor:
        """Mean divergence over the pairs of passes."""
        logits = [each.outputs[0] for each in passes]
        if self.consistency_weight == 0:
            return logits[0].new_zeros(())
        return mean_over_pairs(self.divergence, logits)
