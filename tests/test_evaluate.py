"""``adv-plugins evaluate``, end to end: fairseq-validate's figures, reports, resuming, bad input."""

import json
import logging
import re
import sys

import fairseq_cli.validate
import numpy as np
import pytest
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

import test_predict
import training
from adv_plugins_cli import evaluate
from adv_plugins_cli.robustness import embedding_study, evaluation, text_study
from adv_plugins_cli.robustness.plan import short_names
from test_predict import train

official, binary = test_predict.official, test_predict.binary


def validated(checkpoint, data, task, monkeypatch, caplog):
    """What fairseq-validate logs."""
    line = f"{data} --task {task} --criterion {task} --path {checkpoint} --batch-size 4 --cpu"
    arguments = [*line.split(), "--log-format", "json"]
    parsed = options.parse_args_and_arch(options.get_validation_parser(), arguments)
    caplog.set_level(logging.INFO)
    # which would remove caplog's handler
    monkeypatch.setattr(fairseq_cli.validate, "reset_logging", lambda: None)
    fairseq_cli.validate.main(convert_namespace_to_omegaconf(parsed))
    (found,) = training.logged(caplog, "valid")
    return found


def evaluated(report, *request):
    evaluate.main([*map(str, request), "--report", str(report), "--bootstrap", "20"])
    return json.loads((report / "results.json").read_text())


@pytest.mark.parametrize(
    "task,kind,style,flags,metrics",
    [
        ("MRPC", "sentence_prediction", "roberta", "--report-acc-and-f1", "accuracy f1 acc_and_f1"),
        ("MNLI", "sentence_prediction", "bert", "", "accuracy"),
        ("STS-B", "sentence_prediction", "roberta", "", "pearson spearman pearson_and_spearman"),
        ("HellaSwag", "sentence_ranking", "bert", "", "accuracy"),
        (
            "WNUT-17",
            "token_classification",
            "bert",
            "--report-entity-f1",
            "accuracy f1 precision recall",
        ),
    ],
)
def test_scores_are_fairseq_validates(
    task, kind, style, flags, metrics, binary, tmp_path, monkeypatch, caplog
):
    checkpoint = train(binary, tmp_path / "model", task, style, flags=flags)
    data = binary / f"{task}-bin"
    expected = validated(checkpoint, data, kind, monkeypatch, caplog)
    found = evaluated(tmp_path / "report", checkpoint, "--data", data)
    scores = found["scores"]["model"]
    assert set(scores) == {"loss", *metrics.split()}
    digits = {"loss": 3, "accuracy": 1}
    for name, score in scores.items():
        wanted = float(expected[f"valid_{name}"])
        assert round(score["value"], digits.get(name, 2)) == pytest.approx(wanted, abs=0.0011), name
        assert score["low"] <= score["value"] + 1e-9 and score["value"] - 1e-9 <= score["high"]
    assert ("calibration" in found) == (task != "STS-B")


