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


def make_parser(description: str | None, *, arch: str = "roberta_large") -> argparse.ArgumentParser:
    """A parser with the options of every runner."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument(
        "--checkpoint", type=Path, help="pre-trained weights: fairseq's, or of convert_from_hf.py"
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
    parser.add_argument("--print-only", action="store_true", help="print the command, run nothing")
    return parser


def choose_precision(asked: str) -> str:
    """fp16 where there is a GPU to do it."""
    if asked != "auto":
        return asked
    import torch

    return "fp16" if torch.cuda.is_available() else "fp32"


def show(command: Sequence[str]) -> None:
    """Print a command so that it can be pasted."""
    print(shlex.join(command), flush=True)
