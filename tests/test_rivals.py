"""The rivals against plain-PyTorch transcriptions of their papers' equations, in float64; their
identities and their costs."""

from typing import Any

import pytest
import torch
from fairseq.models.roberta import RobertaModel

import adv_plugins.step
import tiny
from adv_plugins.batch import source_tokens
from adv_plugins.fork import states_up_to

EXACT = dict(rtol=0, atol=0)
RATES = dict(dropout=tiny.DROPOUT, activation_dropout=tiny.DROPOUT, pooler_dropout=tiny.DROPOUT)
STEP_SIZE, EPS, INIT_EPS = 0.3, 0.4, 0.35


def table(model):
    return model.encoder.sentence_encoder.embed_tokens


def perturbed_loss(kind, model, sample, deltas):
    """(logits, loss) with deltas[i] on the i-th call's word embeddings."""
    calls = iter(deltas)
    with tiny.hooked(table(model), lambda module, args, output: output + next(calls)):
        return tiny.logits_and_loss(kind, model, sample)


def real(sample):
    return [ids.ne(1)[..., None].double() for ids in source_tokens(sample)]


def by_sentence(pieces):
    """Tensors (B, T, d) of all calls -> (B,) L2 norms."""
    return torch.stack([(piece**2).flatten(1).sum(1) for piece in pieces]).sum(0).sqrt()


def start(sample, uniform):
    """delta_0 = U(-1, 1) eps_0 / sqrt(n d)."""
    n = sum(each.sum((1, 2)) for each in real(sample))
    scale = INIT_EPS / (n * 8).sqrt()
    return [u * scale[:, None, None] * each for u, each in zip(uniform, real(sample))]


def ascended(deltas, gradients, sample, size):
    """Projection of delta + size g / ||g|| onto the ball."""
    gradients = [g * each for g, each in zip(gradients, real(sample))]
    norm = by_sentence(gradients)[:, None, None]
    moved = [d + size * g / norm for d, g in zip(deltas, gradients)]
    norm = by_sentence(moved)[:, None, None]
    return [torch.where(norm > EPS, each * EPS / norm, each).detach() for each in moved]


# Each transcription calls begin(pass) before a pass and leaves the objective's gradients in the model.


def fgm(kind, model, sample, begin, uniform):
    begin(0)
    shift = torch.zeros_like(table(model).weight, requires_grad=True)

    def look_up(delta):
        return lambda module, args, output: torch.nn.functional.embedding(
            args[0], module.weight + delta, 1
        )

    with tiny.hooked(table(model), look_up(shift)):
        clean = tiny.logits_and_loss(kind, model, sample)[1]
    (g,) = torch.autograd.grad(clean, shift, retain_graph=True)
    begin(1)
    with tiny.hooked(table(model), look_up(0.7 * g / g.norm())):
        adversarial = tiny.logits_and_loss(kind, model, sample)[1]
    total = clean + 0.8 * adversarial
    total.backward()
    return total


def fgm_of_sentences(kind, model, sample, begin, uniform):
    begin(0)
    seen: list[Any] = []
    with tiny.hooked(table(model), lambda module, args, output: seen.append(output)):
        clean = tiny.logits_and_loss(kind, model, sample)[1]
    g = torch.autograd.grad(clean, seen, retain_graph=True)
    norm = by_sentence(g)[:, None, None]
    begin(1)
    adversarial = perturbed_loss(kind, model, sample, [0.7 * each / norm for each in g])[1]
    total = clean + 0.8 * adversarial
    total.backward()
    return total


def pgd(kind, model, sample, begin, uniform):
    deltas = start(sample, uniform)
    for _ in range(2):
        begin(0)
        deltas = [each.requires_grad_() for each in deltas]
        loss = perturbed_loss(kind, model, sample, deltas)[1]
        deltas = ascended(deltas, torch.autograd.grad(loss, deltas), sample, STEP_SIZE)
    begin(0)
    total = perturbed_loss(kind, model, sample, deltas)[1]
    total.backward()
    return total


