"""A paper's table of times, measured: the rows' updates take turns on the encoder that is given."""

from __future__ import annotations

import argparse
import platform
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import fairseq_compat

fairseq_compat.install()

import torch  # noqa: E402
from fairseq.dataclass.utils import convert_namespace_to_omegaconf  # noqa: E402

from adv_plugins_cli.command import UserError, quiet  # noqa: E402
from adv_plugins_cli.data.dictionary import load_dictionary  # noqa: E402
from adv_plugins_cli.data.task_data import tokenizer_of  # noqa: E402
from adv_plugins_cli.recipes import recipes, run_folder, runs  # noqa: E402
from adv_plugins_cli.recipes.command_line import choose_precision, parse_command  # noqa: E402
from adv_plugins_cli.recipes.methods import load_methods  # noqa: E402
from adv_plugins_cli.recipes.paper_tables import AVERAGE, PaperTable, Row, load  # noqa: E402
from adv_plugins_cli.recipes.update_times import Updates, make_sample  # noqa: E402
from fairseq_compat import files  # noqa: E402

SUMMARY = "summary.json"
BATCH, REPEATS, LENGTH = 16, 7, 128


def run(table: PaperTable, rows: Sequence[Row], arguments: argparse.Namespace) -> None:
    """Measure, print the table of each length, write summary.json.

    Raises:
        UserError: a row is no option of its method, or does not fit into the memory.
    """
    named = [int(column.name) for column in table.columns if column.name.isdigit()]
    lengths = arguments.lengths or named or [LENGTH]
    batch, repeats = arguments.batch or BATCH, arguments.repeats or REPEATS
    plain = load(table.id).rows[0]  # of which the others are ratios, wanted or not
    rows = [plain, *(row for row in rows if row.method != recipes.PLAIN)]
    start = recipes.Start.of(arguments.checkpoint, arguments.arch)
    words = dictionary_of(arguments)
    trainers: dict[Any, Any] = {}
    blocks = []
    with quiet():
        updates = {row.name: updates_of(row, start, words, trainers, arguments) for row in rows}
        for length in lengths:
            check_length(length, updates[plain.name])
        for length in lengths:
            seconds = measure(updates, make_sample(batch, length, len(words)), repeats)
            own = [numbers(plain, row, length, seconds) for row in rows]
            blocks.append({"length": length, "rows": own})
            print(text(blocks[-1]), flush=True)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    differs = [
        f"encoder: {start}, theirs: {rows[0].encoder}",
        f"updates of {batch} random sentences of the length, theirs: whole trainings",
        f"machine: {where}",
    ]
    with run_folder.locked(arguments.out_dir):
        files.write_json(
            arguments.out_dir / SUMMARY,
            {
                **table.facts(),
                "batch": batch,
                "repeats": repeats,
                "versions": {name: runs.version(name) for name in runs.PACKAGES},
                "lengths": blocks,
                "differs": differs,
            },
        )
    print(f"What differs: {'; '.join(differs)}.\n{arguments.out_dir / SUMMARY}")


def dictionary_of(arguments: argparse.Namespace) -> Any:
    """The checkpoint's words, with fairseq's mask.

    Raises:
        UserError: there is no dict.txt.
    """
    path = tokenizer_of(arguments).folder / "dict.txt"
    if not path.is_file():
        raise UserError(f"{path}: no such file (the checkpoint's folder, or --bpe-dir, has to have it)")
    words = load_dictionary(path)
    words.add_symbol("<mask>")
    return words


