"""Bad files for the conversion and the tokenizers: one line that names the file, no traceback."""

import json
import pickle
import shutil
import subprocess
import sys

import pytest
import torch

from adv_plugins.wordpiece import load_wordpiece, symbols_of
from adv_plugins_cli import convert_from_hf, convert_to_hf
from adv_plugins_cli.command import UserError
from adv_plugins_cli.data import binarize, tokenizer_options
from test_convert import encoder_of, make_hf

HUGE = 10**9


class Malicious:
    """A pickle that writes a file when it is loaded by something careless."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One Hugging Face folder a family and what became of it, never to be changed."""
    root = tmp_path_factory.mktemp("made")
    for family in ("bert", "roberta", "camembert"):
        make_hf(root / family / "hf", family)
        convert_from_hf.run(root / family / "hf", root / family / "fairseq")
    return root


def copy_of(made, family, folder):
    shutil.copytree(made / family / "hf", folder)
    return folder


def line_of(command, *arguments):
    """The one line that the command ends with."""
    with pytest.raises(SystemExit) as error:
        command.main(list(map(str, arguments)))
    line = str(error.value)
    assert line.startswith("adv-plugins convert ") and ": error: " in line and "\n" not in line
    return line


def refused(source, *named):
    """The conversion refuses the folder, names each of these, and leaves nothing behind."""
    target = source.with_name("target")
    line = line_of(convert_from_hf, source, target)
    for each in named:
        assert each in line, line
    assert {path.name for path in source.parent.iterdir()} <= {source.name, "stolen"}
    return line


def edit_config(folder, **changes):
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in config.items() if value != "REMOVED"}))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe{}", b"[]", b"null", b"[" * 100_000, b'{"model_type": ["bert"]}', b"{}"],
    ids=repr,
)
def test_a_config_that_is_none(made, tmp_path, content):
    source = copy_of(made, "bert", tmp_path / "hf")
    (source / "config.json").write_bytes(content)
    refused(source, "config.json")


@pytest.mark.parametrize("value", ["REMOVED", None, "12", 0, -1, 1.5, True, [], {}, HUGE], ids=repr)
@pytest.mark.parametrize(
    "entry",
    ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"],
)
def test_a_config_whose_sizes_are_none(made, tmp_path, entry, value):
    """Absurd ones are noticed before anything of that size is made."""
    source = copy_of(made, "bert", tmp_path / "hf")
    edit_config(source, **{entry: value})
    refused(source, str(source))


@pytest.mark.parametrize(
    "changes",
    [
        {"max_position_embeddings": HUGE},
        {"max_position_embeddings": "many"},
        {"type_vocab_size": HUGE},
        {"type_vocab_size": None},
        {"layer_norm_eps": "1e-12"},
        {"layer_norm_eps": 0},
        {"layer_norm_eps": float("nan")},
        {"hidden_act": ["gelu"]},
        {"num_attention_heads": 3},
        {"num_hidden_layers": 2},
    ],
    ids=repr,
)
def test_a_config_that_does_not_fit_its_weights(made, tmp_path, changes):
    source = copy_of(made, "bert", tmp_path / "hf")
    edit_config(source, **changes)
    refused(source, str(source) if "num_hidden_layers" not in changes else "layers.2")


@pytest.mark.parametrize("pad", (None, "1", -1, 500))
def test_a_padding_index_that_is_none(made, tmp_path, pad):
    source = copy_of(made, "roberta", tmp_path / "hf")
    edit_config(source, pad_token_id=pad)
    refused(source, "config.json: pad_token_id")


