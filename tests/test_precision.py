"""bfloat16 and float16: the gradients of float32, and perturbations that are not rounded away."""

import argparse
import functools
import logging
import warnings

import pytest
import torch
from fairseq import options
from fairseq.optim import AMPOptimizer

import test_batches
import tiny
from adv_plugins.gradients import computes_in_float16
from adv_plugins.perturbation import embedding_norm, perturbed, word_embedding
from adv_plugins.precision import autocast_dtype
from fairseq_compat.errors import UserError
from methods import METHODS, with_kinds
from training import ADAM, KIND_FLAGS, TINY, parse, train, write_data

FORMATS = {"bf16": torch.bfloat16, "amp-bf16": torch.bfloat16, "amp-fp16": torch.float16}
# How far a gradient may be from float32's, as a share of its norm: some roundings of each format, whose
# epsilons are .0078 and .00098, in the forward and the backward of every layer.
TOLERANCE = {"bf16": 0.15, "amp-bf16": 0.1, "amp-fp16": 0.02}


def gradient(method, kind, monkeypatch, precision):
    """All parameters' gradients, one after the other, in float32."""
    criterion, model = test_batches.make(method, kind, monkeypatch)
    dtype = FORMATS.get(precision, torch.float32)
    model = model.to(dtype if precision == "bf16" else torch.float32)
    sample = tiny.sample(kind)
    if kind == "regression":
        sample["target"] = sample["target"].float()
    with torch.autocast("cpu", dtype=dtype, enabled="amp" in precision):
        loss = criterion(model, sample)[0]
    loss.backward()
    return torch.cat([value.float().flatten() for value in tiny.gradients(model).values()])


@pytest.mark.parametrize("precision", FORMATS)
@pytest.mark.parametrize("method,kind", with_kinds(tiny.KINDS, ["classification"]))
def test_the_gradients_are_those_of_float32(monkeypatch, method, kind, precision):
    exact = gradient(method, kind, monkeypatch, "fp32")
    rounded = gradient(method, kind, monkeypatch, precision)
    assert (rounded - exact).norm() < TOLERANCE[precision] * exact.norm()
    assert not torch.equal(rounded, exact)


def normalised(model, sample, deltas=None, norm=None):
    """What the layer norm of the embeddings gets and puts out in one pass."""
    found = []
    after = embedding_norm(model)
    assert after is not None
    handle = after.register_forward_hook(
        lambda module, inputs, output: found.extend([inputs[0].double(), output.double()])
    )
    with torch.no_grad():
        if deltas is None:
            model(
                **sample["net_input"],
                features_only=True,
                classification_head_name="sentence_classification_head",
            )
        else:
            with perturbed(word_embedding(model), deltas, norm):
                model(
                    **sample["net_input"],
                    features_only=True,
                    classification_head_name="sentence_classification_head",
                )
    handle.remove()
    return found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_small_perturbation_is_not_rounded_away(dtype):
    """Of a perturbation of norm 0.1 over the batch, as R-AT's."""
    model = tiny.model("classification", double=False).to(dtype)
    sample = tiny.sample("classification")
    generator = torch.Generator().manual_seed(1)
    delta = torch.randn(*sample["net_input"]["src_tokens"].shape, 8, generator=generator)
    delta = 0.1 * delta / delta.norm()
    norm = embedding_norm(model)
    clean, _ = normalised(model.float(), sample)  # the sum of the rounded embeddings, not rounded
    model.to(dtype)
    summed, _ = normalised(model, sample, [delta], norm)
    rounded, _ = normalised(model, sample, [delta])
    error = [((each - clean - delta).norm() / delta.norm()).item() for each in (summed, rounded)]
    # Positions are rounded in the format, words as well: neither is part of the perturbation.
    assert error[0] < 1e-5
    assert error[1] > 10 * torch.finfo(dtype).eps


def test_models_in_float32_are_perturbed_bit_for_bit_as_before():
    model = tiny.model("classification", double=False)
    sample = tiny.sample("classification")
    delta = torch.full((*sample["net_input"]["src_tokens"].shape, 8), 0.01)
    with_norm = normalised(model, sample, [delta], embedding_norm(model))
    without = normalised(model, sample, [delta])
    assert all(torch.equal(one, other) for one, other in zip(with_norm, without))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"), "classification")


