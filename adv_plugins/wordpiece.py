"""WordPiece, the tokenizer of BERT-like models: ``--bpe wordpiece --wordpiece-dir DIR``.

fairseq's own ``--bpe bert`` needs a library of 2019. Here DIR is what comes with a checkpoint:
``tokenizer.json``, or ``vocab.txt`` with ``tokenizer_config.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List

from fairseq.data.encoders import register_bpe
from fairseq.dataclass import FairseqDataclass

from adv_plugins.errors import UserError

# BERT's special tokens, by fairseq's names for what they do.
SPECIAL_TOKENS = {
    "[CLS]": "<s>",
    "[PAD]": "<pad>",
    "[SEP]": "</s>",
    "[UNK]": "<unk>",
    "[MASK]": "<mask>",
}


@dataclass
class WordPieceConfig(FairseqDataclass):
    """The options of ``--bpe wordpiece``."""

    wordpiece_dir: str = field(
        default="", metadata={"help": "folder with tokenizer.json, or vocab.txt, of a BERT-like model"}
    )


def load_wordpiece(folder: str | Path) -> Any:
    """The ``tokenizers.Tokenizer`` of a BERT-like checkpoint's folder.

    Raises:
        UserError: the folder has no WordPiece vocabulary.
    """
    from tokenizers import Tokenizer
    from tokenizers.implementations import BertWordPieceTokenizer

    folder = Path(folder)
    whole, vocabulary, settings = (
        folder / name for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json")
    )
    if whole.is_file():
        tokenizer = Tokenizer.from_file(str(whole))
        if type(tokenizer.model).__name__ != "WordPiece":
            raise UserError(f"{whole}: no WordPiece tokenizer")
    elif vocabulary.is_file():
        options: Dict[str, Any] = json.loads(settings.read_text("utf-8")) if settings.is_file() else {}
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


def symbols_of(tokenizer: Any) -> List[str]:
    """fairseq's symbol of each of the tokenizer's ids, in their order."""
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
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
