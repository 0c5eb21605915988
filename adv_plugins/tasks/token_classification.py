"""Token labelling (named entities, part-of-speech tags), which fairseq lacks."""

import contextlib
import logging
import os
from dataclasses import dataclass, field
from typing import Any, List, Optional

import numpy as np
from fairseq.data import (
    Dictionary,
    IdDataset,
    NestedDictionaryDataset,
    NumelDataset,
    NumSamplesDataset,
    PrependTokenDataset,
    RightPadDataset,
    SortDataset,
    data_utils,
)
from fairseq.data.shorten_dataset import maybe_shorten_dataset
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.tasks import FairseqTask, register_task
from omegaconf import II, MISSING, OmegaConf, open_dict

from adv_plugins.batch import NO_LABEL
from adv_plugins.models.token_head import register_token_head
from adv_plugins.tasks.token_labels import AlignedLabels, label_names
from fairseq_compat.errors import UserError

logger = logging.getLogger(__name__)


@dataclass
class TokenClassificationConfig(FairseqDataclass):
    """The options of ``sentence_prediction``, as far as they apply to tokens."""

    data: str = field(default=MISSING, metadata={"help": "path to data directory"})
    num_classes: int = field(
        default=-1,
        metadata={"help": "number of labels (default: those of the label dictionary)"},
    )
    init_token: Optional[int] = field(
        default=None, metadata={"help": "add token at the beginning of each batch item"}
    )
    no_shuffle: bool = field(default=False, metadata={"help": "keep the order of the data"})
    shorten_method: ChoiceEnum(["none", "truncate", "random_crop"]) = field(  # type: ignore[valid-type]
        default="none",
        metadata={"help": "if not none, shorten sequences that exceed --max-positions, labels too"},
    )
    shorten_data_split_list: str = field(
        default="",
        metadata={
            "help": "comma-separated list of dataset splits to apply shortening to, "
            'e.g., "train,valid" (default: all dataset splits)'
        },
    )
    max_positions: int = field(default=512, metadata={"help": "max tokens per example"})

    classification_head_name: str = II("criterion.classification_head_name")
    seed: int = II("common.seed")


