"""Two passes that differ only from some layer on, computed as one: the batch is doubled there.

Below the fork the two passes are the same and are computed once; from it on the first half of the
batch is the clean pass and the second half the noisy one. Only hooks: no model code is copied.
"""

import contextlib
from typing import Any, Callable, Dict, Iterator, List, Tuple

import torch
from torch import Tensor, nn


def encoder_layers(model: nn.Module) -> nn.ModuleList:
    """The Transformer layers of a RoBERTa-like fairseq model.

    Raises:
        ValueError: the model has no such layers.
    """
    encoder = getattr(model, "encoder", None)
    layers = getattr(getattr(encoder, "sentence_encoder", None), "layers", None)
    if layers is None:
        raise ValueError(
            f"the model {type(model).__name__} has no Transformer layers (encoder.sentence_encoder."
            "layers) to add noise to: choose a RoBERTa-like --arch"
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
        ValueError: the model has no Transformer layers.
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
