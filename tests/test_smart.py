"""SMART against a plain-PyTorch transcription of several updates; its costs; going on with it."""

import copy
import os

import pytest
import torch
from fairseq import utils

import tiny
import training
from adv_plugins.ball import Ball, Stretch
from adv_plugins.batch import source_tokens
from adv_plugins.carried_state import KEY
from adv_plugins.teacher import Teacher
from adv_plugins_cli import strip
from fairseq_compat.errors import UserError
from processes import run_two_workers
from test_carried_state import DISTRIBUTED, change
from test_rivals import RATES, perturbed_loss, real

KIND = "classification"
STEP_SIZE, EPS, INIT_EPS, ALPHA, MU = 0.2, 0.25, 0.3, 0.8, 0.6
MOMENTA, RATE, UPDATES = (0.7, 0.9), 0.05, 4
EXACT = dict(rtol=0, atol=0)


def criterion(kind, **options):
    values = dict(adv_step_size=STEP_SIZE, adv_eps=EPS, adv_init_eps=INIT_EPS, consistency_weight=ALPHA)
    return tiny.criterion("smart_criterion", kind, **{**values, **options})


def climbed(z, gradients, sample, projection):
    """One ascent; the norms are a sentence's (over all calls), or each token's."""
    gradients = [g * each for g, each in zip(gradients, real(sample))]
    if projection == "token":
        moved = [each + STEP_SIZE * g for each, g in zip(z, gradients)]
        sizes = [each.abs().amax(-1, keepdim=True) for each in moved]
        return [EPS * each / torch.where(s > 0, s, 1.0) for each, s in zip(moved, sizes)]
    largest = torch.stack([g.abs().flatten(1).amax(1) for g in gradients]).amax(0)[:, None, None]
    return [(each + STEP_SIZE * g / largest).clamp(-EPS, EPS) for each, g in zip(z, gradients)]


def objective(kind, model, sample, normal, begin, *, steps, projection, lately=None):
    """Algorithm 1 on one batch; begin(number) comes before each pass."""

    def d(p, q):
        return tiny.divergence("bi-kl", kind, p, q)

    begin(0)
    clean, loss = tiny.logits_and_loss(kind, model, sample)
    z = [INIT_EPS * n * each for n, each in zip(normal, real(sample))]
    for number in range(1, steps + 1):
        begin(number)
        z = [each.detach().requires_grad_() for each in z]
        noisy = perturbed_loss(kind, model, sample, z)[0]
        gradients = torch.autograd.grad(d(noisy, clean.detach()), z)
        z = [each.detach() for each in climbed(z, gradients, sample, projection)]
    begin(steps + 1)
    total = loss + ALPHA * d(perturbed_loss(kind, model, sample, z)[0], clean)
    return total if lately is None else total + MU * d(clean, lately)


def normal_of(sample, number):
    generator = torch.Generator().manual_seed(number)
    shapes = [(*ids.shape, 8) for ids in source_tokens(sample)]
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


def descend(model):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= RATE * parameter.grad
    model.zero_grad()


