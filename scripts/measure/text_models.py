"""Words per second of bilstm, text_cnn and text_han beside a plain PyTorch loop of the same model.

    python scripts/measure/text_models.py --words 200 --batch 64 --updates 7

For each model: forward, backward and Adam's update of a loop that knows nothing of fairseq and has
torch's own modules of the same sizes; the same through our criterions, plain and R-AT. The three take
turns on the same sentences of random words, so that what else the machine does meets them alike; the
medians are printed. Beside them R-AT's floating-point operations by plain's, counted in float64 on a
few short sentences: there torch's recurrent layers are the matrix products that its counter knows, while
their kernels in float32 and on a GPU are not counted.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from argparse import Namespace
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import fairseq_compat

fairseq_compat.install()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY  # noqa: E402
from fairseq.data import Dictionary  # noqa: E402
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY  # noqa: E402
from fairseq.tasks.sentence_prediction import SentencePredictionTask  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

import adv_plugins  # noqa: E402, F401
from adv_plugins_cli.checkpoints.architecture import WORD_ARCHS  # noqa: E402
from adv_plugins_cli.command import positive  # noqa: E402

HEAD = "sentence_classification_head"
SIZE, HIDDEN, MAPS, KERNELS, RATE = 300, 128, 100, (3, 4, 5), 0.5  # the architectures'
METHODS = {"plain": "sentence_prediction", "R-AT": "rat_criterion"}


class Loop(nn.Module):
    """The model as a tutorial would write it."""

    def __init__(self, arch: str, vocabulary: int, classes: int) -> None:
        super().__init__()
        self.arch = arch
        self.words = nn.Embedding(vocabulary, SIZE, padding_idx=1)
        if arch == "text_cnn":
            self.maps = nn.ModuleList(nn.Conv1d(SIZE, MAPS, kernel) for kernel in KERNELS)
        else:
            kind = nn.LSTM if arch == "bilstm" else nn.GRU
            self.layer = kind(SIZE, HIDDEN, bidirectional=True, batch_first=True)
            self.attention, self.context = nn.Linear(2 * HIDDEN, 2 * HIDDEN), nn.Linear(2 * HIDDEN, 1)
        self.output = nn.Linear(MAPS * len(KERNELS) if arch == "text_cnn" else 2 * HIDDEN, classes)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Logits."""
        words = self.words(tokens)
        if self.arch == "text_cnn":
            columns = words.transpose(1, 2)
            features = torch.cat([F.relu(each(columns)).amax(2) for each in self.maps], dim=1)
        else:
            packed = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
            output, last = self.layer(packed)
            if self.arch == "bilstm":
                features = torch.cat(list(last[0]), dim=1)
            else:
                states, _ = pad_packed_sequence(output, batch_first=True)
                weights = self.context(torch.tanh(self.attention(states))).softmax(1)
                features = (weights * states).sum(1)
        logits: Tensor = self.output(F.dropout(features, RATE, self.training))
        return logits


def build(arch: str, vocabulary: int, classes: int) -> Any:
    """Our model with its architecture's sizes."""
    words = Dictionary()
    for index in range(vocabulary - len(words)):
        words.add_symbol(f"w{index}")
    args = Namespace()
    ARCH_CONFIG_REGISTRY[arch](args)
    model = ARCH_MODEL_REGISTRY[arch].build_model(args, SimpleNamespace(source_dictionary=words))
    model.register_classification_head(HEAD, num_classes=classes)
    return model.train()


def criterion(name: str) -> Any:
    """A criterion as fairseq makes it."""
    dataclass = CRITERION_DATACLASS_REGISTRY[name]
    outside = {"tpu": False} if "tpu" in dataclass.__dataclass_fields__ else {}
    task = SentencePredictionTask.__new__(SentencePredictionTask)
    return CRITERION_REGISTRY[name].build_criterion(dataclass(**outside), task).train()


