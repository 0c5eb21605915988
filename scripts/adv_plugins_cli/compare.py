"""Methods x seeds on tasks: ``adv-plugins compare TASK... [options] [-- fairseq-train flags]``, or on
data of your own: ``adv-plugins compare --train reviews.csv --text review --label stars ...``.

1. Search: on a held-out part of the training set, plain fine-tuning tries the learning rates of
   --lr, then every method its candidates of search.tsv at the rate that plain chose. The official
   validation set plays no part in it.
2. Seeds: every method with what it chose, on all training rows.

Each run leaves a JSON file; a second call goes on where the first stopped, and tries again what
failed. The end is a table (mean, standard deviation, range, paired t test against plain
fine-tuning), the same as summary.json, and a plot. Scores are those of the last update, not of the
best validation.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adv_plugins_cli.checkpoints.architecture import WORD_ARCHS
from adv_plugins_cli.command import UserError, one_line_errors, read_json, seed_number
from adv_plugins_cli.data import own as own_data
from adv_plugins_cli.data.subset import make_subset
from adv_plugins_cli.data.task_data import add_data_options
from adv_plugins_cli.recipes import (
    children,
    compared_models,
    comparison_table,
    own_task,
    recipes,
    run_folder,
    runs,
)
from adv_plugins_cli.recipes.command_line import (
    check_counts,
    check_different,
    check_extra,
    check_rates,
    make_parser,
    show,
    split_at_dashes,
)
from adv_plugins_cli.recipes.methods import CORE, PLAIN, load_methods
from adv_plugins_cli.recipes.task_runs import TaskRuns, execute, share_cores
from fairseq_compat import files

SEARCH_SEED = 1000  # none of the comparison's


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; what follows ``--`` is for every fairseq-train."""
    own, extra = split_at_dashes(argv)
    parser = make_parser(__doc__)
    parser.add_argument(
        "tasks", nargs="*", metavar="TASK", help="such as RTE; adv-plugins tasks lists them"
    )
    own_data.add_options(parser)
    add_data_options(parser)
    parser.add_argument("--out-dir", type=Path, default=Path("comparison"), help="(%(default)s)")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=list(CORE),
        metavar="METHOD",
        help=f"plain among them, or all (default: {' '.join(CORE)})",
    )
    parser.add_argument("--seeds", nargs="+", type=seed_number, default=[1, 2, 3, 4, 5], metavar="SEED")
    parser.add_argument(
        "--lr", nargs="+", default=["3e-5", "1e-4", "3e-4"], help="to choose from (%(default)s)"
    )
    parser.add_argument("--batch", type=int, default=32, help="sentences (%(default)s)")
    parser.add_argument("--epochs", type=int, default=3, help="(%(default)s)")
    parser.add_argument(
        "--train-rows", type=int, help="take so many rows of the training set, drawn once"
    )
    parser.add_argument(
        "--held-out", type=float, default=0.2, help="share of them for the search (%(default)s)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (%(default)s)")
    compared_models.add_option(parser)
    arguments = parser.parse_args(compared_models.attached(own, parser))
    arguments.extra = extra
    return arguments


def candidates(method: str, arguments: argparse.Namespace, lr: str | None) -> list[dict[str, str]]:
    """What the search tries for a method, as fields of its recipe; its defaults where ``search.tsv``
    (``search_from_scratch.tsv``) has nothing."""
    if method == "plain":
        return [{"lr": rate, "flags": ""} for rate in arguments.lr]
    assert lr is not None
    table = "search_from_scratch.tsv" if arguments.arch in WORD_ARCHS else "search.tsv"
    rows = recipes.read_table(recipes.TABLES / table)
    tried = [row["flags"] for row in rows if row["method"] == method]
    if not tried:
        print(f"{method}: {table} has no candidates; its own options are the only one")
        tried = [load_methods(arguments.user_dir)[method].flags]
    return [{"lr": lr, "flags": flags} for flags in tried]


class Comparison(TaskRuns):
    """One task's runs."""

    def __init__(self, arguments: argparse.Namespace, task: str) -> None:
        """Check the request and prepare the data.

        Raises:
            ValueError: naming the option to change.
        """
        self.recipes = {
            method: recipes.get_recipe(task, method, arguments.user_dir, arch=arguments.arch)
            for method in arguments.methods
        }
        super().__init__(arguments, task)
        rows, share = arguments.train_rows, arguments.held_out
        place = self.folder / f"search-bin-{rows or 'all'}-rows-{share:g}"
        if arguments.evaluate is not None:
            compared_models.check(arguments.evaluate, self.whole, self.folder)
        self.search_data = make_subset(self.whole, place, rows=rows, held_out=share)
        self.data = self.training_rows(rows)

    def candidate_run(
        self,
        name: str,
        method: str,
        fields: dict[str, Any],
        seed: int,
        data: Path,
        *,
        keep: bool = False,
    ) -> runs.Run:
        """One training of a method with these fields of its recipe."""
        recipe = dataclasses.replace(
            self.recipes[method],
            batch=str(self.arguments.batch),
            epochs=str(self.arguments.epochs),
            updates="-",
            warmup="0.06",
            **fields,
        )
        return self.make_run(name, recipe, seed, data, fields, keep=keep)

    def search_runs(self, method: str, lr: str | None) -> list[runs.Run]:
        """The candidates of a method on the search's split."""
        return [
            self.candidate_run(f"search/{method}-{index}", method, fields, SEARCH_SEED, self.search_data)
            for index, fields in enumerate(candidates(method, self.arguments, lr))
        ]

    def seed_runs(self, chosen: dict[str, dict[str, str]]) -> list[runs.Run]:
        """All methods with every seed; seeds outside, so that an early stop leaves whole seeds."""
        keep = self.arguments.evaluate is not None
        return [
            self.candidate_run(
                f"{method}/seed{seed}", method, chosen[method], seed, self.data, keep=keep
            )
            for seed in self.arguments.seeds
            for method in self.arguments.methods
            if method in chosen
        ]


