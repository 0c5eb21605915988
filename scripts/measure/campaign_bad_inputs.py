"""Feeds every command bad inputs and prints how many of them it took with one clear line.

    python scripts/measure/campaign_bad_inputs.py --jobs 2
    python scripts/measure/campaign_bad_inputs.py --tools predict finetune --only NaN --verbose

Damaged and hostile checkpoints, malformed tokenizers and data, options out of range, a full and a
read-only disk, missing packages, trainings that diverge. A command has to refuse each with an exit code
that is not 0 and one last line that names the file or the flag, leave nothing behind, run nothing that
the file holds, and come to an end; or, where nothing is wrong (a byte-order mark, another log format),
it has to work. Everything that is fed is made in a temporary folder; nothing is downloaded. Ends with 1
if a case failed.
"""

from __future__ import annotations

import argparse
import functools
import json
import operator
import re
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import campaign_fixtures as fixtures
import campaign_judge as judge
from campaign_fixtures import (
    GLUE_HEADERS,
    Step,
    changed,
    copied,
    evaluated,
    folder,
    full_disk,
    glue_row,
    hostile_pickle,
    json_entry,
    null_device,
    other_zip,
    read_only_disk,
    removed,
    replaced,
    state,
    train_line,
    write,
)
from campaign_judge import TRAIN, Case, Place, Verdict

LATIN = "caf\xe9".encode("latin-1")
DEEP = "[" * 100_000
NEEDS_MOUNT = "needs `unshare --mount`, to make a small or read-only disk"
# What a training that fairseq-train refused may leave: log, subset of the data, crash.pt, folders.
RUN_LEAVES = r"(?!.*(checkpoint[^/]*\.pt|\.partial|result\.json)$).*"


def refuses(tool: str, wrong: str, line: str, says: str, *steps: Step, **more: Any) -> Case:
    """A case that has to end with one line."""
    return Case(tool, wrong, shlex.split(line), says, "refuses", steps, **more)


def works(tool: str, wrong: str, line: str, says: str, *steps: Step, **more: Any) -> Case:
    """A case that only looks bad."""
    return Case(tool, wrong, shlex.split(line), says, "works", steps, **more)


def either(tool: str, wrong: str, line: str, says: str, *steps: Step, **more: Any) -> Case:
    """A case that a command may do or refuse, but not with a traceback."""
    return Case(tool, wrong, shlex.split(line), says, "either", steps, **more)


# Checkpoints


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


def filled(value: float) -> Callable[[dict[str, Any], Place], None]:
    """A weight that is not finite."""

    def change(saved: dict[str, Any], place: Place) -> None:
        saved["model"]["encoder.sentence_encoder.layers.1.fc1.weight"][0, 0] = value

    return change


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


def option_of(section: str, name: str, value: Any) -> Callable[[dict[str, Any], Place], None]:
    """One option of a checkpoint's configuration."""

    def change(saved: dict[str, Any], place: Place) -> None:
        where = saved["cfg"][section]
        (where if isinstance(where, dict) else vars(where))[name] = value

    return change


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
RTE, ASA, START = "trained/rte", "trained/asa", "start"
BEST = "checkpoint_best.pt"


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


# Training

FEW = "--cpu --max-update 1 --num-workers 0 --required-batch-size-multiple 1"
SHORT = f"{FEW} --tokens-per-sample 32"
FINETUNE = "RTE plain --data-bin {made}/bin --save-dir {out}/run"
FINETUNE_FROM = f"{FINETUNE} --checkpoint"
PRETRAIN_FROM = "--data-bin {made}/bin/text --save-dir {out}/run --batch 8 --checkpoint"
COMPARE = "RTE --data-bin {made}/bin --out-dir {out}/run --checkpoint {made}/start/model.pt"
QUICK = "--methods plain --seeds 1 --lr 1e-3 --batch 8 --epochs 1"
COMPARE_FROM = f"RTE --data-bin {{made}}/bin --out-dir {{out}}/run {QUICK} --checkpoint"


def training_cases() -> Iterator[Case]:
    """fairseq-train with these plug-ins: options out of range, data and trainings gone bad."""

    def train(
        wrong: str, flags: str, says: str, *steps: Step, of: str = "RTE", by: str = "plain", **more: Any
    ) -> Case:
        line = f"{train_line(of, by)} {flags}"
        more = {"leaves": RUN_LEAVES, "limit": 120, **more}
        return refuses(TRAIN, wrong, line, says, *steps, **more)

    for method, wrong, flags, says in (
        ("rat", "no adversarial pass", "--adv-passes 0", "--adv-passes"),
        ("rat", "a negative norm", "--adv-eps -1", "--adv-eps"),
        ("rat", "a norm that is NaN", "--adv-eps nan", "--adv-eps"),
        ("rat", "an infinite norm", "--adv-eps inf", "--adv-eps"),
        ("rat", "a negative consistency weight", "--consistency-weight -1", "--consistency-weight"),
        ("rat", "a NaN consistency weight", "--consistency-weight nan", "--consistency-weight"),
        ("rat", "a negative adversarial weight", "--adv-weight -1", "--adv-weight"),
        ("rat", "an unknown divergence", "--consistency-loss hinge", "--consistency-loss"),
        ("rat", "an unknown norm", "--adv-norm-over world", "--adv-norm-over"),
        ("rat", "norms that are no numbers", "--adv-eps-per-pass a,b", "--adv-eps-per-pass"),
        ("rat", "too few norms", "--adv-eps-per-pass 0.1", "--adv-eps-per-pass"),
        ("rat", "NaN among the norms", "--adv-eps-per-pass 0.1,nan", "--adv-eps-per-pass"),
        ("rat", "dropout above 1", "--adv-dropout-per-pass 0.1,1.5", "--adv-dropout-per-pass"),
        ("rat", "a criterion of another task", "--base-criterion sentence_ranking", "--base-criterion"),
        ("rat", "a base criterion that does not exist", "--base-criterion no", "--base-criterion"),
        ("freelb", "no step", "--adv-steps 0", "--adv-steps"),
        ("freelb", "a negative step", "--adv-step-size -1", "--adv-step-size"),
        ("freelb", "a NaN step", "--adv-step-size nan", "--adv-step-size"),
        ("freelb", "a negative beginning", "--adv-init-eps -1", "--adv-init-eps"),
        ("freelb", "an unknown norm", "--adv-norm l7", "--adv-norm"),
        ("freelb", "a start before the first update", "--adv-start-update -1", "--adv-start-update"),
        ("rapt", "a layer that the model lacks", "--noise-max-layer 9", "--noise-max-layer"),
        ("rapt", "a negative layer", "--noise-max-layer -1", "--noise-max-layer"),
        ("rapt", "negative noise", "--noise-eta -1", "--noise-eta"),
        ("rapt", "NaN noise", "--noise-eta nan", "--noise-eta"),
        ("asa", "a negative price", "--asa-tau -1", "--asa-tau"),
        ("asa", "a NaN price", "--asa-tau nan", "--asa-tau"),
        ("asa", "a model without adversaries", "--arch roberta", "--arch|asa_roberta"),
        ("asa", "a negative weight of ASA in it", "--asa-weight -1", "--asa-weight"),
        ("plain", "a learning rate that is text", "--lr fast", "--lr"),
        ("plain", "a NaN learning rate", "--lr nan", "--lr"),
        ("plain", "an unknown flag", "--adversarial-magic 3", "--adversarial-magic"),
        ("plain", "an unknown criterion", "--criterion magic", "--criterion"),
        ("plain", "an unknown architecture", "--arch magic", "--arch"),
        ("plain", "an unknown task", "--task magic", "--task"),
        ("plain", "a user-dir that does not exist", "--user-dir {in}/none", "none|--user-dir"),
        ("rat", "an architecture that does not fit", "--arch transformer", "--arch|transformer"),
        ("rapt", "an architecture that does not fit", "--arch transformer", "--arch|transformer"),
        (
            "plain",
            "a metric that is not reported",
            "--best-checkpoint-metric mcc",
            "--best-checkpoint-metric",
        ),
        (
            "plain",
            "a metric that does not exist",
            "--best-checkpoint-metric xyz",
            "--best-checkpoint-metric",
        ),
        ("plain", "a split that does not exist", "--valid-subset nothing", "nothing|--valid-subset"),
        ("plain", "heads that do not divide the width", "--encoder-attention-heads 3", "heads"),
        ("plain", "an activation that does not exist", "--activation-fn magic", "--activation-fn"),
        ("plain", "data that do not exist", "--data-buffer-size 1 --train-subset no", "train-subset|no"),
    ):
        yield train(f"{wrong} ({method})", flags, says, by=method)
    for wrong, flags in (
        ("a negative learning rate", "--lr -1"),
        ("a batch of 0", "--batch-size 0"),
        ("a negative batch", "--batch-size -4"),
    ):  # which fairseq reads in its own way
        yield either(TRAIN, wrong, f"{train_line('RTE')} {flags}", flags.split()[0], leaves=RUN_LEAVES)
    scores = "--report-acc-and-f1 --best-checkpoint-metric acc_and_f1"
    yield train("F1 of three classes", scores, "--report-acc-and-f1", of="MNLI")
    yield train("scores of classes", "--report-pearson-and-spearman", "--report-pearson", of="MNLI")
    yield train("fp16 without a GPU", "--fp16", "--fp16", skipped=without_gpu())
    start = "--finetune-from-model {made}/start"
    yield train("a folder to start from", start, r"made/start|--finetune-from-model|/start")
    start = "--finetune-from-model {in}/none.pt"
    yield train("a missing checkpoint to start from", start, r"none\.pt")
    # what diverges
    for method in ("plain", *fixtures.CRITERIONS):
        says = "NaN|nan|Inf|inf|--lr|--clip-norm"
        for wrong, change in (("NaN", filled(float("nan"))), ("infinite", filled(float("inf")))):
            bad = [copied(START, "bad"), state("bad/model.pt", change)]
            flags = "--finetune-from-model {in}/bad/model.pt"
            yield train(f"a start with {wrong} weights ({method})", flags, says, *bad, by=method)
    for method in ("plain", "freelb", "asa"):
        flags = "--lr 1e30 --max-update 6 --clip-norm 1"
        yield train(f"a training that diverges ({method})", flags, says, by=method)
    # data
    steps: list[Step]
    for wrong, flags, says, steps in (
        ("a data folder that does not exist", "{in}/none", "none", []),
        ("a file instead of a data folder", "{in}/file", "file", [write("file", "x")]),
        ("an empty data folder", "{in}/data", "data", [folder("data")]),
        (
            "a dictionary that is not UTF-8",
            "{in}/data",
            "dict",
            [changed("data/input0/dict.txt", latin)],
        ),
        (
            "a malformed dictionary",
            "{in}/data",
            "dict",
            [write("data/input0/dict.txt", "no counts here\nx\n")],
        ),
        ("an empty dictionary", "{in}/data", "dict|data", [write("data/input0/dict.txt", "")]),
        ("no dictionary", "{in}/data", "dict", [removed("data/input0/dict.txt")]),
        ("no label dictionary", "{in}/data", "dict|label", [removed("data/label/dict.txt")]),
        ("no training data", "{in}/data", "train", [removed("data/input0/train.idx")]),
        ("an empty index", "{in}/data", r"train\.idx", [write("data/input0/train.idx", b"")]),
        (
            "an index of noise",
            "{in}/data",
            r"train\.idx",
            [write("data/input0/train.idx", b"noise" * 99)],
        ),
        (
            "half an index",
            "{in}/data",
            r"train\.idx",
            [changed("data/input0/train.idx", lambda b: b[:60])],
        ),
        (
            "truncated data",
            "{in}/data",
            r"train\.bin",
            [changed("data/input0/train.bin", lambda b: b[:40])],
        ),
        ("no labels", "{in}/data", "label", [removed("data/label/train.idx")]),
        (
            "fewer labels than rows",
            "{in}/data",
            "label",
            [
                copied("bin/RTE-bin/label/valid.idx", "data/label/train.idx"),
                copied("bin/RTE-bin/label/valid.bin", "data/label/train.bin"),
            ],
        ),
        ("no validation data", "{in}/data", "valid", [removed("data/input0/valid.idx")]),
    ):
        line = train_line("RTE", start=False).replace("{made}/bin/RTE-bin", flags)
        copy = (
            [copied("bin/RTE-bin", "data")]
            if any("data/" in str(says) or s for s in steps)
            and wrong not in ("an empty data folder", "a file instead of a data folder")
            else []
        )
        yield refuses(TRAIN, wrong, line, says, *copy, *steps, leaves=RUN_LEAVES)
    ranking = train_line("DREAM", start=False).replace("{made}/bin/DREAM-bin", "{in}/data")
    for wrong, content, says in (
        ("labels that are no numbers", "a\n" * 8, r"train\.label"),
        ("a choice that does not exist", "7\n" * 8, "label|--num-classes"),
        ("fewer labels than examples", "0\n" * 3, r"label"),
        ("labels that are not UTF-8", LATIN, r"train\.label"),
    ):
        steps = [copied("bin/DREAM-bin", "data"), write("data/label/train.label", content)]
        yield refuses(TRAIN, f"{wrong} (ranking)", ranking, says, *steps, leaves=RUN_LEAVES)
    regression = train_line("STS-B", start=False).replace("{made}/bin/STS-B-bin", "{in}/data")
    for wrong, content, says in (
        ("scores that are no numbers", "a\n" * 16, r"train\.label"),
        ("a NaN among the scores", "nan\n" + "0.5\n" * 15, r"train\.label|NaN|nan"),
        ("fewer scores than rows", "0.5\n" * 3, "label"),
    ):
        steps = [copied("bin/STS-B-bin", "data"), write("data/label/train.label", content)]
        yield refuses(
            TRAIN,
            f"{wrong} (regression)",
            f"{regression} --max-update 4",
            says,
            *steps,
            leaves=RUN_LEAVES,
        )
    words = train_line("WNUT-17", start=False).replace("{made}/bin/WNUT-17-bin", "{in}/data")
    for wrong, says, steps in (
        ("no labels (words)", "label", [removed("data/label/train.idx")]),
        (
            "labels of other data (words)",
            "label",
            [
                copied("bin/WNUT-17-bin/input0/valid.idx", "data/label/train.idx"),
                copied("bin/WNUT-17-bin/input0/valid.bin", "data/label/train.bin"),
            ],
        ),
        (
            "more labels than classes (words)",
            "label|--num-classes",
            [changed("data/label/dict.txt", lambda b: b + b"B-fox 1\nI-fox 1\n")],
        ),
    ):
        yield refuses(
            TRAIN, wrong, words, says, copied("bin/WNUT-17-bin", "data"), *steps, leaves=RUN_LEAVES
        )
    line = train_line("WNUT-17") + " --report-entity-f1 --best-checkpoint-metric f1"
    yield refuses(TRAIN, "no seqeval", line, "seqeval", *hidden("seqeval"), leaves=RUN_LEAVES, **BLOCKED)
    # places
    yield train("a save-dir below a file", "--save-dir {in}/file/run", "file", write("file", "x"))
    yield train(
        "a save-dir that cannot be written",
        "--save-dir {out}/disk/run",
        "disk",
        read_only_disk(),
        **mounted(),
    )
    yield train("a full disk", "--save-dir {out}/disk/run", "disk|[Nn]o space", full_disk(), **full())
    # what only looks bad
    for wrong, flags in (
        ("the simple log format", "--log-format simple"),
        ("no log format", "--log-format none"),
        ("no validation", "--disable-validation"),
        ("a validation on the training data", "--valid-subset train"),
    ):
        yield works(TRAIN, wrong, f"{train_line('RTE', 'rat')} {flags}", "done training")


