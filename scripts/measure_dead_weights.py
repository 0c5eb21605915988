"""Prints what the dead weights of fairseq 0.12.2 cost a model: its parameters and its checkpoint.

    python scripts/measure_dead_weights.py [roberta_base roberta_large ...]

The checkpoint is the model's alone, without the optimizer's state.
"""

from __future__ import annotations

import argparse
import io
from types import SimpleNamespace
from typing import Any

import torch

import fairseq_compat

fairseq_compat.install()

from fairseq.data import Dictionary  # noqa: E402
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY  # noqa: E402

VOCABULARY = 50265  # of the published RoBERTa models


class Counter(io.RawIOBase):
    """A file that only counts the bytes written to it."""

    bytes = 0

    def write(self, data: Any) -> int:
        self.bytes += len(data)
        return len(data)


def build(architecture: str) -> torch.nn.Module:
    words = Dictionary()
    for index in range(VOCABULARY - len(words)):
        words.add_symbol(str(index))
    arguments = argparse.Namespace(max_positions=512)
    ARCH_CONFIG_REGISTRY[architecture](arguments)
    return ARCH_MODEL_REGISTRY[architecture].build_model(
        arguments, SimpleNamespace(source_dictionary=words)
    )


def measure(model: torch.nn.Module) -> tuple[int, int]:
    """The number of parameters, and the bytes of a checkpoint."""
    checkpoint = Counter()
    torch.save({"model": model.state_dict()}, checkpoint)
    return sum(parameter.numel() for parameter in model.parameters()), checkpoint.bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("architectures", nargs="*", default=["roberta_base"])
    architectures = parser.parse_args().architectures
    stock = [measure(build(architecture)) for architecture in architectures]

    from adv_plugins import dead_weights

    dead_weights.remove()
    lean = [measure(build(architecture)) for architecture in architectures]

    print("| architecture | dead weights | parameters | checkpoint |")
    print("| --- | --- | ---: | ---: |")
    for index, architecture in enumerate(architectures):
        for label, (parameters, size) in (("with", stock[index]), ("without", lean[index])):
            print(f"| {architecture} | {label} | {parameters:,} | {size:,} bytes |")


if __name__ == "__main__":
    main()
