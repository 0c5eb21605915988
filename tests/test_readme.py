"""The README tells the truth: its commands, flags, files and table of methods."""

import re
import shlex

import pytest
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.models.roberta import RobertaModel

import training

ROOT = training.ROOT
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.S)


def commands(block):
    return [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines()]


def test_the_first_two_commands_run_the_main_job_and_the_tests():
    assert BLOCKS[0].startswith("git clone ") and BLOCKS[0].strip().endswith("cd adv_plugins")
    assert [block.strip() for block in BLOCKS[1:3]] == [
        "bash scripts/demo.sh",
        "bash scripts/test.sh",
    ]
    assert BLOCKS[2].strip() in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_fairseq_train_command_parses():
    (command,) = [c for block in BLOCKS for c in commands(block) if c[:1] == ["fairseq-train"]]
    at = command.index("--user-dir")
    assert (ROOT / command[at + 1]).is_dir()
    del command[at : at + 2]  # imported already
    cfg = training.parse(command[1:])
    assert cfg.criterion._name == "rat_criterion" and cfg.criterion.adv_eps == 0.1


@pytest.mark.parametrize("criterion", ["rat", "freelb", "rapt", "asa"])
def test_the_table_of_methods_names_every_option_with_its_default(criterion):
    (row,) = [line for line in README.splitlines() if line.startswith(f"| `{criterion}_criterion`")]
    config = CRITERION_DATACLASS_REGISTRY[f"{criterion}_criterion"]
    own = {name: config.__dataclass_fields__[name].default for name in config.__annotations__}
    flags = {"--" + name.replace("_", "-"): default for name, default in own.items()}
    assert set(flags) == set(re.findall(r"--(?!arch)[a-z0-9-]+", row))
    for flag, value in re.findall(r"`(--[a-z0-9-]+)` \(([\d.]+)\)", row):
        assert flags[flag] == float(value)


def test_every_file_that_is_named_exists():
    for path in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in path:
            assert (ROOT / path).exists(), path
    for path in re.findall(r"(?:bash|python) ((?:scripts|examples)/[\w/.]+)", README):
        assert (ROOT / path).exists(), path


def test_every_flag_that_is_named_exists():
    import subprocess
    import sys

    parser = training.options.get_training_parser()
    known = {flag for action in parser._actions for flag in action.option_strings}
    RobertaModel.add_args(parser)
    known |= {flag for action in parser._actions for flag in action.option_strings}
    for config in CRITERION_DATACLASS_REGISTRY.values():
        known |= {"--" + name.replace("_", "-") for name in config.__dataclass_fields__}
    for kind in training.KIND_FLAGS.values():
        known |= set(re.findall(r"--[a-z0-9-]+", kind))
    known |= set(re.findall(r"--[a-z0-9-]+", training.TINY)) | set(
        re.findall(r"--[a-z0-9-]+", training.ADAM)
    )
    known |= {"--separator-token", "--no-deps"}
    for script in [*re.findall(r"(?:scripts|examples)/[\w/]+\.py", README), "examples/finetune.py"]:
        shown = subprocess.run(
            [sys.executable, str(ROOT / script), "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        known |= set(re.findall(r"--[a-z0-9-]+", shown.stdout))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", README))
    assert named - known == set()
