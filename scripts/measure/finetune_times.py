"""Where the time of ``adv-plugins finetune`` goes, from the command to its result.

    python scripts/measure/finetune_times.py RTE rat --checkpoint minilm/model.pt --data-bin data-bin \\
        -- --max-update 20 --batch-size 8

Starts the command --repeats times, each into a folder of its own that is removed, and notes when what it
prints first says that a stage is reached. Prints the median second of each, what lies between, and the
sizes of what it left. What follows ``--`` goes to fairseq-train.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from adv_plugins_cli.command import positive
from adv_plugins_cli.recipes.command_line import split_at_dashes

# Stage: what the output says at its end.
STAGES = {
    "the command is shown": r"^fairseq-train ",
    "fairseq is there, its configuration read": r"fairseq_cli\.train \| \{",
    "the model is built": r"num\. shared model params",
    "validation is tried": r"training on \d+ devices",
    "the pre-trained weights are loaded": r"Loaded checkpoint",
    "the first epoch begins": r"begin training epoch 1",
    "its updates are done": r"begin validation on",
    "it is validated": r"\| valid \|",
    "the checkpoint is written": r"Saved checkpoint",
    "fairseq is done": r"done training in",
    "the result is written": r"result\.json",
}


def timed(command: Sequence[str]) -> dict[str, float]:
    """Seconds until each stage, and until the end.

    Raises:
        SystemExit: the command failed; with the end of its output.
    """
    began, shown = time.perf_counter(), list[str]()
    found: dict[str, float] = {}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    assert process.stdout is not None
    for line in process.stdout:
        shown.append(line)
        now = time.perf_counter() - began
        found.setdefault("the first line", now)
        for stage, pattern in STAGES.items():
            if stage not in found and re.search(pattern, line):
                found[stage] = now
    if process.wait():
        sys.exit("".join(shown[-20:]))
    found["the end"] = time.perf_counter() - began
    found["lines"] = len(shown)
    return found


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    own, extra = split_at_dashes(sys.argv[1:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task")
    parser.add_argument("method")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data-bin", type=Path, required=True, help="holds TASK-bin")
    parser.add_argument("--repeats", type=positive, default=3, help="(%(default)s)")
    arguments = parser.parse_args(own)
    arguments.extra = extra
    return arguments


def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    runs = []
    command = [sys.executable, "-m", "adv_plugins_cli", "finetune", arguments.task, arguments.method]
    command += ["--verbose", "--checkpoint", str(arguments.checkpoint)]
    command += ["--data-bin", str(arguments.data_bin)]
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(timed([*command, "--save-dir", f"{folder}/run", "--", *arguments.extra]))
            left = sorted(path for path in Path(folder, "run").rglob("*") if path.is_file())
            names: dict[int, list[str]] = {}  # of one file several
            for path in left:
                names.setdefault(path.stat().st_ino, []).append(path.name)
            sizes = [(path, path.stat()) for path in left]
            files = {" = ".join(names[stat.st_ino]): stat.st_size for _, stat in sizes}
    print(f"{'second':>7} {'since':>6}  (median of {arguments.repeats})")
    before = 0.0
    for stage in ("the first line", *STAGES, "the end"):
        seconds = [run[stage] for run in runs if stage in run]
        if seconds:
            median = statistics.median(seconds)
            print(f"{median:7.1f} {median - before:6.1f}  {stage}")
            before = median
    print(f"{runs[0]['lines']:.0f} lines")
    for name, size in files.items():
        print(f"{size / 1e6:9.2f} MB  {name}")


if __name__ == "__main__":
    main()
