"""Dropout seen from outside: its rates, rates for one pass only, and the same masks again."""

import contextlib
import logging
from typing import Any, Callable, Iterator, List, Optional, Sequence

import torch
from fairseq.modules.fairseq_dropout import FairseqDropout
from fairseq.modules.layer_drop import LayerDropModuleList
from torch import Tensor, nn

from adv_plugins.checkpointing import computing, is_checkpointed, plain_forward
from adv_plugins.perturbation import replaced_forward

logger = logging.getLogger(__name__)


def dropout_modules(model: nn.Module) -> List[nn.Module]:
    """Every dropout module of ``model`` with a rate above 0."""
    return [m for m in model.modules() if isinstance(m, (nn.Dropout, FairseqDropout)) and m.p > 0]


def warn_of_equal_passes(model: nn.Module, rates: Sequence[Optional[float]]) -> None:
    """Say so where passes that differ by their dropout masks alone have none: their rates are 0.

    Args:
        rates: of each pass, None for the model's own.
    """
    if not dropout_modules(model) or all(rate == 0 for rate in rates):
        logger.warning(
            "the model has no dropout, so the %d passes that are compared are equal and their "
            "consistency is 0: give --dropout or --attention-dropout",
            len(rates),
        )


def drops_layers(model: nn.Module) -> bool:
    """Whether ``model`` drops whole layers at random, for a whole batch at once (LayerDrop)."""
    return any(isinstance(m, LayerDropModuleList) and m.p > 0 for m in model.modules())


@contextlib.contextmanager
def dropout_rate(model: nn.Module, rate: float) -> Iterator[None]:
    """Within the context every dropout of ``model`` that is in use has this rate.

    Dropouts whose rate is 0 (as RoBERTa's activation dropout) stay off. A layer that is computed again
    after the context (``--checkpoint-activations``) has the rate then, too.
    """
    with contextlib.ExitStack() as stack:
        for module in model.modules():
            if is_checkpointed(module):
                stack.enter_context(replaced_forward(module, _at_rate(module, rate)))
        stack.enter_context(_rates(dropout_modules(model), rate))
        yield


def _at_rate(module: nn.Module, rate: float) -> Callable[..., Any]:
    plain = plain_forward(module)

    def compute(*args: Any, **kwargs: Any) -> Any:
        with _rates(dropout_modules(module), rate):
            return plain(*args, **kwargs)

    return computing(module, compute)


@contextlib.contextmanager
def _rates(modules: List[nn.Module], rate: float) -> Iterator[None]:
    before = [module.p for module in modules]
    try:
        for module in modules:
            module.p = rate
        yield
    finally:
        for module, rate_before in zip(modules, before):
            module.p = rate_before


class SameMasks:
    """The same dropout masks in several passes, by replaying the random state of the first.

    ``with same_masks.replayed():`` around each pass: the first pass draws as usual, every later one
    starts from the random state (the CPU's and the device's) that the first one started from. After
    any of them the state is the first pass's end, so a run's random stream goes on as if only one
    pass had been made. No dropout module is touched, so this holds for every model.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begin: Optional[List[Tensor]] = None
        self._end: Optional[List[Tensor]] = None

    @contextlib.contextmanager
    def replayed(self) -> Iterator[None]:
        """One pass."""
        if self._begin is None:
            self._begin = _random_state(self._device)
            yield
            self._end = _random_state(self._device)
            return
        _restore(self._begin, self._device)
        try:
            yield
        finally:
            _restore(self._end or self._begin, self._device)


@contextlib.contextmanager
def states_at_entry(module: nn.Module, device: torch.device) -> Iterator[List[List[Tensor]]]:
    """The random state with which each call of ``module`` begins; see :func:`entered_with`."""
    states: List[List[Tensor]] = []
    handle = module.register_forward_pre_hook(lambda *_: states.append(_random_state(device)))
    try:
        yield states
    finally:
        handle.remove()


@contextlib.contextmanager
def entered_with(
    module: nn.Module, states: Sequence[List[Tensor]], device: torch.device
) -> Iterator[None]:
    """Within the context each call of ``module`` begins with the random state that an earlier one began
    with, so with its dropout masks; the random stream goes on as without the context."""
    remaining = list(states)
    with random_state_kept(device):
        handle = module.register_forward_pre_hook(lambda *_: _restore(remaining.pop(0), device))
        try:
            yield
        finally:
            handle.remove()


@contextlib.contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Whatever is drawn within the context, the random stream goes on as if nothing had been."""
    states = _random_state(device)
    try:
        yield
    finally:
        _restore(states, device)


def _random_state(device: torch.device) -> List[Tensor]:
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def _restore(states: List[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
