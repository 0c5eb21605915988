"""Fine-tune on a task: ``adv-plugins finetune TASK METHOD [options] [-- fairseq-train flags]``,
or on data of your own: ``adv-plugins finetune --train reviews.csv --text review --label stars
--method rat --checkpoint FILE``.

Checks everything first, preprocesses the data where that was not done, prints and runs the full
``fairseq-train`` command for every seed, and writes ``result.json`` beside the checkpoints. The same
command again continues a run that was stopped or killed; one with other settings is refused.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from adv_plugins_cli.checkpoints.finished import drop_optimizer_states
from adv_plugins_cli.command import UserError, one_line_errors, seed_number
from adv_plugins_cli.data import own as own_data
from adv_plugins_cli.data.task_data import (
    add_data_options,
    describer,
    flags_for_raw_text,
    prepare_data,
    tokenizer_of,
)
from adv_plugins_cli.recipes import children, launch, own_task, recipes, run_folder, runs
from adv_plugins_cli.recipes.command_line import (
    check_different,
    check_extra,
    choose_precision,
    make_parser,
    show,
    split_at_dashes,
)
from adv_plugins_cli.recipes.console import Console, Raw


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; what follows ``--`` is for fairseq-train."""
    own, extra = split_at_dashes(argv)
    parser = make_parser(__doc__)
    parser.add_argument("task", nargs="?", help="such as RTE; adv-plugins tasks lists them")
    parser.add_argument(
        "method", nargs="?", help="plain, or such as rat; adv-plugins methods lists them"
    )
    parser.add_argument("--method", dest="named_method", metavar="METHOD", help="the same, by name")
    own_data.add_options(parser)
    parser.add_argument(
        "--seed", type=seed_number, nargs="+", default=[1], help="one run for each (default: 1)"
    )
    add_data_options(parser)
    parser.add_argument("--save-dir", type=Path, help="(default: checkpoints/TASK/METHOD/seedSEED)")
    parser.add_argument(
        "--keep-optimizer",
        action="store_true",
        help="leave the optimizer's state, two thirds of a checkpoint, in those of a finished run",
    )
    parser.add_argument("--verbose", action="store_true", help="show all of fairseq's log")
    run_folder.add_option(parser)
    launch.add_options(parser)
    arguments = parser.parse_args(own)
    arguments.extra = extra
    return arguments


def make_runs(arguments: argparse.Namespace) -> list[runs.Run]:
    """Check the request, prepare the data, build one run a seed.

    Raises:
        ValueError: naming the option to change.
    """
    if arguments.method and arguments.named_method:
        raise UserError("METHOD and --method: give one of them")
    arguments.method = arguments.method or arguments.named_method
    if arguments.task is None and arguments.train is None:
        raise UserError("name a TASK (adv-plugins tasks lists them), or data of your own: --train")
    if arguments.method is None:
        raise UserError("name a METHOD (plain, or one of adv-plugins methods)")
    check_different("--seed", arguments.seed)
    check_extra(arguments.extra)
    mine = own_task.take(arguments, task=arguments.task is not None)
    arguments.task = mine or arguments.task
    precision = choose_precision(arguments.precision, print_only=arguments.print_only)
    start = recipes.Start.of(arguments.checkpoint, arguments.arch)
    arch = start.architecture.arch
    recipe = recipes.get_recipe(arguments.task, arguments.method, arguments.user_dir, arch=arch)
    if not recipe.has_row and not mine:
        print(
            f"{recipe.task} {recipe.method}: {recipe.source} (recipes.tsv has no row)", file=sys.stderr
        )
    recipe = launch.share_batch(recipe, arguments)
    default = Path("checkpoints") / recipe.task / recipe.method
    folders = {seed: default / f"seed{seed}" for seed in arguments.seed}
    if arguments.save_dir and len(folders) > 1:
        folders = {seed: arguments.save_dir / f"seed{seed}" for seed in folders}
    elif arguments.save_dir:
        folders = {arguments.seed[0]: arguments.save_dir}
    for folder in folders.values() if not arguments.start_over else ():
        if (folder / runs.RESULT).exists():
            raise UserError(
                f"{folder} holds a finished run already: {run_folder.ADVICE} (or another --seed)"
            )
    data = prepare_data(arguments, recipe, arch)
    if mine:
        own_task.report_lengths(data, recipe, start)
    tokenizer = tokenizer_of(arguments, recipe.task, arch)
    extra = [*flags_for_raw_text(arguments, recipe), *arguments.extra]
    found = []
    for seed, folder in folders.items():
        command = recipe.command(
            data,
            start=start,
            save_dir=folder,
            seed=seed,
            precision=precision,
            extra=extra,
        )
        describe = describer(
            data, recipe, command, separators=start.architecture.separators, tokenizer=tokenizer
        )
        facts = {"task": recipe.task, "method": recipe.method, "seed": seed}
        facts["source"] = recipe.source
        command = launch.wrap(command, arguments)
        if not arguments.start_over:
            run_folder.check(folder, command, advice=run_folder.ADVICE)
        name = f"{recipe.task} {recipe.method} seed {seed}"
        found.append(runs.Run(name, command, folder, recipe.best, facts, describe))
    return found


