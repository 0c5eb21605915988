"""Shared by all tests: paths, the compatibility hook, and where real data lie, if they do."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
# This checkout's code and not an installed one, also in the processes that tests start.
FOLDERS = [str(ROOT), str(ROOT / "scripts"), str(ROOT / "scripts" / "measure"), str(ROOT / "tests")]
sys.path[:0] = FOLDERS
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*FOLDERS, os.environ.get("PYTHONPATH")]))

import fairseq_compat  # noqa: E402

fairseq_compat.install()

import pytest  # noqa: E402
import torch  # noqa: E402


@pytest.fixture(scope="session")
def real_data():
    """The folder with the original data sets, for the tests that read real text."""
    folder = os.environ.get("ADV_PLUGINS_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("ADV_PLUGINS_TEST_DATA names no folder with the original data sets")
    return Path(folder)


def use_float64(monkeypatch):
    """fairseq computes losses in float32 by name; make ``.float()`` and friends mean float64."""
    stock = torch.nn.functional.log_softmax
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(torch.nn.functional, "log_softmax", lambda x, dim, dtype=None: stock(x, dim=dim))


@pytest.fixture
def float64(monkeypatch):
    """The whole test in float64."""
    use_float64(monkeypatch)
