"""What all commands share: one kind of error, one line for each of them, and reading files that say
which one is at fault."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fairseq_compat.errors import UserError

# Packages that only some commands need, and what brings them all.
OPTIONAL_PACKAGES = (
    "datasets",
    "matplotlib",
    "pyarrow",
    "requests",
    "safetensors",
    "sentencepiece",
    "seqeval",
    "tokenizers",
    "transformers",
)


def positive(text: str) -> int:
    """The ``type`` of an option whose value is a whole number of at least 1."""
    if not text.isdecimal() or not 1 <= int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number of at least 1")
    return int(text)


def seed_number(text: str) -> int:
    """The ``type`` of an option whose value is a seed that numpy and torch take."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number from 0 to 2**32 - 1")
    return int(text)


@contextlib.contextmanager
def one_line_errors(program: str) -> Iterator[None]:
    """Within the context what a user can cure ends the command with one line; the rest is a traceback.

    Raises:
        SystemExit: with that line.
    """
    try:
        yield
        _flush_output()
    except KeyboardInterrupt:
        sys.exit(130)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package not in OPTIONAL_PACKAGES:
            raise
        sys.exit(f"{program}: error: {package} is missing: pip install {package}")
    except OSError as error:
        if error.strerror is None:
            raise
        with contextlib.suppress(OSError):
            _flush_output()
        place = f"{error.filename}: " if error.filename is not None else ""
        sys.exit(f"{program}: error: {place}{error.strerror}")
    except ValueError as error:
        with contextlib.suppress(OSError):
            _flush_output()
        sys.exit(f"{program}: error: {' '.join(str(error).split())}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what fairseq and torch say by the dozen as models are built."""
    import logging
    import warnings

    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _flush_output() -> None:
    """Find a full disk or a closed pipe now: Python would complain as it ends, and not in a line."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError):  # what is left in the buffer has no place to go
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OSError(error.errno, error.strerror, "standard output") from error


def read_text(path: str | Path) -> str:
    """A file in UTF-8, without a byte-order mark; line ends are as they are.

    Raises:
        UserError: it is no such text.
    """
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8 text ({error.reason})") from error


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """The lines of a file in UTF-8, numbered from 1, without a byte-order mark.

    They end at line feeds only: texts may hold other breaks. A carriage return stays.

    Raises:
        UserError: a line is no such text.
    """
    with Path(path).open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{path}:{number}: not UTF-8 text ({error.reason})") from error
            yield number, line.removesuffix("\n")


def read_json(path: str | Path, kind: type = dict) -> Any:
    """A JSON file that holds an object (or, by ``kind``, an array).

    Raises:
        UserError: it does not.
    """
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg})") from error
    except RecursionError as error:
        raise UserError(f"{path}: JSON nested too deeply") from error
    if not isinstance(value, kind):
        raise UserError(f"{path}: holds a JSON {type(value).__name__}, not {kind.__name__}")
    return value