def sample_of(batch: int, words: int, vocabulary: int, classes: int) -> dict[str, Any]:
    """Random sentences, of full length: all of it is work."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(4, vocabulary, (batch, words), generator=generator)
    return {
        "net_input": {"src_tokens": tokens, "src_lengths": torch.full((batch,), words)},
        "target": torch.randint(classes, (batch, 1), generator=generator),
        "ntokens": batch * words,
        "nsentences": batch,
    }


def updates(
    arch: str, sample: dict[str, Any], vocabulary: int, classes: int
) -> dict[str, Callable[[], None]]:
    """An update of each: forward, backward, Adam."""
    tokens, lengths = sample["net_input"].values()
    loop = Loop(arch, vocabulary, classes).train()
    made: dict[str, Callable[[], None]] = {}

    def stepping(parameters: Any, loss: Callable[[], Tensor]) -> Callable[[], None]:
        adam = torch.optim.Adam(parameters, lr=1e-3)

        def update() -> None:
            adam.zero_grad()
            loss().backward()
            adam.step()

        return update

    made["loop"] = stepping(
        loop.parameters(), lambda: F.cross_entropy(loop(tokens, lengths), sample["target"].view(-1))
    )
    for name, registered in METHODS.items():
        model, own = build(arch, vocabulary, classes), criterion(registered)
        made[name] = stepping(model.parameters(), functools.partial(loss_of, own, model, sample))
    return made


def loss_of(own: Any, model: nn.Module, sample: dict[str, Any]) -> Tensor:
    """A criterion's."""
    loss: Tensor = own(model, sample)[0]
    return loss


def operations(arch: str, registered: str) -> int:
    """Floating-point operations of a forward and backward."""
    sample = sample_of(3, 9, 40, 2)
    model = build(arch, 40, 2).double()
    with FlopCounterMode(display=False) as counter:
        criterion(registered)(model, sample)[0].backward()
    return int(counter.get_total_flops())


def measure(arch: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians of one model."""
    sample = sample_of(arguments.batch, arguments.words, arguments.vocabulary, 2)
    made = updates(arch, sample, arguments.vocabulary, 2)
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for number in range(arguments.updates + 1):
        for name, update in made.items():
            began = time.perf_counter()
            update()
            if number:  # the first one warms up
                seconds[name].append(time.perf_counter() - began)
    words = arguments.batch * arguments.words
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    ratio = operations(arch, METHODS["R-AT"]) / operations(arch, METHODS["plain"])
    return {
        "arch": arch,
        "words_per_second": {name: round(words / each) for name, each in medians.items()},
        "plain_by_loop": medians["plain"] / medians["loop"],
        "rat_by_plain": medians["R-AT"] / medians["plain"],
        "rat_operations_by_plain": ratio,
        "seconds": seconds,
    }


def main(argv: list[str] | None = None) -> None:
    """Print a row a model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archs", nargs="+", choices=WORD_ARCHS, default=list(WORD_ARCHS))
    parser.add_argument("--words", type=positive, default=200, help="of a sentence (%(default)s)")
    parser.add_argument("--batch", type=positive, default=64, help="sentences (%(default)s)")
    parser.add_argument("--vocabulary", type=positive, default=30_000, help="(%(default)s)")
    parser.add_argument("--updates", type=positive, default=7, help="of each (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON, with every measurement")
    arguments = parser.parse_args(argv)
    for arch in arguments.archs:
        row = measure(arch, arguments)
        if arguments.json:
            print(json.dumps(row))
            continue
        speeds = ", ".join(f"{name} {speed}" for name, speed in row["words_per_second"].items())
        print(
            f"{arch}: words/s {speeds}; plain {row['plain_by_loop']:.2f} of the loop's time, R-AT "
            f"{row['rat_by_plain']:.2f} of plain's, {row['rat_operations_by_plain']:.2f} operations"
        )


if __name__ == "__main__":
    main()
