"""The words nearest to a token's hidden state before and after RAPT's noise (its tables 4 to 6)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from adv_plugins_cli.command import UserError, read_lines
from adv_plugins_cli.figures.drawing import new_figure
from adv_plugins_cli.figures.loading import load, names_of, tokenizer_of

if TYPE_CHECKING:
    from torch import Tensor

    from adv_plugins_cli.data.binarize import TextEncoder

# What a word stands for in the cosines.
AGAINST = ("states", "embeddings")


class Nearest(NamedTuple):
    """The nearest words to one token, (word, cosine) in their order, without and with the noise.

    text: its number from 1; position: in it, from 0, its beginning included.
    """

    text: int
    position: int
    word: str
    before: list[tuple[str, float]]
    after: list[tuple[str, float]]


def nearest_words(arguments: argparse.Namespace) -> Any:
    """Tables 4 to 6: prints the table, returns the figure."""
    from adv_plugins.fork import encoder_layers

    model, task = load(arguments.checkpoint, arguments.data, adversaries=False)
    depth = len(encoder_layers(model))
    if not 0 <= arguments.layer <= depth:
        raise UserError(f"--layer {arguments.layer}: this model has layers 0 (embeddings) to {depth}")
    dictionary = task.source_dictionary
    tokenizer, encoder = tokenizer_of(arguments, dictionary)
    names = names_of(tokenizer, dictionary.symbols)
    texts = sequences(arguments.text, encoder, task)
    places = find(arguments.words, texts, names)
    longest = int(model.max_positions())
    for text in texts:
        if len(text) > longest:
            raise UserError(f"--text has {len(text)} subwords, this model reads {longest}")
    if arguments.against == "embeddings":
        rows = model.encoder.sentence_encoder.embed_tokens.weight.detach()
    else:
        others = bank(arguments.bank, arguments.bank_size, encoder, task)
        rows = mean_states(model, arguments.layer, (each[:longest] for each in others), len(names))
    found = []
    for number, text in enumerate(texts, start=1):
        clean, noisy = states(model, text, arguments.layer, arguments.eta, arguments.seed)
        for position in places[number - 1]:
            lists = []
            for state in (clean[position], noisy[position]):
                ranked = rank(state, rows, excluded=[*specials(dictionary), int(text[position])])
                lists.append([(names[index], value) for index, value in ranked[: arguments.top]])
            found.append(Nearest(number, position, names[text[position]], *lists))
            describe(found[-1], clean[position], noisy[position])
    print(table(found))
    return draw(found, arguments.layer)


def sequences(texts: Sequence[str], encoder: TextEncoder, task: Any) -> list[Tensor]:
    """What the model reads for each text, (T,) tokens; a tab parts the two sentences of a pair."""
    import numpy as np
    import torch

    dictionary = task.source_dictionary
    options = getattr(task, "cfg", None) or task.args
    separator = getattr(options, "separator_token", None)
    between = [] if separator is None else [[separator]]
    made = []
    for text in texts:
        sentences = encoder.encode_batch(text.split("\t"))
        parts: list[Any] = [[dictionary.bos()]]
        for number, sentence in enumerate(sentences):
            parts += [*(between if number else ()), sentence, [dictionary.eos()]]
        made.append(torch.from_numpy(np.concatenate(parts).astype(np.int64)))
    return made


def find(words: Sequence[str], texts: Sequence[Tensor], names: Sequence[str]) -> list[list[int]]:
    """The positions of these words in each text, in their order.

    Raises:
        UserError: a word is in no text, as a subword of its own.
    """
    read = [[names[index].strip() for index in text] for text in texts]
    for word in words:
        if not any(word in each for each in read):
            shown = " ".join(read[0])[:300]
            raise UserError(f"--words {word}: is no subword of the texts, which are read as {shown}")
    return [[place for place, name in enumerate(each) if name in words] for each in read]


def bank(path: Path | None, size: int, encoder: TextEncoder, task: Any) -> Iterator[Tensor]:
    """The first texts of a file or, without one, of the training split, as (T,) tokens.

    Raises:
        UserError: the file has no text, or there is no training split that is read as it is.
    """
    if path is not None:
        if not path.is_file():
            raise UserError(f"{path}: no such file (--bank)")
        lines = [line for _, line in read_lines(path) if line.strip()][:size]
        if not lines:
            raise UserError(f"{path}: has no text (--bank)")
        yield from sequences(lines, encoder, task)
        return
    from fairseq.tasks.masked_lm import MaskedLMTask

    from adv_plugins.batch import source_tokens

    if isinstance(task, MaskedLMTask):  # whose data are blocks with masks in them
        raise UserError("this model was trained on masked text: give other texts with --bank FILE")
    try:
        task.load_dataset("train")
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"the training split cannot be read, give --data or --bank FILE ({reason[:300]})"
        ) from error
    split = task.dataset("train")
    for index in range(min(size, len(split))):
        for tokens in source_tokens(split.collater([split[index]])):
            yield tokens[0]


def mean_states(model: Any, layer: int, texts: Iterator[Tensor], words: int) -> Tensor:
    """(words, d): the mean hidden state of every word at a layer, over its occurrences in these texts,
    and zero of those that do not occur."""
    import torch

    total: Any = None
    count = torch.zeros(words)
    for text in texts:
        hidden = hidden_state(model, text, layer)
        total = hidden.new_zeros(words, hidden.size(1)) if total is None else total
        total.index_add_(0, text, hidden)
        count.index_add_(0, text, torch.ones(len(text)))
    if total is None:
        raise UserError("the training split has no text: give --bank FILE")
    return total / count.clamp(min=1)[:, None]


def hidden_state(model: Any, text: Tensor, layer: int) -> Tensor:
    """(T, d) at the output of a layer, 0 for the embeddings."""
    import torch

    from adv_plugins.fork import hidden_states

    with torch.no_grad(), hidden_states(model, layer=layer) as found:
        model(text[None], features_only=True)
    return found[0][:, 0]


def states(model: Any, text: Tensor, layer: int, eta: float, seed: int) -> tuple[Tensor, Tensor]:
    """(T, d) hidden states of a text at a layer, and the same with RAPT's noise."""
    import torch

    from adv_plugins.criterions.rapt import bounded_noise

    clean = hidden_state(model, text, layer)
    torch.manual_seed(seed)
    every = torch.ones(1, len(text), 1, dtype=torch.bool)
    return clean, clean + bounded_noise(clean[:, None], every, eta)[:, 0]


