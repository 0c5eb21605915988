"""Lets an unmodified fairseq 0.12.2 run on today's Python, torch and numpy.

`install()` puts a hook into `sys.meta_path`. It finds no module itself; when the first submodule of
fairseq (or hydra) is looked up, it applies the fixes below, each of which does nothing where it is
not needed. The fairseq commands import fairseq before they read `--user-dir`, so at interpreter
start fairseq_compat.pth calls `install()`; importing `adv_plugins` does so too.

This is a package of its own because importing `adv_plugins.anything` would import fairseq.
`python -m fairseq_compat` prints the folder to pass as `--user-dir`.
"""

from __future__ import annotations

import sys

# Every start of Python imports this package: all else is imported where it is used.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

FAIRSEQ = "pip install --no-deps fairseq==0.12.2"
HYDRA = "pip install hydra-core==1.3.2 omegaconf==2.3.0"
TORCH = "pip install 'torch>=2.6'"


# Package or module, as it is imported -> functions of this package.
FIXES: dict[str, tuple[str, ...]] = {
    "hydra": ("fixes.allow_config_defaults", "console.silence_what_nobody_can_mend"),
    "fairseq": (
        "fixes.allow_config_defaults",
        "fixes.allow_namespaces_in_checkpoints",
        "fixes.restore_numpy_long",
        "fixes.copy_files_whole",
    ),
    "fairseq.tasks.text_to_speech": ("console.silence_tensorboardx",),
    "fairseq.trainer": ("fixes.read_what_workers_send",),
    "fairseq.options": ("fixes.name_user_dir",),  # which imports fairseq.utils first
    "fairseq_cli.train": ("fixes.end_data_workers", "console.show_all_options"),
    "fairseq_cli.hydra_train": ("fixes.read_user_dir_first",),
}


def apply(fix: str) -> None:
    """Call one of ``FIXES``."""
    import importlib

    module, _, function = fix.partition(".")
    getattr(importlib.import_module(f"{__name__}.{module}"), function)()


class FixOnImport:
    """A finder that finds nothing, and applies the fixes of a package, or of a module, as its import
    begins."""

    def __init__(self) -> None:
        self.pending = dict(FIXES)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        # The package itself is only asked about, perhaps; its first submodule is really imported.
        package, dot, _ = name.partition(".")
        if dot:
            for fix in (*self.pending.pop(package, ()), *self.pending.pop(name, ())):
                apply(fix)


def install() -> None:
    """Apply the fixes when they are needed: now if fairseq is there already, else on its import."""
    if "fairseq" in sys.modules:
        for package, fixes in FIXES.items():
            for fix in fixes if package.startswith("fairseq") else ():
                apply(fix)
    elif not any(isinstance(finder, FixOnImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, FixOnImport())


def version_of(package: str) -> tuple[int, ...]:
    """The numbers of an installed package's version, () if it is missing; without importing it."""
    import importlib.metadata

    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        # Perhaps imported from a source folder that was never installed.
        version = str(getattr(sys.modules.get(package), "__version__", ""))
    release = version.partition("+")[0].split(".")[:3]
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in release if part)


def check_versions() -> None:
    """Raise ImportError saying what to install, where these plug-ins cannot run."""
    wanted: tuple[tuple[str, Callable[[tuple[int, ...]], bool], str, str], ...] = (
        ("torch", lambda version: version >= (2, 6), "2.6 or later", TORCH),
        ("hydra-core", lambda version: version[:2] == (1, 3), "1.3", HYDRA),
        ("omegaconf", lambda version: version[:2] == (2, 3), "2.3", HYDRA),
        ("fairseq", lambda version: version[:2] == (0, 12), "0.12.2", FAIRSEQ),
    )
    for package, usable, needed, command in wanted:
        version = version_of(package)
        if not usable(version):
            found = f"{'.'.join(map(str, version))} is installed" if version else "it is missing"
            raise ImportError(f"adv_plugins needs {package} {needed}, but {found}: {command}")


def user_dir() -> str:
    """The folder to pass as `--user-dir`."""
    import importlib.util
    import os

    spec = importlib.util.find_spec("adv_plugins")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("adv_plugins is not installed here: run `pip install .` in its folder")
    return os.path.realpath(next(iter(spec.submodule_search_locations)))