def test_raw_text_scores_as_the_folder(official, binary, tmp_path):
    checkpoint = train(binary, tmp_path / "model", "RTE", "roberta")
    tokenizer = ("--wordpiece", official / "vocabulary")
    wanted = evaluated(tmp_path / "a", checkpoint, "--data", binary / "RTE-bin")["scores"]["model"]
    source = f"RTE={official / 'RTE' / 'dev.tsv'}"
    named = evaluated(tmp_path / "b", checkpoint, "--data", source, *tokenizer)["scores"]["model"]
    rows = [line.split("\t")[1:] for line in (official / "RTE" / "dev.tsv").read_text().splitlines()[1:]]
    (tmp_path / "rows.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    own = evaluated(tmp_path / "c", checkpoint, "--data", tmp_path / "rows.tsv", *tokenizer)
    for scores in (named, own["scores"]["model"]):
        assert scores["accuracy"]["value"] == wanted["accuracy"]["value"]
        assert scores["loss"]["value"] == pytest.approx(wanted["loss"]["value"], rel=1e-5)


@pytest.fixture(scope="module")
def sentiment(official, binary, tmp_path_factory):
    """Two models of SST-2, and a request for all there is."""
    root = tmp_path_factory.mktemp("sentiment")
    models = [train(binary, root / name, "SST-2", seed=seed) for seed, name in ((1, "one"), (2, "two"))]
    rows = [{"sentence": text, "label": i % 2} for i, text in enumerate(test_predict.texts(12, 77))]
    (root / "dev.json").write_text(json.dumps({"sst2": rows}))
    words = {word: ["cat", "mat", "mats"] for word in test_predict.WORDS}
    (root / "near.json").write_text(json.dumps(words))
    request = f"--data SST-2={official / 'SST-2' / 'dev.tsv'} --wordpiece {official / 'vocabulary'} "
    request += f"--set AdvGLUE-SST-2={root / 'dev.json'} --embedding --eps 0.5 --steps 4 --step-size 1 "
    request += f"--starts 2 --search-eps {models[1]} --curves --curve-eps 0 0.5 --noise-draws 2 "
    request += f"--attack typos synonyms --neighbors {root / 'near.json'} --changed 0.5 --attack-rows 5"
    return models, request.split()


def test_everything_in_one_report(sentiment, tmp_path, capsys, monkeypatch):
    models, request = sentiment
    found = evaluated(tmp_path, *models, *request)
    out = capsys.readouterr().out
    assert found["names"] == ["one", "two"] and found["rows"] == 14
    assert "difference" not in found["scores"]["one"]["accuracy"]
    assert 0 < found["scores"]["two"]["accuracy"]["mcnemar"] <= 1
    assert found["sets"]["AdvGLUE-SST-2"]["rows"] == 12
    worst = found["worst_cases"]
    assert worst["reference"] == "two" and worst["models"]["two"]["held"] == 100
    assert worst["models"]["one"]["rows"] == worst["models"]["two"]["rows"] > 0
    assert all(each["increase_median"] >= 0 for each in worst["models"].values())
    for name, each in found["curves"]["models"].items():
        accuracy = found["scores"][name]["accuracy"]["value"]
        assert each["attack"][0] == each["noise"][0] == pytest.approx(accuracy)
        assert each["attack"][1] <= each["attack"][0] and len(each["layers"]) == 3
    for attack in ("typos", "synonyms"):
        for number, each in enumerate(found["attacks"][attack]["models"].values()):
            assert each["rows"] == 5 and each["accuracy_under_attack"] <= each["accuracy"]
            lines = (tmp_path / f"{attack}-{number}.tsv").read_text().splitlines()
            broken = round((each["accuracy"] - each["accuracy_under_attack"]) / 100 * 5)
            assert len(lines) == 1 + broken
    page = (tmp_path / "report.html").read_text()
    for picture in ("reliability", "attack", "noise", "layers"):
        assert (tmp_path / f"{picture}.png").read_bytes()[:4] == b"\x89PNG"
        assert f'alt="{picture}.png" src="data:image/png;base64,' in page
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import|<script", page)
    for title in ("Scores", "Calibration", "Worst case", "AdvGLUE-SST-2", "Attack in text: typos"):
        assert title in page and title in out
    # What is done is not done again.
    for module, name in ((embedding_study, "worst_case"), (embedding_study, "safe_radius")):
        monkeypatch.setattr(module, name, None)
    monkeypatch.setattr(embedding_study.curves, "under_attack", None)
    monkeypatch.setattr(text_study, "attack", None)
    again = evaluated(tmp_path, *models, *request)
    for each in (found, again):
        del each["seconds_per_row"]
    assert again == found


def test_where_no_row_is_right_for_all_the_rest_is_told(sentiment, tmp_path, capsys, monkeypatch):
    models, request = sentiment
    monkeypatch.setattr(evaluation.Evaluation, "right_of_all", lambda self: [])
    found = evaluated(tmp_path, *models, *request[:2], "--embedding", *request[2:4])
    assert "no row that all the checkpoints get right" in capsys.readouterr().err
    assert "worst_cases" not in found and found["scores"]["one"]["accuracy"]


def test_without_a_report_the_terminal_has_it(sentiment, capsys):
    models, request = sentiment
    evaluate.main([str(models[0]), *request[:4], "--rows", "7", "--bootstrap", "5"])
    out = capsys.readouterr().out
    assert "7 rows" in out and "accuracy" in out and "report.html" not in out


def test_names_are_what_tells_checkpoints_apart(tmp_path):
    paths = [tmp_path / name / "seed1" / "best.pt" for name in ("rat", "plain")]
    assert short_names(paths) == ["rat", "plain"]
    assert short_names([tmp_path / "a.pt", tmp_path / "b.pt"]) == ["a", "b"]
    assert short_names([tmp_path / "rat" / "x.pt", tmp_path / "x.pt"]) != ["x", "x"]


@pytest.mark.parametrize(
    "request_,message",
    [
        ("", "nothing to evaluate on: give --data or --set"),
        ("--data {bin}/nowhere", "no such folder or file"),
        ("--data {bin}/SST-2-bin --report {root}/labels.tsv", "labels.tsv: is no folder"),
        ("--data {bin}/SST-2-bin --split test9", "has no split test9; it has"),
        ("--data {bin}/SST-2-bin --steps 5", "--steps does nothing without --embedding"),
        ("--data {bin}/SST-2-bin --curve-eps 0.1", "--curve-eps does nothing without --curves"),
        ("--data {bin}/SST-2-bin --attack typos", "--attack needs text"),
        ("--data {bin}/RTE-bin", "is not the same"),
        ("--set Nothing=x", "Nothing: no set with a reader; known are"),
        ("--set AdvGLUE-SST-2", "give NAME=PATH"),
        ("--set AdvGLUE-SST-2={bin}/nowhere", "no such file"),
        ("--set RTE={root}/RTE/dev.tsv", "the set RTE is for models of 2 with the classes"),
        ("--set SST-2={root}/SST-2/dev.tsv --embedding", "--embedding needs --data"),
        ("--data {root}/labels.tsv", "labels.tsv:2: the label 'x'"),
        ("--data {root}/columns.tsv", "columns.tsv:1: 3 columns; .* reads 1, then the label"),
        ("--data SST-2={root}/SST-2/dev.tsv --attack synonyms", "give --neighbors"),
        (
            "--data SST-2={root}/SST-2/dev.tsv --attack synonyms --neighbors {root}/labels.tsv",
            "labels.tsv:1: not JSON",
        ),
        ("--data {bin}/SST-2-bin --embedding --search-eps x.pt", "is none of the checkpoints"),
        ("{bin}/../models/mnli/checkpoint_last.pt --data {bin}/SST-2-bin", "no such checkpoint"),
    ],
)
def test_bad_input_gets_one_line_before_a_model_is_loaded(
    request_, message, sentiment, official, binary, monkeypatch
):
    (official / "labels.tsv").write_text("the cat\t1\nthe mat\tx\n")
    (official / "columns.tsv").write_text("the cat\tsat\t1\n")
    monkeypatch.setattr("adv_plugins_cli.robustness.evaluation.Predictor", None)
    models, _ = sentiment
    parts = request_.format(bin=binary, root=official).split()
    with pytest.raises(SystemExit, match=message) as caught:
        evaluate.main([str(models[0]), *parts])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["-0.1", "nan", "x"])
