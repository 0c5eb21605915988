"""How Hugging Face's and fairseq's encoders lay out the same model: weights, sizes, vocabulary.

Models of the BERT family are one architecture with several vocabularies. ``FAMILIES`` says what
differs; the tables below map the names of weights, in both directions. Whatever is read here may be
damaged or hostile: nothing runs code, and sizes are compared with the weights before they are used.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adv_plugins_cli.checkpoints.architecture import Architecture
from adv_plugins_cli.command import UserError, read_json, read_text
from adv_plugins_cli.data.tokenizer_options import (
    SENTENCEPIECE_FILES,
    Tokenizer,
    load_sentencepiece,
)

if TYPE_CHECKING:
    from torch import Tensor

ENCODER = "encoder.sentence_encoder."
LM_HEAD = "encoder.lm_head."
HEAD = "classification_heads.sentence_classification_head."
ROBERTA_EPSILON = 1e-5  # what fairseq's own RoBERTa has
MAKE_UP = "madeupword{:04d}"  # fairseq's name for rows of the embedding without a token

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


def expected_shapes(
    config: Mapping[str, Any], *, layers: int, positions: int
) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """fairseq's name of each weight, its shape, and whether it may be missing.

    Args:
        positions: rows of the position embedding.
    """
    words, width, inner = (int(config[n]) for n in ("vocab_size", "hidden_size", "intermediate_size"))
    yield WORDS, (words, width), False
    yield POSITIONS, (positions, width), False
    yield OUR_SEGMENTS, (int(config.get("type_vocab_size", 2)), width), True
    norm, whole = f"{ENCODER}layernorm_embedding", {"fc1": (inner, width), "fc2": (width, inner)}
    yield from ((f"{norm}.{kind}", (width,), False) for kind in ("weight", "bias"))
    for layer in range(layers):
        for part in LAYER.values():
            shape = (width,) if "norm" in part else whole.get(part, (width, width))
            yield f"{ENCODER}layers.{layer}.{part}.weight", shape, False
            yield f"{ENCODER}layers.{layer}.{part}.bias", shape[:1], False
    for part in (POOLER, f"{LM_HEAD}dense."):
        yield f"{part}weight", (width, width), True
        yield f"{part}bias", (width,), True
    yield from ((f"{LM_HEAD}layer_norm.{kind}", (width,), True) for kind in ("weight", "bias"))
    yield f"{LM_HEAD}bias", (words,), True


def check_shapes(
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    place: str,
    *,
    layers: int,
    positions: int,
) -> None:
    """Compare weights, by fairseq's names, with a config, before anything of its sizes is made.

    Raises:
        UserError: naming ``place`` and the weight.
    """
    for name, shape, optional in expected_shapes(config, layers=layers, positions=positions):
        if name not in weights and not optional:
            raise UserError(f"{place}: the checkpoint lacks {name}")
        if name in weights and tuple(weights[name].shape) != shape:
            raise UserError(
                f"{place}: {name} {tuple(weights[name].shape)} does not fit the model that config.json "
                f"describes, {shape}"
            )


def check_finite(weights: Mapping[str, Tensor], place: str) -> None:
    """Refuse weights that are no numbers.

    Raises:
        UserError: naming ``place`` and the first of them.
    """
    import torch

    for name, value in weights.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(f"{place}: {name} holds NaN or infinite values")


def load_tensors(path: Path) -> dict[str, Any]:
    """What a file of ``torch.save`` holds, a dictionary; no code of it is run.

    Raises:
        UserError: it is no such file.
    """
    import torch

    path.open("rb").close()  # what the system has against it is said by itself
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the reader raise almost anything
        # torch's hint goes on for lines, and ends with how to run the code after all
        reason = str(error).strip().split("\n")[0].split(". ")[0] or type(error).__name__
        raise UserError(
            f"{path}: no file of tensors, a damaged one, or one that would run code ({reason})"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not weights by name")
    return content


def check_tensors(weights: Any, place: str) -> dict[str, Tensor]:
    """``weights``, which must be tensors by name.

    Raises:
        UserError: they are not; names ``place``.
    """
    import torch

    if not isinstance(weights, dict) or not weights:
        raise UserError(f"{place}: holds no weights by name")
    for name, value in weights.items():
        if not isinstance(name, str) or not torch.is_tensor(value):
            raise UserError(f"{place}: {name!r} is a {type(value).__name__}, not a tensor")
    return weights


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Within the context a write that fails, as on a full disk, is an error that names ``target``.

    Raises:
        UserError: it failed.
    """
    try:
        yield
    except Exception as error:  # of the libraries' own; torch's stands before the system's
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        raise UserError(f"{target}: cannot be written ({' '.join(str(cause).split())})") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file.

    Raises:
        UserError: it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: no safetensors file, or a damaged one ({reason})") from error


