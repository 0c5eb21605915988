"""Each fix of fairseq_compat: it helps fairseq, and nobody else notices it."""

import argparse
import dataclasses
import importlib.metadata
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy
import pytest
import torch
import torch.distributed as dist
from fairseq import distributed_utils
from fairseq.data import ListDataset
from fairseq.data.iterators import EpochBatchIterator
from fairseq.trainer import Trainer
from omegaconf import OmegaConf

import fairseq_compat
from fairseq_compat import console, fixes
from processes import run_two_workers

refuses_unhashable_defaults = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="Python before 3.11 looks at lists, dicts and sets only"
)


def make_dataclass(module):
    """A dataclass, like fairseq's configs not hashable, of the given module."""
    config = dataclasses.make_dataclass("Config", [("value", int, 1)])
    config.__module__ = module
    return config


def use_as_default(default):
    return dataclasses.make_dataclass("Outer", [("inner", type(default), default)])


@pytest.fixture
def plain_dataclasses(monkeypatch):
    """`dataclasses` without the fix; afterwards it is as it was."""
    patched = vars(dataclasses)["_get_field"]
    monkeypatch.setattr(dataclasses, "_get_field", getattr(patched, "original", patched))


@refuses_unhashable_defaults
@pytest.mark.parametrize("module", ["fairseq.somewhere", "hydra.somewhere"])
def test_config_defaults_are_allowed_where_python_refuses_them(module, plain_dataclasses):
    config = make_dataclass(module)
    with pytest.raises(ValueError, match="mutable default"):
        use_as_default(config())
    fixes.allow_config_defaults()

    default = config()
    outer = use_as_default(default)
    assert outer().inner is default
    assert outer.__dataclass_fields__["inner"].default is default, "fairseq reads it there"
    assert config.__hash__ is None, "the hash is gone again"

    wrapped = dataclasses.make_dataclass(
        "Outer", [("inner", config, dataclasses.field(default=default))]
    )
    assert wrapped().inner is default


@refuses_unhashable_defaults
def test_the_defaults_of_others_are_still_refused():
    fixes.allow_config_defaults()
    defaults: list[Any] = [make_dataclass("fairseq_of_a_user")(), make_dataclass(__name__)(), [], {}]
    for default in defaults:
        with pytest.raises(ValueError, match="mutable default"):
            use_as_default(default)


def test_config_defaults_are_left_to_an_older_python(plain_dataclasses, monkeypatch):
    plain = vars(dataclasses)["_get_field"]
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))
    fixes.allow_config_defaults()
    assert vars(dataclasses)["_get_field"] is plain


def test_fixing_twice_is_fixing_once(plain_dataclasses):
    fixes.allow_config_defaults()
    once = vars(dataclasses)["_get_field"]
    fixes.allow_config_defaults()
    assert vars(dataclasses)["_get_field"] is once
    fixes.allow_namespaces_in_checkpoints()
    fixes.allow_namespaces_in_checkpoints()
    assert torch.serialization.get_safe_globals().count(argparse.Namespace) == 1


