"""The files of Hugging Face's weights: read, and checked against the sizes that config.json names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adv_plugins_cli.checkpoints.hf_layout import (
    ENCODER,
    LAYER,
    LM_HEAD,
    OUR_SEGMENTS,
    POOLER,
    POSITIONS,
    WORDS,
)
from adv_plugins_cli.command import UserError, read_json

if TYPE_CHECKING:
    from torch import Tensor


def expected_shapes(
    config: Mapping[str, Any], *, layers: int, positions: int
) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """fairseq's name of each weight, its shape, and whether it may be missing.

    Args:
        positions: rows of the position embedding.
    """
    words, width, inner = (int(config[n]) for n in ("vocab_size", "hidden_size", "intermediate_size"))
    yield WORDS, (words, width), False
    yield POSITIONS, (positions, width), False
    yield OUR_SEGMENTS, (int(config.get("type_vocab_size", 2)), width), True
    norm, whole = f"{ENCODER}layernorm_embedding", {"fc1": (inner, width), "fc2": (width, inner)}
    yield from ((f"{norm}.{kind}", (width,), False) for kind in ("weight", "bias"))
    for layer in range(layers):
        for part in LAYER.values():
            shape = (width,) if "norm" in part else whole.get(part, (width, width))
            yield f"{ENCODER}layers.{layer}.{part}.weight", shape, False
            yield f"{ENCODER}layers.{layer}.{part}.bias", shape[:1], False
    for part in (POOLER, f"{LM_HEAD}dense."):
        yield f"{part}weight", (width, width), True
        yield f"{part}bias", (width,), True
    yield from ((f"{LM_HEAD}layer_norm.{kind}", (width,), True) for kind in ("weight", "bias"))
    yield f"{LM_HEAD}bias", (words,), True


def check_shapes(
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    place: str,
    *,
    layers: int,
    positions: int,
) -> None:
    """Compare weights, by fairseq's names, with a config, before anything of its sizes is made.

    Raises:
        UserError: naming ``place`` and the weight.
    """
    for name, shape, optional in expected_shapes(config, layers=layers, positions=positions):
        if name not in weights and not optional:
            raise UserError(f"{place}: the checkpoint lacks {name}")
        if name in weights and tuple(weights[name].shape) != shape:
            raise UserError(
                f"{place}: {name} {tuple(weights[name].shape)} does not fit the model that config.json "
                f"describes, {shape}"
            )


def check_finite(weights: Mapping[str, Tensor], place: str) -> None:
    """Refuse weights that are no numbers.

    Raises:
        UserError: naming ``place`` and the first of them.
    """
    import torch

    for name, value in weights.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(f"{place}: {name} holds NaN or infinite values")


def load_tensors(path: Path) -> dict[str, Any]:
    """What a file of ``torch.save`` holds, a dictionary; no code of it is run.

    Raises:
        UserError: it is no such file.
    """
    import torch

    path.open("rb").close()  # what the system has against it is said by itself
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the reader raise almost anything
        # torch's hint goes on for lines, and ends with how to run the code after all
        reason = str(error).strip().split("\n")[0].split(". ")[0] or type(error).__name__
        raise UserError(
            f"{path}: no file of tensors, a damaged one, or one that would run code ({reason})"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not weights by name")
    return content


def check_tensors(weights: Any, place: str) -> dict[str, Tensor]:
    """``weights``, which must be tensors by name.

    Raises:
        UserError: they are not; names ``place``.
    """
    import torch

    if not isinstance(weights, dict) or not weights:
        raise UserError(f"{place}: holds no weights by name")
    for name, value in weights.items():
        if not isinstance(name, str) or not torch.is_tensor(value):
            raise UserError(f"{place}: {name!r} is a {type(value).__name__}, not a tensor")
    return weights


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Within the context a write that fails, as on a full disk, is an error that names ``target``.

    Raises:
        UserError: it failed.
    """
    try:
        yield
    except Exception as error:  # of the libraries' own; torch's stands before the system's
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        raise UserError(f"{target}: cannot be written ({' '.join(str(cause).split())})") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file.

    Raises:
        UserError: it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: no safetensors file, or a damaged one ({reason})") from error


def shards_of(index: Path) -> list[Path]:
    """The files that an index of a sharded checkpoint names.

    Raises:
        UserError: it is malformed, or one is missing.
    """
    table = read_json(index).get("weight_map")
    names = list(table.values()) if isinstance(table, dict) else []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise UserError(f"{index}: weight_map does not name files of this folder")
    files = [index.with_name(name) for name in sorted(set(names))]
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}: no such file, but {index.name} names it")
    return files


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Hugging Face's weights: model.safetensors or pytorch_model.bin, whole or in shards.

    Raises:
        UserError: there are none, or none that are numbers.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        index, whole = folder / f"{name}.index.json", folder / name
        if not index.is_file() and not whole.is_file():
            continue
        weights: dict[str, Tensor] = {}
        for file in shards_of(index) if index.is_file() else [whole]:
            read = read_safetensors if file.suffix == ".safetensors" else load_tensors
            found = check_tensors(read(file), str(file))
            found = {key: value for key, value in found.items() if value.is_floating_point()}
            check_finite(found, str(file))
            weights.update((key, value.float()) for key, value in found.items())
        return weights
    raise UserError(f"{folder}: neither model.safetensors nor pytorch_model.bin")
