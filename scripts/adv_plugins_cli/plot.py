"""The figures of the ASA paper for a model of your own, as PNG files (needs matplotlib).

    adv-plugins plot maps checkpoint_best.pt --text "a smile on your face" \\
        --bpe-dir gpt2_bpe --layers 1 11 --head 2 --out maps.png
    adv-plugins plot layers SST-2=sst2/checkpoint_best.pt RTE=rte/checkpoint_best.pt \\
        --out layers.png
    adv-plugins plot history train.log --out history.png

maps: the attention of a sentence without and with the adversary's mask, masked units crossed (figures
1 and 6). layers: the masked proportion of each layer over a validation split (figure 5). history: the
same over the updates of a training, from its log (--log-format json).

The adversary draws its masks at random; --seed chooses the draw. The mask of a layer is seen by the
layers above it, as in training.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from adv_plugins_cli.checkpoints.checkpoint_file import read_checkpoint
from adv_plugins_cli.checkpoints.checkpoint_model import build, task_name, task_options
from adv_plugins_cli.checkpoints.trained_model import find_data
from adv_plugins_cli.command import UserError, one_line_errors, read_json
from adv_plugins_cli.data.tokenizer_options import (
    add_tokenizer_options,
    chosen,
    find_tokenizer,
    load_encoder,
)
from fairseq_compat.files import written_beside
from fairseq_compat.task_kinds import TASK_KINDS


class Attention(NamedTuple):
    """The attention of a sentence in one layer, without and with the mask: (heads, T, T) arrays."""

    clean: Any
    masked: Any


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    maps = commands.add_parser("maps", help="attention maps of a sentence")
    maps.add_argument("checkpoint", type=Path, help="of an asa_roberta architecture")
    maps.add_argument("--text", required=True, help="a sentence, raw")
    add_tokenizer_options(maps, required=False)
    maps.add_argument("--layers", nargs="+", type=int, help="from 1 (default: all)")
    maps.add_argument("--head", type=int, help="from 1 (default: the mean over all heads)")
    layers = commands.add_parser("layers", help="masked proportion per layer")
    layers.add_argument(
        "checkpoints", nargs="+", metavar="NAME=CHECKPOINT", help="one curve each; NAME is its label"
    )
    layers.add_argument("--split", default="valid", help="of the data (default: %(default)s)")
    layers.add_argument("--batch", type=int, default=32, help="sentences (default: %(default)s)")
    for command in (maps, layers):
        command.add_argument("--data", type=Path, help="data folder (default: the training's)")
        command.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    history = commands.add_parser("history", help="masked proportion over the updates")
    history.add_argument("log", type=Path, help="of fairseq-train --log-format json")
    for command in (maps, layers, history):
        command.add_argument("--out", type=Path, required=True, help="the PNG file")
    return parser.parse_args(argv)


def check_options(arguments: argparse.Namespace) -> None:
    """Find what cannot be, before a model is loaded.

    Raises:
        UserError: naming the option.
    """
    if not arguments.out.parent.is_dir():
        raise UserError(f"{arguments.out.parent}: no such folder (--out)")
    if arguments.out.is_dir():
        raise UserError(f"{arguments.out}: is a folder (--out)")
    if getattr(arguments, "batch", 1) < 1:
        raise UserError(f"--batch {arguments.batch}: at least 1")
    if not 0 <= getattr(arguments, "seed", 1) < 2**63:
        raise UserError(f"--seed {arguments.seed}: from 0 to 2^63 - 1")
    for named in getattr(arguments, "checkpoints", ()):
        if "=" not in named:
            raise UserError(f"{named}: give NAME=CHECKPOINT")


def load(checkpoint: Path, data: Path | None, *, raw_text: bool = False) -> tuple[Any, Any]:
    """The model, in eval mode, and its task.

    Args:
        raw_text: whether the task's data may be raw text; see :func:`checkpoint_model.build`.

    Raises:
        UserError: no such file, one that is refused, or a model without adversaries.
    """
    state = read_checkpoint(checkpoint, whole=True)
    from adv_plugins.models.asa_roberta import ADVERSARY, adversaries

    if not any(ADVERSARY in name for name in state["model"]):
        raise UserError(f"{checkpoint}: has no adversary; train it with an asa_ architecture")
    options = task_options(checkpoint, state)
    kind = TASK_KINDS[task_name(checkpoint, state)]
    folder = data or find_data(checkpoint, options.get("data"), kind)
    if not (folder / kind.dictionary).is_file():
        raise UserError(f"{folder / kind.dictionary}: no such file; --data gives the folder of the data")
    model, task = build(checkpoint, state, folder, raw_text=raw_text)
    if not adversaries(model):
        raise UserError(f"{checkpoint}: {type(model).__name__} has no adversary")
    return model, task


@contextlib.contextmanager
def captured_attention(model: Any) -> Iterator[list[Any]]:
    """Yields a list that gets every layer's (B, heads, T, T) attention weights, lowest first."""
    from adv_plugins.masked_attention import attention_weights
    from adv_plugins.models.asa_roberta import adversaries

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
    for attention in adversaries(model):
        handles.append(attention.register_forward_pre_hook(capture_clean, with_kwargs=True))
        handles.append(attention.adversary.register_forward_hook(capture_masked(attention)))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def attention_of(model: Any, tokens: Any, seed: int) -> list[Attention]:
    """The attention of one sentence, (T,) tokens, in every layer."""
    import torch

    from adv_plugins.models.asa_roberta import biased

    torch.manual_seed(seed)
    with torch.no_grad():
        with captured_attention(model) as clean:
            model(tokens[None], features_only=True)
        with biased(model), captured_attention(model) as masked:
            model(tokens[None], features_only=True)
    return [Attention(c[0].numpy(), m[0].numpy()) for c, m in zip(clean, masked, strict=True)]


