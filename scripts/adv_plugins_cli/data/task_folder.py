"""The official files of a task beside GLUE as the folder that fairseq's task for it reads."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adv_plugins_cli.command import UserError, read_lines
from adv_plugins_cli.data.dictionary import make_dictionary
from adv_plugins_cli.data.formats import Format
from adv_plugins_cli.data.write_task import check_target, write_inputs, write_labels
from fairseq_compat import files

if TYPE_CHECKING:
    from adv_plugins_cli.data.binarize import TextEncoder
    from adv_plugins_cli.data.glue_format import Split

PAD = 1  # in every fairseq dictionary; marks subwords without a label of their own
ROWS = "rows.tsv"
SOURCE = "source.json"


def check(arguments: argparse.Namespace, task: Format) -> Mapping[str, Split]:
    """Read one task and find every fault that can be found before writing.

    Raises:
        UserError: naming the file, or the option to change.
    """
    check_target(arguments.out_dir / f"{task.name}-bin", overwrite=arguments.overwrite)
    if task.kind == "raw" and arguments.bpe_dir is None:
        raise UserError(
            f"fairseq's task for {task.name} knows GPT-2's BPE only (--bpe-dir); "
            f"take {task.name}-ranking"
        )
    if task.kind in ("raw", "entities") and getattr(arguments, "whole_words", None) is not None:
        raise UserError(f"--whole-words: {task.name} is read with a tokenizer of a model")
    data = task.reader(arguments.split)(task.find(arguments.data_dir))
    for name, split in data.items():
        if split.labels is None and not name.startswith("test"):
            raise UserError(f"{split.path}: no row has a label, and only test rows may have none")
    return data


def rows_of(path: Path) -> str:
    """A file of JSON lines without what fairseq's reader dies of: empty lines, a byte-order mark."""
    return "".join(f"{line}\n" for _, line in read_lines(path) if line.strip())


def write_text_labels(folder: Path, data: Mapping[str, Split]) -> None:
    """Write the numbers of the right choices, or scores, as text, which is what fairseq's tasks read."""
    folder.mkdir()
    for name, split in data.items():
        if split.labels is not None:
            lines = "".join(f"{label}\n" for label in split.labels)
            (folder / f"{name}.label").write_text(lines, encoding="utf-8")


def write_rows(folder: Path, rows: Mapping[str, Sequence[tuple[int, int]]]) -> None:
    """Which row of the official file each candidate was, from 0; -1: a row of another file."""
    lines = ["split\texample\tfirst\tsecond\n"]
    for split, pairs in rows.items():
        lines += [f"{split}\t{index}\t{a}\t{b}\n" for index, (a, b) in enumerate(pairs)]
    (folder / ROWS).write_text("".join(lines), encoding="utf-8")


def write_entities(folder: Path, data: Mapping[str, Split], encoder: TextEncoder, task: Format) -> None:
    """Write the subwords of every word, and labels: a word's on its first subword, pad on the others."""
    import numpy as np

    from adv_plugins_cli.data.binarize import write_split

    labels = make_dictionary(task.labels)
    for name, dictionary in (("input0", encoder.dictionary), ("label", labels)):
        (folder / name).mkdir()
        dictionary.save(str(folder / name / "dict.txt"))
    for name, split in data.items():
        pieces, targets = [], []
        for sentence, names in zip(split.inputs[0], split.labels or []):
            # One word at a time, as it would stand behind another one.
            first, *others = sentence.split(" ")
            words = [first, *(encoder.word_prefix + word for word in others)]
            encoded = [
                ids if len(ids) else np.array([encoder.dictionary.unk()])
                for ids in encoder.encode_batch(words)
            ]
            target = np.full(sum(map(len, encoded)), PAD)
            starts = np.cumsum([0, *map(len, encoded)])[:-1]
            target[starts] = [labels.index(label) for label in names.split(" ")]
            pieces.append(np.concatenate(encoded))
            targets.append(target)
        write_split(folder / "input0", name, pieces, len(encoder.dictionary))
        write_split(folder / "label", name, targets, len(labels), end_symbol=None)


def preprocess(
    arguments: argparse.Namespace, task: Format, encoder: TextEncoder, data: Mapping[str, Split]
) -> Path:
    """Write one task's folder of what :func:`check` has read."""
    target = Path(arguments.out_dir) / f"{task.name}-bin"
    with files.folder_beside(target, overwrite=arguments.overwrite) as partial:
        if task.kind == "raw":
            encoder.dictionary.save(str(partial / "dict.txt"))
            for name, split in data.items():
                files.write_text(partial / f"{name}.jsonl", rows_of(split.path))
        elif task.kind == "entities":
            write_entities(partial, data, encoder, task)
        else:
            if task.kind in ("ranking", "scores"):
                write_text_labels(partial / "label", data)
            else:
                write_labels(partial / "label", data, make_dictionary(task.labels))
            write_inputs(partial, data, encoder, task.name)
        if task.source is not None:
            files.write_json(partial / SOURCE, task.source)
        if task.rows is not None:
            write_rows(partial, task.rows(task.find(arguments.data_dir)))
    for split in data.values():
        if split.skipped_lines:
            print(f"{split.path}: {len(split.skipped_lines)} rows have no partner and are left out")
        if split.mended_lines:
            print(
                f"{split.path}: {len(split.mended_lines)} rows give another place of the "
                f"pronoun than its own: mended (first: line {split.mended_lines[0]})"
            )
    counts = ", ".join(f"{name} {len(split.lines)}" for name, split in data.items())
    print(f"{target}: {counts}")
    return target
