"""What a fine-tuned checkpoint predicts, by its own configuration, without building its model.

Symbols, separators, classes and data come from the options that it was trained with, so that no
option of a prediction has to repeat them and nothing is assumed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adv_plugins_cli.checkpoints.checkpoint_file import read_checkpoint, section
from adv_plugins_cli.checkpoints.checkpoint_model import model_options, task_name, task_options
from adv_plugins_cli.command import UserError, read_text

# fairseq's name of a task -> what it predicts; sentence_prediction may also be a regression.
KINDS = {
    "sentence_prediction": "classification",
    "sentence_ranking": "ranking",
    "commonsense_qa": "ranking",
    "token_classification": "tokens",
}
MOST_CHOICES = 100  # of a ranking
EMBEDDINGS = "encoder.sentence_encoder.embed_tokens.weight"


@dataclass(frozen=True)
class TrainedModel:
    """One checkpoint.

    kind: classification, regression, ranking or tokens; labels: names of the classes (of a ranking,
    the numbers of the choices; of a regression, none); data: the folder of the dictionaries.
    """

    checkpoint: Path
    data: Path
    task: str
    kind: str
    labels: tuple[str, ...]
    head: str
    options: Mapping[str, Any]
    beginnings: tuple[Path, ...]  # the weights that the training may have begun with

    @property
    def dictionary_file(self) -> Path:
        """The subwords."""
        return dictionary_file(self.data, self.task)

    def columns(self) -> tuple[int, ...]:
        """How many texts an example may have: of a ranking, the context and its choices.

        One sentence or a pair is no option of fairseq's; the data tell, where they are complete.
        """
        if self.kind == "ranking":
            return (1 + len(self.labels),)
        if self.kind == "tokens":
            return (1,)
        if (self.data / "input1").is_dir():
            return (2,)
        return (1,) if any((self.data / "input0").glob("*.idx")) else (1, 2)


def read_trained_model(checkpoint: Path, data: Path | None = None) -> TrainedModel:
    """Read a checkpoint's configuration and its data's label dictionary.

    Args:
        data: a folder to use instead of the one that the checkpoint was trained on.

    Raises:
        UserError: no such checkpoint, a task or an architecture that is not known here, dictionaries
            that are missing or are not those that the checkpoint was trained with.
    """
    state = read_checkpoint(checkpoint)
    task = task_name(checkpoint, state)
    if task not in KINDS:
        raise UserError(
            f"{checkpoint}: predictions of --task {task or '?'} are not known; known are "
            f"{', '.join(KINDS)}"
        )
    options = task_options(checkpoint, state)
    model_options(checkpoint, state)  # refused before anything else is asked for
    regression = task == "sentence_prediction" and options.get("regression_target")
    kind = "regression" if regression else KINDS[task]
    own = find_data(checkpoint, options.get("data"), task)
    folder = data or own
    dictionary = dictionary_file(folder, task)
    if not dictionary.is_file():
        raise UserError(f"{dictionary}: no such file; name the data's folder with --data-bin")
    labels = _labels(checkpoint, kind, options, folder)
    if data is not None:
        _refuse_other(checkpoint, dictionary_file(own, task), dictionary)
    if kind in ("classification", "tokens"):
        if data is not None:
            _refuse_other(checkpoint, label_file(own), label_file(data))
        _refuse_other_labels(checkpoint, recorded_labels(state), label_file(folder), labels)
    _check_symbols(checkpoint, options, state["model"], dictionary)
    head = options["ranking_head_name" if task == "sentence_ranking" else "classification_head_name"]
    if f"classification_heads.{head}.out_proj.weight" not in state["model"]:
        raise UserError(f"{checkpoint}: has no head {head}, so it predicts nothing (fine-tune it)")
    return TrainedModel(
        checkpoint=checkpoint,
        data=folder,
        task=task,
        kind=kind,
        labels=labels,
        head=head,
        options=options,
        beginnings=tuple(_beginnings(checkpoint, section(checkpoint, state, "checkpoint"))),
    )


def find_data(checkpoint: Path, given: str | None, task: str) -> Path:
    """The folder that a checkpoint was trained on: its path was relative to another folder, perhaps.

    Args:
        given: the path in the checkpoint's configuration.

    Returns:
        what holds the dictionary among the path as it is and the path below the checkpoint's folder
        and the folders above that; the path as it is if there is none.
    """
    for base in (Path(), *checkpoint.resolve().parents):
        if os.path.isfile(dictionary_file(base / (given or ""), task)):
            return base / (given or "")
    return Path(given or "")


def recorded_labels(state: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names of the classes at the time of the training; None where that is not recorded."""
    from adv_plugins.tasks.label_record import LABELS

    record = state.get("task_state")
    names = record.get(LABELS) if isinstance(record, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)


