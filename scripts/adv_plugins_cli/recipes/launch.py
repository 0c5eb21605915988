"""Several GPUs and several machines: fairseq's own spawning, or torchrun."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from adv_plugins_cli.command import UserError
from adv_plugins_cli.recipes import recipes


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--gpus", type=int, help="on this machine; the recipe's batch is shared (default: all)"
    )
    parser.add_argument("--torchrun", action="store_true", help="start the workers with torchrun")
    parser.add_argument("--nodes", type=int, default=1, help="machines, with --torchrun")
    parser.add_argument("--node-rank", type=int, default=0, help="which of them this is, from 0")
    parser.add_argument(
        "--main-address", default="localhost:29500", metavar="HOST:PORT", help="of machine 0"
    )


def count_gpus(arguments: argparse.Namespace) -> int:
    """The workers on this machine: GPUs, or 1 where there is none."""
    if arguments.gpus is not None:
        return int(arguments.gpus)
    import torch

    return max(1, torch.cuda.device_count())


def share_batch(recipe: recipes.Recipe, arguments: argparse.Namespace) -> recipes.Recipe:
    """The recipe with its batch divided among the workers.

    Raises:
        UserError: it cannot be, or the options do not fit together.
    """
    port = arguments.main_address.partition(":")[2]
    if port and not port.isdecimal():
        raise UserError(f"--main-address {arguments.main_address}: {port} is no number of a port")
    if arguments.nodes > 1 and not arguments.torchrun:
        raise UserError(f"--nodes {arguments.nodes} needs --torchrun")
    if not 0 <= arguments.node_rank < arguments.nodes:
        raise UserError(f"--node-rank {arguments.node_rank}: there are --nodes {arguments.nodes}")
    if arguments.gpus is not None and arguments.gpus < 1:
        raise UserError(f"--gpus {arguments.gpus}: at least 1")
    workers = count_gpus(arguments) * arguments.nodes
    if int(recipe.batch) % workers:
        raise UserError(
            f"the recipe's batch of {recipe.batch} cannot be shared by {workers} workers: choose --gpus "
            "(or give -- --batch-size with --gpus 1 and fairseq's own flags)"
        )
    return dataclasses.replace(recipe, batch=str(int(recipe.batch) // workers), workers=workers)


def wrap(command: Sequence[str], arguments: argparse.Namespace) -> list[str]:
    """The command as it has to be started."""
    gpus = count_gpus(arguments)
    if not arguments.torchrun:
        # Without the number fairseq would take every GPU that it sees.
        return [*command, "--distributed-world-size", str(gpus)] if arguments.gpus else list(command)
    host, _, port = arguments.main_address.partition(":")
    script = Path(sys.executable).with_name(command[0])
    return [
        sys.executable,
        *("-m", "torch.distributed.run", "--nproc-per-node", str(gpus)),
        *("--nnodes", str(arguments.nodes), "--node-rank", str(arguments.node_rank)),
        *("--master-addr", host, "--master-port", port or "29500"),
        str(script),
        *command[1:],
    ]
