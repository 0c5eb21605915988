"""What an update of each method costs, as ratios to plain fine-tuning on the same batch in one run.

    python scripts/measure/benchmark.py --arch roberta_base --batch-size 8 --length 128

Every update goes through fairseq's own Trainer (task.train_step, backward, clipping, optimizer), one
for all methods of an architecture. FLOPs are counted (torch's counter: exact, the same on every
machine), and so are forwards and backwards, in units of the batch and of all layers; wall time is the
median over --repeats rounds in which the methods take turns; peak memory is what the allocator holds
beyond the model and the optimizer's state. Methods called *-release do it as the authors' own code does
(authors_way.py); FreeLB's makes a fourth pass for its three steps. --lengths repeats it all for several
lengths and draws them; --recomputed adds each method with --checkpoint-activations.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import statistics
import sys
import warnings
from pathlib import Path
from typing import Any

import fairseq_compat

fairseq_compat.install()

import torch  # noqa: E402
from fairseq.trainer import Trainer  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

import adv_plugins  # noqa: E402, F401
import authors_way  # noqa: E402, F401 - registers the releases' ways
from adv_plugins.methods import METHODS  # noqa: E402
from adv_plugins_cli.command import UserError, one_line_errors, positive  # noqa: E402
from adv_plugins_cli.recipes.update_times import Updates, make_sample  # noqa: E402
from fairseq_compat.files import write_json  # noqa: E402
from synthetic import (  # noqa: E402
    BENCHMARKED,
    OF_CPUS,
    VOCABULARY,
    check_architecture,
    check_sizes,
    configure,
    make_dictionary,
)

# Of these methods, and of their releases' ways; the part before the hyphen is the method's name.
VARIANTS = {
    "freelb-3": "--adv-steps 3",
    "freelb-release": "--release-adv-steps 3",
    "rat": "",
    "rat-sequential": "--sequential-passes",
    "rat-release": "",
    "rapt-1": "--noise-max-layer 1",
    "rapt-3": "--noise-max-layer 3",
    "rapt-sequential": "--noise-max-layer 3 --sequential-passes",
    "asa": "",
    "asa-sequential": "--sequential-passes",
    "asa-release": "",
}
RECOMPUTED = " + recomputed"


def flags_of(name: str) -> str:
    """The criterion of a variant and its options; a method without a variant has its own."""
    method, _, way = name.partition("-")
    if method == "plain":
        return "--criterion sentence_prediction"
    criterion = f"{method}_release" if way == "release" else METHODS[method].criterion
    return f"--criterion {criterion} {VARIANTS.get(name, '')}"


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    others = [name for name in METHODS if not any(each.split("-")[0] == name for each in VARIANTS)]
    known = ["plain", *VARIANTS, *others]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default="roberta_base", help="roberta_base or roberta_large")
    parser.add_argument("--layers", type=positive, help="another number of layers")
    parser.add_argument(
        "--vocabulary", type=positive, default=VOCABULARY, help="words (default: RoBERTa's)"
    )
    parser.add_argument("--batch-size", type=positive, default=8)
    parser.add_argument("--lengths", "--length", nargs="+", type=positive, default=[128])
    parser.add_argument("--plot", type=Path, help="with several lengths: draw them into this file")
    parser.add_argument(
        "--profile", type=Path, metavar="DIR", help="write a Chrome trace of one update of each method"
    )
    parser.add_argument("--methods", nargs="+", default=list(known), choices=known)
    parser.add_argument(
        "--recomputed", action="store_true", help="each method with --checkpoint-activations, too"
    )
    parser.add_argument("--repeats", type=positive, default=5)
    parser.add_argument("--precision", default="fp32", choices=BENCHMARKED)
    parser.add_argument("--json", type=Path, help="write the numbers here, too")
    arguments = parser.parse_args()
    if arguments.precision not in OF_CPUS and not torch.cuda.is_available():
        usable = " or ".join(OF_CPUS)
        parser.error(f"--precision {arguments.precision} needs a GPU: without one, give {usable}")
    if arguments.plot and arguments.plot.suffix not in (".png", ".pdf", ".svg"):
        parser.error(f"--plot {arguments.plot}: give a name that ends in .png, .pdf or .svg")
    return arguments


class Method(Updates):
    """A variant's updates."""

    def __init__(
        self, arguments: argparse.Namespace, method: str, words: Any, trainers: dict[Any, Trainer]
    ) -> None:
        name, recomputed, _ = method.partition(RECOMPUTED)
        others = flags_of(name)
        if arguments.layers:
            others += f" --encoder-layers {arguments.layers}"
        if recomputed:
            others += " --checkpoint-activations"
        with_adversaries = name != "plain" and METHODS[name.split("-")[0]].adversaries
        arch = f"asa_{arguments.arch}" if with_adversaries else arguments.arch
        cfg = configure(arch, arguments.precision, others)
        super().__init__(cfg, words, trainers, (arch, recomputed))


