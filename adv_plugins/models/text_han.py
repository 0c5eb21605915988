"""``text_han``: a bidirectional GRU with attention over the words (Yang et al., NAACL 2016).

R-AT calls its TextHAN "BiGRU + Attention": it is the word level of Yang et al.'s hierarchy, over the
whole text; a second level over sentences would need their borders.
"""

from typing import Any

import torch
from fairseq.models import register_model, register_model_architecture
from torch import Tensor, nn

from adv_plugins.divergence import full_precision
from adv_plugins.models.recurrent import Recurrent, RecurrentClassifier
from adv_plugins.models.text_classifier import Body, common_sizes, default


class TextHanBody(Body):
    r"""The attended mean of all words' states.

    .. math:: u_t = \tanh(W h_t + b), \qquad \alpha = \mathrm{softmax}_t(u_t^\top u_w), \qquad
        s = \sum_t \alpha_t h_t

    (Eq. 5 to 7), with the words' context vector u_w.
    """

    def __init__(self, args: Any, dictionary: Any) -> None:
        super().__init__(args, dictionary)
        self.recurrent = Recurrent(
            nn.GRU, args.encoder_embed_dim, args.encoder_hidden_size, args.encoder_layers, args.dropout
        )
        self.width = 2 * args.encoder_hidden_size
        self.attention = nn.Linear(self.width, self.width)
        self.context = nn.Linear(self.width, 1, bias=False)  # softmax would not see a bias

    def pooled(self, words: Tensor, real: Tensor) -> Tensor:
        """See the class."""
        states, _ = self.recurrent(words, real)
        scores = full_precision(self.context(torch.tanh(self.attention(states))))
        real = real | ~real.any(dim=1, keepdim=True)  # a row of padding alone attends to all of it
        weights = scores.masked_fill(~real[..., None], float("-inf")).softmax(dim=1)
        return (weights.to(states.dtype) * states).sum(dim=1)


@register_model("text_han")
class TextHanModel(RecurrentClassifier):
    """R-AT's TextHAN; the module's and ``text_classifier``'s docstrings say more."""

    BODY = TextHanBody


@register_model_architecture("text_han", "text_han")
def text_han(args: Any) -> None:
    """One layer of 128 in each direction, as ``bilstm`` (Yang et al.: 50)."""
    common_sizes(args)
    default(args, encoder_hidden_size=128, encoder_layers=1)
