"""The recipes: ``tasks.tsv`` and ``recipes.tsv`` as ``fairseq-train`` command lines."""

from __future__ import annotations

import csv
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent
USER_DIR = EXAMPLES.parent / "adv_plugins"

CRITERIONS = {
    "plain": "sentence_prediction",
    "rat": "rat_criterion",
    "freelb": "freelb_criterion",
    "rapt": "rapt_criterion",
    "asa": "asa_criterion",
}
PRECISION_FLAGS = {
    "fp32": [],
    "fp16": "--fp16 --fp16-init-scale 4 --threshold-loss-scale 1 --fp16-scale-window 128".split(),
    "amp": ["--amp"],
}
# What every recipe shares: fairseq's published way to fine-tune RoBERTa.
FINE_TUNING_FLAGS = shlex.split(
    "--task sentence_prediction --init-token 0 --separator-token 2 --max-positions 512 "
    "--dropout 0.1 --attention-dropout 0.1 --weight-decay 0.1 "
    "--optimizer adam --adam-betas '(0.9, 0.98)' --adam-eps 1e-06 --clip-norm 0.0 "
    "--lr-scheduler polynomial_decay --max-tokens 4400 --required-batch-size-multiple 1 "
    "--maximize-best-checkpoint-metric --no-epoch-checkpoints --find-unused-parameters "
    "--log-format json --log-interval 50"
)


class RecipeError(ValueError):
    """What the user asked for cannot be run; the message names the option to change."""


@dataclass(frozen=True)
class Recipe:
    """A row of ``recipes.tsv`` with its task's row of ``tasks.tsv``; numbers stay text."""

    task: str
    method: str
    source: str
    lr: str
    batch: str
    epochs: str
    updates: str
    warmup: str
    flags: str
    num_classes: str
    best: str
    task_flags: str

    def command(
        self,
        data: Path,
        *,
        arch: str,
        save_dir: Path,
        seed: int,
        precision: str = "fp32",
        checkpoint: Path | None = None,
        extra: Sequence[str] = (),
    ) -> list[str]:
        """``fairseq-train`` and its arguments.

        Args:
            data: a folder made by the preprocessing.
            arch: a RoBERTa; for ASA the one with adversaries is taken.
            checkpoint: weights to start from; None trains from random ones.
            extra: flags of the user, which win over the recipe's.
        """
        updates, warmup = self.updates, self.warmup
        if updates == "-":
            updates = str(math.ceil(count_rows(data) / int(self.batch)) * int(self.epochs))
        if "." in warmup:
            warmup = str(math.ceil(float(warmup) * int(updates)))
        if self.method == "asa" and not arch.startswith("asa_"):
            arch = f"asa_{arch}"  # the same model, with adversaries
        return [
            "fairseq-train",
            str(data),
            *("--user-dir", str(USER_DIR)),
            *("--arch", arch),
            *FINE_TUNING_FLAGS,
            *("--num-classes", self.num_classes),
            *("--best-checkpoint-metric", self.best),
            *shlex.split(self.task_flags),
            *("--criterion", CRITERIONS[self.method]),
            *("--lr", self.lr, "--batch-size", self.batch, "--max-epoch", self.epochs),
            *("--total-num-update", updates, "--max-update", updates),
            *("--warmup-updates", warmup),
            *shlex.split(self.flags),
            *("--seed", str(seed), "--save-dir", str(save_dir)),
            *PRECISION_FLAGS[precision],
            *(("--finetune-from-model", str(checkpoint)) if checkpoint else ()),
            *extra,
        ]


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a tab-separated table with a header; ``#`` begins a comment line."""
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def load_recipes() -> dict[tuple[str, str], Recipe]:
    """All recipes, by (task, method)."""
    tasks = {row["task"]: row for row in read_table(EXAMPLES / "tasks.tsv")}
    recipes = {}
    for row in read_table(EXAMPLES / "recipes.tsv"):
        task = tasks[row["task"]]
        facts = {"num_classes": task["num_classes"], "best": task["best"]}
        recipe = Recipe(**row, **facts, task_flags=task["flags"] or "")
        recipes[recipe.task, recipe.method] = recipe
    return recipes


def get_recipe(task: str, method: str) -> Recipe:
    """One recipe.

    Raises:
        RecipeError: there is none for this task or method.
    """
    recipes = load_recipes()
    for index, (what, asked) in enumerate((("task", task), ("method", method))):
        known = list(dict.fromkeys(key[index] for key in recipes))
        if asked not in known:
            raise RecipeError(f"unknown {what} {asked!r}: choose one of {', '.join(known)}")
    if (task, method) not in recipes:
        raise RecipeError(f"recipes.tsv has no row for {task} with {method}")
    return recipes[task, method]


def count_rows(data: Path) -> int:
    """How many training examples a preprocessed folder holds, from its index file's header.

    Raises:
        RecipeError: the folder has no training data.
    """
    index = data / "input0" / "train.idx"
    if not index.is_file():
        raise RecipeError(f"{index}: no such file, so {data} is no preprocessed training data")
    with index.open("rb") as file:
        # fairseq's mmap format: 9 bytes of magic, 8 of version, 1 of type, then the count.
        file.seek(18)
        return int.from_bytes(file.read(8), "little")
