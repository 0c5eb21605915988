"""Turn raw text into the folder that fairseq's masked_lm task reads, for pre-training.

    adv-plugins preprocess-text text.txt --bpe-dir gpt2_bpe --out-dir data-bin/text

The text has one sentence a line and a blank line between documents; several files are one text. A
random share of the documents is held out for validation; of a text without blank lines, every
line is a document. The folder appears only when it is complete.
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adv_plugins_cli.command import UserError, one_line_errors, read_lines
from adv_plugins_cli.data.tokenizer_options import (
    add_tokenizer_options,
    chosen,
    is_to_be_made,
    load_encoder,
)
from adv_plugins_cli.data.write_task import check_target
from fairseq_compat import files

if TYPE_CHECKING:
    from adv_plugins_cli.data.binarize import Indices, TextEncoder

BATCH_SIZE = 4096
SEED = 1  # of the choice of the validation documents


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
    has_documents = any(not line for line in stripped_lines(paths))
    document: list[str] = []
    for line in itertools.chain(stripped_lines(paths), [""]):
        if line and has_documents:
            document.append(line)
        elif line:
            yield [line]
        elif document:
            yield [*document, ""]
            document = []


def stripped_lines(paths: Sequence[Path]) -> Iterator[str]:
    """The stripped lines of all files, as of one."""
    for path in paths:
        for _, line in read_lines(path):
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
        UserError: naming the file or the option.
    """
    for path in (*arguments.text, *(arguments.valid or ())):
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    check_target(arguments.out_dir, overwrite=arguments.overwrite)
    for split in ("train", "valid"):
        if next(split_documents(arguments, split), None) is None:
            raise UserError(
                f"no document is left for {split}: choose another --valid-share than "
                f"{arguments.valid_share}, or give --valid"
            )


def run(arguments: argparse.Namespace) -> Path:
    """Write the folder beside its place, then move it there."""
    check(arguments)
    tokenizer = chosen(arguments)
    assert tokenizer is not None  # one of the options is required
    if is_to_be_made(tokenizer):
        raise UserError(f"--whole-words {tokenizer.path}: is made of a task's training set (preprocess)")
    encoder = load_encoder(tokenizer)
    from adv_plugins_cli.data.binarize import write_split

    target = arguments.out_dir
    with files.folder_beside(target, overwrite=arguments.overwrite) as partial:
        encoder.dictionary.save(str(partial / "dict.txt"))
        for split in ("train", "valid"):
            sequences = encode(split_documents(arguments, split), encoder)
            tokens = write_split(partial, split, sequences, len(encoder.dictionary))
            print(f"{target}: {split} {tokens} tokens", flush=True)
    return target


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; a fault of the input is one line, not a traceback."""
    with one_line_errors("adv-plugins preprocess-text"):
        run(parse_arguments(argv))


if __name__ == "__main__":
    main()
