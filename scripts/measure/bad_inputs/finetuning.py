"""Fine-tuning: folders, data and flags of one run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from bad_inputs.common import FEW, FINETUNE, RUN_LEAVES, either, latin, refuses, works
from bad_inputs.from_hf import both
from campaign_fixtures import Step, changed, copied, folder, removed, write
from campaign_judge import Case, Place


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
