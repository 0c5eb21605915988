"""The pieces that every method is made of: divergences, kept gradients, hooks, batches."""

import pytest
import torch
from fairseq.modules.checkpoint_activations import checkpoint_wrapper

import adv_plugins  # noqa: F401
import tiny
from adv_plugins import divergence
from adv_plugins.batch import repeat_sample
from adv_plugins.gradients import KeptGradients, LossScale
from adv_plugins.perturbation import (
    embedding_matrix_direction,
    perturbed,
    recorded,
    sentence_direction,
    word_embedding,
)

SYMMETRIC = ("bi-kl", "js", "mse", "mae")


@pytest.mark.parametrize("name", divergence.DIVERGENCES)
def test_divergence_is_a_sum_over_rows_and_differentiable(name):
    torch.manual_seed(1)
    function = divergence.get_divergence(name)
    p, q = (torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    rows = sum(function(a[None], b[None]) for a, b in zip(p, q))
    torch.testing.assert_close(function(p, q), rows)
    assert torch.autograd.gradcheck(function, (p, q))
    if name != "ce":
        assert function(p, p).abs() < 1e-12
        assert function(p, q) > 1e-3
    if name in SYMMETRIC:
        torch.testing.assert_close(function(p, q), function(q, p))


def test_divergence_of_half_precision_is_computed_in_float32():
    logits = torch.tensor([[9.0, -9.0]], dtype=torch.float16)
    value = divergence.bi_kl(logits, -logits)
    assert value.dtype == torch.float32 and torch.isfinite(value)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_kept_gradients_equal_several_backward_calls(checkpointing):
    """Three inner passes and a last one give what four ``.backward()`` calls give, bit for bit."""

    def build():
        model = tiny.model("classification")
        if checkpointing:
            for layer in model.encoder.sentence_encoder.layers:
                checkpoint_wrapper(layer)
        return model

    samples = [tiny.sample("classification", seed=s) for s in range(4)]
    model = build()
    for sample in samples:
        tiny.logits_and_loss("classification", model, sample)[1].backward()
    expected = tiny.gradients(model)

    model = build()
    sentinel = torch.ones_like(model.encoder.lm_head.bias)
    model.encoder.lm_head.bias.grad = sentinel.clone()
    kept = KeptGradients(model, LossScale())
    for sample in samples[:3]:
        with recorded(word_embedding(model)) as words:
            loss = tiny.logits_and_loss("classification", model, sample)[1]
        (gradient,) = kept.backward(loss, words.outputs)
        assert gradient.shape == words.outputs[0].shape and gradient.abs().sum() > 0
        assert model.encoder.sentence_encoder.embed_tokens.weight.grad is None
    last = tiny.logits_and_loss("classification", model, samples[3])[1]
    attached = kept.attach(last)
    assert torch.equal(attached, last)
    attached.backward()
    assert torch.equal(model.encoder.lm_head.bias.grad, sentinel)
    model.encoder.lm_head.bias.grad = None
    for name, gradient in tiny.gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-12, atol=1e-14, msg=name)


def test_the_loss_scale_multiplies_inner_passes_and_dummy_batches_are_forgotten():
    scale = LossScale()
    weight = torch.nn.Parameter(torch.tensor(3.0))
    model = torch.nn.Module()
    model.weight = weight
    inner = []

    def step(outer_scale):
        kept = KeptGradients(model, scale)
        delta = torch.zeros((), requires_grad=True)
        (gradient,) = kept.backward((weight + delta) * 2, [delta])
        assert kept._values[0] is not None
        inner.append(kept._values[0].item())
        weight.grad = None
        (kept.attach(weight * 5) * outer_scale).backward()
        return gradient.item(), weight.grad.item()

    assert step(64.0) == (2.0, 7.0 * 64)  # the first scale is not known yet: 1
    assert step(64.0) == (2.0, 7.0 * 64)
    assert step(0.0) == (2.0, 0.0)  # a worker without data
    assert step(32.0) == (2.0, 7.0 * 32)
    assert inner == [2.0, 128.0, 128.0, 128.0]


def test_frozen_parameters_and_unused_inputs_take_no_part():
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(torch.tensor(3.0))
    model.frozen = torch.nn.Parameter(torch.tensor(2.0), requires_grad=False)
    unused = torch.ones(2, requires_grad=True)
    kept = KeptGradients(model, LossScale())
    used = torch.ones((), requires_grad=True)
    gradients = kept.backward(model.weight * used * model.frozen, [used, unused])
    assert gradients[0].item() == 6.0 and gradients[1].tolist() == [0.0, 0.0]
    assert used.grad is None and unused.grad is None
    kept.attach(model.weight * 5).backward()
    assert model.weight.grad.item() == 7.0 and model.frozen.grad is None
    # What was delivered is not delivered again.
    model.weight.grad = None
    kept.attach(model.weight * 5).backward()
    assert model.weight.grad.item() == 5.0


