"""The criterion that wraps the task's own stock criterion (its *base*).

Every method of this project subclasses :class:`WrappingCriterion`: it calls the base several times
under perturbations, so it works for each task whose base can be wrapped, keeps the base's options
and logging, and copies no loss. In eval mode it IS the base.
"""

from typing import Any, Dict, List, Tuple

import torch
from fairseq.criterions import CRITERION_REGISTRY, FairseqCriterion
from fairseq.criterions.masked_lm import MaskedLmLoss
from torch import Tensor, nn

from adv_plugins.base_pass import BasePass, counted, predictions_file
from adv_plugins.batch import NO_LABEL
from adv_plugins.criterions.base_choice import WrappingCriterionConfig, base_name, build_base
from adv_plugins.criterions.meters import log_meters
from adv_plugins.criterions.token_classification import TokenClassificationCriterion
from adv_plugins.gradients import LossScale
from adv_plugins.perturbation import captured_outputs, unwrap
from adv_plugins.step import Step


class WrappingCriterion(FairseqCriterion):
    """Base class of the methods; see the module's docstring.

    Subclasses implement :meth:`perturbed_forward` and list their own losses in ``LOSS_METERS``
    (sums, logged like fairseq's: divided by the sample size, in base 2) and other quantities in
    ``MEAN_METERS`` (sums over sentences, logged as means); see ``meters.log_meters``.
    """

    # What else to try, beside a smaller learning rate, when gradients are NaN: ", or ..."
    ADVICE_ON_NAN = ""
    LOSS_METERS: Tuple[str, ...] = ("objective",)
    MEAN_METERS: Tuple[str, ...] = ()
    base_class: Any = None

    def __init__(self, cfg: WrappingCriterionConfig, task: Any) -> None:
        super().__init__(task)
        self.base = build_base(cfg, task)
        self.regression = bool(getattr(self.base, "regression_target", False))
        self.masked_lm = isinstance(self.base, MaskedLmLoss)
        self.token_labels = isinstance(self.base, TokenClassificationCriterion)
        self.loss_scale = LossScale()
        self.sequential = cfg.sequential_passes
        self.update_number = 0
        self._checked_model: Any = None

    @classmethod
    def build_criterion(cls, cfg: WrappingCriterionConfig, task: Any) -> "WrappingCriterion":
        """Build the criterion, of a subclass that knows its base.

        fairseq reduces metrics through the CLASS of a criterion, so the base has to be known there.
        """
        base_class = CRITERION_REGISTRY[base_name(cfg, task)]
        bound = type(cls.__name__, (cls,), {"base_class": base_class, "__module__": cls.__module__})
        return bound(cfg, task)

    def begin_update(self, number: int) -> None:
        """Called by the trainer before each update, with the number of those that are done."""
        self.update_number = number

    def trains(self, model: nn.Module) -> bool:
        """Whether this call is a training pass."""
        return self.training and model.training and torch.is_grad_enabled()

    def forward(self, model: nn.Module, sample: Dict[str, Any], reduce: bool = True) -> Any:
        """fairseq's triple (loss, sample size, logging output).

        In eval mode or without gradients, and when :meth:`is_active` says so, this is the base's.
        """
        if not (self.trains(model) and self.is_active()):
            return self.base(model, sample, reduce)
        if self._checked_model is not (module := unwrap(model)):
            self.check_model(module)
            # Kept from being registered as a part of this module.
            object.__setattr__(self, "_checked_model", module)
        return self.perturbed_forward(Step(self, model, sample))

    def is_active(self) -> bool:
        """Whether the method does anything with its current weights."""
        return True

    def check_model(self, model: nn.Module) -> None:
        """Whether the method can train this (unwrapped) model; asked before the first update.

        Raises:
            UserError: it cannot.
        """

    def perturbed_forward(self, step: Step) -> Any:
        """One training step of the method; returns what :meth:`forward` returns."""
        raise NotImplementedError

    def run_base(
        self, model: nn.Module, sample: Dict[str, Any], *, write: bool = False, logits: bool = True
    ) -> BasePass:
        """Call the base once and catch the logits that it saw.

        Args:
            model: the model, or its distributed wrapper in a pass that the trainer differentiates.
            write: let the base write its predictions file (once a step, not once a pass).
            logits: whether they are wanted; without, memory need not hold them.
        """
        with predictions_file(self.base, write):
            if not logits:
                return BasePass(*self.base(model, sample))
            with captured_outputs(unwrap(model)) as outputs:
                loss, sample_size, logging = self.base(model, sample)
        return BasePass(loss, sample_size, logging, self.join(outputs, sample))

    def join(self, outputs: List[Tensor], sample: Dict[str, Any]) -> Tensor:
        """(N, C) logits from the model's outputs in one pass: candidates side by side, tokens one
        after the other. Those without a label are there, but no divergence counts them."""
        if self.token_labels:
            return counted(outputs[0], sample["target"].ne(NO_LABEL))
        logits = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
        if self.masked_lm and logits[..., 0].numel() == sample["target"].numel():
            # fairseq projects every position when no token is masked; none of them counts.
            masked = sample["target"].ne(self.padding_idx).any()
            return counted(logits, masked.expand(logits.shape[:-1]))
        return logits

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """The base's metrics, then the method's own meters (training only: eval is the base)."""
        cls.base_class.reduce_metrics(logging_outputs)
        log_meters(logging_outputs, losses=cls.LOSS_METERS, means=cls.MEAN_METERS)

    def logging_outputs_can_be_summed(self) -> bool:
        """As the base says."""
        return self.base.logging_outputs_can_be_summed()
