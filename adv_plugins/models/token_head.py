"""A head for token labelling on any RoBERTa: one linear layer on every position.

It sits among the model's ``classification_heads``, where fairseq's forward looks a head up by name
and where fairseq's own code saves it, loads it, starts it afresh from a checkpoint that has none, and
drops it, with a warning, for another task.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fairseq_compat.errors import UserError


class NoHiddenLayer(nn.Module):
    """Stands where the heads that fairseq knows have their hidden layer, ``dense``.

    When a checkpoint is loaded, fairseq reads the size of ``dense.weight`` of every head in it. This
    one has no elements: it says 0, and nothing is trained.
    """

    out_features = 0

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(0))


class TokenClassificationHead(nn.Module):
    """Dropout and one linear layer, as BERT's for named entities."""

    def __init__(self, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.dense = NoHiddenLayer()
        self.out_proj = nn.Linear(width, num_classes)

    def forward(self, features: Tensor, **unused: Any) -> Tensor:
        """(B, T, C) logits of (B, T, d) hidden states."""
        return self.out_proj(self.dropout(features))


def register_token_head(model: Any, name: str, num_classes: int) -> None:
    """Give a RoBERTa, or a subclass of it, a token head with its ``--pooler-dropout``.

    Then ``model(src_tokens, classification_head_name=name)`` returns (B, T, C) logits.

    Raises:
        UserError: the model has no classification heads.
    """
    if not hasattr(model, "classification_heads"):
        raise UserError(
            f"token_classification needs a model with classification heads, and "
            f"{type(model).__name__} has none: choose a RoBERTa-like --arch"
        )
    model.classification_heads[name] = TokenClassificationHead(
        model.args.encoder_embed_dim, num_classes, model.args.pooler_dropout
    )
