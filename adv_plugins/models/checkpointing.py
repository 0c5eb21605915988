"""``--checkpoint-activations`` for RoBERTa and its like.

fairseq 0.12.2 implements it in the encoder that RoBERTa is built of, but only its translation models
have the flag (RoBERTa's help text speaks of it all the same).
"""

from typing import Any

from fairseq.models.roberta import RobertaModel


def add_flag() -> None:
    """Give RoBERTa, and every model that inherits its options, the flag."""
    stock = RobertaModel.add_args
    if hasattr(stock, "with_checkpointing"):
        return

    def add_args(parser: Any) -> None:
        stock(parser)
        parser.add_argument(
            "--checkpoint-activations",
            action="store_true",
            help="compute each layer's activations again in the backward: less memory, more time",
        )

    add_args.with_checkpointing = True  # type: ignore[attr-defined]
    RobertaModel.add_args = staticmethod(add_args)
