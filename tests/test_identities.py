"""What holds for every method: switched off it is the stock criterion, and failures leave no trace."""

import fnmatch
import inspect
import math
from pathlib import Path

import pytest
import torch
from fairseq import metrics
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.modules.checkpoint_activations import checkpoint_wrapper

import adv_plugins.methods
import tiny
from adv_plugins.models.asa_roberta import AsaRobertaModel
from methods import ASA, EVERY, METHODS, variants

EXACT = dict(rtol=0, atol=0)


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


@pytest.mark.parametrize("method", EVERY, ids=repr)
@pytest.mark.parametrize("kind", tiny.KINDS)
def test_switched_off_it_is_the_stock_criterion_bit_for_bit(method, kind):
    """Loss, sample size, logs, every gradient, and the random stream that goes on."""
    model, sample = make(kind)
    off = tiny.criterion(method.criterion, kind, **method.off)
    results = []
    for each in (off.base, off):
        model.zero_grad()
        torch.manual_seed(3)
        loss, sample_size, log = each(model, sample)
        loss.backward()
        log = without_meters(off, log)
        results.append((loss, sample_size, log, tiny.gradients(model), torch.rand(1)))
    torch.testing.assert_close(*results, **EXACT)


@pytest.mark.parametrize("method", EVERY, ids=repr)
@pytest.mark.parametrize("kind", tiny.KINDS)
def test_eval_mode_is_the_stock_criterion_bit_for_bit(method, kind):
    model, sample = make(kind)
    criterion = tiny.criterion(method.criterion, kind, **method.on).eval()
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(criterion(model, sample), criterion.base(model, sample), **EXACT)


@pytest.mark.parametrize("method", EVERY, ids=repr)
def test_an_evaluated_model_or_no_gradients_mean_the_stock_criterion_too(method):
    """Also when the criterion itself was left in training mode."""
    model, sample = make("regression")
    criterion = tiny.criterion(method.criterion, "regression", **method.on)
    own = {*criterion.LOSS_METERS, "asa_loss"}
    assert not own & set(criterion(model.eval(), sample)[2])
    with torch.no_grad():
        assert not own & set(criterion(model.train(), sample)[2])


@pytest.mark.parametrize("method,more", variants(ASA))
@pytest.mark.parametrize("kind", ["classification", "multiple-choice", "masked-lm"])
def test_recomputed_activations_change_nothing(float64, method, kind, more):
    """--checkpoint-activations: the same objective, logs, gradients and random stream."""
    rates = dict(dropout=tiny.DROPOUT, attention_dropout=tiny.DROPOUT)
    sample = tiny.sample(kind)
    criterion = tiny.criterion(method.criterion, kind, **method.on, **more)
    results = []
    for recomputed in (False, True):
        model = tiny.model(kind, AsaRobertaModel, **rates)
        computed: list[int] = []
        for layer in model.encoder.sentence_encoder.layers:
            layer.fc1.register_forward_pre_hook(lambda *_, computed=computed: computed.append(1))
            if recomputed:
                checkpoint_wrapper(layer)
        torch.manual_seed(3)
        loss, _, log = criterion(model, sample)
        loss.backward()
        passes = len(computed) / (1 + recomputed)
        results.append((loss, log, tiny.gradients(model), torch.rand(1), passes))
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method,more", variants(ASA))
@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("recomputed", [False, True])
def test_sequential_passes_change_nothing(float64, method, kind, more, recomputed):
    """The same objective, logs and gradients. Dropout draws alike only where no batch is doubled."""
    rate = tiny.DROPOUT if method.name in ("asa", "freelb") else 0.0
    model = tiny.model(kind, AsaRobertaModel, dropout=rate, attention_dropout=rate)
    sample = tiny.sample(kind)
    if recomputed:
        for layer in model.encoder.sentence_encoder.layers:
            checkpoint_wrapper(layer)
    results = []
    for sequential in (False, True):
        options = {**method.on, **more, "sequential_passes": sequential}
        criterion = tiny.criterion(method.criterion, kind, **options)
        model.zero_grad()
        torch.manual_seed(3)
        loss, _, log = criterion(model, sample)
        loss.backward()
        results.append((loss, log, tiny.gradients(model), torch.rand(1)))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("method", EVERY, ids=repr)
