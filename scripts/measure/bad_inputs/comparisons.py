"""Comparisons and pre-training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bad_inputs.common import (
    COMPARE,
    FEW,
    LATIN,
    QUICK,
    RUN_LEAVES,
    SHORT,
    cases_of,
    either,
    refuses,
    works,
)
from campaign_fixtures import Step, changed, copied, write
from campaign_judge import Case


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

    pretrain = cases_of("pretrain", limit=240)
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
