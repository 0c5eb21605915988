"""The Bregman proximal term: a prediction must not go far from what it was lately."""

from dataclasses import dataclass, field
from typing import Any, Dict, Optional

import torch
from fairseq.dataclass import FairseqDataclass
from torch import Tensor

from adv_plugins.criterions.options import check_range
from adv_plugins.step import Step
from adv_plugins.teacher import Teacher
from fairseq_compat.errors import UserError


@dataclass
class ProximalConfig(FairseqDataclass):
    """Options of the proximal term."""

    bregman_weight: float = field(
        default=0.0,
        metadata={"help": "weight mu of the divergence from the moving average of the model (0: none)"},
    )
    bregman_momentum: float = field(
        default=0.99, metadata={"help": "momentum beta of the average, in the beginning"}
    )
    bregman_late_momentum: float = field(
        default=0.999, metadata={"help": "momentum beta of the average, later"}
    )
    bregman_early_updates: int = field(
        default=1000,
        metadata={"help": "how many updates the beginning has (the paper: a tenth of all)"},
    )


class Proximal:
    """The moving average of a model, followed update by update, and what it predicts.

    Raises:
        UserError: options out of range.
    """

    def __init__(self, cfg: Any) -> None:
        check_range(cfg, "bregman_weight", "bregman_early_updates", at_least=0)
        for option in ("bregman_momentum", "bregman_late_momentum"):
            if not 0 <= getattr(cfg, option) <= 1:
                flag = "--" + option.replace("_", "-")
                raise UserError(f"{flag} must be from 0 to 1, but is {getattr(cfg, option)}")
        self.weight = cfg.bregman_weight
        self.momenta = (cfg.bregman_momentum, cfg.bregman_late_momentum)
        self.early_updates = cfg.bregman_early_updates
        self.teacher: Optional[Teacher] = None
        self._restored: Optional[Dict[str, Any]] = None

    def logits(self, step: Step, number: int) -> Tensor:
        """(N, C), the average's prediction for a batch, without gradient.

        Args:
            number: of the updates that have been made.
        """
        if self.teacher is None:
            self.teacher = Teacher(step.module, number)
            if self._restored is not None:
                self.teacher.restore(self._restored)
                self._restored = None
        late = number > self.early_updates
        self.teacher.follow(step.module, number, self.momenta[late])
        with torch.no_grad():
            logits = step.criterion.run_base(self.teacher.module, step.sample).logits
        return logits.detach()

    def state(self) -> Optional[Dict[str, Any]]:
        """What :meth:`restore` takes; None before the first update."""
        return self._restored if self.teacher is None else self.teacher.state()

    def restore(self, state: Optional[Dict[str, Any]]) -> None:
        """Go on from a :meth:`state`, with the next batch."""
        self.teacher, self._restored = None, state
