"""A task's preprocessed folder: found, or made from the official files."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from adv_plugins_cli.checkpoints.architecture import WORD_ARCHS, Architecture, model_of
from adv_plugins_cli.command import UserError
from adv_plugins_cli.data.dictionary import read_labels, read_symbols
from adv_plugins_cli.data.formats.common import OFFICIAL, SPLITS
from adv_plugins_cli.data.tokenizer_options import WORDS_FILE, Tokenizer, find_tokenizer
from adv_plugins_cli.recipes import run_folder
from adv_plugins_cli.recipes.recipes import Recipe
from fairseq_compat import files
from fairseq_compat.task_kinds import LABELS

CHINESE = ("TNEWS", "IFLYTEK")  # whose words nothing parts


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--data-bin",
        type=Path,
        default=Path("data-bin"),
        help="holds TASK-bin, or gets it from --data-dir (default: %(default)s)",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="the official files: TASK/train.tsv and so on",
    )
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default=OFFICIAL,
        help="of data that --data-dir makes (default: %(default)s; see preprocess)",
    )


def tokenizer_of(
    arguments: argparse.Namespace, task: str | None = None, arch: str | None = None
) -> Tokenizer:
    """The tokenizer that belongs to the checkpoint: what lies beside it, else GPT-2's BPE; for a model
    that is trained from scratch on words, these: the task's data's, or such as are made with them."""
    if arch in WORD_ARCHS and task is not None:
        made = Path(arguments.data_bin) / f"{task}-bin" / "input0"
        if not made.parent.is_dir():
            return Tokenizer("words", Path("characters" if task in CHINESE else "words"))
        if (made / WORDS_FILE).is_file():
            return Tokenizer("words", made, (WORDS_FILE,))
    beside = find_tokenizer(arguments.checkpoint.parent) if arguments.checkpoint else None
    return beside or Tokenizer("gpt2-bpe", arguments.bpe_dir)


def flags_for_raw_text(arguments: argparse.Namespace, recipe: Recipe) -> list[str]:
    """What a task that reads raw text needs beside the data: commonsense_qa, with GPT-2's BPE.

    Raises:
        UserError: the checkpoint has another tokenizer.
    """
    if not recipe.kind.raw_text:
        return []
    tokenizer = tokenizer_of(arguments)
    if tokenizer.kind != "gpt2-bpe":
        raise UserError(
            f"fairseq's {recipe.fairseq_task} knows GPT-2's BPE only, the checkpoint needs "
            f"{tokenizer.kind}: take the task {recipe.task}-ranking"
        )
    flags = {"--gpt2-encoder-json": "encoder.json", "--gpt2-vocab-bpe": "vocab.bpe"}
    for name in flags.values():
        if not (tokenizer.folder / name).is_file():
            raise UserError(f"{tokenizer.folder / name}: no such file (--bpe-dir)")
    return [part for flag, name in flags.items() for part in (flag, str(tokenizer.folder / name))]


def describe_model(
    folder: Path,
    *,
    command: Sequence[str],
    words: Path,
    separators: int,
    tokenizer: Tokenizer,
    labels: Path | None = None,
) -> None:
    """Leave beside a training's checkpoints what is needed to use them elsewhere: architecture.json
    with the model, the labels and the tokenizer, and the tokenizer's files with the data's dictionary.

    Args:
        words: the data's dictionary, by which the tokenizer is known to be theirs; labels: that of the
            classes, None where there are none.
    """
    own = tokenizer.folder / "dict.txt"
    described = None
    if tokenizer.files() and (not own.is_file() or read_symbols(own) == read_symbols(words)):
        for name in tokenizer.files():
            files.copy_file(tokenizer.folder / name, folder / name)
        files.copy_file(words, folder / "dict.txt")
        described = tokenizer.moved_to(folder).describe()
    arch, sizes = model_of(run_folder.options(command))
    Architecture(
        arch,
        sizes,
        separators=separators,
        tokenizer=described,
        labels=read_labels(labels) if labels is not None else None,
    ).write(folder)


def describer(
    data: Path,
    recipe: Recipe,
    command: Sequence[str],
    *,
    separators: int,
    tokenizer: Tokenizer,
) -> Callable[[Path], None]:
    """What a run does to its folder before it trains: :func:`describe_model`, for a task's recipe."""
    has_labels = recipe.kind.predicts in ("classification", "tokens")
    return partial(
        describe_model,
        command=command,
        words=data / recipe.kind.dictionary,
        labels=data / LABELS if has_labels and "--regression-target" not in command else None,
        separators=separators,
        tokenizer=tokenizer,
    )


def prepare_data(arguments: argparse.Namespace, recipe: Recipe, arch: str | None = None) -> Path:
    """The task's preprocessed folder, made from --data-dir if it is not there yet.

    Args:
        arch: of the model that is to read it.

    Raises:
        ValueError: it is not there and cannot be made, or was made with another tokenizer.
    """
    data = Path(arguments.data_bin) / f"{recipe.task}-bin"
    if data.is_dir():
        check_dictionary(data, arguments.checkpoint)
        return data
    if arguments.data_dir is None:
        raise UserError(
            f"{data}: no such folder; give --data-bin with the preprocessed data, or --data-dir "
            "with the official files to make it from"
        )
    from adv_plugins_cli import preprocess

    tokenizer = tokenizer_of(arguments, recipe.task, arch)
    request = [recipe.task, f"--data-dir={arguments.data_dir}", f"--out-dir={arguments.data_bin}"]
    request.append(f"--split={getattr(arguments, 'split', OFFICIAL)}")
    preprocess.run(preprocess.parse_arguments([*request, *tokenizer.arguments()]))
    return data


def check_dictionary(data: Path, checkpoint: Path | None) -> None:
    """Refuse data whose words are numbered otherwise than the checkpoint's.

    Raises:
        UserError: naming both dictionaries, or the folder that has none.
    """
    from adv_plugins_cli.data.write_task import dictionary_of

    ours = dictionary_of(data)
    if ours is None:
        raise UserError(
            f"{data / 'input0' / 'dict.txt'}: no such file, so {data} is no preprocessed data"
        )
    theirs = checkpoint.with_name("dict.txt") if checkpoint else None
    if theirs is not None and theirs.is_file() and read_symbols(ours) != read_symbols(theirs):
        raise UserError(
            f"{ours} and {theirs} differ: the data was preprocessed for another model; choose another "
            "--data-bin"
        )
