"""What a BERT has beside a RoBERTa: segments, and the pooler that its heads begin as."""

import copy

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.modules.checkpoint_activations import checkpoint_wrapper

import tiny
import training
from adv_plugins.models.bert import POOLER, AsaBertModel, BertModel, segment_ids
from methods import variants

FIRST_END = 2  # where the first </s> of every sequence is
TABLE = "encoder.sentence_encoder.embed_positions."
SIZES = (
    "--encoder-layers 2 --encoder-embed-dim 8 --encoder-ffn-embed-dim 16 --encoder-attention-heads 2 "
    "--max-positions 32"
)


@pytest.mark.parametrize(
    "tokens,segments",
    [
        ([0, 7, 8, 2, 1, 1], [0, 0, 0, 0]),  # one sentence
        ([0, 7, 2, 8, 2, 1], [0, 0, 0, 1, 1]),  # BERT's pair
        ([0, 7, 2, 2, 8, 2], [0, 0, 0, 1, 1, 1]),  # with RoBERTa's two separators
        ([0, 2, 8, 9, 2, 1], [0, 0, 1, 1, 1]),  # an empty first sentence
        ([0, 7, 2, 2, 1, 1], [0, 0, 0, 1]),  # an empty second one
        ([0, 7, 2, 8, 9, 8], [0, 0, 0, 1, 1, 1]),  # a pair that is cut
    ],
)
def test_segments_follow_from_the_tokens(tokens, segments):
    assert segment_ids(torch.tensor([tokens]), end=2)[0, : len(segments)].tolist() == segments


def pairs(kind):
    """A batch in which every sequence is a pair, its first </s> at one place."""
    sample = tiny.sample(kind)
    for key, value in sample.items():
        if key.startswith("net_input"):
            value["src_tokens"][:, FIRST_END] = 2
    if kind == "token-classification":
        sample["target"][:, FIRST_END] = tiny.NO_LABEL
    if kind == "masked-lm":
        sample["target"][:, FIRST_END] = 1
    return sample


def segmented_and_folded(kind):
    """A model with segments, and one whose positions are the sums that those pairs lead to."""
    rates = dict(dropout=tiny.DROPOUT, attention_dropout=tiny.DROPOUT, layer_norm_epsilon=1e-12)
    model = tiny.model(kind, AsaBertModel, segments=2, **rates)
    folded = tiny.model(kind, AsaBertModel, **rates)
    state = copy.deepcopy(model.state_dict())
    first, second = state.pop(f"{TABLE}segments.weight")
    table = state[f"{TABLE}weight"]
    table[2:] += first
    if kind != "masked-lm":
        table[2 + FIRST_END + 1 :] += second - first
    folded.load_state_dict(state)
    return model, folded


@pytest.mark.parametrize("recomputed", (False, True))
@pytest.mark.parametrize("method,more", variants({"adv_passes": 3}, {"noise_max_layer": 2}))
@pytest.mark.parametrize("kind", tiny.KINDS)
def test_every_method_hears_the_segments(float64, kind, method, more, recomputed):
    """In each pass, call and recomputation: loss and gradients are those of the folded positions."""
    found = []
    for model in segmented_and_folded(kind):
        if recomputed:
            for index, layer in enumerate(model.encoder.sentence_encoder.layers):
                model.encoder.sentence_encoder.layers[index] = checkpoint_wrapper(layer)
        torch.manual_seed(5)
        criterion = tiny.criterion(method.criterion, kind, **{**method.on, **more})
        loss, _, _log = criterion(model, pairs(kind))
        loss.backward()
        found.append((loss, tiny.gradients(model)))
    (loss, ours), (expected, theirs) = found
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-11)
    table = ours.pop(f"{TABLE}segments.weight")
    tiny.assert_same_gradients({name: ours[name] for name in theirs}, theirs)
    # of a row: the sum over the places that heard it
    second = 0 if kind == "masked-lm" else theirs[f"{TABLE}weight"][2 + FIRST_END + 1 :].sum(dim=0)
    torch.testing.assert_close(table.sum(dim=0), theirs[f"{TABLE}weight"].sum(dim=0))
    torch.testing.assert_close(table[1], second + torch.zeros_like(table[1]))


def test_blocks_of_running_text_are_one_segment():
    model = tiny.model("masked-lm", BertModel, segments=2, layer_norm_epsilon=1e-12).eval()
    sample = pairs("masked-lm")
    tokens, masked = sample["net_input"]["src_tokens"], sample["target"].ne(1)
    text = model(tokens, masked_tokens=masked)[0]
    pair = model(tokens)[0][masked]
    assert (text - pair).abs().max() > 1e-3
    with torch.no_grad():
        rows = model.encoder.sentence_encoder.embed_positions.segments.weight
        rows[1] = rows[0]
    torch.testing.assert_close(model(tokens)[0][masked], text)


