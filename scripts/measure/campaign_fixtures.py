"""What the campaigns feed to the commands: tiny models, data and checkpoints, and ways to spoil them.

:func:`make` builds everything in one folder within seconds, with the commands themselves where they do
it; a case copies from there (:func:`copied`) and spoils its copy.
"""

from __future__ import annotations

import contextlib
import http.server
import io
import itertools
import json
import os
import pickle
import shutil
import signal
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from campaign_judge import TRAIN, Case, Place, run

Step = Callable[[Place], None]
WIDTH, LAYERS, POSITIONS = 16, 2, 64
WORDS = "the cat sat on a mat and nobody minded it who was in London or Rome yes no".split()

# fairseq-train on a folder of data, as the recipes do it but small.
TRAIN_FLAGS = (
    "--user-dir {root}/adv_plugins --max-positions 64 --cpu --num-workers 0 --no-progress-bar "
    "--batch-size 4 --required-batch-size-multiple 1 --optimizer adam --lr 1e-3 --max-update 2 "
    "--log-format json --log-interval 1 --seed 1 --save-dir {out}/run"
)
SIZES = (
    "--encoder-layers 2 --encoder-embed-dim 16 --encoder-ffn-embed-dim 24 --encoder-attention-heads 2"
)
TASK_FLAGS = {
    "RTE": "{made}/bin/RTE-bin --task sentence_prediction --num-classes 2 --init-token 0 "
    "--separator-token 2",
    "MNLI": "{made}/bin/MNLI-bin --task sentence_prediction --num-classes 3 --init-token 0 "
    "--separator-token 2",
    "STS-B": "{made}/bin/STS-B-bin --task sentence_prediction --num-classes 1 --init-token 0 "
    "--separator-token 2 --regression-target",
    "DREAM": "{made}/bin/DREAM-bin --task sentence_ranking --num-classes 3 --init-token 0 "
    "--separator-token 2",
    "WNUT-17": "{made}/bin/WNUT-17-bin --task token_classification --num-classes 13 --init-token 0",
    "text": "{made}/bin/text --task masked_lm --tokens-per-sample 32 --sample-break-mode complete",
}
STOCK = {
    "DREAM": "sentence_ranking",
    "WNUT-17": "token_classification",
    "text": "masked_lm",
}


def train_line(task: str, method: str = "plain", *, start: bool = True) -> str:
    """A fairseq-train command line of two updates, to be filled by a place."""
    criterion = f"{method}_criterion"
    if method == "plain":
        criterion = STOCK.get(task, "sentence_prediction")
    arch = "asa_roberta" if method == "asa" else "roberta"
    more = "--noise-max-layer 2" if method == "rapt" else ""
    begin = "--finetune-from-model {made}/start/model.pt" if start else ""
    return (
        f"{TASK_FLAGS[task]} {TRAIN_FLAGS} --arch {arch} {SIZES} --criterion {criterion} {more} {begin}"
    )


def make(made: Path, jobs: int) -> None:
    """Build everything under ``made``.

    Raises:
        RuntimeError: a command failed on good input; the message holds the end of its output.
    """
    _in_child(lambda: _write_sources(made))
    bpe = "--bpe-dir {made}/start"
    glue = "--data-dir {made}/glue --out-dir {made}/bin RTE STS-B MNLI SST-2"
    others = "--data-dir {made}/tasks --out-dir {made}/bin DREAM WNUT-17"
    first = [
        ("convert_from_hf", "{made}/hf/roberta {made}/start"),
        ("convert_from_hf", "{made}/hf/bert {made}/bert"),
    ]
    second = [
        ("preprocess_glue", f"{glue} {bpe}"),
        ("preprocess_task", f"{others} {bpe}"),
        (
            "preprocess_text",
            f"{{made}}/text.txt --valid {{made}}/text.txt {bpe} --out-dir {{made}}/bin/text",
        ),
    ]
    trained = {
        "rte": train_line("RTE"),
        "mnli": train_line("MNLI"),
        "sts-b": train_line("STS-B"),
        "dream": train_line("DREAM"),
        "wnut": train_line("WNUT-17"),
        "asa": train_line("RTE", "asa"),
        "masked-lm": train_line("text"),
    }
    third = [
        (TRAIN, line.replace("{out}/run", f"{{made}}/trained/{name}") + " --no-epoch-checkpoints")
        for name, line in trained.items()
    ]
    for lines in (first, second, third):
        cases = [Case(tool, "nothing", line.split(), outcome="works") for tool, line in lines]
        for verdict in run(cases, made, jobs=jobs):
            if verdict.faults:
                raise RuntimeError(f"{verdict.command}: {verdict.faults}\n{verdict.output[-3000:]}")
    log = made / "trained" / "asa.log"
    line = {"epoch": 1, "masked_layer1": "0.31", "masked_layer2": "0.27", "num_updates": "1"}
    log.write_text(f"2026-01-01 00:00:00 | INFO | train_inner | {json.dumps(line)}\n" * 3)


