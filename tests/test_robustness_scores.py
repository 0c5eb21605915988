"""Metrics, calibration, intervals and tests of chance, against what can be counted by hand."""

import itertools

import numpy as np
import pytest
from scipy.stats import binom, ttest_rel
from sklearn.metrics import f1_score, matthews_corrcoef

from adv_plugins_cli.robustness import calibration
from adv_plugins_cli.robustness.metrics import metrics_of
from adv_plugins_cli.robustness.outputs import Outputs
from adv_plugins_cli.robustness.results_file import ResultsFile
from adv_plugins_cli.robustness.seeds import methods_of, over_seeds
from adv_plugins_cli.robustness.statistics import difference, draws, estimate, mcnemar
from adv_plugins_cli.robustness.tables import lines

ALL = np.arange(60)


def outputs(seed, signal=1.0):
    random = np.random.default_rng(seed)
    targets = np.random.default_rng(0).integers(2, size=60)
    values = random.normal(size=(60, 2))
    values[np.arange(60), targets] += signal
    return Outputs("classification", values, targets, ALL, 60)


def test_metrics_are_those_of_the_libraries_and_of_drawn_rows():
    found = outputs(1)
    metrics = metrics_of(found, ["report_mcc", "report_acc_and_f1"], ["0", "1"])
    rows = np.random.default_rng(5).integers(60, size=60)
    for numbers in (ALL, rows):
        chosen, targets = found.chosen[numbers], found.targets[numbers]
        assert metrics["mcc"](numbers) == pytest.approx(100 * matthews_corrcoef(targets, chosen))
        assert metrics["f1"](numbers) == pytest.approx(100 * f1_score(targets, chosen))
        assert metrics["accuracy"](numbers) == pytest.approx(100 * np.mean(chosen == targets))
    # the label 1 is the positive one, whatever its number
    turned = metrics_of(found, ["report_acc_and_f1"], ["1", "0"])
    assert turned["f1"](ALL) == pytest.approx(100 * f1_score(1 - found.targets, 1 - found.chosen))


def test_token_metrics_count_words_and_entities():
    labels = ["O", "B-x", "I-x"]
    targets = np.array([1, 2, 0, 0, 1])
    chosen = np.array([1, 2, 0, 1, 0])
    found = Outputs("tokens", np.eye(3)[chosen] * 9, targets, np.array([0, 0, 0, 2, 2]), 3)
    metrics = metrics_of(found, [], labels)
    everything = np.arange(3)
    assert metrics["accuracy"](everything) == pytest.approx(60)
    assert metrics["accuracy"](np.array([0, 0])) == 100
    assert metrics["precision"](everything) == metrics["recall"](everything) == 50
    assert found.right.tolist() == [True, True, False]


def test_calibration_error_is_that_of_a_count_by_hand():
    confidence = np.array([0.55, 0.55, 0.95, 0.95, 0.95, 0.6])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    targets = np.array([0, 1, 0, 0, 1, 0])
    bins = calibration.reliability(probabilities, targets)
    # 0.6 = 9/15 is the upper end of the ninth bin (8/15, 9/15], where 0.55 is, too
    assert bins.counts[8] == 3 and bins.counts[14] == 3
    expected = (3 * abs(2 / 3 - 1.7 / 3) + 3 * abs(2 / 3 - 0.95)) / 6
    assert calibration.calibration_error(bins) == pytest.approx(100 * expected)
    brier = np.mean([2 * (1 - c) ** 2 if y == 0 else 2 * c**2 for c, y in zip(confidence, targets)])
    assert calibration.brier(probabilities, targets) == pytest.approx(brier)
    table = calibration.confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    assert table.tolist() == [[1, 0], [1, 1]]


def test_the_interval_is_that_of_the_binomial():
    """Of an accuracy the bootstrap draws from a binomial distribution."""
    found = outputs(1)
    metrics = metrics_of(found, [], ["0", "1"])
    value, low, high = estimate(metrics["accuracy"], 60, list(draws(60, 4000, 1)))
    expected = binom.ppf([0.025, 0.975], 60, value / 100) / 60 * 100
    np.testing.assert_allclose([low, high], expected, atol=100 / 60)
    assert low < value < high


