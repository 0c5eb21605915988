"""Fetch the public data and checkpoints from their official addresses.

    adv-plugins download gpt2_bpe roberta.base glue --out-dir data

A broken-off transfer goes on where it stopped when the command is run again; files that are there
already are neither fetched again nor overwritten. `glue/RTE` fetches one GLUE task.

A file counts when it is whole: as long as the server said, of the published SHA-256 where there is one,
and of an archive every checksum in it. What is refused is removed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from adv_plugins_cli.command import one_line_errors
from adv_plugins_cli.downloads.archives import unpack
from adv_plugins_cli.downloads.common import DownloadError
from adv_plugins_cli.downloads.mrpc import format_mrpc
from adv_plugins_cli.downloads.sources import PACKAGES
from adv_plugins_cli.downloads.transfer import fetch


def download(package: str, out_dir: Path, *, base_url: str | None = None) -> None:
    """Fetch one package of `PACKAGES` and unpack what is packed."""
    for source in PACKAGES[package]:
        target = out_dir / source.target
        unpacked = [out_dir / member for member in source.members]
        if unpacked and not target.exists() and all(path.is_file() for path in unpacked):
            print(f"{unpacked[0].parent}: is there already")
            continue
        url = (base_url.rstrip("/") if base_url else source.host) + source.path
        fetched = fetch(url, target, sha256=source.sha256)
        if unpacked:
            try:
                unpack(target, target.parent, unpacked)
            except DownloadError as error:
                if fetched:
                    target.unlink()
                    raise DownloadError(f"{url}: {error}; it is not kept") from error
                raise DownloadError(f"{error}; delete it to fetch it anew") from error
            target.unlink()
    if package == "glue/MRPC":
        format_mrpc(out_dir)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "packages",
        nargs="+",
        choices=["glue", *PACKAGES],
        metavar="PACKAGE",
        help=f"glue (all nine tasks), or one of {', '.join(PACKAGES)}",
    )
    parser.add_argument("--out-dir", type=Path, required=True, help="where the folders go")
    parser.add_argument("--base-url", help="a mirror to use instead of the official hosts")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; a failed transfer is one line, not a traceback."""
    arguments = parse_arguments(argv)
    names: dict[str, None] = {}
    for name in arguments.packages:
        glue = [package for package in PACKAGES if package.startswith("glue/")]
        names.update(dict.fromkeys(glue if name == "glue" else [name]))
    with one_line_errors("adv-plugins download"):
        import requests  # noqa: F401 - missed before a folder is made

        try:
            for name in names:
                download(name, arguments.out_dir, base_url=arguments.base_url)
        except KeyboardInterrupt:
            sys.exit("adv-plugins download: interrupted; run the command again to go on from here")


if __name__ == "__main__":
    main()
