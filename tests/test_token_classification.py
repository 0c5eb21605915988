"""Token labelling: batches, shortening, errors, the head's checkpoints, and the scores of entities."""

import logging
import os
import sys

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils, metrics
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.data import Dictionary
from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score

import tiny
import training
from adv_plugins.batch import NO_LABEL
from adv_plugins.models.asa_roberta import AsaRobertaModel
from adv_plugins.models.token_head import register_token_head
from adv_plugins.tasks.token_classification import TokenClassificationConfig, TokenClassificationTask
from adv_plugins_cli.data.binarize import write_split
from processes import run_two_workers

KIND = "token-classification"
HEAD = "sentence_classification_head"
EXACT = dict(rtol=0, atol=0)
NO = NO_LABEL
# words of two sentences; None continues a word
SENTENCES = ["fox runs far away".split(), "a hen".split()]
LABELS = [["B-fox", "O", None, "O"], [None, "B-hen"]]


def write(folder, sentences=SENTENCES, labels=LABELS, split="train", end_symbol=None):
    """The data folder of these sentences."""
    words = Dictionary()
    for word in sorted({word for sentence in sentences for word in sentence}):
        words.add_symbol(word)
    rows = [np.array([words.index(word) for word in sentence]) for sentence in sentences]
    write_split(folder / "input0", split, rows, len(words))
    words.save(str(folder / "input0" / "dict.txt"))
    if labels is not None:
        (folder / "label").mkdir(exist_ok=True)
        training.write_token_labels(folder / "label", split, labels, end_symbol=end_symbol)
    return folder


def task(folder, **options):
    """The task on a folder."""
    options = {"init_token": 0, "seed": 1, "classification_head_name": HEAD, **options}
    return TokenClassificationTask.setup_task(TokenClassificationConfig(data=str(folder), **options))


def batch(dataset, rows=None):
    return dataset.collater([dataset[row] for row in rows or range(len(dataset))])


@pytest.mark.parametrize("end_symbol", [None, 2])
def test_targets_are_aligned_with_the_tokens(tmp_path, end_symbol):
    """Whether the labels end with </s>, as fairseq-preprocess writes them, or not."""
    made = task(write(tmp_path, end_symbol=end_symbol))
    both = batch(made.load_dataset("train"))
    words = [made.dictionary.index(word) for word in "fox runs far away a hen".split()]
    fox, runs, far, away, a, hen = words
    assert both["net_input"]["src_tokens"].tolist() == [
        [0, fox, runs, far, away, 2],
        [0, a, hen, 2, 1, 1],
    ]
    assert both["target"].tolist() == [[NO, 1, 0, NO, 0, NO], [NO, NO, 3, NO, NO, NO]]
    assert made.labels == training.LABELS
    assert (both["nsentences"], both["ntokens"]) == (2, 10)
    without = batch(task(tmp_path, init_token=None).load_dataset("train"))
    assert without["target"].tolist() == [row[1:] for row in both["target"].tolist()]


@pytest.mark.parametrize("method", ["truncate", "random_crop"])
def test_shortening_cuts_tokens_and_labels_alike(tmp_path, caplog, method):
    random = np.random.default_rng(1)
    names = [f"w{number}" for number in range(20)]
    sentences = [list(random.choice(names, size=size)) for size in (3, 25, 12, 31)]
    labels = [training.token_labels(np.array([int(w[1:]) for w in s])) for s in sentences]
    write(tmp_path, sentences, labels)
    made = task(tmp_path, shorten_method=method, max_positions=8)
    dataset = made.load_dataset("train")
    assert "3 of the 4 examples of train are longer than --max-positions 8" in caplog.text
    crops = []
    for epoch in (1, 2):
        dataset.set_epoch(epoch)
        cut = batch(dataset)
        tokens = cut["net_input"]["src_tokens"]
        assert tokens.shape == cut["target"].shape == (4, 8)
        crops.append(tokens.tolist())
        for token, target in zip(tokens.flatten().tolist(), cut["target"].flatten().tolist()):
            word = made.dictionary[token]
            name = None
            if word.startswith("w"):
                (name,) = training.token_labels(np.array([int(word[1:])]))
            assert target == (NO if name is None else made.labels.index(name))
    assert (crops[0] == crops[1]) == (method == "truncate")
    elsewhere = task(
        tmp_path, shorten_method=method, max_positions=8, shorten_data_split_list="valid"
    ).load_dataset("train")
    assert elsewhere.sizes[0].max() == 33


