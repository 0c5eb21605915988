"""Cross entropy over labelled tokens, which fairseq lacks."""

import math
from dataclasses import dataclass, field
from typing import Any, Dict, List

import torch
import torch.nn.functional as F
from fairseq import metrics
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from omegaconf import II

from adv_plugins.batch import NO_LABEL
from adv_plugins.entities import (
    ENTITY_SCORES,
    EntityCounts,
    check_available,
    count_entities,
    label_sequences,
)
from fairseq_compat.errors import UserError

COUNTS_KEY = "_entities_"  # prefix of the hidden meters of the entity counts


@dataclass
class TokenClassificationCriterionConfig(FairseqDataclass):
    """Options of token labelling."""

    # The default of sentence_prediction and so of the criterions that wrap either.
    classification_head_name: str = field(
        default="sentence_classification_head",
        metadata={"help": "name of the classification head to use"},
    )
    report_entity_f1: bool = field(
        default=False,
        metadata={
            "help": "report entity-level f1, precision and recall in validation, in percent (seqeval; "
            "also reported when one of them is the --best-checkpoint-metric)"
        },
    )
    best_checkpoint_metric: str = II("checkpoint.best_checkpoint_metric")


@register_criterion("token_classification", dataclass=TokenClassificationCriterionConfig)
class TokenClassificationCriterion(FairseqCriterion):
    """Cross entropy, summed over the labelled tokens; their number is the sample size.

    Meters: ``loss`` (base 2) and ``accuracy`` over labelled tokens; in validation, with
    ``--report-entity-f1``, ``f1``, ``precision`` and ``recall`` of whole entities, micro-averaged over
    the split and all workers, as CoNLL's and WNUT's scorers do.

    Raises:
        UserError: entity scores without seqeval, or of labels that mark no entities; a task without
            token labels; a model without the head.
    """

    def __init__(self, cfg: TokenClassificationCriterionConfig, task: Any) -> None:
        super().__init__(task)
        self.classification_head_name = cfg.classification_head_name
        self.labels: List[str] = list(getattr(task, "labels", []))
        if not self.labels:
            raise UserError(
                "the criterion token_classification needs token labels: give --task token_classification"
            )
        best = cfg.best_checkpoint_metric
        self.reports_entities = cfg.report_entity_f1 or best in ENTITY_SCORES
        if self.reports_entities:
            asked = "--report-entity-f1" if cfg.report_entity_f1 else f"--best-checkpoint-metric {best}"
            check_available(asked, self.labels)

    def forward(self, model: Any, sample: Dict[str, Any], reduce: bool = True) -> Any:
        """fairseq's triple (loss, sample size, logging output); logits are (B, T, C)."""
        if self.classification_head_name not in getattr(model, "classification_heads", {}):
            raise UserError(
                f"the model has no classification head {self.classification_head_name!r}: "
                "--classification-head-name must be that of the task"
            )
        logits, _ = model(
            **sample["net_input"],
            features_only=True,
            classification_head_name=self.classification_head_name,
        )
        targets = sample["target"]
        labelled = targets.ne(NO_LABEL)
        log_probabilities = F.log_softmax(logits, dim=-1, dtype=torch.float32)
        loss = F.nll_loss(
            log_probabilities.view(-1, logits.size(-1)),
            targets.view(-1),
            ignore_index=NO_LABEL,
            reduction="sum",
        )
        sample_size = labelled.sum()
        predictions = logits.argmax(dim=-1)
        logging_output = {
            "loss": loss.detach(),
            "ntokens": sample["ntokens"],
            "nsentences": sample["nsentences"],
            "sample_size": sample_size,
            "ncorrect": (predictions.eq(targets) & labelled).sum(),
        }
        if self.reports_entities and not self.training:
            shown = labelled.tolist()
            names = [
                label_sequences(each.tolist(), shown, self.labels) for each in (predictions, targets)
            ]
            for name, count in count_entities(*names)._asdict().items():
                logging_output[COUNTS_KEY + name] = count
        return loss, sample_size, logging_output

    @staticmethod
    def reduce_metrics(logging_outputs: List[Dict[str, Any]]) -> None:
        """Sums over batches and workers, and the scores derived from them."""

        def total(key: str) -> Any:
            return sum(log.get(key, 0) for log in logging_outputs)

        tokens = total("sample_size")
        metrics.log_scalar("loss", total("loss") / max(tokens, 1) / math.log(2), tokens, round=3)
        metrics.log_scalar("accuracy", 100.0 * total("ncorrect") / max(tokens, 1), tokens, round=1)
        if not any(COUNTS_KEY + "true" in log for log in logging_outputs):
            return
        for name in EntityCounts._fields:
            metrics.log_scalar_sum(COUNTS_KEY + name, total(COUNTS_KEY + name))
        for name, score in ENTITY_SCORES.items():
            metrics.log_derived(name, lambda meters, score=score: _percent(meters, score))

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Yes: there are sums only."""
        return True


def _percent(meters: Any, score: Any) -> float:
    counts = EntityCounts(*(meters[COUNTS_KEY + name].sum for name in EntityCounts._fields))
    return round(100 * float(score(counts)), 2)