def _in_child(work: Callable[[], None]) -> None:
    """This process stays one that can be forked: without threads."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            work()
            code = 0
        finally:
            import traceback

            if code:
                traceback.print_exc()
            os._exit(code)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError("the campaign's own files could not be made")


def sentence(number: int) -> str:
    """A sentence of a few words, another one for every number."""
    return " ".join(WORDS[(number * step + step) % len(WORDS)] for step in range(1, 4 + number % 4))


def _write_sources(made: Path) -> None:
    texts = [sentence(number) for number in range(60)]
    made.mkdir(parents=True, exist_ok=True)
    (made / "text.txt").write_text("\n".join(texts[:20]) + "\n\n" + "\n".join(texts[20:]) + "\n")
    (made / "many.txt").write_text("".join(f"{sentence(number)}\n" for number in range(600)))
    (made / "pairs.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in itertools.pairwise(texts)))
    _write_glue(made / "glue")
    _write_tasks(made / "tasks")
    _write_hf(made / "hf", texts)


def _lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _json_lines(path: Path, rows: Sequence[Any]) -> None:
    _lines(path, [json.dumps(row) for row in rows])


GLUE_HEADERS = {
    "RTE": "index\tsentence1\tsentence2\tlabel",
    "STS-B": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
    "MNLI": "index\tpromptID\tpairID\tgenre\tb\tb2\tp\tp2\tsentence1\tsentence2\tlabel1\tgold_label",
    "SST-2": "sentence\tlabel",
    "QNLI": "index\tquestion\tsentence\tlabel",
    "QQP": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
    "MRPC": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
    "WNLI": "index\tsentence1\tsentence2\tlabel",
}
GLUE_LABELS = {
    "RTE": ("entailment", "not_entailment"),
    "STS-B": ("0.5", "4.25", "5.000"),
    "MNLI": ("contradiction", "entailment", "neutral"),
    "SST-2": ("1", "0"),
    "QNLI": ("entailment", "not_entailment"),
    "QQP": ("0", "1"),
    "MRPC": ("1", "0"),
    "WNLI": ("1", "0"),
}
LABEL_COLUMNS = ("label", "score", "gold_label", "is_duplicate", "Quality")
TEXT_COLUMNS = ("sentence", "sentence1", "sentence2", "question1", "question2", "#1 String", "#2 String")


def glue_row(task: str, number: int) -> str:
    """A labelled row of a task in its official columns; two rows in turn share their first text."""
    fields, texts = [], iter((sentence(number // 2), sentence(number + 7)))
    for column in GLUE_HEADERS[task].split("\t"):
        if column in LABEL_COLUMNS:
            fields.append(GLUE_LABELS[task][number % len(GLUE_LABELS[task])])
        else:
            fields.append(next(texts) if column in (*TEXT_COLUMNS, "question") else str(number))
    return "\t".join(fields)


def _write_glue(folder: Path) -> None:
    for task, header in GLUE_HEADERS.items():
        columns = header.split("\t")
        kept = [index for index, name in enumerate(columns) if name not in LABEL_COLUMNS]
        for split, count in (("train", 16), ("dev", 8), ("test", 6)):
            rows = [header, *(glue_row(task, number) for number in range(count))]
            if split == "test":
                rows = ["\t".join(row.split("\t")[index] for index in kept) for row in rows]
                if "index" not in columns:
                    rows = [f"{'index' if i == 0 else i - 1}\t{row}" for i, row in enumerate(rows)]
            names = (f"{split}_matched", f"{split}_mismatched")
            for name in names if task == "MNLI" and split != "train" else (split,):
                _lines(folder / task / f"{name}.tsv", rows)
    _lines(folder / "CoLA" / "train.tsv", [f"gj04\t{i % 2}\t\t{sentence(i)}" for i in range(16)])
    _lines(folder / "CoLA" / "dev.tsv", [f"gj04\t{i % 2}\t\t{sentence(i)}" for i in range(8)])


def _question(stem: str, choices: Sequence[str], key: str) -> dict[str, Any]:
    listed = [{"text": choice, "label": name} for choice, name in zip(choices, "ABCDE")]
    return {"id": "1", "question": {"stem": stem, "choices": listed}, "answerKey": key}


def _write_tasks(folder: Path) -> None:
    """Some rows of every task beside GLUE, in the official formats."""
    row: dict[str, Any]
    for task, first in (("TNEWS", 102), ("IFLYTEK", 7)):
        for split in ("train", "dev"):
            news = [{"label": first + i % 2, "sentence": sentence(i), "id": i} for i in range(6)]
            _json_lines(folder / task / f"{split}.json", news)
    _lines(
        folder / "AG-News" / "train.csv", [f'"{1 + i % 4}","a {i}","{sentence(i)}"' for i in range(20)]
    )
    for label in ("pos", "neg"):
        for number in range(10):
            _lines(folder / "IMDB" / "train" / label / f"{number}_1.txt", [sentence(number)])
    for number in (1, 2, 3):
        for split in ("train", "dev"):
            row = {"context": sentence(number), "hypothesis": "yes", "label": "n"}
            _json_lines(folder / "ANLI" / f"R{number}" / f"{split}.jsonl", [row, {**row, "label": "c"}])
    for name in ("train", "dev_and_test"):
        rows = ["id\tsentence1\tsentence2\tlabel", "1\tb'a cat'\tb\"it's\"\t1", "2\ta\tb\t0"]
        _lines(folder / "PAWS-QQP" / f"{name}.tsv", rows)
    for split in ("Train", "Dev"):
        row = _question("who sat", ["cat", "mat", "Rome"], "A")
        _json_lines(folder / "ARC-Easy" / f"ARC-Easy-{split}.jsonl", [row] * 3)
    for split in ("train", "dev"):
        dialogues = [
            [
                [f"M: {sentence(i)}", "W: yes"],
                [{"question": "who", "choice": ["cat", "mat", "no"], "answer": "cat"}],
                str(i),
            ]
            for i in range(8)
        ]
        (folder / "DREAM").mkdir(exist_ok=True)
        (folder / "DREAM" / f"{split}.json").write_text(json.dumps(dialogues))
        row = _question("who sat", ["cat", "mat", "Rome", "no", "yes"], "C")
        _json_lines(folder / "CommonsenseQA" / f"{split}_rand_split.jsonl", [row] * 4)
    for split in ("train", "val"):
        row = {"ctx": "the cat", "endings": ["sat", "ran", "on", "in"], "label": 0}
        _json_lines(folder / "HellaSwag" / f"hellaswag_{split}.jsonl", [row] * 4)
        text = "The cup does not fit in the bag because it is too big."
        target = {"span1_index": 0, "span2_text": "it", "span2_index": 9}
        nouns = ("The cup", "the bag")
        pronouns = [
            {"text": text, "target": {**target, "span1_text": noun}, "label": noun == nouns[0], "idx": 0}
            for noun in nouns
        ]
        _json_lines(folder / "WSC" / f"{split}.jsonl", pronouns)
    words = ["the\tO", "cat\tO", "in\tO", "London\tB-location", "", "who\tO", "sat\tO", "on\tO", ""] * 4
    for name in ("wnut17train.conll", "emerging.dev.conll"):
        _lines(folder / "WNUT-17" / name, words)


def _write_hf(folder: Path, texts: Sequence[str]) -> None:
    """Random encoders as Hugging Face stores them: roberta, bert, xlm-roberta, in safetensors."""
    from safetensors.torch import save_file
    from tokenizers import ByteLevelBPETokenizer

    roberta, bert, pieces = (folder / name for name in ("roberta", "bert", "xlm-roberta"))
    for each in (roberta, bert, pieces):
        each.mkdir(parents=True)
    tokenizer = ByteLevelBPETokenizer()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(texts, vocab_size=300, special_tokens=specials)
    tokenizer.save_model(str(roberta))
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,:"
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    vocabulary += [word.lower() for word in WORDS if len(word) > 1]
    _lines(bert / "vocab.txt", vocabulary)
    sizes = {
        "roberta": (tokenizer.get_vocab_size(), {"max_position_embeddings": POSITIONS + 2}),
        "bert": (len(vocabulary), {"max_position_embeddings": POSITIONS, "type_vocab_size": 2}),
    }
    try:
        import sentencepiece
    except ImportError:
        shutil.rmtree(pieces)
    else:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([*texts, "bdfgjkpquvxz"] * 3),
            model_prefix=str(pieces / "sentencepiece.bpe"),
            vocab_size=45,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        model = str(pieces / "sentencepiece.bpe.model")
        size = sentencepiece.SentencePieceProcessor(model_file=model).get_piece_size() + 2
        sizes["xlm-roberta"] = (size, {"max_position_embeddings": POSITIONS + 2})
    for family, (words, more) in sizes.items():
        config = {
            "model_type": family,
            "vocab_size": words,
            "hidden_size": WIDTH,
            "intermediate_size": 24,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 2,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-12 if family == "bert" else 1e-5,
            "pad_token_id": 0 if family == "bert" else 1,
            "type_vocab_size": 1,
            **more,
        }
        (folder / family / "config.json").write_text(json.dumps(config, indent=1))
        weights = _hf_weights("bert." if family == "bert" else "roberta.", config)
        save_file(weights, str(folder / family / "model.safetensors"), metadata={"format": "pt"})


def _hf_weights(prefix: str, config: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    torch.manual_seed(1)
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], width),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], width),
    }
    square = ("attention.self.query", "attention.self.key", "attention.self.value")
    modules = {
        **dict.fromkeys((*square, "attention.output.dense"), (width, width)),
        "intermediate.dense": (inner, width),
        "output.dense": (width, inner),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(LAYERS):
        start = f"encoder.layer.{layer}."
        for name, shape in modules.items():
            shapes[f"{start}{name}.weight"], shapes[f"{start}{name}.bias"] = shape, shape[:1]
        norms += [f"{start}attention.output.LayerNorm", f"{start}output.LayerNorm"]
    weights = {prefix + name: 0.1 * torch.randn(shape) for name, shape in shapes.items()}
    for name in norms:
        weights[f"{prefix}{name}.weight"] = torch.ones(width)
        weights[f"{prefix}{name}.bias"] = torch.zeros(width)
    return weights


# What cases do to their copies


def write(name: str, content: str | bytes) -> Step:
    """A file."""

    def step(place: Place) -> None:
        path = Path(place.fill(name)) if name.startswith("{") else place.inside / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, bytes) else place.fill(content).encode("utf-8")
        path.write_bytes(text)

    return step


def folder(name: str) -> Step:
    """An empty folder."""
    return lambda place: (place.inside / name).mkdir(parents=True)


def copied(source: str, name: str | None = None) -> Step:
    """A copy of something made, a file or a folder."""

    def step(place: Place) -> None:
        target = place.inside / (name or Path(source).name)
        target.parent.mkdir(parents=True, exist_ok=True)
        origin = place.made / source
        (shutil.copytree if origin.is_dir() else shutil.copyfile)(origin, target)

    return step


def removed(name: str) -> Step:
    """A file or folder less."""

    def step(place: Place) -> None:
        path = place.inside / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return step


def changed(name: str, change: Callable[[bytes], bytes]) -> Step:
    """Other bytes in a file."""

    def step(place: Place) -> None:
        path = place.inside / name
        path.write_bytes(change(path.read_bytes()))

    return step


def replaced(name: str, old: str, new: str) -> Step:
    """Other words in a text."""

    def swap(content: bytes) -> bytes:
        if old.encode() not in content:
            raise ValueError(f"{name} holds no {old!r}")
        return content.replace(old.encode(), new.encode(), 1)

    return changed(name, swap)


def json_entry(name: str, **entries: Any) -> Step:
    """Other entries in a JSON object; None removes one."""

    def change(content: bytes) -> bytes:
        value = {**json.loads(content), **entries}
        return json.dumps({k: v for k, v in value.items() if v is not None}).encode()

    return changed(name, change)


def state(name: str, change: Callable[[dict[str, Any], Place], Any]) -> Step:
    """Other contents in a checkpoint; what ``change`` returns, if anything, takes its place."""

    def step(place: Place) -> None:
        import torch

        path = place.inside / name
        value = torch.load(path, weights_only=False)
        found = change(value, place)
        torch.save(value if found is None else found, path)

    return step


class Payload:
    """An object whose unpickling makes the marker."""

    def __init__(self, place: Place) -> None:
        self.marker = str(place.marker)

    def __reduce__(self) -> Any:
        return (os.mkdir, (self.marker,))


def hostile_pickle(name: str, *, zipped: bool) -> Step:
    """A file that runs code when unpickled, as torch writes it or as a bare pickle."""

    def step(place: Place) -> None:
        import torch

        path = place.inside / name
        if zipped:
            value = torch.load(path, weights_only=False)
            torch.save({**value, "extra_state": Payload(place)}, path)
        else:
            path.write_bytes(pickle.dumps(Payload(place)))

    return step


def evaluated(place: Place) -> str:
    """Python code that makes the marker where fairseq evaluates an option."""
    return f"__import__('os').mkdir({str(place.marker)!r}) or [(1, 4)]"


def full_disk(kilobytes: int = 16) -> Step:
    """A disk at {out}/disk with so much room."""
    return _mounted("-t", "tmpfs", "-o", f"size={kilobytes}k,nr_inodes=64", "tmpfs")


def read_only_disk() -> Step:
    """A disk at {out}/disk that cannot be written."""
    return _mounted("-t", "tmpfs", "-o", "ro", "tmpfs")


def null_device() -> Step:
    """A device that takes everything, {in}/null."""
    return lambda place: os.mknod(place.inside / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))


def _mounted(*options: str) -> Step:
    def step(place: Place) -> None:
        target = place.out / "disk"
        target.mkdir()
        subprocess.run(["mount", *options, str(target)], check=True)

    return step


def other_zip(name: str) -> Step:
    """A zip file that is no checkpoint."""

    def step(place: Place) -> None:
        with zipfile.ZipFile(place.inside / name, "w") as bundle:
            bundle.writestr("hello.txt", "hello")

    return step


# A server that misbehaves: the first part of a path says how


def server_answers() -> dict[str, Callable[[str], tuple[int, bytes, int | None]]]:
    """How -> the answer to a path: status, body, the length that is announced (None: none is)."""
    members = {"RTE/train.tsv": "a", "RTE/dev.tsv": "b"}
    model = {"roberta.base/model.pt": "a" * 9999, "roberta.base/dict.txt": "b"}

    def archive(path: str, extra: dict[str, str] | None = None) -> bytes:
        entries = {**(members if path.endswith(".zip") else model), **(extra or {})}
        return (_zip if path.endswith(".zip") else _tar)(entries)

    def whole(body: bytes) -> tuple[int, bytes, int | None]:
        return 200, body, len(body)

    def halved(path: str) -> tuple[int, bytes, int | None]:
        body = archive(path)
        return 200, body[: len(body) // 2], None

    def cut(path: str) -> tuple[int, bytes, int | None]:
        body = archive(path)
        return 200, body[: len(body) // 2], len(body)

    def checksum(body: bytes) -> bytes:
        return body[:-8] + bytes(255 - byte for byte in body[-8:-4]) + body[-4:]

    return {
        "good": lambda path: whole(archive(path)),
        "absent": lambda path: (404, b"", 0),
        "forbidden": lambda path: (403, b"", 0),
        "page": lambda path: whole(b"<html>please log in</html>"),
        "empty": lambda path: whole(b""),
        "half": halved,
        "cut": cut,
        "crc": lambda path: whole(checksum(archive(path))),
        "evil": lambda path: whole(archive(path, {"../evil.txt": "x"})),
        "link": lambda path: whole(_tar({**model, "roberta.base/link": ""}, link="/etc/passwd")),
        "lacking": lambda path: whole((_zip if path.endswith(".zip") else _tar)({"a.txt": "x"})),
        "latin": lambda path: whole("caf\xe9\n".encode("latin-1")),
        "columns": lambda path: whole(b"1\t2\n"),
    }


def _zip(entries: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name, content in entries.items():
            bundle.writestr(name, content)
    return buffer.getvalue()


def _tar(entries: Mapping[str, str], link: str | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            if name.endswith("/link"):
                member.type, member.linkname = tarfile.SYMTYPE, link or ""
            bundle.addfile(member, io.BytesIO(content.encode()))
    return buffer.getvalue()


@contextlib.contextmanager
def server(made: Path) -> Iterator[str]:
    """The address of the server, which is a process of its own: this one must not have threads."""
    answers = server_answers()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, how, path = self.path.split("/", 2)
            status, body, length = answers[how](path)
            self.send_response(status)
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as listening:
        pid = os.fork()
        if not pid:
            try:
                listening.serve_forever()
            finally:
                os._exit(1)
    try:
        yield f"http://127.0.0.1:{listening.server_address[1]}"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
