"""A task's folder as fairseq reads it: inputs and labels, complete or not there at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adv_plugins_cli.command import UserError

if TYPE_CHECKING:
    from adv_plugins_cli.data.binarize import Indices, TextEncoder
    from adv_plugins_cli.data.glue_format import Split

BATCH_SIZE = 4096


def dictionary_of(folder: Path) -> Path | None:
    """The dict.txt of the words in a folder of preprocessed data; None: it is no such folder."""
    files = (folder / "input0" / "dict.txt", folder / "dict.txt")
    return next((path for path in files if path.is_file()), None)


def check_target(target: Path, *, overwrite: bool) -> None:
    """Refuse a folder that must not be written.

    Raises:
        UserError: it is there and may not give way, or is not what the preprocessing has made.
    """
    if not target.exists():
        return
    if not overwrite:
        raise UserError(f"{target}: exists already; pass --overwrite to replace it")
    if not target.is_dir() or (dictionary_of(target) is None and any(target.iterdir())):
        raise UserError(f"{target}: no folder of preprocessed data, so --overwrite leaves it alone")


def encode(encoder: TextEncoder, texts: Sequence[str], progress: Any) -> Iterator[Indices]:
    """Encode in batches, so that memory holds the indices of one batch only."""
    for start in range(0, len(texts), BATCH_SIZE):
        batch = texts[start : start + BATCH_SIZE]
        yield from encoder.encode_batch(batch)
        progress.update(len(batch))


def write_inputs(folder: Path, data: Mapping[str, Split], encoder: TextEncoder, name: str) -> None:
    """Write input0, input1: dict.txt and one binary file a split."""
    from tqdm import tqdm

    from adv_plugins_cli.data.binarize import write_split

    total = sum(len(texts) for split in data.values() for texts in split.inputs)
    with tqdm(total=total, desc=name, unit=" sentences") as progress:
        for index in range(len(next(iter(data.values())).inputs)):
            target = folder / f"input{index}"
            target.mkdir(parents=True)
            encoder.dictionary.save(str(target / "dict.txt"))
            encoder.save(target)
            for split_name, split in data.items():
                sequences = encode(encoder, split.inputs[index], progress)
                write_split(target, split_name, sequences, len(encoder.dictionary))


def count_labels(labels: Sequence[str], possible: Sequence[str]) -> Any:
    """The label dictionary in fairseq's order: by the counts of the training labels."""
    from adv_plugins_cli.data.binarize import build_label_dictionary

    return build_label_dictionary(labels, possible=possible)


def write_labels(folder: Path, data: Mapping[str, Split], dictionary: Any) -> None:
    """Write class labels: dict.txt and one binary file a split."""
    import numpy as np

    from adv_plugins_cli.data.binarize import write_split

    folder.mkdir()
    dictionary.save(str(folder / "dict.txt"))
    for name, split in data.items():
        if split.labels is not None:
            sequences = (np.array([dictionary.index(label)]) for label in split.labels)
            write_split(folder, name, sequences, len(dictionary))
