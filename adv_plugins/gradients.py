"""Free gradients: the parameter gradients of inner passes, kept and returned by the last backward.

A method that needs d loss / d perturbation in the middle of a step gets the parameters' gradients
in the same backward pass. They are kept here and added when the trainer calls its one
``optimizer.backward``: DDP then reduces once per update, and loss scaling, gradient accumulation
and clipping stay fairseq's.
"""

from collections import Counter
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from adv_plugins.divergence import full_precision
from adv_plugins.dropout import recomputes_activations


class LossScale:
    """The scale that the trainer's last backward multiplied the loss with (1 without fp16).

    It stays a tensor, as reading it as a number would stall the GPU in every step.
    """

    # fairseq's default for --fp16-init-scale: what the first update of a float16 run will use.
    FIRST_HALF_PRECISION_SCALE = 128.0

    def __init__(self) -> None:
        self._scale: Optional[Tensor] = None

    def current(self, loss: Tensor, *, half_precision: bool) -> Tensor:
        """Scalar tensor to multiply an inner pass's loss with."""
        if self._scale is None or self._scale.device != loss.device:
            first = self.FIRST_HALF_PRECISION_SCALE if half_precision else 1.0
            self._scale = torch.full((), first, dtype=loss.dtype, device=loss.device)
        return self._scale.to(loss.dtype)

    def remember(self, scale: Tensor) -> None:
        """A worker without data multiplies its dummy loss by 0: that scale is not remembered."""
        previous = torch.ones_like(scale) if self._scale is None else self._scale.to(scale)
        self._scale = torch.where(scale != 0, scale.detach(), previous)


class KeptGradients:
    """Gradients of ``model``'s parameters, summed over the inner passes of one step.

    Usage: ``input_gradients = kept.backward(loss, inputs)`` for each inner pass, then return
    ``kept.attach(last_loss)`` from the criterion.
    """

    def __init__(self, model: nn.Module, loss_scale: LossScale) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._values: Dict[int, Tensor] = {}
        self._loss_scale = loss_scale
        self._scale: Optional[Tensor] = None
        self._half_precision = torch.is_autocast_enabled() or any(
            p.dtype == torch.float16 for p in self._parameters
        )
        # fairseq's checkpoint_wrapper recomputes inside a custom Function, which torch lets run
        # under .backward() only.
        self._use_backward = recomputes_activations(model)

    def backward(self, loss: Tensor, inputs: Sequence[Tensor]) -> List[Tensor]:
        """One backward pass through ``loss``.

        Args:
            loss: scalar, the summed loss of an inner pass.
            inputs: tensors of its graph (leaves or not) whose gradient is wanted.

        Returns:
            d loss / d input for each input, in the input's shape, at least float32 and without
            the loss scale.
        """
        self._scale = self._loss_scale.current(loss, half_precision=self._half_precision)
        loss = loss * self._scale
        take = _through_backward if self._use_backward else _through_grad
        input_gradients, gradients = take(loss, inputs, self._parameters)
        for index, gradient in enumerate(_owned(gradients, input_gradients)):
            if gradient is not None:
                kept = self._values.get(index)
                self._values[index] = gradient if kept is None else kept.add_(gradient)
        return [full_precision(gradient) / self._scale for gradient in input_gradients]

    def attach(self, loss: Tensor) -> Tensor:
        """``loss``, unchanged in value, whose backward also delivers the kept gradients.

        Only parameters that did get a gradient take part: DDP would meet an unused one twice.
        """
        values, self._values = self._values, {}
        return _Attach.apply(
            loss,
            self._loss_scale,
            torch.ones_like(loss) if self._scale is None else self._scale,
            list(values.values()),
            *[self._parameters[index] for index in values],
        )


def _owned(gradients: Sequence[Optional[Tensor]], others: Sequence[Tensor]) -> List[Optional[Tensor]]:
    """``gradients``, none of which shares memory with another tensor, so they can be added in place.

    autograd may hand one tensor to two parameters, and a view (such as an expanded scalar).
    """
    uses = Counter(
        tensor.untyped_storage().data_ptr() for tensor in (*gradients, *others) if tensor is not None
    )
    return [
        gradient.clone()
        if gradient is not None
        and (not gradient.is_contiguous() or uses[gradient.untyped_storage().data_ptr()] > 1)
        else gradient
        for gradient in gradients
    ]


def _through_grad(
    loss: Tensor, inputs: Sequence[Tensor], parameters: Sequence[nn.Parameter]
) -> Tuple[List[Tensor], List[Optional[Tensor]]]:
    gradients = torch.autograd.grad(loss, [*inputs, *parameters], allow_unused=True)
    return _zeros_for_none(inputs, gradients[: len(inputs)]), list(gradients[len(inputs) :])


def _through_backward(
    loss: Tensor, inputs: Sequence[Tensor], parameters: Sequence[nn.Parameter]
) -> Tuple[List[Tensor], List[Optional[Tensor]]]:
    """The same by ``loss.backward()``, leaving every ``.grad`` as it was (also after an error)."""
    before = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    for tensor in inputs:
        tensor.retain_grad()
    try:
        loss.backward()
        return (
            _zeros_for_none(inputs, [tensor.grad for tensor in inputs]),
            [parameter.grad for parameter in parameters],
        )
    finally:
        for tensor in inputs:
            tensor.grad = None
        for parameter, gradient in zip(parameters, before):
            parameter.grad = gradient


def _zeros_for_none(inputs: Sequence[Tensor], gradients: Sequence[Optional[Tensor]]) -> List[Tensor]:
    return [
        torch.zeros_like(tensor) if gradient is None else gradient
        for tensor, gradient in zip(inputs, gradients)
    ]


class _Attach(torch.autograd.Function):
    """Identity on the loss; its backward adds gradients that were computed earlier."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        loss: Tensor,
        loss_scale: LossScale,
        kept_scale: Tensor,
        gradients: List[Tensor],
        *parameters: nn.Parameter,
    ) -> Tensor:
        ctx.loss_scale, ctx.kept_scale, ctx.gradients = loss_scale, kept_scale, gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> Any:  # type: ignore[override]
        ctx.loss_scale.remember(scale)
        factor = scale / ctx.kept_scale
        gradients, scaled = ctx.gradients, []
        while gradients:  # they are nobody else's: scaled in place
            scaled.append(gradients.pop(0).mul_(factor))
        return (scale, None, None, None, *scaled)