@register_task("token_classification", dataclass=TokenClassificationConfig)
class TokenClassificationTask(FairseqTask):
    """A label for every token of a sentence that has one.

    Data: ``DATA/input0`` and ``DATA/label``, each a dict.txt and binary splits. A sentence's L indices
    end with </s>; its L - 1 labels are indices of the label dictionary, <pad> (1) where a token has
    none of its own (the second and later subwords of a word). Classes are numbered in the order of
    the label dictionary, from 0. Only splits called test... may lack labels.

    Batches: ``net_input.src_tokens`` (B, T), ``<s>`` of ``--init-token`` included, and ``target``
    (B, T), :data:`~adv_plugins.batch.NO_LABEL` at ``<s>``, ``</s>``, tokens without label and padding.

    Raises:
        UserError: ``--num-classes`` is not the number of labels; labels that do not fit the tokens.
        FileNotFoundError: a dictionary or a split of the data is missing.
    """

    def __init__(
        self, cfg: TokenClassificationConfig, dictionary: Dictionary, label_dictionary: Dictionary
    ) -> None:
        super().__init__(cfg)
        self.dictionary = dictionary
        self.label_dictionary = label_dictionary
        if cfg.num_classes not in (-1, len(self.labels)):
            raise UserError(
                f"--num-classes {cfg.num_classes}, but {os.path.join(cfg.data, 'label', 'dict.txt')} "
                f"has {len(self.labels)} labels ({' '.join(self.labels)}): leave the option out"
            )

    @property
    def labels(self) -> List[str]:
        """Names of the classes, in their order."""
        return label_names(self.label_dictionary)

    @classmethod
    def setup_task(cls, cfg: TokenClassificationConfig, **unused: Any) -> "TokenClassificationTask":
        """Read the two dictionaries."""
        dictionary = _load_dictionary(cfg.data, "input0")
        dictionary.add_symbol("<mask>")
        label_dictionary = _load_dictionary(cfg.data, "label")
        logger.info("[input] dictionary: %d types", len(dictionary))
        logger.info("[label] dictionary: %s", " ".join(label_names(label_dictionary)))
        return cls(cfg, dictionary, label_dictionary)

    def load_dataset(self, split: str, combine: bool = False, **unused: Any) -> Any:
        """Tokens and, where there are any, labels of a split."""
        tokens = self._read("input0", split, self.dictionary, combine)
        if tokens is None:
            raise FileNotFoundError(f"no {split} split in {os.path.join(self.cfg.data, 'input0')}")
        labels = self._read("label", split, self.label_dictionary, combine)
        if labels is None and not split.startswith("test"):
            raise FileNotFoundError(
                f"no {split} split in {os.path.join(self.cfg.data, 'label')}: only test may lack labels"
            )
        if labels is not None:
            labels = AlignedLabels(labels, tokens, self.label_dictionary, f"split {split} of label")
            labels = self._shorten(self._begin(labels, NO_LABEL), split)
        tokens = self._begin(tokens, self.cfg.init_token)
        with data_utils.numpy_seed(self.cfg.seed):
            order = np.random.permutation(len(tokens))
        longer = int((np.asarray(tokens.sizes) > self.max_positions()).sum())
        tokens = self._shorten(tokens, split)
        if longer and tokens.sizes.max() <= self.max_positions():
            logger.warning(
                "%d of the %d examples of %s are longer than --max-positions %d: the labels that are "
                "cut off count for no score",
                longer,
                len(tokens),
                split,
                self.max_positions(),
            )

        definition = {
            "id": IdDataset(),
            "net_input": {
                "src_tokens": RightPadDataset(tokens, pad_idx=self.dictionary.pad()),
                "src_lengths": NumelDataset(tokens, reduce=False),
            },
            "nsentences": NumSamplesDataset(),
            "ntokens": NumelDataset(tokens, reduce=True),
        }
        if labels is not None:
            definition["target"] = RightPadDataset(labels, pad_idx=NO_LABEL)
        dataset = NestedDictionaryDataset(definition, sizes=[tokens.sizes])
        if not self.cfg.no_shuffle:
            dataset = SortDataset(dataset, sort_order=[order])
        logger.info("Loaded %s with #samples: %d", split, len(dataset))
        self.datasets[split] = dataset
        return dataset

    def _read(self, name: str, split: str, dictionary: Dictionary, combine: bool) -> Any:
        path = os.path.join(self.cfg.data, name, split)
        return data_utils.load_indexed_dataset(path, dictionary, combine=combine)

    def _begin(self, dataset: Any, first: Optional[int]) -> Any:
        return dataset if self.cfg.init_token is None else PrependTokenDataset(dataset, first)

    def _shorten(self, dataset: Any, split: str) -> Any:
        """Labels lose the positions that tokens lose: also a random crop depends on nothing but the
        seed, the epoch, the example's number and its length."""
        return maybe_shorten_dataset(
            dataset,
            split,
            self.cfg.shorten_data_split_list,
            str(self.cfg.shorten_method),
            self.max_positions(),
            self.cfg.seed,
        )

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """The architecture, and on it a head for the labels."""
        with open_dict(cfg) if OmegaConf.is_config(cfg) else contextlib.nullcontext():
            cfg.max_positions = self.cfg.max_positions
        model = super().build_model(cfg, from_checkpoint)
        register_token_head(model, self.cfg.classification_head_name, len(self.labels))
        return model

    def max_positions(self) -> int:
        """Longest sentence, ``<s>`` and ``</s>`` included."""
        return self.cfg.max_positions

    @property
    def source_dictionary(self) -> Dictionary:
        """The subwords."""
        return self.dictionary

    @property
    def target_dictionary(self) -> Dictionary:
        """The subwords, as in ``sentence_prediction``: the labels are in ``label_dictionary``."""
        return self.dictionary


def _load_dictionary(data: str, name: str) -> Dictionary:
    path = os.path.join(data, name, "dict.txt")
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"no {path}: token_classification needs the folders input0 and label, each with a dict.txt"
        )
    return Dictionary.load(path)
