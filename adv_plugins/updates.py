"""Tells a criterion that a new update begins, which fairseq does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fairseq.trainer import Trainer

from adv_plugins.wrapped_methods import wrap_method


def announce() -> None:
    """Wrap the trainer's training step, once."""
    wrap_method(Trainer, "train_step", announced)


def announced(original: Callable[..., Any]) -> Callable[..., Any]:
    """Call ``criterion.begin_update(number of updates done)``, where there is such a method, before
    every update."""

    def train_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        begin_update = getattr(self.get_criterion(), "begin_update", None)
        if begin_update is not None:
            begin_update(self.get_num_updates())
        return original(self, *args, **kwargs)

    return train_step
