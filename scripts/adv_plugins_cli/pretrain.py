"""Continue an encoder's pre-training: ``adv-plugins pretrain [options] [-- fairseq-train flags]``.

fairseq's masked_lm task with the loss of Eq. 10 and the settings of the paper's appendix; with
``--method plain`` the paper's baseline, the same without the adversary. Checks
everything first, preprocesses the text where that was not done, prints and runs the full
``fairseq-train`` command. The same command again goes on where a run stopped; one with other settings
is refused.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import fairseq_compat
from adv_plugins_cli.command import UserError, one_line_errors, seed_number
from adv_plugins_cli.data import task_data
from adv_plugins_cli.data.tokenizer_options import Tokenizer
from adv_plugins_cli.recipes import children, recipes, run_folder, runs
from adv_plugins_cli.recipes.command_line import (
    choose_precision,
    make_parser,
    show,
    split_at_dashes,
)
from fairseq_compat.task_kinds import TASK_KINDS

# Table 6 of the paper. Its text says that the batch is 128 sequences, its table 128 on each of 8
# GPUs; the table is followed. It names no betas: these are RoBERTa's.
SEQUENCES = 1024
UPDATES = 20_000
PRE_TRAINING_FLAGS = shlex.split(
    "--task masked_lm --sample-break-mode complete --tokens-per-sample 256 --max-positions 512 "
    "--shorten-method truncate "
    "--dropout 0.1 --attention-dropout 0.1 --weight-decay 0.01 "
    "--optimizer adam --adam-betas '(0.9, 0.98)' --adam-eps 1e-06 --clip-norm 1.0 "
    f"--lr-scheduler polynomial_decay --lr 2e-5 --warmup-updates {round(0.06 * UPDATES)} "
    f"--total-num-update {UPDATES} --max-update {UPDATES} "
    "--save-interval-updates 1000 --validate-interval-updates 1000 --keep-interval-updates 1 "
    "--no-epoch-checkpoints --log-format json --log-interval 50"
)
METHODS = {
    "asa": ("--criterion", "asa_criterion", "--asa-tau", "0.1"),
    "plain": ("--criterion", "masked_lm"),
}


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; what follows ``--`` is for fairseq-train."""
    own, extra = split_at_dashes(argv)
    parser = make_parser(__doc__, arch="roberta_base")
    parser.add_argument("--method", choices=list(METHODS), default="asa", help="(default: %(default)s)")
    parser.add_argument("--seed", type=seed_number, default=1, help="(default: %(default)s)")
    parser.add_argument(
        "--data-bin",
        type=Path,
        default=Path("data-bin/text"),
        help="folder of adv-plugins preprocess-text, made from --text if it is not there (%(default)s)",
    )
    parser.add_argument(
        "--text",
        nargs="+",
        type=Path,
        help="raw text: a sentence a line, a blank line between documents",
    )
    tokenizer = parser.add_mutually_exclusive_group()
    tokenizer.add_argument(
        "--sentencepiece",
        type=Path,
        metavar="MODEL",
        help="such a model for the raw text, instead of the checkpoint's tokenizer or --bpe-dir",
    )
    tokenizer.add_argument(
        "--wordpiece", type=Path, metavar="DIR", help="or the folder of a BERT-like model"
    )
    parser.add_argument("--save-dir", type=Path, help="(default: checkpoints/pretraining/METHOD)")
    run_folder.add_option(parser)
    parser.add_argument(
        "--batch",
        type=int,
        default=16,
        help=f"sequences on a GPU at a time; an update takes {SEQUENCES} (default: %(default)s)",
    )
    arguments = parser.parse_args(own)
    arguments.extra = extra
    arguments.save_dir = arguments.save_dir or Path("checkpoints/pretraining") / arguments.method
    return arguments


def tokenizer_of(arguments: argparse.Namespace) -> Tokenizer:
    """The tokenizer of the raw text: the one that is given, else the checkpoint's or --bpe-dir."""
    for kind in ("sentencepiece", "wordpiece"):
        path = getattr(arguments, kind)
        if path is not None:
            return Tokenizer(kind, path)
    return task_data.tokenizer_of(arguments)


