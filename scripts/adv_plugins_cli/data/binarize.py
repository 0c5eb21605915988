"""From text to fairseq's binary files, without one process per step and text files in between.

An encoder turns a batch of texts into indices of a fairseq dictionary; `write_split` stores such
sequences as `fairseq-preprocess` would. Nothing here knows a data set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers

import fairseq_compat

fairseq_compat.install()

from fairseq.data import Dictionary, indexed_dataset  # noqa: E402

from adv_plugins.wordpiece import load_wordpiece, symbols_of  # noqa: E402
from adv_plugins_cli.command import UserError, read_text  # noqa: E402
from adv_plugins_cli.data.dictionary import load_dictionary  # noqa: E402
from adv_plugins_cli.data.tokenizer_options import load_sentencepiece  # noqa: E402

Indices = NDArray[np.int64]

END_OF_SENTENCE = Dictionary().eos()

# What fairseq's dictionaries put first; a model's own copies of these are not listed again.
SPECIAL_PIECES = frozenset({"<s>", "<pad>", "</s>", "<unk>"})
# dict.txt needs a count; fairseq's SentencePiece recipes write this one for every piece.
PIECE_COUNT = 100
# No dictionary lists it: fairseq's tasks add it behind the others.
MASK = "<mask>"


class TextEncoder(Protocol):
    """What the preprocessing scripts ask of a tokenizer."""

    dictionary: Any  # fairseq's Dictionary, to be saved beside the data
    word_prefix: str  # what a word has before it behind another one, and counts

    def encode_batch(self, texts: Sequence[str]) -> list[Indices]:
        """Return dictionary indices, one array a text, without any special symbols."""

    def save(self, folder: Path) -> None:
        """Leave what belongs to it in the folder of its dictionary and data."""


class FromElsewhere:
    """A tokenizer that lies in a folder of its own and leaves nothing beside the data."""

    def save(self, folder: Path) -> None:
        """See the class."""


def _lookup_table(symbols: Iterable[str], dictionary: Any, place: str) -> Indices:
    """Return the array that maps a tokenizer's id to the dictionary's index."""
    table = np.array([dictionary.index(symbol) for symbol in symbols], dtype=np.int64)
    if np.mean(table == dictionary.unk()) > 0.5:
        raise UserError(f"{place}: most tokens are not in dict.txt; the files do not fit together")
    return table


class Gpt2Bpe(FromElsewhere):
    """GPT-2's byte-level BPE with RoBERTa's dictionary: fairseq's `--bpe gpt2`, id for id."""

    word_prefix = " "

    def __init__(self, bpe_dir: str | Path) -> None:
        folder = Path(bpe_dir)
        for name in ("encoder.json", "vocab.bpe", "dict.txt"):
            if not (folder / name).is_file():
                raise UserError(
                    f"{folder / name}: no such file; adv-plugins download gpt2_bpe fetches it"
                )
        model = _load_bpe(folder / "encoder.json", folder / "vocab.bpe")
        self._tokenizer = Tokenizer(model)
        self._tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.dictionary = load_dictionary(folder / "dict.txt")
        # RoBERTa's dictionary lists GPT-2's ids, written as decimal numbers.
        ids = range(self._tokenizer.get_vocab_size())
        self._table = _lookup_table(map(str, ids), self.dictionary, str(folder))

    def encode_batch(self, texts: Sequence[str]) -> list[Indices]:
        """Return dictionary indices, one array a text, without any special symbols."""
        # The fast variant leaves out character offsets, which nobody reads here.
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [self._table[np.array(encoding.ids, dtype=np.int64)] for encoding in encodings]


def _load_bpe(vocabulary: Path, merges: Path) -> Any:
    """GPT-2's two files as a model of the library, whose errors name neither."""
    for path in (vocabulary, merges):
        read_text(path)
    try:
        return models.BPE.from_file(str(vocabulary), str(merges))
    except Exception as error:  # it raises nothing more special
        reason = " ".join(str(error).split())
        raise UserError(f"{vocabulary}, {merges.name}: no byte-level BPE ({reason})") from error


