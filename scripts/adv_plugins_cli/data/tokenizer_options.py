"""The choice of a tokenizer: by the command line, or by a checkpoint's folder, as it belongs to one."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adv_plugins_cli.checkpoints.architecture import (
    MODEL_SUFFIX,
    TokenizerFiles,
    check_files,
    hashes,
    read_architecture,
)
from adv_plugins_cli.command import UserError

if TYPE_CHECKING:
    from adv_plugins_cli.data.binarize import TextEncoder

SENTENCEPIECE_FILES = ("sentencepiece.bpe.model", "spiece.model", "sentencepiece.model")
# What may come with a tokenizer, or describes a model's for the way back to Hugging Face.
HF_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    *SENTENCEPIECE_FILES,
)
GPT2_FILES = ("encoder.json", "vocab.bpe")  # fairseq's names
# The option of each kind, as argparse names it.
OPTIONS = {
    "gpt2-bpe": "bpe_dir",
    "sentencepiece": "sentencepiece",
    "wordpiece": "wordpiece",
    "words": "whole_words",
}
WORDS_FILE = "words.json"
SPLITTERS = ("words", "characters")  # of words; a vocabulary is made of the training set then
VOCABULARY_SIZE, MINIMUM_COUNT = 30_000, 2  # this project's


@dataclass(frozen=True)
class Tokenizer:
    """kind: of ``OPTIONS``; path: what the option names, a folder, or of SentencePiece the model, or of
    words the splitter of a vocabulary that is yet to be made; names: the files in its folder that belong
    to it, () where nobody has said which."""

    kind: str
    path: Path
    names: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return self.path.parent if self.kind == "sentencepiece" else self.path

    def moved_to(self, folder: Path) -> Tokenizer:
        """The same with its files in another folder."""
        path = folder / self.path.name if self.kind == "sentencepiece" else folder
        return Tokenizer(self.kind, path, self.names)

    def arguments(self) -> list[str]:
        """The choice for a command line."""
        return [f"--{OPTIONS[self.kind].replace('_', '-')}={self.path}"]

    def files(self) -> tuple[str, ...]:
        """The names of its files but for the dictionary."""
        named = self.names or (*HF_FILES, *GPT2_FILES, self.path.name)
        return tuple(
            name
            for name in dict.fromkeys(named)
            if (self.folder / name).is_file()
            and name != "dict.txt"
            and (name == self.path.name or not name.endswith(MODEL_SUFFIX))
        )

    def describe(self) -> TokenizerFiles:
        """What architecture.json says of it, the dictionary included where there is one."""
        dictionary = ["dict.txt"] if (self.folder / "dict.txt").is_file() else []
        return TokenizerFiles(self.kind, hashes(self.folder, [*self.files(), *dictionary]))


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
    encoder.add_argument(
        "--whole-words",
        type=Path,
        metavar="HOW",
        help="or whole words, for bilstm, text_cnn and text_han: 'words' or 'characters' (Chinese) make "
        "a vocabulary of each task's training set, TASK-bin/input0 is one that was made",
    )


def chosen(arguments: argparse.Namespace) -> Tokenizer | None:
    """What the options name."""
    given = {kind: getattr(arguments, option, None) for kind, option in OPTIONS.items()}
    return next((Tokenizer(kind, Path(path)) for kind, path in given.items() if path is not None), None)


def is_to_be_made(tokenizer: Tokenizer) -> bool:
    """Whether it is one of words whose vocabulary a training set is yet to give."""
    return tokenizer.kind == "words" and str(tokenizer.path) in SPLITTERS


def load_encoder(tokenizer: Tokenizer) -> TextEncoder:
    """Load it; imports fairseq, which takes many seconds, so call it late.

    Raises:
        UserError: naming the file that is missing or does not fit.
    """
    from adv_plugins_cli.data import binarize, words

    encoders: dict[str, Callable[[Path], TextEncoder]] = {
        "gpt2-bpe": binarize.Gpt2Bpe,
        "sentencepiece": binarize.SentencePiece,
        "wordpiece": binarize.WordPiece,
        "words": words.Words.of_folder,
    }
    return encoders[tokenizer.kind](tokenizer.path)


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


def find_tokenizer(*folders: Path) -> Tokenizer | None:
    """The tokenizer that one of the folders says is its own, in their order.

    Only where none says anything (folders of older versions, of fairseq, of users) the names of their
    files tell.

    Raises:
        UserError: a folder's architecture.json is damaged, or its files are others.
    """
    described = (_described(folder) for folder in folders)
    return next(filter(None, described), None) or next(filter(None, map(_guessed, folders)), None)


def _described(folder: Path) -> Tokenizer | None:
    architecture = read_architecture(folder)
    if architecture is None or architecture.tokenizer is None:
        return None
    kind, names = architecture.tokenizer.kind, tuple(architecture.tokenizer.files)
    check_files(folder, architecture.tokenizer)
    if kind == "sentencepiece":
        (model,) = (name for name in names if name.endswith(MODEL_SUFFIX))
        return Tokenizer(kind, folder / model, names)
    return Tokenizer(kind, folder, names)


def _guessed(folder: Path) -> Tokenizer | None:
    """By the names of the files."""
    if (folder / WORDS_FILE).is_file():
        return Tokenizer("words", folder, (WORDS_FILE,))
    for name in SENTENCEPIECE_FILES:
        if (folder / name).is_file():
            return Tokenizer("sentencepiece", folder / name)
    if all((folder / name).is_file() for name in GPT2_FILES):
        return Tokenizer("gpt2-bpe", folder)
    if (folder / "vocab.txt").is_file() or (folder / "tokenizer.json").is_file():
        return Tokenizer("wordpiece", folder)
    return None
