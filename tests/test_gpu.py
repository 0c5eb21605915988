"""What only a GPU can show; skipped without one."""

import logging
import math

import pytest
import torch
import training

from adv_plugins.dropout import SameMasks

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

METHODS = {
    "rat_criterion": (),
    "freelb_criterion": (),
    "rapt_criterion": ("--noise-max-layer", "2"),
    "asa_criterion": (),
}


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


@pytest.mark.parametrize("precision", ["--fp16", "--amp"])
@pytest.mark.parametrize("criterion", METHODS)
def test_every_method_trains_in_half_precision(tmp_path, monkeypatch, caplog, criterion, precision):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(training, "TINY", training.TINY.replace("--cpu ", ""))
    data = training.write_data(tmp_path / "data", "classification")
    flags = (*METHODS[criterion], precision, "--max-epoch", "4", "--log-interval", "1")
    state = training.train(data, tmp_path, "classification", criterion, *flags)
    assert all(torch.isfinite(value).all() for value in state["model"].values())
    lines = training.logged(caplog, "train_inner")
    assert len(lines) > 10
    assert all(math.isfinite(float(line["objective"])) for line in lines)
    assert float(lines[-1]["loss_scale"]) >= 1
