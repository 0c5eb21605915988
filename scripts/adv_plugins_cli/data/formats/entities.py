"""Words with labels: WNUT-17, in the CoNLL format of the shared task."""

from __future__ import annotations

import itertools
from pathlib import Path

from adv_plugins_cli.command import UserError, read_lines
from adv_plugins_cli.data.formats.common import Format, check_label, listed, make_split, read_files
from adv_plugins_cli.data.glue_format import Split

TYPES = ("corporation", "creative-work", "group", "location", "person", "product")
LABELS = ("O", *(f"{place}-{name}" for name in TYPES for place in "BI"))
FILES = {
    "train": ("wnut17train.conll",),
    "valid": ("emerging.dev.conll",),
    "test": ("emerging.test.annotated",),
}


def read_conll(path: Path) -> Split:
    """Sentences: the words, parted by spaces, and as many labels.

    Raises:
        UserError: a line is neither empty nor a word and a label.
    """
    rows, first = [], 1
    words: list[str] = []
    labels: list[str] = []
    for number, line in itertools.chain(read_lines(path), [(0, "")]):
        fields = line.strip().split("\t")
        if fields == [""]:
            if words:
                rows.append((first, (" ".join(words),), " ".join(labels)))
            words, labels, first = [], [], number + 1
            continue
        place = f"{path}:{number}"
        if len(fields) != 2 or " " in fields[0]:
            raise UserError(f"{place}: not a word and its label, parted by a tab")
        words.append(fields[0])
        labels.append(check_label(fields[1], LABELS, place))
    return make_split(path, rows)


TASKS = (
    Format(
        "WNUT-17",
        "entities",
        LABELS,
        lambda folder: read_files(folder, FILES, read_conll),
        listed(FILES),
    ),
)
