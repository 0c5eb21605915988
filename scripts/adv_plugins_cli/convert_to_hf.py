"""Turn a fairseq checkpoint into a folder that Hugging Face's transformers loads, head included.

    adv-plugins convert to-hf RTE/seed1/checkpoint_best.pt rte-rat --pretrained minilm
    adv-plugins convert to-hf RTE/seed1/checkpoint_best.pt rte-rat --bpe-dir gpt2_bpe  # RoBERTa

The head becomes that of ...ForSequenceClassification (classes or a score), ...ForMultipleChoice
(rankings; an input is a choice, then the context) or ...ForTokenClassification; a masked LM becomes
...ForMaskedLM. An adversary of ASA is left out. BERT's segments and pooler go where they came from, and
predictions are the same; should training go on there, transformers has no dropout before the pooler,
where fairseq has its --pooler-dropout. Classes get the names of the data's label dictionary.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fairseq_compat

fairseq_compat.install()

from adv_plugins_cli.checkpoints import hf_files, hf_vocabulary  # noqa: E402
from adv_plugins_cli.checkpoints import hf_layout as hf  # noqa: E402
from adv_plugins_cli.checkpoints.checkpoint_file import read_checkpoint, section  # noqa: E402
from adv_plugins_cli.checkpoints.checkpoint_model import task_name  # noqa: E402
from adv_plugins_cli.checkpoints.trained_model import (  # noqa: E402
    read_trained_model,
    recorded_labels,
)
from adv_plugins_cli.command import UserError, one_line_errors, read_json, read_text  # noqa: E402
from adv_plugins_cli.data.dictionary import read_labels, read_symbols  # noqa: E402
from adv_plugins_cli.data.tokenizer_options import HF_FILES, find_tokenizer  # noqa: E402
from fairseq_compat import files  # noqa: E402
from fairseq_compat.task_kinds import TASK_KINDS  # noqa: E402

LAYERS = f"{hf.ENCODER}layers."
HEAD_NAME = "sentence_classification_head"


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
        help="folder of convert from-hf that the training started from (default: the checkpoint's)",
    )
    tokenizer.add_argument(
        "--bpe-dir",
        type=Path,
        help="of fairseq's own RoBERTa: encoder.json, vocab.bpe and dict.txt",
    )
    labels = parser.add_mutually_exclusive_group()
    labels.add_argument(
        "--data-bin",
        type=Path,
        help="TASK-bin, for the names of the classes (default: where the training found it)",
    )
    labels.add_argument("--label-dict", type=Path, metavar="DICT", help="or its label/dict.txt alone")
    labels.add_argument(
        "--numbered-labels", action="store_true", help="or call the classes LABEL_0, LABEL_1, ..."
    )
    return parser.parse_args(argv)


class Checkpoint:
    """A checkpoint's weights, without an adversary, and what its configuration says of them.

    task: fairseq's; kind: how the name of transformers' class ends; model: the architecture's options.
    """

    def __init__(self, path: Path) -> None:
        """Read it.

        Raises:
            UserError: naming the file, and what is wrong with it.
        """
        self.path, self.state = path, read_checkpoint(path)
        from adv_plugins.models.asa_roberta import strip_adversary

        self.weights = strip_adversary(self.state["model"])
        self.model = section(path, self.state, "model")
        name = task_name(path, self.state)
        if hf.WORDS not in self.weights:
            raise UserError(f"{path}: no checkpoint of the RoBERTa family")
        if name not in TASK_KINDS:
            known = ", ".join(TASK_KINDS)
            raise UserError(f"{path}: --task {name or '?'}: only {known} can be converted")
        self.regression = bool(section(path, self.state, "criterion").get("regression_target"))
        hf_files.check_finite(self.weights, str(path))
        self.kind = TASK_KINDS[name].hf_class
        self.layers = len({name.split(".")[3] for name in self.weights if name.startswith(LAYERS)})


def roberta_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """config.json of a RoBERTa of fairseq's own.

    Raises:
        UserError: transformers has no such model.
    """
    model, place = checkpoint.model, checkpoint.path
    activations = {ours: theirs for theirs, ours in hf.ACTIVATIONS.items()}
    activation = model.get("activation_fn", "gelu")
    if activation not in activations:
        raise UserError(f"{place}: --activation-fn {activation} has no like in transformers")
    if model.get("encoder_normalize_before"):
        raise UserError(f"{place}: --encoder-normalize-before has no like in this family")
    options = ("encoder_embed_dim", "encoder_ffn_embed_dim", "encoder_attention_heads", "max_positions")
    for name in options:
        if type(model.get(name)) is not int:
            raise UserError(f"{place}: its configuration has no {name}")
    return {
        "model_type": "roberta",
        "vocab_size": len(checkpoint.weights[hf.WORDS]),
        "hidden_size": model["encoder_embed_dim"],
        "intermediate_size": model["encoder_ffn_embed_dim"],
        "num_hidden_layers": checkpoint.layers,
        "num_attention_heads": model["encoder_attention_heads"],
        "max_position_embeddings": model["max_positions"] + 2,
        "type_vocab_size": 1,
        "hidden_act": activations[activation],
        "layer_norm_eps": model.get("layer_norm_epsilon", hf.ROBERTA_EPSILON),
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
    if hf.OUR_SEGMENTS not in weights:  # they are in the positions
        shape = int(config.get("type_vocab_size", 2)), int(config["hidden_size"])
        converted[prefix + hf.SEGMENTS] = torch.zeros(shape)
    if hf.is_bert(config):
        converted[name] = converted[name][2:]
        bias = converted.get("cls.predictions.bias")
        if bias is not None:
            converted["cls.predictions.decoder.bias"] = bias
    elif "lm_head.bias" in converted:
        converted["lm_head.decoder.bias"] = converted["lm_head.bias"]
    return converted


def head_weights(checkpoint: Checkpoint, config: dict[str, Any]) -> dict[str, Any]:
    """transformers' weights of the classification head.

    Raises:
        UserError: the checkpoint has none.
    """
    weights, kind = checkpoint.weights, checkpoint.kind
    prefix = f"classification_heads.{HEAD_NAME}."
    head = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    if not head:
        raise UserError(f"{checkpoint.path}: has no head {HEAD_NAME}")
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


def label_names(checkpoint: Checkpoint, arguments: argparse.Namespace, count: int) -> dict[str, str]:
    """Class number -> name, for config.json.

    They are the options', else those that the training has left on record, else those of its data.

    Raises:
        UserError: they are not found, or are others than the head's.
    """
    if arguments.numbered_labels:
        return {str(index): f"LABEL_{index}" for index in range(count)}
    if arguments.label_dict is not None:
        names = read_labels(arguments.label_dict)
    elif arguments.data_bin is not None:
        names = labels_of_data(checkpoint.path, arguments.data_bin)
    else:
        names = recorded_labels(checkpoint.path, checkpoint.state) or labels_of_data(
            checkpoint.path, None
        )
    if len(names) != count:
        place = arguments.label_dict or checkpoint.path
        raise UserError(f"{place}: names {len(names)} classes, the head has {count} (--label-dict)")
    return {str(index): name for index, name in enumerate(names)}


def labels_of_data(checkpoint: Path, data: Path | None) -> tuple[str, ...]:
    """The labels of the data folder given, or of the one that the checkpoint was trained with."""
    try:
        return read_trained_model(checkpoint, data).labels
    except (ValueError, OSError) as error:
        raise UserError(
            f"{error}; or name the labels' dict.txt with --label-dict, or have none with "
            "--numbered-labels"
        ) from error


def vocabulary_rows(folder: Path, config: dict[str, Any]) -> list[int]:
    """fairseq's row of each of transformers' ids."""
    symbols = hf_vocabulary.read_vocabulary(folder, config)
    order = hf_vocabulary.fairseq_order(symbols)
    rows = [0] * len(order)
    for ours, theirs in enumerate(order):
        rows[theirs] = ours
    return rows


def write_gpt2_tokenizer(bpe_dir: Path, target: Path, words: int) -> None:
    """vocab.json and merges.txt with fairseq's indices, from GPT-2's files and dict.txt.

    Raises:
        UserError: a file is missing or does not fit.
    """
    for name in ("encoder.json", "vocab.bpe", "dict.txt"):
        if not (bpe_dir / name).is_file():
            raise UserError(f"{bpe_dir / name}: no such file (--bpe-dir)")
    encoder = hf_vocabulary.token_ids(read_json(bpe_dir / "encoder.json"), bpe_dir / "encoder.json")
    pieces = {str(index): piece for piece, index in encoder.items()}
    symbols = [pieces.get(name, name) for name in read_symbols(bpe_dir / "dict.txt")]
    symbols = [*hf_vocabulary.SPECIAL[:4], *symbols, hf_vocabulary.SPECIAL[4]]
    if len(symbols) != words:
        raise UserError(f"{bpe_dir}: dict.txt has {len(symbols)} symbols, the model {words}")
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    files.write_text(target / "vocab.json", json.dumps(vocabulary))
    files.write_text(target / "merges.txt", read_text(bpe_dir / "vocab.bpe"))
    settings = {"tokenizer_class": "RobertaTokenizer", "model_max_length": 512}
    files.write_json(target / "tokenizer_config.json", settings)


def take_tokenizer(
    checkpoint: Checkpoint, arguments: argparse.Namespace, target: Path
) -> tuple[dict[str, Any], list[int]]:
    """Write the tokenizer's files into ``target``.

    Returns:
        config.json, its sizes those of the weights, and fairseq's row of each of transformers' ids.

    Raises:
        UserError: they are missing, or do not fit the checkpoint.
    """
    words, place = len(checkpoint.weights[hf.WORDS]), str(checkpoint.path)
    folder = arguments.bpe_dir or arguments.pretrained or checkpoint.path.parent
    described = find_tokenizer(folder) if arguments.bpe_dir is None else None
    # A folder with GPT-2's two files alone is fairseq's own RoBERTa's.
    own = arguments.bpe_dir is not None
    if described is not None and described.kind == "gpt2-bpe" and described.names:
        own = "config.json" not in described.names
    if own:
        config = roberta_config(checkpoint)
        hf.check_sizes(config, place)
    elif (folder / "config.json").is_file():
        config = hf.read_config(folder)
    else:
        raise UserError(
            f"{folder} was not made by convert from-hf: name the folder that training started "
            "from with --pretrained, or the files of fairseq's RoBERTa with --bpe-dir"
        )
    if config["vocab_size"] != words:
        raise UserError(f"{folder}: {config['vocab_size']} words, but {place} has {words}")
    table = hf.max_positions(config) + 2
    hf_files.check_shapes(checkpoint.weights, config, place, layers=checkpoint.layers, positions=table)
    config["num_hidden_layers"] = checkpoint.layers
    if own:
        write_gpt2_tokenizer(folder, target, words)
        return config, list(range(words))
    for name in HF_FILES:
        if (folder / name).is_file():
            files.copy_file(folder / name, target / name)
    return config, vocabulary_rows(folder, config)


def convert(checkpoint: Checkpoint, arguments: argparse.Namespace, target: Path) -> str:
    """Write the files into ``target``; returns the name of transformers' class.

    Raises:
        UserError: the checkpoint cannot be converted.
    """
    from safetensors.torch import save_file

    config, rows = take_tokenizer(checkpoint, arguments, target)
    converted = encoder_weights(checkpoint.weights, config, rows)
    if checkpoint.kind != "ForMaskedLM":
        converted = {n: v for n, v in converted.items() if not n.startswith(("lm_head.", "cls."))}
        converted.update(head_weights(checkpoint, config))
    class_name = hf.family_of(config).class_name + checkpoint.kind
    config["architectures"] = [class_name]
    if checkpoint.kind in ("ForSequenceClassification", "ForTokenClassification"):
        last = "classifier.out_proj" if "classifier.out_proj.weight" in converted else "classifier"
        names = {"0": "LABEL_0"}
        if not checkpoint.regression:
            names = label_names(checkpoint, arguments, len(converted[f"{last}.weight"]))
        config["id2label"] = names
        config["label2id"] = {name: int(index) for index, name in names.items()}
    if checkpoint.kind == "ForSequenceClassification":
        problem = "regression" if checkpoint.regression else "single_label_classification"
        config["problem_type"] = problem
    files.write_json(target / "config.json", config)
    whole = {name: value.float().clone().contiguous() for name, value in converted.items()}
    with hf_files.writing(arguments.target):
        save_file(whole, str(target / "model.safetensors"), metadata={"format": "pt"})
    return class_name


def run(arguments: argparse.Namespace) -> None:
    """Write the folder beside its place, then move it there.

    Raises:
        UserError: a file is missing or in the way, or the checkpoint cannot be converted.
    """
    if arguments.target.exists():
        raise UserError(f"{arguments.target}: exists already; choose another folder")
    checkpoint = Checkpoint(arguments.checkpoint)
    with files.folder_beside(arguments.target) as partial:
        class_name = convert(checkpoint, arguments, partial)
    print(f"{arguments.target}: {class_name}.from_pretrained")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; a fault of the input is one line, not a traceback."""
    arguments = parse_arguments(argv)
    with one_line_errors("adv-plugins convert to-hf"):
        run(arguments)


if __name__ == "__main__":
    main()
