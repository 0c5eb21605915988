"""What the runners' command lines share."""

from __future__ import annotations

import argparse
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

from adv_plugins_cli.command import UserError
from adv_plugins_cli.recipes import recipes


def split_at_dashes(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The runner's own arguments, and what follows ``--`` for fairseq-train."""
    argv = list(argv)
    at = argv.index("--") if "--" in argv else len(argv)
    return argv[:at], argv[at + 1 :]


def make_parser(
    description: str | None, *, arch: str = "roberta_large", start_required: bool = True
) -> argparse.ArgumentParser:
    """A parser with the options of every runner."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    start = parser.add_mutually_exclusive_group(required=start_required)
    start.add_argument(
        "--checkpoint", type=Path, help="pre-trained weights: fairseq's, or of convert from-hf"
    )
    start.add_argument(
        "--from-scratch", action="store_true", help="train from random weights, knowingly"
    )
    parser.add_argument(
        "--arch",
        help=f"(default: what lies beside a converted checkpoint, else {arch})",
    )
    parser.add_argument(
        "--bpe-dir",
        type=Path,
        default=Path("gpt2_bpe"),
        help="GPT-2's encoder.json, vocab.bpe and dict.txt, for raw text (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=["auto", *recipes.PRECISION_FLAGS],
        default="auto",
        help="auto: fp16 on a GPU, else fp32 (default: %(default)s)",
    )
    parser.add_argument(
        "--user-dir",
        type=Path,
        help="a package of your own that builds on adv_plugins, with more methods",
    )
    parser.add_argument("--print-only", action="store_true", help="print the command, run nothing")
    return parser


def choose_precision(asked: str, *, print_only: bool = False) -> str:
    """fp16 where there is a GPU to do it.

    Args:
        print_only: the command may be for another machine.

    Raises:
        UserError: it was asked for without one.
    """
    if asked not in ("auto", "fp16") or (asked == "fp16" and print_only):
        return asked
    import torch

    if torch.cuda.is_available():
        return "fp16"
    if asked == "fp16":
        raise UserError("--precision fp16 needs a GPU, and torch sees none: take fp32 or auto")
    return "fp32"


def check_counts(arguments: argparse.Namespace, *names: str) -> None:
    """Raise UserError where one of the options is there and not at least 1."""
    for name in names:
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: at least 1")


def check_different(option: str, values: Sequence[Any]) -> None:
    """Raise UserError where a list holds something twice."""
    twice = [value for index, value in enumerate(values) if value in values[:index]]
    if twice:
        raise UserError(f"{option}: {twice[0]} is given twice")


def check_rates(option: str, values: Sequence[str]) -> None:
    """Raise UserError where one is no learning rate."""
    for value in values:
        try:
            usable = 0 < float(value) < math.inf
        except ValueError:
            usable = False
        if not usable:
            raise UserError(f"{option} {value}: no positive number")
    check_different(option, [float(value) for value in values])


def check_extra(extra: Sequence[str]) -> None:
    """Raise UserError where what follows ``--`` leaves a run without a result."""
    if "--disable-validation" in extra:
        raise UserError("-- --disable-validation: result.json holds the validations; leave it away")


def parse_command(line: Sequence[str]) -> argparse.Namespace:
    """What fairseq-train makes of its arguments, the plug-ins being imported already.

    Raises:
        UserError: with what its parser says, as of an option that the method does not have.
    """
    from fairseq import options

    def refuse(message: str) -> NoReturn:
        raise UserError(f"fairseq-train: {message}")

    parser = options.get_training_parser()
    parser.error = refuse
    return cast(argparse.Namespace, options.parse_args_and_arch(parser, list(line)))


def check_command(command: Sequence[str]) -> None:
    """Have fairseq's parser read a training's command now, and not in each of its runs.

    Raises:
        UserError: as :func:`parse_command`.
    """
    at = command.index("--user-dir")
    parse_command([*command[1:at], *command[at + 2 :]])


def show(command: Sequence[str]) -> None:
    """Print a command so that it can be pasted."""
    print(shlex.join(command), flush=True)
