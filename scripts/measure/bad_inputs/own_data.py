"""Data of the user's own."""

from __future__ import annotations

from collections.abc import Iterator

from bad_inputs.common import BEST, COMPARE, FEW, LATIN, QUICK, RTE, RUN_LEAVES, cases_of, refuses, works
from campaign_fixtures import folder, write
from campaign_judge import Case

START = "--checkpoint {made}/start/model.pt --data-bin {out}/bin"
RUN = f"--method rdrop {START} --save-dir {{out}}/run"
TABLE = "text,label\n" + "".join(f"cat {n},{'good' if n % 2 else 'bad'}\n" for n in range(40))
# What was read and prepared before fairseq-train found the fault.
LEAVES = rf"bin(/.*)?|{RUN_LEAVES}"


def own_cases() -> Iterator[Case]:
    """Tables, columns and labels that cannot be trained on."""

    finetune = cases_of("finetune")
    given = f"--train {{in}}/own.csv {RUN}"
    for wrong, says, content in (
        ("an own table that is empty", r"own\.csv", ""),
        ("an own table of a header alone", r"own\.csv", "text,label\n"),
        ("an own table without the column", "'text'", TABLE.replace("text,", "review,")),
        ("an own table without the labels' column", "'label'", TABLE.replace(",label", ",stars")),
        ("an own table with a column twice", "'text'", TABLE.replace("text,", "text,text,", 1)),
        ("an own row that is short", r"own\.csv:42", TABLE + "cat\n"),
        ("an own row that is long", r"own\.csv:42", TABLE + "cat,good,bad\n"),
        ("an own row without text", r"own\.csv:42", TABLE + " ,good\n"),
        ("an own row without a label", r"own\.csv:42", TABLE + "cat,\n"),
        ("an own table with an open quote", r"own\.csv", TABLE + '"cat,good\n'),
        ("an own table that is not UTF-8", r"own\.csv:42", TABLE.encode() + LATIN + b",good\n"),
        ("an own table of one class", "label", TABLE.replace("good", "bad")),
        ("two own rows", "--valid", "text,label\na,x\nb,y\n"),
    ):
        yield finetune(wrong, given, says, write("own.csv", content))
    table = write("own.csv", TABLE)
    for wrong, line, says in (
        ("a missing own table", f"--train {{in}}/none.csv {RUN}", r"none\.csv"),
        ("an own table of another kind", f"--train {{made}}/text.txt {RUN}", r"text\.txt"),
        ("a task and a table", f"RTE --train {{in}}/own.csv {RUN}", "--train"),
        ("a column without a table", f"RTE --text a {RUN}", "--text"),
        ("an own name that is a path", f"{given} --name a/b", "--name"),
        ("an own name that is a task's", f"{given} --name RTE", "--name"),
        ("own labels that are no scores", f"{given} --label-kind scores", r"own\.csv:2"),
        ("a missing validation table", f"{given} --valid {{in}}/none.csv", r"none\.csv"),
        ("official files beside a table", f"{given} --data-dir {{made}}/glue", "--data-dir"),
        ("R-AT's split of a table", f"{given} --split r-at", "--split"),
    ):
        yield finetune(wrong, line, says, table, leaves=LEAVES)
    valid = write("valid.csv", "text,label\na,good\nb,ugly\n")
    yield finetune(
        "a class that was never trained",
        f"{given} --valid {{in}}/valid.csv",
        r"valid\.csv:3",
        table,
        valid,
    )
    yield finetune(
        "an own folder of nobody's", f"--train {{in}}/saved {RUN}", "saved|datasets", folder("saved")
    )
    other = write("{out}/bin/own-bin/source.json", "{}")
    yield finetune("prepared data of another table", given, "own-bin", table, other, leaves=LEAVES)
    yield finetune(
        "an own table with a byte-order mark",
        f"{given} -- {FEW}",
        r"result\.json",
        write("own.csv", b"\xef\xbb\xbf" + TABLE.encode()),
        make=works,
    )
    compare = COMPARE.removeprefix("RTE ").replace("{made}/bin", "{out}/bin")
    yield refuses(
        "compare",
        "a table with a missing column",
        f"--train {{in}}/own.csv --text a {compare} {QUICK}",
        "'a'",
        table,
    )
    best = f"{{made}}/{RTE}/{BEST}"
    for tool, wrong, line, says in (
        ("predict", "a table without the column", f"{best} --input {{in}}/own.csv --text a", "'a'"),
        ("predict", "a second column alone", f"{best} --input {{in}}/own.csv --text2 a", "--text2"),
        ("predict", "a table of single texts", f"{best} --input {{in}}/own.csv --text text", "columns"),
        ("evaluate", "a table of single texts", f"{best} --data {{in}}/own.csv --text text", "--text2"),
        (
            "evaluate",
            "a column without a text",
            f"{best} --data {{in}}/own.csv --label label",
            "--label",
        ),
        ("evaluate", "columns of a folder", f"{best} --data {{made}}/bin/RTE-bin --text a", "--text"),
    ):
        yield refuses(tool, wrong, line, says, table)
