"""The end of a comparison: statistics, a table as text, a plot."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fairseq_compat import files


def summarise(
    task: str,
    metric: str,
    methods: Sequence[str],
    seeds: Sequence[int],
    chosen: Mapping[str, Mapping[str, str]],
    results: Mapping[tuple[str, int], Mapping[str, Any] | None],
) -> dict[str, Any]:
    """Statistics of every method over the seeds.

    Args:
        chosen: what the search chose for each method; absent where all its candidates failed.
        results: a run's result by (method, seed), None where it failed.
    """
    rows = []
    baseline = _scores("plain", seeds, results)
    for method in methods:
        scores = _scores(method, seeds, results)
        values = list(scores.values())
        rows.append(
            {
                "method": method,
                **dict(chosen.get(method, {})),
                "scores": scores,
                "failed": [seed for seed in seeds if seed not in scores],
                "mean": statistics.mean(values) if values else None,
                "std": statistics.stdev(values) if len(values) > 1 else None,
                "min": min(values, default=None),
                "max": max(values, default=None),
                "p": None if method == "plain" else paired_test(scores, baseline),
                "seconds": [r["seconds"] for seed in seeds if (r := results.get((method, seed)))],
            }
        )
    return {"task": task, "metric": metric, "seeds": list(seeds), "methods": rows}


def _scores(
    method: str, seeds: Sequence[int], results: Mapping[tuple[str, int], Mapping[str, Any] | None]
) -> dict[int, float]:
    return {seed: r["last"] for seed in seeds if (r := results.get((method, seed))) is not None}


def paired_test(scores: Mapping[int, float], baseline: Mapping[int, float]) -> float | None:
    """Two-sided p of the paired t test over the seeds that both have; None where it has no value."""
    seeds = [seed for seed in scores if seed in baseline]
    differences = [scores[seed] - baseline[seed] for seed in seeds]
    if len(differences) < 2 or len(set(differences)) == 1:
        return None
    from scipy.stats import ttest_rel

    return float(ttest_rel([scores[s] for s in seeds], [baseline[s] for s in seeds]).pvalue)


def text(summary: Mapping[str, Any]) -> str:
    """The table."""
    title = f"{summary['task']}, {summary['metric']}, {len(summary['seeds'])} seeds, last update"
    lines = [title, f"{'method':<8} {'mean':>6} {'std':>6} {'min':>6} {'max':>6} {'p':>6}  chosen"]
    for row in summary["methods"]:
        numbers = " ".join(_number(row[name]) for name in ("mean", "std", "min", "max"))
        p = "" if row["p"] is None else f"{row['p']:.3f}"
        chosen = " ".join(filter(None, (f"lr {row['lr']}" if "lr" in row else "", row.get("flags"))))
        if row["failed"]:
            chosen = f"FAILED: {len(row['failed'])} of {len(summary['seeds'])} seeds; {chosen}"
        lines.append(f"{row['method']:<8} {numbers} {p:>6}  {chosen}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return f"{'-':>6}" if value is None or math.isnan(value) else f"{value:6.2f}"


def plot(summaries: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """One panel a task: every seed a point, the mean a bar; returns the file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        1, len(summaries), figsize=(3.2 * len(summaries), 3.2), squeeze=False, layout="constrained"
    )
    for summary, axes in zip(summaries, panels[0]):
        names = [row["method"] for row in summary["methods"]]
        for place, row in enumerate(summary["methods"]):
            scores = list(row["scores"].values())
            axes.plot([place] * len(scores), scores, "o", color="tab:blue", alpha=0.6)
            if scores:
                axes.hlines(row["mean"], place - 0.3, place + 0.3, color="black")
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_title(summary["task"])
        axes.set_ylabel(summary["metric"])
        axes.grid(axis="y", alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.written_beside(path) as partial:
        figure.savefig(partial, dpi=150, format="png")
    pyplot.close(figure)
    return path
