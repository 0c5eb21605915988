"""ASA against a plain-PyTorch transcription of its game, and the model that carries it."""

import math

import pytest
import torch
from fairseq.models.roberta import RobertaModel
from fairseq.modules.checkpoint_activations import checkpoint_wrapper
from torch.utils._python_dispatch import TorchDispatchMode

import adv_plugins.masked_attention as masked_attention
import adv_plugins.models.asa_roberta as asa_roberta
import tiny
from adv_plugins.batch import source_tokens
from adv_plugins.models.asa_roberta import AsaRobertaModel, adversaries, biased, strip_adversary
from methods import ASA, METHODS

TAU, ALPHA = 0.3, 0.8


def criterion(kind, **options):
    return tiny.criterion(
        "asa_criterion", kind, **{"asa_tau": TAU, "consistency_weight": ALPHA, **options}
    )


def model(kind, **changes):
    """A tiny asa_roberta whose adversary is sure of itself."""
    built = tiny.model(kind, AsaRobertaModel, **changes)
    with torch.no_grad():
        for attention in adversaries(built):
            attention.adversary.query.bias.normal_(std=0.5)
    return built


def noise(call, shape):
    """The logistic noise of one layer's mask in one model call."""
    uniform = torch.rand(shape, generator=torch.Generator().manual_seed(call), dtype=torch.float64)
    return torch.log(uniform) - torch.log(1 - uniform)


def is_adversary(name):
    return ".adversary." in name


def formula(scores, mask, values, spared=1.0):
    """p (1 - mu) / sum p (1 - mu) times the values, ``spared`` being dropout's multipliers."""
    left = scores.softmax(-1) * (1 - mask)
    return (left / left.sum(-1, keepdim=True) * spared) @ values


def returned(scores, mask, values, unit, spared=1.0):
    """The output (B, T, d) if this unit (a column) were back in every row."""
    mask = mask.clone()
    mask[..., unit] = 0
    return formula(scores, mask, values, spared)


def heard(scores, mask, values, spared=1.0):
    """The formula, but a masked unit's derivative is the change of the output if it were back."""
    fixed = mask.detach()
    output = formula(scores, torch.where(fixed == 1, fixed, mask), values, spared)
    with torch.no_grad():
        here = formula(scores, fixed, values, spared)
        changes = [returned(scores, fixed, values, unit, spared) - here for unit in range(mask.size(-1))]
    for unit, change in enumerate(changes):
        share = torch.where(fixed == 1, mask, fixed)[..., unit, None]
        output = output + (fixed[..., unit, None] - share) * change
    return output


