"""Turn a fairseq checkpoint into a folder that Hugging Face's transformers loads, head included.

    python scripts/convert_to_hf.py RTE/seed1/checkpoint_best.pt rte-rat --pretrained minilm
    python scripts/convert_to_hf.py RTE/seed1/checkpoint_best.pt rte-rat --bpe-dir gpt2_bpe  # RoBERTa

The head becomes that of ...ForSequenceClassification (classes or a score), ...ForMultipleChoice
(rankings) or ...ForTokenClassification; a masked LM becomes ...ForMaskedLM. An adversary of ASA is
left out. Labels are named by --label-dict.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Appended, so that an installed copy wins and a checkout that is not installed works as well.
sys.path.append(str(Path(__file__).resolve().parent.parent))

import fairseq_compat

fairseq_compat.install()

import hf_layout as hf  # noqa: E402
from convert_from_hf import TOKENIZER_FILES  # noqa: E402
from hf_layout import ConversionError  # noqa: E402

HEAD_NAME = "sentence_classification_head"
# fairseq's tasks -> the end of the name of transformers' class
CLASSES = {
    "masked_lm": "ForMaskedLM",
    "sentence_prediction": "ForSequenceClassification",
    "sentence_ranking": "ForMultipleChoice",
    "commonsense_qa": "ForMultipleChoice",
    "token_classification": "ForTokenClassification",
}


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="a fairseq checkpoint of the RoBERTa family")
    parser.add_argument("target", type=Path, help="the folder to make, which must not exist")
    tokenizer = parser.add_mutually_exclusive_group()
    tokenizer.add_argument(
        "--pretrained",
        type=Path,
        metavar="DIR",
        help="folder of convert_from_hf.py that the training started from (default: the checkpoint's)",
    )
    tokenizer.add_argument(
        "--bpe-dir",
        type=Path,
        help="of fairseq's own RoBERTa: encoder.json, vocab.bpe and dict.txt",
    )
    parser.add_argument("--label-dict", type=Path, metavar="DICT", help="label/dict.txt of the data")
    return parser.parse_args(argv)


def section(state: dict[str, Any], name: str) -> Any:
    """A section of the checkpoint's configuration, as an object with attributes."""
    if state.get("cfg") is None:
        return state["args"]
    found = state["cfg"][name]
    return argparse.Namespace(**found) if isinstance(found, dict) else found


def task_name(state: dict[str, Any]) -> str:
    """fairseq's name of the task."""
    task = section(state, "task")
    return str(getattr(task, "_name", None) or task.task)


def roberta_config(model: Any, words: int) -> dict[str, Any]:
    """config.json of a RoBERTa of fairseq's own."""
    activations = {ours: theirs for theirs, ours in hf.ACTIVATIONS.items()}
    activation = getattr(model, "activation_fn", "gelu")
    if activation not in activations:
        raise ConversionError(f"--activation-fn {activation} has no like in transformers")
    if getattr(model, "encoder_normalize_before", False):
        raise ConversionError("a model with --encoder-normalize-before has no like in this family")
    return {
        "model_type": "roberta",
        "vocab_size": words,
        "hidden_size": model.encoder_embed_dim,
        "intermediate_size": model.encoder_ffn_embed_dim,
        "num_attention_heads": model.encoder_attention_heads,
        "max_position_embeddings": model.max_positions + 2,
        "type_vocab_size": 1,
        "hidden_act": activations[activation],
        "layer_norm_eps": getattr(model, "layer_norm_epsilon", hf.ROBERTA_EPSILON),
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }


def encoder_weights(
    weights: dict[str, Any], config: dict[str, Any], rows: Sequence[int]
) -> dict[str, Any]:
    """transformers' weights of the encoder (with its prefix) and the masked-LM head.

    Args:
        rows: of fairseq's word embedding, in the order of transformers' vocabulary.
    """
    import torch

    converted = {}
    for name, value in weights.items():
        theirs = hf.hf_name(name, config)
        if theirs is not None:
            converted[theirs] = value[list(rows)] if name in hf.BY_WORD else value
    prefix = hf.family_of(config).prefix
    name = f"{prefix}embeddings.position_embeddings.weight"
    # What BERT's segments were is in the positions.
    segments = torch.zeros(int(config.get("type_vocab_size", 1)), int(config["hidden_size"]))
    converted[prefix + hf.SEGMENTS] = segments
    if hf.is_bert(config):
        converted[name] = converted[name][2:]
        bias = converted.get("cls.predictions.bias")
        if bias is not None:
            converted["cls.predictions.decoder.bias"] = bias
    elif "lm_head.bias" in converted:
        converted["lm_head.decoder.bias"] = converted["lm_head.bias"]
    return converted


def head_weights(weights: dict[str, Any], config: dict[str, Any], kind: str) -> dict[str, Any]:
    """transformers' weights of the classification head.

    Raises:
        ConversionError: the checkpoint has none.
    """
    prefix = f"classification_heads.{HEAD_NAME}."
    head = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    if not head:
        raise ConversionError(f"the checkpoint has no head {HEAD_NAME}")
    encoder = hf.family_of(config).prefix
    if kind == "ForTokenClassification":
        names = {"out_proj": "classifier"}
    elif kind == "ForSequenceClassification" and not hf.is_bert(config):
        names = {"dense": "classifier.dense", "out_proj": "classifier.out_proj"}
    else:
        names = {"dense": f"{encoder}pooler.dense", "out_proj": "classifier"}
    return {
        f"{names[part]}.{kind_}": value
        for key, value in head.items()
        for part, _, kind_ in [key.rpartition(".")]
        if part in names
    }


