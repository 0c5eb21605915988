"""A damaged file of prepared data is named before fairseq maps it into memory.

fairseq looks at sizes and indices only where an example is read, in the middle of an epoch, and then
says neither which file it is nor what is wrong with it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from typing import Any, Type, Union

import numpy as np
from fairseq.data import ConcatDataset, data_utils, indexed_dataset
from fairseq.data.indexed_dataset import MMapIndexedDataset
from fairseq.tasks.sentence_prediction import SentencePredictionTask
from fairseq.tasks.sentence_ranking import SentenceRankingTask

from adv_plugins.wrapped_methods import wrap_method
from fairseq_compat.errors import UserError

HEADER = struct.Struct("<9sQBQ")  # of an index: magic bytes, version, code of the type, number of rows
ROW_BYTES = 4 + 8  # in an index: a row's size and where it begins
CHUNK = 2**24  # indices that are looked at together
Kind = Union[Type[int], Type[float]]


def name_damaged_files() -> None:
    """Wrap what opens the files of a split, once."""
    wrap_method(indexed_dataset, "make_dataset", checked_dataset)


def checked_dataset(original: Callable[..., Any]) -> Callable[..., Any]:
    """A dataset whose files are whole, and whose indices are its dictionary's."""

    def make_dataset(
        path: str, impl: str, fix_lua_indexing: bool = False, dictionary: Any = None
    ) -> Any:
        if impl == "mmap" and MMapIndexedDataset.exists(path):
            check_sizes(path)
        try:
            dataset = original(path, impl, fix_lua_indexing, dictionary)
        except (UserError, MemoryError):
            raise
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{path}.idx: damaged, or no prepared data ({reason[:200]})") from error
        if isinstance(dataset, MMapIndexedDataset):
            check_rows(path, dataset)
            if dictionary is not None:
                check_indices(path, dataset, len(dictionary))
        return dataset

    return make_dataset


def check_sizes(path: str) -> None:
    """Whether the index of a split is as long as it says.

    Raises:
        UserError: it is not, or there are no data: neither can be mapped into memory.
    """
    index, data = f"{path}.idx", f"{path}.bin"
    with open(index, "rb") as file:
        header = file.read(HEADER.size)
    rows = HEADER.unpack(header)[-1] if len(header) == HEADER.size else None
    if rows is None or os.path.getsize(index) < HEADER.size + rows * ROW_BYTES:
        raise UserError(f"{index}: damaged, its end is missing: prepare the data again")
    if not os.path.getsize(data):
        raise UserError(f"{data}: empty: prepare the data again")


def check_rows(path: str, dataset: MMapIndexedDataset) -> None:
    """Whether every row that the index lists lies in the data.

    Raises:
        UserError: one does not.
    """
    sizes, begins = dataset.sizes, dataset._index._pointers
    ends = begins + sizes * np.int64(dataset._index._dtype_size)
    if len(sizes) and (sizes.min() < 0 or begins.min() < 0):
        raise UserError(f"{path}.idx: damaged, a row has a negative size: prepare the data again")
    if len(ends) and ends.max() > len(dataset._bin_buffer):
        raise UserError(
            f"{path}.bin: damaged, it has {len(dataset._bin_buffer)} bytes and {path}.idx lists "
            f"{ends.max()}: prepare the data again"
        )


def check_indices(path: str, dataset: MMapIndexedDataset, symbols: int) -> None:
    """Whether the rows hold indices of the dictionary.

    Raises:
        UserError: one is too large: the data were prepared with another dictionary.
    """
    values = values_of(dataset)
    for begin in range(0, len(values), CHUNK):
        chunk = values[begin : begin + CHUNK]
        low, high = chunk.min(), chunk.max()
        if low < 0 or high >= symbols:
            raise UserError(
                f"{path}.bin: holds the index {low if low < 0 else high}, but the dictionary, dict.txt, "
                f"has {symbols} symbols: prepare the data again, or give their own dictionary"
            )


def values_of(dataset: Any) -> Any:
    """All that the rows hold, (N,), in their order; None where the data are of another form."""
    if isinstance(dataset, ConcatDataset):
        parts = [values_of(part) for part in dataset.datasets]
        return None if any(part is None for part in parts) else np.concatenate(parts)
    if not isinstance(dataset, MMapIndexedDataset):
        return None
    index, data = dataset._index, dataset._bin_buffer
    count = min(int(index.sizes.sum(dtype=np.int64)), len(data) // index._dtype_size)
    return np.frombuffer(data, dtype=index.dtype, count=count)


def fault_of_split(task: Any, folder: str, split: str, *, combine: bool = False) -> str | None:
    """What is wrong with the files of a split that cannot be loaded; None if that is not seen here.

    Args:
        combine: whether its further parts, such as train1, belong to it.
    """
    if isinstance(task, SentenceRankingTask):
        return next(_faults(folder, split, combine, 1 + task.args.num_classes, int, 1), None)
    if isinstance(task, SentencePredictionTask):
        kind = float if task.cfg.regression_target else None
        return next(_faults(folder, split, combine, 1, kind, task.cfg.num_classes), None)
    return None


def _faults(
    folder: str, split: str, combine: bool, inputs: int, kind: Kind | None, columns: int
) -> Iterator[str]:
    """Of the inputs, then of labels in a text (of a ``kind`` of number), then of the numbers of rows."""
    rows: dict[str, int] = {}
    label = os.path.join(folder, "label", split)
    for path in [*(os.path.join(folder, f"input{number}", split) for number in range(inputs)), label]:
        dataset = data_utils.load_indexed_dataset(path, combine=combine)
        if dataset is not None:
            rows[path] = len(dataset)
        elif path != label:
            yield f"{path}.idx, or the .bin beside it: no such file"
            return
    if kind is not None and os.path.exists(text := f"{label}.label"):
        with open(text, "rb") as file:
            lines = file.read().removesuffix(b"\n").split(b"\n")
        for number, line in enumerate(lines, start=1):
            if fault := _label_fault(line, kind, columns):
                yield f"{text}:{number}: {fault}"
        rows[text] = len(lines)
    (first, expected), *others = rows.items()
    for path, count in others:
        if count != expected:
            yield f"{path}: {count} rows, but {first} has {expected}"


def _label_fault(line: bytes, kind: Kind, columns: int) -> str | None:
    """What a line of a ``.label`` file holds in place of its numbers."""
    try:
        words = line.decode("utf-8").split()
    except UnicodeDecodeError as error:
        return f"not UTF-8 text ({error.reason})"
    if len(words) != columns:
        return f"{len(words)} labels in place of {columns}"
    for word in words:
        try:
            kind(word)
        except ValueError:
            return f"{word[:50]!r} is no {'whole ' if kind is int else ''}number"
    return None
