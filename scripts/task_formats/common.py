"""What all formats share: the description of a task, and reading JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glue_format import Split

SEED = 1  # of every choice that a format makes: held-out rows, the order of candidates


class TaskError(ValueError):
    """A task's file, or what the user asked to do with it, is not as it should be."""


@dataclass(frozen=True)
class Format:
    """One task.

    read: from its folder, the splits by fairseq's names (valid1 is a second validation set), those
    whose files exist. kind: classification, ranking (inputs[0] is the context, the others are the
    choices, the label is the number of the right one from 0), entities (the inputs are sentences of
    words), raw (files that fairseq's task reads as they are). labels: in the order of their numbers.
    """

    name: str
    kind: str
    labels: Sequence[str]
    read: Callable[[Path], Mapping[str, Split]]
    folders: tuple[str, ...] = ()  # other names of its folder than the task's
    # Candidate -> row of the official file, by split, for tasks made of another task's rows.
    rows: Callable[[Path], Mapping[str, list[tuple[int, int]]]] | None = field(default=None)

    def find(self, data_dir: Path) -> Path:
        """The task's folder.

        Raises:
            TaskError: it does not exist.
        """
        folders = [data_dir / name for name in (self.name, *self.folders)]
        found = next((folder for folder in folders if folder.is_dir()), None)
        if found is None:
            names = " or ".join(map(str, folders))
            raise TaskError(f"{names}: no such folder; --data-dir must hold it")
        return found


def first_file(folder: Path, *names: str) -> Path | None:
    """The first of several possible files that exists."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def need(path: Path | None, folder: Path, *names: str) -> Path:
    """Refuse to go on without a file.

    Raises:
        TaskError: naming it.
    """
    if path is None:
        raise TaskError(f"{folder / names[0]}: no such file")
    return path


def read_files(
    folder: Path, files: Mapping[str, Sequence[str]], read: Callable[[Path], Split]
) -> dict[str, Split]:
    """Read the splits' files; train and valid must exist, others may.

    Args:
        files: for each split the possible names of its file.

    Raises:
        TaskError: train or valid is missing.
    """
    found = {}
    for split, names in files.items():
        path = first_file(folder, *names)
        if split in ("train", "valid"):
            path = need(path, folder, *names)
        if path is not None:
            found[split] = read(path)
    return found


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The numbered objects of a file with one a line.

    Raises:
        TaskError: naming the line that is none.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise TaskError(f"{path}:{number}: no JSON ({error})") from None
            if not isinstance(row, dict):
                raise TaskError(f"{path}:{number}: not an object")
            yield number, row


def entry(row: Mapping[str, Any], name: str, place: str) -> Any:
    """An entry that must be there.

    Raises:
        TaskError: it is not.
    """
    if name not in row:
        raise TaskError(f"{place}: no {name!r}; is this the official file?")
    return row[name]


def check_label(label: str, labels: Sequence[str], place: str) -> str:
    """A label that the task has.

    Raises:
        TaskError: it has not.
    """
    if label not in labels:
        raise TaskError(f"{place}: bad label {label!r}; the task has {', '.join(labels)[:300]}")
    return label


def one_line(text: Any) -> str:
    """Text without line breaks and outer white space."""
    return " ".join(str(text).split())


def make_split(path: Path, rows: Sequence[tuple[int, Sequence[str], str | None]]) -> Split:
    """A split from (line, inputs, label) rows; without labels unless all rows have one.

    Raises:
        TaskError: there are no rows.
    """
    if not rows:
        raise TaskError(f"{path}: the file has no rows")
    lines, inputs, labels = zip(*rows)
    known = None if any(label is None for label in labels) else list(labels)
    return Split(path, tuple(list(column) for column in zip(*inputs)), known, list(lines), [])