def test_a_type_without_amp_is_refused(data, tmp_path):
    train_plain = (data, tmp_path, "classification", "sentence_prediction")
    with pytest.raises(UserError, match="--amp-dtype bfloat16 says nothing without --amp"):
        train(*train_plain, "--amp-dtype", "bfloat16")
    with pytest.raises(UserError, match="--amp-dtype int8: give float16 or bfloat16"):
        train(*train_plain, "--amp", "--amp-dtype", "int8")


def test_nobody_is_told_that_autocast_is_off_where_it_is_on(data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(data, tmp_path, "classification", "sentence_prediction", "--amp", "--max-update", "2")
    assert "--amp: autocast in bfloat16 on the cpu" in caplog.text
    assert not [each for each in caught if "CUDA is not available" in str(each.message)]


@pytest.mark.parametrize("flag", ["--bf16", "--memory-efficient-bf16"])
def test_bf16_means_no_tpu(data, flag):
    line = f"{data} --criterion sentence_prediction --arch roberta {TINY}"
    line = f"{line} {KIND_FLAGS['classification']} {ADAM}"
    common = parse([*line.split(), flag]).common
    assert common.bf16 and not common.tpu
    parser = options.get_training_parser()
    assert options.parse_args_and_arch(parser, [*line.split(), flag, "--tpu"]).tpu


@pytest.fixture(scope="module")
def in_float32(data, tmp_path_factory):
    """Of a criterion: its flags, and the weights at the start and the end of a training in float32."""

    @functools.cache
    def trained(criterion):
        flags = [flag for method in METHODS if method.criterion == criterion for flag in method.flags]
        folder = tmp_path_factory.mktemp(criterion)
        begin = [*flags, "--max-update", "1", "--lr", "0"]
        start = train(data, folder / "start", "classification", criterion, *begin)
        flags += ["--max-update", "10"]
        end = train(data, folder / "end", "classification", criterion, *flags)
        return flags, start["model"], end["model"]

    return trained


@pytest.mark.parametrize(
    "precision",
    ["--bf16", "--memory-efficient-bf16", "--amp", "--amp --amp-dtype float16"],
)
@pytest.mark.parametrize("criterion", ["sentence_prediction", *(m.criterion for m in METHODS)])
def test_trainings_learn_in_it_what_they_learn_in_float32(
    data, tmp_path, criterion, precision, in_float32
):
    flags, start, exact = in_float32(criterion)
    rounded = train(data, tmp_path, "classification", criterion, *flags, *precision.split())
    differences = []
    for name, value in exact.items():
        moved = value.float() - start[name].float()
        differences.append(((rounded["model"][name].float() - value.float()).norm(), moved.norm()))
    wrong, way = (torch.stack(each).norm() for each in zip(*differences))
    assert 0 < wrong < 0.6 * way


def optimizer(*flags):
    line = f"none --criterion sentence_prediction --arch roberta {TINY} {ADAM}"
    cfg = parse([*line.split(), "--task", "sentence_prediction", *flags])
    return AMPOptimizer.build_optimizer(cfg, [torch.nn.Parameter(torch.ones(2))])


def test_losses_are_scaled_in_float16_alone():
    assert optimizer("--amp", "--amp-dtype", "float16").scaler.is_enabled()
    for flags in (("--amp",), ("--amp", "--amp-dtype", "bfloat16")):
        assert not optimizer(*flags).scaler.is_enabled()
        assert optimizer(*flags).scaler.get_scale() == 1


def test_only_float16_can_underflow():
    weight = torch.nn.Parameter(torch.ones(2))
    assert not computes_in_float16([weight])
    assert computes_in_float16([torch.nn.Parameter(torch.ones(2).half())])
    assert not computes_in_float16([torch.nn.Parameter(torch.ones(2).bfloat16())])
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype=dtype):
            assert computes_in_float16([weight]) == (dtype == torch.float16)


def test_the_type_of_autocast():
    common = argparse.Namespace(amp_dtype="default")
    assert autocast_dtype(common, "cuda") == torch.float16
    assert autocast_dtype(common, "cpu") == torch.bfloat16
    assert autocast_dtype(argparse.Namespace(), "cpu") == torch.bfloat16
    assert autocast_dtype(argparse.Namespace(amp_dtype="float16"), "cpu") == torch.float16
    with pytest.raises(UserError, match="--amp-dtype int8: give float16 or bfloat16"):
        autocast_dtype(argparse.Namespace(amp_dtype="int8"), "cpu")