@pytest.mark.parametrize("kind", tiny.ALL_KINDS)
@pytest.mark.parametrize("projection,steps", [("ball", 1), ("ball", 3), ("token", 2), ("ball", 0)])
@pytest.mark.parametrize("dropout", [False, True])
def test_gradients_equal_the_papers_equations(float64, monkeypatch, kind, projection, steps, dropout):
    model, sample, masks = (
        tiny.model(kind, **(RATES if dropout else {})),
        tiny.sample(kind),
        tiny.Masks(),
    )
    if dropout:
        monkeypatch.setattr(torch.nn.functional, "dropout", masks)
    normal = normal_of(sample, 1)
    options = dict(steps=steps, projection=projection)
    expected = objective(kind, model, sample, normal, lambda n: masks.begin([n]), **options)
    expected.backward()
    reference = tiny.gradients(model)
    model.zero_grad()

    draws = iter(normal)
    monkeypatch.setattr(torch.Tensor, "normal_", lambda self: self.copy_(next(draws)))
    for sequential in (False, True):
        draws = iter(normal)
        own = criterion(kind, adv_steps=steps, adv_projection=projection, sequential_passes=sequential)
        numbers = iter([0, *range(1, steps + 2), 0])
        run_base = own.run_base

        def numbered(*args, run_base=run_base, numbers=numbers, **kwargs):
            masks.begin([next(numbers)])
            return run_base(*args, **kwargs)

        monkeypatch.setattr(own, "run_base", numbered)
        model.zero_grad()
        value, _, log = own(model, sample)
        value.backward()
        torch.testing.assert_close(value, expected.detach(), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(log["objective"], value.detach())
        assert log["consistency_loss"] > 1e-4 and "bregman_loss" not in log
        tiny.assert_same_gradients(tiny.gradients(model), reference)


@pytest.mark.parametrize("kind", tiny.ALL_KINDS)
@pytest.mark.parametrize("dropout", [False, True])
def test_updates_with_the_proximal_term_equal_algorithm_1(float64, monkeypatch, kind, dropout):
    """All weights after four updates of two batches, with both momenta."""
    rates = RATES if dropout else {}
    model, reference = tiny.model(kind, **rates), tiny.model(kind, **rates)
    batches, masks = [tiny.sample(kind), tiny.sample(kind, seed=2)], tiny.Masks()
    if dropout:
        monkeypatch.setattr(torch.nn.functional, "dropout", masks)
    average = copy.deepcopy(reference).eval()
    values = []
    for number in range(UPDATES):
        if number:
            beta = MOMENTA[0] if number <= 2 else MOMENTA[1]
            with torch.no_grad():
                for mean, weight in zip(average.parameters(), reference.parameters()):
                    mean.copy_(beta * mean + (1 - beta) * weight)
        for batch in batches:
            with torch.no_grad():
                lately = tiny.logits_and_loss(kind, average, batch)[0]
            total = objective(
                *(kind, reference, batch, normal_of(batch, number), lambda n: masks.begin([n])),
                **dict(steps=1, projection="ball", lately=lately),
            )
            total.backward()
            values.append(total.detach())
        descend(reference)

    draws = iter(())
    monkeypatch.setattr(torch.Tensor, "normal_", lambda self: self.copy_(next(draws)))
    momenta = dict(bregman_momentum=MOMENTA[0], bregman_late_momentum=MOMENTA[1])
    own = criterion(kind, bregman_weight=MU, bregman_early_updates=2, **momenta)
    run_base = own.run_base
    passes: list[int] = []

    def numbered(model, *args, **kwargs):
        if model.training:
            masks.begin([len(passes) % 3])
            passes.append(1)
        return run_base(model, *args, **kwargs)

    monkeypatch.setattr(own, "run_base", numbered)
    ours, terms = [], []
    for number in range(UPDATES):
        own.begin_update(number)
        for batch in batches:
            draws = iter(normal_of(batch, number))
            value, _, log = own(model, batch)
            value.backward()
            ours.append(value.detach())
            terms.append(log["bregman_loss"])
        descend(model)
    torch.testing.assert_close(torch.stack(ours), torch.stack(values), rtol=1e-8, atol=1e-9)
    assert terms[-1] > 1e-4
    for (name, weight), expected in zip(model.named_parameters(), reference.parameters()):
        torch.testing.assert_close(weight, expected, rtol=1e-7, atol=1e-9, msg=name)
    assert not utils.has_parameters(own) and own.state_dict() == {}


@pytest.mark.parametrize("kind", tiny.ALL_KINDS)
def test_sequential_passes_have_the_same_masks(float64, kind):
    """All of them, attention's included, and the random stream goes on alike."""
    model, sample, results = tiny.model(kind, attention_dropout=0.3, **RATES), tiny.sample(kind), []
    for sequential in (False, True):
        model.zero_grad()
        torch.manual_seed(3)
        own = criterion(kind, adv_steps=2, bregman_weight=MU, sequential_passes=sequential)
        loss, _, log = own(model, sample)
        loss.backward()
        results.append((loss, log, tiny.gradients(model), torch.rand(1)))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-11)


