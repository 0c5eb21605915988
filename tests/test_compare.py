"""The comparison: what it runs, what it leaves, and its arithmetic."""

import json
import math

import pytest
import torch
from fairseq.data import indexed_dataset

import training
from adv_plugins_cli import compare, evaluate
from adv_plugins_cli.data import subset
from adv_plugins_cli.recipes import comparison_table, runs
from adv_plugins_cli.robustness import embedding_study
from methods import METHODS

TINY = (
    "--encoder-layers 3 --encoder-embed-dim 8 --encoder-ffn-embed-dim 8 --encoder-attention-heads 2 "
    "--max-positions 32 --num-classes 3 --cpu"
)


@pytest.fixture
def data(tmp_path):
    """The preprocessed folder of a task."""
    return training.write_data(tmp_path / "bin" / "RTE-bin", "classification", sizes=(20, 6))


def request(tmp_path, *own):
    return [
        *("RTE", "--from-scratch", "--arch", "roberta", "--data-bin", str(tmp_path / "bin")),
        *("--out-dir", str(tmp_path / "out"), "--epochs", "1", "--batch", "4", "--lr", "1e-3", "1e-4"),
        *own,
        *("--", *TINY.split()),
    ]


def test_it_searches_then_runs_the_seeds_and_goes_on_where_it_stopped(
    data, tmp_path, monkeypatch, capsys
):
    stock = compare.candidates

    def candidates(method, arguments, lr):
        # A method whose every candidate is refused by its criterion.
        return [{"lr": lr, "flags": "--adv-eps -1"}] if method == "rat" else stock(method, arguments, lr)

    monkeypatch.setattr(compare, "candidates", candidates)
    own = ("--methods", "plain", "rapt", "rat", "--seeds", "1", "2", "--train-rows", "15", "--jobs", "2")
    arguments = request(tmp_path, *own)
    assert compare.main(arguments) == 1
    table = capsys.readouterr().out
    assert "rat" in table and "FAILED: 2 of 2 seeds" in table
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 5000

    summary = json.loads((tmp_path / "out" / "RTE" / "summary.json").read_text())
    by_method = {row["method"]: row for row in summary["methods"]}
    assert len(by_method["plain"]["scores"]) == len(by_method["rapt"]["scores"]) == 2
    assert by_method["rat"]["failed"] == [1, 2] and by_method["rat"]["mean"] is None
    assert by_method["plain"]["lr"] == by_method["rapt"]["lr"]
    failure = json.loads((tmp_path / "out/RTE/search/rat-0" / runs.FAILURE).read_text())
    assert "--adv-eps must be" in failure["failure"]
    result = json.loads((tmp_path / "out/RTE/rapt/seed2" / runs.RESULT).read_text())
    assert result["seed"] == 2 and "--noise-eta" in result["flags"] and result["versions"]["torch"]
    searched = json.loads((tmp_path / "out/RTE/search/plain-0" / runs.RESULT).read_text())
    assert searched["seed"] == compare.SEARCH_SEED and "search-bin" in searched["command"][1]

    # again: only what is missing is trained
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob(runs.RESULT)}
    gone = tmp_path / "out/RTE/plain/seed2" / runs.RESULT
    before = json.loads(gone.read_text())
    gone.unlink()
    assert compare.main(arguments) == 1
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob(runs.RESULT)}
    assert {path for path in after if after[path] != stamps[path]} == {gone}
    assert json.loads(gone.read_text())["last"] == before["last"], "a seed repeats its run"

    # other settings in the same folder are not mixed in
    capsys.readouterr()
    with pytest.raises(SystemExit, match=r"--dropout 0.1 -> 0.3\): choose another --out-dir"):
        compare.main([*arguments, "--dropout", "0.3"])

    # a result that an older crash has cut off is named
    gone.write_text(gone.read_text()[:100])
    with pytest.raises(SystemExit, match=r"seed2/result.json:\d+: not JSON .*: delete it"):
        compare.main(arguments)


def test_every_method_gets_as_many_candidates_as_plain_gets_learning_rates():
    arguments = compare.parse_arguments(["RTE", "--from-scratch"])
    counts = {
        m: len(compare.candidates(m, arguments, "1e-5"))
        for m in ("plain", *(method.name for method in METHODS))
    }
    assert set(counts.values()) == {3}


