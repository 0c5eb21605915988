"""The kinds of task: one row for each of fairseq's tasks that the methods, recipes and tools know.

Here and not in ``adv_plugins``, whose import takes seconds, as the commands read it before they have
anything to train.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskKind:
    """What is true of every task that fairseq runs with one ``--task``.

    name: of ``--task``; criterion: its own one, which the methods wrap; predicts: "classification" (a
    score with ``--regression-target``), "ranking", "tokens", or "" where it has no head; hf_class: how
    the name of transformers' class for it ends; head_option: the option that names its head;
    dictionary: the words, in the folder of its data; separator: whether it can write a second symbol
    between two sentences; raw_text: whether it reads the official files and tokenises while it trains;
    prefixes: what it writes before the first and before every other text.
    """

    name: str
    criterion: str
    predicts: str
    hf_class: str
    head_option: str = "classification_head_name"
    dictionary: str = "input0/dict.txt"
    separator: bool = False
    raw_text: bool = False
    prefixes: tuple[str, str] = ("", "")


LABELS = "label/dict.txt"  # the classes, in the folder of the data of those that have such

TASK_KINDS = {
    kind.name: kind
    for kind in (
        TaskKind(
            "sentence_prediction",
            criterion="sentence_prediction",
            predicts="classification",
            hf_class="ForSequenceClassification",
            separator=True,
        ),
        TaskKind(
            "sentence_ranking",
            criterion="sentence_ranking",
            predicts="ranking",
            hf_class="ForMultipleChoice",
            head_option="ranking_head_name",
            separator=True,
        ),
        TaskKind(
            "commonsense_qa",
            criterion="sentence_ranking",
            predicts="ranking",
            hf_class="ForMultipleChoice",
            dictionary="dict.txt",
            raw_text=True,
            prefixes=("Q: ", "A: "),
        ),
        TaskKind(
            "token_classification",
            criterion="token_classification",
            predicts="tokens",
            hf_class="ForTokenClassification",
        ),
        TaskKind(
            "masked_lm",
            criterion="masked_lm",
            predicts="",
            hf_class="ForMaskedLM",
            dictionary="dict.txt",
        ),
    )
}
