r"""``--optimizer adamw_fused``: the updates of fairseq's ``adam``, all parameters in one call.

fairseq's Adam takes one parameter after the other, a dozen operations each: hundreds of small kernels
an update. torch has one for lists of parameters (``torch.optim.adamw.adamw(fused=True)``, CPU and
CUDA). Everything else is fairseq's: decoupled weight decay, options, state and its names, so that a
training goes on from a checkpoint of ``--optimizer adam``, and the other way round.

One constant differs in meaning. fairseq's update is

.. math:: p \leftarrow (1 - \eta\lambda)\, p
    - \eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \frac{m}{\sqrt v + \epsilon}

and torch's has :math:`\sqrt{v / (1 - \beta_2^t)} + \epsilon'`: the same for
:math:`\epsilon' = \epsilon / \sqrt{1 - \beta_2^t}`.
"""

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from fairseq.optim import register_optimizer
from fairseq.optim.adam import Adam, FairseqAdam, FairseqAdamConfig
from torch import Tensor, nn
from torch.optim.adamw import adamw

from fairseq_compat.errors import UserError


@dataclass
class FusedAdamWConfig(FairseqAdamConfig):
    """Options of fairseq's ``adam``, with the same defaults."""

    fp16_adam_stats: bool = field(
        default=False, metadata={"help": "not possible with this optimizer: use adam"}
    )


class FusedAdamW(Adam):
    """fairseq's ``Adam`` whose step is torch's fused one.

    State of a parameter, as fairseq's: ``step`` (int), ``exp_avg`` and ``exp_avg_sq`` (float32 for
    float16 and bfloat16 parameters, whose update is computed in float32 and rounded once).
    """

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, **options)
        # torch wants the numbers of steps as tensors on the parameters' device; kept from step to step.
        self._steps: Dict[nn.Parameter, Tensor] = {}

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """Take over a state, of this optimizer or of fairseq's ``adam``."""
        super().load_state_dict(state_dict)
        self._steps.clear()

    @torch.no_grad()
    def step(self, closure: Optional[Callable[[], Any]] = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            alike: Dict[Tuple[int, torch.device, torch.dtype], List[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self._begun(parameter)
                    alike[state["step"], parameter.device, parameter.dtype].append(parameter)
            for (steps, _, _), parameters in alike.items():
                self._update(parameters, steps + 1, group)
        return loss

    def _begun(self, parameter: nn.Parameter) -> Dict[str, Any]:
        """The parameter's state, in the type that its update is computed in."""
        state: Dict[str, Any] = self.state[parameter]
        dtype = torch.promote_types(parameter.dtype, torch.float32)
        if not state:
            state.update(
                step=0,
                exp_avg=torch.zeros_like(parameter, dtype=dtype),
                exp_avg_sq=torch.zeros_like(parameter, dtype=dtype),
            )
        for name in ("exp_avg", "exp_avg_sq"):  # loading gives them the parameter's type
            if state[name].dtype != dtype:
                state[name] = state[name].to(dtype)
        if parameter not in self._steps:
            self._steps[parameter] = torch.tensor(
                float(state["step"]), dtype=torch.float32, device=parameter.device
            )
        return state

    def _update(self, parameters: List[nn.Parameter], steps: int, group: Dict[str, Any]) -> None:
        """Update parameters of one type and device, for each of which it is the same step."""
        states = [self.state[parameter] for parameter in parameters]
        dtype = states[0]["exp_avg"].dtype
        values = [parameter.to(dtype) for parameter in parameters]  # themselves, if they are float32
        gradients = [parameter.grad.to(dtype) for parameter in parameters if parameter.grad is not None]
        beta1, beta2 = group["betas"]
        adamw(
            values,
            gradients,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [self._steps[parameter] for parameter in parameters],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"] / math.sqrt(1 - beta2**steps),
            maximize=False,
        )
        for parameter, state, value in zip(parameters, states, values):
            state["step"] = steps
            if value is not parameter:
                parameter.copy_(value)


@register_optimizer("adamw_fused", dataclass=FusedAdamWConfig)
class FairseqFusedAdamW(FairseqAdam):
    """``--optimizer adamw_fused``, with the options of ``adam``.

    Raises:
        UserError: ``--fp16-adam-stats``, which only apex's Adam has.
    """

    def __init__(self, cfg: FusedAdamWConfig, params: Any) -> None:
        if cfg.fp16_adam_stats:
            raise UserError("--fp16-adam-stats: not with --optimizer adamw_fused; take adam")
        super(FairseqAdam, self).__init__(cfg)
        self._optimizer = FusedAdamW(params, **self.optimizer_config)


# A checkpoint holds the optimizer's class name, and fairseq refuses to go on with another one. These
# two have the same state and the same updates.
FairseqFusedAdamW.__name__ = FairseqAdam.__name__
