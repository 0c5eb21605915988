"""Converted models compute in fairseq what they compute in transformers, both ways."""

import importlib.util
import itertools
import json
import shutil
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary

import training
from adv_plugins_cli import convert, convert_from_hf, convert_to_hf
from adv_plugins_cli.checkpoints import architecture, hf_files, hf_layout, hf_vocabulary
from adv_plugins_cli.command import UserError
from adv_plugins_cli.data import binarize, tokenizer_options

transformers = pytest.importorskip("transformers", reason="the test extra installs transformers")
pytest.importorskip("safetensors", reason="the test extra installs safetensors")

SENTENCES = [
    "The cat sat on the mat, and nobody minded.",
    "Colourless green ideas sleep furiously!",
    "He said: 'never again', then did it again and again until the café closed at 10 p.m.",
    "No.",
]
PAIRS = [*itertools.pairwise(SENTENCES), (SENTENCES[-1], SENTENCES[0])]
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
    tokenizer = tokenizer_options.find_tokenizer(folder)
    assert tokenizer is not None
    return tokenizer_options.load_encoder(tokenizer)


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


def fairseq_pairs(folder, pairs=PAIRS):
    """(B, T) of pairs as fairseq's tasks write BERT's: one </s> between, one at the end."""
    encoder = encoder_of(folder)
    rows = [[0, *a, 2, *b, 2] for a, b in (encoder.encode_batch(pair) for pair in pairs)]
    rows = [torch.tensor(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)


def bert_pairs(folder, pairs=PAIRS):
    """The same as transformers' tokenizer writes them, segments included."""
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=True)
    inputs = tokenizer(*map(list, zip(*pairs)), padding=True, return_tensors="pt")
    assert inputs["token_type_ids"].unique().tolist() == [0, 1]
    return inputs


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
    order = hf_vocabulary.fairseq_order(hf_vocabulary.read_vocabulary(hf, hf_layout.read_config(hf)))
    torch.testing.assert_close(model(tokens)[0][mask], expected.logits[mask][:, order], **TOLERANCE)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """(transformers' BertForPreTraining, its folder, fairseq's folder)"""
    root = tmp_path_factory.mktemp("pairs")
    model = make_hf(root / "hf", "bert", "ForPreTraining")
    convert_from_hf.run(root / "hf", root / "fairseq")
    return model, root / "hf", root / "fairseq"


@torch.no_grad()
def test_hidden_states_and_word_scores_of_pairs_agree(bert):
    theirs, hf, ours = bert
    assert (theirs.bert.embeddings.token_type_embeddings.weight.diff(dim=0).abs() > 0.05).any()
    model, tokens, inputs = load_fairseq(ours), fairseq_pairs(ours), bert_pairs(hf)
    mask = inputs["attention_mask"].bool()
    assert tokens.shape == mask.shape and not mask.all()
    _, extra = model(tokens, features_only=True, return_all_hiddens=True)
    expected = theirs(**inputs, output_hidden_states=True)
    assert len(expected.hidden_states) == len(extra["inner_states"]) == 4
    for state, hidden in zip(extra["inner_states"], expected.hidden_states):
        torch.testing.assert_close(state.transpose(0, 1)[mask], hidden[mask], **TOLERANCE)
    order = hf_vocabulary.fairseq_order(hf_vocabulary.read_vocabulary(hf, hf_layout.read_config(hf)))
    words = expected.prediction_logits[mask][:, order]
    torch.testing.assert_close(model(tokens)[0][mask], words, **TOLERANCE)


@torch.no_grad()
def test_the_masked_lm_criterion_reads_blocks_of_one_segment(bert):
    theirs, hf, ours = bert
    model, tokens, inputs = load_fairseq(ours), fairseq_pairs(ours), bert_pairs(hf)
    mask = inputs["attention_mask"].bool()
    inputs["token_type_ids"] = torch.zeros_like(inputs["token_type_ids"])
    order = hf_vocabulary.fairseq_order(hf_vocabulary.read_vocabulary(hf, hf_layout.read_config(hf)))
    expected = theirs(**inputs).prediction_logits[mask][:, order]
    torch.testing.assert_close(model(tokens, masked_tokens=mask)[0], expected, **TOLERANCE)


