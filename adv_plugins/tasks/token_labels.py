"""The labels of a token-labelling task, side by side with the tokens of its sentences."""

from typing import Any, List

import numpy as np
import torch
from fairseq.data import BaseWrapperDataset, Dictionary
from torch import Tensor

from adv_plugins.batch import NO_LABEL
from fairseq_compat.errors import UserError

# fairseq-preprocess fills a dictionary up with these, behind the real symbols.
FILLING = "madeupword"


def label_names(dictionary: Dictionary) -> List[str]:
    """The labels of a label dictionary, in the order of the classes."""
    names = dictionary.symbols[dictionary.nspecial :]
    return [name for name in names if not name.startswith(FILLING)]


class AlignedLabels(BaseWrapperDataset):
    """Targets as long as the sentences: class numbers, and NO_LABEL where there is nothing to learn.

    Args:
        labels: dataset of (L - 1,) indices of the label dictionary, its pad for a token without a
            label; an eos at the end, as fairseq-preprocess appends it, may be there or not.
        tokens: dataset of the (L,) sentences, which end with eos.
        dictionary: the label dictionary.
        place: what to call the labels in an error.

    Raises:
        UserError: not one row of labels for each sentence, or of another length; when an item is
            read, an index that is no label.
    """

    def __init__(self, labels: Any, tokens: Any, dictionary: Dictionary, place: str) -> None:
        super().__init__(labels)
        self.lengths = np.asarray(tokens.sizes)
        self.dictionary, self.place = dictionary, place
        self.num_labels = len(label_names(dictionary))
        if len(labels) != len(tokens):
            raise UserError(f"{place} has {len(labels)} examples, but input0 has {len(tokens)}")
        shorter = self.lengths - np.asarray(labels.sizes)
        for index in np.flatnonzero((shorter != 0) & (shorter != 1))[:1]:
            self.refuse_length(index)

    def refuse_length(self, index: int) -> None:
        """Raise UserError: too many or too few labels."""
        raise UserError(
            f"{self.place}, example {index} (from 0): {self.dataset.sizes[index]} labels for "
            f"{self.lengths[index] - 1} tokens and </s>; every token needs one, <pad> where it "
            "continues a word"
        )

    def __getitem__(self, index: int) -> Tensor:
        """(L,) targets of one sentence."""
        labels = self.dataset[index].long()
        length = int(self.lengths[index])
        if len(labels) == length and labels[-1] != self.dictionary.eos():
            self.refuse_length(index)
        classes = labels - self.dictionary.nspecial
        none = labels.eq(self.dictionary.pad()) | labels.eq(self.dictionary.eos())
        wrong = ~none & (classes.lt(0) | classes.ge(self.num_labels))
        if wrong.any():
            first = self.dictionary.nspecial
            raise UserError(
                f"{self.place}, example {index} (from 0): {int(labels[wrong][0])} is no index of a "
                f"label ({first} to {first + self.num_labels - 1}, or {self.dictionary.pad()} for none)"
            )
        targets = torch.full((length,), NO_LABEL)
        targets[: len(labels)] = classes.masked_fill(none, NO_LABEL)
        return targets

    @property
    def sizes(self) -> Any:
        """Lengths of the targets: those of the sentences."""
        return self.lengths
