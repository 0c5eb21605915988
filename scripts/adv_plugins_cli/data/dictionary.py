"""fairseq's dict.txt: a symbol and its count a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adv_plugins_cli.command import UserError, read_lines, read_text

FILLING = "madeupword"  # how what fills a dictionary up begins, behind the real symbols


def read_symbols(path: Path) -> list[str]:
    """The symbols without their counts, as they are in the file; needs no fairseq.

    Raises:
        UserError: naming the line that is no symbol and a count.
    """
    found = []
    for number, line in read_lines(path):
        symbol, _, count = line.rstrip().removesuffix(" #fairseq:overwrite").rpartition(" ")
        if not count.isdecimal():
            raise UserError(f"{path}:{number}: not a symbol and its count: {line[:80]!r}")
        found.append(symbol)
    return found


def read_labels(path: Path) -> tuple[str, ...]:
    """The names of the classes of a label dictionary, in their order.

    Raises:
        UserError: as :func:`read_symbols`.
    """
    return tuple(symbol for symbol in read_symbols(path) if not symbol.startswith(FILLING))


def load_dictionary(path: str | Path) -> Any:
    """fairseq's Dictionary of it.

    Raises:
        UserError: it is no such file; fairseq's own errors do not name it.
    """
    from fairseq.data import Dictionary

    read_text(path)
    try:
        return Dictionary.load(str(path))
    except Exception as error:  # no count, a word that comes again, or what it did not think of
        reason = " ".join(str(error).partition(". ")[0].split())
        raise UserError(f"{path}: {reason[:200]}") from error


def make_dictionary(symbols: Sequence[str]) -> Any:
    """fairseq's Dictionary of these in their order."""
    from fairseq.data import Dictionary

    dictionary = Dictionary()
    for symbol in symbols:
        dictionary.add_symbol(symbol)
    return dictionary