@torch.no_grad()
def test_segments_and_pooler_go_back(bert, tmp_path):
    theirs, hf, ours = bert
    convert_to_hf.main([str(ours / "model.pt"), str(tmp_path / "back")])
    again = transformers.AutoModel.from_pretrained(tmp_path / "back").eval()
    inputs = bert_pairs(hf)
    found, expected = again(**inputs), theirs.bert(**inputs)
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state, **TOLERANCE)
    torch.testing.assert_close(found.pooler_output, expected.pooler_output, **TOLERANCE)


@torch.no_grad()
def test_a_folder_made_before_there_were_segments_is_what_it_was(bert, tmp_path):
    """Segment 0 in its positions, no pooler, and options that know of neither."""
    theirs, hf, ours = bert
    old = tmp_path / "old"
    shutil.copytree(ours, old)
    state = torch.load(old / "model.pt", weights_only=True)
    rows = state["model"].pop(hf_layout.OUR_SEGMENTS)
    state["model"][hf_layout.POSITIONS][2:] += rows[0]
    for part in ("weight", "bias"):
        del state["model"][f"{hf_layout.POOLER}{part}"]
    del state["cfg"]["model"].segments
    torch.save(state, old / "model.pt")
    inputs = bert_pairs(hf)
    mask = inputs["attention_mask"].bool()
    inputs["token_type_ids"] = torch.zeros_like(inputs["token_type_ids"])
    expected = theirs.bert(**inputs).last_hidden_state[mask]
    features, _ = load_fairseq(old)(fairseq_pairs(old), features_only=True)
    torch.testing.assert_close(features[mask], expected, **TOLERANCE)
    convert_to_hf.main([str(old / "model.pt"), str(tmp_path / "back")])
    again = transformers.BertForMaskedLM.from_pretrained(tmp_path / "back").eval()
    inputs["token_type_ids"] += 1  # segments play no part in it
    torch.testing.assert_close(again.bert(**inputs).last_hidden_state[mask], expected, **TOLERANCE)


def test_flags_are_the_architecture_and_its_sizes(converted):
    _, _, _, ours = converted
    flags = json.loads((ours / architecture.ARCHITECTURE).read_text())["flags"]
    assert flags[0] == "--arch" and len(flags) % 2 == 0
    names = {"--arch", "--layer-norm-epsilon", "--segments", "--max-positions", "--activation-fn"}
    assert all(flag in names or flag.startswith("--encoder-") for flag in flags[::2])


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


def fine_tune(root, family, kind, *flags, head="ForMaskedLM"):
    """A converted model of two layers, trained on random data; returns its checkpoint and folders."""
    make_hf(root / "hf", family, head)
    start = convert_from_hf.run(root / "hf", root / "fairseq", layers=2)
    description = json.loads((start / architecture.ARCHITECTURE).read_text())
    data = training.write_data(root / "data", kind, words=start / "dict.txt")
    command = (
        f"{data} --save-dir {root / 'trained'} --criterion {KINDS[kind][1]} --cpu --num-workers 0 "
        f"{training.KIND_FLAGS[kind]} --optimizer sgd --lr 0.1 --max-update 2 --batch-size 4 "
        f"--finetune-from-model {start / 'model.pt'}"
    )
    if kind == "regression":
        flags = (*flags, "--regression-target")
    training.run([*command.split(), *description["flags"], *flags])
    return root / "trained" / "checkpoint_last.pt", start, data


def load_trained(checkpoint, data):
    models, _, _ = checkpoint_utils.load_model_ensemble_and_task(
        [str(checkpoint)], arg_overrides={"data": str(data)}
    )
    return models[0].eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ("bert", "roberta"))
