"""What an unmodified fairseq 0.12.2 needs on today's Python, torch and numpy.

``FIXES`` says when each is applied; each does nothing where it is not needed, or a second time.
"""

from __future__ import annotations

import sys
from typing import Any


def allow_config_defaults() -> None:
    """Python >= 3.11 refuses unhashable objects as dataclass defaults (fairseq #5012, #5634).

    fairseq 0.12.2 and hydra-core < 1.3 use their config dataclasses so. Such a class gets a hash
    only while `dataclasses` checks the field; classes from elsewhere are refused as before.
    Turning the defaults into factories would not do: fairseq reads `Field.default` later on.
    """
    import dataclasses

    original = getattr(dataclasses, "_get_field", None)
    if sys.version_info < (3, 11) or original is None or hasattr(original, "original"):
        return

    def get_field(cls: type, name: str, *rest: Any) -> Any:
        default = getattr(cls, name, None)
        if isinstance(default, dataclasses.Field):
            default = default.default
        config: Any = type(default)
        ours = config.__module__.startswith(("fairseq.", "hydra."))
        if not (ours and dataclasses.is_dataclass(config) and config.__hash__ is None):
            return original(cls, name, *rest)
        config.__hash__ = object.__hash__
        try:
            return original(cls, name, *rest)
        finally:
            config.__hash__ = None

    get_field.original = original  # type: ignore[attr-defined]
    setattr(dataclasses, "_get_field", get_field)  # noqa: B010 - private, so unknown to mypy


def allow_namespaces_in_checkpoints() -> None:
    """torch >= 2.6 loads weights only and so refuses `argparse.Namespace` (fairseq #5603, #5610).

    Checkpoints of fairseq hold their arguments as such an object, which runs no code when loaded.
    `weights_only` stays true: other classes, and with them hostile checkpoints, are still refused.
    """
    import argparse

    import torch

    if hasattr(torch.serialization, "add_safe_globals"):
        torch.serialization.add_safe_globals([argparse.Namespace])


def read_what_workers_send() -> None:
    """Several workers can start from a checkpoint with torch >= 2.6 (no issue upstream).

    The first one reads the file, weights only, and sends the others what it has made of it, in which
    torch then refuses fairseq's and omegaconf's own classes. A worker of the same training is no file
    from somewhere: what it sends is read as it is.
    """
    from fairseq.distributed import utils

    original = utils._broadcast_object_slow
    if hasattr(original, "original"):
        return

    def broadcast_object_slow(obj: Any, src_rank: int, group: Any, dist_device: Any) -> Any:
        import torch.distributed

        if isinstance(group, tuple):  # of TPUs
            return original(obj, src_rank, group, dist_device)
        sent = [obj]
        torch.distributed.broadcast_object_list(sent, src=src_rank, group=group, device=dist_device)
        return sent[0]

    broadcast_object_slow.original = original  # type: ignore[attr-defined]
    utils._broadcast_object_slow = broadcast_object_slow


def restore_numpy_long() -> None:
    """numpy >= 2 has no `np.compat`; fairseq asks it for `long` (no issue upstream).

    It does so in `data/token_block_dataset.py` for `--sample-break-mode eos` and in
    `data/language_pair_dataset.py` for buckets. `long` was another name of `int`.
    """
    from types import SimpleNamespace

    import numpy

    if not hasattr(numpy, "compat"):
        setattr(numpy, "compat", SimpleNamespace(long=int))  # noqa: B010 - unknown to mypy


def copy_files_whole() -> None:
    """A checkpoint's copy is complete or not there, and no second file (no issue upstream).

    fairseq saves a checkpoint beside its place and renames it, but then copies it straight onto
    `checkpoint_last.pt`: killed meanwhile, the training finds half a file to go on from. As it never
    changes a checkpoint, a second name of the same file does. Files that are not local (iopath) are
    copied as before.
    """
    from fairseq.file_io import PathManager

    original = PathManager.copy
    if hasattr(original, "original"):
        return

    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> Any:
        if any(map(PathManager.path_requires_pathmanager, (src_path, dst_path))):
            return original(src_path, dst_path, overwrite)
        from fairseq_compat.files import link_file

        link_file(src_path, dst_path)
        return dst_path

    copy.original = original  # type: ignore[attr-defined]
    setattr(PathManager, "copy", staticmethod(copy))  # noqa: B010 - another type, says mypy


def end_data_workers() -> None:
    """The workers that read a validation's batches end with it (no issue upstream).

    fairseq takes as many batches as there are and never asks for one more, which would tell torch's
    loader that it is done; and the loader is part of reference cycles, so it is left to Python's garbage
    collection, which takes the workers' queues first: they never hear that they should end, and the
    training waits 5 s for each of them, after every validation. Here a validation's loader belongs to
    the thread alone that reads it, and goes with it. The training set's is used again, and stays.
    """
    from fairseq.data.iterators import BackgroundConsumer, BufferedIterator
    from fairseq.trainer import Trainer

    read, begin = BackgroundConsumer.run, BufferedIterator._create_consumer
    of_validation = Trainer.get_valid_iterator
    if hasattr(read, "original"):
        return

    def run(self: Any) -> None:
        try:
            read(self)
        finally:
            self._source = None

    def create_consumer(self: Any) -> None:
        begin(self)
        self._iterable = None

    def get_valid_iterator(self: Any, *rest: Any, **named: Any) -> Any:
        found = of_validation(self, *rest, **named)
        found.reuse_dataloader = False  # which is where another reference would be
        return found

    run.original = read  # type: ignore[attr-defined]
    BackgroundConsumer.run = run
    BufferedIterator._create_consumer = create_consumer
    Trainer.get_valid_iterator = get_valid_iterator


def name_user_dir() -> None:
    """A `--user-dir` that is not there ends in one line (no issue upstream).

    In fairseq it is a traceback that ends in the path, and these plug-ins are not there to say more.
    """
    import functools

    from fairseq import utils

    original = utils.import_user_module
    if hasattr(original, "original"):
        return

    @functools.wraps(original)  # with what it remembers
    def import_user_module(args: Any) -> None:
        try:
            original(args)
        except FileNotFoundError as error:
            import os

            if error.args != (os.path.abspath(args.user_dir),):
                raise  # the module's own
            from fairseq_compat import errors

            errors.show_in_one_line()
            raise errors.UserError(f"--user-dir {args.user_dir}: no such folder") from error

    import_user_module.original = original  # type: ignore[attr-defined]
    utils.import_user_module = import_user_module


def read_user_dir_first() -> None:
    """fairseq-hydra-train knows the options of a user dir (no issue upstream).

    It checks a configuration's task, model and criterion before it imports `common.user_dir`: those
    of a user dir then have no defaults, and an option that it adds to one of fairseq's is refused.
    """
    from fairseq.dataclass import initialize

    original = initialize.add_defaults
    if hasattr(original, "original"):
        return

    def add_defaults(cfg: Any) -> None:
        from fairseq import utils

        utils.import_user_module(cfg.common)
        original(cfg)

    add_defaults.original = original  # type: ignore[attr-defined]
    initialize.add_defaults = add_defaults
