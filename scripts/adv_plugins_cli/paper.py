"""The papers' tables and figures: ``adv-plugins paper`` lists them, ``adv-plugins paper ID`` prints the
published numbers of one.

``adv-plugins paper ID --checkpoint FILE --data-dir DIR [options] [-- fairseq-train flags]`` trains its
rows on that encoder: each with its own settings (the recipe of the task, and what the row changes of it)
and every seed, without a search. Each run leaves a JSON file; a second call goes on where the first
stopped, and tries again what failed. The end is the published numbers beside the new ones, what differs
between the two, and the same as summary.json. Scores are of the last update, on the validation set.

Of a table of times the rows' updates take turns on random words of --lengths, and no data is needed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from adv_plugins_cli.checkpoints.architecture import WORD_ARCHS
from adv_plugins_cli.command import UserError, one_line_errors, positive, seed_number
from adv_plugins_cli.data.task_data import add_data_options
from adv_plugins_cli.recipes import children, paper_tables, recipes
from adv_plugins_cli.recipes.command_line import (
    check_different,
    check_extra,
    check_rates,
    make_parser,
    split_at_dashes,
)
from adv_plugins_cli.recipes.methods import load_methods
from adv_plugins_cli.recipes.paper_tables import PaperTable, Row, aligned

# The options of runs of scores, and of times; None where they are not given.
OF_SCORES = ("data_dir", "seeds", "train_rows", "lr", "epochs", "jobs")
OF_TIMES = ("lengths", "batch", "repeats")


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; what follows ``--`` is for every fairseq-train."""
    own, extra = split_at_dashes(argv)
    parser = make_parser(__doc__, start_required=False)
    parser.add_argument(
        "table", nargs="?", metavar="ID", help="such as freelb-table4 (default: list them)"
    )
    parser.add_argument(
        "--rows", nargs="+", metavar="NAME", help="of these alone, named as in the paper"
    )
    parser.add_argument(
        "--tasks",
        nargs="+",
        metavar="TASK",
        help="on these alone; ones that the paper does not have, too",
    )
    add_data_options(parser)
    parser.add_argument("--out-dir", type=Path, help="(default: papers/ID)")
    scores = parser.add_argument_group("tables of scores")
    scores.add_argument(
        "--seeds",
        nargs="+",
        type=seed_number,
        metavar="SEED",
        help="(default: from 1, as many as theirs)",
    )
    scores.add_argument("--train-rows", type=positive, help="rows of the training set, drawn once")
    scores.add_argument("--lr", help="instead of each recipe's")
    scores.add_argument("--epochs", type=positive, help="instead of each recipe's")
    scores.add_argument("--jobs", type=positive, help="runs at a time (default: 1)")
    times = parser.add_argument_group("tables of times")
    times.add_argument(
        "--lengths", nargs="+", type=positive, help="tokens (default: the paper's, or 128)"
    )
    times.add_argument("--batch", type=positive, help="sentences (default: 16)")
    times.add_argument("--repeats", type=positive, help="updates of each row (default: 7)")
    arguments = parser.parse_args(own)
    arguments.extra = extra
    return arguments


def overview() -> str:
    """A block a table: what it shows, its rows and its columns."""
    lines = []
    for table in paper_tables.load_all().values():
        rows, columns = [row.name for row in table.rows], [column.name for column in table.columns]
        if len(rows) > 10:
            rows = [*rows[:4], f"... {len(rows)} rows"]
        lines.append(f"{table.id}: {table.paper}, {table.place}: {table.shows} ({table.measures})")
        lines += [f"    rows: {'; '.join(rows)}", f"    columns: {' '.join(columns)}"]
    return "\n".join(lines)


def published(table: PaperTable) -> str:
    """The published numbers."""
    meters = [column.metric for column in table.columns]
    lines = [["", "encoder", *(column.name for column in table.columns)]]
    lines += [["", "", *meters]] if any(meters) else []
    for row in table.rows:
        lines.append([row.name, row.encoder, *(row.cell(column).text for column in table.columns)])
    title = f"{table.id}: {table.paper}, {table.place}: {table.shows}"
    note = [] if table.note == paper_tables.NOTHING else [table.note]
    return "\n".join([f"{title}; {table.how_published()}", *aligned(lines), *note])


