"""Malformed tokenizers, in every command that reads one."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Iterator

from bad_inputs.common import ASA, BEST, LATIN, RTE, refuses, without
from campaign_fixtures import Step, changed, copied, folder, removed, write
from campaign_judge import Case

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
