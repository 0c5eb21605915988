"""What holds for every method: switched off it is the stock criterion, and failures leave no trace."""

from typing import Any, NamedTuple

import pytest
import tiny
import torch
from fairseq.criterions import CRITERION_REGISTRY

from adv_plugins.models.asa_roberta import AsaRobertaModel

EXACT = dict(rtol=0, atol=0)


class Method(NamedTuple):
    """A criterion, options under which it changes nothing, and options with which it runs."""

    name: str
    off: Any
    on: Any = {}

    def __repr__(self):
        return self.name


METHODS = [
    Method("rat_criterion", off=dict(adv_weight=0.0, consistency_weight=0.0)),
    Method("freelb_criterion", off=dict(adv_steps=1, adv_init_eps=0.0)),
    Method("rapt_criterion", off=dict(consistency_weight=0.0), on=dict(noise_max_layer=1)),
    Method("asa_criterion", off=dict(consistency_weight=0.0)),
]


def make(kind):
    rates = dict(dropout=tiny.DROPOUT, attention_dropout=tiny.DROPOUT)
    model = tiny.model(kind, AsaRobertaModel, double=False, **rates)
    sample = tiny.sample(kind)
    if kind == "regression":
        sample["target"] = sample["target"].float()
    return model, sample


def without_meters(criterion, log):
    own = {*criterion.LOSS_METERS, *criterion.MEAN_METERS}
    return {key: value for key, value in log.items() if key not in own}


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("kind", tiny.KINDS)
def test_switched_off_it_is_the_stock_criterion_bit_for_bit(method, kind):
    """Loss, sample size, logs, every gradient, and the random stream that goes on."""
    model, sample = make(kind)
    off = tiny.criterion(method.name, kind, **method.off)
    results = []
    for each in (off.base, off):
        model.zero_grad()
        torch.manual_seed(3)
        loss, sample_size, log = each(model, sample)
        loss.backward()
        log = without_meters(off, log)
        results.append((loss, sample_size, log, tiny.gradients(model), torch.rand(1)))
    torch.testing.assert_close(*results, **EXACT)


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("kind", tiny.KINDS)
def test_eval_mode_is_the_stock_criterion_bit_for_bit(method, kind):
    model, sample = make(kind)
    criterion = tiny.criterion(method.name, kind, **method.on).eval()
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(criterion(model, sample), criterion.base(model, sample), **EXACT)


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("kind", tiny.KINDS)
def test_it_changes_the_gradients_and_logs_its_meters(method, kind):
    model, sample = make(kind)
    criterion = tiny.criterion(method.name, kind, **method.on)
    gradients = []
    for each in (criterion.base, criterion):
        model.zero_grad()
        torch.manual_seed(3)
        loss, _, log = each(model, sample)
        loss.backward()
        gradients.append(torch.cat([g.flatten() for g in tiny.gradients(model).values()]))
    assert (gradients[0] - gradients[1]).norm() > 1e-3 * gradients[0].norm()
    assert {*criterion.LOSS_METERS, *criterion.MEAN_METERS} <= set(log)


def state(model):
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    rates = [m.p for m in model.modules() if hasattr(m, "p")]
    return {k: v.clone() for k, v in model.state_dict().items()}, hooks, rates


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("failing_call", [1, 2])
@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), ValueError("broken")])
def test_a_failing_pass_leaves_weights_and_hooks_alone(method, failing_call, error):
    model, sample = make("classification")
    options = dict(method.on)
    if method.name == "rat_criterion":
        options["adv_dropout_per_pass"] = "0.1,0.5"
    criterion = tiny.criterion(method.name, "classification", **options)
    before = state(model)
    calls = []

    def fail(module, args):
        calls.append(1)
        if len(calls) == failing_call:
            raise error

    # FreeLB and R-AT run this layer once a pass, RAPT once a batch: there the head fails.
    layer = model.encoder.sentence_encoder.layers[1]
    head = model.classification_heads["sentence_classification_head"].dense
    handles = [m.register_forward_pre_hook(fail) for m in (layer, head)]
    with pytest.raises(type(error)):
        criterion(model, sample)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(state(model), before, **EXACT)
    criterion(model, sample)[0].backward()


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_task_that_cannot_be_wrapped(method):
    class Other:
        target_dictionary = None

    criterion = CRITERION_REGISTRY[method.name]
    with pytest.raises(ValueError, match="cannot wrap the criterion of --task"):
        criterion.build_criterion(tiny.config(method.name), Other())


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_model_without_word_embeddings(method):
    class NoEmbeddings(torch.nn.Module):
        pass

    with pytest.raises(ValueError, match="NoEmbeddings has no"):
        tiny.criterion(method.name, "classification", **method.on)(NoEmbeddings().train(), {})


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_registered_under_its_name(method):
    assert type(tiny.criterion(method.name, "regression")).__mro__[1] is CRITERION_REGISTRY[method.name]
