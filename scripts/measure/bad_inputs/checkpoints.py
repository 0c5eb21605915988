"""Damaged and hostile checkpoints, in every command that reads one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from bad_inputs.common import (
    ASA,
    BEST,
    COMPARE_FROM,
    FEW,
    FINETUNE_FROM,
    PRETRAIN_FROM,
    RTE,
    RUN_LEAVES,
    SHORT,
    START,
    either,
    filled,
    refuses,
)
from campaign_fixtures import (
    Step,
    changed,
    copied,
    evaluated,
    folder,
    hostile_pickle,
    other_zip,
    removed,
    state,
    train_line,
    write,
)
from campaign_judge import TRAIN, Case, Place


def flip(content: bytes, share: float) -> bytes:
    """64 bytes inverted, at a share of the whole."""
    at = int(share * len(content))
    return content[:at] + bytes(255 - byte for byte in content[at : at + 64]) + content[at + 64 :]


def flip_pickle(content: bytes) -> bytes:
    """The same in what describes the tensors: the first record of torch's zip file."""
    return flip(content, 400 / len(content))


def without_layer(saved: dict[str, Any], place: Place) -> None:
    """A weight less."""
    del saved["model"]["encoder.sentence_encoder.layers.1.fc1.weight"]


def wider(saved: dict[str, Any], place: Place) -> None:
    """A weight of another size."""
    name = "encoder.sentence_encoder.layers.1.fc1.weight"
    saved["model"][name] = saved["model"][name].repeat(2, 1)


def other_model(saved: dict[str, Any], place: Place) -> None:
    """Weights of something else."""
    import torch

    saved["model"] = {"decoder.conv.weight": torch.zeros(3, 3), "decoder.conv.bias": torch.zeros(3)}


