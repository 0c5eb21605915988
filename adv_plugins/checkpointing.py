"""``--checkpoint-activations``: layers whose activations are computed again in the backward.

fairseq 0.12.2 implements it in the encoder that RoBERTa is built of, but only its translation models
have the flag (RoBERTa's help text speaks of it all the same). A checkpointed layer is computed again
when the context managers of its pass have ended: what they changed inside a layer has to be part of
what that layer computes.
"""

from functools import partial
from typing import Any, Callable

from fairseq.models.roberta import RobertaModel
from torch import nn


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


def is_checkpointed(module: nn.Module) -> bool:
    """Whether fairseq's ``checkpoint_wrapper`` is on this module."""
    return hasattr(module, "precheckpoint_forward")


def recomputes_activations(model: nn.Module) -> bool:
    """Whether any module of ``model`` is checkpointed."""
    return any(is_checkpointed(module) for module in model.modules())


def plain_forward(module: nn.Module) -> Callable[..., Any]:
    """What the module computes, and computes again if it is checkpointed."""
    return module.precheckpoint_forward if is_checkpointed(module) else module.forward


def computing(module: nn.Module, function: Callable[..., Any]) -> Callable[..., Any]:
    """A forward for the module that computes ``function``, and computes it again if it is checkpointed.

    Args:
        function: returns a tensor or a tuple of tensors.
    """
    if not is_checkpointed(module):
        return function
    # checkpoint_wrapper made the forward a partial of what it computes and computes again.
    wrapped: Any = module.forward
    return partial(wrapped.func, function, *wrapped.args[1:])