def dictionary_file(folder: Path, task: str) -> Path:
    """The subwords of a task's data."""
    if task == "masked_lm":  # whose data may be several folders
        return Path(str(folder).split(os.pathsep)[0]) / "dict.txt"
    return folder / "dict.txt" if task == "commonsense_qa" else folder / "input0" / "dict.txt"


def label_file(folder: Path) -> Path:
    """The classes of a task's data."""
    return folder / "label" / "dict.txt"


def _beginnings(checkpoint: Path, options: Mapping[str, Any]) -> Iterator[Path]:
    """The weights that a training may have begun with, where they are still there."""
    for name in (options.get("finetune_from_model"), options.get("restore_file")):
        # a bare checkpoint_last.pt is fairseq's default, and lies in the folder of the run
        if isinstance(name, str) and name.isprintable() and Path(name).name != name:
            bases = (Path(), *checkpoint.resolve().parents)
            yield next((base / name for base in bases if os.path.isfile(base / name)), Path(name))


def _check_symbols(
    checkpoint: Path, options: Mapping[str, Any], weights: Mapping[str, Any], dictionary: Path
) -> None:
    """The subwords are those of the model, and what is written between texts is one of them."""
    # fairseq's tasks add <mask> to the subwords
    expected = len({*_read_dictionary(dictionary).symbols, "<mask>"})
    symbols = len(weights.get(EMBEDDINGS, weights.get(EMBEDDINGS.replace("encoder", "decoder", 1))))
    if symbols != expected:
        raise UserError(
            f"{checkpoint}: has {symbols} subwords, but {dictionary} {expected} (--data-bin)"
        )
    for name in ("init_token", "separator_token"):
        if not 0 <= (options.get(name) or 0) < symbols:
            raise UserError(f"{checkpoint}: --{name.replace('_', '-')} {options[name]} is no subword")
    if (options.get("max_option_length") or 1) < 1:
        raise UserError(f"{checkpoint}: --max-option-length {options['max_option_length']}")


def _labels(checkpoint: Path, kind: str, options: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """Names of the classes by their numbers."""
    count = options.get("num_classes")
    if kind == "regression":
        if count != 1:
            raise UserError(f"{checkpoint}: predicts {count} scores; only one is known here")
        return ()
    if kind == "ranking":
        if not isinstance(count, int) or not 1 < count <= MOST_CHOICES:
            raise UserError(f"{checkpoint}: ranks {count} choices (--num-classes)")
        return tuple(map(str, range(count)))
    if not label_file(folder).is_file():
        raise UserError(f"{label_file(folder)}: no such file; name the data's folder with --data-bin")
    labels = _read_labels(label_file(folder))
    if count not in (-1, len(labels)):
        raise UserError(
            f"{checkpoint}: has {count} classes, but {folder} has the labels {', '.join(labels)} "
            "(--data-bin)"
        )
    return labels


def _refuse_other(checkpoint: Path, own: Path, given: Path) -> None:
    """Where the data of the training are still there, others must number everything as they do."""
    if own.is_file() and _read_labels(own) != _read_labels(given):
        raise UserError(f"{checkpoint}: trained with {own}, and {given} is not the same (--data-bin)")


def _refuse_other_labels(
    checkpoint: Path, recorded: tuple[str, ...] | None, path: Path, labels: tuple[str, ...]
) -> None:
    """The data's labels may have been written anew since the training, in another order."""
    if recorded is not None and recorded != labels:
        raise UserError(
            f"{path}: its labels are {', '.join(labels)[:200]}, but {checkpoint} was trained with "
            f"{', '.join(recorded)[:200]}, in this order; give that data's folder (--data-bin)"
        )


def _read_labels(path: Path) -> tuple[str, ...]:
    """The symbols, without fairseq's own and what fills a dictionary up."""
    from adv_plugins.tasks.token_labels import label_names

    return tuple(label_names(_read_dictionary(path)))


def _read_dictionary(path: Path) -> Any:
    """fairseq's Dictionary of a dict.txt.

    Raises:
        UserError: it is none.
    """
    from fairseq.data import Dictionary

    read_text(path)  # a file in another encoding is named
    try:
        return Dictionary.load(str(path))
    except Exception as error:
        raise UserError(f"{path}: no dictionary of fairseq ({str(error)[:200]})") from error
