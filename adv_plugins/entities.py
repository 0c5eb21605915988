"""Entity-level precision, recall and F1 (CoNLL's and WNUT's scores), by seqeval.

An entity counts when its first word, its last word and its type are right. The scores are micro
averages, so three counts that can be added up over batches and workers are all there is to know.
"""

import re
from typing import Callable, Dict, List, NamedTuple, Sequence

from fairseq_compat.errors import UserError

# Beginning, inside, end or single word of an entity of some type, or outside.
ENTITY_LABEL = re.compile(r"[BIES]-.+|O")


class EntityCounts(NamedTuple):
    """Numbers of entities: found and right, found, and to be found."""

    correct: int
    found: int
    true: int


def check_available(option: str, labels: Sequence[str]) -> None:
    """Make sure that ``option`` can be served, before a training that would end in its report.

    Raises:
        UserError: seqeval is not installed, or a label does not mark entities.
    """
    try:
        import seqeval.metrics.sequence_labeling  # noqa: F401
    except ImportError:
        raise UserError(
            f"{option} needs the package seqeval: pip install --use-pep517 seqeval, or leave the "
            "option out"
        ) from None
    for label in labels:
        if not ENTITY_LABEL.fullmatch(label):
            raise UserError(f"{option} needs labels such as B-person, I-person and O, not {label!r}")


def count_entities(
    predictions: Sequence[Sequence[str]], targets: Sequence[Sequence[str]]
) -> EntityCounts:
    """Entities of sentences, each a sequence of labels, one a word."""
    from seqeval.metrics.sequence_labeling import get_entities

    # seqeval puts an O between sentences, so an entity never runs on into the next.
    found = set(get_entities([list(labels) for labels in predictions]))
    true = set(get_entities([list(labels) for labels in targets]))
    return EntityCounts(len(found & true), len(found), len(true))


def f1(counts: EntityCounts) -> float:
    """Harmonic mean of precision and recall."""
    return 2 * counts.correct / max(counts.found + counts.true, 1)


def precision(counts: EntityCounts) -> float:
    """Share of the found entities that is right."""
    return counts.correct / max(counts.found, 1)


def recall(counts: EntityCounts) -> float:
    """Share of the true entities that is found."""
    return counts.correct / max(counts.true, 1)


# meter -> score
ENTITY_SCORES: Dict[str, Callable[[EntityCounts], float]] = {
    "f1": f1,
    "precision": precision,
    "recall": recall,
}


def label_sequences(
    classes: Sequence[Sequence[int]], shown: Sequence[Sequence[bool]], labels: Sequence[str]
) -> List[List[str]]:
    """Names of the (B, T) classes where ``shown`` (B, T) is true, sentence by sentence."""
    return [
        [labels[number] for number, is_shown in zip(*row) if is_shown] for row in zip(classes, shown)
    ]
