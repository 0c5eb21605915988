"""What the commands that train share: requests that cannot be followed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bad_inputs.checkpoints import EVIL_PACKAGE
from bad_inputs.common import (
    FEW,
    FINETUNE,
    LATIN,
    QUICK,
    RUN_LEAVES,
    SHORT,
    full,
    mounted,
    refuses,
    without_gpu,
)
from bad_inputs.finetuning import more_flags
from bad_inputs.from_hf import both
from campaign_fixtures import copied, full_disk, json_entry, read_only_disk, write
from campaign_judge import Case


def runner_cases() -> Iterator[Case]:
    """What finetune.py, compare.py and pretrain.py share: starts, data and places."""
    lines = {
        "finetune": (f"{FINETUNE}", "--save-dir {out}/run", "--data-bin {made}/bin"),
        "compare": (
            f"RTE --data-bin {{made}}/bin --out-dir {{out}}/run {QUICK}",
            "--out-dir {out}/run",
            "--data-bin {made}/bin",
        ),
        "pretrain": (
            "--data-bin {made}/bin/text --save-dir {out}/run --batch 8",
            "--save-dir {out}/run",
            "--data-bin {made}/bin/text",
        ),
    }
    start = "--checkpoint {made}/start/model.pt"
    file = "in/start/architecture.json"
    for tool, (line, place, data) in lines.items():
        for wrong, flags, says in (
            ("no start", "", "--checkpoint"),
            ("two starts", f"{start} --from-scratch", "--checkpoint|--from-scratch"),
            ("a missing checkpoint", "--checkpoint {in}/none.pt", r"none\.pt"),
            ("an architecture that does not exist", "--from-scratch --arch magic", "--arch"),
            ("an architecture that does not fit", "--from-scratch --arch transformer", "--arch"),
            ("another architecture than the checkpoint's", f"{start} --arch roberta_large", "--arch"),
            ("an unknown precision", f"{start} --precision fp8", "--precision"),
            ("fp16 without a GPU", f"{start} --precision fp16", "fp16"),
            ("an unknown option", f"{start} --magic 3", "--magic"),
            ("an unknown flag for fairseq", f"{start} -- --magic 3", "--magic"),
        ):
            gpu = without_gpu() if "GPU" in wrong else ""
            # an architecture is fairseq-train's own option
            leaves = RUN_LEAVES if "--" in flags.split() or "arch" in flags else None
            yield refuses(tool, wrong, f"{line} {flags}", says, skipped=gpu, leaves=leaves, limit=180)
        for wrong, step in (
            ("an architecture.json that is empty", write("start/architecture.json", "")),
            ("an architecture.json that is a list", write("start/architecture.json", "[]")),
            (
                "an architecture.json without flags",
                write("start/architecture.json", '{"separators": 2}'),
            ),
            (
                "an architecture.json without separators",
                json_entry("start/architecture.json", separators=None),
            ),
            ("separators that are text", json_entry("start/architecture.json", separators="two")),
            ("flags that are text", json_entry("start/architecture.json", flags="--arch roberta")),
            ("flags that are numbers", json_entry("start/architecture.json", flags=["--arch", 3])),
            ("flags that are empty", json_entry("start/architecture.json", flags=[])),
            ("a flag that is no size", more_flags("--save-dir", "/nowhere")),
            ("a flag with code", both(EVIL_PACKAGE, more_flags("--user-dir", "{in}/evil"))),
            ("a size that is text", more_flags("--encoder-embed-dim", "wide")),
            ("an architecture.json that is not UTF-8", write("start/architecture.json", LATIN)),
        ):
            if tool != "finetune" and wrong not in (
                "a flag with code",
                "an architecture.json that is empty",
            ):
                continue
            command = (
                f"{line} --checkpoint {{in}}/start/model.pt -- {SHORT if tool == 'pretrain' else FEW}"
            )
            says = re.escape(file.partition("/")[2])
            yield refuses(tool, wrong, command, says, copied("start"), step, limit=180)
        for wrong, target, says, steps, more in (
            ("a place below a file", "{in}/file/run", "file", [write("file", "x")], {}),
            ("a file as place", "{in}/file", "file", [write("file", "x")], {}),
            ("a read-only disk", "{out}/disk/run", "disk", [read_only_disk()], mounted()),
            ("a full disk", "{out}/disk/run", "disk|[Nn]o space", [full_disk(16)], full()),
        ):
            command = f"{line} {start} -- {FEW}".replace(place, f"{place.split()[0]} {target}")
            yield refuses(tool, wrong, command, says, *steps, limit=180, **more)
        for wrong, source, says, steps in (
            ("data that do not exist", "{in}/none", "none", []),
            ("a file instead of data", "{in}/file", "file", [write("file", "x")]),
        ):
            command = f"{line} {start} -- {FEW}".replace(data, f"--data-bin {source}")
            yield refuses(tool, wrong, command, says, *steps, limit=180)
