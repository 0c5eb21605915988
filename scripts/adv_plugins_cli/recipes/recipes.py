"""The recipes: ``tasks.tsv`` and ``recipes.tsv`` as ``fairseq-train`` command lines."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fairseq_compat
from adv_plugins_cli.checkpoints.architecture import (
    ARCHITECTURE,
    WORD_ARCHS,
    Architecture,
    read_architecture,
)
from adv_plugins_cli.command import UserError, read_lines, read_text
from adv_plugins_cli.recipes.methods import PLAIN, load_methods
from fairseq_compat.task_kinds import TASK_KINDS, TaskKind

TABLES = Path(__file__).resolve().parent
OWN: dict[str, Recipe] = {}  # plain fine-tuning on data of the user's own, by the name of these

PRECISION_FLAGS = {
    "fp32": [],
    "fp16": "--fp16 --fp16-init-scale 4 --threshold-loss-scale 1 --fp16-scale-window 128".split(),
    "bf16": ["--bf16"],
    "amp": ["--amp"],
    "amp-bf16": ["--amp", "--amp-dtype", "bfloat16"],
}
# What every recipe shares: fairseq's published way to fine-tune RoBERTa, without work on padding.
FINE_TUNING_FLAGS = shlex.split(
    "--group-by-length 50 --init-token 0 --max-positions 512 --dropout 0.1 --attention-dropout 0.1 "
    "--weight-decay 0.1 --optimizer adamw_fused --adam-betas '(0.9, 0.98)' --adam-eps 1e-06 "
    "--clip-norm 0.0 --lr-scheduler polynomial_decay --max-tokens 4400 --required-batch-size-multiple 1 "
    "--maximize-best-checkpoint-metric --no-epoch-checkpoints --find-unused-parameters "
    "--log-format json --log-interval 50"
)
# The same of the models that are trained from scratch: R-AT's dropout, 256 words of a text, and what is
# usual for them (this project's choice).
FROM_SCRATCH_FLAGS = shlex.split(
    "--group-by-length 50 --max-positions 256 --shorten-method truncate --dropout 0.5 --weight-decay 0 "
    "--optimizer adamw_fused --adam-betas '(0.9, 0.999)' --adam-eps 1e-08 --clip-norm 1 "
    "--lr-scheduler polynomial_decay --max-tokens 16384 --required-batch-size-multiple 1 "
    "--maximize-best-checkpoint-metric --no-epoch-checkpoints --find-unused-parameters "
    "--log-format json --log-interval 50"
)


@dataclass(frozen=True)
class Start:
    """What a training starts from: a model, and its weights (checkpoint: None for random ones)."""

    architecture: Architecture
    checkpoint: Path | None = None

    def __str__(self) -> str:
        place = "random weights" if self.checkpoint is None else str(self.checkpoint)
        layers = dict(self.architecture.sizes).get("--encoder-layers")
        size = f", {layers} layers" if layers else ""
        return f"{place} ({self.architecture.arch}{size})"

    @classmethod
    def of(
        cls, checkpoint: Path | None, arch: str | None = None, *, default: str = "roberta_large"
    ) -> Start:
        """A checkpoint with the architecture that its folder describes (``architecture.json``).

        Args:
            arch: for fairseq's own checkpoints, whose folders describe nothing.
            default: that where None is given.

        Raises:
            UserError: the checkpoint does not exist, or its architecture is another one.
        """
        if checkpoint is not None and not checkpoint.is_file():
            raise UserError(
                f"{checkpoint}: no such checkpoint (--checkpoint); adv-plugins download fetches "
                "roberta.base and roberta.large, adv-plugins convert from-hf converts others, and "
                "--from-scratch trains without one"
            )
        if checkpoint is not None and arch in WORD_ARCHS:
            raise UserError(f"--arch {arch} is trained from scratch: --from-scratch, no --checkpoint")
        described = read_architecture(checkpoint.parent) if checkpoint else None
        if described is None:
            return cls(Architecture(arch or default), checkpoint)
        if checkpoint is not None and arch not in (None, described.arch):
            raise UserError(
                f"--arch {arch}: {checkpoint.with_name(ARCHITECTURE)} says {described.arch}; leave "
                "--arch away"
            )
        return cls(described, checkpoint)


@dataclass(frozen=True)
class Recipe:
    """A row of ``recipes.tsv`` with its task's row of ``tasks.tsv``; numbers stay text.

    criterion: of the method, None for the task's own; adversaries: whether the architecture needs ASA's;
    user_dir: the package that knows the method; has_row: whether the table has one of it; workers: that
    share an update, as the batch is one's; replays: the option that says how many updates each batch
    gets, and its default.
    """

    task: str
    method: str
    source: str
    lr: str
    batch: str
    epochs: str
    updates: str
    warmup: str
    flags: str
    fairseq_task: str
    num_classes: str
    best: str
    task_flags: str
    criterion: str | None = None
    adversaries: bool = False
    user_dir: Path | None = None
    has_row: bool = True
    workers: int = 1
    replays: tuple[str, int] | None = None

    @property
    def kind(self) -> TaskKind:
        """What is true of all of fairseq's tasks of this name."""
        return TASK_KINDS[self.fairseq_task]

    def command(
        self,
        data: Path,
        *,
        start: Start,
        save_dir: Path,
        seed: int,
        precision: str = "fp32",
        extra: Sequence[str] = (),
    ) -> list[str]:
        """``fairseq-train`` and its arguments.

        Args:
            data: a folder made by the preprocessing.
            start: architecture and weights; for ASA the one with adversaries is taken.
            extra: flags of the user, which win over the recipe's.
        """
        updates, warmup = self.updates, self.warmup
        # A row of the method's own names its numbers; what else is counted knows one update a batch.
        times = self.times(extra) if updates == "-" or not self.has_row else 1
        if updates == "-":
            batch = int(self.batch) * self.workers
            if not count_rows(data):
                raise UserError(f"{data}: no training examples")
            updates = str(math.ceil(count_rows(data) / batch) * int(self.epochs))
        updates = str(int(updates) * times)
        warmup = str(math.ceil(float(warmup) * int(updates)) if "." in warmup else int(warmup) * times)
        pairs = self.kind.separator and start.architecture.separators == 2
        return [
            "fairseq-train",
            str(data),
            *("--user-dir", str(self.user_dir or fairseq_compat.user_dir())),
            *("--task", self.fairseq_task, "--num-classes", self.num_classes),
            *(FROM_SCRATCH_FLAGS if start.architecture.arch in WORD_ARCHS else FINE_TUNING_FLAGS),
            *(("--separator-token", "2") if pairs else ()),
            *start.architecture.flags(adversaries=self.adversaries),
            *("--best-checkpoint-metric", self.best),
            *shlex.split(self.task_flags),
            *("--criterion", self.criterion or self.kind.criterion),
            *("--lr", self.lr, "--batch-size", self.batch, "--max-epoch", self.epochs),
            *("--total-num-update", updates, "--max-update", updates),
            *("--warmup-updates", warmup),
            *shlex.split(self.flags),
            *("--seed", str(seed), "--save-dir", str(save_dir)),
            *PRECISION_FLAGS[precision],
            *(("--finetune-from-model", str(start.checkpoint)) if start.checkpoint else ()),
            *extra,
        ]

    def times(self, extra: Sequence[str] = ()) -> int:
        """How many updates each batch gets, with these flags behind the recipe's."""
        if self.replays is None:
            return 1
        option, default = self.replays
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument(option, type=int, default=default, dest="times")
        found: int = parser.parse_known_args([*shlex.split(self.flags), *extra])[0].times
        return found


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a tab-separated table with a header; ``#`` begins a comment line."""
    lines = [line for line in read_text(path).splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, restval=""))
    for row in rows:
        if None in row:
            place = " ".join(list(row.values())[:2])
            raise UserError(f"{path}: too many columns in the row of {place}")
    return rows