@pytest.mark.parametrize("kind", ["classification", "regression", "multiple-choice"])
def test_a_subset_keeps_rows_together_and_the_search_never_sees_the_validation_set(kind, tmp_path):
    whole = training.write_data(tmp_path / "whole", kind, sizes=(20, 6))
    part = subset.make_subset(whole, tmp_path / "part", rows=10, held_out=0.3)
    train, valid = subset.choose_rows(whole, 10, 0.3)
    assert len(train) == 7 and len(valid) == 3 and not set(train) & set(valid)
    for name in [path.name for path in whole.iterdir() if path.name.startswith("input")]:
        source = indexed_dataset.make_dataset(str(whole / name / "train"), "mmap")
        for split, rows in (("train", train), ("valid", valid)):
            taken = indexed_dataset.make_dataset(str(part / name / split), "mmap")
            assert [t.tolist() for t in taken] == [source[row].tolist() for row in rows]
    if kind != "classification":
        lines = (whole / "label" / "train.label").read_text().splitlines()
        assert (part / "label/valid.label").read_text().splitlines() == [lines[row] for row in valid]
    kept = subset.make_subset(whole, tmp_path / "kept", rows=10)
    old, new = (
        indexed_dataset.make_dataset(str(folder / "input0" / "valid"), "mmap")
        for folder in (whole, kept)
    )
    assert [t.tolist() for t in old] == [t.tolist() for t in new]
    with pytest.raises(subset.UserError, match="--train-rows 99"):
        subset.make_subset(whole, tmp_path / "x", rows=99)


def result(score):
    return {"last": score, "seconds": 1.0}


def test_the_statistics():
    scores: dict[str, list[float | None]] = {
        "plain": [80.0, 82.0, 81.0],
        "rat": [81.0, 83.5, 81.5],
        "asa": [79.0, None, 80.0],
    }
    results = {
        (method, seed): None if value is None else result(value)
        for method, values in scores.items()
        for seed, value in zip((1, 2, 3), values)
    }
    chosen = {method: {"lr": "1e-5", "flags": ""} for method in scores}
    summary = comparison_table.summarise("RTE", "accuracy", list(scores), (1, 2, 3), chosen, results)
    plain, rat, asa = summary["methods"]
    assert plain["mean"] == 81 and plain["std"] == 1 and (plain["min"], plain["max"]) == (80, 82)
    # differences 1, 1.5, .5: mean 1, standard deviation .5, t = 1 / (.5 / sqrt 3) with 2 degrees
    t = 1 / (0.5 / math.sqrt(3))
    assert rat["p"] == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-9)
    assert asa["failed"] == [2] and asa["mean"] == 79.5 and plain["p"] is None
    table = comparison_table.text(summary)
    assert "FAILED: 1 of 3 seeds" in table and " 81.00 " in table
    one = comparison_table.paired_test({1: 2.0}, {1: 3.0})
    assert one is None and comparison_table.paired_test({1: 2.0, 2: 3.0}, {1: 1.0, 2: 2.0}) is None


