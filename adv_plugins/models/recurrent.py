"""Recurrent layers over sentences of different lengths, for ``bilstm`` and ``text_han``."""

from argparse import ArgumentParser
from typing import Any, Tuple, Type

import torch
from fairseq.modules.fairseq_dropout import FairseqDropout
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from adv_plugins.models.text_classifier import TextClassifier, check_sizes


class Recurrent(nn.Module):
    """Bidirectional layers of one kind, with dropout between them.

    - Sentences are packed, in any order, so the backward direction begins at a sentence's last word, and
      what padding holds reaches nothing.
    - Each layer is a module of its own: the dropout in between is fairseq's, which has masks that can be
      drawn again and a rate of its own for one pass, and not that of torch's, which is inside a kernel.
    - cuDNN's kernels are differentiated in training mode alone, and not twice. In eval mode under
      gradients torch's own kernels are taken; no method here differentiates a gradient.

    Args:
        kind: nn.LSTM or nn.GRU. size: of each direction.
    """

    def __init__(
        self, kind: Type[nn.RNNBase], input_size: int, size: int, layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.dropout_module = FairseqDropout(dropout, type(self).__name__)
        make: Any = kind
        self.recurrences = nn.ModuleList(
            make(input_size if number == 0 else 2 * size, size, bidirectional=True, batch_first=True)
            for number in range(layers)
        )

    def forward(self, words: Tensor, real: Tensor) -> Tuple[Tensor, Tensor]:
        """The last layer's states of (B, T, d) inputs; real (B, T) is False at padding.

        Returns:
            (B, T, 2 * size) of all words, zero at padding; and (B, 2 * size) the final ones, of the last
            word for one direction and the first for the other.
        """
        lengths = real.sum(dim=1).clamp(min=1).cpu()
        states, final = words, words
        for number, layer in enumerate(self.recurrences):
            inputs = self.dropout_module(states) if number else states
            packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
            with torch.backends.cudnn.flags(enabled=_cudnn(self.training)):
                output, last = layer(packed)
            states, _ = pad_packed_sequence(output, batch_first=True, total_length=real.size(1))
            hidden = last[0] if isinstance(last, tuple) else last  # an LSTM's has its cells beside it
            final = torch.cat(list(hidden), dim=1)
        return states, final


def _cudnn(training: bool) -> bool:
    """Whether cuDNN's kernels may be taken."""
    return torch.backends.cudnn.enabled and (training or not torch.is_grad_enabled())


class RecurrentClassifier(TextClassifier):
    """A model of recurrent layers, with their options."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Options of the model."""
        TextClassifier.add_args(parser)
        parser.add_argument(
            "--encoder-hidden-size", type=int, metavar="D", help="of each direction (128)"
        )
        parser.add_argument(
            "--encoder-layers", type=int, metavar="N", help="with --dropout between them (1)"
        )

    @classmethod
    def build_model(cls, args: Any, task: Any) -> TextClassifier:
        """The model with fresh weights."""
        check_sizes(args, "encoder_hidden_size", "encoder_layers")
        return super().build_model(args, task)