def shards_of(index: Path) -> list[Path]:
    """The files that an index of a sharded checkpoint names.

    Raises:
        UserError: it is malformed, or one is missing.
    """
    table = read_json(index).get("weight_map")
    names = list(table.values()) if isinstance(table, dict) else []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise UserError(f"{index}: weight_map does not name files of this folder")
    files = [index.with_name(name) for name in sorted(set(names))]
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}: no such file, but {index.name} names it")
    return files


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Hugging Face's weights: model.safetensors or pytorch_model.bin, whole or in shards.

    Raises:
        UserError: there are none, or none that are numbers.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        index, whole = folder / f"{name}.index.json", folder / name
        if not index.is_file() and not whole.is_file():
            continue
        weights: dict[str, Tensor] = {}
        for file in shards_of(index) if index.is_file() else [whole]:
            read = read_safetensors if file.suffix == ".safetensors" else load_tensors
            found = check_tensors(read(file), str(file))
            found = {key: value for key, value in found.items() if value.is_floating_point()}
            check_finite(found, str(file))
            weights.update((key, value.float()) for key, value in found.items())
        return weights
    raise UserError(f"{folder}: neither model.safetensors nor pytorch_model.bin")


def read_vocabulary(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """fairseq's symbol of each row of Hugging Face's word embedding.

    Rows without a token get made-up symbols, as in fairseq's own dictionaries.

    Raises:
        UserError: the tokenizer's files are missing or do not fit the model.
    """
    reader = {"wordpiece": _wordpiece, "gpt2-bpe": _gpt2, "sentencepiece": _sentencepiece}
    symbols = reader[family_of(config).tokenizer](folder, config)
    rows = int(config["vocab_size"])
    if len(symbols) > rows:
        raise UserError(f"{folder}: {len(symbols)} tokens, but the model has {rows} word embeddings")
    symbols += [MAKE_UP.format(row) for row in range(len(symbols), rows)]
    missing = sorted({"<s>", "<pad>", "</s>", "<unk>", "<mask>"} - set(symbols))
    if missing:
        raise UserError(f"{folder}: the vocabulary lacks {' '.join(missing)}")
    again = [symbol for symbol, count in Counter(symbols).items() if count > 1]
    if again:
        raise UserError(f"{folder}: the vocabulary has {again[0]!r} twice")
    return symbols


def _wordpiece(folder: Path, config: Mapping[str, Any]) -> list[str]:
    from adv_plugins.wordpiece import load_wordpiece, symbols_of

    tokenizer = load_wordpiece(folder)
    try:
        return symbols_of(tokenizer)
    except ValueError as error:
        raise UserError(f"{folder}: {error}") from error


def gpt2_files(folder: Path) -> tuple[dict[str, int], list[str]]:
    """The vocabulary and the lines of merges.txt of a byte-level BPE tokenizer.

    Raises:
        UserError: they are not there, or malformed.
    """
    vocabulary, merges, whole = (folder / n for n in ("vocab.json", "merges.txt", "tokenizer.json"))
    if vocabulary.is_file() and merges.is_file():
        lines = read_text(merges).split("\n")
        return token_ids(read_json(vocabulary), vocabulary), [line for line in lines if line]
    if not whole.is_file():
        raise UserError(f"{folder}: neither vocab.json with merges.txt nor tokenizer.json")
    tokenizer = read_json(whole)
    try:
        ids = dict(tokenizer["model"]["vocab"])
        added = tokenizer.get("added_tokens") or ()
        ids.update({token["content"]: token["id"] for token in added})
        pairs = tokenizer["model"]["merges"]
        lines = [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{whole}: no byte-level BPE tokenizer ({error!r})") from error
    return token_ids(ids, whole), ["#version: 0.2", *lines]


def token_ids(ids: dict[str, Any], path: Path) -> dict[str, int]:
    """``ids``, which must number the tokens without gaps.

    Raises:
        UserError: they do not.
    """
    if any(type(index) is not int for index in ids.values()):
        raise UserError(f"{path}: the ids of the tokens are not numbers")
    if sorted(ids.values()) != list(range(len(ids))):
        raise UserError(f"{path}: the vocabulary's ids have gaps, or come twice")
    return ids


SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def _gpt2(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """fairseq's GPT-2 BPE writes ids as decimal numbers: those of encoder.json, here the model's own."""
    ids, _ = gpt2_files(folder)
    symbols = {index: token for token, index in ids.items()}
    return [symbols[i] if symbols[i] in SPECIAL else str(i) for i in range(len(symbols))]


def tokenizer_in(folder: Path, config: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a folder with Hugging Face's files.

    Raises:
        UserError: its file is missing.
    """
    kind = family_of(config).tokenizer
    if kind != "sentencepiece":
        return Tokenizer(kind, folder)
    path = next((folder / n for n in SENTENCEPIECE_FILES if (folder / n).is_file()), None)
    if path is None:
        raise UserError(f"{folder}: no SentencePiece model ({' or '.join(SENTENCEPIECE_FILES)})")
    return Tokenizer(kind, path)


def _sentencepiece(folder: Path, config: Mapping[str, Any]) -> list[str]:
    processor = load_sentencepiece(tokenizer_in(folder, config).path)
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
