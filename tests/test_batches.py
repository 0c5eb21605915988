"""A batch in parts - by --update-freq or over workers - gives the gradients of the whole batch."""

import math
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from fairseq.distributed import LegacyDistributedDataParallel, ModuleProxyWrapper

import adv_plugins.models.asa_roberta as asa_roberta
import adv_plugins.naive_masks as naive_masks
import tiny
from adv_plugins.ball import Ball
from adv_plugins.models.asa_roberta import AsaRobertaModel
from adv_plugins.noise import DISTRIBUTIONS
from adv_plugins.shifted_weights import matrices
from conftest import use_float64
from methods import ASA, CORE, EVERY, METHODS, variants
from processes import run_two_workers


def make(method, kind, monkeypatch, **options):
    """Criterion and model whose random numbers do not depend on the batch."""
    monkeypatch.setattr(asa_roberta, "logistic_noise", lambda scores: torch.zeros_like(scores))
    monkeypatch.setattr(naive_masks, "uniform", by_position)
    criterion = tiny.criterion(method.criterion, kind, **method.alone, **options)

    def noise(hidden, real):
        size = hidden.size(0) * hidden.size(2)
        wave = torch.arange(size, dtype=hidden.dtype, device=hidden.device).cos()
        return wave.view(hidden.size(0), 1, -1) * real.transpose(0, 1)

    def embedding_noise(empty):
        return torch.arange(empty[0].numel(), dtype=empty.dtype).cos().view_as(empty[0]).expand_as(empty)

    if method.name == "rapt":
        monkeypatch.setattr(criterion, "noise", noise)
    for name in DISTRIBUTIONS:
        monkeypatch.setitem(DISTRIBUTIONS, name, embedding_noise)
    model = tiny.model(kind, AsaRobertaModel)
    with torch.no_grad():
        for attention in asa_roberta.adversaries(model):
            attention.adversary.query.bias.normal_(std=0.5)
    if method.name == "awp":  # whose shift of the weights is the whole batch's

        def shifts(step, layers):
            weights = [getattr(*place) for layer in layers for place in matrices(layer)]
            return {weight: 0.3 * weight.detach().cos() for weight in weights}

        monkeypatch.setattr(criterion, "_shifts", shifts)
    if method.name == "neftune":

        def start(ball, real, width, dtype, size):
            empty = [torch.empty(*each.shape[:2], width, dtype=torch.float64) for each in real]
            waves = [size * embedding_noise(each) for each in empty]
            return [wave.to(dtype) * each for wave, each in zip(waves, real)]

        monkeypatch.setattr(Ball, "start", start)
    return criterion, model


def by_position(like):
    """Numbers from 0 to 1 for a (B, T, T) tensor, the same in every sentence."""
    row, column = (
        torch.arange(like.size(1), device=like.device).view(size) for size in ((-1, 1), (1, -1))
    )
    return ((row * 31 + column * 17) % 29 / 29).expand(like.shape)


def part(sample, rows):
    """Some rows of a batch, with no more padding than they need."""
    if isinstance(sample, dict):
        cut = {key: part(value, rows) for key, value in sample.items()}
        if "nsentences" in cut:
            cut["nsentences"] = len(range(*rows.indices(tiny.BATCH)))
        tokens = cut.get("src_tokens")
        if tokens is not None:
            cut["src_tokens"] = tokens[:, : int(tokens.ne(1).sum(1).max())]
        target = cut.get("target")
        if target is not None and target.dim() == 2 and target.size(1) > 1:  # one for each token
            cut["target"] = target[:, : cut["net_input"]["src_tokens"].size(1)]
        return cut
    return sample[rows] if torch.is_tensor(sample) else sample


CASES = [
    (method, kind)
    for method in EVERY
    for kind in tiny.KINDS
    # ASA's per-sentence terms are weighed by the batch's masked or labelled tokens per sentence there.
    if method.name != "asa" or kind not in ("masked-lm", "token-classification")
]


@pytest.mark.parametrize("method,kind", CASES, ids=str)
def test_gradients_of_parts_add_up(float64, monkeypatch, method, kind):
    criterion, model = make(method, kind, monkeypatch)
    sample = tiny.sample(kind)
    criterion(model, sample)[0].backward()
    whole = tiny.gradients(model)
    model.zero_grad()
    for rows in (slice(0, 2), slice(2, 3)):
        criterion(model, part(sample, rows))[0].backward()
    tiny.assert_same_gradients(tiny.gradients(model), whole)


def worker(rank, port, cases):
    """One of two workers: of each case what :func:`reduced` returns; of the one that fails its error,
    and of those after it, too (the other worker may wait for this one)."""
    address = f"tcp://localhost:{port}"
    patience = timedelta(seconds=60)
    dist.init_process_group("gloo", address, rank=rank, world_size=2, timeout=patience)
    found: list[Any] = []
    try:
        for case in cases:
            found.append(reduced(rank, *case))
    except Exception as error:
        found += [f"{case}: {error!r}"] * (len(cases) - len(found))
    dist.destroy_process_group()
    return found


