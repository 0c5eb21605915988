"""ASA beside another method: ``--asa-weight``, for any criterion on an ``asa_roberta``."""

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

from torch import nn

from adv_plugins import asa_game
from adv_plugins.asa_game import AsaGame, check_adversaries
from adv_plugins.base_pass import BasePass
from adv_plugins.criterions.base_choice import WrappingCriterionConfig
from adv_plugins.criterions.meters import log_meters
from adv_plugins.criterions.options import check_range
from adv_plugins.criterions.wrapping import WrappingCriterion
from adv_plugins.divergence import get_divergence
from adv_plugins.perturbation import unwrap
from adv_plugins.step import Step


@dataclass
class AsaAdditionConfig(WrappingCriterionConfig):
    """For the methods that ASA can join on an asa_roberta."""

    asa_weight: float = field(
        default=0.0,
        metadata={
            "help": "with --arch asa_roberta*: weight of ASA's divergence between a clean pass and "
            "one under the adversary's masks, added to this criterion's objective (0: no such passes)"
        },
    )
    asa_tau: float = field(default=0.3, metadata={"help": "with --asa-weight: price of a masked unit"})


class WithAsa(WrappingCriterion):
    """A method that ASA can join: L(method) + asa_weight * L_asa + tau * L_c.

    ASA's terms come from one more clean pass and one masked pass; the method and the masks do not mix in
    one pass.
    """

    def __init__(self, cfg: AsaAdditionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        self.added_game: Optional[AsaGame] = None
        if cfg.asa_weight != 0:
            check_range(cfg, "asa_weight", "asa_tau", at_least=0)
            loss = str(getattr(cfg, "consistency_loss", "bi-kl"))
            self.added_game = AsaGame(
                weight=cfg.asa_weight,
                tau=cfg.asa_tau,
                divergence=get_divergence(loss, regression=self.regression),
                pre_training=self.masked_lm,
            )

    def check_model(self, model: nn.Module) -> None:
        """The joined game needs adversaries."""
        super().check_model(model)
        if self.added_game is not None:
            check_adversaries(model)

    def forward(self, model: nn.Module, sample: Dict[str, Any], reduce: bool = True) -> Any:
        """The method's triple, with ASA's terms where they are wanted."""
        if self.added_game is None or not self.trains(model):
            return super().forward(model, sample, reduce)
        module = unwrap(model)
        check_adversaries(module)
        step = Step(self, model, sample)
        # The wrapper prepares one reduction, which is that of the game's last pass.
        own_loss, sample_size, logging = super().forward(module, sample, reduce)
        own_loss = step.put_away(own_loss)
        _, term, value, log = self.added_game.play(step, clean_weight=0.0)
        own = BasePass(own_loss, sample_size, logging)
        return step.finish(own, own_loss + term, own_loss.detach() + value, **log)

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """The method's metrics and the game's."""
        super().reduce_metrics(logging_outputs)
        log_meters(logging_outputs, losses=asa_game.LOSS_METERS, means=asa_game.MEAN_METERS)
