"""How Hugging Face's and fairseq's encoders lay out the same model: weights, sizes, vocabulary.

Models of the BERT family are one architecture with several vocabularies. ``FAMILIES`` says what
differs; the tables below map the names of weights, in both directions. Whatever is read here may be
damaged or hostile: nothing runs code, and sizes are compared with the weights before they are used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adv_plugins_cli.checkpoints.architecture import Architecture
from adv_plugins_cli.command import UserError, read_json

ENCODER = "encoder.sentence_encoder."
LM_HEAD = "encoder.lm_head."
HEAD = "classification_heads.sentence_classification_head."
ROBERTA_EPSILON = 1e-5  # what fairseq's own RoBERTa has

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_accurate", "relu": "relu"}


@dataclass(frozen=True)
class Family:
    """What a ``model_type`` of Hugging Face's config.json means.

    prefix: of the encoder's weights under a head; class_name: of the library's classes;
    separators: between two sentences; tokenizer: its kind, one of ``architecture.TOKENIZER_KINDS``.
    """

    prefix: str
    class_name: str
    separators: int
    tokenizer: str


FAMILIES = {
    "bert": Family("bert.", "Bert", 1, "wordpiece"),
    "roberta": Family("roberta.", "Roberta", 2, "gpt2-bpe"),
    "xlm-roberta": Family("roberta.", "XLMRoberta", 2, "sentencepiece"),
    "camembert": Family("roberta.", "Camembert", 2, "sentencepiece"),
}

# Hugging Face's name (below the prefix) -> fairseq's
EMBEDDINGS = {
    "embeddings.token_type_embeddings": f"{ENCODER}embed_positions.segments",
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
# In checkpoints only: fairseq's heads begin as it.
BERT_POOLER = {"pooler.dense": "pooler.dense"}
SEGMENTS = "embeddings.token_type_embeddings.weight"
OUR_SEGMENTS = f"{ENCODER}embed_positions.segments.weight"
POOLER = "pooler.dense."
POSITIONS = f"{ENCODER}embed_positions.weight"
WORDS = f"{ENCODER}embed_tokens.weight"
# Weights whose rows belong to words.
BY_WORD = (WORDS, f"{LM_HEAD}weight", f"{LM_HEAD}bias")
# What has no place in fairseq's model; a RoBERTa's pooler was never trained.
LEFT_OUT = re.compile(r"pooler\.|.*position_ids$|cls\.seq_relationship|.*decoder\.bias$|classifier\.")


def read_config(folder: Path) -> dict[str, Any]:
    """Hugging Face's config.json, checked for what fairseq's RoBERTa cannot do.

    Raises:
        UserError: naming the file and the entry.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; is {folder} a Hugging Face checkpoint?")
    config: dict[str, Any] = read_json(path)
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise UserError(f"{path}: model_type {kind!r}; known are {', '.join(FAMILIES)}")
    activation = config.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise UserError(f"{path}: hidden_act {activation!r} has no like in fairseq")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise UserError(f"{path}: only absolute position embeddings can be converted")
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise UserError(f"{path}: a decoder cannot be converted")
    check_sizes(config, str(path))
    if config.get("embedding_size", config["hidden_size"]) != config["hidden_size"]:
        raise UserError(f"{path}: factorised embeddings have no like in fairseq")
    return config


# The sizes of a config.json, and what an entry that is missing means.
SIZES = {
    "vocab_size": None,
    "hidden_size": None,
    "num_hidden_layers": None,
    "num_attention_heads": None,
    "intermediate_size": None,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}


