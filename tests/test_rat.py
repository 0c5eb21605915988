"""R-AT against a plain-PyTorch transcription of its equations, and what must not change."""

import logging
from itertools import combinations

import pytest
import torch
from fairseq.modules.checkpoint_activations import checkpoint_wrapper
from torch.utils._python_dispatch import TorchDispatchMode

import tiny
from adv_plugins.divergence import DIVERGENCES


def criterion(kind, **options):
    return tiny.criterion("rat_criterion", kind, **options)


def transcription(kind, model, sample, *, eps, alpha, passes, loss="bi-kl", over, masks=None):
    """R-AT as the paper writes it: perturb E itself, one pass after the other, one backward."""
    table = model.encoder.sentence_encoder.embed_tokens
    pad = table.padding_idx

    def begin(index):
        if masks:
            masks.begin([index])

    if over == "embedding-matrix":
        # The gradient of E through the look-up alone: the output layer keeps its own clean copy.
        begin(0)
        shift = torch.zeros_like(table.weight, requires_grad=True)

        def look_up(delta):
            return lambda module, args, output: torch.nn.functional.embedding(
                args[0], module.weight + delta, pad
            )

        with tiny.hooked(table, look_up(shift)):
            clean = tiny.logits_and_loss(kind, model, sample)[1]
        (g,) = torch.autograd.grad(clean, shift, retain_graph=True)
        delta = eps * g / g.norm()
        adversary = look_up(delta)
    else:
        begin(0)
        seen = []

        def remember(module, args, output):
            seen.append(output)

        with tiny.hooked(table, remember):
            clean = tiny.logits_and_loss(kind, model, sample)[1]
        g = torch.autograd.grad(clean, seen, retain_graph=True)
        deltas = []
        for b in range(tiny.BATCH):
            norm = sum((piece[b] ** 2).sum() for piece in g).sqrt()
            deltas.append([eps * piece[b] / norm for piece in g])

        def add():
            calls = iter(range(len(seen)))

            def hook(module, args, output):
                call = next(calls)
                return output + torch.stack([deltas[b][call] for b in range(tiny.BATCH)])

            return hook

        adversary = None
    outputs = []
    for k in range(passes):
        begin(k + 1)
        with tiny.hooked(table, adversary or add()):
            outputs.append(tiny.logits_and_loss(kind, model, sample))
    pairs = list(combinations([logits for logits, _ in outputs], 2))
    total = clean + sum(each for _, each in outputs) / passes
    total = total + alpha * sum(tiny.divergence(loss, kind, p, q) for p, q in pairs) / len(pairs)
    total.backward()
    return total


# Regression compares outputs by their squared difference, whatever the loss.
CASES = [
    (kind, over, loss, passes)
    for kind in tiny.ALL_KINDS
    for over in ("embedding-matrix", "sentence")
    for loss in DIVERGENCES
    for passes in (2, 3)
    if kind != "regression" or loss == "bi-kl"
]


@pytest.mark.parametrize("kind,over,loss,passes", CASES)
@pytest.mark.parametrize("dropout", [False, True])
def test_gradients_equal_the_papers_equations(float64, monkeypatch, kind, over, loss, passes, dropout):
    rates = dict(dropout=tiny.DROPOUT, activation_dropout=tiny.DROPOUT, pooler_dropout=tiny.DROPOUT)
    model = tiny.model(kind, **(rates if dropout else {}))
    sample = tiny.sample(kind)
    masks = tiny.Masks() if dropout else None
    if masks:
        monkeypatch.setattr(torch.nn.functional, "dropout", masks)
    expected = transcription(
        kind, model, sample, eps=0.7, alpha=0.8, passes=passes, loss=loss, over=over, masks=masks
    )
    reference = tiny.gradients(model)
    model.zero_grad()

    rat = criterion(
        kind,
        adv_eps=0.7,
        adv_passes=passes,
        consistency_weight=0.8,
        consistency_loss=loss,
        adv_norm_over=over,
    )
    run_base = rat.run_base

    def numbered_run_base(model, sample, **options):
        if masks:
            masks.begin([0] if options.get("write") else list(range(1, passes + 1)))
        return run_base(model, sample, **options)

    monkeypatch.setattr(rat, "run_base", numbered_run_base)
    value, _, logging_output = rat(model, sample)
    value.backward()
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(logging_output["objective"], expected, rtol=1e-10, atol=1e-10)
    tiny.assert_same_gradients(tiny.gradients(model), reference)