def test_the_order_is_that_of_sentence_prediction(tmp_path):
    """A permutation by the seed, or none with --no-shuffle."""
    write(tmp_path, SENTENCES * 10, LABELS * 10)
    shuffled = task(tmp_path).load_dataset("train")
    np.random.seed(1)
    assert shuffled.ordered_indices().tolist() == np.argsort(np.random.permutation(20)).tolist()
    kept = task(tmp_path, no_shuffle=True).load_dataset("train")
    assert kept.ordered_indices().tolist() == list(range(20))


def test_a_test_split_may_lack_labels(tmp_path):
    made = task(write(tmp_path))
    write(tmp_path, split="test", labels=None)
    write(tmp_path, split="valid", labels=None)
    assert "target" not in batch(made.load_dataset("test"))
    with pytest.raises(FileNotFoundError, match=r"no valid split in .*label: only test may lack"):
        made.load_dataset("valid")
    with pytest.raises(FileNotFoundError, match=r"no train1 split in .*input0"):
        made.load_dataset("train1")


@pytest.mark.parametrize(
    "labels,message",
    [
        ([LABELS[0], ["O"] * 3], r"split train of label, example 1 \(from 0\): 3 labels for 2 tokens"),
        ([LABELS[0][:3], LABELS[1]], r"example 0 \(from 0\): 3 labels for 4 tokens"),
        (LABELS[:1], "split train of label has 1 examples, but input0 has 2"),
        ([LABELS[0], ["O", "B-wolf"]], r"example 1 \(from 0\): 3 is no index of a label \(4 to 7, or 1"),
    ],
)
def test_labels_that_do_not_fit_the_tokens(tmp_path, labels, message):
    with pytest.raises(ValueError, match=message):
        batch(task(write(tmp_path, labels=labels)).load_dataset("train"))


def test_a_missing_folder_and_a_wrong_number_of_classes(tmp_path):
    write(tmp_path, labels=None)
    with pytest.raises(
        FileNotFoundError, match=r"label/dict\.txt: token_classification needs the folders"
    ):
        task(tmp_path)
    write(tmp_path)
    assert task(tmp_path, num_classes=4).labels == training.LABELS
    with pytest.raises(ValueError, match=r"--num-classes 3, but .* has 4 labels .O B-fox I-fox B-hen"):
        task(tmp_path, num_classes=3)


def test_filling_symbols_of_fairseq_preprocess_are_no_labels(tmp_path):
    write(tmp_path)
    file = tmp_path / "label" / "dict.txt"
    file.write_text(file.read_text() + "madeupword0000 0\nmadeupword0001 0\n")
    assert task(tmp_path, num_classes=4).labels == training.LABELS


def test_the_head_labels_every_position():
    built = tiny.model(KIND, pooler_dropout=0.3)
    tokens = tiny.sample(KIND)["net_input"]["src_tokens"]
    head = built.classification_heads[HEAD]
    assert sum(p.numel() for p in head.parameters()) == 8 * tiny.CLASSES + tiny.CLASSES
    features = built.eval()(tokens, features_only=True)[0]
    logits = built(tokens, features_only=True, classification_head_name=HEAD)[0]
    assert logits.shape == (*tokens.shape, tiny.CLASSES)
    expected = features @ head.out_proj.weight.t() + head.out_proj.bias
    torch.testing.assert_close(logits, expected)
    assert head.dropout.p == 0.3