def latin(content: bytes) -> bytes:
    """A byte that is not UTF-8 in the first line."""
    return LATIN + content


def full() -> dict[str, Any]:
    """What cases on a full disk share: what is whole may stay."""
    return {**mounted(), "leaves": r"disk(/run(/(?!.*(\.partial|\.pt)$).*)?)?"}


def mounted() -> dict[str, Any]:
    """Skipped where nothing can be mounted."""
    return {} if judge.may_mount() else {"skipped": NEEDS_MOUNT}


def without_gpu() -> str:
    """The reason to skip what is an error only without a GPU."""
    import torch

    return "there is a GPU" if torch.cuda.is_available() else ""


# Packages that are not there

BLOCKER = """
import os, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in os.environ["BLOCKED"].split():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""
BLOCKED: dict[str, Any] = {"fresh": True, "limit": 180}


def hidden(*packages: str) -> list[Step]:
    """Python starts without these packages."""

    def step(place: Place) -> None:
        import os

        os.environ["BLOCKED"] = " ".join(packages)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(place.inside), os.environ["PYTHONPATH"]])

    return [write("sitecustomize.py", BLOCKER), step]


def package_cases() -> Iterator[Case]:
    """Optional packages missing: the line says what to install."""
    bpe = "--bpe-dir {made}/start"
    glue = f"--data-dir {{made}}/glue RTE --out-dir {{out}}/bin {bpe}"
    maps = f"maps {{made}}/{ASA}/{BEST} --text 'the cat' {bpe} --out {{out}}/a.png"
    text = "{made}/text.txt --valid {made}/text.txt --out-dir {out}/text"
    pieces = "{made}/hf/xlm-roberta/sentencepiece.bpe.model"
    for package, tool, line in (
        ("tokenizers", "preprocess_glue", glue),
        (
            "tokenizers",
            "preprocess_task",
            f"--data-dir {{made}}/tasks DREAM --out-dir {{out}}/b {bpe}",
        ),
        ("tokenizers", "preprocess_text", f"{text} {bpe}"),
        ("tokenizers", "convert_from_hf", "{made}/hf/bert {out}/bert"),
        ("tokenizers", "predict", f"{{made}}/{RTE}/{BEST} --input {{made}}/pairs.tsv"),
        ("tokenizers", "plot_attention", maps),
        ("tokenizers", "compare_bpe_speed", f"--glue-dir {{made}}/glue --task RTE {bpe} --repeats 1"),
        (
            "tokenizers",
            "finetune",
            "RTE plain --data-dir {made}/glue --data-bin {out}/bin --checkpoint {made}/start/model.pt",
        ),
        ("requests", "download", "gpt2_bpe --out-dir {out}/data"),
        ("safetensors", "convert_from_hf", "{made}/hf/bert {out}/bert"),
        (
            "safetensors",
            "convert_to_hf",
            f"{{made}}/{RTE}/{BEST} {{out}}/hf --pretrained {{made}}/start",
        ),
        ("sentencepiece", "convert_from_hf", "{made}/hf/xlm-roberta {out}/xlm"),
        ("sentencepiece", "preprocess_text", f"{text} --sentencepiece {pieces}"),
        ("matplotlib", "plot_attention", maps),
        ("matplotlib", "benchmark", f"{SMALL_BENCHMARK} --plot {{out}}/a.png --lengths 8 16"),
        ("matplotlib", "compare", f"{COMPARE} {QUICK} -- {FEW}"),
    ):
        says = f"pip install .*{package}"
        # what was trained by then is whole, and a second call goes on from there
        leaves = "run.*" if tool == "compare" else None
        steps = hidden(package)
        yield refuses(tool, f"no package {package}", line, says, *steps, leaves=leaves, **BLOCKED)


# Hugging Face's folders


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


def without(family: str) -> str:
    """The reason to skip a family whose tokenizer's package is missing."""
    import importlib.util

    missing = family == "xlm-roberta" and importlib.util.find_spec("sentencepiece") is None
    return "needs sentencepiece" if missing else ""


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


# Text


# What is wrong, the folder that is copied, its file, and what that holds instead (None: it is not there;
# bytes are put in front).
SPOILED_TOKENIZERS: tuple[tuple[str, str, str, str | bytes | None], ...] = (
    ("no vocab.bpe", "start", "vocab.bpe", None),
    ("a broken encoder.json", "start", "encoder.json", "{"),
    ("an encoder.json that is a list", "start", "encoder.json", "[1]"),
    ("an encoder.json that is not UTF-8", "start", "encoder.json", LATIN),
    ("a vocab.bpe that is not UTF-8", "start", "vocab.bpe", LATIN),
    ("a malformed vocab.bpe", "start", "vocab.bpe", "#version: 0.2\nx y z w\n"),
    ("a dict.txt that is not UTF-8", "start", "dict.txt", LATIN),
    ("a dict.txt without counts", "start", "dict.txt", "a\nb\n"),
    ("a dict.txt with counts that are text", "start", "dict.txt", "a many\n"),
    ("a dict.txt that repeats a word", "start", "dict.txt", b"10 1\n10 1\n"),
    ("a dict.txt of another model", "start", "dict.txt", "a 1\nb 1\n"),
    ("an empty vocab.txt", "bert", "vocab.txt", ""),
    ("a vocab.txt without [UNK]", "bert", "vocab.txt", "a\nb\n"),
    ("a vocab.txt that is not UTF-8", "bert", "vocab.txt", LATIN),
    ("a broken tokenizer.json", "bert", "tokenizer.json", '{"a": '),
    ("a broken SentencePiece model", "xlm-roberta", "sentencepiece.bpe.model", "noise" * 50),
    ("an empty SentencePiece model", "xlm-roberta", "sentencepiece.bpe.model", ""),
    ("a missing SentencePiece model", "xlm-roberta", "sentencepiece.bpe.model", None),
)
OPTIONS = {"start": "--bpe-dir", "bert": "--wordpiece", "xlm-roberta": "--sentencepiece"}