class Attack:
    """Plain self-attention with masks, in place of fairseq's: one softmax, head by head."""

    def __init__(self, model, tokens):
        self.layers = model.encoder.sentence_encoder.layers
        self.tokens = tokens
        self.masks, self.softs, self.proportions = [], [], []

    def __call__(self, layer, query, **kwargs):
        attention = self.layers[layer].self_attn
        number = len(self.masks)
        padding = self.tokens[number // len(self.layers)].eq(1)
        length, batch, width = query.shape
        x = query.transpose(0, 1)
        adversary = attention.adversary
        scores = adversary.query(x.detach()) @ adversary.key(x.detach()).transpose(1, 2)
        noisy = scores / math.sqrt(width) + noise(number, (batch, length, length))
        soft = torch.sigmoid(noisy)
        mask = torch.zeros_like(soft)
        for b in range(batch):
            real = [t for t in range(length) if not padding[b, t]]
            for i in real:
                keep = min(real, key=lambda j: noisy[b, i, j].item())
                for j in real:
                    mask[b, i, j] = float(soft[b, i, j] > 0.5 and j != keep)
        free = torch.zeros_like(soft)  # where the straight-through gradient reaches the sigmoid
        for b in range(batch):
            real = ~padding[b]
            least = noisy[b].masked_fill(~real[None], math.inf).argmin(-1)
            free[b] = real[:, None] * real[None] * (torch.arange(length)[None] != least[:, None])
        share = [
            (mask[b].sum() + (free[b] * (soft[b] - soft[b].detach())).sum()) / (~padding[b]).sum() ** 2
            for b in range(batch)
        ]
        mask.requires_grad_()
        self.masks.append(mask)
        self.softs.append(soft * free)
        self.proportions.append(torch.stack(share))
        heads = []
        size = width // attention.num_heads
        for h in range(attention.num_heads):
            part = slice(h * size, (h + 1) * size)
            q, k, v = (
                linear(x)[..., part] for linear in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            scores = q @ k.transpose(1, 2) / math.sqrt(size)
            heads.append(heard(scores.masked_fill(padding[:, None], -math.inf), mask, v))
        return attention.out_proj(torch.cat(heads, dim=-1)).transpose(0, 1), None


def transcription(kind, model, sample, monkeypatch, masks):
    """theta descends on L_e + alpha L_asa; eta on -(alpha L_asa - tau L_c)."""
    tokens = source_tokens(sample)
    encoder = model.encoder.sentence_encoder
    features = []

    def keep(module, args, output):
        features.append(output["encoder_out"][0][0])

    if masks:
        masks.begin([0])
    with tiny.hooked(encoder, keep):
        clean, task_loss = tiny.logits_and_loss(kind, model, sample)
    if masks:
        masks.begin([1])
    attack = Attack(model, tokens)
    with monkeypatch.context() as patch:
        for index, layer in enumerate(encoder.layers):
            patch.setattr(
                layer.self_attn,
                "forward",
                lambda query, index=index, **kwargs: attack(index, query, **kwargs),
            )
        with tiny.hooked(encoder, keep):
            attacked, _ = tiny.logits_and_loss(kind, model, sample)
    asa_loss = tiny.divergence("bi-kl", kind, clean, attacked)
    scale = 1.0
    if kind in ("masked-lm", "token-classification"):
        scale = len(clean) / tiny.BATCH
    if kind == "masked-lm":
        asa_loss = asa_loss + scale * tiny.divergence("bi-kl", kind, features[0], features[1])
    penalty = scale * sum(p.sum() for p in attack.proportions) / len(tokens)
    theta = task_loss + ALPHA * asa_loss
    named = dict(model.named_parameters())
    found = torch.autograd.grad(theta, list(named.values()), retain_graph=True, allow_unused=True)
    gradients = {
        name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(named.items(), found)
    }
    # Straight through: what L_asa's derivative by the mask is, the sigmoid gets.
    by_mask = torch.autograd.grad(asa_loss, attack.masks, retain_graph=True)
    eta = TAU * penalty - ALPHA * sum((g * soft).sum() for g, soft in zip(by_mask, attack.softs))
    eta_names = [name for name in named if is_adversary(name)]
    for name, g in zip(eta_names, torch.autograd.grad(eta, [named[n] for n in eta_names])):
        gradients[name] = g
    return task_loss + ALPHA * asa_loss + TAU * penalty, gradients, attack


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("checkpointed_layers", [False, True])
@pytest.mark.parametrize("sequential", [False, True])
def test_recomputed_scores_change_nothing(
    float64, monkeypatch, dropout, checkpointed_layers, sequential
):
    """On a GPU the masked attention is computed again in the backward; here it is made to."""
    kind = "classification"
    rate = tiny.DROPOUT if dropout else 0.0
    built = model(kind, dropout=rate, attention_dropout=rate)
    if checkpointed_layers:
        for layer in built.encoder.sentence_encoder.layers:
            checkpoint_wrapper(layer)
    found, kept_scores = [], []
    (tokens,) = source_tokens(tiny.sample(kind))
    scores_shape = (len(tokens), adversaries(built)[0].num_heads, tokens.size(1), tokens.size(1))
    for recomputed in (False, True):
        monkeypatch.setattr(
            masked_attention, "recomputes_scores", lambda query, answer=recomputed: answer
        )
        kept_scores.append(0)

        def pack(tensor):
            kept_scores[-1] += tensor.shape == scores_shape
            return tensor

        built.zero_grad()
        torch.manual_seed(3)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss, _, log = criterion(kind, sequential_passes=sequential)(built, tiny.sample(kind))
        loss.backward()
        found.append((loss, log, tiny.gradients(built), torch.rand(1)))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-14)
    assert checkpointed_layers or kept_scores[0] - kept_scores[1] == 2  # one for each layer


def test_the_clean_pass_goes_through_the_fused_kernel():
    """Without dropout torch has one for the CPU, too."""
    fused = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if "scaled_dot_product" in function.overloadpacket.__name__:
                fused.append(function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    kind = "classification"
    built = model(kind, double=False)
    with Watch():
        criterion(kind)(built, tiny.sample(kind))
    assert len(fused) == len(adversaries(built)) and "flash" in fused[0]


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("dropout", [False, True])
def test_gradients_equal_the_papers_equations(float64, monkeypatch, kind, dropout):
    rates = dict(dropout=tiny.DROPOUT, activation_dropout=tiny.DROPOUT, pooler_dropout=tiny.DROPOUT)
    built = model(kind, **(rates if dropout else {}))
    sample = tiny.sample(kind)
    masks = tiny.Masks() if dropout else None
    if masks:
        monkeypatch.setattr(torch.nn.functional, "dropout", masks)
    expected, reference, attack = transcription(kind, built, sample, monkeypatch, masks)
    masked = torch.cat([mask.detach().flatten() for mask in attack.masks]).mean()
    assert 0.1 < masked < 0.9

    built.zero_grad()
    asa = criterion(kind)
    calls = iter(range(100))
    monkeypatch.setattr(asa_roberta, "logistic_noise", lambda scores: noise(next(calls), scores.shape))
    run_base = asa.run_base

    def numbered_run_base(model, sample, **options):
        if masks:
            masks.begin([0] if options.get("write") else [1])
        return run_base(model, sample, **options)

    monkeypatch.setattr(asa, "run_base", numbered_run_base)
    value, _, log = asa(built, sample)
    value.backward()
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-10)
    ours = tiny.gradients(built)
    tiny.assert_same_gradients(ours, reference)
    assert any(g.abs().max() > 1e-6 for name, g in ours.items() if is_adversary(name))
    assert log["asa_loss"] > 1e-4


def mean_losses(asa, built, sample, draws=40):
    """L_asa and the masked proportion, over many masks."""
    torch.manual_seed(11)
    logs = [asa(built, sample)[2] for _ in range(draws)]
    return (
        sum(log["asa_loss"].item() for log in logs) / draws,
        sum(log["masked_proportion"].item() for log in logs) / draws / tiny.BATCH,
    )


def train(asa, built, sample, which, steps=60, lr=0.05):
    """Train the adversary alone or the model alone."""
    chosen = [p for n, p in built.named_parameters() if is_adversary(n) == (which == "adversary")]
    optimizer = torch.optim.Adam(chosen, lr=lr)
    torch.manual_seed(7)
    for _ in range(steps):
        built.zero_grad()
        asa(built, sample)[0].backward()
        optimizer.step()


def test_the_adversary_raises_its_loss_and_a_larger_tau_masks_less():
    kind = "classification"
    sample = tiny.sample(kind)
    results = {}
    for tau in (0.0, 0.3, 1.0, 5.0):
        built = model(kind, double=False)
        asa = criterion(kind, asa_tau=tau, consistency_weight=1.0)
        before = mean_losses(asa, built, sample)
        train(asa, built, sample, "adversary")
        results[tau] = (before, mean_losses(asa, built, sample))
    before, after = results[0.0]
    assert after[0] > 1.1 * before[0]
    # At the default price it neither gives up nor masks everything.
    loss, proportion = results[0.3][1]
    assert loss > results[0.3][0][0] and 0.005 < proportion < 0.9
    proportions = [results[tau][1][1] for tau in (0.0, 1.0, 5.0)]
    assert proportions[0] > 1.5 * proportions[1] and proportions[1] > 1.5 * proportions[2]


def test_the_model_lowers_the_adversarys_loss():
    kind = "classification"
    sample, built = tiny.sample(kind), model(kind, double=False)
    asa = criterion(kind, consistency_weight=50.0)
    before = mean_losses(asa, built, sample)[0]
    train(asa, built, sample, "model", lr=0.003)
    assert mean_losses(asa, built, sample)[0] < 0.5 * before


def test_masks_are_hard_and_spare_padding_and_at_least_one_unit_a_row():
    torch.manual_seed(1)
    adversary = asa_roberta.Adversary(8)
    with torch.no_grad():  # an adversary that wants to mask everything
        adversary.query.bias.fill_(9.0)
        adversary.key.bias.fill_(9.0)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    mask, proportion = adversary(torch.randn(5, 2, 8), padding)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert mask[1, 3:].sum() == 0 and mask[1, :, 3:].sum() == 0
    assert (mask[0].sum(-1) == 4).all() and (mask[1, :3].sum(-1) == 2).all()
    torch.testing.assert_close(proportion, torch.tensor([20 / 25, 6 / 9]))


def attend(scores, mask, values, rate=0.0):
    """The masked attention of these scores: q is the scores, k is the identity."""
    identity = torch.eye(scores.size(-1), dtype=scores.dtype).expand_as(scores)
    arguments = (scores[:, None], identity[:, None], values[:, None], (1 - mask)[:, None])
    return masked_attention._MaskedAttention.apply(*arguments, rate, False)[:, 0]


def scores_and_mask():
    torch.manual_seed(1)
    scores = torch.randn(2, 4, 4, dtype=torch.float64)
    mask = torch.rand(2, 4, 4, dtype=torch.float64).gt(0.5).double()
    mask[..., 0] = 0
    return scores, mask


@pytest.mark.parametrize("lead", [0.0, 12.0, 100.0, 60000.0])
def test_masked_attention_is_a_masked_softmax_with_finite_gradients(lead):
    """Also where a masked unit outweighs the rest by more than exp() can hold."""
    scores, mask = scores_and_mask()
    scores = (scores + lead * mask).requires_grad_()
    mask.requires_grad_()
    weights = attend(scores, mask, torch.eye(4, dtype=torch.float64).expand(2, 4, 4))
    expected = scores.masked_fill(mask.detach().bool(), -math.inf).softmax(-1)
    torch.testing.assert_close(weights, expected)
    (weights * torch.randn(4, dtype=torch.float64)).sum().backward()
    for gradient in (scores.grad, mask.grad):
        assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0
    assert scores.grad[mask.detach().bool()].abs().sum() == 0
    # A masked unit hears more than the penalty.
    assert (mask.grad[mask.detach().bool()] != 0).all()


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_masked_attention_has_the_gradient_that_it_says(rate):
    scores, mask = scores_and_mask()
    values = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)
    inputs = [scores.requires_grad_(), mask.requires_grad_(), values]
    towards = torch.randn(4, dtype=torch.float64)
    torch.manual_seed(5)
    ours = attend(scores, mask, values, rate)
    # The same draw.
    torch.manual_seed(5)
    spared = torch.empty(2, 1, 4, 4, dtype=torch.bool).bernoulli_(1 - rate)[:, 0]
    assert bool(spared.all()) == (rate == 0)
    expected = heard(scores, mask, values, spared / (1 - rate))
    torch.testing.assert_close(ours, expected)
    found = [torch.autograd.grad((output * towards).sum(), inputs) for output in (ours, expected)]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("lead", [0.0, 12.0, 100.0, 60000.0])
