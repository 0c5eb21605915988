"""Raw text for pre-training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bad_inputs.common import LATIN, either, full, mounted, refuses, works
from campaign_fixtures import Step, changed, copied, folder, full_disk, read_only_disk, write
from campaign_judge import Case


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
