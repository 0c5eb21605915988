"""How much of a small perturbation of the word embeddings reaches the encoder in each precision.

    python scripts/measure/perturbation_share.py minilm data-bin/RTE-bin

One batch, R-AT's default perturbation: of norm 0.1 over the embedding matrix, along the gradient. Shown
is the error of what the embedding layers' sum changes by, as a share of the perturbation's norm: 0 is a
perturbation that arrives whole, 1 one that is lost. "Rounded" is the sum in the weights' own format, as
fairseq adds; "as here" is in float32 up to the layer norm.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import fairseq_compat

fairseq_compat.install()

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from adv_plugins.perturbation import (  # noqa: E402
    embedding_matrix_direction,
    embedding_norm,
    perturbed,
    recorded,
    word_embedding,
)
from adv_plugins_cli.command import one_line_errors, positive  # noqa: E402
from peers import fairseq_trainer  # noqa: E402

FORMATS = {
    "fp16 weights": (torch.float16, None),
    "bf16 weights": (torch.bfloat16, None),
    "amp, float16": (torch.float32, torch.float16),
    "amp, bfloat16": (torch.float32, torch.bfloat16),
}


def summed(model: Any, sample: dict[str, Any], within: Any) -> Tensor:
    """(B, T, d) what the layer norm of the embeddings gets in one pass, in float64."""
    found: list[Tensor] = []
    norm: Any = embedding_norm(model)
    handle = norm.register_forward_hook(lambda _, inputs, output: found.append(inputs[0].double()))
    with torch.no_grad(), within:
        model(**sample["net_input"])
    handle.remove()
    return found[0]


def main() -> None:
    """Run the command line; a fault of the request is one line, not a traceback."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("encoder", type=Path, help="folder of adv-plugins convert from-hf")
    parser.add_argument("data", type=Path, help="preprocessed data")
    parser.add_argument("--num-classes", type=positive, default=2, help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=positive, default=24, help="(default: %(default)s)")
    parser.add_argument("--norm", type=float, default=0.1, help="(default: %(default)s)")
    arguments = parser.parse_args()
    arguments.rows = None
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with one_line_errors("perturbation_share.py"), tempfile.TemporaryDirectory() as folder:
        flags = "--criterion sentence_prediction --optimizer adam --dropout 0 --attention-dropout 0"
        trainer = fairseq_trainer(arguments, folder, flags)
        model, criterion = trainer.get_model().eval(), trainer.get_criterion()
        sample = trainer.get_train_iterator(1, load_dataset=False).first_batch
        with recorded(word_embedding(model)) as words:
            loss = criterion(model, sample)[0]
        gradients = torch.autograd.grad(loss, words.outputs)
        direction = embedding_matrix_direction(
            gradients, words.tokens, word_embedding(model).padding_idx
        )
        deltas = [arguments.norm * delta for delta in direction.deltas]
        size = torch.cat([delta.flatten() for delta in deltas]).norm().double()
        print("| | rounded | as here |")
        print("| --- | ---: | ---: |")
        for name, (dtype, autocast) in FORMATS.items():
            model.to(dtype)
            row = []
            for norm in (None, embedding_norm(model)):
                with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
                    clean, moved = (
                        summed(model, sample, perturbed(word_embedding(model), added, norm))
                        for added in ([torch.zeros_like(delta) for delta in deltas], deltas)
                    )
                row.append(((moved - clean - deltas[0].double()).norm() / size).item())
            print(f"| {name} | {row[0]:.4f} | {row[1]:.4f} |", flush=True)


if __name__ == "__main__":
    main()
