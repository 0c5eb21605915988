"""Paraphrases that share their words or not: PAWS (Zhang et al., NAACL 2019)."""

from __future__ import annotations

from pathlib import Path

from adv_plugins_cli.command import UserError
from adv_plugins_cli.data.formats.classification import paws_split
from adv_plugins_cli.robustness.rows import TextRow
from adv_plugins_cli.robustness.sets.common import PARAPHRASE, TextSet, checked
from adv_plugins_cli.robustness.sets.glue import rows_of


def read_paws(path: Path) -> list[TextRow]:
    """A file of PAWS-Wiki or PAWS-QQP."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    return checked(rows_of(paws_split(path)), PARAPHRASE, path)


SETS = (
    TextSet(
        "PAWS",
        2,
        PARAPHRASE,
        read_paws,
        "test.tsv of PAWS-Wiki, dev_and_test.tsv of PAWS-QQP",
        "https://arxiv.org/abs/1904.01130",
    ),
)
