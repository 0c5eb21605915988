"""What is wrong with data or architecture is one line that names them.

fairseq reads dictionaries and splits and builds models with whatever error comes first, often one that
names neither. The error itself is the cause of ours, and goes to the log at the level of debugging.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable, Iterator
from typing import Any

from fairseq import tasks

from adv_plugins import prepared_files
from adv_plugins.wrapped_methods import wrap_method
from fairseq_compat.errors import UserError

logger = logging.getLogger(__name__)


def name_faults() -> None:
    """Wrap fairseq's set-up of tasks and its opening of files, once."""
    prepared_files.name_damaged_files()
    wrap_method(tasks, "setup_task", with_names)


def with_names(original: Callable[..., Any]) -> Callable[..., Any]:
    """A task whose dictionaries, splits and model are named where they cannot be had."""

    def setup_task(cfg: Any, **kwargs: Any) -> Any:
        folder = getattr(cfg, "data", None)
        with fault_named(f"{folder}: no data of this task"):
            task = original(cfg, **kwargs)
        load_dataset, build_model = task.load_dataset, task.build_model

        def load_named(split: str, *args: Any, **options: Any) -> Any:
            place = f"{folder}: the split {split} cannot be read"
            combine = bool(options.get("combine", False))
            with fault_named(
                place,
                lambda: prepared_files.fault_of_split(task, str(folder), split, combine=combine),
            ):
                return load_dataset(split, *args, **options)

        def build_named(model_cfg: Any, *args: Any, **options: Any) -> Any:
            name = getattr(model_cfg, "arch", None) or getattr(model_cfg, "_name", None)
            with fault_named(f"--arch {name}, with its sizes, is no model of this task"):
                return build_model(model_cfg, *args, **options)

        # fairseq looks at the arguments of build_model to tell whether it may pass from_checkpoint.
        build_named.__signature__ = inspect.signature(build_model)  # type: ignore[attr-defined]
        task.load_dataset, task.build_model = load_named, build_named
        return task

    return setup_task


@contextlib.contextmanager
def fault_named(place: str, fault: Callable[[], str | None] = lambda: None) -> Iterator[None]:
    """Within the context an error becomes a UserError that begins with ``place``.

    Args:
        fault: looks for what is wrong; its line, if it finds one, says more than the error.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        logger.debug("%s", place, exc_info=True)
        if line := fault():
            raise UserError(line) from error
        reason = " ".join(str(error).split()) or "no reason is given"
        raise UserError(f"{place} ({type(error).__name__}: {reason[:300]})") from error
