"""Converted models compute in fairseq what they compute in transformers, both ways."""

import json
import shutil
import subprocess
import sys
from argparse import Namespace

import binarize
import convert_from_hf
import convert_to_hf
import hf_layout
import numpy as np
import pytest
import tokenizer_options
import torch
import training
from command import UserError
from fairseq import checkpoint_utils
from fairseq.data import Dictionary

transformers = pytest.importorskip("transformers", reason="the test extra installs transformers")
pytest.importorskip("safetensors", reason="the test extra installs safetensors")

SENTENCES = [
    "The cat sat on the mat, and nobody minded.",
    "Colourless green ideas sleep furiously!",
    "He said: 'never again', then did it again and again until the café closed at 10 p.m.",
    "No.",
]
FAMILIES = ("roberta", "xlm-roberta", "camembert", "bert")
SIZES = dict(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=3,
    num_attention_heads=2,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
PIECES = 50
TOLERANCE = dict(rtol=0, atol=1e-5)


def write_wordpiece(folder):
    """A vocabulary of letters, of pieces that continue a word, and of a few words."""
    letters = sorted(set("".join(SENTENCES).lower().replace(" ", "").replace("é", "e")))
    special = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = ["the", "cat", "again", "##ing", "##less"]
    tokens = [*special, *letters, *(f"##{letter}" for letter in letters if letter.isalnum()), *words]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    return len(tokens), dict(pad_token_id=0, type_vocab_size=2, max_position_embeddings=120)


def write_byte_level(folder):
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(SENTENCES, vocab_size=320, special_tokens=special)
    tokenizer.save_model(str(folder))
    # a row more than tokens, as some checkpoints have
    size = tokenizer.get_vocab_size() + 1
    return size, dict(pad_token_id=1, type_vocab_size=1, max_position_embeddings=122)


def write_pieces(folder, camembert):
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 3),
        model_prefix=str(folder / "sentencepiece.bpe"),
        vocab_size=PIECES,
        model_type="unigram",
        minloglevel=2,
    )
    specials = dict(bos_token_id=5, eos_token_id=6) if camembert else {}
    size = PIECES + (5 if camembert else 2)
    return size, dict(pad_token_id=1, type_vocab_size=1, max_position_embeddings=122, **specials)


def make_hf(folder, family, head="ForMaskedLM", **changes):
    """A random transformers model with its tokenizer's files, saved; returns the model."""
    folder.mkdir(parents=True)
    if family == "bert":
        size, special = write_wordpiece(folder)
    elif family == "roberta":
        size, special = write_byte_level(folder)
    else:
        size, special = write_pieces(folder, family == "camembert")
    name = hf_layout.FAMILIES[family].class_name
    epsilon = 1e-12 if family == "bert" else 1e-5
    config = getattr(transformers, f"{name}Config")(
        vocab_size=size, layer_norm_eps=epsilon, **special, **SIZES, **changes
    )
    torch.manual_seed(1)
    model = getattr(transformers, name + head)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases too: all of them have to arrive
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


def hf_ids(folder, family, sentence):
    """Ids as transformers' tokenizer of the family makes them, with the specials around."""
    if family == "bert":
        tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=True)
        return tokenizer(sentence)["input_ids"]
    if family == "roberta":
        from tokenizers import ByteLevelBPETokenizer

        files = (str(folder / "vocab.json"), str(folder / "merges.txt"))
        return [0, *ByteLevelBPETokenizer(*files).encode(sentence).ids, 2]
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.bpe.model"))
    # what transformers documents: specials first, the model's own pieces behind them
    offset, unknown = (4, 3) if family == "camembert" else (1, 3)
    ids = [index + offset if index else unknown for index in model.encode(sentence)]
    return [5, *ids, 6] if family == "camembert" else [0, *ids, 2]


def load_fairseq(folder):
    models, _, _ = checkpoint_utils.load_model_ensemble_and_task(
        [str(folder / "model.pt")], arg_overrides={"data": str(folder)}
    )
    return models[0].eval()


def encoder_of(folder):
    option, path = tokenizer_options.options_of_checkpoint(folder)
    values = {"sentencepiece": None, "wordpiece": None, "bpe_dir": None}
    values[option.removeprefix("--").replace("-", "_")] = path
    return tokenizer_options.load_encoder(Namespace(**values))


def fairseq_batch(folder):
    """(B, T) of SENTENCES with padding."""
    rows = [torch.tensor([0, *ids, 2]) for ids in encoder_of(folder).encode_batch(SENTENCES)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)


def hf_batch(folder, family, pad):
    rows = [torch.tensor(hf_ids(folder, family, sentence)) for sentence in SENTENCES]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for row, sequence in zip(mask, rows):
        row[: len(sequence)] = True
    return ids, mask


@pytest.fixture(scope="module", params=FAMILIES)
def converted(request, tmp_path_factory):
    """(family, transformers' model, its folder, fairseq's folder)"""
    root = tmp_path_factory.mktemp(request.param)
    model = make_hf(root / "hf", request.param)
    convert_from_hf.run(root / "hf", root / "fairseq")
    return request.param, model, root / "hf", root / "fairseq"


