"""The naive masks that ASA is compared with, against a plain-PyTorch transcription of its Table 3."""

import math
from typing import Any

import pytest
import torch
from fairseq.models.roberta import RobertaModel
from fairseq.modules.checkpoint_activations import checkpoint_wrapper

import adv_plugins.naive_masks as naive_masks
import tiny
import training
from adv_plugins.batch import source_tokens
from adv_plugins.masked_attention import _MaskedAttention
from adv_plugins.models.asa_roberta import AsaRobertaModel
from adv_plugins.models.bert import BertModel
from adv_plugins.naive_masks import MEASURED_SCHEDULE, NaiveMasks, bernoulli, largest_scores
from fairseq_compat.errors import UserError
from test_asa import formula

ALPHA, RATE = 0.8, 0.3
# Two updates have been made: the line is at RATE.
MASKINGS: dict[str, dict[str, Any]] = {
    "bernoulli": dict(asa_masking_rate=RATE),
    "scheduled": dict(asa_masking_schedule="1:0.4,3:0.2,9:0"),
    "magnitude": dict(asa_masking_rate=RATE),
}


def criterion(kind, masking, **options):
    options = {**MASKINGS[masking], "consistency_weight": ALPHA, **options}
    built = tiny.criterion("asa_criterion", kind, asa_masking=masking, **options)
    built.begin_update(2)
    return built


def uniform(call, shape):
    """What decides on the units of one layer in one model call."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(call), dtype=torch.float64)


def random_mask(drawn, real):
    """One sentence's (T, T) mask: units drawn below RATE, but one of each row stays."""
    mask = torch.zeros_like(drawn)
    for row in real:
        keep = max(real, key=lambda column: drawn[row, column].item())
        for column in real:
            mask[row, column] = float(drawn[row, column] < RATE and column != keep)
    return mask


def mask_of_largest(weights, real):
    """The same of the largest weights."""
    spared = {row: min(real, key=lambda column: weights[row, column].item()) for row in real}
    units = [(weights[i, j].item(), i, j) for i in real for j in real if spared[i] != j]
    mask = torch.zeros_like(weights)
    for _, row, column in sorted(units, reverse=True)[: round(RATE * len(real) ** 2)]:
        mask[row, column] = 1
    return mask


