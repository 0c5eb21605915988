"""Turn raw text into the folder that fairseq's masked_lm task reads, for pre-training.

    python scripts/preprocess_text.py text.txt --bpe-dir gpt2_bpe --out-dir data-bin/text

The text has one sentence a line and a blank line between documents; several files are one text. A
random share of the documents is held out for validation; of a text without blank lines, every
line is a document. The folder appears only when it is complete.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizer_options import add_tokenizer_options, load_encoder

if TYPE_CHECKING:
    from binarize import Indices, TextEncoder

BATCH_SIZE = 4096
SEED = 1  # of the choice of the validation documents


class TextError(ValueError):
    """The request cannot be fulfilled; the message says why."""


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", nargs="+", type=Path, help="UTF-8 text, one sentence a line")
    parser.add_argument(
        "--valid", nargs="+", type=Path, metavar="TEXT", help="text for validation, not held out"
    )
    parser.add_argument(
        "--valid-share",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="of the documents, held out where there is no --valid (default: %(default)s)",
    )
    add_tokenizer_options(parser)
    parser.add_argument("--out-dir", type=Path, required=True, help="the folder to make")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing folder")
    return parser.parse_args(argv)


def read_documents(paths: Sequence[Path]) -> Iterator[list[str]]:
    """The documents, as lists of sentences; without any blank line, every sentence is one.

    Where blank lines part them, an empty sentence follows each; it becomes a lone end symbol, what
    fairseq takes for the border between documents.
    """
    has_documents = any(not line for line in read_lines(paths))
    document: list[str] = []
    for line in itertools.chain(read_lines(paths), [""]):
        if line and has_documents:
            document.append(line)
        elif line:
            yield [line]
        elif document:
            yield [*document, ""]
            document = []


def read_lines(paths: Sequence[Path]) -> Iterator[str]:
    """The stripped lines of all files, as of one."""
    for path in paths:
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield line.strip()


def split_documents(arguments: argparse.Namespace, split: str) -> Iterator[list[str]]:
    """The documents of ``train`` or ``valid``; the same choice at every call."""
    if arguments.valid:
        yield from read_documents(arguments.valid if split == "valid" else arguments.text)
        return
    choice = random.Random(SEED)
    for document in read_documents(arguments.text):
        held_out = choice.random() < arguments.valid_share
        if held_out == (split == "valid"):
            yield document


def encode(documents: Iterator[list[str]], encoder: TextEncoder) -> Iterator[Indices]:
    """Encode in batches, so that memory holds the indices of one batch only."""
    sentences = itertools.chain.from_iterable(documents)
    while batch := list(itertools.islice(sentences, BATCH_SIZE)):
        yield from encoder.encode_batch(batch)


def check(arguments: argparse.Namespace) -> None:
    """Find every fault that can be found before writing.

    Raises:
        TextError: naming the file or the option.
    """
    for path in (*arguments.text, *(arguments.valid or ())):
        if not path.is_file():
            raise TextError(f"{path}: no such file")
    if arguments.out_dir.exists() and not arguments.overwrite:
        raise TextError(f"{arguments.out_dir}: exists already; pass --overwrite to replace it")
    for split in ("train", "valid"):
        if next(split_documents(arguments, split), None) is None:
            raise TextError(
                f"no document is left for {split}: choose another --valid-share than "
                f"{arguments.valid_share}, or give --valid"
            )


def run(arguments: argparse.Namespace) -> Path:
    """Write the folder beside its place, then move it there."""
    check(arguments)
    try:
        encoder = load_encoder(arguments)
    except ValueError as error:
        raise TextError(str(error)) from error
    from binarize import write_split

    target = arguments.out_dir
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        encoder.dictionary.save(str(partial / "dict.txt"))
        for split in ("train", "valid"):
            sequences = encode(split_documents(arguments, split), encoder)
            tokens = write_split(partial, split, sequences, len(encoder.dictionary))
            print(f"{target}: {split} {tokens} tokens", flush=True)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; a fault of the input is one line, not a traceback."""
    try:
        run(parse_arguments(argv))
    except TextError as error:
        sys.exit(f"preprocess_text.py: error: {error}")


if __name__ == "__main__":
    main()