@pytest.mark.parametrize("kind", tiny.ALL_KINDS)
@pytest.mark.parametrize("passes", [2, 3])
@pytest.mark.parametrize("dropout", [False, True])
def test_sequential_passes_have_the_same_gradients(float64, monkeypatch, kind, passes, dropout):
    rates = dict(dropout=tiny.DROPOUT, activation_dropout=tiny.DROPOUT, pooler_dropout=tiny.DROPOUT)
    model, sample = tiny.model(kind, **(rates if dropout else {})), tiny.sample(kind)
    masks = tiny.Masks() if dropout else None
    if masks:
        monkeypatch.setattr(torch.nn.functional, "dropout", masks)
    options = dict(eps=0.7, alpha=0.8, passes=passes, loss="bi-kl", over="embedding-matrix")
    expected = transcription(kind, model, sample, masks=masks, **options)
    reference = tiny.gradients(model)
    model.zero_grad()
    rat = criterion(kind, adv_eps=0.7, adv_passes=passes, consistency_weight=0.8, sequential_passes=True)
    run_base = rat.run_base
    # the clean pass; all in turn; all but the first once more
    order = iter([0, *range(1, passes + 1), *range(2, passes + 1)])

    def numbered_run_base(model, sample, **own):
        number = next(order)
        if masks:
            masks.begin([number])
        assert torch.is_grad_enabled() == (number in (0, 1) or number_seen[number])
        number_seen[number] = True
        return run_base(model, sample, **own)

    number_seen = dict.fromkeys(range(passes + 1), False)
    monkeypatch.setattr(rat, "run_base", numbered_run_base)
    value, _, _ = rat(model, sample)
    value.backward()
    assert next(order, None) is None
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    tiny.assert_same_gradients(tiny.gradients(model), reference)


def test_sequential_passes_draw_the_same_masks_again_and_other_ones_for_each_pass(float64):
    """With real dropout: the same objective as passes one by one, which draw in the same order."""
    kind = "classification"
    model, sample = tiny.model(kind, dropout=tiny.DROPOUT), tiny.sample(kind)
    rate = tiny.DROPOUT
    found = []
    for own in (dict(adv_dropout_per_pass=f"{rate},{rate}"), dict(sequential_passes=True)):
        torch.manual_seed(5)
        value, _, log = criterion(kind, **own)(model, sample)
        value.backward()
        found.append((value.detach(), tiny.gradients(model), torch.get_rng_state()))
        assert log["consistency_loss"] > 1e-6
        model.zero_grad()
    (one, gradients, state), (other, again, state_again) = found
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    tiny.assert_same_gradients(again, gradients)
    assert torch.equal(state, state_again), "the run's random stream goes on alike"


def test_passes_one_by_one_equal_one_large_batch(float64):
    kind = "multiple-choice"
    model, sample = tiny.model(kind), tiny.sample(kind)
    criterion(kind)(model, sample)[0].backward()
    together = tiny.gradients(model)
    model.zero_grad()
    criterion(kind, adv_dropout_per_pass="0,0")(model, sample)[0].backward()
    tiny.assert_same_gradients(tiny.gradients(model), together)


def test_one_epsilon_per_pass(float64):
    """With eps (0, e) the first pass is the clean one."""
    kind = "classification"
    model, sample = tiny.model(kind), tiny.sample(kind)
    clean = tiny.logits_and_loss(kind, model, sample)[1]
    rat = criterion(kind, adv_eps_per_pass="0,0.5", consistency_weight=0.0)
    _, _, both = rat(model, sample)
    _, _, only = criterion(kind, adv_eps=0.5, consistency_weight=0.0)(model, sample)
    torch.testing.assert_close(both["adv_loss"], (clean + only["adv_loss"]) / 2)
    assert only["adv_loss"] > clean


def test_dropout_rate_per_pass_is_used_and_restored():
    kind = "classification"
    model, sample = tiny.model(kind, double=False, dropout=0.2), tiny.sample(kind)
    rat = criterion(kind, adv_dropout_per_pass="0.0,0.0", adv_eps=0.0)
    _, _, log = rat(model, sample)
    assert log["consistency_loss"].abs() < 1e-9
    _, _, log = criterion(kind, adv_dropout_per_pass="0.0,0.6", adv_eps=0.0)(model, sample)
    assert log["consistency_loss"] > 1e-4
    assert model.encoder.sentence_encoder.dropout_module.p == 0.2


def test_perturbation_changes_the_logits_but_not_the_padding():
    kind = "classification"
    model, sample = tiny.model(kind), tiny.sample(kind)
    table = model.encoder.sentence_encoder.embed_tokens
    inputs = []
    rat = criterion(kind, adv_eps=1.0)
    with tiny.hooked(table, lambda m, a, output: inputs.append(output.detach())):
        rat(model, sample)
    clean, adversarial = inputs[0], inputs[1][: tiny.BATCH]
    # Our own hook is added later, so what it adds is seen at the next module instead.
    assert torch.equal(clean, adversarial)
    seen = []
    with tiny.hooked(
        model.encoder.sentence_encoder.layernorm_embedding, lambda m, a, o: seen.append(a[0])
    ):
        rat(model, sample)
    delta = (seen[1][: tiny.BATCH] - seen[0]).detach()
    padding = sample["net_input"]["src_tokens"].eq(1)
    assert delta[padding].abs().max() == 0
    assert delta[~padding].abs().sum() > 0.1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
