"""--group-by-length: every row once an epoch, in batches of like length, and exactly so when resumed."""

import inspect
from itertools import chain, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq import tasks
from fairseq.trainer import Trainer

from adv_plugins.length_groups import grouped_order, lengths
from fairseq_compat.errors import UserError
from training import ADAM, CHOICES, KIND_FLAGS, TINY, parse, train, write_data

ROWS = 53
GROUPED = ("--group-by-length", "3")
CRITERIONS = {
    "classification": "rat_criterion",
    "regression": "sentence_prediction",
    "multiple-choice": "sentence_ranking",
    "masked-lm": "masked_lm",
    "token-classification": "freelb_criterion",
}
SENTENCES = ("--sample-break-mode", "eos")


@pytest.fixture(scope="module", params=KIND_FLAGS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def data(kind, tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"), kind, sizes=(ROWS, 10))


@pytest.fixture
def seen(monkeypatch):
    """The batches of every update of a training: lists of (ids, shape) of each."""
    updates = []
    train_step = Trainer.train_step

    def recording(self, samples, *args, **kwargs):
        updates.append([(batch["id"].tolist(), positions(batch)) for batch in samples])
        return train_step(self, samples, *args, **kwargs)

    monkeypatch.setattr(Trainer, "train_step", recording)
    return updates


def positions(batch):
    """Of the batch's tensors, padding included; of all choices together."""
    inputs = [value for name, value in batch.items() if name.startswith("net_input")]
    return sum(each["src_tokens"].numel() for each in inputs)


def fine_tune(data, folder, kind, *flags):
    if kind == "masked-lm":
        flags = (*SENTENCES, *flags)
    return train(data, folder, kind, CRITERIONS[kind], *flags, "--max-epoch", "2", arch="roberta")


def epochs(updates):
    """The ids of two epochs, one list of batches each."""
    batches = [ids for update in updates for ids, _ in update]
    assert len(batches) % 2 == 0
    return batches[: len(batches) // 2], batches[len(batches) // 2 :]


def padded(updates):
    return sum(size for update in updates for _, size in update)


def check_epochs(kind, data, folder, seen, *flags):
    """Rows, their number in a batch, and padding, with and without groups."""
    fine_tune(data, folder / "off", kind, *flags)
    stock = list(seen)
    seen.clear()
    fine_tune(data, folder / "on", kind, *flags, *GROUPED)
    for grouped, ungrouped in zip(epochs(seen), epochs(stock)):
        assert sorted(chain(*grouped)) == list(range(ROWS))
        assert sorted(map(len, grouped)) == sorted(map(len, ungrouped))
    first, second = epochs(seen)
    assert {frozenset(ids) for ids in first} != {frozenset(ids) for ids in second}
    if kind != "masked-lm":  # which fairseq sorts anyway
        # A question's choices differ in length whatever batch it is in.
        assert padded(seen) < (1 if kind == "multiple-choice" else 0.9) * padded(stock)


def test_every_row_once_an_epoch_in_batches_of_the_same_number(kind, data, tmp_path, seen):
    check_epochs(kind, data, tmp_path, seen)


@pytest.mark.parametrize(
    "flags", [("--update-freq", "3"), ("--num-workers", "2")], ids=["update-freq", "workers"]
)
def test_accumulated_and_read_by_workers(tmp_path, seen, flags):
    data = write_data(tmp_path / "data", "classification", sizes=(ROWS, 10))
    check_epochs("classification", data, tmp_path, seen, *flags)


def test_a_limit_of_tokens_holds(kind, data, tmp_path, seen):
    fine_tune(data, tmp_path, kind, "--batch-size", "20", "--max-tokens", "40", *GROUPED)
    batches = [each for update in seen for each in update]
    # A limit is that of the texts of one choice.
    assert max(size for _, size in batches) <= 40 * (CHOICES if kind == "multiple-choice" else 1)
    assert sorted(chain(*(ids for ids, _ in batches))) == sorted(2 * list(range(ROWS)))


def test_a_resumed_training_goes_on_in_the_middle_of_an_epoch(kind, data, tmp_path, seen):
    whole = fine_tune(data, tmp_path / "whole", kind, *GROUPED)
    uninterrupted = list(seen)
    seen.clear()
    half = len(uninterrupted) // 2
    for stop in (half - 4, half, half + 3):
        flags = ("--max-update", str(stop), "--no-epoch-checkpoints")
        fine_tune(data, tmp_path / "halves", kind, *GROUPED, *flags)
    halves = fine_tune(data, tmp_path / "halves", kind, *GROUPED)
    assert seen == uninterrupted
    for name, value in whole["model"].items():
        assert torch.equal(value, halves["model"][name]), name


def test_off_is_fairseq(kind, data, tmp_path, seen, monkeypatch):
    fine_tune(data, tmp_path / "off", kind, "--group-by-length", "0")
    off = list(seen)
    seen.clear()
    for name in ("get_train_iterator", "get_valid_iterator"):
        monkeypatch.setattr(Trainer, name, inspect.unwrap(getattr(Trainer, name)))
    fine_tune(data, tmp_path / "stock", kind, *GROUPED)
    assert seen == off


def iterator_of(cfg, monkeypatch, *, workers, rank):
    """What a worker's trainer goes through, without the process group that a trainer needs."""
    trainer = Trainer.__new__(Trainer)
    trainer.cfg, trainer.task, trainer.tpu = cfg, tasks.setup_task(cfg.task), False
    facts = {
        "data_parallel_world_size": workers,
        "data_parallel_rank": rank,
        "model": SimpleNamespace(max_positions=lambda: 32),
        "criterion": None,
    }
    for name, value in facts.items():
        monkeypatch.setattr(Trainer, name, value)
    return trainer.get_train_iterator(epoch=1)


@pytest.mark.parametrize("workers", [2, 5])
def test_distributed_workers_share_the_rows_and_their_lengths(data, kind, monkeypatch, workers):
    more = SENTENCES if kind == "masked-lm" else ()
    line = f"{data} --criterion {CRITERIONS[kind]} --arch roberta {TINY} {KIND_FLAGS[kind]} {ADAM}"
    cfg = parse([*line.split(), *more, *GROUPED])
    iterators = [iterator_of(cfg, monkeypatch, workers=workers, rank=rank) for rank in range(workers)]
    batches = [iterator.ordered_batches(1, False, True) for iterator in iterators]
    assert {len(each) for each in batches} == {len(iterators[0])}
    rows = [row for worker in batches for batch in worker for row in batch]
    assert sorted(rows) == list(range(ROWS))
    sizes = lengths(iterators[0].dataset)
    gaps = []
    for update in zip(*batches):
        longest = [max(sizes[row] for row in batch) for batch in update if len(batch)]
        gaps.append(max(longest) - min(longest))
    assert np.mean(gaps) < 0.4 * (sizes.max() - sizes.min())


def test_the_order_is_random_within_pools():
    generator = np.random.default_rng(0)
    sizes = generator.integers(1, 30, size=100)
    one, two = (grouped_order(sizes, 20, np.random.default_rng([1, epoch])) for epoch in (1, 2))
    assert sorted(one) == sorted(two) == list(range(100))
    assert (one != two).any()
    for order in (one, two):
        steps = [np.sign(np.diff(sizes[order[begin : begin + 20]])) for begin in range(0, 100, 20)]
        turns = [1 if (step >= 0).all() else -1 if (step <= 0).all() else 0 for step in steps]
        assert 0 not in turns
        assert all(left == -right for left, right in pairwise(turns))
    assert list(grouped_order(np.array([], dtype=int), 20, generator)) == []


def test_what_cannot_be_is_refused(tmp_path):
    data = write_data(tmp_path / "data", "classification")
    with pytest.raises(UserError, match="--group-by-length -1"):
        fine_tune(data, tmp_path / "run", "classification", "--group-by-length", "-1")
    with pytest.raises(UserError, match="--no-shuffle"):
        fine_tune(data, tmp_path / "run", "classification", *GROUPED, "--no-shuffle")
