"""What stops a training before its first update, and what NaN gradients say; in one line."""

import gc
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from fairseq import metrics, tasks
from fairseq.criterions import FairseqCriterion
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
    (
        "rat_criterion",
        ("--best-checkpoint-metric", "xyz"),
        {},
        "--best-checkpoint-metric xyz is not reported in validation: take one of accuracy, loss",
    ),
    (
        "masked_lm",
        ("--best-checkpoint-metric", "accuracy"),
        dict(kind="masked-lm"),
        "--best-checkpoint-metric accuracy is not reported in validation: take one of loss, ppl",
    ),
    (
        "masked_lm",
        ("--max-positions", "8"),
        dict(kind="masked-lm"),
        "the split valid does not fit the model .*--max-positions.*--tokens-per-sample",
    ),
    (
        "masked_lm",
        ("--max-positions", "2", "--disable-validation"),
        dict(kind="masked-lm"),
        "the split train does not fit the model .*--max-positions.*--tokens-per-sample",
    ),
    ("sentence_prediction", ("--report-acc-and-f1",), {}, "--report-acc-and-f1.*--num-classes is 3"),
]


@pytest.mark.parametrize("criterion,flags,others,message", REFUSED)
def test_it_stops_before_the_first_update(tmp_path, monkeypatch, criterion, flags, others, message):
    monkeypatch.setattr(Trainer, "train_step", lambda *args, **kwargs: pytest.fail("trained"))
    with pytest.raises(UserError, match=message) as found:
        train(tmp_path, criterion, *flags, **others)
    assert "\n" not in str(found.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("start", [False, True])
def test_fp16_without_a_gpu_is_named(tmp_path, start):
    flags = ["--fp16"]
    if start:
        train(tmp_path, "sentence_prediction", "--max-update", "1")
        flags += ["--finetune-from-model", str(tmp_path / "saved" / "checkpoint_last.pt")]
    data = tmp_path / "data" if start else training.write_data(tmp_path / "data", "classification")
    with pytest.raises(UserError, match="^--fp16 needs a GPU"):
        kind, criterion = "classification", "sentence_prediction"
        training.train(data, tmp_path / "half", kind, criterion, *flags, arch="asa_roberta")


def rewrite(name, change):
    """A step that changes the bytes of a file of the data."""

    def step(data):
        path = data / name
        path.write_bytes(change(path.read_bytes()))

    return step


def line(number, text):
    """A step that replaces a line of the training labels, counted from 1."""

    def change(content):
        lines = content.splitlines()
        lines[number - 1] = text
        return b"\n".join(lines) + b"\n"

    return rewrite("label/train.label", change)


def relabel(index):
    """A step that gives the first training row another index of a label."""

    def change(content):
        kind = np.uint16
        return np.array([index], dtype=kind).tobytes() + content[np.dtype(kind).itemsize :]

    return rewrite("label/train.bin", change)


def without(name):
    return lambda data: (data / name).unlink()


def instead(name, other):
    """A step that puts a file of the data in the place of another one."""
    return lambda data: shutil.copyfile(data / other, data / name)


def shorter_labels(data):
    for end in ("idx", "bin"):
        instead(f"label/train.{end}", f"label/valid.{end}")(data)


DATA_FAULTS = [
    ("classification", rewrite("input0/train.idx", lambda b: b""), r"input0/train\.idx: damaged"),
    ("classification", rewrite("input0/train.idx", lambda b: b"x" * 99), r"input0/train\.idx: damaged"),
    ("classification", rewrite("input0/train.idx", lambda b: b[:20]), r"train\.idx: .*end is missing"),
    ("masked-lm", rewrite("train.idx", lambda b: b[:60]), r"/train\.idx: .*end is missing"),
    ("masked-lm", rewrite("train.bin", lambda b: b[:40]), r"/train\.bin: damaged, it has 40 bytes"),
    ("token-classification", rewrite("label/train.bin", lambda b: b""), r"label/train\.bin: empty"),
    ("regression", rewrite("input0/dict.txt", lambda b: b""), r"valid\.bin: .* dictionary, dict\.txt"),
    (
        "multiple-choice",
        without("input2/train.bin"),
        r"input2/train\.idx, or the \.bin .*: no such file",
    ),
    ("multiple-choice", without("label/train.label"), "label/train: no labels of the split train"),
    ("multiple-choice", without("label/valid.label"), "label/valid: no labels of the split valid"),
    ("multiple-choice", line(2, b"a"), r"label/train\.label:2: 'a' is no whole number"),
    ("multiple-choice", line(2, b"1.5"), r"label/train\.label:2: '1\.5' is no whole number"),
    ("multiple-choice", line(3, b"3"), r"label/train\.label:3: 3 is none of the candidates"),
    ("multiple-choice", line(3, b"-1"), r"label/train\.label:3: -1 is none of the candidates"),
    ("multiple-choice", line(4, b"\xff"), r"label/train\.label:4: not UTF-8 text"),
    ("regression", line(2, b"a"), r"label/train\.label:2: 'a' is no number"),
    ("regression", line(2, b"1 2"), r"label/train\.label:2: 2 labels in place of 1"),
    ("regression", line(2, b"nan"), r"label/train\.label:2: .* not finite"),
    ("regression", line(18, b"-inf"), r"label/train\.label:18: .* not finite"),
    (
        "regression",
        instead("label/train.label", "label/valid.label"),
        "10 rows, but .*input0/train has 18",
    ),
    ("classification", shorter_labels, "label/train: 10 rows, but .*input0/train has 18"),
    ("classification", without("label/train.idx"), "label/train: no labels of the split train"),
    ("classification", relabel(3), r"label/train\.bin: holds the label '<unk>', .*--num-classes 3"),
    ("classification", relabel(2), r"label/train\.bin: holds 17 labels for 18 rows"),
    ("classification", relabel(99), r"label/train\.bin: holds the index 99"),
]
CRITERION = {
    "multiple-choice": "sentence_ranking",
    "masked-lm": "masked_lm",
    "token-classification": "token_classification",
}


@pytest.mark.parametrize("kind,damage,message", DATA_FAULTS)
def test_damaged_data_are_named_before_the_first_update(
    tmp_path, monkeypatch, capsys, kind, damage, message
):
    monkeypatch.setattr(Trainer, "train_step", lambda *args, **kwargs: pytest.fail("trained"))
    data = training.write_data(tmp_path / "data", kind)
    damage(data)
    with pytest.raises(UserError, match=message) as found:
        criterion = CRITERION.get(kind, "sentence_prediction")
        training.train(data, tmp_path / "saved", kind, criterion, arch="roberta")
    assert "\n" not in str(found.value)
    gc.collect()
    assert "Exception ignored" not in capsys.readouterr().err


def test_data_in_two_parts_and_unlabelled_tests_are_read_as_ever(tmp_path):
    data = training.write_data(tmp_path, "classification")
    for name in ("input0", "label"):
        for end in ("idx", "bin"):
            instead(f"{name}/train1.{end}", f"{name}/valid.{end}")(data)
            instead(f"input0/test.{end}", f"input0/valid.{end}")(data)
    cfg = training.parse(
        [
            str(data),
            "--arch",
            "roberta",
            "--criterion",
            "sentence_prediction",
            *training.KIND_FLAGS["classification"].split(),
        ]
    )
    task = tasks.setup_task(cfg.task)
    assert len(task.load_dataset("train", combine=True, epoch=1)) == 28
    assert len(task.load_dataset("test")) == 10
    shorter_labels(data)
    with pytest.raises(UserError, match="label/train: 20 rows, but .*input0/train has 28"):
        task.load_dataset("train", combine=True, epoch=1)


class OwnCriterion(FairseqCriterion):
    """A user's own, which needs no labels, and reports what only some batches have."""

    def forward(self, model, sample, reduce=True):
        logits, _ = model(
            **sample["net_input"],
            features_only=True,
            classification_head_name="sentence_classification_head",
        )
        if not self.training:
            torch.rand(1)
        logging = {"loss": 1.0, "sample_size": 1, "rare": sample["nsentences"] == 2}
        return logits.pow(2).sum(), 1, logging

    @staticmethod
    def reduce_metrics(logging_outputs):
        metrics.log_scalar("loss", sum(log["loss"] for log in logging_outputs))
        if any(log["rare"] for log in logging_outputs):
            metrics.log_scalar("rare", 1)


@pytest.mark.parametrize(
    "criterion,flags",
    [
        ("rat_criterion", ("--best-checkpoint-metric", "mcc", "--report-mcc")),
        ("asa_criterion", ("--consistency-weight", "0", "--arch", "roberta")),
    ],
)
def test_what_fits_trains(tmp_path, criterion, flags):
    assert train(tmp_path, criterion, *flags, "--max-epoch", "1")["model"]


def test_a_criterion_of_ones_own_is_not_refused(tmp_path, monkeypatch):
    """It trains without labels, as if nobody had looked at its validation, and its metric is found."""
    monkeypatch.setattr(tasks.FairseqTask, "build_criterion", lambda self, cfg: OwnCriterion(self))
    data = training.write_data(tmp_path / "data", "classification")
    for split in ("train", "valid"):
        without(f"label/{split}.idx")(data)
    first = []
    step = Trainer.train_step

    def train_step(self, samples, **more):
        first.append((torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()))
        return step(self, samples, **more)

    monkeypatch.setattr(Trainer, "train_step", train_step)
    states = []
    for name in ("rare", "loss"):
        flags = ("--best-checkpoint-metric", name, "--max-update", "2")
        state = training.train(
            data, tmp_path / name, "classification", "sentence_prediction", *flags, arch="roberta"
        )
        states.append(state["model"])
    assert len(first) == 4
    for looked, plain in zip(first[:2], first[2:]):
        assert torch.equal(looked[0], plain[0]) and np.array_equal(looked[1], plain[1])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])


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
