"""``load``: in Python what ``adv-plugins predict`` says on the command line."""

import shutil
from typing import Any

import numpy as np
import pytest

import test_predict
from adv_plugins_cli import load, predict
from adv_plugins_cli.command import UserError

official, binary = test_predict.official, test_predict.binary
EXAMPLES: dict[str, Any] = {
    "SST-2": ["the cat sat", "no mats", "a b  c"],
    "RTE": [("the cat sat", "no mats"), ("a", "b c")],
    "STS-B": [("the cat sat", "no mats"), ("a", "b c")],
    "HellaSwag": [("the cat", "sat", "on", "a mat", "no"), ("a", "b", "c", "d", "e")],
    "WNUT-17": ["the cat sat", "mats"],
}


@pytest.fixture(scope="module", params=EXAMPLES)
def trained(request, official, binary, tmp_path_factory):
    """Task, and a run's folder."""
    folder = tmp_path_factory.mktemp("run") / "seed1"
    test_predict.train(binary, folder, request.param)
    return request.param, folder


def test_it_predicts_what_the_command_predicts(trained, official, tmp_path, capsys):
    task, folder = trained
    words = str(official / "vocabulary")
    model = load(folder, wordpiece=words)
    assert capsys.readouterr().out == "", "it says nothing on the way"
    found = model.predict(EXAMPLES[task], batch_size=1)
    rows = [[each] if isinstance(each, str) else each for each in EXAMPLES[task]]
    (tmp_path / "in").write_text("".join("\t".join(row) + "\n" for row in rows))
    request = [str(folder / "checkpoint_last.pt"), "--input", str(tmp_path / "in"), "--wordpiece", words]
    if model.kind in ("classification", "ranking"):
        request.append("--probabilities")
    predict.main([*request, "--output", str(tmp_path / "out")])
    lines = [line.split("\t") for line in (tmp_path / "out").read_text().splitlines()]
    for prediction, (label, *probabilities) in zip(found, lines, strict=True):
        if model.kind == "regression":
            assert prediction.score == pytest.approx(float(label), rel=1e-5)
            assert prediction.label is None and prediction.probabilities == ()
            continue
        given: Any = prediction.label
        shown = " ".join(given) if model.kind == "tokens" else str(given)
        assert shown == label and prediction.score is None
        if model.kind == "tokens":
            assert len(prediction.probabilities) == len(given)
            assert all(sum(word) == pytest.approx(1) for word in prediction.probabilities)
        else:
            np.testing.assert_allclose(prediction.probabilities, [*map(float, probabilities)], atol=1e-6)
    assert model.predict([]) == [] if model.kind == "classification" else True


def test_what_is_wrong_is_named(trained, official, tmp_path):
    task, folder = trained
    with pytest.raises(UserError, match="give the tokenizer"):
        load(folder)
    with pytest.raises(UserError, match="vocabulary: give one of bpe_dir"):
        load(folder, vocabulary="x")
    with pytest.raises(UserError, match="has neither checkpoint_best.pt nor checkpoint_last.pt"):
        load(tmp_path)
    with pytest.raises(UserError, match="no such checkpoint"):
        load(tmp_path / "none.pt")
    model = load(folder / "checkpoint_last.pt", wordpiece=str(official / "vocabulary"))
    with pytest.raises(UserError, match=r"example 1: 9 texts, the model reads \d"):
        model.predict([EXAMPLES[task][0], ("a",) * 9])


def test_the_best_checkpoint_of_a_folder_is_taken(trained, official, tmp_path):
    _, folder = trained
    shutil.copytree(folder, tmp_path / "run")
    shutil.copy(folder / "checkpoint_last.pt", tmp_path / "run" / "checkpoint_best.pt")
    model = load(tmp_path / "run", wordpiece=str(official / "vocabulary"))
    assert model.trained.checkpoint.name == "checkpoint_best.pt"
