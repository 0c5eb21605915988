"""The first updates of every method on a real task: does its loss fall?

    adv-plugins convert from-hf minilm minilm
    adv-plugins preprocess RTE --data-dir data/glue --wordpiece minilm --out-dir data-bin
    python scripts/measure/first_updates.py minilm data-bin/RTE-bin --rows 160 --updates 80

Each trains the same encoder on the same batches through fairseq's Trainer, with its options' defaults;
the table has the means of the logged loss (base 2, for a sentence) and of the objective over blocks of
updates. FreeAT's batches are each several updates in a row.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import statistics
import tempfile
import warnings
from pathlib import Path

import fairseq_compat

fairseq_compat.install()

from fairseq import metrics  # noqa: E402
from fairseq.data import iterators  # noqa: E402

from adv_plugins.methods import METHODS  # noqa: E402
from adv_plugins_cli.command import one_line_errors, positive  # noqa: E402
from adv_plugins_cli.recipes.methods import PLAIN  # noqa: E402
from fairseq_compat.files import write_json  # noqa: E402
from peers import fairseq_trainer  # noqa: E402


def losses(arguments: argparse.Namespace, method: str) -> tuple[list[float], list[float]]:
    """The loss and the objective of each update."""
    criterion, flags = "sentence_prediction", ""
    if method != PLAIN:
        criterion = METHODS[method].criterion
        if METHODS[method].adversaries:
            flags = "--arch asa_bert_like"
    flags += f" --criterion {criterion} --optimizer adamw_fused --group-by-length 50"
    with tempfile.TemporaryDirectory() as folder:
        trainer = fairseq_trainer(arguments, folder, f"{flags} --lr {arguments.lr}")
    seen: tuple[list[float], list[float]] = ([], [])
    for epoch in itertools.count(1):
        epochs = trainer.get_train_iterator(epoch, load_dataset=False)
        trainer.begin_epoch(epoch)
        for samples in iterators.GroupedIterator(epochs.next_epoch_itr(shuffle=True), 1):
            with metrics.aggregate(new_root=True) as meters:
                trainer.train_step(samples)
            values = meters.get_smoothed_values()
            seen[0].append(float(values["loss"]))
            seen[1].append(float(values.get("objective", values["loss"])))
            if len(seen[0]) == arguments.updates:
                return seen
    raise AssertionError("unreachable")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("encoder", type=Path, help="folder of adv-plugins convert from-hf")
    parser.add_argument("data", type=Path, help="preprocessed data")
    parser.add_argument("--num-classes", type=positive, default=2, help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=positive, default=8, help="(default: %(default)s)")
    parser.add_argument("--rows", type=positive, help="the first ones of the data alone")
    parser.add_argument("--lr", default="3e-4", help="constant (default: %(default)s)")
    parser.add_argument("--updates", type=positive, default=80, help="(default: %(default)s)")
    parser.add_argument("--blocks", type=positive, default=4, help="of them (default: %(default)s)")
    parser.add_argument("--methods", nargs="+", default=[PLAIN, *METHODS], choices=[PLAIN, *METHODS])
    parser.add_argument("--json", type=Path, help="write the numbers here, too, as they come")
    return parser.parse_args()


def run(arguments: argparse.Namespace) -> None:
    """Train and print."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    size = -(-arguments.updates // arguments.blocks)
    spans = [f"{b + 1} - {min(b + size, arguments.updates)}" for b in range(0, arguments.updates, size)]
    print(f"| loss; objective | {' | '.join(spans)} |")
    print(f"| --- |{' ---: |' * len(spans)}", flush=True)
    found = {}
    for method in arguments.methods:
        found[method] = dict(zip(("loss", "objective"), losses(arguments, method)))
        cells = []
        for begin in range(0, arguments.updates, size):
            means = [statistics.mean(each[begin : begin + size]) for each in found[method].values()]
            cells.append("; ".join(f"{mean:.3f}" for mean in means))
        print(f"| {method} | {' | '.join(cells)} |", flush=True)
        if arguments.json:
            write_json(arguments.json, found)


def main() -> None:
    """Run the command line; a fault of the request is one line, not a traceback."""
    arguments = parse_arguments()
    with one_line_errors("first_updates.py"):
        run(arguments)


if __name__ == "__main__":
    main()
