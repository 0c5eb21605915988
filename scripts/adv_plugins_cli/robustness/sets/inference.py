"""Inference that cannot be told by the surface: HANS (McCoy et al., ACL 2019) and ANLI (Nie et al., ACL
2020)."""

from __future__ import annotations

from pathlib import Path

from adv_plugins_cli.command import UserError
from adv_plugins_cli.data.formats.classification import anli_rows
from adv_plugins_cli.robustness.rows import TextRow
from adv_plugins_cli.robustness.sets.common import ENTAILMENT, INFERENCE, TextSet, checked, table


def read_hans(path: Path) -> list[TextRow]:
    """heuristics_evaluation_set.txt; a part for each heuristic and label.

    Everything but entailment is one class, of a model of three classes the other two together.
    """
    path = path / "heuristics_evaluation_set.txt" if path.is_dir() else path
    columns = ("gold_label", "sentence1", "sentence2", "heuristic")
    rows = []
    for place, (label, premise, hypothesis, heuristic) in table(path, *columns, quoted=False):
        label = {"non-entailment": "not_entailment"}.get(label, label)
        rows.append(TextRow((premise, hypothesis), label, place, f"{heuristic}, {label}"))
    return checked(rows, ENTAILMENT, path)


def read_anli(path: Path) -> list[TextRow]:
    """A file of ANLI, or the folder of R1, R2 and R3: their test.jsonl, a part for each."""
    files: dict[Path, str | None] = {path: None}
    if path.is_dir():
        files = {path / name / "test.jsonl": name for name in ("R1", "R2", "R3")}
    rows = []
    for file, part in files.items():
        if not file.is_file():
            raise UserError(f"{file}: no such file")
        rows += [
            TextRow(tuple(texts), str(label), f"{file}:{number}", part)
            for number, texts, label in anli_rows(file)
        ]
    return checked(rows, INFERENCE, path)


SETS = (
    TextSet(
        "HANS",
        2,
        ENTAILMENT,
        read_hans,
        "heuristics_evaluation_set.txt, or its folder",
        "https://arxiv.org/abs/1902.01007",
    ),
    TextSet(
        "ANLI",
        2,
        INFERENCE,
        read_anli,
        "the folder of R1, R2 and R3, or one of their files",
        "https://arxiv.org/abs/1910.14599",
    ),
)
