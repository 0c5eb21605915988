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

import conftest  # noqa: F401 - paths and the compatibility hook, where this is run as a script
from adv_plugins_cli.__main__ import COMMANDS, main
from adv_plugins_cli.convert import DIRECTIONS

FLAGS = Path(__file__).with_name("flags.txt")
STOCK = "stock"  # as an argument: fairseq's lines without us


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


def of_commands() -> list[str]:
    """The lines of ``adv-plugins``."""
    words = [[name] for name in COMMANDS if name != "convert"]
    words += [["convert", direction] for direction in DIRECTIONS]
    return [
        f"adv-plugins {' '.join(each)} {line}" for each in words for line in flags_of(parser_of(each))
    ]


def of_fairseq() -> list[str]:
    """The lines of fairseq-train, and of each choice that brings options with it."""
    from fairseq import options
    from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY
    from fairseq.dataclass.utils import gen_parser_from_dataclass
    from fairseq.models import ARCH_MODEL_REGISTRY
    from fairseq.models.roberta import RobertaModel
    from fairseq.registry import REGISTRIES
    from fairseq.tasks import TASK_DATACLASS_REGISTRY, TASK_REGISTRY

    def lines(known: Any, dataclass: Any = None) -> list[str]:
        parser = argparse.ArgumentParser(add_help=False, conflict_handler="resolve")
        if dataclass is not None:
            gen_parser_from_dataclass(parser, dataclass(), delete_default=False)
        elif hasattr(known, "add_args"):
            known.add_args(parser)
        return list(flags_of(parser))

    found = [f"fairseq-train {line}" for line in flags_of(options.get_training_parser())]
    kinds = {name: (each["registry"], each["dataclass_registry"]) for name, each in REGISTRIES.items()}
    kinds["criterion"] = (CRITERION_REGISTRY, CRITERION_DATACLASS_REGISTRY)
    kinds["task"] = (TASK_REGISTRY, TASK_DATACLASS_REGISTRY)
    for kind, (registry, dataclasses) in kinds.items():
        for name, known in sorted(registry.items()):
            start = f"fairseq-train --{kind} {name}"
            found += [start, *(f"{start} {line}" for line in lines(known, dataclasses.get(name)))]
    roberta = lines(RobertaModel)
    for name, known in sorted(ARCH_MODEL_REGISTRY.items()):
        start = f"fairseq-train --arch {name}"
        found += [start, *(f"{start} {line}" for line in lines(known) if line not in roberta)]
    return found


def everything() -> list[str]:
    """The lines of ``flags.txt``: of fairseq's only those that are not there without us."""
    with subprocess.Popen([sys.executable, __file__, STOCK], stdout=subprocess.PIPE, text=True) as other:
        import adv_plugins  # noqa: F401

        ours = of_fairseq()
        assert other.stdout
        stock = set(other.stdout.read().splitlines())
    assert other.returncode == 0
    return of_commands() + [line for line in ours if line not in stock]


def test_no_flag_and_no_default_changes_by_accident():
    # in a process of its own, as other tests register what is theirs
    command = [sys.executable, __file__]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    kept = FLAGS.read_text().splitlines()
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
heavy = {"torch", "fairseq", "transformers", "tokenizers", "requests", "matplotlib"}
print(*sorted(heavy & {*sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


if __name__ == "__main__":
    print("\n".join(of_fairseq() if sys.argv[1:] == [STOCK] else everything()))
