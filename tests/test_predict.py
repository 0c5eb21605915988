"""Predictions on raw text are fairseq's own on the same text binarised; submissions are GLUE's."""

import gc
import json
import logging
import os
import shutil
import subprocess
import sys
import weakref
from typing import Any

import fairseq_cli.validate
import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils, options, utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

import training
from adv_plugins_cli import predict, preprocess
from adv_plugins_cli.checkpoints import ensemble, glue_submission, predictor
from adv_plugins_cli.data.binarize import WordPiece
from adv_plugins_cli.data.glue_format import TASKS as GLUE
from adv_plugins_cli.data.glue_format import Split
from adv_plugins_cli.data.write_task import write_inputs

WORDS = "a b c d e f g h the cat sat on mat mats no yes".split()
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "##s", *WORDS]
NAMES = {"cat": "B-person", "mat": "B-product", "mats": "I-product"}
# Both ways of parting sentences, on models with other layer norms and with adversaries.
STYLES = {
    "roberta": ("roberta", "--separator-token 2"),
    "bert": ("bert_like", ""),
    "asa": ("asa_bert_like", ""),
}


def texts(count, seed):
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, size=random.integers(1, 9))) for _ in range(count)]


def write_tsv(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(header), *("\t".join(map(str, row)) for row in rows)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """Small GLUE files, HellaSwag's, WNUT-17's, and a vocabulary."""
    root = tmp_path_factory.mktemp("official")
    (root / "vocabulary").mkdir()
    (root / "vocabulary" / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    for task, labels in (
        ("RTE", ["entailment", "not_entailment"]),
        ("STS-B", ["0.5", "4.2", "5"]),
        ("MNLI", ["contradiction", "entailment", "neutral"]),
        ("QNLI", ["entailment", "not_entailment"]),
        ("SST-2", ["1", "0", "1"]),
        ("MRPC", ["1", "0", "1"]),
    ):
        label = GLUE[task].label
        for seed, (split, files) in enumerate(
            (("train", ["train.tsv"]), ("dev", GLUE[task].valid_files), ("test", GLUE[task].test_files))
        ):
            for index, file in enumerate(files):
                pairs = list(zip(texts(14, seed + 10 * index), texts(14, seed + 10 * index + 5)))
                if task == "QNLI":  # two rows a question
                    pairs = [(pairs[i // 2][0], pairs[i][1]) for i in range(14)]
                width = len(GLUE[task].inputs)
                header = ["index", *GLUE[task].inputs, *([label] if split != "test" else [])]
                # not from 0: GLUE's numbers are those of the file
                rows = [
                    [i + 100, *pair[:width], *([labels[i % len(labels)]] if split != "test" else [])]
                    for i, pair in enumerate(pairs)
                ]
                write_tsv(root / task / file, header, rows)
    (root / "HellaSwag").mkdir()
    for seed, split in enumerate(("train", "val")):
        stories = zip(texts(9, seed), *(texts(9, seed + 7 * choice) for choice in range(1, 5)))
        endings = [{"ctx": s[0], "endings": s[1:], "label": i % 4} for i, s in enumerate(stories)]
        lines = "".join(json.dumps(row) + "\n" for row in endings)
        (root / "HellaSwag" / f"hellaswag_{split}.jsonl").write_text(lines)
    (root / "WNUT-17").mkdir()
    for seed, file in enumerate(("wnut17train.conll", "emerging.dev.conll")):
        sentences = [sentence.split() for sentence in texts(9, seed)]
        tagged = ["".join(f"{word}\t{NAMES.get(word, 'O')}\n" for word in words) for words in sentences]
        (root / "WNUT-17" / file).write_text("\n".join(tagged))
    return root


@pytest.fixture(scope="module")
def binary(official):
    """All of them, preprocessed."""
    out = official / "bin"
    tasks = "RTE STS-B MNLI QNLI SST-2 MRPC HellaSwag QNLI-ranking WNUT-17".split()
    request = ["--wordpiece", str(official / "vocabulary"), "--out-dir", str(out)]
    preprocess.run(preprocess.parse_arguments([*tasks, *request, "--data-dir", str(official)]))
    return out


def train(binary, folder, task, style="bert", seed=1, flags=""):
    """A model of a task, saved by fairseq-train; returns its checkpoint."""
    arch, separator = STYLES[style]
    classes = {"STS-B": 1, "MNLI": 3, "HellaSwag": 4}.get(task, 2)
    name, kind = "sentence_prediction", f"--num-classes {classes} {separator}"
    if task in ("HellaSwag", "QNLI-ranking"):
        name = "sentence_ranking"
    elif task == "WNUT-17":
        name, kind = "token_classification", ""
    elif task == "STS-B":
        kind += " --regression-target --report-pearson-and-spearman"
    line = (
        f"{binary / task}-bin --task {name} --criterion {name} --init-token 0 {kind} --arch {arch} "
        f"{training.TINY} --optimizer sgd --max-update 1 --seed {seed} --save-dir {folder} {flags}"
    )
    training.run(line.split())
    return randomise(folder / "checkpoint_last.pt", seed)


def randomise(checkpoint, seed=1):
    """Give the model large weights, so that every token matters to the prediction."""
    state = torch.load(checkpoint, weights_only=True)
    torch.manual_seed(seed)
    for weights in state["model"].values():
        if weights.dim() > 1:
            weights.normal_(std=0.3)
    torch.save(state, checkpoint)
    return checkpoint


def fairseqs_batches(checkpoint, data, split="valid", **overrides):
    """The task's own batches of one example, and the model's outputs, in the order of the file."""
    models, _, task = checkpoint_utils.load_model_ensemble_and_task(
        [str(checkpoint)], arg_overrides={"data": str(data), **overrides}
    )
    model = models[0].eval()
    task.load_dataset(split)
    dataset = task.dataset(split)
    (head,) = model.classification_heads
    found = {}
    for index in range(len(dataset)):
        batch = utils.move_to_cpu(dataset.collater([dataset[index]]))
        inputs = [batch[key] for key in sorted(batch) if key.startswith("net_input")]
        with torch.no_grad():
            outputs = [
                model(each["src_tokens"], features_only=True, classification_head_name=head)[0]
                for each in inputs
            ]
        found[int(batch["id"])] = batch, outputs
    return [found[index] for index in range(len(found))]


def fairseqs_logits(*arguments, **overrides):
    """(N, C) outputs of the model on the binarised split."""
    found = fairseqs_batches(*arguments, **overrides)
    return np.stack([torch.cat(outputs, dim=1)[0].double().numpy() for _, outputs in found])


def softmax(logits):
    return torch.tensor(logits).softmax(dim=-1).numpy()


CASES = [("RTE", style) for style in STYLES] + [
    ("SST-2", "roberta"),
    *[("HellaSwag", style) for style in STYLES],
    ("STS-B", "roberta"),
    ("MNLI", "bert"),
]


@pytest.mark.parametrize("task,style", CASES)
def test_raw_text_is_predicted_as_the_binarised_data(task, style, official, binary, tmp_path):
    checkpoint = train(binary, tmp_path / "model", task, style)
    expected = fairseqs_logits(checkpoint, f"{binary / task}-bin")
    if task == "HellaSwag":
        lines = (official / task / "hellaswag_val.jsonl").read_text().splitlines()
        rows = [[row["ctx"], *row["endings"]] for row in map(json.loads, lines)]
    else:
        lines = (official / task / GLUE[task].valid_files[0]).read_text().splitlines()[1:]
        rows = [line.split("\t")[1 : 1 + len(GLUE[task].inputs)] for line in lines]
    (tmp_path / "input.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    request = [str(checkpoint), "--input", str(tmp_path / "input.tsv"), "--batch-size", "5"]
    request += ["--wordpiece", str(official / "vocabulary"), "--output", str(tmp_path / "output")]
    predict.main([*request, *([] if task == "STS-B" else ["--probabilities"])])
    output = [line.split("\t") for line in (tmp_path / "output").read_text().splitlines()]
    if task == "STS-B":
        np.testing.assert_allclose([[float(row[0])] for row in output], expected, rtol=1e-4)
        return
    found = np.array([row[1:] for row in output], dtype=float)
    np.testing.assert_allclose(found, softmax(expected), atol=2e-6)
    assert np.ptp(expected, axis=0).max() > 0.05, "the predictions must differ to mean anything"
    names = [row[0] for row in output]
    if task == "HellaSwag":
        assert names == [str(index) for index in expected.argmax(axis=1)]
    else:
        dictionary = (binary / f"{task}-bin" / "label" / "dict.txt").read_text().splitlines()
        labels = [line.split()[0] for line in dictionary]
        assert names == [labels[index] for index in expected.argmax(axis=1)]
    with pytest.raises(SystemExit, match="pass --overwrite"):
        predict.main(request)


def glue(official, *checkpoints_and_flags):
    predict.main(
        [
            *map(str, checkpoints_and_flags),
            *("--glue-dir", str(official), "--wordpiece", str(official / "vocabulary")),
        ]
    )


def rows_of(path):
    header, *lines = path.read_text().splitlines()
    assert header == "index\tprediction"
    rows = [line.split("\t") for line in lines]
    assert [int(index) for index, _ in rows] == list(range(100, 100 + len(rows)))
    return [value for _, value in rows]


def test_submission_files(official, binary, tmp_path):
    checkpoint = train(binary, tmp_path / "mnli", "MNLI")
    glue(official, checkpoint, "--glue-task", "MNLI", "--output-dir", tmp_path / "out")
    for name, split in (("MNLI-m", "test"), ("MNLI-mm", "test1")):
        values = rows_of(tmp_path / "out" / f"{name}.tsv")
        logits = fairseqs_logits(checkpoint, binary / "MNLI-bin", split)
        lines = (binary / "MNLI-bin" / "label" / "dict.txt").read_text().splitlines()
        assert values == [lines[index].split()[0] for index in logits.argmax(axis=1)]
    checkpoint = train(binary, tmp_path / "sts", "STS-B", "roberta")
    glue(official, checkpoint, "--glue-task", "STS-B", "--output-dir", tmp_path / "out")
    scores = np.clip(5 * fairseqs_logits(checkpoint, binary / "STS-B-bin", "test")[:, 0], 0, 5)
    assert rows_of(tmp_path / "out" / "STS-B.tsv") == [f"{score:.3f}" for score in scores]
    with pytest.raises(SystemExit, match="pass --overwrite"):
        glue(official, checkpoint, "--glue-task", "STS-B", "--output-dir", tmp_path / "out")
    with pytest.raises(SystemExit, match="its classes are scores; RTE has"):
        glue(official, checkpoint, "--glue-task", "RTE", "--output-dir", tmp_path / "out")


@pytest.mark.parametrize("task,meters", [("RTE", ["accuracy"]), ("STS-B", ["pearson", "spearman"])])
def test_the_development_set_gets_fairseqs_own_scores(
    task, meters, official, binary, tmp_path, monkeypatch, capsys, caplog
):
    checkpoint = train(binary, tmp_path / "model", task, "roberta")
    name = "sentence_prediction"
    line = (
        f"{binary / task}-bin --task {name} --criterion {name} --path {checkpoint} --batch-size 4 --cpu"
    )
    arguments = [*line.split(), "--log-format", "json"]
    parsed = options.parse_args_and_arch(options.get_validation_parser(), arguments)
    caplog.set_level(logging.INFO)
    # which would remove caplog's handler
    monkeypatch.setattr(fairseq_cli.validate, "reset_logging", lambda: None)
    fairseq_cli.validate.main(convert_namespace_to_omegaconf(parsed))
    (expected,) = training.logged(caplog, "valid")
    glue(official, checkpoint, "--glue-task", task, "--split", "dev")
    found = capsys.readouterr().out.split(": ")[-1].split(", ")
    found = {name: float(value) for name, value in (each.split() for each in found)}
    assert list(found) == meters
    for name in meters:
        # fairseq rounds its accuracy to a tenth
        assert found[name] == pytest.approx(float(expected[f"valid_{name}"]), abs=0.051)


def test_f1_is_of_the_label_1_whatever_its_number(official, binary, tmp_path, capsys):
    checkpoint = train(binary, tmp_path / "model", "MRPC")
    names = [line.split()[0] for line in (binary / "MRPC-bin/label/dict.txt").read_text().splitlines()]
    assert names[0] == "1", "the most frequent label comes first"
    logits = fairseqs_logits(checkpoint, binary / "MRPC-bin")
    found = np.array([names[index] == "1" for index in logits.argmax(axis=1)])
    truth = np.array(
        [line.split("\t")[3] == "1" for line in (official / "MRPC/dev.tsv").read_text().splitlines()[1:]]
    )
    f1 = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    glue(official, checkpoint, "--glue-task", "MRPC", "--split", "dev")
    assert f"accuracy {100 * np.mean(found == truth):.2f}, f1 {100 * f1:.2f}" in capsys.readouterr().out


def test_a_ranking_model_predicts_qnlis_rows(official, binary, tmp_path, capsys):
    checkpoint = train(binary, tmp_path / "model", "QNLI-ranking")
    glue(official, checkpoint, "--glue-task", "QNLI", "--output-dir", tmp_path / "out")
    values = rows_of(tmp_path / "out" / "QNLI.tsv")
    assert len(values) == 14
    for first, second in zip(values[::2], values[1::2]):
        assert {first, second} == {"entailment", "not_entailment"}
    glue(official, checkpoint, "--glue-task", "QNLI", "--split", "dev")
    assert "QNLI dev.tsv: accuracy" in capsys.readouterr().out


def test_votes_of_pairs():
    rows = [(0, 1), (2, 1), (3, -1)]
    won = glue_submission.from_pairs(rows, [0, 1, 0], 5, "entailment")
    # row 1 lost to 0 and won against 2: no majority
    assert won.tolist() == [True, False, False, True, False]


def test_words_are_labelled_by_their_first_subword(official, binary, tmp_path):
    checkpoint = train(binary, tmp_path / "model", "WNUT-17")
    names = (binary / "WNUT-17-bin" / "label" / "dict.txt").read_text().splitlines()
    names = [line.split()[0] for line in names]
    expected = []
    for batch, (logits,) in fairseqs_batches(checkpoint, binary / "WNUT-17-bin"):
        chosen = logits.argmax(dim=-1)[batch["target"] >= 0]
        expected.append(" ".join(names[index] for index in chosen))
    assert len({name for line in expected for name in line.split()}) > 2
    blocks = (official / "WNUT-17" / "emerging.dev.conll").read_text().split("\n\n")
    rows = [" ".join(line.split("\t")[0] for line in block.splitlines()) for block in blocks]
    rows += ["", "cat " * 40]
    expected += [""]
    (tmp_path / "in").write_text("".join(f"{row}\n" for row in rows))
    request = ["--input", str(tmp_path / "in"), "--wordpiece", str(official / "vocabulary")]
    predict.main([str(checkpoint), *request, "--output", str(tmp_path / "out")])
    found = (tmp_path / "out").read_text().splitlines()
    assert found[:-1] == expected
    cut = found[-1].split()
    assert len(cut) == 40 and cut[31:] == ["O"] * 9, "32 positions hold <s> and 31 words"


@pytest.mark.parametrize("task,style", [("HellaSwag", "roberta"), ("RTE", "asa")])
def test_long_text_is_cut_as_training_cuts_it(task, style, official, binary, tmp_path, capsys):
    option = "--max-option-length 4" if task == "HellaSwag" else ""
    checkpoint = train(binary, tmp_path / "model", task, style, flags=option)
    sentences = [["the cat sat " * 12, *texts(4 if task == "HellaSwag" else 1, 3)] for _ in range(3)]
    sentences[1][0] = "a cat"
    folder = tmp_path / "text-bin"
    split = Split(folder, tuple(map(list, zip(*sentences))), None, [1, 2, 3], [])
    write_inputs(folder, {"test": split}, WordPiece(official / "vocabulary"), task)
    if task == "RTE":
        shutil.copytree(binary / "RTE-bin" / "label", folder / "label")
    expected = fairseqs_logits(checkpoint, folder, "test", shorten_method="truncate")
    (tmp_path / "in").write_text("".join("\t".join(row) + "\n" for row in sentences))
    request = [str(checkpoint), "--input", str(tmp_path / "in"), "--probabilities"]
    request += ["--wordpiece", str(official / "vocabulary"), "--output", str(tmp_path / "out")]
    predict.main(request)
    lines = (tmp_path / "out").read_text().splitlines()
    found = np.array([line.split("\t")[1:] for line in lines], dtype=float)
    np.testing.assert_allclose(found, softmax(expected), atol=2e-6)
    cut = "8 of 12" if task == "HellaSwag" else "2 of 3"
    assert f"{cut} sequences are longer than 32 subwords and are cut" in capsys.readouterr().err


def test_commonsense_qa_gets_its_prefixes(real_data, tmp_path):
    bpe = real_data / "gpt2_bpe"
    rows = [texts(6, seed) for seed in range(5)]
    data = tmp_path / "data"
    data.mkdir()
    (data / "dict.txt").write_bytes((bpe / "dict.txt").read_bytes())
    for split in ("train", "valid"):
        with (data / f"{split}.jsonl").open("w") as file:
            for stem, *answers in rows:
                question = {"stem": stem, "choices": [{"text": text} for text in answers]}
                file.write(json.dumps({"answerKey": "A", "question": question}) + "\n")
    line = (
        f"{data} --task commonsense_qa --criterion sentence_ranking --init-token 0 --bpe gpt2 "
        f"--gpt2-encoder-json {bpe / 'encoder.json'} --gpt2-vocab-bpe {bpe / 'vocab.bpe'} "
        f"--arch roberta {training.TINY} --optimizer sgd --max-update 1 --save-dir {tmp_path / 'model'}"
    )
    training.run(line.split())
    checkpoint = randomise(tmp_path / "model" / "checkpoint_last.pt")
    expected = fairseqs_logits(checkpoint, data)
    (tmp_path / "in").write_text("".join("\t".join(row) + "\n" for row in rows))
    request = [str(checkpoint), "--input", str(tmp_path / "in"), "--bpe-dir", str(bpe)]
    predict.main([*request, "--probabilities", "--output", str(tmp_path / "out")])
    lines = (tmp_path / "out").read_text().splitlines()
    found = np.array([line.split("\t")[1:] for line in lines], dtype=float)
    np.testing.assert_allclose(found, softmax(expected), atol=2e-6)


def test_ensembles():
    one = np.array([[0.6, 0.4, 0.0], [0.5, 0.5, 0.0]])
    two = np.array([[0.6, 0.4, 0.0], [0.0, 0.9, 0.1]])
    three = np.array([[0.0, 1.0, 0.0], [0.9, 0.0, 0.1]])
    assert ensemble.combine([one, two, three], "mean").chosen.tolist() == [1, 0]
    majority = ensemble.combine([one, two, three], "majority")
    assert majority.chosen.tolist() == [0, 0]
    np.testing.assert_allclose(majority.values.sum(axis=1), 1)
    # one vote each: the mean decides
    assert ensemble.combine([two, three], "majority").chosen.tolist() == [1, 0]
    # two votes are more than any mean
    sure = [np.array([[0.0, 1.0]]), *[np.array([[0.51, 0.49]])] * 2]
    assert ensemble.combine(sure, "majority").chosen.tolist() == [0]
    scores = [np.array([[1.0]]), np.array([[2.0]])]
    assert ensemble.combine(scores, "mean").values.tolist() == [[1.5]]


def test_an_ensemble_of_checkpoints(official, binary, tmp_path, capsys):
    models = [train(binary, tmp_path / f"seed{seed}", "RTE", seed=seed) for seed in (1, 2)]
    (tmp_path / "in").write_text("the cat sat\ton the mats\n")
    request = ["--input", str(tmp_path / "in"), "--wordpiece", str(official / "vocabulary")]
    found = []
    for checkpoints in (models[:1], models[1:], models):
        predict.main([*map(str, checkpoints), *request, "--probabilities"])
        found.append([float(value) for value in capsys.readouterr().out.split()[1:]])
    np.testing.assert_allclose(np.mean(found[:2], axis=0), found[2], atol=1e-6)
    assert found[0] != found[1]
    other = train(binary, tmp_path / "mnli", "MNLI")
    with pytest.raises(SystemExit, match="they are no ensemble"):
        predict.main([str(models[0]), str(other), *request])
    # the same labels, but numbered the other way round
    turned = tmp_path / "turned"
    shutil.copytree(binary / "RTE-bin", turned)
    lines = (turned / "label" / "dict.txt").read_text().splitlines()
    (turned / "label" / "dict.txt").write_text("\n".join([lines[1], lines[0], *lines[2:]]) + "\n")
    state = torch.load(models[1], weights_only=True)
    state["cfg"]["task"]["data"] = str(turned)
    state["task_state"] = {}  # as if it had been trained on these
    torch.save(state, tmp_path / "turned.pt")
    with pytest.raises(SystemExit, match="they are no ensemble"):
        predict.main([str(models[0]), str(tmp_path / "turned.pt"), *request])
    with pytest.raises(SystemExit, match="is not the same \\(--data-bin\\)"):
        predict.main([str(models[0]), *request, "--data-bin", str(turned)])


def test_one_model_at_a_time_is_in_memory(official, binary, tmp_path, monkeypatch, capsys):
    models = [train(binary, tmp_path / f"seed{seed}", "RTE", seed=seed) for seed in (1, 2, 3)]
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    counts = []
    stock = predictor.Predictor.__init__

    def init(self, trained):
        gc.collect()
        counts.append(len(alive))
        stock(self, trained)
        alive.add(self.model)

    monkeypatch.setattr(predictor.Predictor, "__init__", init)
    (tmp_path / "in").write_text("the cat sat\ton the mats\n")
    request = ["--input", str(tmp_path / "in"), "--wordpiece", str(official / "vocabulary")]
    predict.main([*map(str, models), *request])
    assert counts == [0, 0, 0]
    assert len(capsys.readouterr().out.splitlines()) == 1, "the terminal gets predictions only"


@pytest.mark.parametrize("task", ["RTE", "STS-B", "HellaSwag", "WNUT-17"])
def test_a_tokenizer_beside_the_checkpoint_is_found_and_no_input_is_no_output(
    task, official, binary, tmp_path, capsys
):
    checkpoint = train(binary, tmp_path / "model", task)
    shutil.copy(official / "vocabulary" / "vocab.txt", tmp_path / "model")
    (tmp_path / "in").write_text("")
    predict.main([str(checkpoint), "--input", str(tmp_path / "in")])
    assert capsys.readouterr().out == ""


def test_bad_requests_name_the_option(official, binary, tmp_path, monkeypatch):
    checkpoint = train(binary, tmp_path / "model", "RTE")
    scores = train(binary, tmp_path / "scores", "STS-B")
    words = ["--wordpiece", str(official / "vocabulary")]
    shutil.copytree(official / "vocabulary", tmp_path / "other")
    (tmp_path / "other" / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES[::-1]))
    for name, content in {"pair": "a\tb\n", "ragged": "a\tb\na\n", "three": "a\tb\tc\n"}.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\t\n")
    (tmp_path / "junk.pt").write_text("no checkpoint")

    def text(name, *more):
        return ["--input", str(tmp_path / name), *more]

    rte = ["--glue-task", "RTE", "--glue-dir", str(official), *words]
    monkeypatch.setattr(predictor, "Predictor", None)  # nothing is loaded
    for model, own, message in (
        (checkpoint, text("none", *words), r"no such file \(--input\)"),
        (checkpoint, text("bytes", *words), r"bytes:1: not UTF-8 text"),
        (checkpoint, text("ragged", *words), "ragged:2: 1 columns"),
        (checkpoint, text("three", *words), "3 columns, but .* reads 2"),
        (checkpoint, text("pair"), "give the tokenizer: --bpe-dir"),
        (checkpoint, text("pair", "--wordpiece", str(tmp_path / "other")), "not the tokenizer's dict"),
        (checkpoint, text("pair", *words, "--data-bin", "nowhere"), "--data-bin"),
        (checkpoint, text("pair", *words, "--batch-size", "0"), "--batch-size 0"),
        (checkpoint, text("pair", *words, "--output", str(tmp_path / "no" / "out")), r"\(--output\)"),
        (checkpoint, text("pair", *words, "--output-dir", "out"), "--output-dir does nothing"),
        (checkpoint, text("pair", *words, "--split", "dev"), "--split does nothing"),
        (scores, text("pair", *words, "--probabilities"), "--probabilities: there are none"),
        (scores, text("pair", *words, "--ensemble", "majority"), "--ensemble majority"),
        (tmp_path / "x.pt", text("pair", *words), "x.pt: no such checkpoint"),
        (tmp_path / "junk.pt", text("pair", *words), "junk.pt: not a checkpoint"),
        (checkpoint, ["--glue-task", "RTE", "--output-dir", "out"], "give --glue-dir"),
        (checkpoint, rte, "give --output-dir"),
        (checkpoint, [*rte, "--split", "dev", "--output-dir", "out"], "--output-dir does nothing"),
        (checkpoint, [*rte, "--split", "dev", "--probabilities"], "--probabilities does nothing"),
        (scores, [*rte, "--split", "dev"], r"its classes are scores; RTE has .* \(--glue-task\)"),
    ):
        with pytest.raises(SystemExit, match=message):
            predict.main([str(model), *own])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full disk at hand")
def test_output_that_cannot_be_written_is_one_line(official, binary, tmp_path):
    checkpoint = train(binary, tmp_path / "model", "RTE")
    (tmp_path / "in").write_text("a\tb\n")
    request = [str(checkpoint), "--input", str(tmp_path / "in")]
    request += ["--wordpiece", str(official / "vocabulary")]
    full = tmp_path / "full"  # a link, so that nothing can happen to the machine's own
    full.symlink_to("/dev/full")
    with pytest.raises(
        SystemExit, match="^adv-plugins predict: error: .*/full: No space left on device$"
    ):
        predict.main([*request, "--output", str(full), "--overwrite"])
    assert full.is_char_device(), "a device is written to, not replaced"
    with pytest.raises(SystemExit, match=r"adv-plugins predict: error: /proc/out: "):
        predict.main([*request, "--output", "/proc/out"])
    command = [sys.executable, predict.__file__, *request]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 1 and ended.stderr.splitlines()[-1] == (
        "adv-plugins predict: error: standard output: No space left on device"
    )


def test_a_model_of_another_task_is_named(official, tmp_path):
    data = training.write_data(tmp_path / "bin", "masked-lm")
    training.train(data, tmp_path, "masked-lm", "masked_lm", "--max-update", "1", arch="roberta")
    (tmp_path / "in").write_text("a\n")
    request = [str(tmp_path / "checkpoint_last.pt"), "--input", str(tmp_path / "in")]
    with pytest.raises(SystemExit, match="predictions of --task masked_lm are not known; known are"):
        predict.main(request)
