"""Ascent on a perturbation of the word embeddings in a ball: what FreeLB and its rivals share."""

from dataclasses import dataclass, field
from typing import Any, List, Optional, Sequence

import torch
from fairseq.dataclass import ChoiceEnum
from torch import Tensor, nn

from adv_plugins.ball import NORMS, Ball
from adv_plugins.base_pass import BasePass
from adv_plugins.criterions.options import check_range
from adv_plugins.criterions.with_asa import AsaAdditionConfig, WithAsa
from adv_plugins.perturbation import sentence_norms, word_embedding
from adv_plugins.step import Step


@dataclass
class BallConfig(AsaAdditionConfig):
    """Options of a perturbation that climbs in a ball, in the order of its algorithm."""

    adv_steps: int = field(
        default=3, metadata={"help": "number K of forward and backward passes of a batch"}
    )
    adv_step_size: float = field(
        default=0.1, metadata={"help": "size alpha of an ascent step, of a normalised gradient"}
    )
    adv_eps: float = field(default=0.15, metadata={"help": "largest norm of a sentence's perturbation"})
    adv_init_eps: Optional[float] = field(
        default=None,
        metadata={"help": "size of the random perturbation to start from (default: --adv-eps)"},
    )
    adv_norm: ChoiceEnum(list(NORMS)) = field(  # type: ignore[valid-type]
        default="l2", metadata={"help": "norm of the ball and of the gradient"}
    )


@dataclass
class AscentConfig(BallConfig):
    """Options of an ascent within an update."""

    adv_start_update: int = field(
        default=0, metadata={"help": "plain fine-tuning before this many updates"}
    )
    no_reuse_dropout_mask: bool = field(
        default=False,
        metadata={"help": "draw new dropout masks in every pass (Table 4's ablation)"},
    )


class InBall(WithAsa):
    r"""Base class: for each sentence a perturbation that climbs and stays in a ball.

    .. math::
        \delta_0 = \epsilon_0\, U(-1, 1) / \sqrt{n d}, \qquad
        \delta_t = \Pi_{\|\cdot\| \le \epsilon}(\delta_{t-1} + \alpha\, g_t / \|g_t\|)

    with n the sentence's real tokens and g_t the gradient of its loss; for multiple choice the
    perturbation of a question is that of all its candidates together: one norm.

    Raises:
        UserError: options out of range, a task whose criterion cannot be wrapped, or (at the first
            batch) a model without word embeddings.
    """

    ADVICE_ON_NAN = ", or a smaller --adv-eps"

    def __init__(self, cfg: BallConfig, task: Any) -> None:
        super().__init__(cfg, task)
        check_range(cfg, "adv_steps", at_least=1)
        check_range(cfg, "adv_step_size", "adv_eps", at_least=0)
        self.steps = cfg.adv_steps
        self.step_size = cfg.adv_step_size
        self.ball = Ball(str(cfg.adv_norm), cfg.adv_eps)
        self.init_eps = cfg.adv_eps
        if cfg.adv_init_eps is not None:
            check_range(cfg, "adv_init_eps", at_least=0)
            self.init_eps = cfg.adv_init_eps

    def check_model(self, model: nn.Module) -> None:
        """It needs word embeddings."""
        super().check_model(model)
        word_embedding(model)

    def start(self, step: Step) -> List[Tensor]:
        """delta_0, (B, T, d) for each call of the model."""
        table = step.embedding.weight
        return self.ball.start(step.real, table.size(1), table.dtype, self.init_eps)


class Ascent(InBall):
    """Base class: it climbs within an update, in K passes.

    Raises:
        UserError: as :class:`InBall`.
    """

    ADVICE_ON_NAN = ", or a smaller --adv-eps, or a later --adv-start-update"
    LOSS_METERS = ("objective", "adv_loss")
    MEAN_METERS = ("perturbation_norm", "embedding_gradient_norm")

    def __init__(self, cfg: AscentConfig, task: Any) -> None:
        super().__init__(cfg, task)
        check_range(cfg, "adv_start_update", at_least=0)
        self.reuse_dropout_mask = not cfg.no_reuse_dropout_mask
        self.start_update = cfg.adv_start_update

    def is_active(self) -> bool:
        """Plain fine-tuning before ``--adv-start-update``."""
        return self.update_number >= self.start_update

    def finish(
        self,
        step: Step,
        results: Sequence[BasePass],
        term: Tensor,
        deltas: Sequence[Tensor],
        gradient_norms: Sequence[Tensor],
    ) -> Any:
        """What a criterion returns whose objective is the mean over its passes.

        Args:
            results: of the passes, without graph; term: what is left to be differentiated; deltas: of
                the last pass; gradient_norms: of the ascents, summed over sentences.
        """
        meters = {"embedding_gradient_norm": gradient_norms[0]} if gradient_norms else {}
        return step.finish(
            results[0],
            term,
            torch.stack([each.loss for each in results]).mean(),
            adv_loss=results[-1].loss,
            perturbation_norm=sentence_norms(deltas).sum(),
            **meters,
        )
