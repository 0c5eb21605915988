"""The criterion that wraps the task's own stock criterion (its *base*).

Every method of this project subclasses :class:`WrappingCriterion`: it calls the base several times
under perturbations, so it works for each task whose base can be wrapped, keeps the base's options
and logging, and copies no loss. In eval mode it IS the base.
"""

import argparse
import contextlib
import math
from dataclasses import dataclass, field, fields
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import torch
from fairseq import metrics
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY, FairseqCriterion
from fairseq.criterions.masked_lm import MaskedLmConfig, MaskedLmLoss
from fairseq.dataclass import ChoiceEnum
from fairseq.tasks import TASK_REGISTRY
from torch import Tensor, nn

from adv_plugins.asa_game import LAYER_KEY, AsaGame, check_adversaries
from adv_plugins.batch import NO_LABEL, at_least_one
from adv_plugins.criterions.sentence_prediction import SentencePredictionMetricsConfig
from adv_plugins.criterions.token_classification import (
    TokenClassificationCriterion,
    TokenClassificationCriterionConfig,
)
from adv_plugins.divergence import DIVERGENCES, get_divergence
from adv_plugins.errors import UserError
from adv_plugins.gradients import KeptGradients, LossScale, check_one_reduction
from adv_plugins.perturbation import captured_outputs, unwrap

# The stock criterion of each task that can be wrapped.
BASE_OF_TASK = {
    "sentence_prediction": "sentence_prediction",
    "sentence_ranking": "sentence_ranking",
    "commonsense_qa": "sentence_ranking",
    "masked_lm": "masked_lm",
    "token_classification": "token_classification",
}
BASE_CHOICES = ChoiceEnum(["auto", *sorted(set(BASE_OF_TASK.values()))])
ASA_LOSS_METERS = ("objective", "asa_loss", "sentence_asa_loss", "penalty_loss")
ASA_MEAN_METERS = ("masked_proportion",)
CONSISTENCY_CHOICES = ChoiceEnum(list(DIVERGENCES))


@dataclass
class WrappingCriterionConfig(
    SentencePredictionMetricsConfig, TokenClassificationCriterionConfig, MaskedLmConfig
):
    """The options of every base criterion, beside the choice of the base."""

    base_criterion: BASE_CHOICES = field(  # type: ignore[valid-type]
        default="auto",
        metadata={"help": "stock criterion to wrap (auto: the one that belongs to the task)"},
    )
    ranking_head_name: str = field(
        default="sentence_classification_head",
        metadata={"help": "name of the ranking head to use (sentence_ranking)"},
    )
    save_predictions: Optional[str] = field(
        default=None,
        metadata={"help": "file to save predictions to (sentence_ranking)"},
    )
    sequential_passes: bool = field(
        default=False,
        metadata={
            "help": "keep the activations of one pass in memory instead of those of all passes that are "
            "compared; costs another forward for each of the others, gives the same gradients"
        },
    )


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


class BasePass(NamedTuple):
    """One call of the base criterion.

    loss: scalar, summed over the batch; sample_size: its denominator; logging: the base's logging
    output; logits: (N, C), N sentences, questions (C candidates), masked tokens (C words) or tokens (of
    all sentences, in their order; see ``WrappingCriterion.join``), or for regression the (N, 1) outputs.
    """

    loss: Tensor
    sample_size: Any
    logging: Dict[str, Any]
    logits: Any = None


