"""Time our GPT-2 BPE against fairseq's own multiprocessing encoder, on the same texts, in one run.

    python scripts/measure/compare_bpe_speed.py --glue-dir glue --task SST-2 --bpe-dir gpt2_bpe

Both start from one text file and load their tables within the timed part. fairseq's runs its own
`main()` in this process, so neither side pays for Python's start or for imports, and it writes
text that fairseq-preprocess would still have to binarize. Ours is timed twice: up to dictionary
indices, and with writing the finished .bin and .idx files.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
from fairseq.examples.roberta import multiprocessing_bpe_encoder

from adv_plugins_cli.command import UserError, one_line_errors, positive
from adv_plugins_cli.data.glue_format import TASKS, read_split

if TYPE_CHECKING:
    from adv_plugins_cli.data.binarize import Indices  # which needs an extra


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--glue-dir", type=Path, required=True)
    parser.add_argument("--task", nargs="+", choices=list(TASKS), required=True)
    parser.add_argument("--bpe-dir", type=Path, required=True)
    parser.add_argument("--split", default="train", choices=["train", "valid", "test", "all"])
    parser.add_argument("--repeats", type=positive, default=5)
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1)
    return parser.parse_args(argv)


def collect_texts(glue_dir: Path, names: Sequence[str], split: str) -> list[str]:
    """Return every input text of the given tasks' files (those that exist)."""
    texts = []
    for name in names:
        for kind in ("train", "valid", "test") if split == "all" else (split,):
            for file_name in TASKS[name].files(kind).values():
                path = glue_dir / name / file_name
                if path.is_file():
                    data = read_split(path, TASKS[name], test=kind == "test")
                    texts += [text for column in data.inputs for text in column]
    if not texts:
        raise UserError(f"{glue_dir}: none of the files of {', '.join(names)} in it (--glue-dir)")
    return texts


def fairseq_encode(bpe_dir: Path, source: Path, target: Path, workers: int) -> None:
    """Run fairseq's encoder script as its GLUE recipe does."""
    command = [
        "multiprocessing_bpe_encoder",
        *("--encoder-json", str(bpe_dir / "encoder.json")),
        *("--vocab-bpe", str(bpe_dir / "vocab.bpe")),
        *("--inputs", str(source)),
        *("--outputs", str(target)),
        *("--workers", str(workers)),
        "--keep-empty",
    ]
    with (
        mock.patch.object(sys, "argv", command),
        mock.patch.object(sys, "stderr", open(os.devnull, "w")),
    ):
        multiprocessing_bpe_encoder.main()


def our_encode(bpe_dir: Path, source: Path) -> tuple[list[Indices], int]:
    """Return the indices of every line of a text file, and the dictionary's size."""
    from adv_plugins_cli.data.binarize import Gpt2Bpe
    from adv_plugins_cli.data.write_task import BATCH_SIZE

    encoder = Gpt2Bpe(bpe_dir)
    with source.open(encoding="utf-8") as handle:
        texts = [line.strip() for line in handle]
    sequences: list[Indices] = []
    for start in range(0, len(texts), BATCH_SIZE):
        sequences += encoder.encode_batch(texts[start : start + BATCH_SIZE])
    return sequences, len(encoder.dictionary)


def our_encode_and_write(bpe_dir: Path, source: Path, folder: Path) -> None:
    """The whole way from text to the files that training reads."""
    from adv_plugins_cli.data.binarize import write_split

    sequences, size = our_encode(bpe_dir, source)
    write_split(folder, "train", sequences, size)


def seconds(action: Callable[[], object]) -> float:
    """Return the wall-clock time of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def count_differences(bpe_dir: Path, encoded: Path, source: Path) -> tuple[int, int]:
    """Compare with fairseq's output, mapped by its Dictionary: (differing lines, tokens)."""
    from adv_plugins_cli.data.dictionary import load_dictionary

    dictionary = load_dictionary(bpe_dir / "dict.txt")
    lines = encoded.read_text("utf-8").split("\n")[:-1]
    ours, _ = our_encode(bpe_dir, source)
    theirs = [[dictionary.index(symbol) for symbol in line.split()] for line in lines]
    differing = sum(not np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))
    return differing, sum(map(len, theirs))


def describe(name: str, times: list[float], sentences: int) -> float:
    """Print one row and return the median."""
    median = statistics.median(times)
    print(
        f"{name:32} median {median:7.2f} s  (min {min(times):.2f}, max {max(times):.2f}, "
        f"n={len(times)})  {sentences / median:8.0f} sentences/s"
    )
    return median


def run(arguments: argparse.Namespace) -> None:
    """Run the comparison.

    Raises:
        UserError: a file is missing or not as it should be; the indices differ.
    """
    from adv_plugins_cli.data.binarize import Gpt2Bpe

    Gpt2Bpe(arguments.bpe_dir)  # what is wrong with it is said before anything is measured
    texts = collect_texts(arguments.glue_dir, arguments.task, arguments.split)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, encoded = folder / "texts", folder / "encoded"
        source.write_text("".join(f"{text}\n" for text in texts), "utf-8")
        runs: dict[str, Callable[[], object]] = {
            "fairseq: text to BPE text": lambda: fairseq_encode(
                arguments.bpe_dir, source, encoded, arguments.workers
            ),
            "ours: text to indices": lambda: our_encode(arguments.bpe_dir, source),
            "ours: text to .bin and .idx": lambda: our_encode_and_write(
                arguments.bpe_dir, source, folder
            ),
        }
        times: dict[str, list[float]] = {label: [] for label in runs}
        # Alternating, so that a busy spell of the machine meets all of them.
        for _ in range(arguments.repeats):
            for label, action in runs.items():
                times[label].append(seconds(action))
        differing, tokens = count_differences(arguments.bpe_dir, encoded, source)
    print(f"{len(texts)} sentences, {tokens} tokens, {arguments.workers} workers")
    medians = [describe(label, values, len(texts)) for label, values in times.items()]
    print(f"fairseq / ours: {medians[0] / medians[1]:.1f} to indices, ", end="")
    print(f"{medians[0] / medians[2]:.1f} to finished files")
    if differing:
        raise UserError(f"{differing} of {len(texts)} sentences differ")
    print("indices identical: yes")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; a fault of the request is one line, not a traceback."""
    arguments = parse_arguments(argv)
    with one_line_errors("compare_bpe_speed.py"):
        run(arguments)


if __name__ == "__main__":
    main()