def load_recipes() -> dict[tuple[str, str], Recipe]:
    """All recipes, by (task, method)."""
    tasks = {row["task"]: row for row in read_table(TABLES / "tasks.tsv")}
    recipes = {}
    for row in read_table(TABLES / "recipes.tsv"):
        if row["task"] not in tasks:
            raise UserError(f"{TABLES / 'recipes.tsv'}: {row['task']} is no task of tasks.tsv")
        task = tasks[row["task"]]
        facts: dict[str, Any] = {name: task[name] for name in ("fairseq_task", "num_classes", "best")}
        facts.update(row)
        recipe = Recipe(**facts, task_flags=task["flags"])
        recipes[recipe.task, recipe.method] = recipe
    return recipes | {(name, PLAIN): recipe for name, recipe in OWN.items()}


def add_own(name: str, *, classes: int, rows: int, small: bool) -> None:
    """Make data of the user's own a task like the others; its settings are those of ``own.tsv``.

    Args:
        classes: 0 for scores; rows: to train on; small: of an encoder below base's size.
    """
    row = next(row for row in read_table(TABLES / "own.tsv") if rows <= int(row["rows"]))
    scores = "--regression-target --report-pearson-and-spearman "
    OWN[name] = Recipe(
        task=name,
        method=PLAIN,
        source=f"own.tsv: as {row['like']}",
        lr=row["small_lr" if small else "lr"],
        batch=row["batch"],
        epochs=row["epochs"],
        updates="-",
        warmup="0.06",
        flags="",
        fairseq_task="sentence_prediction",
        num_classes=str(classes or 1),
        best="accuracy" if classes else "pearson_and_spearman",
        task_flags=f"{'' if classes else scores}--shorten-method truncate --max-tokens 16384",
    )


