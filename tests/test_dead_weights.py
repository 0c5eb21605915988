"""A model without the dead weights is the stock one, and resumes where the stock one stopped."""

import contextlib

import pytest
import torch
from fairseq import options
from fairseq.benchmark import dummy_masked_lm  # noqa: F401 - registers the task
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.modules.transformer_layer import TransformerEncoderLayerBase
from fairseq.tasks import setup_task
from fairseq.trainer import Trainer

from adv_plugins import dead_weights

dead_weights.remove()

LAYERS = 2
ARGUMENTS = [
    *["--task", "dummy_masked_lm", "--dict-size", "20", "--tokens-per-sample", "9"],
    *["--criterion", "masked_lm", "--batch-size", "2", "--cpu"],
    *["--arch", "roberta", "--encoder-layers", str(LAYERS), "--encoder-embed-dim", "8"],
    *["--encoder-ffn-embed-dim", "12", "--encoder-attention-heads", "2"],
    *["--optimizer", "adam", "--lr", "0.01", "--weight-decay", "0.01", "--clip-norm", "0"],
]


@contextlib.contextmanager
def stock_fairseq():
    """The methods as they were before `remove()`."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (TransformerEncoderLayerBase, "__init__"),
            (TransformerEncoderLayerBase, "_load_from_state_dict"),
            (Trainer, "load_checkpoint"),
        ):
            patch.setattr(owner, name, getattr(owner, name).__wrapped__)
        yield


def build_trainer(*more, seed=3):
    parser = options.get_training_parser()
    arguments = options.parse_args_and_arch(parser, [*ARGUMENTS, *more])
    config = convert_namespace_to_omegaconf(arguments)
    torch.manual_seed(seed)
    task = setup_task(config.task)
    task.load_dataset("train")
    trainer = Trainer(
        config, task, task.build_model(config.model), task.build_criterion(config.criterion)
    )
    trainer.dataset = task.dataset("train")
    return trainer


def build_model(*more, seed=3):
    return build_trainer(*more, seed=seed).get_model()


def train(trainer, updates):
    """Some updates, each on dummy sentences of another length."""
    whole = trainer.dataset.collater(range(2))
    for _ in range(updates):
        length = 5 + trainer.get_num_updates() % 4
        source = {"src_tokens": whole["net_input"]["src_tokens"][:, :length]}
        target = whole["target"][:, :length]
        trainer.train_step(
            [{"net_input": source, "target": target, "ntokens": target.numel(), "nsentences": 2}]
        )


def save(trainer, checkpoint):
    trainer.consolidate_optimizer()
    trainer.save_checkpoint(checkpoint, {"train_iterator": {"epoch": 1}})


def live(state):
    return {
        name: value
        for name, value in state.items()
        if not name.endswith(tuple(f".{own}" for own in dead_weights.NAMES))
    }


def assert_equal(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def tokens():
    return torch.tensor([[0, 5, 6, 7, 2], [0, 8, 2, 1, 1]])


def test_only_the_dead_weights_go():
    lean = build_model()
    draw = torch.rand(3)
    with stock_fairseq():
        stock = build_model()
    assert torch.equal(draw, torch.rand(3)), "building must draw the same random numbers"
    assert_equal(live(stock.state_dict()), lean.state_dict())
    assert len(stock.state_dict()) - len(lean.state_dict()) == LAYERS * len(dead_weights.NAMES)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_outputs_are_equal_bit_for_bit(mode):
    lean = build_model()
    with stock_fairseq():
        stock = build_model()
    stock.load_state_dict(stock.state_dict())  # stock layers think of the fused path only then
    outputs = []
    for model in (lean, stock):
        getattr(model, mode)()
        torch.manual_seed(0)
        outputs.append(model(tokens(), features_only=True)[0])
    assert torch.equal(*outputs)


def test_state_dicts_load_strictly_in_both_directions():
    lean = build_model(seed=4)
    with stock_fairseq():
        stock = build_model(seed=5)
    saved = stock.state_dict()
    names = list(saved)
    lean.load_state_dict(saved, strict=True)
    assert list(saved) == names, "the caller's dict is not touched"
    assert_equal(lean.state_dict(), live(saved))

    lean = build_model(seed=6)
    with stock_fairseq():
        stock.load_state_dict(lean.state_dict(), strict=True)
    assert_equal(live(stock.state_dict()), lean.state_dict())
    layer = stock.encoder.sentence_encoder.layers[0]
    assert torch.equal(layer.fc1_weight, layer.fc1.weight)

    lean.load_state_dict(lean.state_dict(), strict=True)
    with pytest.raises(RuntimeError, match="fc3"):
        lean.load_state_dict({**saved, "encoder.sentence_encoder.layers.0.fc3": tokens()})


def test_layers_with_a_fused_path_keep_their_weights():
    model = build_model("--activation-fn", "relu")
    layer = model.encoder.sentence_encoder.layers[0]
    assert layer.can_use_fastpath
    assert set(dead_weights.NAMES) <= dict(layer.named_parameters()).keys()
    model.load_state_dict(model.state_dict(), strict=True)
    assert layer.load_to_BT


def test_removing_twice_is_removing_once():
    method = TransformerEncoderLayerBase.__init__
    dead_weights.remove()
    assert TransformerEncoderLayerBase.__init__ is method
    assert not hasattr(method.__wrapped__, "__wrapped__")


@pytest.mark.parametrize(
    "form",
    [
        pytest.param([], id="fp32"),
        pytest.param(["--fp16", "--fp16-init-scale", "4"], id="fp16-flat"),
        pytest.param(["--memory-efficient-fp16", "--fp16-init-scale", "4"], id="memory-efficient-fp16"),
    ],
)
def test_training_resumes_from_a_stock_checkpoint(form, tmp_path, monkeypatch):
    # The flat form asks for the number of the GPU, and None is what CPU tensors say.
    monkeypatch.setattr(torch.cuda, "current_device", lambda: None)
    checkpoint = str(tmp_path / "checkpoint.pt")
    with stock_fairseq():
        first = build_trainer(*form)
        train(first, 3)
        save(first, checkpoint)
        stock = build_trainer(*form, seed=8)
        stock.load_checkpoint(checkpoint)
        train(stock, 3)

    lean = build_trainer(*form, seed=9)
    lean.load_checkpoint(checkpoint)
    assert lean.get_num_updates() == 3
    train(lean, 3)
    assert_equal(lean.get_model().state_dict(), live(stock.get_model().state_dict()))

    # Its own checkpoint has nothing to take out.
    save(lean, checkpoint)
    size = len(lean.optimizer.state_dict()["state"])
    lean.load_checkpoint(checkpoint)
    assert len(lean.optimizer.state_dict()["state"]) == size


def test_an_optimizer_state_that_does_not_match_is_left_alone():
    optimizer = {"state": {0: {"step": 1}}, "param_groups": [{"params": [0, 1, 2]}]}
    dead_weights.drop_from_optimizer(optimizer, keep=[True, False], sizes=[1, 1])
    assert optimizer == {"state": {0: {"step": 1}}, "param_groups": [{"params": [0, 1, 2]}]}


def test_the_saved_order_has_a_layers_own_parameters_first():
    names = ["embed", "layers.1.fc1.weight", "layers.10.fc1.weight", "head"]
    dead = {"layers.1.fc1_bias", "layers.10.fc1_bias", "layers.10.fc1_weight"}
    assert dead_weights.saved_order(names, ["layers.1.", "layers.10."], dead) == [
        "embed",
        *["layers.1.fc1_bias", "layers.1.fc1.weight"],
        *["layers.10.fc1_weight", "layers.10.fc1_bias", "layers.10.fc1.weight"],
        "head",
    ]
