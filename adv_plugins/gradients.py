"""Free gradients: the parameter gradients of inner passes, kept and returned by the last backward.

A method that needs d loss / d perturbation in the middle of a step gets the parameters' gradients
in the same backward pass. They are kept here and added when the trainer calls its one
``optimizer.backward``: DDP then reduces once per update, and loss scaling, gradient accumulation
and clipping stay fairseq's.
"""

import contextlib
from typing import Any, Dict, Iterator, List, Optional, Sequence

import torch
from torch import Tensor, nn

from adv_plugins.checkpointing import recomputes_activations
from adv_plugins.divergence import full_precision
from adv_plugins.dropout import drops_layers
from adv_plugins.perturbation import unwrap
from fairseq_compat.errors import UserError


def computes_in_float16(parameters: Sequence[nn.Parameter]) -> bool:
    """Whether gradients can underflow, so that the trainer scales the loss: weights or autocast."""
    devices = {parameter.device.type for parameter in parameters}
    return any(parameter.dtype == torch.float16 for parameter in parameters) or any(
        torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
        for device in devices
    )


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


def check_one_reduction(model: nn.Module) -> None:
    """For methods of several passes: whether a distributed wrapper reduces each gradient once.

    Raises:
        UserError: torch's DistributedDataParallel would reduce a parameter twice, or not at all.
    """
    module = unwrap(model)
    while model is not module:
        if isinstance(model, nn.parallel.DistributedDataParallel) and (
            drops_layers(module) or recomputes_activations(module)
        ):
            raise UserError(
                "with --encoder-layerdrop or --checkpoint-activations this criterion needs "
                "--ddp-backend legacy_ddp: pytorch_ddp cannot follow which parameters its passes use"
            )
        model = model.module


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Within the context no parameter of ``model`` gets a gradient, in forward and backward."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_()


class KeptGradients:
    """Gradients of ``model``'s parameters, summed over the inner passes of one step.

    Usage: ``input_gradients = kept.backward(loss, inputs)`` for each inner pass, then return
    ``kept.attach(last_loss)`` from the criterion.
    """

    def __init__(self, model: nn.Module, loss_scale: LossScale) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._values: List[Optional[Tensor]] = [None] * len(self._parameters)
        self._loss_scale = loss_scale
        self._scale: Optional[Tensor] = None
        self._half_precision = computes_in_float16(self._parameters)

    def backward(self, loss: Tensor, inputs: Sequence[Tensor]) -> List[Tensor]:
        """One backward pass through ``loss``.

        The kept gradients stand in for every ``.grad`` meanwhile, so that autograd adds to them in
        place, parameter by parameter: there is never more than one copy of them. (And fairseq's
        activation checkpointing runs under ``.backward()`` only.)

        Args:
            loss: scalar, the summed loss of an inner pass; not of the distributed wrapper's, which
                would reduce what is kept.
            inputs: tensors of its graph (leaves or not, no parameters) whose gradient is wanted.

        Returns:
            d loss / d input for each input, in the input's shape, at least float32 and without
            the loss scale.
        """
        self._scale = self._loss_scale.current(loss, half_precision=self._half_precision)
        before = [parameter.grad for parameter in self._parameters]
        for parameter, kept in zip(self._parameters, self._values):
            parameter.grad = kept
        for tensor in inputs:
            tensor.retain_grad()
        try:
            # Like the trainer's, outside of --amp's autocast, which is for forwards: in torch 2.6 a
            # checkpointed layer that is computed again inside of it gets no gradients.
            with torch.autocast(loss.device.type, enabled=False):
                (loss * self._scale).backward()
            gradients = [
                torch.zeros_like(tensor) if tensor.grad is None else tensor.grad for tensor in inputs
            ]
        finally:
            self._values = [parameter.grad for parameter in self._parameters]
            for parameter, gradient in zip(self._parameters, before):
                parameter.grad = gradient
            for tensor in inputs:
                tensor.grad = None
        return [full_precision(gradient) / self._scale for gradient in gradients]

    def of(self, parameters: Sequence[Any]) -> Dict[nn.Parameter, Tensor]:
        """The kept gradients of those of these parameters that have one: copies, at least float32 and
        without the loss scale."""
        wanted = set(parameters)
        return {
            parameter: full_precision(value) / (1.0 if self._scale is None else self._scale)
            for parameter, value in zip(self._parameters, self._values)
            if parameter in wanted and value is not None
        }

    def scale(self, factor: float) -> None:
        """Multiply what is kept; with 0 it is dropped."""
        if factor == 0:
            self._values = [None] * len(self._parameters)
        elif factor != 1:
            for value in self._values:
                if value is not None:
                    value.mul_(factor)

    def attach(self, loss: Tensor) -> Tensor:
        """``loss``, unchanged in value, whose backward also delivers the kept gradients.

        Only parameters that did get a gradient take part: DDP would meet an unused one twice.
        """
        kept = [(p, value) for p, value in zip(self._parameters, self._values) if value is not None]
        self._values = [None] * len(self._parameters)
        return _Attach.apply(
            loss,
            self._loss_scale,
            torch.ones_like(loss) if self._scale is None else self._scale,
            [value for _, value in kept],
            *[parameter for parameter, _ in kept],
        )


class _Attach(torch.autograd.Function):
    """Identity on the loss; its backward adds gradients that were computed earlier."""

    @staticmethod
    def forward(
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
    def backward(ctx: Any, scale: Tensor) -> Any:
        ctx.loss_scale.remember(scale)
        factor = scale / ctx.kept_scale
        gradients, scaled = ctx.gradients, []
        while gradients:  # they are nobody else's: scaled in place
            scaled.append(gradients.pop(0).mul_(factor))
        return (scale, None, None, None, *scaled)
