"""The tasks beside GLUE: from the official files to what fairseq's tasks read."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from fairseq import tasks
from fairseq.data import Dictionary, indexed_dataset

import training
from adv_plugins_cli import preprocess as preprocess_command
from adv_plugins_cli import preprocess_text
from adv_plugins_cli.command import UserError
from adv_plugins_cli.data import binarize, task_folder
from adv_plugins_cli.data.formats import TASKS, pairs
from adv_plugins_cli.data.glue_format import TASKS as GLUE_TASKS
from adv_plugins_cli.recipes import recipes

WORDPIECE = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def lines(path, *rows):
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def question(stem, choices, key, names="ABCDE"):
    listed = [{"text": choice, "label": name} for choice, name in zip(choices, names)]
    row = {"id": "1", "question": {"stem": stem, "choices": listed}}
    return row if key is None else {**row, "answerKey": key}


def wsc(sentence, noun, index, pronoun, label):
    target = {"span1_text": noun, "span1_index": 0, "span2_text": pronoun, "span2_index": index}
    return {"text": sentence, "target": target, "label": label, "idx": 0}


def write_official(root):
    """A few rows of every task, in its official format."""
    for task in ("TNEWS", "IFLYTEK"):
        first = 102 if task == "TNEWS" else 7
        for name in ("train", "dev"):
            row = {"label": first, "sentence": "a b\u2028c\t d", "id": 1}
            lines(root / task / f"{name}.json", row, {**row, "label": first + 1})
        lines(root / task / "test.json", {"sentence": "b", "id": 0})
    news = "".join(f'"{1 + i % 4}","title {i}","say ""{i}""\\now, b"\n' for i in range(20))
    text(root / "AG-News" / "train.csv", news)
    text(root / "AG-News" / "test.csv", '"4","x","y"\n')
    for split in ("train", "test"):
        for label in ("pos", "neg"):
            for index in range(10):
                text(root / "IMDB" / split / label / f"{index}_1.txt", f"{label} {index}<br /><br />b")
    for number in (1, 2, 3):
        row = {"uid": "u", "context": f"a {number}", "hypothesis": "b", "label": "n", "reason": ""}
        for name in ("train", "dev", "test"):
            lines(root / "ANLI" / f"R{number}" / f"{name}.jsonl", row, {**row, "label": "c"})
    header = "id\tsentence1\tsentence2\tlabel\n"
    text(root / "PAWS-QQP" / "train.tsv", f"{header}1\tb'a caf\\xc3\\xa9'\tb\"it's\"\t1\n")
    text(root / "PAWS-QQP" / "dev_and_test.tsv", f"{header}1\ta\tb\t0\n")
    for task in ("ARC-Easy", "ARC-Challenge"):
        rows = [
            question("a", ["b", "c", "d"], "3", names="123"),
            question("a", ["b", "c", "d", "a", "e"], "A"),
        ]
        for name in ("Train", "Dev", "Test"):
            lines(root / task / f"{task}-{name}.jsonl", *rows)
    dialogue = [["M: a", "W: b"], [{"question": "c", "choice": ["x", "y", "z"], "answer": "y"}], "id"]
    for name in ("train", "dev", "test"):
        text(root / "DREAM" / f"{name}.json", json.dumps([dialogue]))
    for name in ("train", "val"):
        row = {"ctx": "a", "endings": ["b", "c", "d", "e"], "label": 2}
        lines(root / "HellaSwag" / f"hellaswag_{name}.jsonl", row)
    lines(root / "HellaSwag" / "hellaswag_test.jsonl", {"ctx": "a", "endings": ["b", "c", "d", "e"]})
    for name in ("train", "dev"):
        row = question("a", list("bcdef"), "E")
        lines(root / "CommonsenseQA" / f"{name}_rand_split.jsonl", row)
    test = root / "CommonsenseQA" / "test_rand_split_no_answers.jsonl"
    lines(test, question("a", list("bcdef"), None))
    header, rows = "index\tquestion\tsentence\tlabel\n", []
    for index in range(20):
        rows += [f"q{index}\tright {index}\tentailment", f"q{index}\twrong {index}\tnot_entailment"]
    rows.append("alone\tx\tentailment")
    body = "".join(f"{index}\t{row}\n" for index, row in enumerate(rows))
    text(root / "QNLI" / "train.tsv", header + body)
    text(root / "QNLI" / "dev.tsv", header + body)
    # test rows: a pair, one whose partner is in dev, one without any
    test = "0\tt\ta\n1\tt\tb\n2\talone\tc\n3\tnobody\td\n"
    text(root / "QNLI" / "test.tsv", "index\tquestion\tsentence\n" + test)
    header = "index\tsentence1\tsentence2\tlabel\n"
    for name in ("train", "dev"):
        text(root / "WNLI" / f"{name}.tsv", f"{header}0\ts\tright\t1\n1\ts\twrong\t0\n2\ts\tbad\t0\n")
    sentence = "The cup does not fit in the bag because it is too big."
    for name in ("train", "val"):
        rows = [wsc(sentence, noun, 9, "it", noun == "The cup") for noun in ("The cup", "the bag")]
        lines(root / "WSC" / f"{name}.jsonl", *rows, wsc("He ran; so she won.", "x", 3, "she", False))
    words = "The\tO\n\U0001f600\tO\nNew\tB-location\nYork\tI-location\n\n\nHi\tO\n"
    for name in ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"):
        text(root / "WNUT-17" / name, words)
    return root


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    return write_official(tmp_path_factory.mktemp("official"))


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """A WordPiece vocabulary of letters and digits: every word is pieces of one character."""
    folder = tmp_path_factory.mktemp("wordpiece")
    characters = [*"abcdefghijklmnopqrstuvwxyz0123456789.,:'_\""]
    tokens = [*WORDPIECE, *characters, *(f"##{c}" for c in characters)]
    text(folder / "vocab.txt", "".join(f"{token}\n" for token in tokens))
    return folder


def preprocess(official, vocabulary, out, *tasks, flag="--wordpiece"):
    request = ["--data-dir", str(official), flag, str(vocabulary), "--out-dir", str(out)]
    preprocess_command.run(preprocess_command.parse_arguments([*request, *tasks]))


@pytest.fixture(scope="module")
def binary(official, vocabulary, tmp_path_factory):
    """All tasks, preprocessed."""
    out = tmp_path_factory.mktemp("bin")
    preprocess(official, vocabulary, out, *(name for name, task in TASKS.items() if task.kind != "raw"))
    return out


def sentences(folder, name, split):
    """Texts of one input, without the end symbol and without spaces."""
    dictionary = Dictionary.load(str(folder / name / "dict.txt"))
    dataset = indexed_dataset.make_dataset(str(folder / name / split), "mmap")
    found = []
    for item in dataset:
        assert item[-1] == dictionary.eos()
        found.append("".join(dictionary[index] for index in item[:-1]).replace("##", ""))
    return found


def choice_labels(folder, split):
    return [int(line) for line in (folder / "label" / f"{split}.label").read_text().split()]


def class_labels(folder, split):
    dictionary = Dictionary.load(str(folder / "label" / "dict.txt"))
    dataset = indexed_dataset.make_dataset(str(folder / "label" / split), "mmap")
    return [dictionary[int(item[0])] for item in dataset]


def test_every_task_of_the_recipes_can_be_preprocessed():
    rows = {row["task"]: row for row in recipes.read_table(recipes.TABLES / "tasks.tsv")}
    ours = set(rows) - {"demo"} - set(GLUE_TASKS)
    assert ours == set(TASKS)
    kinds = {
        "classification": "sentence_prediction",
        "ranking": "sentence_ranking",
        "raw": "commonsense_qa",
        "entities": "token_classification",
    }
    for name in ours:
        assert rows[name]["fairseq_task"] == kinds[TASKS[name].kind]
        assert int(rows[name]["num_classes"]) == len(TASKS[name].labels)


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if task.kind == "ranking"])
def test_fairseqs_ranking_task_reads_the_folder(task, binary):
    count = len(TASKS[task].labels)
    line = f"{binary / task}-bin --task sentence_ranking --num-classes {count} --init-token 0"
    line = f"{line} --criterion sentence_ranking --arch roberta {training.TINY}"
    cfg = training.parse(line.split())
    loaded = tasks.setup_task(cfg.task)
    loaded.load_dataset("valid")
    batch = loaded.dataset("valid").collater([loaded.dataset("valid")[0]])
    assert f"net_input{count}" in batch and int(batch["target"]) in range(count)


@pytest.mark.parametrize("task", [n for n, task in TASKS.items() if task.kind == "classification"])
def test_fairseqs_prediction_task_reads_the_folder(task, binary):
    count = len(TASKS[task].labels)
    line = f"{binary / task}-bin --task sentence_prediction --num-classes {count} --init-token 0"
    line = f"{line} --criterion sentence_prediction --arch roberta {training.TINY}"
    loaded = tasks.setup_task(training.parse(line.split()).task)
    for split in ("train", "valid"):
        loaded.load_dataset(split)
        dataset = loaded.dataset(split)
        assert all(0 <= int(dataset[i]["target"]) < count for i in range(len(dataset)))


def test_classes_texts_and_held_out_rows(binary):
    assert class_labels(binary / "TNEWS-bin", "train") == ["102", "103"]
    assert sentences(binary / "TNEWS-bin", "input0", "train") == ["abcd"] * 2
    news = [sentences(binary / "AG-News-bin", "input0", split) for split in ("train", "valid")]
    assert [len(part) for part in news] == [18, 2] and len({*news[0], *news[1]}) == 20
    assert 'title3say"3"now,b' in {*news[0], *news[1]}
    reviews = sentences(binary / "IMDB-bin", "input0", "train")
    assert len(reviews) == 18 and all(review.endswith("b") for review in reviews)
    for review, label in zip(reviews, class_labels(binary / "IMDB-bin", "train")):
        assert review.startswith(label)
    anli = binary / "ANLI-bin"
    assert class_labels(anli, "valid") == ["neutral", "contradiction"] * 3
    assert sentences(anli, "input0", "valid2") == ["a2"] * 2
    assert sentences(anli, "input0", "train") == ["a1", "a1", "a2", "a2", "a3", "a3"]
    paws = binary / "PAWS-QQP-bin"
    assert sentences(paws, "input0", "train") == ["acafe"] and class_labels(paws, "train") == ["1"]
    assert sentences(paws, "input1", "train") == ["it's"]


def test_choices(binary):
    for task in ("ARC-Easy", "ARC-Challenge"):
        folder = binary / f"{task}-bin"
        assert choice_labels(folder, "train") == [2, 0]
        assert sentences(folder, "input4", "train") == ["", "a"]
    dream = binary / "DREAM-bin"
    assert sentences(dream, "input0", "valid") == ["m:aw:bc"] and choice_labels(dream, "valid") == [1]
    assert [sentences(dream, f"input{i}", "test")[0] for i in (1, 2, 3)] == ["x", "y", "z"]
    assert choice_labels(binary / "HellaSwag-bin", "train") == [2]
    assert not (binary / "HellaSwag-bin" / "label" / "test.label").exists()
    commonsense = binary / "CommonsenseQA-ranking-bin"
    assert choice_labels(commonsense, "valid") == [4]
    assert sentences(commonsense, "input0", "test") == ["q:a"]
    assert sentences(commonsense, "input5", "test") == ["a:f"]


def test_pairs_hold_a_right_and_a_wrong_candidate_in_random_order(binary, official):
    folder = binary / "QNLI-ranking-bin"
    labels = choice_labels(folder, "train")
    first, second = (sentences(folder, f"input{i}", "train") for i in (1, 2))
    assert len(labels) == 20 and 4 < sum(labels) < 16, "the label must not be the place"
    for label, candidates in zip(labels, zip(first, second)):
        assert candidates[label].startswith("right") and candidates[1 - label].startswith("wrong")
    rows = [line.split("\t") for line in (folder / "rows.tsv").read_text().splitlines()[1:]]
    official_rows = (official / "QNLI" / "train.tsv").read_text().splitlines()[1:]
    for (split, example, *pair), one, two in zip(rows, first, second):
        assert split == "train" and int(example) < 20
        for row, candidate in zip(pair, (one, two)):
            assert official_rows[int(row)].split("\t")[2].replace(" ", "") == candidate
    test = [sorted(map(int, row[2:])) for row in rows_of(folder, "test")]
    assert test == [[0, 1], [pairs.ELSEWHERE, 2]]
    wnli = binary / "WNLI-ranking-bin"
    assert len(choice_labels(wnli, "train")) == 2
    wsc_folder = binary / "WSC-bin"
    (label,) = choice_labels(wsc_folder, "valid")
    texts = [sentences(wsc_folder, f"input{i}", "valid")[0] for i in (1, 2)]
    assert "becausethecupistoobig." in texts[label] and "becausethebagistoobig." in texts[1 - label]
    assert "because_istoobig." in sentences(wsc_folder, "input0", "valid")[0]


def rows_of(folder, split):
    rows = [line.split("\t") for line in (folder / "rows.tsv").read_text().splitlines()[1:]]
    return [row for row in rows if row[0] == split]


def test_words_have_their_label_on_the_first_subword(binary):
    folder = binary / "WNUT-17-bin"
    words = indexed_dataset.make_dataset(str(folder / "input0" / "train"), "mmap")
    labels = indexed_dataset.make_dataset(str(folder / "label" / "train"), "mmap")
    dictionary = Dictionary.load(str(folder / "label" / "dict.txt"))
    assert len(words) == len(labels) == 2
    # t ##h ##e, the unknown face, n ##e ##w, y ##o ##r ##k, end
    assert len(words[0]) == 3 + 1 + 3 + 4 + 1 and len(labels[0]) == len(words[0]) - 1
    names = [dictionary[index] for index in labels[0]]
    pad = "<pad>"
    outside = ["O", pad, pad, "O"]
    assert names == [*outside, "B-location", pad, pad, "I-location", pad, pad, pad]
    assert words[0][3] == Dictionary().unk()
    assert [dictionary[i] for i in range(dictionary.nspecial, len(dictionary))] == list(
        TASKS["WNUT-17"].labels
    )


@pytest.mark.parametrize(
    "task,file,content,message",
    [
        ("TNEWS", "train.json", '{"label": 105, "sentence": "a"}\n', "train.json:1: bad label '105'"),
        ("TNEWS", "train.json", "{}\n", "train.json:1: no 'sentence'"),
        ("TNEWS", "train.json", "x\n", "train.json:1: no JSON"),
        ("TNEWS", "dev.json", "", "dev.json: the file has no rows"),
        ("AG-News", "train.csv", '"5","a","b"\n', "train.csv:1: bad label '5'"),
        ("AG-News", "train.csv", "1,a\n", "train.csv:1: 2 columns instead of 3"),
        ("ANLI", "R2/dev.jsonl", '{"label": "x"}\n', "bad label 'x'"),
        ("PAWS-QQP", "train.tsv", "a\tb\n", "train.tsv:1: the header"),
        ("ARC-Easy", "ARC-Easy-Dev.jsonl", json.dumps(question("a", "bc", "D")), "bad answerKey 'D'"),
        (
            "DREAM",
            "dev.json",
            '[[["a"], [{"question": "q", "choice": ["x"], "answer": "y"}]]]',
            "none of",
        ),
        ("HellaSwag", "hellaswag_val.jsonl", '{"ctx": "a", "endings": ["b"]}', "1 endings"),
        ("QNLI-ranking", "../QNLI/dev.tsv", "index\tquestion\n", "no column 'sentence'"),
        ("WSC", "val.jsonl", json.dumps(wsc("a b c", "x", 1, "it", True)), "word 1 of the text is not"),
        ("WNUT-17", "emerging.dev.conll", "a b O\n", "emerging.dev.conll:1: not a word and its label"),
        ("WNUT-17", "emerging.dev.conll", "a\tB-x\n", "bad label 'B-x'"),
    ],
)
def test_faults_are_named_and_nothing_is_written(task, file, content, message, tmp_path, vocabulary):
    root = write_official(tmp_path / "data")
    text(root / task / file, content) if not file.startswith("..") else text(root / file[3:], content)
    with pytest.raises(UserError, match=message):
        preprocess(root, vocabulary, tmp_path / "out", "IMDB", task)
    assert not (tmp_path / "out").exists()


NO_TEXT = "is null, not a text"
COMMONSENSE = "train_rand_split.jsonl"


def without(row, *names):
    """A question whose entry is null."""
    row = json.loads(json.dumps(row))
    place = row
    for name in names[:-1]:
        place = place[name]
    place[names[-1]] = None
    return json.dumps(row)


@pytest.mark.parametrize(
    "task,file,content,message",
    [
        (
            "TNEWS",
            "train.json",
            '{"label": 102, "sentence": "a"}\n{"sentence": "b"}\n',
            "train.json:2: no label, but line 1 has one",
        ),
        ("TNEWS", "train.json", '{"sentence": "b"}\n', "train.json: no row has a label"),
        ("TNEWS", "dev.json", '{"label": 102, "sentence": null}\n', f"dev.json:1: .*{NO_TEXT}"),
        ("TNEWS", "dev.json", '{"label": 102, "sentence": 3}\n', "'sentence' is 3, not a text"),
        ("ANLI", "R1/dev.jsonl", '{"label": "n", "context": null, "hypothesis": "b"}\n', NO_TEXT),
        ("ANLI", "R1/dev.jsonl", '{"label": null, "context": "a", "hypothesis": "b"}\n', NO_TEXT),
        (
            "ARC-Easy",
            "ARC-Easy-Dev.jsonl",
            without(question("a", "bc", "A"), "question", "choices", 0, "text"),
            f"ARC-Easy-Dev.jsonl:1: 'text' {NO_TEXT}",
        ),
        ("ARC-Easy", "ARC-Easy-Dev.jsonl", '{"question": "a"}', "is \"a\", not a object"),
        ("ARC-Easy", "ARC-Easy-Dev.jsonl", json.dumps(question("a", "bc", "A", "AA")), "one label"),
        ("CommonsenseQA-ranking", COMMONSENSE, without(question("a", "bcdef", "A"), "question", "stem"),
         f"{COMMONSENSE}:1: 'stem' {NO_TEXT}"),
        ("CommonsenseQA-ranking", COMMONSENSE, json.dumps(question("a", "bcdef", "1", "12345")),
         "1, 2, 3, 4, 5 instead of A to E"),
        ("CommonsenseQA-ranking", COMMONSENSE, without(question("a", "bcdef", "A"), "answerKey"),
         "the answerKey is None"),
        ("DREAM", "dev.json", '[[["a", null], [], "id"]]', f"dialogue 1: turn 2 {NO_TEXT}"),
        ("DREAM", "dev.json", '[["a", [], "id"]]', "dialogue 1: its first part is \"a\", not a list"),
        ("DREAM", "dev.json", "{}", "dev.json: holds a JSON dict, not list"),
        (
            "HellaSwag",
            "hellaswag_val.jsonl",
            '{"ctx": "a", "endings": ["b", null, "c", "d"], "label": 1}',
            f"hellaswag_val.jsonl:1: ending 2 {NO_TEXT}",
        ),
        ("WSC", "val.jsonl", without(wsc("a it c", "x", 1, "it", True), "text"), NO_TEXT),
        (
            "WSC",
            "val.jsonl",
            without(wsc("a it c", "x", 1, "it", True), "target", "span1_text"),
            NO_TEXT,
        ),
        ("WSC", "val.jsonl", json.dumps(wsc("a it c", "x", 1, "it", 1)), "'label' is 1, not a true"),
        ("WSC", "val.jsonl", json.dumps(wsc("a it c", "x", "1", "it", True)), "not a whole number"),
        (
            "WSC",
            "val.jsonl",
            f"{json.dumps(wsc('a it c', 'x', 1, 'it', True))}\n"
            f"{json.dumps(wsc('a it c', 'y', 1, 'it', None))}\n",
            "val.jsonl:2: no label, but line 1 has one",
        ),
        ("IMDB", "train/pos/0_1.txt", " \n", "0_1.txt: the review is empty"),
        (
            "PAWS-QQP",
            "train.tsv",
            "id\tsentence1\tsentence2\tlabel\n1\tb'a', 1\tb\t0\n",
            "train.tsv:2: not a literal",
        ),
        ("QNLI-ranking", "../QNLI/dev.tsv", "", "dev.tsv:1: no header"),
    ],
)  # fmt: skip
def test_what_would_be_wrong_in_silence_is_named(task, file, content, message, tmp_path, vocabulary):
    root = write_official(tmp_path / "data")
    text(root / task.removesuffix("-ranking") / file.removeprefix("../QNLI/"), content)
    with pytest.raises(UserError, match=message):
        preprocess(root, vocabulary, tmp_path / "out", task)
    assert not (tmp_path / "out").exists()


TEXT_FILES = {
    "TNEWS": "train.json",
    "IFLYTEK": "dev.json",
    "AG-News": "train.csv",
    "IMDB": "train/pos/3_1.txt",
    "ANLI": "R3/train.jsonl",
    "PAWS-QQP": "dev_and_test.tsv",
    "ARC-Easy": "ARC-Easy-Train.jsonl",
    "DREAM": "train.json",
    "HellaSwag": "hellaswag_val.jsonl",
    "CommonsenseQA-ranking": COMMONSENSE,
    "QNLI-ranking": "train.tsv",
    "WSC": "val.jsonl",
    "WNUT-17": "wnut17train.conll",
}


@pytest.mark.parametrize("task", TEXT_FILES)
def test_every_reader_names_the_line_that_is_not_utf8(task, tmp_path, vocabulary):
    root = write_official(tmp_path / "data")
    path = root / task.removesuffix("-ranking") / TEXT_FILES[task]
    lines_ = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines_[:-1], b"caf\xe9 ", lines_[-1]]))
    with pytest.raises(UserError, match=rf"{path.name}:{len(lines_)}: not UTF-8 text"):
        preprocess(root, vocabulary, tmp_path / "out", task)
    path.write_bytes(bytes(range(256)) * 9)
    with pytest.raises(UserError, match=path.name):
        preprocess(root, vocabulary, tmp_path / "out", task)


@pytest.mark.parametrize("task", TEXT_FILES)
def test_a_byte_order_mark_is_no_part_of_the_first_text(task, binary, tmp_path, vocabulary):
    root = write_official(tmp_path / "data")
    path = root / task.removesuffix("-ranking") / TEXT_FILES[task]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    preprocess(root, vocabulary, tmp_path / "out", task)
    assert contents(tmp_path / "out" / f"{task}-bin") == contents(binary / f"{task}-bin")


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_raw_rows_are_what_fairseqs_reader_can_read(official, real_data, tmp_path):
    """It takes every line for JSON."""
    root = write_official(tmp_path / "data")
    path = root / "CommonsenseQA" / COMMONSENSE
    sound = path.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + sound + b"\n \n" + sound.rstrip())
    preprocess(root, real_data / "gpt2_bpe", tmp_path, "CommonsenseQA", flag="--bpe-dir")
    assert (tmp_path / "CommonsenseQA-bin" / "train.jsonl").read_bytes() == sound * 2


def test_fields_of_a_csv_file_may_be_long(tmp_path, vocabulary):
    root = write_official(tmp_path / "data")
    path = root / "AG-News" / "test.csv"
    text(path, f'"4","x","{"y " * 100_000}"\n')
    preprocess(root, vocabulary, tmp_path / "out", "AG-News")
    (found,) = sentences(tmp_path / "out" / "AG-News-bin", "input0", "test")
    assert len(found) == 100_001


def test_pronouns_off_by_a_word_are_mended_and_counted(tmp_path, vocabulary, capsys):
    root = write_official(tmp_path / "data")
    sentence = "The cup does not fit in  the bag because It, they say, is too big."
    places = {9: "It", 10: "it,", 8: "it"}  # by words, by the spaces between them, one too few
    nouns = ("The cup", "the bag.", "the\nfox")
    rows = [wsc(sentence, n, *place, n == "The cup") for place, n in zip(places.items(), nouns)]
    lines(root / "WSC" / "val.jsonl", *rows)
    preprocess(root, vocabulary, tmp_path / "out", "WSC")
    message = "val.jsonl: 2 rows give another place of the pronoun than its own: mended (first: line 2)"
    assert message in capsys.readouterr().out
    folder = tmp_path / "out" / "WSC-bin"
    found = [sentences(folder, f"input{i}", "valid") for i in (1, 2)]
    assert all("because_theysay" in context for context in sentences(folder, "input0", "valid"))
    wrong = {pair[1 - label] for label, *pair in zip(choice_labels(folder, "valid"), *found)}
    assert {text_.partition("because")[2] for text_ in wrong} == {
        "thebag,theysay,istoobig.",
        "thefox,theysay,istoobig.",
    }


BAD_FILES = {
    "missing": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "empty": lambda path: path.write_bytes(b""),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 50),
    "columns": lambda path: path.write_text("a,b,c,d,e\n" * 3),
    "another JSON": lambda path: path.write_text('{"a": [1, 2]}\n'),
    "deep JSON": lambda path: path.write_text("[" * 100_000),
    "a cut line": lambda path: path.write_bytes(path.read_bytes()[:-9]),
}


@pytest.mark.parametrize("bad", BAD_FILES)
@pytest.mark.parametrize("task", TEXT_FILES)
def test_every_bad_file_is_one_line(task, bad, tmp_path, vocabulary):
    root = write_official(tmp_path / "data")
    path = root / task.removesuffix("-ranking") / TEXT_FILES[task]
    BAD_FILES[bad](path)
    request = ["--data-dir", str(root), "--wordpiece", str(vocabulary), task]
    try:
        preprocess_command.main([*request, "--out-dir", str(tmp_path / "out")])
    except SystemExit as ended:
        said = str(ended.code)
        assert "\n" not in said and said.startswith("adv-plugins preprocess: error: ")
        assert str(root / task.removesuffix("-ranking")) in said
        assert not (tmp_path / "out").exists()
    else:  # a review may be anything, of pairs one file is enough, a cut line may be a whole one
        assert task in ("IMDB", "QNLI-ranking", "WSC") or bad == "a cut line"


@pytest.mark.parametrize("out", ["a file", "below a file", "another folder", "no file of text"])
def test_bad_places_are_one_line(out, official, vocabulary, tmp_path):
    place = tmp_path / "out"
    text(place / "holiday.txt" if out == "another folder" else place, "mine")
    target = place / "x" if out == "below a file" else place
    source = tmp_path if out == "no file of text" else official / "TNEWS" / "train.json"
    request = [str(source), "--wordpiece", str(vocabulary), "--valid-share", "0.5"]
    with pytest.raises(SystemExit, match=r"^adv-plugins preprocess-text: error: [^\n]+$") as ended:
        preprocess_text.main([*request, "--out-dir", str(target), "--overwrite"])
    assert str(tmp_path) in str(ended.value.code)
    assert next(path for path in tmp_path.rglob("*") if path.is_file()).read_text() == "mine"


def test_an_interrupted_replacement_leaves_the_old_folder(official, vocabulary, tmp_path, monkeypatch):
    preprocess(official, vocabulary, tmp_path, "DREAM")
    before = contents(tmp_path / "DREAM-bin")
    # what a killed process with this one's number had left before names were drawn
    (tmp_path / f".DREAM-bin.{os.getpid()}").mkdir()
    request = ["--data-dir", str(official), "--wordpiece", str(vocabulary), "--out-dir", str(tmp_path)]
    arguments = preprocess_command.parse_arguments([*request, "DREAM", "--overwrite"])
    with monkeypatch.context() as patch:
        patch.setattr(task_folder, "write_text_labels", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            preprocess_command.run(arguments)
    assert contents(tmp_path / "DREAM-bin") == before
    preprocess_command.run(arguments)
    assert contents(tmp_path / "DREAM-bin") == before


def test_missing_folders_files_and_other_requests(official, vocabulary, tmp_path):
    with pytest.raises(UserError, match="--data-dir must hold it"):
        preprocess(tmp_path, vocabulary, tmp_path / "out", "DREAM")
    with pytest.raises(UserError, match="take CommonsenseQA-ranking"):
        preprocess(official, vocabulary, tmp_path / "out", "CommonsenseQA")
    preprocess(official, vocabulary, tmp_path / "out", "DREAM")
    with pytest.raises(UserError, match="pass --overwrite"):
        preprocess(official, vocabulary, tmp_path / "out", "DREAM")
    command = [sys.executable, "-m", "adv_plugins_cli", "preprocess", "WSC", "--data-dir", str(tmp_path)]
    command += ["--wordpiece", str(vocabulary), "--out-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("adv-plugins preprocess: error: ")


REAL = {
    "TNEWS": (1185, 1098, 2010),
    "IFLYTEK": (3024, 1373, 1749),
    "DREAM": (6116, 2040, 2041),
    "CommonsenseQA": (9741, 1221, 1140),
    "WNUT-17": (3394, 1009, 1287),
}


@pytest.mark.parametrize("task", REAL)
def test_the_real_files_are_read_whole(task, real_data):
    data = TASKS[task].read(TASKS[task].find(real_data))
    assert tuple(len(data[split].lines) for split in ("train", "valid", "test")) == REAL[task]
    for split in data.values():
        for column in split.inputs:
            assert all(value and "\n" not in value for value in column)


def test_real_questions_of_qnli_find_partners(real_data):
    found = TASKS["QNLI-ranking"].read(real_data / "glue" / "QNLI")
    # all but one of the 5463 test rows are in a pair, if not with a test row, then with one of dev
    assert len(found["test"].skipped_lines) == 1
    assert len(found["valid"].lines) == 1363 and len(found["valid"].skipped_lines) == 2738


def test_fairseqs_commonsense_qa_reads_the_folder(real_data, tmp_path):
    lines_ = {}
    for name, official_name in (("train", "train_rand_split"), ("dev", "dev_rand_split")):
        source = real_data / "CommonsenseQA" / f"{official_name}.jsonl"
        lines_[name] = source.read_text("utf-8").splitlines()[:5]
        text(tmp_path / "CommonsenseQA" / f"{official_name}.jsonl", "\n".join(lines_[name]) + "\n")
    bpe = real_data / "gpt2_bpe"
    preprocess(tmp_path, bpe, tmp_path, "CommonsenseQA", flag="--bpe-dir")
    line = (
        f"{tmp_path / 'CommonsenseQA-bin'} --task commonsense_qa --init-token 0 --bpe gpt2 "
        f"--gpt2-encoder-json {bpe / 'encoder.json'} --gpt2-vocab-bpe {bpe / 'vocab.bpe'} "
        f"--criterion sentence_ranking --arch roberta {training.TINY}"
    )
    loaded = tasks.setup_task(training.parse(line.split()).task)
    loaded.load_dataset("valid")
    dataset = loaded.dataset("valid")
    first = json.loads(lines_["dev"][0])
    expected = binarize.Gpt2Bpe(bpe).encode_batch(
        ["Q: " + first["question"]["stem"], "A: " + first["question"]["choices"][0]["text"]]
    )
    example = next(dataset[i] for i in range(5) if dataset[i]["id"] == 0)
    tokens = example["net_input1.src_tokens"].numpy()
    np.testing.assert_array_equal(tokens, np.concatenate([[0], expected[0], [2], expected[1], [2]]))