@pytest.mark.parametrize("model_class", [tiny.RobertaModel, AsaRobertaModel])
def test_checkpoints_with_the_head(caplog, model_class):
    """They load strictly; a plain RoBERTa's start the head afresh; other heads take its place."""
    caplog.set_level(logging.WARNING)
    first, second = (tiny.model(KIND, model_class, seed=seed) for seed in (1, 2))
    second.load_state_dict(first.state_dict(), strict=True)
    torch.testing.assert_close(second.state_dict(), first.state_dict(), **EXACT)
    assert not caplog.records

    fresh = {key: value.clone() for key, value in second.classification_heads.state_dict().items()}
    plain = tiny.model("masked-lm", model_class, seed=3)
    second.load_state_dict(plain.state_dict(), strict=True)
    torch.testing.assert_close(second.classification_heads.state_dict(), fresh, **EXACT)
    layer = "encoder.sentence_encoder.layers.0.fc1.weight"
    assert torch.equal(second.state_dict()[layer], plain.state_dict()[layer])
    assert not caplog.records

    # A task without this head; more labels; a sentence's head of the same name; and back.
    plain.load_state_dict(first.state_dict(), strict=True)
    assert f"deleting classification head ({HEAD}) from checkpoint not present" in caplog.text
    assert torch.equal(plain.state_dict()[layer], first.state_dict()[layer])
    more = tiny.model(KIND, model_class)
    register_token_head(more, HEAD, 9)
    sentence = tiny.model("classification", model_class)
    for target, source in ((more, first), (sentence, first), (first, sentence)):
        before = {key: value.clone() for key, value in target.classification_heads.state_dict().items()}
        caplog.clear()
        target.load_state_dict(source.state_dict(), strict=True)
        assert "different dimensions than current model" in caplog.text
        torch.testing.assert_close(target.classification_heads.state_dict(), before, **EXACT)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A small data set whose labels follow from the words."""
    return training.write_data(tmp_path_factory.mktemp("data"), KIND, sizes=(40, 10))


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(data, tmp_path):
    flags = ("--dropout", "0.2", "--pooler-dropout", "0.2")
    whole = training.train(
        data, tmp_path / "whole", KIND, "token_classification", *flags, "--max-epoch=2"
    )
    for epochs in ("1", "2"):
        resumed = training.train(
            data, tmp_path / "parts", KIND, "token_classification", *flags, f"--max-epoch={epochs}"
        )
    assert f"classification_heads.{HEAD}.out_proj.weight" in resumed["model"]
    torch.testing.assert_close(resumed["model"], whole["model"], **EXACT)
    torch.testing.assert_close(resumed["last_optimizer_state"], whole["last_optimizer_state"], **EXACT)


def test_it_learns_and_fine_tunes_from_a_plain_roberta(data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    text = training.write_data(tmp_path / "text", "masked-lm", words=data / "input0" / "dict.txt")
    pretrained = tmp_path / "pretrained"
    training.train(text, pretrained, "masked-lm", "masked_lm", "--max-update=1", arch="roberta")
    caplog.clear()
    flags = "--max-epoch 25 --dropout 0 --attention-dropout 0 --best-checkpoint-metric f1"
    flags = f"{flags} --maximize-best-checkpoint-metric --keep-best-checkpoints 1"
    flags = f"{flags} --finetune-from-model {pretrained / 'checkpoint_last.pt'}"
    state = training.train(data, tmp_path, KIND, "token_classification", *flags.split())
    valid = training.logged(caplog, "valid")
    scores = [float(line["valid_f1"]) for line in valid]
    assert scores[-1] > 80 and max(scores) == pytest.approx(state["extra_state"]["best"])
    assert {"valid_precision", "valid_recall", "valid_accuracy", "valid_loss"} <= set(valid[-1])
    assert list(tmp_path.glob("checkpoint.best_f1_*.pt"))
    (loaded,), _, loaded_task = checkpoint_utils.load_model_ensemble_and_task(
        [str(tmp_path / "checkpoint_best.pt")]
    )
    assert loaded_task.labels == training.LABELS
    assert HEAD in loaded.classification_heads


class Scorer(torch.nn.Module):
    """A model whose logits are in the sample."""

    classification_heads = {HEAD: None}

    def forward(self, logits, **unused):
        return logits, None


def scored_sample(predictions, targets):
    """A batch of sentences of label names in which a model predicts ``predictions``."""
    length = max(len(row) for row in targets) + 2
    target = torch.full((len(targets), length), NO)
    logits = torch.randn(len(targets), length, len(tiny.LABELS))
    for b, (found, true) in enumerate(zip(predictions, targets)):
        for t, (one, other) in enumerate(zip(found, true), start=1):
            target[b, t] = tiny.LABELS.index(other)
            logits[b, t, tiny.LABELS.index(one)] = 9.0
    words = sum(len(row) for row in targets)
    counts = {"ntokens": 2 * words, "nsentences": len(targets)}
    return {"net_input": {"logits": logits}, "target": target, **counts}


def validate(criterion, batches, workers=1):
    """What fairseq's validation makes of ``batches``, dealt to ``workers``."""
    model = Scorer().eval()
    criterion.eval()
    with metrics.aggregate(new_root=True) as meters:
        for first in range(0, len(batches), workers):
            logs = [criterion(model, each)[2] for each in batches[first : first + workers]]
            criterion.__class__.reduce_metrics(logs)
    return meters.get_smoothed_values()


