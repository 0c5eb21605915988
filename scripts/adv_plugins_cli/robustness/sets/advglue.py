"""AdvGLUE (Wang et al., NeurIPS 2021): GLUE's development rows, changed by attacks and people."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from adv_plugins_cli.command import UserError, read_json
from adv_plugins_cli.data.formats.common import entry, of_kind, one_line
from adv_plugins_cli.robustness.rows import TextRow
from adv_plugins_cli.robustness.sets.common import (
    ENTAILMENT,
    INFERENCE,
    PARAPHRASE,
    SENTIMENT,
    Meaning,
    TextSet,
    checked,
)

PAPER = "https://arxiv.org/abs/2111.02840"
TWO = ("entailment", "not_entailment")
THREE = ("entailment", "neutral", "contradiction")
SENTENCES = ("sentence1", "sentence2")
# Name: key in the file, columns, names of the labels in the order of their numbers, what they mean.
TASKS: tuple[tuple[str, str, tuple[str, ...], tuple[str, ...], Sequence[Meaning]], ...] = (
    ("SST-2", "sst2", ("sentence",), ("negative", "positive"), SENTIMENT),
    ("QQP", "qqp", ("question1", "question2"), ("0", "1"), PARAPHRASE),
    ("MNLI", "mnli", ("premise", "hypothesis"), THREE, INFERENCE),
    ("MNLI-mm", "mnli-mm", ("premise", "hypothesis"), THREE, INFERENCE),
    ("QNLI", "qnli", ("question", "sentence"), TWO, ENTAILMENT[:1]),
    ("RTE", "rte", SENTENCES, TWO, ENTAILMENT),
)


def read(
    path: Path,
    *,
    key: str,
    columns: Sequence[str],
    labels: Sequence[str],
    meanings: Sequence[Meaning],
) -> list[TextRow]:
    """One task's rows of the official dev.json."""
    path = path / "dev.json" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    rows = []
    for number, row in enumerate(entry(read_json(path), key, list, str(path)), start=1):
        place = f"{path}: {key} {number}"
        texts = tuple(one_line(entry(row, column, str, place)) for column in columns)
        label = of_kind(entry(row, "label", int, place), int, place)
        if not 0 <= label < len(labels):
            raise UserError(f"{place}: bad label {label}; the set has 0 to {len(labels) - 1}")
        rows.append(TextRow(texts, labels[label], place))
    return checked(rows, meanings, path)


SETS = tuple(
    TextSet(
        f"AdvGLUE-{name}",
        len(columns),
        meanings,
        partial(read, key=key, columns=columns, labels=labels, meanings=meanings),
        "dev.json, or its folder",
        PAPER,
    )
    for name, key, columns, labels, meanings in TASKS
)