class WrappingCriterion(FairseqCriterion):
    """Base class of the methods; see the module's docstring.

    Subclasses implement :meth:`perturbed_forward` and list their own losses in ``LOSS_METERS``
    (sums, logged like fairseq's: divided by the sample size, in base 2) and other quantities in
    ``MEAN_METERS`` (sums over sentences, logged as means). Those of ASA, which can join the others
    (``--asa-weight``), are added to both.
    """

    # What else to try, beside a smaller learning rate, when gradients are NaN: ", or ..."
    ADVICE_ON_NAN = ""
    LOSS_METERS: Tuple[str, ...] = ()
    MEAN_METERS: Tuple[str, ...] = ()
    base_class: Any = None

    def __init__(self, cfg: WrappingCriterionConfig, task: Any) -> None:
        super().__init__(task)
        self.base = _build_base(cfg, task)
        self.regression = bool(getattr(self.base, "regression_target", False))
        self.masked_lm = isinstance(self.base, MaskedLmLoss)
        self.token_labels = isinstance(self.base, TokenClassificationCriterion)
        self.loss_scale = LossScale()
        self.sequential = cfg.sequential_passes
        self.update_number = 0
        self.added_game: Optional[AsaGame] = None
        if getattr(cfg, "asa_weight", 0) != 0:
            check_range(cfg, "asa_weight", "asa_tau", at_least=0)
            loss = str(getattr(cfg, "consistency_loss", "bi-kl"))
            self.added_game = self.asa_game(cfg.asa_weight, cfg.asa_tau, loss)

    def asa_game(self, weight: float, tau: float, loss: str) -> AsaGame:
        """ASA's terms for this criterion's base."""
        return AsaGame(
            weight=weight,
            tau=tau,
            divergence=get_divergence(loss, regression=self.regression),
            pre_training=self.masked_lm,
        )

    def follow_updates(self, task: Any) -> None:
        """Keep ``update_number`` up to date, for methods that change in the course of training.

        fairseq tells a criterion nothing of it, but it tells the task in every training step.
        """
        stock_train_step = task.train_step

        def train_step(
            sample: Any, model: Any, criterion: Any, optimizer: Any, update_num: int, **kwargs: Any
        ) -> Any:
            self.update_number = update_num
            return stock_train_step(sample, model, criterion, optimizer, update_num, **kwargs)

        task.train_step = train_step

    @classmethod
    def build_criterion(cls, cfg: WrappingCriterionConfig, task: Any) -> "WrappingCriterion":
        """Build the criterion, of a subclass that knows its base.

        fairseq reduces metrics through the CLASS of a criterion, so the base has to be known there.
        """
        base_class = CRITERION_REGISTRY[_base_name(cfg, task)]
        bound = type(cls.__name__, (cls,), {"base_class": base_class, "__module__": cls.__module__})
        return bound(cfg, task)

    def forward(self, model: nn.Module, sample: Dict[str, Any], reduce: bool = True) -> Any:
        """fairseq's triple (loss, sample size, logging output).

        In eval mode or without gradients, and when :meth:`is_active` says so, this is the base's.
        """
        if not (self.training and model.training and torch.is_grad_enabled()):
            return self.base(model, sample, reduce)
        game = self.added_game
        # The wrapper prepares one reduction: the last pass, the game's if there is one, goes through it.
        own_model = unwrap(model) if game is not None else model
        if self.is_active():
            loss, sample_size, logging = self.perturbed_forward(own_model, sample)
        else:
            loss, sample_size, logging = self.base(own_model, sample, reduce)
        if game is not None:
            kept = self.kept_gradients(model) if self.sequential else None
            if kept is not None:
                kept.backward(loss, [])
            own_loss, loss = loss, loss.detach()
            _, terms, log = game.play(self._run_quiet_base, model, sample, kept, clean_loss=False)
            loss = (own_loss if kept is None else loss) + terms
            logging.update(log, objective=loss.detach())
        return loss, sample_size, logging

    def _run_quiet_base(self, model: nn.Module, sample: Dict[str, Any], **unused: Any) -> BasePass:
        return self.run_base(model, sample)

    def is_active(self) -> bool:
        """Whether the method does anything with its current weights."""
        return True

    def check_model(self, model: nn.Module) -> None:
        """Whether the method can be used on this (unwrapped) model; asked before the first update.

        Raises:
            UserError: it cannot.
        """
        if self.added_game is not None:
            check_adversaries(model)

    def perturbed_forward(self, model: nn.Module, sample: Dict[str, Any]) -> Any:
        """One training pass of the method; returns what :meth:`forward` returns."""
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
        module = unwrap(model)
        with _predictions_file(self.base, write):
            if not logits:
                return BasePass(*self.base(model, sample))
            with captured_outputs(module) as outputs:
                loss, sample_size, logging = self.base(model, sample)
        return BasePass(loss, sample_size, logging, self.join(outputs, sample))

    def join(self, outputs: List[Tensor], sample: Dict[str, Any]) -> Tensor:
        """(N, C) logits from the model's outputs in one pass: candidates side by side, tokens one
        after the other. Those without a label are there, but no divergence counts them."""
        if self.token_labels:
            return _counted(outputs[0], sample["target"].ne(NO_LABEL))
        logits = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
        if self.masked_lm and logits[..., 0].numel() == sample["target"].numel():
            # fairseq projects every position when no token is masked; none of them counts.
            counted = sample["target"].ne(self.padding_idx).any()
            return _counted(logits, counted.expand(logits.shape[:-1]))
        return logits

    def kept_gradients(self, model: nn.Module) -> KeptGradients:
        """A fresh collection of free gradients for this step.

        Raises:
            UserError: torch's DistributedDataParallel would reduce a parameter twice.
        """
        check_one_reduction(model)
        return KeptGradients(unwrap(model), self.loss_scale)

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """The base's metrics, then the method's own meters (training only: eval is the base)."""
        cls.base_class.reduce_metrics(logging_outputs)
        sample_size = sum(log.get("sample_size", 0) for log in logging_outputs)
        sentences = sum(log.get("nsentences", 0) for log in logging_outputs)
        losses = {*cls.LOSS_METERS, *ASA_LOSS_METERS}
        means = {*cls.MEAN_METERS, *ASA_MEAN_METERS}
        for key in dict.fromkeys(key for log in logging_outputs for key in log):
            if key in losses:
                scale, weight, digits = at_least_one(sample_size) * math.log(2), sample_size, 3
            elif key in means or key.startswith(LAYER_KEY):
                scale, weight, digits = sentences, sentences, 5
            else:
                continue
            total = sum(log.get(key, 0) for log in logging_outputs)
            metrics.log_scalar(key, total / scale, weight, round=digits)

    def logging_outputs_can_be_summed(self) -> bool:
        """As the base says."""
        return self.base.logging_outputs_can_be_summed()


