"""What fairseq says on the console: not what nobody can mend, and all options when asked for help."""

from __future__ import annotations

import sys
from typing import Any


def silence_what_nobody_can_mend() -> None:
    """Warnings about how fairseq uses hydra and torch, of which a user can change nothing, stay away.

    Each start prints a page of hydra's (no issue upstream), each epoch on a CPU one of torch's.
    `python -W always` and filters that are set later show them.
    """
    import warnings

    if not all(option.startswith("ignore") for option in sys.warnoptions):
        return  # somebody wants to see them
    for module in (r"hydra\.experimental\.", r"hydra\.core\.default_element", r"hydra\.compose"):
        warnings.filterwarnings("ignore", category=UserWarning, module=module)
    for message in (
        r"\s*'config' is validated against ConfigStore schema",
        r"'pin_memory' argument is set as true but no accelerator is found",
    ):
        warnings.filterwarnings("ignore", message=message, category=UserWarning)
    autocast = r"`torch\.cuda\.amp\.autocast"
    warnings.filterwarnings("ignore", message=autocast, category=FutureWarning)


def silence_tensorboardx() -> None:
    """Without tensorboardX each start asks for it (no issue upstream), though only one task of speech
    uses it: TensorBoard is torch's."""
    import logging

    def is_of_use(record: logging.LogRecord) -> bool:
        return "install tensorboardX" not in record.getMessage()

    logging.getLogger("fairseq.tasks.text_to_speech").addFilter(is_of_use)


def show_all_options() -> None:
    """`fairseq-train ... --criterion NAME --help` shows that criterion's options, too, and those of the
    named task, architecture, optimizer and scheduler (no issue upstream).

    fairseq parses the line once to know them, and that parse prints the help without them.
    """
    from fairseq import options

    original = options.parse_args_and_arch
    if hasattr(original, "original"):
        return

    def parse_args_and_arch(
        parser: Any, input_args: Any = None, *rest: Any, modify_parser: Any = None, **named: Any
    ) -> Any:
        given = sys.argv[1:] if input_args is None else list(input_args)
        without = [word for word in given if word not in ("-h", "--help")]
        if len(without) == len(given):
            return original(parser, input_args, *rest, modify_parser=modify_parser, **named)
        calls = 0

        def show(parser: Any) -> None:  # called before the first parse and before the second one
            nonlocal calls
            calls += 1
            if modify_parser is not None:
                modify_parser(parser)
            # Without an architecture there is no second parse.
            if calls == 2 or parser.parse_known_args(without)[0].arch is None:
                parser.print_help()
                parser.exit()

        return original(parser, without, *rest, modify_parser=show, **named)

    parse_args_and_arch.original = original  # type: ignore[attr-defined]
    options.parse_args_and_arch = parse_args_and_arch