def best_of(tried: Sequence[runs.Run]) -> dict[str, str] | None:
    """The fields of the candidate with the best score; None if all failed."""
    found = [result for run in tried if (result := runs.read_result(run)) is not None]
    if not found:
        return None
    best = max(found, key=lambda result: result["last"])
    return {"lr": best["lr"], "flags": best["flags"]}


def compare(comparison: Comparison, began: float) -> dict[str, Any]:
    """Search, seeds, summary of one task."""
    arguments = comparison.arguments
    tried = {"plain": comparison.search_runs("plain", None)}
    execute(tried["plain"], arguments, began)
    plain = best_of(tried["plain"])
    if plain is None:
        first = tried["plain"][0]
        reason = read_json(first.save_dir / runs.FAILURE)["reason"]
        raise runs.TrainingError(f"every plain run failed; see {first.log} ({reason})")
    others = [method for method in arguments.methods if method != "plain"]
    tried.update({method: comparison.search_runs(method, plain["lr"]) for method in others})
    execute([run for method in others for run in tried[method]], arguments, began)
    chosen = {method: fields for method, runs_ in tried.items() if (fields := best_of(runs_))}
    every = comparison.seed_runs(chosen)
    execute(every, arguments, began)
    summary = comparison_table.summarise(
        comparison.task,
        comparison.recipes["plain"].best,
        arguments.methods,
        arguments.seeds,
        chosen,
        {(run.facts["method"], run.facts["seed"]): runs.read_result(run) for run in every},
    )
    files.write_json(comparison.folder / "summary.json", summary)
    if arguments.evaluate is not None:
        trained = sorted(
            (run for run in every if runs.read_result(run) is not None),
            key=lambda run: run.facts["method"] != PLAIN,  # the others are compared with the first
        )
        summary["evaluation"] = compared_models.measure(
            arguments.evaluate, trained, comparison.whole, comparison.folder
        )
        files.write_json(comparison.folder / "summary.json", summary)
    return summary


def check_request(arguments: argparse.Namespace) -> None:
    """Raise UserError naming the option that cannot be; fills in what --methods leaves to us."""
    if arguments.methods == ["all"]:
        arguments.methods = [PLAIN, *load_methods(arguments.user_dir)]
    for method in arguments.methods:
        recipes.get_recipe(arguments.tasks[0], method, arguments.user_dir)
    if "plain" not in arguments.methods:
        raise UserError("--methods needs plain: the others are compared with it")
    check_different("--methods", arguments.methods)
    check_different("--seeds", arguments.seeds)
    check_different("TASK", arguments.tasks)
    check_rates("--lr", arguments.lr)
    check_counts(arguments, "batch", "epochs", "jobs")
    check_extra(arguments.extra)
    if not 0 < arguments.held_out < 1:
        raise UserError(
            f"--held-out {arguments.held_out:g}: a share between 0 and 1 of the training rows, for the "
            "search (the official validation set must play no part in it)"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 1 if a run failed.

    Raises:
        SystemExit: with one line, for a bad request, or where every plain run failed.
    """
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    children.terminate_by_exception()
    began = time.monotonic()
    with one_line_errors("adv-plugins compare"):
        mine = own_task.take(arguments, task=bool(arguments.tasks))
        arguments.tasks = [mine] if mine else arguments.tasks
        check_request(arguments)
        comparisons = [Comparison(arguments, task) for task in arguments.tasks]
        if arguments.print_only:
            show(comparisons[0].search_runs("plain", None)[0].command)
            return 0
        share_cores(arguments.jobs)
        with run_folder.locked(arguments.out_dir):
            summaries = [compare(comparison, began) for comparison in comparisons]
            plot = comparison_table.plot(summaries, arguments.out_dir / "comparison.png")
    for summary in summaries:
        print(f"\n{comparison_table.text(summary)}")
        if "evaluation" in summary:
            print(f"\n{compared_models.text(summary['evaluation'])}")
            print(arguments.out_dir / summary["task"] / compared_models.FOLDER / "report.html")
    print(f"\n{plot}; every run's JSON is under {arguments.out_dir}")
    return int(any(method["failed"] for summary in summaries for method in summary["methods"]))


if __name__ == "__main__":
    sys.exit(main())
