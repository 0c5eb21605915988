"""The same command continues a training that was killed, as if it had not been.

fairseq 0.12.2 goes on from ``checkpoint_last.pt`` with every random number in its place. What it lacks:
a save that is begun again after an error begins in the middle of a file; a damaged checkpoint is not
named; a folder, or a file that does not exist, as a checkpoint means random weights; a training that
has reached ``--max-update`` makes one update more each time it is started; ``--patience`` is counted
from zero; and the scheduler misses the validation of the epoch that the checkpoint ends. `wrap()` mends
them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.distributed import utils as distributed_utils
from fairseq.file_io import PathManager
from fairseq.trainer import Trainer

from adv_plugins.wrapped_methods import wrap_method
from fairseq_compat import files, validations
from fairseq_compat.errors import UserError

SEGMENTS = "embed_positions.segments.weight"  # what only BERT's checkpoints have
SAVE_ATTEMPTS = 3  # as many as fairseq makes


def wrap() -> None:
    """Wrap fairseq's saving and loading, once; `__wrapped__` of each is the original."""
    for name, wrapper in (
        ("torch_persistent_save", save_whole),
        ("load_checkpoint", load_or_say_why),
    ):
        original = getattr(checkpoint_utils, name)
        if not hasattr(original, "__wrapped__"):
            setattr(checkpoint_utils, name, functools.wraps(original)(wrapper(original)))
    wrap_method(Trainer, "load_checkpoint", load_what_fits)


def save_whole(original: Callable[..., None]) -> Callable[..., None]:
    """Write beside the place and rename; every attempt begins with an empty file."""

    def torch_persistent_save(obj: Any, filename: str, async_write: bool = False) -> None:
        if async_write or not PathManager.supports_rename(filename):
            return original(obj, filename, async_write=async_write)
        for attempt in range(1, SAVE_ATTEMPTS + 1):
            try:
                with files.written_beside(filename) as path, path.open("wb") as file:
                    return torch.save(obj, file)
            except Exception as error:
                if attempt == SAVE_ATTEMPTS:
                    raise system_error(error, filename) from error
        return None

    return torch_persistent_save


def system_error(error: BaseException, filename: str) -> BaseException:
    """The system's reason, with the file's name: torch hides it under errors of its own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return OSError(cause.errno, os.strerror(cause.errno), filename)
        cause = cause.__context__
    return error


def load_or_say_why(original: Callable[..., Any]) -> Callable[..., Any]:
    """Load the checkpoint that the training starts from, or end with one line.

    Raises:
        UserError: with that line.
    """

    def load_checkpoint(cfg: Any, trainer: Any, **rest: Any) -> Any:
        check_files(cfg, trainer.checkpoint_suffix)
        with naming_damaged_files(cfg.save_dir), without_scheduler(trainer):
            extra_state, epoch_itr = original(cfg, trainer, **rest)
        updates = trainer.get_num_updates()
        goes_on = updates and not cfg.reset_lr_scheduler and not cfg.reset_dataloader
        trainer.lr_step(epoch_itr.epoch, missed_validation(extra_state) if goes_on else None)
        if distributed_utils.get_global_rank() == 0:
            validations.keep_until(cfg.save_dir, updates)
        if has_ended(trainer.cfg, updates, cfg.save_dir):
            trainer.cfg.optimization.max_epoch = -1  # 0 would mean without end
        return extra_state, epoch_itr

    return load_checkpoint


@contextlib.contextmanager
def without_scheduler(trainer: Any) -> Iterator[None]:
    """Within the context the learning rate's scheduler does not hear that an epoch is over."""
    trainer.lr_step = lambda epoch, val_loss=None: None
    try:
        yield
    finally:
        del trainer.lr_step


def missed_validation(extra_state: dict[str, Any]) -> float | None:
    """The result that the scheduler was told after the checkpoint had been written: that of the epoch
    that the checkpoint ends."""
    ended = extra_state["train_iterator"]["iterations_in_epoch"] == 0
    return extra_state.get("val_loss") if ended else None


