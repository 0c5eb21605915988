"""Weights of encoders: ``adv-plugins convert from-hf`` and ``adv-plugins convert to-hf``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

DIRECTIONS = {
    "from-hf": "a Hugging Face encoder into a folder that fairseq fine-tunes from",
    "to-hf": "a checkpoint of fairseq's into a folder that transformers loads",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    direction, *rest = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    if direction in ("-h", "--help"):
        print("usage: adv-plugins convert DIRECTION [options]\n")
        print("\n".join(f"  {name:<7}  {about}" for name, about in DIRECTIONS.items()))
        return 0
    if direction not in DIRECTIONS:
        print(f"adv-plugins convert: error: {direction!r}: from-hf or to-hf", file=sys.stderr)
        return 2
    sys.argv = [f"adv-plugins convert {direction}", *rest]
    if direction == "from-hf":
        from adv_plugins_cli.convert_from_hf import main as convert
    else:
        from adv_plugins_cli.convert_to_hf import main as convert
    convert(rest)
    return 0