class Hostile:
    """Runs code of its own choice when unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return (os.mkdir, (self.folder,))


def test_checkpoints_with_arguments_load_and_hostile_ones_do_not(tmp_path):
    from fairseq.checkpoint_utils import load_checkpoint_to_cpu

    checkpoint = tmp_path / "checkpoint.pt"
    arguments = argparse.Namespace(arch="roberta_base", dropout=0.1)
    torch.save({"args": arguments, "model": {"weight": torch.ones(2)}}, checkpoint)
    with torch.serialization.safe_globals([]):
        torch.serialization.clear_safe_globals()
        with pytest.raises(pickle.UnpicklingError, match="Namespace"):
            torch.load(checkpoint)
        fixes.allow_namespaces_in_checkpoints()
        assert torch.load(checkpoint)["args"] == arguments

    torch.save({"args": arguments, "model": Hostile(str(tmp_path / "made"))}, checkpoint)
    with pytest.raises(pickle.UnpicklingError, match="mkdir"):
        load_checkpoint_to_cpu(str(checkpoint))
    assert not (tmp_path / "made").exists()


def test_sentences_break_at_eos(monkeypatch):
    from fairseq.data import TokenBlockDataset

    sentences = [torch.tensor([5, 6, 2]), torch.tensor([7, 2])]
    monkeypatch.delattr(numpy, "compat", raising=False)
    fixes.restore_numpy_long()
    blocks = TokenBlockDataset(sentences, [3, 2], None, pad=1, eos=2, break_mode="eos")
    assert [block.tolist() for block in blocks] == [[5, 6, 2], [7, 2]]


def test_numpy_with_compat_stays_as_it_is(monkeypatch):
    own = SimpleNamespace()
    monkeypatch.setattr(numpy, "compat", own, raising=False)
    fixes.restore_numpy_long()
    assert vars(numpy)["compat"] is own


def test_the_hook_fixes_when_a_package_is_really_imported(monkeypatch):
    fixed: list[str] = []
    wanted = {name: (f"fixes.{name}",) for name in ("hydra", "fairseq", "fairseq.data")}
    monkeypatch.setattr(fairseq_compat, "FIXES", wanted)
    monkeypatch.setattr(fairseq_compat, "apply", fixed.append)
    find_spec: Any = fairseq_compat.FixOnImport().find_spec
    for name in ("os", "fairseq", "fairseq_cli.train", "hydra"):
        assert find_spec(name) is None
    assert fixed == []
    for name in ("hydra.core", "fairseq.version", "fairseq.data", "hydra.main"):
        assert find_spec(name) is None
    assert fixed == ["fixes.hydra", "fixes.fairseq", "fixes.fairseq.data"]


def test_a_start_of_fairseq_says_nothing_of_what_nobody_can_mend():
    """Neither hydra's page of warnings nor the call for tensorboardX, with fairseq's logging on."""
    code = (
        "import logging; logging.basicConfig(level=logging.INFO); import fairseq_compat;"
        "fairseq_compat.install(); from fairseq import options, tasks;"
        "from fairseq.dataclass.utils import convert_namespace_to_omegaconf as convert;"
        "parser = options.get_training_parser(); line = '. --task masked_lm --arch roberta'.split();"
        "convert(options.parse_args_and_arch(parser, line));"
        "import warnings; warnings.warn('of use'); "
        "logging.getLogger('fairseq.tasks.text_to_speech').info('of use, too')"
    )
    command = [sys.executable, "-W", "default::UserWarning", "-c", code]
    quiet = subprocess.run([command[0], *command[3:]], capture_output=True, text=True, check=True)
    lines = quiet.stderr.splitlines()
    assert len(lines) == 2 and "of use" in lines[0] and "of use, too" in lines[1], quiet.stderr
    loud = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "hydra" in loud.stderr, "who asks for warnings gets them"


def test_the_hook_is_put_in_once(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.delitem(sys.modules, "fairseq", raising=False)
    fairseq_compat.install()
    fairseq_compat.install()
    hooks = [finder for finder in sys.meta_path if isinstance(finder, fairseq_compat.FixOnImport)]
    assert len(hooks) == 1


def test_a_user_dir_that_does_not_exist_is_one_line(tmp_path):
    """As a process of its own, which never imports the plug-ins."""
    script = "import fairseq_compat; fairseq_compat.install(); from fairseq_cli.train import cli_main; "
    command = [sys.executable, "-c", f"{script} cli_main()", "data", "--user-dir"]
    options = {"cwd": tmp_path, "capture_output": True, "text": True}
    run = subprocess.run([*command, "none"], env=with_root(), **options)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert run.stderr.splitlines()[-1] == "adv_plugins: error: --user-dir none: no such folder"


def test_a_file_that_a_user_dir_does_not_find_is_its_own_error(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("open('nothing')")
    from fairseq.utils import import_user_module

    with pytest.raises(FileNotFoundError, match="nothing"):
        import_user_module(SimpleNamespace(user_dir=str(tmp_path / "mine")))


def with_root():
    """The environment, with this checkout's packages."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


def shown_help(line, capsys):
    from fairseq import options

    import adv_plugins  # noqa: F401 - what --user-dir loads

    console.show_all_options()
    with pytest.raises(SystemExit) as ended:
        options.parse_args_and_arch(options.get_training_parser(), line.split())
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_help_shows_the_options_of_what_the_line_names(capsys):
    line = "--criterion rat_criterion --task sentence_prediction --arch asa_roberta --optimizer adam -h"
    shown = shown_help(line, capsys)
    for option in ("--consistency-weight", "--num-classes", "--encoder-layers", "--adam-betas"):
        assert option in shown
    assert "--bregman-weight" not in shown
    assert "--bregman-weight" in shown_help(line.replace("rat_", "smart_"), capsys)
    assert "--criterion" in shown_help("--help", capsys)


