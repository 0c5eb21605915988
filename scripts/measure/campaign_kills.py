"""Kills trainings at every kind of moment and shows that the same command continues them bit for bit.

    python scripts/measure/campaign_kills.py --kills 100

Each subject (our four criterions, two that carry a state and a stock one with fairseq-train, and
adv-plugins finetune) first trains a tiny model on random data without interruption. Then it is killed
with SIGKILL, again and again: at random moments; before the n-th of the operations that its saving
consists of (opening, renaming, copying, removing a file); and in the middle of writing a checkpoint, at
a random byte. After one to three kills the same command runs to its end, and all that it leaves is
compared with the uninterrupted run's: weights, optimizer and random state of every checkpoint,
validations, result.json, and the names of all files. Needs no network and no GPU.

The exit code is 0 if nothing differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fairseq_compat
from adv_plugins_cli.command import one_line_errors
from adv_plugins_cli.recipes import children
from fairseq_compat import validations

CLASSES = 3
ROWS = {"train": 26, "valid": 12}
CRITERIONS = {
    "rat": "--criterion rat_criterion --arch roberta",
    "freelb": "--criterion freelb_criterion --adv-steps 2 --arch roberta",
    "rapt": "--criterion rapt_criterion --noise-max-layer 1 --arch roberta",
    "asa": "--criterion asa_criterion --arch asa_roberta",
    # These two carry something from update to update.
    "freeat": "--criterion free_at_criterion --adv-steps 2 --arch roberta",
    "smart": "--criterion smart_criterion --bregman-weight 0.5 --arch roberta",
    "stock": "--criterion sentence_prediction --arch roberta",
}
SUBJECTS = (*CRITERIONS, "finetune")
MODEL = (
    f"--num-classes {CLASSES} --encoder-layers 2 --encoder-embed-dim 16 --encoder-ffn-embed-dim 16 "
    "--encoder-attention-heads 2 --max-positions 32 --cpu --lr 3e-3 --batch-size 4 --log-format json "
    "--required-batch-size-multiple 1 --dropout 0.1 --attention-dropout 0.1"
)
# 7 updates an epoch: saves within epochs and at their ends, and the last update within one.
LENGTH = "--max-update 26 --save-interval-updates 3 --keep-interval-updates 1"
TRAINING = (
    f"--task sentence_prediction --init-token 0 {MODEL} {LENGTH} --optimizer adam --num-workers 0 "
    "--adam-betas (0.9,0.98) --lr-scheduler polynomial_decay --total-num-update 26 --warmup-updates 2 "
    "--best-checkpoint-metric accuracy --maximize-best-checkpoint-metric --no-epoch-checkpoints --seed 1"
)
SAVING = ("open", "os.rename", "os.link", "shutil.copyfile", "os.remove")  # audit events of Python
WRITTEN = os.O_WRONLY | os.O_RDWR
TIME_LIMIT = 600.0  # seconds a training may take


@dataclass
class Death:
    """When a process kills itself: before its n-th operation, and how many bytes into its write."""

    operation: int
    bytes: int | None = None


@dataclass
class Figures:
    """What became of a subject."""

    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0  # killed ones and their continuations
    chains: int = 0  # of them, each compared at its end
    failures: Counter[str] = field(default_factory=Counter)


# In the process of a training ---------------------------------------------------------------------


def train(arguments: Sequence[str], folder: str, death: Death | None, count: str | None) -> None:
    """``fairseq-train`` in a forked process, its output in the folder's log."""
    children.die_with_starter()
    Path(folder).mkdir(parents=True, exist_ok=True)
    descriptor = os.open(f"{folder}/train.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if death is not None or count is not None:
        watch_saving(folder, death, count)
    sys.argv = ["fairseq-train", *arguments]
    from fairseq_cli.train import cli_main

    cli_main()


def watch_saving(folder: str, death: Death | None, count: str | None) -> None:
    """Write the operations on files of the folder down in the file ``count``, or die at one of them."""
    seen = 0

    def hook(event: str, values: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in SAVING or not any(str(value).startswith(folder) for value in values[:2]):
            return
        if event == "open" and not (isinstance(values[2], int) and values[2] & WRITTEN):
            return
        seen += 1
        if count is not None:
            os.write(descriptor, f"{event} {Path(str(values[0])).name}\n".encode())
        elif death is not None and seen == death.operation:
            if death.bytes is None:
                os.kill(os.getpid(), signal.SIGKILL)
                return
            # The system ends the process in the middle of the write that goes beyond.
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (death.bytes, death.bytes))

    descriptor = os.open(count, os.O_WRONLY | os.O_CREAT, 0o644) if count is not None else -1
    sys.addaudithook(hook)


# A subject's runs ---------------------------------------------------------------------------------


class Subject:
    """A command that is run with a folder of its own each time.

    data: the preprocessed folder; context: of the processes that have fairseq imported.
    """

    def __init__(self, name: str, data: Path, work: Path, context: Any) -> None:
        self.name, self.data, self.work, self.context = name, data, work, context
        self.figures = Figures()
        self.whole = work / name / "whole"
        self.operations: list[str] = []
        self.size = 0
        self.seconds = 0.0

    def prepare(self) -> None:
        """The run without interruption, with which all others are compared."""
        began = time.monotonic()
        count = self.work / self.name / "operations"
        self.whole.parent.mkdir(parents=True)
        self.run(self.whole, count=count)
        self.seconds = time.monotonic() - began
        self.operations = count.read_text().splitlines() if count.exists() else []
        self.size = (self.whole / "checkpoint_last.pt").stat().st_size

    def chain(self, number: int, seed: int, kills: int) -> None:
        """Kill a run so many times, let it end, compare."""
        randomly = random.Random(f"{self.name} {seed} {number}")
        folder = self.work / self.name / f"chain-{number}"
        for _ in range(kills):
            self.figures.runs += 1
            if self.kill_once(folder, randomly) is None:
                break  # it was faster
        self.figures.runs += 1
        self.figures.chains += 1
        try:
            self.run(folder)
            differing = list(differences(self.whole, folder))
        except RuntimeError as error:
            differing = [str(error)]
        for what in differing:
            print(f"{self.name}: {folder}: {what}", flush=True)
        self.figures.failures.update(what.partition(":")[0] for what in differing)
        if not differing:
            shutil.rmtree(folder)

    def run(self, folder: Path, count: Path | None = None) -> None:
        """Run to the end; raises RuntimeError where it fails."""
        process = self.start(folder, None, count)
        process.join(TIME_LIMIT)
        if process.exitcode not in (0, -signal.SIGABRT):  # see runs.py about the latter
            process.kill()
            raise RuntimeError(f"failed: exit code {process.exitcode}")

    def start(self, folder: Path, death: Death | None, count: Path | None = None) -> Any:
        line = f"{TRAINING} {CRITERIONS[self.name]} --save-dir {folder} "
        line += f"--user-dir {fairseq_compat.user_dir()}"
        arguments = [str(self.data / "RTE-bin"), *line.split()]
        counted = None if count is None else str(count)
        process = self.context.Process(target=train, args=(arguments, str(folder), death, counted))
        process.start()
        return process

    def kill_once(self, folder: Path, randomly: random.Random) -> str | None:
        """Start and kill; returns how, None if it ended before."""
        kind = randomly.choice(["moment", "operation", "write", "write"])
        if kind == "moment":
            return self.kill(folder, kind, seconds=randomly.uniform(0, self.seconds))
        operation = randomly.randint(1, len(self.operations))
        into = randomly.randint(0, self.size - 1) if kind == "write" else None
        return self.kill(folder, kind, Death(operation, into))

    def kill(
        self, folder: Path, kind: str, death: Death | None = None, seconds: float = TIME_LIMIT
    ) -> str | None:
        """The same at a given point; counts it as of this kind."""
        process = self.start(folder, death)
        process.join(seconds)
        process.kill()
        process.join()
        if process.exitcode not in (-signal.SIGKILL, -signal.SIGXFSZ):
            return None
        self.figures.kills[kind] += 1
        return kind


class Finetune(Subject):
    """``adv-plugins finetune``, a process that starts another one; either is killed."""

    def start(self, folder: Path, death: Death | None, count: Path | None = None) -> Any:
        del death, count
        line = f"RTE rat --from-scratch --arch roberta --data-bin {self.data} --save-dir {folder}"
        own = f"{MODEL} {LENGTH} --total-num-update 26 --warmup-updates 2 --num-workers 1"
        command = [sys.executable, "-m", "adv_plugins_cli", "finetune", *line.split(), "--"]
        with open(f"{folder}.out", "ab") as output:
            process = subprocess.Popen(
                [*command, *own.split()],
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=children.die_with_parent,
            )
        return process

    def run(self, folder: Path, count: Path | None = None) -> None:
        if (folder / "result.json").exists():
            return  # it had ended before the kill; a finished run is not trained again
        code = self.start(folder, None).wait(TIME_LIMIT)
        if code:
            raise RuntimeError(f"failed: exit code {code}, see {folder}.out")

    def kill_once(self, folder: Path, randomly: random.Random) -> str | None:
        kind = randomly.choice(
            ["runner, moment", "training, moment", "runner, write", "training, write"]
        )
        victim, _, when = kind.partition(", ")
        runner = self.start(folder, None)
        if when == "moment":
            with contextlib.suppress(subprocess.TimeoutExpired):
                runner.wait(randomly.uniform(0.1, 0.9) * self.seconds)
        else:
            wait_for_write(folder, randomly.randint(1, 12), runner)
        trainings = child_processes(runner.pid)
        if runner.poll() is not None:
            return None
        if victim == "training" and trainings:
            for number in trainings:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            ended = runner.wait(TIME_LIMIT)
            if not ended:
                self.figures.failures["a killed training counted as a success"] += 1
        else:
            runner.kill()
            runner.wait()
            if any(outlives(number) for number in trainings):
                self.figures.failures["the training outlived its runner"] += 1
        self.figures.kills[f"{when} ({victim})"] += 1
        return when


def wait_for_write(folder: Path, nth: int, runner: subprocess.Popen[bytes]) -> None:
    """Return when the n-th file that appears is being written."""
    seen: set[str] = set()
    while len(seen) < nth and runner.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            seen.update(name for name in os.listdir(folder) if name.endswith((".partial", ".tmp")))
        time.sleep(0.0005)


def child_processes(parent: int) -> list[int]:
    """The numbers of a process's children, and theirs."""
    found = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            found += [int(child), *child_processes(int(child))]
    return found


def outlives(number: int, seconds: float = 15.0) -> bool:
    """Whether a process is there still. (torch's reading processes look for their parent every 5 s.)"""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
            if state not in "ZX":
                time.sleep(0.1)
                continue
        return False
    return True


# What they left -----------------------------------------------------------------------------------


def differences(whole: Path, other: Path) -> Iterator[str]:
    """What differs between the folders of two trainings, each beginning with its kind and a colon."""
    names = {path.name for path in whole.iterdir()}
    found = {path.name for path in other.iterdir()}
    for name in sorted(found - names):
        yield f"leftover: {name}"
    for name in sorted(names - found):
        yield f"missing file: {name}"
    for name in sorted(name for name in names & found if name.endswith(".pt")):
        if difference := first_difference(load(whole / name), load(other / name), name):
            yield f"differing checkpoint: {difference}"
    if validations.read(whole) != validations.read(other):
        yield "differing validations: validations.jsonl"
    if "result.json" in names & found:
        results = [json.loads((folder / "result.json").read_text("utf-8")) for folder in (whole, other)]
        for key in ("best", "last", "validations", "metric"):
            if results[0][key] != results[1][key]:
                yield f"differing result: {key}"


def load(path: Path) -> Any:
    """A checkpoint without what is no part of the training's state: the clock, the folder, and how often
    it was continued."""
    import torch

    state = torch.load(path, weights_only=False)
    for key in ("cfg", "args"):
        state.pop(key, None)
    for name in ("metrics", "previous_training_time"):
        state["extra_state"].pop(name, None)
    state["optimizer_history"] = state["optimizer_history"][-1:]  # one entry for each start
    return state


def first_difference(one: Any, two: Any, place: str) -> str | None:
    """Where two nested values differ, None if they do not: bit for bit."""
    import torch

    if type(one) is not type(two):
        return place
    if isinstance(one, dict):
        if list(one) != list(two):
            return place
        parts: Any = [(f"{place}/{key}", one[key], two[key]) for key in one]
    elif isinstance(one, (list, tuple)):
        if len(one) != len(two):
            return place
        parts = [(f"{place}/{index}", *pair) for index, pair in enumerate(zip(one, two))]
    elif torch.is_tensor(one):
        return None if torch.equal(one, two) else place
    else:
        return None if one == two else place
    return next((found for where, a, b in parts if (found := first_difference(a, b, where))), None)


# The campaign -------------------------------------------------------------------------------------


def write_data(folder: Path) -> None:
    """Random sentences of three classes that follow from their words, in fairseq's form."""
    import numpy
    from fairseq.data import Dictionary

    from adv_plugins_cli.data.binarize import write_split

    generator = numpy.random.default_rng(1)
    words, labels = Dictionary(), Dictionary()
    for index in range(30):
        words.add_symbol(f"w{index}")
    for index in range(CLASSES):
        labels.add_symbol(f"c{index}")
    for name, dictionary in (("input0", words), ("label", labels)):
        (folder / name).mkdir(parents=True)
        dictionary.save(str(folder / name / "dict.txt"))
    for split, rows in ROWS.items():
        sentences = [
            generator.integers(words.nspecial, len(words), size=generator.integers(3, 9))
            for _ in range(rows)
        ]
        classes = [numpy.array([labels.index(f"c{row.sum() % CLASSES}")]) for row in sentences]
        write_split(folder / "input0", split, sentences, len(words))
        write_split(folder / "label", split, classes, len(labels))


def work_off(tasks: Sequence[Callable[[], None]], jobs: int) -> None:
    """Call all, ``jobs`` at a time; the first error of one is raised at the end."""
    waiting = list(tasks)
    errors: list[Exception] = []

    def worker() -> None:
        while waiting and not errors:
            with contextlib.suppress(IndexError):
                task = waiting.pop(0)
                try:
                    task()
                except Exception as error:
                    errors.append(error)

    threads = [threading.Thread(target=worker) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def table(subjects: Sequence[Subject]) -> str:
    """Kills by kind, and what became of them."""
    lines = [f"{'':<9} {'kills':>5} {'runs':>5} {'compared':>8} {'differ':>6}  kinds of kills"]
    for subject in subjects:
        figures = subject.figures
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(figures.kills.items()))
        lines.append(
            f"{subject.name:<9} {figures.kills.total():5} {figures.runs:5} {figures.chains:8} "
            f"{figures.failures.total():6}  {kinds}"
        )
    return "\n".join(lines)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="in all, at least (%(default)s)")
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (%(default)s)")
    parser.add_argument(
        "--work-dir", type=Path, help="keeps what was trained there (default: a temporary folder)"
    )
    return parser.parse_args(argv)


