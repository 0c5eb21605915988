"""Leaves out the parameters that fairseq 0.12.2 gives to encoder layers that cannot use them.

Every `TransformerEncoderLayerBase` holds a second copy of all its matrices for torch's fused
evaluation path. RoBERTa's gelu keeps its layers off that path for good, so the copy is only weight:
in each checkpoint, in the fp32 master copy and both Adam moments of `--fp16`, in every reduction of
gradients, where its missing gradients also make the default DDP back end fail. Later versions of
fairseq do without it.

`remove()` makes such layers drop the copy as they are built. Nothing else changes: the random
numbers drawn, the outputs, and, in both directions, which checkpoints can be loaded. Layers that
can take the fused path (relu) keep it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.modules.transformer_layer import TransformerEncoderLayerBase
from fairseq.trainer import Trainer

from adv_plugins.wrapped_methods import wrap_method

# in the order in which the layer registers them, which is their order in an optimizer's state
NAMES = (
    "in_proj_weight",
    "in_proj_bias",
    "out_proj_weight",
    "out_proj_bias",
    "fc1_weight",
    "fc1_bias",
    "fc2_weight",
    "fc2_bias",
)


def remove() -> None:
    """Wrap fairseq's layer and trainer, once; `__wrapped__` of each method is the original."""
    wrap_method(TransformerEncoderLayerBase, "__init__", build_lean)
    wrap_method(TransformerEncoderLayerBase, "_load_from_state_dict", load_into_lean)
    wrap_method(Trainer, "load_checkpoint", resume_lean)


def is_lean(module: torch.nn.Module) -> bool:
    return isinstance(module, TransformerEncoderLayerBase) and not hasattr(module, NAMES[0])


def build_lean(original: Callable[..., None]) -> Callable[..., None]:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if not self.can_use_fastpath:
            for name in NAMES:
                delattr(self, name)

    return __init__


def load_into_lean(original: Callable[..., None]) -> Callable[..., None]:
    """The stock method fills in the copy, which a strict load of a lean layer would refuse."""

    def _load_from_state_dict(self: Any, state_dict: Any, prefix: str, *args: Any) -> None:
        if not is_lean(self):
            return original(self, state_dict, prefix, *args)
        for name in NAMES:  # this dict is load_state_dict's own copy
            state_dict.pop(prefix + name, None)
        parent: Any = super(TransformerEncoderLayerBase, self)
        return parent._load_from_state_dict(state_dict, prefix, *args)

    return _load_from_state_dict


def resume_lean(original: Callable[..., Any]) -> Callable[..., Any]:
    """Have the trainer read checkpoints of stock fairseq as if a lean model had saved them."""

    def load_checkpoint(self: Any, *args: Any, **kwargs: Any) -> Any:
        read = checkpoint_utils.load_checkpoint_to_cpu

        def read_lean(*args: Any, **kwargs: Any) -> dict[str, Any]:
            state = read(*args, **kwargs)
            drop_from_checkpoint(state, self.get_model(), self.get_criterion())
            return state

        checkpoint_utils.load_checkpoint_to_cpu = read_lean
        try:
            return original(self, *args, **kwargs)
        finally:
            checkpoint_utils.load_checkpoint_to_cpu = read

    return load_checkpoint


def drop_from_checkpoint(
    state: dict[str, Any], model: torch.nn.Module, criterion: torch.nn.Module
) -> None:
    """Take the dead weights out of a checkpoint's model and optimizer state."""
    saved = state["model"]
    layers = [f"{name}." for name, module in model.named_modules() if is_lean(module)]
    dead = {layer + name for layer in layers for name in NAMES} & saved.keys()
    if not dead:
        return
    names = saved_order(trainable(model), layers, dead)
    if all(name in saved for name in names):
        # The optimizer has the criterion's parameters last.
        sizes = [saved[name].numel() for name in names]
        sizes += [parameter.numel() for parameter in trainable(criterion).values()]
        drop_from_optimizer(
            state.get("last_optimizer_state"),
            keep=[name not in dead for name in names] + [True] * (len(sizes) - len(names)),
            sizes=sizes,
        )
    for name in dead:
        del saved[name]


def trainable(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def saved_order(names: Iterable[str], layers: list[str], dead: set[str]) -> list[str]:
    """A lean model's parameters in the order of the stock model: a layer's own parameters, the
    dead ones, come before those of its parts."""
    order: list[str] = []
    waiting = list(layers)
    for name in names:
        for layer in [layer for layer in waiting if name.startswith(layer)]:
            waiting.remove(layer)
            order += [layer + own for own in NAMES if layer + own in dead]
        order.append(name)
    return order


def drop_from_optimizer(optimizer: dict[str, Any] | None, *, keep: list[bool], sizes: list[int]) -> None:
    """Take parameters out of an optimizer's state; one that does not match is left as it is.

    keep, sizes: for each saved parameter, whether it stays, and its number of elements
    """
    groups = (optimizer or {}).get("param_groups", [])
    if optimizer is None or len(groups) != 1:
        return
    indices = groups[0]["params"]
    if len(indices) == len(keep):
        kept = [index for index, stays in zip(indices, keep, strict=True) if stays]
        values = optimizer["state"]
        optimizer["state"] = {new: values[old] for new, old in enumerate(kept) if old in values}
        groups[0]["params"] = list(range(len(kept)))
    elif len(indices) == 1:
        # --fp16 has one flat tensor instead of the parameters
        for values in optimizer["state"].values():
            for name, value in values.items():
                if torch.is_tensor(value) and value.shape == (sum(sizes),):
                    parts = value.split(sizes)
                    live = [part for part, stays in zip(parts, keep, strict=True) if stays]
                    values[name] = torch.cat(live)
