"""A text as words and what lies between them, so that a changed one differs in its words alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")


class Words(NamedTuple):
    """words: of letters; gaps: what is before the first, between them, and behind the last."""

    words: tuple[str, ...]
    gaps: tuple[str, ...]

    def text(self, changed: Mapping[int, str] | None = None) -> str:
        """The text, with other words at these places; an empty one takes a space along."""
        changed = changed or {}
        parts = [self.gaps[0]]
        for place, (word, gap) in enumerate(zip(self.words, self.gaps[1:])):
            new = changed.get(place, word)
            parts += [new, gap] if new else [gap.removeprefix(" ")]
        return "".join(parts)


def split(text: str) -> Words:
    """The words of a text."""
    found = list(WORD.finditer(text))
    ends = [0, *(match.end() for match in found)]
    starts = [*(match.start() for match in found), len(text)]
    return Words(
        tuple(match.group() for match in found),
        tuple(text[end:start] for end, start in zip(ends, starts)),
    )


def like(word: str, model: str) -> str:
    """A word in the case of another."""
    if model.isupper() and len(model) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if model[:1].isupper() else word


@cache
def stop_words() -> frozenset[str]:
    """scikit-learn's English ones, which no attack changes: among them not, no and their like."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)
