"""examples/config: fairseq-hydra-train gets from them what fairseq-train gets from the recipes."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fairseq_cli.hydra_train
import pytest
from fairseq import checkpoint_utils, metrics
from omegaconf import OmegaConf

import training
from adv_plugins_cli.checkpoints.architecture import Architecture
from adv_plugins_cli.recipes import recipes
from conftest import ROOT

CONFIGS = "examples/config"
METHODS = [path.stem for path in sorted((ROOT / CONFIGS).glob("*.yaml")) if path.stem != "shared"]
RTE_EXAMPLES = 2490
TINY = (
    "common.fp16=false common.cpu=true common.log_interval=1 task.num_classes=3 "
    "task.max_positions=32 dataset.num_workers=0 dataset.batch_size=4 optimization.max_update=2 "
    "+model.encoder_layers=2 +model.encoder_embed_dim=8 +model.encoder_ffn_embed_dim=16 "
    "+model.encoder_attention_heads=2 +model.max_positions=32"
)
METERS = {
    "plain": ("SentencePredictionMetricsCriterion", "loss"),
    "rat": ("RatCriterion", "consistency_loss"),
    "freelb": ("FreeLBCriterion", "adv_loss"),
    "rapt": ("RaptCriterion", "noise_layer"),
    "asa": ("AsaCriterion", "masked_layer2"),
    "fgm": ("FgmCriterion", "adv_loss"),
    "pgd": ("PgdCriterion", "adv_loss"),
    "yopo": ("YopoCriterion", "adv_loss"),
    "freeat": ("FreeAtCriterion", "perturbation_norm"),
    "smart": ("SmartCriterion", "bregman_loss"),
    "rdrop": ("RDropCriterion", "consistency_loss"),
    "r3f": ("R3fCriterion", "consistency_loss"),
    "neftune": ("NeftuneCriterion", "perturbation_norm"),
    "awp": ("AwpCriterion", "weight_perturbation"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A small data set."""
    return training.write_data(tmp_path_factory.mktemp("data"), "classification")


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory):
    """A small plain RoBERTa."""
    folder = tmp_path_factory.mktemp("pretrained")
    training.train(
        data, folder, "classification", "sentence_prediction", "--max-update=1", arch="roberta"
    )
    return folder / "checkpoint_last.pt"


@pytest.fixture
def hydra_train(tmp_path, monkeypatch):
    """``fairseq-hydra-train`` in this process, run in tmp_path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # an exception is one, and no sys.exit
    metrics.reset()
    monkeypatch.delattr(checkpoint_utils.save_checkpoint, "best", raising=False)

    def run(method, *overrides):
        quiet = ("hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.run.dir=out")
        options = ("--config-dir", str(ROOT / CONFIGS), "--config-name", method)
        monkeypatch.setattr(sys, "argv", ["fairseq-hydra-train", *options, *quiet, *overrides])
        fairseq_cli.hydra_train.cli_main()

    return run


@pytest.mark.parametrize("method", METHODS)
def test_values_are_the_recipes(hydra_train, monkeypatch, method):
    seen: list[Any] = []
    monkeypatch.setattr(fairseq_cli.hydra_train, "pre_main", seen.append)
    hydra_train(method, "task.data=x", "checkpoint.finetune_from_model=y.pt")
    (ours,) = seen

    monkeypatch.setattr(recipes, "count_rows", lambda data: RTE_EXAMPLES)
    start = recipes.Start(Architecture("roberta_large"), Path("y.pt"))
    command = recipes.get_recipe("RTE", method).command(
        Path("x"), start=start, save_dir=Path("out/checkpoints"), seed=1, precision="fp16"
    )
    theirs = training.parse(command[1:])
    for cfg in (ours, theirs):
        cfg.common.user_dir = os.path.abspath(cfg.common.user_dir)
        cfg.checkpoint.save_dir = os.path.abspath(cfg.checkpoint.save_dir)
        # the number of this machine's GPUs, which only a run's start looks up
        cfg.distributed_training.distributed_num_procs = 1
    sections = set(theirs) - {"model", "scoring"}  # the one has more fields there, the other none
    for section in sections:
        assert ours[section] == theirs[section], section
    for name in ("dropout", "attention_dropout"):
        assert ours.model[name] == getattr(theirs.model, name)
    assert ours.model._name == theirs.model.arch
    # The task's interpolations need these before fairseq has imported the user dir.
    raw = OmegaConf.load(ROOT / CONFIGS / "shared.yaml").criterion
    assert {"regression_target", "classification_head_name"} <= set(raw)


@pytest.mark.parametrize("method", METHODS)
def test_trains(hydra_train, data, checkpoint, caplog, method):
    caplog.set_level(logging.INFO)
    tiny = {"rapt": ["criterion.noise_max_layer=2"], "asa": ["model._name=asa_roberta"]}
    files = (f"task.data={data}", f"checkpoint.finetune_from_model={checkpoint}")
    hydra_train(method, *files, *TINY.split(), *tiny.get(method, ["model._name=roberta"]))
    criterion, meter = METERS[method]
    inner = training.logged(caplog, "train_inner")
    assert len(inner) == 2 and all(meter in line for line in inner)
    assert "valid_accuracy" in training.logged(caplog, "valid")[-1]
    state = checkpoint_utils.load_checkpoint_to_cpu("out/checkpoints/checkpoint_last.pt")
    assert state["optimizer_history"][-1]["criterion_name"] == criterion


@pytest.mark.parametrize(
    "start,line",
    [
        ((), None),  # hydra's own, which is longer
        (
            ("checkpoint.finetune_from_model=none.pt",),
            "adv_plugins: error: --finetune-from-model none.pt: no such checkpoint",
        ),
    ],
)
def test_the_documented_command_finds_the_user_dir_and_refuses_random_weights(data, start, line):
    code = (
        "import fairseq_compat; fairseq_compat.install();"
        "from fairseq_cli.hydra_train import cli_main; cli_main()"
    )
    options = f"--config-dir {CONFIGS} --config-name asa {TINY} model._name=asa_roberta".split()
    options += [f"task.data={data}", f"hydra.run.dir={data / 'out'}", *start]
    options += ["common.fp16=false", "common.amp=true", "+common.amp_dtype=bfloat16"]
    done = subprocess.run(
        [sys.executable, "-c", code, *options], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "criterion: AsaCriterion" in done.stdout + done.stderr
    assert "'amp_dtype': 'bfloat16'" in done.stdout + done.stderr
    if line is None:
        assert "(give checkpoint.finetune_from_model=FILE" in done.stderr
    else:
        assert done.stderr.splitlines()[-1] == line and "Traceback" not in done.stderr
