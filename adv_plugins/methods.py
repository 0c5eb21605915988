"""The methods: what each is called, its criterion, its paper, and its part of a recipe.

A method is registered where it is, so that whatever lists methods knows it: the runners, the
benchmark, the tests, and those of a user's own ``--user-dir`` too.
"""

from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Tuple, Type, TypeVar

from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY, FairseqCriterion

from fairseq_compat.errors import UserError

Criterion = TypeVar("Criterion", bound=Type[FairseqCriterion])


@dataclass(frozen=True)
class Method:
    """One method.

    name: what the runners call it; criterion: its ``--criterion``; title: in words; paper: authors,
    place and year; address: of the authors' code or, where there is none, of the paper; summary: what an
    update does; passes: what it costs, in passes of plain fine-tuning; flags: its options in a recipe of
    a task for which no table has a row; adversaries: whether the architecture needs ASA's;
    replayed_by: the field of its options that says how many updates each batch gets, '' where it is one.
    """

    name: str
    criterion: str
    title: str
    paper: str
    address: str
    summary: str
    passes: str
    flags: str = ""
    adversaries: bool = False
    replayed_by: str = ""

    @property
    def options(self) -> Any:
        """The dataclass of its criterion's options."""
        return CRITERION_DATACLASS_REGISTRY[self.criterion]

    @property
    def replays(self) -> Optional[Tuple[str, int]]:
        """The flag that says how many updates each batch gets, and its default; None where it is one."""
        if not self.replayed_by:
            return None
        default = self.options.__dataclass_fields__[self.replayed_by].default
        return "--" + self.replayed_by.replace("_", "-"), default


METHODS: Dict[str, Method] = {}


def register_method(name: str, **facts: Any) -> Callable[[Criterion], Criterion]:
    """Register a criterion (above ``register_criterion``) as a method.

    Args:
        facts: the other fields of :class:`Method`, but for the criterion's name.

    Raises:
        UserError: the name is taken, or the class is no registered criterion.
    """

    def register(criterion: Criterion) -> Criterion:
        if name in METHODS or name == "plain":
            raise UserError(f"there is a method {name!r} already")
        names = [key for key, value in CRITERION_REGISTRY.items() if value is criterion]
        if not names:
            raise UserError(f"{criterion.__name__} is no criterion: register_criterion comes first")
        METHODS[name] = Method(name, names[0], **facts)
        return criterion

    return register
