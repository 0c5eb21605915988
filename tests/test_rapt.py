"""RAPT against a plain-PyTorch transcription, its cost, its noise and its random layer."""

from collections import Counter

import pytest
import torch

import tiny
from adv_plugins.batch import source_tokens
from adv_plugins.divergence import bi_kl, kl
from adv_plugins.fork import hidden_states, resumed

ETA, ALPHA = 0.6, 0.8


def criterion(kind, **options):
    options = {"noise_eta": ETA, "consistency_weight": ALPHA, "noise_max_layer": 2, **options}
    return tiny.criterion("rapt_criterion", kind, **options)


def normal(call, shape):
    """z of one model call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(call), dtype=torch.float64)


def transcription(kind, model, sample, *, layer, over, loss, masks):
    """Two whole passes: a clean one, and one with noise added to h_r, token by token."""
    layers = model.encoder.sentence_encoder.layers
    tokens = source_tokens(sample)
    calls = iter(range(len(tokens)))
    # Dropouts in order: one in the embeddings, three a layer, two in the classification head.
    of_head = {"masked-lm": 0, "token-classification": 1}.get(kind, 2)
    per_call = 1 + 3 * len(layers) + of_head

    def add_noise(hidden):
        call = next(calls)
        real = tokens[call].ne(1)
        z = normal(call, hidden.shape)
        noise = torch.zeros_like(hidden)
        for b in range(hidden.size(1)):
            whole = z[:, b][real[b]].abs().max()
            for t in range(hidden.size(0)):
                if real[b, t]:
                    noise[t, b] = ETA * z[t, b] / (z[t, b].abs().max() if over == "token" else whole)
        return hidden + noise

    if masks:
        masks.begin([0])
    clean, task_loss = tiny.logits_and_loss(kind, model, sample)
    if masks:
        masks.begin([1], shared=lambda call: call % per_call < 1 + 3 * layer)
    if layer == 0:
        handle = layers[0].register_forward_pre_hook(lambda m, a: (add_noise(a[0]), *a[1:]))
    else:
        handle = layers[layer - 1].register_forward_hook(lambda m, a, output: add_noise(output))
    noisy, _ = tiny.logits_and_loss(kind, model, sample)
    handle.remove()
    total = task_loss + ALPHA * tiny.divergence(loss, kind, noisy, clean)
    total.backward()
    return total


CASES = [(kind, layer, "token", "bi-kl") for kind in tiny.KINDS for layer in (0, 1, 2)]
CASES += [("multiple-choice", 1, "sentence", "js"), ("masked-lm", 1, "sentence", "kl")]


@pytest.mark.parametrize("kind,layer,over,loss", CASES)
@pytest.mark.parametrize("dropout", [False, True])
def test_gradients_equal_the_papers_equations(float64, monkeypatch, kind, layer, over, loss, dropout):
    rates = dict(dropout=tiny.DROPOUT, activation_dropout=tiny.DROPOUT, pooler_dropout=tiny.DROPOUT)
    model = tiny.model(kind, **(rates if dropout else {}))
    sample = tiny.sample(kind)
    masks = tiny.Masks() if dropout else None
    if masks:
        monkeypatch.setattr(torch.nn.functional, "dropout", masks)
    expected = transcription(kind, model, sample, layer=layer, over=over, loss=loss, masks=masks)
    reference = tiny.gradients(model)
    model.zero_grad()

    rapt = criterion(kind, noise_norm_over=over, consistency_loss=loss)
    calls = iter(range(10))
    monkeypatch.setattr(torch, "randn_like", lambda hidden: normal(next(calls), hidden.shape))
    monkeypatch.setattr(rapt, "draw_layer", lambda: layer)
    if masks:
        masks.begin([0, 1])
    value, _, log = rapt(model, sample)
    value.backward()
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    assert log["consistency_loss"] > 1e-4
    tiny.assert_same_gradients(tiny.gradients(model), reference)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_layers_below_the_noise_are_computed_once(monkeypatch, layer):
    """FLOPs of the encoder's layers: 2 - r / L times plain fine-tuning's."""
    from torch.utils.flop_counter import FlopCounterMode

    kind = "classification"
    model, sample = tiny.model(kind, double=False), tiny.sample(kind)
    rapt = criterion(kind)
    monkeypatch.setattr(rapt, "draw_layer", lambda: layer)

    def flops(each):
        with FlopCounterMode(display=False) as counter:
            each(model, sample)[0].backward()
        counts = counter.get_flop_counts()
        return sum(sum(c.values()) for name, c in counts.items() if name.endswith("sentence_encoder"))

    assert flops(rapt) == pytest.approx((2 - layer / 2) * flops(rapt.base), rel=0.01)


@pytest.mark.parametrize("over,dimensions", [("token", (2,)), ("sentence", (0, 2))])
def test_noise_has_its_norm_and_avoids_the_padding(over, dimensions):
    ids = source_tokens(tiny.sample("classification"))[0]
    hidden = torch.zeros(ids.size(1), ids.size(0), 8)
    noise = criterion("classification", noise_norm_over=over).noise(hidden, ids.ne(1)[:, :, None])
    sizes = noise.abs().amax(dim=dimensions)
    real = ids.ne(1).t() if over == "token" else torch.ones(tiny.BATCH, dtype=torch.bool)
    torch.testing.assert_close(sizes[real], torch.full_like(sizes[real], ETA))
    assert noise[ids.eq(1).t()].abs().sum() == 0


def draws(seed, batches, **options):
    """The layers drawn in one update with seed ``seed``."""
    rapt = criterion("classification", noise_max_layer=3, **options)
    torch.manual_seed(seed)
    layers = []
    for _ in range(batches):
        torch.rand(torch.randint(9, ()))  # workers draw different amounts
        layers.append(rapt.draw_layer())
    return layers


def test_workers_and_resumed_runs_draw_the_same_layers():
    updates = [draws(seed, 3) for seed in range(100)]
    assert updates == [draws(seed, 3) for seed in range(100)]
    # An interrupted run goes on as if it had never stopped: nothing is remembered over updates.
    rapt = criterion("classification", noise_max_layer=3)
    for seed, expected in enumerate(updates):
        torch.manual_seed(seed)
        assert [rapt.draw_layer() for _ in expected] == expected


def test_the_batches_of_an_update_draw_different_layers():
    assert any(len(set(draws(seed, 3))) > 1 for seed in range(5))


def test_its_weight_is_that_of_the_authors_framework():
    """KL(P||Q) + KL(Q||P) with each target detached has about the gradient of bi-kl, not twice."""

    def gradient(divergence):
        torch.manual_seed(2)
        p = torch.randn(50, 3, dtype=torch.float64, requires_grad=True)
        q = (p.detach() + 0.3 * torch.randn(50, 3, dtype=torch.float64)).requires_grad_()
        divergence(p, q).backward()
        return torch.cat([p.grad, q.grad]).flatten()

    def framework(p, q):
        return kl(p.detach(), q) + kl(q.detach(), p)

    theirs, ours = gradient(framework), gradient(bi_kl)
    assert 0.9 < theirs.dot(ours) / ours.dot(ours) < 1.1
    assert torch.cosine_similarity(theirs, ours, dim=0) > 0.97


def test_the_mean_layer_is_a_meter():
    model, sample = tiny.model("classification"), tiny.sample("classification")
    _, _, log = criterion("classification", noise_max_layer=1)(model, sample)
    assert log["noise_layer"] == tiny.BATCH  # a sum over sentences


def test_layerdrop_is_refused():
    model, sample = tiny.model("classification", encoder_layerdrop=0.5), tiny.sample("classification")
    with pytest.raises(ValueError, match="--encoder-layerdrop 0"):
        criterion("classification")(model, sample)


def test_noise_for_half_precision_is_drawn_in_float32():
    hidden = torch.zeros(12, 3, 8, dtype=torch.float16)
    real = torch.ones(3, 12, 1, dtype=torch.bool)
    noise = criterion("classification", noise_eta=1e-3).noise(hidden, real)
    assert noise.dtype == torch.float16
    torch.testing.assert_close(
        noise.float().abs().amax(-1), torch.full((12, 3), 1e-3), rtol=1e-3, atol=0
    )


def test_layers_are_drawn_evenly_and_leave_the_runs_random_stream_alone():
    counts = Counter(layer for seed in range(300) for layer in draws(seed, 2))
    assert set(counts) == {1, 2, 3} and min(counts.values()) > 150
    rapt = criterion("classification", noise_max_layer=3)
    before = torch.get_rng_state()
    rapt.draw_layer()
    assert torch.equal(torch.get_rng_state(), before)
    assert criterion("classification", noise_max_layer=0).draw_layer() == 0


@pytest.mark.parametrize(
    "options,message",
    [
        (dict(noise_eta=-1.0), "--noise-eta must be at least 0"),
        (dict(noise_max_layer=-1), "--noise-max-layer must be at least 0"),
        (dict(consistency_weight=-1.0), "--consistency-weight must be at least 0"),
        (dict(consistency_loss="jensen"), "consistency-loss 'jensen' is unknown"),
    ],
)
def test_bad_options_name_the_knob(options, message):
    with pytest.raises(ValueError, match=message):
        criterion("classification", **options)


def test_more_layers_than_the_model_has():
    model, sample = tiny.model("classification"), tiny.sample("classification")
    with pytest.raises(ValueError, match="--noise-max-layer 3 is more than the 2 layers"):
        criterion("classification", noise_max_layer=3)(model, sample)


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_sequential_passes_with_dropout(float64, monkeypatch, kind, layer):
    """The clean pass that runs twice has the same masks, and the layers below the noise one set."""
    model, sample = tiny.model(kind, dropout=tiny.DROPOUT), tiny.sample(kind)
    rapt = criterion(kind, sequential_passes=True)
    monkeypatch.setattr(rapt, "draw_layer", lambda: layer)
    torch.manual_seed(5)
    value, _, log = rapt(model, sample)
    value.backward()
    ours = tiny.gradients(model)
    assert log["consistency_loss"] > 1e-6

    # Two passes at once in one graph, which draw in the same order: clean, noise, noisy.
    model.zero_grad()
    torch.manual_seed(5)
    with hidden_states(model, layer=layer) as states:
        clean = rapt.run_base(model, sample)
    tokens = source_tokens(sample)
    noisy = [h + rapt.noise(h, ids.ne(1).unsqueeze(-1)) for h, ids in zip(states, tokens)]
    with resumed(model, layer=layer, states=noisy):
        again = rapt.run_base(model, sample)
    expected = clean.loss + ALPHA * rapt.divergence(again.logits, clean.logits)
    expected.backward()
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    tiny.assert_same_gradients(ours, tiny.gradients(model))


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_pass_resumed_from_its_own_states_is_the_pass(layer):
    model, sample = tiny.model("classification"), tiny.sample("classification")
    with hidden_states(model, layer=layer) as states:
        whole, _ = tiny.logits_and_loss("classification", model, sample)
    computed = []
    for each in model.encoder.sentence_encoder.layers:
        each.fc1.register_forward_pre_hook(lambda *_: computed.append(1))
    with resumed(model, layer=layer, states=states):
        resumed_logits, _ = tiny.logits_and_loss("classification", model, sample)
    assert torch.equal(whole, resumed_logits) and len(computed) == 2 - layer
