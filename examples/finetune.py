"""Fine-tune on one task with one method: ``finetune.py TASK METHOD [options] [-- fairseq flags]``.

Checks everything first, preprocesses the data where that was not done, prints and runs the full
``fairseq-train`` command, and writes ``result.json`` beside the checkpoints.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import recipes
import runs
from command_line import (
    check_checkpoint,
    choose_precision,
    make_parser,
    show,
    split_at_dashes,
)

sys.path.append(str(recipes.EXAMPLES.parent / "scripts"))


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; what follows ``--`` is for fairseq-train."""
    own, extra = split_at_dashes(argv)
    parser = make_parser(__doc__, arch="roberta_large")
    parser.add_argument("task", help="a task of examples/tasks.tsv, such as RTE")
    parser.add_argument("method", help=f"one of {', '.join(recipes.CRITERIONS)}")
    parser.add_argument(
        "--data-bin",
        type=Path,
        default=Path("data-bin"),
        help="holds TASK-bin, or gets it from --glue-dir (default: %(default)s)",
    )
    parser.add_argument("--glue-dir", type=Path, help="the official GLUE files: TASK/train.tsv ...")
    parser.add_argument("--save-dir", type=Path, help="(default: checkpoints/TASK/METHOD/seedSEED)")
    arguments = parser.parse_args(own)
    arguments.extra = extra
    return arguments


def prepare_data(arguments: argparse.Namespace) -> Path:
    """The task's preprocessed folder, made from --glue-dir if it is not there yet."""
    data = arguments.data_bin / f"{arguments.task}-bin"
    if data.is_dir():
        return data
    if arguments.glue_dir is None:
        raise recipes.RecipeError(
            f"{data}: no such folder; give --data-bin with the preprocessed data, or --glue-dir "
            "with the official files to make it from"
        )
    import preprocess_glue

    where = {"glue_dir": arguments.glue_dir, "bpe_dir": arguments.bpe_dir}
    options = [f"--{name.replace('_', '-')}={path}" for name, path in where.items()]
    request = [*options, f"--out-dir={arguments.data_bin}", "--task", arguments.task]
    preprocess_glue.run(preprocess_glue.parse_arguments(request))
    return data


def make_run(arguments: argparse.Namespace) -> runs.Run:
    """Check the request, prepare the data, build the command.

    Raises:
        RecipeError: naming the option to change.
    """
    check_checkpoint(arguments.checkpoint)
    recipe = recipes.get_recipe(arguments.task, arguments.method)
    default = Path("checkpoints") / recipe.task / recipe.method / f"seed{arguments.seed}"
    save_dir = arguments.save_dir or default
    if (save_dir / runs.RESULT).exists():
        raise recipes.RecipeError(
            f"{save_dir} holds a finished run already: choose another --save-dir or --seed"
        )
    command = recipe.command(
        prepare_data(arguments),
        arch=arguments.arch,
        save_dir=save_dir,
        seed=arguments.seed,
        precision=choose_precision(arguments.precision),
        checkpoint=arguments.checkpoint,
        extra=arguments.extra,
    )
    facts = {"task": recipe.task, "method": recipe.method, "seed": arguments.seed}
    facts["source"] = recipe.source
    name = f"{recipe.task} {recipe.method} seed {arguments.seed}"
    return runs.Run(name, command, save_dir, recipe.best, facts)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns fairseq-train's exit code, or 2 for a bad request."""
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    try:
        run = make_run(arguments)
    except ValueError as error:
        print(f"finetune.py: error: {error}", file=sys.stderr)
        return 2
    show(run.command)
    if arguments.print_only:
        return 0
    began = time.monotonic()
    code = runs.run_in_foreground(run.command, run.log)
    if code == 0:
        runs.write_result(run, seconds=time.monotonic() - began)
        best = max(numbers[f"valid_{run.best}"] for numbers in run.validations())
        print(f"{run.name}: best {run.best} {best:g}; {run.save_dir / runs.RESULT}")
    return code


if __name__ == "__main__":
    sys.exit(main())
