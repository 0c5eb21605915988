"""Which of two candidates is the right one: QNLI, WNLI and WSC as FreeLB's appendix A.1 has them.

Rows of the official file that belong together become one example with two candidates. Their order
is random (always the same), so that the label is not their place. ``rows`` remembers which row of
the official file each candidate was: the one with the higher score is the "entailment".
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from adv_plugins_cli.command import UserError
from adv_plugins_cli.data.formats.common import (
    SEED,
    Format,
    check_all_or_none,
    entry,
    first_file,
    json_lines,
    of_kind,
    one_line,
)
from adv_plugins_cli.data.glue_format import TASKS as GLUE_TASKS
from adv_plugins_cli.data.glue_format import Split, read_split

PUNCTUATION = ".,;:!?\"'"
ELSEWHERE = -1  # the row of a candidate that is not in the split's own file
POSITIVE = {"QNLI": "entailment", "WNLI": "1"}


class Candidate(NamedTuple):
    """One row: its number in its file from 0, its text, whether it is the right one (None: unknown)."""

    row: int
    text: str
    right: bool | None


class Pairs(NamedTuple):
    """A split as pairs: the examples (its skipped lines are the rows without a partner), and the
    official rows of their candidates."""

    split: Split
    rows: list[tuple[int, int]]


def make_pairs(
    path: Path, groups: Mapping[str, list[Candidate]], more: Mapping[str, list[Candidate]] | None = None
) -> Pairs:
    """Pair the candidates of every context.

    Args:
        groups: the candidates of each context (the first input).
        more: of another file, partners for those that stay alone.

    Raises:
        UserError: nothing can be paired.
    """
    import numpy as np

    order = np.random.default_rng(SEED)
    contexts, firsts, seconds = [], [], []
    labels, rows, alone = [], [], []
    for context, candidates in groups.items():
        known = [c for c in candidates if c.right is not None]
        if known:
            found = list(_right_with_wrong(known))
        else:
            found = [(candidates[0], candidates[1])] if len(candidates) == 2 else []
            if len(candidates) == 1 and more and len(more.get(context, ())) == 1:
                partner = more[context][0]
                found = [(candidates[0], partner._replace(row=ELSEWHERE, right=None))]
        paired = {c.row for pair in found for c in pair}
        alone += [c.row for c in candidates if c.row not in paired]
        for pair in found:
            first, second = pair if order.random() < 0.5 else pair[::-1]
            contexts.append(context)
            firsts.append(first.text)
            seconds.append(second.text)
            rows.append((first.row, second.row))
            labels.append(None if first.right is None else str(int(not first.right)))
    if not contexts:
        raise UserError(f"{path}: no two rows belong together")
    known_labels = [label for label in labels if label is not None]
    lines = [max(pair) + 1 for pair in rows]
    are_known = len(known_labels) == len(labels)
    inputs = (contexts, firsts, seconds)
    split = Split(path, inputs, known_labels if are_known else None, lines, sorted(alone))
    return Pairs(split, rows)


def _right_with_wrong(candidates: list[Candidate]) -> Iterator[tuple[Candidate, Candidate]]:
    """Every right candidate with every wrong one."""
    right = [c for c in candidates if c.right]
    wrong = [c for c in candidates if not c.right]
    return ((r, w) for r in right for w in wrong)


def _glue_groups(name: str, split: Split, *, labelled: bool) -> dict[str, list[Candidate]]:
    groups: dict[str, list[Candidate]] = defaultdict(list)
    labels = split.labels if labelled and split.labels is not None else [None] * len(split.lines)
    for row, (context, text, label) in enumerate(zip(*split.inputs, labels)):
        right = None if label is None else label == POSITIVE[name]
        groups[context].append(Candidate(row, text, right))
    return groups


def glue_pairs(name: str) -> Callable[[Path], dict[str, Pairs]]:
    """A GLUE task of sentence pairs, matched by the first sentence.

    As the paper says, a test row without partner in its own file gets the one of the dev file.
    """

    def read(folder: Path) -> dict[str, Pairs]:
        found, dev = {}, None
        for split, file in (("train", "train.tsv"), ("valid", "dev.tsv"), ("test", "test.tsv")):
            path = first_file(folder, file)
            if path is None:
                continue
            official = read_split(path, GLUE_TASKS[name], test=split == "test")
            groups = _glue_groups(name, official, labelled=split != "test")
            dev = groups if split == "valid" else dev
            found[split] = make_pairs(path, groups, dev if split == "test" else None)
        if not found:
            raise UserError(f"{folder / 'train.tsv'}: no such file, nor dev.tsv or test.tsv")
        return found

    return read


def _pronoun_at(text: str, index: int, pronoun: Sequence[str]) -> int | None:
    """The number of the word of ``text`` at which the pronoun begins; None: it is not near ``index``.

    In the official validation set some indices are off by a word. Others count as words what is
    between two spaces, also where that is nothing.
    """

    def bare(words: Sequence[str]) -> list[str]:
        return [word.strip(PUNCTUATION).casefold() for word in words]

    words, wanted = bare(text.split()), bare(pronoun)
    by_spaces = len(" ".join(text.split(" ")[:index]).split())
    for place in (index, by_spaces, index + 1, by_spaces + 1, index - 1):
        if place >= 0 and words[place : place + len(wanted)] == wanted:
            return place
    return None


def _wsc(folder: Path) -> dict[str, Pairs]:
    """SuperGLUE's WSC: the text with the pronoun replaced by each of two nouns."""
    found = {}
    for split, file in (("train", "train.jsonl"), ("valid", "val.jsonl"), ("test", "test.jsonl")):
        path = first_file(folder, file)
        if path is None:
            continue
        groups: dict[str, list[Candidate]] = defaultdict(list)
        lines, labelled, mended = [], [], []
        for number, row in json_lines(path):
            place = f"{path}:{number}"
            text, target = entry(row, "text", str, place), entry(row, "target", dict, place)
            words = text.split()
            official = entry(target, "span2_index", int, place)
            pronoun = entry(target, "span2_text", str, place).split()
            index = _pronoun_at(text, official, pronoun) if pronoun and official >= 0 else None
            if index is None:
                raise UserError(f"{place}: word {official} of the text is not {' '.join(pronoun)!r}")
            if index != official:
                mended.append(number)
            last = words[index + len(pronoun) - 1]
            ending = last[len(last.rstrip(PUNCTUATION)) :]
            noun = one_line(entry(target, "span1_text", str, place)).rstrip(".,") + ending
            replaced = " ".join([*words[:index], noun, *words[index + len(pronoun) :]])
            context = " ".join([*words[:index], "_", *words[index + len(pronoun) :]])
            right = row.get("label")
            if right is not None:
                of_kind(right, bool, f"{place}: 'label'")
            lines.append(number)
            labelled.append(right is not None)
            groups[context].append(Candidate(number - 1, replaced, right))
        check_all_or_none(path, lines, labelled)
        pairs = make_pairs(path, groups)
        found[split] = pairs._replace(split=dataclasses.replace(pairs.split, mended_lines=mended))
    if not found:
        raise UserError(f"{folder / 'train.jsonl'}: no such file")
    return found


def _format(name: str, read: Callable[[Path], dict[str, Pairs]], expects: str, folder: str) -> Format:
    return Format(
        name,
        "ranking",
        ("0", "1"),
        lambda path: {split: pairs.split for split, pairs in read(path).items()},
        expects,
        folders=(folder, f"glue/{folder}"),
        rows=lambda path: {split: pairs.rows for split, pairs in read(path).items()},
    )


GLUE_FILES = "train.tsv, dev.tsv, test.tsv"

TASKS = (
    _format("QNLI-ranking", glue_pairs("QNLI"), GLUE_FILES, "QNLI"),
    _format("WNLI-ranking", glue_pairs("WNLI"), GLUE_FILES, "WNLI"),
    _format("WSC", _wsc, "train.jsonl, val.jsonl, test.jsonl", "WSC"),
)
