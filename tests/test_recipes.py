"""Every recipe is a command that fairseq understands, and none starts without what it needs."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import training
from adv_plugins_cli import finetune
from adv_plugins_cli.checkpoints.architecture import Architecture
from adv_plugins_cli.command import UserError
from adv_plugins_cli.data import grammar
from adv_plugins_cli.recipes import recipes, runs
from adv_plugins_cli.recipes.methods import CORE, load_methods
from fairseq_compat import validations

RECIPES = {key: recipes.get_recipe(*key) for key in recipes.load_recipes()}
EXAMPLES = training.ROOT / "examples"
SOURCES = {
    *("RoBERTa", "R-AT", "FreeLB", "FreeLB-u", "FreeLB-7", "FreeLB-cqa", "RAPT", "ASA", "CQA"),
    *("PGD", "YOPO", "FreeAT", "SMART", "R-Drop", "this project"),
    *("RoBERTa*", "R-AT*", "FreeLB*", "ASA*"),
}
LARGE = recipes.Start(Architecture("roberta_large"))
BASE = recipes.Start(Architecture("roberta_base"))


@pytest.fixture
def data(tmp_path):
    """A preprocessed folder."""
    return training.write_data(tmp_path / "RTE-bin", "classification")


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda r: f"{r.task}-{r.method}")
def test_every_row_parses_with_fairseqs_own_parser(recipe, data):
    command = recipe.command(data, start=LARGE, save_dir=Path("x"), seed=7)
    cfg = training.parse(command[1:])
    assert cfg.common.seed == 7 and cfg.criterion._name == (recipe.criterion or recipe.kind.criterion)
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


# FreeLB's Table 7 (its text has WSC and WNLI): the bound of the norm, the step size, the ascents m.
FREELB_TABLE_7 = {
    "MNLI": (0.2, 0.1, 2),
    "QNLI": (0.15, 0.1, 2),
    "QQP": (0.45, 0.15, 2),
    "RTE": (0.15, 0.03, 3),
    "SST-2": (0.6, 0.1, 2),
    "MRPC": (0.4, 0.04, 3),
    "CoLA": (0.2, 0.025, 3),
    "STS-B": (0.3, 0.1, 3),
    "WSC": (0.01, 0.005, 2),
    "WNLI": (0.01, 0.005, 2),
}
# The authors' launch scripts: updates, warm-up, lr, batch, accumulation, step size, ascents, start,
# bound.
FREELB_SCRIPTS = {
    "CoLA": (5536, 320, 1e-5, 8, 2, 0.025, 3, 0.4, 0.3),
    "MNLI": (123873, 7432, 1e-5, 3, 11, 0.1, 2, 0.1, 0.3),
    "MRPC": (2296, 137, 5e-6, 2, 8, 0.04, 3, 0.64, 0.4),
    "QNLI": (33112, 1986, 1e-5, 2, 16, 0.1, 2, 0.2, 0.2),
    "QQP": (113272, 28318, 1e-5, 32, 1, 0.15, 2, 0.32, 0.62),
    "SST-2": (20935, 1256, 1e-5, 8, 4, 0.1, 2, 1, 0.6),
    "STS-B": (3598, 214, 2e-5, 8, 2, 0.1, 3, 0.16, 0.28),
    "RTE": (2036, 122, 1e-5, 2, 8, 0.03, 3, 0.16, 0.14),
    "CommonsenseQA": (4000, 150, 1e-5, 2, 8, 0.05, 2, 0.005, 1),
}
# ASA's Table 5: lr, batch, epochs, warm-up, length, tau.
ASA_TABLE_5 = {
    "SST-2": (2e-5, 32, 3, 0.06, 128, 0.3),
    "MNLI": (3e-5, 32, 3, 0.06, 128, 0.3),
    "QNLI": (2e-5, 32, 3, 0.06, 128, 0.3),
    "QQP": (5e-5, 32, 3, 0.06, 128, 0.3),
    "STS-B": (5e-5, 16, 3, 0.06, 128, 0.3),
    "WNUT-17": (5e-5, 16, 5, 0.1, 64, 0.5),
    "DREAM": (3e-5, 16, 8, 0.1, 128, 0.5),
    "ANLI": (3e-5, 32, 3, 0.06, 128, 0.3),
    "PAWS-QQP": (5e-5, 16, 3, 0.06, 128, 0.3),
    "HellaSwag": (2e-5, 32, 3, 0.1, 128, 0.3),
}
# R-AT's Table 7: weight, eps, lr, batch.
RAT_TABLE_7 = {
    "CoLA": (0.5, 0.1, 2e-5, 24),
    "SST-2": (0.5, 0.1, 1e-5, 32),
    "MRPC": (0.8, 0.15, 1e-5, 32),
    "STS-B": (0.5, 0.1, 1e-5, 32),
    "QQP": (0.5, 0.1, 2e-5, 32),
    "MNLI": (0.8, 0.1, 2e-5, 32),
    "QNLI": (0.8, 0.15, 1e-5, 32),
    "RTE": (0.5, 0.1, 2e-5, 24),
    "WNLI": (0.5, 0.15, 1e-5, 16),
}


def parsed(recipe, data):
    return training.parse(recipe.command(data, start=LARGE, save_dir=Path("x"), seed=1)[1:])


FREELB = [recipe for recipe in RECIPES.values() if recipe.method == "freelb" and recipe.task != "demo"]


@pytest.mark.parametrize("recipe", FREELB, ids=lambda r: r.task)
def test_freelbs_passes_are_the_sources_ascents_plus_one(recipe, data):
    cfg = parsed(recipe, data)
    task = recipe.task.removesuffix("-ranking")
    ours = (cfg.criterion.adv_step_size, cfg.criterion.adv_steps)
    if recipe.source in ("FreeLB-7", "FreeLB*"):
        bound, step, ascents = FREELB_TABLE_7["RTE" if recipe.source == "FreeLB*" else task]
        assert ours == (step, ascents + 1)
        assert cfg.criterion.adv_eps == bound and cfg.criterion.adv_init_eps is None
        return
    updates, warmup, lr, batch, accumulation, step, ascents, start, bound = FREELB_SCRIPTS[task]
    assert ours == (step, ascents + 1)
    assert (cfg.criterion.adv_init_eps, cfg.criterion.adv_eps) == (start, bound)
    assert (cfg.optimization.max_update, cfg.lr_scheduler.warmup_updates) == (updates, warmup)
    assert (cfg.dataset.batch_size, cfg.optimization.update_freq) == (batch, [accumulation])
    assert cfg.optimization.lr == [lr]


# FreeAT's launch scripts in that release: as above; RTE's values are those of the thread.
FREE_AT_SCRIPTS = {
    "CoLA": (5536, 320, 1e-5, 8, 2, 0.05, 3, 0.4, 0.2),
    "MNLI": (123873, 7432, 1e-5, 3, 11, 0.1, 2, 0.01, 0.2),
    "MRPC": (2296, 137, 5e-6, 2, 8, 0.04, 3, 0.64, 0.4),
    "QNLI": (33112, 1986, 1e-5, 2, 16, 0.1, 2, 0.15, 0.15),
    "QQP": (113272, 28318, 1e-5, 32, 1, 0.15, 2, 0.32, 0.62),
    "SST-2": (20935, 1256, 1e-5, 8, 4, 0.1, 2, 1, 0.6),
    "STS-B": (3598, 214, 2e-5, 8, 2, 0.1, 3, 0.16, 0.28),
    "RTE": (2036, 122, 1e-5, 2, 8, 0.03, 3, 0.16, 0.14),
}


@pytest.mark.parametrize("task", FREE_AT_SCRIPTS)
def test_free_ats_updates_are_the_scripts_times_its_steps(task, data):
    cfg = parsed(RECIPES[task, "freeat"], data)
    updates, warmup, lr, batch, accumulation, step, steps, start, bound = FREE_AT_SCRIPTS[task]
    own = cfg.criterion
    assert (own.adv_step_size, own.adv_steps) == (step, steps)
    assert (own.adv_init_eps, own.adv_eps) == (start, bound)
    counts = (cfg.optimization.max_update, cfg.lr_scheduler.warmup_updates)
    assert counts == (updates * steps, warmup * steps)
    assert (cfg.dataset.batch_size, cfg.optimization.update_freq) == (batch, [accumulation])
    assert cfg.optimization.lr == [lr]


def test_the_updates_of_each_batch_are_counted_where_a_recipe_counts(data):
    """Without a row of its own, and where the number is computed; a flag of the user's wins."""

    def counted(recipe, *extra):
        command = recipe.command(data, start=LARGE, save_dir=Path("x"), seed=1, extra=extra)
        cfg = training.parse(command[1:])
        return cfg.optimization.max_update, cfg.lr_scheduler.warmup_updates

    for task in ("WNLI", "CommonsenseQA"):
        plain, own = recipes.get_recipe(task, "plain"), recipes.get_recipe(task, "freeat")
        once = counted(plain)
        assert not own.has_row and counted(own)[0] == 3 * once[0]
        assert counted(own, "--adv-steps", "5")[0] == 5 * once[0]
    compared = dataclasses.replace(RECIPES["RTE", "freeat"], updates="-", warmup="0.5", epochs="4")
    assert counted(compared) == (9 * 4 * 3, 9 * 2 * 3), "18 examples in batches of 2"


