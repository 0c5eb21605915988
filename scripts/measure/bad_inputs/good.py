"""Nothing wrong: without these a command that never works would take every bad input well."""

from __future__ import annotations

from collections.abc import Iterator

import campaign_fixtures as fixtures
from adv_plugins_cli.recipes.methods import CORE
from bad_inputs.common import (
    ASA,
    BEST,
    COMPARE,
    FEW,
    FINETUNE,
    PRETRAIN_FROM,
    QUICK,
    RTE,
    SHORT,
    SMALL_BENCHMARK,
    SMALL_GRID,
    TEXT,
    without,
    works,
)
from campaign_fixtures import train_line
from campaign_judge import TRAIN, Case


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
        for method in CORE:
            if task in ("RTE", "text") or method == "rat":
                yield works(TRAIN, f"nothing ({task}, {method})", train_line(task, method), "done")
    for name in ("TNEWS", "IFLYTEK", "AG-News", "IMDB", "ANLI", "PAWS-QQP", "ARC-Easy", "DREAM", "WSC"):
        line = f"--data-dir {{made}}/tasks {name} --out-dir {{out}}/bin {bpe}"
        yield works("preprocess_task", f"nothing ({name})", line, name)