def test_a_fine_tuned_model_predicts_the_same_in_transformers(family, kind, tmp_path):
    head = "ForPreTraining" if family == "bert" else "ForMaskedLM"
    checkpoint, start, data = fine_tune(tmp_path, family, kind, head=head)
    convert_to_hf.main([str(checkpoint), str(tmp_path / "back"), "--pretrained", str(start)])

    name = hf_layout.FAMILIES[family].class_name
    theirs, report = getattr(transformers, name + KINDS[kind][0]).from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    if family == "bert":
        tokens, inputs = fairseq_pairs(start), dict(bert_pairs(tmp_path / "hf"))
        mask = inputs["attention_mask"].bool()
    else:
        tokens = fairseq_batch(start)
        ids, mask = hf_batch(tmp_path / "hf", family, theirs.config.pad_token_id)
        inputs = {"input_ids": ids, "attention_mask": mask.long()}
    model, head = load_trained(checkpoint, data), "sentence_classification_head"
    with torch.no_grad():
        expected = model(tokens, classification_head_name=head)[0]
    if kind == "multiple-choice":
        inputs = {key: value[None] for key, value in inputs.items()}
        expected = expected.T
    with torch.no_grad():
        logits = theirs.eval()(**inputs).logits
    if kind == "token-classification":
        logits, expected = logits[mask], expected[mask]
    torch.testing.assert_close(logits, expected, **TOLERANCE)
    assert theirs.config.num_hidden_layers == 2
    if kind in ("classification", "regression"):
        expected_type = "regression" if kind == "regression" else "single_label_classification"
        assert theirs.config.problem_type == expected_type


def rename_labels(checkpoint, data, names):
    """Call the classes otherwise, as if it had been trained so."""
    (data / "label" / "dict.txt").write_text("".join(f"{name} 1\n" for name in names))
    state = torch.load(checkpoint)
    torch.save({**state, "task_state": {}}, checkpoint)


@pytest.mark.parametrize("text", (SENTENCES[0], dict(text=SENTENCES[0], text_pair=SENTENCES[2])))
@pytest.mark.parametrize("where", ("found", "--data-bin", "--label-dict", "--numbered-labels"))
def test_a_pipeline_names_the_classes(text, where, tmp_path):
    """MRPC's class 0 is called 1."""
    checkpoint, start, data = fine_tune(tmp_path, "bert", "classification")
    names = ["1", "0", "not_entailment"]
    rename_labels(checkpoint, data, names)
    options = []
    if where != "found":
        moved = tmp_path / "moved"
        data.rename(moved)
        data = moved
        option = {"--data-bin": [data], "--label-dict": [data / "label" / "dict.txt"]}
        options = [where, *map(str, option.get(where, []))]
    if where == "--numbered-labels":
        names = ["LABEL_0", "LABEL_1", "LABEL_2"]
    back = tmp_path / "back"
    convert_to_hf.main([str(checkpoint), str(back), "--pretrained", str(start), *options])
    pipeline = transformers.pipeline("text-classification", model=str(back), device="cpu")
    found = pipeline([text], top_k=None)[0]
    pair = (text, "") if isinstance(text, str) else (text["text"], text["text_pair"])
    encoder = encoder_of(start)
    a, b = encoder.encode_batch(pair)
    tokens = torch.tensor([[0, *a, 2, *([] if isinstance(text, str) else [*b, 2])]])
    with torch.no_grad():
        head = "sentence_classification_head"
        logits = load_trained(checkpoint, data)(tokens, classification_head_name=head)[0][0]
    expected = dict(zip(names, logits.softmax(-1).tolist()))
    assert {each["label"]: each["score"] for each in found} == pytest.approx(expected, abs=1e-5)
    config = json.loads((back / "config.json").read_text())
    assert config["label2id"] == {name: number for number, name in enumerate(names)}


def test_a_pipeline_names_the_classes_of_words(tmp_path):
    checkpoint, start, _ = fine_tune(tmp_path, "bert", "token-classification")
    back = tmp_path / "back"
    convert_to_hf.main([str(checkpoint), str(back), "--pretrained", str(start)])
    pipeline = transformers.pipeline("token-classification", model=str(back), ignore_labels=[])
    found = pipeline(SENTENCES[0])
    assert len(found) > 5 and {each["entity"] for each in found} <= set(training.LABELS)
    config = json.loads((back / "config.json").read_text())
    assert list(config["id2label"].values()) == training.LABELS


