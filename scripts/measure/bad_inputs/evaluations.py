"""Evaluations."""

from __future__ import annotations

import json
from collections.abc import Iterator

from bad_inputs.common import BEST, COMPARE, LATIN, QUICK, RTE, cases_of, filled, refuses, works
from campaign_fixtures import copied, folder, hostile_pickle, state, write
from campaign_judge import Case

MODEL = f"{{made}}/{RTE}/{BEST}"
DATA = "--data {made}/bin/RTE-bin --bootstrap 2"
SET = "--set {name}={{in}}/set --bootstrap 2"
REPORT = "--report {out}/report"


def evaluate_cases() -> Iterator[Case]:
    """Options, checkpoints, labelled files, sets and lists that an evaluation cannot use."""

    evaluate = cases_of("evaluate")
    for wrong, flags, says in (
        ("a negative epsilon", "--embedding --eps -0.1", "--eps"),
        ("an epsilon that is no number", "--embedding --eps nan", "--eps"),
        ("an epsilon that is text", "--embedding --eps much", "--eps"),
        ("a step of 0", "--embedding --step-size 0", "--step-size"),
        ("no step", "--embedding --steps 0", "--steps"),
        ("no start", "--embedding --starts 0", "--starts"),
        ("a curve to a negative epsilon", "--curves --curve-eps 0 -1", "--curve-eps"),
        ("no draw of noise", "--curves --noise-draws 0", "--noise-draws"),
        ("negative noise at a layer", "--curves --layer-noise -1", "--layer-noise"),
        ("an epsilon without the study", "--eps 0.1", "--eps does nothing without --embedding"),
        ("draws without curves", "--noise-draws 2", "--noise-draws does nothing without --curves"),
        ("queries without an attack", "--queries 5", "--queries does nothing without --attack"),
        ("a reference that is none of them", "--embedding --search-eps other.pt", "--search-eps"),
        ("no row", "--rows 0", "--rows"),
        ("no draw of the bootstrap", "--bootstrap 0", "--bootstrap"),
        ("a batch of 0", "--batch-size 0", "--batch-size"),
        ("a negative seed", "--seed -1", "--seed"),
        ("a split that is not there", "--split test2", "test2"),
        ("an unknown attack", "--attack magic", "--attack"),
        ("an attack on prepared data", "--attack typos", "--attack"),
        ("synonyms without a list", "--attack synonyms", "--neighbors"),
        ("a list that nothing needs", "--neighbors {made}/text.txt", "--neighbors"),
        ("more than all words changed", "--attack typos --changed 1.5", "--changed"),
        ("a set without a path", "--set SST-2", "SST-2"),
        ("a set without a reader", "--set Magic={made}/text.txt", "Magic"),
        ("a set that is there twice", "--set RTE=a RTE=b", "--set"),
        ("a set that is not there", "--set RTE={in}/none", "none"),
        ("dictionaries of data that has some", "--data-bin {made}/bin/RTE-bin", "--data-bin"),
        ("a file for the report", "--report {made}/text.txt", "--report"),
    ):
        yield evaluate(wrong, f"{MODEL} {DATA} {flags}", says)
    for wrong, line, says in (
        ("nothing to evaluate on", MODEL, "--data"),
        ("no checkpoint", DATA, "CHECKPOINT"),
        ("a missing checkpoint", f"{{in}}/none.pt {DATA}", r"none\.pt"),
        ("a checkpoint that is there twice", f"{MODEL} {MODEL} {DATA}", "twice"),
        ("missing data", f"{MODEL} --data {{in}}/none", "none"),
        ("data of another task", f"{MODEL} --data {{made}}/bin/MNLI-bin", "MNLI-bin"),
        ("checkpoints of different tasks", f"{MODEL} {{made}}/trained/mnli/{BEST} {DATA}", "mnli"),
        ("weights without a task", f"{{made}}/start/model.pt {DATA}", r"start/model\.pt"),
        ("a masked LM", f"{{made}}/trained/masked-lm/{BEST} --data {{made}}/bin/text", "masked-lm"),
        (
            "curves of a regression",
            f"{{made}}/trained/sts-b/{BEST} --data {{made}}/bin/STS-B-bin --curves",
            "--curves",
        ),
        (
            "a split of a set",
            f"{MODEL} --data RTE={{made}}/glue/RTE/dev.tsv --split valid",
            "--split",
        ),
        (
            "a set of other classes",
            f"{MODEL} --set MNLI={{made}}/glue/MNLI/dev_matched.tsv",
            "MNLI",
        ),
        ("a set of single sentences", f"{MODEL} --set SST-2={{made}}/glue/SST-2/dev.tsv", "SST-2"),
    ):
        yield evaluate(wrong, line, says)
    spoiled = f"{{in}}/{BEST} {DATA} {REPORT}"
    source = f"{RTE}/{BEST}"
    for wrong, says, steps in (
        ("a checkpoint that is text", BEST, [write(BEST, "weights")]),
        ("an empty checkpoint", BEST, [write(BEST, "")]),
        ("a hostile checkpoint", BEST, [copied(source, BEST), hostile_pickle(BEST, zipped=True)]),
        ("a NaN weight", r"layers\.1\.fc1", [copied(source, BEST), state(BEST, filled(float("nan")))]),
    ):
        yield evaluate(wrong, spoiled, says, *steps)
    own = f"{MODEL} --data {{in}}/own.tsv --bootstrap 2 {REPORT}"
    for wrong, says, content in (
        ("an empty labelled file", r"own\.tsv", ""),
        ("a header alone", r"own\.tsv", "a\tb\tlabel\n"),
        ("an unknown label", r"own\.tsv:1", "a\tb\tmaybe\n"),
        ("a text too few", r"own\.tsv:2", "a\tb\tentailment\na\tentailment\n"),
        ("labelled text that is not UTF-8", r"own\.tsv:1", b"a\t" + LATIN + b"\tentailment\n"),
    ):
        yield evaluate(wrong, own, says, write("own.tsv", content))
    for wrong, name, says, step in (
        ("an AdvGLUE that is no JSON", "AdvGLUE-RTE", "set:1", write("set", "rows")),
        ("an AdvGLUE without the task", "AdvGLUE-RTE", "rte", write("set", "{}")),
        ("an AdvGLUE without rows", "AdvGLUE-RTE", "no rows", write("set", '{"rte": []}')),
        (
            "an AdvGLUE with a label of text",
            "AdvGLUE-RTE",
            "rte 1",
            write("set", json.dumps({"rte": [{"sentence1": "a", "sentence2": "b", "label": "yes"}]})),
        ),
        ("a set without its columns", "RTE", "set", write("set", "a\tb\n1\t2\n")),
        ("a folder for a file", "RTE", "set", folder("set")),
        ("HANS of another format", "HANS", "set", write("set", "a\tb\n")),
    ):
        yield evaluate(wrong, f"{MODEL} {SET.format(name=name)} {REPORT}", says, step)
    attack = f"{MODEL} --data RTE={{made}}/glue/RTE/dev.tsv --attack synonyms --neighbors {{in}}/near"
    for wrong, says, content in (
        ("a list that is no JSON", "near:1", "cat: kitten"),
        ("a list of lists", "near", "[]"),
        ("a word without a list", "--neighbors", '{"cat": "kitten"}'),
        ("a list without words", "--neighbors", '{"cat": []}'),
    ):
        yield evaluate(wrong, attack, says, write("near", content))
    yield evaluate("a missing list", attack, "near")
    good = "a\tb\tlabel\ncat\tdog\tentailment\n"
    yield evaluate("a header", own, r"report\.html", write("own.tsv", good), make=works)
    damaged = write("{out}/report/rows/curves-0.jsonl", '{"half')
    quick = f"{MODEL} {DATA} {REPORT} --curves --curve-rows 2 --curve-eps 0.1 --noise-draws 1"
    yield evaluate("results of rows that break off", quick, r"report\.html", damaged, make=works)
    line = f"{COMPARE} {QUICK} --evaluate"
    for wrong, options, says in (
        ("an evaluation with a report", "--report x", "--report"),
        ("an evaluation of a set of other classes", "--set MNLI={made}/glue/MNLI/train.tsv", "MNLI"),
        ("an evaluation with a negative epsilon", "--embedding --eps -1", "--eps"),
        ("an evaluation with an open quote", '--set "RTE', "--evaluate"),
    ):
        yield refuses("compare", wrong, f"{line} '{options}'", says)