def prepare_processes(data: Path) -> Any:
    """The context of processes that have fairseq imported; writes the data in one of them."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["adv_plugins_cli.recipes.runs_preload", "adv_plugins"])
    maker = context.Process(target=write_data, args=(data,))
    maker.start()
    maker.join()
    return context


def campaign(arguments: argparse.Namespace, work: Path) -> int:
    """Run it in an empty folder; returns how many things differ."""
    context = prepare_processes(work / "data" / "RTE-bin")
    subjects = [
        (Finetune if name == "finetune" else Subject)(name, work / "data", work, context)
        for name in arguments.subjects
    ]
    work_off([subject.prepare for subject in subjects], arguments.jobs)
    number = 0
    while (total := sum(subject.figures.kills.total() for subject in subjects)) < arguments.kills:
        chains = []
        for subject in subjects:
            # Of the missing kills this subject's part, in chains of one, two, three, one, ...
            missing = -(-(arguments.kills - total) // len(subjects))
            while missing > 0:
                kills = min(missing, number % 3 + 1)
                chains.append(
                    lambda subject=subject, number=number, kills=kills: subject.chain(
                        number, arguments.seed, kills
                    )
                )
                missing -= kills
                number += 1
        work_off(chains, arguments.jobs)
    failures = sum((subject.figures.failures for subject in subjects), Counter())
    print(table(subjects))
    kills = sum(subject.figures.kills.total() for subject in subjects)
    print(f"\n{kills} kills; differing: {dict(failures) or 'nothing'}")
    return failures.total()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 1 where anything differs."""
    arguments = parse_arguments(argv)
    with one_line_errors("campaign_kills.py"):
        if arguments.work_dir is not None:
            arguments.work_dir.mkdir(parents=True)
            return int(campaign(arguments, arguments.work_dir.resolve()) > 0)
        with tempfile.TemporaryDirectory() as folder:
            return int(campaign(arguments, Path(folder).resolve()) > 0)


if __name__ == "__main__":
    sys.exit(main())
