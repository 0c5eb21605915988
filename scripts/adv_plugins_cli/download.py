"""Fetch the public data and checkpoints from their official addresses.

    adv-plugins download gpt2_bpe roberta.base glue --out-dir data

A broken-off transfer goes on where it stopped when the command is run again; files that are there
already are neither fetched again nor overwritten. `glue/RTE` fetches one GLUE task.

A file counts when it is whole: as long as the server said, of the published SHA-256 where there is one,
and of an archive every checksum in it. What is refused is removed.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import lzma
import shutil
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from adv_plugins_cli.command import UserError, one_line_errors, read_text
from fairseq_compat.files import naming, write_text

if TYPE_CHECKING:
    import requests  # of an extra: its absence is an error of its own where it is needed

FAIRSEQ_HOST = "https://dl.fbaipublicfiles.com"
AMAZON_HOST = "https://s3.amazonaws.com"
AI2_HOST = "https://ai2-public-datasets.s3.amazonaws.com"
GOOGLE_HOST = "https://storage.googleapis.com"
GITHUB_HOST = "https://raw.githubusercontent.com"
STANFORD_HOST = "https://ai.stanford.edu"
ADVGLUE_HOST = "https://adversarialglue.github.io"

CHUNK_BYTES = 1 << 16
TIMEOUT_SECONDS = 30
ATTEMPTS = 5
# Answers that a second attempt may cure.
PASSING_FAULTS = frozenset({408, 429, 500, 502, 503, 504})
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


class DownloadError(UserError):
    """A file could not be fetched, or is not what it should be."""


class InterruptedTransfer(DownloadError):
    """The connection broke; what arrived is kept and another attempt goes on from there."""


@dataclass(frozen=True)
class Source:
    """One file to fetch: where from, where to below --out-dir, and what to expect.

    `sha256` is empty where no checksum is published or known; length and archive checks remain.
    `members` are the files that an archive leaves behind: once they exist it is not fetched again.
    """

    path: str
    target: str
    host: str = FAIRSEQ_HOST
    sha256: str = ""
    members: tuple[str, ...] = ()


def _glue_archive(task: str, archive: str, valid: Sequence[str] = ("dev",)) -> tuple[Source, ...]:
    members = tuple(f"glue/{task}/{name}.tsv" for name in ("train", *valid))
    return (Source(f"/glue/data/{archive}.zip", f"glue/{archive}.zip", members=members),)


def _from_github(folder: str, path: str, *names: str) -> tuple[Source, ...]:
    """Files of a repository's folder."""
    return tuple(Source(f"{path}/{name}", f"{folder}/{name}", host=GITHUB_HOST) for name in names)


def _clue(task: str) -> tuple[Source, ...]:
    members = tuple(f"{task}/{name}.json" for name in ("train", "dev", "test"))
    archive = f"{task.lower()}_public.zip"
    return (
        Source(f"/cluebenchmark/tasks/{archive}", f"{task}/{archive}", GOOGLE_HOST, members=members),
    )


ARC = "ARC-V1-Feb2018-2"
ARC_MEMBERS = tuple(
    f"{ARC}/ARC-{level}/ARC-{level}-{split}.jsonl"
    for level in ("Easy", "Challenge")
    for split in ("Train", "Dev", "Test")
)
ANLI_MEMBERS = tuple(
    f"anli_v1.0/R{number}/{split}.jsonl" for number in (1, 2, 3) for split in ("train", "dev")
)


def _checkpoint(name: str) -> tuple[Source, ...]:
    members = (f"{name}/model.pt", f"{name}/dict.txt")
    return (Source(f"/fairseq/models/{name}.tar.gz", f"{name}.tar.gz", members=members),)


GPT2_DICTIONARY = "2c31c5b236661067fe8626775eb995ef5fe808ac87d2ad4a6ddbef68550f5cc6"
MRPC_TRAIN = "glue/MRPC/msr_paraphrase_train.txt"
MRPC_TEST = "glue/MRPC/msr_paraphrase_test.txt"
MRPC_DEV_IDS = "glue/MRPC/mrpc_dev_ids.tsv"

