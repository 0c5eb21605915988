"""How long the texts of prepared data are, in tokens, and what padding that costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adv_plugins_cli.data.formats.common import SEED

HEADER = 26  # bytes of fairseq's index before the lengths: magic, version, type, number of rows
POOL = 50  # batches, as in the recipes' --group-by-length


def lengths(data: Path, split: str = "train") -> NDArray[np.int64]:
    """(N,) the rows' tokens, a symbol at the beginning included; of pairs those of both."""
    found = [_read(path) for path in sorted(data.glob(f"input*/{split}.idx"))]
    return np.sum(found, axis=0) + 1


def _read(path: Path) -> NDArray[np.int64]:
    with path.open("rb") as file:
        rows = int.from_bytes(file.read(HEADER)[18:], "little")
        return np.fromfile(file, dtype=np.int32, count=rows).astype(np.int64)


def padding(sizes: NDArray[np.int64], batch: int, *, grouped: bool) -> float:
    """The share of the positions that are padding, in batches of so many rows: in a random order, or
    sorted within pools of 50 batches."""
    order = np.random.default_rng(SEED).permutation(len(sizes))
    if grouped:
        rows = POOL * batch
        pools = [order[begin : begin + rows] for begin in range(0, len(order), rows)]
        order = np.concatenate([pool[np.argsort(sizes[pool], kind="stable")] for pool in pools])
    positions = sum(
        sizes[order[begin : begin + batch]].max() * len(order[begin : begin + batch])
        for begin in range(0, len(order), batch)
    )
    return float(1 - sizes.sum() / positions)


def report(data: Path, batch: int, limit: int) -> list[str]:
    """A line or two: lengths, how many texts are cut to so many tokens, padding."""
    sizes = lengths(data)
    median, most = np.percentile(sizes, (50, 95))
    cut = int((sizes > limit).sum())
    sizes = np.minimum(sizes, limit)
    random, grouped = (padding(sizes, batch, grouped=each) for each in (False, True))
    lines = [
        f"tokens: median {median:.0f}, 95 % of the rows up to {most:.0f}; padding {100 * random:.0f} % "
        f"of a random batch of {batch}, {100 * grouped:.0f} % of those that are made (--group-by-length)"
    ]
    if cut:
        lines.append(
            f"{cut} rows ({100 * cut / len(sizes):.1f} %) are longer than {limit} tokens and are cut"
        )
    return lines
