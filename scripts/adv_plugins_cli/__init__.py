"""The commands around the plug-ins: ``adv-plugins COMMAND``; in Python, ``load``.

Beside ``adv_plugins`` as ``fairseq_cli`` is beside ``fairseq``: importing the plug-ins imports fairseq
and torch, which takes seconds, and ``--help`` must not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from adv_plugins_cli.model import Model

__all__ = ["load"]


def load(path: str | Path, *, data_bin: str | Path | None = None, **tokenizer: str) -> Model:
    """A fine-tuned model, to predict with.

    Args:
        path: a run's folder (its best checkpoint, else its last one), or a checkpoint.
        data_bin: TASK-bin, for the dictionaries, where neither the folder nor the checkpoint's own data
            has them. tokenizer: bpe_dir, sentencepiece or wordpiece, where the folder names none.

    Raises:
        UserError: there is no checkpoint, it is damaged or hostile, or nothing to tokenise with.
    """
    from adv_plugins_cli.model import Model

    return Model(path, data_bin=data_bin, **tokenizer)
