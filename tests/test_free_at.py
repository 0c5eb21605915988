"""FreeAT against a plain-PyTorch transcription of several updates; its replays; going on with it."""

import os
from itertools import chain

import pytest
import torch
from fairseq.tasks import FairseqTask

import tiny
import training
from adv_plugins.ball import Ball
from adv_plugins.batch import source_tokens
from adv_plugins.carried_perturbation import CarriedPerturbation
from adv_plugins.carried_state import KEY
from adv_plugins.replays import Replays
from fairseq_compat.errors import UserError
from processes import run_two_workers
from test_carried_state import DISTRIBUTED, change

KIND = "classification"
STEP_SIZE, EPS, INIT_EPS, RATE = 0.3, 0.4, 0.35, 0.05
SHORTER = (8, 5, 7)
EXACT = dict(rtol=0, atol=0)


def criterion(kind, **options):
    options = {"adv_step_size": STEP_SIZE, "adv_eps": EPS, "adv_init_eps": INIT_EPS, **options}
    return tiny.criterion("free_at_criterion", kind, **options)


def updates_of(kind):
    """Updates of one or two batches; the third one's batches have their places' shapes, the fourth's
    only has another."""
    a, b = tiny.sample(kind), tiny.sample(kind, seed=2, lengths=SHORTER)
    other_words = tiny.sample(kind, seed=3, lengths=(7, 12, 5))
    return [[a, b], [a, b], [other_words], [b], [b, other_words]]


def uniform_of(batch, number):
    """What is drawn for a new start, (B, T, d) for each call."""
    generator = torch.Generator().manual_seed(number)
    shapes = [(*ids.shape, 8) for ids in source_tokens(batch)]
    return [torch.rand(*shape, generator=generator, dtype=torch.float64) * 2 - 1 for shape in shapes]


def size(pieces, norm):
    flat = torch.cat([piece.flatten() for piece in pieces])
    return flat.norm() if norm == "l2" else flat.abs().max()


def begin(batch, uniform, norm):
    """delta_0, sentence by sentence."""
    tokens = source_tokens(batch)
    deltas = []
    for row in range(tiny.BATCH):
        real = [ids[row].ne(1)[:, None].double() for ids in tokens]
        n = sum(each.sum() for each in real)
        scale = INIT_EPS / (n * 8).sqrt() if norm == "l2" else INIT_EPS
        deltas.append([u[row] * scale * each for u, each in zip(uniform, real)])
    return [torch.stack([delta[call] for delta in deltas]) for call in range(len(tokens))]


def climb(deltas, gradients, batch, norm):
    """One step and the projection, sentence by sentence."""
    tokens, moved = source_tokens(batch), []
    for row in range(tiny.BATCH):
        g = [each[row] * ids[row].ne(1)[:, None] for each, ids in zip(gradients, tokens)]
        own = [each[row] + STEP_SIZE * part / size(g, norm) for each, part in zip(deltas, g)]
        if norm == "linf":
            own = [each.clamp(-EPS, EPS) for each in own]
        elif size(own, norm) > EPS:
            own = [each * EPS / size(own, norm) for each in own]
        moved.append(own)
    return [torch.stack([own[call] for own in moved]) for call in range(len(tokens))]


def transcription(kind, model, updates, norm, masks):
    """Algorithm 1 over several updates: one delta for each place in an update. Returns the losses."""
    table = model.encoder.sentence_encoder.embed_tokens
    left: dict[int, list[torch.Tensor]] = {}
    losses, number = [], 0
    for update in updates:
        model.zero_grad()
        for place, batch in enumerate(update):
            tokens, deltas = source_tokens(batch), left.get(place)
            if deltas is None or [d.shape[:2] for d in deltas] != [ids.shape for ids in tokens]:
                deltas = begin(batch, uniform_of(batch, number), norm)
            deltas = [d * ids.ne(1)[..., None] for d, ids in zip(deltas, tokens)]
            deltas = [d.detach().requires_grad_() for d in deltas]
            calls = iter(deltas)
            if masks:
                masks.begin([number])
            with tiny.hooked(table, lambda module, args, output, calls=calls: output + next(calls)):
                loss = tiny.logits_and_loss(kind, model, batch)[1]
            loss.backward()
            losses.append(loss.detach())
            left[place] = climb(deltas, [d.grad for d in deltas], batch, norm)
            number += 1
        descend(model)
    return torch.stack(losses)


def descend(model):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= RATE * parameter.grad


