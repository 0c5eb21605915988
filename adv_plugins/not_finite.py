"""Gradients that are not finite end a training with that reason.

fairseq 0.12.2 then looks for the first NaN with hooks that torch cannot put on RoBERTa's encoder, whose
output is a dict: what the user sees is an empty ``StopIteration``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from fairseq.trainer import Trainer


def name() -> None:
    """Wrap fairseq's trainer, once."""
    if not hasattr(Trainer.train_step, "names_what_is_not_finite"):
        Trainer.train_step = functools.wraps(Trainer.train_step)(train_step(Trainer.train_step))
        Trainer.train_step.names_what_is_not_finite = True


def train_step(original: Callable[..., Any]) -> Callable[..., Any]:
    """A step that raises FloatingPointError in place of what came of it."""

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(self, *args, **kwargs)
        except (FloatingPointError, StopIteration) as error:
            first = error if isinstance(error, FloatingPointError) else error.__context__
            if not isinstance(first, FloatingPointError):
                raise
            reason = str(first).partition("\n")[0]
            raise FloatingPointError(
                f"{reason} after {self.get_num_updates()} updates: try a lower --lr or more "
                "--warmup-updates (the state is in crash.pt, the place in the log)"
            ) from first

    return step