@pytest.mark.parametrize("over", ["embedding-matrix", "sentence"])
def test_a_nan_or_zero_gradient_gives_no_perturbation(value, over):
    from adv_plugins.criterions.rat import DIRECTIONS

    ids = tiny.sample("classification")["net_input"]["src_tokens"]
    gradient = torch.full((*ids.shape, 8), value)
    direction = DIRECTIONS[over]([gradient], [ids], 1)
    assert torch.equal(direction.deltas[0], torch.zeros_like(gradient))


def test_norm_of_the_embedding_matrix_perturbation_is_epsilon():
    from adv_plugins.perturbation import embedding_matrix_direction

    ids = tiny.sample("classification")["net_input"]["src_tokens"]
    gradient = torch.randn(*ids.shape, 8, dtype=torch.float64)
    delta = embedding_matrix_direction([gradient], [ids], 1).deltas[0]
    rows = {int(i): delta[ids == i][0] for i in ids.unique()}
    for token, row in rows.items():  # equal tokens get the same row
        assert torch.equal(delta[ids == token], row.expand_as(delta[ids == token]))
    torch.testing.assert_close(
        torch.stack(list(rows.values())).norm(), torch.ones((), dtype=torch.float64)
    )


@pytest.mark.parametrize(
    "options,message",
    [
        (dict(consistency_loss="jensen"), "consistency-loss 'jensen' is unknown"),
        (dict(adv_eps=-0.1), "--adv-eps must be at least 0"),
        (dict(adv_eps=float("nan")), "--adv-eps must be at least 0"),
        (dict(adv_passes=1), "--adv-passes 2 or more, or --consistency-weight 0"),
        (dict(adv_passes=0, consistency_weight=0.0), "--adv-passes must be at least 1"),
        (dict(adv_eps_per_pass="0.1"), "--adv-eps-per-pass needs 2 numbers"),
        (dict(adv_eps_per_pass="0.1,inf"), "--adv-eps-per-pass needs numbers below inf"),
        (dict(adv_eps_per_pass="0.1,x"), "--adv-eps-per-pass needs comma-separated numbers"),
        (dict(adv_dropout_per_pass="0.1,1.0"), "--adv-dropout-per-pass needs numbers below 1"),
    ],
)
def test_bad_options_name_the_knob(options, message):
    with pytest.raises(ValueError, match=message):
        criterion("classification", **options)


def test_a_warning_when_the_passes_cannot_differ(caplog):
    model, sample = tiny.model("classification"), tiny.sample("classification")
    rat = criterion("classification")
    with caplog.at_level(logging.WARNING):
        rat(model, sample)
        rat(model, sample)
    assert [r.message for r in caplog.records if "no dropout" in r.message] != []
    assert len([r for r in caplog.records if "no dropout" in r.message]) == 1
    # Rates for the passes change nothing where the model has no dropout.
    with caplog.at_level(logging.WARNING):
        criterion("classification", adv_dropout_per_pass="0.1,0.5")(model, sample)
    assert len([r for r in caplog.records if "no dropout" in r.message]) == 2


def test_loss_is_logged_at_the_same_scale_in_training_and_validation():
    """``loss`` is the clean loss in both, so that two curves can be compared."""
    from fairseq import metrics

    kind = "classification"
    model, sample = tiny.model(kind, double=False), tiny.sample(kind)
    rat = criterion(kind)
    _, _, training = rat(model, sample)
    with torch.no_grad():
        _, _, validation = rat.eval()(model.eval(), sample)
    values = []
    for log in (training, validation):
        with metrics.aggregate(new_root=True) as meters:
            rat.__class__.reduce_metrics([log])
        values.append(meters.get_smoothed_values())
    assert values[0]["loss"] == pytest.approx(values[1]["loss"], abs=2e-3)
    assert values[0]["objective"] == pytest.approx(
        values[0]["loss"] + values[0]["adv_loss"] + 0.5 * values[0]["consistency_loss"], abs=5e-3
    )
    assert {"perturbation_norm", "embedding_gradient_norm"} <= set(values[0])
    assert set(values[1]) == {"loss", "nll_loss", "accuracy"}


@pytest.mark.parametrize("kind", tiny.ALL_KINDS)
@pytest.mark.parametrize("passes", [2, 3])
def test_it_costs_one_pass_more_than_its_adversarial_passes(kind, passes):
    # In float64 recurrent layers are products of matrices, which the counter knows, and no kernels.
    model, sample = tiny.model(kind), tiny.sample(kind)
    rat = criterion(kind, adv_passes=passes)
    plain = tiny.flops(rat.base, model, sample)
    assert tiny.flops(rat, model, sample) == pytest.approx((1 + passes) * plain, rel=0.01)