def encode(text: str, arguments: argparse.Namespace, dictionary: Any) -> tuple[Any, list[str]]:
    """(T,) tokens of a sentence with fairseq's begin and end, and what to call each.

    Raises:
        UserError: the tokenizer does not fit the model's dictionary.
    """
    import torch

    tokenizer = chosen(arguments) or find_tokenizer(arguments.checkpoint.parent)
    if tokenizer is None:
        raise UserError("give the tokenizer: --bpe-dir, --sentencepiece or --wordpiece")
    encoder = load_encoder(tokenizer)
    symbols = encoder.dictionary.symbols
    if symbols != dictionary.symbols[: len(symbols)]:
        raise UserError("the tokenizer is not the one that this model's data were made with")
    (words,) = encoder.encode_batch([text])
    names = [symbols[index] for index in words]
    if tokenizer.kind == "gpt2-bpe":
        names = gpt2_names(names, tokenizer.folder)
    tokens = [dictionary.bos(), *words, dictionary.eos()]
    return torch.tensor(tokens), ["<s>", *(name.replace("▁", " ") for name in names), "</s>"]


def gpt2_names(symbols: Sequence[str], bpe_dir: Path) -> list[str]:
    """What the decimal numbers in RoBERTa's dictionary stand for."""
    from tokenizers.decoders import ByteLevel

    ids = read_json(bpe_dir / "encoder.json")
    pieces = {str(index): piece for piece, index in ids.items()}
    decoder = ByteLevel()
    return [decoder.decode([pieces.get(symbol, symbol)]) for symbol in symbols]


def masked_proportions(model: Any, task: Any, split: str, batch: int, seed: int) -> list[float]:
    """Each layer's masked proportion, the mean over the sentences of a split."""
    import torch

    from adv_plugins.batch import source_tokens
    from adv_plugins.models.asa_roberta import biased

    try:
        task.load_dataset(split)
        batches = task.get_batch_iterator(
            task.dataset(split), max_sentences=batch, max_positions=task.max_positions()
        )
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"split {split} cannot be read (--split, --data): {reason[:300]}") from error
    torch.manual_seed(seed)
    with torch.no_grad(), biased(model) as layers:
        for sample in batches.next_epoch_itr(shuffle=False):
            for tokens in source_tokens(sample):
                model(tokens, features_only=True)
    if not layers or not layers[0]:
        raise UserError(f"split {split} has no sentences (--split, --data)")
    return [torch.cat(layer).mean().item() for layer in layers]


