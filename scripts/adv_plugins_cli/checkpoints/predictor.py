"""A fine-tuned checkpoint on raw text.

Symbols, separators and order are those of the checkpoint's own task, so a prediction is what
fairseq's validation computes on the same text binarised.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adv_plugins_cli.checkpoints.checkpoint_file import read_checkpoint
from adv_plugins_cli.checkpoints.checkpoint_model import build
from adv_plugins_cli.checkpoints.trained_model import TrainedModel
from adv_plugins_cli.command import UserError
from fairseq_compat.task_kinds import TaskKind

if TYPE_CHECKING:
    from adv_plugins_cli.data.binarize import Indices, TextEncoder

Array = NDArray[np.float64]

OUTSIDE = "O"  # the label of a word that belongs to no entity


def encode_texts(
    encoder: TextEncoder, examples: Sequence[Sequence[str]], task: TaskKind
) -> list[list[Indices]]:
    """The subwords of every text of every example; of token labelling, of every word."""
    first, other = task.prefixes
    examples = [[first + row[0], *(other + text for text in row[1:])] for row in examples]
    if task.predicts == "tokens":
        examples = [_words(row[0], encoder.word_prefix) for row in examples]
    pieces = iter(encoder.encode_batch([text for texts in examples for text in texts]))
    encoded = [[next(pieces) for _ in texts] for texts in examples]
    if task.predicts == "tokens":
        unknown = np.array([encoder.dictionary.unk()])
        return [[ids if len(ids) else unknown for ids in words] for words in encoded]
    return encoded


def _words(sentence: str, prefix: str) -> list[str]:
    """Words as they stand behind one another."""
    words = sentence.split()
    return [*words[:1], *(prefix + word for word in words[1:])]


class Predictor:
    """One checkpoint's model, in memory."""

    def __init__(self, trained: TrainedModel, *, raw_text: bool = False) -> None:
        """Load it, on the GPU if there is one.

        Args:
            raw_text: whether its task is to read data that are raw text (commonsense_qa's).
        """
        import torch

        checkpoint = trained.checkpoint
        with trained.dictionaries() as folder:
            self.model, self.task = build(
                checkpoint, read_checkpoint(checkpoint, whole=True), folder, raw_text=raw_text
            )
        self.dictionary = self.task.source_dictionary
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device)
        self.trained = trained

    def sequences(self, texts: Sequence[Indices]) -> list[Indices]:
        """What the model reads for one example: one sequence, or one for each choice.

        Args:
            texts: subwords of the sentences; of a ranking the context, then the choices; of
                token labelling the words.

        Raises:
            UserError: too few or too many of them.
        """
        trained = self.trained
        end = np.array([self.dictionary.eos()])
        start = _symbol(trained.options.get("init_token"))
        separator = _symbol(trained.options.get("separator_token"))
        if trained.kind == "tokens":
            return [np.concatenate([start, *texts, end])]
        if len(texts) not in trained.columns():
            raise UserError(f"{len(texts)} texts, but {trained.checkpoint} reads {trained.columns()}")
        if trained.kind == "ranking":
            context, *choices = texts
            if trained.task.raw_text:
                return [np.concatenate([start, context, end, choice, end]) for choice in choices]
            longest = trained.options.get("max_option_length")
            return [
                np.concatenate([np.concatenate([start, choice, end])[:longest], separator, context, end])
                for choice in choices
            ]
        parts = [start, texts[0], end]
        if len(texts) == 2:
            parts += [separator, texts[1], end]
        return [np.concatenate(parts)]

    def predict(
        self, examples: Sequence[Sequence[Indices]], *, batch_size: int = 32, tell: bool = True
    ) -> Array:
        """(N, C) probabilities, or (N, 1) scores of a regression.

        Of token labelling N counts the words of all examples; those that are cut off are outside
        of every entity.

        Args:
            examples: the subwords of each example's texts; see :meth:`sequences`.
            tell: whether to say how many are cut.
        """
        whole = [sequence for texts in examples for sequence in self.sequences(texts)]
        flat = self.cut(whole, tell=tell)
        outputs = self.logits(flat, batch_size)
        if self.trained.kind == "tokens":
            return np.concatenate(
                [self._word_probabilities(*pair) for pair in zip(examples, outputs)]
                or [np.zeros((0, len(self.trained.labels)))]
            )
        if self.trained.kind == "regression":
            return np.reshape(outputs, (len(examples), 1))
        return softmax(np.reshape(outputs, (len(examples), len(self.trained.labels))))

    def cut(self, sequences: Sequence[Indices], *, tell: bool = True) -> list[Indices]:
        """Sequences no longer than the model reads; ``tell`` says how many were."""
        limit = int(self.model.max_positions())
        longer = sum(len(sequence) > limit for sequence in sequences)
        if longer and tell:
            print(
                f"{longer} of {len(sequences)} sequences are longer than {limit} subwords and are cut",
                file=sys.stderr,
            )
        return [sequence[:limit] for sequence in sequences]

    def padded(self, sequences: Sequence[Indices]) -> Any:
        """(B, T) token ids on the model's device."""
        import torch

        tokens = torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(sequence) for sequence in sequences],
            batch_first=True,
            padding_value=self.dictionary.pad(),
        )
        return tokens.to(self.device)

    def forward(self, tokens: Any) -> Any:
        """The head's output for (B, T) token ids: (B, C), of token labelling (B, T, C)."""
        return self.model(tokens, features_only=True, classification_head_name=self.trained.head)[0]

    def _word_probabilities(self, words: Sequence[Indices], logits: Array) -> Array:
        """(words, C), each word by its first subword.

        Args:
            logits: (subwords, C), with those of the symbol at the beginning.
        """
        labels = self.trained.labels
        begin = 0 if self.trained.options.get("init_token") is None else 1
        places = begin + np.cumsum([0, *map(len, words)])[: len(words)]
        outside = labels.index(OUTSIDE) if OUTSIDE in labels else 0
        found = np.tile(np.eye(len(labels))[outside], (len(words), 1))
        kept = places < len(logits)
        found[kept] = softmax(logits[places[kept]])
        return found

    def logits(self, sequences: Sequence[Indices], batch_size: int) -> list[Array]:
        """The head's output for each sequence, without padding; those of like length go together."""
        import torch

        found: dict[int, Array] = {}
        for batch in by_length([len(sequence) for sequence in sequences], batch_size):
            with torch.no_grad():
                logits = self.forward(self.padded([sequences[index] for index in batch]))
            for index, output in zip(batch, logits.double().cpu().numpy()):
                found[index] = output if output.ndim == 1 else output[: len(sequences[index])]
        return [found[index] for index in range(len(sequences))]


def by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Batches of the numbers of sequences, those of like length together."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def softmax(logits: Array) -> Array:
    """Over the last dimension."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def _symbol(index: int | None) -> Indices:
    return np.array([] if index is None else [index], dtype=np.int64)