def test_meters_and_weights():
    """The objective's weights, and the two norms, of both kinds."""
    kind = "classification"
    model, sample = tiny.model(kind, dropout=0.2), tiny.sample(kind)
    for over in ("embedding-matrix", "sentence"):
        torch.manual_seed(1)
        rat = criterion(kind, adv_weight=0.3, consistency_weight=0.7, adv_norm_over=over, adv_eps=0.2)
        _, _, log = rat(model, sample)
        expected = log["loss"] + 0.3 * log["adv_loss"] + 0.7 * log["consistency_loss"]
        torch.testing.assert_close(log["objective"], expected)
        assert log["consistency_loss"] > 0
        if over == "sentence":
            torch.testing.assert_close(log["perturbation_norm"].item(), 0.2 * tiny.BATCH)
    model = tiny.model(kind)
    ids = sample["net_input"]["src_tokens"]
    table = model.encoder.sentence_encoder.embed_tokens
    loss = tiny.logits_and_loss(kind, model, sample)[1] / tiny.BATCH
    (g,) = torch.autograd.grad(loss, table.weight)  # no output layer here
    _, _, log = criterion(kind, adv_eps=0.2)(model, sample)
    torch.testing.assert_close(log["embedding_gradient_norm"], g.norm() * tiny.BATCH, rtol=1e-5, atol=0)
    of_sentences = (0.2 * g / g.norm())[ids].flatten(1).norm(dim=1).sum()
    torch.testing.assert_close(log["perturbation_norm"], of_sentences, rtol=1e-5, atol=0)


def test_the_gradient_norm_is_the_mean_losss_for_masked_lm_too():
    """There the loss is divided by the masked tokens, and meters by the sentences."""
    model, sample = tiny.model("masked-lm"), tiny.sample("masked-lm")
    seen = []

    def keep(module, args, output):
        output.retain_grad()
        seen.append(output)

    with tiny.hooked(model.encoder.sentence_encoder.embed_tokens, keep):
        tiny.logits_and_loss("masked-lm", model, sample)[1].backward()
    ids = sample["net_input"]["src_tokens"]
    rows = torch.zeros(ids.max() + 1, 8, dtype=torch.float64)
    rows.index_add_(0, ids[ids.ne(1)], seen[0].grad[ids.ne(1)])
    _, sample_size, log = criterion("masked-lm")(model, sample)
    norm = log["embedding_gradient_norm"] / tiny.BATCH
    torch.testing.assert_close(norm, rows.norm() / sample_size, rtol=1e-5, atol=0)


def test_layerdrop_runs_the_passes_one_by_one():
    """Layers are dropped for a whole batch: passes in one batch would drop the same ones."""
    kind = "classification"
    model, sample = tiny.model(kind, encoder_layerdrop=0.5), tiny.sample(kind)
    sizes = []
    with tiny.hooked(model, lambda module, args, output: sizes.append(len(output[0]))):
        criterion(kind, adv_passes=3)(model, sample)
    assert sizes == [tiny.BATCH] * 4


@pytest.mark.parametrize("sequential", [False, True])
def test_layers_computed_again_have_the_dropout_rate_of_their_pass(float64, sequential):
    kind = "classification"
    sample, found = tiny.sample(kind), []
    rat = criterion(kind, adv_dropout_per_pass="0.1,0.5", sequential_passes=sequential)
    for recomputed in (False, True):
        model = tiny.model(kind, dropout=0.2, attention_dropout=0.2)
        if recomputed:
            for layer in model.encoder.sentence_encoder.layers:
                checkpoint_wrapper(layer)
        torch.manual_seed(3)
        loss, _, log = rat(model, sample)
        loss.backward()
        found.append((loss, log, tiny.gradients(model), torch.rand(1)))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("over", ["embedding-matrix", "sentence"])
def test_the_embedding_matrix_has_no_gradient_but_the_parameters_own(over):
    """One dense V x d matrix for each backward, which autograd needs; the perturbation makes none."""
    kind = "classification"
    model, sample = tiny.model(kind, double=False, dropout=0.2), tiny.sample(kind)
    shape = model.encoder.sentence_encoder.embed_tokens.weight.shape
    made = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            name = function.overloadpacket.__name__
            if torch.is_tensor(result) and result.shape == shape and not name.endswith("_"):
                made.append(name)
            return result

    rat = criterion(kind, adv_norm_over=over)
    with Watch():
        rat(model, sample)[0].backward()
    # autograd adds the two up in place, but not while it is watched (tests/test_core.py looks).
    made = [name for name in made if name not in ("detach", "add")]
    assert made == ["embedding_dense_backward"] * 2
