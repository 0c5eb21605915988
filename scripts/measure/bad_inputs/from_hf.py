"""Folders of Hugging Face's, malformed, and what the conversion to them refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bad_inputs.checkpoints import flip
from bad_inputs.common import BEST, DEEP, LATIN, RTE, either, full, latin, mounted, refuses, without
from campaign_fixtures import (
    Step,
    changed,
    copied,
    full_disk,
    hostile_pickle,
    json_entry,
    read_only_disk,
    removed,
    replaced,
    write,
)
from campaign_judge import Case, Place


def convert_from_hf_cases() -> Iterator[Case]:
    """config.json, weights and tokenizers of Hugging Face's, malformed."""

    def convert(
        family: str,
        wrong: str,
        says: str,
        *steps: Step,
        flags: str = "",
        make: Callable[..., Case] = refuses,
        **more: Any,
    ) -> Case:
        line = f"{{in}}/{family} {{out}}/made {flags}"
        what = f"{wrong} ({family})"
        return make("convert_from_hf", what, line, says, copied(f"hf/{family}"), *steps, **more)

    for wrong, step in (
        ("no config.json", removed("bert/config.json")),
        ("an empty config.json", write("bert/config.json", "")),
        ("half a config.json", changed("bert/config.json", lambda b: b[: len(b) // 2])),
        ("a config.json that is a list", write("bert/config.json", "[1, 2]")),
        ("a config.json that is not UTF-8", changed("bert/config.json", latin)),
        ("a config.json nested too deeply", write("bert/config.json", DEEP)),
        ("no hidden_size", json_entry("bert/config.json", hidden_size=None)),
        ("no num_hidden_layers", json_entry("bert/config.json", num_hidden_layers=None)),
        ("no vocab_size", json_entry("bert/config.json", vocab_size=None)),
        ("a hidden_size that is text", json_entry("bert/config.json", hidden_size="wide")),
        ("a hidden_size of another model", json_entry("bert/config.json", hidden_size=32)),
        ("more layers than weights", json_entry("bert/config.json", num_hidden_layers=9)),
        ("layers that are negative", json_entry("bert/config.json", num_hidden_layers=-1)),
        ("an epsilon that is text", json_entry("bert/config.json", layer_norm_eps="tiny")),
        ("heads that do not divide", json_entry("bert/config.json", num_attention_heads=3)),
        ("a model_type of another family", json_entry("bert/config.json", model_type="gpt2")),
        ("a model_type that is a list", json_entry("bert/config.json", model_type=["bert"])),
        ("a hidden_act that is unknown", json_entry("bert/config.json", hidden_act="magic")),
        ("an activation that is a list", json_entry("bert/config.json", hidden_act=["gelu"])),
    ):
        yield convert("bert", wrong, r"bert/config\.json|bert:", step)
    for wrong, step in (
        ("no weights", removed("bert/model.safetensors")),
        ("empty weights", write("bert/model.safetensors", b"")),
        ("half of the weights", changed("bert/model.safetensors", lambda b: b[: len(b) // 2])),
        ("weights with a huge header", changed("bert/model.safetensors", lambda b: b"\xff" * 8 + b[8:])),
        (
            "weights with a broken header",
            changed("bert/model.safetensors", lambda b: flip(b, 20 / len(b))),
        ),
        ("text instead of weights", write("bert/model.safetensors", "weights\n" * 9)),
        ("a weight less", weights("bert", lambda w: w.pop("bert.encoder.layer.1.output.dense.weight"))),
        (
            "an unknown weight",
            weights("bert", lambda w: w.update({"decoder.x": w["bert.embeddings.LayerNorm.bias"]})),
        ),
        ("a word embedding less", weights("bert", cut_words)),
        (
            "a pytorch_model.bin that runs code",
            both(
                removed("bert/model.safetensors"), hostile_pickle("bert/pytorch_model.bin", zipped=False)
            ),
        ),
        (
            "an empty pytorch_model.bin",
            both(removed("bert/model.safetensors"), write("bert/pytorch_model.bin", b"")),
        ),
        (
            "a list in pytorch_model.bin",
            both(removed("bert/model.safetensors"), saved_list("bert/pytorch_model.bin")),
        ),
        ("a broken index of shards", write("bert/model.safetensors.index.json", "{")),
        ("an index without a map", write("bert/model.safetensors.index.json", "{}")),
        (
            "shards that are missing",
            write("bert/model.safetensors.index.json", '{"weight_map": {"a": "none"}}'),
        ),
    ):
        yield convert("bert", wrong, r"safetensors|pytorch_model|bert[:/]|weight", step)
    yield convert("bert", "a NaN among the weights", "bert", weights("bert", with_nan), make=either)
    for family, file, wrong, content in (
        ("bert", "vocab.txt", "no vocabulary", None),
        ("bert", "vocab.txt", "an empty vocabulary", b""),
        ("bert", "vocab.txt", "a vocabulary that is not UTF-8", LATIN + b"\n"),
        ("bert", "tokenizer.json", "a broken tokenizer.json", b'{"model": '),
        ("bert", "tokenizer.json", "a tokenizer.json of something else", b'{"a": 1}'),
        ("bert", "tokenizer.json", "a tokenizer.json that is not UTF-8", LATIN),
        ("bert", "tokenizer_config.json", "a broken tokenizer_config.json", b"{"),
        ("roberta", "vocab.json", "no vocab.json", None),
        ("roberta", "vocab.json", "a broken vocab.json", b'{"a": '),
        ("roberta", "vocab.json", "a vocab.json that is a list", b"[1]"),
        ("roberta", "vocab.json", "ids that are text", b'{"<s>": "0"}'),
        ("roberta", "merges.txt", "no merges.txt", None),
        ("roberta", "merges.txt", "merges that are not UTF-8", LATIN),
        ("xlm-roberta", "sentencepiece.bpe.model", "no SentencePiece model", None),
        ("xlm-roberta", "sentencepiece.bpe.model", "an empty SentencePiece model", b""),
        ("xlm-roberta", "sentencepiece.bpe.model", "a broken SentencePiece model", b"not one" * 40),
    ):
        step = removed(f"{family}/{file}") if content is None else write(f"{family}/{file}", content)
        yield convert(family, wrong, rf"{family}(/|:)", step, skipped=without(family))
    gap = replaced("roberta/vocab.json", '"<pad>":1', '"<pad>":9999')
    yield convert("roberta", "a gap in the ids", r"roberta", gap)
    for wrong, flags, says in (
        ("no layer", "--layers 0", "--layers"),
        ("more layers than there are", "--layers 7", "--layers"),
        ("layers that are text", "--layers two", "--layers"),
    ):
        yield convert("bert", wrong, says, flags=flags)
    source = "convert_from_hf"
    yield refuses(source, "a source that does not exist", "{in}/none {out}/made", "none")
    yield refuses(source, "a file as source", "{in}/file {out}/made", "file", write("file", "x"))
    yield refuses(source, "a target that exists", "{made}/hf/bert {out}", "out")
    yield refuses(
        source, "a target below a file", "{made}/hf/bert {in}/file/a", "file", write("file", "x")
    )
    yield refuses(
        source, "a full disk", "{made}/hf/bert {out}/disk/a", "disk|[Nn]o space", full_disk(), **full()
    )
    yield refuses(
        source, "a read-only disk", "{made}/hf/bert {out}/disk/a", "disk", read_only_disk(), **mounted()
    )


def both(*steps: Step) -> Step:
    """Several steps as one."""

    def step(place: Place) -> None:
        for each in steps:
            each(place)

    return step


def weights(family: str, change: Callable[[dict[str, Any]], Any]) -> Step:
    """Other weights in model.safetensors."""

    def step(place: Place) -> None:
        from safetensors.torch import load_file, save_file

        path = str(place.inside / family / "model.safetensors")
        found = load_file(path)
        change(found)
        save_file(
            {name: value.clone() for name, value in found.items()}, path, metadata={"format": "pt"}
        )

    return step


def cut_words(found: dict[str, Any]) -> None:
    """A row less than config.json says."""
    name = "bert.embeddings.word_embeddings.weight"
    found[name] = found[name][:-1]


def with_nan(found: dict[str, Any]) -> None:
    """A weight that is NaN."""
    found["bert.embeddings.word_embeddings.weight"][0, 0] = float("nan")


def saved_list(name: str) -> Step:
    """A checkpoint that is a list."""

    def step(place: Place) -> None:
        import torch

        torch.save([1, 2], place.inside / name)

    return step


def convert_to_hf_cases() -> Iterator[Case]:
    """Tokenizers, label dictionaries and places for the way back."""
    best = f"{{made}}/{RTE}/{BEST}"

    def convert(wrong: str, line: str, says: str, *steps: Step, **more: Any) -> Case:
        return refuses("convert_to_hf", wrong, line, says, *steps, **more)

    for wrong, step in (
        ("no config.json beside the weights", removed("start/config.json")),
        ("a broken config.json", write("start/config.json", "{")),
        ("a config.json of another model", json_entry("start/config.json", vocab_size=7)),
        ("a config.json without a width", json_entry("start/config.json", hidden_size=None)),
        ("no vocabulary", removed("start/vocab.json")),
        ("a broken vocabulary", write("start/vocab.json", "{")),
    ):
        line = f"{best} {{out}}/hf --pretrained {{in}}/start"
        yield convert(wrong, line, r"in/start", copied("start"), step)
    for wrong, step in (
        ("no encoder.json", removed("start/encoder.json")),
        ("a broken encoder.json", write("start/encoder.json", "{")),
        ("an encoder.json that is a list", write("start/encoder.json", "[]")),
        ("an encoder.json that is not UTF-8", write("start/encoder.json", LATIN)),
        ("a dict.txt that is not UTF-8", changed("start/dict.txt", latin)),
        ("a dict.txt of another model", write("start/dict.txt", "5 1\n")),
    ):
        line = f"{best} {{out}}/hf --bpe-dir {{in}}/start"
        yield convert(wrong, line, r"in/start", copied("start"), step)
    for wrong, content in (
        ("a missing label dictionary", None),
        ("a label dictionary of other classes", b"a 1\nb 1\nc 1\n"),
        ("an empty label dictionary", b""),
        ("a label dictionary that is not UTF-8", LATIN + b" 1\nb 1\n"),
    ):
        line = f"{best} {{out}}/hf --pretrained {{made}}/start --label-dict {{in}}/dict.txt"
        yield convert(
            wrong, line, r"dict\.txt", *([] if content is None else [write("dict.txt", content)])
        )
    yield convert("a target that exists", f"{best} {{out}} --pretrained {{made}}/start", "out")
    below = f"{best} {{in}}/file/a --pretrained {{made}}/start"
    yield convert("a target below a file", below, "file", write("file", "x"))
    disk = f"{best} {{out}}/disk/a --pretrained {{made}}/start"
    yield convert("a full disk", disk, "disk|[Nn]o space", full_disk(), **full())
    yield convert("a read-only disk", disk, "disk", read_only_disk(), **mounted())