def yopo(kind, model, sample, begin, uniform):
    deltas = start(sample, uniform)
    encoder = model.encoder.sentence_encoder
    total = 0
    for number in range(3):
        begin(0)
        deltas = [each.requires_grad_() for each in deltas]
        hidden: list[Any] = []

        def keep(module, args, output, hidden=hidden):
            hidden.append(output)

        with tiny.hooked(encoder.layers[0], keep):
            loss = perturbed_loss(kind, model, sample, deltas)[1]
        total = total + loss.detach() / 3
        fixed = torch.autograd.grad(loss, hidden, retain_graph=True)
        (loss / 3).backward()
        if number == 2:
            break
        for _ in range(3):
            begin(0)
            deltas = [each.detach().requires_grad_() for each in deltas]
            inner = 0
            for ids, delta, costate in zip(source_tokens(sample), deltas, fixed):
                # The encoder up to its first layer, by its parts.
                x = encoder.embed_scale * table(model)(ids) + delta + encoder.embed_positions(ids)
                x = encoder.dropout_module(encoder.layernorm_embedding(x))
                padding = ids.eq(1)
                x = (x * ~padding[..., None]).transpose(0, 1)
                inner = inner + (costate * encoder.layers[0](x, padding)).sum()
            gradients = torch.autograd.grad(inner, deltas)
            deltas = ascended(deltas, gradients, sample, STEP_SIZE / 3)
    return total


def rdrop(kind, model, sample, begin, uniform):
    begin(0)
    p, first = tiny.logits_and_loss(kind, model, sample)
    begin(1)
    q, second = tiny.logits_and_loss(kind, model, sample)
    if kind == "regression":
        kl = 2 * ((p - q) ** 2).sum()
    else:
        p, q = p.softmax(-1), q.softmax(-1)
        kl = (p * (p / q).log()).sum() + (q * (q / p).log()).sum()
    total = (first + second) / 2 + 0.9 / 4 * kl
    total.backward()
    return total


def r3f(kind, model, sample, begin, uniform):
    begin(0)
    p, clean = tiny.logits_and_loss(kind, model, sample)
    begin(1)
    noise = [0.2 * u * each for u, each in zip(uniform, real(sample))]
    q = perturbed_loss(kind, model, sample, noise)[0]
    total = clean + 0.9 * tiny.divergence("bi-kl", kind, p, q)
    total.backward()
    return total


def neftune(kind, model, sample, begin, uniform):
    begin(0)
    n = sum(each.sum((1, 2)) for each in real(sample))
    scale = 1.5 / (n * 8).sqrt()[:, None, None]
    noise = [u * scale * each for u, each in zip(uniform, real(sample))]
    total = perturbed_loss(kind, model, sample, noise)[1]
    total.backward()
    return total


def awp(kind, model, sample, begin, uniform):
    """With a copy of the model whose weights are changed: those of its layers, or all but embeddings
    and heads."""
    begin(0)
    clean = tiny.logits_and_loss(kind, model, sample)[1]
    matrices = {
        name: weight
        for name, weight in model.named_parameters()
        if weight.dim() > 1
        and (
            ".layers." in name
            or (kind in tiny.TEXT_KINDS and "embed_tokens" not in name and "heads" not in name)
        )
    }
    g = torch.autograd.grad(clean, list(matrices.values()), retain_graph=True)
    (0.6 * clean).backward()
    before = {name: weight.detach().clone() for name, weight in matrices.items()}
    with torch.no_grad():
        for weight, gradient in zip(matrices.values(), g):
            weight += 0.3 * weight.norm() * gradient / gradient.norm()
    begin(1)
    adversarial = tiny.logits_and_loss(kind, model, sample)[1]
    adversarial.backward()
    with torch.no_grad():
        for name, weight in matrices.items():
            weight.copy_(before[name])
    return 0.6 * clean + adversarial


