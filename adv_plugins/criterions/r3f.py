"""R3F, robust representations through regularized finetuning (Aghajanyan et al., ICLR 2021)."""

from dataclasses import dataclass, field
from typing import Any, List

from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum
from torch import Tensor, nn

from adv_plugins.criterions.options import CleanConsistencyConfig, check_range
from adv_plugins.criterions.with_asa import AsaAdditionConfig, WithAsa
from adv_plugins.divergence import get_divergence
from adv_plugins.methods import register_method
from adv_plugins.noise import DISTRIBUTIONS, embedding_noise
from adv_plugins.perturbation import sentence_norms, word_embedding
from adv_plugins.step import Pass, Ran, Step


@dataclass
class R3fCriterionConfig(CleanConsistencyConfig, AsaAdditionConfig):
    """Options of R3F."""

    noise_type: ChoiceEnum(list(DISTRIBUTIONS)) = field(  # type: ignore[valid-type]
        default="uniform", metadata={"help": "distribution of the noise (the paper has both)"}
    )
    noise_eps: float = field(
        default=1e-5,
        metadata={"help": "uniform noise in [-eps, eps], or the normal one's standard deviation"},
    )


@register_method(
    "r3f",
    title="R3F, robust representations through regularized finetuning",
    paper="Aghajanyan et al., ICLR 2021",
    address="https://github.com/facebookresearch/fairseq/tree/main/examples/rxf",
    summary="random noise on the word embeddings must not change the prediction",
    passes="2",
)
@register_criterion("r3f_criterion", dataclass=R3fCriterionConfig)
class R3fCriterion(WithAsa):
    r"""The prediction must not change under noise on the word embeddings.

    .. math::
        L = CE(f(x), y) + \lambda\, D(f(x), f(x + z)), \qquad
        z \sim U(-\epsilon, \epsilon) \text{ or } N(0, \epsilon^2 I)

    (section 3; the gradient flows through both arguments of D). The paper's D is KL(P||Q) + KL(Q||P),
    twice ``bi-kl``: its lambda = 1 is ``--consistency-weight 2``. Each pass draws its own dropout
    masks, in the paper's code too; at the paper's eps of 1e-5 they are most of the difference.

    Meters: ``loss`` (and all of the base's) is the clean loss; ``consistency_loss`` (D) and
    ``objective`` are in the same units; ``perturbation_norm`` is the L2 norm of a sentence's noise.

    The authors' released code (fairseq's ``examples/rxf``) hands the noisy embeddings to an encoder that
    ignores them, so that it perturbs nothing; and it perturbs padding.

    Raises:
        UserError: options out of range, a task whose criterion cannot be wrapped, or (at the first
            batch) a model without word embeddings.
    """

    ADVICE_ON_NAN = ", or a smaller --noise-eps"
    LOSS_METERS = ("objective", "consistency_loss")
    MEAN_METERS = ("perturbation_norm",)

    def __init__(self, cfg: R3fCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        check_range(cfg, "noise_eps", "consistency_weight", at_least=0)
        self.noise_type, self.eps = str(cfg.noise_type), cfg.noise_eps
        self.consistency_weight = cfg.consistency_weight
        self.divergence = get_divergence(str(cfg.consistency_loss), regression=self.regression)

    def is_active(self) -> bool:
        """Plain fine-tuning when the weight is 0."""
        return self.consistency_weight != 0

    def check_model(self, model: nn.Module) -> None:
        """It needs word embeddings."""
        super().check_model(model)
        word_embedding(model)

    def perturbed_forward(self, step: Step) -> Any:
        """A clean and a noisy pass on one batch."""
        noise = embedding_noise(step, self.noise_type, self.eps)
        compared = step.compare(
            [Pass(1.0, write=True), Pass(deltas=noise)],
            self._consistency,
            compare_weight=self.consistency_weight,
        )
        return step.finish(
            compared.first,
            compared.term,
            compared.value,
            consistency_loss=compared.parts,
            perturbation_norm=sentence_norms(noise).sum(),
        )

    def _consistency(self, passes: List[Ran]) -> Tensor:
        return self.divergence(*(each.outputs[0] for each in passes))