@pytest.mark.parametrize("damage", ("empty", "half", "header", "garbage", "folder"))
def test_damaged_safetensors(made, tmp_path, damage):
    source = copy_of(made, "bert", tmp_path / "hf")
    path = source / "model.safetensors"
    content = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
        refused(source, "neither model.safetensors nor pytorch_model.bin")
        return
    path.write_bytes(
        {
            "empty": b"",
            "half": content[: len(content) // 2],
            "header": b"\xff" * 8 + content[8:],
            "garbage": content[:8] + b"?" + content[9:],
        }[damage]
    )
    refused(source, f"{path}: no safetensors file")


def test_damaged_and_malicious_bin_files(made, tmp_path):
    source = copy_of(made, "bert", tmp_path / "hf")
    (source / "model.safetensors").unlink()
    path = source / "pytorch_model.bin"
    stolen = tmp_path / "stolen"
    torch.save({"weight": Malicious(stolen)}, path)
    refused(source, f"{path}: no file of tensors", "run code")
    path.write_bytes(pickle.dumps(Malicious(stolen)))
    refused(source, f"{path}: no file of tensors")
    assert not stolen.exists()
    for content in (b"", b"PK\x03\x04 half of a zip file", b"\x80\x02garbage"):
        path.write_bytes(content)
        refused(source, f"{path}: no file of tensors")
    for value, named in (
        ([torch.zeros(2)], "holds a list"),
        ({}, "holds no weights"),
        ({"state_dict": {"a": torch.zeros(1)}}, "'state_dict' is a dict"),
        ({"embeddings.new": torch.zeros(2)}, "unknown weight 'embeddings.new'"),
    ):
        torch.save(value, path)
        refused(source, named)


@pytest.mark.parametrize(
    "index",
    [
        b"{",
        b"{}",
        b'{"weight_map": []}',
        b'{"weight_map": {"a": "../x.bin"}}',
        b'{"weight_map": {"a": 1}}',
    ],
    ids=repr,
)
def test_a_malformed_index_of_shards(made, tmp_path, index):
    source = copy_of(made, "bert", tmp_path / "hf")
    (source / "model.safetensors.index.json").write_bytes(index)
    refused(source, "model.safetensors.index.json")


def test_a_shard_that_is_missing(made, tmp_path):
    source = copy_of(made, "bert", tmp_path / "hf")
    index = {"weight_map": {"a": "model.safetensors", "b": "other.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(source, "other.safetensors: no such file")


@pytest.mark.parametrize("value", (float("nan"), float("inf")))
def test_weights_that_are_no_numbers(made, tmp_path, value):
    """Both ways."""
    from safetensors.torch import load_file, save_file

    source = copy_of(made, "bert", tmp_path / "hf")
    weights = load_file(source / "model.safetensors")
    name = "bert.encoder.layer.1.output.dense.bias"
    weights[name][3] = value
    save_file(weights, source / "model.safetensors")
    refused(source, "model.safetensors", name, "NaN or infinite")
    start = made / "bert" / "fairseq"
    state = torch.load(start / "model.pt", weights_only=True)
    state["model"]["encoder.sentence_encoder.layers.0.fc1.weight"][0, 0] = value
    torch.save(state, tmp_path / "model.pt")
    line = line_of(convert_to_hf, tmp_path / "model.pt", tmp_path / "back", "--pretrained", start)
    assert "model.pt: encoder.sentence_encoder.layers.0.fc1.weight holds NaN" in line


@pytest.mark.parametrize("missing", ("intermediate.dense.weight", "word_embeddings", "token_type_emb"))
def test_weights_that_are_missing_or_of_another_shape(made, tmp_path, missing):
    from safetensors.torch import load_file, save_file

    source = copy_of(made, "bert", tmp_path / "hf")
    weights = load_file(source / "model.safetensors")
    name = next(name for name in weights if missing in name)
    value = weights.pop(name)
    if missing != "token_type_emb":
        save_file(weights, source / "model.safetensors")
        refused(source, str(source), "lacks encoder.sentence_encoder")
    for wrong in (value[:1], value[None], value.flatten()[:0]):
        save_file({**weights, name: wrong.contiguous()}, source / "model.safetensors")
        refused(source, str(source), "does not fit")


FILES = {
    "bert": ["vocab.txt"],
    "roberta": ["vocab.json", "merges.txt"],
    "camembert": ["sentencepiece.bpe.model"],
}


@pytest.mark.parametrize("family,name", [(f, n) for f in FILES for n in FILES[f]])
def test_damaged_tokenizers(made, tmp_path, family, name):
    source = copy_of(made, family, tmp_path / "hf")
    path = source / name
    path.write_bytes(b"\xff\xfe\x00 no such thing")
    refused(source, str(source), *([] if name == "merges.txt" else [name]))
    path.unlink()
    refused(source, str(source))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"model": 3}', b'{"model": {"vocab": [1], "merges": 2}}'],
    ids=repr,
)
@pytest.mark.parametrize("family", ("bert", "roberta"))
def test_a_malformed_tokenizer_json(made, tmp_path, family, content):
    source = copy_of(made, family, tmp_path / "hf")
    for name in FILES[family]:
        (source / name).unlink()
    (source / "tokenizer.json").write_bytes(content)
    refused(source, "tokenizer.json")


@pytest.mark.parametrize("content", (b"{", b"[]", b"\xff", b'{"do_lower_case": "yes"}'), ids=repr)
def test_malformed_settings_of_a_tokenizer(made, tmp_path, content):
    source = copy_of(made, "bert", tmp_path / "hf")
    (source / "tokenizer_config.json").write_bytes(content)
    refused(source, "tokenizer_config.json")


@pytest.mark.parametrize(
    "ids", [{"a": 0, "b": 0}, {"a": 0, "b": 2}, {"a": "0"}, {"a": 0.5}, {"a": None}], ids=repr
)
def test_ids_of_a_byte_level_vocabulary_are_numbers_without_gaps(made, tmp_path, ids):
    source = copy_of(made, "roberta", tmp_path / "hf")
    (source / "vocab.json").write_text(json.dumps(ids))
    refused(source, "vocab.json", "ids")


def test_a_folder_that_is_no_checkpoint(made, tmp_path):
    (tmp_path / "hf").mkdir()
    refused(tmp_path / "hf", "config.json: no such file", "a Hugging Face checkpoint?")
    assert "no such folder" in line_of(convert_from_hf, tmp_path / "nothing", tmp_path / "target")
    file = tmp_path / "file"
    file.write_text("")
    assert str(file) in line_of(convert_from_hf, file, tmp_path / "target")
    hf = made / "bert" / "hf"
    assert str(file) in line_of(convert_from_hf, hf, file / "target")


@pytest.mark.parametrize("package", ("tokenizers", "safetensors", "sentencepiece"))
def test_what_is_not_installed_is_named(made, tmp_path, monkeypatch, package):
    family = {"sentencepiece": "camembert"}.get(package, "bert")
    source = copy_of(made, family, tmp_path / "hf")
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    refused(source, f"{package} is missing: pip install {package}")


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"model": 3},
        {"model": {"a": 3}},
        {"model": {"a": torch.zeros(2)}},
        {"model": {"a": torch.zeros(2)}, "cfg": 3},
        {"model": {"a": torch.zeros(2)}, "cfg": {"model": 3}},
        {"model": {"a": torch.zeros(2)}, "cfg": {name: {} for name in ("model", "task", "criterion")}},
        [],
    ],
    ids=repr,
)
def test_checkpoints_that_are_none(made, tmp_path, state):
    path = tmp_path / "model.pt"
    torch.save(state, path)
    request = (path, tmp_path / "back", "--pretrained", made / "bert" / "fairseq")
    assert str(path) in line_of(convert_to_hf, *request)
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


