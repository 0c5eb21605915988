"""GLUE's development and test sets: which texts to predict, and what becomes of the predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adv_plugins_cli.checkpoints import glue_submission
from adv_plugins_cli.checkpoints.ensemble import Predictions
from adv_plugins_cli.checkpoints.trained_model import TrainedModel
from adv_plugins_cli.command import UserError
from adv_plugins_cli.data.glue_format import TASKS, Split, read_split
from fairseq_compat.files import write_text


class GlueSets:
    """The official files of one split of a task; MNLI has two."""

    def __init__(self, name: str, folder: Path, split: str) -> None:
        """Read them.

        Args:
            folder: that holds TASK/test.tsv and so on; split: test or dev.

        Raises:
            UserError: a file is missing or not as it should be, or does not number its rows.
        """
        self.task, self.folder, self.split = TASKS[name], folder / name, split
        self.fairseq_split = "test" if split == "test" else "valid"
        self.files: dict[str, Split] = {
            key: read_split(self.folder / file, self.task, test=split == "test")
            for key, file in self.task.files(self.fairseq_split).items()
        }
        self.indices = {}
        if split == "test":
            self.indices = {
                key: glue_submission.read_indices(file.path) for key, file in self.files.items()
            }
        self.pairs: Any = None

    def examples(self, model: TrainedModel) -> list[list[tuple[str, ...]]]:
        """The texts of every example of every file; of a ranking model's one file, of its pairs.

        Raises:
            UserError: the model's classes are not the task's.
        """
        if model.kind == "ranking":
            from adv_plugins_cli.data.formats.pairs import POSITIVE, glue_pairs

            if self.task.name not in POSITIVE or len(model.labels) != 2:
                raise UserError(
                    f"{model.checkpoint}: ranks {len(model.labels)} choices; only models of pairs "
                    f"predict, and only {' or '.join(POSITIVE)} (--glue-task)"
                )
            self.pairs = glue_pairs(self.task.name)(self.folder)[self.fairseq_split]
            return [list(zip(*self.pairs.split.inputs))]
        wanted = "regression" if self.task.regression else "classification"
        if model.kind != wanted or set(model.labels) != set(self.task.labels):
            raise UserError(
                f"{model.checkpoint}: its classes are {', '.join(model.labels) or 'scores'}; "
                f"{self.task.name} has {', '.join(self.task.labels) or 'scores'} (--glue-task)"
            )
        return [list(zip(*file.inputs)) for file in self.files.values()]

    def rows(self, predictions: Sequence[Predictions], labels: Sequence[str]) -> list[Predictions]:
        """Predictions of the official rows, numbered like the task's own labels."""
        if self.pairs is not None:
            from adv_plugins_cli.data.formats.pairs import POSITIVE

            (file,), positive = self.files.values(), POSITIVE[self.task.name]
            chosen = predictions[0].chosen
            won = glue_submission.from_pairs(self.pairs.rows, chosen, len(file.lines), positive)
            (negative,) = set(self.task.labels) - {positive}
            numbers = [self.task.labels.index(label) for label in (negative, positive)]
            return [Predictions(np.eye(2)[won.astype(int)], np.array(numbers)[won.astype(int)])]
        if self.task.regression:
            return list(predictions)
        order = np.array([self.task.labels.index(label) for label in labels])
        return [found._replace(chosen=order[found.chosen]) for found in predictions]

    def targets(self, output_dir: Path) -> list[Path]:
        """The submission files."""
        return [output_dir / glue_submission.file_name(self.task, key) for key in self.files]

    def write(self, output_dir: Path, rows: Sequence[Predictions]) -> list[str]:
        """Write them and return what was written; ``rows`` as :meth:`rows` returns them."""
        written = []
        for path, found, indices in zip(self.targets(output_dir), rows, self.indices.values()):
            lines = glue_submission.lines(self.task, self.task.labels, found, indices)
            write_text(path, "".join(f"{line}\n" for line in lines))
            written.append(f"{path}: {len(lines) - 1} predictions")
        return written

    def scores(self, rows: Sequence[Predictions]) -> list[str]:
        """A line of the task's official metrics for every file, in percent as training logs them."""
        from adv_plugins.scores import SCORES, PredictionsMeter

        known = {name: score for meters in SCORES.values() for name, score in meters.items()}
        known["accuracy"] = lambda found, target: float(np.mean(found == target))
        lines = []
        for file, found in zip(self.files.values(), rows):
            assert file.labels is not None
            meter = PredictionsMeter()
            if self.task.regression:
                meter.update(found.values[:, 0], np.array([float(label) for label in file.labels]))
            else:
                # The task's own numbers: F1 is of the label 1, whatever number training gave it.
                meter.update(found.chosen, [self.task.labels.index(label) for label in file.labels])
            scores = [f"{name} {meter.score(known[name]):.2f}" for name in self.task.metrics]
            lines.append(f"{self.task.name} {file.path.name}: {', '.join(scores)}")
        return lines
