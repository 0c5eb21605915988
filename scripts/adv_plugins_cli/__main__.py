"""``adv-plugins COMMAND [options]``: finds the command's module and loads that one alone."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

# command -> (module, what it does)
COMMANDS = {
    "finetune": ("finetune", "fine-tune on one task with one method"),
    "compare": ("compare", "methods x seeds on tasks, with a search and a table at the end"),
    "predict": ("predict", "predict raw text and GLUE's test sets with fine-tuned checkpoints"),
    "evaluate": ("evaluate", "measure scores and robustness of fine-tuned checkpoints"),
    "preprocess": ("preprocess", "turn a task's official files into what fairseq reads"),
    "preprocess-text": ("preprocess_text", "the same for raw text, to pre-train on"),
    "download": ("download", "fetch public data and checkpoints"),
    "convert": ("convert", "weights from Hugging Face's format, and back"),
    "pretrain": ("pretrain", "continue the pre-training of an encoder, with ASA or without"),
    "plot": ("plot", "draw attention maps, masked proportions, the words nearest to a hidden state"),
    "strip": ("strip", "make an asa_* checkpoint a plain one"),
    "tasks": ("tasks", "list the tasks, or say what one expects"),
    "methods": ("methods", "list the methods, or one's options"),
    "paper": ("paper", "the papers' tables: list them, print them, run them"),
    "demo": ("demo", "train every method on a small task and print a table"),
}


def overview() -> str:
    """What ``--help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: adv-plugins COMMAND [options]",
            "",
            *lines,
            "",
            "adv-plugins COMMAND --help shows a command's options; adv-plugins --version the version.",
            'fairseq\'s own commands take --user-dir "$(python -m fairseq_compat)".',
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"adv_plugins {version('adv_plugins')}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"adv-plugins: error: no command {name!r}: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    # argparse names the program by this; a process that the command starts may read it, too
    sys.argv = [f"adv-plugins {name}", *rest]
    module = importlib.import_module(f"adv_plugins_cli.{COMMANDS[name][0]}")
    return int(module.main(rest) or 0)


if __name__ == "__main__":
    sys.exit(main())