@pytest.mark.parametrize("kind", tiny.ALL_KINDS)
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("dropout", [False, True])
def test_updates_equal_algorithm_1(float64, monkeypatch, kind, norm, dropout):
    """All weights after five updates, of one and two batches, on carried and on new perturbations."""
    rates = dict(dropout=tiny.DROPOUT, activation_dropout=tiny.DROPOUT, pooler_dropout=tiny.DROPOUT)
    options = rates if dropout else {}
    masks = tiny.Masks() if dropout else None
    if masks:
        monkeypatch.setattr(torch.nn.functional, "dropout", masks)
    updates = updates_of(kind)
    reference, model, start = (tiny.model(kind, **options) for _ in range(3))
    expected = transcription(kind, reference, updates, norm, masks)

    drawn = iter(())
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, low, high: self.copy_(next(drawn)))
    own = criterion(kind, adv_norm=norm)
    losses: list[torch.Tensor] = []
    for number, update in enumerate(updates):
        own.begin_update(number)
        model.zero_grad()
        for batch in update:
            drawn = iter(uniform_of(batch, len(losses)))
            if masks:
                masks.begin([len(losses)])
            loss, _, log = own(model, batch)
            (1024 * loss).backward()  # a loss scale
            losses.append(loss.detach())
            assert log["objective"] == log["loss"] == loss
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad /= 1024
        descend(model)
    torch.testing.assert_close(torch.stack(losses), expected, rtol=1e-9, atol=1e-10)
    ours, theirs, before = (dict(each.named_parameters()) for each in (model, reference, start))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-8, atol=1e-10, msg=name)
    assert max((theirs[name] - before[name]).abs().max() for name in before) > 1e-2


def test_one_forward_and_one_backward_an_update():
    kind = "classification"
    model, sample, own = tiny.model(kind, double=False), tiny.sample(kind), criterion(kind)
    plain = tiny.flops(own.base, model, sample)
    for number in range(2):  # a start, and going on
        own.begin_update(number)
        assert tiny.flops(own, model, sample) == pytest.approx(plain, rel=0.01)
    assert len(own.carried) == 1


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_what_is_no_gradient_moves_nothing_and_a_loss_scale_makes_no_difference(bad):
    torch.manual_seed(1)
    real, gradient = [torch.ones(2, 3, 1, dtype=torch.bool)], torch.randn(2, 3, 4)
    moved = []
    for factor in (1.0, 128.0):
        perturbation = CarriedPerturbation([torch.full((2, 3, 4), 0.01)], real)
        perturbation.deltas[0].grad = gradient * factor
        moved += perturbation.climbed(Ball("l2", 1.0), 0.3)
    torch.testing.assert_close(moved[0], moved[1])
    assert (moved[0] - 0.01).norm(dim=(1, 2)).tolist() == pytest.approx([0.3, 0.3])
    perturbation.deltas[0].grad = torch.full((2, 3, 4), bad)
    (still,) = perturbation.climbed(Ball("l2", 1.0), 0.3)
    assert (still == 0.01).all()


def test_new_padding_is_not_perturbed():
    kind = "classification"
    model, own = tiny.model(kind), criterion(kind)
    for number, lengths in enumerate([(12, 5, 10), (4, 12, 9)]):
        own.begin_update(number)
        own(model, tiny.sample(kind, seed=number, lengths=lengths))[0].backward()
    (delta,) = own.carried[0].deltas
    for row, length in enumerate((4, 12, 9)):
        assert delta[row, length:].abs().sum() == 0 and delta[row, :4].abs().sum() > 0
    assert delta[1, 5:].abs().sum() == 0, "the perturbation of what was padding starts at 0"


def test_the_batches_of_an_update_come_again_together():
    batches = [[1], [2], [3], [4], [5]]
    assert Replays(2, [1]).of(batches[:2], epoch=1) == [[1], [1], [2], [2]]
    three = Replays(3, [4, 2])
    assert three.of(batches, epoch=1) == [*batches[:4] * 3, *([[5], [], [], []] * 3)]
    for epoch in (2, 7):  # the last number holds for all later epochs
        assert three.of(batches, epoch) == [*batches[:2] * 3, *batches[2:4] * 3, *([[5], []] * 3)]


@pytest.fixture
def seen(monkeypatch):
    """The rows that every update of a training sees, a list for each batch."""
    updates: list[list[list[int]]] = []
    stock = FairseqTask.train_step

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        updates.extend([] for _ in range(update_num + 1 - len(updates)))
        updates[update_num].append(sample["id"].tolist())
        return stock(self, sample, model, criterion, optimizer, update_num, ignore_grad)

    monkeypatch.setattr(FairseqTask, "train_step", train_step)
    return updates


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return training.write_data(tmp_path_factory.mktemp("data") / "bin", KIND)