class Masked:
    """Plain self-attention with masks, in place of fairseq's: softmax, head by head."""

    def __init__(self, model, tokens, masking):
        self.layers = model.encoder.sentence_encoder.layers
        self.tokens, self.masking, self.masks = tokens, masking, []

    def __call__(self, layer, query, **kwargs):
        attention = self.layers[layer].self_attn
        number = len(self.masks)
        padding = self.tokens[number // len(self.layers)].eq(1)
        x = query.transpose(0, 1)
        size = attention.embed_dim // attention.num_heads
        scores, values = [], []
        for head in range(attention.num_heads):
            part = slice(head * size, (head + 1) * size)
            q, k, v = (
                linear(x)[..., part] for linear in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            scores.append(
                (q @ k.transpose(1, 2) / math.sqrt(size)).masked_fill(padding[:, None], -math.inf)
            )
            values.append(v)
        weights = torch.stack([each.softmax(-1) for each in scores]).mean(0).detach()
        drawn = uniform(number, weights.shape)
        mask = torch.zeros_like(weights)
        for b, padded in enumerate(padding.tolist()):
            real = [t for t, without in enumerate(padded) if not without]
            if self.masking == "magnitude":
                mask[b] = mask_of_largest(weights[b], real)
            else:
                mask[b] = random_mask(drawn[b], real)
        self.masks.append(mask)
        heads = [formula(each, mask, v) for each, v in zip(scores, values)]
        return attention.out_proj(torch.cat(heads, dim=-1)).transpose(0, 1), None


def transcription(kind, model, sample, masking, monkeypatch, dropout_masks):
    """The objective's value, its gradients by autograd alone, and the masks."""
    encoder = model.encoder.sentence_encoder
    features = []

    def keep(module, args, output):
        features.append(output["encoder_out"][0][0])

    if dropout_masks:
        dropout_masks.begin([0])
    with tiny.hooked(encoder, keep):
        clean, task_loss = tiny.logits_and_loss(kind, model, sample)
    if dropout_masks:
        dropout_masks.begin([1])
    masked = Masked(model, source_tokens(sample), masking)
    with monkeypatch.context() as patch, tiny.hooked(encoder, keep):
        for index, layer in enumerate(encoder.layers):
            patch.setattr(
                layer.self_attn,
                "forward",
                lambda query, index=index, **kwargs: masked(index, query, **kwargs),
            )
        attacked, _ = tiny.logits_and_loss(kind, model, sample)
    divergence = tiny.divergence("bi-kl", kind, clean, attacked)
    if kind == "masked-lm":
        scale = len(clean) / tiny.BATCH
        divergence = divergence + scale * tiny.divergence("bi-kl", kind, *features)
    value = task_loss + ALPHA * divergence
    value.backward()
    return value.detach(), tiny.gradients(model), masked.masks


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("masking", MASKINGS)
@pytest.mark.parametrize("dropout,recomputed", [(False, False), (True, False), (False, True)])
def test_gradients_equal_the_papers_objective(float64, monkeypatch, kind, masking, dropout, recomputed):
    rates = dict(dropout=tiny.DROPOUT, activation_dropout=tiny.DROPOUT, pooler_dropout=tiny.DROPOUT)
    model, sample = tiny.model(kind, **(rates if dropout else {})), tiny.sample(kind)
    dropout_masks = tiny.Masks() if dropout else None
    if dropout_masks:
        monkeypatch.setattr(torch.nn.functional, "dropout", dropout_masks)
    expected, reference, masks = transcription(kind, model, sample, masking, monkeypatch, dropout_masks)
    model.zero_grad()
    masked = [mask.sum().item() for mask in masks]
    assert all(each > 0 for each in masked)

    ours = criterion(kind, masking)
    drawn = iter([*range(len(masks)), *reversed(range(len(masks)))])  # again in the backward
    monkeypatch.setattr(naive_masks, "uniform", lambda like: uniform(next(drawn), like.shape))
    run_base = ours.run_base

    def numbered_run_base(model, sample, **options):
        if dropout_masks:
            dropout_masks.begin([0] if options.get("write") else [1])
        return run_base(model, sample, **options)

    monkeypatch.setattr(ours, "run_base", numbered_run_base)
    for layer in model.encoder.sentence_encoder.layers if recomputed else ():
        checkpoint_wrapper(layer)
    value, _, log = ours(model, sample)
    value.backward()
    torch.testing.assert_close(value.detach(), expected, rtol=1e-9, atol=1e-10)
    tiny.assert_same_gradients(tiny.gradients(model), reference)
    assert log["asa_loss"] > 1e-5 and "penalty_loss" not in log
    # Each layer's proportion of the real units, a sum over sentences, the mean over candidates.
    layers, calls = len(model.encoder.sentence_encoder.layers), source_tokens(sample)
    for layer in range(layers):
        shares = [
            mask.sum(dim=(1, 2)) / tokens.ne(1).sum(dim=1) ** 2
            for mask, tokens in zip(masks[layer::layers], calls)
        ]
        expected_share = torch.stack(shares).mean(0).sum()
        torch.testing.assert_close(log[f"masked_layer{layer + 1}"].double(), expected_share.double())


@pytest.mark.parametrize("masking", MASKINGS)
@pytest.mark.parametrize("kind", tiny.KINDS)
def test_at_rate_0_the_passes_are_equal_and_the_gradient_is_plain(float64, kind, masking):
    model, sample = tiny.model(kind), tiny.sample(kind)
    nothing = "asa_masking_schedule" if masking == "scheduled" else "asa_masking_rate"
    ours = criterion(kind, masking, **{nothing: "0:0" if masking == "scheduled" else 0.0})
    found = []
    for each in (ours.base, ours):
        model.zero_grad()
        loss, _, log = each(model, sample)
        loss.backward()
        found.append((loss, tiny.gradients(model)))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)
    assert abs(log["asa_loss"]) < 1e-12 and log["masked_proportion"] == 0


@pytest.mark.parametrize("model_class", [RobertaModel, AsaRobertaModel, BertModel])
@pytest.mark.parametrize("masking", MASKINGS)
def test_they_need_no_adversary_and_leave_one_alone(masking, model_class):
    kind = "classification"
    more = dict(layer_norm_epsilon=1e-12) if model_class is BertModel else {}
    model = tiny.model(kind, model_class, double=False, **more)
    loss, _, log = criterion(kind, masking)(model, tiny.sample(kind))
    loss.backward()
    assert log["asa_loss"] > 0 and 0 < log["masked_layer2"] < tiny.BATCH
    assert all(p.grad is None for name, p in model.named_parameters() if ".adversary." in name)


@pytest.mark.parametrize("masking", MASKINGS)
def test_they_cost_two_passes(masking):
    """The scores that magnitude looks at are those that the attention uses."""
    for kind in ("classification", "multiple-choice"):
        model, sample = tiny.model(kind, double=False), tiny.sample(kind)
        ours = criterion(kind, masking)
        plain = tiny.flops(ours.base, model, sample)
        assert tiny.flops(ours, model, sample) == pytest.approx(2 * plain, rel=0.01)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("given", [False, True])
def test_a_mask_without_gradient_leaves_those_of_the_rest_as_they_are(recompute, rate, given):
    torch.manual_seed(1)
    q, k, v = (torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    mask = torch.rand(2, 5, 5, dtype=torch.float64).gt(0.5).double()
    mask[..., 0] = 0
    towards = torch.randn(4, dtype=torch.float64)
    scores = (q @ k.transpose(-1, -2)).detach() if given else None
    torch.manual_seed(5)
    ours = _MaskedAttention.apply(q, k, v, (1 - mask)[:, None], rate, recompute, scores)
    torch.manual_seed(5)
    spared = torch.empty(2, 3, 5, 5, dtype=torch.bool).bernoulli_(1 - rate) / (1 - rate)
    expected = formula(q @ k.transpose(-1, -2), mask[:, None], v, spared)
    torch.testing.assert_close(ours, expected)
    found = [torch.autograd.grad((each * towards).sum(), (q, k, v)) for each in (ours, expected)]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("choose", [bernoulli, largest_scores])
def test_masks_spare_padding_and_at_least_one_unit_a_row(choose):
    torch.manual_seed(1)
    scores = torch.randn(3, 2, 5, 5)
    real = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [False] * 5])
    mask = choose(scores, real, 0.99999)
    assert set(mask.unique().tolist()) == {0.0, 1.0} and mask.dtype == torch.float32
    assert mask[1, 3:].sum() == 0 and mask[1, :, 3:].sum() == 0 and mask[2].sum() == 0
    assert (mask[0].sum(-1) == 4).all() and (mask[1, :3].sum(-1) == 2).all()
    assert choose(scores, real, 0.0).sum() == 0


