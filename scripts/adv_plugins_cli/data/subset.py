"""Parts of a preprocessed folder: fewer training rows, or a held-out share of them as validation."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from adv_plugins_cli.command import UserError
from adv_plugins_cli.recipes import recipes
from fairseq_compat import files

SEED = 1  # of the choice of rows, the same for every method and seed of a comparison


def choose_rows(data: Path, rows: int | None, held_out: float) -> tuple[list[int], list[int]]:
    """Indices of the training rows to keep, and of those to validate on (none for ``held_out`` 0).

    Raises:
        UserError: more rows were asked for than there are, or a share of them is none or all.
    """
    import numpy as np

    total = recipes.count_rows(data)
    if rows is not None and not 1 < rows <= total:
        raise UserError(f"--train-rows {rows}: {data} has {total}")
    order = np.random.default_rng(SEED).permutation(total)[: rows or total]
    count = round(held_out * len(order))
    if held_out and not 0 < count < len(order):
        raise UserError(
            f"--held-out {held_out:g} of {len(order)} training rows (--train-rows) leaves none to "
            f"{'validate on' if count < 1 else 'train on'}"
        )
    return sorted(order[count:].tolist()), sorted(order[:count].tolist())


def make_subset(data: Path, target: Path, *, rows: int | None = None, held_out: float = 0.0) -> Path:
    """Write a folder with a part of the training rows of ``data``; returns it.

    Args:
        rows: how many training rows to take, None for all.
        held_out: the share of them that becomes the validation set; 0 keeps the validation files.
    """
    train, valid = choose_rows(data, rows, held_out)
    if target.is_dir():
        return target
    with files.folder_beside(target) as partial:
        for path in sorted(data.rglob("*")):
            place = partial / path.relative_to(data)
            split = path.name.partition(".")[0]
            if path.is_dir():
                place.mkdir()
            elif split == "train" and path.suffix in (".label", ".jsonl"):
                _select_lines(path, place, train)
                if valid:
                    _select_lines(path, place.with_name(f"valid{path.suffix}"), valid)
            elif split == "train" and path.suffix == ".idx":
                _select_sequences(path, place, train)
                if valid:
                    _select_sequences(path, place.with_name("valid.idx"), valid)
            elif split != "train" and not (valid and split.startswith("valid")):
                shutil.copyfile(path, place)
    return target


def _select_lines(source: Path, target: Path, rows: Sequence[int]) -> None:
    with source.open(encoding="utf-8", newline="\n") as file:
        lines = list(file)
    target.write_text("".join(lines[row] for row in rows), encoding="utf-8", newline="\n")


def _select_sequences(source: Path, target: Path, rows: Sequence[int]) -> None:
    from fairseq.data import indexed_dataset

    from adv_plugins_cli.data.binarize import write_split
    from adv_plugins_cli.data.dictionary import load_dictionary

    dataset = indexed_dataset.make_dataset(str(source.with_suffix("")), impl="mmap")
    size = len(load_dictionary(source.with_name("dict.txt")))
    sequences = (dataset[row].numpy() for row in rows)
    write_split(target.parent, target.stem, sequences, size, end_symbol=None)
