"""``--clip-norm`` on the two players of ASA, for every optimizer of fairseq's trainer."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq import optim
from fairseq.trainer import Trainer

import tiny
import training
from adv_plugins import clipping
from adv_plugins.models.asa_roberta import ADVERSARY, AsaRobertaModel

PRECISIONS = ["fp32", "amp", "fp16", "fp16-not-flat", "memory-efficient", "bf16"]
SCALE = 4.0  # the loss's


def make_trainer(precision, sizes, monkeypatch):
    """As much of a trainer as clips, with random gradients of these norms after the backward."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: None)  # where a CPU's parameters are
    line = "no-data --task sentence_prediction --arch asa_roberta --criterion sentence_prediction"
    cfg = training.parse([*line.split(), *training.TINY.split(), *training.ADAM.split()])
    cfg.common.fp16_init_scale = int(SCALE)
    cfg.common.fp16_no_flatten_grads = precision == "fp16-not-flat"
    cfg.common.bf16 = precision == "bf16"
    model = tiny.model("classification", AsaRobertaModel, double=False)
    if precision not in ("fp32", "amp"):
        model = model.half()
    parameters = list(model.parameters())
    build = {
        "fp32": lambda: optim.build_optimizer(cfg.optimizer, parameters),
        "amp": lambda: optim.AMPOptimizer.build_optimizer(cfg, parameters),
        "memory-efficient": lambda: optim.MemoryEfficientFP16Optimizer.build_optimizer(cfg, parameters),
    }
    optimizer = build.get(precision, lambda: optim.FP16Optimizer.build_optimizer(cfg, parameters))()
    optimizer.zero_grad()
    scale = SCALE if "fp16" in precision or precision == "memory-efficient" else 1.0
    torch.manual_seed(1)
    expected = {}
    for player, size in sizes.items():
        own = {n: p for n, p in model.named_parameters() if (ADVERSARY in n) == (player == "adversary")}
        random = {name: torch.randn_like(p, dtype=torch.float32) for name, p in own.items()}
        norm = torch.stack([value.norm() for value in random.values()]).norm()
        for name, parameter in own.items():
            expected[name] = random[name] * size / norm
            parameter.grad = (2 * scale * expected[name]).to(parameter.dtype)
    optimizer._needs_sync = True
    optimizer.multiply_grads(torch.tensor(0.5))  # the batch's size
    trainer = SimpleNamespace(model=model, optimizer=optimizer, is_fsdp=False)
    return trainer, expected


def updates(trainer):
    """The gradient of each parameter that the next step uses."""
    optimizer, named = trainer.optimizer, dict(trainer.model.named_parameters())
    factor = getattr(optimizer, "_multiply_factor", 1.0)
    if getattr(optimizer, "has_flat_params", False):
        (flat,) = optimizer.fp32_params.values()
        parts = flat.grad.split([parameter.numel() for parameter in named.values()])
    elif hasattr(optimizer, "fp32_params"):
        parts = [copy.grad for copy in optimizer.fp32_params]
    else:
        parts = [parameter.grad for parameter in named.values()]
    found = {name: part for name, part in zip(named, parts) if part is not None}
    return {name: part.view_as(named[name]) * factor for name, part in found.items()}


@pytest.mark.parametrize("sizes", [(0.5, 40.0), (8.0, 0.25), (3.0, 500.0), (0.5, 0.25)])
@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_each_players_gradient_is_clipped_by_its_own_norm(monkeypatch, precision, clip, sizes):
    sizes = dict(zip(("model", "adversary"), sizes))
    trainer, gradients = make_trainer(precision, sizes, monkeypatch)
    norm = Trainer.clip_grad_norm(trainer, clip)
    assert float(norm) == pytest.approx(sizes["model"], rel=1e-2)
    found = updates(trainer)
    for name, gradient in gradients.items():
        size = sizes["adversary" if ADVERSARY in name else "model"]
        factor = min(1.0, clip / size) if clip else 1.0
        if precision == "memory-efficient" and ADVERSARY in name and clip:
            factor = min(factor, clip / sizes["model"])  # it cannot grow
        torch.testing.assert_close(found[name].float(), factor * gradient, rtol=2e-2, atol=2e-4)


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_model_is_clipped_as_fairseq_clips_it_without_an_adversary(monkeypatch, precision, clip):
    found = []
    for sizes in ({"model": 3.0}, {"model": 3.0, "adversary": 50.0}):
        trainer, _ = make_trainer(precision, sizes, monkeypatch)
        method = Trainer.clip_grad_norm
        norm = (method if "adversary" in sizes else method.__wrapped__)(trainer, clip)
        own = {name: value for name, value in updates(trainer).items() if ADVERSARY not in name}
        found.append((torch.as_tensor(norm), own))
    torch.testing.assert_close(*found, rtol=1e-6, atol=0)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_adversarys_overflow_is_not_overlooked(monkeypatch, precision):
    trainer, _ = make_trainer(precision, {"model": 1.0, "adversary": 1.0}, monkeypatch)
    for name, parameter in trainer.model.named_parameters():
        if ADVERSARY in name:
            parameter.grad.fill_(float("inf"))
    if precision == "fp16":
        with pytest.raises(OverflowError):
            Trainer.clip_grad_norm(trainer, 1.0)
    else:
        assert not torch.isfinite(Trainer.clip_grad_norm(trainer, 1.0))
    assert "clip_grad_norm" not in vars(clipping.full_precision_optimizer(trainer.optimizer))


def test_training_shows_both_norms_and_repeats_stock_clipping_without_an_adversary(
    tmp_path, caplog, monkeypatch
):
    caplog.set_level(logging.INFO)
    data = training.write_data(tmp_path / "data", "classification")
    flags = ("--clip-norm", "0.1", "--max-epoch", "1", "--log-interval", "1")
    training.train(data, tmp_path / "asa", "classification", "asa_criterion", *flags)
    lines = training.logged(caplog, "train_inner")
    assert all(float(line["adversary_gnorm"]) > 0 for line in lines)
    states: list[dict[str, Any]] = []
    for method in (Trainer.clip_grad_norm, Trainer.clip_grad_norm.__wrapped__):
        caplog.clear()
        monkeypatch.setattr(Trainer, "clip_grad_norm", method)
        folder = tmp_path / f"plain{len(states)}"
        states.append(training.train(data, folder, "classification", "sentence_prediction", *flags))
        assert "adversary_gnorm" not in training.logged(caplog, "train_inner")[0]
    torch.testing.assert_close(states[0]["model"], states[1]["model"], rtol=0, atol=0)


def test_wrapping_twice_is_wrapping_once():
    method = Trainer.clip_grad_norm
    clipping.clip_apart()
    assert Trainer.clip_grad_norm is method
