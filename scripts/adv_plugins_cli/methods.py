"""The methods: ``adv-plugins methods`` lists them, ``adv-plugins methods rat`` shows one's options."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from adv_plugins_cli.command import UserError, one_line_errors
from adv_plugins_cli.recipes.methods import load_methods

if TYPE_CHECKING:
    from adv_plugins.methods import Method


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("method", nargs="?", help="such as rat (default: all, a line each)")
    parser.add_argument("--user-dir", help="a package of your own with more methods")
    return parser.parse_args(argv)


def overview(methods: Sequence[Method]) -> str:
    """A line a method."""
    width = max(len(method.name) for method in methods)
    return "\n".join(
        f"{method.name:<{width}}  {method.title} ({method.paper}); passes: {method.passes}"
        for method in methods
    )


def own_options(method: Method) -> Iterator[dataclasses.Field[Any]]:
    """What its criterion has beside the options of the criterions that it wraps."""
    from adv_plugins.criterions.base_choice import WrappingCriterionConfig

    shared = {field.name for field in dataclasses.fields(WrappingCriterionConfig)}
    for field in dataclasses.fields(method.options):
        if field.name not in shared:
            yield field


def describe(method: Method) -> str:
    """The paper, what an update does, and every option with its default and help."""
    architecture = " with an asa_* architecture" if method.adversaries else ""
    lines = [
        f"{method.title}: {method.paper}, {method.address}",
        f"--criterion {method.criterion}{architecture}",
        *textwrap.wrap(f"{method.summary}; passes: {method.passes}", 100),
        "",
    ]
    for field in own_options(method):
        flag = "--" + field.name.replace("_", "-")
        if isinstance(field.type, enum.EnumMeta):
            flag += " " + "|".join(each.value for each in field.type)
        lines.append(f"  {flag} (default: {getattr(field.default, 'value', field.default)})")
        lines += textwrap.wrap(
            field.metadata["help"], 94, initial_indent="      ", subsequent_indent="      "
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    arguments = parse_arguments(argv)
    with one_line_errors("adv-plugins methods"):
        methods = load_methods(arguments.user_dir)
        if arguments.method is None:
            print(overview(list(methods.values())))
        elif arguments.method not in methods:
            raise UserError(f"no method {arguments.method!r}: {', '.join(methods)}")
        else:
            print(describe(methods[arguments.method]))
