"""A fine-tuned model in Python.

    from adv_plugins_cli import load
    model = load("checkpoints/RTE/rat/seed1")
    model.predict([("A man sleeps.", "Nobody is awake.")])[0].label

It predicts what ``adv-plugins predict`` predicts, on a GPU if there is one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adv_plugins_cli.checkpoints.predictor import Predictor, encode_texts
from adv_plugins_cli.checkpoints.trained_model import read_trained_model
from adv_plugins_cli.command import UserError
from adv_plugins_cli.data.formats.common import one_line
from adv_plugins_cli.data.tokenizer_options import OPTIONS
from adv_plugins_cli.predict import find_encoder, only_output

CHECKPOINTS = ("checkpoint_best.pt", "checkpoint_last.pt")  # of a folder, the first that is there


@dataclass(frozen=True)
class Prediction:
    """Of one example.

    label: the name of its class; of a multiple choice the number of the choice, from 0; of token
    labelling the words' labels; None of a score. score: of a regression, else None. probabilities: of
    each label in the order of ``Model.labels``; of token labelling one such a word; () of a score.
    """

    label: str | int | list[str] | None
    score: float | None
    probabilities: Any


class Model:
    """A checkpoint, loaded.

    kind: classification, regression, ranking or tokens. labels: the names of its classes, of a ranking
    the numbers of the choices, of a regression none.
    """

    def __init__(
        self, path: str | Path, *, data_bin: str | Path | None = None, **tokenizer: str
    ) -> None:
        """Load it; as :func:`adv_plugins_cli.load`."""
        unknown = set(tokenizer) - set(OPTIONS.values())
        if unknown:
            raise UserError(f"{', '.join(sorted(unknown))}: give one of {', '.join(OPTIONS.values())}")
        self.trained = read_trained_model(_checkpoint(Path(path)), Path(data_bin) if data_bin else None)
        self.kind, self.labels = self.trained.kind, tuple(self.trained.labels)
        self.encoder = find_encoder(argparse.Namespace(**tokenizer), [self.trained])
        with only_output():
            self.predictor = Predictor(self.trained)

    def probabilities(
        self, examples: Sequence[str | Sequence[str]], *, batch_size: int = 32
    ) -> NDArray[np.float64]:
        """(N, C) probabilities of the classes or choices, (N, 1) scores of a regression; of token
        labelling N counts the words of all examples.

        Args:
            examples: of each a text, or its texts: a pair; of a multiple choice the context, then the
                choices; of token labelling a sentence, its words parted by spaces.

        Raises:
            UserError: an example has another number of texts than the model reads.
        """
        rows = [_texts(example) for example in examples]
        for number, row in enumerate(rows):
            if len(row) not in self.trained.columns():
                wanted = " or ".join(map(str, self.trained.columns()))
                raise UserError(f"example {number}: {len(row)} texts, the model reads {wanted}")
        encoded = encode_texts(self.encoder, rows, self.trained.task)
        return self.predictor.predict(encoded, batch_size=batch_size)

    def predict(
        self, examples: Sequence[str | Sequence[str]], *, batch_size: int = 32
    ) -> list[Prediction]:
        """One prediction an example; as :meth:`probabilities`."""
        found = self.probabilities(examples, batch_size=batch_size)
        if self.kind == "regression":
            return [Prediction(None, float(score), ()) for score in found[:, 0]]
        if self.kind == "tokens":
            rows = iter(found.tolist())
            words = [[next(rows) for _ in _texts(example)[0].split()] for example in examples]
            return [Prediction([self._name(row) for row in each], None, each) for each in words]
        names = [self._name(row) for row in found.tolist()]
        labels: list[Any] = list(map(int, names)) if self.kind == "ranking" else names
        return [Prediction(label, None, row) for label, row in zip(labels, found.tolist())]

    def _name(self, row: Sequence[float]) -> str:
        return self.labels[int(np.argmax(row))]


def _checkpoint(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = next((path / name for name in CHECKPOINTS if (path / name).is_file()), None)
    if found is None:
        raise UserError(f"{path}: has neither {' nor '.join(CHECKPOINTS)}")
    return found


def _texts(example: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(map(one_line, [example] if isinstance(example, str) else example))
