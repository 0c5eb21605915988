"""The figures of the papers for a model of your own, as PNG files (needs matplotlib).

    adv-plugins plot maps checkpoint_best.pt --text "a smile on your face" \\
        --bpe-dir gpt2_bpe --layers 1 11 --head 2 --out maps.png
    adv-plugins plot layers SST-2=sst2/checkpoint_best.pt RTE=rte/checkpoint_best.pt \\
        --out layers.png
    adv-plugins plot history train.log --out history.png
    adv-plugins plot nearest-words checkpoint_best.pt --words country \\
        --text "mexico produces more oil than any other country ." --out words.png

maps: the attention of a sentence; of a model with ASA's adversary also under its mask, masked units
crossed (ASA, figures 1 and 6). layers: the masked proportion of each layer over a validation split
(figure 5). history: the same over the updates of a training, from its log (--log-format json), and as an
--asa-masking-schedule. nearest-words: the words nearest to a token's hidden state before and after
RAPT's noise (its tables 4 to 6), as a figure and, on standard output, as a table.

The adversary draws its masks at random, and RAPT its noise; --seed chooses the draw. The mask of a layer
is seen by the layers above it, as in training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from adv_plugins_cli.command import UserError, one_line_errors, positive
from adv_plugins_cli.data.tokenizer_options import add_tokenizer_options
from adv_plugins_cli.figures import drawing
from adv_plugins_cli.figures.attention_maps import maps
from adv_plugins_cli.figures.masked_proportions import history, layers
from adv_plugins_cli.figures.nearest_words import AGAINST, nearest_words
from fairseq_compat.files import written_beside

FIGURES: dict[str, Callable[[argparse.Namespace], Any]] = {
    "maps": maps,
    "layers": layers,
    "history": history,
    "nearest-words": nearest_words,
}


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    maps = commands.add_parser("maps", help="attention maps of a sentence")
    maps.add_argument(
        "checkpoint", type=Path, help="of the RoBERTa family, with an adversary or without"
    )
    maps.add_argument("--text", required=True, help="a sentence, raw")
    add_tokenizer_options(maps, required=False)
    maps.add_argument("--layers", nargs="+", type=int, help="from 1 (default: all)")
    maps.add_argument("--head", type=int, help="from 1 (default: the mean over all heads)")
    layers = commands.add_parser("layers", help="masked proportion per layer")
    layers.add_argument(
        "checkpoints", nargs="+", metavar="NAME=CHECKPOINT", help="one curve each; NAME is its label"
    )
    layers.add_argument("--split", default="valid", help="of the data (default: %(default)s)")
    layers.add_argument("--batch", type=int, default=32, help="sentences (default: %(default)s)")
    history = commands.add_parser("history", help="masked proportion over the updates")
    history.add_argument("log", type=Path, help="of fairseq-train --log-format json")
    words = commands.add_parser(
        "nearest-words", help="words nearest to a hidden state before and after RAPT's noise"
    )
    add_nearest_words(words)
    for command in (maps, layers, words):
        command.add_argument("--data", type=Path, help="data folder (default: the training's)")
        command.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    for command in (maps, layers, history, words):
        command.add_argument("--out", type=Path, required=True, help="the PNG file")
    return parser.parse_args(argv)


def add_nearest_words(parser: argparse.ArgumentParser) -> None:
    """The options of ``nearest-words``."""
    parser.add_argument("checkpoint", type=Path, help="of the RoBERTa family")
    parser.add_argument(
        "--text", nargs="+", required=True, help="sentences, raw; a tab in one parts a pair of sentences"
    )
    parser.add_argument("--words", nargs="+", required=True, help="of the texts, each one subword")
    add_tokenizer_options(parser, required=False)
    parser.add_argument(
        "--layer", type=int, default=2, help="whose output gets the noise; 0: embeddings (%(default)s)"
    )
    parser.add_argument("--eta", type=float, default=2.0, help="RAPT's --noise-eta (%(default)s)")
    parser.add_argument("--top", type=positive, default=10, help="words of a list (%(default)s)")
    parser.add_argument(
        "--against",
        choices=AGAINST,
        default=AGAINST[0],
        help="what words stand for in the cosines: the mean of their hidden states at the same layer in "
        "other texts, since those of a layer are like one another and not like the table of word "
        "embeddings; or that table (default: %(default)s)",
    )
    parser.add_argument(
        "--bank",
        type=Path,
        metavar="FILE",
        help="with --against states: the other texts, one a line (default: the training split)",
    )
    parser.add_argument(
        "--bank-size", type=positive, default=1000, help="texts taken of it at most (%(default)s)"
    )


def check_options(arguments: argparse.Namespace) -> None:
    """Find what cannot be, before a model is loaded.

    Raises:
        UserError: naming the option.
    """
    if not arguments.out.parent.is_dir():
        raise UserError(f"{arguments.out.parent}: no such folder (--out)")
    if arguments.out.is_dir():
        raise UserError(f"{arguments.out}: is a folder (--out)")
    if getattr(arguments, "batch", 1) < 1:
        raise UserError(f"--batch {arguments.batch}: at least 1")
    if not 0 <= getattr(arguments, "seed", 1) < 2**63:
        raise UserError(f"--seed {arguments.seed}: from 0 to 2^63 - 1")
    if not 0 <= getattr(arguments, "eta", 1) < float("inf"):
        raise UserError(f"--eta {arguments.eta}: at least 0")
    if getattr(arguments, "bank", None) and arguments.against != AGAINST[0]:
        raise UserError(f"--bank is for --against {AGAINST[0]}, not {arguments.against}")
    for named in getattr(arguments, "checkpoints", ()):
        if "=" not in named:
            raise UserError(f"{named}: give NAME=CHECKPOINT")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; a fault of the input is one line, not a traceback."""
    arguments = parse_arguments(argv)
    with one_line_errors("adv-plugins plot"):
        drawing.new_figure(1, 1)  # without matplotlib no model is loaded
        check_options(arguments)
        figure = FIGURES[arguments.command](arguments)
        with written_beside(arguments.out) as path:
            figure.savefig(path, dpi=150, format="png")
        # Standard output is the table's where there is one.
        print(arguments.out, file=sys.stderr if arguments.command == "nearest-words" else sys.stdout)


if __name__ == "__main__":
    main()