def test_labels_that_are_not_found_or_do_not_fit_are_refused(tmp_path):
    checkpoint, start, data = fine_tune(tmp_path, "bert", "classification")
    back, folder = tmp_path / "back", tmp_path / "moved"
    request = [str(checkpoint), str(back), "--pretrained", str(start)]
    data.rename(folder)
    # The record of the training is enough.
    names = binarize.load_dictionary(folder / "label" / "dict.txt").symbols[4:]
    convert_to_hf.main([*request[:1], str(tmp_path / "recorded"), *request[2:]])
    config = json.loads((tmp_path / "recorded" / "config.json").read_text())
    assert list(config["label2id"]) == names
    rename_labels(checkpoint, folder, names)
    with pytest.raises(SystemExit, match="--data-bin.*--label-dict.*--numbered-labels") as error:
        convert_to_hf.main(request)
    assert "dict.txt: no such file" in str(error.value)
    with pytest.raises(SystemExit, match="names 0 classes, the head has 3"):
        (folder / "empty.txt").write_text("")
        convert_to_hf.main([*request, "--label-dict", str(folder / "empty.txt")])
    with pytest.raises(SystemExit, match="nothing.txt"):
        convert_to_hf.main([*request, "--label-dict", str(folder / "nothing.txt")])
    assert not back.exists()


def test_the_word_minilm_means_the_package_beside_an_earlier_conversion(tmp_path, monkeypatch):
    """Which left a folder of that name; one with somebody's weights is what was named."""
    monkeypatch.chdir(tmp_path)
    package = SimpleNamespace(submodule_search_locations=["/package"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: package)
    source = Path("minilm")
    assert convert_from_hf.find_source(source) == Path("/package/model")
    source.mkdir()
    assert convert_from_hf.find_source(source) == source
    (source / "architecture.json").write_text("{}")
    assert convert_from_hf.find_source(source) == Path("/package/model")


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


@torch.no_grad()
def test_the_real_minilm_gives_real_pairs_of_rte_what_bert_gives_them(real_data, tmp_path):
    try:
        source = convert_from_hf.find_source(convert_from_hf.Path("minilm"))
    except UserError as error:
        pytest.skip(str(error))
    start = convert_from_hf.run(source, tmp_path / "minilm")
    lines = (real_data / "glue" / "RTE" / "dev.tsv").read_text("utf-8").splitlines()[1:33]
    pairs = [tuple(line.split("\t")[1:3]) for line in lines]
    theirs = transformers.AutoModel.from_pretrained(source).eval()
    inputs, tokens = bert_pairs(source, pairs), fairseq_pairs(start, pairs)
    mask = inputs["attention_mask"].bool()
    expected = theirs(**inputs)
    features, _ = load_fairseq(start)(tokens, features_only=True)
    torch.testing.assert_close(features[mask], expected.last_hidden_state[mask], **TOLERANCE)
    inputs["token_type_ids"] = torch.zeros_like(inputs["token_type_ids"])
    single = theirs(**inputs).last_hidden_state
    assert (single - expected.last_hidden_state)[mask].abs().max() > 0.05  # segments matter
    pooler = torch.load(start / "model.pt", weights_only=True)["model"]
    for part in ("weight", "bias"):
        value = getattr(theirs.pooler.dense, part)
        torch.testing.assert_close(pooler[hf_layout.POOLER + part], value, rtol=0, atol=0)


def test_the_wrong_epsilon_would_be_seen(converted):
    family, _, _, ours = converted
    norms = load_fairseq(ours).encoder.sentence_encoder.layernorm_embedding
    assert norms.eps == (1e-12 if family == "bert" else 1e-5)


def test_bin_files_and_old_names_are_read(tmp_path):
    make_hf(tmp_path / "hf", "bert")
    convert_from_hf.run(tmp_path / "hf", tmp_path / "new")
    weights = hf_files.read_weights(tmp_path / "hf")
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


@pytest.mark.parametrize("direction", ["from-hf", "to-hf"])
def test_the_command_line_has_help(direction, capsys):
    with pytest.raises(SystemExit):
        convert.main([direction, "--help"])
    assert "fairseq" in capsys.readouterr().out