def load_what_fits(original: Callable[..., Any]) -> Callable[..., Any]:
    """A checkpoint whose weights or state are not this training's ends it with one line."""

    def load_checkpoint(self: Any, filename: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(self, filename, *args, **kwargs)
        except (UserError, MemoryError):
            raise
        except Exception as error:
            cause = error.__context__ or error  # fairseq says "match", its cause what does not
            reason = " ".join(str(cause).split()) or type(cause).__name__
            if SEGMENTS in reason.partition("Unexpected key(s)")[2]:
                reason = "it has BERT's segments, this model none: give --arch bert_like --segments 2"
            raise UserError(f"{filename}: does not fit this training ({reason[:300]})") from error

    return load_checkpoint


def check_files(cfg: Any, suffix: str) -> None:
    """What the user names must be files. A checkpoint_last.pt need not be there.

    Raises:
        UserError: it is none.
    """
    named = {"--finetune-from-model": cfg.finetune_from_model}
    if cfg.restore_file != "checkpoint_last.pt":
        named["--restore-file"] = cfg.restore_file.replace(".pt", f"{suffix}.pt")
    last = os.path.join(cfg.save_dir, f"checkpoint_last{suffix}.pt")
    for option, path in named.items():
        if path is None or PathManager.path_requires_pathmanager(path) or os.path.isfile(path):
            continue
        if os.path.isdir(path):
            raise UserError(f"{option} {path}: a folder, not a checkpoint (give the .pt file in it)")
        if option == "--restore-file" or not os.path.exists(last):
            raise UserError(f"{option} {path}: no such checkpoint")
    if os.path.isdir(last):
        raise UserError(f"{last}: a folder, not a checkpoint")


@contextlib.contextmanager
def naming_damaged_files(save_dir: str) -> Iterator[None]:
    """Within the context a checkpoint that cannot be read ends the training with its name."""
    read = checkpoint_utils.load_checkpoint_to_cpu

    def read_or_name(path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return read(path, *args, **kwargs)
        except MemoryError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise UserError(f"{path}: {error.strerror}") from error
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UserError(
                f"{path}: damaged, or no checkpoint of fairseq ({reason}){advice(path, save_dir)}"
            ) from error

    checkpoint_utils.load_checkpoint_to_cpu = read_or_name
    try:
        yield
    finally:
        checkpoint_utils.load_checkpoint_to_cpu = read


def advice(path: str, save_dir: str) -> str:
    """What to do about a damaged file of the training's own."""
    if Path(path).parent.resolve() != Path(save_dir).resolve():
        return ""
    others = sorted(Path(save_dir).glob("checkpoint*.pt"), key=lambda other: other.stat().st_mtime)
    others = [other for other in others if other.name != Path(path).name]
    instead = f", or put {others[-1].name} in its place to go on from there" if others else ""
    return f": delete it to begin again{instead}"


def has_ended(cfg: Any, updates: int, save_dir: str) -> bool:
    """Whether the checkpoint is a training's last. Counts again what --patience has seen."""
    if cfg.optimization.max_update and updates >= cfg.optimization.max_update:
        return True
    train = sys.modules.get("fairseq_cli.train")
    if cfg.checkpoint.patience <= 0 or train is None:
        return False
    for counted in ("best", "num_runs"):
        if hasattr(train.should_stop_early, counted):
            delattr(train.should_stop_early, counted)
    first, metric = cfg.dataset.valid_subset.split(",")[0], cfg.checkpoint.best_checkpoint_metric
    seen = [
        line["stats"][metric]
        for line in validations.read(save_dir)
        if line["subset"] == first and line["update"] <= updates
    ]
    return any([train.should_stop_early(cfg, value) for value in seen])  # all of them, in order
