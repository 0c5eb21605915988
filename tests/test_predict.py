"""Predictions on raw text are fairseq's own on the same text binarised; submissions are GLUE's."""

import json

import glue_submission
import numpy as np
import predict
import predictor
import preprocess_glue
import preprocess_task
import pytest
import torch
import training
from fairseq import checkpoint_utils, utils
from glue_format import TASKS as GLUE

WORDS = "a b c d e f g h the cat sat on mat no yes".split()
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "##s", *WORDS]
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
    """Small GLUE files (RTE, STS-B, MNLI, QNLI), HellaSwag's, and a vocabulary."""
    root = tmp_path_factory.mktemp("official")
    (root / "vocabulary").mkdir()
    (root / "vocabulary" / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    for task, labels in (
        ("RTE", ["entailment", "not_entailment"]),
        ("STS-B", ["0.5", "4.2", "5"]),
        ("MNLI", ["contradiction", "entailment", "neutral"]),
        ("QNLI", ["entailment", "not_entailment"]),
    ):
        first, second = GLUE[task].inputs
        label = GLUE[task].label
        for seed, (split, files) in enumerate(
            (("train", ["train.tsv"]), ("dev", GLUE[task].valid_files), ("test", GLUE[task].test_files))
        ):
            for index, file in enumerate(files):
                pairs = list(zip(texts(14, seed + 10 * index), texts(14, seed + 10 * index + 5)))
                if task == "QNLI":  # two rows a question
                    pairs = [(pairs[i // 2][0], pairs[i][1]) for i in range(14)]
                header = ["index", first, second, *([label] if split != "test" else [])]
                rows = [
                    [i, *pair, *([labels[i % len(labels)]] if split != "test" else [])]
                    for i, pair in enumerate(pairs)
                ]
                write_tsv(root / task / file, header, rows)
    (root / "HellaSwag").mkdir()
    for seed, split in enumerate(("train", "val")):
        stories = zip(texts(9, seed), *(texts(9, seed + 7 * choice) for choice in range(1, 5)))
        rows = [{"ctx": s[0], "endings": s[1:], "label": i % 4} for i, s in enumerate(stories)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (root / "HellaSwag" / f"hellaswag_{split}.jsonl").write_text(lines)
    return root


@pytest.fixture(scope="module")
def binary(official):
    """All of them, preprocessed."""
    out = official / "bin"
    common = ["--wordpiece", str(official / "vocabulary"), "--out-dir", str(out), "--task"]
    glue = ["--glue-dir", str(official), *common, "RTE", "STS-B", "MNLI", "QNLI"]
    preprocess_glue.run(preprocess_glue.parse_arguments(glue))
    others = ["--data-dir", str(official), *common, "HellaSwag", "QNLI-ranking"]
    preprocess_task.run(preprocess_task.parse_arguments(others))
    return out


def train(binary, folder, task, style="bert", seed=1):
    """A model of a task, saved by fairseq-train; returns its checkpoint."""
    arch, separator = STYLES[style]
    classes = {"STS-B": 1, "MNLI": 3, "HellaSwag": 4}.get(task, 2)
    ranks = task in ("HellaSwag", "QNLI-ranking")
    name = "sentence_ranking" if ranks else "sentence_prediction"
    line = (
        f"{binary / task}-bin --task {name} --criterion {name} --num-classes {classes} --init-token 0 "
        f"{separator} --arch {arch} {training.TINY} --optimizer sgd --max-update 1 --seed {seed} "
        f"--save-dir {folder} {'--regression-target' if task == 'STS-B' else ''}"
    )
    training.run(line.split())
    checkpoint = folder / "checkpoint_last.pt"
    state = torch.load(checkpoint, weights_only=True)
    torch.manual_seed(seed)
    for weights in state["model"].values():  # large, so that every token matters
        if weights.dim() > 1:
            weights.normal_(std=0.3)
    torch.save(state, checkpoint)
    return checkpoint


def fairseqs_logits(checkpoint, data, split="valid"):
    """(N, C) outputs of the model on the binarised split, in the order of the file."""
    models, _, task = checkpoint_utils.load_model_ensemble_and_task(
        [str(checkpoint)], arg_overrides={"data": str(data)}
    )
    model = models[0].eval()
    task.load_dataset(split)
    dataset, head = task.dataset(split), "sentence_classification_head"
    found = {}
    for index in range(len(dataset)):
        batch = utils.move_to_cpu(dataset.collater([dataset[index]]))
        inputs = [batch[key] for key in sorted(batch) if key.startswith("net_input")]
        with torch.no_grad():
            outputs = [
                model(each["src_tokens"], features_only=True, classification_head_name=head)[0]
                for each in inputs
            ]
        found[int(batch["id"])] = torch.cat(outputs, dim=1)[0].double().numpy()
    return np.stack([found[index] for index in range(len(found))])


def softmax(logits):
    return torch.tensor(logits).softmax(dim=-1).numpy()


CASES = [("RTE", style) for style in STYLES] + [
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
        rows = [line.split("\t")[1:3] for line in lines]
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
    assert [int(index) for index, _ in rows] == list(range(len(rows)))
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
    with pytest.raises(SystemExit, match="the model's classes are scores; RTE has"):
        glue(official, checkpoint, "--glue-task", "RTE", "--output-dir", tmp_path / "out")


def test_the_development_set_gets_fairseqs_own_scores(official, binary, tmp_path, capsys):
    checkpoint = train(binary, tmp_path / "model", "RTE", "roberta")
    logits = fairseqs_logits(checkpoint, binary / "RTE-bin")
    glue(official, checkpoint, "--glue-task", "RTE", "--split", "dev")
    names = [line.split()[0] for line in (binary / "RTE-bin/label/dict.txt").read_text().splitlines()]
    truth = [line.split("\t")[3] for line in (official / "RTE/dev.tsv").read_text().splitlines()[1:]]
    right = np.mean([names[index] == label for index, label in zip(logits.argmax(axis=1), truth)])
    assert f"accuracy {100 * right:.2f}" in capsys.readouterr().out


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
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    won = glue_submission.from_pairs(rows, scores, 5, "entailment")
    # row 1 lost to 0 and won against 2: no majority
    assert won.tolist() == [True, False, False, True, False]


def test_ensembles():
    one = np.array([[0.6, 0.4, 0.0], [0.5, 0.5, 0.0]])
    two = np.array([[0.6, 0.4, 0.0], [0.0, 0.9, 0.1]])
    three = np.array([[0.0, 1.0, 0.0], [0.9, 0.0, 0.1]])
    assert predictor.ensemble([one, two, three], "mean").argmax(axis=1).tolist() == [1, 0]
    assert predictor.ensemble([one, two, three], "majority").argmax(axis=1).tolist() == [0, 0]
    # one vote each: the mean decides
    assert predictor.ensemble([two, three], "majority").argmax(axis=1).tolist() == [1, 0]
    scores = [np.array([[1.0]]), np.array([[2.0]])]
    assert predictor.ensemble(scores, "majority").tolist() == [[1.5]]


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
    with pytest.raises(SystemExit, match="the others"):
        predict.main([str(models[0]), str(other), *request])


def test_long_text_is_cut_and_bad_requests_name_the_option(official, binary, tmp_path, capsys):
    checkpoint = train(binary, tmp_path / "model", "RTE")
    words = ["--wordpiece", str(official / "vocabulary")]
    (tmp_path / "long").write_text("cat " * 50 + "\tno\n")
    predict.main([str(checkpoint), "--input", str(tmp_path / "long"), *words])
    assert "1 sequences are longer than 32 and are cut" in capsys.readouterr().err
    (tmp_path / "ragged").write_text("a\tb\na\n")
    (tmp_path / "three").write_text("a\tb\tc\n")
    for own, message in (
        (["--input", str(tmp_path / "none"), *words], "no such file \\(--input\\)"),
        (["--input", str(tmp_path / "ragged"), *words], "ragged:2: 1 columns"),
        (["--input", str(tmp_path / "three"), *words], "3 sentences, but the model reads one or two"),
        (["--input", str(tmp_path / "long")], "give the tokenizer"),
        (["--input", str(tmp_path / "long"), *words, "--data-bin", "nowhere"], "--data-bin"),
        (["--glue-task", "RTE", *words], "give --output-dir"),
        (["--glue-task", "RTE", "--split", "dev", *words], "give --glue-dir"),
    ):
        with pytest.raises(SystemExit, match=message):
            predict.main([str(checkpoint), *own])
    with pytest.raises(SystemExit, match="no such checkpoint"):
        predict.main([str(tmp_path / "x.pt"), "--input", str(tmp_path / "long"), *words])
