"""What a checkpoint's folder says of itself: architecture.json, hostile ones included."""

import hashlib
import json
import shutil

import pytest
import torch

from adv_plugins_cli import finetune, predict, preprocess
from adv_plugins_cli.checkpoints.architecture import ARCHITECTURE, Architecture, read_architecture
from adv_plugins_cli.command import UserError
from adv_plugins_cli.convert_from_hf import build_checkpoint
from adv_plugins_cli.data.tokenizer_options import Tokenizer, find_tokenizer

MODEL = {"flags": ["--arch", "bert_like", "--encoder-layers", "2"], "separators": 1}
DIGEST = hashlib.sha256(b"words").hexdigest()
WORDPIECE = {"kind": "wordpiece", "files": {"vocab.txt": DIGEST}}


@pytest.fixture
def write(tmp_path):
    """Writes such a folder with a vocabulary; returns it."""

    def run(**facts):
        (tmp_path / "vocab.txt").write_bytes(b"words")
        (tmp_path / ARCHITECTURE).write_text(json.dumps({**MODEL, **facts}))
        return tmp_path

    return run


def test_what_is_written_is_read(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"words")
    tokenizer = Tokenizer("wordpiece", tmp_path).describe()
    sizes = (("--encoder-layers", "2"), ("--layer-norm-epsilon", "1e-12"))
    whole = Architecture("asa_bert_like", sizes, 1, tokenizer, ("no", "yes"))
    whole.write(tmp_path)
    assert read_architecture(tmp_path) == whole
    assert whole.flags(adversaries=True) == whole.flags() and whole.flags()[1] == "asa_bert_like"
    assert Architecture("roberta").flags(adversaries=True) == ["--arch", "asa_roberta"]
    assert read_architecture(tmp_path / "nothing") is None


def test_the_folder_says_which_tokenizer_whatever_else_lies_there(write):
    folder = write(tokenizer=WORDPIECE)
    for name in ("sentencepiece.bpe.model", "encoder.json", "vocab.bpe"):
        (folder / name).write_bytes(b"of another model")
    assert find_tokenizer(folder) == Tokenizer("wordpiece", folder, ("vocab.txt",))


def test_one_folder_that_says_it_comes_before_all_that_are_guessed(write, tmp_path):
    guessed = tmp_path / "guessed"
    guessed.mkdir()
    (guessed / "spiece.model").write_bytes(b"")
    folder = write(tokenizer=WORDPIECE)
    found = find_tokenizer(guessed, folder)
    assert found and found.kind == "wordpiece"


@pytest.mark.parametrize(
    "names,kind",
    [
        (["spiece.model", "vocab.txt"], "sentencepiece"),
        (["encoder.json", "vocab.bpe", "tokenizer.json"], "gpt2-bpe"),
        (["tokenizer.json"], "wordpiece"),
        (["encoder.json"], None),
    ],
)
def test_folders_that_do_not_say_it_are_known_by_the_names_of_their_files(names, kind, tmp_path):
    (tmp_path / ARCHITECTURE).write_text(json.dumps(MODEL))
    for name in names:
        (tmp_path / name).write_bytes(b"")
    found = find_tokenizer(tmp_path)
    assert (found and found.kind) == kind


@pytest.mark.parametrize(
    "facts,message",
    [
        ({"separators": True}, "'separators' is True"),
        ({"tokenizer": "wordpiece"}, "'tokenizer' is not its 'kind' and its 'files'"),
        ({"tokenizer": {"kind": "wordpiece"}}, "'tokenizer' is not its"),
        ({"tokenizer": {**WORDPIECE, "options": ["--user-dir"]}}, "'tokenizer' is not its"),
        ({"tokenizer": {**WORDPIECE, "kind": "bert"}}, "kind is 'bert'; known are gpt2-bpe"),
        ({"tokenizer": {**WORDPIECE, "kind": ["wordpiece"]}}, "kind is .'wordpiece'.; known are"),
        ({"tokenizer": {**WORDPIECE, "files": {}}}, "are no names with their SHA-256"),
        ({"tokenizer": {**WORDPIECE, "files": ["vocab.txt"]}}, "are no names with their SHA-256"),
        ({"tokenizer": {**WORDPIECE, "files": {"../vocab.txt": DIGEST}}}, "is no name in this folder"),
        ({"tokenizer": {**WORDPIECE, "files": {"/etc/passwd": DIGEST}}}, "is no name in this folder"),
        ({"tokenizer": {**WORDPIECE, "files": {"..": DIGEST}}}, "is no name in this folder"),
        ({"tokenizer": {**WORDPIECE, "files": {"": DIGEST}}}, "is no name in this folder"),
        ({"tokenizer": {**WORDPIECE, "files": {"a\nb": DIGEST}}}, "is no name in this folder"),
        ({"tokenizer": {**WORDPIECE, "files": {"vocab.txt": "1"}}}, "'1' of .* is no SHA-256"),
        ({"tokenizer": {**WORDPIECE, "files": {"vocab.txt": None}}}, "None of .* is no SHA-256"),
        ({"tokenizer": {**WORDPIECE, "files": {"gone.txt": DIGEST}}}, "gone.txt: no such file, but"),
        ({"tokenizer": {**WORDPIECE, "files": {"vocab.txt": "0" * 64}}}, "vocab.txt: is not the file"),
        ({"tokenizer": {**WORDPIECE, "kind": "sentencepiece"}}, "has one file .\\.model"),
        ({"labels": "yes no"}, "'labels' is no list"),
        ({"labels": []}, "'labels' is no list"),
        ({"labels": ["a"] * 20_000}, "'labels' is no list"),
        ({"labels": ["yes", 1]}, "1 is no label"),
        ({"labels": ["yes", ""]}, "'' is no label"),
        ({"labels": ["yes", "n\no"]}, "is no label"),
        ({"labels": ["y" * 2000]}, "is no label"),
        ({"labels": ["yes", "yes"]}, "'labels' has a name twice"),
    ],
)
def test_entries_that_cannot_be_are_one_line(facts, message, write):
    with pytest.raises(UserError, match=message) as error:
        find_tokenizer(write(**facts))
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


