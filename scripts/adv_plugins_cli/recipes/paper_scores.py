"""A paper's table of scores, trained: its rows on the given encoder, beside what was published."""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
import shlex
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from adv_plugins_cli.command import UserError, read_json
from adv_plugins_cli.recipes import comparison_table, paper_tables, recipes, run_folder, runs
from adv_plugins_cli.recipes.command_line import check_command, show
from adv_plugins_cli.recipes.methods import load_methods
from adv_plugins_cli.recipes.paper_tables import Column, PaperTable, Row, aligned
from adv_plugins_cli.recipes.task_runs import TaskRuns, execute, share_cores
from fairseq_compat import files

SUMMARY = "summary.json"
SEEDS = 5  # where the paper does not name its number


def run(table: PaperTable, rows: Sequence[Row], arguments: argparse.Namespace) -> int:
    """Train what is not there yet and print the end; returns 1 if a run failed."""
    began = time.monotonic()
    usual = int(table.runs) if table.runs.isdecimal() else SEEDS
    arguments.seeds = arguments.seeds or list(range(1, usual + 1))
    arguments.jobs = arguments.jobs or 1
    start_arch = next((row.arch for row in rows if row.arch is not None), None)
    columns = [
        ColumnRuns(arguments, table, column, rows, start_arch)
        for column in table.columns
        if column.task is not None
    ]
    every = [each for column in columns for each in column.all_runs()]
    if arguments.print_only:
        for each in every:
            if each.facts["seed"] == arguments.seeds[0]:
                show(each.command)
        return 0
    share_cores(arguments.jobs)
    with run_folder.locked(arguments.out_dir):
        execute(every, arguments, began)
        summaries = [column.summarise(table) for column in columns]
        average = averages(table, summaries)
        middle = "median" if table.statistic == "median" else "mean"
        summary = {
            **table.facts(),
            "seeds": arguments.seeds,
            "own_statistic": f"{middle} (standard deviation)",
            "columns": [*summaries, *([average] if average else [])],
            "differs": differences(table, columns, arguments),
        }
        files.write_json(arguments.out_dir / SUMMARY, summary)
    print(f"\n{table.paper}, {table.place}: {table.how_published()}\n\n{side_by_side(summary)}")
    print(f"{arguments.out_dir / SUMMARY}; every run's JSON is beside it")
    failed = [each for each in every if runs.read_result(each) is None]
    if failed:
        reason = read_json(failed[0].save_dir / runs.FAILURE)["reason"]
        print(f"{len(failed)} of {len(every)} runs FAILED, the first: {reason}; see {failed[0].log}")
    return int(bool(failed))


