"""Servers that break off, lie and send something else."""

from __future__ import annotations

from collections.abc import Iterator

from bad_inputs.common import full, mounted, refuses, works
from campaign_fixtures import full_disk, read_only_disk, write
from campaign_judge import Case


def download_cases() -> Iterator[Case]:
    """Servers that break off, lie and send something else; nothing leaves this machine."""
    for wrong, says, package in (
        ("absent", "404", "glue/RTE"),
        ("forbidden", "403", "glue/RTE"),
        ("page", r"RTE|archive", "glue/RTE"),
        ("empty", r"RTE|bytes|archive", "glue/RTE"),
        ("half", r"RTE|bytes|archive", "glue/RTE"),
        ("cut", r"RTE|bytes|archive", "glue/RTE"),
        ("lacking", r"train\.tsv|RTE", "glue/RTE"),
        ("evil", r"RTE|unsafe", "glue/RTE"),
        ("page", r"encoder\.json|SHA-256", "gpt2_bpe"),
        ("half", r"roberta\.base|archive", "roberta.base"),
        ("evil", r"roberta\.base|unsafe", "roberta.base"),
        ("link", r"roberta\.base|unsafe", "roberta.base"),
        ("crc", r"roberta\.base|archive", "roberta.base"),
        ("lacking", r"model\.pt|dict\.txt", "roberta.base"),
        ("latin", r"msr_paraphrase|mrpc|UTF-8", "glue/MRPC"),
        ("columns", r"msr_paraphrase", "glue/MRPC"),
    ):
        what = {
            "absent": "a file that is not there",
            "page": "a web page instead of a file",
            "half": "half a body without its length",
            "cut": "a connection that breaks",
            "crc": "an archive with a wrong checksum",
            "evil": "an archive that writes elsewhere",
            "link": "an archive with a link",
            "lacking": "an archive that lacks files",
            "latin": "text that is not UTF-8",
            "columns": "a table of other columns",
            "empty": "an empty file",
            "forbidden": "a file that is forbidden",
        }[wrong]
        line = f"{package} --out-dir {{out}}/data --base-url SERVER/{wrong}"
        leaves = r"data(/[^.]*)?|data/glue/MRPC/.*|.*\.(part|validator)"
        yield refuses("download", f"{what} ({package})", line, says, leaves=leaves)
    line = "glue/RTE --base-url SERVER/good --out-dir "
    yield refuses("download", "an unknown package", "magic --out-dir {out}/data", "magic")
    yield refuses("download", "no place", "glue/RTE", "--out-dir")
    yield refuses("download", "a place below a file", line + "{in}/file/a", "file", write("file", "x"))
    yield refuses("download", "a file as place", line + "{in}/file", "file", write("file", "x"))
    yield refuses(
        "download",
        "an address that is none",
        "glue/RTE --out-dir {out}/data --base-url magic",
        "magic",
        leaves=r"data.*",
    )
    yield refuses(
        "download",
        "a server that does not answer",
        "glue/RTE --out-dir {out}/data --base-url http://127.0.0.1:9",
        "127.0.0.1",
        leaves=r"data.*",
    )
    yield refuses(
        "download", "a read-only disk", line + "{out}/disk/a", "disk", read_only_disk(), **mounted()
    )
    yield refuses(
        "download",
        "a full disk",
        line + "{out}/disk",
        "disk|[Nn]o space",
        full_disk(4),
        **{**full(), "leaves": "disk.*"},
    )
    yield works("download", "a file that is complete", line + "{out}/data", "RTE")
