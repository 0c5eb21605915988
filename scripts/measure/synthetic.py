"""What the measuring scripts train: fairseq's configuration for it, and a vocabulary.

To be imported after ``fairseq_compat.install()``.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import torch
from fairseq import options
from fairseq.data import Dictionary
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

from adv_plugins_cli.command import UserError

VOCABULARY = 50265  # of the published RoBERTa models
SMALLEST_VOCABULARY = 10  # fairseq's own symbols, <mask>, and something to draw from
POSITIONS = 512
PRECISION = {
    "fp32": "",
    "tf32": "",
    "fp16": "--fp16 --fp16-init-scale 4",
    "memory-efficient-fp16": "--memory-efficient-fp16 --fp16-init-scale 4",
    "amp": "--amp",
    "bf16": "--bf16",
    "amp-bf16": "--amp --amp-dtype bfloat16",
}
BENCHMARKED = ("fp32", "tf32", "fp16", "amp", "bf16", "amp-bf16")
OF_CPUS = ("fp32", "bf16", "amp-bf16")


def check_sizes(*, lengths: Sequence[int] = (), vocabulary: int = VOCABULARY) -> None:
    """Refuse what the models cannot read.

    Raises:
        UserError: naming the option.
    """
    for length in lengths:
        if length > POSITIONS:
            raise UserError(f"--length {length}: the models have {POSITIONS} positions")
    if vocabulary < SMALLEST_VOCABULARY:
        raise UserError(f"--vocabulary {vocabulary}: at least {SMALLEST_VOCABULARY}")


def check_architecture(arch: str) -> None:
    """Refuse what is no RoBERTa.

    Raises:
        UserError: it is not known here.
    """
    from fairseq.models import ARCH_MODEL_REGISTRY
    from fairseq.models.roberta import RobertaModel

    if not issubclass(ARCH_MODEL_REGISTRY.get(arch, object), RobertaModel):
        raise UserError(f"{arch}: no architecture of the RoBERTa family (as roberta_base)")


def configure(arch: str, precision: str, others: str) -> Any:
    """fairseq's configuration for classification on this machine's device.

    Args:
        precision: a key of PRECISION; others: more command line, as the criterion.
    """
    line = (
        f"no-data --task sentence_prediction --num-classes 2 --arch {arch} --optimizer adam --lr 1e-5 "
        f"--max-positions {POSITIONS} --seed 1 {PRECISION[precision]} {others}"
    )
    if not torch.cuda.is_available():
        line += " --cpu"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    check_architecture(arch)
    parser = options.get_training_parser()
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, shlex.split(line)))


def make_dictionary(size: int) -> Dictionary:
    """A vocabulary of that size."""
    words = Dictionary()
    for index in range(size - len(words) - 1):
        words.add_symbol(str(index))
    words.add_symbol("<mask>")
    return words
