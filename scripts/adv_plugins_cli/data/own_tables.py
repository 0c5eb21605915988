"""Tables of anybody's: csv, tsv, JSON lines, parquet, a folder of Hugging Face's ``datasets``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adv_plugins_cli.command import UserError, read_text
from adv_plugins_cli.data.formats.common import json_lines, one_line

Row = tuple[str, Mapping[str, Any]]  # its place in words, and its cells by column
READABLE = ".csv, .tsv, .jsonl, .parquet, or a folder that datasets.save_to_disk has made"
SPLITS = {"train": ("train",), "valid": ("validation", "valid", "dev")}  # of such a folder


def rows(path: Path, split: str = "train") -> Iterator[Row]:
    """The rows of a table.

    A .csv is read as RFC 4180 has it; a field of a .tsv ends at the next tab, quotes are text.

    Args:
        split: of a folder that has several.

    Raises:
        UserError: there is no such file, or it is no such table; with the line.
        ImportError: a library that it needs is missing.
    """
    if path.is_dir():
        return _saved(path, split)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    readers = {".csv": _csv, ".tsv": _csv, ".jsonl": _json, ".json": _json, ".parquet": _parquet}
    if path.suffix.lower() not in readers:
        raise UserError(f"{path}: no table that is known: {READABLE}")
    return readers[path.suffix.lower()](path)


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)
    tabs = path.suffix.lower() == ".tsv"
    quoting = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
    reader = csv.reader(
        io.StringIO(read_text(path), newline=""),
        delimiter="\t" if tabs else ",",
        quoting=quoting,  # type: ignore[arg-type] # typeshed knows literals alone
        strict=True,
    )
    try:
        header = next(reader, [])
        for name in header:
            if name and header.count(name) > 1:
                raise UserError(f"{path}:1: the column {name!r} is there twice")
        for line, cells in _numbered(reader):
            if len(cells) != len(header):
                raise UserError(f"{path}:{line}: {len(cells)} columns, the header has {len(header)}")
            yield f"{path}:{line}", dict(zip(header, cells))
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: no such table ({error})") from error


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Rows with the line that they begin in; a row may have line breaks."""
    line = reader.line_num + 1
    for cells in reader:
        if cells:
            yield line, cells
        line = reader.line_num + 1


def _json(path: Path) -> Iterator[Row]:
    for number, row in json_lines(path):
        yield f"{path}:{number}", row


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: no parquet file, or a damaged one ({one_line(str(error))})") from error
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"{path}: row {number}", row


def _saved(path: Path, split: str) -> Iterator[Row]:
    """With the names of the classes in the place of their numbers."""
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except (FileNotFoundError, ValueError) as error:
        raise UserError(
            f"{path}: no folder of datasets.save_to_disk ({one_line(str(error))})"
        ) from error
    if isinstance(found, datasets.DatasetDict):
        name = next((name for name in SPLITS[split] if name in found), None)
        if name is None:
            raise UserError(f"{path}: has {', '.join(found)}, none of {', '.join(SPLITS[split])}")
        found = found[name]
    named = {
        column: feature.int2str
        for column, feature in found.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    for number, row in enumerate(found, start=1):
        for column, name_of in named.items():
            if row[column] is not None and row[column] >= 0:  # -1: no label
                row[column] = name_of(row[column])
        yield f"{path}: row {number}", row


def cell(row: Row, column: str) -> str:
    """A cell as text on one line.

    Raises:
        UserError: there is no such column, or nothing in it.
    """
    place, cells = row
    if column not in cells:
        raise UserError(f"{place}: no column {column!r}; there are {', '.join(map(repr, cells))[:300]}")
    value = cells[column]
    if isinstance(value, bool):
        value = str(value).lower()
    if value is None or not isinstance(value, (str, int, float)):
        raise UserError(f"{place}: {column!r} is {str(value)[:40]!r}, no text or number")
    text = one_line(str(value))
    if not text:
        raise UserError(f"{place}: {column!r} is empty")
    return text
