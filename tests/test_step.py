"""What a step does for a method that only says which passes it makes."""

import pytest
import torch

import tiny
from adv_plugins.step import Pass, Step

WEIGHT = 0.7


@pytest.fixture
def masks(monkeypatch):
    """Dropout masks chosen by the number of the pass, in whatever way it is made."""
    made = tiny.Masks()
    monkeypatch.setattr(torch.nn.functional, "dropout", made)
    return made


def compare_two_passes(kind, masks, monkeypatch, *, write, sequential):
    """Two passes without perturbations, compared; the objective, what is logged, the gradients."""
    model = tiny.model(kind, dropout=tiny.DROPOUT, pooler_dropout=tiny.DROPOUT)
    criterion = tiny.criterion("rat_criterion", kind, sequential_passes=sequential)
    stock = criterion.run_base
    sizes: list[int] = []

    def run_base(model, sample, **options):
        copies = sample["nsentences"] // tiny.BATCH
        # One by one: pass 0, then 1. In turn: pass 1 is made a second time.
        masks.begin([0, 1] if copies == 2 else [min(len(sizes), 1)])
        sizes.append(copies)
        return stock(model, sample, **options)

    monkeypatch.setattr(criterion, "run_base", run_base)
    step = Step(criterion, model, tiny.sample(kind))
    compared = step.compare(
        [Pass(0.5, write=write), Pass(0.5)],
        lambda passes: criterion.divergence(*(each.outputs[0] for each in passes)),
        compare_weight=WEIGHT,
    )
    loss, sample_size, log = step.finish(compared.first, compared.term, compared.value)
    loss.backward()
    return sizes, compared, (loss, sample_size), log, tiny.gradients(model)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_clean_passes_are_one_batch_and_equal_those_one_by_one(float64, masks, monkeypatch, kind):
    """Also those in turn; and a batch of two is logged as one."""
    found = {
        way: compare_two_passes(kind, masks, monkeypatch, write=write, sequential=sequential)
        for way, write, sequential in (
            ("joined", False, False),
            ("one by one", True, False),
            ("in turn", False, True),
        )
    }
    sizes, joined, result, log, gradients = found.pop("joined")
    assert sizes == [2] and joined.parts > 1e-4
    assert joined.passes[0].base.logging["nsentences"] == 2 * tiny.BATCH
    assert log["nsentences"] == tiny.BATCH
    torch.testing.assert_close(log["loss"].double(), (joined.loss / 2).double(), rtol=1e-5, atol=1e-5)
    for other_sizes, other, other_result, other_log, other_gradients in found.values():
        assert set(other_sizes) == {1}
        torch.testing.assert_close(other_result, result, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(
            (other.loss, other.parts, other.value), (joined.loss, joined.parts, joined.value)
        )
        assert log.keys() == other_log.keys()
        assert all(other_log[key] == log[key] for key in ("nsentences", "ntokens", "sample_size"))
        tiny.assert_same_gradients(other_gradients, gradients)