def test_a_masked_unit_hears_what_its_return_would_change_and_no_more(lead):
    """However much it outweighs the units that are left."""
    scores, mask = scores_and_mask()
    scores = scores + lead * mask
    values = torch.randn(2, 4, 4, dtype=torch.float64)
    towards = torch.randn(4, dtype=torch.float64)
    mask.requires_grad_()
    (attend(scores, mask, values) * towards).sum().backward()
    fixed = mask.detach()
    here = attend(scores, fixed, values)
    for unit in range(4):
        masked = fixed[..., unit] == 1
        change = ((returned(scores, fixed, values, unit) - here) * towards).sum(-1)
        torch.testing.assert_close(-mask.grad[..., unit][masked], change[masked])
    products = values @ towards
    spread = products.amax(-1) - products.amin(-1)
    assert (mask.grad.abs() <= spread[:, None, None]).all() and (mask.grad[fixed == 1] != 0).all()


def test_without_masked_units_it_is_fairseqs_attention():
    """The biased pass with an adversary that masks nothing."""
    kind = "classification"
    built, sample = tiny.model(kind, AsaRobertaModel).eval(), tiny.sample(kind)
    with torch.no_grad():
        for attention in adversaries(built):
            attention.adversary.query.bias.fill_(40.0)
            attention.adversary.key.bias.fill_(-40.0)
        plain = tiny.logits_and_loss(kind, built, sample)
        with biased(built) as proportions:
            inside = tiny.logits_and_loss(kind, built, sample)
    assert all(call.sum() == 0 for calls in proportions for call in calls)
    torch.testing.assert_close(inside, plain, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_without_the_mask_it_is_roberta_bit_for_bit(kind):
    """In evaluation, and with the same seed in training too."""
    rates = dict(dropout=0.2, attention_dropout=0.2)
    plain, asa = (
        tiny.model(kind, each, double=False, **rates) for each in (RobertaModel, AsaRobertaModel)
    )
    asa.load_state_dict(plain.state_dict())
    sample = tiny.sample(kind)
    with torch.no_grad():
        outputs = [tiny.logits_and_loss(kind, m.eval(), sample) for m in (plain, asa)]
    torch.testing.assert_close(*outputs, rtol=0, atol=0)
    gradients = []
    for each in (plain, asa):
        torch.manual_seed(2)
        tiny.logits_and_loss(kind, each.train(), sample)[1].backward()
        gradients.append({n: g for n, g in tiny.gradients(each).items() if not is_adversary(n)})
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_the_same_seed_gives_the_same_roberta():
    states = []
    for each in (RobertaModel, AsaRobertaModel):
        torch.manual_seed(5)
        built = each.build_model(tiny.model_args(), tiny.Task("classification"))
        built.register_classification_head("sentence_classification_head", num_classes=2)
        states.append(strip_adversary(built.state_dict()))
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_checkpoints_go_both_ways(caplog):
    """A RoBERTa's loads strictly, with one line of log; stripped, it is a RoBERTa's again."""
    plain = tiny.model("classification")
    asa = tiny.model("classification", AsaRobertaModel, seed=2)
    own = {n: p.clone() for n, p in asa.state_dict().items() if is_adversary(n)}
    with caplog.at_level("INFO"):
        asa.load_state_dict(plain.state_dict(), strict=True)
    assert [r.message for r in caplog.records if "starts fresh" in r.message] != []
    assert not [r for r in caplog.records if r.levelname == "WARNING"]
    torch.testing.assert_close(
        {n: p for n, p in asa.state_dict().items() if is_adversary(n)}, own, rtol=0, atol=0
    )
    with pytest.raises(RuntimeError, match="Missing key"):
        broken = plain.state_dict()
        del broken["encoder.sentence_encoder.layers.0.fc1.weight"]
        asa.load_state_dict(broken, strict=True)
    again = tiny.model("classification", seed=3)
    again.load_state_dict(strip_adversary(asa.state_dict()), strict=True)
    torch.testing.assert_close(again.state_dict(), plain.state_dict(), rtol=0, atol=0)
    # Its own checkpoint brings its adversary along.
    third = tiny.model("classification", AsaRobertaModel, seed=4)
    third.load_state_dict(asa.state_dict(), strict=True)
    torch.testing.assert_close(third.state_dict(), asa.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("training", [False, True])
def test_a_sentence_of_padding_is_attended_to_as_by_torch(monkeypatch, training):
    """Where the adversary masks nothing, the biased pass is the clean one for such a row, too."""
    kind = "classification"
    built, sample = tiny.model(kind, AsaRobertaModel).train(training), tiny.sample(kind)
    sample["net_input"]["src_tokens"][1] = 1
    monkeypatch.setattr(asa_roberta, "logistic_noise", lambda scores: torch.full_like(scores, -60.0))
    plain = tiny.logits_and_loss(kind, built, sample)
    with biased(built) as proportions:
        inside = tiny.logits_and_loss(kind, built, sample)
    assert all(call.sum() == 0 for calls in proportions for call in calls)
    torch.testing.assert_close(inside, plain)


def test_biasing_ends_with_the_context():
    kind = "classification"
    built, sample = model(kind).eval(), tiny.sample(kind)
    with torch.no_grad():
        before = tiny.logits_and_loss(kind, built, sample)[0]
        with biased(built) as proportions:
            inside = tiny.logits_and_loss(kind, built, sample)[0]
        after = tiny.logits_and_loss(kind, built, sample)[0]
    assert torch.equal(before, after) and not torch.allclose(before, inside)
    assert [len(calls) for calls in proportions] == [1, 1]


def test_the_masked_proportion_of_each_layer_is_a_meter():
    from fairseq import metrics

    kind = "multiple-choice"
    built, sample = model(kind, double=False), tiny.sample(kind)
    asa = criterion(kind)
    _, _, log = asa(built, sample)
    with metrics.aggregate(new_root=True) as meters:
        asa.__class__.reduce_metrics([log])
    values = meters.get_smoothed_values()
    layers = [values["masked_layer1"], values["masked_layer2"]]
    assert all(0 < value < 1 for value in layers)
    assert values["masked_proportion"] == pytest.approx(sum(layers) / 2, abs=1e-3)
    expected = TAU * sum(layers) / math.log(2)
    assert values["penalty_loss"] == pytest.approx(expected, abs=2e-3)


def test_models_that_cannot_play_are_refused():
    kind = "classification"
    sample = tiny.sample(kind)
    with pytest.raises(ValueError, match="RobertaModel has none: give --arch asa_roberta"):
        criterion(kind)(tiny.model(kind), sample)
    built = model(kind, encoder_layerdrop=0.5, encoder_layers=6)
    assert len(adversaries(built)) == 6
    with pytest.raises(ValueError, match="--encoder-layerdrop 0"):
        criterion(kind)(built, sample)


@pytest.mark.parametrize("method", [each for each in METHODS if each.knows(ASA)], ids=repr)
def test_asa_joins_the_other_methods(float64, monkeypatch, method):
    """Objective and gradients of ``--asa-weight`` are the method's plus ASA's two terms."""
    kind = "classification"
    built, sample = model(kind), tiny.sample(kind)
    monkeypatch.setattr(asa_roberta, "logistic_noise", lambda scores: torch.zeros_like(scores))
    name, options = method.criterion, method.alone

    def run(each):
        built.zero_grad()
        torch.manual_seed(3)
        loss, _, log = each(built, sample)
        loss.backward()
        return log, tiny.gradients(built)

    alone = run(tiny.criterion(name, kind, **options))
    both = run(tiny.criterion(name, kind, asa_weight=ALPHA, asa_tau=TAU, **options))
    asa = run(criterion(kind))
    plain = run(criterion(kind).base)
    for key, gradient in both[1].items():
        expected = alone[1][key] + asa[1][key] - plain[1][key]
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-11)
    expected = alone[0]["objective"] + asa[0]["objective"] - plain[0]["loss"]
    torch.testing.assert_close(both[0]["objective"], expected, rtol=1e-10, atol=1e-10)
    assert "masked_layer2" in both[0] and "masked_layer2" not in alone[0]


def test_a_method_on_asa_roberta_leaves_the_adversary_alone_without_its_weight():
    kind = "classification"
    built, sample = model(kind), tiny.sample(kind)
    tiny.criterion("rat_criterion", kind)(built, sample)[0].backward()
    assert all(p.grad is None for n, p in built.named_parameters() if is_adversary(n))
    with pytest.raises(ValueError, match="ASA needs a model with adversaries"):
        tiny.criterion("rat_criterion", kind, asa_weight=1.0)(tiny.model(kind), sample)


def test_it_costs_two_passes_and_the_adversarys_own_layers():
    kind = "classification"
    built, sample = model(kind, double=False), tiny.sample(kind)
    asa = criterion(kind)
    plain = tiny.flops(asa.base, built, sample)
    length, batch, width = 12, tiny.BATCH, 8
    # Two linear maps and the product of their results: forward, and backward twice, but for the
    # gradient of the detached input.
    linear, scores = 2 * length * batch * width**2, 2 * batch * length**2 * width
    adversary = 2 * len(adversaries(built)) * (2 * linear) + len(adversaries(built)) * 3 * scores
    assert tiny.flops(asa, built, sample) == pytest.approx(2 * plain + adversary, rel=0.01)


def test_attention_dropout_works_in_the_biased_pass(monkeypatch):
    kind = "classification"
    monkeypatch.setattr(asa_roberta, "logistic_noise", torch.zeros_like)
    built, sample = model(kind, attention_dropout=0.5), tiny.sample(kind)
    with torch.no_grad(), biased(built):
        first, second = (tiny.logits_and_loss(kind, built, sample)[0] for _ in range(2))
        evaluated = [tiny.logits_and_loss(kind, built.eval(), sample)[0] for _ in range(2)]
    assert not torch.equal(first, second) and torch.equal(*evaluated)
