"""Files and folders that are complete or not there: written beside their place, then renamed.

A process may be killed at any moment. Under its name a file is then the old one or the new one, never
half of one, and what the killed process left behind is in nobody's way: every attempt has a name of
its own, and the next one removes leftovers whose process is gone. (Process numbers would not tell
them apart: in a container every process may be number 1.)
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# What goes wrong with a disk while a file is written: the system does not say with which file.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
PARTIAL = ".partial"  # the end of the name of what is being written
REPLACED = ".replaced"  # and of a folder that is giving way to another one


@contextlib.contextmanager
def naming(target: str | Path) -> Iterator[None]:
    """Within the context a full or broken disk is reported with the file that was to be written.

    So is what goes wrong with the file beside it, whose name nobody knows.
    """
    try:
        yield
    except OSError as error:
        unnamed = error.filename is None and error.errno in DISK_ERRORS
        if unnamed or str(error.filename).endswith(PARTIAL):
            error.filename = str(target)
        raise


@contextlib.contextmanager
def written_beside(target: str | Path) -> Iterator[Path]:
    """A file's path to write to; it takes the place of ``target`` when the context ends well.

    The file is there already, empty; what writes it may open it anew. An exception removes it and
    leaves ``target`` as it was. A device or a pipe is written to as it is.
    """
    target = Path(target)
    if target.exists() and not target.is_file():
        with naming(target):
            yield target
        return
    with naming(target), _begun(target, lambda path: path.touch(exist_ok=False)) as partial:
        try:
            with naming(target):
                yield partial
            os.replace(partial, target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def folder_beside(target: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """The same with a folder, whose parents are made if need be.

    Args:
        overwrite: whether a folder that is there may give way. It does so at the very end, and is
            deleted only when the new one is in its place.

    Raises:
        FileExistsError: it is there and may not, or another process was faster.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    replaced = target.with_name(f".{target.name}{REPLACED}")
    if replaced.is_dir() and not target.exists():  # killed between the two renames
        replaced.rename(target)
    with _begun(target, Path.mkdir) as partial:
        try:
            with naming(target):
                yield partial
            if target.exists():
                if not overwrite:
                    raise FileExistsError(errno.EEXIST, "exists already", str(target))
                shutil.rmtree(replaced, ignore_errors=True)
                target.rename(replaced)
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    shutil.rmtree(replaced, ignore_errors=True)


def write_text(target: str | Path, text: str) -> None:
    """``text`` in UTF-8, its line feeds as they are; the folder is made if need be."""
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    with written_beside(target) as path:
        path.write_bytes(text.encode("utf-8"))


def write_json(target: str | Path, value: Any) -> None:
    """``value`` as JSON, one space a level, in plain ASCII."""
    write_text(target, json.dumps(value, indent=1) + "\n")


def copy_file(source: str | Path, target: str | Path) -> None:
    """A copy of the content; ``target`` is replaced."""
    with written_beside(target) as path:
        shutil.copyfile(source, path)


def link_file(source: str | Path, target: str | Path) -> None:
    """``target`` becomes one more name of the file, or a copy where the file system has no such names.

    For files that nobody changes, only replaces: it costs neither time nor space.
    """
    if os.path.exists(target) and os.path.samefile(source, target):
        return
    with written_beside(target) as path:
        path.unlink()
        try:
            os.link(source, path)
        except OSError:
            shutil.copyfile(source, path)


def remove_leftovers(target: Path) -> None:
    """Remove what processes that are gone have left beside ``target``."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.????????{PARTIAL}"):
        with contextlib.suppress(OSError):  # another process may be faster
            with _opened(path) as descriptor:
                if _lock(descriptor, wait=False):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def _begun(target: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Make a file or folder with a name of its own, locked for as long as this process lives."""
    remove_leftovers(target)
    while True:
        partial = target.with_name(f".{target.name}.{os.urandom(4).hex()}{PARTIAL}")
        make(partial)
        try:
            descriptor = os.open(partial, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            _lock(descriptor, wait=True)  # a file system without locks keeps its leftovers
            if partial.exists():
                yield partial
                return
        finally:
            os.close(descriptor)
        # Until it was locked, another process could take it for a leftover.


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Take the lock that says "being written"; the system drops it when the process ends."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):
        return False
    return True
