"""A model with fewer positions than its checkpoint takes the checkpoint's first ones.

fairseq's tasks have one number for both, the longest example and the model's positions
(``--max-positions``), so that a recipe for shorter sentences could not start from pre-trained weights:
their position embeddings have another shape. The last ones would never be used.
"""

import logging
from typing import Any, Dict

from fairseq.models.roberta import RobertaModel
from torch import Tensor

logger = logging.getLogger(__name__)

KEY = "encoder.sentence_encoder.embed_positions.weight"


def take_the_first() -> None:
    """Let every RoBERTa, and its subclasses, load checkpoints with more positions than it has."""
    stock = RobertaModel.upgrade_state_dict_named

    def upgrade_state_dict_named(self: Any, state_dict: Dict[str, Tensor], name: str) -> None:
        stock(self, state_dict, name)
        key = f"{name}.{KEY}" if name else KEY
        positions = self.encoder.sentence_encoder.embed_positions
        rows = 0 if positions is None else len(getattr(positions, "weight", ()))
        if key in state_dict and 0 < rows < len(state_dict[key]):
            before = positions.padding_idx + 1  # the rows in front of the first position's
            logger.info(
                "--max-positions %d: the first ones of the checkpoint's %d",
                rows - before,
                len(state_dict[key]) - before,
            )
            state_dict[key] = state_dict[key][:rows].clone()

    RobertaModel.upgrade_state_dict_named = upgrade_state_dict_named


take_the_first()