def test_without_the_option_nothing_has_changed():
    """The same weights from the same seed; checkpoints made before there was the option load."""
    built = tiny.model("classification", BertModel, layer_norm_epsilon=1e-12)
    assert not hasattr(built.args, "segments")  # as in such a checkpoint
    plain = tiny.model("classification")
    assert list(built.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(built.state_dict(), plain.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("segments", (1, -1, 1000))
def test_other_numbers_of_segments_are_refused(segments):
    with pytest.raises(ValueError, match=f"--segments {segments}: 2 for"):
        tiny.model("classification", BertModel, segments=segments, layer_norm_epsilon=1e-12)


def test_a_copied_model_has_segments_of_its_own():
    """fairseq's EMA copies the model."""
    model = tiny.model("classification", BertModel, segments=2, layer_norm_epsilon=1e-12).eval()
    tokens = pairs("classification")["net_input"]["src_tokens"]
    copied = copy.deepcopy(model)
    before = copied(tokens)[0].detach()
    with torch.no_grad():
        model.encoder.sentence_encoder.embed_positions.segments.weight.add_(1)
    torch.testing.assert_close(copied(tokens)[0], before, rtol=0, atol=0)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A masked LM with a pooler, as convert_from_hf.py writes it, and its pooler."""
    root = tmp_path_factory.mktemp("pretrained")
    data = training.write_data(root / "data", "masked-lm")
    flags = (*SIZES.split(), "--segments", "2", "--max-update", "1")
    training.train(data, root, "masked-lm", "masked_lm", *flags, arch="bert_like")
    state = torch.load(root / "checkpoint_last.pt", weights_only=True)
    torch.manual_seed(2)
    pooler = {"weight": torch.randn(8, 8), "bias": torch.randn(8)}
    state["model"].update({POOLER + part: value for part, value in pooler.items()})
    torch.save(state, root / "model.pt")
    return root / "model.pt", pooler


def begin(pretrained, folder, kind, *flags, arch="bert_like"):
    """Fine-tuning's first weights: with a learning rate of 0 they are what training ends with."""
    data = training.write_data(folder / "data", kind)
    criterion = {"multiple-choice": "sentence_ranking", "token-classification": "token_classification"}
    command = ("--segments", "2", "--finetune-from-model", str(pretrained), "--lr", "0", *flags)
    return training.train(
        data,
        folder,
        kind,
        criterion.get(kind, "sentence_prediction"),
        *(*command, "--max-update", "1"),
        arch=arch,
        optimizer="--optimizer sgd",
    )["model"]


HEAD = "classification_heads.sentence_classification_head."


@pytest.mark.parametrize("arch", ("bert_like", "asa_bert_like"))
@pytest.mark.parametrize("kind", ("classification", "regression", "multiple-choice"))
def test_a_fresh_head_begins_as_the_pooler(pretrained, tmp_path, kind, arch):
    checkpoint, pooler = pretrained
    flags = ("--regression-target",) if kind == "regression" else ()
    found = begin(checkpoint, tmp_path, kind, *flags, arch=arch)
    for part, value in pooler.items():
        torch.testing.assert_close(found[f"{HEAD}dense.{part}"], value, rtol=0, atol=0)
    output = found[f"{HEAD}out_proj.weight"]
    assert 0 < output.std() < 0.5 and not output.isnan().any()  # fairseq's own initialisation
    assert not any(name.startswith("pooler") for name in found)
    start = torch.load(checkpoint, weights_only=True)["model"]
    name = f"{TABLE}segments.weight"
    torch.testing.assert_close(found[name], start[name], rtol=0, atol=0)


def test_a_head_that_the_checkpoint_has_stays_its_own(pretrained, tmp_path):
    checkpoint, _ = pretrained
    begin(checkpoint, tmp_path / "first", "classification")
    fine_tuned = tmp_path / "first" / "checkpoint_last.pt"
    state = torch.load(fine_tuned, weights_only=True)
    state["model"] = {
        name: torch.full_like(value, 0.25) if name.startswith(HEAD) else value
        for name, value in state["model"].items()
    }
    state["model"].update({POOLER + "weight": torch.ones(8, 8), POOLER + "bias": torch.ones(8)})
    torch.save(state, fine_tuned)
    found = begin(fine_tuned, tmp_path / "second", "classification")
    assert all((found[n] == 0.25).all() for n in found if n.startswith(HEAD))


def test_token_heads_and_masked_lms_have_no_use_for_it(pretrained, tmp_path):
    checkpoint, _ = pretrained
    found = begin(checkpoint, tmp_path, "token-classification")
    assert not any(name.startswith("pooler") for name in found)
    data = training.write_data(tmp_path / "text", "masked-lm")
    models, _, _ = checkpoint_utils.load_model_ensemble_and_task(
        [str(checkpoint)], arg_overrides={"data": str(data)}
    )
    assert models[0].encoder.sentence_encoder.embed_positions.segments.weight.shape == (2, 8)


def test_a_checkpoint_without_a_pooler_begins_as_before(pretrained, tmp_path):
    """The head is that of the same seed, untouched."""
    checkpoint, _ = pretrained
    state = torch.load(checkpoint, weights_only=True)
    state["model"] = {n: v for n, v in state["model"].items() if not n.startswith(POOLER)}
    torch.save(state, tmp_path / "model.pt")
    found = begin(tmp_path / "model.pt", tmp_path / "run", "classification")
    dense = found[f"{HEAD}dense.weight"]
    assert 0 < dense.std() < 0.5 and (found[f"{HEAD}dense.bias"].abs() < 0.5).all()