def updates_of(
    row: Row, start: recipes.Start, words: Any, trainers: dict[Any, Any], arguments: argparse.Namespace
) -> Updates:
    """A row's updates, from the checkpoint's weights.

    Raises:
        UserError: fairseq's parser refuses its options.
    """
    method = None if row.method == recipes.PLAIN else load_methods(arguments.user_dir)[str(row.method)]
    asked = "fp32" if arguments.precision == "auto" else arguments.precision
    model = start.architecture.flags(adversaries=method is not None and method.adversaries)
    line = [
        *("no-data", "--task", "sentence_prediction", "--num-classes", "2"),
        *recipes.FINE_TUNING_FLAGS,
        *model,
        *("--criterion", method.criterion if method else "sentence_prediction"),
        *shlex.split(f"{method.flags if method else ''} {row.flags}"),
        *("--lr", "1e-5", "--total-num-update", "1000000", "--seed", "1"),
        *recipes.PRECISION_FLAGS[choose_precision(asked)],
        *(() if torch.cuda.is_available() else ("--cpu",)),
        *arguments.extra,
    ]
    try:
        cfg = convert_namespace_to_omegaconf(parse_command(line))
    except UserError as error:
        raise UserError(f"the row {row.name!r}: {error}") from error
    new = tuple(model) not in trainers
    made = Updates(cfg, words, trainers, tuple(model))
    if new and start.checkpoint is not None:
        made.trainer.load_checkpoint(
            str(start.checkpoint), reset_optimizer=True, reset_lr_scheduler=True, reset_meters=True
        )
    return made


def check_length(length: int, updates: Updates) -> None:
    """Refuse what the model cannot read.

    Raises:
        UserError: naming the option.
    """
    positions = updates.trainer.model.max_positions()
    if length > positions:
        raise UserError(f"--lengths {length}: the model has {positions} positions")


def measure(updates: dict[str, Updates], sample: dict[str, Any], repeats: int) -> dict[str, list[float]]:
    """Seconds of so many updates of each row, in turn, after one that is not counted.

    Raises:
        UserError: the memory is too small.
    """
    try:
        for each in updates.values():
            each.update(sample)
        seconds: dict[str, list[float]] = {name: [] for name in updates}
        for _ in range(repeats):
            for name, each in updates.items():
                seconds[name].append(each.seconds(sample))
    except torch.OutOfMemoryError as error:
        raise UserError("out of memory: give a smaller --batch or --lengths") from error
    return seconds


def numbers(plain: Row, row: Row, length: int, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """A row's times, and its ratios to the first row's, published and own."""
    first = next(iter(seconds.values()))
    ratios = [own / other for own, other in zip(seconds[row.name], first)]
    theirs = published_ratios(plain, row, length)
    return {
        "row": row.name,
        "method": row.method,
        "flags": row.flags,
        "published": {column: asdict(cell) for column, cell in row.cells.items()},
        "published_ratio": summary(theirs) if theirs else None,
        "seconds": seconds[row.name],
        "ratio": summary(ratios),
    }


def published_ratios(plain: Row, row: Row, length: int) -> list[float]:
    """A row's published times as ratios to plain fine-tuning's: in the length's column or, where the
    columns are tasks, in each of these. Where plain has no time, they are ratios already."""
    found = []
    for column, cell in row.cells.items():
        here = column == str(length) if column.isdigit() else column != AVERAGE
        if here and cell.values:
            other = plain.cells[column].values
            found.append(cell.values[0] / other[0] if other else cell.values[0])
    return found


def summary(values: Sequence[float]) -> dict[str, float]:
    """The median and the range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def text(block: dict[str, Any]) -> str:
    """The table of one length."""

    def shown(ratio: dict[str, float] | None) -> str:
        return "-" if ratio is None else "{median:.2f} ({min:.2f} - {max:.2f})".format(**ratio)

    lines = [f"\nlength {block['length']}: time of an update, as a ratio to the first row's (min - max)"]
    width = max(len(row["row"]) for row in block["rows"])
    lines.append(f"{'':<{width}}  {'published':<20}  {'own':<20}  seconds")
    for row in block["rows"]:
        seconds = statistics.median(row["seconds"])
        published, own = shown(row["published_ratio"]), shown(row["ratio"])
        lines.append(f"{row['row']:<{width}}  {published:<20}  {own:<20}  {seconds:.3f}")
    return "\n".join(lines)
