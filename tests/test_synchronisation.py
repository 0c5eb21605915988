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

OPTIONS = {
    "rat_criterion": {},
    "freelb_criterion": {},
    "rapt_criterion": dict(noise_max_layer=1),
    "asa_criterion": {},
}
# How many forwards of the model (a doubled batch is one).
FORWARDS = {"rat_criterion": 2, "freelb_criterion": 3, "rapt_criterion": 1, "asa_criterion": 2}
SEQUENTIAL_FORWARDS = {**FORWARDS, "rat_criterion": 4, "rapt_criterion": 3, "asa_criterion": 3}
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


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("sequential", [False, True])
def test_a_method_waits_no_more_often_than_its_forwards(monkeypatch, device, name, kind, sequential):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    count = reads_on_the_cpu if device == "cpu" else reads_on_the_gpu
    model = tiny.model(kind, AsaRobertaModel, double=False, dropout=tiny.DROPOUT).to(device)
    sample = tiny.to_device(tiny.sample(kind), device)
    if kind == "regression":
        sample["target"] = sample["target"].float()
    criterion = tiny.criterion(name, kind, **OPTIONS[name], sequential_passes=sequential)
    if name == "rapt_criterion":  # drawn on the CPU, always: nothing to wait for
        monkeypatch.setattr(criterion, "draw_layer", lambda: 1)
    count(criterion, model, sample)  # the first step checks the model
    stock = count(criterion.base, model, sample)
    forwards = (SEQUENTIAL_FORWARDS if sequential else FORWARDS)[name]
    assert stock > 0  # or nothing is measured
    own = count(criterion, model, sample)
    assert own <= forwards * stock
    if device == "cpu" and not sequential:  # where no pass is without a backward, which may read, too
        assert own == forwards * stock