@pytest.mark.parametrize("recomputed,sequential", [(False, True), (True, False), (True, True)])
def test_saving_memory_under_autocast_changes_little(method, recomputed, sequential):
    """Weights are cast once for all passes, also for those that run without gradients first."""
    found = []
    for saving in (False, True):
        model = tiny.model("classification", AsaRobertaModel, double=False)
        options = {**method.on, "sequential_passes": sequential and saving}
        criterion = tiny.criterion(method.criterion, "classification", **options)
        for layer in model.encoder.sentence_encoder.layers if recomputed and saving else ():
            checkpoint_wrapper(layer)
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16):
            loss, _, _ = criterion(model, tiny.sample("classification"))
        loss.backward()
        found.append(torch.cat([g.flatten() for g in tiny.gradients(model).values()]))
    assert found[0].norm() > 0.1
    assert (found[0] - found[1]).norm() < 0.1 * found[0].norm()


@pytest.mark.parametrize("method,more", variants(ASA))
def test_sequential_passes_are_one_at_a_time_in_memory(method, more):
    """What a layer keeps for its backward is there for as many sentences as one pass has."""
    model, sample = make("classification")
    options = {**method.on, **more, "sequential_passes": True}
    criterion = tiny.criterion(method.criterion, "classification", **options)
    numbers = [0, 0]  # now and at most

    class Held:
        """A tensor that the graph keeps."""

        def __init__(self, tensor):
            self.tensor = tensor
            numbers[0] += tensor.numel()
            numbers[1] = max(numbers)

        def __del__(self):
            numbers[0] -= self.tensor.numel()

    def pack(tensor):
        inner = model.encoder.sentence_encoder.layers[-1].fc2.in_features
        return Held(tensor) if tensor.size(-1) == inner and not tensor.is_leaf else tensor

    def unpack(kept):
        return kept.tensor if isinstance(kept, Held) else kept

    layer = model.encoder.sentence_encoder.layers[-1]
    forward = layer.fc2.forward

    def watched(hidden):
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            return forward(hidden)

    layer.fc2.forward = watched
    criterion(model, sample)[0].backward()
    assert numbers == [0, sample["net_input"]["src_tokens"].numel() * layer.fc2.in_features]


class Wrapper(torch.nn.Module):
    """Stands for a distributed wrapper: counts what goes through it."""

    def __init__(self, module):
        super().__init__()
        self.module, self.calls = module, 0

    def forward(self, *args, **kwargs):
        self.calls += 1
        return self.module(*args, **kwargs)

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


@pytest.mark.parametrize("method,more", variants({"adv_dropout_per_pass": "0.1,0.2"}, ASA))
@pytest.mark.parametrize("sequential", [False, True])
def test_one_pass_goes_through_the_distributed_wrapper(method, more, sequential):
    """It prepares one reduction; inner passes, whose gradients are kept, go round it."""
    model, sample = make("classification")
    wrapper = Wrapper(model)
    options = {**method.on, **more, "sequential_passes": sequential}
    tiny.criterion(method.criterion, "classification", **options)(wrapper, sample)[0].backward()
    assert wrapper.calls == 1


@pytest.mark.parametrize("method", EVERY, ids=repr)
def test_predictions_are_written_once_a_step(method, tmp_path):
    """sentence_ranking writes them in training, too; a method's extra passes must not."""
    model, sample = make("multiple-choice")
    file = tmp_path / "predictions"
    options = dict(method.on, save_predictions=str(file))
    criterion = tiny.criterion(method.criterion, "multiple-choice", **options)
    for _ in range(2):
        criterion(model, sample)
    criterion.base.prediction_h.flush()
    assert len(file.read_text().splitlines()) == 2 * tiny.BATCH


@pytest.mark.parametrize("method", EVERY, ids=repr)
@pytest.mark.parametrize("like_cuda", [False, True])
def test_masked_lm_without_a_masked_token_compares_nothing(method, like_cuda, monkeypatch):
    """fairseq then projects every position, padding too; on a GPU by a mask that is true all over."""
    model, sample = make("masked-lm")
    sample["target"] = torch.ones_like(sample["target"])
    criterion = tiny.criterion(method.criterion, "masked-lm", **method.on)
    if like_cuda:
        base = criterion.base

        def forward(model, sample, reduce=True):
            every = torch.ones_like(sample["target"], dtype=torch.bool)
            logits = model(**sample["net_input"], masked_tokens=every)[0]
            log = {"loss": 0.0, "ntokens": 1, "nsentences": tiny.BATCH, "sample_size": 0}
            return 0.0 * logits.sum(), 0, log

        monkeypatch.setattr(base, "forward", forward)
    loss, _, log = criterion(model, sample)
    for key in ("consistency_loss", "asa_loss", "adv_loss"):
        assert log.get(key, torch.zeros(())) == 0
    loss.backward()
    assert_everything_is_finite(model, loss, log)


