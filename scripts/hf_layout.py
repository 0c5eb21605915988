"""How Hugging Face's and fairseq's encoders lay out the same model: weights, sizes, vocabulary.

Models of the BERT family are one architecture with several vocabularies. ``FAMILIES`` says what
differs; the tables below map the names of weights, in both directions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

ENCODER = "encoder.sentence_encoder."
LM_HEAD = "encoder.lm_head."
HEAD = "classification_heads.sentence_classification_head."
ROBERTA_EPSILON = 1e-5  # what fairseq's own RoBERTa has
MAKE_UP = "madeupword{:04d}"  # fairseq's name for rows of the embedding without a token

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_accurate", "relu": "relu"}


class ConversionError(ValueError):
    """The model cannot be converted; the message says why."""


@dataclass(frozen=True)
class Family:
    """What a ``model_type`` of Hugging Face's config.json means.

    prefix: of the encoder's weights under a head; class_name: of the library's classes;
    separators: between two sentences; tokenizer: the kind of its files.
    """

    prefix: str
    class_name: str
    separators: int
    tokenizer: str


FAMILIES = {
    "bert": Family("bert.", "Bert", 1, "wordpiece"),
    "roberta": Family("roberta.", "Roberta", 2, "gpt2"),
    "xlm-roberta": Family("roberta.", "XLMRoberta", 2, "sentencepiece"),
    "camembert": Family("roberta.", "Camembert", 2, "sentencepiece"),
}

# Hugging Face's name (below the prefix) -> fairseq's
EMBEDDINGS = {
    "embeddings.word_embeddings": f"{ENCODER}embed_tokens",
    "embeddings.position_embeddings": f"{ENCODER}embed_positions",
    "embeddings.LayerNorm": f"{ENCODER}layernorm_embedding",
}
LAYER = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.out_proj",
    "attention.output.LayerNorm": "self_attn_layer_norm",
    "intermediate.dense": "fc1",
    "output.dense": "fc2",
    "output.LayerNorm": "final_layer_norm",
}
ROBERTA_LM_HEAD = {
    "lm_head.dense": f"{LM_HEAD}dense",
    "lm_head.layer_norm": f"{LM_HEAD}layer_norm",
    "lm_head.decoder.weight": f"{LM_HEAD}weight",
    "lm_head.bias": f"{LM_HEAD}bias",
}
BERT_LM_HEAD = {
    "cls.predictions.transform.dense": f"{LM_HEAD}dense",
    "cls.predictions.transform.LayerNorm": f"{LM_HEAD}layer_norm",
    "cls.predictions.decoder.weight": f"{LM_HEAD}weight",
    "cls.predictions.bias": f"{LM_HEAD}bias",
}
SEGMENTS = "embeddings.token_type_embeddings.weight"
POSITIONS = f"{ENCODER}embed_positions.weight"
WORDS = f"{ENCODER}embed_tokens.weight"
# Weights whose rows belong to words.
BY_WORD = (WORDS, f"{LM_HEAD}weight", f"{LM_HEAD}bias")
# What has no place in fairseq's model: the pooler belongs to the next-sentence task, or to a head.
LEFT_OUT = re.compile(r"pooler\.|.*position_ids$|cls\.seq_relationship|.*decoder\.bias$|classifier\.")


def read_config(folder: Path) -> dict[str, Any]:
    """Hugging Face's config.json, checked for what fairseq's RoBERTa cannot do.

    Raises:
        ConversionError: naming the entry.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ConversionError(f"{path}: no such file; is {folder} a Hugging Face checkpoint?")
    config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise ConversionError(f"{path}: model_type {kind!r}; known are {', '.join(FAMILIES)}")
    if config.get("hidden_act", "gelu") not in ACTIVATIONS:
        raise ConversionError(f"{path}: hidden_act {config['hidden_act']!r} has no like in fairseq")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ConversionError(f"{path}: only absolute position embeddings can be converted")
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise ConversionError(f"{path}: a decoder cannot be converted")
    if config.get("embedding_size", config["hidden_size"]) != config["hidden_size"]:
        raise ConversionError(f"{path}: factorised embeddings have no like in fairseq")
    return config


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a checked config."""
    return FAMILIES[config["model_type"]]


def is_bert(config: Mapping[str, Any]) -> bool:
    """Whether positions count from row 0 and pairs have segments."""
    return str(config["model_type"]) == "bert"


def max_positions(config: Mapping[str, Any]) -> int:
    """The longest sequence, in tokens."""
    rows = int(config.get("max_position_embeddings", 512))
    return rows if is_bert(config) else rows - int(config.get("pad_token_id", 1)) - 1


def architecture_flags(config: Mapping[str, Any], *, layers: int) -> list[str]:
    """The ``fairseq-train`` flags that build the model."""
    epsilon = float(config.get("layer_norm_eps", 1e-12))
    arch = ["--arch", "roberta"]
    if epsilon != ROBERTA_EPSILON:
        arch = ["--arch", "bert_like", "--layer-norm-epsilon", str(epsilon)]
    activation = ACTIVATIONS[config.get("hidden_act", "gelu")]
    return [
        *arch,
        *("--encoder-layers", str(layers)),
        *("--encoder-embed-dim", str(config["hidden_size"])),
        *("--encoder-ffn-embed-dim", str(config["intermediate_size"])),
        *("--encoder-attention-heads", str(config["num_attention_heads"])),
        *(() if activation == "gelu" else ("--activation-fn", activation)),
    ]


def fairseq_name(name: str, config: Mapping[str, Any]) -> str | None:
    """fairseq's name of a weight of Hugging Face's, None if it has no place there.

    Raises:
        ConversionError: the weight is unknown.
    """
    # checkpoints of the first years
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )
    below = name.removeprefix(family_of(config).prefix)
    head = BERT_LM_HEAD if is_bert(config) else ROBERTA_LM_HEAD
    for theirs, ours in {**EMBEDDINGS, **head}.items():
        if below == theirs:
            return ours
        if below.startswith(f"{theirs}."):
            return ours + below.removeprefix(theirs)
    if match := re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)", below):
        layer, part, kind = match.groups()
        if part in LAYER:
            return f"{ENCODER}layers.{layer}.{LAYER[part]}.{kind}"
    if below == SEGMENTS or LEFT_OUT.match(below):
        return None
    raise ConversionError(f"unknown weight {name!r}: this is not a model of the BERT family")


def hf_name(name: str, config: Mapping[str, Any]) -> str | None:
    """Hugging Face's name (with the encoder's prefix) of a weight of fairseq's encoder; None: no like.

    The inverse of :func:`fairseq_name`.
    """
    prefix = family_of(config).prefix
    for theirs, ours in EMBEDDINGS.items():
        if name.startswith(f"{ours}."):
            return prefix + theirs + name.removeprefix(ours)
    head = BERT_LM_HEAD if is_bert(config) else ROBERTA_LM_HEAD
    for theirs, ours in head.items():
        if name == ours or name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    if match := re.fullmatch(rf"{re.escape(ENCODER)}layers\.(\d+)\.(.+)\.(weight|bias)", name):
        layer, part, kind = match.groups()
        for theirs, ours in LAYER.items():
            if part == ours:
                return f"{prefix}encoder.layer.{layer}.{theirs}.{kind}"
    return None


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Hugging Face's weights: model.safetensors or pytorch_model.bin, whole or in shards.

    Raises:
        ConversionError: there are none.
    """
    import torch

    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        files = [folder / name]
        if index.is_file():
            shards = json.loads(index.read_text("utf-8"))["weight_map"].values()
            files = [folder / shard for shard in sorted(set(shards))]
        if not all(file.is_file() for file in files):
            continue
        weights: dict[str, Tensor] = {}
        for file in files:
            if file.suffix == ".safetensors":
                from safetensors.torch import load_file

                weights.update(load_file(str(file)))
            else:
                weights.update(torch.load(file, map_location="cpu", weights_only=True))
        return {key: value.float() for key, value in weights.items() if value.is_floating_point()}
    raise ConversionError(f"{folder}: neither model.safetensors nor pytorch_model.bin")


