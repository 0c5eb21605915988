"""What is checked of a checkpoint before fairseq sees any of it."""

import argparse
import copy
import random
import shutil
from typing import Any

import fairseq_cli.validate
import pytest
import torch
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

import training
from adv_plugins_cli import plot as plot_attention
from adv_plugins_cli import predict
from adv_plugins_cli import strip as strip_adversary
from adv_plugins_cli.checkpoints.checkpoint_model import build, model_options
from adv_plugins_cli.figures import drawing, masked_proportions

PIECES = "[PAD] [UNK] [CLS] [SEP] [MASK]".split() + [f"w{index}" for index in range(training.WORDS)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a model with adversaries, the data it was trained on and its vocabulary."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    training.write_data(folder / "bin", "classification")
    training.train(folder / "bin", folder, "classification", "asa_criterion", "--max-update", "1")
    (folder / "in").write_text("w1 w2\nw3\n")
    return folder


@pytest.fixture
def state(trained):
    return torch.load(trained / "checkpoint_last.pt", weights_only=True)


def ask(tool, folder, checkpoint, *more):
    """Runs one of the tools on a checkpoint; returns what it says when it refuses it, else ''."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "new_figure", lambda *size: None)
        if tool == "predict":
            words = ["--wordpiece", str(folder)]
            request = [str(checkpoint), "--input", str(folder / "in"), *words, *more]
            call = predict.main
        elif tool == "plot":
            request = ["layers", f"a={checkpoint}", "--out", str(folder / "out.png")]
            call = plot_attention.main
            figure = argparse.Namespace(savefig=lambda path, **options: None)
            patch.setattr(masked_proportions, "plot_curves", lambda *curves: figure)
        else:
            target = checkpoint.with_name("stripped.pt")
            target.unlink(missing_ok=True)
            request, call = [str(checkpoint), str(target)], strip_adversary.main
        try:
            call(request)
        except SystemExit as error:
            assert "\n" not in str(error.code)
            return str(error.code)
    return ""


TOOLS = ("predict", "plot", "strip")


def test_the_tools_take_the_checkpoint_as_it_is(trained):
    for tool in TOOLS:
        assert ask(tool, trained, trained / "checkpoint_last.pt") == ""


def test_code_in_a_configuration_does_not_run(trained, state, tmp_path):
    """fairseq's transformer_lm evaluates --character-filters, and hubert its layers."""
    evidence = tmp_path / "ran"
    code = f"open({str(evidence)!r}, 'w').close()"
    attacks: dict[str, dict[str, Any]] = {
        "transformer_lm_gpt": {"character_embeddings": True, "character_filters": code},
        "transformer_lm": {"character_embeddings": True, "character_filters": code},
        "lightconv_lm": {"character_embeddings": True, "character_filters": code},
        "hubert": {"conv_feature_layers": code},
    }
    for arch, options_ in attacks.items():
        for as_args in (False, True):
            hostile = copy.deepcopy(state)
            named = vars(hostile["cfg"]["model"]) | options_ | {"_name": arch, "arch": arch}
            hostile["cfg"]["model"] = argparse.Namespace(**named)
            hostile["cfg"]["common"]["user_dir"] = str(tmp_path / "plugin")
            if as_args:
                hostile["args"], hostile["cfg"] = hostile["cfg"]["model"], None
            torch.save(hostile, tmp_path / "hostile.pt")
            for tool in ("predict", "plot"):
                assert f"--arch {arch} is no architecture" in ask(tool, trained, tmp_path / "hostile.pt")
            assert not evidence.exists()
    # The first of them is real: what is refused here runs in fairseq itself.
    from fairseq import checkpoint_utils

    hostile = copy.deepcopy(state)
    named = {"_name": "transformer_lm", "max_target_positions": 32, "tokens_per_sample": 32}
    hostile["cfg"]["model"] = named | attacks["transformer_lm"]
    torch.save(hostile, tmp_path / "hostile.pt")
    with pytest.raises(ValueError, match="TypeError"):  # None is no list, but the code has run
        checkpoint_utils.load_model_ensemble_and_task([str(tmp_path / "hostile.pt")])
    assert evidence.exists()


def test_a_user_dir_is_never_imported(trained, state, tmp_path):
    plugin = tmp_path / "plugin"
    plugin.mkdir()
    (plugin / "__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    for section in ("common", "task", "model"):
        found = state["cfg"][section]
        options_ = found if isinstance(found, dict) else vars(found)
        options_["user_dir"] = str(plugin)
    torch.save(state, tmp_path / "user_dir.pt")
    assert [ask(tool, trained, tmp_path / "user_dir.pt") for tool in TOOLS] == ["", "", ""]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "section,name,value,message",
    [
        ("model", "encoder_layers", 10**9, "--encoder-layers 1000000000, but its weights have 2"),
        ("model", "encoder_layers", True, "--encoder-layers True"),
        ("model", "encoder_layers", "__import__('os')", "--encoder-layers"),
        ("model", "encoder_embed_dim", 10**8, "--encoder-embed-dim"),
        ("model", "encoder_ffn_embed_dim", 10**10, "--encoder-ffn-embed-dim"),
        ("model", "encoder_ffn_embed_dim", 10**8, "--encoder-ffn-embed-dim"),
        ("model", "encoder_attention_heads", 0, "--encoder-attention-heads"),
        ("model", "encoder_attention_heads", -2, "--encoder-attention-heads"),
        ("model", "max_positions", 10**9, "--max-positions"),
        ("model", "dropout", float("nan"), "--dropout"),
        ("model", "dropout", "0.1", "--dropout"),
        ("model", "activation_fn", "eval", "--activation-fn"),
        ("model", "activation_fn", ["gelu"], "--activation-fn"),
        ("model", "encoder_layers_to_keep", "${oc.env:HOME}", "--encoder-layers-to-keep"),
        ("model", "encoder_layers_to_keep", "0,9,11", "--encoder-layers 3, but"),
        ("task", "num_classes", 10**9, "has 1000000000 classes, but"),
        ("task", "num_classes", 10**400, "--num-classes"),
        ("task", "init_token", -1, "--init-token"),
        ("task", "init_token", 10**6, "--init-token"),
        ("task", "separator_token", 5.5, "--separator-token"),
        ("task", "max_positions", 10**9, "--max-positions"),
        ("task", "data", ["a"], "--data"),
        ("task", "data", "a\0b", "--data"),
        ("task", "data", "x" * 10**5, "--data"),
        ("task", "classification_head_name", "none", "no head none"),
        ("task", "_name", "translation", "--task translation"),
        ("task", "_name", 7, "--task ?"),
    ],
)
def test_options_are_checked_first(section, name, value, message, trained, state, tmp_path):
    found = state["cfg"][section]
    options_ = found if isinstance(found, dict) else vars(found)
    options_[name] = value
    torch.save(state, tmp_path / "odd.pt")
    said = ask("predict", trained, tmp_path / "odd.pt")
    assert message in said and "odd.pt" in said


def test_options_that_are_not_known_do_not_reach_fairseq(trained, state):
    vars(state["cfg"]["model"])["character_filters"] = "1/0"
    found = model_options(trained / "x.pt", state)
    assert "character_filters" not in found and found["encoder_layers"] == 2
    model, _task = build(trained / "x.pt", state, trained / "bin")
    assert not hasattr(model.args, "character_filters") and not model.training


@pytest.mark.parametrize("tool", TOOLS)
def test_what_is_no_checkpoint_is_one_line(tool, trained, state, tmp_path):
    whole = (trained / "checkpoint_last.pt").read_bytes()
    files = {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "text": b"not a checkpoint\n",
        "tail": whole[100:],
        "hole": whole[:2000] + bytes(2000) + whole[4000:],
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    odd = {
        "list": [1, 2],
        "tensor": torch.zeros(3),
        "nothing": {},
        "no_model": {"cfg": state["cfg"]},
        "no_configuration": {**state, "cfg": None, "args": None},
        "model_list": {**state, "model": [torch.zeros(2)]},
        "model_text": {**state, "model": {"a": "b"}},
        "model_numbers": {**state, "model": {1: torch.zeros(2)}},
        "no_weights": {**state, "model": {}},
        "cfg_list": {**state, "cfg": [1]},
        "cfg_empty": {**state, "cfg": {}},
        "cfg_text": {**state, "cfg": {"model": "x", "task": "y"}},
        "cfg_numbers": {**state, "cfg": {"model": {1: 2}, "task": {1: 2}}},
        "sparse": {**state, "model": {**state["model"], "x": torch.zeros(2, 2).to_sparse()}},
        "meta": {**state, "model": {**state["model"], "x": torch.zeros(2, device="meta")}},
        "complex": {**state, "model": {**state["model"], "x": torch.zeros(2, dtype=torch.cfloat)}},
        "pretending": {**state, "model": {**state["model"], "x": torch.zeros(1).expand(10**12)}},
    }
    for name, content in odd.items():
        torch.save(content, tmp_path / name)
    (tmp_path / "folder").mkdir()
    for name in [*files, *odd, "folder", "missing"]:
        said = ask(tool, trained, tmp_path / name)
        assert str(tmp_path / name) in said, name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*files, *odd, "folder"])


