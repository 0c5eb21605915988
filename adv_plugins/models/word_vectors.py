"""Word vectors from a text file, as GloVe and fastText publish theirs: a word and its numbers a line."""

import logging
from pathlib import Path
from typing import Any, Set

import torch
from torch import Tensor

from fairseq_compat.errors import UserError

logger = logging.getLogger(__name__)


def read_word_vectors(path: str, dictionary: Any, table: Tensor) -> int:
    """Fill the rows of the dictionary's words that the file has, and say how many it does not have.

    fastText's first line (how many, how wide) is left out. A word that is there twice counts once, as
    its first vector. The special symbols keep theirs.

    Args:
        table: (V, d), changed in place.

    Returns:
        how many words were found.

    Raises:
        UserError: there is no such file, it is no text, or its vectors have another width, or a number
            that is none.
    """
    if not Path(path).is_file():
        raise UserError(f"--pretrained-embedding {path}: no such file")
    width = table.size(1)
    found: Set[int] = set()
    try:
        with open(path, encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                # fastText ends its lines with a space; GloVe's 840B has words with spaces in them.
                pieces = line.rstrip().split(" ")
                if number == 1 and len(pieces) == 2 and width != 1:
                    continue
                word, numbers = " ".join(pieces[:-width]), pieces[-width:]
                if not word or (len(pieces) > width + 1 and _is_number(pieces[-width - 1])):
                    raise UserError(
                        f"--pretrained-embedding {path}, line {number}: {len(pieces) - 1} numbers, but "
                        f"--encoder-embed-dim is {width}"
                    )
                index = dictionary.indices.get(word)
                if index is None or index < dictionary.nspecial or index in found:
                    continue
                vector = _vector(numbers)
                if vector is None:
                    raise UserError(
                        f"--pretrained-embedding {path}, line {number}: the vector of {word!r} is none"
                    )
                table[index] = vector.to(table)
                found.add(index)
    except UnicodeDecodeError as error:
        raise UserError(f"--pretrained-embedding {path}: no UTF-8 text (binary vectors?)") from error
    words = len(dictionary) - dictionary.nspecial
    logger.info(
        "%s: vectors of %d of %d words; %d start at random", path, len(found), words, words - len(found)
    )
    if not found:
        raise UserError(f"--pretrained-embedding {path}: has none of the {words} words of the data")
    return len(found)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _vector(numbers: Any) -> Any:
    try:
        vector = torch.tensor([float(each) for each in numbers])
    except ValueError:
        return None
    return vector if torch.isfinite(vector).all() else None
