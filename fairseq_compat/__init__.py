"""Lets an unmodified fairseq 0.12.2 run on today's Python, torch and numpy.

`install()` puts a hook into `sys.meta_path`. It finds no module itself; when the first submodule of
fairseq (or hydra) is looked up, it applies the fixes below, each of which does nothing where it is
not needed. The fairseq commands import fairseq before they read `--user-dir`, so at interpreter
start fairseq_compat.pth calls `install()`; importing `adv_plugins` does so too.

This is a package of its own because importing `adv_plugins.anything` would import fairseq.
`python -m fairseq_compat` prints the folder to pass as `--user-dir`.
"""

from __future__ import annotations

import sys

# Every start of Python imports this package: all else is imported where it is used.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

FAIRSEQ = "pip install --no-deps fairseq==0.12.2"
HYDRA = "pip install hydra-core==1.3.2 omegaconf==2.3.0"
TORCH = "pip install 'torch>=2.6'"


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


def show_all_options() -> None:
    """`fairseq-train ... --criterion NAME --help` shows that criterion's options, too, and those of the
    named task, architecture, optimizer and scheduler (no issue upstream).

    fairseq parses the line once to know them, and that parse prints the help without them.
    """
    from fairseq import options

    original = options.parse_args_and_arch
    if hasattr(original, "original"):
        return

    def parse_args_and_arch(
        parser: Any, input_args: Any = None, *rest: Any, modify_parser: Any = None, **named: Any
    ) -> Any:
        given = sys.argv[1:] if input_args is None else list(input_args)
        without = [word for word in given if word not in ("-h", "--help")]
        if len(without) == len(given):
            return original(parser, input_args, *rest, modify_parser=modify_parser, **named)
        calls = 0

        def show(parser: Any) -> None:  # called before the first parse and before the second one
            nonlocal calls
            calls += 1
            if modify_parser is not None:
                modify_parser(parser)
            # Without an architecture there is no second parse.
            if calls == 2 or parser.parse_known_args(without)[0].arch is None:
                parser.print_help()
                parser.exit()

        return original(parser, without, *rest, modify_parser=show, **named)

    parse_args_and_arch.original = original  # type: ignore[attr-defined]
    options.parse_args_and_arch = parse_args_and_arch


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


def silence_what_nobody_can_mend() -> None:
    """Warnings about how fairseq uses hydra and torch, of which a user can change nothing, stay away.

    Each start prints a page of hydra's (no issue upstream), each epoch on a CPU one of torch's.
    `python -W always` and filters that are set later show them.
    """
    import warnings

    if not all(option.startswith("ignore") for option in sys.warnoptions):
        return  # somebody wants to see them
    for module in (r"hydra\.experimental\.", r"hydra\.core\.default_element", r"hydra\.compose"):
        warnings.filterwarnings("ignore", category=UserWarning, module=module)
    for message in (
        r"\s*'config' is validated against ConfigStore schema",
        r"'pin_memory' argument is set as true but no accelerator is found",
    ):
        warnings.filterwarnings("ignore", message=message, category=UserWarning)
    autocast = r"`torch\.cuda\.amp\.autocast"
    warnings.filterwarnings("ignore", message=autocast, category=FutureWarning)


def silence_tensorboardx() -> None:
    """Without tensorboardX each start asks for it (no issue upstream), though only one task of speech
    uses it: TensorBoard is torch's."""
    import logging

    def is_of_use(record: logging.LogRecord) -> bool:
        return "install tensorboardX" not in record.getMessage()

    logging.getLogger("fairseq.tasks.text_to_speech").addFilter(is_of_use)


FIXES: dict[str, tuple[Callable[[], None], ...]] = {
    "hydra": (allow_config_defaults, silence_what_nobody_can_mend),
    "fairseq": (
        allow_config_defaults,
        allow_namespaces_in_checkpoints,
        restore_numpy_long,
        copy_files_whole,
    ),
    "fairseq.tasks.text_to_speech": (silence_tensorboardx,),
    "fairseq.trainer": (read_what_workers_send,),
    "fairseq.options": (name_user_dir,),  # which imports fairseq.utils first
    "fairseq_cli.train": (end_data_workers, show_all_options),
    "fairseq_cli.hydra_train": (read_user_dir_first,),
}


class FixOnImport:
    """A finder that finds nothing, and applies the fixes of a package, or of a module, as its import
    begins."""

    def __init__(self) -> None:
        self.pending = dict(FIXES)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        # The package itself is only asked about, perhaps; its first submodule is really imported.
        package, dot, _ = name.partition(".")
        if dot:
            for fix in (*self.pending.pop(package, ()), *self.pending.pop(name, ())):
                fix()


def install() -> None:
    """Apply the fixes when they are needed: now if fairseq is there already, else on its import."""
    if "fairseq" in sys.modules:
        for package, fixes in FIXES.items():
            for fix in fixes if package.startswith("fairseq") else ():
                fix()
    elif not any(isinstance(finder, FixOnImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, FixOnImport())


def version_of(package: str) -> tuple[int, ...]:
    """The numbers of an installed package's version, () if it is missing; without importing it."""
    import importlib.metadata

    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        # Perhaps imported from a source folder that was never installed.
        version = str(getattr(sys.modules.get(package), "__version__", ""))
    release = version.partition("+")[0].split(".")[:3]
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in release if part)


def check_versions() -> None:
    """Raise ImportError saying what to install, where these plug-ins cannot run."""
    wanted: tuple[tuple[str, Callable[[tuple[int, ...]], bool], str, str], ...] = (
        ("torch", lambda version: version >= (2, 6), "2.6 or later", TORCH),
        ("hydra-core", lambda version: version[:2] == (1, 3), "1.3", HYDRA),
        ("omegaconf", lambda version: version[:2] == (2, 3), "2.3", HYDRA),
        ("fairseq", lambda version: version[:2] == (0, 12), "0.12.2", FAIRSEQ),
    )
    for package, usable, needed, command in wanted:
        version = version_of(package)
        if not usable(version):
            found = f"{'.'.join(map(str, version))} is installed" if version else "it is missing"
            raise ImportError(f"adv_plugins needs {package} {needed}, but {found}: {command}")


def user_dir() -> str:
    """The folder to pass as `--user-dir`."""
    import importlib.util
    import os

    spec = importlib.util.find_spec("adv_plugins")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("adv_plugins is not installed here: run `pip install .` in its folder")
    return os.path.realpath(next(iter(spec.submodule_search_locations)))
