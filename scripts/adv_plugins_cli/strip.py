"""Make a plain RoBERTa checkpoint of an ``asa_roberta`` one, for fairseq without these plug-ins.

    adv-plugins strip asa_checkpoint.pt roberta_checkpoint.pt

The weights of the adversary go, and so does what only a training that goes on would need: the state
of the optimizer, the data iterator and the meters. The model computes the same as before.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adv_plugins_cli.checkpoints.checkpoint_file import read_checkpoint, section
from adv_plugins_cli.checkpoints.checkpoint_model import task_name
from adv_plugins_cli.command import UserError, one_line_errors
from fairseq_compat.files import written_beside
from fairseq_compat.task_kinds import TASK_KINDS

# The starts of the names of all architectures with an adversary.
ARCHITECTURES = ("asa_roberta", "asa_bert_like")
TASK_OPTIONS = ("group_by_length",)  # what only these plug-ins' tasks know


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="a checkpoint of an asa_* architecture")
    parser.add_argument("target", type=Path, help="the file to write, which must not exist")
    return parser.parse_args(argv)


def strip(path: Path, state: dict[str, Any]) -> dict[str, Any]:
    """The plain checkpoint of one that :func:`checkpoint_file.read_checkpoint` has read.

    Args:
        path: for messages.

    Raises:
        UserError: the checkpoint has no adversary, or its configuration is none of fairseq's.
    """
    from adv_plugins.models.asa_roberta import strip_adversary

    weights = strip_adversary(state["model"])
    if len(weights) == len(state["model"]):
        raise UserError(f"{path}: this checkpoint has no adversary; it can be used as it is")
    history = state.get("optimizer_history")
    last = history[-1] if isinstance(history, list) and history else {}
    if not isinstance(last, dict):
        raise UserError(f"{path}: its optimizer_history is damaged")
    return {
        "args": plain_options(state.get("args")),
        "cfg": plain_config(path, state),
        "model": weights,
        "criterion": None,
        # fairseq reads these even where there is nothing to go on with.
        "optimizer_history": [{**last, "lr_scheduler_state": {}, "num_updates": 0}],
        "task_state": state.get("task_state", {}),
        "extra_state": {"train_iterator": {"epoch": 1}},
        "last_optimizer_state": None,
    }


def plain_config(path: Path, state: dict[str, Any]) -> dict[str, Any] | None:
    """fairseq's configuration without what only these plug-ins know.

    Raises:
        UserError: its criterion or its task is no section of options.
    """
    if state.get("cfg") is None:
        return None
    cfg = {name: plain_options(options) for name, options in state["cfg"].items()}
    criterion = section(path, state, "criterion")
    named = (criterion.get("_name"), criterion.get("base_criterion") or "auto")
    if not all(isinstance(name, str) for name in named):
        raise UserError(f"{path}: its configuration is damaged (it names no criterion)")
    cfg["criterion"] = plain_criterion(criterion, task_name(path, state))
    for options in cfg.values():
        if isinstance(options, argparse.Namespace) and "criterion" in options:
            options.criterion = cfg["criterion"]["_name"]
    return cfg


def plain_options(options: Any) -> Any:
    """One section: a dictionary, or (of what fairseq has not moved to hydra) all options at once."""
    if isinstance(options, argparse.Namespace):
        return argparse.Namespace(**plain_options(vars(options)))
    if not isinstance(options, dict):
        return options
    options = dict(options)
    for name in ("_name", "arch"):
        arch = options.get(name)
        if isinstance(arch, str) and arch.startswith(ARCHITECTURES):
            options[name] = arch.removeprefix("asa_")
    for name in TASK_OPTIONS:
        options.pop(name, None)
    if "user_dir" in options:
        options["user_dir"] = None
    return options


def plain_criterion(criterion: dict[str, Any], task: str) -> dict[str, Any]:
    """The stock criterion that a method wrapped for fairseq's task of that name, with its own options
    alone."""
    from fairseq.criterions.masked_lm import MaskedLmConfig
    from fairseq.criterions.sentence_prediction import SentencePredictionConfig

    known = {
        "masked_lm": set(MaskedLmConfig.__dataclass_fields__),
        "sentence_prediction": set(SentencePredictionConfig.__dataclass_fields__),
        "sentence_ranking": {"ranking_head_name", "save_predictions"},
    }
    name = criterion.get("base_criterion") or criterion["_name"]
    if name == "auto":
        name = TASK_KINDS[task].criterion if task in TASK_KINDS else name
    if name not in known:
        return criterion
    return {"_name": name, **{k: v for k, v in criterion.items() if k in known[name] - {"_name"}}}


def run(arguments: argparse.Namespace) -> None:
    """Read, strip, write.

    Raises:
        UserError: a file is missing, in the way, or no such checkpoint.
    """
    source, target = arguments.source, arguments.target
    if target.exists():
        raise UserError(f"{target}: exists already; nothing is overwritten")
    if not target.parent.is_dir():
        raise UserError(f"{target.parent}: no such folder")
    state = strip(source, read_checkpoint(source, whole=True))
    import torch

    with written_beside(target) as partial:
        try:
            torch.save(state, partial)
        except RuntimeError as error:  # torch's way to say that the disk is full; nested too deeply
            raise UserError(f"{target}: cannot be written ({str(error).splitlines()[0]})") from error
        if target.exists():  # it has appeared meanwhile
            raise UserError(f"{target}: exists already; nothing is overwritten")
    print(f"{target}: {len(state['model'])} weights, without the adversary and optimizer state")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; a fault of the input is one line, not a traceback."""
    arguments = parse_arguments(argv)
    with one_line_errors("adv-plugins strip"):
        run(arguments)


if __name__ == "__main__":
    main()
