"""What only a GPU can show; skipped without one."""

import logging
import math

import pytest
import torch

import test_batches
import tiny
import training
from adv_plugins.dropout import SameMasks
from methods import EVERY, METHODS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

DEVICE = "cuda"


def test_the_same_dropout_mask_on_the_gpu():
    masks = SameMasks(torch.device("cuda"))
    ones = torch.ones(64, 64, device="cuda")
    drawn = []
    for _ in range(3):
        with masks.replayed():
            drawn.append(torch.nn.functional.dropout(ones, 0.5))
    after = torch.nn.functional.dropout(ones, 0.5)
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], after)


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("method", EVERY, ids=repr)
def test_the_gpu_gives_the_cpus_gradients(float64, monkeypatch, method, kind, sequential):
    """Without random numbers; ASA's masked attention is computed again in the backward there."""
    found = []
    for device in ("cpu", DEVICE):
        criterion, model = test_batches.make(method, kind, monkeypatch, sequential_passes=sequential)
        model, sample = model.to(device), tiny.to_device(tiny.sample(kind), device)
        loss, _, log = criterion(model, sample)
        loss.backward()
        found.append((loss.cpu(), {name: g.cpu() for name, g in tiny.gradients(model).items()}))
        assert math.isfinite(log["objective"])
    torch.testing.assert_close(*found, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("precision", ["--fp16", "--amp"])
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_every_method_trains_in_half_precision(tmp_path, monkeypatch, caplog, method, precision):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(training, "TINY", training.TINY.replace("--cpu ", ""))
    data = training.write_data(tmp_path / "data", "classification")
    flags = (*method.flags, precision, "--max-epoch", "4", "--log-interval", "1")
    state = training.train(data, tmp_path, "classification", method.criterion, *flags)
    assert all(torch.isfinite(value).all() for value in state["model"].values())
    lines = training.logged(caplog, "train_inner")
    assert len(lines) > 10
    assert all(math.isfinite(float(line["objective"])) for line in lines)
    assert float(lines[-1]["loss_scale"]) >= 1
