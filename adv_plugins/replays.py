"""Every update of an epoch is made K times in a row, for a criterion that asks for it (``replays``).

The train iterator goes through each update's batches K times: with ``--update-freq 2`` and K = 3 it is
b1 b2 b1 b2 b1 b2 b3 b4 ... Each replay is an update like any other to fairseq, so schedules, loss
scales, logs and checkpoints are its own, and a training goes on in the middle of the replays of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fairseq.data.iterators import EpochBatchIterator
from fairseq.trainer import Trainer

from adv_plugins.wrapped_methods import wrap_method
from fairseq_compat.errors import UserError


class Replays(NamedTuple):
    """times: K; update_freq: batches of an update, by epochs (the last one's for all later ones)."""

    times: int
    update_freq: Sequence[int]

    def of(self, batches: Sequence[Any], epoch: int) -> list[Any]:
        """A worker's batches of an epoch, each update's K times in a row.

        The last update may have fewer batches; empty ones complete it here, or its replays would not
        be updates of their own. :func:`without_filling` takes them away again.
        """
        group = self.update_freq[min(epoch, len(self.update_freq)) - 1]
        repeated: list[Any] = []
        for begin in range(0, len(batches), group):
            update = list(batches[begin : begin + group])
            repeated += (update + [[]] * (group - len(update))) * self.times
        return repeated


def add() -> None:
    """Wrap the trainer and its iterator, once."""
    wrap_method(Trainer, "get_train_iterator", replaying)
    wrap_method(Trainer, "train_step", without_filling)
    wrap_method(EpochBatchIterator, "ordered_batches", each_several_times)
    wrap_method(EpochBatchIterator, "__len__", with_replays)


def asked_of(trainer: Any) -> int:
    """K, 1 if the criterion asks for nothing."""
    return int(getattr(trainer.criterion, "replays", 1))


def replaying(original: Callable[..., Any]) -> Callable[..., Any]:
    """Tell the iterator for training, which fairseq may use for several epochs."""

    def get_train_iterator(self: Any, *args: Any, **kwargs: Any) -> Any:
        iterator = original(self, *args, **kwargs)
        if (times := asked_of(self)) > 1:
            if self.cfg.optimization.skip_remainder_batch:
                raise UserError(
                    "--skip-remainder-batch would leave out replays of a batch, not a batch: leave it "
                    "away with this criterion"
                )
            iterator.replays = Replays(times, self.cfg.optimization.update_freq)
        return iterator

    return get_train_iterator


def without_filling(original: Callable[..., Any]) -> Callable[..., Any]:
    """An update without the empty batches that complete it, where the worker has others."""

    def train_step(self: Any, samples: list[Any], *args: Any, **kwargs: Any) -> Any:
        if asked_of(self) > 1:
            samples = [sample for sample in samples if sample] or samples[:1]
        return original(self, samples, *args, **kwargs)

    return train_step


def each_several_times(original: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    def ordered_batches(self: Any, epoch: int, *args: Any, **kwargs: Any) -> list[Any]:
        batches = original(self, epoch, *args, **kwargs)
        replays = getattr(self, "replays", None)
        return replays.of(batches, epoch) if replays else batches

    return ordered_batches


def with_replays(original: Callable[..., int]) -> Callable[..., int]:
    def __len__(self: Any) -> int:
        batches, replays = original(self), getattr(self, "replays", None)
        return len(replays.of(range(batches), self.epoch)) if replays else batches

    return __len__
