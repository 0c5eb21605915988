"""What is wrong with a file that was fetched, and where a part of one is kept."""

from __future__ import annotations

from pathlib import Path

from adv_plugins_cli.command import UserError

CHUNK_BYTES = 1 << 16


class DownloadError(UserError):
    """A file could not be fetched, or is not what it should be."""


class InterruptedTransfer(DownloadError):
    """The connection broke; what arrived is kept and another attempt goes on from there."""


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
