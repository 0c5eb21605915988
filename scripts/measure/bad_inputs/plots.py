"""Plots and stripped checkpoints."""

from __future__ import annotations

from collections.abc import Iterator

from bad_inputs.common import ASA, BEST, RTE, either, full, mounted, refuses
from campaign_fixtures import folder, full_disk, null_device, read_only_disk, write
from campaign_judge import Case


def plot_cases() -> Iterator[Case]:
    """Options, logs and places of plots."""
    best = f"{{made}}/{ASA}/{BEST}"
    maps = f"maps {best} --text 'the cat' --bpe-dir {{made}}/start --out {{out}}/a.png"
    layers = f"layers x={best} --out {{out}}/a.png"
    history = "history {in}/train.log --out {out}/a.png"
    words = maps.replace("maps", "nearest-words", 1) + " --words the"
    tool = "plot_attention"
    for wrong, line, says in (
        ("a layer that does not exist", f"{maps} --layers 9", "--layers"),
        ("layer 0", f"{maps} --layers 0", "--layers"),
        ("a head that does not exist", f"{maps} --head 9", "--head"),
        ("head 0", f"{maps} --head 0", "--head"),
        ("data that do not exist", f"{maps} --data {{in}}/none", "none"),
        ("a sentence that is too long", maps.replace("the cat", "cat " * 200), "--text|long"),
        ("a model without adversaries (layers)", layers.replace(ASA, RTE), "rte"),
        ("a curve without a name", layers.replace("x=", ""), "NAME=CHECKPOINT"),
        ("a split that does not exist", f"{layers} --split nothing", "nothing|--split"),
        ("a batch of 0", f"{layers} --batch 0", "--batch"),
        ("a negative batch", f"{layers} --batch -3", "--batch"),
        ("data of another task", f"{layers} --data {{made}}/bin/text", "bin/text|--data"),
        ("a seed that is negative", f"{layers} --seed -1", "--seed"),
        ("a word that the text lacks", words.replace("--words the", "--words dog"), "--words"),
        ("a layer that does not exist (words)", f"{words} --layer 99", "--layer"),
        ("noise without an end", f"{words} --eta inf", "--eta"),
        ("no bank", f"{words} --bank {{in}}/none", "none"),
        ("a bank that nothing asks for", f"{words} --bank {{in}}/none --against embeddings", "--bank"),
        ("no words of a list", f"{words} --top 0", "--top"),
        ("no command", "", "command"),
        ("a missing log", history, r"train\.log"),
    ):
        done = either if wrong in ("a seed that is negative", "a sentence that is too long") else refuses
        yield done(tool, wrong, line, says)
    yield either(tool, "an empty sentence", maps.replace("the cat", ""), "--text")
    entry = '{"epoch": 1, "masked_layer1": "0.31", "num_updates": "1"}'
    for wrong, content in (
        ("an empty log", b""),
        ("a log without masks", b"2026 | INFO | train_inner | {}\n"),
        ("a log of broken JSON", f"INFO | {entry[:-9]}\n".encode()),
        ("a log whose numbers are text", b'INFO | {"masked_layer1": "many", "num_updates": "1"}\n'),
        ("a log without updates", b'INFO | {"masked_layer1": "0.3"}\n'),
        ("a folder as log", None),
    ):
        step = folder("train.log") if content is None else write("train.log", content)
        yield refuses(tool, wrong, history, r"train\.log", step)
    cut = f"INFO | {entry}\nINFO | {entry[:-9]}".encode()
    yield either(tool, "a log that breaks off", history, r"train\.log", write("train.log", cut))
    good = write("train.log", f"INFO | {entry}\n".encode())
    place = "history {in}/train.log --out "
    yield either(tool, "a device as plot", place + "{in}/null", "null", good, null_device(), **mounted())
    yield refuses(tool, "a plot below a file", place + "{in}/train.log/a.png", r"train\.log", good)
    yield refuses(tool, "a folder as plot", place + "{in}/old", "old", good, folder("old"))
    yield refuses(tool, "a plot in no folder", place + "{in}/none/a.png", "none", good)
    yield refuses(
        tool, "a read-only disk", place + "{out}/disk/a.png", "disk", good, read_only_disk(), **mounted()
    )
    yield refuses(
        tool, "a full disk", place + "{out}/disk/a.png", "disk|[Nn]o space", good, full_disk(4), **full()
    )


def strip_cases() -> Iterator[Case]:
    """Places of the stripped checkpoint."""
    best = f"{{made}}/{ASA}/{BEST}"
    tool = "strip_adversary"
    yield refuses(tool, "a model without adversaries", f"{{made}}/{RTE}/{BEST} {{out}}/a.pt", "rte")
    yield refuses(tool, "a target that exists", f"{best} {{in}}/old", "old", write("old", "x"))
    yield refuses(tool, "a target below a file", f"{best} {{in}}/old/a.pt", "old", write("old", "x"))
    yield refuses(tool, "a target in no folder", f"{best} {{in}}/none/a.pt", "none")
    disk = f"{best} {{out}}/disk/a.pt"
    yield refuses(tool, "a full disk", disk, "disk|[Nn]o space", full_disk(), **full())
    yield refuses(tool, "a read-only disk", disk, "disk", read_only_disk(), **mounted())
    yield refuses(tool, "no arguments", "", "source")
