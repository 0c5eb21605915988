"""``bert_like``: a RoBERTa with BERT's layer-norm epsilon, for the weights of BERT-like models.

In fairseq's RoBERTa the epsilon is torch's 1e-5; BERT's is 1e-12, and its hidden states differ in
the third digit with the wrong one. BERT's segment embedding is no part of it: the conversion
(``scripts/convert_from_hf.py``) folds that of segment 0 into the positions.
"""

from typing import Any

from fairseq.models import register_model, register_model_architecture
from fairseq.models.roberta import RobertaModel, base_architecture
from torch import nn

from adv_plugins.models.asa_roberta import AsaRobertaModel


class LayerNormEpsilon:
    """Gives every layer norm of a RoBERTa the epsilon of ``--layer-norm-epsilon``."""

    @staticmethod
    def add_args(parser: Any) -> None:
        """RoBERTa's options and the epsilon."""
        RobertaModel.add_args(parser)
        parser.add_argument(
            "--layer-norm-epsilon",
            type=float,
            help="added to the variance by every layer norm (1e-12, as BERT's)",
        )

    def __init__(self, args: Any, encoder: Any) -> None:
        super().__init__(args, encoder)  # type: ignore[call-arg]
        for module in encoder.modules():
            # apex's fused layer norm, which fairseq takes where it is installed, is no nn.LayerNorm
            if isinstance(module, nn.LayerNorm) or type(module).__name__ == "FusedLayerNorm":
                module.eps = args.layer_norm_epsilon


@register_model("bert_like")
class BertModel(LayerNormEpsilon, RobertaModel):
    """A BERT-like encoder; see the module's docstring."""


@register_model("asa_bert_like")
class AsaBertModel(LayerNormEpsilon, AsaRobertaModel):
    """The same with ASA's adversaries."""


def bert_architecture(args: Any) -> None:
    """BERT-base's sizes where no flag says otherwise."""
    if getattr(args, "layer_norm_epsilon", None) is None:
        args.layer_norm_epsilon = 1e-12
    base_architecture(args)


for _model in ("bert_like", "asa_bert_like"):
    register_model_architecture(_model, _model)(bert_architecture)
