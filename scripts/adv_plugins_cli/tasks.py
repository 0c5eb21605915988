"""The tasks: ``adv-plugins tasks`` lists them, ``adv-plugins tasks RTE`` says what one expects."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from adv_plugins_cli.command import UserError, one_line_errors
from adv_plugins_cli.preprocess import GLUE, OTHERS
from adv_plugins_cli.recipes.recipes import TABLES, Recipe, load_recipes, read_table


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", nargs="?", help="such as RTE (default: all, a line each)")
    return parser.parse_args(argv)


def overview(rows: Sequence[dict[str, str]]) -> str:
    """A line a task: fairseq's task, the number of classes (or choices), the metric."""
    lines = [("task", "of fairseq", "classes", "metric")]
    lines += [(row["task"], row["fairseq_task"], row["num_classes"], row["best"]) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def expected_files(task: str) -> str:
    """What ``--data-dir`` has to hold."""
    if task in GLUE:
        files = [
            name for split in ("train", "valid", "test") for name in GLUE[task].files(split).values()
        ]
        return f"{task}/{{{','.join(files)}}}, the official files of GLUE; test is optional"
    if task not in OTHERS:
        return "none: adv-plugins demo makes its data"
    folders = " or ".join((task, *OTHERS[task].folders))
    return f"the folder {folders} with {OTHERS[task].expects}"


def describe(row: dict[str, str], recipes: Sequence[Recipe]) -> str:
    """The task as fairseq sees it, its files, and the recipe of every method."""
    lines = [
        f"{row['task']}: --task {row['fairseq_task']} --num-classes {row['num_classes']} {row['flags']}",
        f"metric of the best checkpoint: {row['best']}",
        f"files below --data-dir: {expected_files(row['task'])}",
        "recipes (lr, batch, epochs, options; source):",
    ]
    for recipe in recipes:
        numbers = f"{recipe.lr}, {recipe.batch}, {recipe.epochs}"
        lines.append(f"  {recipe.method:<7} {numbers}, {recipe.flags or 'none'}; {recipe.source}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    arguments = parse_arguments(argv)
    with one_line_errors("adv-plugins tasks"):
        rows = {row["task"]: row for row in read_table(TABLES / "tasks.tsv")}
        if arguments.task is None:
            print(overview(list(rows.values())))
        elif arguments.task not in rows:
            raise UserError(f"unknown task {arguments.task!r}: choose one of {', '.join(rows)}")
        else:
            recipes = [each for key, each in load_recipes().items() if key[0] == arguments.task]
            print(describe(rows[arguments.task], recipes))
