"""What `pip install .` and `pip install -e .` put into an environment: read off their wheels."""

import importlib.util
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import fairseq_compat

ROOT = Path(__file__).parents[1]
HOOK = "fairseq_compat.pth"
PACKAGES = ("adv_plugins", "fairseq_compat")

# setuptools has had its own bdist_wheel since 70.1
needs_build_tools = pytest.mark.skipif(
    not importlib.util.find_spec("wheel") and fairseq_compat.version_of("setuptools") < (70, 1),
    reason="building a wheel needs setuptools 70.1, or setuptools and wheel",
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of the sources, as building leaves files behind."""
    folder = tmp_path_factory.mktemp("sources")
    for name in ("setup.py", "pyproject.toml", HOOK):
        shutil.copy(ROOT / name, folder)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    return folder


def build(function, sources, folder):
    """The wheel's files by their names inside an environment's site-packages."""
    script = f"from setuptools import build_meta; build_meta.{function}({str(folder)!r})"
    subprocess.run([sys.executable, "-c", script], cwd=sources, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    names = [name for name in archive.namelist() if not name.endswith("/")]
    record = next(name for name in names if name.endswith(".dist-info/RECORD"))
    recorded = {line.split(",")[0] for line in archive.read(record).decode().splitlines()}
    assert recorded == set(names), "what is not recorded stays behind when uninstalled"
    return {name.split(".data/purelib/")[-1]: archive.read(name).decode() for name in names}


@needs_build_tools
def test_a_wheel_holds_the_packages_and_the_hook(sources, tmp_path):
    files = build("build_wheel", sources, tmp_path)
    assert files[HOOK] == (ROOT / HOOK).read_text()
    for package in PACKAGES:
        packaged = {name for name in files if name.startswith(f"{package}/")}
        assert packaged == {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py")}
    assert not any(name.startswith(("tests", "scripts", "examples")) for name in files)


@needs_build_tools
def test_an_editable_wheel_holds_the_hook_after_the_paths(sources, tmp_path):
    files = build("build_editable", sources, tmp_path)
    assert files[HOOK] == (ROOT / HOOK).read_text()
    paths = [name for name in files if name.endswith(".pth") and name != HOOK]
    assert paths, "setuptools makes the checkout importable by such a file"
    assert all(name < HOOK for name in paths), "Python reads them in this order"


@needs_build_tools
def test_an_installed_wheel_works_from_an_empty_folder_without_the_checkout(tmp_path):
    """scripts/measure/full_round.py goes on to train, compare, convert and plot there."""
    full_round = pytest.importorskip("full_round")
    steps = full_round.Round(tmp_path)
    archive = zipfile.ZipFile(io.BytesIO(full_round.task_archive()))
    archive.extractall(steps.folder / "glue")
    full_round.make_encoder(steps.folder / "encoder")
    steps.adv_plugins("tasks RTE", says="recipes")
    steps.adv_plugins("paper freelb-table4", says="71.12 (0.90)")
    made = "bin/RTE-bin/label/dict.txt"
    steps.adv_plugins("preprocess RTE --data-dir glue --wordpiece encoder --out-dir bin", leaves=made)
    request = "finetune RTE rat --from-scratch --arch roberta_base --data-bin bin --print-only"
    steps.adv_plugins(request, says="fairseq-train bin/RTE-bin --user-dir ")


@needs_build_tools
def test_requirements_leave_torch_and_fairseq_to_the_user(sources, tmp_path):
    files = build("build_wheel", sources, tmp_path)
    metadata = next(text for name, text in files.items() if name.endswith("METADATA"))
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    assert "Requires-Dist: torch>=2.6" in required
    assert not any("fairseq" in line for line in required)


@pytest.mark.parametrize("module_is_there", [True, False])
def test_the_hooks_line_is_silent(module_is_there):
    """It runs at every start of Python: without the module, too, after a rough uninstallation."""
    line = (ROOT / HOOK).read_text()
    assert line.startswith("import ") and line.count("\n") == 1, "or Python takes it for a path"
    folders = [str(ROOT)] if module_is_there else []
    script = f"import sys; sys.path[:0] = {folders}; {line.strip()}; print(sys.meta_path)"
    run = subprocess.run(
        [sys.executable, "-S", "-I", "-c", script], capture_output=True, text=True, check=True
    )
    assert ("FixOnImport" in run.stdout) == module_is_there
    assert run.stderr == ""


def test_the_scripts_are_executable_and_well_formed():
    for name in ("scripts/setup.sh", "scripts/test.sh", ".ci/run"):
        assert os.access(ROOT / name, os.X_OK), name
        subprocess.run(["bash", "-n", ROOT / name], check=True)


FAKE_PYTHON = """#!/usr/bin/env bash
case "$1 ${2-}" in
    "-m pytest") printf '%s\\n' "$PWD" "$@" ;;
    "-m adv_plugins_cli") printf '%s\\n' "$@" ;;
    -*) exit 0 ;;
    *) printf '%s\\n' "$@" ;;
