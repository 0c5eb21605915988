"""What a fine-tuned checkpoint predicts, by its own configuration, without building its model.

Symbols, separators, classes and data come from the options that it was trained with, so that no
option of a prediction has to repeat them and nothing is assumed.
"""

from __future__ import annotations

import pickle
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Appended, so that an installed copy wins and a checkout that is not installed works as well.
sys.path.append(str(Path(__file__).resolve().parent.parent))

import fairseq_compat

fairseq_compat.install()

# fairseq's name of a task -> what it predicts; sentence_prediction may also be a regression.
KINDS = {
    "sentence_prediction": "classification",
    "sentence_ranking": "ranking",
    "commonsense_qa": "ranking",
    "token_classification": "tokens",
}
HEAD = "sentence_classification_head"
EMBEDDINGS = "encoder.sentence_encoder.embed_tokens.weight"


class PredictError(ValueError):
    """The request cannot be fulfilled; the message names the option to change."""


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
        return _dictionary_file(self.data, self.task)

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
        PredictError: no such checkpoint, a task that is not known here, dictionaries that are missing
            or are not those that the checkpoint was trained with.
    """
    config, symbols = _read_checkpoint(checkpoint)
    options = _section(config, "task")
    task = options.get("_name") or options.get("task")
    if task not in KINDS:
        raise PredictError(
            f"{checkpoint}: predictions of --task {task} are not known; known are {', '.join(KINDS)}"
        )
    regression = task == "sentence_prediction" and options.get("regression_target")
    kind = "regression" if regression else KINDS[task]
    own = Path(options["data"])
    folder = data or own
    if not _dictionary_file(folder, task).is_file():
        raise PredictError(
            f"{_dictionary_file(folder, task)}: no such file; name the data's folder with --data-bin"
        )
    labels = _labels(checkpoint, kind, options, folder)
    if data is not None:
        _refuse_other(checkpoint, _dictionary_file(own, task), _dictionary_file(data, task))
        if kind in ("classification", "tokens"):
            _refuse_other(checkpoint, _label_file(own), _label_file(data))
    # fairseq's tasks add <mask> to the subwords
    expected = len(_read_symbols(_dictionary_file(folder, task)) | {"<mask>"})
    if symbols not in (None, expected):
        raise PredictError(
            f"{checkpoint}: has {symbols} subwords, but {_dictionary_file(folder, task)} {expected} "
            "(--data-bin)"
        )
    head = options.get("classification_head_name")
    if kind == "ranking" and task == "sentence_ranking":
        head = options.get("ranking_head_name")
    start = _section(config, "checkpoint")
    beginnings = [start.get("finetune_from_model")]
    # a bare checkpoint_last.pt is fairseq's default, and lies in the folder of the run
    if Path(restored := start.get("restore_file") or "").name != restored:
        beginnings.append(restored)
    return TrainedModel(
        checkpoint=checkpoint,
        data=folder,
        task=task,
        kind=kind,
        labels=labels,
        head=head or HEAD,
        options=options,
        beginnings=tuple(Path(name) for name in beginnings if name),
    )


def _read_checkpoint(checkpoint: Path) -> tuple[Any, int | None]:
    """The configuration, and how many subwords the model has."""
    if not checkpoint.is_file():
        raise PredictError(f"{checkpoint}: no such checkpoint")
    import torch
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    import adv_plugins  # noqa: F401 - lets torch read fairseq's checkpoints

    # Mapped, not read: only the configuration is wanted. torch before 1.6 wrote no zip files.
    mapped = zipfile.is_zipfile(checkpoint)
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=mapped)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).split("\n")[0]
        raise PredictError(f"{checkpoint}: not a checkpoint, or a damaged one ({reason})") from error
    embeddings = state.get("model", {}).get(EMBEDDINGS)
    symbols = None if embeddings is None else len(embeddings)
    if state.get("cfg") is not None:
        return state["cfg"], symbols
    if state.get("args") is None:
        raise PredictError(f"{checkpoint}: no checkpoint of fairseq-train")
    return convert_namespace_to_omegaconf(state["args"]), symbols


def _section(config: Any, name: str) -> dict[str, Any]:
    """A section of the configuration as a dictionary; older tasks leave a namespace."""
    found = config[name]
    return dict(found) if hasattr(found, "keys") else vars(found)


def _dictionary_file(folder: Path, task: str) -> Path:
    return folder / "dict.txt" if task == "commonsense_qa" else folder / "input0" / "dict.txt"


def _label_file(folder: Path) -> Path:
    return folder / "label" / "dict.txt"


def _labels(checkpoint: Path, kind: str, options: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """Names of the classes by their numbers."""
    count = options.get("num_classes")
    if kind == "regression":
        if count != 1:
            raise PredictError(f"{checkpoint}: predicts {count} scores; only one is known here")
        return ()
    if kind == "ranking":
        return tuple(map(str, range(count)))
    if not _label_file(folder).is_file():
        raise PredictError(
            f"{_label_file(folder)}: no such file; name the data's folder with --data-bin"
        )
    labels = _read_labels(_label_file(folder))
    if count not in (-1, len(labels)):
        raise PredictError(
            f"{checkpoint}: has {count} classes, but {folder} has the labels {', '.join(labels)} "
            "(--data-bin)"
        )
    return labels


def _refuse_other(checkpoint: Path, own: Path, given: Path) -> None:
    """Where the data of the training are still there, others must number everything as they do."""
    if own.is_file() and _read_labels(own) != _read_labels(given):
        raise PredictError(f"{checkpoint}: trained with {own}, and {given} is not the same (--data-bin)")


def _read_labels(path: Path) -> tuple[str, ...]:
    """The symbols, without fairseq's own and what fills a dictionary up."""
    from fairseq.data import Dictionary

    from adv_plugins.tasks.token_labels import label_names

    return tuple(label_names(Dictionary.load(str(path))))


def _read_symbols(path: Path) -> set[str]:
    from fairseq.data import Dictionary

    return set(Dictionary.load(str(path)).symbols)
