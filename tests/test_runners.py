"""The runners: one run a folder, nobody's weights under another's name, no process left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import training
from adv_plugins_cli import finetune
from adv_plugins_cli.checkpoints import checkpoint_file, finished
from adv_plugins_cli.recipes import attempt as attempts
from adv_plugins_cli.recipes import run_folder, runs
from adv_plugins_cli.recipes.attempt import Attempt
from adv_plugins_cli.recipes.command_line import UserError

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples"), os.environ.get("PYTHONPATH", "")]),
}
OLD = (
    "fairseq-train data --lr 1e-5 --adam-betas (0.9,0.98) --fp16 --seed 1 --save-dir a --lr 2e-5".split()
)
NEW = "fairseq-train data --lr 2e-5 --adam-betas (0.9,0.99) --seed=1 --save-dir b --clip-norm -1".split()


def test_the_difference_of_two_commands_is_that_of_their_last_values():
    assert run_folder.differences(OLD, OLD) == []
    assert run_folder.differences(OLD, NEW) == [
        "--adam-betas (0.9,0.98) -> (0.9,0.99)",
        "--fp16 -> not given",
        "--clip-norm not given -> -1",
    ]
    assert run_folder.differences(OLD, [*OLD[:1], "other", *OLD[2:]]) == ["data data -> other"]


def test_checkpoints_of_another_command_are_not_continued(tmp_path):
    with run_folder.taken(tmp_path, OLD, advice="ask"):
        pass
    with run_folder.taken(tmp_path, NEW, advice="ask"):
        pass  # nothing was saved yet
    (tmp_path / "checkpoint_last.pt").write_text("weights")
    with pytest.raises(UserError, match=r"other settings \(.*--fp16 not given -> .*continue it, ask"):
        with run_folder.taken(tmp_path, OLD, advice="ask"):
            pass
    with run_folder.taken(tmp_path, NEW, advice="ask"):
        pass
    (tmp_path / run_folder.SETTINGS).unlink()
    with pytest.raises(UserError, match=r"holds checkpoints, but no settings\.json"):
        run_folder.check(tmp_path, NEW, advice="ask")


def test_starting_over_moves_aside_and_deletes_nothing(tmp_path, capsys):
    folder = tmp_path / "run"
    for number in (1, 2):
        with run_folder.taken(folder, OLD if number == 1 else NEW, advice="ask", start_over=True):
            (folder / "checkpoint_last.pt").write_text(f"weights {number}")
    with run_folder.taken(folder, OLD, advice="ask", start_over=True):
        assert {path.name for path in folder.iterdir()} == {run_folder.LOCK, run_folder.SETTINGS}
    for number in (1, 2):
        aside = folder.with_name(f"run.before-{number}")
        assert (aside / "checkpoint_last.pt").read_text() == f"weights {number}"
    assert f"moved aside to {aside}" in capsys.readouterr().out


HOLDS = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from adv_plugins_cli.recipes import run_folder
with run_folder.locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_in_a_folder_is_refused_until_the_first_is_gone(tmp_path):
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, env=ENVIRONMENT
    )
    assert first.stdout and first.stdout.readline() == b"held\n"
    began = time.monotonic()
    with pytest.raises(UserError, match=f"another run is at work there .process {first.pid}"):
        with run_folder.locked(tmp_path):
            pass
    assert time.monotonic() - began < 5
    first.send_signal(signal.SIGKILL)
    first.wait()
    with run_folder.locked(tmp_path):
        pass


RUNNER = """
import sys
from pathlib import Path
from types import SimpleNamespace
from adv_plugins_cli.recipes import children, runs
children.terminate_by_exception()
child = "import os, time; print('training', os.getpid(), flush=True); time.sleep(90)"
runs.run_in_foreground([sys.executable, "-c", child], Path(sys.argv[1]))
"""


def is_alive(number):
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_training_ends_with_its_runner(tmp_path, number):
    log = tmp_path / "train.log"
    runner = subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(log)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
        # What a shell starts in the background ignores SIGINT, and so would all that it starts.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert runner.stdout
    line = runner.stdout.readline().split()
    assert line[0] == b"training" and log.read_bytes().startswith(b"training ")
    assert is_alive(int(line[1]))
    runner.send_signal(number)
    assert runner.wait(30) != 0
    deadline = time.monotonic() + 10
    while is_alive(int(line[1])):
        assert time.monotonic() < deadline
        time.sleep(0.05)


BACKGROUND = """
import multiprocessing, sys
from pathlib import Path
from types import SimpleNamespace
from adv_plugins_cli.recipes import runs
def report(run, numbers):
    print("training", multiprocessing.active_children()[0].pid, flush=True)