def test_damaged_and_malicious_checkpoints(made, tmp_path):
    path, start = tmp_path / "model.pt", made / "bert" / "fairseq"
    whole = (start / "model.pt").read_bytes()
    torch.save({"model": Malicious(tmp_path / "stolen")}, tmp_path / "malicious.pt")
    malicious = (tmp_path / "malicious.pt").read_bytes()
    for content in (b"", b"no checkpoint", whole[: len(whole) // 2], malicious):
        path.write_bytes(content)
        line = line_of(convert_to_hf, path, tmp_path / "back", "--pretrained", start)
        assert f"{path}: not a checkpoint, or a damaged one" in line
    assert not (tmp_path / "stolen").exists() and not (tmp_path / "back").exists()


def test_a_folder_of_another_model(made, tmp_path):
    """Its words, or its sizes, are not the checkpoint's."""
    shutil.copyfile(made / "bert" / "fairseq" / "model.pt", tmp_path / "model.pt")
    request = (tmp_path / "model.pt", tmp_path / "back", "--pretrained")
    assert "words, but" in line_of(convert_to_hf, *request, made / "roberta" / "fairseq")
    other = tmp_path / "other"
    shutil.copytree(made / "bert" / "fairseq", other)
    edit_config(other, intermediate_size=48)
    assert "config.json: is not the file that" in line_of(convert_to_hf, *request, other)
    (other / "architecture.json").unlink()  # which older folders' do not name their files
    assert "does not fit" in line_of(convert_to_hf, *request, other)
    assert not (tmp_path / "back").exists()


def tokenizer_folder(made, tmp_path, family):
    folder = tmp_path / "tokenizer"
    shutil.copytree(made / family / "fairseq", folder)
    return folder


@pytest.mark.parametrize(
    "family,name",
    [
        ("bert", "dict.txt"),
        ("bert", "vocab.txt"),
        ("roberta", "dict.txt"),
        ("roberta", "encoder.json"),
        ("roberta", "vocab.bpe"),
        ("camembert", "dict.txt"),
        ("camembert", "sentencepiece.bpe.model"),
    ],
)
@pytest.mark.parametrize("content", (b"\xff\xfe\n", b"no count\nno count\n"), ids=repr)
def test_a_damaged_file_of_a_tokenizer_is_named(made, tmp_path, family, name, content):
    folder = tokenizer_folder(made, tmp_path, family)
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError) as error:
        encoder_of(folder)
    line = str(error.value)
    # a vocab.txt may hold any lines: what they do not fit is the dictionary
    assert (str(folder) if name == "vocab.txt" else name) in line and "\n" not in line


@pytest.mark.parametrize("line", ("word", "word many", "the 1\nthe 1"))
def test_a_malformed_dictionary_is_named(tmp_path, line):
    (tmp_path / "dict.txt").write_text(f"a 1\n{line}\n")
    with pytest.raises(UserError, match=r"dict\.txt: ") as error:
        binarize.load_dictionary(tmp_path / "dict.txt")
    assert "\n" not in str(error.value)


def no_large_files():
    """No file of this process grows beyond 10 kB. (In one of its own: pytest writes files, too.)"""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))


