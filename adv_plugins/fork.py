"""Two passes that differ only from some layer on: what lies below is computed once.

:func:`forked` computes them as one, whose batch is doubled there: from the fork on its first half is
the clean pass and its second half the noisy one. :func:`resumed` starts a pass of its own there, from
the hidden states that :func:`hidden_states` caught. Only hooks: no model code is copied.
"""

import contextlib
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

import torch
from torch import Tensor, nn

from adv_plugins.perturbation import replaced_forward
from fairseq_compat.errors import UserError

# Positional and named arguments.
Call = Tuple[Tuple[Any, ...], Dict[str, Any]]


def body(model: nn.Module) -> Any:
    """What a RoBERTa-like fairseq model does below its heads; None if it has no such part."""
    return getattr(getattr(model, "encoder", None), "sentence_encoder", None)


def encoder_layers(model: nn.Module) -> nn.ModuleList:
    """The Transformer layers of a RoBERTa-like fairseq model.

    Raises:
        UserError: the model has no such layers.
    """
    layers = getattr(body(model), "layers", None)
    if layers is None:
        raise UserError(
            f"the model {type(model).__name__} has no Transformer layers (encoder.sentence_encoder."
            "layers), which this method needs: choose a RoBERTa-like --arch"
        )
    return layers


@contextlib.contextmanager
def forked(
    model: nn.Module, *, layer: int, noise: Callable[[Tensor, int], Tensor]
) -> Iterator[List[Tensor]]:
    """Within the context ``model`` returns its clean outputs and the noisy ones are collected.

    Args:
        model: a RoBERTa-like model, unwrapped.
        layer: the fork is at the output of this Transformer layer, 1-based; 0 is the output of the
            embedding layer.
        noise: called as ``noise(h, call)`` with the hidden states h (T, B, d) at the fork and the
            number of the model's call in this context; returns what to add to h in the noisy half.

    Yields:
        a list that gets the noisy half of the model's first output, one entry a call.

    Raises:
        UserError: the model has no Transformer layers.
    """
    layers = encoder_layers(model)
    noisy_outputs: List[Tensor] = []
    handles = []

    def double(hidden: Tensor) -> Tensor:
        return torch.cat([hidden, hidden + noise(hidden, len(noisy_outputs))], dim=1)

    def double_input(_module: nn.Module, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
        return (double(args[0]), *args[1:]), kwargs

    def double_output(_module: nn.Module, _args: Tuple[Any, ...], output: Tensor) -> Tensor:
        return double(output)

    def double_padding(_module: nn.Module, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
        mask = kwargs.get("encoder_padding_mask")
        if mask is not None:
            kwargs = {**kwargs, "encoder_padding_mask": torch.cat([mask, mask])}
        return args, kwargs

    def double_masked_tokens(_module: nn.Module, args: Tuple[Any, ...]) -> Any:
        features, *masked = args
        if masked and masked[0] is not None:
            masked = [torch.cat([masked[0], masked[0]])]
        return (features, *masked)

    def split_output(_module: nn.Module, _args: Tuple[Any, ...], output: Tuple[Any, ...]) -> Any:
        clean, noisy = output[0].chunk(2)
        noisy_outputs.append(noisy)
        return (clean, *output[1:])

    try:
        if layer == 0:
            handles.append(layers[0].register_forward_pre_hook(double_input, with_kwargs=True))
        else:
            handles.append(layers[layer - 1].register_forward_hook(double_output))
        for later in layers[layer:]:
            handles.append(later.register_forward_pre_hook(double_padding, with_kwargs=True))
        head = getattr(model.encoder, "lm_head", None)
        if head is not None:
            handles.append(head.register_forward_pre_hook(double_masked_tokens))
        handles.append(model.register_forward_hook(split_output))
        yield noisy_outputs
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def hidden_states(model: nn.Module, *, layer: int) -> Iterator[List[Tensor]]:
    """The (T, B, d) hidden states at the output of this layer (0: embeddings), one entry a call."""
    layers = encoder_layers(model)
    states: List[Tensor] = []

    def keep_input(_module: nn.Module, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
        states.append(args[0])

    def keep_output(_module: nn.Module, _args: Tuple[Any, ...], output: Tensor) -> None:
        states.append(output)

    if layer == 0:
        handle = layers[0].register_forward_pre_hook(keep_input, with_kwargs=True)
    else:
        handle = layers[layer - 1].register_forward_hook(keep_output)
    try:
        yield states
    finally:
        handle.remove()


@contextlib.contextmanager
def resumed(model: nn.Module, *, layer: int, states: Sequence[Tensor]) -> Iterator[None]:
    """Within the context the i-th call of ``model`` goes on from ``states[i]`` (T, B, d) at the output
    of this layer (0: embeddings); the layers up to it do nothing."""
    layers = encoder_layers(model)
    remaining = list(states)

    def resume(_module: nn.Module, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
        return (remaining.pop(0), *args[1:]), kwargs

    # The states enter below all layers and pass through those that do nothing.
    handle = layers[0].register_forward_pre_hook(resume, with_kwargs=True)
    try:
        with contextlib.ExitStack() as stack:
            for each in layers[:layer]:
                stack.enter_context(replaced_forward(each, skip))
            yield
    finally:
        handle.remove()


def skip(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """What a layer computes that does nothing."""
    return hidden


@contextlib.contextmanager
def called(model: nn.Module) -> Iterator[List[Call]]:
    """The arguments of every call of ``model``."""
    calls: List[Call] = []

    def keep(_module: nn.Module, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
        calls.append((args, kwargs))

    handle = model.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def states_up_to(model: nn.Module, calls: Sequence[Call], *, layer: int) -> List[Tensor]:
    """The (T, B, d) hidden states at the output of this layer in calls like these of a RoBERTa-like
    model; no layer above it and no head is computed."""
    with contextlib.ExitStack() as stack:
        for each in encoder_layers(model)[layer:]:
            stack.enter_context(replaced_forward(each, skip))
        states = stack.enter_context(hidden_states(model, layer=layer))
        for args, kwargs in calls:
            model(*args, **{**kwargs, "features_only": True, "classification_head_name": None})
    return states