def read_history(log: Path) -> dict[str, list[tuple[int, float]]]:
    """(update, masked proportion) points of every layer.

    Raises:
        UserError: the log has none.
    """
    if not log.is_file():
        raise UserError(f"{log}: no such file")
    curves: dict[str, list[tuple[int, float]]] = {}
    *lines, last = log.read_text("utf-8", errors="replace").split("\n")
    for line in lines if "}" not in last else [*lines, last]:  # it may be being written
        _, brace, rest = line.partition("{")
        if '"masked_layer' not in rest:  # the summary of an epoch has other names
            continue
        try:
            numbers = json.loads(brace + rest)
            masked = {key: value for key, value in numbers.items() if key.startswith("masked_layer")}
            for key, value in masked.items():
                point = (int(numbers["num_updates"]), float(value))
                curves.setdefault(key.removeprefix("masked_"), []).append(point)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{log}: {line[:80]!r} is no line of --log-format json") from error
    if not curves:
        raise UserError(f"{log}: no masked_layer in it; train with asa_criterion and json logs")
    return curves


def new_figure(width: float, height: float) -> Any:
    """A figure that needs no screen."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def plot_maps(layers: dict[int, Attention], names: list[str], head: int | None) -> Any:
    """A row for each layer: self-attention and adversarial self-attention."""
    size = 1.5 + 0.28 * len(names)
    figure = new_figure(2 * size + 0.6, (size + 0.4) * len(layers))
    plots = figure.subplots(len(layers), 2, squeeze=False)
    which = "mean of heads" if head is None else f"head {head}"
    for row, (layer, attention) in zip(plots, layers.items(), strict=True):
        shown = [w.mean(axis=0) if head is None else w[head - 1] for w in attention]
        # The scale is the left map's: a unit that is left alone in its row would pale all others.
        scale = {"cmap": "Blues", "vmin": 0, "vmax": shown[0].max()}
        for plot, title, weights in zip(row, ("SA", "ASA"), shown, strict=True):
            image = plot.imshow(weights, **scale)
            plot.set_xticks(range(len(names)), names, rotation=90)
            plot.set_yticks(range(len(names)), names)
            plot.set_title(f"{title}, layer {layer}, {which}")
        figure.colorbar(image, ax=list(row), extend="max", shrink=0.7)
        rows, columns = (attention.masked == 0).all(axis=0).nonzero()
        row[1].scatter(columns, rows, marker="x", color="firebrick", s=20, linewidths=1)
    return figure


def plot_curves(curves: dict[str, list[tuple[int, float]]], horizontal: str, marker: str) -> Any:
    """Masked proportions, in percent."""
    figure = new_figure(6, 4)
    plot = figure.subplots()
    for name, points in curves.items():
        places, values = zip(*points, strict=True)
        plot.plot(places, [100 * value for value in values], marker=marker, label=name)
    plot.set_xlabel(horizontal)
    plot.locator_params(axis="x", integer=True)
    plot.set_ylabel("masked proportion (%)")
    plot.set_ylim(bottom=0)
    plot.legend()
    return figure


def maps(arguments: argparse.Namespace) -> Any:
    """Figures 1 and 6."""
    model, task = load(arguments.checkpoint, arguments.data)
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


def layers(arguments: argparse.Namespace) -> Any:
    """Figure 5."""
    curves = {}
    for named in arguments.checkpoints:
        name, _, checkpoint = named.partition("=")
        model, task = load(Path(checkpoint), arguments.data, raw_text=True)
        found = masked_proportions(model, task, arguments.split, arguments.batch, arguments.seed)
        mean = sum(found) / len(found)
        print(f"{name}: {' '.join(f'{value:.4f}' for value in found)}, mean {mean:.4f}")
        curves[f"{name} (mean {100 * mean:.1f} %)"] = list(enumerate(found, start=1))
    return plot_curves(curves, "layer", "o")


def history(arguments: argparse.Namespace) -> Any:
    """Figure 5's numbers in the course of a training."""
    return plot_curves(read_history(arguments.log), "updates", "")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; a fault of the input is one line, not a traceback."""
    arguments = parse_arguments(argv)
    with one_line_errors("adv-plugins plot"):
        new_figure(1, 1)  # without matplotlib no model is loaded
        check_options(arguments)
        figure = {"maps": maps, "layers": layers, "history": history}[arguments.command](arguments)
        with written_beside(arguments.out) as path:
            figure.savefig(path, dpi=150, format="png")
        print(arguments.out)


if __name__ == "__main__":
    main()
