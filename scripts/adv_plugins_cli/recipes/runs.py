"""Running stock ``fairseq-train``, watching it, and writing down what came out."""

from __future__ import annotations

import codecs
import importlib.metadata
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from adv_plugins_cli.command import UserError, read_json
from adv_plugins_cli.recipes import children, run_folder
from adv_plugins_cli.recipes.attempt import Attempt
from adv_plugins_cli.recipes.console import Console, Raw
from fairseq_compat import files, validations

PACKAGES = ("fairseq", "torch", "numpy", "hydra-core", "omegaconf", "adv_plugins")
RESULT = "result.json"
TRAINED = "trained.json"  # the result, until all that comes after the training is done
FAILURE = "failure.json"
LOG = "train.log"
POLL_SECONDS = 0.1


class TrainingError(UserError):
    """A training failed; the message says why, and where its log is."""


@dataclass
class Run:
    """One training: a recipe's command and where its files go."""

    name: str
    command: list[str]
    save_dir: Path
    best: str
    facts: dict[str, Any] = field(default_factory=dict)
    describe: Callable[[Path], None] | None = None  # writes what the folder says of its checkpoints

    @property
    def log(self) -> Path:
        """Where fairseq's log goes, that of every attempt; for people only."""
        return self.save_dir / LOG

    def validations(self) -> list[dict[str, float]]:
        """The numbers of every validation so far, in order, such as ``valid_accuracy``."""
        rows: dict[int, dict[str, float]] = {}
        for line in validations.read(self.save_dir):
            row = rows.setdefault(line["update"], {"epoch": line["epoch"]})
            row.update({f"{line['subset']}_{key}": value for key, value in line["stats"].items()})
        return list(rows.values())

    def scores(self) -> list[float]:
        """The metric of every validation so far, in order, on the first subset.

        Raises:
            TrainingError: there is none.
        """
        lines = validations.read(self.save_dir)
        if not lines:
            raise TrainingError(
                f"{self.name}: trained, but never validated, so there is no result: see {self.log} "
                "(--validate-interval, --validate-after-updates)"
            )
        first = [line["stats"] for line in lines if line["subset"] == lines[0]["subset"]]
        if not all(self.best in numbers for numbers in first):
            raise TrainingError(
                f"{self.name}: its validations report {', '.join(sorted(first[0]))}, not {self.best}: "
                f"see {self.log}"
            )
        return [numbers[self.best] for numbers in first]


def read_result(run: Run) -> dict[str, Any] | None:
    """What a run left, None if it has not finished.

    Raises:
        UserError: the file is damaged.
    """
    path = run.save_dir / RESULT
    if not path.is_file():
        return None
    try:
        result = read_json(path)
    except UserError as error:
        raise UserError(f"{error}: delete it, and the same command makes it again") from error
    missing = [name for name in ("command", "last") if name not in result]
    if missing:
        raise UserError(
            f"{path}: holds no {missing[0]!r}: delete it, and the same command makes it again"
        )
    return result