class SentencePiece(FromElsewhere):
    """A SentencePiece model: fairseq's `--bpe sentencepiece` with the model's pieces as dictionary.

    The dictionary is dict.txt beside the model, as a checkpoint's folder has it; without one it
    lists the pieces in the model's order, less the special ones that every dictionary starts with.
    """

    word_prefix = ""

    def __init__(self, model_path: str | Path) -> None:
        self._processor = load_sentencepiece(Path(model_path))
        pieces = [
            self._processor.id_to_piece(index) for index in range(self._processor.get_piece_size())
        ]
        self.dictionary = dictionary_beside(Path(model_path).parent, pieces)
        self._table = _lookup_table(pieces, self.dictionary, str(model_path))
        # fairseq joins pieces by spaces and splits them again, which loses control characters
        # that count as white space.
        self._table[[not piece.strip() for piece in pieces]] = -1

    def encode_batch(self, texts: Sequence[str]) -> list[Indices]:
        """Return dictionary indices, one array a text, without any special symbols."""
        batch = self._processor.encode(list(texts), out_type=int)
        found = [self._table[np.array(ids, dtype=np.int64)] for ids in batch]
        return [indices[indices >= 0] for indices in found]


class WordPiece(FromElsewhere):
    """WordPiece of BERT-like models, `--bpe wordpiece`, with its vocabulary as dictionary."""

    word_prefix = ""

    def __init__(self, folder: str | Path) -> None:
        self._tokenizer = load_wordpiece(folder)
        try:
            symbols = symbols_of(self._tokenizer)
        except ValueError as error:
            raise UserError(f"{folder}: {error}") from error
        self.dictionary = dictionary_beside(Path(folder), symbols)
        self._table = _lookup_table(symbols, self.dictionary, str(folder))

    def encode_batch(self, texts: Sequence[str]) -> list[Indices]:
        """Return dictionary indices, one array a text, without any special symbols."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [self._table[np.array(encoding.ids, dtype=np.int64)] for encoding in encodings]


def dictionary_beside(folder: Path, symbols: Iterable[str]) -> Any:
    """Load the folder's dict.txt; without one, return a dictionary of `symbols` in their order."""
    if (folder / "dict.txt").is_file():
        return load_dictionary(folder / "dict.txt")
    dictionary = Dictionary()
    for symbol in symbols:
        if symbol not in SPECIAL_PIECES and symbol != MASK:
            dictionary.add_symbol(symbol, n=PIECE_COUNT)
    return dictionary


def build_label_dictionary(labels: Iterable[str], *, possible: Iterable[str] = ()) -> Any:
    """Return the dictionary `fairseq-preprocess --only-source` would build from these labels.

    `possible` labels that do not occur come last, where fairseq would store them as unknown.
    """
    counts = Counter(labels)
    counts.update(dict.fromkeys(possible, 0))
    dictionary = Dictionary()
    for label, count in counts.items():
        dictionary.add_symbol(label, n=count)
    dictionary.finalize(padding_factor=8)
    return dictionary


def write_split(
    folder: str | Path,
    name: str,
    sequences: Iterable[Indices],
    vocabulary_size: int,
    *,
    end_symbol: int | None = END_OF_SENTENCE,
) -> int:
    """Write `folder/name.bin` and `.idx` as `fairseq-preprocess` does; return the token count.

    `end_symbol` closes every sequence, which is where fairseq's tasks expect it; None leaves the
    sequences as they are.
    """
    prefix = str(Path(folder) / name)
    Path(folder).mkdir(parents=True, exist_ok=True)
    builder = indexed_dataset.make_builder(
        indexed_dataset.data_file_path(prefix), impl="mmap", vocab_size=vocabulary_size
    )
    tokens = 0
    for sequence in sequences:
        if end_symbol is not None:
            sequence = np.append(sequence, end_symbol)
        tokens += len(sequence)
        builder.add_item(torch.from_numpy(sequence))
    builder.finalize(indexed_dataset.index_file_path(prefix))
    return tokens
