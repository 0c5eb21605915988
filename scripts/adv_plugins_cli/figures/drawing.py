"""What all figures are drawn on."""

from __future__ import annotations

from typing import Any


def new_figure(width: float, height: float) -> Any:
    """A figure that needs no screen."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
