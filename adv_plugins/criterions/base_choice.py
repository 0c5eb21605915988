"""Which stock criterion a method wraps (its *base*), and that criterion's options."""

import argparse
from dataclasses import dataclass, field, fields
from typing import Any, Optional

from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY, FairseqCriterion
from fairseq.criterions.masked_lm import MaskedLmConfig
from fairseq.dataclass import ChoiceEnum
from fairseq.tasks import TASK_REGISTRY

from adv_plugins.criterions.sentence_prediction import SentencePredictionMetricsConfig
from adv_plugins.criterions.token_classification import TokenClassificationCriterionConfig
from fairseq_compat.errors import UserError
from fairseq_compat.task_kinds import TASK_KINDS

# The stock criterion of each task that can be wrapped.
BASE_OF_TASK = {name: kind.criterion for name, kind in TASK_KINDS.items()}
BASE_CHOICES = ChoiceEnum(["auto", *sorted(set(BASE_OF_TASK.values()))])


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


def task_name(task: Any) -> str:
    """fairseq's name of a task, ``?`` if it is none of its registry."""
    return next((name for name, cls in TASK_REGISTRY.items() if type(task) is cls), "?")


def base_name(cfg: WrappingCriterionConfig, task: Any) -> str:
    """The name of the criterion to wrap.

    Raises:
        UserError: the task has none that can be wrapped, or another one.
    """
    asked, name = str(cfg.base_criterion), task_name(task)
    if asked != "auto":
        if asked != BASE_OF_TASK.get(name, asked):
            raise UserError(
                f"--base-criterion {asked} does not fit --task {name}, whose criterion is "
                f"{BASE_OF_TASK[name]}: leave it at auto"
            )
        return asked
    if name not in BASE_OF_TASK:
        raise UserError(
            f"this criterion cannot wrap the criterion of --task {name}: use one of the tasks "
            f"{', '.join(sorted(BASE_OF_TASK))}, or name the criterion with --base-criterion"
        )
    return BASE_OF_TASK[name]


def build_base(cfg: WrappingCriterionConfig, task: Any) -> FairseqCriterion:
    """The base, with its own of the options.

    Raises:
        UserError: it does not fit the task.
    """
    name = base_name(cfg, task)
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
                f"--base-criterion {name} does not fit --task {task_name(task)}: leave it at auto"
            )
        base_cfg = argparse.Namespace(**options, num_classes=choices)
    return CRITERION_REGISTRY[name].build_criterion(base_cfg, task)
