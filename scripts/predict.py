"""Predict with fine-tuned checkpoints: raw text, GLUE's development and test sets.

    python scripts/predict.py checkpoint_best.pt --input pairs.tsv
    python scripts/predict.py seed*/checkpoint_best.pt --glue-task RTE --glue-dir glue --output-dir send

A line of --input holds the sentences, parted by tabs (of a multiple choice the context, then the
choices); - reads the terminal. A line of the output is the label, or the score (of STS-B on its own
scale of 0 to 5 only with --glue-task), or the number of the choice from 0. Several checkpoints are
an ensemble. With --glue-task, --split test writes GLUE's submission files, --split dev prints the
task's scores. Tokenizer and dictionaries are found by what the checkpoint says it was trained with,
unless the options name others.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from glue_format import TASKS, GlueError, Split, read_split
from predictor import (
    Array,
    PredictError,
    Predictor,
    encode_examples,
    ensemble,
    read_config,
    section,
)
from tokenizer_options import add_tokenizer_options, load_encoder, options_of_checkpoint

if TYPE_CHECKING:
    from binarize import TextEncoder


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="CHECKPOINT")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", metavar="FILE", help="raw text, or - for the terminal")
    source.add_argument("--glue-task", choices=list(TASKS), metavar="TASK", help="such as RTE")
    parser.add_argument("--glue-dir", type=Path, help="the official files: TASK/test.tsv ...")
    parser.add_argument(
        "--split", choices=("test", "dev"), default="test", help="of --glue-task (%(default)s)"
    )
    parser.add_argument("--output", type=Path, help="for --input (default: the terminal)")
    parser.add_argument("--output-dir", type=Path, help="where --glue-task writes its files")
    parser.add_argument("--overwrite", action="store_true", help="replace existing output")
    parser.add_argument(
        "--probabilities", action="store_true", help="print those of all classes behind the label"
    )
    parser.add_argument(
        "--ensemble",
        choices=("mean", "majority"),
        default="mean",
        help="of several checkpoints' probabilities, or votes (ties: mean) (%(default)s)",
    )
    parser.add_argument("--data-bin", type=Path, help="TASK-bin, for the dictionaries")
    parser.add_argument("--batch-size", type=int, default=32, help="sequences (%(default)s)")
    add_tokenizer_options(parser, required=False)
    return parser


def find_data(arguments: argparse.Namespace, config: Any) -> Path:
    """The folder with the dictionaries.

    Raises:
        PredictError: it does not exist.
    """
    data = arguments.data_bin or Path(section(config, "task")["data"])
    if not ((data / "input0" / "dict.txt").is_file() or (data / "dict.txt").is_file()):
        raise PredictError(f"{data}: no dictionaries there; name the data's folder with --data-bin")
    return data


def find_encoder(arguments: argparse.Namespace, config: Any) -> TextEncoder:
    """The tokenizer: that of the options, else what lies beside the weights that training began with.

    Raises:
        PredictError: there is none.
    """
    if not (arguments.bpe_dir or arguments.sentencepiece or arguments.wordpiece):
        start = section(config, "checkpoint").get("finetune_from_model")
        found = options_of_checkpoint(Path(start).parent) if start else []
        if not found:
            raise PredictError("give the tokenizer: --bpe-dir, --sentencepiece or --wordpiece")
        option, path = found
        setattr(arguments, option.removeprefix("--").replace("-", "_"), Path(path))
    return load_encoder(arguments)


def read_lines(source: str) -> list[list[str]]:
    """The texts of every line.

    Raises:
        PredictError: the file does not exist, or its lines differ in their number of columns.
    """
    if source == "-":
        lines = sys.stdin.read().split("\n")
    else:
        path = Path(source)
        if not path.is_file():
            raise PredictError(f"{path}: no such file (--input)")
        lines = path.read_text("utf-8").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    rows = [[text.strip() for text in line.split("\t")] for line in lines]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise PredictError(
                f"{source}:{number}: {len(row)} columns, the first line has {len(rows[0])}"
            )
    return rows


def predict_all(
    arguments: argparse.Namespace,
    data: Path,
    encoder: TextEncoder,
    sets: Sequence[Sequence[Sequence[str]]],
) -> tuple[list[Array], Predictor]:
    """The ensemble's predictions for each set of examples; and the last model, for its labels.

    One model is in memory at a time.

    Raises:
        PredictError: the checkpoints do not predict the same.
    """
    encoded = [encode_examples(encoder, examples) for examples in sets]
    single: list[list[Array]] = [[] for _ in sets]
    model = None
    for checkpoint in arguments.checkpoints:
        previous, model = model, None
        known = previous and (previous.kind, previous.labels)
        del previous
        model = Predictor(checkpoint, data)
        if known and known != (model.kind, model.labels):
            raise PredictError(
                f"{checkpoint}: predicts {model.labels or 'scores'}, the others {known[1]}"
            )
        for predictions, examples in zip(single, encoded):
            predictions.append(model.predict(examples, batch_size=arguments.batch_size))
    assert model is not None
    return [ensemble(each, arguments.ensemble) for each in single], model


def format_lines(model: Predictor, predictions: Array, *, probabilities: bool) -> list[str]:
    """One line a prediction."""
    if model.kind == "regression":
        return [f"{score:.6g}" for score in predictions[:, 0]]
    lines = [model.labels[index] for index in predictions.argmax(axis=1)]
    if probabilities:
        return [
            "\t".join([line, *(f"{value:.6f}" for value in row)])
            for line, row in zip(lines, predictions)
        ]
    return lines


def predict_text(arguments: argparse.Namespace, data: Path, encoder: TextEncoder) -> None:
    """--input."""
    rows = read_lines(arguments.input)
    predictions, model = predict_all(arguments, data, encoder, [rows])
    lines = format_lines(model, predictions[0], probabilities=arguments.probabilities)
    content = "".join(f"{line}\n" for line in lines)
    if arguments.output is None:
        sys.stdout.write(content)
    else:
        arguments.output.write_text(content, encoding="utf-8")


def glue_splits(arguments: argparse.Namespace) -> dict[str, Split]:
    """The official files of the split.

    Raises:
        PredictError: --glue-dir is missing, or a file.
    """
    if arguments.glue_dir is None:
        raise PredictError("--glue-task needs the official files: give --glue-dir")
    task = TASKS[arguments.glue_task]
    split = "test" if arguments.split == "test" else "valid"
    return {
        name: read_split(arguments.glue_dir / task.name / file, task, test=split == "test")
        for name, file in task.files(split).items()
    }


def predict_glue(arguments: argparse.Namespace, config: Any, data: Path, encoder: TextEncoder) -> None:
    """--glue-task: submission files, or the scores of the development set."""
    import glue_submission

    task, splits = TASKS[arguments.glue_task], glue_splits(arguments)
    ranks = section(config, "task").get("_name", section(config, "task").get("task"))
    pairs = None
    if ranks == "sentence_ranking":
        pairs = glue_pairs(arguments)
        sets = [list(zip(*pairs.split.inputs))]
    else:
        sets = [list(zip(*split.inputs)) for split in splits.values()]
    predictions, model = predict_all(arguments, data, encoder, sets)
    labels = model.labels
    if pairs is not None:
        from task_formats.pairs import POSITIVE

        (official,) = splits.values()
        count, positive = len(official.lines), POSITIVE[task.name]
        won = glue_submission.from_pairs(pairs.rows, predictions[0], count, positive)
        labels = [next(label for label in task.labels if label != positive), positive]
        predictions = [np.eye(2)[won.astype(int)]]
    for (name, split), found in zip(splits.items(), predictions):
        if arguments.split == "dev":
            print(f"{task.name} {split.path.name}: {scores(split, labels, found)}")
            continue
        target = arguments.output_dir / glue_submission.file_name(task, name)
        lines = glue_submission.lines(task, labels, found)
        arguments.output_dir.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        print(f"{target}: {len(lines) - 1} predictions")


def glue_pairs(arguments: argparse.Namespace) -> Any:
    """The official file as pairs, for a model of QNLI-ranking or WNLI-ranking.

    Raises:
        PredictError: the task is not ranked.
    """
    from task_formats.pairs import POSITIVE, glue_pairs

    if arguments.glue_task not in POSITIVE:
        raise PredictError(f"a ranking model predicts {' or '.join(POSITIVE)} only (--glue-task)")
    split = "test" if arguments.split == "test" else "valid"
    return glue_pairs(arguments.glue_task)(arguments.glue_dir / arguments.glue_task)[split]


def scores(split: Split, labels: Sequence[str], predictions: Array) -> str:
    """The official metrics, in percent."""
    from adv_plugins.scores import SCORES

    assert split.labels is not None
    if not labels:
        target = np.array([float(label) for label in split.labels])
        found, flags = predictions[:, 0], ("report_pearson_and_spearman",)
        values = {}
    else:
        target = np.array([list(labels).index(label) for label in split.labels])
        found = predictions.argmax(axis=1)
        values = {"accuracy": float(np.mean(found == target))}
        # F1 is of the label 1, whatever number the training gave it.
        one = list(labels).index("1") if "1" in labels else 1
        flags = ("report_mcc", "report_acc_and_f1") if len(labels) == 2 else ()
        found, target = found == one, target == one
    for flag in flags:
        values.update({name: score(found, target) for name, score in SCORES[flag].items()})
    return ", ".join(f"{name} {100 * value:.2f}" for name, value in values.items())


def check_output(arguments: argparse.Namespace) -> None:
    """Refuse to overwrite, and options that do nothing.

    Raises:
        PredictError: naming the option.
    """
    import glue_submission

    targets = [arguments.output] if arguments.output else []
    if arguments.glue_task and arguments.split == "test":
        if arguments.output_dir is None:
            raise PredictError("--split test writes files: give --output-dir")
        task = TASKS[arguments.glue_task]
        names = task.files("test")
        targets = [arguments.output_dir / glue_submission.file_name(task, name) for name in names]
    for target in targets:
        if target.exists() and not arguments.overwrite:
            raise PredictError(f"{target}: exists already; pass --overwrite to replace it")


def run(arguments: argparse.Namespace) -> None:
    """Check everything, then predict.

    Raises:
        PredictError: naming the option to change.
    """
    check_output(arguments)
    for checkpoint in arguments.checkpoints:
        if not checkpoint.is_file():
            raise PredictError(f"{checkpoint}: no such checkpoint")
    if arguments.glue_task:
        glue_splits(arguments)
    elif arguments.input != "-":
        read_lines(arguments.input)
    config = read_config(arguments.checkpoints[0])
    data, encoder = find_data(arguments, config), find_encoder(arguments, config)
    if arguments.glue_task:
        predict_glue(arguments, config, data, encoder)
    else:
        predict_text(arguments, data, encoder)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; a fault of the request is one line, not a traceback."""
    try:
        run(make_parser().parse_args(argv))
    except (PredictError, GlueError, ValueError) as error:
        sys.exit(f"predict.py: error: {error}")


if __name__ == "__main__":
    main()
