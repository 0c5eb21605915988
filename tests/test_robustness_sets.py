"""The readers of sets that people made: the official files, and what their labels mean."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from adv_plugins_cli.command import UserError
from adv_plugins_cli.robustness.sets import SETS


def model(labels, texts) -> Any:
    """As much of a checkpoint as a set asks for."""
    return SimpleNamespace(
        kind="classification", labels=tuple(labels), columns=lambda: (texts,), checkpoint="model.pt"
    )


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    return path


def test_advglue(real_data):
    path = real_data / "robustness" / "advglue" / "dev.json"
    counts = {"SST-2": 148, "QQP": 78, "MNLI": 121, "MNLI-mm": 162, "QNLI": 148, "RTE": 81}
    for name, count in counts.items():
        rows = SETS[f"AdvGLUE-{name}"].read(path)
        assert len(rows) == count and len(rows[0].texts) == SETS[f"AdvGLUE-{name}"].texts
    # what a reader says these are
    found = {row.texts[-1]: row.label for name in counts for row in SETS[f"AdvGLUE-{name}"].read(path)}
    assert found["We have plenty of space in the landfill ."] == "contradiction"
    assert found["Doctors Without Borders is an international aid organization ."] == "entailment"
    waste = next(text for text in found if text.startswith("it captures a wonderful kind of laziness"))
    assert found[waste] == "negative"


def test_imdbs_contrast_sets(real_data):
    rows = SETS["IMDB-contrast"].read(real_data / "robustness" / "imdb-contrast")
    assert Counter(row.part for row in rows) == {"original": 488, "contrast": 488}
    assert Counter(row.label for row in rows) == {"negative": 488, "positive": 488}
    groups = Counter(row.group for row in rows)
    assert len(groups) == 488 and set(groups.values()) == {2}
    assert not any(
        "<br" in row.texts[0] or row.texts[0].startswith('"The wonderful ""Z') for row in rows
    )


def test_a_contrast_set_whose_files_do_not_fit_is_refused(tmp_path):
    header = ("Sentiment", "Text")
    write(tmp_path / "test_original.tsv", header, ("Positive", "good"))
    write(tmp_path / "test_contrast.tsv", header, ("Positive", "bad"))
    with pytest.raises(UserError, match="so they are no contrast"):
        SETS["IMDB-contrast"].read(tmp_path)
    write(tmp_path / "test_contrast.tsv", header, ("Negative", "bad"), ("Positive", "good"))
    with pytest.raises(UserError, match="2 rows, but .*test_original.tsv has 1"):
        SETS["IMDB-contrast"].read(tmp_path)


def test_counterfactual_pairs(tmp_path):
    path = write(
        tmp_path / "test_paired.tsv",
        ("Sentiment", "Text", "batch_id"),
        ("Negative", '"Bad.<br /><br />A ""classic"""', "4"),
        ("Positive", "Good.", "4"),
    )
    one, other = SETS["counterfactual-IMDB"].read(path)
    assert one.texts == ('Bad. A "classic"',) and (one.label, other.label) == ("negative", "positive")
    assert one.group == other.group == "4"
    path = write(
        tmp_path / "test.tsv", ("sentence1", "sentence2", "gold_label"), ("a dog", "a cat", "neutral")
    )
    assert SETS["counterfactual-NLI"].read(path)[0].label == "neutral"


HANS = "gold_label sentence1_parse sentence1 sentence2 pairID heuristic".split()


def test_hans_has_two_labels_for_a_model_of_three(tmp_path):
    rows = [
        ("non-entailment", "(x)", 'The "doctor saw it .', "It saw .", "ex0", "lexical_overlap"),
        ("entailment", "(x)", "The doctor saw it .", "The doctor saw .", "ex1", "constituent"),
    ]
    path = write(tmp_path / "heuristics_evaluation_set.txt", tuple(HANS), *rows)
    one, other = SETS["HANS"].read(tmp_path)
    assert one.texts == ('The "doctor saw it .', "It saw ."), "quotes are text there"
    assert (one.part, other.part) == ("lexical_overlap, not_entailment", "constituent, entailment")
    meaning = SETS["HANS"].meaning(model(("neutral", "entailment", "contradiction"), 2))
    assert meaning["not_entailment"] == ("neutral", "contradiction")
    meaning = SETS["HANS"].meaning(model(("not_entailment", "entailment"), 2))
    assert meaning["not_entailment"] == ("not_entailment",)
    write(path, tuple(HANS[1:]), rows[0][1:])
    with pytest.raises(UserError, match="no column gold_label; is this the official file"):
        SETS["HANS"].read(path)


def test_anli_and_paws(tmp_path):
    row = '{"context": "a dog", "hypothesis": "an animal", "label": "e"}\n'
    for name in ("R1", "R2", "R3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "test.jsonl").write_text(row)
    rows = SETS["ANLI"].read(tmp_path)
    assert [(each.part, each.label) for each in rows] == [(n, "entailment") for n in ("R1", "R2", "R3")]
    assert len(SETS["ANLI"].read(tmp_path / "R1" / "test.jsonl")) == 1
    header = ("id", "sentence1", "sentence2", "label")
    path = write(tmp_path / "test.tsv", header, ("1", "b'a to b'", "b to a", "0"))
    assert SETS["PAWS"].read(path)[0].texts == ("a to b", "b to a")


@pytest.mark.parametrize(
    "name,labels,texts",
    [
        ("AdvGLUE-SST-2", ("a", "b"), 1),
        ("AdvGLUE-SST-2", ("0", "1"), 2),
        ("AdvGLUE-MNLI", ("0", "1"), 2),
        ("AdvGLUE-QNLI", ("neutral", "entailment", "contradiction"), 2),
        ("IMDB-contrast", ("neg", "pos", "neutral"), 1),
    ],
)
def test_a_model_of_something_else_is_refused(name, labels, texts):
    with pytest.raises(UserError, match=f"the set {name} is for models of"):
        SETS[name].meaning(model(labels, texts))


@pytest.mark.parametrize(
    "content,message",
    [
        ("{}", "no 'sst2'"),
        ('{"sst2": [{"sentence": "a", "label": 2}]}', "sst2 1: bad label 2; the set has 0 to 1"),
        ('{"sst2": [{"label": 1}]}', "sst2 1: no 'sentence'"),
        ('{"sst2": []}', "the file has no rows"),
        ('{"sst2": [{"sentence": " ", "label": 1}]}', "an empty text"),
        ("[1]", "holds a JSON list"),
    ],
)
def test_a_file_that_is_not_the_official_one_is_refused(content, message, tmp_path):
    (tmp_path / "dev.json").write_text(content)
    with pytest.raises(UserError, match=message):
        SETS["AdvGLUE-SST-2"].read(tmp_path)
