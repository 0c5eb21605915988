"""Every recipe is a command that fairseq understands, and none starts without what it needs."""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import finetune
import pytest
import recipes
import runs
import training
from demo import grammar

from fairseq_compat import validations

RECIPES = recipes.load_recipes()
SOURCES = {
    *("RoBERTa", "R-AT", "FreeLB", "FreeLB-u", "FreeLB-7", "RAPT", "ASA", "CQA", "this project"),
    *("RoBERTa*", "R-AT*", "FreeLB*", "ASA*"),
}
LARGE = recipes.Start(("--arch", "roberta_large"))
BASE = recipes.Start(("--arch", "roberta_base"))


@pytest.fixture
def data(tmp_path):
    """A preprocessed folder."""
    return training.write_data(tmp_path / "RTE-bin", "classification")


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda r: f"{r.task}-{r.method}")
def test_every_row_parses_with_fairseqs_own_parser(recipe, data):
    command = recipe.command(data, start=LARGE, save_dir=Path("x"), seed=7)
    cfg = training.parse(command[1:])
    assert cfg.common.seed == 7 and cfg.criterion._name == recipe.criterion
    assert cfg.optimization.lr == [float(recipe.lr)]
    assert cfg.dataset.batch_size == int(recipe.batch)
    assert cfg.checkpoint.best_checkpoint_metric == recipe.best
    total = cfg.lr_scheduler.total_num_update
    assert total == cfg.optimization.max_update > cfg.lr_scheduler.warmup_updates >= 1
    assert getattr(cfg.criterion, "regression_target", False) == (recipe.task == "STS-B")
    assert recipe.source in SOURCES
    expected = "asa_roberta_large" if recipe.method == "asa" else "roberta_large"
    assert cfg.model._name == expected or cfg.model.arch == expected
    assert getattr(cfg.task, "_name", None) or cfg.task.task == recipe.fairseq_task
    two_sentences = recipe.fairseq_task in ("sentence_prediction", "sentence_ranking")
    assert getattr(cfg.task, "separator_token", None) == (2 if two_sentences else None)
    assert cfg.task.init_token == 0


def test_all_tasks_have_all_methods_and_a_script():
    tasks = [row["task"] for row in recipes.read_table(recipes.EXAMPLES / "tasks.tsv")]
    assert set(RECIPES) == {(task, method) for task in tasks for method in recipes.METHODS}
    scripts = {path.stem: path for path in (recipes.EXAMPLES / "tasks").glob("*.sh")}
    assert set(scripts) == set(tasks) - {"demo"}
    for task, path in scripts.items():
        assert f'finetune.sh" {task} "$@"' in path.read_text() and os.access(path, os.X_OK)


def test_the_shell_scripts_are_sound():
    for path in [*recipes.EXAMPLES.rglob("*.sh"), *recipes.EXAMPLES.rglob("*.sbatch")]:
        subprocess.run(["bash", "-n", str(path)], check=True)


def test_updates_and_warmup_are_computed_from_the_data(data):
    command = recipes.get_recipe("RTE", "rat").command(data, start=BASE, save_dir=Path("x"), seed=1)
    values = dict(itertools.pairwise(command))
    assert recipes.count_rows(data) == 18  # one batch of 24
    assert values["--max-update"] == "10" and values["--warmup-updates"] == "1"


def test_the_users_flags_win(data):
    command = recipes.get_recipe("RTE", "freelb").command(
        data, start=BASE, save_dir=Path("x"), seed=1, extra=["--lr", "0.5"]
    )
    assert training.parse(command[1:]).optimization.lr == [0.5]


def request(*arguments):
    return finetune.make_runs(finetune.parse_arguments(arguments))


def test_a_missing_checkpoint_stops_it_before_anything_else(tmp_path):
    with pytest.raises(recipes.RecipeError, match=r"no such checkpoint \(--checkpoint\)"):
        request("RTE", "rat", "--checkpoint", str(tmp_path / "model.pt"), "--glue-dir", "nowhere")


def test_training_from_scratch_has_to_be_asked_for(capsys):
    with pytest.raises(SystemExit):
        request("RTE", "rat")
    assert "--checkpoint --from-scratch is required" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments,message",
    [
        (("RTT", "rat"), "unknown task 'RTT': choose one of CoLA"),
        (("RTE", "ratt"), "unknown method 'ratt': choose one of plain, rat"),
        (("RTE", "rat", "--data-bin", "nowhere"), "give --data-bin with the preprocessed data"),
        (("RTE", "rat", "--data-bin", "nowhere", "--glue-dir", "no"), "--glue-dir must hold"),
    ],
)
def test_bad_requests_name_the_knob(arguments, message):
    with pytest.raises(ValueError, match=message):
        request(*arguments, "--from-scratch")


def test_a_finished_run_is_not_overwritten(data, tmp_path):
    save_dir = tmp_path / "saved"
    save_dir.mkdir()
    (save_dir / runs.RESULT).write_text("{}")
    with pytest.raises(recipes.RecipeError, match="holds a finished run already"):
        request(
            "RTE",
            "rat",
            "--from-scratch",
            "--data-bin",
            str(data.parent),
            "--save-dir",
            str(save_dir),
        )


