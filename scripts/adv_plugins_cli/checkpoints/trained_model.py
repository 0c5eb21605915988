"""What a fine-tuned checkpoint predicts, by its own configuration, without building its model.

Symbols, separators, classes and data come from the options that it was trained with, so that no
option of a prediction has to repeat them and nothing is assumed.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adv_plugins_cli.checkpoints.architecture import ARCHITECTURE, check_files, read_architecture
from adv_plugins_cli.checkpoints.checkpoint_file import read_checkpoint, section
from adv_plugins_cli.checkpoints.checkpoint_model import model_options, task_name, task_options
from adv_plugins_cli.command import UserError
from adv_plugins_cli.data.dictionary import load_dictionary, make_dictionary, read_labels
from fairseq_compat import files, task_kinds
from fairseq_compat.task_kinds import TASK_KINDS, TaskKind

MOST_CHOICES = 100  # of a ranking
EMBEDDINGS = "encoder.sentence_encoder.embed_tokens.weight"


@dataclass(frozen=True)
class TrainedModel:
    """One checkpoint.

    kind: classification, regression, ranking or tokens; labels: names of the classes (of a ranking,
    the numbers of the choices; of a regression, none); data: the folder of its data; words: the
    dictionary of the subwords there or, where the data are gone, beside the checkpoint.
    """

    checkpoint: Path
    data: Path
    words: Path
    task: TaskKind
    kind: str
    labels: tuple[str, ...]
    head: str
    options: Mapping[str, Any]
    beginnings: tuple[Path, ...]  # the weights that the training may have begun with

    @contextlib.contextmanager
    def dictionaries(self) -> Iterator[Path]:
        """The folder of the dictionaries as fairseq's task reads them: the data's or, where these are
        gone, one of what the checkpoint's folder holds."""
        if self.words == self.data / self.task.dictionary:
            yield self.data
            return
        with tempfile.TemporaryDirectory() as name:
            for path in (self.task.dictionary, task_kinds.LABELS):
                (Path(name) / path).parent.mkdir(exist_ok=True)
            files.copy_file(self.words, Path(name) / self.task.dictionary)
            make_dictionary(self.labels).save(str(Path(name) / task_kinds.LABELS))
            yield Path(name)

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
    name = task_name(checkpoint, state)
    known = [kind.name for kind in TASK_KINDS.values() if kind.predicts]
    if name not in known:
        raise UserError(
            f"{checkpoint}: predictions of --task {name or '?'} are not known; known are "
            f"{', '.join(known)}"
        )
    task, options = TASK_KINDS[name], task_options(checkpoint, state)
    model_options(checkpoint, state)  # refused before anything else is asked for
    scores = task.predicts == "classification" and options.get("regression_target")
    kind = "regression" if scores else task.predicts
    classes = kind in ("classification", "tokens")
    own = find_data(checkpoint, options.get("data"), task)
    folder = data or own
    words, names = folder / task.dictionary, folder / task_kinds.LABELS
    recorded = recorded_labels(checkpoint, state) if classes else None
    if not words.is_file() and data is None and (recorded is not None or not classes):
        words = _dictionary_beside(checkpoint) or words
    if not words.is_file():
        raise UserError(f"{words}: no such file; name the data's folder with --data-bin")
    if data is not None:
        _refuse_other(checkpoint, own / task.dictionary, words)
    if not classes:
        labels = _numbered(checkpoint, kind, options)
    elif words == folder / task.dictionary:
        labels = _labels_of(names)
        if data is not None:
            _refuse_other(checkpoint, own / task_kinds.LABELS, names)
        _refuse_other_labels(checkpoint, recorded, names, labels)
    else:
        labels = recorded or ()
    if classes and options.get("num_classes") not in (-1, len(labels)):
        raise UserError(
            f"{checkpoint}: has {options.get('num_classes')} classes, but {folder} has the labels "
            f"{', '.join(labels)} (--data-bin)"
        )
    _check_symbols(checkpoint, options, state["model"], words)
    head = options[task.head_option]
    if f"classification_heads.{head}.out_proj.weight" not in state["model"]:
        raise UserError(f"{checkpoint}: has no head {head}, so it predicts nothing (fine-tune it)")
    return TrainedModel(
        checkpoint=checkpoint,
        data=folder,
        words=words,
        task=task,
        kind=kind,
        labels=labels,
        head=head,
        options=options,
        beginnings=tuple(_beginnings(checkpoint, section(checkpoint, state, "checkpoint"))),
    )


