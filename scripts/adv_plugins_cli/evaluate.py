"""Measure fine-tuned checkpoints: scores with intervals, robustness in embedding space and in text.

    adv-plugins evaluate plain/checkpoint_best.pt rat/checkpoint_best.pt --data data-bin/SST-2-bin \\
        --embedding --curves --report report
    adv-plugins evaluate checkpoint_best.pt --data SST-2=data/glue/SST-2/dev.tsv --report report \\
        --set AdvGLUE-SST-2=dev.json --attack typos synonyms --neighbors counterfitted_neighbors.json

--data is a task's preprocessed folder (with --split), a labelled file (texts, then the label, parted by
tabs; with --text a table, such as a .csv), or NAME=PATH of a set with its official file. Several
checkpoints are compared on the same rows, the first one with each of the others. A second run into the
same --report goes on where the first stopped. Everything is checked before the first model is loaded.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from adv_plugins_cli.command import one_line_errors, positive, seed_number
from adv_plugins_cli.data.tokenizer_options import add_tokenizer_options


def number_from(lowest: float, *, above: bool = False) -> Callable[[str], float]:
    """The ``type`` of an option whose value is a finite number of at least, or above, ``lowest``."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < lowest or (above and value == lowest):
            wanted = "above" if above else "of at least"
            raise argparse.ArgumentTypeError(f"{text}: give a number {wanted} {lowest:g}")
        return value

    return number


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="CHECKPOINT")
    parser.add_argument(
        "--data", metavar="PATH", help="TASK-bin, a labelled file, or NAME=PATH of a set"
    )
    parser.add_argument(
        "--text", metavar="COLUMN", help="the text in a --data that is a table, such as a .csv"
    )
    parser.add_argument("--text2", metavar="COLUMN", help="the second text, of pairs")
    parser.add_argument("--label", metavar="COLUMN", help="with --text (default: label)")
    parser.add_argument("--split", help="of TASK-bin (default: valid)")
    parser.add_argument("--rows", type=positive, help="so many rows of --data, drawn at random (all)")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=PATH", help="sets, see --list-sets"
    )
    parser.add_argument("--report", type=Path, help="folder for report.html, results.json, pictures")
    parser.add_argument("--seed", type=seed_number, default=1, help="of everything random (%(default)s)")
    parser.add_argument("--batch-size", type=positive, default=32, help="sequences (%(default)s)")
    parser.add_argument(
        "--bootstrap", type=positive, default=1000, help="draws, for the intervals (%(default)s)"
    )
    parser.add_argument("--data-bin", type=Path, help="TASK-bin, for the dictionaries, without TASK-bin")
    add_tokenizer_options(parser, required=False)
    space = parser.add_argument_group("in embedding space")
    space.add_argument(
        "--embedding",
        action="store_true",
        help="the largest increase of the loss in a ball (FreeLB 4.3)",
    )
    space.add_argument(
        "--embedding-rows",
        type=positive,
        default=200,
        help="at most, of those all get right (%(default)s)",
    )
    space.add_argument(
        "--eps", type=number_from(0), default=0.01, help="epsilon, a share of ||X||_F (%(default)s)"
    )
    space.add_argument("--steps", type=positive, default=200, help="of the ascent (%(default)s)")
    space.add_argument(
        "--step-size", type=number_from(0, above=True), default=5e-3, help="alpha (%(default)s)"
    )
    space.add_argument("--starts", type=positive, default=1, help="the first from 0 (%(default)s)")
    space.add_argument(
        "--search-eps",
        type=Path,
        metavar="CHECKPOINT",
        help="per row the largest epsilon, down from --eps, within which this one of them holds",
    )
    space.add_argument(
        "--curves", action="store_true", help="accuracy against epsilon: PGD-20, noise, noise at layers"
    )
    space.add_argument(
        "--curve-rows", type=positive, default=200, help="at most, for the curves (%(default)s)"
    )
    space.add_argument(
        "--curve-eps",
        type=number_from(0),
        nargs="+",
        default=[0, 0.0025, 0.005, 0.01, 0.02, 0.04],
        metavar="EPS",
        help="epsilons, shares of ||X||_F (0 .0025 .005 .01 .02 .04)",
    )
    space.add_argument("--noise-draws", type=positive, default=5, help="of random noise (%(default)s)")
    space.add_argument(
        "--layer-noise",
        type=number_from(0),
        default=0.5,
        help="norm of the noise at a layer, a share of its hidden states' (%(default)s)",
    )
    text = parser.add_argument_group("attacks in text")
    text.add_argument("--attack", nargs="+", choices=("typos", "synonyms"), default=[], help="on --data")
    text.add_argument("--attack-rows", type=positive, default=200, help="at most (%(default)s)")
    text.add_argument(
        "--neighbors", type=Path, metavar="JSON", help="words with their near synonyms, for synonyms"
    )
    text.add_argument(
        "--candidates", type=positive, default=10, help="changes of a word to try (%(default)s)"
    )
    text.add_argument(
        "--changed", type=number_from(0), default=0.2, help="share of the words at most (%(default)s)"
    )
    text.add_argument("--queries", type=positive, default=1000, help="of a row at most (%(default)s)")
    parser.add_argument("--list-sets", action=ListSets, nargs=0, help="name the sets, and stop")
    return parser


class ListSets(argparse.Action):
    """Prints the sets and their official files."""

    def __call__(self, parser: argparse.ArgumentParser, *_unused: Any) -> None:
        """Print, and end the program."""
        from adv_plugins_cli.robustness.sets import SETS

        width = max(map(len, SETS))
        for each in SETS.values():
            print(f"{each.name:<{width}}  {each.expects}  {each.paper}")
        parser.exit()


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Evaluate, write the report; returns the results.

    Raises:
        UserError: of a request that cannot be.
    """
    from adv_plugins_cli.robustness.plan import make_plan, refuse_useless

    refuse_useless(arguments)
    from adv_plugins_cli.predict import only_output
    from adv_plugins_cli.robustness.evaluation import evaluate

    with only_output():
        results = evaluate(make_plan(arguments))
        if arguments.report is not None:
            from adv_plugins_cli.robustness.report import write_report

            write_report(arguments.report, results)
    return results


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; a fault of the request is one line, not a traceback."""
    arguments = make_parser().parse_args(argv)
    with one_line_errors("adv-plugins evaluate"):
        results = run(arguments)
        from adv_plugins_cli.robustness.tables import lines

        for line in lines(results):
            print(line)
        if arguments.report is not None:
            print(f"{arguments.report / 'report.html'}")


if __name__ == "__main__":
    main()
