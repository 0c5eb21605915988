"""The words of Hugging Face's tokenizers, in fairseq's names and order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adv_plugins_cli.checkpoints.hf_layout import family_of
from adv_plugins_cli.command import UserError, read_json, read_text
from adv_plugins_cli.data.tokenizer_options import (
    SENTENCEPIECE_FILES,
    Tokenizer,
    load_sentencepiece,
)

MAKE_UP = "madeupword{:04d}"  # fairseq's name for rows of the embedding without a token


def read_vocabulary(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """fairseq's symbol of each row of Hugging Face's word embedding.

    Rows without a token get made-up symbols, as in fairseq's own dictionaries.

    Raises:
        UserError: the tokenizer's files are missing or do not fit the model.
    """
    reader = {"wordpiece": _wordpiece, "gpt2-bpe": _gpt2, "sentencepiece": _sentencepiece}
    symbols = reader[family_of(config).tokenizer](folder, config)
    rows = int(config["vocab_size"])
    if len(symbols) > rows:
        raise UserError(f"{folder}: {len(symbols)} tokens, but the model has {rows} word embeddings")
    symbols += [MAKE_UP.format(row) for row in range(len(symbols), rows)]
    missing = sorted({"<s>", "<pad>", "</s>", "<unk>", "<mask>"} - set(symbols))
    if missing:
        raise UserError(f"{folder}: the vocabulary lacks {' '.join(missing)}")
    again = [symbol for symbol, count in Counter(symbols).items() if count > 1]
    if again:
        raise UserError(f"{folder}: the vocabulary has {again[0]!r} twice")
    return symbols


def _wordpiece(folder: Path, config: Mapping[str, Any]) -> list[str]:
    from adv_plugins.wordpiece import load_wordpiece, symbols_of

    tokenizer = load_wordpiece(folder)
    try:
        return symbols_of(tokenizer)
    except ValueError as error:
        raise UserError(f"{folder}: {error}") from error


def gpt2_files(folder: Path) -> tuple[dict[str, int], list[str]]:
    """The vocabulary and the lines of merges.txt of a byte-level BPE tokenizer.

    Raises:
        UserError: they are not there, or malformed.
    """
    vocabulary, merges, whole = (folder / n for n in ("vocab.json", "merges.txt", "tokenizer.json"))
    if vocabulary.is_file() and merges.is_file():
        lines = read_text(merges).split("\n")
        return token_ids(read_json(vocabulary), vocabulary), [line for line in lines if line]
    if not whole.is_file():
        raise UserError(f"{folder}: neither vocab.json with merges.txt nor tokenizer.json")
    tokenizer = read_json(whole)
    try:
        ids = dict(tokenizer["model"]["vocab"])
        added = tokenizer.get("added_tokens") or ()
        ids.update({token["content"]: token["id"] for token in added})
        pairs = tokenizer["model"]["merges"]
        lines = [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{whole}: no byte-level BPE tokenizer ({error!r})") from error
    return token_ids(ids, whole), ["#version: 0.2", *lines]


def token_ids(ids: dict[str, Any], path: Path) -> dict[str, int]:
    """``ids``, which must number the tokens without gaps.

    Raises:
        UserError: they do not.
    """
    if any(type(index) is not int for index in ids.values()):
        raise UserError(f"{path}: the ids of the tokens are not numbers")
    if sorted(ids.values()) != list(range(len(ids))):
        raise UserError(f"{path}: the vocabulary's ids have gaps, or come twice")
    return ids


SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def _gpt2(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """fairseq's GPT-2 BPE writes ids as decimal numbers: those of encoder.json, here the model's own."""
    ids, _ = gpt2_files(folder)
    symbols = {index: token for token, index in ids.items()}
    return [symbols[i] if symbols[i] in SPECIAL else str(i) for i in range(len(symbols))]


def tokenizer_in(folder: Path, config: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a folder with Hugging Face's files.

    Raises:
        UserError: its file is missing.
    """
    kind = family_of(config).tokenizer
    if kind != "sentencepiece":
        return Tokenizer(kind, folder)
    path = next((folder / n for n in SENTENCEPIECE_FILES if (folder / n).is_file()), None)
    if path is None:
        raise UserError(f"{folder}: no SentencePiece model ({' or '.join(SENTENCEPIECE_FILES)})")
    return Tokenizer(kind, path)


def _sentencepiece(folder: Path, config: Mapping[str, Any]) -> list[str]:
    processor = load_sentencepiece(tokenizer_in(folder, config).path)
    pieces = [processor.id_to_piece(index) for index in range(processor.get_piece_size())]
    if config["model_type"] == "camembert":
        # The rows of fairseq's specials lie unused before the model's own: <unk>, <s>, </s>.
        own = ["<unk>NOTUSED", *pieces[1:]]
        return ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", *own, "<mask>"]
    return ["<s>", "<pad>", "</s>", "<unk>", *pieces[3:], "<mask>"]


def fairseq_order(symbols: Sequence[str]) -> list[int]:
    """Hugging Face's rows in the order of fairseq's dictionary: specials, others, <mask>."""
    first = [symbols.index(symbol) for symbol in SPECIAL[:4]]
    last = symbols.index("<mask>")
    rest = [row for row in range(len(symbols)) if row not in {*first, last}]
    return [*first, *rest, last]