def check_sizes(config: Mapping[str, Any], place: str) -> None:
    """Make sure that the sizes of a config are sizes. (:func:`check_shapes` asks whether they are true.)

    Raises:
        UserError: naming the entry.
    """
    for name, default in SIZES.items():
        value = config.get(name, default)
        if value is None:
            raise UserError(f"{place}: {name} is missing")
        if type(value) is not int or value < 1:
            raise UserError(f"{place}: {name} {value!r} is no size")
    if config["hidden_size"] % config["num_attention_heads"]:
        raise UserError(
            f"{place}: hidden_size {config['hidden_size']} is no multiple of num_attention_heads "
            f"{config['num_attention_heads']}"
        )
    epsilon = config.get("layer_norm_eps", 1e-12)
    if not isinstance(epsilon, (int, float)) or not 0 < epsilon < 1:
        raise UserError(f"{place}: layer_norm_eps {epsilon!r} is no small number")
    pad = config.get("pad_token_id", 1)
    if not is_bert(config) and (type(pad) is not int or pad < 0 or max_positions(config) < 1):
        raise UserError(f"{place}: pad_token_id {pad!r} does not fit max_position_embeddings")


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


def architecture_of(config: Mapping[str, Any], *, layers: int, segments: int = 0) -> Architecture:
    """The model as fairseq builds it, without its tokenizer.

    Args:
        segments: rows of the segment embedding, 0 if there is none.
    """
    epsilon = float(config.get("layer_norm_eps", 1e-12))
    arch, sizes = "roberta", {}
    if is_bert(config) or epsilon != ROBERTA_EPSILON:
        arch, sizes = "bert_like", {"--layer-norm-epsilon": str(epsilon)}
    sizes |= {
        "--encoder-layers": str(layers),
        "--encoder-embed-dim": str(config["hidden_size"]),
        "--encoder-ffn-embed-dim": str(config["intermediate_size"]),
        "--encoder-attention-heads": str(config["num_attention_heads"]),
    }
    activation = ACTIVATIONS[config.get("hidden_act", "gelu")]
    if activation != "gelu":
        sizes["--activation-fn"] = activation
    if segments:
        sizes["--segments"] = str(segments)
    sizes["--max-positions"] = str(max_positions(config))
    return Architecture(arch, tuple(sizes.items()), family_of(config).separators)


def table_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Hugging Face's names outside of the layers -> fairseq's."""
    if is_bert(config):
        return {**EMBEDDINGS, **BERT_LM_HEAD, **BERT_POOLER}
    return {**EMBEDDINGS, **ROBERTA_LM_HEAD}


def fairseq_name(name: str, config: Mapping[str, Any]) -> str | None:
    """fairseq's name of a weight of Hugging Face's, None if it has no place there.

    Raises:
        UserError: the weight is unknown.
    """
    # checkpoints of the first years
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )
    below = name.removeprefix(family_of(config).prefix)
    for theirs, ours in table_of(config).items():
        if below == theirs:
            return ours
        if below.startswith(f"{theirs}."):
            return ours + below.removeprefix(theirs)
    if match := re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)", below):
        layer, part, kind = match.groups()
        if part in LAYER:
            return f"{ENCODER}layers.{layer}.{LAYER[part]}.{kind}"
    if LEFT_OUT.match(below):
        return None
    raise UserError(f"unknown weight {name!r}: this is not a model of the BERT family")


def hf_name(name: str, config: Mapping[str, Any]) -> str | None:
    """Hugging Face's name (with the encoder's prefix) of a weight of fairseq's encoder; None: no like.

    The inverse of :func:`fairseq_name`.
    """
    prefix = family_of(config).prefix
    for theirs, ours in table_of(config).items():
        if name == ours or name.startswith(f"{ours}."):
            under = "" if ours.startswith(LM_HEAD) else prefix
            return under + theirs + name.removeprefix(ours)
    if match := re.fullmatch(rf"{re.escape(ENCODER)}layers\.(\d+)\.(.+)\.(weight|bias)", name):
        layer, part, kind = match.groups()
        for theirs, ours in LAYER.items():
            if part == ours:
                return f"{prefix}encoder.layer.{layer}.{theirs}.{kind}"
    return None