def spoiled_tokenizers() -> list[tuple[str, str, str, list[Step]]]:
    """What is wrong, the option, what must be named, how it is made."""
    found = [
        ("a missing folder of GPT-2's BPE", "--bpe-dir {in}/none", "none", []),
        ("an empty folder for GPT-2's BPE", "--bpe-dir {in}/start", "start", [folder("start")]),
        ("a missing folder of WordPiece", "--wordpiece {in}/none", "none", []),
        ("a folder as SentencePiece model", "--sentencepiece {in}/a", "in/a", [folder("a")]),
    ]
    for wrong, source, file, content in SPOILED_TOKENIZERS:
        name = f"{source}/{file}"
        if content is None:
            step = removed(name)
        elif isinstance(content, str):
            step = write(name, content)
        else:
            step = changed(name, functools.partial(operator.add, content))
        option = f"{OPTIONS[source]} {{in}}/{name if source == 'xlm-roberta' else source}"
        origin = f"hf/{source}" if source == "xlm-roberta" else source
        # of a vocabulary that is none, the folder is enough
        says = re.escape(file) if file != "vocab.txt" else "in/bert"
        says = "in/start" if wrong == "a dict.txt of another model" else says
        if not without(source):
            found.append((wrong, option, says, [copied(origin), step]))
    return found


def tokenizer_cases() -> Iterator[Case]:
    """Malformed tokenizers, in every command that reads one."""
    best = f"{{made}}/{RTE}/{BEST}"
    users = {
        "preprocess_glue": "--data-dir {made}/glue RTE --out-dir {out}/bin",
        "preprocess_task": "--data-dir {made}/tasks WNUT-17 --out-dir {out}/bin",
        "preprocess_text": "{made}/text.txt --valid {made}/text.txt --out-dir {out}/text",
        "predict": f"{best} --input {{made}}/pairs.tsv --output {{out}}/found",
        "plot_attention": f"maps {{made}}/{ASA}/{BEST} --text 'the cat' --out {{out}}/a.png",
        "compare_bpe_speed": "--glue-dir {made}/glue --task RTE --repeats 1 --workers 1",
        "finetune": "RTE plain --data-dir {made}/glue --data-bin {out}/bin --save-dir {out}/run "
        f"--checkpoint {best} --arch roberta",
    }
    for tool, line in users.items():
        for index, (wrong, option, says, steps) in enumerate(spoiled_tokenizers()):
            of_bpe = option.startswith("--bpe-dir")
            if tool in ("compare_bpe_speed", "finetune") and not of_bpe:
                continue
            if tool == "plot_attention" and option.startswith("--wordpiece"):
                continue
            if tool not in ("preprocess_glue", "predict") and index % 3:  # the code is shared
                continue
            yield refuses(tool, wrong, f"{line} {option}", says, *steps)


def preprocess_glue_cases() -> Iterator[Case]:
    """GLUE's official files, malformed."""
    bpe = "--bpe-dir {made}/start"

    def glue(
        task: str, wrong: str, says: str, *steps: Step, make: Callable[..., Case] = refuses, **more: Any
    ) -> Case:
        line = f"--data-dir {{in}} {task} --out-dir {{out}}/bin {bpe}"
        return make(
            "preprocess_glue", f"{wrong} ({task})", line, says, copied(f"glue/{task}"), *steps, **more
        )

    def row(task: str, **fields: str) -> str:
        names = GLUE_HEADERS[task].split("\t")
        values = dict(zip(names, glue_row(task, 3).split("\t"))) | fields
        return "\t".join(values[name] for name in names)

    def added(task: str, line: str | bytes, file: str = "train.tsv") -> Step:
        more = line if isinstance(line, bytes) else line.encode()
        return changed(f"{task}/{file}", lambda content: content + more + b"\n")

    for task, wrong, says, step in (
        ("RTE", "no train.tsv", r"train\.tsv", removed("RTE/train.tsv")),
        ("RTE", "no dev.tsv", r"dev\.tsv", removed("RTE/dev.tsv")),
        ("RTE", "an empty file", r"train\.tsv", write("RTE/train.tsv", "")),
        (
            "RTE",
            "a header and no row",
            r"train\.tsv",
            write("RTE/train.tsv", GLUE_HEADERS["RTE"] + "\n"),
        ),
        ("RTE", "text that is not UTF-8", r"train\.tsv:18", added("RTE", LATIN)),
        ("RTE", "a column less", r"train\.tsv:18", added("RTE", "9\tone\tentailment")),
        ("RTE", "a column more", r"train\.tsv:18", added("RTE", row("RTE") + "\tmore")),
        ("RTE", "an unknown label", r"train\.tsv:18.*maybe", added("RTE", row("RTE", label="maybe"))),
        ("RTE", "an empty label", r"train\.tsv:18", added("RTE", row("RTE", label=""))),
        (
            "RTE",
            "a header of another task",
            r"train\.tsv:1",
            replaced("RTE/train.tsv", "sentence1", "premise"),
        ),
        (
            "RTE",
            "a comma-separated file",
            r"train\.tsv",
            changed("RTE/train.tsv", lambda b: b.replace(b"\t", b",")),
        ),
        (
            "RTE",
            "a UTF-16 file",
            r"train\.tsv",
            changed("RTE/train.tsv", lambda b: b.decode().encode("utf-16")),
        ),
        ("RTE", "NUL bytes", r"train\.tsv", write("RTE/train.tsv", bytes(5000))),
        (
            "RTE",
            "a folder instead of a file",
            r"train\.tsv",
            both(removed("RTE/train.tsv"), folder("RTE/train.tsv")),
        ),
        ("STS-B", "a NaN score", r"train\.tsv:18.*nan", added("STS-B", row("STS-B", score="nan"))),
        ("STS-B", "an infinite score", r"train\.tsv:18", added("STS-B", row("STS-B", score="inf"))),
        ("STS-B", "a score out of range", r"train\.tsv:18", added("STS-B", row("STS-B", score="7"))),
        ("STS-B", "a score that is text", r"train\.tsv:18", added("STS-B", row("STS-B", score="good"))),
        ("STS-B", "an unlabelled row", r"train\.tsv:18", added("STS-B", row("STS-B", score=""))),
        (
            "MNLI",
            "a label of hard examples",
            r"train\.tsv:18",
            added("MNLI", row("MNLI", gold_label="-")),
        ),
        ("MNLI", "no mismatched set", r"dev_mismatched\.tsv", removed("MNLI/dev_mismatched.tsv")),
        (
            "CoLA",
            "a header that the official file lacks",
            r"train\.tsv:1",
            changed("CoLA/train.tsv", lambda b: b"a\tlabel\tb\tsentence\n" + b),
        ),
        ("MRPC", "an unlabelled row", r"train\.tsv:18", added("MRPC", row("MRPC", Quality=""))),
        (
            "SST-2",
            "a label that is a word",
            r"train\.tsv:18",
            added("SST-2", row("SST-2", label="good")),
        ),
    ):
        yield glue(task, wrong, says, step)
    line = f"--data-dir {{made}}/glue --out-dir {{out}}/bin {bpe} "
    say = "preprocess_glue"
    yield glue(
        "RTE",
        "a byte-order mark",
        "",
        changed("RTE/train.tsv", lambda b: b"\xef\xbb\xbf" + b),
        make=works,
    )
    yield glue(
        "RTE",
        "carriage returns",
        "",
        changed("RTE/train.tsv", lambda b: b.replace(b"\n", b"\r\n")),
        make=works,
    )
    yield glue("RTE", "no last line feed", "", changed("RTE/train.tsv", lambda b: b[:-1]), make=works)
    yield glue(
        "RTE",
        "a field of 200,000 characters",
        "",
        added("RTE", row("RTE", sentence1="a" * 200_000)),
        make=works,
    )
    yield glue(
        "RTE", "quotes that do not close", "", added("RTE", row("RTE", sentence1='"open')), make=works
    )
    yield glue("QQP", "rows broken by line feeds", "", added("QQP", "9\t1"), make=works)
    yield refuses(say, "an unknown task", line + "NOPE", "NOPE")
    yield refuses(say, "a missing folder", line.replace("{made}/glue", "{in}/none") + "RTE", "none")
    yield refuses(
        say,
        "an output that exists",
        line.replace("{out}", "{made}").replace("/bin ", "/bin ") + "RTE",
        "RTE-bin",
    )
    yield refuses(say, "an unknown split", line + "RTE --splits all", "--splits")
    line_ = f"--data-dir {{in}} --out-dir {{out}}/bin {bpe} RTE --splits valid"
    alone = [copied("glue/RTE"), removed("RTE/train.tsv")]
    yield refuses(say, "labels without a training file", line_, "--label-dict", *alone)
    yield refuses(say, "a missing label dictionary", line + "RTE --label-dict {in}/d.txt", r"d\.txt")
    yield refuses(
        say,
        "a label dictionary that is not UTF-8",
        line + "RTE --label-dict {in}/d.txt",
        r"d\.txt",
        write("d.txt", LATIN),
    )
    yield refuses(
        say,
        "a label dictionary without counts",
        line + "RTE --label-dict {in}/d.txt",
        r"d\.txt",
        write("d.txt", "a\nb\n"),
    )
    yield refuses(
        say,
        "a label dictionary of other labels",
        line + "RTE --label-dict {in}/d.txt",
        r"d\.txt",
        write("d.txt", "a 1\nb 1\n"),
    )
    yield refuses(
        say,
        "an output below a file",
        line.replace("{out}", "{in}/file") + "RTE",
        "file",
        write("file", "x"),
    )
    disk = line.replace("{out}/bin", "{out}/disk") + "RTE"
    yield refuses(say, "a full disk", disk, "disk|[Nn]o space", full_disk(8), **full())
    yield refuses(say, "a read-only disk", disk, "disk", read_only_disk(), **mounted())


def question(names: str, key: str | None) -> str:
    """A question in the format of ARC and CommonsenseQA."""
    choices = [{"text": "x", "label": name} for name in names]
    answer = {} if key is None else {"answerKey": key}
    return json.dumps({"question": {"stem": "a", "choices": choices}, **answer})


def pronoun(index: str) -> str:
    """A row of WSC, with the place of its pronoun."""
    spans = f'"span1_text": "a", "span1_index": 0, "span2_text": "it", "span2_index": {index}'
    return f'{{"text": "a it c", "target": {{{spans}}}, "label": true}}'