def test_an_epsilon_below_0_is_refused(value, capsys):
    with pytest.raises(SystemExit):
        evaluate.main(["a.pt", "--data", "x", "--embedding", f"--eps={value}"])
    assert "give a number of at least 0" in capsys.readouterr().err


def test_checkpoints_of_different_tasks_are_refused(sentiment, binary, tmp_path):
    other = train(binary, tmp_path / "mnli", "MNLI")
    with pytest.raises(SystemExit, match="they cannot be compared"):
        evaluate.main([str(sentiment[0][0]), str(other), *sentiment[1][:4]])


def test_textattack_gets_a_models_probabilities(sentiment, official, binary, tmp_path, monkeypatch):
    """On a stand-in of the one class that is wanted of it."""
    import types

    from adv_plugins_cli import predict

    wrappers = types.ModuleType("textattack.models.wrappers")
    monkeypatch.setattr(wrappers, "ModelWrapper", type("ModelWrapper", (), {}), raising=False)
    for name in ("textattack", "textattack.models"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, wrappers.__name__, wrappers)
    monkeypatch.delitem(sys.modules, "adv_plugins_cli.textattack_model", raising=False)
    from adv_plugins_cli.textattack_model import CheckpointWrapper

    checkpoint, rows = sentiment[0][0], test_predict.texts(3, 5)
    model = CheckpointWrapper(checkpoint, wordpiece=official / "vocabulary")
    (tmp_path / "in").write_text("".join(f"{row}\n" for row in rows))
    request = ["--input", str(tmp_path / "in"), "--wordpiece", str(official / "vocabulary")]
    predict.main([str(checkpoint), *request, "--probabilities", "--output", str(tmp_path / "out")])
    lines = [line.split("\t") for line in (tmp_path / "out").read_text().splitlines()]
    wanted = np.array([line[1:] for line in lines], dtype=float)
    np.testing.assert_allclose(model(rows), wanted, atol=1e-6)
    np.testing.assert_allclose(model([(row,) for row in rows]), wanted, atol=1e-6)
    assert [model.labels[number] for number in model(rows).argmax(axis=1)] == [line[0] for line in lines]
    with pytest.raises(ValueError, match="give one of bpe_dir"):
        CheckpointWrapper(checkpoint, vocabulary="x")