def run(name, **options):
    """Value and gradients of one step without dropout."""
    model = tiny.model(KIND)
    torch.manual_seed(3)
    loss, _, log = tiny.criterion(name, KIND, **options)(model, tiny.sample(KIND))
    loss.backward()
    return loss.detach(), log["consistency_loss"], tiny.gradients(model)


def test_without_ascents_it_is_r3f(float64):
    smart = run("smart_criterion", adv_steps=0, adv_init_eps=0.2, consistency_weight=ALPHA)
    r3f = run("r3f_criterion", noise_type="normal", noise_eps=0.2, consistency_weight=ALPHA)
    torch.testing.assert_close(smart, r3f, rtol=1e-12, atol=1e-14)


def test_an_average_that_is_the_model_says_nothing(float64):
    options = dict(adv_init_eps=INIT_EPS, adv_eps=EPS)
    without, with_it = (run("smart_criterion", bregman_weight=mu, **options) for mu in (0.0, MU))
    torch.testing.assert_close(with_it, without, rtol=1e-9, atol=1e-11)


def test_ascents_find_what_changes_the_prediction_more(float64):
    values = [
        run("smart_criterion", adv_steps=k, adv_step_size=0.05, adv_init_eps=0.02, adv_eps=0.2)[1]
        for k in (0, 1, 3)
    ]
    assert 1.5 * values[0] < values[1] and 1.5 * values[1] < values[2]


@pytest.mark.parametrize("steps,mu", [(0, 0.0), (1, 0.0), (3, 0.0), (1, MU)])
def test_operations(steps, mu):
    """Two passes, K without the parameters' gradients, and a forward for the average."""
    model, sample = tiny.model(KIND, double=False), tiny.sample(KIND)
    own = criterion(KIND, adv_steps=steps, bregman_weight=mu)
    ours, plain = tiny.flops(own, model, sample), tiny.flops(own.base, model, sample)
    for weight in model.parameters():
        weight.requires_grad_(False)
    delta = torch.zeros(*sample["net_input"]["src_tokens"].shape, 8, requires_grad=True)
    ascent = tiny.flops(
        lambda model, sample: (perturbed_loss(KIND, model, sample, [delta])[1],), model, sample
    )
    assert ours == pytest.approx((2 + (mu > 0) / 3) * plain + steps * ascent, rel=0.01)


def test_a_stretched_perturbation_has_its_size_at_every_token():
    torch.manual_seed(1)
    real_tokens = [torch.tensor([[True, True, False], [True, True, True]])[..., None]]
    deltas, gradients = [torch.randn(2, 3, 4)], [torch.randn(2, 3, 4)]
    (moved,) = Stretch(0.4).ascend(deltas, gradients, real_tokens, 0.5)
    sizes = moved.abs().amax(-1)
    torch.testing.assert_close(sizes, torch.tensor([[0.4, 0.4, 0], [0.4, 0.4, 0.4]]))
    gradients[0][0, 0] = float("nan")
    for region in (Ball("linf", 0.4), Stretch(0.4)):
        (moved,) = region.ascend([torch.zeros(2, 3, 4)], gradients, real_tokens, 0.5)
        assert moved.isfinite().all() and moved[0, 0].eq(0).all()


def test_the_teacher_is_in_float32_and_follows_once_an_update():
    model = tiny.model(KIND, double=False).half()
    teacher = Teacher(model, 0)
    weight, other = (m.encoder.sentence_encoder.embed_tokens.weight for m in (teacher.module, model))
    assert weight.dtype == torch.float32 and not teacher.module.training and weight is not other
    before = weight.clone()
    with torch.no_grad():
        other += 1
    teacher.follow(model, 0, 0.9)  # as after an overflow
    assert torch.equal(weight, before)
    for _ in range(2):  # --update-freq 2
        teacher.follow(model, 1, 0.9)
    torch.testing.assert_close(weight - before, torch.full_like(before, 0.1), rtol=0.05, atol=0)
    with pytest.raises(UserError, match="the teacher in the checkpoint is another model's"):
        teacher.restore({"number": 1, "weights": {}})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return training.write_data(tmp_path_factory.mktemp("data") / "bin", KIND)


