"""What a training shows on the terminal: its scores and how far it is, and not its whole log."""

import io
import json
from types import SimpleNamespace

import pytest

import training
from adv_plugins_cli import finetune
from adv_plugins_cli.recipes import console as consoles
from adv_plugins_cli.recipes import runs
from adv_plugins_cli.recipes.console import Console

COMMAND = "fairseq-train data --log-format json --max-update 40".split()


def line(name, numbers, level="INFO"):
    return f"2026-01-01 00:00:00 | {level} | {name} | {json.dumps(numbers)}\n"


@pytest.fixture
def terminal(monkeypatch):
    """Standard error as a terminal, for the console alone: pytest puts its own back."""
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(consoles, "sys", SimpleNamespace(stderr=stream))
    return stream


def test_updates_move_the_bar_and_validations_are_lines(terminal, capsys):
    shown = Console(COMMAND, "accuracy")
    assert "starting" in terminal.getvalue() and "0/40" in terminal.getvalue(), "from the first second"
    log = line("fairseq_cli.train", "{'_name': None, 'common': {}}") + "BertModel(\n  (encoder): x\n)\n"
    log += line("train_inner", {"epoch": 1, "loss": "0.731", "num_updates": "10", "lr": "1e-05"})
    log += line(
        "valid", {"epoch": 1, "valid_loss": "0.7", "valid_accuracy": "61.5", "valid_num_updates": "10"}
    )
    log += line("train", {"epoch": 1, "train_loss": "0.73", "train_num_updates": "10"})
    log += "2026-01-01 00:00:00 | WARNING | fairseq.x | of use\n"
    log += "2026-01-01 00:00:00 | INFO | adv_plugins.models.bert | begins as the pooler\n"
    log += "Traceback (most recent call last):\n"
    for start in range(0, len(log), 7):  # as it comes
        shown.write(log[start : start + 7])
    shown.close()
    wanted = ["valid, 10 updates: accuracy 61.5, loss 0.7", "of use", "begins as the pooler"]
    assert capsys.readouterr().out.splitlines() == wanted
    bar = terminal.getvalue()
    assert "training" in bar and "10/40" in bar and "loss 0.731" in bar


def test_without_a_terminal_there_is_no_bar(capsys):
    shown = Console(COMMAND, "accuracy")
    shown.write(line("train_inner", {"loss": "nan", "num_updates": "10"}))
    shown.write(line("valid", {"valid_f1": "3", "valid_num_updates": "20"}))
    shown.close()
    found = capsys.readouterr()
    assert found.out == "valid, 20 updates: \n" and found.err == ""


def test_only_a_log_in_json_can_be_read():
    assert Console.reads(COMMAND)
    assert not Console.reads([*COMMAND, "--log-format", "simple"])
    assert not Console.reads(["fairseq-train", "data"])


def test_it_ends_with_scores_and_the_next_commands(tmp_path, monkeypatch, capsys):
    """In place of fairseq-train, this process trains, with its log where it belongs."""
    training.write_data(tmp_path / "bin" / "RTE-bin", "classification")
    sizes = (
        "--encoder-layers 1 --encoder-embed-dim 8 --encoder-ffn-embed-dim 8 --num-workers 0 "
        "--encoder-attention-heads 2 --max-positions 32 --num-classes 3 --cpu --max-update 2"
    )
    own = f"RTE plain --from-scratch --arch roberta --data-bin {tmp_path / 'bin'} --seed 1 2"
    own += f" --save-dir {tmp_path / 'my run'}".replace("my run", "my-run")
    given = []

    def train(command, log, keep_open=(), console=None):
        given.append(console)
        training.run(command[1:])
        return 0

    monkeypatch.setattr(runs, "run_in_foreground", train)
    assert finetune.main([*own.split(), "--", *sizes.split()]) == 0
    assert all(isinstance(each, Console) for each in given) and len(given) == 2
    lines = capsys.readouterr().out.splitlines()
    assert "accuracy of 2 seeds, the best validation of each: mean " in lines[-3]
    assert lines[-2] == f"adv-plugins predict {tmp_path}/my-run/seed2/checkpoint_best.pt --input FILE"
    assert lines[-1].startswith("adv-plugins evaluate ") and lines[-1].endswith("RTE-bin")
    again = [*own.split()[:-1], str(tmp_path / "verbose"), "--verbose"]
    assert finetune.main([*again, "--", *sizes.split()]) == 0
    assert isinstance(given[-1], consoles.Raw)
