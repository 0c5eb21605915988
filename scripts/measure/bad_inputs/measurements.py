"""The measurements of speed and memory."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

from bad_inputs.common import LATIN, SMALL, SMALL_BENCHMARK, SMALL_GRID, refuses, without_gpu
from campaign_fixtures import changed, copied, write
from campaign_judge import Case


def benchmark_cases() -> Iterator[Case]:
    """Sizes, precisions and places of the benchmarks."""
    for wrong, flags, says in (
        ("an architecture that does not exist", "--arch magic", "--arch|magic"),
        ("an architecture that does not fit", "--arch transformer", "--arch|transformer"),
        ("a batch of 0", "--batch-size 0", "--batch-size"),
        ("a length of 0", "--length 0", "--length"),
        ("a negative length", "--length -8", "--length"),
        ("a length that the model cannot read", "--length 9000", "--length"),
        ("no repeat", "--repeats 0", "--repeats"),
        ("no layer", "--layers 0", "--layers"),
        ("negative layers", "--layers -2", "--layers"),
        ("a vocabulary of one", "--vocabulary 1", "--vocabulary"),
        ("an unknown method", "--methods magic", "--methods"),
        ("an unknown precision", "--precision fp8", "--precision"),
        ("fp16 without a GPU", "--precision fp16", "--precision"),
        ("a plot of an unknown format", "--plot {out}/a.jpeg2", "--plot"),
        ("a plot in no folder", "--plot {in}/none/a.png --lengths 8 16", "none"),
        ("a report below a file", "--json {in}/file/a.json", "file"),
        ("a folder as report", "--json {in}", r"/in\b"),
    ):
        gpu = without_gpu() if "GPU" in wrong else ""
        yield refuses(
            "benchmark", wrong, f"{SMALL_BENCHMARK} {flags}", says, write("file", "x"), skipped=gpu
        )
    grid = f"{{out}}/grid {SMALL_GRID}"
    for wrong, flags, says, steps in (
        ("a file as folder", "", "file", [write("file", "x")]),
        ("a folder below a file", "", "file", [write("file", "x")]),
        ("an unknown option", "--magic 3", "--magic", []),
        ("an unknown precision", "--precisions fp8", "--precisions", []),
        ("a batch of 0", "--batch-sizes 0", "--batch-sizes?", []),
        ("an architecture that does not exist", "--archs magic", "--arch", []),
        (
            "records of options that are broken",
            "",
            r"options\.json",
            [write("{out}/grid/options.json", "{"), write("{out}/grid/a.json", "{}")],
        ),
        (
            "a report that breaks off",
            "",
            r"roberta-1x8-fp32\.json",
            [
                write("{out}/grid/options.json", json.dumps(shlex.split(SMALL))),
                write("{out}/grid/roberta-1x8-fp32.json", "{"),
            ],
        ),
        (
            "a report of something else",
            "",
            r"roberta-1x8-fp32\.json",
            [
                write("{out}/grid/options.json", json.dumps(shlex.split(SMALL))),
                write("{out}/grid/roberta-1x8-fp32.json", "{}"),
            ],
        ),
    ):
        line = grid.replace(
            "{out}/grid",
            {"a file as folder": "{in}/file", "a folder below a file": "{in}/file/a"}.get(
                wrong, "{out}/grid"
            ),
        )
        leaves = r"grid|.*\.log|.*options\.json|.*table\.md"
        yield refuses("benchmark_grid", wrong, f"{line} {flags}", says, *steps, leaves=leaves, limit=180)
    for wrong, line, says in (
        ("an architecture that does not exist", "magic", "magic"),
        ("an architecture that does not fit", "transformer", "transformer"),
        ("an unknown precision", "roberta_base --train fp8", "--train"),
        ("fp16 without a GPU", "roberta_base --train fp16", "--train"),
        ("a batch of 0", "roberta_base --train fp32 --batch-size 0", "--batch-size"),
        ("a length of 0", "roberta_base --train fp32 --length 0", "--length"),
        ("a length that the model cannot read", "roberta_base --train fp32 --length 9000", "--length"),
        ("no update", "roberta_base --train fp32 --updates 0", "--updates"),
    ):
        gpu = without_gpu() if "GPU" in wrong else ""
        yield refuses("measure_dead_weights", wrong, line, says, skipped=gpu, limit=180)
    speed = "--glue-dir {made}/glue --task RTE --bpe-dir {made}/start --repeats 1 --workers 1"
    for wrong, flags, says, steps in (
        ("a missing folder", "--glue-dir {in}/none", "none|--glue-dir", []),
        ("an unknown task", "--task NOPE", "--task", []),
        ("an unknown split", "--split some", "--split", []),
        ("no repeat", "--repeats 0", "--repeats", []),
        ("no worker", "--workers 0", "--workers", []),
        (
            "text that is not UTF-8",
            "--glue-dir {in}",
            r"train\.tsv",
            [copied("glue/RTE"), changed("RTE/train.tsv", lambda b: b + LATIN)],
        ),
        ("a missing tokenizer", "--bpe-dir {in}/none", "none", []),
    ):
        yield refuses("compare_bpe_speed", wrong, f"{speed} {flags}", says, *steps)
