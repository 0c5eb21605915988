"""Many trainings of one task below one folder: the same data, start and precision for all of them."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adv_plugins_cli.command import UserError
from adv_plugins_cli.data.subset import make_subset
from adv_plugins_cli.data.task_data import (
    describer,
    flags_for_raw_text,
    prepare_data,
    tokenizer_of,
)
from adv_plugins_cli.recipes import recipes, run_folder, runs
from adv_plugins_cli.recipes.command_line import choose_precision

# Runs must not depend on one another's place; one validation, at the end; nothing to resume from.
RUN_FLAGS = ["--num-workers", "0", "--distributed-world-size", "1"]
NO_CHECKPOINT = ["--no-save"]
LAST_CHECKPOINT = ["--no-save-optimizer-state"]  # and, with --save-interval, at the end alone


class TaskRuns:
    """One task's trainings."""

    def __init__(self, arguments: argparse.Namespace, task: str, *, arch: str | None = None) -> None:
        """Check the request and prepare the data.

        Args:
            arch: instead of --arch.

        Raises:
            ValueError: naming the option to change.
        """
        self.arguments, self.task = arguments, task
        plain = recipes.get_recipe(task, recipes.PLAIN)
        self.start = recipes.Start.of(arguments.checkpoint, arch or arguments.arch)
        self.precision = choose_precision(arguments.precision, print_only=arguments.print_only)
        self.folder = arguments.out_dir.resolve() / task
        self.whole = prepare_data(arguments, plain, self.start.architecture.arch)
        self.raw_text_flags = flags_for_raw_text(arguments, plain)

    def training_rows(self, rows: int | None) -> Path:
        """The data with so many rows of the training set, drawn once; None for all."""
        if rows is None:
            return self.whole
        return make_subset(self.whole, self.folder / f"train-bin-{rows}-rows", rows=rows)

    def make_run(
        self,
        name: str,
        recipe: recipes.Recipe,
        seed: int,
        data: Path,
        facts: dict[str, Any],
        *,
        start: recipes.Start | None = None,
        keep: bool = False,
    ) -> runs.Run:
        """One training, with a validation at its end.

        Args:
            facts: more for its result than task, method and seed. start: instead of the task's.
            keep: whether its model is kept, to be used anywhere.

        Raises:
            UserError: its folder holds the result of another command.
        """
        folder = self.folder / name
        start, data = start or self.start, data.resolve()
        kept = [*LAST_CHECKPOINT, "--save-interval", recipe.epochs] if keep else NO_CHECKPOINT
        once = [*kept, "--validate-interval", recipe.epochs]
        command = recipe.command(
            data,
            start=start,
            save_dir=folder,
            seed=seed,
            precision=self.precision,
            extra=[*RUN_FLAGS, *once, *self.raw_text_flags, *self.arguments.extra],
        )
        describe = None
        if keep:
            arch = start.architecture
            tokenizer = tokenizer_of(self.arguments, self.task, arch.arch)
            describe = describer(data, recipe, command, separators=arch.separators, tokenizer=tokenizer)
        facts = {"task": self.task, "method": recipe.method, "seed": seed, **facts}
        run = runs.Run(f"{self.task} {name}", command, folder, recipe.best, facts, describe)
        found = runs.read_result(run)
        changes = run_folder.differences(found["command"], command) if found is not None else []
        if changes:
            raise UserError(
                f"{folder} holds a run with other settings ({'; '.join(changes)}): choose another "
                "--out-dir (or delete it)"
            )
        return run


def execute(waiting: Sequence[runs.Run], arguments: argparse.Namespace, began: float) -> None:
    """Run what is not done yet."""

    def finished(run: runs.Run, result: dict[str, Any]) -> None:
        score = f"{result['metric']} {result['last']:.2f}" if "last" in result else "FAILED"
        elapsed = time.monotonic() - began
        print(f"[{elapsed:5.0f} s] {run.name}: {score}, {result['seconds']:.0f} s", flush=True)

    todo = [run for run in waiting if runs.read_result(run) is None]
    runs.run_in_background(todo, jobs=arguments.jobs, report=lambda *_: None, finished=finished)


def share_cores(jobs: int) -> None:
    """Give each of so many runs at a time its part of the cores: each would take all of them."""
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