@pytest.mark.parametrize(
    "recipe", [each for each in RECIPES.values() if each.method == "smart"], ids=lambda r: r.task
)
def test_smarts_values_are_its_papers_in_our_units(recipe, data):
    cfg = parsed(recipe, data)
    twice = 1 if recipe.task == "STS-B" else 2
    assert (cfg.criterion.consistency_weight, cfg.criterion.bregman_weight) == (3 * twice, twice)
    own = cfg.criterion
    assert (own.adv_steps, own.adv_step_size, own.adv_eps, own.adv_init_eps) == (1, 1e-3, 1e-5, 1e-5)
    assert (own.bregman_momentum, own.bregman_late_momentum) == (0.99, 0.999)
    assert cfg.optimization.lr[0] in (1e-5, 2e-5, 3e-5, 5e-5) and cfg.optimization.clip_norm == 1


@pytest.mark.parametrize("task", RAT_TABLE_7)
def test_rats_values_are_its_papers(task, data):
    recipe = RECIPES[task, "rat"]
    assert recipe.source == "R-AT"
    cfg = parsed(recipe, data)
    found = (cfg.criterion.consistency_weight, cfg.criterion.adv_eps)
    assert (*found, cfg.optimization.lr[0], cfg.dataset.batch_size) == RAT_TABLE_7[task]


