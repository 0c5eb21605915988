"""What an update of each method costs, as ratios to plain fine-tuning on the same batch in one run.

    python scripts/benchmark.py --arch roberta_base --batch-size 8 --length 128

Every update goes through fairseq's own Trainer (task.train_step, backward, clipping, optimizer). FLOPs
are counted (torch's counter: exact, the same on every machine); wall time is the median over --repeats
rounds in which the methods take turns; peak memory is what the allocator holds beyond the model and
the optimizer's state. Methods called *-release do it as the authors' own code does (authors_way.py);
FreeLB's makes a fourth pass for its three steps. --lengths repeats it all for several lengths and
draws them.
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

import authors_way  # noqa: E402, F401 - registers the releases' ways
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
    "freelb-release": "--criterion freelb_release --release-adv-steps 3",
    "rat": "--criterion rat_criterion",
    "rat-sequential": "--criterion rat_criterion --sequential-passes",
    "rat-release": "--criterion rat_release",
    "rapt-1": "--criterion rapt_criterion --noise-max-layer 1",
    "rapt-3": "--criterion rapt_criterion --noise-max-layer 3",
    "asa": "--criterion asa_criterion",
    "asa-release": "--criterion asa_release",
}
PRECISION = {"fp32": "", "fp16": "--fp16 --fp16-init-scale 4", "amp": "--amp"}


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default="roberta_base", help="roberta_base or roberta_large")
    parser.add_argument("--layers", type=int, help="another number of layers")
    parser.add_argument("--vocabulary", type=int, default=50265, help="words (default: RoBERTa's)")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lengths", "--length", nargs="+", type=int, default=[128])
    parser.add_argument("--plot", type=Path, help="with several lengths: draw them into this file")
    parser.add_argument(
        "--profile", type=Path, metavar="DIR", help="write a Chrome trace of one update of each method"
    )
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", default="fp32", choices=list(PRECISION))
    parser.add_argument("--json", type=Path, help="write the numbers here, too")
    return parser.parse_args()


def make_dictionary(size: int) -> Any:
    """A vocabulary of that size."""
    words = Dictionary()
    for index in range(size - len(words) - 1):
        words.add_symbol(str(index))
    words.add_symbol("<mask>")
    return words


def make_trainer(arguments: argparse.Namespace, method: str, words: Any) -> Trainer:
    """fairseq's Trainer for one method; the same seed, so the same model, for all."""
    arch = f"asa_{arguments.arch}" if method.startswith("asa") else arguments.arch
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


def make_sample(arguments: argparse.Namespace, length: int) -> dict[str, Any]:
    """A batch without padding."""
    generator = torch.Generator().manual_seed(1)
    shape = (arguments.batch_size, length)
    tokens = torch.randint(4, arguments.vocabulary - 1, shape, generator=generator)
    return {
        "id": torch.arange(arguments.batch_size),
        "net_input": {"src_tokens": tokens, "src_lengths": torch.full(shape[:1], length)},
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


def write_profile(trainer: Trainer, sample: dict[str, Any], path: Path) -> None:
    """Where the time of one update goes, for chrome://tracing."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        trainer.train_step([sample])
    path.parent.mkdir(parents=True, exist_ok=True)
    profile.export_chrome_trace(str(path))


def measure(
    arguments: argparse.Namespace, trainers: dict[str, Trainer], length: int
) -> dict[str, dict[str, Any]]:
    """The numbers of every method at one length, with their ratios to the first one's."""
    sample = make_sample(arguments, length)
    numbers: dict[str, dict[str, Any]] = {}
    for method, trainer in trainers.items():
        trainer.train_step([sample])  # warm: the optimizer's state is there from now on
        flops = count_flops(trainer, sample)
        numbers[method] = {"flops": flops, "memory": measure_memory(trainer, sample), "times": []}
        if arguments.profile:
            write_profile(trainer, sample, arguments.profile / f"{method}-{length}.json")
    for _ in range(arguments.repeats):
        for method, trainer in trainers.items():
            numbers[method]["times"].append(measure_time(trainer, sample))
    plain = numbers[arguments.methods[0]]
    for own in numbers.values():
        ratios = [a / b for a, b in zip(own["times"], plain["times"])]
        own["ratios"] = {
            "flops": own["flops"] / plain["flops"],
            "time": statistics.median(ratios),
            "time_range": [min(ratios), max(ratios)],
            "memory": own["memory"] / plain["memory"],
        }
    return numbers


def show(numbers: dict[str, dict[str, Any]], length: int) -> None:
    """Print the table of one length."""
    print(f"\nlength {length}")
    print(f"{'method':<15} {'FLOPs':>7} {'time':>7} {'(min - max)':>15} {'memory':>7}")
    for method, own in numbers.items():
        row = own["ratios"]
        spread = "({:.2f} - {:.2f})".format(*row["time_range"])
        print(f"{method:<15} {row['flops']:7.3f} {row['time']:7.2f} {spread:>15} {row['memory']:7.2f}")
    plain = next(iter(numbers.values()))
    print(f"plain: {plain['flops']:.3e} FLOPs, {statistics.median(plain['times']):.2f} s")


def plot(by_length: dict[int, dict[str, dict[str, Any]]], path: Path) -> None:
    """Time and memory of an update against the length (ASA's Figure 4)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for method in next(iter(by_length.values())):
        times = [statistics.median(numbers[method]["times"]) for numbers in by_length.values()]
        memory = [numbers[method]["memory"] / 2**20 for numbers in by_length.values()]
        for axes, values, name in zip(panels, (times, memory), ("seconds", "MiB")):
            axes.plot(list(by_length), values, "o-", label=method)
            axes.set_xlabel("tokens in a sentence")
            axes.set_ylabel(f"{name} of an update")
    panels[0].legend(fontsize="small")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure, print a table for each length, write the JSON and the plot."""
    arguments = parse_arguments()
    words = make_dictionary(arguments.vocabulary)
    trainers = {method: make_trainer(arguments, method, words) for method in arguments.methods}
    by_length = {}
    for length in arguments.lengths:
        by_length[length] = measure(arguments, trainers, length)
        show(by_length[length], length)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    packages = {name: importlib.metadata.version(name) for name in ("torch", "fairseq")}
    print(f"\n{where}, {packages}")
    if arguments.json:
        facts = {key: str(value) for key, value in vars(arguments).items()}
        report = {"arguments": facts, "machine": where, "versions": packages, "lengths": by_length}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if arguments.plot:
        plot(by_length, arguments.plot)


if __name__ == "__main__":
    main()