def test_random_damage_is_one_line_or_harmless(trained, tmp_path):
    """Bytes changed and cut off anywhere; what a tool then says is one line."""
    whole = (trained / "checkpoint_last.pt").read_bytes()
    draw = random.Random(1)
    for turn in range(60):
        content = bytearray(whole)
        for _ in range(draw.choice((1, 5, 200))):
            content[draw.randrange(len(content))] = draw.randrange(256)
        content = content[: draw.choice((len(content), draw.randrange(len(content))))]
        (tmp_path / "damaged.pt").write_bytes(content)
        said = ask(TOOLS[turn % 3], trained, tmp_path / "damaged.pt")
        assert not said or ": error: " in said


@pytest.mark.parametrize("value,kind", [(float("nan"), "NaN"), (float("-inf"), "infinity")])
def test_weights_that_are_no_numbers_are_named(value, kind, trained, state, tmp_path):
    name = "encoder.sentence_encoder.layers.1.fc1.weight"
    state["model"][name][3, 2] = value
    torch.save(state, tmp_path / "diverged.pt")
    for tool in ("predict", "plot"):
        said = ask(tool, trained, tmp_path / "diverged.pt")
        assert f"diverged.pt: {name} holds {kind}" in said


def test_weights_of_another_size_and_missing_ones_are_one_line(trained, state, tmp_path):
    name = "encoder.sentence_encoder.layers.1.fc2.weight"
    state["model"][name] = torch.zeros(3, 3)
    torch.save(state, tmp_path / "other.pt")
    assert "other.pt: cannot be built" in ask("predict", trained, tmp_path / "other.pt")
    del state["model"][name]
    torch.save(state, tmp_path / "other.pt")
    assert name in ask("plot", trained, tmp_path / "other.pt")


