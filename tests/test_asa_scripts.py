"""ASA's scripts: raw text to pre-training, checkpoints without the adversary, attention plots."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary, data_utils

import test_asa
import tiny
import training
from adv_plugins.models.asa_roberta import strip_adversary as strip
from adv_plugins.naive_masks import parse_schedule
from adv_plugins_cli import plot as plot_attention
from adv_plugins_cli import preprocess_text
from adv_plugins_cli import strip as strip_adversary
from adv_plugins_cli.checkpoints.architecture import Architecture, read_architecture
from adv_plugins_cli.command import UserError
from adv_plugins_cli.convert_from_hf import build_checkpoint
from adv_plugins_cli.data import tokenizer_options
from adv_plugins_cli.figures import attention_maps, drawing, loading, masked_proportions
from adv_plugins_cli.recipes import run_folder
from conftest import ROOT

sys.path.append(str(ROOT / "examples" / "pretraining"))

from adv_plugins_cli import pretrain

KIND = "classification"


class Words:
    """A tokenizer that has one token a word."""

    def __init__(self, text):
        self.dictionary = Dictionary()
        for word in text.split():
            self.dictionary.add_symbol(word)

    def encode_batch(self, texts):
        return [np.array([self.dictionary.index(w) for w in t.split()], int) for t in texts]


@pytest.fixture
def preprocess(tmp_path, monkeypatch):
    """Runs preprocess_text.py on a text; returns the folder."""

    def run(text, *options):
        path = tmp_path / "text.txt"
        path.write_text(text)
        monkeypatch.setattr(preprocess_text, "load_encoder", lambda arguments: Words(text))
        preprocess_text.main([str(path), "--bpe-dir=x", f"--out-dir={tmp_path / 'bin'}", *options])
        return tmp_path / "bin"

    return run


def read(folder, split):
    """The sentences of a split, as text."""
    words = Dictionary.load(str(folder / "dict.txt"))
    return [words.string(line) for line in data_utils.load_indexed_dataset(str(folder / split))]


def test_documents_stay_whole_and_are_held_out(preprocess):
    text = "".join(f"\n\na{n} b{n}\n c{n}\n" for n in range(100))
    folder = preprocess(text, "--valid-share", "0.2")
    held_out, kept = read(folder, "valid"), read(folder, "train")
    assert 10 <= len(held_out) // 3 <= 30 and len(held_out) + len(kept) == 300
    for lines in (kept, held_out):
        documents = list(zip(lines[::3], lines[1::3], lines[2::3], strict=True))
        assert all(
            first[1:] == f"{second[1:]} b{second[1:]}" and end == "" for first, second, end in documents
        )
    assert not set(held_out) & set(kept) - {""}
    with pytest.raises(SystemExit, match="--overwrite"):
        preprocess(text)


def test_a_text_without_blank_lines_is_held_out_by_the_line(preprocess):
    folder = preprocess("".join(f"a{n}\n" for n in range(100)), "--valid-share", "0.2")
    assert sorted(read(folder, "train") + read(folder, "valid")) == sorted(f"a{n}" for n in range(100))
    with pytest.raises(SystemExit, match="no document is left for valid"):
        preprocess("a\n", "--overwrite")


def test_pre_training_command_is_the_papers(tmp_path, capsys):
    (tmp_path / "model.pt").touch()
    (tmp_path / "dict.txt").write_text("a 1\n")
    options = [f"--data-bin={tmp_path}", "--print-only", "--batch=32", "--precision=fp32"]
    start = f"--checkpoint={tmp_path / 'model.pt'}"
    command = pretrain.make_command(pretrain.parse_arguments([start, *options]))
    cfg = training.parse(command[1:])
    assert cfg.task._name == "masked_lm" and cfg.task.tokens_per_sample == 256
    assert (cfg.criterion._name, cfg.criterion.asa_tau) == ("asa_criterion", 0.1)
    assert cfg.model.arch == "asa_roberta_base" and cfg.model.max_positions == 512
    assert cfg.dataset.batch_size * cfg.optimization.update_freq[0] == 1024
    assert cfg.optimization.max_update == cfg.lr_scheduler.total_num_update == 20_000
    assert cfg.lr_scheduler.warmup_updates == 1200 and cfg.optimization.lr == [2e-5]
    assert cfg.checkpoint.finetune_from_model == str(tmp_path / "model.pt")

    for request, message in (
        ([f"--checkpoint={tmp_path / 'no.pt'}"], "no such checkpoint"),
        ([start, "--batch=30"], "does not divide"),
        ([start, "--", "--criterion", "masked_lm"], "give --method plain"),
    ):
        with pytest.raises(SystemExit, match=rf"^adv-plugins pretrain: error: .*{message}"):
            pretrain.main([*options, *request])


def test_pre_training_without_the_adversary_is_the_papers_baseline(tmp_path):
    """Its settings, the plain criterion and the plain architecture; another criterion may follow."""
    (tmp_path / "dict.txt").write_text("a 1\n")
    options = ["--from-scratch", f"--data-bin={tmp_path}", "--precision=fp32", "--method=plain"]
    found = [
        training.parse(pretrain.make_command(pretrain.parse_arguments([*options, *more]))[1:])
        for more in ((), ("--", "--criterion", "freelb_criterion", "--adv-steps", "2"))
    ]
    assert [cfg.criterion._name for cfg in found] == ["masked_lm", "freelb_criterion"]
    assert found[0].model.arch == "roberta_base" and found[0].optimization.max_update == 20_000
    assert found[0].checkpoint.save_dir == "checkpoints/pretraining/plain"


def test_pre_training_text_takes_the_checkpoints_tokenizer_or_the_one_that_is_given(tmp_path):
    characters = [*"abc", "##b"]
    for folder in ("beside", "other"):
        (tmp_path / folder).mkdir()
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
        (tmp_path / folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))
        characters.reverse()
    (tmp_path / "beside" / "model.pt").touch()
    dictionary = "".join(f"{token} 100\n" for token in ("[CLS]", *"abc", "##b"))
    text = tmp_path / "text.txt"
    text.write_text("ab c\n" * 50)
    own = ("--checkpoint", tmp_path / "beside" / "model.pt", "--text", text, "--print-only")
    request = [*map(str, own), f"--data-bin={tmp_path / 'bin'}", "--precision=fp32"]
    pretrain.make_command(pretrain.parse_arguments(request))
    ours = (tmp_path / "bin" / "dict.txt").read_text()
    assert [line.split()[0] for line in ours.splitlines()][-4:] == [*"abc", "##b"]
    assert dictionary.splitlines()[1:] == ours.splitlines()[-4:]
    (tmp_path / "beside" / "dict.txt").write_text(ours)
    request[-2] = f"--data-bin={tmp_path / 'second'}"
    with pytest.raises(ValueError, match="preprocessed for another model"):
        other = f"--wordpiece={tmp_path / 'other'}"
        pretrain.make_command(pretrain.parse_arguments([*request, other]))


def encoder_and_data(root):
    """A tiny BERT-like encoder's folder, described, and text preprocessed with its vocabulary."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcd"]
    start = root / "start"
    start.mkdir()
    (start / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    (root / "text.txt").write_text("a b c d\nb c\n\n" * 50)
    request = [str(root / "text.txt"), f"--wordpiece={start}", f"--out-dir={root / 'bin'}"]
    preprocess_text.main([*request, "--valid-share=0.2"])
    shutil.copy(root / "bin" / "dict.txt", start)
    line = "--encoder-layers 1 --encoder-embed-dim 8 --encoder-ffn-embed-dim 8"
    sizes = f"{line} --encoder-attention-heads 2 --segments 2 --max-positions 64".split()
    tokenizer = tokenizer_options.Tokenizer("wordpiece", start).describe()
    model = Architecture("bert_like", tuple(zip(sizes[::2], sizes[1::2])), 1, tokenizer)
    model.write(start)
    state = build_checkpoint([*model.flags(), "--tokens-per-sample", "64"], None, start)
    torch.save(state, start / "model.pt")
    return start, root / "bin"


def test_pre_training_holds_its_folder_goes_on_and_describes_its_checkpoints(tmp_path, capsys):
    start, data = encoder_and_data(tmp_path)
    run, alone = tmp_path / "run", ["--no-save-optimizer-state", "--cpu", "--num-workers", "0"]
    request = f"--checkpoint {start / 'model.pt'} --data-bin {data} --save-dir {run} --batch 8".split()
    fast = f"--update-freq 1 --batch-size 8 --max-positions 64 --tokens-per-sample 64 {' '.join(alone)}"
    short = [*request, "--", *fast.split(), "--total-num-update", "9", "--max-update"]
    with run_folder.locked(run), pytest.raises(SystemExit, match="another run is at work there"):
        pretrain.main([*short, "1"])
    assert pretrain.main([*short, "1"]) == 0
    settings = json.loads((run / run_folder.SETTINGS).read_text())["command"]
    assert settings[0] == "fairseq-train" and settings[-1] == "1"
    found, given = read_architecture(run), read_architecture(start)
    assert found is not None and given is not None
    assert found.arch == "asa_bert_like" and ("--segments", "2") in found.sizes
    assert found.tokenizer == given.tokenizer and found.separators == 1
    before = (run / "checkpoint_last.pt").read_bytes()
    with pytest.raises(SystemExit, match=r"other settings \(--lr 2e-5 -> 1\).*--start-over"):
        pretrain.main([*short, "1", "--lr", "1"])
    assert (run / "checkpoint_last.pt").read_bytes() == before
    assert pretrain.main([*short, "1"]) == 0, "the same command goes on"
    before = (run / "checkpoint_last.pt").read_bytes()
    assert pretrain.main(["--start-over", *short, "1", "--lr", "1"]) == 0
    assert (tmp_path / "run.before-1" / "checkpoint_last.pt").read_bytes() == before
    # The maps of such a model need no option for their tokenizer, and take --wordpiece.
    figure = tmp_path / "maps.png"
    maps = ["maps", str(run / "checkpoint_last.pt"), "--text=a b d", f"--out={figure}"]
    for options in ([], ["--wordpiece", str(start)]):
        plot_attention.main([*maps, *options])
        assert figure.read_bytes().startswith(b"\x89PNG")
        figure.unlink()
    (run / "architecture.json").unlink()
    (run / "vocab.txt").unlink()
    with pytest.raises(SystemExit, match="give the tokenizer: --bpe-dir, --sentencepiece or --word"):
        plot_attention.main(maps)


def test_segments_that_the_model_lacks_are_named(tmp_path):
    start, data = encoder_and_data(tmp_path)
    (start / "architecture.json").unlink()
    line = (
        f"{data} --task masked_lm --criterion masked_lm --arch bert_like --save-dir {tmp_path / 'run'} "
        f"{training.TINY} --encoder-layers 1 --encoder-ffn-embed-dim 8 --max-positions 64 "
        f"--tokens-per-sample 64 --finetune-from-model {start / 'model.pt'} --max-update 1"
    )
    with pytest.raises(UserError) as error:
        training.run([*line.split(), *training.ADAM.split()])
    assert "model.pt: does not fit" in str(error.value) and "--segments 2" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the data and the checkpoint of a small asa_roberta."""
    folder = tmp_path_factory.mktemp("asa")
    training.write_data(folder / "data", KIND)
    flags = ("--max-update=1", f"--user-dir={ROOT / 'adv_plugins'}")
    training.train(folder / "data", folder, KIND, "asa_criterion", *flags)
    return folder


LOAD_WITHOUT_US = """
import sys, fairseq_compat
fairseq_compat.install()
import torch
from fairseq import checkpoint_utils
(model,), cfg = checkpoint_utils.load_model_ensemble([sys.argv[1]])
assert "adv_plugins" not in sys.modules
assert type(model).__module__.startswith("fairseq.") and cfg.common.user_dir is None
print(type(model).__name__, cfg.criterion._name, cfg.model.arch)
tokens = torch.tensor([[0, 5, 6, 7, 2]])
torch.save(model.eval()(tokens, features_only=True)[0], sys.argv[2])
"""


def test_stock_fairseq_loads_a_stripped_checkpoint(trained, tmp_path, capsys):
    source, target = trained / "checkpoint_last.pt", tmp_path / "plain.pt"
    strip_adversary.main([str(source), str(target)])
    done = subprocess.run(
        [sys.executable, "-c", LOAD_WITHOUT_US, str(target), str(tmp_path / "features.pt")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["RobertaModel", "sentence_prediction", "roberta"], done.stderr
    (model,), _ = checkpoint_utils.load_model_ensemble([str(source)])
    with torch.no_grad():
        ours = model.eval()(torch.tensor([[0, 5, 6, 7, 2]]), features_only=True)[0]
    assert torch.equal(torch.load(tmp_path / "features.pt"), ours)
    # and it is something to go on training with
    again = ("--max-update=1", f"--finetune-from-model={target}")
    training.train(trained / "data", tmp_path, KIND, "rat_criterion", *again, arch="roberta")

    before = target.read_bytes()
    with pytest.raises(SystemExit, match="exists already"):
        strip_adversary.main([str(source), str(target)])
    with pytest.raises(SystemExit, match="has no adversary"):
        strip_adversary.main([str(target), str(tmp_path / "twice.pt")])
    assert target.read_bytes() == before and not (tmp_path / "twice.pt").exists()


def test_attention_is_fairseqs_and_masked_units_are_zero():
    model = test_asa.model(KIND, double=False).eval()
    tokens = torch.tensor([0, 5, 6, 7, 8, 9, 4, 5, 2])
    found = attention_maps.attention_of(model, tokens, seed=1)
    layers = model.encoder.sentence_encoder.layers
    stock = []

    def weights(attention, args, kwargs):
        stock.append(attention.forward(**{**kwargs, "need_weights": True})[1][0])

    handles = [layer.self_attn.register_forward_pre_hook(weights, with_kwargs=True) for layer in layers]
    with torch.no_grad():
        model(tokens[None], features_only=True)
    for handle in handles:
        handle.remove()
    assert len(found) == len(layers) == len(stock)
    for attention, expected in zip(found, stock, strict=True):
        for map_ in attention:
            assert map_.shape == (2, 9, 9)
            np.testing.assert_allclose(map_.sum(axis=-1), 1, rtol=1e-5)
        np.testing.assert_allclose(attention.clean.mean(axis=0), expected, atol=1e-6)
        zero = attention.masked == 0
        assert (attention.clean > 0).all() and (zero == zero[:1]).all() and zero.any()
    # In the first layer, whose input is the same, what is masked is shared out among the rest.
    left = found[0].clean * (found[0].masked > 0)
    left = left / left.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(found[0].masked, left, rtol=1e-4)
    other = attention_maps.attention_of(model, tokens, seed=2)
    assert (other[0].clean == found[0].clean).all() and (other[0].masked != found[0].masked).any()


def test_masked_proportion_of_each_layer_and_its_history(trained, tmp_path):
    model, task = loading.load(trained / "checkpoint_last.pt", None)
    with torch.no_grad():  # an adversary that wants nothing in the first layer, all in the second
        for layer, bias in zip(model.encoder.sentence_encoder.layers, (-20.0, 20.0), strict=True):
            adversary = layer.self_attn.adversary
            adversary.query.bias.fill_(abs(bias))
            adversary.key.weight.zero_()
            adversary.key.bias.fill_(bias)
    first, second = masked_proportions.masked_proportions(model, task, "valid", batch=4, seed=1)
    valid = task.dataset("valid")
    lengths = [len(valid[index]["net_input.src_tokens"]) for index in range(len(valid))]
    keeps_one = np.mean([1 - 1 / length for length in lengths])  # each token one of its units
    assert first == 0 and second == pytest.approx(keeps_one)

    log = tmp_path / "train.log"
    log.write_text(
        'x | INFO | train_inner | {"num_updates": "5", "masked_layer1": "0.25", "loss": "1"}\n'
        '{"num_updates": "9", "masked_layer1": "0.5", "loss": "1"}\n'
        'x | INFO | train | {"train_num_updates": "9", "train_masked_layer1": "0.4"}\n'
    )
    assert masked_proportions.read_history(log) == {"layer1": [(5, 0.25), (9, 0.5)]}


def test_figures(trained, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    tokens = (torch.tensor([0, 5, 6, 2]), ["<s>", "a", "b", "</s>"])
    monkeypatch.setattr(attention_maps, "encode", lambda *_: tokens)
    checkpoint = str(trained / "checkpoint_last.pt")
    maps = ["maps", checkpoint, "--text=a b", "--bpe-dir=x"]
    layers = ["layers", f"RTE={checkpoint}"]
    for command in (maps, [*maps, "--layers", "2", "--head", "1"], layers):
        out = tmp_path / "figure.png"
        plot_attention.main([*command, f"--out={out}"])
        assert out.read_bytes().startswith(b"\x89PNG")
        out.unlink()
    with pytest.raises(SystemExit, match="layers 1 to 2"):
        plot_attention.main([*maps, "--layers", "3", f"--out={out}"])


def test_maps_of_a_model_without_an_adversary(trained, tmp_path, monkeypatch):
    """They are fairseq's attention, the left half of what an asa_roberta's would be."""
    pytest.importorskip("matplotlib")
    tokens = torch.tensor([0, 5, 6, 7, 8, 2])
    with_adversary = test_asa.model(KIND, double=False).eval()
    plain = tiny.model(KIND, double=False).eval()
    plain.load_state_dict(strip(with_adversary.state_dict()))
    ours = attention_maps.attention_of(plain, tokens, seed=1)
    theirs = attention_maps.attention_of(with_adversary, tokens, seed=1)
    assert len(ours) == 2 and all(each.masked is None for each in ours)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one.clean, other.clean)
    names = [str(token) for token in tokens.tolist()]
    panels = [
        len(attention_maps.plot_maps({1: each[0], 2: each[1]}, names, None).axes)
        for each in (ours, theirs)
    ]
    assert panels == [4, 6]  # with a scale a row

    flags = ("--max-update=1", f"--user-dir={ROOT / 'adv_plugins'}")
    folder = tmp_path / "plain"
    training.train(trained / "data", folder, KIND, "rat_criterion", *flags, arch="roberta")
    monkeypatch.setattr(attention_maps, "encode", lambda *_: (tokens, names))
    checkpoint, out = str(folder / "checkpoint_last.pt"), tmp_path / "maps.png"
    plot_attention.main(["maps", checkpoint, "--text=a b", f"--out={out}"])
    assert out.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit, match="has no adversary; train it with an asa_ architecture"):
        plot_attention.main(["layers", f"a={checkpoint}", f"--out={out}"])


def test_a_log_is_a_schedule_of_naive_masks(tmp_path, capsys):
    """The mean over the layers; of a log that was gone on with the later line counts."""
    pytest.importorskip("matplotlib")
    log = tmp_path / "train.log"
    line = '{{"num_updates": "{}", "masked_layer1": "{}", "masked_layer2": "{}"}}\n'
    log.write_text(
        "".join(line.format(*row) for row in ((10, 0.5, 0.3), (20, 0.9, 0.9), (20, 0.2, 0.1)))
    )
    plot_attention.main(["history", str(log), f"--out={tmp_path / 'history.png'}"])
    said = capsys.readouterr().out.splitlines()[0]
    assert said == "--asa-masking-schedule 10:0.4,20:0.15"
    assert parse_schedule(said.split()[1]) == [(10, 0.4), (20, 0.15)]
    log.write_text("".join(line.format(n, 0.5, 0.5) for n in range(1, 1001)))
    found = parse_schedule(masked_proportions.schedule(masked_proportions.read_history(log)))
    assert 40 <= len(found) <= 52 and found[0][0] == 1 and found[-1] == (1000, 0.5)


def test_plots_refuse_in_one_line(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "new_figure", lambda *size: None)
    checkpoint, out = str(trained / "checkpoint_last.pt"), f"--out={tmp_path / 'x.png'}"
    log = tmp_path / "train.log"
    log.write_text('{"num_updates": "1", "loss": "1"}\n')
    (tmp_path / "odd.log").write_text('{"masked_layer1": "many"}\n{"masked_layer1": "0.1"}\n')
    (tmp_path / "bytes.log").write_bytes(b"\xff\xfe\x00{\n")
    layers = ["layers", f"a={checkpoint}"]
    for request, message in (
        (["history", str(log), out], "no masked_layer in it"),
        (["history", str(tmp_path / "odd.log"), out], "odd.log: .* is no line of --log-format json"),
        (["history", str(tmp_path / "bytes.log"), out], "no masked_layer in it"),
        (["history", str(tmp_path), out], "no such file"),
        ([*layers, "--split", "none", out], r"split none cannot be read \(--split, --data\)"),
        ([*layers, "--data", "nowhere", out], "--data gives the folder"),
        ([*layers, "--batch", "0", out], "--batch 0"),
        ([*layers, "--seed", "-1", out], "--seed -1"),
        (["layers", checkpoint, out], "give NAME=CHECKPOINT"),
        ([*layers, "--out", str(tmp_path)], r"is a folder \(--out\)"),
        ([*layers, "--out", "/no/such/x.png"], r"no such folder \(--out\)"),
    ):
        with pytest.raises(SystemExit, match=message) as caught:
            plot_attention.main(request)
        assert "\n" not in str(caught.value.code)
    # what a killed training was writing is no fault of the log's
    log.write_text('{"num_updates": "1", "masked_layer1": "0.5"}\n{"num_updates": "2", "masked_la')
    assert masked_proportions.read_history(log) == {"layer1": [(1, 0.5)]}
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit, match="matplotlib is missing: pip install matplotlib"):
        plot_attention.main(["history", str(log), out])


def test_stripping_never_overwrites_and_leaves_nothing_half(trained, tmp_path, monkeypatch):
    source, target = str(trained / "checkpoint_last.pt"), tmp_path / "plain.pt"
    target.write_text("mine")
    with pytest.raises(SystemExit, match="plain.pt: exists already"):
        strip_adversary.main([source, str(target)])
    assert target.read_text() == "mine"
    target.unlink()

    def full(state, path):
        path.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file\nat ...")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(SystemExit, match="plain.pt: cannot be written .PytorchStreamWriter"):
            strip_adversary.main([source, str(target)])
    assert not list(tmp_path.iterdir())
    save = torch.save

    def slow(state, path):
        save(state, path)
        target.write_text("another's")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", slow)
        with pytest.raises(SystemExit, match="exists already; nothing is overwritten"):
            strip_adversary.main([source, str(target)])
    assert [path.read_text() for path in tmp_path.iterdir()] == ["another's"]
    with pytest.raises(SystemExit, match="/no/such: no such folder"):
        strip_adversary.main([source, "/no/such/plain.pt"])