def test_bernoulli_masks_each_unit_with_its_probability():
    torch.manual_seed(1)
    scores, real = torch.zeros(4000, 2, 6, 6), torch.ones(4000, 6, dtype=torch.bool)
    share = bernoulli(scores, real, 0.1).mean(dim=0)
    deviation = math.sqrt(0.1 * 0.9 / 4000)
    assert (share - 0.1).abs().max() < 4.5 * deviation


def test_magnitude_masks_the_largest_of_the_whole_matrix():
    """Also where a row has several of them, and others none."""
    scores = torch.zeros(1, 1, 4, 4)
    scores[0, 0, 1] = torch.tensor([5.0, 5.1, 0.0, 0.0])
    scores[0, 0, 3] = torch.tensor([0.0, 0.0, 0.0, 9.0])
    mask = largest_scores(scores, torch.ones(1, 4, dtype=torch.bool), 3 / 16)[0]
    assert mask.nonzero().tolist() == [[1, 0], [1, 1], [3, 3]]


def test_a_schedule_is_a_line_between_its_points():
    masks = naive_masks.naive_masks("scheduled", None, "10:0.5,20:0.1,40:0.2")
    assert masks is not None
    rates = [masks.rate(update) for update in (0, 10, 15, 20, 30, 40, 1000)]
    assert rates == pytest.approx([0.5, 0.5, 0.3, 0.1, 0.15, 0.2, 0.2])
    default = naive_masks.naive_masks("scheduled", None, None)
    assert default is not None and default.rate(0) == 0.5
    assert default.rate(10**6) == float(MEASURED_SCHEDULE.rpartition(":")[2])
    assert naive_masks.naive_masks("bernoulli", None, None) == NaiveMasks(False, [(0, 0.1)])
    assert naive_masks.naive_masks("adversary", None, None) is None


