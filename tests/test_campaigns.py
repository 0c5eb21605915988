"""The judge of the campaign of bad inputs fails every way to take one badly; its cases are sound."""

import re
import time

import pytest

import campaign_judge
from bad_inputs import all_cases
from campaign_fixtures import write
from campaign_judge import Case, run

SCRIPTS = campaign_judge.MEASURE
GOOD = "sys.exit('fake.py: error: --flag 3: at least 4')"


def judged(tmp_path, monkeypatch, body, **more):
    """The faults of a command with this body."""
    script = tmp_path / "fake.py"
    script.write_text(f"import os, subprocess, sys, time, warnings\n{body}\n")
    monkeypatch.setitem(campaign_judge.TOOLS, "fake", (str(script),))
    case = Case(**{"tool": "fake", "wrong": "all", "command": ["{in}"], "says": "--flag", **more})
    (verdict,) = run([case], tmp_path)
    return verdict.faults


@pytest.mark.parametrize("fresh", [False, True])
def test_one_clear_line_holds(tmp_path, monkeypatch, fresh):
    assert judged(tmp_path, monkeypatch, GOOD, fresh=fresh) == []


def test_argparse_is_one_clear_line(tmp_path, monkeypatch):
    body = "import argparse\np = argparse.ArgumentParser()\np.add_argument('--flag', required=True)"
    assert judged(tmp_path, monkeypatch, f"{body}\np.parse_args([])") == []


@pytest.mark.parametrize(
    "body, fault",
    [
        ("raise KeyError('--flag')", "a traceback"),
        ("sys.exit(1)", "says nothing"),
        ("print('all is well')", "goes on as if nothing were wrong"),
        ("sys.exit('fake.py: error: something is wrong')", "does not name"),
        ("print('error: another'); " + GOOD, "2 error lines"),
        ("sys.exit('error: --flag ' + 'x' * 5000)", "characters"),
        ("open('half.pt', 'w').close(); " + GOOD, "left behind: half.pt"),
        ("open(sys.argv[1] + '/a', 'w').close(); " + GOOD, "left behind: a"),
        ("os.mkdir(sys.argv[1] + '/../marker'); " + GOOD, "ran code of the file"),
        ("os.kill(os.getpid(), 9)", "killed by signal 9"),
    ],
)
def test_a_bad_way_fails(tmp_path, monkeypatch, body, fault):
    assert any(fault in each for each in judged(tmp_path, monkeypatch, body))


@pytest.mark.parametrize("fresh", [False, True])
def test_an_endless_wait_fails_and_ends_with_all_it_started(tmp_path, monkeypatch, fresh):
    began = time.monotonic()
    body = f"subprocess.Popen(['sh', '-c', 'sleep 2; touch {tmp_path}/late']); time.sleep(60)"
    (fault,) = judged(tmp_path, monkeypatch, body, fresh=fresh, limit=1)
    assert fault == "hangs: still running after 1 s" and time.monotonic() - began < 30
    time.sleep(1.5)
    assert not (tmp_path / "late").exists()


def test_input_that_is_changed_or_removed_fails(tmp_path, monkeypatch):
    more = {"prepare": [write("a", "x"), write("b", "y")]}
    body = "open(sys.argv[1] + '/a', 'w').close(); os.remove(sys.argv[1] + '/b')"
    assert judged(tmp_path, monkeypatch, f"{body}; {GOOD}", **more) == ["changed: a", "removed: b"]
    assert judged(tmp_path, monkeypatch, body, outcome="either", **more) == ["changed: a", "removed: b"]


def test_what_has_to_work(tmp_path, monkeypatch):
    more = {"outcome": "works", "says": "done"}
    assert judged(tmp_path, monkeypatch, "print('done'); open('made', 'w')", **more) == []
    assert "does not print" in judged(tmp_path, monkeypatch, "print('nothing')", **more)[0]
    assert "has to work" in judged(tmp_path, monkeypatch, GOOD, **more)[0]
    more = {"outcome": "either"}
    assert judged(tmp_path, monkeypatch, GOOD, **more) == []
    assert judged(tmp_path, monkeypatch, "pass", **more) == []
    assert "a traceback" in judged(tmp_path, monkeypatch, "1 / 0", **more)


def test_a_case_that_cannot_be_prepared_is_no_success(tmp_path, monkeypatch):
    def broken(place):
        raise OSError("no")

    assert judged(tmp_path, monkeypatch, GOOD, prepare=[broken]) == ["the case could not be prepared"]


def test_the_commands_take_some_of_the_cases_well(tmp_path):
    chosen = {
        ("preprocess_glue", "a missing folder"),
        ("preprocess_task", "an unknown task"),
        ("download", "an unknown package"),
        ("finetune", "no start"),
        ("compare", "an unknown method"),
        ("predict", "nothing to predict"),
        ("strip_adversary", "no arguments"),
    }
    cases = [case for case in all_cases() if (case.tool, case.wrong) in chosen]
    verdicts = run(cases, tmp_path)
    assert {(each.case.tool, each.case.wrong): each.kind for each in verdicts} == dict.fromkeys(
        chosen, "one clear line"
    ), [each.as_json() for each in verdicts]


def test_the_cases_are_sound():
    cases = all_cases()
    names = [(case.tool, case.wrong) for case in cases]
    assert sorted(set(names)) == sorted(names)
    for case in cases:
        re.compile(case.says), re.compile(case.leaves or "")
        assert case.outcome in ("refuses", "works", "either")


def test_every_command_is_fed():
    fed = {case.tool for case in all_cases()}
    commands = {
        path.stem for path in SCRIPTS.glob("*.py") if 'if __name__ == "__main__":' in path.read_text()
    }
    # Tools that measure this package, which users have no inputs for.
    ours = (
        "against_",
        "campaign_",
        "finetune_times",
        "first_updates",
        "text_models",
        "measure_asa",
        "draw_",
        "help_",
        "full_round",
        "padding",
        "peers",
        "perturbation_",
    )
    not_for_users = {name for name in commands if name.startswith(ours)}
    assert commands - not_for_users <= fed
    assert {"finetune", "compare", "pretrain", campaign_judge.TRAIN} <= fed
