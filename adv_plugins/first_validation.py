"""Whether validation can do what it is there for, asked before the first update.

fairseq validates at the end of an epoch, and only then fails: of an example that the model cannot read,
of a label that is none, or of a metric for the best checkpoint that nothing reports.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from fairseq import metrics
from fairseq.criterions import FairseqCriterion

from adv_plugins.base_pass import predictions_file
from adv_plugins.entities import ENTITY_SCORES
from adv_plugins.prepared_labels import WITH_LABELS, check_labels
from adv_plugins.scores import SCORES
from fairseq_compat.errors import UserError

logger = logging.getLogger(__name__)

# How fairseq says that examples do not fit the model.
DO_NOT_FIT = ("Size of sample", "The dataset is empty")
# What fairseq reports beside the criterion's metrics.
COUNTS = {"num_updates", "wps", "wpb", "bsz"}


def check_validation(trainer: Any, base: FairseqCriterion) -> None:
    """Look at the validation data, and at the metric that chooses the best checkpoint.

    No random number is drawn that the training would have had.

    Args:
        base: the trainer's criterion, without the method that wraps it.

    Raises:
        UserError: naming what is wrong with the data, or the option to change.
    """
    dataset = trainer.cfg.dataset
    if dataset.disable_validation:
        return
    with same_random_numbers(), predictions_file(base, write=False):
        iterators = []
        for subset in dataset.valid_subset.split(","):
            check_labels(trainer.task, subset, base)
            with sizes_named(trainer.cfg, subset):
                iterators.append(trainer.get_valid_iterator(subset, disable_iterator_cache=True))
        if not is_reported(trainer.cfg.checkpoint.best_checkpoint_metric, trainer.task, base):
            look_for_metric(trainer, iterators[0])  # fairseq takes it from the first subset


@contextlib.contextmanager
def sizes_named(cfg: Any, split: str) -> Iterator[None]:
    """Within the context examples of a split that the model cannot read are a UserError."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())
        if not reason.startswith(DO_NOT_FIT):
            raise
        raise UserError(
            f"{getattr(cfg.task, 'data', 'data')}: the split {split} does not fit the model ({reason}): "
            "prepare shorter examples, give a larger --max-positions, or in masked_lm a smaller "
            "--tokens-per-sample"
        ) from error


def is_reported(metric: str, task: Any, base: FairseqCriterion) -> bool:
    """Whether it is known without a look that validation reports a metric,
    or that no look would tell."""
    if metric == "loss" or hasattr(task, "post_validate"):
        return True
    if not isinstance(base, WITH_LABELS):
        return False
    classifies = metric == "accuracy" and not getattr(base, "regression_target", False)
    asked_for = {name for flag in getattr(base, "reported", ()) for name in SCORES[flag]}
    entities = set(ENTITY_SCORES) if getattr(base, "reports_entities", False) else set()
    return classifies or metric in asked_for | entities


def look_for_metric(trainer: Any, iterator: Any) -> None:
    """Validate until the metric has been reported, which takes one batch.

    Raises:
        UserError: it has not been by the end.
    """
    wanted = trainer.cfg.checkpoint.best_checkpoint_metric
    limit = trainer.cfg.dataset.max_valid_steps
    names = {"num_updates"}  # fairseq adds it
    try:
        trainer.begin_valid_epoch(iterator.next_epoch_idx)
        batches = iterator.next_epoch_itr(shuffle=False, set_dataset_epoch=False)
        with metrics.aggregate(new_root=True) as reported:
            for number, sample in enumerate(batches):
                if limit is not None and number > limit:
                    break
                trainer.valid_step(sample)
                names |= set(reported.get_smoothed_values())
                if wanted in names:
                    return
    except (UserError, MemoryError):
        raise
    except Exception:  # the training itself will say it, if it comes to that
        logger.debug("no look at the metrics", exc_info=True)
        return
    raise UserError(
        f"--best-checkpoint-metric {wanted} is not reported in validation: take one of "
        + ", ".join(sorted(names - COUNTS))
    )


@contextlib.contextmanager
def same_random_numbers() -> Iterator[None]:
    """Within the context no random number is drawn that is drawn after it."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
