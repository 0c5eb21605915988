"""What an update takes: a method's real updates, through fairseq's Trainer, on random words."""

from __future__ import annotations

import time
from typing import Any

import torch
from fairseq.criterions import build_criterion
from fairseq.tasks.sentence_prediction import SentencePredictionTask
from fairseq.trainer import Trainer


class Updates:
    """A criterion on a Trainer that it shares with the others of its architecture.

    So model, gradients and optimizer state of a large model are in memory once, not for each method.
    The same seed, so the same model, for all.
    """

    def __init__(self, cfg: Any, words: Any, trainers: dict[Any, Trainer], key: Any) -> None:
        """Build it.

        Args:
            cfg: fairseq's configuration; words: the dictionary; trainers: those that there are, by the
                architecture; key: of this one.
        """
        task = SentencePredictionTask(cfg.task, words, words)
        self.criterion = build_criterion(cfg.criterion, task)
        if key not in trainers:
            torch.manual_seed(1)
            trainers[key] = Trainer(cfg, task, task.build_model(cfg.model), self.criterion)
        self.trainer = trainers[key]

    def update(self, sample: dict[str, Any]) -> None:
        """One update; running out of memory is an error, which fairseq would only log."""
        self.trainer._criterion, self.trainer._wrapped_criterion = self.criterion, None
        self.trainer.train_step([sample], raise_oom=True)

    def seconds(self, sample: dict[str, Any]) -> float:
        """The time of one update."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        began = time.perf_counter()
        self.update(sample)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - began


def make_sample(batch_size: int, length: int, vocabulary: int) -> dict[str, Any]:
    """A batch without padding, (batch_size, length) tokens and one of two classes each."""
    generator = torch.Generator().manual_seed(1)
    shape = (batch_size, length)
    tokens = torch.randint(4, vocabulary - 1, shape, generator=generator)
    return {
        "id": torch.arange(batch_size),
        "net_input": {"src_tokens": tokens, "src_lengths": torch.full(shape[:1], length)},
        "target": torch.randint(2, (batch_size, 1), generator=generator),
        "nsentences": batch_size,
        "ntokens": tokens.numel(),
    }
