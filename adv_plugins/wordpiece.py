"""WordPiece, the tokenizer of BERT-like models: ``--bpe wordpiece --wordpiece-dir DIR``.

fairseq's own ``--bpe bert`` needs a library of 2019. Here DIR is what comes with a checkpoint:
``tokenizer.json``, or ``vocab.txt`` with ``tokenizer_config.json``.
"""

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List

from fairseq.data.encoders import register_bpe
from fairseq.dataclass import FairseqDataclass

from fairseq_compat.errors import UserError

# BERT's special tokens, by fairseq's names for what they do.
SPECIAL_TOKENS = {
    "[CLS]": "<s>",
    "[PAD]": "<pad>",
    "[SEP]": "</s>",
    "[UNK]": "<unk>",
    "[MASK]": "<mask>",
}
MADE_UP = "madeupword{:04d}"  # fairseq's name for rows of an embedding without a token
MOST_GAPS = 1000  # ids without a token that even a tiny vocabulary may have


@dataclass
class WordPieceConfig(FairseqDataclass):
    """The options of ``--bpe wordpiece``."""

    wordpiece_dir: str = field(
        default="", metadata={"help": "folder with tokenizer.json, or vocab.txt, of a BERT-like model"}
    )


def load_wordpiece(folder: str | Path) -> Any:
    """The ``tokenizers.Tokenizer`` of a BERT-like checkpoint's folder.

    Raises:
        UserError: the folder has no WordPiece vocabulary, or a damaged one; names the file.
    """
    from tokenizers import Tokenizer
    from tokenizers.implementations import BertWordPieceTokenizer

    folder = Path(folder)
    whole, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    if whole.is_file():
        with _faults_named(whole):
            tokenizer = Tokenizer.from_file(str(whole))
        if type(tokenizer.model).__name__ != "WordPiece":
            raise UserError(f"{whole}: no WordPiece tokenizer")
    elif vocabulary.is_file():
        options = _read_settings(folder / "tokenizer_config.json")
        with _faults_named(vocabulary):
            tokenizer = BertWordPieceTokenizer(
                str(vocabulary),
                lowercase=options.get("do_lower_case", True),
                strip_accents=options.get("strip_accents"),
                handle_chinese_chars=options.get("tokenize_chinese_chars", True),
            )._tokenizer
    else:
        raise UserError(f"{whole}: no such file, nor {vocabulary.name} beside it")
    # Some checkpoints come with the settings of their last use; lengths are fairseq's business.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@contextlib.contextmanager
def _faults_named(path: Path) -> Iterator[None]:
    """Name the file: what the library raises is a bare Exception without it."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: no WordPiece vocabulary, or a damaged one ({reason})") from error


def _read_settings(path: Path) -> Dict[str, Any]:
    """tokenizer_config.json, which may be missing."""
    if not path.is_file():
        return {}
    try:
        options = json.loads(path.read_bytes().decode("utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    if not isinstance(options, dict):
        raise UserError(f"{path}: holds no JSON object")
    for name in ("do_lower_case", "strip_accents", "tokenize_chinese_chars"):
        if options.get(name) not in (None, True, False):
            raise UserError(f"{path}: {name} is {options[name]!r}, not true or false")
    # null is what a missing entry is
    return {name: value for name, value in options.items() if value is not None}


def symbols_of(tokenizer: Any) -> List[str]:
    """fairseq's symbol of each of the tokenizer's ids: entry i is that of id i.

    An id without a token (a gap, or a line of vocab.txt whose token comes again) has a made-up symbol,
    as fairseq calls rows of an embedding that no token has.

    Raises:
        UserError: two tokens share an id, or most ids have no token.
    """
    vocabulary: Dict[str, int] = tokenizer.get_vocab()
    by_id: Dict[int, str] = {}
    for token, index in vocabulary.items():
        if index in by_id:
            raise UserError(f"the tokens {by_id[index]!r} and {token!r} share the id {index}")
        by_id[index] = token
    rows = max(by_id, default=-1) + 1
    if rows > 2 * len(by_id) + MOST_GAPS:
        raise UserError(f"the ids reach {rows - 1}, but there are only {len(by_id)} tokens")
    tokens = [by_id.get(index, MADE_UP.format(index)) for index in range(rows)]
    return [SPECIAL_TOKENS.get(token, token) for token in tokens]


@register_bpe("wordpiece", dataclass=WordPieceConfig)
class WordPiece:
    """fairseq's interface to WordPiece: text to pieces parted by spaces, and back."""

    def __init__(self, cfg: WordPieceConfig) -> None:
        self.tokenizer = load_wordpiece(cfg.wordpiece_dir)

    def encode(self, x: str) -> str:
        """Pieces of one text."""
        tokens = self.tokenizer.encode(x, add_special_tokens=False).tokens
        return " ".join(SPECIAL_TOKENS.get(token, token) for token in tokens)

    def decode(self, x: str) -> str:
        """Text of pieces; what the tokenizer dropped (case, accents) does not come back."""
        from tokenizers import decoders

        return decoders.WordPiece().decode(x.split())

    def is_beginning_of_word(self, x: str) -> bool:
        """Whether a piece begins a word."""
        return not x.startswith("##")
