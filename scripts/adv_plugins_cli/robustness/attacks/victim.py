"""A checkpoint's model as a victim: it answers with probabilities of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from adv_plugins_cli.checkpoints.predictor import Predictor, encode_texts

if TYPE_CHECKING:
    from adv_plugins_cli.data.binarize import TextEncoder


class ModelVictim:
    """Encodes and predicts; what is too long is cut as the training cuts it."""

    def __init__(self, predictor: Predictor, encoder: TextEncoder, batch_size: int) -> None:
        self.predictor, self.encoder, self.batch_size = predictor, encoder, batch_size

    def __call__(self, rows: Sequence[tuple[str, ...]]) -> NDArray[np.float64]:
        """(N, C) probabilities."""
        encoded = encode_texts(self.encoder, rows, self.predictor.trained.task)
        return self.predictor.predict(encoded, batch_size=self.batch_size, tell=False)
