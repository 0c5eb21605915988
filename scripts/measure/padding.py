"""How much of an epoch's work is padding, with and without ``--group-by-length``.

    python scripts/measure/padding.py data-bin/RTE-bin data-bin/CoLA-bin --batch-size 32

Of preprocessed sentence tasks; nothing is trained. Positions are those of the batches that fairseq
makes; "fewer" is how many times fewer there are with groups.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import fairseq_compat

fairseq_compat.install()

import numpy as np  # noqa: E402

from adv_plugins_cli.command import one_line_errors, positive  # noqa: E402
from adv_plugins_cli.data.lengths import POOL, lengths, positions  # noqa: E402


def main() -> None:
    """Run the command line; a fault of the request is one line, not a traceback."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", type=Path, help="preprocessed folders")
    parser.add_argument("--batch-size", type=positive, default=32, help="(default: %(default)s)")
    parser.add_argument("--pool", type=positive, default=POOL, help="batches (default: %(default)s)")
    parser.add_argument("--max-length", type=positive, default=512, help="(default: %(default)s)")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    print("| | padding | with groups | fewer positions |")
    print("| --- | ---: | ---: | ---: |")
    with one_line_errors("padding.py"):
        for folder in arguments.data:
            sizes = np.minimum(lengths(folder), arguments.max_length)
            plain, grouped = (
                positions(sizes, arguments.batch_size, pool) for pool in (0, arguments.pool)
            )
            shares = [f"{100 * (1 - sizes.sum() / each):.1f} %" for each in (plain, grouped)]
            print(f"| {folder.name} | {' | '.join(shares)} | {plain / grouped:.2f} |")


if __name__ == "__main__":
    main()