def test_installing_is_light_and_tells_the_user_dir():
    script = (
        "import runpy, sys, fairseq_compat; fairseq_compat.install();"
        "runpy.run_module('fairseq_compat', run_name='__main__');"
        "assert not {'torch', 'numpy', 'fairseq', 'adv_plugins'} & set(sys.modules)"
    )
    root = Path(__file__).parents[1]
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == str(root / "adv_plugins")


GOOD = {"torch": "2.6.0+cu124", "hydra-core": "1.3.2", "omegaconf": "2.3.0", "fairseq": "0.12.2"}


@pytest.mark.parametrize(
    ("package", "version", "message"),
    [
        ("fairseq", None, "it is missing: pip install --no-deps fairseq==0.12.2"),
        ("fairseq", "0.10.2", "0.10.2 is installed: pip install --no-deps fairseq==0.12.2"),
        ("fairseq", "1.0.0a0", "needs fairseq 0.12.2"),
        ("torch", "2.5.1", "pip install 'torch>=2.6'"),
        ("torch", None, "pip install 'torch>=2.6'"),
        ("hydra-core", "1.0.7", "pip install hydra-core==1.3.2 omegaconf==2.3.0"),
        ("omegaconf", "2.0.6", "pip install hydra-core==1.3.2 omegaconf==2.3.0"),
    ],
)
def test_wrong_versions_are_named_with_the_command_to_mend_them(package, version, message, monkeypatch):
    installed = {**GOOD, package: version}

    def look_up(name):
        if installed[name] is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.metadata, "version", look_up)
    monkeypatch.delitem(sys.modules, package, raising=False)
    with pytest.raises(ImportError) as error:
        fairseq_compat.check_versions()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("torch_version", ["2.6.0+cu124", "2.13.0+cpu", "2.15.0a0+git12ab", "3.0"])
def test_right_versions_are_accepted(torch_version, monkeypatch):
    installed = {**GOOD, "torch": torch_version}
    monkeypatch.setattr(importlib.metadata, "version", installed.__getitem__)
    fairseq_compat.check_versions()


def test_this_environment_is_accepted():
    fairseq_compat.check_versions()


def receive(rank, port):
    """What one of two workers has when the first has sent a checkpoint's content."""
    dist.init_process_group("gloo", f"tcp://localhost:{port}", rank=rank, world_size=2)
    content = {"cfg": OmegaConf.create({"seed": 3}), "weights": torch.arange(3.0), "args": None}
    content = distributed_utils.broadcast_object(content if rank == 0 else None, 0, dist.group.WORLD)
    dist.destroy_process_group()
    return type(content["cfg"]).__name__, content["cfg"].seed, content["weights"].tolist()


@pytest.mark.parametrize("batches", [3, 2], ids=["all", "the first ones"])
def test_the_workers_that_read_a_validation_end_with_it(batches):
    """Not 5 s each after they are collected as garbage, which happens in the middle of a save."""
    fixes.end_data_workers()

    def iterate():
        rows = ListDataset([torch.full((1,), number) for number in range(3)])
        ids = [[0], [1], [2]]
        return EpochBatchIterator(
            rows, torch.cat, ids, num_workers=2, buffer_size=5, reuse_dataloader=True
        )

    trainer = mock.MagicMock()
    trainer.task.cfg.group_by_length = trainer.cfg.task.group_by_length = 0
    trainer.task.get_batch_iterator = lambda **_: iterate()
    trainer.task.max_positions.return_value = trainer.model.max_positions.return_value = None
    found = Trainer.get_valid_iterator(trainer, "valid").next_epoch_itr(shuffle=False)
    found.take(batches)
    assert [int(batch) for batch in found] == list(range(batches))
    thread = found._itr._consumer
    thread.join(timeout=60)
    assert not thread.is_alive() and not multiprocessing.active_children()

    training = iterate()  # whose workers stay for the next epoch
    for _ in range(2):
        epoch = training.next_epoch_itr(shuffle=False)
        assert [int(batch) for batch in epoch] == [0, 1, 2]
        assert len(multiprocessing.active_children()) == 2
    training.dataloader._iterator._shutdown_workers()


def test_a_worker_reads_what_another_one_has_made_of_a_checkpoint():
    assert run_two_workers(receive) == [("DictConfig", 3, [0, 1, 2])] * 2
