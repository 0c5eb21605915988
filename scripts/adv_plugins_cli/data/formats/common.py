"""What all formats share: the description of a task, reading JSON lines, and what they must hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from adv_plugins_cli.command import UserError, read_lines
from adv_plugins_cli.data.glue_format import Split

Read = Callable[[Path], Mapping[str, Split]]  # of a task's folder
Entry = TypeVar("Entry", bool, int, str, list[Any], dict[str, Any])
KINDS = {bool: "true or false", int: "whole number", str: "text", list: "list", dict: "object"}

OFFICIAL, R_AT = "official", "r-at"
SPLITS = (OFFICIAL, R_AT)
SEED = 1  # of every choice that a format makes: held-out rows, the order of candidates


@dataclass(frozen=True)
class Format:
    """One task.

    read: from its folder, the splits by fairseq's names (valid1 is a second validation set), those
    whose files exist. kind: classification, ranking (inputs[0] is the context, the others are the
    choices, the label is the number of the right one from 0), entities (the inputs are sentences of
    words), raw (files that fairseq's task reads as they are), scores (numbers, as they are). labels: in
    the order of their numbers. source: of data of a user's own, to be written beside them.
    """

    name: str
    kind: str
    labels: Sequence[str]
    read: Read
    expects: str  # the official files in its folder, in words
    folders: tuple[str, ...] = ()  # other names of its folder than the task's
    # Candidate -> row of the official file, by split, for tasks made of another task's rows.
    rows: Callable[[Path], Mapping[str, list[tuple[int, int]]]] | None = field(default=None)
    r_at: Read | None = None  # the splits of R-AT's Table 6
    source: Mapping[str, Any] | None = None

    def reader(self, split: str) -> Read:
        """What reads the folder for one of ``SPLITS``.

        Raises:
            UserError: R-AT does not have the task.
        """
        if split == OFFICIAL:
            return self.read
        if self.r_at is None:
            raise UserError(f"--split {split}: {self.name} is no task of R-AT's Table 6")
        return self.r_at

    def find(self, data_dir: Path) -> Path:
        """The task's folder.

        Raises:
            UserError: it does not exist.
        """
        folders = [data_dir / name for name in (self.name, *self.folders)]
        found = next((folder for folder in folders if folder.is_dir()), None)
        if found is None:
            names = " or ".join(map(str, folders))
            raise UserError(f"{names}: no such folder; --data-dir must hold it")
        return found


def first_file(folder: Path, *names: str) -> Path | None:
    """The first of several possible files that exists."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def need(path: Path | None, folder: Path, *names: str) -> Path:
    """Refuse to go on without a file.

    Raises:
        UserError: naming it.
    """
    if path is None:
        raise UserError(f"{folder / names[0]}: no such file")
    return path


def listed(files: Mapping[str, Sequence[str]]) -> str:
    """The files of :func:`read_files` in words."""
    return ", ".join(" or ".join(names) for names in files.values())


def read_files(
    folder: Path, files: Mapping[str, Sequence[str]], read: Callable[[Path], Split]
) -> dict[str, Split]:
    """Read the splits' files; train and valid must exist, others may.

    Args:
        files: for each split the possible names of its file.

    Raises:
        UserError: train or valid is missing.
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
        UserError: naming the line that is none.
    """
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: no JSON ({error})") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: not an object")
        yield number, row


def entry(row: Any, name: str, kind: type[Entry], place: str) -> Entry:
    """An entry of an object, of the kind that it must be.

    A text that is null would be trained on as the word "None".

    Raises:
        UserError: it is not there, or something else.
    """
    if not isinstance(row, dict) or name not in row:
        raise UserError(f"{place}: no {name!r}; is this the official file?")
    return of_kind(row[name], kind, f"{place}: {name!r}")


def of_kind(value: Any, kind: type[Entry], what: str) -> Entry:
    """A value that must be of a kind.

    Raises:
        UserError: it is not.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{what} is {json.dumps(value)[:80]}, not a {KINDS[kind]}")
    if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise UserError(f"{what} is no text that UTF-8 can hold: half a surrogate pair")
    return value


def texts(values: Sequence[Any], what: str) -> list[str]:
    """A list of texts, each without line breaks and outer white space.

    Raises:
        UserError: one of them is no text.
    """
    return [one_line(of_kind(value, str, f"{what} {at}")) for at, value in enumerate(values, start=1)]


def check_label(label: Any, labels: Sequence[str], place: str) -> str:
    """A label that the task has.

    Raises:
        UserError: it has not.
    """
    if label not in labels:
        raise UserError(f"{place}: bad label {label!r}; the task has {', '.join(labels)[:300]}")
    return label


def one_line(text: str) -> str:
    """Text without line breaks and outer white space."""
    return " ".join(text.split())


def check_all_or_none(path: Path, lines: Sequence[int], labelled: Sequence[bool]) -> None:
    """Refuse a file in which some rows have a label: without labels for all, none would be used.

    Raises:
        UserError: naming the first row without one.
    """
    if any(labelled) and not all(labelled):
        without, has = (lines[list(labelled).index(value)] for value in (False, True))
        raise UserError(f"{path}:{without}: no label, but line {has} has one; all rows need it, or none")


def make_split(path: Path, rows: Sequence[tuple[int, Sequence[str], str | None]]) -> Split:
    """A split from (line, inputs, label) rows, of which all have a label or none.

    Raises:
        UserError: there are no rows, or some have none.
    """
    if not rows:
        raise UserError(f"{path}: the file has no rows")
    lines, inputs, labels = zip(*rows)
    check_all_or_none(path, lines, [label is not None for label in labels])
    known = None if labels[0] is None else list(labels)
    return Split(path, tuple(list(column) for column in zip(*inputs)), known, list(lines), [])
