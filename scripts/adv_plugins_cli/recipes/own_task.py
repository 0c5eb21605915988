"""Data of the user's own as a task that finetune and compare know."""

from __future__ import annotations

import argparse
from pathlib import Path

from adv_plugins_cli.data import own
from adv_plugins_cli.recipes import recipes

LIMIT = 512  # tokens, of a model whose folder says nothing
WIDE = 768  # numbers of a hidden state, as BERT-base and RoBERTa-base have; below is a small encoder


def take(arguments: argparse.Namespace, *, task: bool) -> str | None:
    """The name of the data of --train, which is a task from now on; None without --train.

    Args:
        task: whether a TASK was named.

    Raises:
        UserError: of options that do not go together, or data that cannot be read.
    """
    if not own.asked(arguments, task=task):
        return None
    from adv_plugins_cli import preprocess
    from adv_plugins_cli.data import task_folder

    data = own.read(arguments)
    data.check_folder(Path(arguments.data_bin) / f"{data.name}-bin")
    start = recipes.Start.of(arguments.checkpoint, arguments.arch)
    recipes.add_own(
        data.name,
        classes=len(data.labels),
        rows=len(data.splits["train"].lines),
        small=int(dict(start.architecture.sizes).get("--encoder-embed-dim", WIDE)) < WIDE,
    )
    preprocess.TASKS[data.name] = (task_folder, data.format)
    arguments.data_dir = arguments.train.parent
    for line in own.report(data):
        print(line)
    return data.name


def report_lengths(data: Path, recipe: recipes.Recipe, start: recipes.Start) -> None:
    """Print how long the texts are, and what is cut."""
    from adv_plugins_cli.data import lengths

    limit = int(dict(start.architecture.sizes).get("--max-positions", LIMIT))
    for line in lengths.report(data, int(recipe.batch), limit):
        print(line)
    print(
        f"settings: lr {recipe.lr}, batches of {recipe.batch}, {recipe.epochs} epochs ({recipe.source})"
    )
