"""The report's pictures, as PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from adv_plugins_cli.robustness.calibration import BINS


def figures(results: Mapping[str, Any]) -> dict[str, bytes]:
    """File name: picture."""
    found = {}
    if "calibration" in results:
        found["reliability.png"] = _reliability(results["calibration"])
    if "curves" in results:
        curves = results["curves"]
        for key, title in (("attack", "PGD-20"), ("noise", "random noise")):
            values = {name: each[key] for name, each in curves["models"].items()}
            label = "epsilon, share of ||X||"
            found[f"{key}.png"] = _lines(curves["sizes"], values, label, f"accuracy under {title}")
        values = {name: each["layers"] for name, each in curves["models"].items()}
        layers = list(range(len(next(iter(values.values())))))
        found["layers.png"] = _lines(layers, values, "layer", "accuracy under noise at a layer")
    return found


def _axes(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def _lines(x: Sequence[float], values: Mapping[str, Sequence[float]], label: str, title: str) -> bytes:
    figure, axes = _axes(5.5, 3.8)
    for (name, y), style in zip(values.items(), _styles()):
        axes.plot(x, y, label=name, **style)
    axes.set(xlabel=label, ylabel="accuracy (%)", title=title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return _png(figure)


def _reliability(models: Mapping[str, Any]) -> bytes:
    figure, axes = _axes(5.5, 4.5)
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="as good as its word")
    for (name, each), style in zip(models.items(), _styles()):
        bins = each["bins"]
        shown = [number for number in range(BINS) if bins["counts"][number]]
        x = [bins["confidence"][number] for number in shown]
        axes.plot(x, [bins["accuracy"][number] for number in shown], label=name, **style)
    axes.set(xlabel="mean confidence", ylabel="share that is right", title="reliability")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return _png(figure)


def _styles() -> Any:
    """Told apart without colours, too."""
    from itertools import cycle

    return ({"marker": marker, "markersize": 4} for marker in cycle("osv^Dx*P"))