@pytest.mark.parametrize(
    "recipe", [recipe for recipe in RECIPES.values() if recipe.source == "ASA"],
    ids=lambda r: f"{r.task}-{r.method}",
)  # fmt: skip
def test_asas_values_are_its_papers(recipe, data):
    lr, batch, epochs, warmup, length, tau = ASA_TABLE_5[recipe.task]
    cfg = parsed(recipe, data)
    assert (float(recipe.lr), int(recipe.batch), int(recipe.epochs)) == (lr, batch, epochs)
    assert float(recipe.warmup) == warmup
    assert recipe.method == "plain" or cfg.criterion.asa_tau == tau
    sentences = recipe.fairseq_task == "sentence_prediction"
    assert cfg.optimizer.weight_decay == (0.01 if sentences else 0)
    if recipe.task == "DREAM":  # cut at 128, half of its examples would lose the question
        length = 512
    assert cfg.task.max_positions == length and cfg.task.shorten_method == "truncate"


def test_every_task_of_asas_table_has_its_row():
    rows = {(r.task, r.method) for r in RECIPES.values() if r.source == "ASA"}
    assert {task for task, method in rows if method == "asa"} == set(ASA_TABLE_5)


@pytest.mark.parametrize("arch", ["roberta", "asa_roberta"])
@pytest.mark.parametrize("kind", ["classification", "multiple-choice", "token-classification"])
def test_a_shorter_length_starts_from_a_checkpoint_with_more_positions(kind, arch, tmp_path):
    """The lengths of ASA's recipes: the examples are cut, the pre-trained embeddings still fit."""
    folder = training.write_data(tmp_path / "data", kind)
    base = {"multiple-choice": "sentence_ranking"}.get(kind, "sentence_prediction")
    base = "token_classification" if kind == "token-classification" else base
    long = training.train(folder, tmp_path / "long", kind, base, "--max-update=1", arch="roberta")
    flags = "--shorten-method truncate --max-positions 6 --max-update 1 --lr 0".split()
    start = ("--finetune-from-model", str(tmp_path / "long" / "checkpoint_last.pt"))
    short = training.train(folder, tmp_path / "short", kind, base, *flags, *start, arch=arch)
    name = "encoder.sentence_encoder.embed_positions.weight"
    assert len(long["model"][name]) == 32 + 2 and len(short["model"][name]) == 6 + 2
    assert short["model"][name].equal(long["model"][name][: 6 + 2])


def test_all_tasks_have_all_methods_and_a_script():
    tasks = [row["task"] for row in recipes.read_table(recipes.TABLES / "tasks.tsv")]
    # Of the rivals only what their papers or FreeLB's release name has a row.
    assert {pair for pair in RECIPES if pair[1] in CORE} == {(t, m) for t in tasks for m in CORE}
    assert set(RECIPES) <= {(task, method) for task in tasks for method in ("plain", *load_methods())}
    scripts = {path.stem: path for path in (EXAMPLES / "tasks").glob("*.sh")}
    assert set(scripts) == set(tasks) - {"demo"}
    for task, path in scripts.items():
        assert f'finetune.sh" {task} "$@"' in path.read_text() and os.access(path, os.X_OK)


