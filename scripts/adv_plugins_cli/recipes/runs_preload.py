"""Imported once by the server process of ``runs.run_in_background``: fairseq, ready to train."""

import logging
import sys

import fairseq_compat

fairseq_compat.install()

import fairseq_cli.train  # noqa: E402, F401

# fairseq set logging up for this process's streams; each run has its own.
for _handler in logging.getLogger().handlers:
    if isinstance(_handler, logging.StreamHandler):
        _handler.setStream(sys.stdout)
