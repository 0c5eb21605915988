"""Imported once by the server process of ``processes.run_two_workers``."""

import conftest  # noqa: F401 - paths and the compatibility hook
import tiny  # noqa: F401
import training  # noqa: F401
