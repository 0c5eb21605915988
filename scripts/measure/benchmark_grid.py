"""The benchmark over models, batch sizes, lengths and precisions, as one Markdown table.

    python scripts/measure/benchmark_grid.py results                    # on a GPU: the whole grid
    python scripts/measure/benchmark_grid.py results --archs roberta_base --precisions fp32 --lengths 128

Each combination is a run of benchmark.py of its own, whose JSON lies in the folder; one that is there is
not run again, and one that fails is a line of the table that says so. Then, on a GPU, what the dead
weights of fairseq 0.12.2 cost roberta_large (measure_dead_weights.py). The table also goes into the
folder, as table.md.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import fairseq_compat
from adv_plugins_cli.command import UserError, one_line_errors, positive, read_json
from fairseq_compat.files import write_json, write_text

fairseq_compat.install()

from synthetic import BENCHMARKED  # noqa: E402

SCRIPTS = Path(__file__).resolve().parent
RATIO_COLUMNS = ("FLOPs", "time (min - max)", "memory")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line; what it does not know goes to the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Other options (--methods, --repeats, --layers, --vocabulary) go to every benchmark.",
    )
    parser.add_argument("out_dir", type=Path, help="folder for the results")
    parser.add_argument("--archs", nargs="+", default=["roberta_base", "roberta_large"])
    parser.add_argument("--batch-sizes", nargs="+", type=positive, default=[16, 32])
    parser.add_argument("--lengths", nargs="+", type=positive, default=[128, 512])
    parser.add_argument(
        "--precisions",
        nargs="+",
        default=["tf32", "fp16", "amp"] if torch.cuda.is_available() else ["fp32"],
        choices=BENCHMARKED,
    )
    arguments, others = parser.parse_known_args()
    arguments.others = others
    if arguments.out_dir.is_file():
        parser.error(f"{arguments.out_dir} is a file: give a folder")
    return arguments


def check_folder(folder: Path, options: list[str]) -> None:
    """Make the folder; what is there must have been measured with the same options."""
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "options.json"
    measured = any(each != record for each in folder.glob("*.json"))
    if measured and read_json(record, list) != options:
        raise UserError(f"{folder} holds results with other options ({record}): give another folder")
    write_json(record, options)


def run(command: list[str], log: Path) -> bool:
    """Run a script, its output in ``log``; whether it succeeded.

    An option that it does not know ends everything: it would fail each time.
    """
    with log.open("w", encoding="utf-8") as output:
        status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT).returncode
    if status == 2:  # argparse's
        raise SystemExit(last_line(log))
    return status == 0


def last_line(log: Path) -> str:
    """Why a script has failed, if it says so."""
    return next(reversed(log.read_text(encoding="utf-8").splitlines()), "no output")[:500]


def measure(
    arguments: argparse.Namespace, arch: str, batch: int, length: int, precision: str
) -> dict[str, Any] | None:
    """The benchmark's report, from its file if it is there; None where it failed."""
    name = f"{arch}-{batch}x{length}-{precision}"
    report = arguments.out_dir / f"{name}.json"
    if not report.exists():
        print(f"{name} ...", file=sys.stderr, flush=True)
        command = [sys.executable, str(SCRIPTS / "benchmark.py"), "--recomputed", "--json", str(report)]
        command += ["--arch", arch, "--batch-size", str(batch), "--length", str(length)]
        command += ["--precision", precision, *arguments.others]
        if not run(command, arguments.out_dir / f"{name}.log"):
            return None
    return read_json(report)


def rows(report: dict[str, Any], setting: str) -> list[str]:
    """Lines of the table: plain's own numbers, then the ratios of each method to them."""
    (numbers,) = report["lengths"].values()
    plain = next(iter(numbers.values()))
    seconds, memory = statistics.median(plain["times"]), plain["memory"] / 2**20
    found = [f"| **{setting}** | {plain['flops']:.3e} | {1000 * seconds:.0f} ms | {memory:,.0f} MiB |"]
    for method, own in list(numbers.items())[1:]:
        ratios = own["ratios"]
        spread = "({:.2f} - {:.2f})".format(*ratios["time_range"])
        cells = f"{ratios['flops']:.3f} | {ratios['time']:.2f} {spread} | {ratios['memory']:.2f}"
        found.append(f"| {method} | {cells} |")
    return found


def run_grid(arguments: argparse.Namespace) -> None:
    """Run what is missing, then print and write the table.

    Raises:
        UserError: of the folder's files, or that runs failed.
    """
    check_folder(arguments.out_dir, arguments.others)
    lines = ["| | " + " | ".join(RATIO_COLUMNS) + " |", "| --- |" + " ---: |" * len(RATIO_COLUMNS)]
    machines: set[str] = set()
    failed: list[str] = []
    for arch, batch, length, precision in itertools.product(
        arguments.archs, arguments.batch_sizes, arguments.lengths, arguments.precisions
    ):
        report = measure(arguments, arch, batch, length, precision)
        setting = f"{arch}, {batch} x {length}, {precision}: plain"
        if report is None:
            log = arguments.out_dir / f"{arch}-{batch}x{length}-{precision}.log"
            request = f"--arch {arch} --batch-size {batch} --length {length} --precision {precision}"
            failed.append(f"{request}: {last_line(log)} ({log})")
            lines.append(f"| **{setting}** | failed: see its .log | | |")
            continue
        try:
            machines.add(f"{report['machine']}, {report['versions']}")
            lines += rows(report, setting)
        except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
            name = f"{arch}-{batch}x{length}-{precision}.json"
            raise UserError(
                f"{arguments.out_dir / name}: no report of benchmark.py; delete it to measure again"
            ) from error
    lines += ["", *sorted(machines)]
    if torch.cuda.is_available():
        log = arguments.out_dir / "dead-weights.log"
        script = str(SCRIPTS / "measure_dead_weights.py")
        if not run([sys.executable, script, "roberta_large", "--train", "fp16"], log):
            failed.append(f"{last_line(log)} ({log})")
        written = log.read_text(encoding="utf-8").splitlines()
        lines += ["", *(line for line in written if line.startswith("|"))]
    text = "\n".join(lines) + "\n"
    write_text(arguments.out_dir / "table.md", text)
    print(text)
    if failed:
        raise UserError(f"{len(failed)} of the runs failed; {failed[0]}")


def main() -> None:
    """Run the command line; a fault of the request is one line, not a traceback."""
    arguments = parse_arguments()
    with one_line_errors("benchmark_grid.py"):
        run_grid(arguments)


if __name__ == "__main__":
    main()
