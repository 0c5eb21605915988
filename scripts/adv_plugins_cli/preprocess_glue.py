"""Turn the official GLUE files into the folders that fairseq's sentence_prediction task reads.

    python scripts/preprocess_glue.py --glue-dir glue --task RTE MRPC --bpe-dir gpt2_bpe --out-dir .

writes RTE-bin and MRPC-bin, the same files as fairseq's preprocess_GLUE_tasks.sh. Everything is
read and checked before anything is written, and a folder appears under its name only when it is
complete.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adv_plugins_cli.command import UserError, one_line_errors
from adv_plugins_cli.data.glue_format import MAXIMUM_SCORE, TASKS, GlueTask, Split, read_split
from adv_plugins_cli.data.tokenizer_options import add_tokenizer_options, load_encoder
from adv_plugins_cli.data.write_task import (
    check_target,
    count_labels,
    files,
    load_label_dictionary,
    read_symbols,
    write_inputs,
    write_labels,
)

if TYPE_CHECKING:
    from adv_plugins_cli.data.binarize import TextEncoder

SPLITS = ("train", "valid", "test")


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--glue-dir", type=Path, required=True, help="folder that holds CoLA/train.tsv and so on"
    )
    parser.add_argument(
        "--task",
        nargs="+",
        required=True,
        choices=[*TASKS, "all"],
        metavar="TASK",
        help=f"all, or some of {', '.join(TASKS)}",
    )
    add_tokenizer_options(parser)
    parser.add_argument("--out-dir", type=Path, required=True, help="where TASK-bin folders go")
    parser.add_argument(
        "--splits",
        nargs="+",
        choices=SPLITS,
        metavar="SPLIT",
        help="only these of train, valid and test; default: train, valid, and test if it is there",
    )
    parser.add_argument(
        "--label-dict",
        type=Path,
        metavar="DICT",
        help="label/dict.txt of other data, to number the labels as it does; "
        "needed where there is no train.tsv to count labels in",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing TASK-bin")
    return parser.parse_args(argv)


def read_task(glue_dir: Path, task: GlueTask, splits: Sequence[str] | None) -> dict[str, Split]:
    """Read one task's files, keyed by fairseq's split names; without `splits`, test is optional."""
    folder = glue_dir / task.name
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --glue-dir must hold a folder {task.name}")
    data = {}
    for split in splits or SPLITS:
        for name, file_name in task.files(split).items():
            path = folder / file_name
            if splits is None and split == "test" and not path.is_file():
                continue
            if not path.is_file():
                raise UserError(
                    f"{path}: no such file; {task.name} needs it (--splits chooses other splits)"
                )
            data[name] = read_split(path, task, test=split == "test")
    return data


def label_source(
    glue_dir: Path, task: GlueTask, data: dict[str, Split], label_dict: Path | None
) -> Path | list[str] | None:
    """Return what numbers the labels: a dictionary's file, the training labels, or None.

    A model's classes are numbered by the training file's counts, so other splits alone do not
    tell; guessing would silently swap classes.
    """
    if task.regression or not any(split.labels for split in data.values()):
        return None
    if label_dict is not None:
        if not label_dict.is_file():
            raise UserError(f"{label_dict}: no such file (--label-dict)")
        return label_dict
    if "train" in data:
        return data["train"].labels
    path = glue_dir / task.name / "train.tsv"
    if not path.is_file():
        raise UserError(
            f"{path}: no such file, so {task.name}'s labels cannot be numbered; pass --label-dict "
            "with the label/dict.txt of the data that the model is trained on"
        )
    return read_split(path, task).labels


def check_labels_known(data: dict[str, Split], label_dict: Path) -> None:
    """Refuse a label that fairseq would silently store as unknown."""
    known = set(read_symbols(label_dict))
    for split in data.values():
        for line, label in zip(split.lines, split.labels or [], strict=False):
            if label not in known:
                raise UserError(f"{split.path}:{line}: label {label!r} is not in {label_dict}")


def check_task(
    arguments: argparse.Namespace, task: GlueTask
) -> tuple[dict[str, Split], Path | list[str] | None]:
    """Read one task and find every fault that can be found before writing."""
    check_target(arguments.out_dir / f"{task.name}-bin", overwrite=arguments.overwrite)
    data = read_task(arguments.glue_dir, task, arguments.splits)
    labels = label_source(arguments.glue_dir, task, data, arguments.label_dict)
    if isinstance(labels, Path):
        check_labels_known(data, labels)
    return data, labels


def write_scores(folder: Path, data: dict[str, Split]) -> None:
    """Write regression targets, scaled to 0..1, with awk's six digits as fairseq's script does."""
    folder.mkdir()
    for name, split in data.items():
        if split.labels is not None:
            scores = [f"{float(label) / MAXIMUM_SCORE:.6g}\n" for label in split.labels]
            (folder / f"{name}.label").write_text("".join(scores), encoding="utf-8")


def preprocess(arguments: argparse.Namespace, task: GlueTask, encoder: TextEncoder) -> Path:
    """Write one task's folder beside its place, then move it there."""
    data, labels = check_task(arguments, task)
    target = arguments.out_dir / f"{task.name}-bin"
    with files.folder_beside(target, overwrite=arguments.overwrite) as partial:
        if task.regression:
            write_scores(partial / "label", data)
        elif isinstance(labels, Path):
            write_labels(partial / "label", data, load_label_dictionary(labels))
        elif labels is not None:
            write_labels(partial / "label", data, count_labels(labels, task.labels))
        write_inputs(partial, data, encoder, task.name)
    if isinstance(labels, list) and (absent := set(task.labels) - set(labels)):
        print(f"{task.name}: train.tsv has no row labelled {', '.join(sorted(absent))}")
    for split in data.values():
        if split.skipped_lines:
            print(
                f"{split.path}: dropped {len(split.skipped_lines)} rows with a wrong number of "
                f"columns, as fairseq's script does (first: line {split.skipped_lines[0]})"
            )
    counts = ", ".join(f"{name} {len(split.lines)}" for name, split in data.items())
    print(f"{target}: {counts}")
    return target


def run(arguments: argparse.Namespace) -> list[Path]:
    """Check every task, then write every task."""
    names = list(TASKS) if "all" in arguments.task else dict.fromkeys(arguments.task)
    tasks = [TASKS[name] for name in names]
    for task in tasks:
        check_task(arguments, task)
    encoder = load_encoder(arguments)
    return [preprocess(arguments, task, encoder) for task in tasks]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; a fault of the input is one line, not a traceback."""
    with one_line_errors("adv-plugins preprocess"):
        run(parse_arguments(argv))


if __name__ == "__main__":
    main()