def score(predictions, targets, sizes=None, workers=1, name="token_classification"):
    """The meters of these sentences in batches of these sizes."""
    batches, start = [], 0
    for size in sizes or [len(targets)]:
        rows = slice(start, start + size)
        batches.append(scored_sample(predictions[rows], targets[rows]))
        start += size
    criterion = tiny.criterion(name, KIND, report_entity_f1=True)
    return validate(criterion, batches, workers)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", ["token_classification", "rat_criterion"])
def test_entity_scores_are_seqevals_over_the_whole_split(workers, name):
    torch.manual_seed(1)
    random = np.random.default_rng(2)
    targets = [list(random.choice(tiny.LABELS, size=size)) for size in random.integers(1, 9, size=30)]
    predictions = [
        [label if random.random() < 0.7 else random.choice(tiny.LABELS) for label in row]
        for row in targets
    ]
    values = score(predictions, targets, sizes=[7, 1, 12, 3, 7], workers=workers, name=name)
    assert values["f1"] == round(100 * f1_score(targets, predictions), 2)
    assert values["precision"] == round(100 * precision_score(targets, predictions), 2)
    assert values["recall"] == round(100 * recall_score(targets, predictions), 2)
    assert values["accuracy"] == pytest.approx(100 * accuracy_score(targets, predictions), abs=0.051)
    assert 10 < values["f1"] < 90


def test_entity_scores_by_hand():
    """Three true entities, four found, two right: a wrong end and a wrong type count for nothing."""
    targets = [["B-fox", "I-fox", "O", "B-hen"], ["O", "B-fox", "I-fox"]]
    predictions = [["B-fox", "I-fox", "O", "B-hen"], ["B-hen", "B-fox", "O"]]
    values = score(predictions, targets)
    assert (values["precision"], values["recall"]) == (50.0, 66.67)
    assert values["f1"] == 57.14
    assert values["accuracy"] == pytest.approx(100 * 5 / 7, abs=0.051)


def test_high_accuracy_may_hide_a_low_f1():
    targets = [["O"] * 30 + ["B-fox", "I-fox"] for _ in range(3)]
    predictions = [["O"] * 30 + ["B-fox", "O"] for _ in range(3)]
    values = score(predictions, targets)
    assert values["accuracy"] > 96 and values["f1"] == 0.0
    nothing = score([["O"] * 4], [["O"] * 4])
    assert (nothing["accuracy"], nothing["f1"], nothing["recall"]) == (100.0, 0.0, 0.0)


def test_an_entity_ends_with_its_sentence():
    targets = [["O", "B-fox"], ["I-fox", "O"]]
    assert score(targets, targets)["f1"] == 100.0
    separate = score(targets, targets, sizes=[1, 1])
    assert separate["f1"] == 100.0 and f1_score(targets, [["O", "B-fox"], ["O", "O"]]) < 1


def test_entities_are_counted_in_validation_and_on_request_only():
    targets = [["B-fox", "O"]]
    sample = scored_sample(targets, targets)
    plain = tiny.criterion("token_classification", KIND)
    reporting = tiny.criterion("token_classification", KIND, report_entity_f1=True)
    assert set(validate(plain, [sample])) == {"loss", "accuracy"}
    assert set(reporting.train()(Scorer(), sample)[2]) == set(plain(Scorer(), sample)[2])
    best = tiny.criterion("token_classification", KIND, best_checkpoint_metric="recall")
    assert set(validate(best, [sample])) == {"loss", "accuracy", "f1", "precision", "recall"}


def test_the_loss_is_that_of_labelled_tokens():
    built, sample = tiny.model(KIND, double=False), tiny.sample(KIND)
    criterion = tiny.criterion("token_classification", KIND)
    loss, sample_size, log = criterion(built, sample)
    logits, expected = tiny.logits_and_loss(KIND, built, sample)
    torch.testing.assert_close(loss, expected)
    assert sample_size == log["sample_size"] == len(logits) == sample["target"].ge(0).sum()
    assert log["nsentences"] == tiny.BATCH
    # A batch without a label is worth nothing and harms nothing.
    sample["target"] = torch.full_like(sample["target"], NO)
    for name in ("token_classification", "rat_criterion", "rapt_criterion"):
        options = {"noise_max_layer": 1} if name == "rapt_criterion" else {}
        loss, sample_size, log = tiny.criterion(name, KIND, **options)(built, sample)
        assert loss == 0 and sample_size == 0
        loss.backward()
        with metrics.aggregate(new_root=True):
            criterion.__class__.reduce_metrics([log])


