"""What an update of each method costs, as ratios to plain fine-tuning on the same batch in one run.

    python scripts/benchmark.py --arch roberta_base --batch-size 8 --length 128

Every update goes through fairseq's own Trainer (task.train_step, backward, clipping, optimizer). FLOPs
are counted (torch's counter: exact, the same on every machine); wall time is the median over --repeats
rounds in which the methods take turns; peak memory is what the allocator holds beyond the model and
the optimizer's state.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent))

import fairseq_compat

fairseq_compat.install()

import torch  # noqa: E402
from fairseq import options  # noqa: E402
from fairseq.criterions import build_criterion  # noqa: E402
from fairseq.data import Dictionary  # noqa: E402
from fairseq.dataclass.utils import convert_namespace_to_omegaconf  # noqa: E402
from fairseq.tasks.sentence_prediction import SentencePredictionTask  # noqa: E402
from fairseq.trainer import Trainer  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

import adv_plugins  # noqa: E402, F401

METHODS = {
    "plain": "--criterion sentence_prediction",
    "freelb-3": "--criterion freelb_criterion --adv-steps 3",
    "rat": "--criterion rat_criterion",
    "rapt-1": "--criterion rapt_criterion --noise-max-layer 1",
    "rapt-3": "--criterion rapt_criterion --noise-max-layer 3",
    "asa": "--criterion asa_criterion",
}
VOCABULARY = 50265
PRECISION = {"fp32": "", "fp16": "--fp16 --fp16-init-scale 4", "amp": "--amp"}


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default="roberta_base", help="roberta_base or roberta_large")
    parser.add_argument("--layers", type=int, help="another number of layers")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", default="fp32", choices=list(PRECISION))
    parser.add_argument("--json", type=Path, help="write the numbers here, too")
    return parser.parse_args()


def make_dictionary() -> Any:
    """A vocabulary of RoBERTa's size."""
    words = Dictionary()
    for index in range(VOCABULARY - len(words) - 1):
        words.add_symbol(str(index))
    words.add_symbol("<mask>")
    return words


def make_trainer(arguments: argparse.Namespace, method: str, words: Any) -> Trainer:
    """fairseq's Trainer for one method; the same seed, so the same model, for all."""
    arch = f"asa_{arguments.arch}" if method == "asa" else arguments.arch
    line = (
        f"no-data --task sentence_prediction --num-classes 2 --arch {arch} --optimizer adam "
        f"--lr 1e-5 --max-positions 512 --seed 1 {PRECISION[arguments.precision]} {METHODS[method]}"
    )
    if arguments.layers:
        line += f" --encoder-layers {arguments.layers}"
    if not torch.cuda.is_available():
        line += " --cpu"
    parser = options.get_training_parser()
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, shlex.split(line)))
    task = SentencePredictionTask(cfg.task, words, words)
    torch.manual_seed(1)
    model = task.build_model(cfg.model)
    return Trainer(cfg, task, model, build_criterion(cfg.criterion, task))


def make_sample(arguments: argparse.Namespace) -> dict[str, Any]:
    """A batch without padding."""
    generator = torch.Generator().manual_seed(1)
    shape = (arguments.batch_size, arguments.length)
    tokens = torch.randint(4, VOCABULARY - 1, shape, generator=generator)
    return {
        "id": torch.arange(arguments.batch_size),
        "net_input": {"src_tokens": tokens, "src_lengths": torch.full(shape[:1], arguments.length)},
        "target": torch.randint(2, (arguments.batch_size, 1), generator=generator),
        "nsentences": arguments.batch_size,
        "ntokens": tokens.numel(),
    }


def count_flops(trainer: Trainer, sample: dict[str, Any]) -> int:
    """Floating-point operations of one update."""
    # The counter does not know the CPU's fused attention.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        trainer.train_step([sample])
    return counter.get_total_flops()


def measure_memory(trainer: Trainer, sample: dict[str, Any]) -> int:
    """Peak bytes that an update takes beyond what is there before it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        trainer.train_step([sample])
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        trainer.train_step([sample])
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda each: each.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def measure_time(trainer: Trainer, sample: dict[str, Any]) -> float:
    """Seconds of one update."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    trainer.train_step([sample])
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    """Measure, print a table, write the JSON."""
    arguments = parse_arguments()
    words, sample = make_dictionary(), make_sample(arguments)
    trainers = {method: make_trainer(arguments, method, words) for method in arguments.methods}
    numbers: dict[str, dict[str, Any]] = {}
    for method, trainer in trainers.items():
        trainer.train_step([sample])  # warm: the optimizer's state is there from now on
        flops = count_flops(trainer, sample)
        numbers[method] = {"flops": flops, "memory": measure_memory(trainer, sample), "times": []}
    for _ in range(arguments.repeats):
        for method, trainer in trainers.items():
            numbers[method]["times"].append(measure_time(trainer, sample))
    plain = numbers[arguments.methods[0]]
    print(f"{'method':<10} {'FLOPs':>7} {'time':>7} {'(min - max)':>15} {'memory':>7}")
    for method, own in numbers.items():
        ratios = [a / b for a, b in zip(own["times"], plain["times"])]
        own["ratios"] = {
            "flops": own["flops"] / plain["flops"],
            "time": statistics.median(ratios),
            "memory": own["memory"] / plain["memory"],
        }
        spread = f"({min(ratios):.2f} - {max(ratios):.2f})"
        row = own["ratios"]
        print(f"{method:<10} {row['flops']:7.3f} {row['time']:7.2f} {spread:>15} {row['memory']:7.2f}")
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    packages = {name: importlib.metadata.version(name) for name in ("torch", "fairseq")}
    print(f"\nplain: {plain['flops']:.3e} FLOPs, {statistics.median(plain['times']):.2f} s; {where}")
    if arguments.json:
        facts = {key: str(value) for key, value in vars(arguments).items()}
        report = {"arguments": facts, "machine": where, "versions": packages, "methods": numbers}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
