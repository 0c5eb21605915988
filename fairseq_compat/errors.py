"""Errors that whoever gave the command can cure: one line, without the traceback that hides it.

Here, where the plug-ins and the commands both find it without fairseq.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Any


class UserError(ValueError):
    """The command cannot be followed; the message names the flag or the file to change."""


def of_the_disk(error: BaseException) -> str | None:
    """What the system says of a file that cannot be read or written; None for other errors."""
    if not isinstance(error, OSError) or error.filename is None or error.strerror is None:
        return None
    return f"{error.filename}: {error.strerror}"


def show_in_one_line() -> None:
    """Have Python end with the line of a UserError, or of a disk's, alone; others as ever."""
    shown_otherwise = sys.excepthook
    if hasattr(shown_otherwise, "shows_in_one_line"):
        return
    # fairseq-hydra-train's errors reach Python only so: hydra prints a traceback of its own, and exits.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
        reason = str(error) if isinstance(error, UserError) else of_the_disk(error)
        if reason is None:
            return shown_otherwise(kind, error, trace)
        print(f"adv_plugins: error: {' '.join(reason.split())}", file=sys.stderr)

    show.shows_in_one_line = True  # type: ignore[attr-defined]
    sys.excepthook = show
