"""``bert_like``: a RoBERTa with what BERT has beside it, for the weights of BERT-like models.

- The epsilon of every layer norm. In fairseq's RoBERTa it is torch's 1e-5; BERT's is 1e-12, and its
  hidden states differ in the third digit with the wrong one.
- ``--segments 2``: an embedding of the sentence, first or second, that a token belongs to. Without it
  (0, and in checkpoints made before it existed) the model is what it was, bit for bit.
- A pretrained pooler: where a checkpoint has one, the hidden layer of a fresh classification or
  ranking head begins as it. fairseq's head is the pooler and the classifier in one: dense, tanh,
  dropout, linear; only its ``--pooler-dropout`` also acts on the first token's state before the dense
  layer, where BERT has none.
"""

import contextlib
import logging
from typing import Any, Dict, Iterator, Optional

from fairseq.models import register_model, register_model_architecture
from fairseq.models.roberta import RobertaModel, base_architecture
from fairseq.modules import LearnedPositionalEmbedding
from torch import Tensor, nn

from adv_plugins.models.asa_roberta import AsaRobertaModel
from fairseq_compat.errors import UserError

logger = logging.getLogger(__name__)

# What a converted checkpoint calls the pooler's weights. No module has this name: they go into heads.
POOLER = "pooler.dense."


def segment_ids(tokens: Tensor, end: int) -> Tensor:
    """The segment of each of the (B, T) tokens: 0 up to the first ``</s>``, and 1 behind it.

    So it is BERT's for one sentence and for a pair, however many ``</s>`` are between the two: fairseq's
    tasks write ``<s> A </s> B </s>``. Padding counts as what is before it; it has no hidden state.
    """
    ends = tokens.eq(end).long()
    return (ends.cumsum(dim=1) - ends).clamp(max=1)


class PositionsAndSegments(LearnedPositionalEmbedding):
    """The (B, T, d) sum of each token's position embedding and the embedding of its segment.

    One module, since fairseq's encoder adds two things before its layer norm, words and positions.
    """

    def __init__(self, positions: LearnedPositionalEmbedding, segments: int, end: int) -> None:
        super().__init__(positions.num_embeddings, positions.embedding_dim, positions.padding_idx)
        self.segments = nn.Embedding(segments, positions.embedding_dim)
        self.end = end
        self.running_text = False

    @contextlib.contextmanager
    def reading(self, *, running_text: bool) -> Iterator[None]:
        """Within the context all tokens are of segment 0 if they are running text."""
        before, self.running_text = self.running_text, running_text
        try:
            yield
        finally:
            self.running_text = before

    def forward(self, tokens: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """See the class."""
        segments = segment_ids(tokens, self.end)
        if self.running_text:
            segments = segments * 0
        return super().forward(tokens, *args, **kwargs) + self.segments(segments)


class BertParts:
    """Makes a RoBERTa a BERT; see the module's docstring."""

    @staticmethod
    def add_args(parser: Any) -> None:
        """RoBERTa's options and BERT's."""
        RobertaModel.add_args(parser)
        parser.add_argument(
            "--layer-norm-epsilon",
            type=float,
            help="added to the variance by every layer norm (1e-12, as BERT's)",
        )
        parser.add_argument(
            "--segments",
            type=int,
            metavar="N",
            help="rows of a segment embedding: 2, as BERT's, or 0 for none (0)",
        )

    def __init__(self, args: Any, encoder: Any) -> None:
        segments = getattr(args, "segments", 0) or 0  # older checkpoints say nothing of it
        if segments not in (0, *range(2, 17)):
            raise UserError(f"--segments {segments}: 2 for BERT's two sentences, or 0 for none")
        if segments:
            inner = encoder.sentence_encoder
            inner.embed_positions = PositionsAndSegments(
                inner.embed_positions, segments, encoder.dictionary.eos()
            )
        super().__init__(args, encoder)  # type: ignore[call-arg]
        for module in encoder.modules():
            # apex's fused layer norm, which fairseq takes where it is installed, is no nn.LayerNorm
            if isinstance(module, nn.LayerNorm) or type(module).__name__ == "FusedLayerNorm":
                module.eps = args.layer_norm_epsilon

    def forward(
        self, src_tokens: Tensor, *args: Any, masked_tokens: Optional[Tensor] = None, **kwargs: Any
    ) -> Any:
        """RoBERTa's, on the segments that the tokens tell.

        ``masked_tokens`` come from the masked-LM criterion alone. Its blocks of running text are one
        segment, whatever number of sentences they have: a ``</s>`` parts no pair there.
        """
        with contextlib.ExitStack() as stack:
            positions = self.encoder.sentence_encoder.embed_positions  # type: ignore[attr-defined]
            if isinstance(positions, PositionsAndSegments):
                stack.enter_context(positions.reading(running_text=masked_tokens is not None))
            return super().forward(  # type: ignore[misc]
                src_tokens, *args, masked_tokens=masked_tokens, **kwargs
            )

    def upgrade_state_dict_named(self, state_dict: Dict[str, Tensor], name: str) -> None:
        """Begin the heads that the checkpoint does not have with its pooler, if it has one."""
        prefix = f"{name}." if name else ""
        pooler = {part: state_dict.pop(f"{prefix}{POOLER}{part}", None) for part in ("weight", "bias")}
        heads = {
            head: f"{prefix}classification_heads.{head}."
            for head in self.classification_heads  # type: ignore[attr-defined]
        }
        fresh = [
            head for head, start in heads.items() if not any(key.startswith(start) for key in state_dict)
        ]
        super().upgrade_state_dict_named(state_dict, name)  # type: ignore[misc]
        for head in fresh:
            # Token heads have no such layer; an inner dimension of one's own fits no pooler.
            now = {part: state_dict.get(f"{heads[head]}dense.{part}") for part in pooler}
            if all(
                value is not None and here is not None and value.shape == here.shape
                for value, here in zip(pooler.values(), now.values())
            ):
                state_dict.update({f"{heads[head]}dense.{part}": pooler[part] for part in pooler})
                logger.info("the hidden layer of %s begins as the checkpoint's pooler", head)


@register_model("bert_like")
class BertModel(BertParts, RobertaModel):
    """A BERT-like encoder; see the module's docstring."""


@register_model("asa_bert_like")
class AsaBertModel(BertParts, AsaRobertaModel):
    """The same with ASA's adversaries."""


def bert_architecture(args: Any) -> None:
    """BERT-base's sizes where no flag says otherwise."""
    if getattr(args, "layer_norm_epsilon", None) is None:
        args.layer_norm_epsilon = 1e-12
    if getattr(args, "segments", None) is None:
        args.segments = 0
    base_architecture(args)


for _model in ("bert_like", "asa_bert_like"):
    register_model_architecture(_model, _model)(bert_architecture)
