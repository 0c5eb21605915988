"""The demo: plain fine-tuning and the adversarial methods on a small task, a few seeds each.

Writes data, a SentencePiece vocabulary, checkpoints and TensorBoard logs under --out-dir, trains
with stock fairseq-train, and ends with a table. A second call continues where the first stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adv_plugins_cli.checkpoints.architecture import Architecture
from adv_plugins_cli.command import one_line_errors
from adv_plugins_cli.data.grammar import examples
from adv_plugins_cli.recipes import recipes, runs
from adv_plugins_cli.recipes.command_line import check_counts, check_different
from adv_plugins_cli.recipes.methods import CORE
from fairseq_compat import files

SPLITS = {"train": (2000, 1, 0.15), "valid": (1000, 2, 0.0)}  # examples, seed, label noise
VOCABULARY = 400
# A RoBERTa small enough for a laptop's CPU, trained from random weights.
START = recipes.Start(Architecture("roberta"))
MODEL_FLAGS = shlex.split(
    "--encoder-layers 2 --encoder-embed-dim 64 --encoder-ffn-embed-dim 128 "
    "--encoder-attention-heads 4 --max-positions 64 --pooler-dropout 0.1 --cpu --num-workers 0"
)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out-dir", type=Path, default=Path("demo-out"))
    parser.add_argument("--methods", nargs="+", default=list(CORE))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, help="(default: the recipes')")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    return parser.parse_args(argv)


def prepare_data(folder: Path) -> Path:
    """Write the sentences, train the vocabulary on them, binarise; returns fairseq's folder."""
    data = folder / "demo-bin"
    if (data / "label" / "dict.txt").exists():
        return data
    import sentencepiece

    from adv_plugins_cli.data.binarize import SentencePiece, build_label_dictionary, write_split

    folder.mkdir(parents=True, exist_ok=True)
    texts, labels = {}, {}
    for split, (count, seed, noise) in SPLITS.items():
        texts[split], labels[split] = zip(*examples(count, seed=seed, noise=noise))
        lines = [f"{label}\t{text}\n" for text, label in zip(texts[split], labels[split])]
        (folder / f"{split}.tsv").write_text("".join(lines), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts["train"]),
        model_prefix=str(folder / "sentencepiece"),
        vocab_size=VOCABULARY,
        model_type="bpe",
        minloglevel=2,
    )
    encoder = SentencePiece(folder / "sentencepiece.model")
    label_dictionary = build_label_dictionary(labels["train"])
    with files.folder_beside(data, overwrite=True) as partial:
        for name, dictionary in (("input0", encoder.dictionary), ("label", label_dictionary)):
            (partial / name).mkdir(parents=True, exist_ok=True)
            for split in SPLITS:
                if name == "input0":
                    sequences = encoder.encode_batch(list(texts[split]))
                else:
                    import numpy

                    sequences = [numpy.array([dictionary.index(label)]) for label in labels[split]]
                write_split(partial / name, split, sequences, len(dictionary))
            dictionary.save(str(partial / name / "dict.txt"))
    return data


def make_run(data: Path, out_dir: Path, method: str, seed: int, epochs: int | None) -> runs.Run:
    """One training of the table."""
    recipe = recipes.get_recipe("demo", method)
    if epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=str(epochs))
    save_dir = out_dir / method / f"seed{seed}"
    command = recipe.command(
        data,
        start=START,
        save_dir=save_dir,
        seed=seed,
        extra=[
            *MODEL_FLAGS,
            "--tensorboard-logdir",
            str(out_dir / "tensorboard" / f"{method}-{seed}"),
        ],
    )
    facts = {"task": "demo", "method": method, "seed": seed}
    return runs.Run(f"{method} seed {seed}", command, save_dir, recipe.best, facts)


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Mean and standard deviation over the seeds, of the last validation."""
    seeds = len(next(iter(results.values())))
    lines = [
        f"{'method':<8} {'accuracy':>8} {'std':>5} {'min':>5} {'max':>5}   (last epoch, {seeds} seeds)"
    ]
    for method, runs_of_method in results.items():
        scores = [result["last"] for result in runs_of_method]
        deviation = statistics.stdev(scores) if len(scores) > 1 else float("nan")
        numbers = (
            f"{statistics.mean(scores):8.2f} {deviation:5.2f} {min(scores):5.1f} {max(scores):5.1f}"
        )
        lines.append(f"{method:<8} {numbers}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    arguments = parse_arguments(argv)
    with one_line_errors("adv-plugins demo"):
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Prepare, train what is not trained yet, report."""
    for method in arguments.methods:
        recipes.get_recipe("demo", method)
    check_different("--methods", arguments.methods)
    check_different("--seeds", arguments.seeds)
    check_counts(arguments, "epochs", "jobs")
    out_dir = arguments.out_dir.resolve()
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:4.0f} s] {text}", flush=True)

    data = prepare_data(out_dir)
    say(f"data: {data}")
    every = [
        make_run(data, out_dir, method, seed, arguments.epochs)
        for method in arguments.methods
        for seed in arguments.seeds
    ]
    waiting = [run for run in every if runs.read_result(run) is None]
    say(f"the first command, {every[0].name}:\n{shlex.join(every[0].command)}")
    for method in arguments.methods:
        recipe = recipes.get_recipe("demo", method)
        say(f"{method}: --criterion {recipe.criterion or recipe.kind.criterion} {recipe.flags}")
    say(f"training {len(waiting)} models, {arguments.jobs} at a time")

    def report(run: runs.Run, numbers: dict[str, float]) -> None:
        say(f"{run.name}: epoch {numbers['epoch']:.0f}, accuracy {numbers['valid_accuracy']:.1f}")

    runs.run_in_background(waiting, jobs=arguments.jobs, report=report)
    results: dict[str, list[dict[str, Any]]] = {method: [] for method in arguments.methods}
    for run in every:
        result = runs.read_result(run)
        assert result is not None  # all have finished
        results[run.facts["method"]].append(result)
    print(f"\n{table(results)}\n")
    print(f"checkpoints:  {out_dir}/METHOD/seedN/checkpoint_best.pt, log and result.json beside it")
    print(f"curves:       tensorboard --logdir {out_dir / 'tensorboard'}")