@torch.no_grad()
def test_hidden_states_and_word_scores_agree(converted):
    family, theirs, hf, ours = converted
    model, tokens = load_fairseq(ours), fairseq_batch(ours)
    ids, mask = hf_batch(hf, family, theirs.config.pad_token_id)
    assert ids.shape == tokens.shape and not mask.all()
    _, extra = model(tokens, features_only=True, return_all_hiddens=True)
    expected = theirs(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True)
    assert len(expected.hidden_states) == len(extra["inner_states"]) == 4
    for state, hidden in zip(extra["inner_states"], expected.hidden_states):
        torch.testing.assert_close(state.transpose(0, 1)[mask], hidden[mask], **TOLERANCE)
    order = hf_layout.fairseq_order(hf_layout.read_vocabulary(hf, hf_layout.read_config(hf)))
    torch.testing.assert_close(model(tokens)[0][mask], expected.logits[mask][:, order], **TOLERANCE)


@torch.no_grad()
def test_the_way_back_gives_the_same_model(converted, tmp_path):
    family, theirs, hf, ours = converted
    convert_to_hf.main([str(ours / "model.pt"), str(tmp_path / "back")])
    name = hf_layout.FAMILIES[family].class_name
    again, report = getattr(transformers, f"{name}ForMaskedLM").from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    ids, mask = hf_batch(hf, family, theirs.config.pad_token_id)
    expected = theirs(input_ids=ids, attention_mask=mask.long()).logits[mask]
    logits = again.eval()(input_ids=ids, attention_mask=mask.long()).logits[mask]
    torch.testing.assert_close(logits, expected, **TOLERANCE)


def test_text_becomes_the_same_tokens_in_fairseqs_own_bpe(converted):
    from fairseq.data import encoders

    family, _, _, ours = converted
    dictionary = Dictionary.load(str(ours / "dict.txt"))
    bpe = encoders.build_bpe(
        {
            "bert": Namespace(bpe="wordpiece", wordpiece_dir=str(ours)),
            "roberta": Namespace(
                bpe="gpt2",
                gpt2_encoder_json=str(ours / "encoder.json"),
                gpt2_vocab_bpe=str(ours / "vocab.bpe"),
            ),
        }.get(
            family,
            Namespace(bpe="sentencepiece", sentencepiece_model=str(ours / "sentencepiece.bpe.model")),
        )
    )
    for sentence, ids in zip(SENTENCES, encoder_of(ours).encode_batch(SENTENCES)):
        line = dictionary.encode_line(bpe.encode(sentence), append_eos=False, add_if_not_exist=False)
        np.testing.assert_array_equal(line.numpy(), ids)


KINDS = {
    "classification": ("ForSequenceClassification", "sentence_prediction"),
    "regression": ("ForSequenceClassification", "sentence_prediction"),
    "multiple-choice": ("ForMultipleChoice", "sentence_ranking"),
    "token-classification": ("ForTokenClassification", "token_classification"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ("bert", "roberta"))
def test_a_fine_tuned_model_predicts_the_same_in_transformers(family, kind, tmp_path):
    make_hf(tmp_path / "hf", family)
    start = convert_from_hf.run(tmp_path / "hf", tmp_path / "fairseq", layers=2)
    description = json.loads((start / convert_from_hf.ARCHITECTURE).read_text())
    data = training.write_data(tmp_path / "data", kind, words=start / "dict.txt")
    command = (
        f"{data} --save-dir {tmp_path / 'trained'} --criterion {KINDS[kind][1]} --cpu --num-workers 0 "
        f"{training.KIND_FLAGS[kind]} --optimizer sgd --lr 0.1 --max-update 2 --batch-size 4 "
        f"--finetune-from-model {start / 'model.pt'}"
    )
    flags = [*command.split(), *description["flags"]]
    if kind == "regression":
        flags.append("--regression-target")
    training.run(flags)
    checkpoint = tmp_path / "trained" / "checkpoint_last.pt"
    convert_to_hf.main([str(checkpoint), str(tmp_path / "back"), "--pretrained", str(start)])

    name = hf_layout.FAMILIES[family].class_name
    theirs, report = getattr(transformers, name + KINDS[kind][0]).from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    models, _, _ = checkpoint_utils.load_model_ensemble_and_task(
        [str(checkpoint)], arg_overrides={"data": str(data)}
    )
    head = "sentence_classification_head"
    with torch.no_grad():
        expected = models[0].eval()(fairseq_batch(start), classification_head_name=head)[0]
    ids, mask = hf_batch(tmp_path / "hf", family, theirs.config.pad_token_id)
    inputs = {"input_ids": ids, "attention_mask": mask.long()}
    if kind == "multiple-choice":
        inputs = {key: value[None] for key, value in inputs.items()}
        expected = expected.T
    elif family == "bert":  # segments play no part any more
        inputs["token_type_ids"] = torch.ones_like(ids)
    with torch.no_grad():
        logits = theirs.eval()(**inputs).logits
    if kind == "token-classification":
        logits, expected = logits[mask], expected[mask]
    torch.testing.assert_close(logits, expected, **TOLERANCE)
    assert theirs.config.num_hidden_layers == 2
    if kind in ("classification", "regression"):
        expected_type = "regression" if kind == "regression" else "single_label_classification"
        assert theirs.config.problem_type == expected_type


@torch.no_grad()
def test_the_real_minilm_gives_real_hidden_states(tmp_path):
    try:
        source = convert_from_hf.find_source(convert_from_hf.Path("minilm"))
    except UserError as error:
        pytest.skip(str(error))
    start = convert_from_hf.run(source, tmp_path / "minilm")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    theirs = transformers.AutoModel.from_pretrained(source).eval()
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    mask = batch["attention_mask"].bool()
    expected = theirs(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])[0]
    features, _ = load_fairseq(start)(fairseq_batch(start), features_only=True)
    torch.testing.assert_close(features[mask], expected[mask], **TOLERANCE)
    assert expected[mask].std() > 0.1


