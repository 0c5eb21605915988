"""The methods as the tests use them: one row each, of which every test of all methods reads its part."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import pytest

import adv_plugins.methods
import tiny


class Method(NamedTuple):
    """A method.

    name: what the runners call it; off: options under which it changes nothing; on: options with which
    it runs on a model of two layers; alone: options under which a sentence's perturbation does not
    depend on the rest of its batch; flags: of a training; meter: what it logs in every update; forwards:
    of the model in an update (a doubled batch is one); sequential: the same with one pass in memory;
    replays: updates that a batch gets without more options; sometimes: meters that it only has with
    further options; label: what tests call it, where the name is not enough.
    """

    name: str
    off: dict[str, Any]
    meter: str
    forwards: int
    sequential: int
    on: dict[str, Any] = {}
    alone: dict[str, Any] = {}
    flags: tuple[str, ...] = ()
    replays: int = 1
    sometimes: frozenset[str] | set[str] = frozenset()
    label: str = ""

    def __repr__(self) -> str:
        return self.label or self.name

    @property
    def criterion(self) -> str:
        """What ``--criterion`` calls it."""
        return adv_plugins.methods.METHODS[self.name].criterion

    def knows(self, options: Iterable[str]) -> bool:
        """Whether its criterion has all these options."""
        return set(options) <= set(tiny.config(self.criterion).__dataclass_fields__)


METHODS = [
    Method(
        "rat",
        off=dict(adv_weight=0.0, consistency_weight=0.0),
        # its default norm is that of the whole batch
        alone=dict(adv_norm_over="sentence", adv_passes=3),
        meter="consistency_loss",
        forwards=2,
        sequential=4,
    ),
    Method(
        "freelb",
        off=dict(adv_steps=1, adv_init_eps=0.0),
        alone=dict(adv_init_eps=0.0, adv_steps=4),
        flags=("--adv-steps", "2"),
        meter="adv_loss",
        forwards=3,
        sequential=3,
    ),
    Method(
        "rapt",
        off=dict(consistency_weight=0.0),
        on=dict(noise_max_layer=1),
        alone=dict(noise_max_layer=1),
        flags=("--noise-max-layer", "2"),
        meter="consistency_loss",
        forwards=1,
        sequential=3,
    ),
    Method("asa", off=dict(consistency_weight=0.0), meter="masked_layer2", forwards=2, sequential=3),
    Method(
        "fgm",
        off=dict(adv_weight=0.0),
        alone=dict(adv_norm_over="sentence"),
        meter="adv_loss",
        forwards=2,
        sequential=2,
    ),
    Method(
        "pgd",
        off=dict(adv_steps=1, adv_init_eps=0.0),
        alone=dict(adv_init_eps=0.0),
        meter="adv_loss",
        forwards=3,
        sequential=3,
    ),
    Method(
        "yopo",
        off=dict(adv_steps=1, adv_init_eps=0.0),
        alone=dict(adv_init_eps=0.0),
        flags=("--adv-steps", "2"),
        meter="adv_loss",
        forwards=3,
        sequential=3,
    ),
    Method(
        "freeat",
        off=dict(adv_eps=0.0),
        alone=dict(adv_init_eps=0.0),
        flags=("--adv-steps", "2"),
        meter="perturbation_norm",
        forwards=1,
        sequential=1,
        replays=3,
    ),
    Method(
        "rdrop", off=dict(consistency_weight=0.0), meter="consistency_loss", forwards=1, sequential=3
    ),
    Method("r3f", off=dict(consistency_weight=0.0), meter="consistency_loss", forwards=2, sequential=3),
    Method("neftune", off=dict(noise_alpha=0.0), meter="perturbation_norm", forwards=1, sequential=1),
    Method("awp", off=dict(awp_gamma=0.0), meter="weight_perturbation", forwards=2, sequential=2),
    Method(
        "smart",
        off=dict(consistency_weight=0.0, bregman_weight=0.0),
        alone=dict(bregman_weight=0.5, adv_init_eps=0.3, adv_eps=0.4, adv_step_size=0.2),
        meter="consistency_loss",
        sometimes={"bregman_loss"},
        forwards=3,
        sequential=4,
    ),
]


def masking(name: str, **options: Any) -> Method:
    """ASA's row with naive masks; ``bernoulli`` is ``scheduled`` with one point."""
    on = dict(asa_masking=name, **options)
    return Method(
        "asa",
        off=dict(on, consistency_weight=0.0),
        on=on,
        alone=on,
        meter="masked_layer2",
        forwards=2,
        sequential=3,
        label=f"asa-{name}",
    )


MASKINGS = [
    masking("scheduled", asa_masking_schedule="0:0.4,9:0.2"),
    masking("magnitude", asa_masking_rate=0.3),
]
EVERY = METHODS + MASKINGS
ASA = {"asa_weight": 0.7}  # ASA beside another method


CORE = ("rat", "freelb", "rapt", "asa")


def named(*names: str) -> list[Method]:
    """The core and these, for what takes long and where the others have nothing of their own."""
    return [method for method in METHODS if method.name in CORE + names]


def with_kinds(kinds: Iterable[str], few: Iterable[str]) -> list[Any]:
    """Methods and kinds of task to parametrize: the core with all, the others with a few, as their
    equations are proven with each elsewhere."""
    return [
        pytest.param(method, kind, id=f"{method!r}-{kind}")
        for method in METHODS
        for kind in (kinds if method.name in CORE else few)
    ]


def variants(*options: dict[str, Any]) -> list[Any]:
    """Every method without more options, and with each of these if it has them, to parametrize."""
    return [
        pytest.param(method, more, id="-".join([repr(method), *more]))
        for more in ({}, *options)
        for method in EVERY
        if method.knows(more)
    ]
