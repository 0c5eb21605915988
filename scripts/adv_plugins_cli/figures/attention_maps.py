"""The attention of a sentence (ASA, figures 1 and 6), and under the adversary's mask if there is one."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from adv_plugins_cli.command import UserError
from adv_plugins_cli.figures.drawing import new_figure
from adv_plugins_cli.figures.loading import encode, load


class Attention(NamedTuple):
    """The attention of a sentence in one layer, without and with the mask: (heads, T, T) arrays. The
    second is None of a model that has no adversary."""

    clean: Any
    masked: Any = None


def maps(arguments: argparse.Namespace) -> Any:
    """Figures 1 and 6."""
    model, task = load(arguments.checkpoint, arguments.data, adversaries=False)
    tokens, names = encode(arguments.text, arguments, task.source_dictionary)
    longest = int(model.max_positions())
    if len(tokens) > longest:
        raise UserError(f"--text has {len(tokens)} subwords, this model reads {longest}")
    found = attention_of(model, tokens, arguments.seed)
    heads = len(found[0].clean)
    if arguments.head is not None and not 1 <= arguments.head <= heads:
        raise UserError(f"--head {arguments.head}: this model has heads 1 to {heads}")
    for layer in arguments.layers or ():
        if not 1 <= layer <= len(found):
            raise UserError(f"--layers {layer}: this model has layers 1 to {len(found)}")
    chosen = arguments.layers or range(1, len(found) + 1)
    return plot_maps({layer: found[layer - 1] for layer in chosen}, names, arguments.head)


@contextlib.contextmanager
def captured_attention(model: Any) -> Iterator[list[Any]]:
    """Yields a list that gets every layer's (B, heads, T, T) attention weights, lowest first."""
    from adv_plugins.fork import encoder_layers
    from adv_plugins.masked_attention import attention_weights

    found: list[Any] = []

    def capture_clean(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        # fairseq returns their mean over heads only.
        query, padding = kwargs["query"], kwargs["key_padding_mask"]
        length, batch, _ = query.shape
        nothing = query.new_zeros(batch, length, length)
        found.append(attention_weights(module, query, padding, nothing))

    def capture_masked(attention: Any) -> Any:
        def hook(module: Any, args: Any, drawn: Any) -> None:
            # An adversary that is asked for a mask says that the pass is masked.
            query, padding = args
            found[-1] = attention_weights(attention, query, padding, drawn[0])

        return hook

    handles = []
    for attention in (layer.self_attn for layer in encoder_layers(model)):
        handles.append(attention.register_forward_pre_hook(capture_clean, with_kwargs=True))
        if hasattr(attention, "adversary"):
            handles.append(attention.adversary.register_forward_hook(capture_masked(attention)))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def attention_of(model: Any, tokens: Any, seed: int) -> list[Attention]:
    """The attention of one sentence, (T,) tokens, in every layer."""
    import torch

    from adv_plugins.models.asa_roberta import adversaries, biased

    torch.manual_seed(seed)
    with torch.no_grad():
        with captured_attention(model) as clean:
            model(tokens[None], features_only=True)
        if not adversaries(model):
            return [Attention(c[0].numpy()) for c in clean]
        with biased(model), captured_attention(model) as masked:
            model(tokens[None], features_only=True)
    return [Attention(c[0].numpy(), m[0].numpy()) for c, m in zip(clean, masked, strict=True)]


def plot_maps(layers: dict[int, Attention], names: list[str], head: int | None) -> Any:
    """A row for each layer: self-attention and, if there is an adversary, adversarial self-attention."""
    size = 1.5 + 0.28 * len(names)
    titles = ("SA",) if next(iter(layers.values())).masked is None else ("SA", "ASA")
    figure = new_figure(len(titles) * size + 0.6, (size + 0.4) * len(layers))
    plots = figure.subplots(len(layers), len(titles), squeeze=False)
    which = "mean of heads" if head is None else f"head {head}"
    for row, (layer, attention) in zip(plots, layers.items(), strict=True):
        both = [weights for weights in attention if weights is not None]
        shown = [w.mean(axis=0) if head is None else w[head - 1] for w in both]
        # The scale is the left map's: a unit that is left alone in its row would pale all others.
        scale = {"cmap": "Blues", "vmin": 0, "vmax": shown[0].max()}
        for plot, title, weights in zip(row, titles, shown, strict=True):
            image = plot.imshow(weights, **scale)
            plot.set_xticks(range(len(names)), names, rotation=90)
            plot.set_yticks(range(len(names)), names)
            plot.set_title(f"{title}, layer {layer}, {which}")
        above = "neither" if attention.masked is None else "max"
        figure.colorbar(image, ax=list(row), extend=above, shrink=0.7)
        if attention.masked is not None:
            rows, columns = (attention.masked == 0).all(axis=0).nonzero()
            row[1].scatter(columns, rows, marker="x", color="firebrick", s=20, linewidths=1)
    return figure
