"""ASA's masked proportions: of each layer (figure 5), and in the course of a training."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from adv_plugins_cli.command import UserError
from adv_plugins_cli.figures.drawing import new_figure
from adv_plugins_cli.figures.loading import load


def layers(arguments: argparse.Namespace) -> Any:
    """Figure 5."""
    curves = {}
    for named in arguments.checkpoints:
        name, _, checkpoint = named.partition("=")
        model, task = load(Path(checkpoint), arguments.data, raw_text=True)
        found = masked_proportions(model, task, arguments.split, arguments.batch, arguments.seed)
        mean = sum(found) / len(found)
        print(f"{name}: {' '.join(f'{value:.4f}' for value in found)}, mean {mean:.4f}")
        curves[f"{name} (mean {100 * mean:.1f} %)"] = list(enumerate(found, start=1))
    return plot_curves(curves, "layer", "o")


def history(arguments: argparse.Namespace) -> Any:
    """Figure 5's numbers in the course of a training; prints them as a schedule of naive masks."""
    curves = read_history(arguments.log)
    print(f"--asa-masking-schedule {schedule(curves)}")
    return plot_curves(curves, "updates", "")


def schedule(curves: dict[str, list[tuple[int, float]]]) -> str:
    """UPDATE:PROPORTION,... the mean over the layers, of some fifty updates at most.

    Of a log that was gone on with the last line of an update counts.
    """
    by_layer = [dict(points) for points in curves.values()]
    updates = sorted(set().union(*by_layer))
    thinned = {*updates[:: 1 + len(updates) // 50], updates[-1]}
    points = []
    for update in sorted(thinned):
        values = [layer[update] for layer in by_layer if update in layer]
        points.append(f"{update}:{sum(values) / len(values):.4g}")
    return ",".join(points)


def masked_proportions(model: Any, task: Any, split: str, batch: int, seed: int) -> list[float]:
    """Each layer's masked proportion, the mean over the sentences of a split."""
    import torch

    from adv_plugins.batch import source_tokens
    from adv_plugins.models.asa_roberta import biased

    try:
        task.load_dataset(split)
        batches = task.get_batch_iterator(
            task.dataset(split), max_sentences=batch, max_positions=task.max_positions()
        )
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"split {split} cannot be read (--split, --data): {reason[:300]}") from error
    torch.manual_seed(seed)
    with torch.no_grad(), biased(model) as layers:
        for sample in batches.next_epoch_itr(shuffle=False):
            for tokens in source_tokens(sample):
                model(tokens, features_only=True)
    if not layers or not layers[0]:
        raise UserError(f"split {split} has no sentences (--split, --data)")
    return [torch.cat(layer).mean().item() for layer in layers]


def read_history(log: Path) -> dict[str, list[tuple[int, float]]]:
    """(update, masked proportion) points of every layer.

    Raises:
        UserError: the log has none.
    """
    if not log.is_file():
        raise UserError(f"{log}: no such file")
    curves: dict[str, list[tuple[int, float]]] = {}
    *lines, last = log.read_text("utf-8", errors="replace").split("\n")
    for line in lines if "}" not in last else [*lines, last]:  # it may be being written
        _, brace, rest = line.partition("{")
        if '"masked_layer' not in rest:  # the summary of an epoch has other names
            continue
        try:
            numbers = json.loads(brace + rest)
            masked = {key: value for key, value in numbers.items() if key.startswith("masked_layer")}
            for key, value in masked.items():
                point = (int(numbers["num_updates"]), float(value))
                curves.setdefault(key.removeprefix("masked_"), []).append(point)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{log}: {line[:80]!r} is no line of --log-format json") from error
    if not curves:
        raise UserError(f"{log}: no masked_layer in it; train with asa_criterion and json logs")
    return curves


def plot_curves(curves: dict[str, list[tuple[int, float]]], horizontal: str, marker: str) -> Any:
    """Masked proportions, in percent."""
    figure = new_figure(6, 4)
    plot = figure.subplots()
    for name, points in curves.items():
        places, values = zip(*points, strict=True)
        plot.plot(places, [100 * value for value in values], marker=marker, label=name)
    plot.set_xlabel(horizontal)
    plot.locator_params(axis="x", integer=True)
    plot.set_ylabel("masked proportion (%)")
    plot.set_ylim(bottom=0)
    plot.legend()
    return figure
