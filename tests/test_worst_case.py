"""The ascent finds what can be computed; it is never undone by more steps, and 0 is 0."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from adv_plugins_cli.robustness import curves
from adv_plugins_cli.robustness.attacked_model import AttackedModel
from adv_plugins_cli.robustness.rows import Rows
from adv_plugins_cli.robustness.worst_case import directions, norms, safe_radius, worst_case

WIDTH, PAD = 6, 1


class Linear(torch.nn.Module):
    """Logits that are linear in the word embeddings, or that squash them."""

    def __init__(self, classes, bend):
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(20, WIDTH, padding_idx=PAD)
        self.head = torch.nn.Linear(WIDTH, classes)
        self.bend = bend

    def forward(self, tokens):
        words = self.embed_tokens(tokens)
        return self.head((words.tanh() if self.bend else words).sum(dim=1))


def attacked(classes=2, bend=False, lengths=(3, 7, 5, 1)) -> Any:
    """A batch of sentences of several lengths, with padding, and a small model."""
    torch.manual_seed(3)
    model = Linear(classes, bend).eval()
    random = np.random.default_rng(1)
    sequences = [[random.integers(2, 20, size=length)] for length in lengths]

    def padded(batch):
        tensors = [torch.from_numpy(each) for each in batch]
        return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=PAD)

    predictor: Any = SimpleNamespace(
        model=model,
        trained=SimpleNamespace(kind="classification"),
        padded=padded,
        forward=model,
        device=torch.device("cpu"),
    )
    targets = [model(padded(row)).argmax(dim=1).numpy() for row in sequences]
    return AttackedModel(predictor, Rows(sequences, targets))


def run(batch, radius, steps=60, step_size=0.05, starts=1):
    return worst_case(batch, radius, steps=steps, step_size=step_size, starts=starts, seeds=[1, 2, 3, 4])


def test_a_linear_model_has_a_closed_form():
    r"""Along w = w_y - w_other of every word the margin falls fastest: by eps sqrt(n) ||w||."""
    batch = attacked()
    radius = torch.tensor([0.1, 1.5, 1.5, 0.2])
    found = run(batch, radius)
    weights, targets = batch.model.head.weight.detach(), batch.targets[:, 0]
    margin = torch.stack([row[y] - row[1 - y] for row, y in zip(batch.model(batch.tokens[0]), targets)])
    lengths = batch.real[0].sum(dim=(1, 2))
    worst = margin - radius * lengths.sqrt() * (weights[0] - weights[1]).norm()
    expected = torch.nn.functional.softplus(-worst) - torch.nn.functional.softplus(-margin)
    torch.testing.assert_close(found.increase, expected.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.held, worst > 0)
    assert not found.held.all() and found.held.any(), "of either kind, to mean anything"


def test_epsilon_0_gives_0():
    found = run(attacked(classes=3, bend=True), torch.zeros(4), starts=3)
    assert found.increase.tolist() == [0.0] * 4
    assert found.held.all()


@pytest.mark.parametrize("starts", [1, 3])
def test_more_steps_and_more_starts_never_lower_it(starts):
    batch, radius = attacked(classes=3, bend=True), torch.full((4,), 6.0)
    before = torch.zeros(4)
    for steps in range(1, 12):  # so long ones that the loss falls now and then
        found = run(batch, radius, steps=steps, step_size=9.0, starts=starts)
        assert (found.increase >= before).all()
        before = found.increase
    more = run(batch, radius, steps=11, step_size=9.0, starts=starts + 2)
    assert (more.increase >= before).all() and (more.least <= more.increase).all()


def test_a_result_does_not_depend_on_what_else_is_in_the_batch():
    # one step, after which the random starts are still to be seen
    together = run(attacked(classes=3, bend=True), torch.full((4,), 0.8), starts=3, steps=1)
    alone = attacked(classes=3, bend=True)
    rows = Rows([[alone.tokens[0][0][:3].numpy()]], [alone.targets[0].numpy()])
    one = worst_case(
        AttackedModel(alone.predictor, rows),
        torch.full((1,), 0.8),
        steps=1,
        step_size=0.05,
        starts=3,
        seeds=[1],
    )
    torch.testing.assert_close(one.least, together.least[:1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(one.increase, together.increase[:1], rtol=1e-4, atol=1e-6)


def test_the_parameters_get_no_gradient_and_stay_trainable():
    batch, trained = attacked(), []

    def note(module, *_unused):
        trained.append(any(each.requires_grad for each in module.parameters()))

    batch.model.register_forward_hook(note)
    run(batch, torch.full((4,), 0.1), steps=3)
    assert trained[1:4] == [False] * 3, "the passes that are differentiated: their third is not computed"
    assert all(each.grad is None and each.requires_grad for each in batch.model.parameters())


def test_random_directions_have_the_norm_and_leave_padding_alone():
    batch = attacked()
    radius = torch.tensor([0.1, 0.2, 0.3, 0.4])
    (found,) = directions(batch, radius, [5, 6, 7, 8])
    torch.testing.assert_close(found.flatten(1).norm(dim=1), radius)
    assert not found[~batch.real[0].expand_as(found)].any()
    assert found[batch.real[0].expand_as(found)].all()


def test_the_searched_radius_is_the_largest_that_holds():
    batch = attacked()
    weights, targets = batch.model.head.weight.detach(), batch.targets[:, 0]
    margin = torch.stack([row[y] - row[1 - y] for row, y in zip(batch.model(batch.tokens[0]), targets)])
    lengths = batch.real[0].sum(dim=(1, 2))
    border = (margin / (lengths.sqrt() * (weights[0] - weights[1]).norm())).detach()
    start = torch.full((4,), 1.5 * float(border.median()))
    found = safe_radius(batch, start, decrements=10, steps=60, step_size=0.1)
    tenths = torch.floor(border / start * 10).clamp(max=10)
    torch.testing.assert_close(found, tenths / 10 * start)
    assert len(set(tenths.tolist())) > 1


def test_the_curve_begins_at_the_accuracy_and_falls():
    batch = attacked(classes=3, bend=True)
    sizes = (0.0, 0.05, 0.2, 1.0)
    found = torch.stack([curves.under_attack(batch, size) for size in sizes]).float().mean(dim=1)
    assert found[0] == 1.0 and (found[1:] <= found[:-1]).all() and found[-1] < 1
    noise = torch.stack([curves.under_noise(batch, size, 8, [1, 2, 3, 4]) for size in sizes]).mean(dim=1)
    assert noise[0] == 1.0 and noise[-1] > found[-1], "the worst direction is worse than a random one"
    torch.testing.assert_close(norms(batch), batch.embeddings[0].flatten(1).norm(dim=1))