# Of each file (and the number of its rows) what is wrong with one row more; of some, with the whole.
LATIN_TEXT = LATIN.decode("latin-1")  # written as Latin-1 where it stands
ADDED: dict[tuple[str, str, int], dict[str, str]] = {
    ("TNEWS", "train.json", 6): {
        "a broken line": "{",
        "a line that is a list": "[1]",
        "a line nested too deeply": DEEP,
        "text that is not UTF-8": f'{{"sentence": "{LATIN_TEXT}", "label": 102}}',
        "an unlabelled row": '{"sentence": "a"}',
        "an unknown label": '{"sentence": "a", "label": 105}',
        "a null label": '{"sentence": "a", "label": null}',
        "a null text": '{"sentence": null, "label": 102}',
        "a text that is a list": '{"sentence": ["a"], "label": 102}',
        "no text": '{"label": 102}',
        "a lone surrogate": r'{"sentence": "\ud800", "label": 102}',
    },
    ("IFLYTEK", "train.json", 6): {"an unknown label": '{"sentence": "a", "label": 999}'},
    ("AG-News", "train.csv", 20): {
        "a column less": '"1","a"',
        "an unknown class": '"9","a","b"',
        "text that is not UTF-8": f'"1","{LATIN_TEXT}","b"',
        "a NUL byte": '"\0","a","b"',
        "quotes that do not close": '"1","a","open',
    },
    ("ANLI", "R1/train.jsonl", 2): {
        "an unknown label": '{"context": "a", "hypothesis": "b", "label": "x"}',
        "a null hypothesis": '{"context": "a", "hypothesis": null, "label": "c"}',
    },
    ("PAWS-QQP", "train.tsv", 3): {
        "a broken literal": "3\tb'open\tb\t1",
        "a column less": "3\ta\t1",
        "text that is not UTF-8": f"3\t{LATIN_TEXT}\tb\t1",
    },
    ("ARC-Easy", "ARC-Easy-Train.jsonl", 3): {
        "no choices": '{"question": {"stem": "a"}}',
        "choices that are text": '{"question": {"stem": "a", "choices": "bc"}, "answerKey": "A"}',
        "a question that is text": '{"question": "a", "answerKey": "A"}',
        "an answer that is no choice": question("AB", "Z"),
        "null choices": question("AB", "A").replace('"x"', "null"),
    },
    ("CommonsenseQA-ranking", "train_rand_split.jsonl", 4): {
        "four choices": question("ABCD", "A"),
        "an unlabelled row": question("ABCDE", None),
    },
    ("CommonsenseQA", "train_rand_split.jsonl", 4): {"a broken line": "{"},
    ("HellaSwag", "hellaswag_train.jsonl", 4): {
        "three endings": '{"ctx": "a", "endings": ["b", "b", "b"], "label": 0}',
        "a label out of range": '{"ctx": "a", "endings": ["b", "b", "b", "b"], "label": 4}',
        "null endings": '{"ctx": "a", "endings": [null, null, null, null], "label": 0}',
        "endings that are a number": '{"ctx": "a", "endings": 4, "label": 0}',
    },
    ("WSC", "train.jsonl", 2): {
        "a target that is text": '{"text": "a b", "target": "b", "label": true}',
        "a place that is text": pronoun('"x"'),
        "a place that is null": pronoun("null"),
        "a pronoun that is not in the text": pronoun("1").replace('"it"', '"she"'),
    },
    ("WNUT-17", "wnut17train.conll", 36): {
        "a word without a label": "word",
        "an unknown label": "word\tB-fox",
        "a word that is not UTF-8": f"{LATIN_TEXT}\tO",
    },
}
ASKED = '"question": "a", "choice": ["a", "b", "c"], "answer"'
WHOLE: dict[tuple[str, str], dict[str, str]] = {
    ("TNEWS", "train.json"): {"an empty file": ""},
    ("AG-News", "train.csv"): {"an empty file": ""},
    ("WNUT-17", "wnut17train.conll"): {"an empty file": ""},
    ("IMDB", "train/neg/3_1.txt"): {"a review that is not UTF-8": LATIN_TEXT},
    ("DREAM", "train.json"): {
        "a broken file": "[[",
        "a file nested too deeply": DEEP,
        "an object instead of a list": '{"a": 1}',
        "a number instead of a list": "3",
        "dialogues that are text": '["ab"]',
        "questions that are numbers": '[[["a"], [1], "i"]]',
        "turns that are numbers": f'[[[1], [{{{ASKED}: "a"}}], "i"]]',
        "an answer that is no choice": f'[[["a"], [{{{ASKED}: "d"}}], "i"]]',
        "a null answer": f'[[["a"], [{{{ASKED}: null}}], "i"]]'.replace('"c"', '"None"'),
        "a file that is not UTF-8": LATIN_TEXT,
    },
}


def preprocess_task_cases() -> Iterator[Case]:
    """The official files of the other tasks, malformed."""
    bpe = "--bpe-dir {made}/start"

    def task(
        name: str,
        wrong: str,
        says: str,
        *steps: Step,
        make: Callable[..., Case] = refuses,
        source: str = "",
        **more: Any,
    ) -> Case:
        line = f"--data-dir {{in}} {name} --out-dir {{out}}/bin {bpe}"
        copy = copied(f"tasks/{source or name}")
        return make("preprocess_task", f"{wrong} ({name})", line, says, copy, *steps, **more)

    def added(file: str, row: str) -> Step:
        return changed(file, lambda content: content + row.encode("latin-1") + b"\n")

    for (name, file, rows), faults in ADDED.items():
        source = name.partition("-ranking")[0]
        for wrong, row in faults.items():
            says = re.escape(f"{source}/{file}") + rf"(:{rows + 1}\b|.*UTF-8|.*NUL)"
            yield task(name, wrong, says, added(f"{source}/{file}", row), source=source)
    for (name, file), faults in WHOLE.items():
        for wrong, content in faults.items():
            step = write(f"{name}/{file}", content.encode("latin-1"))
            yield task(name, wrong, re.escape(f"{name}/{file}"), step)
    tnews, paws = "TNEWS/train.json", "PAWS-QQP/train.tsv"
    for name, wrong, says, step in (
        ("TNEWS", "no train.json", r"train\.json", removed(tnews)),
        ("IMDB", "no review", r"train/neg", removed("IMDB/train/neg")),
        ("IMDB", "a folder as review", r"x\.txt", folder("IMDB/train/neg/x.txt")),
        ("ANLI", "no second round", r"R2/train\.jsonl", removed("ANLI/R2/train.jsonl")),
        ("PAWS-QQP", "a header of another file", r"train\.tsv:1", replaced(paws, "sentence1", "a")),
    ):
        yield task(name, wrong, says, step)

    mark = lambda content: b"\xef\xbb\xbf" + content  # noqa: E731
    long = '"1","' + "a" * 200_000 + '","b"'
    for name, wrong, step in (
        ("TNEWS", "a byte-order mark", changed(tnews, mark)),
        ("WNUT-17", "a byte-order mark", changed("WNUT-17/wnut17train.conll", mark)),
        ("AG-News", "a byte-order mark", changed("AG-News/train.csv", mark)),
        ("DREAM", "a byte-order mark", changed("DREAM/train.json", mark)),
        ("PAWS-QQP", "a byte-order mark", changed("PAWS-QQP/train.tsv", mark)),
        ("IMDB", "a byte-order mark", changed("IMDB/train/neg/1_1.txt", mark)),
        ("AG-News", "a field of 200,000 characters", added("AG-News/train.csv", long)),
        (
            "WNUT-17",
            "carriage returns",
            changed("WNUT-17/wnut17train.conll", lambda b: b.replace(b"\n", b"\r\n")),
        ),
        (
            "WSC",
            "a place that is off by one",
            replaced("WSC/train.jsonl", '"span2_index": 9', '"span2_index": 8'),
        ),
    ):
        yield task(name, wrong, "", step, make=works)
    line = f"--data-dir {{made}}/tasks --out-dir {{out}}/bin {bpe} "
    say = "preprocess_task"
    yield refuses(say, "an unknown task", line + "NOPE", "NOPE")
    yield refuses(say, "a missing folder", line.replace("{made}/tasks", "{in}/none") + "DREAM", "none")
    yield refuses(say, "an output that exists", line.replace("{out}", "{made}") + "DREAM", "DREAM-bin")
    yield refuses(
        say,
        "an output below a file",
        line.replace("{out}", "{in}/file") + "DREAM",
        "file",
        write("file", "x"),
    )
    yield refuses(
        say,
        "raw text for WordPiece",
        "--data-dir {made}/tasks --out-dir {out}/bin CommonsenseQA --wordpiece {made}/bert",
        "CommonsenseQA-ranking",
    )
    disk = line.replace("{out}/bin", "{out}/disk") + "DREAM"
    yield refuses(say, "a full disk", disk, "disk|[Nn]o space", full_disk(8), **full())
    yield refuses(say, "a read-only disk", disk, "disk", read_only_disk(), **mounted())


def preprocess_text_cases() -> Iterator[Case]:
    """Raw text for pre-training."""
    line = "{in}/text.txt --bpe-dir {made}/start --out-dir {out}/text"

    def text(
        wrong: str,
        says: str,
        *steps: Step,
        flags: str = "",
        make: Callable[..., Case] = refuses,
        **more: Any,
    ) -> Case:
        return make("preprocess_text", wrong, f"{line} {flags}", says, *steps, **more)

    good = copied("text.txt")
    yield text("a missing text", r"text\.txt")
    yield text("a folder as text", r"text\.txt", folder("text.txt"))
    yield text("an empty text", r"text\.txt|--valid", write("text.txt", ""))
    yield text("blank lines only", r"text\.txt|--valid", write("text.txt", "\n\n\n"))
    yield text(
        "text that is not UTF-8",
        r"text\.txt",
        good,
        changed("text.txt", lambda b: b + LATIN),
        flags="--valid {made}/text.txt",
    )
    yield text(
        "a validation text that is not UTF-8",
        r"v\.txt",
        good,
        write("v.txt", LATIN),
        flags="--valid {in}/v.txt",
    )
    yield text("a missing validation text", r"v\.txt", good, flags="--valid {in}/v.txt")
    for share in ("0", "1", "-0.5", "2", "nan", "some"):
        yield text(f"a held-out share of {share}", "--valid", good, flags=f"--valid-share {share}")
    valid = "--valid {made}/text.txt"
    yield text(
        "a byte-order mark",
        "",
        good,
        changed("text.txt", lambda b: b"\xef\xbb\xbf" + b),
        flags=valid,
        make=works,
    )
    yield text(
        "a line of 200,000 characters", "", write("text.txt", "a" * 200_000), flags=valid, make=works
    )
    yield text(
        "NUL bytes", "", good, changed("text.txt", lambda b: b + bytes(50)), flags=valid, make=either
    )
    exists = "{made}/text.txt --valid {made}/text.txt --bpe-dir {made}/start --out-dir "
    yield refuses("preprocess_text", "an output that exists", exists + "{made}/bin/text", "bin/text")
    yield refuses(
        "preprocess_text", "an output below a file", exists + "{in}/file/a", "file", write("file", "x")
    )
    yield refuses(
        "preprocess_text",
        "a full disk",
        exists + "{out}/disk/a",
        "disk|[Nn]o space",
        full_disk(8),
        **full(),
    )
    yield refuses(
        "preprocess_text",
        "a read-only disk",
        exists + "{out}/disk/a",
        "disk",
        read_only_disk(),
        **mounted(),
    )


# Predictions and plots


