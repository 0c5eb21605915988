"""R-Drop, regularized dropout (Liang et al., NeurIPS 2021)."""

from dataclasses import dataclass, field
from typing import Any, List

from fairseq.criterions import register_criterion
from torch import Tensor, nn

from adv_plugins.criterions.options import CONSISTENCY_CHOICES, check_range
from adv_plugins.criterions.with_asa import AsaAdditionConfig, WithAsa
from adv_plugins.divergence import get_divergence
from adv_plugins.dropout import warn_of_equal_passes
from adv_plugins.methods import register_method
from adv_plugins.step import Pass, Ran, Step


@dataclass
class RDropCriterionConfig(AsaAdditionConfig):
    """Options of R-Drop."""

    consistency_weight: float = field(
        default=1.0, metadata={"help": "weight alpha of the divergence between the two passes"}
    )
    consistency_loss: CONSISTENCY_CHOICES = field(
        default="bi-kl",
        metadata={"help": "divergence between two passes (regression: squared difference)"},
    )


@register_method(
    "rdrop",
    title="R-Drop, regularized dropout",
    paper="Liang et al., NeurIPS 2021",
    address="https://github.com/dropreg/R-Drop",
    summary="two passes, each with its dropout masks, that agree",
    passes="2",
)
@register_criterion("rdrop_criterion", dataclass=RDropCriterionConfig)
class RDropCriterion(WithAsa):
    r"""Regularized dropout: two passes of the same batch must agree.

    .. math::
        L = \tfrac12 [CE(P_1, y) + CE(P_2, y)] + \tfrac\alpha2\, D(P_1, P_2), \qquad
        D = \tfrac12 [KL(P_1 \| P_2) + KL(P_2 \| P_1)]

    with P_1 and P_2 under independent dropout masks (Eq. 2 to 4). That is half of the paper's
    objective, CE_1 + CE_2 + alpha D, for every alpha: so a learning rate means what it means in plain
    fine-tuning. Both passes are one batch.

    Meters: ``loss`` (and all of the base's) is the mean over the two passes; ``consistency_loss`` (D)
    and ``objective`` are in the same units.

    The authors' released code for GLUE adds both MEAN cross entropies to the D of the whole batch (its
    SUM over sentences, halved): its divergence grows with the batch.

    Raises:
        UserError: options out of range, or a task whose criterion cannot be wrapped.
    """

    LOSS_METERS = ("objective", "consistency_loss")

    def __init__(self, cfg: RDropCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        check_range(cfg, "consistency_weight", at_least=0)
        self.consistency_weight = cfg.consistency_weight
        self.divergence = get_divergence(str(cfg.consistency_loss), regression=self.regression)

    def is_active(self) -> bool:
        """Plain fine-tuning when the weight is 0: one pass is enough then."""
        return self.consistency_weight != 0

    def check_model(self, model: nn.Module) -> None:
        """A word where the two passes cannot differ."""
        super().check_model(model)
        if self.is_active():
            warn_of_equal_passes(model, [None, None])

    def perturbed_forward(self, step: Step) -> Any:
        """Eq. 4 on one batch, halved."""
        writes = getattr(self.base, "prediction_h", None) is not None  # which one batch cannot do
        compared = step.compare(
            [Pass(0.5, write=writes), Pass(0.5)],
            self._consistency,
            compare_weight=self.consistency_weight / 2,
        )
        return step.finish(
            compared.first, compared.term, compared.value, consistency_loss=compared.parts
        )

    def _consistency(self, passes: List[Ran]) -> Tensor:
        return self.divergence(*(each.outputs[0] for each in passes))