@pytest.mark.parametrize("direction", ["from-hf", "to-hf"])
def test_a_full_disk_is_one_line_and_leaves_nothing(made, tmp_path, direction):
    sources = {"from-hf": made / "bert" / "hf", "to-hf": made / "bert" / "fairseq" / "model.pt"}
    target = tmp_path / "target"
    command = [sys.executable, "-m", "adv_plugins_cli", "convert", direction]
    done = subprocess.run(
        [*command, str(sources[direction]), str(target)],
        capture_output=True,
        text=True,
        preexec_fn=no_large_files,
    )
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and f"error: {target}: " in line and "large" in line
    assert not list(tmp_path.iterdir())


# WordPiece ids: a gap, and a token that comes twice


def vocabulary_with(made, folder, edit):
    """The vocabulary of the BERT above as tokenizer.json, its ids edited."""
    source = copy_of(made, "bert", folder)
    whole = source / "tokenizer.json"
    load_wordpiece(source).save(str(whole))
    content = json.loads(whole.read_text())
    edit(content["model"]["vocab"])
    # the library adds tokens of this list by itself, where the vocabulary has them
    content["added_tokens"] = []
    whole.write_text(json.dumps(content))
    (source / "vocab.txt").unlink()
    return source


def test_ids_with_a_gap_keep_their_rows(made, tmp_path):
    """Every token of the tokenizer has the embedding that transformers gives it."""
    import transformers

    def edit(vocab):
        del vocab["a"]

    source = vocabulary_with(made, tmp_path / "hf", edit)
    start = convert_from_hf.run(source, tmp_path / "fairseq")
    theirs = transformers.BertModel.from_pretrained(source).embeddings.word_embeddings.weight
    ours = torch.load(start / "model.pt", weights_only=True)["model"]
    ours = ours["encoder.sentence_encoder.embed_tokens.weight"]
    encoder = encoder_of(start)
    for token, index in load_wordpiece(source).get_vocab().items():
        if token.isalpha():
            (found,) = encoder.encode_batch([token])
            torch.testing.assert_close(ours[found], theirs[[index]].detach(), rtol=0, atol=0)
    gap = json.loads((made / "bert" / "hf" / "config.json").read_text())["vocab_size"] - len(
        load_wordpiece(source).get_vocab()
    )
    assert gap == 1 and len(ours) == len(theirs)
    # and so do they where there is no dict.txt yet
    before = encoder.encode_batch(["the cat"])[0].tolist()
    shutil.copyfile(start / "tokenizer.json", tmp_path / "tokenizer.json")
    alone = tokenizer_options.load_encoder(tokenizer_options.Tokenizer("wordpiece", tmp_path))
    assert alone.encode_batch(["the cat"])[0].tolist() == before


def test_a_line_that_comes_twice_shifts_nothing(made, tmp_path):
    source = copy_of(made, "bert", tmp_path / "hf")
    lines = (source / "vocab.txt").read_text("utf-8").split("\n")
    lines[lines.index("b")] = "a"
    (source / "vocab.txt").write_text("\n".join(lines), encoding="utf-8")
    tokenizer = load_wordpiece(source)
    symbols = symbols_of(tokenizer)
    assert len(symbols) == len(lines) - 1
    plain = {t: index for t, index in tokenizer.get_vocab().items() if not t.startswith("[")}
    assert all(symbols[index] == token for token, index in plain.items())


@pytest.mark.parametrize(
    "edit,named",
    [
        (lambda vocab: vocab.update(a=vocab["b"]), "share the id"),
        (lambda vocab: vocab.update(a=HUGE), f"the ids reach {HUGE}"),
        (lambda vocab: vocab.pop("[MASK]"), "the vocabulary lacks <mask>"),
    ],
)
def test_ids_that_cannot_be_right_are_refused(made, tmp_path, edit, named):
    source = vocabulary_with(made, tmp_path / "hf", edit)
    refused(source, str(source), named)