def read_labels(path: Path | None, count: int) -> dict[str, str]:
    """Class number -> name, for config.json."""
    if path is None:
        return {str(index): f"LABEL_{index}" for index in range(count)}
    if not path.is_file():
        raise ConversionError(f"{path}: no such file (--label-dict)")
    names = [line.rpartition(" ")[0] for line in path.read_text("utf-8").splitlines()]
    names = [name for name in names if not name.startswith("madeupword")]
    if len(names) != count:
        raise ConversionError(f"{path} (--label-dict) names {len(names)} classes, the head has {count}")
    return {str(index): name for index, name in enumerate(names)}


def vocabulary_rows(folder: Path, config: dict[str, Any]) -> list[int]:
    """fairseq's row of each of transformers' ids."""
    symbols = hf.read_vocabulary(folder, config)
    order = hf.fairseq_order(symbols)
    rows = [0] * len(order)
    for ours, theirs in enumerate(order):
        rows[theirs] = ours
    return rows


def write_gpt2_tokenizer(bpe_dir: Path, target: Path, words: int) -> None:
    """vocab.json and merges.txt with fairseq's indices, from GPT-2's files and dict.txt.

    Raises:
        ConversionError: a file is missing or does not fit.
    """
    for name in ("encoder.json", "vocab.bpe", "dict.txt"):
        if not (bpe_dir / name).is_file():
            raise ConversionError(f"{bpe_dir / name}: no such file (--bpe-dir)")
    pieces = {str(i): piece for piece, i in json.loads((bpe_dir / "encoder.json").read_text()).items()}
    lines = (bpe_dir / "dict.txt").read_text("utf-8").splitlines()
    symbols = [pieces.get(name, name) for name in (line.rpartition(" ")[0] for line in lines)]
    symbols = [*hf.SPECIAL[:4], *symbols, hf.SPECIAL[4]]
    if len(symbols) != words:
        raise ConversionError(f"{bpe_dir}: dict.txt has {len(symbols)} symbols, the model {words}")
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    (target / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    shutil.copyfile(bpe_dir / "vocab.bpe", target / "merges.txt")
    settings = {"tokenizer_class": "RobertaTokenizer", "model_max_length": 512}
    (target / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def convert(state: dict[str, Any], arguments: argparse.Namespace, target: Path) -> str:
    """Write the files into ``target``; returns the name of transformers' class.

    Raises:
        ConversionError: the checkpoint cannot be converted.
    """
    from safetensors.torch import save_file

    from adv_plugins.models.asa_roberta import strip_adversary

    weights = strip_adversary(state["model"])
    if hf.WORDS not in weights:
        raise ConversionError("this is no checkpoint of the RoBERTa family")
    model, words = section(state, "model"), len(weights[hf.WORDS])
    folder = arguments.pretrained or arguments.checkpoint.parent
    if arguments.bpe_dir is None:
        if not (folder / "config.json").is_file():
            raise ConversionError(
                f"{folder} was not made by convert_from_hf.py: name the folder that training started "
                "from with --pretrained, or the files of fairseq's RoBERTa with --bpe-dir"
            )
        config = hf.read_config(folder)
        rows = vocabulary_rows(folder, config)
        for name in TOKENIZER_FILES:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, target / name)
    else:
        config, rows = roberta_config(model, words), list(range(words))
        write_gpt2_tokenizer(arguments.bpe_dir, target, words)
    if len(rows) != words:
        raise ConversionError(f"{folder}: {len(rows)} words, but the checkpoint has {words}")

    task = task_name(state)
    if task not in CLASSES:
        raise ConversionError(f"--task {task}: only {', '.join(CLASSES)} can be converted")
    kind = CLASSES[task]
    converted = encoder_weights(weights, config, rows)
    if kind != "ForMaskedLM":
        converted = {n: v for n, v in converted.items() if not n.startswith(("lm_head.", "cls."))}
        converted.update(head_weights(weights, config, kind))
    class_name = hf.family_of(config).class_name + kind
    config["architectures"] = [class_name]
    layers = {n.split(".")[3] for n in weights if n.startswith(f"{hf.ENCODER}layers.")}
    config["num_hidden_layers"] = len(layers)
    if kind in ("ForSequenceClassification", "ForTokenClassification"):
        output = converted.get("classifier.out_proj.weight", converted.get("classifier.weight"))
        config["id2label"] = read_labels(arguments.label_dict, len(output))
        config["label2id"] = {name: int(index) for index, name in config["id2label"].items()}
    if kind == "ForSequenceClassification":
        regression = getattr(section(state, "criterion"), "regression_target", False)
        config["problem_type"] = "regression" if regression else "single_label_classification"
    (target / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    whole = {name: value.float().clone().contiguous() for name, value in converted.items()}
    save_file(whole, str(target / "model.safetensors"), metadata={"format": "pt"})
    return class_name


def run(arguments: argparse.Namespace) -> None:
    """Write the folder beside its place, then move it there.

    Raises:
        ConversionError: a file is missing or in the way, or the checkpoint cannot be converted.
    """
    source, target = arguments.checkpoint, arguments.target
    if not source.is_file():
        raise ConversionError(f"{source}: no such checkpoint")
    if target.exists():
        raise ConversionError(f"{target}: exists already; choose another folder")
    import torch

    import adv_plugins  # noqa: F401 - lets torch read fairseq's checkpoints

    state = torch.load(source, map_location="cpu", weights_only=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        class_name = convert(state, arguments, partial)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"{target}: {class_name}.from_pretrained")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; a fault of the input is one line, not a traceback."""
    try:
        run(parse_arguments(argv))
    except ConversionError as error:
        sys.exit(f"convert_to_hf.py: error: {error}")


if __name__ == "__main__":
    main()
