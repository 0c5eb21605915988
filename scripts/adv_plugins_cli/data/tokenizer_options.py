"""The command line's choice of a tokenizer, shared by the preprocessing scripts and the runners.

Tokenisation belongs to a checkpoint: its folder says which (``options_of_checkpoint``).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adv_plugins_cli.command import UserError

if TYPE_CHECKING:
    from adv_plugins_cli.data.binarize import TextEncoder

SENTENCEPIECE_FILES = ("sentencepiece.bpe.model", "spiece.model", "sentencepiece.model")


def add_tokenizer_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add the options, of which one must (or may) be given."""
    encoder = parser.add_mutually_exclusive_group(required=required)
    encoder.add_argument(
        "--bpe-dir", type=Path, help="folder with GPT-2's encoder.json, vocab.bpe and dict.txt"
    )
    encoder.add_argument("--sentencepiece", type=Path, metavar="MODEL", help="or such a model")
    encoder.add_argument(
        "--wordpiece",
        type=Path,
        metavar="DIR",
        help="or the folder of a BERT-like model, with tokenizer.json or vocab.txt",
    )


def load_encoder(arguments: argparse.Namespace) -> TextEncoder:
    """Load the tokenizer; imports fairseq, which takes many seconds, so call it late.

    Raises:
        UserError: naming the file that is missing or does not fit.
    """
    from adv_plugins_cli.data.binarize import Gpt2Bpe, SentencePiece, WordPiece

    if arguments.sentencepiece is not None:
        return SentencePiece(arguments.sentencepiece)
    if arguments.wordpiece is not None:
        return WordPiece(arguments.wordpiece)
    return Gpt2Bpe(arguments.bpe_dir)


def load_sentencepiece(path: Path) -> Any:
    """The ``SentencePieceProcessor`` of a model file.

    Raises:
        UserError: it is missing, or no such model.
    """
    from sentencepiece import SentencePieceProcessor

    if not path.is_file():
        raise UserError(f"{path}: no such SentencePiece model")
    model = path.read_bytes()
    try:
        if not model:  # which the library takes for a model that comes later
            raise RuntimeError("an empty file")
        return SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise UserError(f"{path}: no SentencePiece model, or a damaged one") from error


def options_of_checkpoint(folder: Path) -> list[str]:
    """The option for the tokenizer that lies beside a checkpoint; none if there is none."""
    for name in SENTENCEPIECE_FILES:
        if (folder / name).is_file():
            return ["--sentencepiece", str(folder / name)]
    if (folder / "encoder.json").is_file() and (folder / "vocab.bpe").is_file():
        return ["--bpe-dir", str(folder)]
    if (folder / "vocab.txt").is_file() or (folder / "tokenizer.json").is_file():
        return ["--wordpiece", str(folder)]
    return []
