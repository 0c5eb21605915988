"""The other tasks' files, malformed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from bad_inputs.common import DEEP, LATIN, full, mounted, refuses, works
from campaign_fixtures import (
    Step,
    changed,
    copied,
    folder,
    full_disk,
    read_only_disk,
    removed,
    replaced,
    write,
)
from campaign_judge import Case


def question(names: str, key: str | None) -> str:
    """A question in the format of ARC and CommonsenseQA."""
    choices = [{"text": "x", "label": name} for name in names]
    answer = {} if key is None else {"answerKey": key}
    return json.dumps({"question": {"stem": "a", "choices": choices}, **answer})


def pronoun(index: str) -> str:
    """A row of WSC, with the place of its pronoun."""
    spans = f'"span1_text": "a", "span1_index": 0, "span2_text": "it", "span2_index": {index}'
    return f'{{"text": "a it c", "target": {{{spans}}}, "label": true}}'


# Of each file (and the number of its rows) what is wrong with one row more; of some, with the whole.
LATIN_TEXT = LATIN.decode("latin-1")  # written as Latin-1 where it stands
ADDED: dict[tuple[str, str, int], dict[str, str]] = {
    ("TNEWS", "train.json", 6): {
        "a broken line": "{",
        "a line that is a list": "[1]",
        "a line nested too deeply": DEEP,
        "text that is not UTF-8": f'{{"sentence": "{LATIN_TEXT}", "label": 102}}',
        "an unlabelled row": '{"sentence": "a"}',
        "an unknown label": '{"sentence": "a", "label": 105}',
        "a null label": '{"sentence": "a", "label": null}',
        "a null text": '{"sentence": null, "label": 102}',
        "a text that is a list": '{"sentence": ["a"], "label": 102}',
        "no text": '{"label": 102}',
        "a lone surrogate": r'{"sentence": "\ud800", "label": 102}',
    },
    ("IFLYTEK", "train.json", 6): {"an unknown label": '{"sentence": "a", "label": 999}'},
    ("AG-News", "train.csv", 20): {
        "a column less": '"1","a"',
        "an unknown class": '"9","a","b"',
        "text that is not UTF-8": f'"1","{LATIN_TEXT}","b"',
        "a NUL byte": '"\0","a","b"',
        "quotes that do not close": '"1","a","open',
    },
    ("ANLI", "R1/train.jsonl", 2): {
        "an unknown label": '{"context": "a", "hypothesis": "b", "label": "x"}',
        "a null hypothesis": '{"context": "a", "hypothesis": null, "label": "c"}',
    },
    ("PAWS-QQP", "train.tsv", 3): {
        "a broken literal": "3\tb'open\tb\t1",
        "a column less": "3\ta\t1",
        "text that is not UTF-8": f"3\t{LATIN_TEXT}\tb\t1",
    },
    ("ARC-Easy", "ARC-Easy-Train.jsonl", 3): {
        "no choices": '{"question": {"stem": "a"}}',
        "choices that are text": '{"question": {"stem": "a", "choices": "bc"}, "answerKey": "A"}',
        "a question that is text": '{"question": "a", "answerKey": "A"}',
        "an answer that is no choice": question("AB", "Z"),
        "null choices": question("AB", "A").replace('"x"', "null"),
    },
    ("CommonsenseQA-ranking", "train_rand_split.jsonl", 4): {
        "four choices": question("ABCD", "A"),
        "an unlabelled row": question("ABCDE", None),
    },
    ("CommonsenseQA", "train_rand_split.jsonl", 4): {"a broken line": "{"},
    ("HellaSwag", "hellaswag_train.jsonl", 4): {
        "three endings": '{"ctx": "a", "endings": ["b", "b", "b"], "label": 0}',
        "a label out of range": '{"ctx": "a", "endings": ["b", "b", "b", "b"], "label": 4}',
        "null endings": '{"ctx": "a", "endings": [null, null, null, null], "label": 0}',
        "endings that are a number": '{"ctx": "a", "endings": 4, "label": 0}',
    },
    ("WSC", "train.jsonl", 2): {
        "a target that is text": '{"text": "a b", "target": "b", "label": true}',
        "a place that is text": pronoun('"x"'),
        "a place that is null": pronoun("null"),
        "a pronoun that is not in the text": pronoun("1").replace('"it"', '"she"'),
    },
    ("WNUT-17", "wnut17train.conll", 36): {
        "a word without a label": "word",
        "an unknown label": "word\tB-fox",
        "a word that is not UTF-8": f"{LATIN_TEXT}\tO",
    },
}
ASKED = '"question": "a", "choice": ["a", "b", "c"], "answer"'
WHOLE: dict[tuple[str, str], dict[str, str]] = {
    ("TNEWS", "train.json"): {"an empty file": ""},
    ("AG-News", "train.csv"): {"an empty file": ""},
    ("WNUT-17", "wnut17train.conll"): {"an empty file": ""},
    ("IMDB", "train/neg/3_1.txt"): {"a review that is not UTF-8": LATIN_TEXT},
    ("DREAM", "train.json"): {
        "a broken file": "[[",
        "a file nested too deeply": DEEP,
        "an object instead of a list": '{"a": 1}',
        "a number instead of a list": "3",
        "dialogues that are text": '["ab"]',
        "questions that are numbers": '[[["a"], [1], "i"]]',
        "turns that are numbers": f'[[[1], [{{{ASKED}: "a"}}], "i"]]',
        "an answer that is no choice": f'[[["a"], [{{{ASKED}: "d"}}], "i"]]',
        "a null answer": f'[[["a"], [{{{ASKED}: null}}], "i"]]'.replace('"c"', '"None"'),
        "a file that is not UTF-8": LATIN_TEXT,
    },
}


def preprocess_task_cases() -> Iterator[Case]:
    """The official files of the other tasks, malformed."""
    bpe = "--bpe-dir {made}/start"

    def task(
        name: str,
        wrong: str,
        says: str,
        *steps: Step,
        make: Callable[..., Case] = refuses,
        source: str = "",
        **more: Any,
    ) -> Case:
        line = f"--data-dir {{in}} {name} --out-dir {{out}}/bin {bpe}"
        copy = copied(f"tasks/{source or name}")
        return make("preprocess_task", f"{wrong} ({name})", line, says, copy, *steps, **more)

    def added(file: str, row: str) -> Step:
        return changed(file, lambda content: content + row.encode("latin-1") + b"\n")

    for (name, file, rows), faults in ADDED.items():
        source = name.partition("-ranking")[0]
        for wrong, row in faults.items():
            says = re.escape(f"{source}/{file}") + rf"(:{rows + 1}\b|.*UTF-8|.*NUL)"
            yield task(name, wrong, says, added(f"{source}/{file}", row), source=source)
    for (name, file), faults in WHOLE.items():
        for wrong, content in faults.items():
            step = write(f"{name}/{file}", content.encode("latin-1"))
            yield task(name, wrong, re.escape(f"{name}/{file}"), step)
    tnews, paws = "TNEWS/train.json", "PAWS-QQP/train.tsv"
    for name, wrong, says, step in (
        ("TNEWS", "no train.json", r"train\.json", removed(tnews)),
        ("IMDB", "no review", r"train/neg", removed("IMDB/train/neg")),
        ("IMDB", "a folder as review", r"x\.txt", folder("IMDB/train/neg/x.txt")),
        ("ANLI", "no second round", r"R2/train\.jsonl", removed("ANLI/R2/train.jsonl")),
        ("PAWS-QQP", "a header of another file", r"train\.tsv:1", replaced(paws, "sentence1", "a")),
    ):
        yield task(name, wrong, says, step)

    mark = lambda content: b"\xef\xbb\xbf" + content  # noqa: E731
    long = '"1","' + "a" * 200_000 + '","b"'
    for name, wrong, step in (
        ("TNEWS", "a byte-order mark", changed(tnews, mark)),
        ("WNUT-17", "a byte-order mark", changed("WNUT-17/wnut17train.conll", mark)),
        ("AG-News", "a byte-order mark", changed("AG-News/train.csv", mark)),
        ("DREAM", "a byte-order mark", changed("DREAM/train.json", mark)),
        ("PAWS-QQP", "a byte-order mark", changed("PAWS-QQP/train.tsv", mark)),
        ("IMDB", "a byte-order mark", changed("IMDB/train/neg/1_1.txt", mark)),
        ("AG-News", "a field of 200,000 characters", added("AG-News/train.csv", long)),
        (
            "WNUT-17",
            "carriage returns",
            changed("WNUT-17/wnut17train.conll", lambda b: b.replace(b"\n", b"\r\n")),
        ),
        (
            "WSC",
            "a place that is off by one",
            replaced("WSC/train.jsonl", '"span2_index": 9', '"span2_index": 8'),
        ),
    ):
        yield task(name, wrong, "", step, make=works)
    line = f"--data-dir {{made}}/tasks --out-dir {{out}}/bin {bpe} "
    say = "preprocess_task"
    yield refuses(say, "an unknown task", line + "NOPE", "NOPE")
    yield refuses(say, "a missing folder", line.replace("{made}/tasks", "{in}/none") + "DREAM", "none")
    yield refuses(say, "an output that exists", line.replace("{out}", "{made}") + "DREAM", "DREAM-bin")
    yield refuses(
        say,
        "an output below a file",
        line.replace("{out}", "{in}/file") + "DREAM",
        "file",
        write("file", "x"),
    )
    yield refuses(
        say,
        "raw text for WordPiece",
        "--data-dir {made}/tasks --out-dir {out}/bin CommonsenseQA --wordpiece {made}/bert",
        "CommonsenseQA-ranking",
    )
    disk = line.replace("{out}/bin", "{out}/disk") + "DREAM"
    yield refuses(say, "a full disk", disk, "disk|[Nn]o space", full_disk(8), **full())
    yield refuses(say, "a read-only disk", disk, "disk", read_only_disk(), **mounted())