def prepare_data(arguments: argparse.Namespace) -> None:
    """Make --data-bin from --text if it is not there yet.

    Raises:
        ValueError: it is not there, and cannot be made, or was made with another tokenizer.
    """
    if arguments.data_bin.is_dir():
        task_data.check_dictionary(arguments.data_bin, arguments.checkpoint)
        return
    if arguments.text is None:
        raise UserError(
            f"{arguments.data_bin}: no such folder; give --data-bin with the preprocessed text, or "
            "--text to make it from"
        )
    from adv_plugins_cli import preprocess_text

    tokenizer = tokenizer_of(arguments).arguments()
    request = [*map(str, arguments.text), *tokenizer, f"--out-dir={arguments.data_bin}"]
    preprocess_text.run(preprocess_text.parse_arguments(request))
    task_data.check_dictionary(arguments.data_bin, arguments.checkpoint)


def make_command(arguments: argparse.Namespace) -> list[str]:
    """Check the request, prepare the data, build the command.

    Raises:
        ValueError: naming the option to change.
    """
    start = recipes.Start.of(arguments.checkpoint, arguments.arch, default="roberta_base")
    if arguments.method == "asa" and any(flag.startswith("--criterion") for flag in arguments.extra):
        raise UserError(
            "-- --criterion: --method asa brings the criterion and its options; give --method plain, "
            "which is masked_lm where no other criterion follows"
        )
    import torch

    gpus = max(1, torch.cuda.device_count())
    if arguments.batch < 1 or SEQUENCES % (arguments.batch * gpus):
        raise UserError(
            f"--batch {arguments.batch} on {gpus} GPUs does not divide {SEQUENCES} sequences"
        )
    accumulation = SEQUENCES // (arguments.batch * gpus)
    command = [
        "fairseq-train",
        str(arguments.data_bin),
        *("--user-dir", fairseq_compat.user_dir()),
        *PRE_TRAINING_FLAGS,
        *METHODS[arguments.method],
        *start.architecture.flags(adversaries=arguments.method == "asa"),
        *("--batch-size", str(arguments.batch), "--update-freq", str(accumulation)),
        *("--seed", str(arguments.seed), "--save-dir", str(arguments.save_dir)),
        *("--tensorboard-logdir", str(arguments.save_dir / "tensorboard")),
        *recipes.PRECISION_FLAGS[choose_precision(arguments.precision)],
        *(("--finetune-from-model", str(arguments.checkpoint)) if arguments.checkpoint else ()),
        *arguments.extra,
    ]
    if not arguments.start_over:
        run_folder.check(arguments.save_dir, command, advice=run_folder.ADVICE)
    prepare_data(arguments)
    return command


def train(command: Sequence[str], arguments: argparse.Namespace) -> int:
    """Train in the foreground, alone in the folder; returns fairseq-train's exit code."""
    folder = arguments.save_dir
    start = recipes.Start.of(arguments.checkpoint, arguments.arch, default="roberta_base")
    with run_folder.taken(
        folder, command, advice=run_folder.ADVICE, start_over=arguments.start_over
    ) as lock:
        task_data.describe_model(
            folder,
            command=command,
            words=arguments.data_bin / TASK_KINDS["masked_lm"].dictionary,
            separators=start.architecture.separators,
            tokenizer=tokenizer_of(arguments),
        )
        return runs.run_in_foreground(command, folder / runs.LOG, keep_open=[lock])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns fairseq-train's exit code. A bad request ends it with one line."""
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    children.terminate_by_exception()
    with one_line_errors("adv-plugins pretrain"):
        command = make_command(arguments)
        show(command)
        if arguments.print_only:
            return 0
        code = train(command, arguments)
    return code if code >= 0 else 128 - code  # as shells say that a signal has ended it


if __name__ == "__main__":
    sys.exit(main())
