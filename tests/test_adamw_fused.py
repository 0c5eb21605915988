"""--optimizer adamw_fused: the trajectory, state and checkpoints of fairseq's adam."""

import pytest
import torch
from fairseq.optim.adam import Adam

from adv_plugins.adamw_fused import FusedAdamW
from fairseq_compat.errors import UserError
from training import train, write_data

OPTIONS = dict(lr=1e-2, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1)
FUSED = "--optimizer adamw_fused --adam-betas (0.9,0.98) --weight-decay 0.1"
STOCK = FUSED.replace("adamw_fused", "adam")


def parameters(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    shapes = [(7, 5), (5,), (3, 2, 2), (1,)]
    return [torch.nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in shapes]


def run(optimizer_class, values, updates, dtype=torch.float32, late=60):
    """Random gradients, of which the last parameter's begin later; the learning rate changes."""
    generator = torch.Generator().manual_seed(2)
    optimizer = optimizer_class(values, **OPTIONS)
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - update / (2 * updates))
        for value in values:
            gradient = torch.randn(value.shape, generator=generator) * 10.0 ** (update % 7 - 6)
            value.grad = gradient.to(dtype)
        if update < late:
            values[-1].grad = None
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_a_hundred_updates_are_those_of_adam(dtype):
    ours, stock = parameters(dtype), parameters(dtype)
    fused, adam = run(FusedAdamW, ours, 100, dtype), run(Adam, stock, 100, dtype)
    tight = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 3 * torch.finfo(dtype).eps)
    for one, other in zip(ours, stock):
        torch.testing.assert_close(one, other, rtol=tight, atol=tight)
        mine, theirs = fused.state[one], adam.state[other]
        assert mine.keys() == theirs.keys() and mine["step"] == theirs["step"]
        for name in ("exp_avg", "exp_avg_sq"):
            assert mine[name].dtype == theirs[name].dtype
            torch.testing.assert_close(mine[name], theirs[name], rtol=1e-5, atol=1e-7)


def test_epsilon_means_what_it_means_in_fairseq():
    """With gradients as small as it, an epsilon that is added elsewhere would show."""
    ours, stock = parameters(torch.float64), parameters(torch.float64)
    for optimizer_class, values in ((FusedAdamW, ours), (Adam, stock)):
        optimizer = optimizer_class(values, **OPTIONS)
        for value in values:
            value.grad = torch.full_like(value, 1e-6)
        optimizer.step()
    for one, other in zip(ours, stock):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


def assert_same(one, other, tolerance):
    for name, value in one.items():
        # The gradient of a key's bias is 0, but for rounding, which Adam takes for a gradient.
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(value, other[name], rtol=tolerance, atol=tolerance, msg=name)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"), "classification")


def fine_tune(data, folder, optimizer, *flags, criterion="rat_criterion"):
    return train(data, folder, "classification", criterion, *flags, arch="roberta", optimizer=optimizer)


@pytest.mark.parametrize(
    "flags",
    [(), ("--amp",), ("--bf16",), ("--memory-efficient-bf16",)],
    ids=lambda flags: flags[0] if flags else "fp32",
)
def test_training_is_that_of_adam(data, tmp_path, flags):
    flags = (*flags, "--max-update", "12")
    fused = fine_tune(data, tmp_path / "fused", FUSED, *flags)["model"]
    adam = fine_tune(data, tmp_path / "adam", STOCK, *flags)["model"]
    assert_same(fused, adam, 2e-3 if "--amp" in flags else 1e-5)


@pytest.mark.parametrize(
    "order", [(STOCK, FUSED), (FUSED, STOCK), (FUSED, FUSED)], ids=["from", "to", "own"]
)
def test_either_goes_on_from_the_others_checkpoint(data, tmp_path, order):
    whole = fine_tune(data, tmp_path / "whole", STOCK, "--max-update", "8")
    for optimizer, updates in zip(order, ("5", "8")):
        parts = fine_tune(data, tmp_path / "parts", optimizer, "--max-update", updates)
    assert parts["optimizer_history"][-1]["num_updates"] == 8
    assert_same(whole["model"], parts["model"], 1e-5)
    states = [each["last_optimizer_state"]["state"] for each in (whole, parts)]
    assert [each["step"] for each in states[0].values()] == [each["step"] for each in states[1].values()]


def test_statistics_in_float16_are_refused(data, tmp_path):
    with pytest.raises(UserError, match="--fp16-adam-stats"):
        fine_tune(data, tmp_path, FUSED, "--fp16-adam-stats")