@pytest.mark.parametrize(
    "own,message",
    [
        (("--methods", "rat"), "--methods needs plain"),
        (("--methods", "plain", "x"), "unknown method 'x'"),
        (("--train-rows", "500"), "--train-rows 500"),
        (
            ("--train-rows", "2"),
            r"--held-out 0.2 of 2 training rows \(--train-rows\) leaves none",
        ),
        (("--train-rows", "2", "--held-out", "0.9"), "leaves none to train on"),
        (("--held-out", "0"), "--held-out 0: a share between 0 and 1"),
        (("--held-out", "nan"), "--held-out nan: a share"),
        (("--held-out", "1"), "--held-out 1: a share"),
        (("--jobs", "0"), "--jobs 0: at least 1"),
        (("--batch", "0"), "--batch 0: at least 1"),
        (("--epochs", "-1"), "--epochs -1: at least 1"),
        (("--lr", "-0.001"), "--lr -0.001: no positive number"),
        (("--lr", "nan"), "--lr nan: no positive number"),
        (("--lr", "fast"), "--lr fast: no positive number"),
        (("--lr", "1e-3", ".001"), "--lr: 0.001 is given twice"),
        (("--seeds", "1", "2", "1"), "--seeds: 1 is given twice"),
        (("--methods", "plain", "rat", "rat"), "--methods: rat is given twice"),
        (("--precision", "fp16"), "--precision fp16 needs a GPU"),
        (("--evaluate", "--embedding --report x"), "goes to --out-dir, not to x"),
        (("--evaluate", "other.pt --embedding"), "models are the comparison's, not other.pt"),
        (("--evaluate", "--eps 0.1"), "--eps does nothing without --embedding"),
        (("--evaluate", "--set Nothing=x"), "Nothing: no set with a reader"),
        (("--evaluate", "--data nowhere"), "nowhere: no such folder or file"),
        (("--evaluate", "--attack typos"), "--attack needs text"),
        (("--evaluate", "--embedding 'open"), "--evaluate .*: No closing quotation"),
        (("--evaluate", "--search-eps=x"), "--search-eps does nothing without --embedding"),
        (("--evaluate", "--seeds", "1", "1"), "--seeds: 1 is given twice"),
        (("--evaluate", "--embedding --search-eps CHECKPOINT"), "there is none yet"),
    ],
)
def test_bad_requests_name_the_knob(own, message, data, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "execute", lambda *_: pytest.fail("something was trained"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=f"^adv-plugins compare: error: .*{message}") as error:
        compare.main(request(tmp_path, *own))
    assert "\n" not in str(error.value)


def test_a_set_of_other_classes_is_refused_before_anything_is_trained(data, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "execute", lambda *_: pytest.fail("something was trained"))
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\ngood\t1\n")
    own = ("--evaluate", f"--set SST-2={tmp_path / 'dev.tsv'}")
    with pytest.raises(SystemExit, match="the set SST-2 is not of a task with c0, c1, c2"):
        compare.main(request(tmp_path, *own))


def test_clean_and_robust_stand_in_one_table(data, tmp_path, monkeypatch, capsys):
    """Of every seed's model, as evaluate measures it by itself; a second call measures no row again."""
    options = "--curves --curve-eps 0.1 --noise-draws 1 --bootstrap 10"
    own = ("--methods", "plain", "rdrop", "--seeds", "1", "2", "--evaluate", options)
    assert compare.main(request(tmp_path, *own)) == 0
    shown = capsys.readouterr().out
    folder = tmp_path / "out" / "RTE"
    summary = json.loads((folder / "summary.json").read_text())
    found = summary["evaluation"]["over_seeds"]
    scores = {row["method"]: row["mean"] for row in summary["methods"]}
    assert {name: each["mean"] for name, each in found["accuracy"].items()} == pytest.approx(
        scores, abs=0.05
    )
    assert found["PGD-20, 0.1"]["rdrop"]["seeds"] == 2
    assert "PGD-20, 0.1" in shown and "evaluation/report.html" in shown
    models = [folder / method / "seed2" / "checkpoint_last.pt" for method in ("plain", "rdrop")]
    assert all("last_optimizer_state" not in torch.load(model) for model in models)
    assert not list(folder.glob("search/*/checkpoint*")), "the search keeps no models"

    request_ = [*map(str, models), "--data", str(data), "--report", str(tmp_path / "alone")]
    evaluate.main([*request_, "--bootstrap", "10"])
    alone = json.loads((tmp_path / "alone" / "results.json").read_text())["scores"]
    together = summary["evaluation"]["scores"]
    assert alone["rdrop"]["accuracy"]["value"] == together["rdrop/seed2"]["accuracy"]["value"]

    # What is measured is not measured again.
    monkeypatch.setattr(embedding_study.curves, "under_attack", None)
    assert compare.main(request(tmp_path, *own)) == 0
    again = json.loads((folder / "summary.json").read_text())["evaluation"]
    assert again["over_seeds"] == summary["evaluation"]["over_seeds"]


def test_a_comparison_without_validations_is_refused(data, tmp_path):
    with pytest.raises(SystemExit, match="--disable-validation"):
        compare.main([*request(tmp_path), "--disable-validation"])


def test_when_plain_fine_tuning_fails_it_says_where_to_look(data, tmp_path):
    own = ("--methods", "plain", "rapt", "--seeds", "1")
    reason = r"every plain run failed; see .*\.log \(exit code 1: adv_plugins: error: .*--num-classes 1"
    with pytest.raises(SystemExit, match=reason):
        compare.main([*request(tmp_path, *own), "--num-classes", "1"])


def test_a_missing_checkpoint_stops_it(data, tmp_path):
    arguments = [str(a) for a in request(tmp_path) if a != "--from-scratch"]
    with pytest.raises(SystemExit, match=r"no\.pt: no such checkpoint"):
        compare.main([*arguments[:1], "--checkpoint", "no.pt", *arguments[1:]])