ASCENT = dict(adv_step_size=STEP_SIZE, adv_eps=EPS, adv_init_eps=INIT_EPS, adv_steps=3)
# Of each: its criterion, transcription, options, and the dropout masks of its passes.
CASES: dict[str, tuple[str, Any, dict[str, Any], list[list[int]]]] = {
    "fgm": ("fgm_criterion", fgm, dict(adv_eps=0.7, adv_weight=0.8), [[0], [1]]),
    "fgm-sentence": (
        "fgm_criterion",
        fgm_of_sentences,
        dict(adv_eps=0.7, adv_weight=0.8, adv_norm_over="sentence"),
        [[0], [1]],
    ),
    "pgd": ("pgd_criterion", pgd, ASCENT, [[0], [0], [0]]),
    "yopo": ("yopo_criterion", yopo, {**ASCENT, "adv_inner_steps": 3}, [[0], [0], [0]]),
    "rdrop": ("rdrop_criterion", rdrop, dict(consistency_weight=0.9), [[0, 1]]),
    "r3f": ("r3f_criterion", r3f, dict(noise_eps=0.2, consistency_weight=0.9), [[0], [1]]),
    "neftune": ("neftune_criterion", neftune, dict(noise_alpha=1.5), [[0]]),
    "awp": ("awp_criterion", awp, dict(awp_gamma=0.3, awp_clean_weight=0.6), [[0], [1]]),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", tiny.ALL_KINDS)
@pytest.mark.parametrize("dropout", [False, True])
def test_gradients_equal_the_papers_equations(float64, monkeypatch, name, kind, dropout):
    if name == "yopo" and kind in tiny.TEXT_KINDS:
        pytest.skip("it needs Transformer layers (tests/test_text_models.py)")
    if name == "yopo" and dropout and kind == "multiple-choice":
        pytest.skip("masks by their number do not know where a candidate begins: see below")
    criterion_name, transcription, options, passes = CASES[name]
    model = tiny.model(kind, **(RATES if dropout else {}))
    sample = tiny.sample(kind)
    masks = tiny.Masks()
    if dropout:
        monkeypatch.setattr(torch.nn.functional, "dropout", masks)
    generator = torch.Generator().manual_seed(5)
    uniform = [
        torch.rand(*ids.shape, 8, generator=generator, dtype=torch.float64) * 2 - 1
        for ids in source_tokens(sample)
    ]
    expected = transcription(kind, model, sample, lambda number: masks.begin([number]), uniform)
    reference = tiny.gradients(model)
    model.zero_grad()

    draws = iter(uniform)
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, low, high: self.copy_(next(draws)))
    criterion = tiny.criterion(criterion_name, kind, **options)
    numbers = iter(passes)
    run_base = criterion.run_base

    def numbered_run_base(*args, **kwargs):
        masks.begin(next(numbers))
        return run_base(*args, **kwargs)

    def numbered_states(*args, **kwargs):
        masks.begin([0])
        return states_up_to(*args, **kwargs)

    monkeypatch.setattr(criterion, "run_base", numbered_run_base)
    monkeypatch.setattr(adv_plugins.step, "states_up_to", numbered_states)
    value, _, log = criterion(model, sample)
    value.backward()
    torch.testing.assert_close(value, expected.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(log["objective"], value.detach())
    tiny.assert_same_gradients(tiny.gradients(model), reference)


def run(criterion_name, kind="classification", seed=3, model=None, **options):
    """Value, logs and gradients of one step with dropout."""
    model = model or tiny.model(kind, attention_dropout=0.3, **RATES)
    criterion = tiny.criterion(criterion_name, kind, **options)
    torch.manual_seed(seed)
    loss, _, log = criterion(model, tiny.sample(kind))
    loss.backward()
    return loss.detach(), log, tiny.gradients(model)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_yopo_with_one_inner_step_is_freelb(float64, kind):
    yopo = run("yopo_criterion", kind, adv_inner_steps=1, **ASCENT)
    torch.testing.assert_close(yopo, run("freelb_criterion", kind, **ASCENT), **EXACT)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_small_passes_have_the_masks_of_the_big_ones(float64, monkeypatch, kind):
    """n steps without a length find the hidden states of the pass; attention dropout included."""
    seen, again = [], []

    def watched(*args, **kwargs):
        states = states_up_to(*args, **kwargs)
        again.append([each.detach() for each in states])
        return states

    monkeypatch.setattr(adv_plugins.step, "states_up_to", watched)
    model = tiny.model(kind, attention_dropout=0.3, **RATES)
    layer = model.encoder.sentence_encoder.layers[0]
    with tiny.hooked(layer, lambda module, args, output: seen.append(output.detach())):
        run("yopo_criterion", kind, model=model, adv_inner_steps=3, adv_eps=0.0, adv_init_eps=0.0)
    calls = len(source_tokens(tiny.sample(kind)))
    assert len(again) == 4
    for each in again:
        torch.testing.assert_close(each, seen[:calls], rtol=1e-9, atol=1e-12)


def test_new_masks_in_every_pass_is_an_option(monkeypatch):
    for name in ("pgd_criterion", "yopo_criterion"):
        results = []
        for fresh in (False, True):
            seen: list[Any] = []
            model = tiny.model("classification", **RATES)
            layer = model.encoder.sentence_encoder.layers[0]
            with tiny.hooked(
                layer, lambda module, args, output, seen=seen: seen.append(output.detach())
            ):
                options = dict(adv_eps=0.0, adv_init_eps=0.0, no_reuse_dropout_mask=fresh)
                run(name, model=model, **options)
            results.append(all(torch.allclose(each, seen[0]) for each in seen))
        assert results == [True, False], name


def test_pgd_with_steps_of_length_0_trains_at_its_start(float64):
    options = dict(adv_eps=0.2, adv_init_eps=0.1, adv_step_size=0.0)
    pgd = run("pgd_criterion", adv_steps=3, **options)
    torch.testing.assert_close(pgd[2], run("freelb_criterion", adv_steps=1, **options)[2], **EXACT)


def test_fgm_is_rat_with_one_pass(float64):
    options = dict(adv_eps=0.7, adv_weight=0.8)
    fgm = run("fgm_criterion", **options)
    rat = run("rat_criterion", adv_passes=1, consistency_weight=0.0, **options)
    torch.testing.assert_close(fgm[2], rat[2], rtol=1e-12, atol=1e-14)


def test_rdrop_is_one_batch_of_two_passes(float64):
    """Without dropout both are the plain pass, at the price of one batch of twice the rows."""
    sample = tiny.sample("classification")
    model = tiny.model("classification")
    criterion = tiny.criterion("rdrop_criterion", "classification")
    calls: list[Any] = []
    with tiny.hooked(model, lambda module, args, output: calls.append(output[0].shape[0])):
        loss, _, log = criterion(model, sample)
    assert calls == [2 * tiny.BATCH]
    torch.testing.assert_close(loss, criterion.base(model, sample)[0])
    assert log["consistency_loss"] == 0


def test_r3f_perturbs_and_fairseqs_does_not(monkeypatch):
    """fairseq's example hands ``token_embeddings`` to an encoder that swallows them."""
    model, sample = tiny.model("classification").eval(), tiny.sample("classification")
    ids = sample["net_input"]["src_tokens"]
    noisy = table(model)(ids) + torch.randn(*ids.shape, 8)
    theirs = model(ids, features_only=True, token_embeddings=noisy)[0]
    torch.testing.assert_close(theirs, model(ids, features_only=True)[0], **EXACT)
    _, log, _ = run("r3f_criterion", model=tiny.model("classification"), noise_eps=0.5)
    assert log["consistency_loss"] > 1e-3


@pytest.mark.parametrize("noise", ["uniform", "normal"])
def test_r3f_noise_has_its_size_and_spares_padding(noise):
    seen = []
    model = tiny.model("classification")
    layernorm = model.encoder.sentence_encoder.layernorm_embedding
    with tiny.hooked(layernorm, lambda module, args, output: seen.append(args[0].detach())):
        run("r3f_criterion", model=model, noise_eps=0.5, noise_type=noise)
    noise_of = seen[1] - seen[0]
    padding = tiny.sample("classification")["net_input"]["src_tokens"].eq(1)
    assert noise_of[padding].abs().max() == 0
    size = noise_of[~padding]
    assert size.abs().mean().item() == pytest.approx(0.25 if noise == "uniform" else 0.4, rel=0.15)
    assert (size.abs().max() <= 0.5 + 1e-9) == (noise == "uniform")


def test_awp_leaves_the_weights_alone_also_when_a_pass_raises():
    model, sample = tiny.model("classification"), tiny.sample("classification")
    criterion = tiny.criterion("awp_criterion", "classification", awp_gamma=0.5)
    before = {name: (weight, weight.clone()) for name, weight in model.named_parameters()}
    calls: list[int] = []

    def fail(module, args):
        calls.append(1)
        if len(calls) == 2:
            raise ValueError("broken")

    handle = model.encoder.sentence_encoder.layers[1].fc2.register_forward_pre_hook(fail)
    with pytest.raises(ValueError, match="broken"):
        criterion(model, sample)
    handle.remove()
    criterion(model, sample)[0].backward()
    for name, weight in model.named_parameters():
        assert weight is before[name][0]
        torch.testing.assert_close(weight, before[name][1], **EXACT)


def test_awp_climbs():
    """Where the weights are shifted to, the loss is higher, and by more the longer the step."""
    losses = []
    for gamma in (0.01, 0.03):
        _, log, _ = run("awp_criterion", model=tiny.model("classification"), awp_gamma=gamma)
        losses.append((log["adv_loss"] - log["loss"]).item())
    assert 0 < losses[0] < losses[1]


# Of a pass, a forward is 1/3, the parameters' gradients about 1/3; exactly, by the counter, below.
@pytest.mark.parametrize(
    "name,options,passes,ascents,first_layers",
    [
        ("fgm_criterion", {}, 2, 0, 0),
        ("rdrop_criterion", {}, 2, 0, 0),
        ("r3f_criterion", {}, 2, 0, 0),
        ("neftune_criterion", {}, 1, 0, 0),
        ("awp_criterion", {}, 2, 0, 0),
        ("pgd_criterion", dict(adv_steps=2), 1, 1, 0),
        ("pgd_criterion", dict(adv_steps=4), 1, 3, 0),
        ("yopo_criterion", dict(adv_steps=3, adv_inner_steps=1), 3, 0, 0),
        ("yopo_criterion", dict(adv_steps=3, adv_inner_steps=3), 3, 0, 4),
    ],
)
def test_operations(name, options, passes, ascents, first_layers):
    """In passes of plain fine-tuning, ascents without the parameters' gradients, and first layers of
    such an ascent."""
    model = tiny.model("classification", double=False)
    sample = tiny.sample("classification")
    criterion = tiny.criterion(name, "classification", **options)
    ours = tiny.flops(criterion, model, sample)
    plain = tiny.flops(criterion.base, model, sample)
    for weight in model.parameters():
        weight.requires_grad_(False)
    delta = torch.zeros(*sample["net_input"]["src_tokens"].shape, 8, requires_grad=True)

    def ascent(model, sample):
        return (perturbed_loss("classification", model, sample, [delta])[1],)

    def first_layer(model, sample):
        with tiny.hooked(table(model), lambda module, args, output: output + delta):
            (states,) = states_up_to(model, [(tuple(source_tokens(sample)), {})], layer=1)
        return (states.sum(),)

    expected = passes * plain + ascents * tiny.flops(ascent, model, sample)
    expected += first_layers * tiny.flops(first_layer, model, sample)
    assert ours == pytest.approx(expected, rel=0.01)
    # Two thirds, and more for attention, which has no parameters: a larger share in a tiny model.
    assert 0.66 < tiny.flops(ascent, model, sample) / plain < 0.78


@pytest.mark.parametrize(
    "name,options,message",
    [
        ("fgm_criterion", dict(adv_eps=-1.0), "--adv-eps must be at least 0"),
        ("pgd_criterion", dict(adv_steps=0), "--adv-steps must be at least 1"),
        ("yopo_criterion", dict(adv_inner_steps=0), "--adv-inner-steps must be at least 1"),
        ("rdrop_criterion", dict(consistency_weight=-1.0), "--consistency-weight must be at least 0"),
        ("r3f_criterion", dict(noise_eps=float("nan")), "--noise-eps must be at least 0"),
        ("neftune_criterion", dict(noise_alpha=-1.0), "--noise-alpha must be at least 0"),
        ("awp_criterion", dict(awp_gamma=-1.0), "--awp-gamma must be at least 0"),
    ],
)
def test_bad_options_name_the_knob(name, options, message):
    with pytest.raises(ValueError, match=message):
        tiny.criterion(name, "classification", **options)


@pytest.mark.parametrize("name", ["yopo_criterion", "awp_criterion"])
def test_a_model_that_drops_layers(name):
    model = tiny.model("classification", RobertaModel, encoder_layerdrop=0.5)
    with pytest.raises(ValueError, match="set --encoder-layerdrop 0"):
        tiny.criterion(name, "classification")(model, tiny.sample("classification"))


def test_plain_fine_tuning_before_the_start_update():
    model, sample = tiny.model("classification"), tiny.sample("classification")
    for name, option in (("pgd_criterion", "adv_start_update"), ("awp_criterion", "awp_start_update")):
        criterion = tiny.criterion(name, "classification", **{option: 2})
        seen = []
        for update in (0, 1, 2):
            criterion.begin_update(update)
            seen.append("adv_loss" in criterion(model, sample)[2])
        assert seen == [False, False, True]
