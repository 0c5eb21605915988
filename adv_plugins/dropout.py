"""Dropout seen from outside: its rates, and rates that hold for one pass only."""

import contextlib
from typing import Iterator, List

from torch import nn

from fairseq.modules.fairseq_dropout import FairseqDropout
from fairseq.modules.layer_drop import LayerDropModuleList


def dropout_modules(model: nn.Module) -> List[nn.Module]:
    """Every dropout module of ``model`` with a rate above 0."""
    return [m for m in model.modules() if isinstance(m, (nn.Dropout, FairseqDropout)) and m.p > 0]


def drops_layers(model: nn.Module) -> bool:
    """Whether ``model`` drops whole layers at random, for a whole batch at once (LayerDrop)."""
    return any(isinstance(m, LayerDropModuleList) and m.p > 0 for m in model.modules())


@contextlib.contextmanager
def dropout_rate(model: nn.Module, rate: float) -> Iterator[None]:
    """Within the context every dropout of ``model`` that is in use has this rate.

    Dropouts whose rate is 0 (as RoBERTa's activation dropout) stay off.
    """
    modules = dropout_modules(model)
    before = [module.p for module in modules]
    try:
        for module in modules:
            module.p = rate
        yield
    finally:
        for module, rate_before in zip(modules, before):
            module.p = rate_before