def test_a_converted_checkpoint_brings_its_architecture_and_its_dictionary(data, tmp_path):
    checkpoint = tmp_path / "minilm" / "model.pt"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"")
    facts = {"flags": ["--arch", "bert_like", "--encoder-layers", "6"], "separators": 1}
    (checkpoint.parent / "architecture.json").write_text(json.dumps(facts))
    own = ("--checkpoint", str(checkpoint), "--data-bin", str(data.parent), "--save-dir", str(tmp_path))
    (checkpoint.parent / "dict.txt").write_text("another 1\n")
    with pytest.raises(recipes.RecipeError, match="preprocessed for another model"):
        request("RTE", "asa", *own)
    counts = (data / "input0" / "dict.txt").read_text().replace(" 1\n", " 100\n")
    (checkpoint.parent / "dict.txt").write_text(counts)
    (run,) = request("RTE", "asa", *own)
    cfg = training.parse(run.command[1:])
    assert cfg.model.arch == "asa_bert_like" and cfg.model.encoder_layers == 6
    assert cfg.model.layer_norm_epsilon == 1e-12 and cfg.task.separator_token is None
    assert cfg.checkpoint.finetune_from_model == str(checkpoint)
    with pytest.raises(recipes.RecipeError, match="leave --arch away"):
        request("RTE", "asa", *own, "--arch", "roberta_base")


def test_seeds_gpus_and_torchrun_are_arguments(data, tmp_path):
    own = ("RTE", "rat", "--from-scratch", "--data-bin", str(data.parent), "--save-dir", str(tmp_path))
    found = request(*own, "--seed", "3", "4")
    assert [run.save_dir.name for run in found] == ["seed3", "seed4"]
    (run,) = request(*own, "--gpus", "4")
    cfg = training.parse(run.command[1:])
    assert cfg.dataset.batch_size == 6 and cfg.distributed_training.distributed_world_size == 4
    assert cfg.optimization.max_update == 10, "18 rows are one update of 24 still"
    where = ("--node-rank", "1", "--main-address", "node7:1234")
    (run,) = request(*own, "--torchrun", "--gpus", "4", "--nodes", "2", *where)
    line = " ".join(run.command)
    assert "-m torch.distributed.run --nproc-per-node 4 --nnodes 2 --node-rank 1" in line
    assert "--master-addr node7 --master-port 1234" in line and "--batch-size 3 " in line
    for wrong, message in (
        (("--gpus", "7"), "cannot be shared by 7 workers"),
        (("--nodes", "2"), "needs --torchrun"),
        (("--node-rank", "1"), "--node-rank 1"),
    ):
        with pytest.raises(recipes.RecipeError, match=message):
            request(*own, *wrong)


def test_the_result_file_holds_what_a_repetition_needs(tmp_path):
    for epoch, mcc in ((1, 20.5), (2, 18.0)):
        validations.append(tmp_path, update=epoch, epoch=epoch, subset="valid", stats={"mcc": mcc})
    run = runs.Run("CoLA", ["fairseq-train", "--seed", "3"], tmp_path, "mcc", {"seed": 3})
    runs.write_result(run, seconds=1.0)
    result = json.loads((tmp_path / runs.RESULT).read_text())
    assert (result["best"], result["last"], result["seed"]) == (20.5, 18.0, 3)
    assert result["validations"][0] == {"epoch": 1, "valid_mcc": 20.5}
    assert result["command"] == run.command and result["versions"]["torch"]


def test_an_abort_after_the_end_is_no_failure(tmp_path):
    """fairseq's reading thread may abort a process whose training is done."""
    log = tmp_path / "log"
    line = "2026 | INFO | fairseq_cli.train | done training in 3.0 seconds"
    aborts = [sys.executable, "-c", f"import os; print({line!r}, flush=True); os.abort()"]
    assert runs.run_in_foreground(aborts, log) == 0
    early = [sys.executable, "-c", "import os; print('half way', flush=True); os.abort()"]
    assert runs.run_in_foreground(early, tmp_path / "other") == -signal.SIGABRT
    assert runs.run_in_foreground([sys.executable, "-c", "exit(3)"], log) == 3


def test_no_recipe_names_a_machine():
    for path in recipes.EXAMPLES.rglob("*"):
        if path.suffix in (".sh", ".py", ".tsv", ".yaml"):
            text = path.read_text()
            assert "CUDA_VISIBLE_DEVICES" not in text and "/home/" not in text, path


def test_the_demos_grammar_is_repeatable_balanced_and_noisy_only_on_request():
    clean = list(grammar.examples(300, seed=1))
    assert clean == list(grammar.examples(300, seed=1))
    assert 0.4 < sum(label == "good" for _, label in clean) / 300 < 0.6
    noisy = list(grammar.examples(300, seed=1, noise=0.15))
    truth = dict(grammar.examples(300, seed=1))
    flipped = sum(truth.get(text, label) != label for text, label in noisy)
    assert flipped > 0 and len({text for text, _ in noisy}) == 300
