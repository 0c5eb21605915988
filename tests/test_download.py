"""Downloads against a server on this machine that breaks off, lies and refuses on demand."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from adv_plugins_cli import download
from adv_plugins_cli.downloads import transfer

BODY = bytes(range(256)) * 2000


@dataclass
class Server:
    """What the handler serves, how it misbehaves, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    # Bytes after which a connection is cut, one entry a request.
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    etag: str = '"one"'
    ranges: bool = True
    length: bool = True
    chunked: bool = False
    requests: list[str | None] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    """Serves `server.state` with Range and If-Range."""

    def do_GET(self) -> None:
        state: Server = self.server.state  # type: ignore[attr-defined]
        wanted = self.headers.get("Range")
        state.requests.append(wanted)
        body = state.files.get(self.path)
        if state.statuses or body is None:
            self.send_error(state.statuses.pop(0) if state.statuses else 404)
            return
        start = 0
        if wanted and state.ranges and self.headers.get("If-Range") == state.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("ETag", state.etag)
        if state.length:
            self.send_header("Content-Length", str(len(body) - start))
        if state.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        # Before the client can answer to the headers, and the test go on.
        end = start + state.cuts.pop(0) if state.cuts else len(body)
        self.end_headers()
        sent = body[start:end]
        if state.chunked:
            last = b"0\r\n\r\n" if end == len(body) else b""
            sent = b"%x\r\n%b\r\n" % (len(sent), sent) + last
        self.wfile.write(sent)
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Keep the test's output free of one line a request."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)
    # What is kept of a broken transfer is whole chunks.
    monkeypatch.setattr(transfer, "CHUNK_BYTES", 1000)
    state = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.state = state  # type: ignore[attr-defined]
    state.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


