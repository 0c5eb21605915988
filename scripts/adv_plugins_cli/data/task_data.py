"""A task's preprocessed folder: found, or made from the official files."""

from __future__ import annotations

import argparse
from pathlib import Path

from adv_plugins_cli.command import UserError
from adv_plugins_cli.recipes import recipes


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


def tokenizer_options(arguments: argparse.Namespace) -> list[str]:
    """The tokenizer that belongs to the checkpoint: what lies beside it, else GPT-2's BPE."""
    from adv_plugins_cli.data.tokenizer_options import options_of_checkpoint

    beside = options_of_checkpoint(arguments.checkpoint.parent) if arguments.checkpoint else []
    return beside or ["--bpe-dir", str(arguments.bpe_dir)]


def flags_for_raw_text(arguments: argparse.Namespace, recipe: recipes.Recipe) -> list[str]:
    """What commonsense_qa needs beside the data: it tokenises while it trains, with GPT-2's BPE.

    Raises:
        UserError: the checkpoint has another tokenizer.
    """
    if recipe.fairseq_task != "commonsense_qa":
        return []
    option, folder = tokenizer_options(arguments)
    if option != "--bpe-dir":
        raise UserError(
            f"fairseq's commonsense_qa knows GPT-2's BPE only, the checkpoint needs {option}: "
            f"take the task {recipe.task}-ranking"
        )
    files = {"--gpt2-encoder-json": "encoder.json", "--gpt2-vocab-bpe": "vocab.bpe"}
    for name in files.values():
        if not (Path(folder) / name).is_file():
            raise UserError(f"{Path(folder) / name}: no such file (--bpe-dir)")
    return [part for flag, name in files.items() for part in (flag, str(Path(folder) / name))]


def prepare_data(arguments: argparse.Namespace, recipe: recipes.Recipe) -> Path:
    """The task's preprocessed folder, made from --data-dir if it is not there yet.

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

    request = [recipe.task, f"--data-dir={arguments.data_dir}", f"--out-dir={arguments.data_bin}"]
    preprocess.run(preprocess.parse_arguments([*request, *tokenizer_options(arguments)]))
    return data


def check_dictionary(data: Path, checkpoint: Path | None) -> None:
    """Refuse data whose words are numbered otherwise than the checkpoint's.

    Raises:
        UserError: naming both dictionaries, or the folder that has none.
    """
    from adv_plugins_cli.data.write_task import dictionary_of, read_symbols

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
