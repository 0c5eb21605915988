"""GLUE's files, malformed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bad_inputs.common import LATIN, full, mounted, refuses, works
from bad_inputs.from_hf import both
from campaign_fixtures import (
    GLUE_HEADERS,
    Step,
    changed,
    copied,
    folder,
    full_disk,
    glue_row,
    read_only_disk,
    removed,
    replaced,
    write,
)
from campaign_judge import Case


def preprocess_glue_cases() -> Iterator[Case]:
    """GLUE's official files, malformed."""
    bpe = "--bpe-dir {made}/start"

    def glue(
        task: str, wrong: str, says: str, *steps: Step, make: Callable[..., Case] = refuses, **more: Any
    ) -> Case:
        line = f"--data-dir {{in}} {task} --out-dir {{out}}/bin {bpe}"
        return make(
            "preprocess_glue", f"{wrong} ({task})", line, says, copied(f"glue/{task}"), *steps, **more
        )

    def row(task: str, **fields: str) -> str:
        names = GLUE_HEADERS[task].split("\t")
        values = dict(zip(names, glue_row(task, 3).split("\t"))) | fields
        return "\t".join(values[name] for name in names)

    def added(task: str, line: str | bytes, file: str = "train.tsv") -> Step:
        more = line if isinstance(line, bytes) else line.encode()
        return changed(f"{task}/{file}", lambda content: content + more + b"\n")

    for task, wrong, says, step in (
        ("RTE", "no train.tsv", r"train\.tsv", removed("RTE/train.tsv")),
        ("RTE", "no dev.tsv", r"dev\.tsv", removed("RTE/dev.tsv")),
        ("RTE", "an empty file", r"train\.tsv", write("RTE/train.tsv", "")),
        (
            "RTE",
            "a header and no row",
            r"train\.tsv",
            write("RTE/train.tsv", GLUE_HEADERS["RTE"] + "\n"),
        ),
        ("RTE", "text that is not UTF-8", r"train\.tsv:18", added("RTE", LATIN)),
        ("RTE", "a column less", r"train\.tsv:18", added("RTE", "9\tone\tentailment")),
        ("RTE", "a column more", r"train\.tsv:18", added("RTE", row("RTE") + "\tmore")),
        ("RTE", "an unknown label", r"train\.tsv:18.*maybe", added("RTE", row("RTE", label="maybe"))),
        ("RTE", "an empty label", r"train\.tsv:18", added("RTE", row("RTE", label=""))),
        (
            "RTE",
            "a header of another task",
            r"train\.tsv:1",
            replaced("RTE/train.tsv", "sentence1", "premise"),
        ),
        (
            "RTE",
            "a comma-separated file",
            r"train\.tsv",
            changed("RTE/train.tsv", lambda b: b.replace(b"\t", b",")),
        ),
        (
            "RTE",
            "a UTF-16 file",
            r"train\.tsv",
            changed("RTE/train.tsv", lambda b: b.decode().encode("utf-16")),
        ),
        ("RTE", "NUL bytes", r"train\.tsv", write("RTE/train.tsv", bytes(5000))),
        (
            "RTE",
            "a folder instead of a file",
            r"train\.tsv",
            both(removed("RTE/train.tsv"), folder("RTE/train.tsv")),
        ),
        ("STS-B", "a NaN score", r"train\.tsv:18.*nan", added("STS-B", row("STS-B", score="nan"))),
        ("STS-B", "an infinite score", r"train\.tsv:18", added("STS-B", row("STS-B", score="inf"))),
        ("STS-B", "a score out of range", r"train\.tsv:18", added("STS-B", row("STS-B", score="7"))),
        ("STS-B", "a score that is text", r"train\.tsv:18", added("STS-B", row("STS-B", score="good"))),
        ("STS-B", "an unlabelled row", r"train\.tsv:18", added("STS-B", row("STS-B", score=""))),
        (
            "MNLI",
            "a label of hard examples",
            r"train\.tsv:18",
            added("MNLI", row("MNLI", gold_label="-")),
        ),
        ("MNLI", "no mismatched set", r"dev_mismatched\.tsv", removed("MNLI/dev_mismatched.tsv")),
        (
            "CoLA",
            "a header that the official file lacks",
            r"train\.tsv:1",
            changed("CoLA/train.tsv", lambda b: b"a\tlabel\tb\tsentence\n" + b),
        ),
        ("MRPC", "an unlabelled row", r"train\.tsv:18", added("MRPC", row("MRPC", Quality=""))),
        (
            "SST-2",
            "a label that is a word",
            r"train\.tsv:18",
            added("SST-2", row("SST-2", label="good")),
        ),
    ):
        yield glue(task, wrong, says, step)
    line = f"--data-dir {{made}}/glue --out-dir {{out}}/bin {bpe} "
    say = "preprocess_glue"
    yield glue(
        "RTE",
        "a byte-order mark",
        "",
        changed("RTE/train.tsv", lambda b: b"\xef\xbb\xbf" + b),
        make=works,
    )
    yield glue(
        "RTE",
        "carriage returns",
        "",
        changed("RTE/train.tsv", lambda b: b.replace(b"\n", b"\r\n")),
        make=works,
    )
    yield glue("RTE", "no last line feed", "", changed("RTE/train.tsv", lambda b: b[:-1]), make=works)
    yield glue(
        "RTE",
        "a field of 200,000 characters",
        "",
        added("RTE", row("RTE", sentence1="a" * 200_000)),
        make=works,
    )
    yield glue(
        "RTE", "quotes that do not close", "", added("RTE", row("RTE", sentence1='"open')), make=works
    )
    yield glue("QQP", "rows broken by line feeds", "", added("QQP", "9\t1"), make=works)
    yield refuses(say, "an unknown task", line + "NOPE", "NOPE")
    yield refuses(say, "a missing folder", line.replace("{made}/glue", "{in}/none") + "RTE", "none")
    yield refuses(
        say,
        "an output that exists",
        line.replace("{out}", "{made}").replace("/bin ", "/bin ") + "RTE",
        "RTE-bin",
    )
    yield refuses(say, "an unknown split", line + "RTE --splits all", "--splits")
    line_ = f"--data-dir {{in}} --out-dir {{out}}/bin {bpe} RTE --splits valid"
    alone = [copied("glue/RTE"), removed("RTE/train.tsv")]
    yield refuses(say, "labels without a training file", line_, "--label-dict", *alone)
    yield refuses(say, "a missing label dictionary", line + "RTE --label-dict {in}/d.txt", r"d\.txt")
    yield refuses(
        say,
        "a label dictionary that is not UTF-8",
        line + "RTE --label-dict {in}/d.txt",
        r"d\.txt",
        write("d.txt", LATIN),
    )
    yield refuses(
        say,
        "a label dictionary without counts",
        line + "RTE --label-dict {in}/d.txt",
        r"d\.txt",
        write("d.txt", "a\nb\n"),
    )
    yield refuses(
        say,
        "a label dictionary of other labels",
        line + "RTE --label-dict {in}/d.txt",
        r"d\.txt",
        write("d.txt", "a 1\nb 1\n"),
    )
    yield refuses(
        say,
        "an output below a file",
        line.replace("{out}", "{in}/file") + "RTE",
        "file",
        write("file", "x"),
    )
    disk = line.replace("{out}/bin", "{out}/disk") + "RTE"
    yield refuses(say, "a full disk", disk, "disk|[Nn]o space", full_disk(8), **full())
    yield refuses(say, "a read-only disk", disk, "disk", read_only_disk(), **mounted())
