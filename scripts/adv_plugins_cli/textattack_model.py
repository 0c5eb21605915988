"""A checkpoint as a model of TextAttack's (Morris et al., EMNLP 2020), in an environment that has both.

    from adv_plugins_cli.textattack_model import CheckpointWrapper
    model = CheckpointWrapper("checkpoint_best.pt")
    attack = textattack.attack_recipes.TextFoolerJin2019.build(model)

No command, and nothing here needs TextAttack: docs/robustness.md says how an environment for it is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from textattack.models.wrappers import ModelWrapper

from adv_plugins_cli.checkpoints.trained_model import describe
from adv_plugins_cli.command import UserError
from adv_plugins_cli.model import Model
from adv_plugins_cli.robustness.attacks.victim import ModelVictim

if TYPE_CHECKING:
    from collections.abc import Mapping


class CheckpointWrapper(ModelWrapper):
    """Probabilities of texts, or of pairs of texts.

    labels: the names of the classes in the order of the columns: a data set's labels must be these
    numbers (``textattack.datasets.Dataset(rows, label_names=model.labels)``).
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        data_bin: str | Path | None = None,
        batch_size: int = 32,
        **tokenizer: str,
    ) -> None:
        """Load the model.

        Args:
            data_bin: as the option of ``adv-plugins predict``; tokenizer: bpe_dir, sentencepiece or
                wordpiece, likewise.

        Raises:
            UserError: no classification, or nothing to tokenise with.
        """
        model = Model(checkpoint, data_bin=data_bin, **tokenizer)
        if model.kind != "classification":
            described = describe(model.trained)
            raise UserError(f"{checkpoint}: predicts {described}, and TextAttack needs classes")
        self.labels = list(model.labels)
        self.victim = ModelVictim(model.predictor, model.encoder, batch_size)
        self.model = model.predictor.model  # where TextAttack looks for it

    def __call__(
        self, text_input_list: Sequence[str | Sequence[str] | Mapping[str, str]], **unused: Any
    ) -> NDArray[np.float64]:
        """(N, C) probabilities."""
        return self.victim([_texts(each) for each in text_input_list])


def _texts(row: str | Sequence[str] | Mapping[str, str]) -> tuple[str, ...]:
    """TextAttack passes on one text as it is, and several as a tuple or, of some data sets, by name."""
    if isinstance(row, str):
        return (row,)
    return tuple(row.values() if hasattr(row, "values") else row)
