"""Turn the official files of tasks into the folders that fairseq's tasks read.

    adv-plugins preprocess RTE DREAM --data-dir data --bpe-dir gpt2_bpe --out-dir data-bin

writes RTE-bin and DREAM-bin. Everything is read and checked before anything is written, and a folder
appears under its name only when it is complete. A GLUE task's is the same as fairseq's
preprocess_GLUE_tasks.sh makes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adv_plugins_cli.command import UserError, one_line_errors, positive
from adv_plugins_cli.data import glue_folder, task_folder
from adv_plugins_cli.data.formats import TASKS as OTHERS
from adv_plugins_cli.data.formats.common import OFFICIAL, SPLITS
from adv_plugins_cli.data.glue_format import TASKS as GLUE
from adv_plugins_cli.data.tokenizer_options import (
    MINIMUM_COUNT,
    VOCABULARY_SIZE,
    Tokenizer,
    add_tokenizer_options,
    chosen,
    is_to_be_made,
    load_encoder,
)

if TYPE_CHECKING:
    from adv_plugins_cli.data.binarize import TextEncoder

# What reads a task's files and writes its folder, with the description of the task.
TASKS: dict[str, tuple[Any, Any]] = {
    **{name: (glue_folder, task) for name, task in GLUE.items()},
    **{name: (task_folder, task) for name, task in OTHERS.items()},
}


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "tasks",
        nargs="+",
        metavar="TASK",
        help=f"GLUE for all of {', '.join(GLUE)}; or some of these and of {', '.join(OTHERS)}",
    )
    parser.add_argument(
        "--data-dir", type=Path, required=True, help="folder that holds RTE/train.tsv and so on"
    )
    add_tokenizer_options(parser)
    parser.add_argument("--out-dir", type=Path, required=True, help="where TASK-bin folders go")
    parser.add_argument(
        "--splits",
        nargs="+",
        choices=glue_folder.SPLITS,
        metavar="SPLIT",
        help="of GLUE: only these of train, valid and test (default: those that are there)",
    )
    parser.add_argument(
        "--label-dict",
        type=Path,
        metavar="DICT",
        help="of GLUE: label/dict.txt of other data, to number the labels as it does; "
        "needed where there is no train.tsv to count labels in",
    )
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default=OFFICIAL,
        help="r-at: as R-AT's Table 6 parts IMDB (all 50,000 reviews anew) and AG News "
        "(default: official)",
    )
    parser.add_argument(
        "--vocabulary-size",
        type=positive,
        default=VOCABULARY_SIZE,
        metavar="N",
        help="of --whole-words words|characters: the most frequent so many (default: %(default)s)",
    )
    parser.add_argument(
        "--minimum-count",
        type=positive,
        default=MINIMUM_COUNT,
        metavar="N",
        help="of --whole-words words|characters: that occur so often (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing TASK-bin")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> list[Path]:
    """Check every task, then write every task.

    Raises:
        UserError: naming the file, or the option to change.
    """
    names = dict.fromkeys(
        name for asked in arguments.tasks for name in (GLUE if asked == "GLUE" else [asked])
    )
    for name in names:
        if name not in TASKS:
            raise UserError(f"unknown task {name!r}: GLUE, or some of {', '.join(TASKS)}")
        if name in OTHERS and (arguments.splits or arguments.label_dict):
            raise UserError(f"--splits and --label-dict are for GLUE's tasks, and {name} is none")
        if name in GLUE and arguments.split != OFFICIAL:
            raise UserError(f"--split {arguments.split}: {name} has the official split alone")
    # Kept until its turn, so that no file is read twice.
    checked = {name: TASKS[name][0].check(arguments, TASKS[name][1]) for name in names}
    tokenizer = chosen(arguments)
    assert tokenizer is not None  # one of the options is required
    encoder = None if is_to_be_made(tokenizer) else load_encoder(tokenizer)
    return [
        TASKS[name][0].preprocess(
            arguments,
            TASKS[name][1],
            encoder or make_words(tokenizer, name, checked[name], arguments),
            checked.pop(name),
        )
        for name in names
    ]


def make_words(
    tokenizer: Tokenizer, name: str, checked: Any, arguments: argparse.Namespace
) -> TextEncoder:
    """The vocabulary of a task's training set.

    Raises:
        UserError: it has none, or no texts.
    """
    from adv_plugins_cli.data.words import Words

    data = checked[0] if name in GLUE else checked
    if "train" not in data or not data["train"].inputs:
        raise UserError(
            f"--whole-words {tokenizer.path}: {name} has no training text to take words of; give the "
            "folder of a vocabulary"
        )
    return Words.of_texts(
        str(tokenizer.path),
        (text for column in data["train"].inputs for text in column),
        size=arguments.vocabulary_size,
        minimum_count=arguments.minimum_count,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; a fault of the input is one line, not a traceback."""
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    with one_line_errors("adv-plugins preprocess"):
        run(arguments)