@pytest.mark.parametrize("method", EVERY, ids=repr)
def test_tokens_without_a_label_leave_nothing_undefined(method):
    """Nor an epoch's meters after such a batch."""
    kind = "token-classification"
    model, sample = make(kind)
    criterion = tiny.criterion(method.criterion, kind, **method.on)
    other = criterion(model, sample)[2]
    unlabelled = {**sample, "target": torch.full_like(sample["target"], -100)}
    loss, sample_size, log = criterion(model, unlabelled)
    assert sample_size == 0
    loss.backward()
    assert_everything_is_finite(model, loss, log)
    with metrics.aggregate(new_root=True) as meters:
        for each in (log, other):
            criterion.__class__.reduce_metrics([each])
    assert all(math.isfinite(value) for value in meters.get_smoothed_values().values())


@pytest.mark.parametrize("method", EVERY, ids=repr)
@pytest.mark.parametrize("sequential", [False, True])
def test_a_row_without_real_tokens_leaves_nothing_undefined(method, sequential):
    kind = "classification"
    model, sample = make(kind)
    sample["net_input"]["src_tokens"][1] = 1
    criterion = tiny.criterion(method.criterion, kind, sequential_passes=sequential, **method.on)
    loss, _, log = criterion(model, sample)
    loss.backward()
    assert_everything_is_finite(model, loss, log)


def assert_everything_is_finite(model, loss, log):
    values = [loss, *log.values(), *tiny.gradients(model).values()]
    assert all(torch.isfinite(torch.as_tensor(value)).all() for value in values)


@pytest.mark.parametrize("method", EVERY, ids=repr)
@pytest.mark.parametrize("kind", tiny.KINDS)
def test_it_changes_the_gradients_and_logs_its_meters(method, kind):
    model, sample = make(kind)
    criterion = tiny.criterion(method.criterion, kind, **method.on)
    gradients = []
    for each in (criterion.base, criterion):
        model.zero_grad()
        torch.manual_seed(3)
        loss, _, log = each(model, sample)
        loss.backward()
        gradients.append(torch.cat([g.flatten() for g in tiny.gradients(model).values()]))
    assert (gradients[0] - gradients[1]).norm() > 1e-3 * gradients[0].norm()
    own = {*criterion.LOSS_METERS, *criterion.MEAN_METERS}
    if kind != "masked-lm":
        own -= {"sentence_asa_loss"}
    own -= method.sometimes
    if "asa_masking" in method.on:  # no one pays for naive masks
        own -= {"penalty_loss"}
    assert all(fnmatch.filter(log, pattern) for pattern in own)


def state(model):
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    rates = [m.p for m in model.modules() if hasattr(m, "p")]
    replaced = sum("forward" in vars(m) for m in model.modules())
    return {k: v.clone() for k, v in model.state_dict().items()}, hooks, rates, replaced


@pytest.mark.parametrize("method", EVERY, ids=repr)
@pytest.mark.parametrize("failing_call", [1, 2])
@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), ValueError("broken")])
def test_a_failing_pass_leaves_weights_and_hooks_alone(method, failing_call, error):
    model, sample = make("classification")
    options = dict(method.on)
    if method.knows(["adv_dropout_per_pass"]):
        options["adv_dropout_per_pass"] = "0.1,0.5"
    criterion = tiny.criterion(method.criterion, "classification", **options)
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

    criterion = CRITERION_REGISTRY[method.criterion]
    with pytest.raises(ValueError, match="cannot wrap the criterion of --task"):
        criterion.build_criterion(tiny.config(method.criterion), Other())


# R-Drop asks nothing of a model.
@pytest.mark.parametrize("method", [each for each in EVERY if each.name != "rdrop"], ids=repr)
def test_a_model_without_word_embeddings(method):
    class NoEmbeddings(torch.nn.Module):
        pass

    with pytest.raises(ValueError, match="NoEmbeddings has no"):
        tiny.criterion(method.criterion, "classification", **method.on)(NoEmbeddings().train(), {})


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_registered_under_its_name(method):
    criterion = tiny.criterion(method.criterion, "regression")
    assert type(criterion).__mro__[1] is CRITERION_REGISTRY[method.criterion]


def test_every_method_has_a_row_here():
    # Another test adds a method of a user's, the measuring tools the releases' ways.
    ours = {
        method.name
        for method in adv_plugins.methods.METHODS.values()
        if CRITERION_REGISTRY[method.criterion].__module__.startswith("adv_plugins.")
    }
    assert ours == {method.name for method in METHODS}


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_method_is_to_be_seen_at_once(method):
    """Its file with options and docstring, and its algorithm."""
    criterion = CRITERION_REGISTRY[method.criterion]
    assert len(Path(inspect.getfile(criterion)).read_text().splitlines()) <= 150
    assert len(inspect.getsource(criterion.perturbed_forward).splitlines()) <= 30
