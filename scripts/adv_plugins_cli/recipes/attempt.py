"""One attempt at a training: its part of the log, and why it failed."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

# How a traceback, argparse or our own refusals end.
ERROR_LINE = re.compile(r"^(\w+(\.\w+)*(Error|Exception|Interrupt|StopIteration)\b|[\w.-]+: error: )")


@dataclass
class Attempt:
    """A run's part of the log, from ``begin`` on: earlier attempts lie before it."""

    log: Path
    begin: int

    @classmethod
    def next(cls, log: Path) -> Attempt:
        """The one that begins now."""
        return cls(log, log.stat().st_size if log.is_file() else 0)

    def text(self) -> str:
        """What it has written."""
        if not self.log.is_file():
            return ""
        with self.log.open("rb") as file:
            file.seek(self.begin)
            return file.read().decode("utf-8", errors="replace")

    def is_cut_off(self) -> bool:
        """Whether it has ended in the middle of a line, as on a full disk."""
        return not f"\n{self.text()}".endswith("\n")

    def succeeded(self, exit_code: int | None) -> bool:
        """Whether it came to its end.

        fairseq reads batches ahead in a thread that it never stops. Where the last update comes in
        the middle of an epoch, that thread may abort the process on its way out, when everything is
        saved.
        """
        if exit_code == -signal.SIGABRT:
            return "| fairseq_cli.train | done training in" in self.text()
        return exit_code == 0

    def reason(self, exit_code: int | None) -> str:
        """Why it failed, in one line."""
        lines = [line.rstrip() for line in self.text().splitlines() if line.strip()]
        errors = [line for line in lines if ERROR_LINE.match(line)]
        # What fairseq does about gradients that are not finite ends in an error of its own.
        causes = [line for line in errors if line.startswith("FloatingPointError")] or errors
        how = f"exit code {exit_code}"
        if exit_code is not None and exit_code < 0:
            how = signal.Signals(-exit_code).name
        if exit_code == -signal.SIGKILL:
            how += ", perhaps out of memory"
        if not errors and self.is_cut_off() and not shutil.disk_usage(self.log.parent).free:
            return f"{how}: {os.strerror(errno.ENOSPC)} for its log"
        return f"{how}: {(causes or lines or ['no output'])[-1][:500]}"
