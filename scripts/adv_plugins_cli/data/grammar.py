"""The demo's task: is the verdict of a review good or bad? Sentences from a small grammar.

A clause praises or blames; negation turns it round; of two clauses the main one counts ("although
...", "... but ..."). Training labels are wrong at a fixed rate, as in real data, so a model that
fits every one of them does worse on the clean validation sentences: regularisation matters.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

GOOD_ADJECTIVES = (
    "brilliant charming clever cosy crisp delicious elegant fine fresh friendly gentle graceful "
    "great honest lively lovely memorable neat perfect polite quick reliable rich sharp smart "
    "smooth solid splendid sturdy tasteful tender thoughtful tidy useful warm wonderful"
).split()
BAD_ADJECTIVES = (
    "awful bitter bland blurry boring broken careless cheap clumsy cold crude dirty dreadful dull "
    "faulty flat greasy grim harsh lazy messy noisy poor rude rusty shabby shaky slow sloppy sour "
    "stale tasteless tedious useless vulgar weak"
).split()
GOOD_NOUNS = "charm comfort grace humour polish quality style taste warmth wit".split()
BAD_NOUNS = "bugs cracks dirt dust errors flaws gaps holes noise stains".split()
THINGS = (
    "acting album bakery battery blanket book breakfast bridge cafe camera car chair coffee "
    "concert dinner ending engine film garden hotel jacket kettle kitchen lamp lesson menu museum "
    "novel phone play plot radio room sauce service soup staff story tea tour train waiter watch"
).split()
OWNERS = ("the", "this", "their", "our", "the new", "the old", "that famous", "the little")
PEOPLE = ("my sister", "the critic", "our guide", "a friend", "my neighbour", "the landlord")
DEGREES = ("", "", "", "quite", "really", "rather", "very", "truly")
TIMES = ("", "", "", "today", "this time", "last week", "as usual", "in the end")
NEGATED = 0.15  # share of negated clauses
LABELS = ("bad", "good")


def clause(random: random.Random) -> tuple[str, bool]:
    """A clause and whether it praises."""
    good = random.random() < 0.5
    adjective = random.choice(GOOD_ADJECTIVES if good else BAD_ADJECTIVES)
    noun = random.choice(GOOD_NOUNS if good else BAD_NOUNS)
    thing = f"{random.choice(OWNERS)} {random.choice(THINGS)}"
    degree = random.choice(DEGREES)
    said = (
        f"{thing} was {degree} {adjective}",
        f"{thing} seemed {degree} {adjective}",
        f"{thing} had a lot of {noun}",
        f"{thing} was full of {noun}",
    )
    negated = (
        f"{thing} was not {degree} {adjective}",
        f"{thing} was never {adjective}",
        f"{thing} had hardly any {noun}",
    )
    negate = random.random() < NEGATED
    text, praises = random.choice(negated if negate else said), good != negate
    return f"{text} {random.choice(TIMES)}", praises


def sentence(random: random.Random) -> tuple[str, str]:
    """A review and its label."""
    main, praises = clause(random)
    other, _ = clause(random)
    person = random.choice(PEOPLE)
    text = random.choice(
        (
            main,
            main,
            main,
            f"although {other}, {main}",
            f"{main}, although {other}",
            f"{other}, but {main}",
            f"{person} said {other}, yet {main}",
            f"{main}, whatever {person} said",
        )
    )
    return " ".join(text.split()).replace(" ,", ","), LABELS[praises]


def examples(count: int, *, seed: int, noise: float = 0.0) -> Iterator[tuple[str, str]]:
    """``count`` different reviews; a share ``noise`` of the labels is flipped."""
    generator = random.Random(seed)
    seen: set[str] = set()
    while len(seen) < count:
        text, label = sentence(generator)
        if text in seen:
            continue
        seen.add(text)
        if generator.random() < noise:
            label = LABELS[label == LABELS[0]]
        yield text, label
