"""GLUE's MRPC, of Microsoft's files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from adv_plugins_cli.command import read_text
from adv_plugins_cli.downloads.common import DownloadError
from adv_plugins_cli.downloads.sources import MRPC_DEV_IDS, MRPC_TEST, MRPC_TRAIN
from fairseq_compat.files import write_text


def _mrpc_rows(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8") as handle:
        try:
            for number, line in enumerate(handle, start=1):
                fields = line.rstrip("\n").split("\t")
                if len(fields) != 5:
                    raise DownloadError(f"{path}:{number}: {len(fields)} columns instead of 5")
                yield fields
        except UnicodeDecodeError as error:
            raise DownloadError(f"{path}: not UTF-8 text ({error.reason})") from error


def format_mrpc(out_dir: Path) -> None:
    """Make GLUE's MRPC files from Microsoft's, which GLUE may not host itself."""
    for name in (MRPC_TRAIN, MRPC_TEST):
        if not (out_dir / name).stat().st_size:
            raise DownloadError(f"{out_dir / name}: is empty; delete it to fetch it anew")
    ids = read_text(out_dir / MRPC_DEV_IDS).splitlines()
    dev_ids = {tuple(line.split("\t")) for line in ids}
    header, *train = _mrpc_rows(out_dir / MRPC_TRAIN)
    _, *test = _mrpc_rows(out_dir / MRPC_TEST)
    dev = [row for row in train if tuple(row[1:3]) in dev_ids]
    if not dev:
        raise DownloadError(f"{out_dir / MRPC_DEV_IDS}: no such rows in {out_dir / MRPC_TRAIN}")
    train = [row for row in train if tuple(row[1:3]) not in dev_ids]
    test = [[str(index), *row[1:]] for index, row in enumerate(test)]
    for name, table in (
        ("train", [header, *train]),
        ("dev", [header, *dev]),
        ("test", [["index", *header[1:]], *test]),
    ):
        target = out_dir / "glue" / "MRPC" / f"{name}.tsv"
        if not target.exists():
            write_text(target, "".join("\t".join(row) + "\n" for row in table))
            print(f"{target}: {len(table) - 1} rows")