def reduced(rank, method, kind, counted, options):
    """Two batches of a sentence (``--update-freq 2``), or one.

    Returns the reduced gradients and how many numbers were reduced.
    """
    reductions: list[int] = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_float64(monkeypatch)
        criterion, model = make(method, kind, monkeypatch, **options)
        if counted:
            wrapped = torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
            wrapped.register_comm_hook(reductions, _count)
        else:
            wrapped = LegacyDistributedDataParallel(model, dist.group.WORLD)
        wrapped = ModuleProxyWrapper(wrapped)
        *early, last = ((slice(0, 1), slice(1, 2)), (slice(2, 3),))[rank]
        for rows in early:
            with wrapped.no_sync():
                criterion(wrapped, part(tiny.sample(kind), rows))[0].backward()
        criterion(wrapped, part(tiny.sample(kind), last))[0].backward()
        if not counted:
            wrapped.all_reduce_grads()
    # DDP averages over the workers.
    return {n: 2 * g.numpy() for n, g in tiny.gradients(model).items()}, sum(reductions)


def _count(reductions, bucket):
    """A communication hook: counts what is reduced, then reduces it."""
    reductions.append(bucket.buffer().numel())
    work = dist.all_reduce(bucket.buffer() / 2, async_op=True).get_future()
    return work.then(lambda future: future.value()[0])


# All ways for the core, for the others the one that counts reductions.
WORKERS = [
    (*pair.values, ddp, sequential)
    for pair in variants(ASA)
    for ddp in ("pytorch_ddp, unused parameters", "legacy_ddp")
    for sequential in (False, True)
    if pair.values[0].name in CORE or (ddp[0], sequential, pair.values[1]) == ("p", False, {})
]


def as_case(method, more, ddp, sequential):
    options = {**more, "sequential_passes": sequential}
    return method, "multiple-choice", ddp != "legacy_ddp", options


@pytest.fixture(scope="module")
def of_two_workers():
    """What the first of two workers found, by the numbers of the cases; they run in one pair."""
    return run_two_workers(worker, [as_case(*each) for each in WORKERS])[0]


@pytest.mark.parametrize(
    "number", range(len(WORKERS)), ids=lambda number: f"{number}-{WORKERS[number][0]}"
)
def test_two_processes_give_the_gradients_of_one(float64, monkeypatch, of_two_workers, number):
    """On an uneven split. It reduces once an update, whatever K and ``--update-freq``."""
    method, kind, counted, options = as_case(*WORKERS[number])
    assert not isinstance(of_two_workers[number], str), of_two_workers[number]
    gradients, elements = of_two_workers[number]
    criterion, model = make(method, kind, monkeypatch, **options)
    criterion(model, tiny.sample(kind))[0].backward()
    ours = {key: torch.from_numpy(value) for key, value in gradients.items()}
    tiny.assert_same_gradients(ours, tiny.gradients(model))
    if counted:
        assert elements == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "name,model",
    [
        ("rat_criterion", dict(encoder_layerdrop=0.5)),
        ("freelb_criterion", dict(encoder_layerdrop=0.5)),
        ("freelb_criterion", dict(checkpoint_activations=True)),
        ("asa_criterion", dict(checkpoint_activations=True)),
    ],
)
def test_what_torchs_ddp_cannot_follow_is_refused(name, model):
    model = tiny.model("classification", AsaRobertaModel, **model)

    class Ddp(torch.nn.parallel.DistributedDataParallel):
        def __init__(self, module):
            torch.nn.Module.__init__(self)
            self.module = module

    with pytest.raises(ValueError, match="--ddp-backend legacy_ddp"):
        tiny.criterion(name, "classification")(Ddp(model), tiny.sample("classification"))


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_loss_scale_that_is_too_large_recovers(method):
    """float16 weights and fairseq's own scaler: overflow, smaller scale, then right gradients."""
    from fairseq.optim.dynamic_loss_scaler import DynamicLossScaler

    kind = "classification"
    sample = tiny.sample(kind)
    criterion = tiny.criterion(method.criterion, kind, **method.alone)
    model = tiny.model(kind, AsaRobertaModel, double=False).half()
    scaler = DynamicLossScaler(init_scale=2.0**40, threshold=None)
    overflows = 0
    for _ in range(60):
        model.zero_grad()
        torch.manual_seed(3)
        loss, _, log = criterion(model, sample)
        assert math.isfinite(log["loss"]) and math.isfinite(log["objective"])
        scaler.scale(loss).backward()
        gradients = {n: g.float() / scaler.loss_scale for n, g in tiny.gradients(model).items()}
        norm = torch.cat([g.flatten() for g in gradients.values()]).norm()
        try:
            scaler.check_overflow(norm.item())
        except OverflowError:
            overflows += 1
            continue
        break
    assert 5 < overflows < 60
    full = tiny.model(kind, AsaRobertaModel, double=False)
    torch.manual_seed(3)
    tiny.criterion(method.criterion, kind, **method.alone)(full, sample)[0].backward()
    expected = torch.cat([g.flatten() for g in tiny.gradients(full).values()])
    ours = torch.cat([g.flatten() for g in gradients.values()])
    cosine = torch.nn.functional.cosine_similarity(ours, expected, dim=0)
    assert cosine > 0.99 and norm == pytest.approx(expected.norm().item(), rel=0.1)