def predict_cases() -> Iterator[Case]:
    """Texts, options, dictionaries and configurations that a prediction cannot use."""
    best = f"{{made}}/{RTE}/{BEST}"
    given = f"{best} --input {{in}}/text.tsv --output {{out}}/found"

    def predict(
        wrong: str, line: str, says: str, *steps: Step, make: Callable[..., Case] = refuses, **more: Any
    ) -> Case:
        return make("predict", wrong, line, says, *steps, **more)

    pairs = copied("pairs.tsv", "text.tsv")
    for wrong, says, step in (
        ("a missing text", r"text\.tsv", both()),
        ("a folder as text", r"text\.tsv", folder("text.tsv")),
        ("a text that is not UTF-8", r"text\.tsv", write("text.tsv", b"a\t" + LATIN + b"\n")),
        ("one text instead of a pair", r"text\.tsv", write("text.tsv", "a\n")),
        ("three texts instead of a pair", r"text\.tsv", write("text.tsv", "a\tb\tc\n")),
        ("lines of different columns", r"text\.tsv:2", write("text.tsv", "a\tb\na\n")),
        ("a UTF-16 text", r"text\.tsv", write("text.tsv", "a\tb\n".encode("utf-16"))),
    ):
        yield predict(wrong, given, says, step)
    yield predict("a byte-order mark", given, "", write("text.tsv", b"\xef\xbb\xbfa\tb\n"), make=works)
    yield predict("an empty text", given, "", write("text.tsv", ""), make=either)
    yield predict("empty sentences", given, "", write("text.tsv", "\t\na\t\n"), make=works)
    yield predict(
        "sentences that are too long",
        given,
        "cut",
        write("text.tsv", "cat " * 300 + "\tb\n"),
        make=works,
    )
    yield predict("input that is not UTF-8", f"{best} --input -", "UTF-8", input=LATIN)
    for wrong, flags, says in (
        ("a batch of 0", "--batch-size 0", "--batch-size"),
        ("a negative batch", "--batch-size -1", "--batch-size"),
        ("a batch that is text", "--batch-size many", "--batch-size"),
        ("an unknown ensemble", "--ensemble best", "--ensemble"),
        ("a missing data folder", "--data-bin {in}/none", "none"),
        ("data of another tokenizer", "--wordpiece {made}/bert", r"dict\.txt|--wordpiece"),
        ("data of another task", "--data-bin {made}/bin/MNLI-bin", "MNLI-bin"),
        ("an output folder with text", "--output-dir {out}/a", "--output-dir"),
        ("a GLUE folder with text", "--glue-dir {made}/glue", "--glue-dir"),
        ("a split with text", "--split dev", "--split"),
        ("a tokenizer too many", "--bpe-dir {made}/start --wordpiece {made}/bert", "--wordpiece"),
    ):
        yield predict(wrong, f"{given} {flags}", says, pairs)
    for wrong, line, says in (
        ("nothing to predict", best, "--input"),
        ("an unknown GLUE task", f"{best} --glue-task NOPE", "--glue-task"),
        (
            "a GLUE task without its files",
            f"{best} --glue-task RTE --output-dir {{out}}/a",
            "--glue-dir",
        ),
        (
            "no place for a submission",
            f"{best} --glue-task RTE --glue-dir {{made}}/glue",
            "--output-dir",
        ),
        (
            "a missing GLUE folder",
            f"{best} --glue-task RTE --glue-dir {{in}}/none --output-dir {{out}}/a",
            "none",
        ),
        (
            "another GLUE task",
            f"{best} --glue-task MNLI --glue-dir {{made}}/glue --output-dir {{out}}/a",
            "MNLI|rte",
        ),
        (
            "a GLUE task of one sentence",
            f"{best} --glue-task SST-2 --glue-dir {{made}}/glue --output-dir {{out}}/a",
            "SST-2|rte",
        ),
        (
            "a GLUE task of scores",
            f"{best} --glue-task STS-B --glue-dir {{made}}/glue --output-dir {{out}}/a",
            "STS-B|rte",
        ),
        (
            "checkpoints of different tasks",
            f"{best} {{made}}/trained/sts-b/{BEST} --input {{made}}/pairs.tsv",
            "sts-b",
        ),
        (
            "votes of scores",
            f"{{made}}/trained/sts-b/{BEST} --input {{made}}/pairs.tsv --ensemble majority",
            "--ensemble",
        ),
        (
            "probabilities of scores",
            f"{{made}}/trained/sts-b/{BEST} --input {{made}}/pairs.tsv --probabilities",
            "--probabilities",
        ),
        ("a masked LM", f"{{made}}/trained/masked-lm/{BEST} --input {{made}}/pairs.tsv", "masked-lm"),
        ("weights without a task", "{made}/start/model.pt --input {made}/pairs.tsv", r"start/model\.pt"),
        (
            "text of two choices for three",
            f"{{made}}/trained/dream/{BEST} --input {{made}}/pairs.tsv",
            "pairs",
        ),
    ):
        yield predict(wrong, line, says)
    for wrong, line, says, step in (
        (
            "an output that exists",
            f"{best} --input {{made}}/pairs.tsv --output {{in}}/old",
            "old",
            write("old", "x"),
        ),
        (
            "a folder as output",
            f"{best} --input {{made}}/pairs.tsv --output {{in}}/old",
            "old",
            folder("old"),
        ),
        (
            "an output in no folder",
            f"{best} --input {{made}}/pairs.tsv --output {{in}}/none/a",
            "none",
            both(),
        ),
        (
            "an output below a file",
            f"{best} --input {{made}}/pairs.tsv --output {{in}}/file/a",
            "file",
            write("file", "x"),
        ),
        (
            "GLUE rows that are not UTF-8",
            f"{best} --glue-task RTE --glue-dir {{in}} --output-dir {{out}}/a",
            r"test\.tsv",
            both(copied("glue/RTE"), changed("RTE/test.tsv", lambda b: b + LATIN)),
        ),
        (
            "a label in GLUE's rows that is unknown",
            f"{best} --glue-task RTE --glue-dir {{in}} --split dev",
            r"dev\.tsv",
            both(copied("glue/RTE"), changed("RTE/dev.tsv", lambda b: b + b"9\ta\tb\tmaybe\n")),
        ),
    ):
        yield predict(wrong, line, says, step)
    disk = f"{best} --input {{made}}/pairs.tsv --output {{out}}/disk/found"
    yield predict("a read-only disk", disk, "disk", read_only_disk(), **mounted())
    fill = write("{out}/disk/full", bytes(4096))
    yield predict("a full disk", disk, "disk|[Nn]o space", full_disk(4), fill, **full())
    submission = f"{best} --glue-task RTE --glue-dir {{made}}/glue --output-dir {{out}}/disk"
    yield predict(
        "a full disk for a submission", submission, "disk|[Nn]o space", full_disk(4), fill, **full()
    )
    terminal = f"{best} --input {{made}}/pairs.tsv"
    more: dict[str, Any] = (
        {"stdout": "/dev/full"} if judge.is_device("/dev/full") else {"skipped": "there is no /dev/full"}
    )
    yield predict("a full disk behind the terminal", terminal, "space|stdout|output", **more)
    device = f"{terminal} --output {{in}}/null --overwrite"
    yield predict("a device as output", device, "null", null_device(), make=either, **mounted())
    name = f"bad/{BEST}"
    bad = f"{{in}}/{name} --input {{made}}/pairs.tsv --output {{out}}/found"
    for wrong, change in (
        ("a data path that is a number", option_of("task", "data", 7)),
        ("a data path that does not exist", option_of("task", "data", "/nowhere/RTE-bin")),
        ("a number of classes that is text", option_of("task", "num_classes", "two")),
        ("another number of classes", option_of("task", "num_classes", 5)),
        ("a separator that is no symbol", option_of("task", "separator_token", 10**6)),
        ("a separator that is text", option_of("task", "separator_token", "x")),
        ("a head that does not exist", option_of("task", "classification_head_name", "none")),
        ("a task that does not exist", option_of("task", "_name", "magic")),
        ("a task that is a list", option_of("task", "_name", ["sentence_prediction"])),
        ("a width that is text", option_of("model", "encoder_embed_dim", "wide")),
        ("a width that is too large", option_of("model", "encoder_embed_dim", 10**9)),
        ("layers without end", option_of("model", "encoder_layers", 10**9)),
        ("heads that do not divide", option_of("model", "encoder_attention_heads", 5)),
    ):
        says = f"{re.escape(name)}|--data-bin"
        yield predict(f"{wrong} in a checkpoint", bad, says, copied(RTE, "bad"), state(name, change))
    for wrong, says, step in (
        ("a data dictionary that is not UTF-8", r"dict\.txt", changed("data/input0/dict.txt", latin)),
        ("a malformed data dictionary", r"dict\.txt", write("data/input0/dict.txt", "a\n")),
        ("no label dictionary", r"label/dict\.txt", removed("data/label/dict.txt")),
        ("a label dictionary of other labels", r"data", write("data/label/dict.txt", "x 1\ny 1\nz 1\n")),
        ("labels in another order", r"data", changed("data/label/dict.txt", swapped)),
        ("a label dictionary that is not UTF-8", r"dict\.txt", changed("data/label/dict.txt", latin)),
    ):
        line = f"{best} --input {{made}}/pairs.tsv --data-bin {{in}}/data --output {{out}}/found"
        yield predict(wrong, line, says, copied("bin/RTE-bin", "data"), step)


def swapped(content: bytes) -> bytes:
    """The first two lines in the other order."""
    first, second, *rest = content.splitlines(keepends=True)
    return b"".join([second, first, *rest])


