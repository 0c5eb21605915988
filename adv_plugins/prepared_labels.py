"""Labels that no training can use are named before its first update.

fairseq looks at a label where its loss is computed: one that is missing ends in a KeyError (or, in
ranking, is no label at all, and nothing is learned), one that is no class in an error of the device,
and a NaN among scores is one of the weights some updates later.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from fairseq.criterions import FairseqCriterion
from fairseq.criterions.sentence_prediction import SentencePredictionCriterion
from fairseq.criterions.sentence_ranking import SentenceRankingCriterion
from fairseq.data import BaseWrapperDataset, NestedDictionaryDataset, RawLabelDataset
from fairseq.examples.roberta.commonsense_qa.commonsense_qa_task import CommonsenseQATask
from fairseq.tasks.sentence_prediction import SentencePredictionTask

from adv_plugins.criterions.token_classification import TokenClassificationCriterion
from adv_plugins.prepared_files import values_of
from fairseq_compat.errors import UserError

# Others may do without labels, or give those that are no class a meaning.
WITH_LABELS = (SentencePredictionCriterion, SentenceRankingCriterion, TokenClassificationCriterion)


def check_labels(task: Any, split: str, base: FairseqCriterion) -> None:
    """Whether a split that is loaded has the labels that fairseq's own criterions need.

    Args:
        base: the criterion, without the method that wraps it.

    Raises:
        UserError: it has none, one that is no class, or a score that is not finite.
    """
    dataset = task.dataset(split)
    while isinstance(dataset, BaseWrapperDataset):
        dataset = dataset.dataset
    if not isinstance(base, WITH_LABELS) or not isinstance(dataset, NestedDictionaryDataset):
        return
    labels = dataset.defn.get("target")
    options = task.cfg or task.args
    place = os.path.join(options.data, "label", split)
    text = f"{place}.label"
    if isinstance(task, CommonsenseQATask):
        place = text = os.path.join(options.data, f"{split}.jsonl")
    if labels is None or not len(labels):
        raise UserError(f"{place}: no labels of the split {split}: prepare it with labels")
    if isinstance(labels, RawLabelDataset):
        if getattr(base, "regression_target", False):
            check_scores(np.asarray(labels.labels, dtype=float), text)
        else:
            check_choices(np.asarray(labels.labels), options.num_classes, text)
    elif isinstance(task, SentencePredictionTask):
        check_classes(labels, task, place)


def check_scores(scores: Any, text: str) -> None:
    """The (N, columns) scores of a regression."""
    for row in np.flatnonzero(~np.isfinite(scores).all(axis=1))[:1]:
        raise UserError(f"{text}:{row + 1}: {scores[row].tolist()} holds a score that is not finite")


def check_choices(choices: Any, candidates: int, text: str) -> None:
    """The (N,) numbers of the candidates that are right."""
    for row in np.flatnonzero((choices < 0) | (choices >= candidates))[:1]:
        raise UserError(
            f"{text}:{row + 1}: {choices[row]} is none of the candidates, which --num-classes "
            f"numbers from 0 to {candidates - 1}"
        )


def check_classes(labels: Any, task: Any, place: str) -> None:
    """One index of the label dictionary for each row, of a class that the model has."""
    rows = len(labels)
    while isinstance(labels, BaseWrapperDataset):
        labels = labels.dataset
    values = values_of(labels)
    if values is None:
        return
    dictionary, classes = task.label_dictionary, task.cfg.num_classes
    values = values[values != dictionary.eos()]
    for value in values[(values < dictionary.nspecial) | (values >= dictionary.nspecial + classes)][:1]:
        raise UserError(
            f"{place}.bin: holds the label {dictionary[int(value)]!r}, which is none of the first "
            f"--num-classes {classes} of {os.path.join(os.path.dirname(place), 'dict.txt')}"
        )
    if len(values) != rows:
        raise UserError(f"{place}.bin: holds {len(values)} labels for {rows} rows: one each is needed")
