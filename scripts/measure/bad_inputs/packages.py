"""Optional packages that are not installed."""

from __future__ import annotations

from collections.abc import Iterator

from bad_inputs.common import (
    ASA,
    BEST,
    BLOCKED,
    COMPARE,
    FEW,
    QUICK,
    RTE,
    SMALL_BENCHMARK,
    hidden,
    refuses,
)
from campaign_judge import Case


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
