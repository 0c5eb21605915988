"""Rows of like length in one batch: less padding, and still a random order.

The rows of an epoch are permuted, cut into pools of so many batches, and sorted by length within
each pool; fairseq then shuffles the batches. Pools are sorted upwards and downwards in turn, so that
a batch across the border of two has rows of like length, too, and no batch is cut short there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from fairseq.data import BaseWrapperDataset, FairseqDataset


def grouped_order(sizes: np.ndarray, rows: int, generator: np.random.Generator) -> np.ndarray:
    """A random order of the indices 0 .. N - 1, sorted by size within pools.

    Args:
        sizes: (N,) the rows' lengths, in tokens.
        rows: how many rows are a pool.

    Returns:
        (N,) indices, each once; rows of equal length in a random order.
    """
    order = generator.permutation(len(sizes))
    upwards = generator.integers(2)
    for number, begin in enumerate(range(0, len(order), rows)):
        pool = order[begin : begin + rows]
        pool = pool[np.argsort(sizes[pool], kind="stable")]
        order[begin : begin + rows] = pool if (number + upwards) % 2 else pool[::-1]
    return order


def lengths(dataset: FairseqDataset) -> np.ndarray:
    """(N,) the rows' lengths in tokens; of rows with several texts, the longest one's."""
    sizes = dataset.sizes
    parts = sizes if isinstance(sizes, (list, tuple)) else [sizes]
    return np.maximum.reduce([np.asarray(part) for part in parts])


class LengthGrouped(BaseWrapperDataset):
    """A dataset for one epoch of training, its rows ordered by :func:`grouped_order`.

    The order depends on nothing but the seed, the epoch and the lengths: all workers agree on it, and
    a training that goes on within an epoch finds the same batches.

    Args:
        dataset: what is trained on.
        pool: number of batches in a pool.
        max_sentences, max_tokens: what limits a batch, as in fairseq's ``batch_by_size``.
        seed: of the order, together with the epoch (``set_epoch``).
    """

    can_reuse_epoch_itr_across_epochs = False  # the batches are others in every epoch

    def __init__(
        self,
        dataset: FairseqDataset,
        *,
        pool: int,
        max_sentences: int | None,
        max_tokens: int | None,
        seed: int,
    ) -> None:
        super().__init__(dataset)
        self.pool = pool
        self.max_sentences = max_sentences
        self.max_tokens = max_tokens
        self.seed = seed
        self.epoch = 1

    def set_epoch(self, epoch: int) -> None:
        """Another epoch has another order."""
        super().set_epoch(epoch)
        self.epoch = epoch

    def ordered_indices(self) -> np.ndarray:
        """(N,) indices of the dataset's rows, in this epoch's order."""
        indices = np.asarray(self.dataset.ordered_indices())
        sizes = lengths(self.dataset)[indices]
        generator = np.random.default_rng([self.seed, self.epoch])
        return indices[grouped_order(sizes, self.pool * self.rows_in_batch(sizes), generator)]

    def rows_in_batch(self, sizes: np.ndarray) -> int:
        """How many rows a batch has or, where tokens limit it, has about."""
        limits = [self.max_sentences] if self.max_sentences else []
        if self.max_tokens:
            limits.append(int(self.max_tokens / max(1.0, float(np.mean(sizes)))) if len(sizes) else 1)
        return max(1, min(limits, default=1))


class LengthSorted(BaseWrapperDataset):
    """A dataset for validation, its rows in the order of their lengths."""

    def ordered_indices(self) -> Any:
        """(N,) indices of its rows, the longest first: what does not fit in memory fails at once."""
        indices = np.asarray(self.dataset.ordered_indices())
        return indices[np.argsort(-lengths(self.dataset)[indices], kind="stable")]
