"""Make a plain RoBERTa checkpoint of an ``asa_roberta`` one, for fairseq without these plug-ins.

    python scripts/strip_adversary.py asa_checkpoint.pt roberta_checkpoint.pt

The weights of the adversary go, and so does what only a training that goes on would need: the state
of the optimizer, the data iterator and the meters. The model computes the same as before.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Appended, so that an installed copy wins and a checkout that is not installed works as well.
sys.path.append(str(Path(__file__).resolve().parent.parent))

import fairseq_compat

fairseq_compat.install()

# The starts of the names of all architectures with an adversary.
ARCHITECTURES = ("asa_roberta", "asa_bert_like")


class StripError(ValueError):
    """The request cannot be fulfilled; the message says why."""


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="a checkpoint of an asa_* architecture")
    parser.add_argument("target", type=Path, help="the file to write, which must not exist")
    return parser.parse_args(argv)


def strip(state: dict[str, Any]) -> dict[str, Any]:
    """The plain checkpoint.

    Raises:
        StripError: the checkpoint has no adversary.
    """
    from adv_plugins.models.asa_roberta import strip_adversary

    weights = strip_adversary(state["model"])
    if len(weights) == len(state["model"]):
        raise StripError("this checkpoint has no adversary; it can be used as it is")
    last = state["optimizer_history"][-1]
    return {
        "args": plain_options(state["args"]),
        "cfg": plain_config(state["cfg"]),
        "model": weights,
        "criterion": None,
        # fairseq reads these even where there is nothing to go on with.
        "optimizer_history": [{**last, "lr_scheduler_state": {}, "num_updates": 0}],
        "task_state": state.get("task_state", {}),
        "extra_state": {"train_iterator": {"epoch": 1}},
        "last_optimizer_state": None,
    }


def plain_config(cfg: dict[str, Any] | None) -> dict[str, Any] | None:
    """fairseq's configuration without what only these plug-ins know."""
    if cfg is None:
        return None
    cfg = {section: plain_options(options) for section, options in cfg.items()}
    cfg["criterion"] = plain_criterion(cfg["criterion"], cfg["task"])
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
        if str(options.get(name)).startswith(ARCHITECTURES):
            options[name] = options[name].removeprefix("asa_")
    if "user_dir" in options:
        options["user_dir"] = None
    return options


def plain_criterion(criterion: dict[str, Any], task: Any) -> dict[str, Any]:
    """The stock criterion that a method wrapped, with its own options alone."""
    from fairseq.criterions.masked_lm import MaskedLmConfig
    from fairseq.criterions.sentence_prediction import SentencePredictionConfig

    from adv_plugins.criterions.base_choice import BASE_OF_TASK

    known = {
        "masked_lm": set(MaskedLmConfig.__dataclass_fields__),
        "sentence_prediction": set(SentencePredictionConfig.__dataclass_fields__),
        "sentence_ranking": {"ranking_head_name", "save_predictions"},
    }
    name = criterion.get("base_criterion") or criterion["_name"]
    if name == "auto":
        task_name = task["_name"] if isinstance(task, dict) else task._name
        name = BASE_OF_TASK.get(task_name, name)
    if name not in known:
        return criterion
    return {"_name": name, **{k: v for k, v in criterion.items() if k in known[name] - {"_name"}}}


def run(arguments: argparse.Namespace) -> None:
    """Read, strip, write.

    Raises:
        StripError: a file is missing, in the way, or no such checkpoint.
    """
    source, target = arguments.source, arguments.target
    if not source.is_file():
        raise StripError(f"{source}: no such checkpoint")
    if target.exists():
        raise StripError(f"{target}: exists already; nothing is overwritten")
    import torch

    import adv_plugins  # noqa: F401 - lets torch read fairseq's checkpoints

    try:
        state = strip(torch.load(source, map_location="cpu", weights_only=True))
    except StripError as error:
        raise StripError(f"{source}: {error}") from None
    with target.open("xb") as file:  # refuses a file that has appeared meanwhile
        try:
            torch.save(state, file)
        except BaseException:
            target.unlink()
            raise
    print(f"{target}: {len(state['model'])} weights, without the adversary and optimizer state")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; a fault of the input is one line, not a traceback."""
    try:
        run(parse_arguments(argv))
    except StripError as error:
        sys.exit(f"strip_adversary.py: error: {error}")


if __name__ == "__main__":
    main()