def write_result(run: Run, *, seconds: float, name: str = RESULT) -> dict[str, Any]:
    """Write everything that is needed to repeat and compare the run; returns it.

    Args:
        seconds: of the last attempt. name: of the file.

    Raises:
        TrainingError: it was never validated.
    """
    scores = run.scores()
    result = {
        **run.facts,
        "metric": run.best,
        "best": max(scores),
        "last": scores[-1],
        "validations": run.validations(),
        "seconds": round(seconds, 1),
        "command": run.command,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    files.write_json(run.save_dir / name, result)
    (run.save_dir / FAILURE).unlink(missing_ok=True)  # of an earlier attempt
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


def run_in_foreground(
    command: Sequence[str],
    log: Path,
    *,
    keep_open: Sequence[int] = (),
    console: Console | Raw | None = None,
) -> int:
    """Run with the output in the log (appended) and on this terminal; returns the exit code.

    The training writes to the log itself, so nothing is lost whichever process is killed (fairseq's
    own ``--log-file`` leaves the validations out), and ends when this process does. Of a failure the
    last line says why.

    Args:
        keep_open: descriptors that it gets, for the locks that they hold.
        console: what shows the output here (default: all of it).
    """
    console = console or Raw()
    log.parent.mkdir(parents=True, exist_ok=True)
    # The script beside this interpreter, so that the right environment is used.
    script = Path(sys.executable).parent / command[0]
    program = str(script) if script.exists() else command[0]
    # torchrun ends its workers when it is told to end, and cannot when it is killed.
    with_signal = signal.SIGTERM if "torch.distributed.run" in command else signal.SIGKILL
    attempt = Attempt.next(log)
    with log.open("ab") as file, log.open("rb") as shown:
        shown.seek(attempt.begin)
        process = subprocess.Popen(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=tuple(keep_open),
            preexec_fn=partial(children.die_with_parent, os.getpid(), with_signal=with_signal),
        )
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        try:
            code = None
            while code is None:
                time.sleep(POLL_SECONDS)
                code = process.poll()
                console.write(decoder.decode(shown.read()))
        finally:
            console.close()
            children.end_group(process)
    if attempt.succeeded(code):
        return 0
    if attempt.is_cut_off() and isinstance(console, Raw):
        print(flush=True)  # so that the reason has a line of its own
    print(f"error: training failed, {attempt.reason(code)}; the log: {log}", file=sys.stderr)
    return code


def run_in_background(
    runs: Sequence[Run],
    *,
    jobs: int,
    report: Callable[[Run, dict[str, float]], None],
    finished: Callable[[Run, dict[str, Any]], None] | None = None,
) -> None:
    """Train ``runs``, ``jobs`` at a time, each in a process of its own; report every validation.

    A server process imports fairseq once and forks for every run, which saves its start-up; when this
    process ends, however it ends, so does the server, and with it the runs. Output goes to the log.
    Several GPUs are used in turn, one a run.

    Args:
        finished: called with the result of each run, also of one that failed; without it, a failure
            stops everything.

    Raises:
        TrainingError: a run failed.
        UserError: there are no jobs, or a run's folder is taken.
    """
    if jobs < 1:
        raise UserError(f"--jobs {jobs}: at least 1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["adv_plugins_cli.recipes.runs_preload"])
    waiting: list[Run] = list(runs)
    active: list[_Active] = []
    slots = list(range(jobs))
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                active.append(_start(context, waiting.pop(0), slots.pop(0)))
            time.sleep(0.5)
            for item in list(active):
                alive = item.process.is_alive()
                new = item.run.validations()[item.seen :]
                item.seen += len(new)
                for numbers in new:
                    report(item.run, numbers)
                if not alive:
                    active.remove(item)
                    slots.append(item.slot)
                    result = _end(item)
                    if finished is not None:
                        finished(item.run, result)
                    elif "failure" in result:
                        raise TrainingError(
                            f"{item.run.name} failed, {result['reason']}; the log: {item.run.log}"
                        )
    finally:
        for item in active:
            item.process.terminate()
            item.process.join()
            item.lock.close()


@dataclass
class _Active:
    """A run of ``run_in_background`` that is at work."""

    run: Run
    process: Any
    attempt: Attempt
    slot: int
    lock: ExitStack
    began: float = field(default_factory=time.monotonic)
    seen: int = 0  # validations


def _start(context: Any, run: Run, slot: int) -> _Active:
    with ExitStack() as stack:
        advice = "choose another --out-dir (or delete it)"
        stack.enter_context(run_folder.taken(run.save_dir, run.command, advice=advice))
        attempt = Attempt.next(run.log)
        if run.describe is not None:
            run.describe(run.save_dir)
        if not any(run.save_dir.glob("checkpoint*.pt")):
            validations.keep_until(run.save_dir, 0)  # nothing to go on from
        process = context.Process(target=_train, args=(run.command, str(run.log), slot))
        process.start()
        return _Active(run, process, attempt, slot, stack.pop_all())


def _end(item: _Active) -> dict[str, Any]:
    """Write down how it ended; returns it."""
    with item.lock:
        run, exit_code = item.run, item.process.exitcode
        seconds = time.monotonic() - item.began
        reason = None if item.attempt.succeeded(exit_code) else item.attempt.reason(exit_code)
        if reason is None:
            try:
                return write_result(run, seconds=seconds)
            except TrainingError as error:
                reason = str(error)
        return write_failure(run, item.attempt, exit_code, reason, seconds=seconds)


def write_failure(
    run: Run, attempt: Attempt, exit_code: int | None, reason: str, *, seconds: float
) -> dict[str, Any]:
    """Write down that a run failed, and how; returns it."""
    result = {
        **run.facts,
        "metric": run.best,
        "exit_code": exit_code,
        "reason": reason,
        "failure": "\n".join(line[:500] for line in attempt.text().splitlines()[-20:]),
        "seconds": round(seconds, 1),
        "command": run.command,
    }
    files.write_json(run.save_dir / FAILURE, result)
    return result


def _train(command: list[str], log: str, slot: int) -> None:
    """What the ``fairseq-train`` script does, with its output in a file."""
    children.die_with_starter()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = command
    import torch

    gpus = torch.cuda.device_count()
    if gpus > 1:
        torch.cuda.set_device(slot % gpus)
    from fairseq_cli.train import cli_main

    try:
        cli_main()
    except Exception:  # which multiprocessing shows in its own way, past what Python has for that
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
