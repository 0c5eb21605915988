"""Attacks in text: what they may change, how they search, on victims whose answers are known."""

import json

import numpy as np
import pytest

from adv_plugins_cli.command import UserError
from adv_plugins_cli.robustness.attacks.search import Limits, attack
from adv_plugins_cli.robustness.attacks.synonyms import read_neighbours, synonyms
from adv_plugins_cli.robustness.attacks.typos import KEYBOARD, typos
from adv_plugins_cli.robustness.attacks.words import like, split
from adv_plugins_cli.robustness.report import changes
from adv_plugins_cli.robustness.results_file import ResultsFile
from adv_plugins_cli.robustness.rows import TextRow
from adv_plugins_cli.robustness.text_study import (
    adversarial_table,
    attack_rows,
    consistent,
    labelled,
    summarise_attack,
)

GOOD = {"film": 0.4, "wonderful": 2.0, "great": 1.0}
LIST = {"wonderful": ["brilliant", "great", "a lot", "wonderful"], "great": ["grand"], "film": ["movie"]}
TEXT = "What a Wonderful, great film it is!"


class Victim:
    """The probability of class 1 grows with the words it knows; it counts what it is asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, rows):
        self.asked += rows
        score = [sum(GOOD.get(w.strip("!,").lower(), 0) for w in row[-1].split()) for row in rows]
        p = 1 / (1 + np.exp(1.5 - np.array(score)))
        return np.stack([1 - p, p], axis=1)


def near(word, _place):
    return synonyms(word, 5, LIST)


def test_the_most_important_word_goes_first_and_to_what_hurts_most():
    victim = Victim()
    found = attack(victim, ("premise", TEXT), {1}, near, Limits(share=1.0))
    # wonderful (2.0) goes to brilliant (0), not to great (1.0); 1.4 are left, which is below 1.5
    assert found.texts == ("premise", "What a Brilliant, great film it is!")
    assert (found.outcome, found.changed, found.words) == ("broken", 1, 7)
    assert found.queries == len(victim.asked)
    assert found.after < 0.5 < found.before


def test_the_nearest_word_that_breaks_is_taken():
    found = attack(Victim(), (TEXT,), {1}, lambda w, _: ["great", "dull", "bad"], Limits(share=1.0))
    assert found.texts == ("What a Dull, great film it is!",)


def test_what_is_wrong_already_is_left_alone():
    victim = Victim()
    found = attack(victim, (TEXT,), {0}, near, Limits())
    assert (found.outcome, found.queries, found.texts) == ("wrong", 1, (TEXT,))
    assert len(victim.asked) == 1


def test_several_classes_may_be_right():
    assert attack(Victim(), (TEXT,), {0, 1}, near, Limits(share=1.0)).outcome == "held"


@pytest.mark.parametrize("most", [1, 2, 4, 6])
def test_no_more_queries_than_allowed(most):
    victim = Victim()
    found = attack(victim, (TEXT,), {1}, lambda *_: ["great"], Limits(share=1.0, queries=most))
    assert found.queries == len(victim.asked) <= most and found.outcome == "held"


def test_no_more_words_than_allowed():
    found = attack(Victim(), (TEXT,), {1}, lambda *_: ["great"], Limits(share=0.1))
    assert (found.changed, found.texts) == (0, (TEXT,))
    text = "wonderful great great great great great"
    found = attack(Victim(), (text,), {1}, lambda *_: ["film"], Limits(share=0.5))
    assert found.changed == 3 and found.outcome == "held"


def test_stop_words_stay():
    asked = set()

    def none(word, _place):
        asked.add(word)
        return []

    attack(Victim(), (TEXT,), {1}, none, Limits(share=1.0))
    assert asked == {"Wonderful", "great", "film"}, "what, a, it and is are stop words"


def test_words_and_gaps_are_the_text():
    for text in (TEXT, "", "...", "It's a well-made film (1990)", " two  spaces "):
        assert split(text).text() == text
    assert split("the film, then").text({1: ""}) == "the , then"
    assert [like("movie", word) for word in ("film", "Film", "FILM")] == ["movie", "Movie", "MOVIE"]


def test_typos_are_of_all_kinds_and_leave_the_ends():
    found = typos("wonder", 400, 1)
    assert {len(each) for each in found} == {5, 6, 7} and len(set(found)) == len(found)
    assert all(each[0] == "w" and each[-1] == "r" and each != "wonder" for each in found)
    assert "wnoder" in found and "wnder" in found
    assert typos("wonder", 4, 1) == typos("wonder", 4, 1) != typos("wonder", 4, 2)
    assert typos("the", 9, 1) == typos("a1b2c3", 9, 1) == []
    assert set(KEYBOARD["s"]) == set("weadzx")
    for letter, around in KEYBOARD.items():
        assert all(letter in KEYBOARD[other] for other in around)


def test_synonyms_are_single_words_the_nearest_first():
    assert synonyms("Wonderful", 5, LIST) == ["brilliant", "great"]
    assert synonyms("wonderful", 1, LIST) == ["brilliant"] and synonyms("dog", 5, LIST) == []


def test_the_real_list(real_data):
    found = read_neighbours(real_data / "robustness" / "attack" / "counterfitted_neighbors.json")
    assert synonyms("movie", 3, found) == ["film", "filmmaking", "films"]


@pytest.mark.parametrize(
    "content,message",
    [
        ({"a": "b"}, "'a' has no list of words"),
        ({"a": [["b", 0.5]]}, "'a' has no list of words"),
        ({"a": []}, "no word has a neighbour"),
        ([["a", "b"]], "holds a JSON list"),
    ],
)
def test_a_list_of_another_format_is_refused(content, message, tmp_path):
    (tmp_path / "list.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_neighbours(tmp_path / "list.json")


def test_the_study_of_several_rows(tmp_path):
    texts = [TEXT, "wonderful wonderful great", "dull", "a great film"]
    rows = [TextRow((text,), "good", f"file:{i}") for i, text in enumerate(texts)]
    text = labelled("mine", rows, ["bad", "good"])
    victim = Victim()
    results = ResultsFile(tmp_path / "rows.jsonl", {})
    found = attack_rows(victim, text, lambda _row: near, Limits(share=0.4), results, "mine")
    # the last two are below 1.5 from the start; one word of the second may change, which is too few
    assert [row["outcome"] for row in found] == ["broken", "held", "wrong", "wrong"]
    summary = summarise_attack(found)
    assert summary == {
        "rows": 4,
        "accuracy": 50,
        "accuracy_under_attack": 25,
        "success": 50,
        "queries": pytest.approx((found[0]["queries"] + found[1]["queries"]) / 2),
        "words_changed": pytest.approx(100 / 7),
    }
    header, line = adversarial_table(text, found).splitlines()
    fields = dict(zip(header.split("\t"), line.split("\t")))
    assert (fields["row"], fields["label"], fields["changed"]) == ("0", "good", "1")
    assert (fields["original"], fields["adversarial"]) == (TEXT, "What a Brilliant, great film it is!")
    asked = len(victim.asked)
    again = attack_rows(
        victim, text, lambda _row: near, Limits(), ResultsFile(tmp_path / "rows.jsonl", {}), ""
    )
    assert len(victim.asked) == asked and [row["outcome"] for row in again] == [
        row["outcome"] for row in found
    ]


def test_a_pair_is_consistent_if_both_rows_are_right():
    rows = [TextRow(("x",), "good", "", None, group) for group in ("1", "2", "1", "2")]
    text = labelled("mine", rows, ["bad", "good"])
    assert consistent(np.array([True, True, True, False]), text).tolist() == [True, False]


def test_changes_are_marked_on_both_sides():
    one, other = ["a <b> film"], ["a <b> movie"]
    assert changes(one, other, old=True) == "a &lt;b&gt; <del>film</del>"
    assert changes(one, other, old=False) == "a &lt;b&gt; <ins>movie</ins>"
