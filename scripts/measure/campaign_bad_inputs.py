"""Feeds every command bad inputs and prints how many of them it took with one clear line.

    python scripts/measure/campaign_bad_inputs.py --jobs 2
    python scripts/measure/campaign_bad_inputs.py --tools predict finetune --only NaN --verbose

Damaged and hostile checkpoints, malformed tokenizers and data, options out of range, a full and a
read-only disk, missing packages, trainings that diverge. A command has to refuse each with an exit code
that is not 0 and one last line that names the file or the flag, leave nothing behind, run nothing that
the file holds, and come to an end; or, where nothing is wrong (a byte-order mark, another log format),
it has to work. Everything that is fed is made in a temporary folder; nothing is downloaded. Ends with 1
if a case failed.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import campaign_fixtures as fixtures
import campaign_judge as judge
from bad_inputs import all_cases
from campaign_judge import Case, Verdict


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tools", nargs="+", metavar="TOOL", help="only these, as finetune or fairseq-train"
    )
    parser.add_argument("--only", metavar="REGEX", help="only cases whose description matches")
    parser.add_argument("--failed", type=Path, metavar="JSON", help="only what failed in this report")
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time (%(default)s)")
    parser.add_argument(
        "--fresh", action="store_true", help="start Python anew for every case: slow, as a user does it"
    )
    parser.add_argument("--verbose", action="store_true", help="show every case, not only what failed")
    parser.add_argument("--list", action="store_true", help="print the cases, try nothing")
    parser.add_argument("--json", type=Path, help="write all verdicts here, too")
    arguments = parser.parse_args(argv)
    if arguments.jobs < 1:
        parser.error(f"--jobs {arguments.jobs}: at least 1")
    return arguments


def choose(arguments: argparse.Namespace) -> list[Case]:
    """The cases that were asked for."""
    cases = all_cases()
    known = sorted({case.tool for case in cases})
    for tool in arguments.tools or ():
        if tool not in known:
            sys.exit(f"campaign_bad_inputs.py: error: --tools {tool}: choose of {', '.join(known)}")
    failed = None
    if arguments.failed:
        report = json.loads(arguments.failed.read_text("utf-8"))
        failed = {(e["tool"], e["wrong"]) for e in report["cases"] if e["verdict"] == "failed"}
    return [
        case
        for case in cases
        if (not arguments.tools or case.tool in arguments.tools)
        and (not arguments.only or re.search(arguments.only, case.wrong))
        and (failed is None or (case.tool, case.wrong) in failed)
    ]


def show(verdict: Verdict, *, verbose: bool) -> None:
    """A case that failed, or any."""
    if verdict.kind == "failed":
        print(f"\nFAILED {verdict.case.tool}: {verdict.case.wrong}: {'; '.join(verdict.faults)}")
        print(f"  {verdict.command}")
    elif verbose:
        print(f"\n{verdict.kind} {verdict.case.tool}: {verdict.case.wrong} {verdict.case.skipped}")
    if verdict.kind == "failed" or verbose:
        for line in judge.last_lines(verdict.output, 6):
            print(f"  | {line[:300]}")
    sys.stdout.flush()


def table(verdicts: Sequence[Verdict]) -> str:
    """What came of the cases of each command."""
    kinds = ("one clear line", "works", "failed", "skipped")
    counts: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        counts.setdefault(verdict.case.tool, Counter())[verdict.kind] += 1
    counts = dict(sorted(counts.items()))
    counts["all"] = sum(counts.values(), Counter())
    lines = [f"| command | tried | {' | '.join(kinds)} |", f"| --- |{' ---: |' * (1 + len(kinds))}"]
    for tool, found in counts.items():
        tried = sum(found.values()) - found["skipped"]
        lines.append(f"| {tool} | {tried} | {' | '.join(str(found[kind]) for kind in kinds)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is fed, try all cases, print the table."""
    arguments = parse_arguments(argv)
    judge.with_own_mounts()
    cases = choose(arguments)
    if arguments.list:
        for case in cases:
            print(f"{case.tool}: {case.wrong}: {case.outcome} {case.says!r} {case.skipped}")
        print(f"{len(cases)} cases")
        return
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was made goes
    judge.preload()
    with judge.temporary_folder() as folder_:
        made = folder_ / "made"
        fixtures.make(made, arguments.jobs)
        before = judge.listing(made)
        with fixtures.server(made) as address:
            verdicts = judge.run(
                [judge.at_server(case, address) for case in cases],
                made,
                jobs=arguments.jobs,
                fresh=arguments.fresh,
                report=lambda verdict: show(verdict, verbose=arguments.verbose),
            )
        touched = sorted(set(before.items()) ^ set(judge.listing(made).items()))
    print(f"\n{table(verdicts)}\n")
    failed = sum(verdict.kind == "failed" for verdict in verdicts)
    reasons = Counter(verdict.case.skipped for verdict in verdicts if verdict.case.skipped)
    for reason, count in reasons.items():
        print(f"{count} skipped: {reason}")
    for path, _ in touched:
        print(f"FAILED: a command changed its input {path}")
    print(f"{len(cases)} cases, {failed} failed, {time.monotonic() - began:.0f} s")
    if arguments.json:
        report = {"cases": [verdict.as_json() for verdict in verdicts], "failed": failed}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if failed or touched:
        sys.exit(1)


if __name__ == "__main__":
    main()