def zip_bytes(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name, text in members.items():
            bundle.writestr(name, text)
    return buffer.getvalue()


def tar_bytes(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
        for name, text in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(text)
            bundle.addfile(header, io.BytesIO(text.encode()))
    return buffer.getvalue()


def test_interrupted_transfer_resumes(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = BODY
    server.cuts = [100_000, 50_000, *[1000] * transfer.ATTEMPTS]
    target = tmp_path / "new" / "file"
    transfer.fetch(f"{server.url}/file", target, sha256=hashlib.sha256(BODY).hexdigest())
    assert target.read_bytes() == BODY
    assert server.requests[:4] == [None, "bytes=100000-", "bytes=150000-", "bytes=151000-"]
    assert len(server.requests) == 3 + transfer.ATTEMPTS
    assert list(target.parent.iterdir()) == [target]


def test_a_later_run_resumes(server: Server, tmp_path: Path) -> None:
    """The first run gives up, the second goes on with what the first one got."""
    server.files["/file"] = BODY
    server.cuts = [1000]
    target = tmp_path / "file"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "ATTEMPTS", 1)
        with pytest.raises(transfer.DownloadError, match="run the command again"):
            transfer.fetch(f"{server.url}/file", target)
    assert not target.exists()
    transfer.fetch(f"{server.url}/file", target)
    assert target.read_bytes() == BODY
    assert server.requests == [None, "bytes=1000-"]


@pytest.mark.parametrize("change", ["server ignores ranges", "file changed", "no validator"])
def test_restarts_where_resuming_is_unsafe(server: Server, tmp_path: Path, change: str) -> None:
    server.files["/file"] = BODY
    server.cuts = [1000]
    target = tmp_path / "file"
    if change == "no validator":
        server.etag = 'W/"weak"'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "ATTEMPTS", 1)
        with pytest.raises(transfer.DownloadError):
            transfer.fetch(f"{server.url}/file", target)
    if change == "server ignores ranges":
        server.ranges = False
    elif change == "file changed":
        server.etag = '"two"'
        server.files["/file"] = BODY[::-1]
    transfer.fetch(f"{server.url}/file", target)
    assert target.read_bytes() == server.files["/file"]
    assert server.requests == [None, None if change == "no validator" else "bytes=1000-"]


def test_complete_part_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    """Killed between the last byte and the renaming."""
    server.files["/file"] = BODY
    (tmp_path / "file.part").write_bytes(BODY)
    (tmp_path / "file.part.validator").write_text(server.etag)
    transfer.fetch(f"{server.url}/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert server.requests == [f"bytes={len(BODY)}-"]


def test_wrong_checksum_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = BODY
    target = tmp_path / "file"
    with pytest.raises(transfer.DownloadError, match="wrong SHA-256.* not kept"):
        transfer.fetch(f"{server.url}/file", target, sha256="0" * 64)
    assert not list(tmp_path.iterdir())


def test_a_body_that_ends_anywhere_needs_another_check(server: Server, tmp_path: Path) -> None:
    """Without a length a broken connection looks like the end of the file."""
    server.length = False
    server.files["/file"] = server.files["/file.zip"] = BODY
    with pytest.raises(transfer.DownloadError, match="does not say how long"):
        transfer.fetch(f"{server.url}/file", tmp_path / "file")
    assert not list(tmp_path.iterdir())
    server.cuts = [len(BODY) // 2]
    checksum = hashlib.sha256(BODY).hexdigest()
    with pytest.raises(transfer.DownloadError, match="wrong SHA-256"):
        transfer.fetch(f"{server.url}/file", tmp_path / "file", sha256=checksum)
    assert not list(tmp_path.iterdir())
    server.cuts = []
    transfer.fetch(f"{server.url}/file", tmp_path / "file", sha256=checksum)
    assert (tmp_path / "file").read_bytes() == BODY
    with pytest.raises(transfer.DownloadError, match="file.zip: broken archive"):
        transfer.fetch(f"{server.url}/file.zip", tmp_path / "file.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_chunks_say_where_they_end(server: Server, tmp_path: Path) -> None:
    server.length, server.chunked = False, True
    server.files["/file"] = BODY
    server.cuts = [1000]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handler, "protocol_version", "HTTP/1.1")
        transfer.fetch(f"{server.url}/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY and len(server.requests) == 2


def test_existing_file_is_kept(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("mine")
    transfer.fetch(f"{server.url}/file", target)
    with pytest.raises(transfer.DownloadError, match="move it away"):
        transfer.fetch(f"{server.url}/file", target, sha256="0" * 64)
    assert target.read_text() == "mine"
    assert server.requests == []


def test_missing_file_and_dead_server(server: Server, tmp_path: Path) -> None:
    with pytest.raises(transfer.DownloadError, match="404 Not Found"):
        transfer.fetch(f"{server.url}/missing", tmp_path / "file")
    assert len(server.requests) == 1
    server.statuses = [503] * transfer.ATTEMPTS
    with pytest.raises(transfer.DownloadError, match=r"503.*gave up after 5 attempts"):
        transfer.fetch(f"{server.url}/file", tmp_path / "file")
    assert len(server.requests) == 1 + transfer.ATTEMPTS
    with pytest.raises(transfer.DownloadError, match="no connection"):
        transfer.fetch("http://127.0.0.1:9/file", tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_glue_archive(server: Server, tmp_path: Path) -> None:
    """Unpacked, own files kept, the archive removed, and not fetched a second time."""
    members = {"RTE/train.tsv": "train", "RTE/dev.tsv": "dev", "__MACOSX/RTE/._dev.tsv": "x"}
    server.files["/glue/data/RTE.zip"] = zip_bytes(members)
    own = tmp_path / "glue" / "RTE" / "dev.tsv"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    for _ in range(2):
        download.main(["glue/RTE", "--out-dir", str(tmp_path), "--base-url", server.url])
    assert own.read_text() == "mine"
    assert (own.parent / "train.tsv").read_text() == "train"
    assert [path.name for path in (tmp_path / "glue").iterdir()] == ["RTE"]
    assert len(server.requests) == 1


old_python = pytest.mark.skipif(
    not hasattr(tarfile, "data_filter"),
    reason="this Python cannot unpack safely, so nothing is unpacked",
)


@old_python
def test_checkpoint_archive(server: Server, tmp_path: Path) -> None:
    members = {"roberta.base/model.pt": "weights", "roberta.base/dict.txt": "words"}
    server.files["/fairseq/models/roberta.base.tar.gz"] = tar_bytes(members)
    download.main(["roberta.base", "--out-dir", str(tmp_path), "--base-url", server.url])
    assert (tmp_path / "roberta.base" / "model.pt").read_text() == "weights"
    assert [path.name for path in tmp_path.iterdir()] == ["roberta.base"]


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param("tar", marks=old_python),
        *("zip", "cut off", "no end", "flipped", "flipped zip", "encrypted"),
        pytest.param("other content", marks=old_python),
    ],
)
def test_bad_archives(server: Server, tmp_path: Path, archive: str) -> None:
    """Nothing outside the folder is written, and the message is one line."""
    out_dir = tmp_path / "out"
    package, path = "roberta.base", "/fairseq/models/roberta.base.tar.gz"
    members = {"roberta.base/model.pt": "weights" * 1000, "roberta.base/dict.txt": "words"}
    good = tar_bytes(members)
    glue = zip_bytes({"RTE/train.tsv": "train" * 9, "RTE/dev.tsv": "dev"})
    if archive == "tar":
        body, message = tar_bytes({"../evil": "x"}), "unsafe path"
    elif archive == "zip":
        package, path = "glue/RTE", "/glue/data/RTE.zip"
        body, message = zip_bytes({"../../evil": "x"}), "unsafe path"
    elif archive == "cut off":
        body, message = good[: len(good) // 2], "broken archive"
    elif archive == "no end":  # every member is whole; what is missing is the checksum of all
        body, message = good[:-8], "broken archive"
    elif archive == "flipped":
        body, message = good[:-8] + bytes([good[-8] ^ 1]) + good[-7:], "broken archive"
    elif archive == "flipped zip":
        package, path = "glue/RTE", "/glue/data/RTE.zip"
        body, message = glue.replace(b"traintrain", b"trainTrain", 1), "broken archive"
    elif archive == "encrypted":
        package, path = "glue/RTE", "/glue/data/RTE.zip"
        flag = glue.index(b"PK\x01\x02") + 8
        body, message = glue[:flag] + b"\1" + glue[flag + 1 :], "broken archive"
    else:
        body, message = tar_bytes({"other/model.pt": "x"}), "not in the archive"
    server.files[path] = body
    with pytest.raises(SystemExit, match=rf"^adv-plugins download: error: .*{message}"):
        download.main([package, "--out-dir", str(out_dir), "--base-url", server.url])
    assert not [path for path in tmp_path.rglob("*") if not path.is_dir()]
    assert not list(tmp_path.rglob("*.unpacked"))


def test_an_archive_that_was_there_is_left_alone(server: Server, tmp_path: Path) -> None:
    (tmp_path / "glue").mkdir()
    (tmp_path / "glue" / "RTE.zip").write_bytes(b"mine")
    with pytest.raises(SystemExit, match=r"RTE\.zip: broken archive .*; delete it to fetch it anew"):
        download.main(["glue/RTE", "--out-dir", str(tmp_path), "--base-url", server.url])
    assert (tmp_path / "glue" / "RTE.zip").read_bytes() == b"mine"


def test_bad_addresses_and_a_missing_package_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ["WNUT-17", "--out-dir", str(tmp_path), "--base-url"]
    for url in ("nowhere", "ftp://x", "http://["):
        with pytest.raises(SystemExit, match=r"^adv-plugins download: error: .*no address"):
            download.main([*request, url])
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(SystemExit, match="requests is missing: pip install requests"):
        download.main([*request, "http://127.0.0.1:9"])


def test_mrpc_is_brought_into_glue_layout(server: Server, tmp_path: Path) -> None:
    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"
    rows = [f'{i % 2}\t{i}\t{i + 10}\tHe said "{i}.\tShe {i}. ' for i in range(4)]
    text = "".join(f"{line}\r\n" for line in [header, *rows]).encode()
    server.files = {
        "/senteval/senteval_data/msr_paraphrase_train.txt": text,
        "/senteval/senteval_data/msr_paraphrase_test.txt": text,
        "/glue/data/mrpc_dev_ids.tsv": b"1\t11\n3\t13\n",
    }
    download.main(["glue/MRPC", "--out-dir", str(tmp_path), "--base-url", server.url])
    folder = tmp_path / "glue" / "MRPC"
    made = {
        name: (folder / f"{name}.tsv").read_text("utf-8").splitlines()
        for name in ("train", "dev", "test")
    }
    assert made["train"] == [header, rows[0], rows[2]]
    assert made["dev"] == [header, rows[1], rows[3]]
    assert made["test"][0] == "index\t#1 ID\t#2 ID\t#1 String\t#2 String"
    assert made["test"][2] == '1\t1\t11\tHe said "1.\tShe 1. '


def test_known_checksums_are_those_of_the_real_files(real_data: Path) -> None:
    places = {
        "train.jsonl": "train_rand_split.jsonl",
        "valid.jsonl": "dev_rand_split.jsonl",
        "test.jsonl": "test_rand_split_no_answers.jsonl",
    }
    for source in (*download.PACKAGES["gpt2_bpe"], *download.PACKAGES["commonsense_qa"][:3]):
        folder, name = source.target.split("/")
        assert transfer.sha256_of(real_data / folder / places.get(name, name)) == source.sha256
