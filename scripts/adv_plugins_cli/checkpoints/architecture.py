"""``architecture.json``: what a checkpoint's folder says of itself.

``convert from-hf`` and ``finetune`` leave it beside the weights: the flags that build the model, the
tokenizer with the SHA-256 of its files, and the names of the classes that the head knows. It may come
with a folder that nobody vouches for, so every entry is checked before anything is done with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adv_plugins_cli.command import UserError, read_json
from fairseq_compat import files

ARCHITECTURE = "architecture.json"
# What it may set of the model: the architecture and its sizes.
FLAGS = {
    "--arch",
    "--activation-fn",
    "--encoder-attention-heads",
    "--encoder-embed-dim",
    "--encoder-hidden-size",
    "--encoder-ffn-embed-dim",
    "--encoder-layers",
    "--kernel-maps",
    "--kernel-sizes",
    "--layer-norm-epsilon",
    "--max-positions",
    "--pooling",
    "--segments",
}
# those whose values are no numbers
WORD_FLAGS = {"--arch", "--activation-fn", "--kernel-sizes", "--pooling"}
TOKENIZER_KINDS = ("gpt2-bpe", "sentencepiece", "wordpiece", "words")
# The architectures that are trained from scratch on words, and are no Transformers.
WORD_ARCHS = ("bilstm", "text_cnn", "text_han")
MODEL_SUFFIX = ".model"  # of SentencePiece's one file
ADVERSARIES = "asa_"  # how the names of ASA's architectures begin
MOST_LABELS = 10_000
LONGEST_LABEL = 1000  # characters


@dataclass(frozen=True)
class TokenizerFiles:
    """kind: of ``TOKENIZER_KINDS``; files: by name, the SHA-256 of each."""

    kind: str
    files: Mapping[str, str]


@dataclass(frozen=True)
class Architecture:
    """A model, and what its inputs and outputs mean.

    arch: fairseq's name; sizes: flags and their values; separators: how many end-of-sentence symbols lie
    between two sentences (RoBERTa 2, BERT 1); tokenizer: None where the folder names none; labels: the
    names of the classes in their order, None where there are none or they are not known.
    """

    arch: str = "roberta_large"
    sizes: tuple[tuple[str, str], ...] = ()
    separators: int = 2
    tokenizer: TokenizerFiles | None = None
    labels: tuple[str, ...] | None = None

    def flags(self, *, adversaries: bool = False) -> list[str]:
        """Those of ``fairseq-train`` that build the model.

        Args:
            adversaries: whether with ASA's, which a model that has them keeps in any case.
        """
        if adversaries and self.arch in WORD_ARCHS:
            raise UserError(
                f"--arch {self.arch} has no self-attention, which ASA's adversaries mask: choose "
                "another method, or a RoBERTa-like --arch"
            )
        wanted = adversaries and not self.arch.startswith(ADVERSARIES)
        arch = f"{ADVERSARIES}{self.arch}" if wanted else self.arch
        return ["--arch", arch, *(part for size in self.sizes for part in size)]

    def write(self, folder: Path) -> None:
        """Write the folder's architecture.json."""
        facts: dict[str, Any] = {"flags": self.flags(), "separators": self.separators}
        if self.tokenizer is not None:
            facts["tokenizer"] = {"kind": self.tokenizer.kind, "files": dict(self.tokenizer.files)}
        if self.labels is not None:
            facts["labels"] = list(self.labels)
        files.write_json(folder / ARCHITECTURE, facts)


