"""``--bf16`` starts, and ``--amp`` has a type: ``--amp-dtype``, on a GPU and on a CPU.

fairseq 0.12.2 takes ``--bf16`` for a TPU, whose library then is missing. Its ``--amp`` is CUDA's
autocast in float16, which on a CPU does nothing and says nothing. Here ``--bf16`` and
``--memory-efficient-bf16`` train wherever torch does, and ``--amp`` is torch's autocast of the device:
by default in float16 on a GPU and in bfloat16 on a CPU. Losses in bfloat16, whose range is float32's,
are not scaled.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from fairseq import options
from fairseq.dataclass.configs import CommonConfig
from fairseq.dataclass.initialize import hydra_init
from fairseq.optim import AMPOptimizer
from fairseq.tasks import FairseqTask

from adv_plugins.wrapped_methods import wrap_method
from fairseq_compat.errors import UserError

logger = logging.getLogger(__name__)

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
HELP = "with --amp: float16 or bfloat16 (default: float16 on a GPU, bfloat16 on a CPU)"


def offer() -> None:
    """Add the option and wrap fairseq where it knows of one type and one device, once."""
    if "amp_dtype" not in CommonConfig.__dataclass_fields__:
        add_option()
    wrap_method(options, "parse_args_and_arch", without_tpu)
    wrap_method(AMPOptimizer, "__init__", with_dtype)
    wrap_method(FairseqTask, "train_step", in_autocast)


def add_option() -> None:
    """``--amp-dtype`` beside ``--amp``; with fairseq-hydra-train ``+common.amp_dtype=bfloat16``, since
    hydra reads fairseq's options before it reads ours."""
    extended: Any = dataclasses.make_dataclass(
        "WithAmpDtype",
        [("amp_dtype", str, dataclasses.field(default="default", metadata={"help": HELP}))],
    )
    CommonConfig.__dataclass_fields__["amp_dtype"] = extended.__dataclass_fields__["amp_dtype"]
    CommonConfig.__annotations__["amp_dtype"] = str
    CommonConfig.amp_dtype = "default"
    hydra_init()  # fairseq stored its options for hydra as it was imported


def without_tpu(original: Callable[..., Any]) -> Callable[..., Any]:
    """``--bf16`` means a TPU only where ``--tpu`` says so."""

    def parse_args_and_arch(parser: Any, input_args: Any = None, *args: Any, **kwargs: Any) -> Any:
        parsed = original(parser, input_args, *args, **kwargs)
        values = parsed[0] if isinstance(parsed, tuple) else parsed
        given = sys.argv[1:] if input_args is None else input_args
        if getattr(values, "bf16", False) and "--tpu" not in given:
            values.tpu = False
        return parsed

    return parse_args_and_arch


def autocast_dtype(common: Any, device: str) -> torch.dtype:
    """The type that ``--amp`` computes in.

    Args:
        common: fairseq's options of that name; device: ``cuda`` or ``cpu``.

    Raises:
        UserError: ``--amp-dtype`` is none of :data:`DTYPES`.
    """
    name = getattr(common, "amp_dtype", None) or "default"
    if name == "default":
        return torch.float16 if device == "cuda" else torch.bfloat16
    if name not in DTYPES:
        raise UserError(f"--amp-dtype {name}: give {' or '.join(DTYPES)}")
    return DTYPES[name]


def check(common: Any) -> None:
    """Whether what is said of ``--amp`` can be done.

    Raises:
        UserError: ``--amp-dtype`` without ``--amp``, or none of :data:`DTYPES`.
    """
    name = getattr(common, "amp_dtype", None) or "default"
    autocast_dtype(common, "cpu")
    if name != "default" and not common.amp:
        raise UserError(
            f"--amp-dtype {name} says nothing without --amp: give that, too, or leave it out"
        )


def with_dtype(original: Callable[..., None]) -> Callable[..., None]:
    """An optimizer for ``--amp`` that knows the device and the type, and scales losses in float16."""

    def __init__(self: Any, cfg: Any, params: Any, *args: Any, **kwargs: Any) -> None:
        on_gpu = torch.cuda.is_available() and not cfg.common.cpu
        self.device = "cuda" if on_gpu else "cpu"
        self.dtype = autocast_dtype(cfg.common, self.device)
        logger.info("--amp: autocast in %s on the %s", str(self.dtype).partition(".")[2], self.device)
        if not on_gpu:
            # fairseq asks for CUDA's autocast, too; that there is none is no news and no fault.
            warnings.filterwarnings("ignore", message="(?s).*CUDA is not available.*Disabling")
        original(self, cfg, params, *args, **kwargs)
        scaled = self.dtype == torch.float16
        if not (on_gpu and scaled):  # that one is fairseq's own
            self._grad_scaler = torch.amp.GradScaler(
                self.device, init_scale=cfg.common.fp16_init_scale, enabled=scaled
            )

    return __init__


def in_autocast(original: Callable[..., Any]) -> Callable[..., Any]:
    """Forward in the optimizer's type, within the autocast that fairseq's training step is in."""

    def train_step(
        self: Any, sample: Any, model: Any, criterion: Any, optimizer: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if not isinstance(optimizer, AMPOptimizer):
            return original(self, sample, model, criterion, optimizer, *args, **kwargs)

        def compute(model: Any, sample: Any) -> Any:
            with torch.autocast(optimizer.device, dtype=optimizer.dtype):
                return criterion(model, sample)

        return original(self, sample, model, compute, optimizer, *args, **kwargs)

    return train_step
