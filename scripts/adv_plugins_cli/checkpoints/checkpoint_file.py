"""Reading a checkpoint of fairseq that may be damaged, or made to do harm.

Only tensors, plain values and fairseq's namespaces come out of the file (torch's ``weights_only``); what
is done with them is the business of others (``checkpoint_model.py`` builds models of them).
"""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fairseq_compat

fairseq_compat.install()

from adv_plugins_cli.command import UserError  # noqa: E402


def read_checkpoint(path: Path, *, whole: bool = False) -> dict[str, Any]:
    """The content of a checkpoint: ``model`` (its weights, by name), ``cfg`` or ``args``, and so on.

    The weights are mapped, not read, where torch can: asking for the configuration alone is cheap.

    Args:
        whole: read all of it once and compare it with the checksums in the file, which torch ignores.

    Raises:
        UserError: there is no such file, or it is damaged, or no checkpoint of fairseq.
        OSError: it may not be read.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder, not a checkpoint")
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    with path.open("rb") as file:
        if not file.read(1):
            raise UserError(f"{path}: not a checkpoint, or a damaged one (the file is empty)")
    import torch

    import adv_plugins  # noqa: F401 - lets torch read fairseq's namespaces

    try:
        mapped = zipfile.is_zipfile(path)  # torch before 1.6 wrote no zip files
        if whole and mapped:
            _check_sums(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        raise UserError(f"{path}: not a checkpoint, or a damaged one ({_reason(error)})") from error
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise UserError(f"{path}: no checkpoint of fairseq-train (it has no model)")
    if not isinstance(state.get("cfg"), dict) and not isinstance(state.get("args"), argparse.Namespace):
        raise UserError(f"{path}: no checkpoint of fairseq-train (it has no configuration)")
    _check_weights(path, state["model"])
    return state


def section(path: Path, state: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One section of the configuration, {} where it has none.

    Older checkpoints have one namespace of all options, and in newer ones what fairseq has not moved
    to hydra has one in place of its section.

    Args:
        path: for the message.

    Raises:
        UserError: it is no section.
    """
    config = state.get("cfg")
    found = state.get("args") if config is None else config.get(name)
    if found is None:
        return {}
    options = vars(found) if isinstance(found, argparse.Namespace) else found
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        raise UserError(f"{path}: its configuration is damaged ({name} is a {type(found).__name__})")
    return options


def refuse_not_finite(path: Path, weights: Mapping[str, Any]) -> None:
    """Reads all weights once.

    Raises:
        UserError: naming the first one that holds NaN or infinity.
    """
    for name, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            kind = "NaN" if value.isnan().any() else "infinity"
            raise UserError(f"{path}: {name} holds {kind}: that training diverged, take another one")


def _check_sums(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"wrong checksum of {damaged}")


def _check_weights(path: Path, weights: dict[Any, Any]) -> None:
    """Only ordinary tensors, each as large in the file as it says it is."""
    import torch

    known = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    whole = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    for name, value in weights.items():
        if not isinstance(name, str) or type(value) not in (torch.Tensor, torch.nn.Parameter):
            raise UserError(f"{path}: its model is damaged ({type(value).__name__} for a weight)")
        ordinary = value.layout == torch.strided and value.device.type == "cpu"
        if not ordinary or value.dtype not in known + whole:
            raise UserError(f"{path}: {name} is no tensor of ordinary numbers")
        # By its strides a few bytes can pose as terabytes.
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UserError(f"{path}: {name} says it is larger than what the file holds")


def _reason(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error).strip() or type(error).__name__).split("\n")[0]