def test_the_shell_scripts_are_sound():
    for path in [*EXAMPLES.rglob("*.sh"), *EXAMPLES.rglob("*.sbatch")]:
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
    with pytest.raises(UserError, match=r"no such checkpoint \(--checkpoint\)"):
        request("RTE", "rat", "--checkpoint", str(tmp_path / "model.pt"), "--data-dir", "nowhere")


def test_training_from_scratch_has_to_be_asked_for(capsys):
    with pytest.raises(SystemExit):
        request("RTE", "rat")
    assert "--checkpoint --from-scratch is required" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments,message",
    [
        (("RTT", "rat"), "unknown task 'RTT': choose one of CoLA"),
        (("RTE", "ratt"), "unknown method 'ratt': choose one of plain, .*rat"),
        (("RTE", "rat", "--data-bin", "nowhere"), "give --data-bin with the preprocessed data"),
        (("RTE", "rat", "--data-bin", "nowhere", "--data-dir", "no"), "--data-dir must hold"),
    ],
)
def test_bad_requests_name_the_knob(arguments, message):
    with pytest.raises(ValueError, match=message):
        request(*arguments, "--from-scratch")


def test_a_finished_run_is_not_overwritten(data, tmp_path):
    save_dir = tmp_path / "saved"
    save_dir.mkdir()
    (save_dir / runs.RESULT).write_text("{}")
    with pytest.raises(UserError, match="holds a finished run already"):
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
    with pytest.raises(UserError, match="preprocessed for another model"):
        request("RTE", "asa", *own)
    counts = (data / "input0" / "dict.txt").read_text().replace(" 1\n", " 100\n")
    (checkpoint.parent / "dict.txt").write_text(counts)
    (run,) = request("RTE", "asa", *own)
    cfg = training.parse(run.command[1:])
    assert cfg.model.arch == "asa_bert_like" and cfg.model.encoder_layers == 6
    assert cfg.model.layer_norm_epsilon == 1e-12 and cfg.task.separator_token is None
    assert cfg.checkpoint.finetune_from_model == str(checkpoint)
    with pytest.raises(UserError, match="leave --arch away"):
        request("RTE", "asa", *own, "--arch", "roberta_base")


@pytest.mark.parametrize(
    "content,message",
    [
        ("{", "architecture.json:1: not JSON"),
        ("[]", "holds a JSON list"),
        ('{"flags": "--arch x"}', "'flags' is no list of texts"),
        ('{"flags": ["--arch"], "separators": 1}', "no pairs of a flag and its value"),
        ('{"flags": ["--arch", "x", "--user-dir", "y"], "separators": 1}', "--user-dir y is neither"),
        ('{"flags": ["--arch", "--user-dir"], "separators": 1}', "--arch --user-dir is neither"),
        ('{"flags": ["--arch", "x"]}', "'separators' is None"),
    ],
)
def test_a_bad_architecture_file_is_named(content, message, data, tmp_path):
    (tmp_path / "model.pt").touch()
    (tmp_path / "architecture.json").write_text(content)
    with pytest.raises(UserError, match=message):
        request("RTE", "rat", "--checkpoint", str(tmp_path / "model.pt"), "--data-bin", str(data.parent))


def test_damaged_preprocessed_data_is_named(data, tmp_path):
    own = ("RTE", "rat", "--data-bin", str(data.parent), "--save-dir", str(tmp_path / "saved"))
    (tmp_path / "model.pt").touch()
    (tmp_path / "dict.txt").write_bytes(b"a 1\nb\n")
    with pytest.raises(UserError, match="dict.txt:2: not a symbol and its count"):
        request(*own, "--checkpoint", str(tmp_path / "model.pt"))
    (tmp_path / "dict.txt").write_bytes(b"a 1\n\xff 1\n")
    with pytest.raises(UserError, match="dict.txt:2: not UTF-8"):
        request(*own, "--checkpoint", str(tmp_path / "model.pt"))
    index = data / "input0" / "train.idx"
    index.write_bytes(index.read_bytes()[:20])
    with pytest.raises(UserError, match="train.idx: no index of binary data"):
        request(*own, "--from-scratch")
    (data / "input0" / "dict.txt").unlink()
    with pytest.raises(UserError, match="is no preprocessed data"):
        request(*own, "--from-scratch")


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
        with pytest.raises(UserError, match=message):
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
    for path in EXAMPLES.rglob("*"):
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
