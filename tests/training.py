"""Running fairseq's own commands in this process, on tiny data written for the purpose."""

import contextlib
import gc
import json
import re
from pathlib import Path

import fairseq_cli.train
import numpy as np
import torch
from fairseq import checkpoint_utils, distributed_utils, metrics, options
from fairseq.data import Dictionary
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

import adv_plugins  # noqa: F401
from adv_plugins_cli.data.binarize import write_split

ROOT = Path(__file__).resolve().parents[1]
WORDS, CLASSES, CHOICES = 30, 3, 3
LABELS = ["O", "B-fox", "I-fox", "B-hen"]
TINY = (
    "--encoder-layers 2 --encoder-embed-dim 8 --encoder-ffn-embed-dim 16 "
    "--encoder-attention-heads 2 --max-positions 32 --cpu --num-workers 0 --log-format json "
    "--lr 0.01 --lr-scheduler fixed --batch-size 4 "
    "--required-batch-size-multiple 1 --seed 3 --no-progress-bar"
)
ADAM = "--optimizer adam --adam-betas (0.9,0.98)"
KIND_FLAGS = {
    "classification": f"--task sentence_prediction --num-classes {CLASSES} --init-token 0",
    "regression": "--task sentence_prediction --num-classes 1 --init-token 0 --regression-target",
    "multiple-choice": f"--task sentence_ranking --num-classes {CHOICES} --init-token 0",
    "masked-lm": "--task masked_lm --tokens-per-sample 30 --sample-break-mode complete",
    "token-classification": "--task token_classification --init-token 0",
}


def write_data(folder, kind, sizes=(18, 10), words=None):
    """Random sentences of ``kind`` in fairseq's binary form; returns the folder.

    ``words``: a dict.txt to use instead of one of our own.
    """
    random = np.random.default_rng(1)
    words = Dictionary.load(str(words)) if words else Dictionary()
    for index in range(WORDS if len(words) == words.nspecial else 0):
        words.add_symbol(f"w{index}")
    first = words.nspecial
    inputs = (
        [f"input{index}" for index in range(CHOICES + 1)] if kind == "multiple-choice" else ["input0"]
    )
    for split, count in zip(("train", "valid"), sizes):
        for name in inputs if kind != "masked-lm" else [""]:
            lengths = random.integers(2, 9, size=count)
            sentences = [random.integers(first, first + WORDS, size=n) for n in lengths]
            (folder / name).mkdir(parents=True, exist_ok=True)
            words.save(str(folder / name / "dict.txt"))
            write_split(folder / name, split, sentences, len(words))
        labels = random.integers(0, CLASSES, size=count)
        if kind == "masked-lm":
            continue
        (folder / "label").mkdir(exist_ok=True)
        if kind == "token-classification":
            write_token_labels(folder / "label", split, map(token_labels, sentences))
            continue
        if kind == "classification":
            classes = Dictionary()
            for index in range(CLASSES):
                classes.add_symbol(f"c{index}")
            classes.save(str(folder / "label" / "dict.txt"))
            rows = [np.array([classes.index(f"c{label}")]) for label in labels]
            write_split(folder / "label", split, rows, len(classes))
        else:
            values = random.random(count) if kind == "regression" else labels
            text = "".join(f"{value}\n" for value in values)
            (folder / "label" / f"{split}.label").write_text(text)
    return folder


def token_labels(sentence):
    """Names that follow from the words, so that they can be learned; None continues a word."""
    names = {0: None, 1: "B-fox", 2: "I-fox", 3: "B-hen"}
    return [names.get(word % 8, "O") for word in sentence.tolist()]


def write_token_labels(folder, split, labels, end_symbol=None):
    """Write rows of names, None for none, and their dictionary."""
    dictionary = Dictionary()
    for name in LABELS:
        dictionary.add_symbol(name)
    dictionary.save(str(folder / "dict.txt"))
    rows = [
        np.array([dictionary.pad() if name is None else dictionary.index(name) for name in row])
        for row in labels
    ]
    write_split(folder, split, rows, len(dictionary), end_symbol=end_symbol)


def parse(arguments):
    """A command line (a list) as fairseq-train's configuration."""
    parser = options.get_training_parser()
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, arguments))


def train(data, save_dir, kind, criterion, *flags, arch="asa_roberta", optimizer=ADAM):
    """fairseq-train in this process; returns the last checkpoint's state."""
    line = f"{data} --save-dir {save_dir} --arch {arch} --criterion {criterion}"
    line = f"{line} {TINY} {KIND_FLAGS[kind]} {optimizer}"
    run([*line.split(), *flags])
    return checkpoint_utils.load_checkpoint_to_cpu(str(save_dir / "checkpoint_last.pt"))


def run(arguments):
    """fairseq-train with these arguments (a list), in this process."""
    metrics.reset()
    if hasattr(checkpoint_utils.save_checkpoint, "best"):
        del checkpoint_utils.save_checkpoint.best
    cfg = parse(arguments)
    with contextlib.ExitStack() as stack:
        # fairseq leaves the global random state as its last update left it.
        stack.callback(torch.set_rng_state, torch.get_rng_state())
        distributed_utils.call_main(cfg, fairseq_cli.train.main)
    if cfg.dataset.num_workers:  # which otherwise a later test waits for, 5 s each
        for each in gc.get_objects():
            if type(each).__name__ == "_MultiProcessingDataLoaderIter":
                each._shutdown_workers()


def logged(caplog, name):
    """The numbers of the log lines of ``train``, ``train_inner`` or ``valid``."""
    found = []
    for record in caplog.records:
        if record.name == name and (match := re.search(r"\{.*\}", record.getMessage())):
            found.append(json.loads(match[0]))
    return found