PACKAGES: dict[str, tuple[Source, ...]] = {
    "gpt2_bpe": (
        Source(
            "/fairseq/gpt2_bpe/encoder.json",
            "gpt2_bpe/encoder.json",
            sha256="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        ),
        Source(
            "/fairseq/gpt2_bpe/vocab.bpe",
            "gpt2_bpe/vocab.bpe",
            sha256="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        ),
        Source("/fairseq/gpt2_bpe/dict.txt", "gpt2_bpe/dict.txt", sha256=GPT2_DICTIONARY),
    ),
    "roberta.base": _checkpoint("roberta.base"),
    "roberta.large": _checkpoint("roberta.large"),
    "roberta.large.mnli": _checkpoint("roberta.large.mnli"),
    # The names below CommonsenseQA are those that fairseq's commonsense_qa task reads.
    "commonsense_qa": (
        Source(
            "/commensenseqa/train_rand_split.jsonl",
            "CommonsenseQA/train.jsonl",
            host=AMAZON_HOST,
            sha256="58ffa3c8472410e24b8c43f423d89c8a003d8284698a6ed7874355dedd09a2fb",
        ),
        Source(
            "/commensenseqa/dev_rand_split.jsonl",
            "CommonsenseQA/valid.jsonl",
            host=AMAZON_HOST,
            sha256="3210497fdaae614ac085d9eb873dd7f4d49b6f965a93adadc803e1229fd8a02a",
        ),
        Source(
            "/commensenseqa/test_rand_split_no_answers.jsonl",
            "CommonsenseQA/test.jsonl",
            host=AMAZON_HOST,
            sha256="b426896d71a9cd064cf01cfaf6e920817c51701ef66028883ac1af2e73ad5f29",
        ),
        Source("/fairseq/gpt2_bpe/dict.txt", "CommonsenseQA/dict.txt", sha256=GPT2_DICTIONARY),
    ),
    "glue/CoLA": _glue_archive("CoLA", "CoLA"),
    "glue/SST-2": _glue_archive("SST-2", "SST-2"),
    "glue/MRPC": (
        Source("/senteval/senteval_data/msr_paraphrase_train.txt", MRPC_TRAIN),
        Source("/senteval/senteval_data/msr_paraphrase_test.txt", MRPC_TEST),
        Source("/glue/data/mrpc_dev_ids.tsv", MRPC_DEV_IDS),
    ),
    "glue/STS-B": _glue_archive("STS-B", "STS-B"),
    "glue/QQP": _glue_archive("QQP", "QQP-clean"),
    "glue/MNLI": _glue_archive("MNLI", "MNLI", ("dev_matched", "dev_mismatched")),
    "glue/QNLI": _glue_archive("QNLI", "QNLIv2"),
    "glue/RTE": _glue_archive("RTE", "RTE"),
    "glue/WNLI": _glue_archive("WNLI", "WNLI"),
    "ARC": (Source("/arc/ARC-V1-Feb2018.zip", "ARC.zip", AI2_HOST, members=ARC_MEMBERS),),
    "ANLI": (Source("/anli/anli_v1.0.zip", "anli_v1.0.zip", members=ANLI_MEMBERS),),
    "IMDB": (
        Source(
            "/~amaas/data/sentiment/aclImdb_v1.tar.gz",
            "aclImdb_v1.tar.gz",
            STANFORD_HOST,
            members=("aclImdb/README",),
        ),
    ),
    "AG-News": _from_github(
        "AG-News", "/mhjabreel/CharCnn_Keras/master/data/ag_news_csv", "train.csv", "test.csv"
    ),
    "DREAM": _from_github("DREAM", "/nlpdata/dream/master/data", "train.json", "dev.json", "test.json"),
    "HellaSwag": _from_github(
        "HellaSwag",
        "/rowanz/hellaswag/master/data",
        *(f"hellaswag_{split}.jsonl" for split in ("train", "val", "test")),
    ),
    "WNUT-17": _from_github(
        "WNUT-17",
        "/leondz/emerging_entities_17/master",
        *("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"),
    ),
    "WSC": (
        Source(
            "/glue/superglue/data/v2/WSC.zip",
            "WSC.zip",
            members=("WSC/train.jsonl", "WSC/val.jsonl", "WSC/test.jsonl"),
        ),
    ),
    # Sets that people made to find a model out: see adv-plugins evaluate --list-sets.
    "AdvGLUE": (
        Source("/dataset/dev.zip", "AdvGLUE/dev.zip", ADVGLUE_HOST, members=("AdvGLUE/dev/dev.json",)),
    ),
    "IMDB-contrast": _from_github(
        "IMDB-contrast",
        "/allenai/contrast-sets/main/IMDb/data",
        *(f"{split}_{part}.tsv" for split in ("dev", "test") for part in ("original", "contrast")),
    ),
    "HANS": _from_github("HANS", "/tommccoy1/hans/master", "heuristics_evaluation_set.txt"),
    "counterfactual": _from_github(
        "counterfactual",
        "/acmi-lab/counterfactually-augmented-data/master",
        "sentiment/combined/paired/test_paired.tsv",
        "NLI/revised_combined/test.tsv",
    ),
    "PAWS": (
        Source(
            "/paws/english/paws_wiki_labeled_final.tar.gz",
            "PAWS/paws_wiki_labeled_final.tar.gz",
            GOOGLE_HOST,
            members=("PAWS/final/test.tsv",),
        ),
    ),
    "TNEWS": _clue("TNEWS"),
    "IFLYTEK": _clue("IFLYTEK"),
}


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


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
    note = _beside(part, ".validator")
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
    part = _beside(target, ".part")
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
    _beside(part, ".validator").unlink(missing_ok=True)
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
    work = _beside(archive, ".unpacked")
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
