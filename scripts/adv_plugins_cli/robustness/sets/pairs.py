"""Originals, and what people made of them so that the label changes: contrast sets of IMDB (Gardner et
al., EMNLP Findings 2020), counterfactual reviews and inferences (Kaushik et al., ICLR 2020).

A model is consistent on a pair if it is right on both.
"""

from __future__ import annotations

from pathlib import Path

from adv_plugins_cli.command import UserError
from adv_plugins_cli.robustness.rows import TextRow
from adv_plugins_cli.robustness.sets.common import INFERENCE, SENTIMENT, TextSet, checked, plain, table

ORIGINAL, CHANGED = "original", "contrast"


def read_contrast(path: Path) -> list[TextRow]:
    """A folder with test_original.tsv and test_contrast.tsv (or dev_...): line i is a pair."""
    split = "test" if (path / "test_original.tsv").is_file() else "dev"
    files = {part: path / f"{split}_{part}.tsv" for part in (ORIGINAL, CHANGED)}
    found = {
        part: [
            TextRow((plain(text),), label.lower(), place, part, str(number))
            for number, (place, (label, text)) in enumerate(
                table(file, "Sentiment", "Text", quoted=True), start=1
            )
        ]
        for part, file in files.items()
    }
    one, other = found.values()
    if len(one) != len(other):
        raise UserError(f"{files[CHANGED]}: {len(other)} rows, but {files[ORIGINAL]} has {len(one)}")
    for first, second in zip(one, other):
        if first.label == second.label:
            raise UserError(f"{second.place}: the label is {first.place}'s, so they are no contrast")
    return checked([*one, *other], SENTIMENT, path)


def read_counterfactual(path: Path) -> list[TextRow]:
    """test_paired.tsv: two rows of each batch_id, the original and its revision."""
    rows = [
        TextRow((plain(text),), label.lower(), place, None, batch)
        for place, (label, text, batch) in table(path, "Sentiment", "Text", "batch_id", quoted=True)
    ]
    seen: dict[str | None, list[TextRow]] = {}
    for row in rows:
        seen.setdefault(row.group, []).append(row)
    for group in seen.values():
        if len(group) != 2 or group[0].label == group[1].label:
            raise UserError(f"{group[0].place}: the rows of {group[0].group} are no pair of two labels")
    return checked(rows, SENTIMENT, path)


def read_counterfactual_inference(path: Path) -> list[TextRow]:
    """One of the NLI folder's files; their rows do not say which belong together."""
    rows = [
        TextRow((premise, hypothesis), label, place)
        for place, (premise, hypothesis, label) in table(
            path, "sentence1", "sentence2", "gold_label", quoted=True
        )
    ]
    return checked(rows, INFERENCE, path)


COUNTERFACTUAL = "https://arxiv.org/abs/1909.12434"
SETS = (
    TextSet(
        "IMDB-contrast",
        1,
        SENTIMENT,
        read_contrast,
        "the folder of test_original.tsv and test_contrast.tsv",
        "https://arxiv.org/abs/2004.02709",
    ),
    TextSet(
        "counterfactual-IMDB",
        1,
        SENTIMENT,
        read_counterfactual,
        "sentiment/combined/paired/test_paired.tsv",
        COUNTERFACTUAL,
    ),
    TextSet(
        "counterfactual-NLI",
        2,
        INFERENCE,
        read_counterfactual_inference,
        "NLI/revised_combined/test.tsv, or another of the folder NLI",
        COUNTERFACTUAL,
    ),
)