def model_of(options: Mapping[str, str]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The architecture and its sizes among the options of a ``fairseq-train`` command."""
    sizes = tuple((flag, options[flag]) for flag in sorted(FLAGS - {"--arch"}) if flag in options)
    return options["--arch"], sizes


def read_architecture(folder: Path) -> Architecture | None:
    """What the folder says of itself; None where it says nothing.

    Raises:
        UserError: naming the file and the entry, of which none may be more than it says: a flag of it
            would reach the training unseen, a path of it another folder.
    """
    path = folder / ARCHITECTURE
    if not path.is_file():
        return None
    facts = read_json(path)
    arch, *sizes = _flags(path, facts.get("flags"))
    separators = facts.get("separators")
    if type(separators) is not int or separators not in (1, 2):
        raise UserError(f"{path}: 'separators' is {separators!r} instead of 1 or 2")
    return Architecture(
        arch=arch[1],
        sizes=tuple(sizes),
        separators=separators,
        tokenizer=_tokenizer(path, facts.get("tokenizer")),
        labels=_labels(path, facts.get("labels")),
    )


def _flags(path: Path, flags: Any) -> list[tuple[str, str]]:
    """Pairs of a flag and its value, --arch first."""
    if not isinstance(flags, list) or not all(isinstance(flag, str) for flag in flags):
        raise UserError(f"{path}: 'flags' is no list of texts")
    if len(flags) < 2 or len(flags) % 2 or flags[0] != "--arch":
        raise UserError(f"{path}: 'flags' are no pairs of a flag and its value with --arch first")
    pairs = list(zip(flags[::2], flags[1::2]))
    for flag, value in pairs:
        if flag not in FLAGS or value.startswith("-"):
            raise UserError(f"{path}: {flag} {value} is neither the architecture nor a size of it")
        if flag not in WORD_FLAGS and not re.fullmatch(r"\d+(\.\d+)?(e-?\d+)?", value):
            raise UserError(f"{path}: {flag} {value}: no number")
    return pairs


def _tokenizer(path: Path, entry: Any) -> TokenizerFiles | None:
    if entry is None:
        return None
    if not isinstance(entry, dict) or set(entry) != {"kind", "files"}:
        raise UserError(f"{path}: 'tokenizer' is not its 'kind' and its 'files'")
    kind, named = entry["kind"], entry["files"]
    if not isinstance(kind, str) or kind not in TOKENIZER_KINDS:
        known = ", ".join(TOKENIZER_KINDS)
        raise UserError(f"{path}: the tokenizer's kind is {_short(kind)}; known are {known}")
    if not isinstance(named, dict) or not named:
        raise UserError(f"{path}: the tokenizer's 'files' are no names with their SHA-256")
    for name, digest in named.items():
        if not name or Path(name).name != name or name[0] in ".~" or not name.isprintable():
            raise UserError(f"{path}: the tokenizer's file {_short(name)} is no name in this folder")
        if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise UserError(f"{path}: {_short(digest)} of the tokenizer's {name} is no SHA-256")
    if kind == "sentencepiece" and sum(name.endswith(MODEL_SUFFIX) for name in named) != 1:
        raise UserError(f"{path}: a tokenizer of the kind {kind} has one file *{MODEL_SUFFIX}")
    return TokenizerFiles(kind, named)


def _labels(path: Path, entry: Any) -> tuple[str, ...] | None:
    if entry is None:
        return None
    if not isinstance(entry, list) or not 0 < len(entry) <= MOST_LABELS:
        raise UserError(f"{path}: 'labels' is no list of the names of the classes")
    for name in entry:
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_LABEL or not name.isprintable():
            raise UserError(f"{path}: {_short(name)} is no label")
    if len(set(entry)) < len(entry):
        raise UserError(f"{path}: 'labels' has a name twice")
    return tuple(entry)


def _short(value: Any) -> str:
    """A value for a message."""
    return repr(value)[:80]


def hashes(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """The SHA-256 of each of a folder's files."""
    from hashlib import sha256

    return {name: sha256((folder / name).read_bytes()).hexdigest() for name in names}


def check_files(folder: Path, tokenizer: TokenizerFiles) -> None:
    """Make sure that the tokenizer's files are those that the folder was made with.

    Raises:
        UserError: naming the first that is missing or another one.
    """
    for name, digest in tokenizer.files.items():
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: no such file, but {folder / ARCHITECTURE} names it")
        if hashes(folder, [name])[name] != digest:
            raise UserError(
                f"{folder / name}: is not the file that {folder / ARCHITECTURE} names (by its SHA-256)"
            )