def rank(state: Tensor, rows: Tensor, *, excluded: Sequence[int]) -> list[tuple[int, float]]:
    """(row, cosine) of the rows (V, d), nearest first; those that are zero or excluded are left out."""
    import torch

    cosines = torch.nn.functional.cosine_similarity(rows, state[None])
    left = rows.ne(0).any(dim=1)
    left[list(excluded)] = False
    order = cosines.masked_fill(~left, -2).argsort(descending=True)[: int(left.sum())]
    return list(zip(order.tolist(), cosines[order].tolist(), strict=True))


def specials(dictionary: Any) -> list[int]:
    """What stands for no word."""
    mask = dictionary.index("<mask>")
    return sorted({*range(dictionary.nspecial), mask})


def describe(nearest: Nearest, clean: Tensor, noisy: Tensor) -> None:
    """Say how large the noise is and what it changes, beside the table."""
    import torch

    kept = {word for word, _ in nearest.before} & {word for word, _ in nearest.after}
    cosine = torch.nn.functional.cosine_similarity(clean, noisy, dim=0).item()
    state, noise = clean.norm().item(), (noisy - clean).norm().item()
    print(
        f"{nearest.word.strip()} (text {nearest.text}, position {nearest.position}): state of norm "
        f"{state:.2f}, noise of {noise:.2f}, cosine of the state with itself after it {cosine:.3f}; "
        f"{len(kept)} of {len(nearest.before)} words stay",
        file=sys.stderr,
    )


def table(found: Sequence[Nearest]) -> str:
    """Tab-separated, a line for each rank, as in the paper's tables 5 and 6."""
    lines = ["text\tposition\tword\trank\tbefore\tcosine\tafter\tcosine"]
    for each in found:
        start = f"{each.text}\t{each.position}\t{each.word.strip()}"
        for number, pair in enumerate(zip(each.before, each.after, strict=True), start=1):
            cells = "\t".join(f"{word.strip()}\t{cosine:.4f}" for word, cosine in pair)
            lines.append(f"{start}\t{number}\t{cells}")
    return "\n".join(lines)


def draw(found: Sequence[Nearest], layer: int) -> Any:
    """A row for each token: the lists as bars, without and with the noise; what is in one of them alone
    is red."""
    longest = max(len(each.before) for each in found)
    figure = new_figure(8, (0.24 * longest + 0.9) * len(found))
    plots = figure.subplots(len(found), 2, squeeze=False)
    for row, each in zip(plots, found, strict=True):
        shared = {word for word, _ in each.before} & {word for word, _ in each.after}
        for plot, words, title in zip(row, (each.before, each.after), ("", " + noise"), strict=True):
            places = range(len(words), 0, -1)
            colours = ["tab:blue" if word in shared else "firebrick" for word, _ in words]
            plot.barh(places, [cosine for _, cosine in words], color=colours)
            plot.set_yticks(places, [word.strip() for word, _ in words])
            plot.set_xlim(0, max(0.01, 1.05 * max((c for _, c in each.before), default=1)))
            plot.set_title(f"{each.word.strip()}, layer {layer}{title}")
            plot.set_xlabel("cosine")
    return figure
