"""The validations of a training, kept beside its checkpoints in ``validations.jsonl``.

One line for each validation of a subset, whatever the console's format:
``{"update": 12, "epoch": 3, "subset": "valid", "stats": {"loss": 0.41, "accuracy": 81.2}}``. A line is
written before the checkpoint of its update. So a training that goes on from a checkpoint has the lines
up to it and drops later ones, which it makes again: killed or not, the file ends the same.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

NAME = "validations.jsonl"
SPEEDS = ("wps",)  # tell about the machine, and differ between equal trainings


def read(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a training's folder, in order; [] where there is none."""
    return list(_lines(Path(folder) / NAME))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
    for line in text.splitlines():
        # The last one may be half: its process was killed, and no checkpoint has followed it.
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)


def keep_until(folder: str | Path, update: int) -> None:
    """Drop what a training that goes on from ``update`` will make again; 0 drops all."""
    from fairseq_compat.files import write_text

    path = Path(folder) / NAME
    if path.is_file():
        kept = [line for line in _lines(path) if update and line["update"] <= update]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))


def append(
    folder: str | Path, *, update: int, epoch: int | None, subset: str, stats: Mapping[str, Any]
) -> None:
    """Add a line; what is not a number is left out."""
    from fairseq_compat.files import naming

    numbers = {key: float(value) for key, value in stats.items() if _is_number(key, value)}
    line = {"update": update, "epoch": epoch, "subset": subset, "stats": numbers}
    path = Path(folder) / NAME
    with naming(path), path.open("ab", buffering=0) as file:
        file.write((json.dumps(line) + "\n").encode())


def _is_number(key: str, value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError, RuntimeError):  # the last from a tensor of several
        return False
    return key not in SPEEDS


def record() -> None:
    """Have fairseq-train's validations written down: wraps, once, what makes its progress bars.

    Its console formats have nothing in common, and one of them shows nothing; but each validation
    gives its numbers to a bar of its own.
    """
    import functools

    from fairseq.distributed import utils as distributed_utils
    from fairseq.logging import progress_bar

    original = progress_bar.progress_bar
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def make_bar(*args: Any, **kwargs: Any) -> Any:
        bar = original(*args, **kwargs)
        folder = kwargs.get("aim_param_checkpoint_dir")  # fairseq-validate has none
        if folder is None or not str(kwargs.get("prefix")).startswith("valid on "):
            return bar
        show = bar.print

        def print_and_record(
            stats: Mapping[str, Any], tag: str | None = None, step: int | None = None
        ) -> None:
            if distributed_utils.get_global_rank() == 0:
                append(folder, update=step or 0, epoch=kwargs.get("epoch"), subset=str(tag), stats=stats)
            show(stats, tag=tag, step=step)

        bar.print = print_and_record
        return bar

    progress_bar.progress_bar = make_bar
