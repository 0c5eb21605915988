"""A file from its address, whole: continued where it broke off, compared with what is known of it."""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from adv_plugins_cli.downloads.archives import check_archive, is_archive
from adv_plugins_cli.downloads.common import CHUNK_BYTES, DownloadError, InterruptedTransfer, beside
from fairseq_compat.files import naming

if TYPE_CHECKING:
    import requests  # of an extra: its absence is an error of its own where it is needed

TIMEOUT_SECONDS = 30
ATTEMPTS = 5
# Answers that a second attempt may cure.
PASSING_FAULTS = frozenset({408, 429, 500, 502, 503, 504})


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _validator(response: requests.Response) -> str:
    """Return what If-Range may compare: a strong ETag, else the modification time."""
    etag = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return response.headers.get("Last-Modified", "")


def _total_bytes(response: requests.Response, offset: int) -> int | None:
    length = response.headers.get("Content-Length", "")
    return offset + int(length) if length.isdecimal() else None


def _ends_anywhere(response: requests.Response) -> bool:
    """Whether the body ends where the connection does: a broken one looks like a whole file."""
    chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    return not chunked and _total_bytes(response, 0) is None


def _request(url: str, offset: int, validator: str) -> requests.Response:
    import requests

    # Compressed on the way, lengths and offsets would not be those of the file.
    headers = {"Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS)
    except requests.RequestException as error:
        if isinstance(error, ValueError):  # as of --base-url
            raise DownloadError(f"{url}: no address ({error})") from error
        raise InterruptedTransfer(f"{url}: no connection ({error})") from error
    if response.status_code in PASSING_FAULTS:
        raise InterruptedTransfer(f"{url}: {response.status_code} {response.reason}")
    return response


def _fetch_once(url: str, part: Path, *, checked_later: bool) -> None:
    """One attempt: complete `part`, or raise with whatever arrived kept in it.

    Without `checked_later` the length is the only check, and a server that does not say it is refused.

    The server's validator lies beside `part`, because only with it is it certain that the rest
    belongs to the same version of the file; without one the transfer starts anew.
    """
    note = beside(part, ".validator")
    validator = note.read_text("utf-8") if note.is_file() else ""
    offset = part.stat().st_size if part.is_file() and validator else 0
    with _request(url, offset, validator) as response:
        if response.status_code == 416:  # the range is beyond the end
            if response.headers.get("Content-Range") == f"bytes */{offset}":
                return
            part.unlink(missing_ok=True)
            raise InterruptedTransfer(f"{url}: the server's file is shorter than what was fetched")
        if not response.ok:
            raise DownloadError(f"{url}: {response.status_code} {response.reason}")
        if not checked_later and _ends_anywhere(response):
            raise DownloadError(
                f"{url}: the server does not say how long it is, and there is no checksum: nobody could "
                "know whether it is whole; fetch it by hand, or from a mirror (--base-url)"
            )
        resumed = response.status_code == 206
        if resumed:
            start = response.headers.get("Content-Range", "").partition("-")[0]
            if start != f"bytes {offset}":
                part.unlink(missing_ok=True)
                raise InterruptedTransfer(f"{url}: the server sent another range than asked for")
        else:
            offset = 0
            note.write_text(_validator(response), "utf-8")
        total = _total_bytes(response, offset)
        _store(response, part, offset, total)
    size = part.stat().st_size
    if total is not None and size != total:
        raise InterruptedTransfer(f"{url}: got {size} of {total} bytes")


def _store(response: requests.Response, part: Path, offset: int, total: int | None) -> None:
    """Append the body to `part` (or begin it), with a progress bar."""
    import requests
    from tqdm import tqdm

    name = part.name.removesuffix(".part")
    with (
        naming(part),
        part.open("ab" if offset else "wb") as handle,
        tqdm(total=total, initial=offset, desc=name, unit="B", unit_scale=True) as progress,
    ):
        try:
            for chunk in response.iter_content(CHUNK_BYTES):
                handle.write(chunk)
                progress.update(len(chunk))
        except requests.RequestException as error:
            message = f"{response.url}: the connection broke after {handle.tell()} bytes ({error})"
            raise InterruptedTransfer(message) from error


def fetch(url: str, target: Path, *, sha256: str = "", pause_seconds: float = 2.0) -> bool:
    """Fetch `url` to `target`, with retries; an existing target is left as it is.

    Returns:
        whether it was fetched.

    Raises:
        DownloadError: it could not be fetched, or what came is not whole; then nothing of it is left
            but what another run can go on with.
    """
    if target.exists():
        if sha256 and sha256_of(target) != sha256:
            raise DownloadError(
                f"{target}: exists, but its SHA-256 is not {sha256}; move it away to fetch it anew"
            )
        print(f"{target}: is there already")
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    part = beside(target, ".part")
    failures = 0
    furthest = part.stat().st_size if part.is_file() else 0
    while True:
        try:
            _fetch_once(url, part, checked_later=bool(sha256) or is_archive(target))
            break
        except InterruptedTransfer as error:
            # An attempt that got further does not count: long transfers may break many times.
            size = part.stat().st_size if part.is_file() else 0
            failures = 1 if size > furthest else failures + 1
            furthest = max(size, furthest)
            if failures >= ATTEMPTS:
                raise DownloadError(
                    f"{error}; gave up after {ATTEMPTS} attempts, run the command again to go on"
                ) from error
            print(f"{error}; trying again", file=sys.stderr)
            time.sleep(pause_seconds * failures)
    digest = sha256_of(part)
    beside(part, ".validator").unlink(missing_ok=True)
    try:
        if sha256 and digest != sha256:
            raise DownloadError(f"{url}: wrong SHA-256 {digest} instead of {sha256}; it is not kept")
        if is_archive(target):
            check_archive(part, target.name)
    except DownloadError:
        part.unlink()
        raise
    part.rename(target)
    print(f"{target}: sha256 {digest}{'' if sha256 else ' (no published value to compare with)'}")
    return True
