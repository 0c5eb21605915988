"""What is measured in text of one checkpoint: sets that people made, and attacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adv_plugins_cli.robustness.attacks.search import Candidates, Limits, Victim, attack
from adv_plugins_cli.robustness.attacks.synonyms import Neighbours, synonyms
from adv_plugins_cli.robustness.attacks.typos import typos
from adv_plugins_cli.robustness.results_file import ResultsFile
from adv_plugins_cli.robustness.rows import TextRow
from adv_plugins_cli.robustness.sets.common import Meaning
from adv_plugins_cli.robustness.worst_case import hash_of

if TYPE_CHECKING:
    from adv_plugins_cli.robustness.metrics import Metric

ATTACKS = ("typos", "synonyms")


@dataclass(frozen=True)
class LabelledText:
    """Rows, and of each the numbers of the classes that are right."""

    name: str
    rows: list[TextRow]
    right: list[frozenset[int]]

    @property
    def groups(self) -> list[list[int]]:
        """The numbers of the rows that must be right together; none where the set has no groups."""
        found: dict[str, list[int]] = {}
        for number, row in enumerate(self.rows):
            if row.group is not None:
                found.setdefault(row.group, []).append(number)
        return list(found.values())

    @property
    def parts(self) -> dict[str, list[int]]:
        """The numbers of the rows of each part."""
        found: dict[str, list[int]] = {}
        for number, row in enumerate(self.rows):
            if row.part is not None:
                found.setdefault(row.part, []).append(number)
        return found

    def take(self, numbers: Sequence[int]) -> LabelledText:
        """Some of the rows."""
        return LabelledText(self.name, [self.rows[i] for i in numbers], [self.right[i] for i in numbers])


def labelled(
    name: str, rows: Sequence[TextRow], labels: Sequence[str], meaning: Meaning | None = None
) -> LabelledText:
    """Rows with the classes that their labels mean; by default those of the same name."""
    right = [
        frozenset(labels.index(each) for each in (meaning[row.label] if meaning else (row.label,)))
        for row in rows
    ]
    return LabelledText(name, list(rows), right)


def hits(victim: Victim, text: LabelledText) -> NDArray[np.bool_]:
    """(N,) whether each row is right."""
    chosen = victim([row.texts for row in text.rows]).argmax(axis=1)
    return np.array([int(number) in right for number, right in zip(chosen, text.right)])


def consistent(right: NDArray[np.bool_], text: LabelledText) -> NDArray[np.bool_]:
    """(groups,) whether all of a group's rows are right (Gardner et al., section 2)."""
    return np.array([right[group].all() for group in text.groups], dtype=bool)


def share(right: NDArray[np.bool_]) -> Metric:
    """Percent of what is right, as a metric of the numbers of rows."""
    return lambda numbers: float(100 * right[numbers].mean())


def candidates_of(name: str, count: int, seed: int, neighbours: Neighbours | None) -> Candidates:
    """What an attack makes of a word.

    Args:
        count: at most so many.
    """
    if name == "typos":
        return lambda word, place: typos(word, count, hash_of(seed, place))
    assert neighbours is not None
    return lambda word, place: synonyms(word, count, neighbours)


def attack_rows(
    victim: Victim,
    text: LabelledText,
    candidates: Callable[[int], Candidates],
    limits: Limits,
    results: ResultsFile,
    title: str,
) -> list[dict[str, Any]]:
    """Attack every row that has no result yet.

    Args:
        candidates: of the row with this number.
    """
    from tqdm import tqdm

    for number in tqdm(range(len(text.rows)), desc=title, unit=" rows"):
        if number not in results.done:
            found = attack(
                victim, text.rows[number].texts, text.right[number], candidates(number), limits
            )
            results.add(number, **asdict(found))
    return results.rows(len(text.rows))


def summarise_attack(found: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Rates in percent, means over the rows that were attacked, words changed over those broken."""
    outcomes = [row["outcome"] for row in found]
    attacked = [row for row in found if row["outcome"] != "wrong"]
    broken = [row for row in found if row["outcome"] == "broken"]
    return {
        "rows": len(found),
        "accuracy": 100 * len(attacked) / max(len(found), 1),
        "accuracy_under_attack": 100 * outcomes.count("held") / max(len(found), 1),
        "success": 100 * len(broken) / max(len(attacked), 1),
        "queries": float(np.mean([row["queries"] for row in attacked])) if attacked else 0.0,
        "words_changed": 100 * float(np.mean([row["changed"] / row["words"] for row in broken]))
        if broken
        else 0.0,
    }


def adversarial_table(text: LabelledText, found: Sequence[dict[str, Any]]) -> str:
    """The rows that were broken, as text parted by tabs."""
    header = ["row", "label", "before", "after", "queries", "changed", "original", "adversarial"]
    lines = ["\t".join(header)]
    for row in found:
        if row["outcome"] == "broken":
            original = text.rows[row["row"]]
            values = [row["row"], original.label, f"{row['before']:.4f}", f"{row['after']:.4f}"]
            values += [row["queries"], row["changed"]]
            texts = [" ||| ".join(each) for each in (original.texts, row["texts"])]
            lines.append("\t".join([*map(str, values), *texts]))
    return "".join(f"{line}\n" for line in lines)
