"""Clean and robust in one table: each method's mean and spread over its seeds, and a paired test.

Checkpoints whose names end alike in ``seedN``, as ``finetune`` calls their folders, are one method's.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adv_plugins_cli.recipes.comparison_table import paired_test

SEED = re.compile(r"(?:^|(?P<method>.+)/)seed(?P<seed>\d+)(?P<rest>/.+)?")


def methods_of(names: Sequence[str]) -> dict[str, dict[int, str]]:
    """Method: seed: name; {} unless every checkpoint is a seed of a method and one has several."""
    found: dict[str, dict[int, str]] = {}
    for name in names:
        match = SEED.fullmatch(name)
        if match is None:
            return {}
        method = (match["method"] or "") + (match["rest"] or "")
        found.setdefault(method, {})[int(match["seed"])] = name
    several = any(len(seeds) > 1 for seeds in found.values())
    return found if several and sum(map(len, found.values())) == len(names) else {}


def measures(results: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    """What one number a checkpoint tells: its title, and the number by the checkpoint's name."""
    names = results["names"]
    if "scores" in results:
        for metric in results["scores"][names[0]]:
            yield metric, {name: results["scores"][name][metric]["value"] for name in names}
    if "calibration" in results:
        yield "ECE", {name: results["calibration"][name]["ece"] for name in names}
    if "worst_cases" in results:
        models = results["worst_cases"]["models"]
        yield "worst increase, median", {name: models[name]["increase_median"] for name in names}
    if "curves" in results:
        sizes, models = results["curves"]["sizes"], results["curves"]["models"]
        for place, size in enumerate(sizes):
            if size:
                yield f"PGD-20, {size:g}", {name: models[name]["attack"][place] for name in names}
    for title, each in results.get("sets", {}).items():
        for kind in ("accuracy", "consistency"):
            if kind in each["models"][names[0]]:
                yield f"{title}: {kind}", {name: each["models"][name][kind]["value"] for name in names}
    for title, each in results.get("attacks", {}).items():
        models = each["models"]
        yield f"under {title}", {name: models[name]["accuracy_under_attack"] for name in names}


def over_seeds(results: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """Measure: method: mean, std, number of seeds, and p of the paired t test against the first method
    over the seeds that both have (None of the first itself, or of fewer than two); {} of no seeds."""
    methods = methods_of(results["names"])
    if not methods:
        return {}
    found: dict[str, dict[str, dict[str, float | int | None]]] = {}
    for title, values in measures(results):
        scores = {
            method: {seed: values[name] for seed, name in seeds.items()}
            for method, seeds in methods.items()
        }
        first = next(iter(scores.values()))
        found[title] = {
            method: {
                "mean": statistics.mean(each.values()),
                "std": statistics.stdev(each.values()) if len(each) > 1 else None,
                "seeds": len(each),
                "p": None if each is first else paired_test(each, first),
            }
            for method, each in scores.items()
        }
    return found
