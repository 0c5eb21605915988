"""What is measured in embedding space of one checkpoint: batches, progress, results as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adv_plugins_cli.robustness import curves
from adv_plugins_cli.robustness.attacked_model import AttackedModel
from adv_plugins_cli.robustness.results_file import ResultsFile
from adv_plugins_cli.robustness.rows import Rows
from adv_plugins_cli.robustness.worst_case import hash_of, norms, safe_radius, worst_case

if TYPE_CHECKING:
    from adv_plugins_cli.checkpoints.predictor import Predictor

# FreeLB, section 4.3: alpha, and epsilon as a share of ||X||_F.
STEP_SIZE, EPSILON = 5e-3, 0.01


@dataclass(frozen=True)
class WorstCases:
    """eps: epsilon as a share of ||X||_F; steps, step_size: of the ascent; starts: how many, the first
    from 0; decrements: in how many the search for a sentence's own epsilon goes down to 0."""

    eps: float = EPSILON
    steps: int = 200
    step_size: float = STEP_SIZE
    starts: int = 1
    decrements: int = 10


@dataclass(frozen=True)
class Curves:
    """sizes: epsilons as shares of ||X||_F; draws: of the noise; layer_noise: its norm as a share of a
    layer's hidden states'."""

    sizes: tuple[float, ...] = (0.0, 0.0025, 0.005, 0.01, 0.02, 0.04)
    draws: int = 5
    layer_noise: float = 0.5


def worst_cases(
    predictor: Predictor,
    rows: Rows,
    options: WorstCases,
    results: ResultsFile,
    *,
    radii: Sequence[float] | None,
    seed: int,
    batch_size: int,
) -> list[dict[str, Any]]:
    """The worst case of every row.

    Args:
        radii: epsilon of each row; None: ``options.eps`` times its ||X||_F.
    """

    def measure(numbers: Sequence[int], attacked: AttackedModel) -> None:
        radius = options.eps * norms(attacked)
        if radii is not None:
            radius = radius.new_tensor([radii[number] for number in numbers])
        found = worst_case(
            attacked,
            radius,
            **_ascent(options, seed, numbers),
        )
        columns = {**found._asdict(), "radius": radius}
        for place, number in enumerate(numbers):
            results.add(number, **{name: each[place].item() for name, each in columns.items()})

    return _in_batches("worst case", predictor, rows, results, batch_size, measure)


def safe_radii(
    predictor: Predictor,
    rows: Rows,
    options: WorstCases,
    results: ResultsFile,
    *,
    seed: int,
    batch_size: int,
) -> list[float]:
    """For every row the largest epsilon within which this model holds."""

    def measure(numbers: Sequence[int], attacked: AttackedModel) -> None:
        found = safe_radius(
            attacked,
            options.eps * norms(attacked),
            decrements=options.decrements,
            **_ascent(options, seed, numbers),
        )
        for number, radius in zip(numbers, found.tolist()):
            results.add(number, radius=radius)

    found = _in_batches("search for epsilon", predictor, rows, results, batch_size, measure)
    return [float(row["radius"]) for row in found]


def measure_curves(
    predictor: Predictor,
    rows: Rows,
    options: Curves,
    results: ResultsFile,
    *,
    seed: int,
    batch_size: int,
) -> list[dict[str, Any]]:
    """Whether each row stays right, for each size and layer."""
    from adv_plugins.fork import encoder_layers

    layers = range(len(encoder_layers(predictor.model)) + 1)

    def measure(numbers: Sequence[int], attacked: AttackedModel) -> None:
        seeds = _seeds(seed, numbers)
        attack = [curves.under_attack(attacked, size).tolist() for size in options.sizes]
        noise = [
            curves.under_noise(attacked, size, options.draws, seeds).tolist() for size in options.sizes
        ]
        at_layers = [
            curves.under_layer_noise(attacked, layer, options.layer_noise, options.draws, seeds).tolist()
            for layer in layers
        ]
        for place, number in enumerate(numbers):
            results.add(
                number,
                attack=[each[place] for each in attack],
                noise=[each[place] for each in noise],
                layers=[each[place] for each in at_layers],
            )

    return _in_batches("curves", predictor, rows, results, batch_size, measure)


def summarise_worst_cases(found: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Table 5's and Table 8's numbers: median and variance, of the increase and of the clean loss.

    And what tells of convergence: ``start_spread`` is the median difference between the starts that
    found most and least, ``late_gain`` the median gain of the last tenth of the steps.
    """
    increase, clean, least, late, radius = (
        np.array([row[name] for row in found])
        for name in ("increase", "clean", "least", "late", "radius")
    )
    return {
        "rows": len(found),
        "increase_median": float(np.median(increase)),
        "increase_variance": float(np.var(increase)),
        "loss_median": float(np.median(clean)),
        "loss_variance": float(np.var(clean)),
        "radius_median": float(np.median(radius)),
        "held": float(100 * np.mean([row["held"] for row in found])),
        "start_spread": float(np.median(increase - least)),
        "late_gain": float(np.median(late)),
    }


def summarise_curves(found: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Accuracies in percent."""
    return {
        name: (100 * np.mean([row[name] for row in found], axis=0)).tolist()
        for name in ("attack", "noise", "layers")
    }


def _ascent(options: WorstCases, seed: int, numbers: Sequence[int]) -> dict[str, Any]:
    return {
        "steps": options.steps,
        "step_size": options.step_size,
        "starts": options.starts,
        "seeds": _seeds(seed, numbers),
    }


def _seeds(seed: int, numbers: Sequence[int]) -> list[int]:
    return [hash_of(seed, number) for number in numbers]


def _in_batches(
    title: str,
    predictor: Predictor,
    rows: Rows,
    results: ResultsFile,
    batch_size: int,
    measure: Callable[[Sequence[int], AttackedModel], None],
) -> list[dict[str, Any]]:
    """Measure the rows that have no results yet, those of like length together."""
    from tqdm import tqdm

    from adv_plugins_cli.checkpoints.predictor import by_length

    left = [number for number in range(len(rows)) if number not in results.done]
    lengths = rows.lengths()
    name = f"{predictor.trained.checkpoint.parent.name}: {title}"
    with tqdm(total=len(rows), initial=len(rows) - len(left), desc=name, unit=" rows") as progress:
        for batch in by_length([lengths[number] for number in left], batch_size):
            numbers = [left[place] for place in batch]
            measure(numbers, AttackedModel(predictor, rows.take(numbers)))
            progress.update(len(numbers))
    return results.rows(len(rows))