esac
"""
INPUTS = ("setup.py", "pyproject.toml", "constraints.txt", "scripts/setup.sh")


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def set_up(tmp_path, monkeypatch):
    """An environment that setup.sh takes for its own, with a Python that prints its arguments."""
    venv = tmp_path / "venv"
    executable(venv / "bin" / "python", FAKE_PYTHON)
    content = b"".join((ROOT / name).read_bytes() for name in INPUTS)
    checksum = subprocess.run(["cksum"], input=content, capture_output=True, check=True).stdout.decode()
    (venv / "adv_plugins.stamp").write_text(f"{ROOT.resolve()} {checksum}")
    monkeypatch.setenv("ADV_PLUGINS_VENV", str(venv))
    monkeypatch.setenv("PATH", "/usr/local/bin:/usr/bin:/bin")  # no environment is active
    return venv


SHELL_SCRIPTS = {
    "scripts/setup.sh": [],
    "scripts/test.sh": [
        str(ROOT.resolve()),
        *"-m pytest -q -n 3 --dist loadfile --no-loadscope-reorder".split(),
    ],
    "scripts/demo.sh": ["-m", "adv_plugins_cli", "demo"],
    "examples/finetune.sh": ["-m", "adv_plugins_cli", "finetune"],
    "examples/pretraining/pretrain.sh": ["-m", "adv_plugins_cli", "pretrain"],
    "examples/tasks/WSC.sh": ["-m", "adv_plugins_cli", "finetune", "WSC"],
}


@pytest.mark.parametrize("name", SHELL_SCRIPTS)
def test_shell_scripts_find_the_checkout_from_everywhere(name, set_up, tmp_path):
    """By a path from another folder, a link to the script, and a link to the checkout."""
    (tmp_path / "checkout").symlink_to(ROOT)
    (tmp_path / "link").symlink_to(ROOT / name)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    argument = "--print-python" if name.endswith("setup.sh") else "a b"
    expected = SHELL_SCRIPTS[name] + [argument]
    if argument == "--print-python":
        expected = [str(set_up / "bin" / "python")]
    for script in (ROOT / name, "../link", tmp_path / "checkout" / name, f"../checkout/{name}"):
        run = subprocess.run([script, argument], cwd=elsewhere, capture_output=True, text=True)
        assert (run.returncode, run.stdout.splitlines()) == (0, expected), run.stderr
        assert run.stderr == "", "setup.sh does nothing a second time"


def test_slurms_launchers_keep_fairseqs_arguments_last(set_up, tmp_path, monkeypatch):
    from adv_plugins_cli import finetune

    executable(tmp_path / "bin" / "srun", '#!/usr/bin/env bash\nshift\nexec "$@"\n')
    executable(tmp_path / "bin" / "scontrol", "#!/usr/bin/env bash\nseq -f node%g 7 99999\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    facts = {"SUBMIT_DIR": ROOT, "JOB_NODELIST": "node[7-8]", "GPUS_ON_NODE": 4}
    facts |= {"NNODES": 2, "NODEID": 1}
    for key, value in facts.items():
        monkeypatch.setenv(f"SLURM_{key}", str(value))
    request = ["RTE", "rat", "--from-scratch", "--seed", "3", "--", "--lr", "1e-3"]
    script = ROOT / "examples" / "slurm" / "finetune.sbatch"
    run = subprocess.run(["bash", script, *request], capture_output=True, text=True, check=True)
    said = run.stdout.splitlines()
    assert said[:4] == ["-m", "adv_plugins_cli", "finetune", "--torchrun"]
    rest = said[3:]
    arguments = finetune.parse_arguments(rest)
    assert (arguments.torchrun, arguments.gpus, arguments.nodes, arguments.node_rank) == (True, 4, 2, 1)
    assert arguments.main_address == "node7:29500" and arguments.seed == [3]
    assert arguments.extra == ["--lr", "1e-3"]


def test_the_constraints_cover_the_requirements():
    constrained = {
        line.split("==")[0].lower()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    script = "import setuptools; setuptools.setup = lambda **a: print(*a['install_requires']); "
    script += f"exec(open({str(ROOT / 'setup.py')!r}).read())"
    pytest.importorskip("setuptools")
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = {requirement.split(">")[0] for requirement in run.stdout.split()}
    assert names and names <= constrained


def test_importing_the_plug_ins_loads_nothing_but_them():
    """Their share of the start-up: heavy libraries load where they are used."""
    script = "import fairseq_compat; fairseq_compat.install(); import fairseq; import sys; "
    script += "before = set(sys.modules); import adv_plugins; print(*set(sys.modules) - before)"
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    packages = {name.split(".")[0] for name in run.stdout.split()}
    assert packages <= {"adv_plugins", "fairseq", "fairseq_compat"}