@pytest.mark.parametrize(
    "masking,options,message",
    [
        ("bernoulli", dict(asa_masking_rate=1.0), "--asa-masking-rate must be .* below 1, but is 1.0"),
        ("magnitude", dict(asa_masking_rate=-0.1), "--asa-masking-rate must be .* but is -0.1"),
        ("bernoulli", dict(asa_masking_rate=math.nan), "--asa-masking-rate must be .* but is nan"),
        ("adversary", dict(asa_masking_rate=0.1), "--asa-masking-rate is for .*, not for adversary"),
        ("scheduled", dict(asa_masking_rate=0.1), "--asa-masking-rate is for .*, not for scheduled"),
        ("magnitude", dict(asa_masking_schedule="0:0"), "-schedule is for .*, not for magnitude"),
        ("adversary", dict(asa_masking_schedule="0:0"), "-schedule is for .*, not for adversary"),
        ("scheduled", dict(asa_masking_schedule=""), "needs UPDATE:PROPORTION,.*not ''"),
        ("scheduled", dict(asa_masking_schedule="half"), "needs UPDATE:PROPORTION,.*not 'half'"),
        ("scheduled", dict(asa_masking_schedule="0:.5:1"), "needs UPDATE:PROPORTION"),
        ("scheduled", dict(asa_masking_schedule="0.5:.5"), "needs UPDATE:PROPORTION"),
        ("scheduled", dict(asa_masking_schedule="0:.5,0:.1"), "updates from 0 on that rise"),
        ("scheduled", dict(asa_masking_schedule="9:.5,0:.1"), "updates from 0 on that rise"),
        ("scheduled", dict(asa_masking_schedule="-1:.5"), "updates from 0 on that rise"),
        ("scheduled", dict(asa_masking_schedule="0:1"), "proportions of at least 0 and below 1"),
        ("scheduled", dict(asa_masking_schedule="0:nan"), "proportions of at least 0 and below 1"),
    ],
)
def test_nonsense_is_refused_in_one_line(masking, options, message):
    with pytest.raises(UserError, match=message) as error:
        tiny.criterion("asa_criterion", "classification", asa_masking=masking, **options)
    assert "\n" not in str(error.value)


def test_models_that_drop_layers_are_refused():
    kind = "classification"
    with pytest.raises(UserError, match="--encoder-layerdrop 0"):
        criterion(kind, "bernoulli")(tiny.model(kind, encoder_layerdrop=0.5), tiny.sample(kind))


def test_a_training_follows_its_schedule_and_goes_on_exactly(tmp_path, caplog):
    """On a plain RoBERTa; what is masked depends on the number of updates alone."""
    caplog.set_level("INFO")
    kind = "classification"
    data = training.write_data(tmp_path / "data", kind)
    schedule = "0:0.9,1:0.6,3:0.3,4:0"
    flags = ["--asa-masking", "scheduled", "--asa-masking-schedule", schedule, "--log-interval", "1"]
    flags += ["--log-format", "json", "--dropout", "0.1", "--attention-dropout", "0.1"]

    def train(name, updates):
        more = [*flags, "--max-update", str(updates)]
        return training.train(data, tmp_path / name, kind, "asa_criterion", *more, arch="roberta")

    whole = train("whole", 5)
    lines = training.logged(caplog, "train_inner")
    masked = [float(line["masked_proportion"]) for line in lines]
    assert masked == pytest.approx([0.9, 0.6, 0.45, 0.3, 0], abs=0.15) and masked[-1] == 0
    assert masked == sorted(masked, reverse=True)
    train("parts", 2)
    caplog.clear()
    again = train("parts", 5)
    torch.testing.assert_close(whole["model"], again["model"], rtol=0, atol=0)
    later = training.logged(caplog, "train_inner")
    assert [line["masked_proportion"] for line in later] == [
        line["masked_proportion"] for line in lines[2:]
    ]
