"""What fairseq's trainer could know before the first update, and says too late or in a traceback.

Only there model, criterion and the whole configuration come together: whether the method fits the
model, whether validation reports the metric that chooses the best checkpoint, whether the method is
ever reached. And gradients that are NaN or infinite end the training with a line that says what to do.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from fairseq.criterions import FairseqCriterion
from fairseq.nan_detector import NanDetector
from fairseq.optim import AMPOptimizer
from fairseq.trainer import Trainer
from torch import nn

from adv_plugins import precision
from adv_plugins.criterions.wrapping import WrappingCriterion
from adv_plugins.entities import ENTITY_SCORES
from adv_plugins.first_validation import check_validation, sizes_named
from adv_plugins.perturbation import unwrap
from adv_plugins.prepared_labels import check_labels
from adv_plugins.scores import SCORES
from adv_plugins.wrapped_methods import wrap_method
from fairseq_compat.errors import UserError

logger = logging.getLogger(__name__)


def add_checks() -> None:
    """Wrap the trainer, once."""
    wrap_method(Trainer, "__init__", checked_trainer)
    wrap_method(Trainer, "_build_optimizer", optimizer_that_needs_a_gpu)
    wrap_method(Trainer, "get_train_iterator", checked_iterator)
    wrap_method(Trainer, "train_step", finite_train_step)
    wrap_method(NanDetector, "add_hooks", without_backward_hooks)
    wrap_method(AMPOptimizer, "clip_grad_norm", clip_without_loss_scale)


def checked_trainer(original: Callable[..., None]) -> Callable[..., None]:
    def __init__(
        self: Any, cfg: Any, task: Any, model: nn.Module, criterion: Any, *args: Any, **kwargs: Any
    ) -> None:
        precision.check(cfg.common)
        if isinstance(criterion, WrappingCriterion):
            criterion.check_model(unwrap(model))
        if not cfg.dataset.disable_validation:
            check_metric(cfg.checkpoint.best_checkpoint_metric, criterion)
        original(self, cfg, task, model, criterion, *args, **kwargs)
        self.data_are_unchecked = True

    return __init__


def check_metric(metric: str, criterion: FairseqCriterion) -> None:
    """Whether validation reports ``metric``, if it is one of the scores that have to be asked for.

    Raises:
        UserError: it does not.
    """
    base = base_of(criterion)
    if metric in ENTITY_SCORES and getattr(base, "reports_entities", False):
        return
    flags = [flag for flag, scores in SCORES.items() if metric in scores]
    known = bool(flags) or metric in ENTITY_SCORES
    if not known or set(flags) & set(getattr(base, "reported", ())):
        return
    problem = f"--best-checkpoint-metric {metric} is not reported in validation"
    if flags and hasattr(base, "reported"):
        raise UserError(f"{problem}: give --{flags[0].replace('_', '-')}, too")
    raise UserError(f"{problem} of this task: give accuracy or loss")


def base_of(criterion: FairseqCriterion) -> FairseqCriterion:
    """fairseq's own criterion, without the method that wraps it."""
    return criterion.base if isinstance(criterion, WrappingCriterion) else criterion


def optimizer_that_needs_a_gpu(original: Callable[..., None]) -> Callable[..., None]:
    """torch says that it finds no GPU, and not who has asked for one."""

    def _build_optimizer(self: Any) -> None:
        try:
            original(self)
        except (AssertionError, RuntimeError) as error:
            if torch.cuda.is_available() or not self.cfg.common.fp16:
                raise
            raise UserError("--fp16 needs a GPU, and torch sees none: leave it out") from error

    return _build_optimizer


def checked_iterator(original: Callable[..., Any]) -> Callable[..., Any]:
    """Before the first epoch: whether the data can be trained on and validated, and whether a method
    that starts late starts at all."""

    def get_train_iterator(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not vars(self).pop("data_are_unchecked", False):  # one iterator is made for each epoch
            return original(self, *args, **kwargs)
        split, base = self.cfg.dataset.train_subset, base_of(self.get_criterion())
        check_validation(self, base)  # first, as either leaves its first batch in the trainer
        with sizes_named(self.cfg, split):
            batches = original(self, *args, **kwargs)
        check_labels(self.task, split, base)
        start = getattr(self.criterion, "start_update", 0)
        last = number_of_updates(self.cfg.optimization, len(batches))
        if 0 < last <= start:
            # A short trial of a recipe may mean it.
            logger.warning(
                "--adv-start-update %d is not before the last of this training's %d updates: all of it "
                "is plain fine-tuning; give a smaller one",
                start,
                last,
            )
        return batches

    return get_train_iterator


def number_of_updates(optimization: Any, batches: int) -> int:
    """How many updates a training has with so many batches an epoch; 0 if it has no end."""
    most = optimization.max_update or math.inf
    epochs = optimization.max_epoch
    if epochs:
        accumulated = list(optimization.update_freq)
        accumulated += accumulated[-1:] * epochs
        most = min(most, sum(math.ceil(batches / each) for each in accumulated[:epochs]))
    return 0 if most == math.inf else int(most)


def finite_train_step(original: Callable[..., Any]) -> Callable[..., Any]:
    """An update whose FloatingPointError says what to do."""

    def train_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(self, *args, **kwargs)
        except FloatingPointError as error:
            if "between workers" in str(error):
                raise
            advice = getattr(self.criterion, "ADVICE_ON_NAN", "")
            raise UserError(
                f"update {self.get_num_updates() + 1}: {error}. Give a smaller --lr or more "
                f"--warmup-updates{advice}; a warning above may name the module where it began"
            ) from error

    return train_step


def without_backward_hooks(original: Callable[..., None]) -> Callable[..., None]:
    """fairseq looks for the NaN in a second run, with hooks of a kind that in torch end in a
    StopIteration where a module returns a dictionary, as its own encoders do: forward hooks only."""

    def add_hooks(self: Any, module: nn.Module) -> None:
        self.backward = False
        original(self, module)

    return add_hooks


def clip_without_loss_scale(original: Callable[..., Any]) -> Callable[..., Any]:
    """``--amp`` on a CPU scales no loss, so there is no smaller scale that fairseq could try."""

    def clip_grad_norm(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(self, *args, **kwargs)
        except AttributeError as error:
            if self.scaler.is_enabled():
                raise
            raise FloatingPointError("gradients are Nan/Inf") from error

    return clip_grad_norm
