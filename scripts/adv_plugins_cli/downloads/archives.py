"""Archives: whole, safe, and unpacked beside what is there."""

from __future__ import annotations

import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from adv_plugins_cli.downloads.common import CHUNK_BYTES, DownloadError, beside

BROKEN_ARCHIVE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,  # an encrypted zip
    NotImplementedError,  # a way to compress that Python does not know
)


def is_archive(path: Path) -> bool:
    """Whether a file of this name is packed."""
    return path.name.endswith((".zip", ".tar.gz"))


def check_archive(path: Path, name: str) -> None:
    """Read all of an archive, and compare with the checksums that it holds.

    Args:
        name: what it will be called.

    Raises:
        DownloadError: it is broken.
    """
    try:
        if name.endswith(".zip"):
            with zipfile.ZipFile(path) as bundle:
                damaged = bundle.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
            return
        # A tar ends before its gzip stream does, whose end holds the checksum.
        with gzip.open(path) as stream:
            while stream.read(CHUNK_BYTES):
                pass
        with tarfile.open(path) as bundle:
            bundle.getmembers()
    except BROKEN_ARCHIVE as error:
        raise DownloadError(f"{path.with_name(name)}: broken archive ({error})") from error


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as bundle:
        for name in bundle.namelist():
            path = PurePosixPath(name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise DownloadError(f"{archive}: unsafe path {name!r} in the archive")
        bundle.extractall(folder)


def _untar(archive: Path, folder: Path) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise DownloadError(
            f"{archive}: unpacking safely needs a newer Python (3.10.12, 3.11.4 or later)"
        )
    with tarfile.open(archive) as bundle:
        try:
            bundle.extractall(folder, filter="data")
        except tarfile.FilterError as error:
            raise DownloadError(f"{archive}: unsafe path in the archive ({error})") from error


def unpack(archive: Path, folder: Path, members: Sequence[Path] = ()) -> None:
    """Unpack beside, then move file by file into `folder`; existing files stay as they are.

    Args:
        members: paths below `folder` that must be in the archive.

    Raises:
        DownloadError: it is broken, or holds something else; nothing is moved.
    """
    check_archive(archive, archive.name)
    work = beside(archive, ".unpacked")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        (_unzip if archive.suffix == ".zip" else _untar)(archive, work)
        for path in members:
            if not (work / path.relative_to(folder)).is_file():
                raise DownloadError(f"{path} is not in the archive {archive}")
        for path in sorted(work.rglob("*")):
            place = folder / path.relative_to(work)
            if path.is_file() and not place.exists() and "__MACOSX" not in path.parts:
                place.parent.mkdir(parents=True, exist_ok=True)
                path.rename(place)
    except BROKEN_ARCHIVE as error:
        raise DownloadError(f"{archive}: broken archive ({error})") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
