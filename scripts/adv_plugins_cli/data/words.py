"""Whole words as a vocabulary, for the models that are trained from scratch.

The splitter is that of the ``tokenizers`` library for BERT: text in lower case, parted at white space
and at every mark of punctuation; ``characters`` also parts Chinese characters from one another, and
leaves the words of other scripts whole. The vocabulary is the training set's most frequent words, in
fairseq's dict.txt; what is not in it is ``<unk>``. ``words.json`` beside it names the splitter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

import fairseq_compat

fairseq_compat.install()

from fairseq.data import Dictionary  # noqa: E402

from adv_plugins_cli.command import UserError, read_json  # noqa: E402
from adv_plugins_cli.data.binarize import Indices  # noqa: E402
from adv_plugins_cli.data.dictionary import load_dictionary  # noqa: E402
from adv_plugins_cli.data.tokenizer_options import SPLITTERS, WORDS_FILE  # noqa: E402
from fairseq_compat import files  # noqa: E402


class Words:
    """A splitter and a dictionary of its words."""

    word_prefix = ""

    def __init__(self, splitter: str, dictionary: Any) -> None:
        self.splitter, self.dictionary = splitter, dictionary
        vocabulary = {symbol: index for index, symbol in enumerate(dictionary.symbols)}
        self._tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=dictionary.unk_word))
        self._tokenizer.normalizer = normalizer(splitter)
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    @classmethod
    def of_folder(cls, folder: str | Path) -> Words:
        """What a folder's words.json and dict.txt describe.

        Raises:
            UserError: a file is missing or is none of the kind.
        """
        path = Path(folder) / WORDS_FILE
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; --whole-words takes {' or '.join(SPLITTERS)}, which make a "
                "vocabulary of the training set, or the folder of one that was made (TASK-bin/input0)"
            )
        facts = read_json(path)
        if not isinstance(facts, dict) or facts.get("splitter") not in SPLITTERS:
            raise UserError(f"{path}: 'splitter' is none of {', '.join(SPLITTERS)}")
        if not (Path(folder) / "dict.txt").is_file():
            raise UserError(f"{Path(folder) / 'dict.txt'}: no such file, but {WORDS_FILE} is there")
        return cls(facts["splitter"], load_dictionary(Path(folder) / "dict.txt"))

    @classmethod
    def of_texts(cls, splitter: str, texts: Iterable[str], *, size: int, minimum_count: int) -> Words:
        """With a vocabulary of the most frequent words.

        Args:
            size: at most so many, special symbols beside them. minimum_count: of each.

        Raises:
            UserError: no word is left.
        """
        change, split = normalizer(splitter), pre_tokenizers.BertPreTokenizer()
        counts: Counter[str] = Counter()
        for text in texts:
            pieces = split.pre_tokenize_str(change.normalize_str(text))
            counts.update(word for word, _ in pieces)
        dictionary = Dictionary()
        # the most frequent first, equal ones in the order of their letters
        for word, count in sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:size]:
            if count >= minimum_count:
                dictionary.add_symbol(word, n=count)
        if len(dictionary) == dictionary.nspecial:
            raise UserError(f"--minimum-count {minimum_count}: no word of the training set is left")
        return cls(splitter, dictionary)

    def encode_batch(self, texts: Sequence[str]) -> list[Indices]:
        """Return dictionary indices, one array a text, without any special symbols."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]

    def save(self, folder: Path) -> None:
        """Leave words.json beside the dictionary, which the preprocessing writes."""
        files.write_json(folder / WORDS_FILE, {"splitter": self.splitter})


def normalizer(splitter: str) -> Any:
    """What is done with a text before it is split."""
    return normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=splitter == "characters",
        strip_accents=False,
        lowercase=True,
    )