def test_the_wrong_epsilon_would_be_seen(converted):
    family, _, _, ours = converted
    norms = load_fairseq(ours).encoder.sentence_encoder.layernorm_embedding
    assert norms.eps == (1e-12 if family == "bert" else 1e-5)


def test_bin_files_and_old_names_are_read(tmp_path):
    make_hf(tmp_path / "hf", "bert")
    convert_from_hf.run(tmp_path / "hf", tmp_path / "new")
    weights = hf_layout.read_weights(tmp_path / "hf")
    (tmp_path / "hf" / "model.safetensors").unlink()
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for key, v in weights.items()
    }
    torch.save(old, tmp_path / "hf" / "pytorch_model.bin")
    convert_from_hf.run(tmp_path / "hf", tmp_path / "old")
    new, old = (
        torch.load(tmp_path / name / "model.pt", weights_only=True)["model"] for name in ("new", "old")
    )
    assert all(torch.equal(new[key], old[key]) for key in new)


@pytest.mark.parametrize(
    "entry,message",
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2'; known are bert"),
        ({"hidden_act": "silu"}, "hidden_act 'silu' has no like"),
        ({"position_embedding_type": "relative_key"}, "only absolute position"),
        ({"vocab_size": 7}, "does not fit the model"),
        ({"intermediate_size": 25}, "does not fit the model"),
    ],
)
def test_what_cannot_be_converted_is_refused(entry, message, tmp_path):
    make_hf(tmp_path / "hf", "bert")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps({**config, **entry}))
    with pytest.raises(UserError, match=message):
        convert_from_hf.run(tmp_path / "hf", tmp_path / "fairseq")
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_missing_files_and_existing_folders_are_named(converted, tmp_path):
    _, _, hf, ours = converted
    with pytest.raises(UserError, match="exists already"):
        convert_from_hf.run(hf, ours)
    with pytest.raises(UserError, match="--layers 9: the model has 3"):
        convert_from_hf.run(hf, tmp_path / "x", layers=9)
    with pytest.raises(UserError, match=r"config\.json: no such file"):
        convert_from_hf.run(tmp_path, tmp_path / "x")
    with pytest.raises(SystemExit, match="no such checkpoint"):
        convert_to_hf.main([str(tmp_path / "x.pt"), str(tmp_path / "y")])
    shutil.copyfile(ours / "model.pt", tmp_path / "model.pt")
    with pytest.raises(SystemExit, match="--pretrained"):
        convert_to_hf.main([str(tmp_path / "model.pt"), str(tmp_path / "y")])


@torch.no_grad()
def test_fairseqs_own_roberta_goes_to_transformers(real_data, tmp_path):
    bpe = real_data / "gpt2_bpe"
    sizes = (
        "--encoder-layers 2 --encoder-embed-dim 8 --encoder-ffn-embed-dim 16 "
        "--encoder-attention-heads 2 --max-positions 64 --tokens-per-sample 64"
    )
    flags = ["--arch", "roberta", *sizes.split()]
    state = convert_from_hf.build_checkpoint(flags, None, bpe)
    torch.save(state, tmp_path / "model.pt")
    convert_to_hf.main([str(tmp_path / "model.pt"), str(tmp_path / "hf"), "--bpe-dir", str(bpe)])
    model = transformers.RobertaForMaskedLM.from_pretrained(tmp_path / "hf").eval()
    tokenizer = transformers.RobertaTokenizerFast.from_pretrained(tmp_path / "hf")
    ours = [[0, *ids.tolist(), 2] for ids in binarize.Gpt2Bpe(bpe).encode_batch(SENTENCES)]
    assert tokenizer(SENTENCES)["input_ids"] == ours
    models, _, _ = checkpoint_utils.load_model_ensemble_and_task(
        [str(tmp_path / "model.pt")], arg_overrides={"data": str(bpe)}
    )
    for ids in ours:
        expected = models[0].eval()(torch.tensor([ids]))[0]
        torch.testing.assert_close(model(torch.tensor([ids])).logits, expected, **TOLERANCE)


def test_the_command_line_has_help():
    for script in ("convert_from_hf.py", "convert_to_hf.py"):
        command = [sys.executable, str(training.ROOT / "scripts" / script), "--help"]
        assert "fairseq" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
