"""What options of several methods have in common: choices and checks."""

import math
from dataclasses import dataclass, field
from typing import Any, List

from fairseq.dataclass import ChoiceEnum

from adv_plugins.divergence import DIVERGENCES
from adv_plugins.perturbation import DIRECTIONS
from fairseq_compat.errors import UserError

CONSISTENCY_CHOICES: Any = ChoiceEnum(list(DIVERGENCES))


@dataclass
class EmbeddingStepConfig:
    """Of methods that make one step along the word embeddings' gradient."""

    adv_eps: float = field(
        default=0.1, metadata={"help": "L2 norm of the perturbation of the word embeddings"}
    )
    adv_weight: float = field(
        default=1.0, metadata={"help": "weight of the adversarial loss (the paper's is 1)"}
    )
    adv_norm_over: ChoiceEnum(list(DIRECTIONS)) = field(  # type: ignore[valid-type]
        default="embedding-matrix",
        metadata={
            "help": "what has norm eps: the perturbation of the embedding matrix, or that of each "
            "sentence (of each question, over all its choices)"
        },
    )


@dataclass
class CleanConsistencyConfig:
    """Of methods that compare a perturbed prediction with the clean one."""

    consistency_weight: float = field(
        default=1.0, metadata={"help": "weight alpha of the divergence from the clean prediction"}
    )
    consistency_loss: CONSISTENCY_CHOICES = field(
        default="bi-kl",
        metadata={"help": "divergence from the clean prediction (regression: squared difference)"},
    )


def flag(option: str) -> str:
    """The command line's name of a configuration's field."""
    return "--" + option.replace("_", "-")


def check_range(cfg: Any, *options: str, at_least: float) -> None:
    """Check that options of a criterion are not too small (nor NaN).

    Raises:
        UserError: naming the flag.
    """
    for option in options:
        value = getattr(cfg, option)
        if not at_least <= value < math.inf:
            raise UserError(f"{flag(option)} must be at least {at_least}, but is {value}")


def one_for_each_pass(cfg: Any, option: str, *, otherwise: Any, below: float = math.inf) -> List[Any]:
    """Comma-separated numbers >= 0, one for each of --adv-passes.

    Args:
        otherwise: what each pass has where the option is not given; below: what the numbers are below.

    Raises:
        UserError: naming the flag.
    """
    text, passes = getattr(cfg, option), cfg.adv_passes
    if not text:
        return [otherwise] * passes
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError:
        raise UserError(f"{flag(option)} needs comma-separated numbers, not {text!r}") from None
    if len(values) != passes or not all(value >= 0 for value in values):
        raise UserError(
            f"{flag(option)} needs {passes} numbers of at least 0 (one for each of --adv-passes), "
            f"not {text!r}"
        )
    if not all(value < below for value in values):
        raise UserError(f"{flag(option)} needs numbers below {below:g}, not {text!r}")
    return values