def describe(model: TrainedModel) -> str:
    """What a model predicts, for messages."""
    if model.kind == "regression":
        return "scores"
    what = {"ranking": "the choices", "tokens": "for every word"}.get(model.kind, "the classes")
    return f"{what} {', '.join(model.labels)}"


def check_alike(models: Sequence[TrainedModel], reason: str) -> None:
    """Make sure that several models predict the same.

    Raises:
        UserError: with ``reason``, naming the first that does not as the first of all.
    """
    first = models[0]
    for model in models[1:]:
        if (model.task, model.kind, model.labels) != (first.task, first.kind, first.labels):
            raise UserError(
                f"{model.checkpoint}: predicts {describe(model)}, but {first.checkpoint} "
                f"{describe(first)}; {reason}"
            )


def find_data(checkpoint: Path, given: str | None, task: TaskKind) -> Path:
    """The folder that a checkpoint was trained on: its path was relative to another folder, perhaps.

    Args:
        given: the path in the checkpoint's configuration; of pre-training there may be several.

    Returns:
        what holds the dictionary among the path as it is and the path below the checkpoint's folder
        and the folders above that; the path as it is if there is none.
    """
    first = given or ""
    if not task.predicts:
        first = first.split(os.pathsep)[0]
    for base in (Path(), *checkpoint.resolve().parents):
        if os.path.isfile(base / first / task.dictionary):
            return base / first
    return Path(first)


def recorded_labels(checkpoint: Path, state: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names of the classes at the time of the training: the checkpoint's own record, or its
    folder's; None where neither says anything.

    Raises:
        UserError: they are not the same.
    """
    from adv_plugins.tasks.label_record import LABELS

    record = state.get("task_state")
    names = record.get(LABELS) if isinstance(record, dict) else None
    inside = None
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        inside = tuple(names)
    architecture = read_architecture(checkpoint.parent)
    beside = architecture.labels if architecture is not None else None
    if beside is not None:
        _refuse_other_labels(checkpoint, inside, checkpoint.with_name(ARCHITECTURE), beside)
    return inside or beside


def _dictionary_beside(checkpoint: Path) -> Path | None:
    """The subwords in the checkpoint's folder, if its architecture.json names them."""
    architecture = read_architecture(checkpoint.parent)
    if architecture is None or architecture.tokenizer is None:
        return None
    check_files(checkpoint.parent, architecture.tokenizer)
    named = "dict.txt" in architecture.tokenizer.files
    return checkpoint.with_name("dict.txt") if named else None


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
    expected = len({*load_dictionary(dictionary).symbols, "<mask>"})
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


def _numbered(checkpoint: Path, kind: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """What a model predicts that has no classes with names."""
    count = options.get("num_classes")
    if kind == "regression":
        if count != 1:
            raise UserError(f"{checkpoint}: predicts {count} scores; only one is known here")
        return ()
    if not isinstance(count, int) or not 1 < count <= MOST_CHOICES:
        raise UserError(f"{checkpoint}: ranks {count} choices (--num-classes)")
    return tuple(map(str, range(count)))


def _labels_of(path: Path) -> tuple[str, ...]:
    """Names of the classes by their numbers."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; name the data's folder with --data-bin")
    return read_labels(path)


def _refuse_other(checkpoint: Path, own: Path, given: Path) -> None:
    """Where the data of the training are still there, others must number everything as they do."""
    if own.is_file() and read_labels(own) != read_labels(given):
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
