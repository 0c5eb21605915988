"""A task's folder as fairseq reads it: inputs and labels, complete or not there at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from binarize import Indices, TextEncoder
    from glue_format import Split

BATCH_SIZE = 4096


@contextlib.contextmanager
def complete_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` to write into; it takes its place when the context ends well."""
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        yield partial
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def encode(encoder: TextEncoder, texts: Sequence[str], progress: Any) -> Iterator[Indices]:
    """Encode in batches, so that memory holds the indices of one batch only."""
    for start in range(0, len(texts), BATCH_SIZE):
        batch = texts[start : start + BATCH_SIZE]
        yield from encoder.encode_batch(batch)
        progress.update(len(batch))


def write_inputs(folder: Path, data: Mapping[str, Split], encoder: TextEncoder, name: str) -> None:
    """Write input0, input1: dict.txt and one binary file a split."""
    from binarize import write_split
    from tqdm import tqdm

    total = sum(len(texts) for split in data.values() for texts in split.inputs)
    with tqdm(total=total, desc=name, unit=" sentences") as progress:
        for index in range(len(next(iter(data.values())).inputs)):
            target = folder / f"input{index}"
            target.mkdir(parents=True)
            encoder.dictionary.save(str(target / "dict.txt"))
            for split_name, split in data.items():
                sequences = encode(encoder, split.inputs[index], progress)
                write_split(target, split_name, sequences, len(encoder.dictionary))


def count_labels(labels: Sequence[str], possible: Sequence[str]) -> Any:
    """The label dictionary in fairseq's order: by the counts of the training labels."""
    from binarize import build_label_dictionary

    return build_label_dictionary(labels, possible=possible)


def fixed_labels(labels: Sequence[str]) -> Any:
    """The label dictionary in a given order, whatever the data hold."""
    from fairseq.data import Dictionary

    dictionary = Dictionary()
    for label in labels:
        dictionary.add_symbol(label)
    return dictionary


def load_label_dictionary(path: Path) -> Any:
    """That of other data."""
    from binarize import load_dictionary

    return load_dictionary(path)


def write_labels(folder: Path, data: Mapping[str, Split], dictionary: Any) -> None:
    """Write class labels: dict.txt and one binary file a split."""
    import numpy as np
    from binarize import write_split

    folder.mkdir()
    dictionary.save(str(folder / "dict.txt"))
    for name, split in data.items():
        if split.labels is not None:
            sequences = (np.array([dictionary.index(label)]) for label in split.labels)
            write_split(folder, name, sequences, len(dictionary))