def test_seqeval_is_missed_before_training(data, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "seqeval"]:
        monkeypatch.setitem(sys.modules, name, None)
    for flags, asked in (
        (["--report-entity-f1"], "--report-entity-f1"),
        (["--best-checkpoint-metric", "f1"], "--best-checkpoint-metric f1"),
    ):
        for criterion in ("token_classification", "freelb_criterion"):
            with pytest.raises(ValueError, match=f"{asked} needs the package seqeval: pip install"):
                training.train(data, tmp_path, KIND, criterion, *flags)
    assert not list(tmp_path.glob("*.pt"))
    training.train(data, tmp_path, KIND, "token_classification", "--max-update=1")


def test_scores_of_entities_need_labels_of_entities():
    made = tiny.Task(KIND)
    made.label_dictionary.add_symbol("NOUN")
    config = tiny.config("token_classification", report_entity_f1=True)
    with pytest.raises(ValueError, match="needs labels such as B-person, I-person and O, not 'NOUN'"):
        CRITERION_REGISTRY["token_classification"].build_criterion(config, made)


def test_a_task_without_token_labels_and_a_model_without_the_head():
    with pytest.raises(ValueError, match="give --task token_classification"):
        tiny.criterion("token_classification", "classification")
    criterion = tiny.criterion("token_classification", KIND, classification_head_name="other")
    with pytest.raises(ValueError, match="no classification head 'other'"):
        criterion(tiny.model(KIND), tiny.sample(KIND))
    with pytest.raises(ValueError, match="Linear has none: choose a RoBERTa-like --arch"):
        register_token_head(torch.nn.Linear(2, 2), HEAD, 3)


def worker(rank, port, arguments):
    """One of two workers, as torchrun starts them."""
    os.environ.update(
        MASTER_ADDR="localhost", MASTER_PORT=str(port), WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK="0"
    )
    training.train(*arguments)


def test_two_workers_report_the_f1_of_the_whole_split(data, tmp_path):
    """Three batches of validation, so that one worker has none at the end."""
    flags = "--dropout 0 --attention-dropout 0 --max-epoch 6 --best-checkpoint-metric f1".split()
    flags += ["--maximize-best-checkpoint-metric"]
    distributed = "--distributed-backend gloo --ddp-backend legacy_ddp --find-unused-parameters"
    arguments = (data, tmp_path / "two", KIND, "token_classification", *flags, *distributed.split())
    assert run_two_workers(worker, arguments) == [None, None]
    two = torch.load(tmp_path / "two" / "checkpoint_last.pt")
    one = training.train(
        data, tmp_path / "one", KIND, "token_classification", *flags, "--update-freq", "2"
    )
    torch.testing.assert_close(two["model"], one["model"], rtol=1e-3, atol=1e-5)
    assert two["extra_state"]["best"] == one["extra_state"]["best"] > 10


def test_hydra_train(data, tmp_path, monkeypatch):
    import fairseq_cli.hydra_train

    (tmp_path / "entities.yaml").write_text(
        "# @package _group_\n"
        "common: {cpu: true, log_format: json}\n"
        f"task: {{_name: token_classification, data: {data}, init_token: 0, max_positions: 32}}\n"
        "criterion: {_name: rapt_criterion, noise_max_layer: 1, report_entity_f1: true,\n"
        f"  classification_head_name: {HEAD}, regression_target: false}}\n"
        "dataset: {batch_size: 4, num_workers: 0}\n"
        "optimizer: {_name: adam}\nlr_scheduler: {_name: fixed}\n"
        "optimization: {max_update: 2, lr: [0.01]}\n"
        f"checkpoint: {{save_dir: {tmp_path}, best_checkpoint_metric: f1}}\n"
        "model: {_name: roberta, encoder_layers: 1, encoder_embed_dim: 8, encoder_ffn_embed_dim: 8,\n"
        "  encoder_attention_heads: 2, max_positions: 32}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    metrics.reset()
    monkeypatch.delattr(checkpoint_utils.save_checkpoint, "best", raising=False)
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.run.dir=out"]
    options = ["--config-dir", str(tmp_path), "--config-name", "entities"]
    monkeypatch.setattr(sys, "argv", ["fairseq-hydra-train", *options, *quiet])
    fairseq_cli.hydra_train.cli_main()
    state = checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "checkpoint_best.pt"))
    assert 0 <= state["extra_state"]["best"] <= 100
