"""Predict with fine-tuned checkpoints: raw text, GLUE's development and test sets.

    adv-plugins predict checkpoint_best.pt --input pairs.tsv
    adv-plugins predict seed*/checkpoint_best.pt --glue-task RTE --glue-dir glue --output-dir send

A line of --input holds the sentences, parted by tabs (of a multiple choice the context, then the
choices; of token labelling one sentence, its words parted by spaces); - reads the terminal; with --text
it is a table (.csv, .tsv, .jsonl, .parquet). A line of
the output is the label (of every word), or the score (of STS-B on its own scale of 0 to 5 only with
--glue-task), or the number of the choice from 0. Several checkpoints are an ensemble. With
--glue-task, --split test writes GLUE's submission files, --split dev prints the task's scores.
Tokenizer and dictionaries are found by what the checkpoint says it was trained with, unless the
options name others. Everything is checked before the first model is loaded.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adv_plugins_cli.checkpoints import ensemble
from adv_plugins_cli.checkpoints.ensemble import Predictions
from adv_plugins_cli.checkpoints.glue_predictions import GlueSets
from adv_plugins_cli.checkpoints.trained_model import (
    TrainedModel,
    check_alike,
    describe,
    read_trained_model,
)
from adv_plugins_cli.command import UserError, one_line_errors, read_text
from adv_plugins_cli.data.glue_format import TASKS
from adv_plugins_cli.data.tokenizer_options import (
    add_tokenizer_options,
    chosen,
    find_tokenizer,
    load_encoder,
)
from fairseq_compat.files import naming, write_text

if TYPE_CHECKING:
    from adv_plugins_cli.data.binarize import TextEncoder


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="CHECKPOINT")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", metavar="FILE", help="raw text, or - for the terminal")
    parser.add_argument(
        "--text", metavar="COLUMN", help="the text in an --input that is a table, such as a .csv"
    )
    parser.add_argument("--text2", metavar="COLUMN", help="the second text, of pairs")
    source.add_argument("--glue-task", choices=list(TASKS), metavar="TASK", help="such as RTE")
    parser.add_argument("--glue-dir", type=Path, help="the official files: TASK/test.tsv ...")
    parser.add_argument("--split", choices=("test", "dev"), help="of --glue-task (test)")
    parser.add_argument("--output", type=Path, help="for --input (default: the terminal)")
    parser.add_argument("--output-dir", type=Path, help="where --glue-task writes its files")
    parser.add_argument("--overwrite", action="store_true", help="replace existing output")
    parser.add_argument(
        "--probabilities",
        action="store_true",
        help="those of all classes behind the label, in the order of label/dict.txt",
    )
    parser.add_argument(
        "--ensemble",
        choices=("mean", "majority"),
        default="mean",
        help="of several checkpoints' probabilities, or votes, ties broken by the mean (%(default)s)",
    )
    parser.add_argument("--data-bin", type=Path, help="TASK-bin, for the dictionaries")
    parser.add_argument("--batch-size", type=int, default=32, help="sequences (%(default)s)")
    add_tokenizer_options(parser, required=False)
    return parser


def check_options(arguments: argparse.Namespace) -> None:
    """Find what is missing or would do nothing.

    Raises:
        UserError: naming the option.
    """
    glue, submits = arguments.glue_task is not None, arguments.split != "dev"
    if arguments.batch_size < 1:
        raise UserError(f"--batch-size {arguments.batch_size}: at least 1")
    if arguments.text2 and not arguments.text:
        raise UserError("--text2 does nothing without --text")
    if glue and arguments.glue_dir is None:
        raise UserError("--glue-task needs the official files: give --glue-dir")
    if glue and submits and arguments.output_dir is None:
        raise UserError("--split test writes files: give --output-dir")
    for option, useful in (
        ("glue_dir", glue),
        ("split", glue),
        ("output_dir", glue and submits),
        ("output", not glue),
        ("probabilities", not glue),
        ("text", not glue),
        ("text2", not glue),
    ):
        if getattr(arguments, option) and not useful:
            given = "--glue-task" if glue else "--input"
            given += " --split dev" if glue and not submits else ""
            raise UserError(f"--{option.replace('_', '-')} does nothing with {given}")


def check_targets(targets: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse to overwrite, before hours of predictions rather than after.

    Raises:
        UserError: naming the option.
    """
    for target in targets:
        if target.is_dir():
            raise UserError(f"{target}: is a folder (--output)")
        if target.exists() and not overwrite:
            raise UserError(f"{target}: exists already; pass --overwrite to replace it")


def read_lines(source: str) -> list[list[str]]:
    """The texts of every line.

    Raises:
        UserError: the file does not exist, or its lines differ in their number of columns.
    """
    if source == "-":
        try:
            content = sys.stdin.buffer.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"-: not UTF-8 text ({error.reason}) (--input)") from error
    elif Path(source).exists():
        content = read_text(source)
    else:
        raise UserError(f"{source}: no such file (--input)")
    # Lines end with line feeds only: the texts may hold other Unicode breaks.
    lines = content.split("\n")
    if not lines[-1]:
        lines.pop()
    rows = [[text.strip() for text in line.split("\t")] for line in lines]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise UserError(f"{source}:{number}: {len(row)} columns, the first line has {len(rows[0])}")
    return rows


def read_columns(source: str, columns: Sequence[str]) -> list[list[str]]:
    """The texts of a table's rows.

    Raises:
        UserError: there is no such table or column, or a text is empty.
    """
    from adv_plugins_cli.data import own_tables

    return [
        [own_tables.cell(row, column) for column in columns] for row in own_tables.rows(Path(source))
    ]


