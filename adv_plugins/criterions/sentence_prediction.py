"""GLUE's metrics for fairseq's own ``sentence_prediction`` criterion.

fairseq 0.12.2's criterion knows loss and accuracy only. This one is it, bit for bit, plus the three
flags that later fairseq has; it takes the name ``sentence_prediction`` over, so plain runs and the
methods that wrap it both have them.
"""

from dataclasses import dataclass, field
from typing import Any, Dict, List

import torch
from fairseq import metrics
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY
from fairseq.criterions.sentence_prediction import (
    SentencePredictionConfig,
    SentencePredictionCriterion,
)
from hydra.core.config_store import ConfigStore

from adv_plugins.perturbation import captured_outputs, unwrap
from adv_plugins.scores import PREDICTIONS_KEY, SCORES, PredictionsMeter
from fairseq_compat.errors import UserError


@dataclass
class SentencePredictionMetricsConfig(SentencePredictionConfig):
    """fairseq's options and which of GLUE's metrics validation reports (all in percent)."""

    report_mcc: bool = field(
        default=False, metadata={"help": "report Matthews correlation, as mcc (CoLA)"}
    )
    report_acc_and_f1: bool = field(
        default=False,
        metadata={"help": "report f1 of the label 1 and acc_and_f1, its mean with accuracy (MRPC, QQP)"},
    )
    report_pearson_and_spearman: bool = field(
        default=False,
        metadata={"help": "report pearson, spearman and pearson_and_spearman, their mean (STS-B)"},
    )


class SentencePredictionMetricsCriterion(SentencePredictionCriterion):
    """Stock ``sentence_prediction``; in eval mode it also gathers all predictions for the metrics.

    Scores need every prediction of a split, not means over batches, so predictions travel in the
    logging output and a meter concatenates them over batches and workers.

    Raises:
        UserError: classification metrics for regression or the other way round, or F1 of more than
            two classes.
    """

    def __init__(self, cfg: SentencePredictionMetricsConfig, task: Any) -> None:
        super().__init__(cfg, task)
        self.reported: List[str] = [flag for flag in SCORES if getattr(cfg, flag)]
        for flag in self.reported:
            option = "--" + flag.replace("_", "-")
            if (flag == "report_pearson_and_spearman") != cfg.regression_target:
                needs = "needs" if not cfg.regression_target else "cannot be used with"
                raise UserError(f"{option} {needs} --regression-target")
        classes = getattr(getattr(task, "cfg", None), "num_classes", 2)
        if "report_acc_and_f1" in self.reported and classes > 2:
            raise UserError(
                f"--report-acc-and-f1 is the F1 of one of two classes, but --num-classes is {classes}: "
                "leave it out"
            )
        self.positive = positive_class(task)

    def forward(self, model: Any, sample: Dict[str, Any], reduce: bool = True) -> Any:
        """fairseq's triple; ``predictions`` and ``targets`` are (N,) float64 arrays."""
        if self.training or not self.reported:
            return super().forward(model, sample, reduce)
        with captured_outputs(unwrap(model)) as outputs:
            loss, sample_size, logging_output = super().forward(model, sample, reduce)
        logits = outputs[0]
        predictions = logits.view(-1) if self.regression_target else logits.argmax(dim=1)
        targets = sample["target"].view(-1)
        if "report_acc_and_f1" in self.reported:
            # Whether it is the positive class; accuracy is the same for two classes.
            predictions, targets = predictions == self.positive, targets == self.positive
        logging_output["predictions"] = _array(predictions)
        logging_output["targets"] = _array(targets)
        logging_output["reported"] = self.reported
        return loss, sample_size, logging_output

    @staticmethod
    def reduce_metrics(logging_outputs: List[Dict[str, Any]]) -> None:
        """Stock metrics, then the scores over all predictions so far."""
        SentencePredictionCriterion.reduce_metrics(logging_outputs)
        logs = [log for log in logging_outputs if "predictions" in log]
        for log in logs:
            metrics.log_custom(PredictionsMeter, PREDICTIONS_KEY, log["predictions"], log["targets"])
        for flag in logs[0]["reported"] if logs else ():
            for name, score in SCORES[flag].items():
                metrics.log_derived(
                    name, lambda meters, score=score: meters[PREDICTIONS_KEY].score(score)
                )

    def logging_outputs_can_be_summed(self) -> bool:
        """Arrays of predictions cannot."""
        return self.training or not self.reported


def positive_class(task: Any) -> int:
    """The number of the class whose F1 counts: the label "1" of GLUE's files, else class 1.

    fairseq numbers classes by how frequent they are, and "1" is MRPC's most frequent label: class 0.
    """
    labels = getattr(task, "label_dictionary", None)
    if labels is None or "1" not in labels.indices:
        return 1
    return labels.index("1") - labels.nspecial


def _array(tensor: torch.Tensor) -> Any:
    return tensor.detach().double().cpu().numpy()


def take_over() -> None:
    """Register the criterion above under fairseq's own name (fairseq refuses duplicates)."""
    name = "sentence_prediction"
    CRITERION_REGISTRY[name] = SentencePredictionMetricsCriterion
    CRITERION_DATACLASS_REGISTRY[name] = SentencePredictionMetricsConfig
    # What fairseq's register_criterion does: the command line and hydra read these.
    SentencePredictionMetricsCriterion.__dataclass = SentencePredictionMetricsConfig
    node = SentencePredictionMetricsConfig()
    node._name = name
    ConfigStore.instance().store(name=name, group="criterion", node=node, provider="fairseq")


take_over()