run = runs.Run("long", ["fairseq-train", *sys.argv[2:]], Path(sys.argv[1]), "accuracy")
runs.run_in_background([run], jobs=1, report=report)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_trainings_in_the_background_end_with_their_runner(tmp_path):
    data = training.write_data(tmp_path / "bin", "classification")
    line = f"{data} --save-dir {tmp_path / 'out'} --no-save --user-dir {ROOT / 'adv_plugins'} "
    line += f"--arch roberta --criterion sentence_prediction {training.TINY} "
    line += f"{training.KIND_FLAGS['classification']} "
    command = f"{line} {training.ADAM} --max-epoch 100000".split()
    runner = subprocess.Popen(
        [sys.executable, "-c", BACKGROUND, str(tmp_path / "out"), *command],
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert runner.stdout
    said = next(line for line in runner.stdout if line.startswith(b"training "))
    child = int(said.split()[1])
    assert is_alive(child)
    runner.kill()
    runner.wait()
    deadline = time.monotonic() + 10
    while is_alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


TRACEBACK = """Traceback (most recent call last):
  File "train.py", line 1, in <module>
{}
"""


@pytest.mark.parametrize(
    "text,reason",
    [
        (
            TRACEBACK.format("OSError: [Errno 28] No space left on device: 'x.pt'"),
            "exit code 1: OSError: ",
        ),
        (TRACEBACK.format("torch.OutOfMemoryError: CUDA") + "\nlater\n", "torch.OutOfMemoryError: CUDA"),
        (
            TRACEBACK.format("FloatingPointError: gradients are Nan/Inf")
            + TRACEBACK.format("StopIteration"),
            "FloatingPointError: gradients are Nan/Inf",
        ),
        ("usage: x\nfairseq-train: error: unrecognized arguments: --x\n", "unrecognized arguments: --x"),
        ("only this\n", "exit code 1: only this"),
        ("", "exit code 1: no output"),
    ],
)
def test_a_failure_is_told_in_one_line(tmp_path, text, reason):
    log = tmp_path / "train.log"
    log.write_text("Traceback of an earlier attempt\nValueError: old\n")
    attempt = Attempt.next(log)
    with log.open("a") as file:
        file.write(text)
    assert reason in attempt.reason(1) and "\n" not in attempt.reason(1)
    assert "SIGKILL, perhaps out of memory" in attempt.reason(-signal.SIGKILL)


@pytest.mark.parametrize("free,reason", [(0, "No space left on device for its log"), (1, "{'_name':;")])
def test_a_log_that_ends_on_a_full_disk_says_so_in_a_line_of_its_own(
    tmp_path, monkeypatch, capfd, free, reason
):
    monkeypatch.setattr(attempts.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    command = [sys.executable, "-c", "import sys; print(\"{'_name': \", end=''); sys.exit(1)"]
    assert runs.run_in_foreground(command, tmp_path / "train.log") == 1
    shown = capfd.readouterr()
    assert shown.out == "{'_name': \n"
    assert shown.err.startswith(f"error: training failed, exit code 1: {reason}")


TINY = (
    "--encoder-layers 2 --encoder-embed-dim 8 --encoder-ffn-embed-dim 8 --encoder-attention-heads 2 "
    "--max-positions 32 --num-classes 3 --cpu --batch-size 4 --lr 1e-3 --num-workers 0"
)


@pytest.fixture
def own(tmp_path):
    training.write_data(tmp_path / "bin" / "RTE-bin", "classification")
    line = f"RTE plain --from-scratch --arch roberta --data-bin {tmp_path / 'bin'}"
    return [*line.split(), "--save-dir", str(tmp_path / "out")]


def test_a_stopped_run_is_continued_with_its_own_settings_only(own, tmp_path, monkeypatch):
    """A run is stopped after its best validation; in place of fairseq-train, this process trains."""
    seen = []

    def train(command, log, keep_open=(), console=None):
        seen.append(command)
        os.fstat(*keep_open)
        training.run(command[1:])
        return -9 if len(seen) == 1 else 0

    monkeypatch.setattr(runs, "run_in_foreground", train)
    flags = [*TINY.split(), "--log-format", "none", "--save-interval-updates", "3", "--max-update", "9"]
    # killed: the first call trains to the end, but its last checkpoint is the one before
    assert finetune.main([*own, "--", *flags]) == 137
    out = tmp_path / "out"
    assert not (out / runs.RESULT).exists()
    with pytest.raises(SystemExit, match=r"other settings \(--lr 1e-3 -> 1e-4\).*--start-over"):
        finetune.main([*own, "--", *flags, "--lr", "1e-4"])
    with pytest.raises(SystemExit, match=r"adv-plugins finetune: error: -- --disable-validation"):
        finetune.main([*own, "--", *flags, "--disable-validation"])
    assert len(seen) == 1
    assert finetune.main([*own, "--", *flags, "--log-format", "simple"]) == 0
    result = json.loads((out / runs.RESULT).read_text())
    updates = [row["valid_num_updates"] for row in result["validations"]]
    assert updates == [3, 5, 6, 9], "of both attempts, each once"
    assert result["best"] == max(row["valid_accuracy"] for row in result["validations"])
    with pytest.raises(SystemExit, match="holds a finished run already"):
        finetune.main([*own, "--", *flags])
    assert finetune.main([*own, "--start-over", "--", *flags, "--lr", "1e-4"]) == 0
    assert (tmp_path / "out.before-1" / runs.RESULT).is_file() and (out / runs.RESULT).is_file()


def test_a_finished_run_leaves_no_optimizer_state(own, tmp_path, monkeypatch):
    """Killed on the way, the same command ends it without another training."""
    monkeypatch.setattr(
        runs, "run_in_foreground", lambda command, *_, **__: training.run(command[1:]) or 0
    )
    flags = [*TINY.split(), "--max-update", "4", "--save-interval-updates", "2"]
    out = tmp_path / "out"
    kept = [*own[:-1], str(tmp_path / "kept"), "--keep-optimizer"]
    assert finetune.main([*kept, "--", *flags]) == 0
    assert all(torch.load(path)["last_optimizer_state"] for path in (tmp_path / "kept").glob("*.pt"))

    read = []

    def interrupted(path):
        read.append(path)
        if len(read) == 2:
            raise KeyboardInterrupt
        return checkpoint_file.read_checkpoint(path)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(finished, "read_checkpoint", interrupted)
        finetune.main([*own, "--", *flags])
    assert not (out / runs.RESULT).exists()
    monkeypatch.setattr(runs, "run_in_foreground", lambda *_, **__: pytest.fail("it was trained again"))
    assert finetune.main([*own, "--", *flags]) == 0
    names = {path.name for path in (tmp_path / "kept").iterdir()}
    assert {path.name for path in out.iterdir()} == names and runs.TRAINED not in names
    checkpoints = sorted(out.glob("*.pt"))
    assert len(checkpoints) > 2
    for path in checkpoints:
        state, whole = torch.load(path), torch.load(tmp_path / "kept" / path.name)
        assert "last_optimizer_state" not in state and state["extra_state"]["val_loss"] is not None
        torch.testing.assert_close(state["model"], whole["model"], rtol=0, atol=0)
    # It begins another training, as before.
    again = training.train(
        tmp_path / "bin" / "RTE-bin",
        tmp_path / "again",
        "classification",
        "sentence_prediction",
        *("--finetune-from-model", str(out / "checkpoint_best.pt"), "--max-update", "1", "--lr", "0"),
        *("--encoder-ffn-embed-dim", "8"),
        arch="roberta",
    )
    best = torch.load(out / "checkpoint_best.pt")["model"]
    torch.testing.assert_close(again["model"], best, rtol=0, atol=0)


def test_what_the_metric_is_taken_from_is_the_first_subset(own, tmp_path, monkeypatch):
    monkeypatch.setattr(
        runs, "run_in_foreground", lambda command, *_, **__: training.run(command[1:]) or 0
    )
    flags = [
        *TINY.split(),
        "--valid-subset",
        "train",
        "--max-update",
        "2",
        "--ignore-unused-valid-subsets",
    ]
    assert finetune.main([*own, "--", *flags]) == 0
    result = json.loads((tmp_path / "out" / runs.RESULT).read_text())
    assert result["last"] == result["validations"][-1]["train_accuracy"]


def test_a_run_that_never_validated_says_so(own, monkeypatch):
    monkeypatch.setattr(
        runs, "run_in_foreground", lambda command, *_, **__: training.run(command[1:]) or 0
    )
    flags = [*TINY.split(), "--max-update", "2", "--validate-after-updates", "5"]
    with pytest.raises(SystemExit, match=r"never validated, so there is no result: see .*train\.log"):
        finetune.main([*own, "--", *flags])


@pytest.mark.parametrize(
    "arguments,message",
    [
        (("--seed", "1", "1"), "--seed: 1 is given twice"),
        (("--precision", "fp16"), "--precision fp16 needs a GPU"),
        (("--gpus", "0"), "--gpus 0: at least 1"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_run(own, arguments, message, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(runs, "run_in_foreground", lambda *_, **__: pytest.fail("something was run"))
    with pytest.raises(SystemExit, match=f"^adv-plugins finetune: error: .*{message}"):
        finetune.main([*own, *arguments])