def read_models(arguments: argparse.Namespace) -> list[TrainedModel]:
    """What the checkpoints predict.

    Raises:
        UserError: not the same, or --ensemble has no meaning for it.
    """
    models = [read_trained_model(path, arguments.data_bin) for path in arguments.checkpoints]
    check_alike(models, "they are no ensemble")
    first = models[0]
    if first.kind == "regression" and arguments.ensemble == "majority":
        raise UserError("--ensemble majority: scores have no majority; take mean")
    if first.kind in ("regression", "tokens") and arguments.probabilities:
        raise UserError(f"--probabilities: there are none of {describe(first)}")
    return models


def find_encoder(arguments: argparse.Namespace, models: Sequence[TrainedModel]) -> TextEncoder:
    """The tokenizer: the options', or what lies beside the checkpoint or beside the weights that its
    training began with.

    Raises:
        UserError: there is none, or it is not that of the data.
    """
    from adv_plugins_cli.data.binarize import MASK
    from adv_plugins_cli.data.dictionary import load_dictionary

    folders = [path.parent for path in (models[0].checkpoint, *models[0].beginnings)]
    tokenizer = chosen(arguments) or find_tokenizer(*folders)
    if tokenizer is None:
        raise UserError("give the tokenizer: --bpe-dir, --sentencepiece or --wordpiece")
    encoder = load_encoder(tokenizer)
    ours = [symbol for symbol in encoder.dictionary.symbols if symbol != MASK]
    for path in dict.fromkeys(model.words for model in models):
        if [symbol for symbol in load_dictionary(path).symbols if symbol != MASK] != ours:
            raise UserError(
                f"{path}: is not the tokenizer's dictionary (--bpe-dir, --sentencepiece, --wordpiece)"
            )
    return encoder


def predict(
    arguments: argparse.Namespace,
    models: Sequence[TrainedModel],
    encoder: TextEncoder,
    sets: Sequence[Sequence[Sequence[str]]],
) -> list[Predictions]:
    """The ensemble's predictions for each set of examples, with one model at a time in memory."""
    from adv_plugins_cli.checkpoints.predictor import Predictor, encode_texts

    encoded = [encode_texts(encoder, examples, models[0].task) for examples in sets]
    found = []
    for trained in models:
        model = Predictor(trained)
        found.append([model.predict(each, batch_size=arguments.batch_size) for each in encoded])
        del model  # before the next one is loaded
    return [ensemble.combine(each, arguments.ensemble) for each in zip(*found)]


def format_lines(
    model: TrainedModel, rows: Sequence[Sequence[str]], found: Predictions, *, probabilities: bool
) -> list[str]:
    """One line a row of the input."""
    if model.kind == "regression":
        return [f"{score:.6g}" for score in found.values[:, 0]]
    names = [model.labels[index] for index in found.chosen]
    if model.kind == "tokens":
        left = iter(names)
        return [" ".join(next(left) for _ in row[0].split()) for row in rows]
    if probabilities:
        return [
            "\t".join([name, *(f"{value:.6f}" for value in values)])
            for name, values in zip(names, found.values)
        ]
    return names


def predict_text(arguments: argparse.Namespace) -> str:
    """--input; returns what to print."""
    if arguments.output is not None:
        check_targets([arguments.output], overwrite=arguments.overwrite)
        if not arguments.output.parent.is_dir():
            raise UserError(f"{arguments.output.parent}: no such folder (--output)")
    columns = [column for column in (arguments.text, arguments.text2) if column]
    rows = read_columns(arguments.input, columns) if columns else read_lines(arguments.input)
    models = read_models(arguments)
    for model in models:
        if rows and len(rows[0]) not in model.columns():
            wanted = " or ".join(map(str, model.columns()))
            raise UserError(
                f"{arguments.input}: {len(rows[0])} columns, but {model.checkpoint} reads {wanted}"
            )
    encoder = find_encoder(arguments, models)
    (found,) = predict(arguments, models, encoder, [rows])
    lines = format_lines(models[0], rows, found, probabilities=arguments.probabilities)
    content = "".join(f"{line}\n" for line in lines)
    if arguments.output is None:
        return content
    write_text(arguments.output, content)
    return ""


def predict_glue(arguments: argparse.Namespace) -> str:
    """--glue-task; returns what to print."""
    split = arguments.split or "test"
    official = GlueSets(arguments.glue_task, arguments.glue_dir, split)
    if split == "test":
        check_targets(official.targets(arguments.output_dir), overwrite=arguments.overwrite)
    models = read_models(arguments)
    examples = official.examples(models[0])
    for model in models:
        if len(examples[0][0]) not in model.columns():
            raise UserError(
                f"{model.checkpoint}: reads {model.columns()[0]} texts, but {arguments.glue_task} "
                f"has {len(examples[0][0])} (--glue-task)"
            )
    encoder = find_encoder(arguments, models)
    rows = official.rows(predict(arguments, models, encoder, examples), models[0].labels)
    lines = official.write(arguments.output_dir, rows) if split == "test" else official.scores(rows)
    return "".join(f"{line}\n" for line in lines)


@contextlib.contextmanager
def only_output() -> Iterator[None]:
    """Keep the output for predictions: fairseq logs there, its whole configuration included."""
    levels = {name: logging.getLogger(name).level for name in ("fairseq", "adv_plugins")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; a fault of the request is one line, not a traceback."""
    arguments = make_parser().parse_args(argv)
    with one_line_errors("adv-plugins predict"):
        check_options(arguments)
        with only_output():
            output = (predict_glue if arguments.glue_task else predict_text)(arguments)
        with naming("standard output"):
            sys.stdout.write(output)


if __name__ == "__main__":
    main()
