"""What the cases of several commands share: kinds of cases, ways to spoil a file, pieces of commands."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

import campaign_judge as judge
from campaign_fixtures import Step, write
from campaign_judge import Case, Place

LATIN = "caf\xe9".encode("latin-1")
DEEP = "[" * 100_000
NEEDS_MOUNT = "needs `unshare --mount`, to make a small or read-only disk"
# What a training that fairseq-train refused may leave: log, subset of the data, crash.pt, folders.
RUN_LEAVES = r"(?!.*(checkpoint[^/]*\.pt|\.partial|result\.json)$).*"


def refuses(tool: str, wrong: str, line: str, says: str, *steps: Step, **more: Any) -> Case:
    """A case that has to end with one line."""
    return Case(tool, wrong, shlex.split(line), says, "refuses", steps, **more)


def works(tool: str, wrong: str, line: str, says: str, *steps: Step, **more: Any) -> Case:
    """A case that only looks bad."""
    return Case(tool, wrong, shlex.split(line), says, "works", steps, **more)


def either(tool: str, wrong: str, line: str, says: str, *steps: Step, **more: Any) -> Case:
    """A case that a command may do or refuse, but not with a traceback."""
    return Case(tool, wrong, shlex.split(line), says, "either", steps, **more)


def cases_of(tool: str, **always: Any) -> Callable[..., Case]:
    """What makes a tool's cases: of what is wrong, the line, what the last line says, and steps."""

    def case(
        wrong: str, line: str, says: str, *steps: Step, make: Callable[..., Case] = refuses, **more: Any
    ) -> Case:
        return make(tool, wrong, line, says, *steps, **{**always, **more})

    return case


def filled(value: float) -> Callable[[dict[str, Any], Place], None]:
    """A weight that is not finite."""

    def change(saved: dict[str, Any], place: Place) -> None:
        saved["model"]["encoder.sentence_encoder.layers.1.fc1.weight"][0, 0] = value

    return change


def option_of(section: str, name: str, value: Any) -> Callable[[dict[str, Any], Place], None]:
    """One option of a checkpoint's configuration."""

    def change(saved: dict[str, Any], place: Place) -> None:
        where = saved["cfg"][section]
        (where if isinstance(where, dict) else vars(where))[name] = value

    return change


RTE, ASA, START = "trained/rte", "trained/asa", "start"
BEST = "checkpoint_best.pt"
FEW = "--cpu --max-update 1 --num-workers 0 --required-batch-size-multiple 1"
SHORT = f"{FEW} --tokens-per-sample 32"
FINETUNE = "RTE plain --data-bin {made}/bin --save-dir {out}/run"
FINETUNE_FROM = f"{FINETUNE} --checkpoint"
PRETRAIN_FROM = "--data-bin {made}/bin/text --save-dir {out}/run --batch 8 --checkpoint"
COMPARE = "RTE --data-bin {made}/bin --out-dir {out}/run --checkpoint {made}/start/model.pt"
QUICK = "--methods plain --seeds 1 --lr 1e-3 --batch 8 --epochs 1"
COMPARE_FROM = f"RTE --data-bin {{made}}/bin --out-dir {{out}}/run {QUICK} --checkpoint"


def latin(content: bytes) -> bytes:
    """A byte that is not UTF-8 in the first line."""
    return LATIN + content


def full() -> dict[str, Any]:
    """What cases on a full disk share: what is whole may stay."""
    return {**mounted(), "leaves": r"disk(/run(/(?!.*(\.partial|\.pt)$).*)?)?"}


def mounted() -> dict[str, Any]:
    """Skipped where nothing can be mounted."""
    return {} if judge.may_mount() else {"skipped": NEEDS_MOUNT}


def without_gpu() -> str:
    """The reason to skip what is an error only without a GPU."""
    import torch

    return "there is a GPU" if torch.cuda.is_available() else ""


BLOCKER = """
import os, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in os.environ["BLOCKED"].split():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""
BLOCKED: dict[str, Any] = {"fresh": True, "limit": 180}


def hidden(*packages: str) -> list[Step]:
    """Python starts without these packages."""

    def step(place: Place) -> None:
        import os

        os.environ["BLOCKED"] = " ".join(packages)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(place.inside), os.environ["PYTHONPATH"]])

    return [write("sitecustomize.py", BLOCKER), step]


def without(family: str) -> str:
    """The reason to skip a family whose tokenizer's package is missing."""
    import importlib.util

    missing = family == "xlm-roberta" and importlib.util.find_spec("sentencepiece") is None
    return "needs sentencepiece" if missing else ""


SMALL = "--layers 1 --vocabulary 50 --repeats 1 --methods plain"
SMALL_BENCHMARK = f"--arch roberta --batch-size 1 --length 8 {SMALL}"
SMALL_GRID = f"--archs roberta --batch-sizes 1 --lengths 8 --precisions fp32 {SMALL}"
TEXT = "{made}/text.txt --valid {made}/text.txt"
