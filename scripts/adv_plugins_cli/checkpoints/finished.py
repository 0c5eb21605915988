"""The checkpoints of a training that is over: without what only one that goes on needs."""

from __future__ import annotations

from pathlib import Path

from adv_plugins_cli.checkpoints.checkpoint_file import read_checkpoint
from fairseq_compat import files

STATE = "last_optimizer_state"  # of Adam's two moments a weight: two thirds of the file


def drop_optimizer_states(folder: Path) -> None:
    """Write the checkpoints of a folder again without the optimizer's state.

    They begin another training as before (``--finetune-from-model``), and do not continue their own.
    Names of one file stay names of one. Killed, and called again, it goes on.

    Raises:
        UserError: one of them is damaged.
        OSError: one cannot be written.
    """
    import torch

    done: dict[int, Path] = {}
    for path in sorted(folder.glob("checkpoint*.pt")):
        number = path.stat().st_ino
        if number in done:
            files.link_file(done[number], path)
            continue
        state = read_checkpoint(path)
        if state.pop(STATE, None) is not None:
            with files.written_beside(path) as partial, partial.open("wb") as file:
                torch.save(state, file)
        done[number] = path
