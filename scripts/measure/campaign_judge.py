"""Runs commands that are fed something bad, and judges how they took it.

A command with a bad input has to end with an exit code that is not 0 and one line that names the file
or the flag to change: no traceback, nothing half-written in the place of the output, no endless wait,
and nothing that a hostile file holds has run. :class:`Case` says what is tried, :func:`run` tries it.

Starting Python with torch and fairseq takes seconds, so a case runs in a fork of this process, which
has them imported (:func:`preload`); what depends on the start itself, or is asked for, starts anew.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import os
import re
import runpy
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adv_plugins_cli.command import quiet

MEASURE = Path(__file__).resolve().parent
ROOT = MEASURE.parents[1]
# Commands whose names the cases use.
COMMANDS = ("finetune", "compare", "pretrain", "predict", "evaluate", "download", "demo")
# A tool's name in the cases -> how it is called: a command of adv-plugins, or a script.
TOOLS: dict[str, tuple[str, ...]] = {
    **{path.stem: (str(path),) for path in sorted(MEASURE.glob("*.py"))},
    **{name: (name,) for name in COMMANDS},
    "preprocess_glue": ("preprocess",),
    "preprocess_task": ("preprocess",),
    "preprocess_text": ("preprocess-text",),
    "convert_from_hf": ("convert", "from-hf"),
    "convert_to_hf": ("convert", "to-hf"),
    "plot_attention": ("plot",),
    "strip_adversary": ("strip",),
}
TRAIN = "fairseq-train"
LONGEST_LINE = 700  # characters; more is no clear line
PREPARED = "before.json"
MOUNTS = "ADV_PLUGINS_CAMPAIGN_MOUNTS"  # set where this process may mount file systems


@dataclass(frozen=True)
class Place:
    """A case's own folder: inputs in ``inside``, outputs in ``out`` (where it is started as well).

    made: what all cases share and none may change.
    """

    root: Path
    made: Path

    @property
    def inside(self) -> Path:
        """The bad input."""
        return self.root / "in"

    @property
    def out(self) -> Path:
        """Where the command writes."""
        return self.root / "out"

    @property
    def marker(self) -> Path:
        """What a hostile file would make if its code ran."""
        return self.root / "marker"

    def fill(self, text: str) -> str:
        """``{in}``, ``{out}``, ``{made}`` and ``{root}`` (of the repository) as paths."""
        for name, path in (("in", self.inside), ("out", self.out), ("made", self.made), ("root", ROOT)):
            text = text.replace(f"{{{name}}}", str(path))
        return text


@dataclass(frozen=True)
class Case:
    """One command and what has to come of it.

    tool: a key of TOOLS, or fairseq-train. wrong: in words. says: a regular expression that its last
    line has to match; of a command that must work, one that must be found in its output. outcome:
    "refuses", "works", or "either" of them. prepare: makes the bad input. leaves: a regular expression
    of the paths below ``out`` that may be there afterwards. fresh: start Python anew. stdout: a file
    that the standard output goes to.
    """

    tool: str
    wrong: str
    command: Sequence[str]
    says: str = ""
    outcome: str = "refuses"
    prepare: Sequence[Callable[[Place], None]] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    input: bytes = b""
    stdout: str | None = None
    leaves: str | None = None
    fresh: bool = False
    limit: float = 90
    skipped: str = ""  # why it cannot be tried here


@dataclass(frozen=True)
class Verdict:
    """What came of a case; it holds if there are no ``faults``."""

    case: Case
    faults: Sequence[str]
    code: int | None
    output: str
    seconds: float
    command: str

    @property
    def kind(self) -> str:
        """The column of the table that it counts in."""
        if self.case.skipped:
            return "skipped"
        if self.faults:
            return "failed"
        return "works" if self.code == 0 else "one clear line"

    def as_json(self) -> dict[str, object]:
        """For a report that programs read."""
        return {
            "tool": self.case.tool,
            "wrong": self.case.wrong,
            "verdict": self.kind,
            "faults": list(self.faults),
            "skipped": self.case.skipped,
            "exit_code": self.code,
            "seconds": round(self.seconds, 2),
            "command": self.command,
            "output": last_lines(self.output, 20),
        }


def last_lines(output: str, count: int) -> list[str]:
    """The last lines that are not empty, as a terminal would show them."""
    lines = [line.rpartition("\r")[2].rstrip() for line in output.replace("\r\n", "\n").split("\n")]
    return [line for line in lines if line.strip()][-count:]


def preload() -> None:
    """Import what the commands share. Nothing may compute: a fork after autograd's threads can hang."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    paths = [str(ROOT), str(MEASURE.parent)]
    paths += filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    sys.path[:0] = [str(ROOT), str(MEASURE.parent)]
    sys.dont_write_bytecode = True
    import fairseq_compat

    fairseq_compat.install()
    with quiet():
        import torch

        import adv_plugins  # noqa: F401

        for optional in ("matplotlib.figure", "requests", "safetensors.torch", "sentencepiece"):
            with contextlib.suppress(ImportError):
                __import__(optional)
        # What a training imports late, and the caches of hydra's parser.
        import torch._dynamo
        from fairseq import options
        from fairseq.dataclass.utils import convert_namespace_to_omegaconf

        from adv_plugins_cli.data import binarize  # noqa: F401 - fairseq's data and tokenizers

        line = "data --task sentence_prediction --arch roberta --criterion rat_criterion"
        parser = options.get_training_parser()
        convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, line.split()))
    torch.set_num_threads(1)


