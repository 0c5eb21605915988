"""The models and texts that figures are drawn of."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adv_plugins_cli.checkpoints.checkpoint_file import read_checkpoint
from adv_plugins_cli.checkpoints.checkpoint_model import build, task_name, task_options
from adv_plugins_cli.checkpoints.trained_model import find_data
from adv_plugins_cli.command import UserError, read_json
from adv_plugins_cli.data.tokenizer_options import Tokenizer, chosen, find_tokenizer, load_encoder
from fairseq_compat.task_kinds import TASK_KINDS

if TYPE_CHECKING:
    from adv_plugins_cli.data.binarize import TextEncoder


def load(
    checkpoint: Path, data: Path | None, *, raw_text: bool = False, adversaries: bool = True
) -> tuple[Any, Any]:
    """The model, in eval mode, and its task.

    Args:
        raw_text: whether the task's data may be raw text; see :func:`checkpoint_model.build`.
        adversaries: whether a model without them is refused.

    Raises:
        UserError: no such file, one that is refused, or no adversaries where they are needed.
    """
    state = read_checkpoint(checkpoint, whole=True)
    from adv_plugins.models import asa_roberta

    if adversaries and not any(asa_roberta.ADVERSARY in name for name in state["model"]):
        raise UserError(f"{checkpoint}: has no adversary; train it with an asa_ architecture")
    options = task_options(checkpoint, state)
    kind = TASK_KINDS[task_name(checkpoint, state)]
    folder = data or find_data(checkpoint, options.get("data"), kind)
    if not (folder / kind.dictionary).is_file():
        raise UserError(f"{folder / kind.dictionary}: no such file; --data gives the folder of the data")
    model, task = build(checkpoint, state, folder, raw_text=raw_text)
    if adversaries and not asa_roberta.adversaries(model):
        raise UserError(f"{checkpoint}: {type(model).__name__} has no adversary")
    return model, task


def tokenizer_of(arguments: argparse.Namespace, dictionary: Any) -> tuple[Tokenizer, TextEncoder]:
    """The tokenizer that the options or the checkpoint's folder name, loaded.

    Raises:
        UserError: there is none, or it does not fit the model's dictionary.
    """
    tokenizer = chosen(arguments) or find_tokenizer(arguments.checkpoint.parent)
    if tokenizer is None:
        raise UserError("give the tokenizer: --bpe-dir, --sentencepiece or --wordpiece")
    encoder = load_encoder(tokenizer)
    symbols = encoder.dictionary.symbols
    if symbols != dictionary.symbols[: len(symbols)]:
        raise UserError("the tokenizer is not the one that this model's data were made with")
    return tokenizer, encoder


def encode(text: str, arguments: argparse.Namespace, dictionary: Any) -> tuple[Any, list[str]]:
    """(T,) tokens of a sentence with fairseq's begin and end, and what to call each.

    Raises:
        UserError: there is no tokenizer, or it does not fit the model's dictionary.
    """
    import torch

    tokenizer, encoder = tokenizer_of(arguments, dictionary)
    (words,) = encoder.encode_batch([text])
    names = names_of(tokenizer, [dictionary[index] for index in words])
    tokens = [dictionary.bos(), *words, dictionary.eos()]
    return torch.tensor(tokens), ["<s>", *names, "</s>"]


def names_of(tokenizer: Tokenizer, symbols: Sequence[str]) -> list[str]:
    """What subwords of the dictionary stand for; a space before one begins a word."""
    if tokenizer.kind == "gpt2-bpe":
        symbols = gpt2_names(symbols, tokenizer.folder)
    return [symbol.replace("▁", " ") for symbol in symbols]


def gpt2_names(symbols: Sequence[str], bpe_dir: Path) -> list[str]:
    """What the decimal numbers in RoBERTa's dictionary stand for."""
    from tokenizers.decoders import ByteLevel

    ids = read_json(bpe_dir / "encoder.json")
    pieces = {str(index): piece for piece, index in ids.items()}
    decoder = ByteLevel()
    return [decoder.decode([pieces.get(symbol, symbol)]) for symbol in symbols]