def read_vocabulary(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """fairseq's symbol of each row of Hugging Face's word embedding.

    Rows without a token get made-up symbols, as in fairseq's own dictionaries.

    Raises:
        ConversionError: the tokenizer's files are missing or do not fit the model.
    """
    reader = {"wordpiece": _wordpiece, "gpt2": _gpt2, "sentencepiece": _sentencepiece}
    symbols = reader[family_of(config).tokenizer](folder, config)
    rows = int(config["vocab_size"])
    if len(symbols) > rows:
        raise ConversionError(
            f"{folder}: {len(symbols)} tokens, but the model has {rows} word embeddings"
        )
    symbols += [MAKE_UP.format(row) for row in range(len(symbols), rows)]
    missing = {"<s>", "<pad>", "</s>", "<unk>", "<mask>"} - set(symbols)
    if missing or len(set(symbols)) != len(symbols):
        raise ConversionError(
            f"{folder}: the vocabulary lacks or repeats special tokens {sorted(missing)}"
        )
    return symbols


def _wordpiece(folder: Path, config: Mapping[str, Any]) -> list[str]:
    from adv_plugins.wordpiece import load_wordpiece, symbols_of

    try:
        return symbols_of(load_wordpiece(folder))
    except ValueError as error:
        raise ConversionError(str(error)) from error


def gpt2_files(folder: Path) -> tuple[dict[str, int], list[str]]:
    """The vocabulary and the lines of merges.txt of a byte-level BPE tokenizer.

    Raises:
        ConversionError: they are not there.
    """
    vocabulary, merges, whole = (folder / n for n in ("vocab.json", "merges.txt", "tokenizer.json"))
    if vocabulary.is_file() and merges.is_file():
        lines = merges.read_text("utf-8").split("\n")
        return json.loads(vocabulary.read_text("utf-8")), [line for line in lines if line]
    if not whole.is_file():
        raise ConversionError(f"{folder}: neither vocab.json with merges.txt nor tokenizer.json")
    tokenizer = json.loads(whole.read_text("utf-8"))
    ids = dict(tokenizer["model"]["vocab"])
    ids.update({token["content"]: token["id"] for token in tokenizer.get("added_tokens", ())})
    pairs = tokenizer["model"]["merges"]
    lines = [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs]
    return ids, ["#version: 0.2", *lines]


SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def _gpt2(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """fairseq's GPT-2 BPE writes ids as decimal numbers: those of encoder.json, here the model's own."""
    ids, _ = gpt2_files(folder)
    symbols = {index: token for token, index in ids.items()}
    if sorted(symbols) != list(range(len(symbols))):
        raise ConversionError(f"{folder}: the vocabulary's ids have gaps")
    return [symbols[i] if symbols[i] in SPECIAL else str(i) for i in range(len(symbols))]


def _sentencepiece(folder: Path, config: Mapping[str, Any]) -> list[str]:
    from sentencepiece import SentencePieceProcessor
    from tokenizer_options import SENTENCEPIECE_FILES

    path = next((folder / n for n in SENTENCEPIECE_FILES if (folder / n).is_file()), None)
    if path is None:
        raise ConversionError(f"{folder}: no SentencePiece model ({' or '.join(SENTENCEPIECE_FILES)})")
    processor = SentencePieceProcessor(model_file=str(path))
    pieces = [processor.id_to_piece(index) for index in range(processor.get_piece_size())]
    if config["model_type"] == "camembert":
        # The rows of fairseq's specials lie unused before the model's own: <unk>, <s>, </s>.
        own = ["<unk>NOTUSED", *pieces[1:]]
        return ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", *own, "<mask>"]
    return ["<s>", "<pad>", "</s>", "<unk>", *pieces[3:], "<mask>"]


def fairseq_order(symbols: Sequence[str]) -> list[int]:
    """Hugging Face's rows in the order of fairseq's dictionary: specials, others, <mask>."""
    first = [symbols.index(symbol) for symbol in SPECIAL[:4]]
    last = symbols.index("<mask>")
    rest = [row for row in range(len(symbols)) if row not in {*first, last}]
    return [*first, *rest, last]