def plot_cases() -> Iterator[Case]:
    """Options, logs and places of plots."""
    best = f"{{made}}/{ASA}/{BEST}"
    maps = f"maps {best} --text 'the cat' --bpe-dir {{made}}/start --out {{out}}/a.png"
    layers = f"layers x={best} --out {{out}}/a.png"
    history = "history {in}/train.log --out {out}/a.png"
    tool = "plot_attention"
    for wrong, line, says in (
        ("a layer that does not exist", f"{maps} --layers 9", "--layers"),
        ("layer 0", f"{maps} --layers 0", "--layers"),
        ("a head that does not exist", f"{maps} --head 9", "--head"),
        ("head 0", f"{maps} --head 0", "--head"),
        ("data that do not exist", f"{maps} --data {{in}}/none", "none"),
        ("a sentence that is too long", maps.replace("the cat", "cat " * 200), "--text|long"),
        ("a model without adversaries (maps)", maps.replace(ASA, RTE), "rte"),
        ("a model without adversaries (layers)", layers.replace(ASA, RTE), "rte"),
        ("a curve without a name", layers.replace("x=", ""), "NAME=CHECKPOINT"),
        ("a split that does not exist", f"{layers} --split nothing", "nothing|--split"),
        ("a batch of 0", f"{layers} --batch 0", "--batch"),
        ("a negative batch", f"{layers} --batch -3", "--batch"),
        ("data of another task", f"{layers} --data {{made}}/bin/text", "bin/text|--data"),
        ("a seed that is negative", f"{layers} --seed -1", "--seed"),
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


# Runners


def runner_cases() -> Iterator[Case]:
    """What finetune.py, compare.py and pretrain.py share: starts, data and places."""
    lines = {
        "finetune": (f"{FINETUNE}", "--save-dir {out}/run", "--data-bin {made}/bin"),
        "compare": (
            f"RTE --data-bin {{made}}/bin --out-dir {{out}}/run {QUICK}",
            "--out-dir {out}/run",
            "--data-bin {made}/bin",
        ),
        "pretrain": (
            "--data-bin {made}/bin/text --save-dir {out}/run --batch 8",
            "--save-dir {out}/run",
            "--data-bin {made}/bin/text",
        ),
    }
    start = "--checkpoint {made}/start/model.pt"
    file = "in/start/architecture.json"
    for tool, (line, place, data) in lines.items():
        for wrong, flags, says in (
            ("no start", "", "--checkpoint"),
            ("two starts", f"{start} --from-scratch", "--checkpoint|--from-scratch"),
            ("a missing checkpoint", "--checkpoint {in}/none.pt", r"none\.pt"),
            ("an architecture that does not exist", "--from-scratch --arch magic", "--arch"),
            ("an architecture that does not fit", "--from-scratch --arch transformer", "--arch"),
            ("another architecture than the checkpoint's", f"{start} --arch roberta_large", "--arch"),
            ("an unknown precision", f"{start} --precision fp8", "--precision"),
            ("fp16 without a GPU", f"{start} --precision fp16", "fp16"),
            ("an unknown option", f"{start} --magic 3", "--magic"),
            ("an unknown flag for fairseq", f"{start} -- --magic 3", "--magic"),
        ):
            gpu = without_gpu() if "GPU" in wrong else ""
            # an architecture is fairseq-train's own option
            leaves = RUN_LEAVES if "--" in flags.split() or "arch" in flags else None
            yield refuses(tool, wrong, f"{line} {flags}", says, skipped=gpu, leaves=leaves, limit=180)
        for wrong, step in (
            ("an architecture.json that is empty", write("start/architecture.json", "")),
            ("an architecture.json that is a list", write("start/architecture.json", "[]")),
            (
                "an architecture.json without flags",
                write("start/architecture.json", '{"separators": 2}'),
            ),
            (
                "an architecture.json without separators",
                json_entry("start/architecture.json", separators=None),
            ),
            ("separators that are text", json_entry("start/architecture.json", separators="two")),
            ("flags that are text", json_entry("start/architecture.json", flags="--arch roberta")),
            ("flags that are numbers", json_entry("start/architecture.json", flags=["--arch", 3])),
            ("flags that are empty", json_entry("start/architecture.json", flags=[])),
            ("a flag that is no size", more_flags("--save-dir", "/nowhere")),
            ("a flag with code", both(EVIL_PACKAGE, more_flags("--user-dir", "{in}/evil"))),
            ("a size that is text", more_flags("--encoder-embed-dim", "wide")),
            ("an architecture.json that is not UTF-8", write("start/architecture.json", LATIN)),
        ):
            if tool != "finetune" and wrong not in (
                "a flag with code",
                "an architecture.json that is empty",
            ):
                continue
            command = (
                f"{line} --checkpoint {{in}}/start/model.pt -- {SHORT if tool == 'pretrain' else FEW}"
            )
            says = re.escape(file.partition("/")[2])
            yield refuses(tool, wrong, command, says, copied("start"), step, limit=180)
        for wrong, target, says, steps, more in (
            ("a place below a file", "{in}/file/run", "file", [write("file", "x")], {}),
            ("a file as place", "{in}/file", "file", [write("file", "x")], {}),
            ("a read-only disk", "{out}/disk/run", "disk", [read_only_disk()], mounted()),
            ("a full disk", "{out}/disk/run", "disk|[Nn]o space", [full_disk(16)], full()),
        ):
            command = f"{line} {start} -- {FEW}".replace(place, f"{place.split()[0]} {target}")
            yield refuses(tool, wrong, command, says, *steps, limit=180, **more)
        for wrong, source, says, steps in (
            ("data that do not exist", "{in}/none", "none", []),
            ("a file instead of data", "{in}/file", "file", [write("file", "x")]),
        ):
            command = f"{line} {start} -- {FEW}".replace(data, f"--data-bin {source}")
            yield refuses(tool, wrong, command, says, *steps, limit=180)


def more_flags(*flags: str) -> Step:
    """More flags in architecture.json."""

    def step(place: Place) -> None:
        path = place.inside / "start" / "architecture.json"
        facts = json.loads(path.read_text())
        facts["flags"] += [place.fill(flag) for flag in flags]
        path.write_text(json.dumps(facts))

    return step


def finetune_cases() -> Iterator[Case]:
    """Options, data and results of finetune.py."""
    start = "--checkpoint {made}/start/model.pt"

    def tune(
        wrong: str,
        flags: str,
        says: str,
        *steps: Step,
        line: str = f"{FINETUNE} {start}",
        make: Callable[..., Case] = refuses,
        **more: Any,
    ) -> Case:
        return make("finetune", wrong, f"{line} {flags}", says, *steps, limit=180, **more)

    for wrong, flags, says in (
        ("seeds that repeat", "--seed 1 1", "--seed"),
        ("a seed that is text", "--seed one", "--seed"),
        ("a seed that is negative", "--seed -5", "--seed"),
        ("no GPU", "--gpus 0", "--gpus"),
        ("a negative number of GPUs", "--gpus -2", "--gpus"),
        ("a batch that cannot be shared", "--gpus 3", "--gpus"),
        ("machines without torchrun", "--nodes 2", "--torchrun"),
        ("no machine", "--nodes 0", "--nodes"),
        ("a machine that does not exist", "--torchrun --nodes 2 --node-rank 2", "--node-rank"),
        ("an address without a port", "--torchrun --main-address host:port", "--main-address"),
    ):
        yield tune(wrong, flags, says)
    for wrong, flags, says in (
        ("a NaN learning rate", "--lr nan", "--lr"),
        ("a learning rate that is text", "--lr fast", "--lr"),
        ("a metric that is not reported", "--best-checkpoint-metric mcc", "--best-checkpoint-metric"),
        ("a folder to start from", "--finetune-from-model {made}/start", "--finetune-from-model|/start"),
        ("an unknown criterion", "--criterion magic", "--criterion"),
    ):
        yield tune(f"{wrong} (for fairseq)", f"-- {FEW} {flags}", says, leaves=RUN_LEAVES)
    yield tune(
        "a criterion of another task",
        f"-- {FEW} --base-criterion sentence_ranking",
        "--base-criterion",
        line=f"{FINETUNE.replace('plain', 'rat')} {start}",
        leaves=RUN_LEAVES,
    )
    yield tune(
        "an option out of range",
        f"-- {FEW} --adv-passes 0",
        "--adv-passes",
        line=f"{FINETUNE.replace('plain', 'rat')} {start}",
        leaves=RUN_LEAVES,
    )
    yield tune(
        "F1 of three classes",
        f"-- {FEW} --report-acc-and-f1 --best-checkpoint-metric acc_and_f1",
        "--report-acc-and-f1",
        line=f"{FINETUNE.replace('RTE', 'MNLI')} {start}",
        leaves=RUN_LEAVES,
    )
    yield tune(
        "a training that diverges",
        f"-- {FEW} --lr 1e30 --max-update 4 --max-epoch 4 --batch-size 4",
        "NaN|nan|[Ii]nf|--lr|--clip-norm",
        leaves=RUN_LEAVES,
    )
    for wrong, flags, make in (
        ("the simple log format", "--log-format simple", works),
        ("no log format", "--log-format none", works),
        ("a progress bar", "--log-format tqdm", works),
        ("no validation", "--disable-validation", either),
        ("a validation on the training data", "--valid-subset train", either),
        ("a log file of fairseq's own", "--log-file {out}/fairseq.log", works),
        ("quiet logs", "--log-interval 1000", works),
    ):
        says = r"result\.json" if make is works else flags.split()[0]
        yield tune(wrong, f"-- {FEW} {flags}", says, make=make, leaves=RUN_LEAVES)
    for wrong, line, says in (
        ("an unknown task", f"NOPE plain {start}", "NOPE"),
        ("an unknown method", f"RTE magic {start}", "magic"),
        ("no task", start, "task"),
        (
            "data of no task",
            f"QNLI plain --data-bin {{made}}/bin {start} --save-dir {{out}}/run",
            "QNLI-bin",
        ),
        (
            "a tokenizer of other data",
            "RTE plain --data-bin {made}/bin --checkpoint {made}/bert/model.pt --save-dir {out}/run",
            r"dict\.txt",
        ),
        (
            "a missing folder of official files",
            f"RTE plain --data-bin {{out}}/bin --data-dir {{in}}/none {start}",
            "none",
        ),
    ):
        yield tune(wrong, "", says, line=line)
    data = f"RTE plain --data-bin {{in}} {start} --save-dir {{out}}/run -- {FEW}"
    copy = copied("bin/RTE-bin")
    for wrong, says, step in (
        ("no training data", "train", removed("RTE-bin/input0/train.idx")),
        ("an empty index", r"train\.idx", write("RTE-bin/input0/train.idx", b"")),
        ("an index of noise", r"train\.idx", write("RTE-bin/input0/train.idx", b"noise" * 50)),
        ("truncated data", r"train\.bin", changed("RTE-bin/input0/train.bin", lambda b: b[:30])),
        ("a dictionary that is not UTF-8", r"dict\.txt", changed("RTE-bin/input0/dict.txt", latin)),
        ("no validation data", "valid", removed("RTE-bin/input0/valid.idx")),
        ("no labels", "label", removed("RTE-bin/label")),
        ("an empty data folder", "RTE-bin", both(removed("RTE-bin"), folder("RTE-bin"))),
    ):
        yield tune(wrong, "", says, copy, step, line=data, leaves=RUN_LEAVES)
    for wrong, content in (
        ("a finished run", b'{"best": 1}'),
        ("a result.json that is empty", b""),
        ("a result.json that breaks off", b'{"best": '),
    ):
        yield tune(wrong, "", r"run", write("{out}/run/result.json", content))


def compare_cases() -> Iterator[Case]:
    """Options and results of compare.py."""

    def compare(
        wrong: str,
        flags: str,
        says: str,
        *steps: Step,
        line: str = COMPARE,
        make: Callable[..., Case] = refuses,
        **more: Any,
    ) -> Case:
        return make("compare", wrong, f"{line} {flags}", says, *steps, limit=240, **more)

    for wrong, flags, says in (
        ("no job", "--jobs 0", "--jobs"),
        ("a negative number of jobs", "--jobs -1", "--jobs"),
        ("a batch of 0", "--batch 0", "--batch"),
        ("a negative batch", "--batch -8", "--batch"),
        ("no epoch", "--epochs 0", "--epochs"),
        ("seeds that repeat", "--seeds 1 1", "--seeds"),
        ("a negative seed", "--seeds -1", "--seeds"),
        ("a seed that is text", "--seeds one", "--seeds"),
        ("a negative learning rate", "--lr -1e-3", "--lr"),
        ("a learning rate of 0", "--lr 0", "--lr"),
        ("a NaN learning rate", "--lr nan", "--lr"),
        ("an infinite learning rate", "--lr inf", "--lr"),
        ("a learning rate that is text", "--lr fast", "--lr"),
        ("learning rates that repeat", "--lr 1e-3 1e-3", "--lr"),
        ("nothing held out", "--held-out 0", "--held-out"),
        ("everything held out", "--held-out 1", "--held-out"),
        ("less than nothing held out", "--held-out -0.1", "--held-out"),
        ("more than everything held out", "--held-out 1.5", "--held-out"),
        ("a NaN share held out", "--held-out nan", "--held-out"),
        ("a share so small that no row is held out", "--held-out 0.001", "--held-out"),
        ("two training rows", "--train-rows 2", "--train-rows|--held-out"),
        ("no training row", "--train-rows 0", "--train-rows"),
        ("a negative number of rows", "--train-rows -5", "--train-rows"),
        ("more rows than there are", "--train-rows 1000000", "--train-rows"),
        ("methods that repeat", "--methods plain plain", "--methods"),
        ("no plain fine-tuning", "--methods rat", "--methods"),
        ("an unknown method", "--methods plain magic", "magic"),
    ):
        yield compare(wrong, f"{QUICK} {flags}", says)
    yield compare("a task that repeats", "", "RTE", line=COMPARE.replace("RTE", "RTE RTE", 1))
    yield compare("an unknown task", "", "NOPE", line=COMPARE.replace("RTE", "NOPE", 1))
    two = COMPARE.replace("RTE", "RTE QNLI", 1)
    yield compare("a second task without data", QUICK, "QNLI-bin", line=two, leaves=RUN_LEAVES)
    broken = write("{out}/run/RTE/search/plain-0/result.json", '{"last": ')
    yield compare(
        "a result.json that breaks off",
        f"{QUICK} -- {FEW}",
        r"plain-0/result\.json",
        broken,
        leaves=RUN_LEAVES,
    )
    other = write("{out}/run/RTE/search/plain-0/result.json", "[]")
    yield compare(
        "a result.json that is a list",
        f"{QUICK} -- {FEW}",
        r"plain-0/result\.json",
        other,
        leaves=RUN_LEAVES,
    )
    yield compare(
        "trainings that all fail",
        f"{QUICK} -- {FEW} --criterion rat_criterion --adv-passes 0",
        r"train\.log|--adv-passes",
        leaves=RUN_LEAVES,
    )
    yield compare(
        "no log format",
        f"{QUICK} --train-rows 10 -- {FEW} --log-format none",
        r"comparison\.png",
        make=works,
    )


def pretrain_cases() -> Iterator[Case]:
    """Options and texts of pretrain.py."""
    start = "--checkpoint {made}/start/model.pt"
    known = f"--data-bin {{made}}/bin/text --save-dir {{out}}/run {start}"

    def pretrain(
        wrong: str, line: str, says: str, *steps: Step, make: Callable[..., Case] = refuses, **more: Any
    ) -> Case:
        return make("pretrain", wrong, line, says, *steps, limit=240, **more)

    for wrong, flags, says in (
        ("a batch of 0", "--batch 0", "--batch"),
        ("a negative batch", "--batch -8", "--batch"),
        ("a batch that does not divide", "--batch 3", "--batch"),
        ("a batch that is text", "--batch many", "--batch"),
        ("a seed that is text", "--seed one", "--seed"),
    ):
        yield pretrain(wrong, f"{known} {flags}", says)
    new = f"--data-bin {{out}}/bin --save-dir {{out}}/run {start} --bpe-dir {{made}}/start --batch 8"
    for wrong, flags, says, steps in (
        ("no text", "", "--text", []),
        ("a missing text", "--text {in}/none.txt", r"none\.txt", []),
        (
            "a text that is not UTF-8",
            "--text {in}/a.txt",
            r"a\.txt",
            [copied("text.txt", "a.txt"), changed("a.txt", lambda b: LATIN + b)],
        ),
        ("an empty text", "--text {in}/a.txt", r"a\.txt|--valid", [write("a.txt", "")]),
        ("a missing tokenizer", "--text {made}/many.txt --sentencepiece {in}/a.model", r"a\.model", []),
    ):
        yield pretrain(wrong, f"{new} {flags}", says, *steps)
    plain = f"{known} --method plain --batch 512 -- {SHORT}"
    yield pretrain("no adversary", plain, "done training|num_updates", make=works)
    other = f"{known} --batch 512 -- {SHORT} --criterion masked_lm"
    yield pretrain("the plain criterion beside ASA's options", other, "--method", make=either)
    yield pretrain("no log format", f"{known} --batch 512 -- {SHORT} --log-format none", "", make=works)
    long = f"{known} --batch 8 -- {FEW}"  # of 256 symbols, for a model that reads 64
    yield pretrain(
        "texts that are too long", long, "--tokens-per-sample|--max-positions", leaves=RUN_LEAVES
    )
    yield pretrain(
        "an option out of range",
        f"{known} --batch 8 -- {SHORT} --asa-tau -1",
        "--asa-tau",
        leaves=RUN_LEAVES,
    )


# Measurements

SMALL = "--layers 1 --vocabulary 50 --repeats 1 --methods plain"
SMALL_BENCHMARK = f"--arch roberta --batch-size 1 --length 8 {SMALL}"
SMALL_GRID = f"--archs roberta --batch-sizes 1 --lengths 8 --precisions fp32 {SMALL}"
TEXT = "{made}/text.txt --valid {made}/text.txt"


def benchmark_cases() -> Iterator[Case]:
    """Sizes, precisions and places of the benchmarks."""
    for wrong, flags, says in (
        ("an architecture that does not exist", "--arch magic", "--arch|magic"),
        ("an architecture that does not fit", "--arch transformer", "--arch|transformer"),
        ("a batch of 0", "--batch-size 0", "--batch-size"),
        ("a length of 0", "--length 0", "--length"),
        ("a negative length", "--length -8", "--length"),
        ("a length that the model cannot read", "--length 9000", "--length"),
        ("no repeat", "--repeats 0", "--repeats"),
        ("no layer", "--layers 0", "--layers"),
        ("negative layers", "--layers -2", "--layers"),
        ("a vocabulary of one", "--vocabulary 1", "--vocabulary"),
        ("an unknown method", "--methods magic", "--methods"),
        ("an unknown precision", "--precision fp8", "--precision"),
        ("fp16 without a GPU", "--precision fp16", "--precision"),
        ("a plot of an unknown format", "--plot {out}/a.jpeg2", "--plot"),
        ("a plot in no folder", "--plot {in}/none/a.png --lengths 8 16", "none"),
        ("a report below a file", "--json {in}/file/a.json", "file"),
        ("a folder as report", "--json {in}", r"/in\b"),
    ):
        gpu = without_gpu() if "GPU" in wrong else ""
        yield refuses(
            "benchmark", wrong, f"{SMALL_BENCHMARK} {flags}", says, write("file", "x"), skipped=gpu
        )
    grid = f"{{out}}/grid {SMALL_GRID}"
    for wrong, flags, says, steps in (
        ("a file as folder", "", "file", [write("file", "x")]),
        ("a folder below a file", "", "file", [write("file", "x")]),
        ("an unknown option", "--magic 3", "--magic", []),
        ("an unknown precision", "--precisions fp8", "--precisions", []),
        ("a batch of 0", "--batch-sizes 0", "--batch-sizes?", []),
        ("an architecture that does not exist", "--archs magic", "--arch", []),
        (
            "records of options that are broken",
            "",
            r"options\.json",
            [write("{out}/grid/options.json", "{"), write("{out}/grid/a.json", "{}")],
        ),
        (
            "a report that breaks off",
            "",
            r"roberta-1x8-fp32\.json",
            [
                write("{out}/grid/options.json", json.dumps(shlex.split(SMALL))),
                write("{out}/grid/roberta-1x8-fp32.json", "{"),
            ],
        ),
        (
            "a report of something else",
            "",
            r"roberta-1x8-fp32\.json",
            [
                write("{out}/grid/options.json", json.dumps(shlex.split(SMALL))),
                write("{out}/grid/roberta-1x8-fp32.json", "{}"),
            ],
        ),
    ):
        line = grid.replace(
            "{out}/grid",
            {"a file as folder": "{in}/file", "a folder below a file": "{in}/file/a"}.get(
                wrong, "{out}/grid"
            ),
        )
        leaves = r"grid|.*\.log|.*options\.json|.*table\.md"
        yield refuses("benchmark_grid", wrong, f"{line} {flags}", says, *steps, leaves=leaves, limit=180)
    for wrong, line, says in (
        ("an architecture that does not exist", "magic", "magic"),
        ("an architecture that does not fit", "transformer", "transformer"),
        ("an unknown precision", "roberta_base --train fp8", "--train"),
        ("fp16 without a GPU", "roberta_base --train fp16", "--train"),
        ("a batch of 0", "roberta_base --train fp32 --batch-size 0", "--batch-size"),
        ("a length of 0", "roberta_base --train fp32 --length 0", "--length"),
        ("a length that the model cannot read", "roberta_base --train fp32 --length 9000", "--length"),
        ("no update", "roberta_base --train fp32 --updates 0", "--updates"),
    ):
        gpu = without_gpu() if "GPU" in wrong else ""
        yield refuses("measure_dead_weights", wrong, line, says, skipped=gpu, limit=180)
    speed = "--glue-dir {made}/glue --task RTE --bpe-dir {made}/start --repeats 1 --workers 1"
    for wrong, flags, says, steps in (
        ("a missing folder", "--glue-dir {in}/none", "none|--glue-dir", []),
        ("an unknown task", "--task NOPE", "--task", []),
        ("an unknown split", "--split some", "--split", []),
        ("no repeat", "--repeats 0", "--repeats", []),
        ("no worker", "--workers 0", "--workers", []),
        (
            "text that is not UTF-8",
            "--glue-dir {in}",
            r"train\.tsv",
            [copied("glue/RTE"), changed("RTE/train.tsv", lambda b: b + LATIN)],
        ),
        ("a missing tokenizer", "--bpe-dir {in}/none", "none", []),
    ):
        yield refuses("compare_bpe_speed", wrong, f"{speed} {flags}", says, *steps)


# Downloads


def download_cases() -> Iterator[Case]:
    """Servers that break off, lie and send something else; nothing leaves this machine."""
    for wrong, says, package in (
        ("absent", "404", "glue/RTE"),
        ("forbidden", "403", "glue/RTE"),
        ("page", r"RTE|archive", "glue/RTE"),
        ("empty", r"RTE|bytes|archive", "glue/RTE"),
        ("half", r"RTE|bytes|archive", "glue/RTE"),
        ("cut", r"RTE|bytes|archive", "glue/RTE"),
        ("lacking", r"train\.tsv|RTE", "glue/RTE"),
        ("evil", r"RTE|unsafe", "glue/RTE"),
        ("page", r"encoder\.json|SHA-256", "gpt2_bpe"),
        ("half", r"roberta\.base|archive", "roberta.base"),
        ("evil", r"roberta\.base|unsafe", "roberta.base"),
        ("link", r"roberta\.base|unsafe", "roberta.base"),
        ("crc", r"roberta\.base|archive", "roberta.base"),
        ("lacking", r"model\.pt|dict\.txt", "roberta.base"),
        ("latin", r"msr_paraphrase|mrpc|UTF-8", "glue/MRPC"),
        ("columns", r"msr_paraphrase", "glue/MRPC"),
    ):
        what = {
            "absent": "a file that is not there",
            "page": "a web page instead of a file",
            "half": "half a body without its length",
            "cut": "a connection that breaks",
            "crc": "an archive with a wrong checksum",
            "evil": "an archive that writes elsewhere",
            "link": "an archive with a link",
            "lacking": "an archive that lacks files",
            "latin": "text that is not UTF-8",
            "columns": "a table of other columns",
            "empty": "an empty file",
            "forbidden": "a file that is forbidden",
        }[wrong]
        line = f"{package} --out-dir {{out}}/data --base-url SERVER/{wrong}"
        leaves = r"data(/[^.]*)?|data/glue/MRPC/.*|.*\.(part|validator)"
        yield refuses("download", f"{what} ({package})", line, says, leaves=leaves)
    line = "glue/RTE --base-url SERVER/good --out-dir "
    yield refuses("download", "an unknown package", "magic --out-dir {out}/data", "magic")
    yield refuses("download", "no place", "glue/RTE", "--out-dir")
    yield refuses("download", "a place below a file", line + "{in}/file/a", "file", write("file", "x"))
    yield refuses("download", "a file as place", line + "{in}/file", "file", write("file", "x"))
    yield refuses(
        "download",
        "an address that is none",
        "glue/RTE --out-dir {out}/data --base-url magic",
        "magic",
        leaves=r"data.*",
    )
    yield refuses(
        "download",
        "a server that does not answer",
        "glue/RTE --out-dir {out}/data --base-url http://127.0.0.1:9",
        "127.0.0.1",
        leaves=r"data.*",
    )
    yield refuses(
        "download", "a read-only disk", line + "{out}/disk/a", "disk", read_only_disk(), **mounted()
    )
    yield refuses(
        "download",
        "a full disk",
        line + "{out}/disk",
        "disk|[Nn]o space",
        full_disk(4),
        **{**full(), "leaves": "disk.*"},
    )
    yield works("download", "a file that is complete", line + "{out}/data", "RTE")


# Nothing wrong: without these a command that never works would take every bad input well


def good_cases() -> Iterator[Case]:
    """The commands as the other cases give them, on good input."""
    best, asa = f"{{made}}/{RTE}/{BEST}", f"{{made}}/{ASA}/{BEST}"
    bpe, pairs = "--bpe-dir {made}/start", "--input {made}/pairs.tsv --output {out}/found"
    pieces = "{made}/hf/xlm-roberta/sentencepiece.bpe.model"
    start = "--checkpoint {made}/start/model.pt"
    for tool, line, says in (
        ("strip_adversary", f"{asa} {{out}}/plain.pt", r"plain\.pt"),
        ("convert_from_hf", "{made}/hf/roberta {out}/made", "--arch"),
        ("convert_from_hf", "{made}/hf/bert {out}/made --layers 1", "--arch"),
        ("convert_from_hf", "{made}/hf/xlm-roberta {out}/made", "--arch"),
        ("convert_to_hf", f"{best} {{out}}/hf --pretrained {{made}}/start", "RobertaForSequence"),
        ("convert_to_hf", f"{best} {{out}}/hf {bpe}", "RobertaForSequence"),
        ("convert_to_hf", f"{{made}}/trained/sts-b/{BEST} {{out}}/hf {bpe}", "RobertaForSequence"),
        ("convert_to_hf", f"{{made}}/trained/dream/{BEST} {{out}}/hf {bpe}", "RobertaForMultiple"),
        ("convert_to_hf", f"{{made}}/trained/wnut/{BEST} {{out}}/hf {bpe}", "RobertaForToken"),
        ("convert_to_hf", f"{{made}}/trained/masked-lm/{BEST} {{out}}/hf {bpe}", "RobertaForMasked"),
        ("convert_to_hf", f"{asa} {{out}}/hf {bpe}", "RobertaForSequence"),
        ("predict", f"{best} {pairs}", ""),
        ("predict", f"{asa} {pairs} {bpe} --probabilities", ""),
        ("predict", f"{best} {asa} {pairs} --ensemble majority", ""),
        ("predict", f"{{made}}/trained/sts-b/{BEST} {pairs}", ""),
        (
            "predict",
            f"{{made}}/trained/wnut/{BEST} --input {{made}}/text.txt --output {{out}}/found",
            "",
        ),
        ("predict", f"{best} --glue-task RTE --glue-dir {{made}}/glue --output-dir {{out}}/a", "RTE"),
        ("predict", f"{best} --glue-task RTE --glue-dir {{made}}/glue --split dev", "accuracy"),
        ("plot_attention", f"maps {asa} --text cat {bpe} --out {{out}}/a.png", r"a\.png"),
        ("plot_attention", f"layers x={asa} --out {{out}}/a.png", r"a\.png"),
        ("plot_attention", "history {made}/trained/asa.log --out {out}/a.png", r"a\.png"),
        ("preprocess_glue", f"--data-dir {{made}}/glue GLUE --out-dir {{out}}/bin {bpe}", "WNLI"),
        ("preprocess_text", f"{TEXT} --out-dir {{out}}/text --sentencepiece {pieces}", "tokens"),
        ("preprocess_text", f"{TEXT} --out-dir {{out}}/text --wordpiece {{made}}/bert", "tokens"),
        ("finetune", f"{FINETUNE} {start} -- {FEW}", r"result\.json"),
        ("finetune", f"{FINETUNE.replace('plain', 'asa')} {start} -- {FEW}", r"result\.json"),
        ("compare", f"{COMPARE} {QUICK} -- {FEW}", r"comparison\.png"),
        ("pretrain", f"{PRETRAIN_FROM} {{made}}/start/model.pt -- {SHORT}", "done training"),
        ("benchmark", SMALL_BENCHMARK, "plain"),
        ("benchmark_grid", f"{{out}}/grid {SMALL_GRID}", "plain"),
        ("measure_dead_weights", "roberta", "checkpoint"),
        (
            "compare_bpe_speed",
            f"--glue-dir {{made}}/glue --task RTE {bpe} --repeats 1 --workers 1",
            "yes",
        ),
    ):
        if "xlm-roberta" in line and without("xlm-roberta"):
            continue
        yield works(tool, f"nothing: {line}", line, says, limit=300)
    for task in fixtures.TASK_FLAGS:
        for method in ("plain", *fixtures.CRITERIONS):
            if task in ("RTE", "text") or method == "rat":
                yield works(TRAIN, f"nothing ({task}, {method})", train_line(task, method), "done")
    for name in ("TNEWS", "IFLYTEK", "AG-News", "IMDB", "ANLI", "PAWS-QQP", "ARC-Easy", "DREAM", "WSC"):
        line = f"--data-dir {{made}}/tasks {name} --out-dir {{out}}/bin {bpe}"
        yield works("preprocess_task", f"nothing ({name})", line, name)


GROUPS = (
    good_cases,
    checkpoint_cases,
    training_cases,
    package_cases,
    convert_from_hf_cases,
    convert_to_hf_cases,
    tokenizer_cases,
    preprocess_glue_cases,
    preprocess_task_cases,
    preprocess_text_cases,
    predict_cases,
    plot_cases,
    strip_cases,
    runner_cases,
    finetune_cases,
    compare_cases,
    pretrain_cases,
    benchmark_cases,
    download_cases,
)


def all_cases() -> list[Case]:
    """Every case, those of one command together."""
    return [case for group in GROUPS for case in group()]


# The command


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tools", nargs="+", metavar="TOOL", help="only these, as finetune or fairseq-train"
    )
    parser.add_argument("--only", metavar="REGEX", help="only cases whose description matches")
    parser.add_argument("--failed", type=Path, metavar="JSON", help="only what failed in this report")
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time (%(default)s)")
    parser.add_argument(
        "--fresh", action="store_true", help="start Python anew for every case: slow, as a user does it"
    )
    parser.add_argument("--verbose", action="store_true", help="show every case, not only what failed")
    parser.add_argument("--list", action="store_true", help="print the cases, try nothing")
    parser.add_argument("--json", type=Path, help="write all verdicts here, too")
    arguments = parser.parse_args(argv)
    if arguments.jobs < 1:
        parser.error(f"--jobs {arguments.jobs}: at least 1")
    return arguments


