"""Results as tables: a header and rows of text each, the same ones in the terminal and the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple


class Table(NamedTuple):
    """title: what it shows; note: how to read it; the first column names what a row is about."""

    title: str
    note: str
    header: list[str]
    rows: list[list[str]]


def tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """All that the results have."""
    names = results["names"]
    if "over_seeds" in results:
        yield _over_seeds(results["over_seeds"])
    if "scores" in results:
        yield _scores(results, names)
    if "calibration" in results:
        yield Table(
            "Calibration",
            "ECE: expected calibration error over 15 bins of confidence, in percent; Brier from 0 to 2.",
            ["", "ECE", "Brier"],
            [
                [name, f"{each['ece']:.2f}", f"{each['brier']:.4f}"]
                for name, each in results["calibration"].items()
            ],
        )
    if "worst_cases" in results:
        yield _worst_cases(results["worst_cases"])
    if "curves" in results:
        yield from _curves(results["curves"])
    for name, each in results.get("sets", {}).items():
        yield _set(name, each)
    for name, each in results.get("attacks", {}).items():
        yield _attack(name, each)
    if results["seconds_per_row"]:
        spent = results["seconds_per_row"]
        yield Table(
            "Cost",
            "Seconds a row, on the machine of this run, of the rows that no earlier run had done.",
            ["", *names],
            [
                [what, *(f"{each[name]:.3g}" if name in each else "-" for name in names)]
                for what, each in spent.items()
            ],
        )


def _estimate(each: Mapping[str, Any], digits: int = 2) -> str:
    text = f"{each['value']:.{digits}f} [{each['low']:.{digits}f}, {each['high']:.{digits}f}]"
    other = each.get("difference")
    if other is None:
        return text
    limits = f"[{other['low']:+.{digits}f}, {other['high']:+.{digits}f}]"
    return f"{text}; {other['value']:+.{digits}f} {limits}, p {each.get('mcnemar', other['p']):.3g}"


def _over_seeds(found: Mapping[str, Any]) -> Table:
    methods = list(next(iter(found.values())))
    rows = []
    for title, each in found.items():
        cells = []
        for method in methods:
            one = each[method]
            spread = "" if one["std"] is None else f" \u00b1 {one['std']:.3g}"
            p = "" if one["p"] is None else f"; p {one['p']:.3g}"
            cells.append(f"{one['mean']:.4g}{spread}{p}")
        rows.append([title, *cells])
    counts = sorted({each[method]["seeds"] for each in found.values() for method in methods})
    note = (
        f"Mean and standard deviation over {' to '.join(map(str, counts))} seeds; p: two-sided, of the "
        "paired t test against the first method over the seeds that both have."
    )
    return Table("Over seeds", note, ["", *methods], rows)


def _scores(results: Mapping[str, Any], names: Sequence[str]) -> Table:
    scores = results["scores"]
    metrics = list(scores[names[0]])
    split = f", {results['split']}" if results["split"] else ""
    note = (
        f"{results['data']}{split}, {results['rows']} rows; as fairseq-validate logs them, with 95 % "
        "intervals of the bootstrap over rows. Behind the semicolon the difference to the first "
        "checkpoint on the same rows; p by McNemar's exact test for accuracy, else by the paired "
        "bootstrap."
    )
    rows = []
    for name in names:
        rows.append([name, *(_estimate(scores[name][m], 3 if m == "loss" else 2) for m in metrics)])
    return Table("Scores", note, ["", *metrics], rows)


def _worst_cases(found: Mapping[str, Any]) -> Table:
    models = found["models"]
    count = next(iter(models.values()))["rows"]
    eps = f"{found['eps']:g} ||X||"
    if found["reference"] is not None:
        eps = f"each row's own, down from {eps}, within which {found['reference']} holds"
    note = (
        f"The largest increase of the loss (nats) within a ball around the word embeddings X, over "
        f"{count} rows that all checkpoints get right. Epsilon: {eps}; {found['steps']} steps of "
        f"{found['step_size']:g}, {found['starts']} start(s). Converged as far as the last tenth of the "
        "steps gained little, and the starts agree."
    )
    columns = {
        "increase, median": "increase_median",
        "variance": "increase_variance",
        "natural loss, median": "loss_median",
        "natural variance": "loss_variance",
        "stays right, %": "held",
        "gain of last tenth": "late_gain",
        "between starts": "start_spread",
    }
    rows = [[name, *(f"{each[key]:.3g}" for key in columns.values())] for name, each in models.items()]
    return Table("Worst case in embedding space", note, ["", *columns], rows)


def _curves(found: Mapping[str, Any]) -> Iterator[Table]:
    sizes = [f"{size:g}" for size in found["sizes"]]
    for key, title in (("attack", "under PGD-20"), ("noise", "under random noise of that norm")):
        rows = [[name, *(f"{v:.1f}" for v in each[key])] for name, each in found["models"].items()]
        note = f"Percent of {found['rows']} rows, by epsilon as a share of ||X||."
        yield Table(f"Accuracy {title}", note, ["", *sizes], rows)
    models = found["models"]
    layers = range(len(next(iter(models.values()))["layers"]))
    yield Table(
        "Accuracy under noise at a layer",
        f"Gaussian, of {found['layer_noise']:g} times the norm of the layer's hidden states; layer 0 is "
        "the embeddings' output.",
        ["", *map(str, layers)],
        [[name, *(f"{v:.1f}" for v in each["layers"])] for name, each in models.items()],
    )


def _set(name: str, found: Mapping[str, Any]) -> Table:
    models = found["models"]
    first = next(iter(models.values()))
    kinds = [kind for kind in ("accuracy", "consistency") if kind in first]
    rows = [
        [
            model,
            *(_estimate(each[kind]) for kind in kinds),
            *(f"{each['parts'][part]:.2f}" for part in first["parts"]),
        ]
        for model, each in models.items()
    ]
    groups = f", {found['groups']} groups that must be right as a whole" if found["groups"] else ""
    return Table(name, f"{found['rows']} rows{groups}.", ["", *kinds, *first["parts"]], rows)


def _attack(name: str, found: Mapping[str, Any]) -> Table:
    columns = {
        "accuracy": "accuracy",
        "under attack": "accuracy_under_attack",
        "success, %": "success",
        "queries": "queries",
        "words changed, %": "words_changed",
    }
    models = found["models"]
    rows = [[model, *(f"{each[key]:.1f}" for key in columns.values())] for model, each in models.items()]
    count = next(iter(models.values()))["rows"]
    note = (
        f"Greedy by importance on {count} rows; queries: mean of the rows that were right; words "
        "changed: mean of the rows that were broken."
    )
    return Table(f"Attack in text: {name}", note, ["", *columns], rows)


def lines(results: Mapping[str, Any]) -> Iterator[str]:
    """The tables for a terminal."""
    for table in tables(results):
        yield from lines_of(table)


def lines_of(table: Table) -> Iterator[str]:
    """One of them."""
    yield f"{table.title}: {table.note}"
    widths = [max(map(len, column)) for column in zip(table.header, *table.rows)]
    for row in (table.header, *table.rows):
        yield "  " + "  ".join(f"{text:<{width}}" for text, width in zip(row, widths)).rstrip()
    yield ""
