"""What options of several methods have in common: choices and checks."""

import math
from typing import Any, List, Optional

from fairseq.dataclass import ChoiceEnum

from adv_plugins.divergence import DIVERGENCES
from fairseq_compat.errors import UserError

CONSISTENCY_CHOICES = ChoiceEnum(list(DIVERGENCES))


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


def one_for_each_pass(cfg: Any, option: str, passes: int) -> Optional[List[float]]:
    """Comma-separated numbers >= 0, one for each of --adv-passes; None where the option is not given.

    Raises:
        UserError: naming the flag.
    """
    text = getattr(cfg, option)
    if not text:
        return None
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError:
        raise UserError(f"{flag(option)} needs comma-separated numbers, not {text!r}") from None
    if len(values) != passes or not all(value >= 0 for value in values):
        raise UserError(
            f"{flag(option)} needs {passes} numbers of at least 0 (one for each of --adv-passes), "
            f"not {text!r}"
        )
    return values
