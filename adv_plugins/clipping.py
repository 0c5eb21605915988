"""``--clip-norm`` clips the two players of ASA apart: neither's gradient shrinks the other's.

fairseq's trainer clips all gradients together. A large gradient of the adversary would then take the
model's away. Here its clipping sees the model's gradient alone, so ``gnorm`` is the model's; the
adversary's is clipped to the same norm by itself, and its norm is the meter ``adversary_gnorm``. Without
an adversary, or where it has no gradient, nothing is different from fairseq, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from fairseq import metrics
from fairseq.optim import FairseqOptimizer
from fairseq.trainer import Trainer
from torch import Tensor, nn

from adv_plugins.models.asa_roberta import ADVERSARY
from adv_plugins.wrapped_methods import wrap_method


def clip_apart() -> None:
    """Wrap the trainer's clipping, once."""
    wrap_method(Trainer, "clip_grad_norm", clip_players)


def clip_players(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The trainer's method, which returns the norm of the model's gradient, a scalar."""

    def clip_grad_norm(self: Any, clip_norm: float) -> Tensor:
        adversary = [
            parameter
            for name, parameter in self.model.named_parameters()
            if ADVERSARY in name and parameter.grad is not None
        ]
        if not adversary:
            return original(self, clip_norm)
        outer = self.optimizer
        while isinstance(getattr(outer, "_optimizer", None), FairseqOptimizer):  # --use-bmuf
            outer = outer._optimizer
        inner = full_precision_optimizer(outer)
        clip = inner.clip_grad_norm
        gradients: list[Tensor] = []
        norms: list[Tensor] = []

        def clip_without_adversary(*args: Any, **kwargs: Any) -> Tensor:
            # --fp16 has copied the gradients by now, and --amp has unscaled them.
            gradients.extend(optimized_gradients(outer, adversary))
            norms.append(total_norm(gradients))
            values = [gradient.clone() for gradient in gradients]
            for gradient in gradients:
                gradient.zero_()
            norm = clip(*args, **kwargs)
            for gradient, value in zip(gradients, values, strict=True):
                gradient.copy_(value)
            # The loss scaler has to know of the adversary's overflow, too.
            return torch.where(torch.isfinite(norms[0]), norm, norms[0].to(norm))

        factor = getattr(outer, "_multiply_factor", 1.0) * 1.0  # a tensor would be changed in place
        inner.clip_grad_norm = clip_without_adversary
        try:
            norm = original(self, clip_norm)
        finally:
            del inner.clip_grad_norm  # which brings the class's own back
        own_norm = norms[0] * factor
        if torch.isfinite(norm):
            metrics.log_scalar("adversary_gnorm", own_norm, priority=401, round=3)
        if clip_norm > 0:
            # float16 optimizers clip by a factor for the whole update, which is taken back here.
            of_all = getattr(outer, "_multiply_factor", 1.0) / factor
            coefficient = (clip_norm / (own_norm + 1e-6)).clamp(max=1) / of_all
            for gradient in gradients:
                if gradient.dtype == torch.float16:  # --memory-efficient-fp16: to grow may overflow
                    coefficient = coefficient.clamp(max=1)
                gradient.mul_(coefficient)
        return norm

    return clip_grad_norm


def full_precision_optimizer(optimizer: Any) -> Any:
    """The optimizer inside of fairseq's for --fp16, --memory-efficient-fp16 and --amp."""
    for name in ("fp32_optimizer", "wrapped_optimizer"):
        if hasattr(optimizer, name):
            return getattr(optimizer, name)
    return optimizer


def optimized_gradients(optimizer: Any, parameters: list[nn.Parameter]) -> list[Tensor]:
    """What the optimizer takes for the gradients of these parameters: its own tensors, or views."""
    copies = getattr(optimizer, "fp32_params", None)
    if copies is None:
        return [parameter.grad for parameter in parameters if parameter.grad is not None]
    wanted = {id(parameter) for parameter in parameters}
    trained = [parameter for parameter in optimizer.fp16_params if parameter.requires_grad]
    if not optimizer.has_flat_params:
        return [copy.grad for own, copy in zip(trained, copies, strict=True) if id(own) in wanted]
    found = []
    for device, flat in copies.items():
        own = [parameter for parameter in trained if parameter.device.index == device]
        parts = flat.grad.split([parameter.numel() for parameter in own])
        found += [part for parameter, part in zip(own, parts, strict=True) if id(parameter) in wanted]
    return found


def total_norm(tensors: list[Tensor]) -> Tensor:
    """The L2 norm of all of them together, in float32."""
    return torch.stack([tensor.norm(dtype=torch.float32) for tensor in tensors]).norm()
