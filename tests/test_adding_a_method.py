"""docs/adding-a-method.md does what it says, from an empty folder outside of the checkout."""

import os
import re
import subprocess
import sys

import pytest

import training

PAGE = (training.ROOT / "docs" / "adding-a-method.md").read_text("utf-8")
FILES = dict(re.findall(r"`([\w/]+\.py)`[^`]*:\n\n```python\n(.*?)```", PAGE, flags=re.S))


@pytest.fixture
def folder(tmp_path):
    """The page's files in an empty folder."""
    assert set(FILES) == {"my_methods/__init__.py", "my_methods/rdrop.py", "test_rdrop.py"}
    for name, code in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(code, "utf-8")
    return tmp_path


def run(command, folder):
    """A command of the user's, in that folder, with the checkout's packages."""
    paths = [str(training.ROOT), str(training.ROOT / "scripts"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_fairseq_train_trains_with_it(folder):
    script = os.path.join(os.path.dirname(sys.executable), "fairseq-train")
    if not os.path.exists(script):
        pytest.skip(f"no fairseq-train beside {sys.executable}")
    (command,) = re.findall(r"```bash\n(fairseq-train .*?)```", PAGE, flags=re.S)
    (own,) = re.findall(r"--user-dir \S+ --criterion \S+ --rdrop-weight \S+", command)
    data = training.write_data(folder / "data", "classification")
    line = f"{data} --save-dir {folder} {own} --arch roberta --max-update 2 --log-interval 1"
    line = f"{line} {training.TINY} {training.ADAM} {training.KIND_FLAGS['classification']}"
    done = run([script, *line.split()], folder)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-2000:]
    logged = [float(value) for value in re.findall(r'"consistency_loss": "([^"]+)"', said)]
    assert len(logged) >= 2 and min(logged) > 0
    assert (folder / "checkpoint_last.pt").exists()


@pytest.mark.parametrize("right", [True, False])
def test_its_proof_holds_and_fails_for_another_factor(folder, right):
    if not right:
        method = folder / "my_methods" / "rdrop.py"
        text = method.read_text("utf-8")
        assert text.count("self.alpha / 2") == 1
        method.write_text(text.replace("self.alpha / 2", "self.alpha"), "utf-8")
    done = run([sys.executable, "-m", "pytest", "-q", "test_rdrop.py"], folder)
    assert ("1 passed" if right else "1 failed") in done.stdout, (done.stdout + done.stderr)[-2000:]
    if not right:
        assert "AssertionError: Scalars are not close" in done.stdout


def test_the_runners_know_its_name(folder):
    """Its recipe is plain fine-tuning's with the options that it registered, and they say so."""
    training.write_data(folder / "data-bin" / "RTE-bin", "classification")
    request = "finetune RTE my_rdrop --user-dir my_methods --from-scratch --arch roberta --print-only"
    done = run([sys.executable, "-m", "adv_plugins_cli", *request.split()], folder)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-2000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("fairseq-train ")]
    assert "--criterion my_rdrop_criterion" in line and "--rdrop-weight 0.5" in line
    assert re.search(r"--user-dir \S*my_methods ", line)
    assert "plain" in said.replace(line, "")

    listed = run(
        [sys.executable, "-m", "adv_plugins_cli", "methods", "--user-dir", "my_methods"], folder
    )
    assert listed.returncode == 0 and "R-Drop" in listed.stdout and "R-AT" in listed.stdout
