"""What a training's log says to somebody who watches: how far it is, and its scores."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Sequence
from typing import Any

from adv_plugins_cli.recipes import run_folder

LINE = re.compile(r"[\d-]+ [\d:,]+ \| (?P<level>\w+) \| (?P<name>[\w.]+) \| (?P<message>.*)")
OURS = "adv_plugins."  # whose lines are few
SHOWN = ("WARNING", "ERROR", "CRITICAL")


class Raw:
    """The log as it is."""

    def write(self, text: str) -> None:
        """Show what has come."""
        print(text, end="", flush=True)

    def close(self) -> None:
        """There is nothing to put away."""


class Console:
    """A progress bar of the updates, where there is a terminal; a line a validation; warnings.

    All of it is read from fairseq's log in JSON; the log has the rest.
    """

    def __init__(self, command: Sequence[str], metric: str) -> None:
        """Begin.

        Args:
            command: fairseq-train's; metric: that picks the best checkpoint.
        """
        from tqdm import tqdm

        options = run_folder.options(command)
        total = int(options.get("--max-update") or 0) or None
        self.metric, self.unread = metric, ""
        self.bar: Any = tqdm(
            total=total, desc="starting", unit=" updates", disable=None, file=sys.stderr, leave=False
        )

    @staticmethod
    def reads(command: Sequence[str]) -> bool:
        """Whether the training logs in JSON."""
        return run_folder.options(command).get("--log-format") == "json"

    def write(self, text: str) -> None:
        """Read what has come; lines that are not whole wait."""
        *lines, self.unread = (self.unread + text).split("\n")
        for line in lines:
            match = LINE.match(line)
            if match:  # a line of another form belongs to the one before, or to a traceback
                self._line(match["level"], match["name"], match["message"])

    def close(self) -> None:
        """Take the bar away."""
        self.bar.close()

    def _line(self, level: str, name: str, message: str) -> None:
        numbers = _numbers(message)
        if name == "train_inner" and numbers:
            self.bar.set_description("training", refresh=False)
            if math.isfinite(loss := numbers.get("loss", math.nan)):
                self.bar.set_postfix_str(f"loss {loss:.3g}", refresh=False)
            self.bar.n = int(numbers.get("num_updates", self.bar.n))
            self.bar.refresh()
        elif f"{name}_num_updates" in numbers and name != "train":
            shown = [
                f"{meter} {numbers[key]:g}"
                for meter in (self.metric, "loss")
                if (key := f"{name}_{meter}") in numbers
            ]
            updates = int(numbers[f"{name}_num_updates"])
            self._say(f"{name}, {updates} updates: {', '.join(shown)}")
        elif level in SHOWN or name.startswith(OURS):
            self._say(message)

    def _say(self, text: str) -> None:
        self.bar.clear()
        print(text, flush=True)
        self.bar.refresh()


def _numbers(message: str) -> dict[str, float]:
    """The numbers of a line of meters, which fairseq writes as text; {} of another line."""
    if not message.startswith("{"):
        return {}
    try:
        found = json.loads(message)
    except ValueError:
        return {}  # fairseq's configuration
    numbers = {}
    for name, value in found.items():
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError):
            continue
    return numbers