def run(
    cases: Sequence[Case],
    made: Path,
    *,
    jobs: int = 1,
    fresh: bool = False,
    report: Callable[[Verdict], None] = lambda verdict: None,
) -> list[Verdict]:
    """Try every case, ``jobs`` at a time; the verdicts in their order.

    Args:
        fresh: start Python anew for each, which takes many times as long.
    """
    verdicts: dict[int, Verdict] = {}
    waiting = list(enumerate(cases))
    active: dict[int, tuple[int, Case, Place, float]] = {}
    with temporary_folder() as folder:
        try:
            while waiting or active:
                while waiting and len(active) < jobs:
                    index, case = waiting.pop(0)
                    if case.skipped:
                        verdicts[index] = Verdict(case, (), None, "", 0.0, "")
                        report(verdicts[index])
                        continue
                    place = Place(folder / str(index), made)
                    pid = _start(case, place, fresh=fresh or case.fresh)
                    active[pid] = (index, case, place, time.monotonic())
                time.sleep(0.01)
                for pid, (index, case, place, began) in list(active.items()):
                    verdict = _ended(pid, case, place, time.monotonic() - began)
                    if verdict is not None:
                        del active[pid]
                        verdicts[index] = verdict
                        report(verdict)
        finally:
            for pid, (_, _, place, _) in active.items():
                _end_group(pid)
                os.waitpid(pid, 0)
                _unmount(place)
    return [verdicts[index] for index in range(len(cases))]


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for as long as the context lasts.

    ``tempfile.TemporaryDirectory`` also removes it at the end of a fork, which is the end of a case.
    """
    folder = Path(tempfile.mkdtemp(prefix="campaign-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _command(case: Case, place: Place) -> list[str]:
    arguments = [place.fill(argument) for argument in case.command]
    if case.tool == TRAIN:
        return [str(Path(sys.executable).with_name(TRAIN)), *arguments]
    return [*TOOLS[case.tool], *arguments]


def _start(case: Case, place: Place, *, fresh: bool) -> int:
    """Fork; the child prepares the case and becomes the command."""
    place.inside.mkdir(parents=True)
    place.out.mkdir()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70  # of the case itself, not of the command
    try:
        os.setsid()
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
        _redirect(place.root / "preparing")
        for step in case.prepare:
            step(place)
        before = {"out": listing(place.out), "in": listing(place.inside)}
        (place.root / PREPARED).write_text(json.dumps(before))
        os.environ.update({name: place.fill(value) for name, value in case.environment.items()})
        (place.root / "input").write_bytes(case.input)
        _redirect(place.root / "output", place.root / "input", case.stdout)
        os.chdir(place.out)
        command = _command(case, place)
        if fresh:
            os.environ["PYTHONUNBUFFERED"] = "1"  # the order of a terminal
            if case.tool == TRAIN:
                os.execv(command[0], command)
            module = () if command[0].endswith(".py") else ("-m", "adv_plugins_cli")
            os.execv(sys.executable, [sys.executable, *module, *command])
        code = _call(case.tool, command)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _redirect(output: Path, source: Path | None = None, stdout: str | None = None) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 2)
    os.dup2(descriptor if stdout is None else os.open(stdout, os.O_WRONLY), 1)
    os.dup2(os.open(source or os.devnull, os.O_RDONLY), 0)
    # As Python makes them at its start on a terminal; whoever called may have put others there.
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", buffering=1 if stdout is None else -1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, errors="backslashreplace")


def _call(tool: str, command: list[str]) -> int:
    """The command in this process; its exit code, found as Python finds it."""
    sys.argv = command
    code = 0
    try:
        if tool == TRAIN:
            from fairseq_cli.train import cli_main

            sys.argv[0] = TRAIN
            cli_main()
        elif command[0].endswith(".py"):
            sys.path.insert(0, str(Path(command[0]).parent))
            runpy.run_path(command[0], run_name="__main__")
        else:
            from adv_plugins_cli.__main__ import main

            code = main(command)
    except SystemExit as error:
        if isinstance(error.code, int) or error.code is None:
            code = error.code or 0
        else:
            print(error.code, file=sys.stderr)
            code = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    try:
        sys.stdout.flush()
    except OSError as error:  # Python says so, and ends with this code
        print(f"Exception ignored in: {sys.stdout!r}\n{error!r}", file=sys.stderr)
        code = code or 120
    # As at the end of Python, except that threads which never end are not waited for.
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    return code & 0xFF


def _ended(pid: int, case: Case, place: Place, seconds: float) -> Verdict | None:
    """The verdict, None while the command runs and may."""
    done = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    hangs = done is None and seconds > case.limit
    if done is None and not hangs:
        return None
    _end_group(pid)  # also what it may have left running; its number is nobody else's before waitpid
    _, status = os.waitpid(pid, 0)
    code = None if hangs else os.waitstatus_to_exitcode(status)
    output = place.root / "output"
    text = output.read_text("utf-8", errors="replace") if output.exists() else ""
    if not (place.root / PREPARED).exists():
        text = (place.root / "preparing").read_text("utf-8", errors="replace")
        faults = ["the case could not be prepared"]
    else:
        faults = judge(case, code, text, place)
    command = " ".join([case.tool, *map(place.fill, case.command)])
    _unmount(place)
    shutil.rmtree(place.root, ignore_errors=True)
    return Verdict(case, faults, code, text, seconds, command)


def _end_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def judge(case: Case, code: int | None, output: str, place: Place) -> list[str]:
    """What is wrong with how a command took its case.

    Args:
        code: its exit code, None if it did not end in time; output: all that it printed.
    """
    faults = []
    if code is None:
        faults.append(f"hangs: still running after {case.limit:g} s")
    if place.marker.exists():
        faults.append("ran code of the file")
    if "Traceback (most recent call last)" in output:
        faults.append("a traceback")
    if (code == 0 and case.outcome != "refuses") or case.outcome == "works":
        if code not in (0, None):
            faults.append(f"has to work, but ends with {code}")
        elif case.outcome == "works" and not re.search(case.says, output):
            faults.append(f"does not print {case.says!r}")
    elif code == 0:
        faults.append("goes on as if nothing were wrong")
    elif code is not None:
        faults += _line_faults(case.says, code, output)
    return faults + _changes(case, place, everywhere=code != 0)


def _line_faults(says: str, code: int, output: str) -> list[str]:
    """Whether the output ends with one line that says what it has to."""
    faults = []
    if code < 0:
        faults.append(f"killed by signal {-code}")
    lines = last_lines(output, sys.maxsize)
    if not lines:
        return [*faults, "says nothing"]
    if not re.search(says, lines[-1]):
        faults.append(f"the last line does not name {says!r}")
    if len(lines[-1]) > LONGEST_LINE and ": invalid choice: " not in lines[-1]:
        faults.append(f"the last line has {len(lines[-1])} characters")
    # A runner's last line may repeat that of the training, which stands in its log above.
    errors = [line for line in lines[:-1] if re.search(r"\b[Ee]rror: |\| ERROR \|", line)]
    if more := sum(line.strip()[:100] not in lines[-1] for line in errors):
        faults.append(f"{1 + more} error lines")
    return faults


def listing(folder: Path) -> dict[str, tuple[int, ...]]:
    """Path -> kind of everything below a folder, and of files the size and time."""
    found: dict[str, tuple[int, ...]] = {}
    for path in folder.rglob("*"):
        if "__pycache__" in path.parts:
            continue
        status = path.lstat()
        times = (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else ()
        facts = (stat.S_IFMT(status.st_mode), *times)
        found[str(path.relative_to(folder))] = facts
    return found


def _changes(case: Case, place: Place, *, everywhere: bool) -> list[str]:
    """What a refused command has left behind, changed or removed; of one that works, in its input."""
    before = json.loads((place.root / PREPARED).read_text())
    faults = []
    for name, folder in (("in", place.inside), ("out", place.out))[: 2 if everywhere else 1]:
        after = listing(folder)
        for path in sorted({*before[name], *after}):
            if path in before[name] and path in after and tuple(before[name][path]) == after[path]:
                continue
            if name == "out" and case.leaves and re.fullmatch(case.leaves, path):
                continue
            gone = "removed" if path not in after else "left behind"
            faults.append(f"{'changed' if path in before[name] and path in after else gone}: {path}")
    return faults[:5]


def may_mount() -> bool:
    """Whether :func:`with_own_mounts` has given this process a view of the file systems of its own."""
    return os.environ.get(MOUNTS) == "1"


def with_own_mounts() -> None:
    """Start this program again where it can mount a small or a read-only disk that nobody else sees.

    Does nothing where the system does not let it; the cases that need it are skipped then.
    """
    program = shutil.which("unshare")
    if program is None or MOUNTS in os.environ:
        return
    own = ["--mount"] if os.geteuid() == 0 else ["--mount", "--map-root-user"]
    trial = 'd=$(mktemp -d) && mount -t tmpfs none "$d" && umount "$d" && rmdir "$d"'
    done = subprocess.run([program, *own, "sh", "-c", trial], capture_output=True)
    os.environ[MOUNTS] = "0" if done.returncode else "1"
    if may_mount():
        os.execv(program, [program, *own, sys.executable, *sys.argv])


def is_device(path: str) -> bool:
    """Whether a path is that of a device."""
    return stat.S_ISCHR(os.stat(path).st_mode) if os.path.exists(path) else False


def at_server(case: Case, address: str) -> Case:
    """The case with the address of a server on this machine."""
    command = [argument.replace("SERVER", address) for argument in case.command]
    return dataclasses.replace(case, command=command)


def _unmount(place: Place) -> None:
    if not may_mount():
        return
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for folder in mounted:
        if folder.startswith(f"{place.root}/"):
            subprocess.run(["umount", "-l", folder], capture_output=True)
