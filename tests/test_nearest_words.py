"""RAPT's tables 4 to 6: the words nearest to a hidden state, without and with its noise."""

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from fairseq import tasks

import training
from adv_plugins_cli import plot, preprocess_text
from adv_plugins_cli.checkpoints.architecture import Architecture
from adv_plugins_cli.convert_from_hf import build_checkpoint
from adv_plugins_cli.data import tokenizer_options
from adv_plugins_cli.figures import loading, nearest_words

pytest.importorskip("matplotlib")

WORDS = "ant bee cow dog eel fox gnu hen".split()
LAYER, ETA, SEED = 1, 0.7, 5
NO_TOKENIZER: Any = None
BANK = ["ant bee cow", "dog eel fox bee", "ant dog", "bee fox ant ant"]  # no gnu, no hen


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The folder of a tiny BERT-like encoder with its tokenizer and dictionary."""
    root = tmp_path_factory.mktemp("words")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s"]
    (root / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    (root / "text.txt").write_text("ant bee\n\n" * 50)
    request = [str(root / "text.txt"), f"--wordpiece={root}", f"--out-dir={root / 'bin'}"]
    preprocess_text.main([*request, "--valid-share=0.2"])
    shutil.copy(root / "bin" / "dict.txt", root)
    line = "--encoder-layers 2 --encoder-embed-dim 8 --encoder-ffn-embed-dim 8"
    sizes = f"{line} --encoder-attention-heads 2 --segments 2 --max-positions 16".split()
    tokenizer = tokenizer_options.Tokenizer("wordpiece", root).describe()
    model = Architecture("bert_like", tuple(zip(sizes[::2], sizes[1::2])), 1, tokenizer)
    model.write(root)
    torch.manual_seed(1)
    state = build_checkpoint([*model.flags(), "--tokens-per-sample", "16"], None, root)
    for value in state["model"].values():
        if value.dim() > 1:
            value.normal_(std=0.5)
    torch.save(state, root / "model.pt")
    (root / "bank.txt").write_text("".join(f"{text}\n" for text in BANK))
    return root


def ask(encoder, *options):
    """The command line of a text and a word, with more options."""
    request = [str(encoder / "model.pt"), f"--data={encoder}", f"--out={encoder / 'words.png'}"]
    own = [f"--layer={LAYER}", f"--eta={ETA}", f"--seed={SEED}", "--top=3"]
    return ["nearest-words", *request, *own, *options]


def hidden(model, dictionary, text, layer):
    """(T, d) by a hook of our own, and the words of its positions."""
    sentences = text.split("\t")
    ids = [dictionary.bos()]
    for sentence in sentences:
        ids += [*(dictionary.index(word) for word in sentence.split()), dictionary.eos()]
    inner = model.encoder.sentence_encoder
    module = inner.layers[layer - 1] if layer else inner.layernorm_embedding
    with torch.no_grad():
        found = []
        handle = module.register_forward_hook(lambda _, args, output: found.append(output))
        model(torch.tensor([ids]), features_only=True)
        handle.remove()
    state = found[0][:, 0] if layer else found[0][0]
    return state.double().numpy(), [dictionary[index] for index in ids]


def expected_lists(state, rows, word):
    """[(word, cosine)] of all rows but the word's own, nearest first."""
    cosines = {
        other: float(row @ state / np.linalg.norm(row) / np.linalg.norm(state))
        for other, row in rows.items()
        if other != word
    }
    return sorted(cosines.items(), key=lambda pair: -pair[1])


