"""FreeLB against a plain-PyTorch transcription of Algorithm 1, its costs and its random streams."""

import pytest
import torch

import tiny
from adv_plugins.ball import Ball
from adv_plugins.batch import source_tokens
from adv_plugins.dropout import SameMasks

STEP_SIZE, EPS, INIT_EPS = 0.3, 0.4, 0.35


def criterion(kind, **options):
    options = {"adv_step_size": STEP_SIZE, "adv_eps": EPS, "adv_init_eps": INIT_EPS, **options}
    return tiny.criterion("freelb_criterion", kind, **options)


def transcription(kind, model, sample, *, steps, norm, uniform, masks=None, fresh_masks=False):
    """Algorithm 1, sentence by sentence; K separate backward calls accumulate theta's gradient."""
    table = model.encoder.sentence_encoder.embed_tokens
    tokens = source_tokens(sample)
    width = table.embedding_dim

    def size(pieces):
        flat = torch.cat([piece.flatten() for piece in pieces])
        return flat.norm() if norm == "l2" else flat.abs().max()

    deltas = []
    for b in range(tiny.BATCH):
        real = [ids[b].ne(1)[:, None].double() for ids in tokens]
        n = sum(each.sum() for each in real)
        scale = INIT_EPS / (n * width).sqrt() if norm == "l2" else INIT_EPS
        deltas.append([u[b] * scale * each for u, each in zip(uniform, real)])
    losses = []
    for t in range(steps):
        stacked = [torch.stack([d[c] for d in deltas]).requires_grad_() for c in range(len(tokens))]
        calls = iter(stacked)
        if masks:
            masks.begin([t if fresh_masks else 0])
        with tiny.hooked(table, lambda module, args, output, calls=calls: output + next(calls)):
            loss = tiny.logits_and_loss(kind, model, sample)[1]
        (loss / steps).backward()
        losses.append(loss.detach())
        for b in range(tiny.BATCH):
            g = [s.grad[b] * ids[b].ne(1)[:, None] for s, ids in zip(stacked, tokens)]
            moved = [d + STEP_SIZE * each / size(g) for d, each in zip(deltas[b], g)]
            if norm == "l2":
                if size(moved) > EPS:
                    moved = [each * EPS / size(moved) for each in moved]
            else:
                moved = [each.clamp(-EPS, EPS) for each in moved]
            deltas[b] = moved
    return losses


