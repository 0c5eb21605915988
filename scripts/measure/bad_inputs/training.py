"""fairseq-train: options, weights, data and places."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adv_plugins_cli.recipes.methods import CORE
from bad_inputs.common import (
    BLOCKED,
    LATIN,
    RUN_LEAVES,
    START,
    either,
    filled,
    full,
    hidden,
    latin,
    mounted,
    refuses,
    without_gpu,
    works,
)
from campaign_fixtures import (
    Step,
    changed,
    copied,
    folder,
    full_disk,
    read_only_disk,
    removed,
    state,
    train_line,
    write,
)
from campaign_judge import TRAIN, Case


def training_cases() -> Iterator[Case]:
    """fairseq-train with these plug-ins: options out of range, data and trainings gone bad."""

    def train(
        wrong: str, flags: str, says: str, *steps: Step, of: str = "RTE", by: str = "plain", **more: Any
    ):
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
    for method in CORE:
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
