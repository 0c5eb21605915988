"""Every option and its default, of every command and of what fairseq-train knows through us.

They stand in others' command lines: what changes one has to change ``flags.txt``, too, on purpose by

    python tests/test_flags.py > tests/flags.txt
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.dataclass.utils import gen_parser_from_dataclass
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.models.roberta import RobertaModel
from fairseq.registry import REGISTRIES
from fairseq.tasks import TASK_DATACLASS_REGISTRY

import adv_plugins  # noqa: F401
import conftest  # noqa: F401 - paths and the compatibility hook, where this is run as a script
from adv_plugins_cli.__main__ import COMMANDS, main
from adv_plugins_cli.convert import DIRECTIONS

FLAGS = Path(__file__).with_name("flags.txt")


class Asked(BaseException):
    """A command asked this parser."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def parser_of(words: list[str]) -> argparse.ArgumentParser:
    """What a command reads its command line with, before it does anything else."""

    def ask(parser, *args, **kwargs):
        raise Asked(parser)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["adv-plugins"])
        patch.setattr(argparse.ArgumentParser, "parse_args", ask)
        patch.setattr(argparse.ArgumentParser, "parse_known_args", ask)
        with pytest.raises(Asked) as asked:
            main(words)
    return asked.value.parser


def flags_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """An option a line; those of a parser's own commands after theirs."""
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from (f"{name} {line}" for line in flags_of(below))
            continue
        default = action.default.value if isinstance(action.default, Enum) else action.default
        names = ", ".join(action.option_strings) or f"{action.dest} ({action.nargs or 1})"
        yield f"{names} = {default}" if default != "" else f"{names} ="


def of_fairseq(options: Any) -> list[str]:
    """What a class adds to fairseq-train's command line, or the dataclass of its options."""
    parser = argparse.ArgumentParser(add_help=False)
    if hasattr(options, "add_args"):
        options.add_args(parser)
    else:
        gen_parser_from_dataclass(parser, options(), delete_default=False)
    return list(flags_of(parser))


def everything() -> list[str]:
    """The lines of ``flags.txt``."""
    lines = []
    for command in COMMANDS:
        for words in [[command, each] for each in DIRECTIONS] if command == "convert" else [[command]]:
            lines += [f"adv-plugins {' '.join(words)} {line}" for line in flags_of(parser_of(words))]
    for kind, registry in (
        ("criterion", CRITERION_DATACLASS_REGISTRY),
        ("task", TASK_DATACLASS_REGISTRY),
        ("bpe", REGISTRIES["bpe"]["dataclass_registry"]),
        ("arch", ARCH_MODEL_REGISTRY),
    ):
        stock = of_fairseq(RobertaModel) if kind == "arch" else []
        for name, options in sorted(registry.items()):
            if options.__module__.startswith("adv_plugins."):
                own = [line for line in of_fairseq(options) if line not in stock]
                lines += [f"--{kind} {name} {line}" for line in own or ["as roberta"]]
    return lines


def test_no_flag_and_no_default_changes_by_accident():
    found, kept = everything(), FLAGS.read_text().splitlines()
    gone, new = set(kept) - set(found), set(found) - set(kept)
    assert (gone, new) == (set(), set()), "on purpose? python tests/test_flags.py > tests/flags.txt"
    assert found == kept, "in another order"


def test_help_loads_nothing_heavy():
    """So that it takes tenths of a second: scripts/measure/help_times.py."""
    asks = """
import contextlib, io, sys
from adv_plugins_cli.__main__ import COMMANDS, main
with contextlib.redirect_stdout(io.StringIO()):
    for name in COMMANDS:
        with contextlib.suppress(SystemExit):
            main([name, "--help"])
print(*sorted({"torch", "fairseq", "transformers", "tokenizers", "requests", "matplotlib"} & {*sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


if __name__ == "__main__":
    print("\n".join(everything()))