def choose(arguments: argparse.Namespace) -> PaperTable:
    """The part of the table that is asked for.

    Raises:
        UserError: there is no such table, row or task.
    """
    table = paper_tables.load(arguments.table)
    for option in ("rows", "tasks"):
        check_different(f"--{option}", getattr(arguments, option) or ())
    columns = table.columns
    if arguments.tasks and table.measures == "scores":
        columns = tuple(
            column
            for task in arguments.tasks
            for column in [each for each in table.columns if each.task == task]
            or [paper_tables.column_of_task(task)]
        )
    return table.chosen(arguments.rows, columns)


def check_options(arguments: argparse.Namespace, table: PaperTable) -> None:
    """Raise UserError where an option has no meaning here."""
    given = [name for name in (*OF_SCORES, *OF_TIMES, "out_dir") if getattr(arguments, name) is not None]
    given += ["print_only"] if arguments.print_only else []
    named = ["--" + name.replace("_", "-") for name in given]
    if not (arguments.checkpoint or arguments.from_scratch):
        if named or arguments.extra:
            raise UserError(
                f"{(named or ['--'])[0]} needs --checkpoint FILE (or --from-scratch): without one the "
                "published numbers are printed, and nothing is run"
            )
        return
    others = OF_TIMES if table.measures == "scores" else (*OF_SCORES, "tasks", "print_only")
    for name in others:
        if name in given or (name == "tasks" and arguments.tasks):
            option = "--" + name.replace("_", "-")
            raise UserError(
                f"{option}: {table.id} is a table of {table.measures}: it has no meaning there"
            )
    check_different("--seeds", arguments.seeds or ())
    if arguments.lr is not None:
        check_rates("--lr", [arguments.lr])
    check_extra(arguments.extra)


def check_rows(table: PaperTable, arguments: argparse.Namespace) -> list[Row]:
    """The rows to run.

    Raises:
        UserError: one that was asked for cannot be run.
    """
    methods = load_methods(arguments.user_dir)
    of_their_own = any(row.arch is not None for row in table.rows)

    def obstacle(row: Row) -> str | None:
        if row.method is None:
            return "is of published numbers alone, and not run here"
        if row.arch is not None and not arguments.from_scratch:
            return f"is of a {row.encoder}, which is trained from scratch (--from-scratch)"
        of_words = arguments.from_scratch and arguments.arch in (None, *WORD_ARCHS)
        if row.arch is None and of_their_own and of_words:
            return f"is of {row.encoder}, which is pre-trained (--checkpoint)"
        if row.arch is not None and arguments.arch not in (None, row.arch):
            return f"is of a {row.encoder} (--arch {row.arch}), and not of --arch {arguments.arch}"
        if row.method != recipes.PLAIN and row.method not in methods:
            return f"needs the method {row.method!r}, which is not here (--user-dir brings more)"
        return None

    runnable = [row for row in table.rows if obstacle(row) is None]
    if of_their_own and runnable and not arguments.rows:
        # such a table has rows of both kinds, and a run is of one of them
        for row in table.rows:
            if row not in runnable:
                print(f"left out: the row {row.name!r} {obstacle(row)}", file=sys.stderr)
        return runnable
    for row in table.rows:
        reason = obstacle(row)
        if reason is not None and (row.method is not None or arguments.rows):
            names = " ".join(f'"{each.name}"' for each in runnable)
            others = f"--rows {names} can be run" if runnable else "no row of it can be run"
            raise UserError(f"{table.id}: the row {row.name!r} {reason}; {others}")
    return runnable


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 1 if a run failed.

    Raises:
        SystemExit: with one line, for a bad request.
    """
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    children.terminate_by_exception()
    with one_line_errors("adv-plugins paper"):
        if arguments.table is None:
            print(overview())
            return 0
        table = choose(arguments)
        check_options(arguments, table)
        if not (arguments.checkpoint or arguments.from_scratch):
            print(published(table))
            return 0
        arguments.out_dir = arguments.out_dir or Path("papers") / table.id
        rows = check_rows(table, arguments)
        if table.measures == "scores":
            from adv_plugins_cli.recipes import paper_scores

            return paper_scores.run(table, rows, arguments)
        from adv_plugins_cli.recipes import paper_times

        paper_times.run(table, rows, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
