"""fairseq's own training command with our criterions, in this process, end to end."""

import logging

import pytest
import torch

import training
from methods import METHODS, named, with_kinds

DROPOUT = ("--dropout", "0.2", "--attention-dropout", "0.2", "--pooler-dropout", "0.2")
NO_DROPOUT = ("--dropout", "0", "--attention-dropout", "0")
EXACT = dict(rtol=0, atol=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """One folder a task kind."""
    root = tmp_path_factory.mktemp("data")
    return {kind: training.write_data(root / kind, kind) for kind in training.KIND_FLAGS}


@pytest.mark.parametrize("method", named("pgd", "awp"), ids=repr)
def test_recomputed_activations_train_the_same_model(data, tmp_path, method):
    """RoBERTa has no such flag in fairseq 0.12.2."""
    flag = "--checkpoint-activations"
    kind = "multiple-choice"
    flags = (*method.flags, *DROPOUT, "--max-epoch", "1")
    usual = training.train(data[kind], tmp_path / "usual", kind, method.criterion, *flags)
    recomputed = training.train(
        data[kind], tmp_path / "recomputed", kind, method.criterion, *flags, flag
    )
    assert recomputed["cfg"]["model"].checkpoint_activations
    torch.testing.assert_close(recomputed["model"], usual["model"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method,kind", with_kinds(training.KIND_FLAGS, ["classification"]))
def test_every_method_trains_on_every_task(data, tmp_path, caplog, method, kind):
    caplog.set_level(logging.INFO)
    flags = (*method.flags, *DROPOUT, "--max-epoch", "2", "--log-interval", "1")
    state = training.train(data[kind], tmp_path, kind, method.criterion, *flags)
    assert all(torch.isfinite(value).all() for value in state["model"].values())
    inner = training.logged(caplog, "train_inner")
    valid = training.logged(caplog, "valid")
    assert len(valid) == 2 and len(inner) == len({line["num_updates"] for line in inner})
    assert all(method.meter in line and "objective" in line for line in inner)
    assert all("valid_loss" in line and "valid_objective" not in line for line in valid)


def test_tensorboard_has_every_meter(data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    flags = (
        "--max-epoch",
        "1",
        "--log-interval",
        "1",
        "--tensorboard-logdir",
        str(tmp_path / "tb"),
    )
    training.train(data["classification"], tmp_path, "classification", "rat_criterion", *flags)
    tags = {}
    for split in ("train_inner", "valid"):
        events = EventAccumulator(str(tmp_path / "tb" / split))
        events.Reload()
        tags[split] = set(events.Tags()["scalars"])
    own = {"objective", "adv_loss", "consistency_loss", "perturbation_norm"}
    assert own | {"embedding_gradient_norm", "loss", "accuracy"} <= tags["train_inner"]
    assert {"loss", "accuracy"} <= tags["valid"]


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(data, tmp_path, method):
    kind = "classification"
    flags = (*method.flags, *DROPOUT)
    whole = training.train(
        data[kind], tmp_path / "whole", kind, method.criterion, *flags, "--max-epoch", "2"
    )
    for epochs in ("1", "2"):
        resumed = training.train(
            data[kind], tmp_path / "parts", kind, method.criterion, *flags, "--max-epoch", epochs
        )
    torch.testing.assert_close(resumed["model"], whole["model"], **EXACT)
    torch.testing.assert_close(resumed["last_optimizer_state"], whole["last_optimizer_state"], **EXACT)


def test_resuming_keeps_the_best_score_of_a_glue_metric(data, tmp_path):
    kind = "regression"
    flags = ["--report-pearson-and-spearman", "--maximize-best-checkpoint-metric"]
    flags += ["--best-checkpoint-metric", "pearson_and_spearman"]
    bests = []
    for epochs in ("1", "3"):
        state = training.train(
            data[kind], tmp_path, kind, "sentence_prediction", *flags, "--max-epoch", epochs
        )
        bests.append(state["extra_state"]["best"])
    assert isinstance(bests[0], float) and bests[1] >= bests[0]


@pytest.mark.parametrize("method", named("pgd"), ids=repr)
def test_amp_runs(data, tmp_path, method):
    flags = (*method.flags, "--amp", "--max-update", "2")
    state = training.train(data["classification"], tmp_path, "classification", method.criterion, *flags)
    assert all(torch.isfinite(value).all() for value in state["model"].values())


@pytest.mark.parametrize("criterion", ["rat_criterion", "freelb_criterion"])
def test_update_freq_equals_a_larger_batch(data, tmp_path, criterion):
    """Two batches of 2 in an update equal one of 4, where nothing is drawn at random."""
    kind = "multiple-choice"
    own = {"rat_criterion": "--adv-norm-over sentence", "freelb_criterion": "--adv-init-eps 0"}
    flags = (*own[criterion].split(), *NO_DROPOUT, "--max-update", "3", "--curriculum", "1")
    states = [
        training.train(
            data[kind], tmp_path / name, kind, criterion, *flags, *more, optimizer="--optimizer sgd"
        )
        for name, more in (
            ("large", ("--batch-size", "4")),
            ("parts", ("--batch-size", "2", "--update-freq", "2")),
        )
    ]
    torch.testing.assert_close(states[0]["model"], states[1]["model"], rtol=1e-4, atol=1e-6)


def test_commonsense_qa_needs_no_second_user_dir(tmp_path):
    """fairseq's own task, registered with ours, and its assertion on the criterion's name."""
    import json

    from fairseq.data import Dictionary

    words = Dictionary()
    for word in "Q: A: fox hen where what".split():
        words.add_symbol(word)
    words.save(str(tmp_path / "dict.txt"))
    row = {
        "answerKey": "B",
        "question": {"stem": "where fox", "choices": [{"text": t} for t in ("fox", "hen", "what")]},
    }
    for split in ("train", "valid"):
        (tmp_path / f"{split}.jsonl").write_text((json.dumps(row) + "\n") * 6)
    flags = f"--task commonsense_qa --num-classes 3 --init-token 0 --max-update 2 {training.TINY}"
    for criterion in ("sentence_ranking", "freelb_criterion"):
        cfg = training.parse(
            f"{tmp_path} --save-dir {tmp_path / criterion} --arch roberta --criterion {criterion} "
            f"{flags} {training.ADAM}".split()
        )
        training.distributed_utils.call_main(cfg, training.fairseq_cli.train.main)
        assert (tmp_path / criterion / "checkpoint_last.pt").exists()
