"""Tasks: what fairseq lacks or keeps outside of its package, and what keeps a criterion of ours out.

Token labelling is ours. ``commonsense_qa`` lives in fairseq's examples and only one ``--user-dir``
can be given, so it is registered here.
"""

from typing import Any, Type

from fairseq.examples.roberta.commonsense_qa.commonsense_qa_task import CommonsenseQATask
from fairseq.tasks import FairseqTask
from fairseq.tasks.sentence_prediction import SentencePredictionTask
from fairseq.tasks.sentence_ranking import SentenceRankingTask

from adv_plugins.tasks.label_record import record_labels
from adv_plugins.tasks.token_classification import TokenClassificationTask


def accept_wrapping_criterions(task: Type[FairseqTask]) -> None:
    """Let ``task`` be set up with a criterion that wraps ``sentence_ranking``.

    fairseq's ranking tasks assert that ``--criterion`` is ``sentence_ranking`` itself.
    """
    stock_setup = task.setup_task.__func__

    def setup_task(cls: Any, /, args: Any, **kwargs: Any) -> FairseqTask:
        from fairseq.criterions import CRITERION_REGISTRY

        from adv_plugins.criterions.wrapping import WrappingCriterion

        criterion = args.criterion
        if issubclass(CRITERION_REGISTRY.get(criterion, object), WrappingCriterion):
            args.criterion = "sentence_ranking"
        try:
            return stock_setup(cls, args, **kwargs)
        finally:
            args.criterion = criterion

    task.setup_task = classmethod(setup_task)


for _task in (SentenceRankingTask, CommonsenseQATask):
    accept_wrapping_criterions(_task)
for _task in (SentencePredictionTask, TokenClassificationTask):
    record_labels(_task)
