"""A question and several answers: ARC, DREAM, HellaSwag, CommonsenseQA."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adv_plugins_cli.command import UserError, read_json
from adv_plugins_cli.data.formats.common import (
    Format,
    Read,
    entry,
    json_lines,
    listed,
    make_split,
    of_kind,
    one_line,
    read_files,
    texts,
)
from adv_plugins_cli.data.glue_format import Split
from fairseq_compat.task_kinds import TASK_KINDS

# Most ARC questions have four answers, some three or five; a missing one becomes an empty text,
# which a model soon learns never to choose.
ARC_CHOICES = 5
# The names that fairseq's commonsense_qa reads (adv-plugins download's), and the official ones.
COMMONSENSE_FILES = {
    "train": ("train.jsonl", "train_rand_split.jsonl"),
    "valid": ("valid.jsonl", "dev_rand_split.jsonl"),
    "test": ("test.jsonl", "test_rand_split_no_answers.jsonl"),
}


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _lettered(
    row: Mapping[str, Any], place: str, count: int
) -> tuple[str, list[str], list[str], str | None]:
    """A question in the format of ARC and CommonsenseQA: its stem, the names of its choices and their
    texts, and the number of the right one."""
    question = entry(row, "question", dict, place)
    choices = entry(question, "choices", list, place)
    names = [entry(choice, "label", str, place) for choice in choices]
    if not 2 <= len(choices) <= count:
        raise UserError(f"{place}: {len(choices)} choices, at most {count} are possible")
    if len(set(names)) < len(names):
        raise UserError(f"{place}: two choices have one label ({', '.join(names)})")
    found = [one_line(entry(choice, "text", str, place)) for choice in choices]
    stem = one_line(entry(question, "stem", str, place))
    key = row.get("answerKey")
    if key in (None, ""):
        return stem, names, found, None
    if key not in names:
        raise UserError(f"{place}: bad answerKey {key!r}; the choices are {', '.join(names)}")
    return stem, names, found, str(names.index(key))


def _arc(name: str) -> Read:
    def read(path: Path) -> Split:
        rows = []
        for number, row in json_lines(path):
            place = f"{path}:{number}"
            stem, _, answers, label = _lettered(row, place, ARC_CHOICES)
            answers += [""] * (ARC_CHOICES - len(answers))
            rows.append((number, (stem, *answers), label))
        return make_split(path, rows)

    files = {"train": "Train", "valid": "Dev", "test": "Test"}
    names = {split: (f"{name}-{file}.jsonl",) for split, file in files.items()}
    return lambda folder: read_files(folder, names, read)


def _commonsense_qa(path: Path) -> Split:
    """With the prefixes of fairseq's commonsense_qa task."""
    question, answer = TASK_KINDS["commonsense_qa"].prefixes
    rows = []
    for number, row in json_lines(path):
        place = f"{path}:{number}"
        stem, names, answers, label = _lettered(row, place, 5)
        if names != list("ABCDE"):  # fairseq's task takes the answer's letter for its number
            raise UserError(f"{place}: the choices are {', '.join(names)} instead of A to E")
        if label is None and "answerKey" in row:
            raise UserError(f"{place}: the answerKey is {row['answerKey']!r}; a test row has none")
        rows.append((number, (question + stem, *(answer + text for text in answers)), label))
    return make_split(path, rows)


def _dream(path: Path) -> Split:
    """Dialogues with questions: the context of a choice is the dialogue and the question."""
    rows = []
    for number, dialogue in enumerate(read_json(path, list), start=1):
        place = f"{path}: dialogue {number}"
        if not isinstance(dialogue, list) or len(dialogue) < 2:
            raise UserError(f"{place}: no turns and questions; is this the official file?")
        turns = texts(of_kind(dialogue[0], list, f"{place}: its first part"), f"{place}: turn")
        for question in of_kind(dialogue[1], list, f"{place}: its second part"):
            choices = texts(entry(question, "choice", list, place), f"{place}: choice")
            answer = one_line(entry(question, "answer", str, place))
            if len(choices) != 3 or answer not in choices:
                raise UserError(f"{place}: the answer is none of three choices")
            context = one_line(" ".join([*turns, entry(question, "question", str, place)]))
            rows.append((number, (context, *choices), str(choices.index(answer))))
    return make_split(path, rows)


def _hellaswag(path: Path) -> Split:
    rows = []
    for number, row in json_lines(path):
        place = f"{path}:{number}"
        endings = texts(entry(row, "endings", list, place), f"{place}: ending")
        label = row.get("label")
        known = None if label in (None, "") else str(label)
        if len(endings) != 4 or known not in (None, *_numbers(4)):
            raise UserError(f"{place}: {len(endings)} endings, label {label!r}; 4 and 0 to 3 are right")
        rows.append((number, (one_line(entry(row, "ctx", str, place)), *endings), known))
    return make_split(path, rows)


DREAM_FILES = {"train": ("train.json",), "valid": ("dev.json",), "test": ("test.json",)}
HELLASWAG_FILES = {
    split: (f"hellaswag_{name}.jsonl",)
    for split, name in (("train", "train"), ("valid", "val"), ("test", "test"))
}

TASKS = (
    *(
        Format(
            name,
            "ranking",
            _numbers(ARC_CHOICES),
            _arc(name),
            f"{name}-{{Train,Dev,Test}}.jsonl",
            folders=(f"ARC-V1-Feb2018-2/{name}",),  # in the official archive
        )
        for name in ("ARC-Easy", "ARC-Challenge")
    ),
    Format(
        "DREAM",
        "ranking",
        _numbers(3),
        lambda f: read_files(f, DREAM_FILES, _dream),
        listed(DREAM_FILES),
    ),
    Format(
        "HellaSwag",
        "ranking",
        _numbers(4),
        lambda f: read_files(f, HELLASWAG_FILES, _hellaswag),
        listed(HELLASWAG_FILES),
    ),
    # fairseq's own task reads the official files and knows GPT-2's BPE only ...
    Format(
        "CommonsenseQA",
        "raw",
        _numbers(5),
        lambda f: read_files(f, COMMONSENSE_FILES, _commonsense_qa),
        listed(COMMONSENSE_FILES),
    ),
    # ... this is for weights with another tokenizer.
    Format(
        "CommonsenseQA-ranking",
        "ranking",
        _numbers(5),
        lambda f: read_files(f, COMMONSENSE_FILES, _commonsense_qa),
        listed(COMMONSENSE_FILES),
        folders=("CommonsenseQA",),
    ),
)
