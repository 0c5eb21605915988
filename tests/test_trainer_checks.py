"""What stops a training before its first update, and what NaN gradients say; in one line."""

import os
import subprocess
import sys

import pytest
from fairseq.trainer import Trainer

import training
from adv_plugins import trainer_checks
from fairseq_compat.errors import UserError


def train(tmp_path, criterion, *flags, kind="classification", arch="asa_roberta"):
    data = training.write_data(tmp_path / "data", kind)
    return training.train(data, tmp_path / "saved", kind, criterion, *flags, arch=arch)


NAN = ("--lr", "1e30", "--max-epoch", "2")
REFUSED = [
    ("asa_criterion", (), dict(arch="roberta"), "ASA needs a model with adversaries.*--arch asa_rob"),
    ("rat_criterion", ("--asa-weight", "1"), dict(arch="roberta"), "--arch asa_roberta"),
    ("rapt_criterion", ("--noise-max-layer", "3"), {}, "--noise-max-layer 3 is more than the 2 layers"),
    ("rat_criterion", ("--base-criterion", "masked_lm"), {}, "masked_lm does not fit --task sentence_p"),
    (
        "sentence_prediction",
        ("--best-checkpoint-metric", "mcc"),
        {},
        "--best-checkpoint-metric mcc is not reported in validation: give --report-mcc, too",
    ),
    ("rat_criterion", ("--best-checkpoint-metric", "acc_and_f1"), {}, "give --report-acc-and-f1, too"),
    ("sentence_prediction", ("--best-checkpoint-metric", "f1"), {}, "give --report-acc-and-f1, too"),
    (
        "asa_criterion",
        ("--best-checkpoint-metric", "pearson"),
        dict(kind="regression"),
        "give --report-pearson-and-spearman, too",
    ),
    (
        "sentence_ranking",
        ("--best-checkpoint-metric", "mcc"),
        dict(kind="multiple-choice"),
        "mcc is not reported in validation of this task: give accuracy or loss",
    ),
    ("sentence_prediction", ("--report-acc-and-f1",), {}, "--report-acc-and-f1.*--num-classes is 3"),
]


@pytest.mark.parametrize("criterion,flags,others,message", REFUSED)
def test_it_stops_before_the_first_update(tmp_path, monkeypatch, criterion, flags, others, message):
    monkeypatch.setattr(Trainer, "train_step", lambda *args, **kwargs: pytest.fail("trained"))
    with pytest.raises(UserError, match=message) as found:
        train(tmp_path, criterion, *flags, **others)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "criterion,flags",
    [
        ("rat_criterion", ("--best-checkpoint-metric", "mcc", "--report-mcc")),
        ("asa_criterion", ("--consistency-weight", "0", "--arch", "roberta")),
    ],
)
def test_what_fits_trains(tmp_path, criterion, flags):
    assert train(tmp_path, criterion, *flags, "--max-epoch", "1")["model"]


@pytest.mark.parametrize(
    "start,flags,last",
    [
        ("5", ("--max-update", "5"), 5),
        ("4", ("--max-update", "5"), None),
        ("15", ("--max-epoch", "3"), 15),
        ("14", ("--max-epoch", "3"), None),
        ("9", ("--max-epoch", "3", "--update-freq", "2"), 9),
    ],
)
def test_a_start_that_is_never_reached_is_said_at_the_start(tmp_path, caplog, start, flags, last):
    train(tmp_path, "freelb_criterion", "--adv-start-update", start, *flags)
    lines = [record.getMessage() for record in caplog.records]
    said = [line for line in lines if "--adv-start-update" in line and "plain fine-tuning" in line]
    assert bool(said) == (last is not None)
    if said:
        assert len(said) == 1 and f"this training's {last} updates" in said[0]


@pytest.mark.parametrize("precision", [(), ("--amp",)])
@pytest.mark.parametrize(
    "criterion,advice",
    [
        ("sentence_prediction", "--warmup-updates;"),
        ("freelb_criterion", "a later --adv-start-update"),
        ("rapt_criterion", "a smaller --noise-eta"),
    ],
)
def test_nan_gradients_say_what_to_do(tmp_path, criterion, advice, precision):
    method = ("--noise-max-layer", "1") if criterion == "rapt_criterion" else ()
    with pytest.raises(UserError, match="update [23]: .*smaller --lr.*" + advice):
        train(tmp_path, criterion, *NAN, *method, *precision)


def test_the_command_ends_in_one_line(tmp_path):
    """As a process of its own: no traceback."""
    data = training.write_data(tmp_path / "data", "classification")
    line = f"{data} --user-dir {training.ROOT}/adv_plugins --save-dir {tmp_path} --arch asa_roberta"
    line = f"{line} --criterion freelb_criterion {training.TINY} {training.KIND_FLAGS['classification']}"
    command = [sys.executable, "-c", "import fairseq_compat; fairseq_compat.install(); "]
    command[-1] += "from fairseq_cli.train import cli_main; cli_main()"
    found = subprocess.run(
        [*command, *line.split(), *training.ADAM.split(), *NAN],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(training.ROOT)},
        check=False,
    )
    assert found.returncode == 1 and "Traceback" not in found.stderr
    last = found.stderr.splitlines()[-1]
    assert last.startswith("adv_plugins: error: update 2: gradients are Nan/Inf. ")


def test_wrapping_twice_is_wrapping_once():
    method = Trainer.__init__
    trainer_checks.add_checks()
    assert Trainer.__init__ is method
