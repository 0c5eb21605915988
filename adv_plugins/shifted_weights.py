"""Passes of a model whose weights are others, without touching the weights.

The passes compute with W + v in the place of W; what they are differentiated for is W. Leaving the
context, also by an exception, is all that restoring takes.
"""

import contextlib
import warnings
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

from torch import Tensor, nn

from adv_plugins.checkpointing import computing, plain_forward
from adv_plugins.divergence import full_precision
from adv_plugins.fork import body, encoder_layers
from adv_plugins.perturbation import replaced_forward

# A weight of a layer: the module that has it, and its name there.
Place = Tuple[nn.Module, str]


def layers_of(model: nn.Module) -> List[nn.Module]:
    """What lies between a model's embeddings and its heads: the Transformer layers, or of a model that
    has none every module with weights of its own (recurrent layers, convolutions, linear maps).

    Raises:
        UserError: the model has no such part.
    """
    below = body(model)
    if below is None or hasattr(below, "layers"):
        return list(encoder_layers(model))
    parts = [
        module
        for module in below.modules()
        if not isinstance(module, nn.Embedding) and any(True for _ in module.parameters(recurse=False))
    ]
    return parts or list(encoder_layers(model))


def matrices(layer: nn.Module) -> List[Place]:
    """The weight matrices within a layer that are trained."""
    return [
        (module, name)
        for module in layer.modules()
        for name, weight in module._parameters.items()
        if weight is not None and weight.dim() > 1 and weight.requires_grad
    ]


@contextlib.contextmanager
def shifted(layers: Sequence[nn.Module], shifts: Dict[nn.Parameter, Tensor]) -> Iterator[None]:
    """Within the context these layers compute with shifted weights.

    It works with ``--checkpoint-activations``, also when the backward runs after the context.

    Args:
        shifts: v of each weight to shift, in its shape, at least float32.
    """
    with contextlib.ExitStack() as stack:
        for layer in layers:
            places = [each for each in matrices(layer) if each[0]._parameters[each[1]] in shifts]
            forward = computing(layer, _shifted_forward(layer, places, shifts))
            stack.enter_context(replaced_forward(layer, forward))
        yield


def _shifted_forward(
    layer: nn.Module, places: List[Place], shifts: Dict[nn.Parameter, Tensor]
) -> Callable[..., Any]:
    plain = plain_forward(layer)

    def forward(*args: Any, **kwargs: Any) -> Any:
        with _weights_shifted(places, shifts):
            return plain(*args, **kwargs)

    return forward


@contextlib.contextmanager
def _weights_shifted(places: List[Place], shifts: Dict[nn.Parameter, Tensor]) -> Iterator[None]:
    weights: List[Any] = [module._parameters[name] for module, name in places]
    recurrent = {module: None for module, _ in places if isinstance(module, nn.RNNBase)}
    try:
        for (module, name), weight in zip(places, weights):
            value = (full_precision(weight) + shifts[weight]).to(weight.dtype)
            module._parameters[name] = value
        with _without_one_chunk() if recurrent else contextlib.nullcontext():
            for module in recurrent:
                _list_weights(module)
            yield
    finally:
        for (module, name), weight in zip(places, weights):
            module._parameters[name] = weight
        for module in recurrent:
            _list_weights(module)


def _list_weights(module: nn.RNNBase) -> None:
    """torch's recurrent layers compute with a list of their weights, made when these are set."""
    module._flat_weights = [module._parameters[name] for name in module._flat_weights_names]


@contextlib.contextmanager
def _without_one_chunk() -> Iterator[None]:
    """cuDNN wants a layer's weights side by side in memory; shifted ones are copied there, and torch
    warns of it at every call."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not part of single contiguous chunk")
        yield
