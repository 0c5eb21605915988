"""Everything that a user does, with what `pip install .` puts into a fresh environment, and its times.

    python scripts/measure/full_round.py

A virtual environment on top of the packages of this one (nothing is downloaded) gets this checkout's
wheel. In an empty folder, with the checkout on no path, the installed `adv-plugins` then lists tasks and
methods, downloads from a server on this machine, preprocesses, converts a tiny BERT, fine-tunes it,
predicts, converts it to Hugging Face and back, compares, strips, plots and evaluates. Every step prints
its seconds and what it has left; the first one that fails ends it.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import transformers

from adv_plugins_cli.command import UserError, one_line_errors

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("adv_plugins", "fairseq_compat", "scripts/adv_plugins_cli")
FILES = ("setup.py", "pyproject.toml", "fairseq_compat.pth")
WORDS = "the a cat dog bird sat ran flew on under over mat tree house no yes".split()
SHORT = "--max-positions 64 --max-epoch 1 --batch-size 8 --cpu --num-workers 0 --log-interval 1"
FAIRSEQ_TRAIN = """#!{python}
import sys
from fairseq_cli.train import cli_main
sys.exit(cli_main())
"""
WHERE = """
import adv_plugins, adv_plugins_cli, fairseq_compat, sys
print(*(module.__file__ for module in (adv_plugins, adv_plugins_cli, fairseq_compat)), *sys.path)
"""


class Round:
    """The steps, in one folder and one environment."""

    def __init__(self, root: Path) -> None:
        """Make the environment and install the wheel.

        Raises:
            UserError: it cannot be, or the checkout is still on a path.
        """
        self.folder, self.bin = root / "work", root / "venv" / "bin"
        self.folder.mkdir()
        self.total = 0.0
        path = os.pathsep.join([str(self.bin), "/usr/local/bin", "/usr/bin", "/bin"])
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self.environment = {**kept, "PATH": path, "NO_PROXY": "127.0.0.1"}
        self.run("python -m venv", [sys.executable, "-m", "venv", str(root / "venv")])
        self.install(root)
        found = self.run("where the packages are", [self.python, "-c", WHERE]).split()
        checkout = [place for place in found if Path(place).resolve().is_relative_to(ROOT)]
        # The packages beneath are those of an environment that may lie in the checkout.
        beneath = Path(sysconfig.get_path("purelib"))
        if any(not Path(place).is_relative_to(beneath) for place in checkout):
            raise UserError(f"{checkout[0]}: is of the checkout")

    @property
    def python(self) -> str:
        """The environment's."""
        return str(self.bin / "python")

    def install(self, root: Path) -> None:
        """`pip install .` of a copy, as building leaves files behind."""
        site = subprocess.run(
            [self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        (Path(site) / "base_environment.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        source = root / "source"
        source.mkdir()
        for name in SOURCES:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        for name in FILES:
            shutil.copy(ROOT / name, source)
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--force-reinstall"]
        pip = [self.python, "-m", "pip", "--disable-pip-version-check", "install", *options]
        self.run("pip install .", [*pip, str(source)])
        shutil.rmtree(source)
        # What pip makes for the fairseq of the packages beneath belongs to their environment.
        script = self.bin / "fairseq-train"
        script.write_text(FAIRSEQ_TRAIN.format(python=self.python))
        script.chmod(0o755)

    def run(self, name: str, command: list[str]) -> str:
        """One step; returns its output.

        Raises:
            UserError: it failed, with the end of what it said.
        """
        began = time.monotonic()
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        seconds = time.monotonic() - began
        self.total += seconds
        print(f"{seconds:6.1f} s  {name}", flush=True)
        if done.returncode:
            raise UserError(
                f"{name}: exit code {done.returncode}: {(done.stdout + done.stderr)[-3000:]}"
            )
        return done.stdout

    def adv_plugins(self, request: str, *, leaves: str = "", says: str = "") -> None:
        """One command of the console script.

        Args:
            leaves: a file that has to be there then; says: what has to be in the output.

        Raises:
            UserError: it failed, or is not or does not.
        """
        output = self.run(f"adv-plugins {request}", [str(self.bin / "adv-plugins"), *request.split()])
        if leaves and not (self.folder / leaves).is_file():
            raise UserError(f"adv-plugins {request}: there is no {leaves}")
        if says not in output:
            raise UserError(f"adv-plugins {request}: does not say {says!r}: {output[-2000:]}")


def task_archive() -> bytes:
    """RTE.zip with a few rows, as GLUE's server has it."""
    header = "index\tsentence1\tsentence2"
    rows = []
    for index in range(64):
        chosen = [WORDS[(index * step + index // 7) % len(WORDS)] for step in (1, 3, 5, 7, 11)]
        rows.append(f"{index}\t{' '.join(chosen[:3])}\t{' '.join(chosen[3:])}")
    labels = ["entailment" if index % 3 else "not_entailment" for index in range(64)]
    labelled = [f"{row}\t{label}" for row, label in zip(rows, labels)]
    content = {
        "train": [f"{header}\tlabel", *labelled],
        "dev": [f"{header}\tlabel", *labelled[:16]],
        "test": [header, *rows[:8]],
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for split, lines in content.items():
            archive.writestr(f"RTE/{split}.tsv", "\n".join([*lines, ""]))
    return buffer.getvalue()


def make_encoder(folder: Path) -> None:
    """A random BERT of two layers in Hugging Face's format."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    config = transformers.BertConfig(
        vocab_size=len(pieces),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
    )
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves a folder without a line a request."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def go_round(root: Path, port: int) -> None:
    """All steps.

    Raises:
        UserError: one failed.
    """
    steps = Round(root)
    do = steps.adv_plugins
    make_encoder(steps.folder / "encoder")
    (steps.folder / "pairs.tsv").write_text("the cat sat\tno dog ran\na bird flew\tyes\n")
    do("tasks", says="RTE")
    do("tasks RTE", says="train.tsv")
    do("methods", says="rat")
    do("methods rat", says="--consistency-weight")
    mirror = f"--base-url http://127.0.0.1:{port}"
    do(f"download glue/RTE --out-dir data {mirror}", leaves="data/glue/RTE/train.tsv")
    do("convert from-hf encoder start", leaves="start/architecture.json")
    do(
        "preprocess RTE --data-dir data/glue --wordpiece start --out-dir data-bin",
        leaves="data-bin/RTE-bin/label/dict.txt",
    )
    tune = "--checkpoint start/model.pt --data-bin data-bin"
    for method in ("rat", "asa"):
        run = f"checkpoints/RTE/{method}/seed1"
        do(f"finetune RTE {method} {tune} -- {SHORT}", leaves=f"{run}/checkpoint_best.pt")
    best = "checkpoints/RTE/rat/seed1/checkpoint_best.pt"
    do(f"predict {best} --input pairs.tsv --probabilities", says="entailment")
    do(f"predict {best} --glue-task RTE --glue-dir data/glue --split dev", says="accuracy")
    do(f"predict {best} --glue-task RTE --glue-dir data/glue --output-dir send", leaves="send/RTE.tsv")
    do(f"convert to-hf {best} rte-hf", leaves="rte-hf/model.safetensors")
    do("convert from-hf rte-hf back", leaves="back/model.pt")
    do(
        f"compare RTE {tune} --methods plain rat --seeds 1 2 --lr 1e-3 --epochs 1 --jobs 2 "
        "-- --cpu --max-positions 64",
        leaves="comparison/RTE/summary.json",
        says="comparison.png",
    )
    adversarial = "checkpoints/RTE/asa/seed1/checkpoint_best.pt"
    do(f"strip {adversarial} plain.pt", leaves="plain.pt")
    do(f"plot maps {adversarial} --text cat --out maps.png", leaves="maps.png")
    do(f"plot layers asa={adversarial} --out layers.png", leaves="layers.png")
    do(f"plot maps {best} --text cat --out maps.png", leaves="maps.png")
    words = f"plot nearest-words {best} --text cat --words cat --layer 1"
    do(f"{words} --out words.png", leaves="words.png", says="cosine")
    do("plot history checkpoints/RTE/asa/seed1/train.log --out history.png", leaves="history.png")
    measured = f"evaluate {best} --data data-bin/RTE-bin --embedding"
    do(f"{measured} --report report", leaves="report/report.html")
    do("paper freelb-table4", says="YOPO-3-2")
    print(f"{steps.total:6.1f} s  in all")


def main() -> None:
    """Run the command line; a step that fails is its name and what it said."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    with one_line_errors("full_round.py"), tempfile.TemporaryDirectory() as name:
        served = Path(name) / "served" / "glue" / "data"
        served.mkdir(parents=True)
        (served / "RTE.zip").write_bytes(task_archive())
        handler = functools.partial(QuietHandler, directory=str(Path(name) / "served"))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            go_round(Path(name), server.server_address[1])
        finally:
            server.shutdown()
            server.server_close()


if __name__ == "__main__":
    main()
