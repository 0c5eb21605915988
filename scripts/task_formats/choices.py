"""A question and several answers: ARC, DREAM, HellaSwag, CommonsenseQA."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glue_format import Split

from task_formats.common import Format, TaskError, entry, json_lines, make_split, one_line, read_files

# Most ARC questions have four answers, some three or five; a missing one becomes an empty text,
# which a model soon learns never to choose.
ARC_CHOICES = 5
# The names that fairseq's commonsense_qa reads (download.py's), and the official ones.
COMMONSENSE_FILES = {
    "train": ("train.jsonl", "train_rand_split.jsonl"),
    "valid": ("valid.jsonl", "dev_rand_split.jsonl"),
    "test": ("test.jsonl", "test_rand_split_no_answers.jsonl"),
}


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _lettered(row: Mapping[str, Any], place: str, count: int) -> tuple[list[str], str | None]:
    """The choices of a question in the format of ARC and CommonsenseQA, and the right one's number."""
    choices = entry(entry(row, "question", place), "choices", place)
    names = [str(entry(choice, "label", place)) for choice in choices]
    if not 2 <= len(choices) <= count:
        raise TaskError(f"{place}: {len(choices)} choices, at most {count} are possible")
    texts = [one_line(entry(choice, "text", place)) for choice in choices]
    key = row.get("answerKey")
    if key in (None, ""):
        return texts, None
    if str(key) not in names:
        raise TaskError(f"{place}: bad answerKey {key!r}; the choices are {', '.join(names)}")
    return texts, str(names.index(str(key)))


def _arc(name: str):
    def read(path: Path) -> Split:
        rows = []
        for number, row in json_lines(path):
            place = f"{path}:{number}"
            texts, label = _lettered(row, place, ARC_CHOICES)
            texts += [""] * (ARC_CHOICES - len(texts))
            stem = one_line(entry(row["question"], "stem", place))
            rows.append((number, (stem, *texts), label))
        return make_split(path, rows)

    files = {"train": "Train", "valid": "Dev", "test": "Test"}
    names = {split: (f"{name}-{file}.jsonl",) for split, file in files.items()}
    return lambda folder: read_files(folder, names, read)


def _commonsense_qa(path: Path) -> Split:
    """With the prefixes of fairseq's commonsense_qa task."""
    rows = []
    for number, row in json_lines(path):
        place = f"{path}:{number}"
        texts, label = _lettered(row, place, 5)
        if len(texts) != 5:
            raise TaskError(f"{place}: {len(texts)} choices instead of 5")
        stem = one_line(entry(row["question"], "stem", place))
        rows.append((number, (f"Q: {stem}", *(f"A: {text}" for text in texts)), label))
    return make_split(path, rows)


def _dream(path: Path) -> Split:
    """Dialogues with questions: the context of a choice is the dialogue and the question."""
    try:
        dialogues = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise TaskError(f"{path}: no JSON ({error})") from None
    rows = []
    for number, dialogue in enumerate(dialogues, start=1):
        place = f"{path}: dialogue {number}"
        if not isinstance(dialogue, list) or len(dialogue) < 2:
            raise TaskError(f"{place}: no turns and questions; is this the official file?")
        turns, questions = dialogue[:2]
        for question in questions:
            choices = [one_line(choice) for choice in entry(question, "choice", place)]
            answer = one_line(entry(question, "answer", place))
            if len(choices) != 3 or answer not in choices:
                raise TaskError(f"{place}: the answer is none of three choices")
            context = one_line(" ".join([*turns, entry(question, "question", place)]))
            rows.append((number, (context, *choices), str(choices.index(answer))))
    return make_split(path, rows)


def _hellaswag(path: Path) -> Split:
    rows = []
    for number, row in json_lines(path):
        place = f"{path}:{number}"
        endings = [one_line(ending) for ending in entry(row, "endings", place)]
        label = row.get("label")
        known = None if label in (None, "") else str(label)
        if len(endings) != 4 or known not in (None, *_numbers(4)):
            raise TaskError(f"{place}: {len(endings)} endings, label {label!r}; 4 and 0 to 3 are right")
        rows.append((number, (one_line(entry(row, "ctx", place)), *endings), known))
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
            folders=(f"ARC-V1-Feb2018-2/{name}",),  # in the official archive
        )
        for name in ("ARC-Easy", "ARC-Challenge")
    ),
    Format("DREAM", "ranking", _numbers(3), lambda f: read_files(f, DREAM_FILES, _dream)),
    Format("HellaSwag", "ranking", _numbers(4), lambda f: read_files(f, HELLASWAG_FILES, _hellaswag)),
    # fairseq's own task reads the official files and knows GPT-2's BPE only ...
    Format(
        "CommonsenseQA",
        "raw",
        _numbers(5),
        lambda f: read_files(f, COMMONSENSE_FILES, _commonsense_qa),
    ),
    # ... this is for weights with another tokenizer.
    Format(
        "CommonsenseQA-ranking",
        "ranking",
        _numbers(5),
        lambda f: read_files(f, COMMONSENSE_FILES, _commonsense_qa),
        folders=("CommonsenseQA",),
    ),
)
