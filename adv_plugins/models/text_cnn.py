"""``text_cnn``: convolutions over the words and the maximum over time (Kim, EMNLP 2014)."""

from argparse import ArgumentParser
from typing import Any, List

import torch
import torch.nn.functional as F
from fairseq.models import register_model, register_model_architecture
from torch import Tensor, nn

from adv_plugins.models.text_classifier import (
    Body,
    TextClassifier,
    check_sizes,
    common_sizes,
    default,
)
from fairseq_compat.errors import UserError


class TextCnnBody(Body):
    r"""Each feature map's largest value.

    .. math:: c_{k,t} = \mathrm{relu}(W_k\, x_{t:t+k-1} + b_k), \qquad
        h = [\max_t c_{k,t}]_k

    (Eq. 2 to 4), over the windows of k words that lie within the sentence; one of fewer words than k is
    a window with zeros behind it.
    """

    def __init__(self, args: Any, dictionary: Any) -> None:
        super().__init__(args, dictionary)
        sizes = kernel_sizes(args.kernel_sizes)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(args.encoder_embed_dim, args.kernel_maps, size) for size in sizes
        )
        self.widest, self.width = max(sizes), args.kernel_maps * len(sizes)

    def pooled(self, words: Tensor, real: Tensor) -> Tensor:
        """See the class."""
        words = words.masked_fill(~real[..., None], 0.0).transpose(1, 2)
        words = F.pad(words, (0, max(0, self.widest - words.size(2))))
        lengths = real.sum(dim=1)
        found = []
        for convolution in self.convolutions:
            values = convolution(words)
            last = (lengths - convolution.kernel_size[0]).clamp(min=0)  # the last window's place
            places = torch.arange(values.size(2), device=values.device)
            outside = places[None, :] > last[:, None]
            found.append(values.masked_fill(outside[:, None, :], float("-inf")).amax(dim=2))
        return F.relu(torch.cat(found, dim=1))  # of the largest is the largest of relu's


def kernel_sizes(text: str) -> List[int]:
    """The numbers of ``--kernel-sizes``.

    Raises:
        UserError: it is no list of numbers above 0.
    """
    pieces = text.split(",")
    if not all(piece.isdecimal() and int(piece) > 0 for piece in pieces):
        raise UserError(f"--kernel-sizes {text}: numbers of words, such as 3,4,5")
    return [int(piece) for piece in pieces]


@register_model("text_cnn")
class TextCnnModel(TextClassifier):
    """R-AT's TextCNN; the module's and ``text_classifier``'s docstrings say more."""

    BODY = TextCnnBody

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Options of the model."""
        TextClassifier.add_args(parser)
        parser.add_argument("--kernel-sizes", metavar="K,K", help="words in a window (3,4,5)")
        parser.add_argument("--kernel-maps", type=int, metavar="N", help="for each of these (100)")

    @classmethod
    def build_model(cls, args: Any, task: Any) -> TextClassifier:
        """The model with fresh weights."""
        check_sizes(args, "kernel_maps")
        return super().build_model(args, task)


@register_model_architecture("text_cnn", "text_cnn")
def text_cnn(args: Any) -> None:
    """Kim's sizes."""
    common_sizes(args)
    default(args, kernel_sizes="3,4,5", kernel_maps=100)
