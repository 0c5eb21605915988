"""A fine-tuned checkpoint on raw text, through fairseq's hub interface.

Symbols, separators and order are those of the checkpoint's own task, so a prediction is what
fairseq's validation computes on the same text binarised.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

# Appended, so that an installed copy wins and a checkout that is not installed works as well.
sys.path.append(str(Path(__file__).resolve().parent.parent))

import fairseq_compat

fairseq_compat.install()

if TYPE_CHECKING:
    from binarize import Indices, TextEncoder

Array = NDArray[np.float64]


class PredictError(ValueError):
    """The request cannot be fulfilled; the message names the option to change."""


def read_config(checkpoint: Path) -> Any:
    """A checkpoint's configuration, without building its model.

    Raises:
        PredictError: the file does not exist.
    """
    if not checkpoint.is_file():
        raise PredictError(f"{checkpoint}: no such checkpoint")
    import torch
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    import adv_plugins  # noqa: F401 - lets torch read fairseq's checkpoints

    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if state.get("cfg") is None:
        return convert_namespace_to_omegaconf(state["args"])
    return state["cfg"]


def section(config: Any, name: str) -> dict[str, Any]:
    """A section of the configuration as a dictionary."""
    found = config[name]
    return dict(found) if hasattr(found, "keys") else vars(found)


class Predictor:
    """One checkpoint.

    kind: classification, regression or ranking; labels: names of the classes (of a ranking, the
    numbers of the choices).
    """

    def __init__(self, checkpoint: Path, data: Path) -> None:
        """Load the model.

        Args:
            data: the folder that it was trained on, or another with the same dictionaries.

        Raises:
            PredictError: the checkpoint's task predicts nothing that is known here.
        """
        import torch
        from fairseq.models.roberta import RobertaModel

        import adv_plugins  # noqa: F401 - registers architectures and tasks

        self.hub = RobertaModel.from_pretrained(
            str(checkpoint.parent), checkpoint.name, str(data.resolve()), bpe=None
        )
        self.hub.eval()
        if torch.cuda.is_available():
            self.hub.cuda()
        task = self.hub.task
        self.task_name = task_name(task)
        self.options = task.cfg if self.task_name == "sentence_prediction" else task.args
        self.separator = getattr(self.options, "separator_token", None)
        self.head = "sentence_classification_head"
        if self.task_name == "sentence_prediction":
            self.head = self.options.classification_head_name
            self.kind = "regression" if self.options.regression_target else "classification"
            self.labels = [] if self.kind == "regression" else class_names(task)
        elif self.task_name in ("sentence_ranking", "commonsense_qa"):
            self.kind = "ranking"
            self.labels = [str(index) for index in range(self.options.num_classes)]
        else:
            raise PredictError(
                f"{checkpoint}: predictions of --task {self.task_name} are not known here"
            )

    def sequences(self, texts: Sequence[Indices]) -> list[Indices]:
        """What the model reads for one example: one sequence, or one for each choice.

        Args:
            texts: subwords of the sentences; of a ranking the context, then the choices.

        Raises:
            PredictError: too few or too many of them.
        """
        dictionary = self.hub.task.source_dictionary
        end = np.array([dictionary.eos()])
        start = _symbol(self.options.init_token)
        separator = _symbol(self.separator)
        if self.kind == "ranking":
            context, *choices = texts
            if len(choices) != len(self.labels):
                raise PredictError(f"{len(choices)} choices, but the model ranks {len(self.labels)}")
            if self.task_name == "commonsense_qa":
                return [np.concatenate([start, context, end, choice, end]) for choice in choices]
            return [np.concatenate([start, choice, end, separator, context, end]) for choice in choices]
        if not 1 <= len(texts) <= 2:
            raise PredictError(f"{len(texts)} sentences, but the model reads one or two")
        parts = [start, texts[0], end]
        if len(texts) == 2:
            parts += [separator, texts[1], end]
        return [np.concatenate(parts)]

    def predict(self, examples: Sequence[Sequence[Indices]], *, batch_size: int = 32) -> Array:
        """(N, C) probabilities, or (N, 1) scores of a regression.

        Args:
            examples: the subwords of each example's texts; see :meth:`sequences`.
        """
        rows = [self.sequences(texts) for texts in examples]
        flat = [sequence for row in rows for sequence in row]
        limit = int(self.hub.model.max_positions())
        longer = sum(len(sequence) > limit for sequence in flat)
        if longer:
            print(f"{longer} sequences are longer than {limit} and are cut", file=sys.stderr)
        logits = self._logits([sequence[:limit] for sequence in flat], batch_size)
        if self.kind == "regression":
            return logits
        logits = logits.reshape(len(rows), -1)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def _logits(self, sequences: Sequence[Indices], batch_size: int) -> Array:
        """The head's (N, C) outputs; sequences of like length go together."""
        import torch

        pad = self.hub.task.source_dictionary.pad()
        order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
        found: dict[int, Any] = {}
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            tokens = torch.nn.utils.rnn.pad_sequence(
                [torch.from_numpy(sequences[index]) for index in batch],
                batch_first=True,
                padding_value=pad,
            )
            with torch.no_grad():
                logits = self.hub.predict(self.head, tokens, return_logits=True)
            found.update(zip(batch, logits.double().cpu().numpy()))
        return np.stack([found[index] for index in range(len(sequences))])


def task_name(task: Any) -> str:
    """fairseq's name of a task."""
    from fairseq.tasks import TASK_REGISTRY

    return next((name for name, cls in TASK_REGISTRY.items() if type(task) is cls), "?")


def class_names(task: Any) -> list[str]:
    """Names of the classes by their numbers."""
    dictionary = task.label_dictionary
    first = dictionary.nspecial
    return [dictionary[first + index] for index in range(task.cfg.num_classes)]


def _symbol(index: int | None) -> Indices:
    return np.array([] if index is None else [index], dtype=np.int64)


def encode_examples(encoder: TextEncoder, examples: Sequence[Sequence[str]]) -> list[list[Indices]]:
    """The subwords of every text of every example."""
    flat = encoder.encode_batch([text for texts in examples for text in texts])
    pieces = iter(flat)
    return [[next(pieces) for _ in texts] for texts in examples]


def ensemble(predictions: Sequence[Array], how: str) -> Array:
    """One (N, C) array of several models'.

    Args:
        how: ``mean``, or ``majority``: shares of the votes, and the mean as a tie-breaker too small to
            outweigh a vote. Of scores (C = 1) always the mean.
    """
    stacked = np.stack(predictions)
    mean = stacked.mean(axis=0)
    if how == "mean" or len(predictions) == 1 or mean.shape[1] == 1:
        return mean
    votes = np.eye(mean.shape[1])[stacked.argmax(axis=2)].mean(axis=0)
    return votes + mean / (2 * len(predictions))
