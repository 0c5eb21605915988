"""A GLUE task's official files as the folder that fairseq's sentence_prediction reads.

Byte for byte what fairseq's preprocess_GLUE_tasks.sh makes of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from adv_plugins_cli.command import UserError
from adv_plugins_cli.data.dictionary import load_dictionary, read_symbols
from adv_plugins_cli.data.glue_format import MAXIMUM_SCORE, GlueTask, Split, read_split
from adv_plugins_cli.data.write_task import (
    check_target,
    count_labels,
    write_inputs,
    write_labels,
)
from fairseq_compat import files

if TYPE_CHECKING:
    from adv_plugins_cli.data.binarize import TextEncoder

SPLITS = ("train", "valid", "test")
# A task's splits, and what numbers its labels.
Checked: TypeAlias = tuple[dict[str, Split], Path | list[str] | None]


def read_task(data_dir: Path, task: GlueTask, splits: Sequence[str] | None) -> dict[str, Split]:
    """Read one task's files, keyed by fairseq's split names; without `splits`, test is optional."""
    folder = data_dir / task.name
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --data-dir must hold a folder {task.name}")
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
    data_dir: Path, task: GlueTask, data: dict[str, Split], label_dict: Path | None
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
    path = data_dir / task.name / "train.tsv"
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


def check(arguments: argparse.Namespace, task: GlueTask) -> Checked:
    """Read one task and find every fault that can be found before writing."""
    check_target(arguments.out_dir / f"{task.name}-bin", overwrite=arguments.overwrite)
    data = read_task(arguments.data_dir, task, arguments.splits)
    labels = label_source(arguments.data_dir, task, data, arguments.label_dict)
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


def preprocess(
    arguments: argparse.Namespace, task: GlueTask, encoder: TextEncoder, checked: Checked
) -> Path:
    """Write one task's folder of what :func:`check` has read, beside its place, then move it there."""
    data, labels = checked
    target = arguments.out_dir / f"{task.name}-bin"
    with files.folder_beside(target, overwrite=arguments.overwrite) as partial:
        if task.regression:
            write_scores(partial / "label", data)
        elif isinstance(labels, Path):
            write_labels(partial / "label", data, load_dictionary(labels))
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
