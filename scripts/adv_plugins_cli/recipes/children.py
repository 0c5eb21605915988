"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import threading

PR_SET_PDEATHSIG = 1
GRACE_SECONDS = 10.0
# Looked up before any fork: a child that has forked must not load libraries.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def die_with_parent(parent: int | None = None, *, with_signal: int = signal.SIGKILL) -> None:
    """Have the system end this process when its parent ends, however that ends (Linux).

    Args:
        parent: its number, where it may have ended already.
    """
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, int(with_signal))
        if parent is not None and os.getppid() != parent:
            os._exit(1)


def die_with_starter() -> None:
    """The same for a process of `multiprocessing`, and the one that asked for it.

    Between the two may be a server process, which lives as long as its children do.
    """
    die_with_parent()
    starter = multiprocessing.parent_process()
    if starter is None:
        return

    def watch() -> None:
        multiprocessing.connection.wait([starter.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a group, and all that it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)


def terminate_by_exception() -> None:
    """Have SIGTERM end this process as an exception does, so that it ends its children first."""

    def stop(number: int, frame: object) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