def get_recipe(
    task: str, method: str, user_dir: Path | None = None, *, arch: str | None = None
) -> Recipe:
    """One recipe; of a model that is trained from scratch that of ``from_scratch.tsv``.

    A method that ``recipes.tsv`` has no row of for this task gets that of plain fine-tuning and the
    options that it has registered.

    Args:
        user_dir: a package with more methods.
        arch: the model's architecture.

    Raises:
        UserError: there is no such task or method.
    """
    if arch in WORD_ARCHS:
        return _from_scratch(get_recipe(task, method, user_dir), user_dir)
    recipes = load_recipes()
    known = list(dict.fromkeys(key[0] for key in recipes))
    if task not in known:
        raise UserError(f"unknown task {task!r}: choose one of {', '.join(known)}")
    plain = recipes[task, PLAIN]
    if method == PLAIN:
        return plain
    registered = load_methods(user_dir)
    if method not in registered:
        raise UserError(f"unknown method {method!r}: choose one of {', '.join((PLAIN, *registered))}")
    facts = registered[method]
    found = recipes.get((task, method)) or dataclasses.replace(
        plain,
        method=method,
        source=f"{plain.source}, and the method's own options"
        if task in OWN
        else f"plain fine-tuning's row of {task}, and the method's own options",
        flags=f"{plain.flags} {facts.flags}".strip(),
        has_row=False,
    )
    return dataclasses.replace(
        found,
        criterion=facts.criterion,
        adversaries=facts.adversaries,
        user_dir=user_dir,
        replays=facts.replays,
    )


def _from_scratch(recipe: Recipe, user_dir: Path | None) -> Recipe:
    """With the settings of ``from_scratch.tsv`` in the place of its own."""
    rows = {row.pop("method"): row for row in read_table(TABLES / "from_scratch.tsv")}
    row = rows.get(recipe.method)
    source = "from_scratch.tsv (this project's)"
    if row is None:
        flags = load_methods(user_dir)[recipe.method].flags
        row = {**rows[PLAIN], "flags": flags}
        source = f"plain's row of {source}, and the method's own options"
    settings: dict[str, Any] = {**row, "updates": "-", "source": source}
    return dataclasses.replace(recipe, **settings)


def count_rows(data: Path) -> int:
    """How many training examples a preprocessed folder holds.

    Raises:
        UserError: the folder has no training data.
    """
    raw, index = data / "train.jsonl", data / "input0" / "train.idx"
    if raw.is_file():  # commonsense_qa, which reads the official files
        return sum(1 for _, line in read_lines(raw) if line.strip())
    if not index.is_file():
        raise UserError(f"{index}: no such file, so {data} is no preprocessed training data")
    with index.open("rb") as file:
        # fairseq's mmap format: 9 bytes of magic, 8 of version, 1 of type, then the count.
        header = file.read(26)
    if len(header) < 26 or not header.startswith(b"MMIDIDX"):
        raise UserError(f"{index}: no index of binary data; preprocess it again")
    return int.from_bytes(header[18:], "little")