def test_a_float16_model_starts_with_fairseqs_first_loss_scale():
    model = torch.nn.Linear(1, 1, bias=False).half()
    kept = KeptGradients(model, LossScale())
    x = torch.full((1, 1), 1e-7, dtype=torch.float16)  # times 128 it does not vanish
    x.requires_grad_()
    (gradient,) = kept.backward(model(x).float().sum(), [x])
    assert gradient.dtype == torch.float32
    assert kept._values[0] is not None and kept._values[0].item() > 0
    assert kept._scale is not None and kept._scale.item() == LossScale.FIRST_HALF_PRECISION_SCALE


@pytest.mark.parametrize("direction", [sentence_direction, embedding_matrix_direction])
def test_directions_ignore_the_padding(direction):
    """Whatever gradient lies there."""
    ids = tiny.sample("classification")["net_input"]["src_tokens"]
    gradient = torch.randn(*ids.shape, 8)
    dirty = torch.where(ids.eq(1)[:, :, None], torch.full_like(gradient, 9.0), gradient)
    clean = torch.where(ids.eq(1)[:, :, None], torch.zeros_like(gradient), gradient)
    ours, expected = direction([dirty], [ids], 1), direction([clean], [ids], 1)
    assert torch.equal(ours.deltas[0], expected.deltas[0])
    assert torch.equal(ours.norm, expected.norm)
    assert ours.deltas[0][ids.eq(1)].abs().sum() == 0


@pytest.mark.parametrize("direction", [sentence_direction, embedding_matrix_direction])
def test_directions_of_half_precision_are_computed_in_float32(direction):
    ids = torch.tensor([[4, 5]])
    gradient = torch.full((1, 2, 8), 300.0, dtype=torch.float16)  # its square overflows
    found = direction([gradient], [ids], 1)
    assert found.deltas[0].dtype == torch.float32
    torch.testing.assert_close(found.deltas[0].norm(), torch.tensor(1.0))


def test_perturbations_are_counted():
    embedding = torch.nn.Embedding(5, 3)
    delta = torch.ones(1, 2, 3)
    ids = torch.tensor([[1, 2]])
    with perturbed(embedding, [delta, 2 * delta]):
        torch.testing.assert_close(embedding(ids) - 1, embedding(ids) - 2)
        with pytest.raises(RuntimeError, match="more than 2 calls"):
            embedding(ids)
    with pytest.raises(RuntimeError, match="1 of 1 perturbations were not used"):
        with perturbed(embedding, [delta]):
            pass
    assert not embedding._forward_hooks


def test_frozen_embeddings_can_be_perturbed():
    embedding = torch.nn.Embedding(5, 3).requires_grad_(False)
    with recorded(embedding) as words:
        embedding(torch.tensor([[1, 2]])).sum().backward()
    assert torch.equal(words.outputs[0].grad, torch.ones(1, 2, 3))


def test_repeated_batch():
    sample = {"target": torch.tensor([[1], [2]]), "ntokens": 7, "net_input": {"n": torch.arange(2)}}
    twice = repeat_sample(sample, 2)
    assert twice["target"].tolist() == [[1], [2], [1], [2]]
    assert twice["ntokens"] == 14 and twice["net_input"]["n"].tolist() == [0, 1, 0, 1]


def test_kept_gradients_that_share_memory_are_not_added_twice():
    """autograd gives both terms of a sum one tensor, and a bias summed over rows a view."""
    torch.manual_seed(1)
    model = torch.nn.ParameterDict(
        {name: torch.nn.Parameter(torch.randn(3)) for name in ("a", "b", "c")}
    )

    def loss(power):
        total = model["a"] + model["b"]
        return (total * model["c"]).pow(power).sum() + total.sum()

    kept = KeptGradients(model, LossScale())
    for power in (2, 3, 4):
        kept.backward(loss(power), [])
    kept.attach(loss(5)).backward()
    ours = {name: parameter.grad.clone() for name, parameter in model.items()}
    model.zero_grad()
    sum(loss(power) for power in (2, 3, 4, 5)).backward()
    for name, parameter in model.items():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-5, atol=1e-5)


def test_there_is_one_copy_of_the_kept_gradients():
    """Inner passes and the trainer's backward add to it in place, and it ends as ``.grad``."""
    model, sample = tiny.model("classification"), tiny.sample("classification")
    kept = KeptGradients(model, LossScale())
    places = []
    for _ in range(3):
        kept.backward(tiny.logits_and_loss("classification", model, sample)[1], [])
        places.append([v.data_ptr() for v in kept._values if v is not None and v.dim() > 1])
    kept.attach(tiny.logits_and_loss("classification", model, sample)[1]).backward()
    matrices = [p for p in model.parameters() if p.grad is not None and p.dim() > 1]
    places.append([parameter.grad.data_ptr() for parameter in matrices])
    assert places[0] and all(place == places[0] for place in places)
