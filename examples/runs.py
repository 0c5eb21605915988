"""Running stock ``fairseq-train``, watching it, and writing down what came out."""

from __future__ import annotations

import importlib.metadata
import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PACKAGES = ("fairseq", "torch", "numpy", "hydra-core", "omegaconf", "adv_plugins")
RESULT = "result.json"
FAILURE = "failure.json"
LOG = "train.log"


class TrainingError(RuntimeError):
    """A training failed; the message says where its log is."""


@dataclass
class Run:
    """One training: a recipe's command and where its files go."""

    name: str
    command: list[str]
    save_dir: Path
    best: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """Where fairseq's log goes."""
        return self.save_dir / LOG

    def validations(self) -> list[dict[str, float]]:
        """The numbers of every validation so far, in order."""
        return validations(self.log)


def validations(log: Path) -> list[dict[str, float]]:
    """Read the ``valid`` lines of a log written with ``--log-format json``."""
    if not log.is_file():
        return []
    found = []
    for line in log.read_text("utf-8", errors="replace").splitlines():
        _, separator, numbers = line.partition("| INFO | valid | ")
        if separator and numbers.startswith("{"):
            found.append({key: float(value) for key, value in json.loads(numbers).items()})
    return found


def succeeded(exit_code: int | None, log: Path) -> bool:
    """Whether a training came to its end.

    fairseq reads batches ahead in a thread that it never stops. Where the last update comes in the
    middle of an epoch, that thread may abort the process on its way out, when everything is saved.
    """
    if exit_code == -signal.SIGABRT and log.is_file():
        return "| fairseq_cli.train | done training in" in log.read_text("utf-8", errors="replace")
    return exit_code == 0


def write_result(run: Run, *, seconds: float) -> dict[str, Any]:
    """Write everything that is needed to repeat and compare the run; returns it.

    Raises:
        RuntimeError: the log holds no validation.
    """
    history = run.validations()
    if not history:
        raise RuntimeError(f"{run.name}: no validation in {run.log}")
    metric = f"valid_{run.best}"
    result = {
        **run.facts,
        "metric": run.best,
        "best": max(numbers[metric] for numbers in history),
        "last": history[-1][metric],
        "validations": history,
        "seconds": round(seconds, 1),
        "command": run.command,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    (run.save_dir / RESULT).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def version(package: str) -> str | None:
    """An installed package's version."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """The checkout's commit, with ``+`` when it was changed since."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def run_in_foreground(command: Sequence[str], log: Path) -> int:
    """Run with the output on this terminal and in the log (appended); returns the exit code.

    fairseq's own ``--log-file`` leaves the validations out.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    # The script beside this interpreter, so that the right environment is used.
    script = Path(sys.executable).parent / command[0]
    program = str(script) if script.exists() else command[0]
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            [program, *command[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            file.write(line)
    code = process.wait()
    return 0 if succeeded(code, log) else code


def run_in_background(
    runs: Sequence[Run],
    *,
    jobs: int,
    report: Callable[[Run, dict[str, float]], None],
    finished: Callable[[Run, dict[str, Any]], None] | None = None,
) -> None:
    """Train ``runs``, ``jobs`` at a time, each in a process of its own; report every validation.

    A server process imports fairseq once and forks for every run, which saves its start-up. Output
    goes to the log. Several GPUs are used in turn, one a run.

    Args:
        finished: called with the result of each run, also of one that failed; without it, a failure
            stops everything.

    Raises:
        RuntimeError: a run failed; the message holds the end of its log.
    """
    # The server process knows the modules to preload by this path only.
    here = Path(__file__).resolve().parent
    paths = [str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["runs_preload"])
    waiting, active = list(runs), []
    slots = list(range(jobs))
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                run = waiting.pop(0)
                run.save_dir.mkdir(parents=True, exist_ok=True)
                slot = slots.pop(0)
                process = context.Process(target=_train, args=(run.command, str(run.log), slot))
                process.start()
                active.append((run, process, time.monotonic(), [0], slot))
            time.sleep(0.5)
            for item in list(active):
                run, process, began, seen, slot = item
                alive = process.is_alive()
                for numbers in run.validations()[seen[0] :]:
                    seen[0] += 1
                    report(run, numbers)
                if not alive:
                    active.remove(item)
                    slots.append(slot)
                    seconds = time.monotonic() - began
                    if not succeeded(process.exitcode, run.log) or not run.validations():
                        result = write_failure(run, process.exitcode, seconds=seconds)
                        if finished is None:
                            raise RuntimeError(
                                f"{run.name} failed; the end of {run.log}:\n{result['failure']}"
                            )
                    else:
                        result = write_result(run, seconds=seconds)
                    if finished is not None:
                        finished(run, result)
    finally:
        for _, process, *_ in active:
            process.terminate()


def write_failure(run: Run, exit_code: int | None, *, seconds: float) -> dict[str, Any]:
    """Write down that a run failed, and how; returns it."""
    lines = run.log.read_text("utf-8", errors="replace").splitlines() if run.log.is_file() else []
    result = {
        **run.facts,
        "metric": run.best,
        "exit_code": exit_code,
        "failure": "\n".join(line[:500] for line in lines[-20:]),
        "seconds": round(seconds, 1),
        "command": run.command,
    }
    (run.save_dir / FAILURE).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _train(command: list[str], log: str, slot: int) -> None:
    """What the ``fairseq-train`` script does, with its output in a file."""
    # A former attempt's log would be read as this one's.
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = command
    import torch

    gpus = torch.cuda.device_count()
    if gpus > 1:
        torch.cuda.set_device(slot % gpus)
    from fairseq_cli.train import cli_main

    cli_main()
