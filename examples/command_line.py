"""What the runners' command lines share."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

import recipes


def split_at_dashes(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The runner's own arguments, and what follows ``--`` for fairseq-train."""
    argv = list(argv)
    at = argv.index("--") if "--" in argv else len(argv)
    return argv[:at], argv[at + 1 :]


def make_parser(description: str | None, *, arch: str) -> argparse.ArgumentParser:
    """A parser with the options of every runner."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument(
        "--checkpoint", type=Path, help="pre-trained weights, such as roberta.large/model.pt"
    )
    start.add_argument(
        "--from-scratch", action="store_true", help="train from random weights, knowingly"
    )
    parser.add_argument("--arch", default=arch, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
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
    parser.add_argument("--print-only", action="store_true", help="print the command, run nothing")
    return parser


def check_checkpoint(path: Path | None) -> None:
    """Stop before anything else when the checkpoint to start from does not exist.

    Raises:
        RecipeError: saying where to get one.
    """
    if path is not None and not path.is_file():
        raise recipes.RecipeError(
            f"{path}: no such checkpoint (--checkpoint); scripts/download.py fetches roberta.base "
            "and roberta.large, and --from-scratch trains without one"
        )


def choose_precision(asked: str) -> str:
    """fp16 where there is a GPU to do it."""
    if asked != "auto":
        return asked
    import torch

    return "fp16" if torch.cuda.is_available() else "fp32"


def show(command: Sequence[str]) -> None:
    """Print a command so that it can be pasted."""
    print(shlex.join(command), flush=True)
