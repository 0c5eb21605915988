"""A training's folder: one run in it at a time, and never the weights of one command with another's."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from adv_plugins_cli.command import UserError, read_json
from fairseq_compat import files

SETTINGS = "settings.json"  # the command that the folder's checkpoints belong to
LOCK = "run.lock"
LOCK_SECONDS = 20.0  # after which what is left of a killed run is taken for alive
# What a continued run may have otherwise: where it lies, who takes part, how it reports.
FREE_OPTIONS = {
    *("--user-dir", "--save-dir", "--tensorboard-logdir", "--wandb-project", "--num-workers"),
    *("--log-format", "--log-interval", "--log-file", "--no-progress-bar"),
    *("--master-addr", "--master-port", "--node-rank"),
}


ADVICE = "choose another --save-dir, or --start-over to move it aside and begin anew"


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add --start-over."""
    parser.add_argument(
        "--start-over",
        action="store_true",
        help="move what --save-dir holds aside (SAVE_DIR.before-1), instead of continuing it",
    )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Within the context no other process gets into it; makes the folder if need be.

    The system drops the lock when the last process ends that has the yielded descriptor, however it
    ends. On a file system without locks nothing is locked.

    Raises:
        UserError: another process is there already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        patience = time.monotonic() + LOCK_SECONDS
        while not _lock(descriptor):
            owner = os.pread(descriptor, 32, 0).decode().strip()
            # Of a killed run, processes may live on for a moment.
            if _is_alive(owner) or time.monotonic() > patience:
                raise UserError(f"{folder}: another run is at work there (process {owner or '?'})")
            time.sleep(0.1)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        pass
    return True


def _is_alive(owner: str) -> bool:
    """Whether another process has this number. (In containers the killed one may have had ours.)"""
    if not owner.isdigit() or int(owner) == os.getpid():
        return False
    try:
        os.kill(int(owner), 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def check(folder: Path, command: Sequence[str], *, advice: str) -> None:
    """Refuse to go on from the checkpoints of another command.

    Args:
        advice: what to do instead.

    Raises:
        UserError: naming every option that differs.
    """
    if not any(folder.glob("checkpoint*.pt")):
        return
    settings = folder / SETTINGS
    if not settings.is_file():
        raise UserError(f"{folder} holds checkpoints, but no {SETTINGS} to say what made them: {advice}")
    found = read_json(settings).get("command")
    if not isinstance(found, list):
        raise UserError(f"{settings}: says nothing of a command: {advice}")
    changes = differences(found, command)
    if changes:
        raise UserError(
            f"{folder} holds a run with other settings ({'; '.join(changes)}): give the old ones to "
            f"continue it, {advice}"
        )


def differences(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """What differs between two commands, each as ``--option old -> new``."""
    before, after = options(old), options(new)
    return [
        f"{name} {before.get(name, 'not given')} -> {after.get(name, 'not given')}".replace("  ", " ")
        for name in dict.fromkeys((*before, *after))
        if name not in FREE_OPTIONS and before.get(name) != after.get(name)
    ]


def options(command: Sequence[str]) -> dict[str, str]:
    """A command's options with their values; of an option given twice the last counts, as in fairseq.

    What comes before the first option is the program and the data: the latter is kept.
    """
    found: dict[str, list[str]] = {}
    values = found["data"] = []
    for part in command[1:]:
        if part.startswith("--"):
            name, separator, value = part.partition("=")
            values = found[name] = [value] if separator else []
        else:
            values.append(part)
    return {name: " ".join(values) for name, values in found.items()}


def move_aside(folder: Path) -> Path | None:
    """Give an old run another name, so that its place is free; returns it, None for no run."""
    if not any(path.name != LOCK for path in folder.iterdir()):
        return None
    number = 1
    while (aside := folder.with_name(f"{folder.name}.before-{number}")).exists():
        number += 1
    folder.rename(aside)
    return aside


@contextlib.contextmanager
def taken(
    folder: Path, command: Sequence[str], *, advice: str, start_over: bool = False
) -> Iterator[int]:
    """Lock the folder for a run of ``command``, which continues what the folder holds.

    Args:
        advice: to a user whose folder holds something else; start_over: move that aside.

    Raises:
        UserError: another process is there, or the checkpoints of another command.
    """
    if start_over:
        with locked(folder):
            aside = move_aside(folder)
        if aside is not None:
            print(f"{folder}: moved aside to {aside}", flush=True)
    with locked(folder) as descriptor:
        check(folder, command, advice=advice)
        files.write_json(folder / SETTINGS, {"command": list(command)})
        yield descriptor