class ColumnRuns(TaskRuns):
    """The trainings of a column; rows that differ in the paper's encoder alone share them."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        table: PaperTable,
        column: Column,
        rows: Sequence[Row],
        arch: str | None = None,
    ) -> None:
        """Prepare the data, and check every command.

        Args:
            arch: of the rows' own; None where they are trained on the given encoder.

        Raises:
            ValueError: naming the option to change.
        """
        assert column.task is not None
        super().__init__(arguments, column.task, arch=arch)
        self.column, self.rows = column, rows
        self.total = recipes.count_rows(self.whole)
        wanted = round((arguments.train_rows or self.total) * column.share / 100)
        self.data = self.training_rows(None if wanted == self.total else wanted)
        self.trained_on = wanted
        self.by_row = {row.name: [self.run_of(row, seed) for seed in arguments.seeds] for row in rows}
        for name, own in self.by_row.items():
            try:
                check_command(own[0].command)
            except UserError as error:
                raise UserError(f"{table.id}: the row {name!r}: {error}") from error

    def run_of(self, row: Row, seed: int) -> runs.Run:
        """A row's training."""
        start = self.start
        if row.arch is not None:
            start = recipes.Start.of(None, row.arch)
        arch = start.architecture.arch
        recipe = paper_tables.recipe_of(row, self.task, self.arguments.user_dir, arch=arch)
        recipe = self.fitted(recipe)
        settings = "" if row.recipe == row.method else f"as {row.recipe}"
        name = re.sub(r"[^\w.]+", "-", f"{row.method} {settings} {row.flags}").strip("-")
        name = f"{row.arch}/{name}" if row.arch is not None else name
        share = "" if self.column.share == 100 else f"{self.column.share}-percent/"
        facts = {"lr": recipe.lr, "flags": recipe.flags, "recipe": recipe.source}
        place = f"{share}{name}/seed{seed}"
        return self.make_run(place, recipe, seed, self.data, facts, start=start)

    def fitted(self, recipe: recipes.Recipe) -> recipes.Recipe:
        """The recipe with what was asked for instead, and the number of updates that goes with it."""
        arguments = self.arguments
        recipe = dataclasses.replace(
            recipe,
            lr=arguments.lr or recipe.lr,
            epochs=str(arguments.epochs or recipe.epochs),
        )
        options = run_folder.options(["", *shlex.split(recipe.flags)])
        times = self.updates_of_a_batch(recipe.method, options)
        whole = self.trained_on == self.total and arguments.epochs is None and recipe.updates != "-"
        if whole and times == 1:
            return recipe
        batch = int(recipe.batch) * int(options.get("--update-freq", "1"))
        updates = math.ceil(self.trained_on / batch) * int(recipe.epochs)
        warmup = recipe.warmup
        if "." not in warmup:
            warmup = f"{int(warmup) / int(recipe.updates):.4f}"
        updates = (int(recipe.updates) if whole else updates) * times
        return dataclasses.replace(recipe, updates=str(updates), warmup=warmup)

    def updates_of_a_batch(self, method: str, options: Mapping[str, str]) -> int:
        """How often a method trains on each batch, one time after the other: FreeAT K times."""
        facts = load_methods(self.arguments.user_dir).get(method)
        option = getattr(facts, "replays", "")
        return int(options["--" + option.replace("_", "-")]) if option else 1

    def all_runs(self) -> list[runs.Run]:
        """Each once; seeds outside, so that an early stop leaves whole seeds."""
        every = [run for of_seed in zip(*self.by_row.values()) for run in of_seed]
        return list({run.save_dir: run for run in every}.values())

    def summarise(self, table: PaperTable) -> dict[str, Any]:
        """Every row's published and own numbers."""
        found: list[dict[str, Any]] = []
        for row in table.rows:
            entry: dict[str, Any] = {"row": row.name, "method": row.method, "encoder": row.encoder}
            entry["arch"] = row.arch
            entry["published"] = dataclasses.asdict(row.cell(self.column))
            if row.name in self.by_row:
                entry["own"] = self.own(self.by_row[row.name], table)
            found.append(entry)
        own = [entry for entry in found if "own" in entry]
        plains: dict[str | None, dict[str, Any]] = {}  # of each model, rather one without options
        for row, entry in sorted(zip(table.rows, found), key=lambda pair: pair[0].flags != ""):
            if "own" in entry and row.method == recipes.PLAIN:
                plains.setdefault(row.arch, entry)
        for entry in own:
            plain = plains.get(entry["arch"])
            if plain is not None and entry["method"] != recipes.PLAIN:
                entry["own"]["p"] = comparison_table.paired_test(firsts(entry), firsts(plain))
        return {
            "column": self.column.name,
            "task": self.task,
            "metric": self.column.metric,
            "train_rows": [self.trained_on, self.total],
            "rows": found,
        }

    def own(self, of_seeds: Sequence[runs.Run], table: PaperTable) -> dict[str, Any]:
        """The statistic that the table has (the mean where it names none), over the seeds."""
        results = {run.facts["seed"]: runs.read_result(run) for run in of_seeds}
        scores = {
            seed: scores_of(result, self.column)
            for seed, result in results.items()
            if result is not None
        }
        each = list(zip(*scores.values()))
        middle = statistics.median if table.statistic == "median" else statistics.mean
        return {
            "flags": of_seeds[0].facts["flags"],
            "lr": of_seeds[0].facts["lr"],
            "recipe": of_seeds[0].facts["recipe"],
            "scores": scores,
            "failed": [seed for seed in results if seed not in scores],
            "values": [middle(values) for values in each],
            "std": [statistics.stdev(values) if len(values) > 1 else None for values in each],
            "seconds": [result["seconds"] for result in results.values() if result is not None],
        }


def firsts(entry: Mapping[str, Any]) -> dict[int, float]:
    """The first of a row's scores, by seed."""
    return {seed: scores[0] for seed, scores in entry["own"]["scores"].items()}


