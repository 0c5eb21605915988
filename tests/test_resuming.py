"""A training that was killed goes on as if it had not been, and what it cannot go on from is named."""

import errno
import os
import shutil

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.file_io import PathManager

import training
from fairseq_compat import validations
from fairseq_compat.errors import UserError

KIND = "classification"
STOCK = "sentence_prediction"
EXACT = dict(rtol=0, atol=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return training.write_data(tmp_path_factory.mktemp("data") / "bin", KIND)


def train(data, folder, *flags):
    return training.train(data, folder, KIND, STOCK, *flags, arch="roberta")


def names(folder):
    return {path.name for path in folder.iterdir()}


class Killed(BaseException):
    """What cannot be caught."""


def test_a_copy_that_is_killed_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    best, last = tmp_path / "checkpoint_best.pt", tmp_path / "checkpoint_last.pt"
    best.write_text("new weights")
    last.write_text("old weights")

    def half(source, target):
        with open(target, "w") as file:
            file.write("new w")
        raise Killed

    def none(source, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "link", none)
        patch.setattr(shutil, "copyfile", half)
        PathManager.copy(str(best), str(last), overwrite=True)
    assert last.read_text() == "old weights"
    assert PathManager.copy(str(best), str(last), overwrite=True), "fairseq asserts it"
    assert last.read_text() == "new weights" and names(tmp_path) == {best.name, last.name}
    assert last.samefile(best), "it takes no space"
    PathManager.copy(str(best), str(last), overwrite=True)
    assert last.read_text() == "new weights" and names(tmp_path) == {best.name, last.name}


def test_what_is_not_local_is_copied_as_before(monkeypatch):
    copied = []
    monkeypatch.setattr(PathManager, "path_requires_pathmanager", lambda path: path.startswith("s3:"))
    monkeypatch.setattr(shutil, "copyfile", lambda *paths: copied.append(paths))
    PathManager.copy("s3://a", "b", overwrite=True)
    assert copied == [("s3://a", "b")]


def test_a_save_that_fails_begins_again_with_an_empty_file(tmp_path, monkeypatch):
    """fairseq tries three times, each time behind what the last one has written."""
    save, attempts = torch.save, []

    def failing(state, file):
        attempts.append(file)
        if len(attempts) < 3:
            file.write(b"half a checkpoint")
            raise OSError(errno.EIO, "Input/output error")
        save(state, file)

    monkeypatch.setattr(torch, "save", failing)
    path = tmp_path / "checkpoint_last.pt"
    checkpoint_utils.torch_persistent_save({"weights": torch.ones(3)}, str(path))
    assert path.read_bytes()[:2] == b"PK" and names(tmp_path) == {path.name}
    assert torch.load(path)["weights"].tolist() == [1, 1, 1]


def test_a_full_disk_is_named_with_the_file(tmp_path, monkeypatch):
    def full(state, file):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64") from None

    monkeypatch.setattr(torch, "save", full)
    path = tmp_path / "checkpoint_last.pt"
    path.write_text("old")
    with pytest.raises(OSError, match=r"No space left on device: '.*checkpoint_last.pt'"):
        checkpoint_utils.torch_persistent_save({}, str(path))
    assert path.read_text() == "old" and names(tmp_path) == {path.name}


def damage(path, how):
    content = path.read_bytes()
    if how == "other":
        torch.save({"not": "fairseq's"}, path)
    else:
        path.write_bytes({"empty": b"", "half": content[: len(content) // 2]}[how])


@pytest.mark.parametrize("how", ["empty", "half", "other"])
def test_a_damaged_checkpoint_is_named_with_what_to_do(data, tmp_path, how):
    train(data, tmp_path, "--max-update", "2")
    last = tmp_path / "checkpoint_last.pt"
    damage(last, how)
    with pytest.raises(UserError) as error:
        train(data, tmp_path, "--max-update", "4")
    message = str(error.value)
    assert message.startswith(f"{last}: damaged") and "\n" not in message
    assert "delete it to begin again, or put checkpoint" in message

    foreign = tmp_path / "foreign.pt"
    last.rename(foreign)
    with pytest.raises(UserError, match=r"foreign.pt: damaged, .*\)$"):
        train(data, tmp_path / "other", "--finetune-from-model", str(foreign), "--max-update", "1")


@pytest.mark.parametrize("option", ["--finetune-from-model", "--restore-file"])
@pytest.mark.parametrize("there", [True, False])
def test_random_weights_are_never_trained_in_place_of_a_checkpoint(data, tmp_path, option, there):
    path = tmp_path / "roberta.base"
    if there:
        path.mkdir()
        (path / "model.pt").write_bytes(b"")
    with pytest.raises(UserError) as error:
        train(data, tmp_path / "out", option, str(path), "--max-update", "1")
    reason = "a folder, not a checkpoint" if there else "no such checkpoint"
    assert str(error.value).startswith(f"{option} {path}: {reason}")


def test_an_ended_training_makes_no_more_updates(data, tmp_path):
    flags = ("--max-update", "7")  # in the middle of the second epoch of five
    once = train(data, tmp_path, *flags)
    before = (tmp_path / "checkpoint_last.pt").read_bytes()
    again = train(data, tmp_path, *flags)
    assert again["optimizer_history"][-1]["num_updates"] == 7
    torch.testing.assert_close(again["model"], once["model"], **EXACT)
    assert (tmp_path / "checkpoint_last.pt").read_bytes() == before
    longer = train(data, tmp_path, "--max-update", "9")
    assert longer["optimizer_history"][-1]["num_updates"] == 9


def updates(folder):
    return [line["update"] for line in validations.read(folder)]


def forget():
    """What a new process would not know."""
    import fairseq_cli.train

    for name in ("best", "num_runs"):
        if hasattr(fairseq_cli.train.should_stop_early, name):
            delattr(fairseq_cli.train.should_stop_early, name)


def test_patience_is_counted_on_when_a_training_is_continued(data, tmp_path):
    # The loss of random labels rises soon; with this rate from the beginning.
    flags = ("--lr", "0.3", "--patience", "3", "--save-interval-updates", "5")
    forget()
    train(data, tmp_path / "whole", *flags, "--max-epoch", "12")
    ends = updates(tmp_path / "whole")
    assert len(ends) < 12, "it stopped early"
    forget()
    train(data, tmp_path / "parts", *flags, "--max-epoch", str(len(ends) - 1))
    for _ in range(2):  # the second time it has ended
        forget()
        train(data, tmp_path / "parts", *flags, "--max-epoch", "12")
        assert updates(tmp_path / "parts") == ends
    forget()


def test_the_scheduler_knows_the_validation_of_the_epoch_that_a_checkpoint_ends(data, tmp_path):
    """Of a training that is killed after that save; here the rate depends on it."""
    flags = "--lr-scheduler reduce_lr_on_plateau --lr-patience 0 --lr-shrink 0.5 --lr 0.5".split()
    whole = train(data, tmp_path / "whole", *flags, "--max-epoch", "4")
    for epoch in "1234":
        killed = train(data, tmp_path / "killed", *flags, "--max-epoch", epoch)
    states = [each["optimizer_history"][-1]["lr_scheduler_state"] for each in (whole, killed)]
    assert states[0] == states[1] and states[0]["best"] is not None
    rates = [each["last_optimizer_state"]["param_groups"][0]["lr"] for each in (whole, killed)]
    assert rates[0] == rates[1] < 0.5, "it fell"
    for name, weight in whole["model"].items():
        torch.testing.assert_close(killed["model"][name], weight, **EXACT)


@pytest.mark.parametrize("form", ["none", "simple", "tqdm", "json"])
def test_validations_are_written_down_whatever_the_console_shows(data, tmp_path, form):
    flags = ("--max-epoch", "2", "--log-format", form, "--valid-subset", "valid,train")
    train(data, tmp_path, *flags, "--ignore-unused-valid-subsets")
    lines = validations.read(tmp_path)
    assert [(line["update"], line["epoch"], line["subset"]) for line in lines] == [
        (5, 1, "valid"),
        (5, 1, "train"),
        (10, 2, "valid"),
        (10, 2, "train"),
    ]
    assert all({"loss", "accuracy", "num_updates"} <= line["stats"].keys() for line in lines)
    assert all("wps" not in line["stats"] for line in lines)


def test_a_continued_training_ends_with_the_same_validations(data, tmp_path):
    flags = ("--max-epoch", "3", "--validate-interval-updates", "2")
    whole = tmp_path / "whole"
    train(data, whole, *flags)
    parts = tmp_path / "parts"
    train(data, parts, *flags[2:], "--max-epoch", "1")
    with (parts / validations.NAME).open("a") as file:  # validated, then killed before the next save
        file.write(
            '{"update": 7, "epoch": 2, "subset": "valid", "stats": {"loss": 9}}\n{"update": 8, "ep'
        )
    train(data, parts, *flags)
    assert validations.read(parts) == validations.read(whole)
    assert updates(whole) == sorted(set(updates(whole))) and len(updates(whole)) == 9

    os.remove(parts / "checkpoint_last.pt")
    train(data, parts, *flags)
    assert validations.read(parts) == validations.read(whole), "begun again"
