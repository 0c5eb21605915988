"""Text classifiers that are trained from scratch: what ``bilstm``, ``text_cnn`` and ``text_han`` share.

They are R-AT's models "without pre-training" (its Tables 3, 4, 8 and Figures 2, 3, 5), for fairseq's
``sentence_prediction``. Each is a body, which makes one vector of a sentence's word embeddings, below
heads of dropout and one linear layer. The parts have RoBERTa's names (``encoder.sentence_encoder.
embed_tokens``, ``classification_heads``), so whatever finds them there finds them here.

The paper gives the dropout, 0.5, and no sizes. They are the usual ones: words of 300 dimensions, as wide
as GloVe's and word2vec's vectors, which start as Kim's, uniform in [-0.25, 0.25]; the rest stands with
each model.
"""

import logging
from argparse import ArgumentParser
from typing import Any, Dict, Type

import torch
from fairseq.models import BaseFairseqModel, FairseqEncoder
from fairseq.modules.fairseq_dropout import FairseqDropout
from torch import Tensor, nn

from adv_plugins.models.word_vectors import read_word_vectors
from fairseq_compat.errors import UserError

logger = logging.getLogger(__name__)

WIDEST_START = 0.25  # of a word's random vector (Kim 2014, section 3.1)


class Body(nn.Module):
    """From (B, T) token ids to (B, ``width``) features; what a model defines is :meth:`pooled`.

    Padding is on the right, as fairseq's task pads, and never counts.
    """

    width: int

    def __init__(self, args: Any, dictionary: Any) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(len(dictionary), args.encoder_embed_dim, dictionary.pad())
        nn.init.uniform_(self.embed_tokens.weight, -WIDEST_START, WIDEST_START)
        nn.init.zeros_(self.embed_tokens.weight[dictionary.pad()])
        self.dropout_module = FairseqDropout(args.embedding_dropout, type(self).__name__)

    def forward(self, tokens: Tensor, **unused: Any) -> Tensor:
        """Features of the sentences."""
        real = tokens.ne(self.embed_tokens.padding_idx)
        return self.pooled(self.dropout_module(self.embed_tokens(tokens)), real)

    def pooled(self, words: Tensor, real: Tensor) -> Tensor:
        """(B, width) of the (B, T, d) word embeddings; real (B, T) is False at padding."""
        raise NotImplementedError


class _Encoder(FairseqEncoder):
    """Gives the body its place in the tree of modules."""

    def __init__(self, body: Body, dictionary: Any) -> None:
        super().__init__(dictionary)
        self.sentence_encoder = body

    def forward(self, src_tokens: Tensor, **unused: Any) -> Tensor:
        features: Tensor = self.sentence_encoder(src_tokens)
        return features


class Head(nn.Module):
    """Dropout and one linear layer (Kim 2014, section 2.1)."""

    def __init__(self, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout_module = FairseqDropout(dropout, type(self).__name__)
        self.out_proj = nn.Linear(width, num_classes)

    def forward(self, features: Tensor, **unused: Any) -> Tensor:
        """(B, C) logits of (B, width) features."""
        logits: Tensor = self.out_proj(self.dropout_module(features))
        return logits


class TextClassifier(BaseFairseqModel):
    """A body, and heads by their names.

    Raises:
        UserError: a size or a rate that is none, or word vectors that do not fit.
    """

    BODY: Type[Body]

    def __init__(self, args: Any, encoder: _Encoder) -> None:
        super().__init__()
        self.args, self.encoder = args, encoder
        self.classification_heads = nn.ModuleDict()

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """The options that all have; their defaults are the architecture's."""
        parser.add_argument("--encoder-embed-dim", type=int, metavar="D", help="of a word (300)")
        parser.add_argument(
            "--dropout", type=float, metavar="P", help="of the sentence's features (0.5)"
        )
        parser.add_argument(
            "--embedding-dropout", type=float, metavar="P", help="of the word embeddings (0)"
        )
        parser.add_argument(
            "--pretrained-embedding",
            metavar="FILE",
            help="GloVe's or fastText's text file, a word and its numbers a line, to start from; the "
            "words that it does not have start at random, and their number is logged",
        )

    @classmethod
    def build_model(cls, args: Any, task: Any) -> "TextClassifier":
        """The model with fresh weights."""
        check_sizes(args, "encoder_embed_dim")
        check_rates(args, "dropout", "embedding_dropout")
        body = cls.BODY(args, task.source_dictionary)
        if getattr(args, "pretrained_embedding", None):
            table = body.embed_tokens.weight
            with torch.no_grad():
                read_word_vectors(args.pretrained_embedding, task.source_dictionary, table)
        return cls(args, _Encoder(body, task.source_dictionary))

    def register_classification_head(
        self, name: str, num_classes: int, inner_dim: Any = None, **unused: Any
    ) -> None:
        """Give the model a head; it has no hidden layer, so ``inner_dim`` means nothing."""
        width = self.encoder.sentence_encoder.width
        self.classification_heads[name] = Head(width, num_classes, self.args.dropout)

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Any = None,
        features_only: bool = False,
        classification_head_name: Any = None,
        **unused: Any,
    ) -> Any:
        """The (B, C) logits of a head, or without one the (B, width) features; and None."""
        features = self.encoder(src_tokens)
        if classification_head_name is None:
            return features, None
        return self.classification_heads[classification_head_name](features), None

    def max_positions(self) -> Any:
        """The task's, to which it cuts examples; the model has no limit of its own."""
        return getattr(self.args, "max_positions", None)

    def upgrade_state_dict_named(self, state_dict: Dict[str, Tensor], name: str) -> None:
        """As fairseq's RoBERTa: a head that the checkpoint does not have, or has for other classes,
        starts fresh; one that this model does not have is left out."""
        super().upgrade_state_dict_named(state_dict, name)
        start = (f"{name}." if name else "") + "classification_heads."
        own = {start + key: value for key, value in self.classification_heads.state_dict().items()}
        for key in [each for each in state_dict if each.startswith(start)]:
            if key not in own or own[key].shape != state_dict[key].shape:
                logger.warning("%s of the checkpoint is left out: the model has none like it", key)
                del state_dict[key]
        for key, value in own.items():
            if key not in state_dict:
                logger.info("%s starts fresh", key)
                state_dict[key] = value


def default(args: Any, **values: Any) -> None:
    """Set what no flag has set."""
    for name, value in values.items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)


def common_sizes(args: Any) -> None:
    """What all three architectures have in common."""
    default(args, encoder_embed_dim=300, dropout=0.5, embedding_dropout=0.0)


def check_sizes(args: Any, *names: str) -> None:
    """Raise UserError for a size below 1."""
    for name in names:
        if not getattr(args, name) >= 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: 1 or more")


def check_rates(args: Any, *names: str) -> None:
    """Raise UserError for a dropout rate outside of [0, 1)."""
    for name in names:
        if not 0 <= getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: at least 0, below 1")
