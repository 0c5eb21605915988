"""The table of methods, as the plug-ins and a user's own package have registered them."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adv_plugins.methods import Method

from adv_plugins_cli.command import UserError

PLAIN = "plain"  # the task's own criterion, which is no method
# What a comparison makes that does not name its methods.
CORE = (PLAIN, "rat", "freelb", "rapt", "asa")


def load_methods(user_dir: str | Path | None = None) -> dict[str, Method]:
    """The methods by name, in their order; imports fairseq, which takes seconds: call it late.

    Args:
        user_dir: a folder for fairseq's ``--user-dir`` whose package builds on ``adv_plugins``.

    Raises:
        UserError: there is no such package.
    """
    logging.disable(logging.INFO)  # fairseq speaks of optional packages
    try:
        import adv_plugins  # noqa: F401 - registers its methods
        from adv_plugins.methods import METHODS

        if user_dir is not None:
            if not (Path(user_dir) / "__init__.py").is_file():
                raise UserError(f"{Path(user_dir) / '__init__.py'}: no such file (--user-dir)")
            from fairseq.utils import import_user_module

            import_user_module(argparse.Namespace(user_dir=str(user_dir)))
    finally:
        logging.disable(logging.NOTSET)
    return dict(METHODS)
