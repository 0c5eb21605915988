"""bilstm, text_cnn and text_han: what they compute, and what every method finds in them."""

import logging
import math
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from fairseq.modules.fairseq_dropout import FairseqDropout
from torch import nn

import tiny
from adv_plugins.models.word_vectors import read_word_vectors
from adv_plugins.shifted_weights import layers_of, matrices, shifted
from fairseq_compat.errors import UserError
from methods import METHODS

KINDS = tiny.TEXT_KINDS
HEAD = "sentence_classification_head"
REFUSED = {"rapt": "no Transformer layers", "yopo": "no Transformer layers", "asa": "advers"}


def logits(model, rows):
    return model(rows, features_only=True, classification_head_name=HEAD)[0]


def build(arch, **options):
    args = Namespace(**options)
    ARCH_CONFIG_REGISTRY[arch](args)
    task = SimpleNamespace(source_dictionary=tiny.dictionary())
    return ARCH_MODEL_REGISTRY[arch].build_model(args, task)


# What each computes of one sentence alone, (T, d) word embeddings, by its weights.


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def lstm(weights, words, backward):
    end = "_l0_reverse" if backward else "_l0"
    w, u, b, c = (weights[name + end] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    hidden, cell, states = torch.zeros(u.size(1)).to(w), torch.zeros(u.size(1)).to(w), []
    for word in words.flip(0) if backward else words:
        i, f, g, o = (w @ word + b + u @ hidden + c).chunk(4)
        cell = sigmoid(f) * cell + sigmoid(i) * torch.tanh(g)
        hidden = sigmoid(o) * torch.tanh(cell)
        states.append(hidden)
    return states[::-1] if backward else states


def gru(weights, words, backward):
    end = "_l0_reverse" if backward else "_l0"
    w, u, b, c = (weights[name + end] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    hidden, states = torch.zeros(u.size(1)).to(w), []
    for word in words.flip(0) if backward else words:
        inputs, before = (w @ word + b).chunk(3), (u @ hidden + c).chunk(3)
        r, z = sigmoid(inputs[0] + before[0]), sigmoid(inputs[1] + before[1])
        hidden = (1 - z) * torch.tanh(inputs[2] + r * before[2]) + z * hidden
        states.append(hidden)
    return states[::-1] if backward else states


def both_directions(cell, body, words):
    for layer in body.recurrent.recurrences:
        weights = dict(layer.named_parameters())
        ways = [cell(weights, words, backward) for backward in (False, True)]
        words = torch.stack([torch.cat(pair) for pair in zip(*ways)])
    return words, torch.cat([ways[0][-1], ways[1][0]])


def bilstm(body, words):
    return both_directions(lstm, body, words)[1]


def text_han(body, words):
    states, _ = both_directions(gru, body, words)
    scores = torch.tanh(states @ body.attention.weight.T + body.attention.bias) @ body.context.weight[0]
    weights = torch.exp(scores) / torch.exp(scores).sum()
    return (weights[:, None] * states).sum(0)


def text_cnn(body, words):
    maps = []
    for layer in body.convolutions:
        size = layer.kernel_size[0]
        short = torch.zeros(max(0, size - len(words)), words.size(1)).to(words)
        padded = torch.cat([words, short])
        for kernel, bias in zip(layer.weight, layer.bias):
            windows = range(len(padded) - size + 1)
            values = [(kernel * padded[at : at + size].T).sum() + bias for at in windows]
            maps.append(max(0 * values[0], *values))
    return torch.stack(maps)


@pytest.mark.parametrize("kind", KINDS)
def test_each_computes_its_equations_and_padding_changes_nothing(kind):
    """A sentence alone, one of a batch, in training and evaluation; also what has one word."""
    model = tiny.model(kind)
    body, head = model.encoder.sentence_encoder, model.classification_heads[HEAD].out_proj
    with torch.no_grad():
        body.embed_tokens.weight[1].normal_()  # padding's own vector reaches nothing
    rows = tiny.sample(kind, lengths=(12, 5, 1, 10))["net_input"]["src_tokens"]
    expected = []
    for row in rows:
        words = body.embed_tokens.weight[row[row != 1]]
        expected.append(head.weight @ globals()[kind](body, words) + head.bias)
    for mode in (model.train(), model.eval()):
        with torch.no_grad():
            torch.testing.assert_close(logits(mode, rows), torch.stack(expected).detach())
            wider = torch.nn.functional.pad(rows, (0, 9), value=1)
            torch.testing.assert_close(logits(mode, wider), logits(mode, rows))
            for row, whole in zip(rows, logits(mode, rows)):
                torch.testing.assert_close(logits(mode, row[row != 1][None])[0], whole)


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_a_bilstm_pools_all_words(pooling):
    model = tiny.model("bilstm", pooling=pooling)
    rows = tiny.sample("bilstm")["net_input"]["src_tokens"]
    found, _ = model(rows)
    body = model.encoder.sentence_encoder
    for row, features in zip(rows, found):
        states, _ = both_directions(lstm, body, body.embed_tokens.weight[row[row != 1]])
        own = states.amax(0) if pooling == "max" else states.sum(0) / len(states)
        torch.testing.assert_close(features, own)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_every_method_trains_them_or_says_why_not(kind, method):
    model, sample = tiny.model(kind, dropout=0.3), tiny.sample(kind)
    criterion = tiny.criterion(method.criterion, kind, **method.on)
    if method.name in REFUSED:
        with pytest.raises(UserError, match=REFUSED[method.name]) as error:
            criterion(model, sample)
        assert "\n" not in str(error.value)
        return
    for sequential in (False, True):
        chosen = tiny.criterion(method.criterion, kind, sequential_passes=sequential, **method.on)
        model.zero_grad()
        loss, _, log = chosen(model, sample)
        loss.backward()
        assert math.isfinite(loss.item()) and method.meter in log
        moved = [name for name, each in tiny.gradients(model).items() if each.abs().max() > 0]
        assert {name.split(".")[0] for name in moved} == {"encoder", "classification_heads"}


@pytest.mark.parametrize("kind", KINDS)
def test_all_dropout_is_fairseqs(kind):
    """Whose masks are drawn again, and whose rate is another one for a pass."""
    model = tiny.model(kind, dropout=0.2)
    assert not [m for m in model.modules() if isinstance(m, nn.Dropout)]
    assert all(m.dropout == 0 for m in model.modules() if isinstance(m, nn.RNNBase))
    rates = [m.p for m in model.modules() if isinstance(m, FairseqDropout)]
    assert rates == [0.2] * (2 if kind == "text_cnn" else 3)
    rat = tiny.criterion("rat_criterion", kind, adv_dropout_per_pass="0.0,0.0", adv_eps=0.0)
    assert rat(model, tiny.sample(kind))[2]["consistency_loss"].abs() < 1e-9
    rat = tiny.criterion("rat_criterion", kind, adv_dropout_per_pass="0.0,0.6", adv_eps=0.0)
    assert rat(model, tiny.sample(kind))[2]["consistency_loss"] > 1e-4
    assert [m.p for m in model.modules() if isinstance(m, FairseqDropout)] == rates


@pytest.mark.parametrize("kind", ["bilstm", "text_han"])
def test_cudnns_kernels_are_not_taken_where_they_cannot_be_differentiated(kind):
    model, rows = tiny.model(kind), tiny.sample(kind)["net_input"]["src_tokens"]
    seen = []
    layer = model.encoder.sentence_encoder.recurrent.recurrences[0]
    with tiny.hooked(layer, lambda *_: seen.append(torch.backends.cudnn.enabled)):
        logits(model.train(), rows).sum().backward()
        logits(model.eval(), rows).sum().backward()
        with torch.no_grad():
            logits(model, rows)
    assert seen == [True, False, True] and torch.backends.cudnn.enabled


@pytest.mark.parametrize("kind", KINDS)
def test_shifted_weights_are_seen_and_leave_with_the_context(kind):
    model, rows = tiny.model(kind), tiny.sample(kind)["net_input"]["src_tokens"]
    before = logits(model, rows)
    layers = layers_of(model)
    weights = [module._parameters[name] for layer in layers for module, name in matrices(layer)]
    own = [each for name, each in model.named_parameters() if each.dim() > 1]
    # all but the embeddings and the head
    assert len({id(each) for each in weights}) == len(weights) == len(own) - 2
    for weight in weights:  # every single one of them
        with shifted(layers, {weight: torch.full_like(weight, 0.3)}):
            inside = logits(model, rows)
            (gradient,) = torch.autograd.grad(inside.pow(2).sum(), weight)
        assert not torch.allclose(inside, before) and gradient.abs().max() > 0
        torch.testing.assert_close(logits(model, rows), before, rtol=0, atol=0)
    with pytest.raises(ZeroDivisionError), shifted(layers, {weights[0]: torch.ones_like(weights[0])}):
        logits(model, rows)
        raise ZeroDivisionError
    torch.testing.assert_close(logits(model, rows), before, rtol=0, atol=0)


@pytest.mark.parametrize("arch", KINDS)
def test_sizes_and_what_is_refused(arch):
    model = build(arch)
    assert model.encoder.sentence_encoder.embed_tokens.weight.shape == (len(tiny.dictionary()), 300)
    assert model.encoder.sentence_encoder.width == (300 if arch == "text_cnn" else 256)
    table = model.encoder.sentence_encoder.embed_tokens.weight
    assert table.abs().max() <= 0.25 and table[1].abs().max() == 0 and table.std() > 0.1
    for options, message in (
        (dict(dropout=1.0), "--dropout 1.0"),
        (dict(encoder_embed_dim=0), "--encoder-embed-dim 0"),
        (dict(embedding_dropout=-0.1), "--embedding-dropout -0.1"),
        (dict(pretrained_embedding="/nowhere"), "--pretrained-embedding /nowhere: no such file"),
        (dict(kernel_sizes="3,x"), "--kernel-sizes 3,x")
        if arch == "text_cnn"
        else (dict(encoder_layers=0), "--encoder-layers 0"),
    ):
        with pytest.raises(UserError, match=message):
            build(arch, **options)


def test_heads_that_do_not_fit_start_fresh(caplog):
    old = build("text_cnn", encoder_embed_dim=4)
    old.register_classification_head("other", 2)
    old.register_classification_head(HEAD, 3)
    new = build("text_cnn", encoder_embed_dim=4)
    new.register_classification_head(HEAD, 4)
    fresh = new.classification_heads[HEAD].out_proj.weight.clone()
    new.load_state_dict(old.state_dict(), strict=True)
    assert torch.equal(new.classification_heads[HEAD].out_proj.weight, fresh)
    same = build("text_cnn", encoder_embed_dim=4)
    same.register_classification_head(HEAD, 3)
    same.load_state_dict(old.state_dict(), strict=True)
    for name, weight in same.state_dict().items():
        assert torch.equal(weight, old.state_dict()[name])


def test_word_vectors(tmp_path, caplog):
    words = tiny.dictionary()
    path = tmp_path / "vectors.txt"
    lines = ["w1 1 2 3", "w3 0.5 -1 1e-2 ", "not there 1 1 1", "w1 9 9 9", "<s> 7 7 7"]
    for header in ([], ["400000 3"]):  # GloVe's and fastText's
        path.write_text("\n".join([*header, *lines]) + "\n", encoding="utf-8")
        table = torch.zeros(len(words), 3)
        with caplog.at_level(logging.INFO):
            assert read_word_vectors(str(path), words, table) == 2
        assert table[words.index("w1")].tolist() == [1, 2, 3]
        torch.testing.assert_close(table[words.index("w3")], torch.tensor([0.5, -1, 0.01]))
        assert table.abs().sum() == 6 + 1.51
        assert "vectors of 2 of 31 words; 29 start at random" in caplog.text
    model = build("text_cnn", encoder_embed_dim=3, pretrained_embedding=str(path))
    found = model.encoder.sentence_encoder.embed_tokens.weight
    assert found[words.index("w1")].tolist() == [1, 2, 3] and found.requires_grad
    assert found[words.index("w2")].abs().max() <= 0.25 and found[words.index("w2")].abs().min() > 0


@pytest.mark.parametrize(
    "text,message",
    [
        (b"w1 1 2\n", "line 1: 2 numbers, but --encoder-embed-dim is 3"),
        (b"w1 1 2 3 4\n", "line 1: 4 numbers, but --encoder-embed-dim is 3"),
        (b"w1 1 nan 3\n", "line 1: the vector of 'w1' is none"),
        (b"w1 1 x 3\n", "line 1: the vector of 'w1' is none"),
        (b"x 1 2 3\n", "has none of the 31 words"),
        (b"\xff\xfe 1 2 3\n", "no UTF-8 text"),
    ],
)
def test_word_vectors_that_do_not_fit(text, message, tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_bytes(text)
    with pytest.raises(UserError, match=message):
        read_word_vectors(str(path), tiny.dictionary(), torch.zeros(len(tiny.dictionary()), 3))
