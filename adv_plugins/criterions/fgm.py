"""FGM, the fast gradient method on word embeddings (Miyato et al., ICLR 2017)."""

from dataclasses import dataclass
from typing import Any

from fairseq.criterions import register_criterion
from torch import nn

from adv_plugins.criterions.options import EmbeddingStepConfig, check_range
from adv_plugins.criterions.with_asa import AsaAdditionConfig, WithAsa
from adv_plugins.methods import register_method
from adv_plugins.perturbation import DIRECTIONS, sentence_norms, word_embedding
from adv_plugins.step import Step


@dataclass
class FgmCriterionConfig(EmbeddingStepConfig, AsaAdditionConfig):
    """Options of FGM; the size is that of R-AT, whose "AT" rows are FGM."""


@register_method(
    "fgm",
    title="FGM, adversarial training by the fast gradient method",
    paper="Miyato et al., ICLR 2017",
    address="https://arxiv.org/abs/1605.07725",
    summary="a clean pass, and one a gradient step away in embedding space",
    passes="2",
)
@register_criterion("fgm_criterion", dataclass=FgmCriterionConfig)
class FgmCriterion(WithAsa):
    r"""Adversarial training with one step: the clean loss, and the loss one step up its gradient.

    .. math::
        L = CE(f(x), y) + w\, CE(f(x + \delta), y), \qquad
        \delta = \epsilon\, g / \|g\|_2, \quad g = \nabla CE(f(x), y)

    (Eq. 5 and 6), delta a constant. g is the gradient of the embedding matrix over the batch, as in
    R-AT's "AT" and in most users' code, or with ``--adv-norm-over sentence`` that of each sentence's
    embeddings, as in the paper. Each pass draws its own dropout masks.

    Meters: ``loss`` (and all of the base's) is the clean loss; ``adv_loss`` and ``objective`` are in the
    same units; the two norms are R-AT's.

    The authors' released code (TensorFlow, for an LSTM) normalises each word's embedding by its
    frequency first, so that eps has a scale of its own; a pretrained encoder's embeddings stay as they
    are here.

    Raises:
        UserError: options out of range, a task whose criterion cannot be wrapped, or (at the first
            batch) a model without word embeddings.
    """

    ADVICE_ON_NAN = ", or a smaller --adv-eps"
    LOSS_METERS = ("objective", "adv_loss")
    MEAN_METERS = ("perturbation_norm", "embedding_gradient_norm")

    def __init__(self, cfg: FgmCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        check_range(cfg, "adv_eps", "adv_weight", at_least=0)
        self.eps, self.weight = cfg.adv_eps, cfg.adv_weight
        self.direction = DIRECTIONS[str(cfg.adv_norm_over)]

    def is_active(self) -> bool:
        """Plain fine-tuning when the weight is 0."""
        return self.weight != 0

    def check_model(self, model: nn.Module) -> None:
        """It needs word embeddings."""
        super().check_model(model)
        word_embedding(model)

    def perturbed_forward(self, step: Step) -> Any:
        """Eq. 5 and 6 on one batch: two forwards, two backwards."""
        clean, words = step.clean()
        gradients = step.backward(clean.loss, words.outputs)
        direction = self.direction(gradients, words.tokens, step.embedding.padding_idx)
        adversarial = step.run([self.eps * delta for delta in direction.deltas], last=True)
        term = self.weight * adversarial.loss
        return step.finish(
            clean,
            term,
            clean.loss.detach() + term.detach(),
            adv_loss=adversarial.loss,
            perturbation_norm=sentence_norms(direction.deltas).sum() * self.eps,
            embedding_gradient_norm=direction.total_norm(clean.sample_size, clean.logging["nsentences"]),
        )
