"""Prints what the dead weights of fairseq 0.12.2 cost a model: parameters, checkpoint, and training.

    python scripts/measure/measure_dead_weights.py [roberta_base roberta_large ...]
    python scripts/measure/measure_dead_weights.py roberta_large --train fp16

The checkpoint is the model's alone, without the optimizer's state. --train makes updates through
fairseq's Trainer with and without them in one run: the memory of all tensors after an update (weights,
gradients, optimizer state and copies; on a GPU the peak, too) and the median time of optimizer.step.
"""

from __future__ import annotations

import argparse
import gc
import io
import statistics
import time
import warnings
from typing import Any

import torch

import fairseq_compat

fairseq_compat.install()

from fairseq.tasks.sentence_prediction import SentencePredictionTask  # noqa: E402
from fairseq.trainer import Trainer  # noqa: E402

from adv_plugins_cli.command import one_line_errors, positive  # noqa: E402
from adv_plugins_cli.recipes.update_times import make_sample  # noqa: E402
from synthetic import (  # noqa: E402
    VOCABULARY,
    check_architecture,
    check_sizes,
    configure,
    make_dictionary,
)

PRECISIONS = ["fp32", "fp16", "memory-efficient-fp16", "amp"]


class Counter(io.RawIOBase):
    """A file that only counts the bytes written to it."""

    bytes = 0

    def write(self, data: Any) -> int:
        self.bytes += len(data)
        return len(data)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("architectures", nargs="*", default=["roberta_base"])
    parser.add_argument("--train", metavar="PRECISION", choices=PRECISIONS, help=str(PRECISIONS))
    parser.add_argument("--batch-size", type=positive, default=16)
    parser.add_argument("--length", type=positive, default=128)
    parser.add_argument("--updates", type=positive, default=5)
    arguments = parser.parse_args()
    if arguments.train in ("fp16", "amp") and not torch.cuda.is_available():
        parser.error(f"--train {arguments.train} needs a GPU: give memory-efficient-fp16 or fp32")
    return arguments


def make_trainer(architecture: str, precision: str) -> Trainer:
    """fairseq's own Trainer and criterion, on a model from random weights."""
    words = make_dictionary(VOCABULARY)
    cfg = configure(architecture, precision, "--criterion sentence_prediction")
    task = SentencePredictionTask(cfg.task, words, words)
    return Trainer(cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion))


def measure_size(trainer: Trainer) -> list[str]:
    """The number of parameters, and the bytes of a checkpoint."""
    checkpoint = Counter()
    torch.save({"model": trainer.model.state_dict()}, checkpoint)
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    return [f"{parameters:,}", f"{checkpoint.bytes:,} B"]


def measure_training(trainer: Trainer, arguments: argparse.Namespace) -> list[str]:
    """Memory after an update, its peak on a GPU, and the time of optimizer.step."""
    on_gpu = torch.cuda.is_available()
    sample = make_sample(arguments.batch_size, arguments.length, VOCABULARY)
    seconds = []
    step = trainer.optimizer.step

    def timed_step(*positional: Any, **named: Any) -> None:
        if on_gpu:
            torch.cuda.synchronize()
        began = time.perf_counter()
        step(*positional, **named)
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)

    trainer.optimizer.step = timed_step
    for update in range(arguments.updates + 1):
        if update == 1 and on_gpu:  # the optimizer's state is there from now on
            torch.cuda.reset_peak_memory_stats()
        trainer.train_step([sample], raise_oom=True)
    held = {}
    for each in gc.get_objects():
        if isinstance(each, torch.Tensor):
            storage = each.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
    own = [f"{sum(held.values()) / 2**20:,.0f} MiB"]
    if on_gpu:
        own.append(f"{torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB")
    return [*own, f"{1000 * statistics.median(seconds[1:]):,.1f} ms"]


def measure(architecture: str, arguments: argparse.Namespace) -> list[str]:
    trainer = make_trainer(architecture, arguments.train or "fp32")
    return measure_training(trainer, arguments) if arguments.train else measure_size(trainer)


def run(arguments: argparse.Namespace) -> None:
    """Measure and print the table.

    Raises:
        UserError: naming what is no architecture, or too long.
    """
    check_sizes(lengths=[arguments.length])
    for architecture in arguments.architectures:
        check_architecture(architecture)
    warnings.simplefilter("ignore")  # fairseq and hydra give them by the dozen
    stock = [measure(architecture, arguments) for architecture in arguments.architectures]
    gc.collect()

    from adv_plugins import dead_weights

    dead_weights.remove()
    columns = ["parameters", "checkpoint"]
    if arguments.train:
        peak = ["peak"] if torch.cuda.is_available() else []
        columns = ["all tensors", *peak, "optimizer.step"]
    print("| architecture | dead weights |", " | ".join(columns), "|")
    print("| --- | --- |", " | ".join(["---:"] * len(columns)), "|")
    for index, architecture in enumerate(arguments.architectures):
        for label, row in (("with", stock[index]), ("without", measure(architecture, arguments))):
            print(f"| {architecture} | {label} |", " | ".join(row), "|")
            gc.collect()


def main() -> None:
    """Run the command line; a fault of the request is one line, not a traceback."""
    arguments = parse_arguments()
    with one_line_errors("measure_dead_weights.py"):
        run(arguments)


if __name__ == "__main__":
    main()