def count_work(method: Method, sample: dict[str, Any]) -> dict[str, float]:
    """Floating-point operations of one update, and its forwards and backwards of the whole batch
    through all layers (activations that are computed again are forwards, too)."""
    layers = method.trainer.model.encoder.sentence_encoder.layers
    share = 1 / len(layers) / sample["net_input"]["src_tokens"].size(0)
    counts = {"forwards": 0.0, "backwards": 0.0}

    def hook(_module: Any, _arguments: Any, output: torch.Tensor) -> None:
        part = output.size(1) * share
        counts["forwards"] += part

        def backward(_gradient: torch.Tensor) -> None:
            counts["backwards"] += part

        if output.requires_grad:
            output.register_hook(backward)

    handles = [layer.fc1.register_forward_hook(hook) for layer in layers]
    # The counter does not know the CPU's fused attention.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        method.update(sample)
    for handle in handles:
        handle.remove()
    return {"flops": counter.get_total_flops(), **counts}


def measure_memory(method: Method, sample: dict[str, Any]) -> int:
    """Peak bytes that an update takes beyond what is there before it (the last one's gradients, which
    fairseq leaves until the next update, are not)."""
    method.trainer.zero_grad()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        method.update(sample)
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        method.update(sample)
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda each: each.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def write_profile(method: Method, sample: dict[str, Any], path: Path) -> None:
    """Where the time of one update goes, for chrome://tracing."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        method.update(sample)
    path.parent.mkdir(parents=True, exist_ok=True)
    profile.export_chrome_trace(str(path))


def measure(
    arguments: argparse.Namespace, methods: dict[str, Method], length: int
) -> dict[str, dict[str, Any]]:
    """The numbers of every method at one length, with their ratios to the first one's.

    A method that runs out of memory has none.
    """
    sample = make_sample(arguments.batch_size, length, arguments.vocabulary)
    numbers: dict[str, dict[str, Any]] = {}
    for name, method in methods.items():
        try:
            method.update(sample)  # warm: the optimizer's state is there from now on
            own: dict[str, Any] = {**count_work(method, sample), "times": []}
            own["memory"] = measure_memory(method, sample)
        except torch.OutOfMemoryError:
            print(f"{name}: out of memory", file=sys.stderr)
            torch.cuda.empty_cache()
            continue
        numbers[name] = own
        if arguments.profile:
            write_profile(method, sample, arguments.profile / f"{name}-{length}.json")
    if arguments.methods[0] not in numbers:
        raise UserError(f"{arguments.methods[0]} does not fit: give a smaller --batch-size or --lengths")
    for _ in range(arguments.repeats):
        for name, own in numbers.items():
            own["times"].append(methods[name].seconds(sample))
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


def show(numbers: dict[str, dict[str, Any]], length: int, gradients: int) -> None:
    """Print the table of one length."""
    print(f"\nlength {length}")
    print("| method | FLOPs | forwards | backwards | time (min - max) | memory |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for method, own in numbers.items():
        row = own["ratios"]
        time_ratio = "{:.2f} ({:.2f} - {:.2f})".format(row["time"], *row["time_range"])
        passes = f"{own['forwards']:.2f} | {own['backwards']:.2f}"
        print(f"| {method} | {row['flops']:.3f} | {passes} | {time_ratio} | {row['memory']:.2f} |")
    plain = next(iter(numbers.values()))
    seconds = statistics.median(plain["times"])
    memory = plain["memory"] / 2**20
    print(f"\nplain: {plain['flops']:.3e} FLOPs, {seconds:.3f} s, {memory:.0f} MiB", end=" ")
    print(f"(one copy of the gradients: {gradients / 2**20:.0f} MiB)")


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


def run(arguments: argparse.Namespace) -> None:
    """Measure, print a table for each length, write the JSON and the plot.

    Raises:
        UserError: the model cannot be built, or does not fit into the memory.
    """
    check_sizes(lengths=arguments.lengths, vocabulary=arguments.vocabulary)
    check_architecture(arguments.arch)
    if arguments.plot:
        import matplotlib  # noqa: F401 - missing, it is missing before hours of measuring
    warnings.simplefilter("ignore")  # fairseq and hydra give them by the dozen
    words = make_dictionary(arguments.vocabulary)
    names = list(arguments.methods)
    if arguments.recomputed:
        names += [name + RECOMPUTED for name in names if not name.endswith("release")]
    trainers: dict[Any, Trainer] = {}
    methods = {name: Method(arguments, name, words, trainers) for name in names}
    parameters = methods[names[0]].trainer.model.parameters()
    gradients = sum(each.numel() * each.element_size() for each in parameters)
    by_length = {}
    for length in arguments.lengths:
        by_length[length] = measure(arguments, methods, length)
        show(by_length[length], length, gradients)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    packages = {name: importlib.metadata.version(name) for name in ("torch", "fairseq")}
    print(f"\n{where}, {packages}")
    if arguments.json:
        facts = {key: str(value) for key, value in vars(arguments).items()}
        report = {"arguments": facts, "machine": where, "versions": packages, "lengths": by_length}
        write_json(arguments.json, report)
    if arguments.plot:
        plot(by_length, arguments.plot)


def main() -> None:
    """Run the command line; a fault of the request is one line, not a traceback."""
    arguments = parse_arguments()
    with one_line_errors("benchmark.py"):
        run(arguments)


if __name__ == "__main__":
    main()
