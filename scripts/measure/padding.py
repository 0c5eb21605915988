"""How much of an epoch's work is padding, with and without ``--group-by-length``.

    python scripts/measure/padding.py data-bin/RTE-bin data-bin/CoLA-bin --batch-size 32

Of preprocessed sentence tasks; nothing is trained. Positions are those of the batches that fairseq
makes; "fewer" is how many times fewer there are with groups.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import fairseq_compat

fairseq_compat.install()

import numpy as np  # noqa: E402
from fairseq.data import data_utils  # noqa: E402

import adv_plugins  # noqa: E402, F401
from adv_plugins.length_groups import grouped_order  # noqa: E402
from adv_plugins_cli.command import UserError, one_line_errors, positive  # noqa: E402


def lengths(folder: Path) -> np.ndarray:
    """(N,) ids of each training row, with the symbols that the recipes add.

    Raises:
        UserError: the folder holds no training data.
    """
    found: Any = 1  # <s>
    for name in ("input0", "input1"):
        texts = data_utils.load_indexed_dataset(str(folder / name / "train"), None)
        if texts is None and name == "input0":
            raise UserError(f"{folder / name / 'train.idx'}: no such file")
        if texts is not None:
            found = found + np.asarray(texts.sizes) + (name == "input1")  # </s> between two texts
    return np.asarray(found)


def positions(sizes: np.ndarray, order: np.ndarray, batch: int) -> int:
    """Of all batches of an epoch, padding included."""
    parts = (sizes[order[begin : begin + batch]] for begin in range(0, len(order), batch))
    return int(sum(part.max() * len(part) for part in parts))


def main() -> None:
    """Run the command line; a fault of the request is one line, not a traceback."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", type=Path, help="preprocessed folders")
    parser.add_argument("--batch-size", type=positive, default=32, help="(default: %(default)s)")
    parser.add_argument("--pool", type=positive, default=50, help="batches (default: %(default)s)")
    parser.add_argument("--max-length", type=positive, default=512, help="(default: %(default)s)")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    print("| | padding | with groups | fewer positions |")
    print("| --- | ---: | ---: | ---: |")
    with one_line_errors("padding.py"):
        for folder in arguments.data:
            sizes = np.minimum(lengths(folder), arguments.max_length)
            generator = np.random.default_rng(1)
            rows = arguments.pool * arguments.batch_size
            orders = (generator.permutation(len(sizes)), grouped_order(sizes, rows, generator))
            plain, grouped = (positions(sizes, order, arguments.batch_size) for order in orders)
            shares = [f"{100 * (1 - sizes.sum() / each):.1f} %" for each in (plain, grouped)]
            print(f"| {folder.name} | {' | '.join(shares)} | {plain / grouped:.2f} |")


if __name__ == "__main__":
    main()
