r"""The greedy search of TextFooler (Jin et al., AAAI 2020, Algorithm 1), whatever changes a word.

Words are ranked by their importance, the fall of the right class's probability without the word,

.. math:: I_i = p_y(X) - p_y(X_{\setminus w_i})

(plus, where the prediction then is another class, the rise of that class's), and changed in this
order: each to the first candidate, the nearest, that makes the prediction wrong, else to the one
that lowers p_y most, if one does.

Not TextFooler's: its constraints on the part of speech and on a sentence encoder's similarity, so these
rates of success are higher than with them. Words of a stop list stay; how many words may change, and how
many queries may be made, are limits of the user's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from adv_plugins_cli.robustness.attacks.words import Words, like, split, stop_words

Array = NDArray[np.float64]
# A word and its place -> what it may become, the best first.
Candidates = Callable[[str, int], Sequence[str]]


class Victim(Protocol):
    """Whom an attack asks."""

    def __call__(self, rows: Sequence[tuple[str, ...]]) -> Array:
        """(N, C) probabilities of rows of texts."""


@dataclass(frozen=True)
class Limits:
    """share: of the words that may change; queries: that may be made for a row."""

    share: float = 0.2
    queries: int = 1000


@dataclass(frozen=True)
class Attacked:
    """What became of a row.

    outcome: wrong (before it was touched), broken, or held; texts: the last ones; before, after: the
    right classes' probability.
    """

    outcome: str
    texts: tuple[str, ...]
    queries: int
    changed: int
    words: int
    before: float
    after: float


class _Budget:
    """A victim that answers so many queries, and no more."""

    def __init__(self, victim: Victim, most: int) -> None:
        self.victim, self.most, self.made = victim, most, 0

    def ask(self, rows: Sequence[tuple[str, ...]]) -> Array:
        """The answers to as many of the rows, from the first, as queries are left."""
        rows = rows[: self.most - self.made]
        self.made += len(rows)
        return self.victim(rows) if rows else np.zeros((0, 0))


def attack(
    victim: Victim,
    texts: tuple[str, ...],
    right: Collection[int],
    candidates: Candidates,
    limits: Limits,
    *,
    column: int = -1,
) -> Attacked:
    """Search for a row that is like this one and wrong.

    Args:
        texts: of the row; column: of the one to change.
        right: the classes that are right.
    """
    classes = sorted(right)
    column %= len(texts)
    words = split(texts[column])
    budget = _Budget(victim, limits.queries)

    def row(text: str) -> tuple[str, ...]:
        return (*texts[:column], text, *texts[column + 1 :])

    def ended(outcome: str, changed: dict[int, str], after: float) -> Attacked:
        text = row(words.text(changed))
        return Attacked(outcome, text, budget.made, len(changed), len(words.words), before, after)

    clean = budget.ask([texts])[0]
    before = current = float(clean[classes].sum())
    if int(clean.argmax()) not in right:
        return ended("wrong", {}, before)
    changed: dict[int, str] = {}
    most = int(limits.share * len(words.words))
    for place in _by_importance(budget, words, row, clean, classes) if most else ():
        if len(changed) == most:
            break
        options = [like(each, words.words[place]) for each in candidates(words.words[place], place)]
        answers = budget.ask([row(words.text({**changed, place: each})) for each in options])
        if not len(answers):
            continue
        found = answers[:, classes].sum(axis=1)
        wrong = [number for number, each in enumerate(answers.argmax(axis=1)) if each not in right]
        best = wrong[0] if wrong else int(found.argmin())
        if wrong or found[best] < current:
            changed[place], current = options[best], float(found[best])
        if wrong:
            return ended("broken", changed, current)
    return ended("held", changed, current)


def _by_importance(
    budget: _Budget,
    words: Words,
    row: Callable[[str], tuple[str, ...]],
    clean: Array,
    classes: Sequence[int],
) -> list[int]:
    """The places of the words that may change, the most important first."""
    places = [at for at, word in enumerate(words.words) if word.lower() not in stop_words()]
    answers = budget.ask([row(words.text({place: ""})) for place in places])
    importance = {}
    for place, answer in zip(places, answers):
        importance[place] = float(clean[classes].sum() - answer[classes].sum())
        other = int(answer.argmax())
        if other not in classes:
            importance[place] += float(answer[other] - clean[other])
    return sorted(importance, key=lambda place: -importance[place])
