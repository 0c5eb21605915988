"""Real commands in processes of their own: the console script, the recipe, two workers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import training
from methods import named
from processes import run_two_workers


def script(name):
    """A console script of this environment."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        pytest.skip(f"no {name} beside {sys.executable}")
    return str(path)


def test_fairseq_train_finds_the_plug_ins_by_user_dir(tmp_path):
    """From the checkout, ``--user-dir adv_plugins``, as the README says."""
    data = training.write_data(tmp_path / "data", "classification")
    line = f"{data} --user-dir adv_plugins --save-dir {tmp_path} --arch roberta --max-update 2"
    line = f"{line} --criterion rat_criterion {training.TINY} {training.ADAM}"
    line = f"{line} {training.KIND_FLAGS['classification']}"
    command = [script("fairseq-train"), *line.split()]
    done = subprocess.run(command, cwd=training.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert '_consistency_loss"' in done.stdout + done.stderr
    assert (tmp_path / "checkpoint_last.pt").exists()


def test_a_recipe_runs_from_raw_text_to_its_result_file(tmp_path, real_data):
    """adv-plugins finetune on the first rows of the real RTE, preprocessing included."""
    for split in ("train", "dev"):
        rows = (real_data / "glue" / "RTE" / f"{split}.tsv").read_text("utf-8").splitlines()[:41]
        (tmp_path / "RTE").mkdir(exist_ok=True)
        (tmp_path / "RTE" / f"{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    tiny = "--encoder-layers 1 --encoder-embed-dim 8 --encoder-ffn-embed-dim 8"
    request = (
        f"RTE rat --data-dir {tmp_path} --bpe-dir {real_data / 'gpt2_bpe'} --data-bin {tmp_path}/bin "
        f"--save-dir {tmp_path}/run --from-scratch --arch roberta -- {tiny} "
        "--encoder-attention-heads 2 --max-epoch 1 --cpu --num-workers 0"
    )
    command = [sys.executable, "-m", "adv_plugins_cli", "finetune", *request.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["metric"] == "accuracy" and 0 <= result["best"] <= 100
    assert "RTE rat seed 1: best accuracy" in done.stdout
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 1 and "holds a finished run already" in again.stderr


def worker(rank, port, arguments):
    """One of two workers, as torchrun starts them."""
    os.environ.update(
        MASTER_ADDR="localhost", MASTER_PORT=str(port), WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK="0"
    )
    training.train(*arguments)


@pytest.mark.parametrize("method", named("freeat", "smart"), ids=repr)
def test_two_workers_train_as_one_with_twice_the_batches(tmp_path, method):
    """Five batches, so one worker has none in the last update; unused parameters included.

    Where nothing is drawn at random the weights are those of one worker with ``--update-freq 2``.
    """
    kind = "multiple-choice"
    data = training.write_data(tmp_path / "data", kind)
    flags = "--dropout 0 --attention-dropout 0 --max-epoch 1".split()
    if method.knows(["adv_init_eps"]):
        flags += ["--adv-init-eps", "0"]
    if method.name == "rapt":
        flags += ["--noise-max-layer", "2"]
    distributed = "--distributed-backend gloo --ddp-backend legacy_ddp --find-unused-parameters"
    arguments = (data, tmp_path / "two", kind, method.criterion, *flags, *distributed.split())
    assert run_two_workers(worker, arguments) == [None, None]
    two = torch.load(tmp_path / "two" / "checkpoint_last.pt")
    assert all(torch.isfinite(value).all() for value in two["model"].values())
    assert two["optimizer_history"][-1]["num_updates"] == 3 * method.replays
    if method.name in ("rat", "freelb", "freeat", "smart"):
        one = training.train(
            data, tmp_path / "one", kind, method.criterion, *flags, "--update-freq", "2"
        )
        torch.testing.assert_close(two["model"], one["model"], rtol=1e-3, atol=1e-5)


def test_the_demo_ends_with_its_table(tmp_path):
    """Two methods, one seed, cut short; a second call trains nothing again."""
    command = [sys.executable, "-m", "adv_plugins_cli", "demo", "--out-dir", str(tmp_path)]
    command += ["--methods", "plain", "rapt", "--seeds", "1", "--epochs", "1"]
    for trained in ("training 2 models", "training 0 models"):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
        assert trained in done.stdout and "tensorboard --logdir" in done.stdout
        assert [line.split()[0] for line in done.stdout.splitlines() if line[:5] in ("plain", "rapt ")]


def test_the_benchmark_counts_what_the_method_costs(tmp_path):
    report = tmp_path / "report.json"
    request = "--layers 2 --batch-size 2 --lengths 8 --repeats 1 --vocabulary 200 --recomputed "
    request += "--precision amp-bf16"  # which counts the same
    request += (
        " --methods plain freelb-3 freelb-release rat-sequential rat-release rapt-1 asa asa-release"
    )
    command = [
        sys.executable,
        str(training.ROOT / "scripts" / "measure" / "benchmark.py"),
        *request.split(),
    ]
    command += ["--json", str(report), "--plot", str(tmp_path / "plot.png")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "plot.png").stat().st_size > 5000
    for numbers in json.loads(report.read_text())["lengths"].values():
        flops = {method: own["ratios"]["flops"] for method, own in numbers.items()}
        expected = {"freelb-3": 3, "freelb-release": 4, "rat-release": 3, "rapt-1": 1.5}
        assert {m: flops[m] for m in expected} == pytest.approx(expected, rel=0.01)
        assert flops["rat-sequential"] == pytest.approx(3 + 1 / 3, rel=0.01)
        assert flops["asa"] <= flops["asa-release"] * 1.001
        passes = {method: (own["forwards"], own["backwards"]) for method, own in numbers.items()}
        exact = {"plain": (1, 1), "freelb-3": (3, 3), "rat-sequential": (4, 3), "rapt-1": (1.5, 1.5)}
        exact |= {"asa": (2, 2), "plain + recomputed": (2, 1), "asa + recomputed": (4, 2)}
        assert {method: passes[method] for method in exact} == {
            method: pytest.approx(numbers) for method, numbers in exact.items()
        }
        assert numbers["freelb-3"]["ratios"]["time"] > 1
