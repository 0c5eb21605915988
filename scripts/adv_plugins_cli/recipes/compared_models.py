"""``compare --evaluate``: clean and robust in one table, of every method's model of every seed."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adv_plugins_cli import evaluate
from adv_plugins_cli.command import UserError
from adv_plugins_cli.data.dictionary import read_labels
from adv_plugins_cli.recipes import runs
from fairseq_compat.task_kinds import LABELS

OPTION = "--evaluate"
FOLDER = "evaluation"
MODEL = "checkpoint_last.pt"
STAND_IN = "CHECKPOINT"  # of the models, which there are none of yet


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add --evaluate."""
    parser.add_argument(
        OPTION,
        nargs="?",
        const="",
        metavar="OPTIONS",
        help="keep the seeds' models and measure them as adv-plugins evaluate does, with these of its "
        "options (such as '--embedding --curves'; --data is the task's validation set)",
    )


def attached(argv: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """A command line in which --evaluate and its value are one word: argparse takes a value that is one
    option, such as --embedding, for an option of compare's."""
    found = list(argv)
    for place in range(len(found) - 1):
        value = found[place + 1]
        known = any(value in action.option_strings for action in parser._actions)
        if found[place] == OPTION and value.startswith("-") and not known:
            found[place : place + 2] = [f"{OPTION}={value}"]
            break
    return found


def request(options: str, models: Sequence[str | Path], data: Path, folder: Path) -> argparse.Namespace:
    """evaluate's own command line.

    Raises:
        UserError: --report or a checkpoint is among the options.
        SystemExit: argparse's, of an option that it does not know.
    """
    parser = evaluate.make_parser()
    parser.prog = "adv-plugins compare --evaluate"
    try:
        given = shlex.split(options)
    except ValueError as error:
        raise UserError(f"--evaluate {options!r}: {error}") from error
    asked = parser.parse_args([STAND_IN, *given])
    if len(asked.checkpoints) > 1:
        raise UserError(f"--evaluate: the models are the comparison's, not {asked.checkpoints[1]}")
    if asked.report is not None:
        raise UserError(f"--evaluate: the report goes to --out-dir, not to {asked.report} (--report)")
    asked.checkpoints = list(map(Path, models))
    if asked.data is None:
        asked.data = str(data)
    asked.report = folder / FOLDER
    return asked


def check(options: str, data: Path, folder: Path) -> None:
    """Find before any training what would stop the evaluation after it.

    Raises:
        UserError: of options, files, or labels that do not fit the task's.
    """
    from adv_plugins_cli.robustness.attacks.synonyms import read_neighbours
    from adv_plugins_cli.robustness.plan import read_sets, refuse_useless

    asked = request(options, [STAND_IN], data, folder)
    refuse_useless(asked)
    if asked.search_eps is not None:
        raise UserError("--evaluate: --search-eps names a checkpoint, and there is none yet")
    if asked.neighbors is not None:
        read_neighbours(asked.neighbors)
    sets, named = read_sets(asked)
    if not named and not Path(asked.data).exists():
        raise UserError(f"{asked.data}: no such folder or file (--data)")
    if asked.attack and Path(asked.data).is_dir():
        raise UserError("--evaluate: --attack needs text: a --data of a labelled file, or NAME=PATH")
    if not sets:
        return
    labels = read_labels(data / LABELS) if (data / LABELS).is_file() else ()
    for each, _ in sets:
        if each.meaning_among(labels) is None:
            classes = ", ".join(labels) or "no classes"
            raise UserError(f"--evaluate: the set {each.name} is not of a task with {classes} (--set)")


def measure(options: str, models: Sequence[runs.Run], data: Path, folder: Path) -> dict[str, Any]:
    """Evaluate the models that these runs left; the results, which the report shows, too.

    Raises:
        UserError: of models that cannot be evaluated so.
    """
    return evaluate.run(request(options, [run.save_dir / MODEL for run in models], data, folder))


def text(results: Mapping[str, Any]) -> str:
    """Clean and robust, each method over its seeds; of one seed, all tables of its models."""
    from adv_plugins_cli.robustness.tables import lines, lines_of, tables

    shown = lines_of(next(tables(results))) if "over_seeds" in results else lines(results)
    return "\n".join(shown).rstrip()
