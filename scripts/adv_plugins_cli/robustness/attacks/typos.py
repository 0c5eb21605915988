"""Typos: two letters swapped, one inserted, deleted, or missed on the keyboard.

First and last letter stay, and short words too: what people still read without effort (Pruthi et al.,
ACL 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

SHORTEST = 4  # letters of a word that may have one

# The rows of a keyboard, each half a key to the right of the one above it.
ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def _neighbours() -> dict[str, str]:
    """The letters around each letter."""
    places = {
        letter: (row, column + row / 2)
        for row, keys in enumerate(ROWS)
        for column, letter in enumerate(keys)
    }
    return {
        letter: "".join(
            other
            for other, (other_row, other_column) in places.items()
            if other != letter and abs(row - other_row) <= 1 and abs(column - other_column) <= 1
        )
        for letter, (row, column) in places.items()
    }


KEYBOARD = _neighbours()


def swaps(word: str) -> Iterator[str]:
    """Two inner letters next to each other."""
    for at in range(1, len(word) - 2):
        yield word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def deletions(word: str) -> Iterator[str]:
    """An inner letter."""
    for at in range(1, len(word) - 1):
        yield word[:at] + word[at + 1 :]


def insertions(word: str) -> Iterator[str]:
    """A key beside an inner letter's, hit with it."""
    for at in range(1, len(word) - 1):
        for key in KEYBOARD.get(word[at].lower(), ""):
            yield word[:at] + key + word[at:]


def substitutions(word: str) -> Iterator[str]:
    """A key beside an inner letter's, hit in its place."""
    for at in range(1, len(word) - 1):
        for key in KEYBOARD.get(word[at].lower(), ""):
            yield word[:at] + key + word[at + 1 :]


KINDS: tuple[Callable[[str], Iterator[str]], ...] = (swaps, deletions, insertions, substitutions)


def typos(word: str, count: int, seed: int) -> list[str]:
    """Up to ``count`` of a word's typos, of all kinds in turn, drawn at random."""
    import numpy as np

    if len(word) < SHORTEST or not word.isalpha():
        return []
    random = np.random.default_rng(seed)
    kinds = [list(dict.fromkeys(kind(word))) for kind in KINDS]
    for found in kinds:
        random.shuffle(found)
    turns = [found[at] for at in range(count) for found in kinds if at < len(found)]
    return [typo for typo in dict.fromkeys(turns) if typo != word][:count]