def choose(arguments: argparse.Namespace) -> list[Case]:
    """The cases that were asked for."""
    cases = all_cases()
    known = sorted({case.tool for case in cases})
    for tool in arguments.tools or ():
        if tool not in known:
            sys.exit(f"campaign_bad_inputs.py: error: --tools {tool}: choose of {', '.join(known)}")
    failed = None
    if arguments.failed:
        report = json.loads(arguments.failed.read_text("utf-8"))
        failed = {(e["tool"], e["wrong"]) for e in report["cases"] if e["verdict"] == "failed"}
    return [
        case
        for case in cases
        if (not arguments.tools or case.tool in arguments.tools)
        and (not arguments.only or re.search(arguments.only, case.wrong))
        and (failed is None or (case.tool, case.wrong) in failed)
    ]


def show(verdict: Verdict, *, verbose: bool) -> None:
    """A case that failed, or any."""
    if verdict.kind == "failed":
        print(f"\nFAILED {verdict.case.tool}: {verdict.case.wrong}: {'; '.join(verdict.faults)}")
        print(f"  {verdict.command}")
    elif verbose:
        print(f"\n{verdict.kind} {verdict.case.tool}: {verdict.case.wrong} {verdict.case.skipped}")
    if verdict.kind == "failed" or verbose:
        for line in judge.last_lines(verdict.output, 6):
            print(f"  | {line[:300]}")
    sys.stdout.flush()