def damaged(name: str) -> list[tuple[str, list[Step]]]:
    """Ways to damage the file of a checkpoint, and its contents."""
    return [
        ("an empty checkpoint", [write(name, b"")]),
        ("the first 10 bytes of a checkpoint", [changed(name, lambda b: b[:10])]),
        ("half a checkpoint", [changed(name, lambda b: b[: len(b) // 2])]),
        ("a checkpoint without its last 100 bytes", [changed(name, lambda b: b[:-100])]),
        ("flipped bytes in a checkpoint's pickle", [changed(name, flip_pickle)]),
        ("zeros in place of a checkpoint's end", [changed(name, lambda b: b[:-4000] + bytes(4000))]),
        ("text instead of a checkpoint", [write(name, "not a checkpoint\n" * 10)]),
        ("another zip file instead of a checkpoint", [other_zip(name)]),
        ("a folder instead of a checkpoint", [removed(name), folder(name)]),
        ("a missing checkpoint", [removed(name)]),
        ("a pickle that runs code", [hostile_pickle(name, zipped=False)]),
        ("a checkpoint that runs code when unpickled", [hostile_pickle(name, zipped=True)]),
        ("a checkpoint that holds a list", [state(name, lambda s, p: [1, 2])]),
        ("a checkpoint that holds nothing", [state(name, lambda s, p: {})]),
        ("a checkpoint without a model", [state(name, lambda s, p: s.pop("model") and None)]),
        ("a model that is a list", [state(name, lambda s, p: {**s, "model": [1, 2]})]),
        ("a model that holds numbers", [state(name, lambda s, p: {**s, "model": {"a": 1}})]),
        ("weights of another architecture", [state(name, other_model)]),
        ("a missing weight", [state(name, without_layer)]),
        ("a weight of another size", [state(name, wider)]),
        ("a checkpoint without a configuration", [state(name, lambda s, p: {"model": s["model"]})]),
        ("a configuration that is text", [state(name, lambda s, p: {**s, "cfg": "no"})]),
        ("a configuration without a task", [state(name, lambda s, p: s["cfg"].pop("task") and None)]),
        ("a NaN among the weights", [state(name, filled(float("nan")))]),
        ("an infinite weight", [state(name, filled(float("inf")))]),
    ]


def model_config(**options: Any) -> Callable[[dict[str, Any], Place], None]:
    """Another model's name and options in the configuration; PAYLOAD is code that fairseq evaluates."""

    def change(saved: dict[str, Any], place: Place) -> None:
        code = evaluated(place)
        mine = {key: code if value == "PAYLOAD" else value for key, value in options.items()}
        for where in (saved["cfg"]["model"], saved["args"] or {}):
            (where if isinstance(where, dict) else vars(where)).update(mine)

    return change


def hostile_user_dir(saved: dict[str, Any], place: Place) -> None:
    """A package to import."""
    saved["cfg"]["common"]["user_dir"] = str(place.inside / "evil")


EVIL_PACKAGE = write(
    "evil/__init__.py", "import os\nos.mkdir({in} + '/../marker')\n".replace("{in}", "'{in}'")
)


def hostile(name: str) -> list[tuple[str, list[Step]]]:
    """Configurations of other models, with code in the options that fairseq evaluates."""
    characters = dict(
        _name="transformer_lm",
        arch="transformer_lm",
        character_embeddings=True,
        character_filters="PAYLOAD",
        character_embedding_dim=4,
        char_embedder_highway_layers=1,
        decoder_embed_dim=16,
        decoder_input_dim=16,
        decoder_output_dim=16,
        decoder_layers=1,
        decoder_attention_heads=2,
        max_target_positions=64,
    )
    convolutions = dict(
        _name="fconv_lm",
        arch="fconv_lm",
        decoder_layers="PAYLOAD",
        decoder_attention="PAYLOAD",
        decoder_embed_dim=16,
        decoder_out_embed_dim=16,
        adaptive_softmax_cutoff="PAYLOAD",
    )
    return [
        ("code in character_filters of transformer_lm", [state(name, model_config(**characters))]),
        ("code in decoder_layers of fconv_lm", [state(name, model_config(**convolutions))]),
        ("an architecture that does not exist", [state(name, model_config(_name="no", arch="no"))]),
        ("a user_dir in a checkpoint", [EVIL_PACKAGE, state(name, hostile_user_dir)]),
    ]


# What a reader does not read, or may take as it is.
NOT_FINITE = {"a NaN among the weights", "an infinite weight"}
NOT_STRIPPED = {
    "weights of another architecture",  # is one without an adversary, which it says
    "a missing weight",
    "a weight of another size",
    "a configuration without a task",
    *NOT_FINITE,
}
WEIGHTS_ONLY = {
    "a checkpoint without a configuration",
    "a configuration that is text",
    "a configuration without a task",
    *NOT_FINITE,  # which end in a training that diverges: training_cases
}
# without --restore-file, or where it is not there, fairseq begins anew
RESTORED = {"a folder instead of a checkpoint", "a missing checkpoint", *WEIGHTS_ONLY}
OF_A_START = ("an empty", "half", "text", "a pickle", "a checkpoint that runs", "a folder")
OF_OTHER_RUNNERS = ("an empty", "half")  # whose code is finetune.py's


def checkpoint_cases() -> Iterator[Case]:
    """Every damage to a checkpoint, in every command that reads one."""
    bpe, train = "--bpe-dir {made}/start", train_line("RTE", start=False)
    readers: list[tuple[str, str, str, str, set[str]]] = [
        ("strip_adversary", ASA, BEST, "BAD {out}/plain.pt", NOT_STRIPPED),
        ("convert_to_hf", RTE, BEST, "BAD {out}/hf --pretrained {made}/start", NOT_FINITE),
        ("predict", RTE, BEST, "BAD --input {made}/pairs.tsv --output {out}/found", set()),
        ("plot_attention", ASA, BEST, f"maps BAD --text cat {bpe} --out {{out}}/a.png", NOT_FINITE),
        ("plot_attention", ASA, BEST, "layers x=BAD --out {out}/a.png", NOT_FINITE),
        (TRAIN, START, "model.pt", f"{train} --finetune-from-model BAD", WEIGHTS_ONLY),
        (TRAIN, RTE, BEST, f"{train} --restore-file BAD", RESTORED),
        ("finetune", START, "model.pt", f"{FINETUNE_FROM} BAD -- {FEW}", WEIGHTS_ONLY),
        ("pretrain", START, "model.pt", f"{PRETRAIN_FROM} BAD -- {SHORT}", WEIGHTS_ONLY),
        ("compare", START, "model.pt", f"{COMPARE_FROM} BAD -- {FEW}", WEIGHTS_ONLY),
    ]
    tried = {"finetune": OF_A_START, "pretrain": OF_OTHER_RUNNERS, "compare": OF_OTHER_RUNNERS}
    for tool, source, file, line, ignored in readers:
        name = f"bad/{file}"
        trains = tool == TRAIN or tool in tried
        for wrong, steps in damaged(name):
            if wrong in ignored or not wrong.startswith(tried.get(tool, "")):
                continue
            says = "fc1" if wrong in NOT_FINITE else re.escape(name)
            names = {
                "plot_attention": f"{wrong} ({line.split()[0]})",
                TRAIN: f"{wrong} ({line.split()[-2]})",
            }
            command = line.replace("BAD", f"{{in}}/{name}")
            more = {"leaves": RUN_LEAVES if trains else None, "limit": 180 if trains else 60}
            steps = [copied(source, "bad"), *steps]
            yield refuses(tool, names.get(tool, wrong), command, says, *steps, **more)
    for tool, source, _, line, _ in readers[1:5]:
        name = f"bad/{BEST}"
        for wrong, steps in hostile(name):
            done = (
                either if wrong == "a user_dir in a checkpoint" or tool == "convert_to_hf" else refuses
            )
            what = f"{wrong} ({line.split()[0]})" if tool == "plot_attention" else wrong
            command = line.replace("BAD", f"{{in}}/{name}")
            yield done(tool, what, command, "bad/checkpoint", copied(source, "bad"), *steps)
