"""No method waits for the device more often than fairseq's own forwards do.

On a GPU every number that Python reads stalls the queue. Without one, the operations that would are
counted: fairseq's encoder has some of its own (whether a batch has padding), in every forward.
"""

import warnings

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import tiny
from adv_plugins.models.asa_roberta import AsaRobertaModel
from methods import EVERY

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
READS = {"_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "unique_dim"}


class Reads(TorchDispatchMode):
    """Counts the operations whose result the host has to know."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        self.count += name in READS or by_mask
        return function(*args, **(kwargs or {}))


def reads_on_the_cpu(criterion, model, sample):
    with Reads() as reads:
        criterion(model, sample)[0].backward()
    return reads.count


def reads_on_the_gpu(criterion, model, sample):
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            criterion(model, sample)[0].backward()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return sum("synchroniz" in str(each.message) for each in caught)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
@pytest.mark.parametrize("method", EVERY, ids=repr)
@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("sequential", [False, True])
def test_a_method_waits_no_more_often_than_its_forwards(monkeypatch, device, method, kind, sequential):
    count = reads_on_the_cpu if device == "cpu" else reads_on_the_gpu
    model = tiny.model(kind, AsaRobertaModel, double=False, dropout=tiny.DROPOUT).to(device)
    sample = tiny.to_device(tiny.sample(kind), device)
    if kind == "regression":
        sample["target"] = sample["target"].float()
    criterion = tiny.criterion(method.criterion, kind, **method.on, sequential_passes=sequential)
    if method.name == "rapt":  # drawn on the CPU, always: nothing to wait for
        monkeypatch.setattr(criterion, "draw_layer", lambda: 1)
    count(criterion, model, sample)  # the first step checks the model
    stock = count(criterion.base, model, sample)
    forwards = method.sequential if sequential else method.forwards
    assert stock > 0  # or nothing is measured
    own = count(criterion, model, sample)
    if method.name == "yopo":  # its small passes: as many forwards of the part below the first layer
        forwards += (criterion.steps - 1) * (criterion.inner_steps - 1)
    assert own <= forwards * stock
    # Where no pass is without a backward, which may read, too, and none is a part of one.
    if device == "cpu" and not sequential and method.name != "yopo":
        assert own == forwards * stock