@pytest.mark.parametrize("against", ["states", "embeddings"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_table_is_that_of_the_definition(encoder, capsys, against, layer):
    text, word = "gnu ant\tbee hen", "bee"
    bank = [f"--bank={encoder / 'bank.txt'}"] if against == "states" else []
    options = ["--text", text, "--words", word, "--against", against, "--layer", str(layer), *bank]
    plot.main(ask(encoder, *options))
    said = capsys.readouterr()
    assert (encoder / "words.png").read_bytes().startswith(b"\x89PNG")
    (encoder / "words.png").unlink()
    header, *lines = said.out.splitlines()
    assert header == "text\tposition\tword\trank\tbefore\tcosine\tafter\tcosine"
    rows_of = [line.split("\t") for line in lines]
    assert [cells[:4] for cells in rows_of] == [["1", "4", word, str(n)] for n in (1, 2, 3)]

    model, task = loading.load(encoder / "model.pt", encoder, adversaries=False)
    dictionary = task.source_dictionary
    if against == "states":
        seen: dict[str, list[np.ndarray]] = {}
        for other in BANK:
            for state, name in zip(*hidden(model, dictionary, other, layer)):
                seen.setdefault(name, []).append(state)
        rows = {name: np.mean(seen[name], axis=0) for name in WORDS if name in seen}
        assert len(rows) == len(WORDS) - 2
    else:
        table = model.encoder.sentence_encoder.embed_tokens.weight.detach().double().numpy()
        rows = {name: table[dictionary.index(name)] for name in [*WORDS, "##s"]}
    states, names = hidden(model, dictionary, text, layer)
    torch.manual_seed(SEED)
    z = torch.randn(len(names), 1, 8)[:, 0].double().numpy()
    noisy = states + ETA * z / np.abs(z).max(axis=1, keepdims=True)
    place = names.index(word)
    for column, state in ((4, states[place]), (6, noisy[place])):
        expected = expected_lists(state, rows, word)[:3]
        assert [cells[column] for cells in rows_of] == [name for name, _ in expected]
        found = [float(cells[column + 1]) for cells in rows_of]
        assert found == pytest.approx([value for _, value in expected], abs=1e-4)
    norm = np.linalg.norm(noisy[place] - states[place])
    assert f"bee (text 1, position 4): state of norm {np.linalg.norm(states[place]):.2f}" in said.err
    assert f"noise of {norm:.2f}" in said.err


def test_words_that_the_bank_lacks_are_no_ones_neighbours(encoder, capsys):
    plot.main(ask(encoder, f"--bank={encoder / 'bank.txt'}", "--text=gnu", "--words=gnu", "--top=99"))
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
    assert {cells[4] for cells in rows} == {cells[6] for cells in rows} == {*WORDS} - {"gnu", "hen"}
    plot.main(
        ask(encoder, f"--bank={encoder / 'bank.txt'}", "--text=gnu", "--words=gnu", "--bank-size=1")
    )
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
    assert {cells[4] for cells in rows} == {"ant", "bee", "cow"}


def test_without_noise_both_lists_are_the_same_and_every_occurrence_is_there(encoder, capsys):
    options = ["--text", "bee ant bee", "cow", "ant", "--words", "ant", "bee", "--against=embeddings"]
    plot.main(ask(encoder, *options, "--eta=0"))
    said = capsys.readouterr()
    rows = [line.split("\t") for line in said.out.splitlines()[1:]]
    assert all(cells[4:6] == cells[6:] for cells in rows)
    found = dict.fromkeys(tuple(cells[:3]) for cells in rows)
    assert [*found] == [("1", "1", "bee"), ("1", "2", "ant"), ("1", "3", "bee"), ("3", "1", "ant")]
    assert said.err.count("3 of 3 words stay") == 4
    plot.main(ask(encoder, *options, "--eta=9"))
    assert capsys.readouterr().out != said.out


@pytest.mark.parametrize(
    "options,message",
    [
        (["--text=ant", "--words=bee"], "--words bee: is no subword of the texts, .* as <s> ant </s>"),
        (["--text=ant", "--words=ant"], "was trained on masked text: give other texts with --bank FILE"),
        (["--text=ant", "--words=ant", "--bank=none.txt"], "none.txt: no such file .--bank"),
        (["--text=ant", "--words=ant", "--bank=none.txt", "--against=embeddings"], "--bank is for"),
        (["--text=ant", "--words=ant", "--layer=3"], "--layer 3: .* layers 0 .embeddings. to 2"),
        (["--text=ant", "--words=ant", "--layer=-1"], "--layer -1: "),
        (["--text=ant", "--words=ant", "--eta=-1"], "--eta -1.0: at least 0"),
        (["--text=ant", "--words=ant", "--eta=nan"], "--eta nan: at least 0"),
        (["--text", "ant " * 99, "--words=ant"], "--text has 101 subwords, this model reads 16"),
    ],
)
def test_what_cannot_be_is_one_line(encoder, options, message):
    (encoder / "words.png").unlink(missing_ok=True)
    with pytest.raises(SystemExit, match=message) as error:
        plot.main(ask(encoder, *options))
    assert "\n" not in str(error.value.code) and not (encoder / "words.png").exists()
    (encoder / "empty.txt").write_text("\n \n")
    with pytest.raises(SystemExit, match="empty.txt: has no text .--bank"):
        plot.main(ask(encoder, "--text=ant", "--words=ant", f"--bank={encoder / 'empty.txt'}"))


@pytest.mark.parametrize("kind", ["classification", "multiple-choice", "token-classification"])
def test_the_bank_is_the_training_split(tmp_path, kind):
    """In the order of the file, each text as the training reads it."""
    data = training.write_data(tmp_path, kind)
    criterion = "sentence_ranking" if kind == "multiple-choice" else "sentence_prediction"
    line = f"{data} --arch roberta --criterion {criterion} {training.TINY} {training.ADAM}"
    cfg = training.parse([*line.split(), *training.KIND_FLAGS[kind].split()])
    task = tasks.setup_task(cfg.task)
    found = [text.tolist() for text in nearest_words.bank(None, 3, NO_TOKENIZER, task)]
    split, expected = task.dataset("train"), []
    for index in range(3):
        item = split[index]
        inputs = [key for key in item if key.startswith("net_input") and key.endswith("src_tokens")]
        expected += [item[key].tolist() for key in inputs]
    assert found == expected and len(found) == 3 * (training.CHOICES if kind[0] == "m" else 1)
    for path in (tmp_path / "input0").glob("train*"):
        path.unlink()
    with pytest.raises(ValueError, match="training split cannot be read, give --data or --bank FILE"):
        list(nearest_words.bank(None, 3, NO_TOKENIZER, tasks.setup_task(cfg.task)))
