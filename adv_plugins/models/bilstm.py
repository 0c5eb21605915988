"""``bilstm``: a bidirectional LSTM over the words."""

from argparse import ArgumentParser
from typing import Any

from fairseq.models import register_model, register_model_architecture
from torch import Tensor, nn

from adv_plugins.models.recurrent import Recurrent, RecurrentClassifier
from adv_plugins.models.text_classifier import Body, common_sizes, default

POOLINGS = ("final", "max", "mean")


class BiLstmBody(Body):
    r"""Both directions' final states, or what is pooled of all words' states.

    .. math:: h = [\overrightarrow{LSTM}(x_1, \dots, x_n);\ \overleftarrow{LSTM}(x_n, \dots, x_1)]
    """

    def __init__(self, args: Any, dictionary: Any) -> None:
        super().__init__(args, dictionary)
        self.recurrent = Recurrent(
            nn.LSTM, args.encoder_embed_dim, args.encoder_hidden_size, args.encoder_layers, args.dropout
        )
        self.width, self.pooling = 2 * args.encoder_hidden_size, args.pooling

    def pooled(self, words: Tensor, real: Tensor) -> Tensor:
        """See the class."""
        states, final = self.recurrent(words, real)
        if self.pooling == "final":
            return final
        padding = ~real[..., None]
        if self.pooling == "max":
            return states.masked_fill(padding, float("-inf")).amax(dim=1)
        return states.masked_fill(padding, 0.0).sum(dim=1) / real.sum(dim=1, keepdim=True).clamp(min=1)


@register_model("bilstm")
class BiLstmModel(RecurrentClassifier):
    """R-AT's BiLSTM; the module's and ``text_classifier``'s docstrings say more."""

    BODY = BiLstmBody

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Options of the model."""
        RecurrentClassifier.add_args(parser)
        parser.add_argument(
            "--pooling",
            choices=POOLINGS,
            help="a sentence's features: the directions' final states (default), or the maximum or "
            "mean of all words'",
        )


@register_model_architecture("bilstm", "bilstm")
def bilstm(args: Any) -> None:
    """One layer of 128 in each direction."""
    common_sizes(args)
    default(args, encoder_hidden_size=128, encoder_layers=1, pooling="final")
