"""Results that are written as they come, one JSON line a row, and read again when a run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairseq_compat.files import naming, write_text


class ResultsFile:
    """A file whose first line says what its rows are results of; of anything else it starts anew."""

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        """Read what is there.

        Args:
            path: None keeps the results in memory alone.
        """
        self.path = path
        self.done: dict[int, dict[str, Any]] = {}
        self.added = 0  # by this run
        header = json.dumps(settings, sort_keys=True)
        lines = [header]
        if path is not None and path.is_file():
            first, *others = path.read_text(encoding="utf-8").split("\n")
            if first == header:
                for line in others:
                    try:
                        row = json.loads(line)
                        self.done[int(row["row"])] = row
                    except (ValueError, KeyError, TypeError):  # cut off as its process was killed
                        continue
                    lines.append(line)
        if path is not None:
            write_text(path, "".join(f"{line}\n" for line in lines))

    def add(self, row: int, **values: Any) -> None:
        """Keep, and write, the results of one row."""
        self.done[row] = {"row": row, **values}
        self.added += 1
        if self.path is not None:
            with naming(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.done[row]) + "\n")

    def rows(self, count: int) -> list[dict[str, Any]]:
        """Of rows 0 to count - 1, those that have results."""
        return [self.done[number] for number in range(count) if number in self.done]
