"""Predictions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import campaign_judge as judge
from bad_inputs.common import (
    BEST,
    LATIN,
    RTE,
    cases_of,
    either,
    full,
    latin,
    mounted,
    option_of,
    works,
)
from bad_inputs.from_hf import both
from campaign_fixtures import (
    changed,
    copied,
    folder,
    full_disk,
    null_device,
    read_only_disk,
    removed,
    state,
    write,
)
from campaign_judge import Case


def predict_cases() -> Iterator[Case]:
    """Texts, options, dictionaries and configurations that a prediction cannot use."""
    best = f"{{made}}/{RTE}/{BEST}"
    given = f"{best} --input {{in}}/text.tsv --output {{out}}/found"

    predict = cases_of("predict")
    pairs = copied("pairs.tsv", "text.tsv")
    for wrong, says, step in (
        ("a missing text", r"text\.tsv", both()),
        ("a folder as text", r"text\.tsv", folder("text.tsv")),
        ("a text that is not UTF-8", r"text\.tsv", write("text.tsv", b"a\t" + LATIN + b"\n")),
        ("one text instead of a pair", r"text\.tsv", write("text.tsv", "a\n")),
        ("three texts instead of a pair", r"text\.tsv", write("text.tsv", "a\tb\tc\n")),
        ("lines of different columns", r"text\.tsv:2", write("text.tsv", "a\tb\na\n")),
        ("a UTF-16 text", r"text\.tsv", write("text.tsv", "a\tb\n".encode("utf-16"))),
    ):
        yield predict(wrong, given, says, step)
    yield predict("a byte-order mark", given, "", write("text.tsv", b"\xef\xbb\xbfa\tb\n"), make=works)
    yield predict("an empty text", given, "", write("text.tsv", ""), make=either)
    yield predict("empty sentences", given, "", write("text.tsv", "\t\na\t\n"), make=works)
    yield predict(
        "sentences that are too long",
        given,
        "cut",
        write("text.tsv", "cat " * 300 + "\tb\n"),
        make=works,
    )
    yield predict("input that is not UTF-8", f"{best} --input -", "UTF-8", input=LATIN)
    for wrong, flags, says in (
        ("a batch of 0", "--batch-size 0", "--batch-size"),
        ("a negative batch", "--batch-size -1", "--batch-size"),
        ("a batch that is text", "--batch-size many", "--batch-size"),
        ("an unknown ensemble", "--ensemble best", "--ensemble"),
        ("a missing data folder", "--data-bin {in}/none", "none"),
        ("data of another tokenizer", "--wordpiece {made}/bert", r"dict\.txt|--wordpiece"),
        ("data of another task", "--data-bin {made}/bin/MNLI-bin", "MNLI-bin"),
        ("an output folder with text", "--output-dir {out}/a", "--output-dir"),
        ("a GLUE folder with text", "--glue-dir {made}/glue", "--glue-dir"),
        ("a split with text", "--split dev", "--split"),
        ("a tokenizer too many", "--bpe-dir {made}/start --wordpiece {made}/bert", "--wordpiece"),
    ):
        yield predict(wrong, f"{given} {flags}", says, pairs)
    for wrong, line, says in (
        ("nothing to predict", best, "--input"),
        ("an unknown GLUE task", f"{best} --glue-task NOPE", "--glue-task"),
        (
            "a GLUE task without its files",
            f"{best} --glue-task RTE --output-dir {{out}}/a",
            "--glue-dir",
        ),
        (
            "no place for a submission",
            f"{best} --glue-task RTE --glue-dir {{made}}/glue",
            "--output-dir",
        ),
        (
            "a missing GLUE folder",
            f"{best} --glue-task RTE --glue-dir {{in}}/none --output-dir {{out}}/a",
            "none",
        ),
        (
            "another GLUE task",
            f"{best} --glue-task MNLI --glue-dir {{made}}/glue --output-dir {{out}}/a",
            "MNLI|rte",
        ),
        (
            "a GLUE task of one sentence",
            f"{best} --glue-task SST-2 --glue-dir {{made}}/glue --output-dir {{out}}/a",
            "SST-2|rte",
        ),
        (
            "a GLUE task of scores",
            f"{best} --glue-task STS-B --glue-dir {{made}}/glue --output-dir {{out}}/a",
            "STS-B|rte",
        ),
        (
            "checkpoints of different tasks",
            f"{best} {{made}}/trained/sts-b/{BEST} --input {{made}}/pairs.tsv",
            "sts-b",
        ),
        (
            "votes of scores",
            f"{{made}}/trained/sts-b/{BEST} --input {{made}}/pairs.tsv --ensemble majority",
            "--ensemble",
        ),
        (
            "probabilities of scores",
            f"{{made}}/trained/sts-b/{BEST} --input {{made}}/pairs.tsv --probabilities",
            "--probabilities",
        ),
        ("a masked LM", f"{{made}}/trained/masked-lm/{BEST} --input {{made}}/pairs.tsv", "masked-lm"),
        ("weights without a task", "{made}/start/model.pt --input {made}/pairs.tsv", r"start/model\.pt"),
        (
            "text of two choices for three",
            f"{{made}}/trained/dream/{BEST} --input {{made}}/pairs.tsv",
            "pairs",
        ),
    ):
        yield predict(wrong, line, says)
    for wrong, line, says, step in (
        (
            "an output that exists",
            f"{best} --input {{made}}/pairs.tsv --output {{in}}/old",
            "old",
            write("old", "x"),
        ),
        (
            "a folder as output",
            f"{best} --input {{made}}/pairs.tsv --output {{in}}/old",
            "old",
            folder("old"),
        ),
        (
            "an output in no folder",
            f"{best} --input {{made}}/pairs.tsv --output {{in}}/none/a",
            "none",
            both(),
        ),
        (
            "an output below a file",
            f"{best} --input {{made}}/pairs.tsv --output {{in}}/file/a",
            "file",
            write("file", "x"),
        ),
        (
            "GLUE rows that are not UTF-8",
            f"{best} --glue-task RTE --glue-dir {{in}} --output-dir {{out}}/a",
            r"test\.tsv",
            both(copied("glue/RTE"), changed("RTE/test.tsv", lambda b: b + LATIN)),
        ),
        (
            "a label in GLUE's rows that is unknown",
            f"{best} --glue-task RTE --glue-dir {{in}} --split dev",
            r"dev\.tsv",
            both(copied("glue/RTE"), changed("RTE/dev.tsv", lambda b: b + b"9\ta\tb\tmaybe\n")),
        ),
    ):
        yield predict(wrong, line, says, step)
    disk = f"{best} --input {{made}}/pairs.tsv --output {{out}}/disk/found"
    yield predict("a read-only disk", disk, "disk", read_only_disk(), **mounted())
    fill = write("{out}/disk/full", bytes(4096))
    yield predict("a full disk", disk, "disk|[Nn]o space", full_disk(4), fill, **full())
    submission = f"{best} --glue-task RTE --glue-dir {{made}}/glue --output-dir {{out}}/disk"
    yield predict(
        "a full disk for a submission", submission, "disk|[Nn]o space", full_disk(4), fill, **full()
    )
    terminal = f"{best} --input {{made}}/pairs.tsv"
    more: dict[str, Any] = (
        {"stdout": "/dev/full"} if judge.is_device("/dev/full") else {"skipped": "there is no /dev/full"}
    )
    yield predict("a full disk behind the terminal", terminal, "space|stdout|output", **more)
    device = f"{terminal} --output {{in}}/null --overwrite"
    yield predict("a device as output", device, "null", null_device(), make=either, **mounted())
    name = f"bad/{BEST}"
    bad = f"{{in}}/{name} --input {{made}}/pairs.tsv --output {{out}}/found"
    for wrong, change in (
        ("a data path that is a number", option_of("task", "data", 7)),
        ("a data path that does not exist", option_of("task", "data", "/nowhere/RTE-bin")),
        ("a number of classes that is text", option_of("task", "num_classes", "two")),
        ("another number of classes", option_of("task", "num_classes", 5)),
        ("a separator that is no symbol", option_of("task", "separator_token", 10**6)),
        ("a separator that is text", option_of("task", "separator_token", "x")),
        ("a head that does not exist", option_of("task", "classification_head_name", "none")),
        ("a task that does not exist", option_of("task", "_name", "magic")),
        ("a task that is a list", option_of("task", "_name", ["sentence_prediction"])),
        ("a width that is text", option_of("model", "encoder_embed_dim", "wide")),
        ("a width that is too large", option_of("model", "encoder_embed_dim", 10**9)),
        ("layers without end", option_of("model", "encoder_layers", 10**9)),
        ("heads that do not divide", option_of("model", "encoder_attention_heads", 5)),
    ):
        says = f"{re.escape(name)}|--data-bin"
        yield predict(f"{wrong} in a checkpoint", bad, says, copied(RTE, "bad"), state(name, change))
    for wrong, says, step in (
        ("a data dictionary that is not UTF-8", r"dict\.txt", changed("data/input0/dict.txt", latin)),
        ("a malformed data dictionary", r"dict\.txt", write("data/input0/dict.txt", "a\n")),
        ("no label dictionary", r"label/dict\.txt", removed("data/label/dict.txt")),
        ("a label dictionary of other labels", r"data", write("data/label/dict.txt", "x 1\ny 1\nz 1\n")),
        ("labels in another order", r"data", changed("data/label/dict.txt", swapped)),
        ("a label dictionary that is not UTF-8", r"dict\.txt", changed("data/label/dict.txt", latin)),
    ):
        line = f"{best} --input {{made}}/pairs.tsv --data-bin {{in}}/data --output {{out}}/found"
        yield predict(wrong, line, says, copied("bin/RTE-bin", "data"), step)


def swapped(content: bytes) -> bytes:
    """The first two lines in the other order."""
    first, second, *rest = content.splitlines(keepends=True)
    return b"".join([second, first, *rest])
