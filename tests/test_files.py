"""Files and folders are complete or not there, whenever the process that writes them is killed."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fairseq_compat import files

ROOT = Path(__file__).parents[1]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def killed(tmp_path, body):
    """Run a script that hangs inside the context, and kill it there."""
    script = f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
    script += "from fairseq_compat import files\n" + body
    process = subprocess.Popen([sys.executable, "-S", "-c", script], cwd=tmp_path)
    while not (tmp_path / "hangs").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


HANGING = """
with files.{what} as path:
    {write}
    open('hangs', 'w').close()
    time.sleep(60)
"""


def test_a_file_is_the_old_one_until_it_is_complete(tmp_path):
    target = tmp_path / "result.json"
    target.write_text("old")
    with files.written_beside(target) as path:
        path.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new" and names(tmp_path) == ["result.json"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "result.json"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), files.written_beside(target) as path:
        path.write_text("half")
        1 / 0  # noqa: B018
    assert target.read_text() == "old" and names(tmp_path) == ["result.json"]


def test_files_have_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_json(tmp_path / "new" / "a.json", {"text": "\u00e9"})
    finally:
        os.umask(before)
    assert (tmp_path / "new" / "a.json").stat().st_mode & 0o777 == 0o640
    assert json.loads((tmp_path / "new" / "a.json").read_bytes()) == {"text": "\u00e9"}


def test_what_a_killed_process_left_is_in_nobodys_way_and_goes(tmp_path):
    target = tmp_path / "a [1].pt"
    target.write_text("old")
    killed(tmp_path, HANGING.format(what=f"written_beside({str(target)!r})", write="path.touch()"))
    assert target.read_text() == "old" and len(names(tmp_path)) == 3
    files.write_text(target, "new")
    assert target.read_text() == "new" and names(tmp_path) == ["a [1].pt", "hangs"]


def test_a_killed_folder_is_not_there_and_goes(tmp_path):
    body = HANGING.format(what="folder_beside('RTE-bin')", write="(path / 'train.bin').touch()")
    killed(tmp_path, body)
    assert not (tmp_path / "RTE-bin").exists() and len(names(tmp_path)) == 2
    with files.folder_beside(tmp_path / "RTE-bin") as path:
        (path / "whole").touch()
    assert names(tmp_path) == ["RTE-bin", "hangs"] and names(tmp_path / "RTE-bin") == ["whole"]


def test_the_leftovers_of_a_living_process_stay(tmp_path):
    with files.folder_beside(tmp_path / "data") as first:
        with files.folder_beside(tmp_path / "other"), pytest.raises(FileExistsError, match="data"):
            with files.folder_beside(tmp_path / "data") as second:
                assert first.is_dir() and first != second
                (tmp_path / "data").mkdir()
        (tmp_path / "data").rmdir()
        (first / "mine").touch()
    assert names(tmp_path / "data") == ["mine"] and names(tmp_path) == ["data", "other"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_gives_way_only_if_it_may(tmp_path, overwrite):
    target = tmp_path / "data"
    target.mkdir()
    (target / "old").touch()
    try:
        with files.folder_beside(target, overwrite=overwrite) as path:
            (path / "new").touch()
            assert names(target) == ["old"]
    except FileExistsError:
        assert not overwrite
    assert names(target) == ["new" if overwrite else "old"] and names(tmp_path) == ["data"]


def test_a_folder_whose_replacement_was_killed_in_between_comes_back(tmp_path):
    (tmp_path / ".data.replaced").mkdir()
    (tmp_path / ".data.replaced" / "old").touch()
    with pytest.raises(KeyError), files.folder_beside(tmp_path / "data"):
        raise KeyError
    assert names(tmp_path / "data") == ["old"] and names(tmp_path) == ["data"]


@pytest.mark.parametrize("context", [files.written_beside, files.folder_beside])
def test_a_full_disk_is_reported_with_the_file_that_was_to_be_written(tmp_path, context):
    with pytest.raises(OSError, match=r"No space left on device: .*result\.json'"):
        with context(tmp_path / "result.json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as write() does: with no name
    assert names(tmp_path) == []
