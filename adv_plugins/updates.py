"""Tells a criterion that a new update begins, which fairseq does not."""

import functools
from typing import Any

from fairseq.trainer import Trainer


def announce() -> None:
    """Have fairseq's trainer call ``criterion.begin_update(number of updates done)``, where there is
    such a method, before every update; once, however often this is called."""
    stock = Trainer.train_step
    if hasattr(stock, "announces"):
        return

    @functools.wraps(stock)
    def train_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        begin_update = getattr(self.get_criterion(), "begin_update", None)
        if begin_update is not None:
            begin_update(self.get_num_updates())
        return stock(self, *args, **kwargs)

    train_step.announces = True  # type: ignore[attr-defined]
    Trainer.train_step = train_step