def _counted(logits: Tensor, counted: Tensor) -> Tensor:
    """The (..., C) logits as rows, of which those that do not count are one certain prediction.

    Its divergence from itself is 0, whichever it is. To leave the rows out would be to wait for the
    device to say how many they are.
    """
    certain = logits.new_full(logits.shape[-1:], -1e4)
    certain[:1] = 0
    return torch.where(counted.unsqueeze(-1), logits, certain).flatten(end_dim=-2)


def check_range(cfg: Any, *options: str, at_least: float) -> None:
    """Check that options of a criterion are not too small (nor NaN).

    Raises:
        UserError: naming the flag.
    """
    for option in options:
        value = getattr(cfg, option)
        if not at_least <= value < math.inf:
            flag = "--" + option.replace("_", "-")
            raise UserError(f"{flag} must be at least {at_least}, but is {value}")


@contextlib.contextmanager
def _predictions_file(base: FairseqCriterion, write: bool) -> Iterator[None]:
    """sentence_ranking writes predictions whenever it has a file: take it away for extra passes."""
    file = getattr(base, "prediction_h", None)
    if file is None or write:
        yield
        return
    base.prediction_h = None
    try:
        yield
    finally:
        base.prediction_h = file


def _task_name(task: Any) -> str:
    return next((name for name, cls in TASK_REGISTRY.items() if type(task) is cls), "?")


def _base_name(cfg: WrappingCriterionConfig, task: Any) -> str:
    """The name of the criterion to wrap.

    Raises:
        UserError: the task has none that can be wrapped, or another one.
    """
    name, task_name = str(cfg.base_criterion), _task_name(task)
    if name != "auto":
        if name != BASE_OF_TASK.get(task_name, name):
            raise UserError(
                f"--base-criterion {name} does not fit --task {task_name}, whose criterion is "
                f"{BASE_OF_TASK[task_name]}: leave it at auto"
            )
        return name
    if task_name not in BASE_OF_TASK:
        raise UserError(
            f"this criterion cannot wrap the criterion of --task {task_name}: use one of the tasks "
            f"{', '.join(sorted(BASE_OF_TASK))}, or name the criterion with --base-criterion"
        )
    return BASE_OF_TASK[task_name]


def _build_base(cfg: WrappingCriterionConfig, task: Any) -> FairseqCriterion:
    name = _base_name(cfg, task)
    options = {f.name: getattr(cfg, f.name) for f in fields(WrappingCriterionConfig)}
    # Outside of fairseq's commands nothing resolves the interpolation of common.tpu.
    options["tpu"] = options["tpu"] is True
    dataclass_type = CRITERION_DATACLASS_REGISTRY.get(name)
    if dataclass_type is not None:
        names = {f.name for f in fields(dataclass_type)}
        base_cfg = dataclass_type(**{k: v for k, v in options.items() if k in names})
    else:  # sentence_ranking's options are argparse's; the number of choices is the task's
        choices = getattr(getattr(task, "args", None), "num_classes", None)
        if choices is None:
            raise UserError(
                f"--base-criterion {name} does not fit --task {_task_name(task)}: leave it at auto"
            )
        base_cfg = argparse.Namespace(**options, num_classes=choices)
    return CRITERION_REGISTRY[name].build_criterion(base_cfg, task)
