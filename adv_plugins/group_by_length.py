"""``--group-by-length N``: batches of rows of like length, for every task that knows lengths.

The option belongs to the task, so that fairseq-train and fairseq-hydra-train
(``task.group_by_length=50``) both know it, and any criterion can be used with it. The trainer asks the
task for batches of a dataset; meanwhile the task is given the same dataset in another order.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Type

from fairseq.data import FairseqDataset
from fairseq.tasks import TASK_DATACLASS_REGISTRY, TASK_REGISTRY, FairseqTask
from fairseq.trainer import Trainer
from hydra.core.config_store import ConfigStore

from adv_plugins.length_groups import LengthGrouped, LengthSorted
from adv_plugins.wrapped_methods import wrap_method
from fairseq_compat.errors import UserError
from fairseq_compat.task_kinds import TASK_KINDS

TASKS = (
    "sentence_prediction",
    "sentence_ranking",
    "commonsense_qa",
    "token_classification",
    "masked_lm",
)
HELP = (
    "sort rows by length within random pools of N batches, new ones in every epoch, so that less is "
    "padding; validation sorts all rows (50 is a good N; 0: off)"
)


def add_option() -> None:
    """Give the tasks the option and the trainer what it does, once."""
    for name in TASK_KINDS:
        options = TASK_DATACLASS_REGISTRY.get(name)
        if options is None:
            add_to_parser(TASK_REGISTRY[name])
        elif not hasattr(options, "group_by_length"):
            add_to_dataclass(name, options)
    wrap_method(Trainer, "get_train_iterator", grouped_in_training)
    wrap_method(Trainer, "get_valid_iterator", sorted_in_validation)


def add_to_dataclass(name: str, options: Type[Any]) -> None:
    """The task's options and one more, in the places where fairseq and hydra look for them."""
    option = dataclasses.field(default=0, metadata={"help": HELP})
    grouped = dataclasses.make_dataclass(
        options.__name__, [("group_by_length", int, option)], bases=(options,)
    )
    setattr(TASK_REGISTRY[name], "__dataclass", grouped)
    TASK_DATACLASS_REGISTRY[name] = grouped
    node = grouped()
    node._name = name
    ConfigStore.instance().store(name=name, group="task", node=node, provider="fairseq")


def add_to_parser(task: Type[FairseqTask]) -> None:
    """The option for a task of the older kind, whose options are an argparse namespace."""
    stock = task.add_args
    if hasattr(stock, "with_groups"):
        return

    def add_args(parser: Any) -> None:
        stock(parser)
        parser.add_argument("--group-by-length", type=int, default=0, metavar="N", help=HELP)

    add_args.with_groups = True  # type: ignore[attr-defined]
    task.add_args = staticmethod(add_args)


def pool_of(task_options: Any) -> int:
    """N of ``--group-by-length``; 0 if rows are not grouped.

    Raises:
        UserError: it is negative, or contradicts ``--no-shuffle``.
    """
    pool = getattr(task_options, "group_by_length", None) or 0
    if pool < 0:
        raise UserError(f"--group-by-length {pool}: give a number of batches, or 0 for none")
    if pool and getattr(task_options, "no_shuffle", False):
        raise UserError(
            f"--group-by-length {pool} shuffles and --no-shuffle does not: leave one of them out"
        )
    return pool


@contextlib.contextmanager
def batches_of(task: FairseqTask, arrange: Callable[..., FairseqDataset]) -> Iterator[None]:
    """Meanwhile ``task`` makes its batches of ``arrange(dataset, **options)`` instead of ``dataset``."""
    stock = task.get_batch_iterator

    def get_batch_iterator(dataset: FairseqDataset, **options: Any) -> Any:
        return stock(dataset=arrange(dataset, **options), **options)

    task.get_batch_iterator = get_batch_iterator
    try:
        yield
    finally:
        del task.get_batch_iterator


def grouped_in_training(original: Callable[..., Any]) -> Callable[..., Any]:
    """Batches of like rows; with several workers, those of one update are alike, too, so that none
    waits for another's longer batch."""

    def get_train_iterator(self: Any, *args: Any, **kwargs: Any) -> Any:
        pool = pool_of(self.cfg.task)
        if not pool:
            return original(self, *args, **kwargs)

        def arrange(dataset: FairseqDataset, **options: Any) -> FairseqDataset:
            return LengthGrouped(
                dataset,
                pool=pool * options["num_shards"],  # each worker has N batches of it
                max_sentences=options["max_sentences"],
                max_tokens=options["max_tokens"],
                seed=options["seed"],
            )

        with batches_of(self.task, arrange):
            iterator = original(self, *args, **kwargs)
        if iterator.num_shards > 1:
            iterator.grouped_shuffling = True
            # It drops what makes no whole group: empty batches complete the last one.
            missing = -len(iterator.frozen_batches) % iterator.num_shards
            iterator._frozen_batches += ([],) * missing
        return iterator

    return get_train_iterator


def sorted_in_validation(original: Callable[..., Any]) -> Callable[..., Any]:
    """Validation goes through all rows by length; its scores do not depend on their order."""

    def get_valid_iterator(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not pool_of(self.cfg.task):
            return original(self, *args, **kwargs)
        # fairseq keeps the batches of a dataset that it knows from the validation before.
        known = vars(self).setdefault("sorted_datasets", {})

        def arrange(dataset: FairseqDataset, **options: Any) -> FairseqDataset:
            return known.setdefault(dataset, LengthSorted(dataset))

        with batches_of(self.task, arrange):
            return original(self, *args, **kwargs)

    return get_valid_iterator