@pytest.mark.parametrize("kind", tiny.ALL_KINDS)
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("dropout", ["off", "same masks", "new masks"])
def test_gradients_equal_algorithm_1(float64, monkeypatch, kind, norm, dropout):
    rates = dict(dropout=tiny.DROPOUT, activation_dropout=tiny.DROPOUT, pooler_dropout=tiny.DROPOUT)
    model = tiny.model(kind, **(rates if dropout != "off" else {}))
    sample = tiny.sample(kind)
    masks = tiny.Masks() if dropout != "off" else None
    if masks:
        monkeypatch.setattr(torch.nn.functional, "dropout", masks)
    generator = torch.Generator().manual_seed(5)
    uniform = [
        torch.rand(*ids.shape, 8, generator=generator, dtype=torch.float64) * 2 - 1
        for ids in source_tokens(sample)
    ]
    fresh = dropout == "new masks"
    losses = transcription(
        kind, model, sample, steps=3, norm=norm, uniform=uniform, masks=masks, fresh_masks=fresh
    )
    reference = tiny.gradients(model)
    model.zero_grad()

    draws = iter(uniform)
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, low, high: self.copy_(next(draws)))
    freelb = criterion(kind, adv_norm=norm, no_reuse_dropout_mask=fresh)
    passes: list[int] = []
    run_base = freelb.run_base

    def numbered_run_base(model, sample, **options):
        if masks:
            masks.begin([len(passes) if fresh else 0])
        passes.append(1)
        return run_base(model, sample, **options)

    monkeypatch.setattr(freelb, "run_base", numbered_run_base)
    value, _, log = freelb(model, sample)
    value.backward()
    torch.testing.assert_close(value, sum(losses) / 3, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(log["loss"], losses[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(log["adv_loss"], losses[2], rtol=1e-10, atol=1e-10)
    tiny.assert_same_gradients(tiny.gradients(model), reference)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_exactly_k_forwards_and_k_backwards(steps):
    """Counted at a layer, and in floating-point operations against plain fine-tuning."""
    kind = "classification"
    model, sample = tiny.model(kind, double=False), tiny.sample(kind)
    freelb = criterion(kind, adv_steps=steps)
    layer = model.encoder.sentence_encoder.layers[0]
    forwards, backwards = [], []

    def count(module, args, output):
        forwards.append(1)
        output.register_hook(lambda gradient: backwards.append(1))

    with tiny.hooked(layer, count):
        freelb(model, sample)[0].backward()
    assert (len(forwards), len(backwards)) == (steps, steps)

    plain = tiny.flops(freelb.base, model, sample)
    assert tiny.flops(freelb, model, sample) == pytest.approx(steps * plain, rel=0.01)


@pytest.mark.parametrize("kind", tiny.ALL_KINDS)
def test_all_passes_have_the_same_dropout_masks_and_candidates_different_ones(kind):
    """Without perturbation the K passes are the same; attention dropout included."""
    rates = dict(dropout=0.3, attention_dropout=0.3, pooler_dropout=0.3)
    model, sample = tiny.model(kind, double=False, **rates), tiny.sample(kind)
    features = []
    freelb = criterion(kind, adv_eps=0.0, adv_init_eps=0.0)
    if kind in tiny.TEXT_KINDS:  # all their dropout lies below the head's last map
        layer = model.classification_heads["sentence_classification_head"].out_proj
    else:
        layer = model.encoder.sentence_encoder.layers[1]
    with tiny.hooked(layer, lambda m, a, output: features.append(output.detach())):
        freelb(model, sample)
    calls = len(source_tokens(sample))
    assert len(features) == 3 * calls
    for call in range(calls):
        for step in (1, 2):
            torch.testing.assert_close(features[call], features[step * calls + call], rtol=0, atol=0)
    if calls > 1:  # the same text twice must not have the same masks
        sample["net_input4"] = sample["net_input1"]
        features.clear()
        with tiny.hooked(layer, lambda m, a, output: features.append(output.detach())):
            freelb(model, sample)
        assert not torch.equal(features[0], features[3])
    features.clear()
    with tiny.hooked(layer, lambda m, a, output: features.append(output.detach())):
        criterion(kind, adv_eps=0.0, adv_init_eps=0.0, no_reuse_dropout_mask=True)(model, sample)
    assert not torch.equal(features[0], features[calls])


def test_the_random_stream_goes_on_as_after_one_pass():
    kind = "classification"
    model, sample = (
        tiny.model(kind, double=False, dropout=0.3, attention_dropout=0.3),
        tiny.sample(kind),
    )
    after = []
    freelb = criterion(kind, adv_init_eps=0.0)
    for each in (freelb.base, freelb):
        torch.manual_seed(3)
        each(model, sample)
        after.append(torch.rand(3))
    assert torch.equal(*after)


def test_the_random_stream_is_restored_after_an_error():
    masks = SameMasks(torch.device("cpu"))
    torch.manual_seed(3)
    with masks.replayed():
        first = torch.rand(2)
    expected = torch.get_rng_state()
    with pytest.raises(ValueError):
        with masks.replayed():
            raise ValueError  # before it has drawn as much as the first pass
    assert torch.equal(torch.get_rng_state(), expected)
    with masks.replayed():
        assert torch.equal(torch.rand(2), first)
    assert torch.equal(torch.get_rng_state(), expected)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_perturbations_stay_in_the_ball_and_off_the_padding(norm):
    kind = "multiple-choice"
    sample = tiny.sample(kind)
    ball, tokens = Ball(norm, 0.2), source_tokens(sample)
    real = [ids.ne(1).unsqueeze(-1) for ids in tokens]
    deltas = ball.start(real, 8, torch.float32, 0.1)
    gradients = [torch.randn_like(delta) for delta in deltas]
    for _ in range(3):
        deltas = ball.ascend(deltas, gradients, real, 0.1)
    flat = torch.cat([delta.flatten(1) for delta in deltas], dim=1)
    size = flat.norm(dim=1) if norm == "l2" else flat.abs().amax(dim=1)
    torch.testing.assert_close(size, torch.full_like(size, 0.2))
    for delta, ids in zip(deltas, tokens):
        assert delta[ids.eq(1)].abs().sum() == 0


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_a_zero_or_nan_gradient_moves_nothing(bad):
    (ids,) = source_tokens(tiny.sample("classification"))
    deltas = [torch.full((*ids.shape, 8), 0.01)]
    gradients = [torch.full_like(deltas[0], bad)]
    moved = Ball("l2", 1.0).ascend(deltas, gradients, [ids.ne(1).unsqueeze(-1)], 0.1)
    assert torch.equal(moved[0], deltas[0])


def test_plain_fine_tuning_before_the_start_update():
    """The trainer says which update begins; resuming needs no counter of ours."""
    kind = "classification"
    model, sample = tiny.model(kind, double=False), tiny.sample(kind)
    freelb = criterion(kind, adv_start_update=2)

    seen = []
    for update in (0, 1, 2, 3):
        freelb.begin_update(update)
        _, _, log = freelb(model, sample)
        seen.append("adv_loss" in log)
    assert seen == [False, False, True, True]


@pytest.mark.parametrize(
    "options,message",
    [
        (dict(adv_steps=0), "--adv-steps must be at least 1"),
        (dict(adv_eps=-1.0), "--adv-eps must be at least 0"),
        (dict(adv_init_eps=-1.0), "--adv-init-eps must be at least 0"),
        (dict(adv_step_size=float("nan")), "--adv-step-size must be at least 0"),
        (dict(adv_start_update=-1), "--adv-start-update must be at least 0"),
    ],
)
def test_bad_options_name_the_knob(options, message):
    with pytest.raises(ValueError, match=message):
        criterion("classification", **options)


def test_the_defaults_and_the_meters():
    kind = "classification"
    model, sample = tiny.model(kind), tiny.sample(kind)
    freelb = tiny.criterion("freelb_criterion", kind, adv_eps=0.4)
    assert freelb.init_eps == 0.4
    gradients = []

    def watch(module, args, output):
        output.register_hook(lambda gradient: gradients.append(gradient))

    with tiny.hooked(model.encoder.sentence_encoder.embed_tokens, watch):
        _, _, log = freelb(model, sample)
    # The hook sees the first pass's gradient of a third of its loss.
    expected = 3 * gradients[0].flatten(1).norm(dim=1).sum()
    torch.testing.assert_close(log["embedding_gradient_norm"], expected)


def test_deltas_are_kept_in_float32():
    real = torch.ones(2, 5, 1, dtype=torch.bool)
    (delta,) = Ball("l2", 1.0).start([real], 8, torch.float16, 0.1)
    assert delta.dtype == torch.float32
