"""How long ``adv-plugins --help`` and every ``adv-plugins COMMAND --help`` take.

    python scripts/measure/help_times.py

Each in a new process, warm: once before it counts. Prints the median and the slowest of --runs in
seconds, and the median of the processor time, which others' work does not lengthen as much. Ends with 1
if one of the latter is not under --limit.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

from adv_plugins_cli.__main__ import COMMANDS
from adv_plugins_cli.command import positive
from adv_plugins_cli.convert import DIRECTIONS


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=positive, default=10)
    parser.add_argument("--limit", type=float, default=0.5, metavar="SECONDS", help="(%(default)s)")
    return parser.parse_args()


def measure(words: list[str]) -> tuple[float, float]:
    """Seconds and processor seconds of one call."""
    began, before = time.perf_counter(), os.times()
    command = [sys.executable, "-m", "adv_plugins_cli", *words, "--help"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - began, os.times()
    used = after.children_user + after.children_system
    return seconds, used - before.children_user - before.children_system


def main() -> int:
    """Run the command line; returns the exit code."""
    arguments = parse_arguments()
    commands = [[], *([name] for name in COMMANDS), *(["convert", name] for name in DIRECTIONS)]
    print(f"{'seconds':<32} median  slowest  processor")
    slow = False
    for words in commands:
        measure(words)
        runs = [measure(words) for _ in range(arguments.runs)]
        seconds, used = zip(*runs)
        processor = statistics.median(used)
        slow |= processor >= arguments.limit
        name = " ".join(["adv-plugins", *words, "--help"])
        print(f"{name:<32} {statistics.median(seconds):6.2f} {max(seconds):8.2f} {processor:10.2f}")
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