def table(verdicts: Sequence[Verdict]) -> str:
    """What came of the cases of each command."""
    kinds = ("one clear line", "works", "failed", "skipped")
    counts: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        counts.setdefault(verdict.case.tool, Counter())[verdict.kind] += 1
    counts = dict(sorted(counts.items()))
    counts["all"] = sum(counts.values(), Counter())
    lines = [f"| command | tried | {' | '.join(kinds)} |", f"| --- |{' ---: |' * (1 + len(kinds))}"]
    for tool, found in counts.items():
        tried = sum(found.values()) - found["skipped"]
        lines.append(f"| {tool} | {tried} | {' | '.join(str(found[kind]) for kind in kinds)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is fed, try all cases, print the table."""
    arguments = parse_arguments(argv)
    judge.with_own_mounts()
    cases = choose(arguments)
    if arguments.list:
        for case in cases:
            print(f"{case.tool}: {case.wrong}: {case.outcome} {case.says!r} {case.skipped}")
        print(f"{len(cases)} cases")
        return
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was made goes
    judge.preload()
    with judge.temporary_folder() as folder_:
        made = folder_ / "made"
        fixtures.make(made, arguments.jobs)
        before = judge.listing(made)
        with fixtures.server(made) as address:
            verdicts = judge.run(
                [judge.at_server(case, address) for case in cases],
                made,
                jobs=arguments.jobs,
                fresh=arguments.fresh,
                report=lambda verdict: show(verdict, verbose=arguments.verbose),
            )
        touched = sorted(set(before.items()) ^ set(judge.listing(made).items()))
    print(f"\n{table(verdicts)}\n")
    failed = sum(verdict.kind == "failed" for verdict in verdicts)
    reasons = Counter(verdict.case.skipped for verdict in verdicts if verdict.case.skipped)
    for reason, count in reasons.items():
        print(f"{count} skipped: {reason}")
    for path, _ in touched:
        print(f"FAILED: a command changed its input {path}")
    print(f"{len(cases)} cases, {failed} failed, {time.monotonic() - began:.0f} s")
    if arguments.json:
        report = {"cases": [verdict.as_json() for verdict in verdicts], "failed": failed}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if failed or touched:
        sys.exit(1)


if __name__ == "__main__":
    main()