def scores_of(result: Mapping[str, Any], column: Column) -> list[float]:
    """A run's scores in a column's metrics, at its last validation.

    Raises:
        UserError: the validation has no such meter.
    """
    last = result["validations"][-1]

    def value(meter: str) -> float:
        key = meter.replace(":", "_") if ":" in meter else f"valid_{meter}"
        if key not in last:
            raise UserError(f"{column.name}: the validations report {', '.join(last)}, and no {key}")
        return float(last[key])

    return [statistics.mean(map(value, score)) for score in column.meters]


def own_text(own: Mapping[str, Any] | None) -> str:
    """Own numbers as a cell."""
    if own is None:
        return "not run"
    scores = "/".join(f"{value:.2f}" for value in own["values"])
    spreads = "/".join(f"{value:.2f}" for value in own["std"] if value is not None)
    text = f"{scores} ({spreads})" if spreads else scores
    if own["failed"]:
        text = f"FAILED: seeds {' '.join(map(str, own['failed']))}; {text}".removesuffix("; ")
    return text


def side_by_side(summary: Mapping[str, Any]) -> str:
    """Published and own numbers, a block a column, and what differs."""
    blocks = []
    count = len(summary["seeds"])
    seeds = "1 seed" if count == 1 else f"{count} seeds"
    for column in summary["columns"]:
        head = f"{column['column']}, {column['metric']}; own: {summary['own_statistic']} of {seeds}"
        lines = [["", "encoder", "published", "own", "p"]]
        for row in column["rows"]:
            own = row.get("own")
            p = own.get("p") if own else None
            shown = "" if p is None else f"{p:.3f}"
            lines.append([row["row"], row["encoder"], row["published"]["text"], own_text(own), shown])
        blocks.append("\n".join([head, *aligned(lines)]))
    return "\n\n".join([*blocks, f"What differs: {'; '.join(summary['differs'])}."])


def averages(table: PaperTable, columns: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The column of averages, over all scores of a row; None unless every column has been run."""
    wanted = [column.name for column in table.columns if column.task is not None]
    found = next((column for column in table.columns if column.name == paper_tables.AVERAGE), None)
    if found is None or wanted != [column["column"] for column in columns]:
        return None
    rows = []
    for number, row in enumerate(table.rows):
        entry: dict[str, Any] = {"row": row.name, "method": row.method, "encoder": row.encoder}
        entry["published"] = dataclasses.asdict(row.cell(found))
        own = [column["rows"][number].get("own") for column in columns]
        if all(each is not None and each["values"] for each in own):
            values = [value for each in own for value in each["values"]]
            failed = sorted({seed for each in own for seed in each["failed"]})
            entry["own"] = {"values": [statistics.mean(values)], "std": [None], "failed": failed}
        rows.append(entry)
    return {"column": found.name, "metric": "mean of all scores", "rows": rows}


def differences(
    table: PaperTable, columns: Sequence[ColumnRuns], arguments: argparse.Namespace
) -> list[str]:
    """What differs between the published runs and one's own, a phrase each."""
    encoders = " and ".join(dict.fromkeys(row.encoder for row in table.rows if row.encoder != "-"))
    own = {run.command[run.command.index("--arch") + 1] for each in columns for run in each.all_runs()}
    start = columns[0].start
    ours = str(start) if len(own) == 1 else f"random weights ({', '.join(sorted(own))})"
    found = [f"encoder: {ours}, theirs: {encoders or 'not named'}"]
    cut = [each for each in columns if each.trained_on < each.total and each.column.share == 100]
    found += [f"{each.task}: {each.trained_on} of {each.total} training rows" for each in cut]
    theirs = {str(column.runs or table.runs) for column in table.columns if column.task is not None}
    found.append(f"seeds: {len(arguments.seeds)}, theirs: {' or '.join(sorted(theirs))}")
    found.append(f"scores: validation set after the last update, theirs: {table.split} set")
    if arguments.lr is not None:
        found.append(f"learning rate: {arguments.lr} for every row")
    if arguments.epochs is not None:
        found.append(f"epochs: {arguments.epochs} for every row")
    if arguments.extra:
        found.append(f"for every row: {' '.join(arguments.extra)}")
    sources = {own[0].facts["recipe"] for each in columns for own in each.by_row.values()}
    return [*found, f"settings: the recipes of {', '.join(sorted(sources))}, no search"]
