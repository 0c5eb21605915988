"""How long the texts of prepared data are, in tokens, and what padding that costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from adv_plugins_cli.command import UserError, quiet
from adv_plugins_cli.data.formats.common import SEED

POOL = 50  # batches, as in the recipes' --group-by-length


def lengths(data: Path) -> Any:
    """(N,) tokens of each training row, with a symbol at the beginning and one between two texts.

    Raises:
        UserError: the folder holds no training data.
    """
    from fairseq.data import data_utils

    found: Any = 0
    for name in ("input0", "input1"):
        with quiet():
            texts = data_utils.load_indexed_dataset(str(data / name / "train"), None)
        if texts is None and name == "input0":
            raise UserError(f"{data / name / 'train.idx'}: no such file")
        if texts is not None:
            found = found + np.asarray(texts.sizes) + 1
    return found


def positions(sizes: Any, batch: int, pool: int = 0) -> int:
    """Of all batches of so many rows, padding included: in a random order or, with a pool of so many
    batches, as --group-by-length has them."""
    from adv_plugins.length_groups import grouped_order

    generator = np.random.default_rng(SEED)
    order = grouped_order(sizes, pool * batch, generator) if pool else generator.permutation(len(sizes))
    parts = (sizes[order[begin : begin + batch]] for begin in range(0, len(order), batch))
    return int(sum(part.max() * len(part) for part in parts))


def padding(sizes: Any, batch: int, pool: int = 0) -> float:
    """The share of these positions that is padding."""
    return 1 - float(sizes.sum()) / positions(sizes, batch, pool)


def report(data: Path, batch: int, limit: int) -> list[str]:
    """A line or two: lengths, how many texts are cut to so many tokens, padding."""
    sizes = lengths(data)
    median, most = np.percentile(sizes, (50, 95))
    cut = int((sizes > limit).sum())
    sizes = np.minimum(sizes, limit)
    random, grouped = (100 * padding(sizes, batch, pool) for pool in (0, POOL))
    lines = [
        f"tokens: median {median:.0f}, 95 % of the rows up to {most:.0f}; padding {random:.0f} % of a "
        f"random batch of {batch}, {grouped:.0f} % of those that are made (--group-by-length)"
    ]
    if cut:
        lines.append(
            f"{cut} rows ({100 * cut / len(sizes):.1f} %) are longer than {limit} tokens and are cut"
        )
    return lines
