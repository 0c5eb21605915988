"""GLUE's metrics: over all predictions, whatever the batches and workers; stock otherwise."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq import metrics
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY
from fairseq.criterions.sentence_prediction import SentencePredictionCriterion
from fairseq.data import Dictionary
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef

import adv_plugins  # noqa: F401
import tiny
from adv_plugins.criterions.rat import RatCriterion, RatCriterionConfig
from adv_plugins.criterions.sentence_prediction import (
    SentencePredictionMetricsConfig,
    SentencePredictionMetricsCriterion,
)


class Scorer(torch.nn.Module):
    """A model whose logits are in the sample."""

    classification_heads = {"sentence_classification_head": None}
    args = object()

    def forward(self, logits, **unused):
        return logits, None

    def get_targets(self, sample, net_output):
        return sample["target"]


def sample(logits, targets):
    return {"net_input": {"logits": logits}, "target": targets, "ntokens": 7 * len(targets)}


def validate(criterion, batches, workers=1):
    """What fairseq's validation makes of ``batches``, dealt to ``workers``."""
    model = Scorer().eval()
    criterion.eval()
    with metrics.aggregate(new_root=True) as meters:
        for first in range(0, len(batches), workers):
            logs = [criterion(model, each)[2] for each in batches[first : first + workers]]
            criterion.__class__.reduce_metrics(logs)
    return meters.get_smoothed_values()


def uneven_batches(logits, targets):
    sizes = [5, 1, 17, 2, len(targets) - 25]
    return [sample(a, b) for a, b in zip(logits.split(sizes), targets.split(sizes))]


@pytest.fixture
def binary():
    torch.manual_seed(1)
    targets = torch.rand(60).gt(0.7).long()
    logits = torch.randn(60, 2)
    logits[:, 1] += targets
    return logits, targets


def task_of_two_classes(kind):
    task = tiny.Task(kind)
    task.cfg = SimpleNamespace(num_classes=2)
    return task


def both_criterions(**options):
    regression = options.get("regression_target", False)
    task = task_of_two_classes("regression" if regression else "classification")
    plain = SentencePredictionMetricsCriterion(SentencePredictionMetricsConfig(**options), task)
    rat = RatCriterion.build_criterion(RatCriterionConfig(tpu=False, **options), task)
    return plain, rat


@pytest.mark.parametrize("workers", [1, 2])
def test_matthews_and_f1_are_those_of_the_whole_split(binary, workers):
    logits, targets = binary
    predictions = logits.argmax(1).numpy()
    for criterion in both_criterions(report_mcc=True, report_acc_and_f1=True):
        values = validate(criterion, uneven_batches(logits, targets), workers)
        f1 = 100 * f1_score(targets.numpy(), predictions)
        accuracy = 100 * np.mean(predictions == targets.numpy())
        assert values["mcc"] == round(100 * matthews_corrcoef(targets.numpy(), predictions), 2)
        assert values["f1"] == round(f1, 2)
        assert values["acc_and_f1"] == round((f1 + accuracy) / 2, 2)
        assert values["accuracy"] == pytest.approx(accuracy, abs=0.051)


@pytest.mark.parametrize("workers", [1, 2])
def test_correlations_are_those_of_the_whole_split(workers):
    torch.manual_seed(1)
    targets = torch.rand(60)
    logits = (targets + torch.rand(60))[:, None]
    for criterion in both_criterions(report_pearson_and_spearman=True, regression_target=True):
        values = validate(criterion, uneven_batches(logits, targets), workers)
        pearson = 100 * pearsonr(logits[:, 0], targets)[0]
        spearman = 100 * spearmanr(logits[:, 0], targets)[0]
        assert values["pearson"] == pytest.approx(pearson, abs=0.006)
        assert values["spearman"] == pytest.approx(spearman, abs=0.006)
        assert values["pearson_and_spearman"] == pytest.approx((pearson + spearman) / 2, abs=0.006)


def test_a_constant_prediction_scores_zero():
    logits = torch.ones(30, 1)
    (plain, _) = both_criterions(report_pearson_and_spearman=True, regression_target=True)
    values = validate(plain, uneven_batches(logits, torch.rand(30)))
    assert values["pearson_and_spearman"] == 0.0


def test_without_flags_it_is_the_stock_criterion(binary):
    logits, targets = binary
    plain, _ = both_criterions()
    stock = SentencePredictionCriterion(SentencePredictionMetricsConfig(), plain.task)
    assert plain.logging_outputs_can_be_summed()
    assert validate(plain, uneven_batches(logits, targets)) == validate(
        stock, uneven_batches(logits, targets)
    )


def test_training_logs_hold_no_predictions(binary):
    (plain, _) = both_criterions(report_mcc=True)
    log = plain.train()(Scorer().train(), sample(*binary))[2]
    assert "predictions" not in log and plain.logging_outputs_can_be_summed()
    assert not plain.eval().logging_outputs_can_be_summed()


def test_meters_survive_a_checkpoint(binary):
    """fairseq saves all meters and must be able to load them again."""
    plain, _ = both_criterions(report_mcc=True)
    with metrics.aggregate("valid"):
        validate(plain, [sample(*binary)])
        plain.__class__.reduce_metrics([plain(Scorer().eval(), sample(*binary))[2]])
    state = metrics.state_dict()
    metrics.load_state_dict(state)
    metrics.reset()


@pytest.mark.parametrize(
    "options,message",
    [
        (dict(report_mcc=True, regression_target=True), "--report-mcc cannot be used with"),
        (dict(report_acc_and_f1=True, regression_target=True), "--report-acc-and-f1 cannot be"),
        (dict(report_pearson_and_spearman=True), "spearman needs --regression-target"),
    ],
)
def test_a_metric_of_the_wrong_kind_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        both_criterions(**options)


def test_the_stock_name_is_taken_over():
    assert CRITERION_REGISTRY["sentence_prediction"] is SentencePredictionMetricsCriterion
    assert CRITERION_DATACLASS_REGISTRY["sentence_prediction"] is SentencePredictionMetricsConfig


@pytest.mark.parametrize("order", [("0", "1"), ("1", "0"), ("no", "yes")])
def test_f1_is_that_of_the_label_1_whatever_its_number(binary, order):
    """fairseq numbers MRPC's more frequent label, "1", as class 0."""
    logits, classes = binary
    task = task_of_two_classes("classification")
    task._label_dictionary = Dictionary()
    for label in order:
        task._label_dictionary.add_symbol(label)
    config = SentencePredictionMetricsConfig(report_acc_and_f1=True)
    values = validate(SentencePredictionMetricsCriterion(config, task), uneven_batches(logits, classes))
    positive = order.index("1") if "1" in order else 1
    truth, found = classes.numpy() == positive, logits.argmax(1).numpy() == positive
    assert values["f1"] == round(100 * f1_score(truth, found), 2)
    mean = (100 * np.mean(truth == found) + 100 * f1_score(truth, found)) / 2
    assert values["acc_and_f1"] == pytest.approx(mean, abs=0.01)