def train(run: runs.Run, arguments: argparse.Namespace) -> int:
    """One run in the foreground; returns fairseq-train's exit code."""
    show(run.command)
    watched = not arguments.verbose and Console.reads(run.command)

    def fairseq_train(*keep_open: int) -> int:
        console = Console(run.command, run.best) if watched else Raw()
        return runs.run_in_foreground(run.command, run.log, keep_open=keep_open, console=console)

    if arguments.node_rank > 0:  # with several machines the first one has the folder
        return fairseq_train()
    began = time.monotonic()
    with run_folder.taken(
        run.save_dir, run.command, advice=run_folder.ADVICE, start_over=arguments.start_over
    ) as lock:
        if runs.read_result(run) is not None:
            raise UserError(f"{run.save_dir} holds a finished run by now: {run_folder.ADVICE}")
        trained = run.save_dir / runs.TRAINED
        if not trained.is_file():
            if run.describe is not None:
                run.describe(run.save_dir)
            if code := fairseq_train(lock):
                return code
            runs.write_result(run, seconds=time.monotonic() - began, name=runs.TRAINED)
        if not arguments.keep_optimizer:
            drop_optimizer_states(run.save_dir)
        trained.replace(run.save_dir / runs.RESULT)
        result = runs.read_result(run)
    assert result is not None
    print(f"{run.name}: best {run.best} {result['best']:g}; {run.save_dir / runs.RESULT}")
    return 0


def say_what_next(finished: Sequence[runs.Run]) -> None:
    """Of several seeds their scores as one line; and the commands to type next."""
    results = [result for run in finished if (result := runs.read_result(run)) is not None]
    best = [result["best"] for result in results]
    if len(best) > 1:
        print(
            f"{finished[0].best} of {len(best)} seeds, the best validation of each: mean "
            f"{statistics.mean(best):.2f}, standard deviation {statistics.stdev(best):.2f}, median "
            f"{statistics.median(best):g}, {min(best):g} to {max(best):g}"
        )
    path = finished[-1].save_dir / "checkpoint_best.pt"
    if not path.is_file():  # as with -- --no-save
        return
    checkpoint = shlex.quote(str(path))
    print(f"adv-plugins predict {checkpoint} --input FILE")
    if finished[-1].command[0] == "fairseq-train":  # by itself, not through torchrun
        print(f"adv-plugins evaluate {checkpoint} --data {shlex.quote(finished[-1].command[1])}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns fairseq-train's first bad exit code.

    Raises:
        SystemExit: with one line, for a bad request.
    """
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    children.terminate_by_exception()
    with one_line_errors("adv-plugins finetune"):
        waiting = make_runs(arguments)
        if arguments.print_only:
            for run in waiting:
                show(run.command)
            return 0
        codes = (train(run, arguments) for run in waiting)
        code = next((code for code in codes if code), 0)
        if code == 0 and arguments.node_rank == 0:
            say_what_next(waiting)
    return code if code >= 0 else 128 - code  # as shells say that a signal has ended it


if __name__ == "__main__":
    sys.exit(main())