def test_paired_tests_see_what_single_intervals_do_not():
    first, same, better = outputs(1), outputs(1), outputs(2, signal=3.0)
    samples = list(draws(60, 500, 1))
    metrics = [metrics_of(each, [], ["0", "1"])["accuracy"] for each in (first, same, better)]
    assert difference(metrics[1], metrics[0], 60, samples) == (0, 0, 0, 1)
    found = difference(metrics[2], metrics[0], 60, samples)
    assert found.low > 0 and found.p < 0.05
    assert found.value == pytest.approx(metrics[2](ALL) - metrics[0](ALL))
    turned = difference(metrics[0], metrics[2], 60, samples)
    assert turned.p == found.p and turned.high == -found.low


@pytest.mark.parametrize("alone,others", itertools.product([0, 2, 9], [0, 1, 5]))
def test_mcnemar_is_the_exact_binomial_test(alone, others):
    one = np.array([True] * alone + [False] * others + [True] * 7)
    other = np.array([False] * alone + [True] * others + [True] * 7)
    n, least = alone + others, min(alone, others)
    expected = min(1.0, 2 * binom.cdf(least, n, 0.5)) if n else 1.0
    assert mcnemar(one, other) == pytest.approx(expected)


def test_results_go_on_where_a_killed_run_stopped(tmp_path):
    path = tmp_path / "rows.jsonl"
    first = ResultsFile(path, {"steps": 3})
    first.add(2, value=1.5)
    first.add(0, value=0.5)
    with path.open("a") as file:
        file.write('{"row": 1, "val')  # killed while it wrote
    again = ResultsFile(path, {"steps": 3})
    assert again.rows(3) == [{"row": 0, "value": 0.5}, {"row": 2, "value": 1.5}]
    again.add(1, value=1.0)
    assert [row["value"] for row in ResultsFile(path, {"steps": 3}).rows(3)] == [0.5, 1.0, 1.5]
    assert ResultsFile(path, {"steps": 4}).rows(3) == [], "results of something else"


def test_names_that_end_in_seeds_are_methods():
    assert methods_of(["plain/seed1", "plain/seed2", "rat/seed1"]) == {
        "plain": {1: "plain/seed1", 2: "plain/seed2"},
        "rat": {1: "rat/seed1"},
    }
    assert methods_of(["seed1", "seed2"]) == {"": {1: "seed1", 2: "seed2"}}
    assert methods_of(["plain/seed1", "rat/seed1"]) == {}, "no spread to tell"
    assert methods_of(["plain/seed1", "plain/seed2", "other"]) == {}


def test_methods_are_compared_over_seeds():
    values = {"plain": [80.0, 82.0, 81.0], "rat": [83.0, 84.0, 82.5]}
    by_name = {f"{m}/seed{i}": v for m, each in values.items() for i, v in enumerate(each)}
    results = {
        "names": list(by_name),
        "scores": {name: {"accuracy": {"value": v, "low": v, "high": v}} for name, v in by_name.items()},
        "attacks": {
            "typos": {"models": {name: {"accuracy_under_attack": v / 2} for name, v in by_name.items()}}
        },
    }
    found = over_seeds(results)
    assert list(found) == ["accuracy", "under typos"]
    one, other = found["accuracy"]["plain"], found["accuracy"]["rat"]
    assert (one["mean"], one["seeds"], one["p"]) == (81, 3, None) and one["std"] == pytest.approx(1)
    assert other["p"] == pytest.approx(ttest_rel(values["rat"], values["plain"]).pvalue)
    shown = {"names": [], "over_seeds": found, "seconds_per_row": {}}
    assert any(f"83.17 \u00b1 0.764; p {other['p']:.3g}" in line for line in lines(shown))