def train(data, folder, *flags, criterion="free_at_criterion"):
    return training.train(data, folder, KIND, criterion, *flags, arch="roberta")


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--update-freq", "2"),
        ("--update-freq", "4,3"),
        ("--num-workers", "2", "--update-freq", "2"),
        ("--group-by-length", "2", "--update-freq", "2"),
    ],
    ids=" ".join,
)
def test_every_update_is_made_k_times(data, tmp_path, seen, flags):
    """Those of plain fine-tuning, in their order; the last one of an epoch has fewer batches."""
    train(data, tmp_path / "plain", *flags, "--max-epoch", "2", criterion="sentence_prediction")
    plain = list(seen)
    seen.clear()
    state = train(data, tmp_path / "ours", *flags, "--max-epoch", "2", "--adv-steps", "3")
    assert seen == [update for update in plain for _ in range(3)]
    assert sorted(chain(*chain(*plain))) == sorted(2 * list(range(18)))
    assert state["optimizer_history"][-1]["num_updates"] == 3 * len(plain)
    assert state["extra_state"]["train_iterator"]["epoch"] == 3


@pytest.mark.parametrize("more", [(), ("--update-freq", "2"), ("--group-by-length", "2")], ids=" ".join)
def test_a_resumed_training_equals_an_uninterrupted_one(data, tmp_path, seen, more):
    """Stopped among a batch's replays, between two batches, and between two epochs."""
    flags = ("--adv-steps", "3", "--adv-eps", "0.6", "--dropout", "0.1", *more)
    end = 18 if more == ("--update-freq", "2") else 30
    whole = train(data, tmp_path / "whole", *flags, "--max-update", str(end))
    uninterrupted = list(seen)
    assert len(whole["extra_state"][KEY][0]) == (2 if "--update-freq" in more else 1)
    seen.clear()
    for stop in (4, 6, end // 2, end // 2 + 2, end):
        parts = train(data, tmp_path / "parts", *flags, "--max-update", str(stop))
    assert seen == uninterrupted
    for key in ("model", "last_optimizer_state"):
        torch.testing.assert_close(parts[key], whole[key], **EXACT)
    carried = [state["extra_state"][KEY] for state in (parts, whole)]
    torch.testing.assert_close(*carried, **EXACT)
    assert carried[0][0][0][0].abs().max() > 0


def test_without_what_was_carried_it_would_not(data, tmp_path):
    """Or the test before shows nothing."""
    flags = ("--adv-steps", "3", "--adv-eps", "0.6")
    whole = train(data, tmp_path / "whole", *flags, "--max-update", "6")
    train(data, tmp_path / "parts", *flags, "--max-update", "4")
    path = tmp_path / "parts" / "checkpoint_last.pt"
    change(path, lambda states: [[]])
    parts = train(data, tmp_path / "parts", *flags, "--max-update", "6")
    gaps = [(parts["model"][name] - value).abs().max() for name, value in whole["model"].items()]
    assert max(gaps) > 1e-4


def worker(rank, port, arguments):
    """One of two workers, as torchrun starts them."""
    os.environ.update(
        MASTER_ADDR="localhost", MASTER_PORT=str(port), WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK="0"
    )
    training.train(*arguments)


def test_two_workers_go_on_each_with_its_own(data, tmp_path):
    """Bit for bit; and the weights are those of one worker with twice the batches in an update."""
    flags = ("--adv-steps", "3", "--adv-init-eps", "0", "--dropout", "0", "--attention-dropout", "0")

    def run(name, updates):
        arguments = (data, tmp_path / name, KIND, "free_at_criterion", *flags, *DISTRIBUTED.split())
        assert run_two_workers(worker, (*arguments, "--max-update", str(updates))) == [None, None]
        return torch.load(tmp_path / name / "checkpoint_last.pt")

    whole = run("whole", 9)
    run("parts", 5)
    parts = run("parts", 9)
    torch.testing.assert_close(parts["model"], whole["model"], **EXACT)
    torch.testing.assert_close(parts["extra_state"][KEY], whole["extra_state"][KEY], **EXACT)
    one = training.train(
        data,
        tmp_path / "one",
        KIND,
        "free_at_criterion",
        *flags,
        "--update-freq",
        "2",
        "--max-update",
        "9",
    )
    torch.testing.assert_close(whole["model"], one["model"], rtol=1e-3, atol=1e-5)
    assert one["extra_state"]["train_iterator"]["epoch"] == 2, "three updates, three times each"


def test_what_cannot_be_is_refused(data, tmp_path):
    with pytest.raises(UserError, match="--adv-steps must be at least 1"):
        criterion(KIND, adv_steps=0)
    for option in ("adv_step_size", "adv_eps", "adv_init_eps"):
        with pytest.raises(UserError, match=option.replace("_", "-") + " must be at least 0"):
            criterion(KIND, **{option: -1.0})
    with pytest.raises(UserError, match="--skip-remainder-batch would leave out replays"):
        train(data, tmp_path, "--skip-remainder-batch", "--max-update", "1")
