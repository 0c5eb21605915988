"""Draws docs/pictures/cost.png from the table of docs/costs.md, where the numbers live.

    python scripts/measure/draw_costs.py

The rows that were drawn are also written into the picture, so that a test can tell when it is out of
date.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parents[2] / "docs"
HEAD = "| | operations (A) | time (A) |"
ROWS = "Description"  # of a PNG's texts the one that holds the rows
PLAIN = "plain"
# Dark and light of one blue for ours, grey for the releases.
OURS, OURS_TIME, RELEASE, RELEASE_TIME = "#9ecae1", "#2171b5", "#d9d9d9", "#7f7f7f"
INK, GRID = "#333333", "#e6e6e6"


class Cost(NamedTuple):
    """A row: ratios to plain fine-tuning; time as median, least and most."""

    name: str
    operations: float
    time: float
    least: float
    most: float


def read_costs(page: Path) -> list[Cost]:
    """The rows of the page's table, but for plain's.

    Raises:
        ValueError: the page has no such table.
    """
    lines = page.read_text("utf-8").splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith(HEAD)), None)
    if start is None:
        raise ValueError(f"{page}: no table that begins with {HEAD!r}")
    costs = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        name, operations, time = (cell.strip() for cell in line.split("|")[1:4])
        if name == PLAIN:
            continue
        median, least, most = map(float, re.findall(r"\d+\.\d+", time))
        costs.append(Cost(name.replace("`", ""), float(operations), median, least, most))
    return costs


def draw(costs: list[Cost], target: Path) -> None:
    """Bars from plain's 1.0: operations above, time below with its range."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import patches, pyplot

    pyplot.rcParams.update({"font.size": 10, "text.color": INK, "axes.labelcolor": INK})
    figure, axes = pyplot.subplots(figsize=(8.4, 0.46 * len(costs) + 1.3), layout="constrained")
    # A gap where another method begins.
    places, place = [], 0.0
    for number, cost in enumerate(costs):
        if number and method_of(cost) != method_of(costs[number - 1]):
            place += 0.45
        places.append(place)
        place += 1
    for where, cost in zip(places, costs):
        released = cost.name.endswith("release")
        colors = (RELEASE, RELEASE_TIME) if released else (OURS, OURS_TIME)
        axes.barh(where - 0.19, cost.operations, height=0.34, color=colors[0])
        axes.barh(where + 0.19, cost.time, height=0.34, color=colors[1])
        spread = [[cost.time - cost.least], [cost.most - cost.time]]
        axes.errorbar(
            cost.time, where + 0.19, xerr=spread, color=INK, elinewidth=1, capsize=2.5, capthick=1
        )
        for height, end, value in (
            (-0.19, cost.operations, cost.operations),
            (0.19, cost.most, cost.time),
        ):
            axes.text(end + 0.05, where + height, f"{value:.2f}", va="center", fontsize=8.5)
    axes.axvline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(1, -0.62, "plain fine-tuning", ha="center", va="bottom", fontsize=9)
    axes.set_yticks(places, [cost.name.replace(" (", "\n(").replace(", --", "\n--") for cost in costs])
    axes.set_ylim(places[-1] + 0.6, -0.6)
    axes.set_xlim(0, max(max(cost.most, cost.operations) for cost in costs) + 0.35)
    axes.set_xlabel("an update, as a ratio to plain fine-tuning (roberta_base, two CPU cores)")
    axes.xaxis.grid(True, color=GRID)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    all_colors = (OURS, OURS_TIME, RELEASE, RELEASE_TIME)
    keys = [patches.Rectangle((0, 0), 1, 1, color=color) for color in all_colors]
    labels = ["operations", "time: median, min - max", "the authors' way: operations", "time"]
    axes.legend(keys, labels, loc="center right", bbox_to_anchor=(1, 0.4), fontsize=9, edgecolor=GRID)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130, metadata={ROWS: json.dumps(costs), "Software": None})
    pyplot.close(figure)


def method_of(cost: Cost) -> str:
    """R-AT of "R-AT, release"."""
    return cost.name.partition(",")[0]


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--page", type=Path, default=DOCS / "costs.md", help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=DOCS / "pictures" / "cost.png", help="(%(default)s)")
    arguments = parser.parse_args(argv)
    draw(read_costs(arguments.page), arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