def test_a_relative_data_folder_is_found_from_elsewhere(trained, state, tmp_path, monkeypatch):
    run = tmp_path / "project" / "runs" / "one"
    run.mkdir(parents=True)
    shutil.copytree(trained / "bin", tmp_path / "project" / "data" / "bin")
    state["cfg"]["task"]["data"] = "data/bin"
    torch.save(state, run / "checkpoint_best.pt")
    monkeypatch.chdir(trained)
    for tool in ("predict", "plot"):
        assert ask(tool, trained, run / "checkpoint_best.pt") == ""
    shutil.rmtree(tmp_path / "project" / "data")
    said = ask("predict", trained, run / "checkpoint_best.pt")
    assert "name the data's folder with --data-bin" in said
    assert "--data gives the folder" in ask("plot", trained, run / "checkpoint_best.pt")


@pytest.mark.parametrize("kind", ["classification", "token-classification"])
def test_swapped_labels_are_noticed(kind, trained, tmp_path, monkeypatch):
    """The task is fairseq's own with its own criterion, or ours."""
    criterion = {"classification": "sentence_prediction"}.get(kind, "token_classification")
    data = training.write_data(tmp_path / "bin", kind)
    training.train(data, tmp_path, kind, criterion, "--max-update", "1", arch="roberta")
    checkpoint = tmp_path / "checkpoint_last.pt"
    assert ask("predict", trained, checkpoint) == ""

    def validate():
        task = training.KIND_FLAGS[kind].split()
        line = f"{data} --criterion {criterion} --path {checkpoint} --batch-size 4 --cpu"
        parsed = options.parse_args_and_arch(options.get_validation_parser(), [*line.split(), *task])
        fairseq_cli.validate.main(convert_namespace_to_omegaconf(parsed))

    monkeypatch.setattr(fairseq_cli.validate, "reset_logging", lambda: None)
    validate()
    path = data / "label" / "dict.txt"
    first, second, *rest = path.read_text().splitlines()
    path.write_text("\n".join([second, first, *rest]) + "\n")
    assert "in this order; give that data's folder (--data-bin)" in ask("predict", trained, checkpoint)
    with pytest.raises(ValueError, match="its labels are"):
        validate()
    # A checkpoint of a training without these plug-ins says nothing of its labels.
    state = torch.load(checkpoint, weights_only=True)
    state["task_state"] = {}
    torch.save(state, checkpoint)
    assert ask("predict", trained, checkpoint) == ""


@pytest.mark.parametrize("name", ["_name", "base_criterion"])
def test_a_criterion_without_a_name_is_one_line(name, trained, state, tmp_path):
    state["cfg"]["criterion"][name] = {1: 2}
    torch.save(state, tmp_path / "odd.pt")
    assert "odd.pt: its configuration is damaged" in ask("strip", trained, tmp_path / "odd.pt")


def test_values_nested_without_end_are_one_line(trained, tmp_path):
    """Such a pickle is a few bytes for each level, and loads without recursion."""
    levels = 100_000
    nested = b"]" * levels + b"a" * (levels - 1)
    model = b"X\x05\x00\x00\x00model}"
    for content in (nested, b"}(" + model + b"X\x03\x00\x00\x00cfg" + nested + b"u"):
        # a pickle of its own in torch's old format: magic number, protocol, system, object, no storages
        head = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."
        (tmp_path / "deep.pt").write_bytes(head + b"\x80\x02" + content + b".\x80\x02].")
        for tool in TOOLS:
            assert "deep.pt: " in ask(tool, trained, tmp_path / "deep.pt")
