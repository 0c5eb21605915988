"""What a criterion carries is in the checkpoints, each worker's, and comes back from them."""

import os

import pytest
import torch
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.trainer import Trainer

import training
from adv_plugins.carried_state import KEY
from fairseq_compat.errors import UserError
from processes import run_two_workers

KIND, STOCK = "classification", "sentence_prediction"
DISTRIBUTED = "--distributed-backend gloo --ddp-backend legacy_ddp --find-unused-parameters"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return training.write_data(tmp_path_factory.mktemp("data") / "bin", KIND)


def carrying(patch, *, alike=False):
    """The stock criterion carries the rows it has been trained on. Returns what it is given back."""
    criterion, given = CRITERION_REGISTRY[STOCK], []
    forward = criterion.forward

    def recording(self, model, sample, reduce=True):
        if self.training:
            vars(self).setdefault("rows", []).append(sample["id"].clone())
        return forward(self, model, sample, reduce)

    def restore(self, state):
        given.append(state)
        self.rows = list(state["rows"])

    patch.setattr(criterion, "forward", recording)
    patch.setattr(criterion, "carried_alike", alike, raising=False)
    state = lambda self: {"rows": list(self.rows), "count": len(self.rows)}  # noqa: E731
    patch.setattr(criterion, "carried_state", state, raising=False)
    patch.setattr(criterion, "restore_carried", restore, raising=False)
    return given


def train(data, folder, *flags):
    return training.train(data, folder, KIND, STOCK, *flags, arch="roberta")


def change(path, how):
    """Write other states into a checkpoint."""
    checkpoint = torch.load(path)
    checkpoint["extra_state"][KEY] = how(checkpoint["extra_state"][KEY])
    path.unlink()  # it may be a link to another one
    torch.save(checkpoint, path)


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("stop", [3, 5, 7])  # an epoch has five updates
def test_it_comes_back_when_a_training_goes_on(data, tmp_path, monkeypatch, alike, stop):
    given = carrying(monkeypatch, alike=alike)
    whole = train(data, tmp_path / "whole", "--max-update", "9")
    assert given == [] and whole["extra_state"][KEY][0]["count"] == 9
    first = train(data, tmp_path / "parts", "--max-update", str(stop))
    both = train(data, tmp_path / "parts", "--max-update", "9")
    torch.testing.assert_close(given, first["extra_state"][KEY], rtol=0, atol=0)
    assert len(given[0]["rows"]) == stop
    for key in (KEY, "train_iterator"):
        torch.testing.assert_close(both["extra_state"][key], whole["extra_state"][key], rtol=0, atol=0)


def test_it_stays_behind_with_the_optimizer(data, tmp_path, monkeypatch):
    given = carrying(monkeypatch)
    train(data, tmp_path / "one", "--max-update", "2")
    last = str(tmp_path / "one" / "checkpoint_last.pt")
    train(data, tmp_path / "two", "--max-update", "2", "--finetune-from-model", last)
    train(data, tmp_path / "three", "--max-update", "4", "--restore-file", last, "--reset-optimizer")
    assert given == []
    bare = train(data, tmp_path / "bare", "--max-update", "2", "--no-save-optimizer-state")
    assert KEY not in bare["extra_state"]


def test_checkpoints_without_it_are_gone_on_with_and_stock_criterions_have_none(data, tmp_path):
    first = train(data, tmp_path, "--max-update", "2")
    assert KEY not in first["extra_state"]
    with pytest.MonkeyPatch.context() as patch:
        given = carrying(patch)
        second = train(data, tmp_path, "--max-update", "4")
        assert given == [] and second["extra_state"][KEY][0]["count"] == 2
    third = train(data, tmp_path, "--max-update", "6")
    assert KEY not in third["extra_state"]


def test_what_cannot_be_gone_on_with_is_said_in_a_line(data, tmp_path, monkeypatch):
    carrying(monkeypatch)
    train(data, tmp_path, "--max-update", "2")
    change(tmp_path / "checkpoint_last.pt", lambda states: [{"other": 1}])
    with pytest.raises(UserError, match="checkpoint_last.pt: does not fit this training") as error:
        train(data, tmp_path, "--max-update", "4")
    assert "\n" not in str(error.value)


def test_a_worker_that_fails_alone_waits_for_nobody(data, tmp_path, monkeypatch):
    """fairseq saves crash.pt then; the others do not come to tell what they carry."""
    carrying(monkeypatch)
    saved = []
    monkeypatch.setattr(Trainer, "save_checkpoint", lambda self, *args: saved.append(self.state_dict()))
    criterion = CRITERION_REGISTRY[STOCK]

    def fail(self, model, sample, reduce=True):
        raise ValueError("broken")

    monkeypatch.setattr(criterion, "forward", fail)
    with pytest.raises(ValueError, match="broken"):
        train(data, tmp_path, "--max-update", "1", "--disable-validation")
    assert len(saved) == 1 and KEY not in saved[0]["extra_state"]


def worker(rank, port, alike, arguments):
    """One of two workers, as torchrun starts them; returns what it is given back."""
    os.environ.update(
        MASTER_ADDR="localhost", MASTER_PORT=str(port), WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK="0"
    )
    with pytest.MonkeyPatch.context() as patch:
        given = carrying(patch, alike=alike)
        training.train(*arguments)
    return [[row.tolist() for row in state["rows"]] for state in given]


@pytest.mark.parametrize("alike", [False, True])
def test_each_worker_gets_its_own(data, tmp_path, alike):
    def arguments(updates):
        flags = (*DISTRIBUTED.split(), "--max-update", str(updates))
        return data, tmp_path, KIND, STOCK, *flags

    assert run_two_workers(worker, alike, arguments(2)) == [[], []]
    states = torch.load(tmp_path / "checkpoint_last.pt")["extra_state"][KEY]
    rows = [[row.tolist() for row in state["rows"]] for state in states]
    assert len(rows) == (1 if alike else 2)
    given = run_two_workers(worker, alike, arguments(3))
    assert given == ([[rows[0]], [rows[0]]] if alike else [[rows[0]], [rows[1]]])
    assert alike or rows[0] != rows[1]


def test_another_number_of_workers_begins_anew(data, tmp_path, monkeypatch, caplog):
    given = carrying(monkeypatch)
    train(data, tmp_path, "--max-update", "2")
    change(tmp_path / "checkpoint_last.pt", lambda states: states * 2)
    train(data, tmp_path, "--max-update", "4")
    assert given == [] and "was saved by 2 workers, now there are 1" in caplog.text
