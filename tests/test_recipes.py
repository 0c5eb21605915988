"""Every recipe is a command that fairseq understands, and none starts without what it needs."""

import itertools
import json
from pathlib import Path

import finetune
import pytest
import recipes
import runs
import training
from demo import grammar

RECIPES = recipes.load_recipes()
SOURCES = "RoBERTa R-AT FreeLB FreeLB-u FreeLB-7 RAPT ASA ASA* this project"


@pytest.fixture
def data(tmp_path):
    """A preprocessed folder."""
    return training.write_data(tmp_path / "RTE-bin", "classification")


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda r: f"{r.task}-{r.method}")
def test_every_row_parses_with_fairseqs_own_parser(recipe, data):
    command = recipe.command(data, arch="roberta_large", save_dir=Path("x"), seed=7)
    cfg = training.parse(command[1:])
    assert cfg.common.seed == 7 and cfg.criterion._name == recipes.CRITERIONS[recipe.method]
    assert cfg.optimization.lr == [float(recipe.lr)]
    assert cfg.dataset.batch_size == int(recipe.batch)
    assert cfg.checkpoint.best_checkpoint_metric == recipe.best
    total = cfg.lr_scheduler.total_num_update
    assert total == cfg.optimization.max_update > cfg.lr_scheduler.warmup_updates >= 1
    assert cfg.criterion.regression_target == (recipe.task == "STS-B")
    assert recipe.source in SOURCES
    expected = "asa_roberta_large" if recipe.method == "asa" else "roberta_large"
    assert cfg.model._name == expected or cfg.model.arch == expected


def test_all_glue_tasks_have_all_methods():
    tasks = [row["task"] for row in recipes.read_table(recipes.EXAMPLES / "tasks.tsv")]
    assert set(RECIPES) == {(task, method) for task in tasks for method in recipes.CRITERIONS}


def test_updates_and_warmup_are_computed_from_the_data(data):
    command = recipes.get_recipe("RTE", "rat").command(
        data, arch="roberta_base", save_dir=Path("x"), seed=1
    )
    values = dict(itertools.pairwise(command))
    assert recipes.count_rows(data) == 18  # one batch of 24
    assert values["--max-update"] == "10" and values["--warmup-updates"] == "1"


def test_the_users_flags_win(data):
    command = recipes.get_recipe("RTE", "freelb").command(
        data, arch="roberta_base", save_dir=Path("x"), seed=1, extra=["--lr", "0.5"]
    )
    assert training.parse(command[1:]).optimization.lr == [0.5]


def request(*arguments):
    return finetune.make_run(finetune.parse_arguments(arguments))


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


def test_the_result_file_holds_what_a_repetition_needs(tmp_path):
    log = tmp_path / runs.LOG
    rows = [{"epoch": 1, "valid_mcc": "20.5"}, {"epoch": 2, "valid_mcc": "18"}]
    log.write_text("".join(f"date | INFO | valid | {json.dumps(row)}\n" for row in rows))
    run = runs.Run("CoLA", ["fairseq-train", "--seed", "3"], tmp_path, "mcc", {"seed": 3})
    runs.write_result(run, seconds=1.0)
    result = json.loads((tmp_path / runs.RESULT).read_text())
    assert (result["best"], result["last"], result["seed"]) == (20.5, 18.0, 3)
    assert result["command"] == run.command and result["versions"]["torch"]


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