FLAGS = (
    *("--bregman-weight", "2", "--bregman-momentum", "0.5", "--bregman-late-momentum", "0.8"),
    *("--bregman-early-updates", "3", "--dropout", "0.1"),
)


def train(data, folder, *flags, arch="roberta"):
    return training.train(data, folder, KIND, "smart_criterion", *FLAGS, *flags, arch=arch)


def test_a_resumed_training_equals_an_uninterrupted_one(data, tmp_path):
    whole = train(data, tmp_path / "whole", "--max-update", "9")
    for stop in (2, 5, 7, 9):  # in an epoch's middle and at its end
        parts = train(data, tmp_path / "parts", "--max-update", str(stop))
    for key in ("model", "last_optimizer_state"):
        torch.testing.assert_close(parts[key], whole[key], **EXACT)
    (state,) = parts["extra_state"][KEY]
    torch.testing.assert_close(state, whole["extra_state"][KEY][0], **EXACT)
    assert state["number"] == 8 and state["weights"].keys() < whole["model"].keys()

    train(data, tmp_path / "without", "--max-update", "5")
    change(tmp_path / "without" / "checkpoint_last.pt", lambda states: [None])
    without = train(data, tmp_path / "without", "--max-update", "9")
    gaps = [(without["model"][name] - value).abs().max() for name, value in whole["model"].items()]
    assert max(gaps) > 1e-5, "or nothing is shown"


def worker(rank, port, arguments):
    """One of two workers, as torchrun starts them."""
    os.environ.update(
        MASTER_ADDR="localhost", MASTER_PORT=str(port), WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK="0"
    )
    training.train(*arguments)


def test_two_workers_go_on_with_one_teacher(data, tmp_path):
    def run(name, updates):
        flags = (*FLAGS, *DISTRIBUTED.split(), "--max-update", str(updates))
        arguments = (data, tmp_path / name, KIND, "smart_criterion", *flags)
        assert run_two_workers(worker, arguments) == [None, None]
        return torch.load(tmp_path / name / "checkpoint_last.pt")

    whole = run("whole", 5)
    assert len(whole["extra_state"][KEY]) == 1
    run("parts", 2)
    parts = run("parts", 5)
    for key in ("model", "last_optimizer_state"):
        torch.testing.assert_close(parts[key], whole[key], **EXACT)
    torch.testing.assert_close(parts["extra_state"][KEY], whole["extra_state"][KEY], **EXACT)


def test_stripping_takes_the_teacher_away(data, tmp_path):
    flags = ("--max-update", "2", "--asa-weight", "1")
    state = train(data, tmp_path, *flags, arch="asa_roberta")
    assert state["extra_state"][KEY][0]["weights"]
    strip.main([str(tmp_path / "checkpoint_last.pt"), str(tmp_path / "plain.pt")])
    assert KEY not in torch.load(tmp_path / "plain.pt")["extra_state"]


@pytest.mark.parametrize(
    "options,message",
    [
        (dict(adv_steps=-1), "--adv-steps must be at least 0"),
        (dict(adv_eps=float("nan")), "--adv-eps must be at least 0"),
        (dict(adv_init_eps=-1.0), "--adv-init-eps must be at least 0"),
        (dict(consistency_weight=-1.0), "--consistency-weight must be at least 0"),
        (dict(bregman_weight=-1.0), "--bregman-weight must be at least 0"),
        (dict(bregman_late_momentum=1.5), "--bregman-late-momentum must be from 0 to 1, but is 1.5"),
        (dict(bregman_momentum=float("nan")), "--bregman-momentum must be from 0 to 1"),
    ],
)
def test_bad_options_name_the_knob(options, message):
    with pytest.raises(UserError, match=message):
        criterion(KIND, **options)
