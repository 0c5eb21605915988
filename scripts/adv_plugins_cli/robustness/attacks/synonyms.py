"""Near synonyms of words, from a list of neighbours: a JSON object of words with their nearest ones.

The list of the counter-fitted word vectors is one (Mrksic et al., NAACL 2016), which TextFooler uses
(Jin et al., AAAI 2020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from adv_plugins_cli.command import UserError, read_json

Neighbours = Mapping[str, Sequence[str]]


def read_neighbours(path: Path) -> Neighbours:
    """The list.

    Raises:
        UserError: it is of another format.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file (--neighbors)")
    found = read_json(path)
    for word, others in found.items():
        if not isinstance(others, list) or not all(isinstance(other, str) for other in others):
            raise UserError(
                f"{path}: {word[:40]!r} has no list of words; a list of neighbours is an object of "
                "words with lists of words, the nearest first (--neighbors)"
            )
    if not any(found.values()):
        raise UserError(f"{path}: no word has a neighbour (--neighbors)")
    return found


def synonyms(word: str, count: int, neighbours: Neighbours) -> list[str]:
    """Up to ``count`` of a word's neighbours, the nearest first, single words only."""
    known = neighbours.get(word.lower(), ())
    return [other for other in known if other.isalpha() and other != word.lower()][:count]