PIECES = "[PAD] [UNK] [CLS] [SEP] [MASK] a b c d".split()


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """The folder of a run of finetune, without the data and the encoder that it came from."""
    root = tmp_path_factory.mktemp("tuned")
    glue = root / "glue" / "RTE"
    glue.mkdir(parents=True)
    labels = ("entailment", "not_entailment", "not_entailment")
    rows = [f"{n}\ta {'bd'[n % 2]}\tc d\t{labels[n % 3]}" for n in range(9)]
    for split in ("train", "dev"):
        text = "\n".join(["index\tsentence1\tsentence2\tlabel", *rows]) + "\n"
        (glue / f"{split}.tsv").write_text(text)
    (root / "start").mkdir()
    (root / "start" / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    request = ["RTE", f"--data-dir={root / 'glue'}", f"--out-dir={root / 'bin'}"]
    preprocess.main([*request, f"--wordpiece={root / 'start'}"])
    shutil.copy(root / "bin" / "RTE-bin" / "input0" / "dict.txt", root / "start")
    flags = "--encoder-layers 1 --encoder-embed-dim 8 --encoder-ffn-embed-dim 8"
    sizes = f"{flags} --encoder-attention-heads 2 --max-positions 32".split()
    architecture = Architecture(
        "roberta",
        tuple(zip(sizes[::2], sizes[1::2])),
        tokenizer=Tokenizer("wordpiece", root / "start").describe(),
    )
    architecture.write(root / "start")
    state = build_checkpoint([*architecture.flags(), "--tokens-per-sample", "32"], None, root / "start")
    torch.save(state, root / "start" / "model.pt")
    own = f"RTE asa --checkpoint {root / 'start' / 'model.pt'} --data-bin {root / 'bin'}"
    extra = "--max-positions 32 --max-epoch 1 --num-workers 0 --cpu --batch-size 4 --max-update 2"
    code = finetune.main([*f"{own} --save-dir {root / 'run'}".split(), "--", *extra.split()])
    assert code == 0
    (root / "in").write_text("a b\tc\n")
    return root


def test_finetune_leaves_what_its_checkpoints_need(tuned):
    found = read_architecture(tuned / "run")
    start = read_architecture(tuned / "start")
    assert found and start
    assert found.arch == "asa_roberta" and set(start.sizes) <= set(found.sizes)
    assert found.labels == ("not_entailment", "entailment")  # by their counts
    assert found.tokenizer == start.tokenizer
    tokenizer = find_tokenizer(tuned / "run")
    assert tokenizer and tokenizer.folder == tuned / "run"


def test_a_moved_run_predicts_by_itself(tuned, tmp_path, capsys):
    checkpoint = tuned / "run" / "checkpoint_best.pt"
    request = ["--input", str(tuned / "in"), "--probabilities"]
    predict.main([str(checkpoint), *request])
    expected = capsys.readouterr().out
    shutil.copytree(tuned / "run", tmp_path / "run")
    for name in ("bin", "start"):
        (tuned / name).rename(tuned / f"{name}.away")
    try:
        predict.main([str(tmp_path / "run" / "checkpoint_best.pt"), *request])
        assert capsys.readouterr().out == expected and "entailment" in expected
        (tmp_path / "run" / "vocab.txt").write_text("a\n")
        with pytest.raises(SystemExit, match="vocab.txt: is not the file that .*architecture.json"):
            predict.main([str(tmp_path / "run" / "checkpoint_best.pt"), *request])
        (tmp_path / "run" / ARCHITECTURE).unlink()
        with pytest.raises(SystemExit, match="no such file; name the data's folder with --data-bin"):
            predict.main([str(tmp_path / "run" / "checkpoint_best.pt"), *request])
    finally:
        for name in ("bin", "start"):
            (tuned / f"{name}.away").rename(tuned / name)


def test_labels_that_are_not_the_checkpoints_are_refused(tuned, tmp_path):
    shutil.copytree(tuned / "run", tmp_path / "run")
    path = tmp_path / "run" / ARCHITECTURE
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "labels": facts["labels"][::-1]}))
    checkpoint = str(tmp_path / "run" / "checkpoint_best.pt")
    with pytest.raises(SystemExit, match=r"architecture.json: its labels are entailment, not_ent"):
        predict.main([checkpoint, "--input", str(tuned / "in")])
