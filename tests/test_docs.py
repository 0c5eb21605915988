"""README and docs tell the truth: their commands, options, files, links, defaults and numbers."""

import argparse
import contextlib
import dataclasses
import enum
import importlib
import io
import json
import re
import runpy
import shlex
import sys
from itertools import pairwise
from typing import Any, cast

import pytest
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.models.roberta import RobertaModel

import training
from adv_plugins.methods import METHODS
from adv_plugins.models.bilstm import BiLstmModel
from adv_plugins.models.text_cnn import TextCnnModel
from adv_plugins.models.text_han import TextHanModel
from methods import METHODS as TESTED

ROOT = training.ROOT
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text("utf-8")
PAGES = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md")))
}
SUBCOMMANDS = {"convert": ("from-hf", "to-hf"), "plot": ("maps", "layers", "history", "nearest-words")}
# Of other programs than ours and fairseq's.
FOREIGN = {"--no-deps", "--use-pep517"}
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
# Lines that a shell runs, by what they begin with.
PROGRAMS = ("adv-plugins ", "python scripts/", "bash scripts/", "examples/")


def blocks(page, language):
    """The code blocks of a page."""
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.S)


def block_commands(page):
    """The commands of its bash blocks, as words; without variables that are set for them."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split(" && "):
                words = shlex.split(part, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    del words[0]
                if words:
                    yield words


def inline_commands(page):
    """Those that its sentences name."""
    for code in re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", re.sub(r"```.*?```", "", page, flags=re.S)):
        code = " ".join(code.split())
        if code.startswith(PROGRAMS) and " " in code:
            yield shlex.split(code)


def help_of(run):
    """The options that something shows when it is asked with --help."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        with contextlib.suppress(SystemExit):
            run()
    text = shown.getvalue()
    assert "usage:" in text or "adv-plugins COMMAND" in text, text
    return set(OPTION.findall(text))


@pytest.fixture(scope="module")
def cli():
    """The command line, with its table of commands."""
    return importlib.import_module("adv_plugins_cli.__main__")


@pytest.fixture(scope="module")
def options(cli):
    """Command, as words -> its options; the empty one's are those of ``adv-plugins`` itself."""
    known: dict[tuple[str, ...], Any] = {(): help_of(lambda: cli.main(["--help"]))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["adv-plugins"])
        for name in cli.COMMANDS:
            known[(name,)] = help_of(lambda: cli.main([name, "--help"]))  # noqa: B023 - called at once
            for second in SUBCOMMANDS.get(name, ()):
                words = (name, second)
                known[words] = help_of(lambda: cli.main([*words, "--help"]))  # noqa: B023
    return known


@pytest.fixture(scope="module")
def measuring():
    """Measuring script that a page names -> its options."""
    named = {
        path for page in PAGES.values() for path in re.findall(r"python\s(scripts/[\w/]+\.py)", page)
    }
    known = {}
    for path in sorted(named):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [path, "--help"])
            patch.syspath_prepend(str((ROOT / path).parent))
            known[path] = help_of(lambda: runpy.run_path(str(ROOT / path), run_name="__main__"))  # noqa: B023
    return known


def fairseq_options():
    """fairseq-train's, with all criterions and models, and of the tasks that are named."""
    known = set()
    for model in (RobertaModel, BiLstmModel, TextCnnModel, TextHanModel):
        parser = training.options.get_training_parser()
        model.add_args(parser)
        known |= {flag for action in parser._actions for flag in action.option_strings}
    for config in CRITERION_DATACLASS_REGISTRY.values():
        known |= {"--" + name.replace("_", "-") for name in config.__dataclass_fields__}
    every = f"{training.TINY} {training.ADAM} {' '.join(training.KIND_FLAGS.values())}"
    return known | set(OPTION.findall(every)) | {"--separator-token"}


def known_tasks():
    """Task -> fairseq's task of it."""
    (table,) = ROOT.rglob("tasks.tsv")
    lines = [line.split("\t") for line in table.read_text("utf-8").splitlines() if line[:1] != "#"]
    return {cells[0]: cells[1] for cells in lines[1:] if cells[0] != "demo"}


def choose(options, words):
    """The options of the command that the words begin with."""
    key = tuple(words[: 2 if words[0] in SUBCOMMANDS else 1])
    assert key in options, f"no command {' '.join(key)}"
    return options[key]


@pytest.mark.parametrize("name", PAGES)
def test_every_command_exists_and_has_its_options(options, measuring, name):
    """Those of bash blocks and of sentences."""
    for words in [*block_commands(PAGES[name]), *inline_commands(PAGES[name])]:
        program, *rest = words
        if program == "adv-plugins":
            known = choose(options, rest) if not rest[0].startswith("-") else options[()]
        elif program.startswith("examples/"):
            assert (ROOT / program).is_file(), program
            known = options["finetune",]
        elif program in ("bash", "python") and rest[0].startswith("scripts/"):
            assert (ROOT / rest[0]).is_file(), rest[0]
            known = measuring.get(rest[0], set())
        else:
            continue
        asked = {word for word in rest[: rest.index("--") if "--" in rest else None]}
        quoted = {
            word for word in asked if " " in word and word.startswith("--")
        }  # of compare --evaluate
        for word in quoted:
            assert set(OPTION.findall(word)) <= options["evaluate",], words
        asked -= quoted
        assert {word for word in asked if word.startswith("--")} <= known | {"--help"}, words


class Parsed(BaseException):
    """A command line was parsed: that is far enough."""


@pytest.mark.parametrize("name", PAGES)
def test_commands_that_can_be_pasted_parse(cli, monkeypatch, name):
    """With their positional arguments, choices and required options, by the command's own parser."""
    stock = argparse.ArgumentParser.parse_args

    def parse_args(self, *arguments, **more):
        stock(self, *arguments, **more)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(sys, "argv", ["adv-plugins"])
    for words in block_commands(PAGES[name]):
        if words[0] != "adv-plugins" or words[1].startswith("-"):
            continue
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                cli.main(words[1:])
        except Parsed:
            continue
        except SystemExit:
            pytest.fail(f"{shlex.join(words)}: {said.getvalue()}")
        pytest.fail(f"{shlex.join(words)}: was not parsed by argparse")


@pytest.mark.parametrize("name", PAGES)
def test_tasks_and_methods_of_commands_exist(name):
    methods = {"plain", "my_rdrop", *METHODS}  # my_rdrop: see test_adding_a_method.py
    for words in block_commands(PAGES[name]):
        program, *rest = words
        if program.startswith("examples/tasks/"):
            assert rest[0] in methods, words
        if program != "adv-plugins" or rest[0] not in ("finetune", "compare", "preprocess"):
            continue
        command, *rest = rest
        named = rest[: next(number for number, word in enumerate(rest) if word.startswith("-"))]
        if "--train" in rest:  # data of one's own
            method = rest[rest.index("--method") + 1] if command == "finetune" else "plain"
            assert not named and method in methods, words
            continue
        if command == "finetune":
            assert named.pop() in methods, words
        assert named and set(named) <= {*known_tasks(), "GLUE"}, words


@pytest.mark.parametrize("name", PAGES)
def test_every_option_that_is_named_exists(options, measuring, name):
    known = fairseq_options() | FOREIGN | set().union(*options.values(), *measuring.values())
    if name.endswith("adding-a-method.md"):
        known |= {"--rdrop-weight"}  # see test_adding_a_method.py
    assert set(OPTION.findall(PAGES[name])) - known == set()


@pytest.mark.parametrize("name", PAGES)
def test_fairseq_train_commands_parse(name):
    for words in block_commands(PAGES[name]):
        if words[0] != "fairseq-train":
            continue
        at = words.index("--user-dir")
        if words[at + 1] == "my_methods":  # see test_adding_a_method.py
            continue
        assert (ROOT / words[at + 1]).is_dir()
        del words[at : at + 2]  # imported already
        cfg = training.parse(words[1:])
        assert cfg.criterion._name in {method.criterion for method in METHODS.values()}
        given = dict(pairwise(words))
        for option in {"--adv-eps", "--asa-masking-rate"} & set(given):
            name = option.removeprefix("--").replace("-", "_")
            assert cfg.criterion[name] == float(given[option])


def anchor(heading):
    """GitHub's name of a heading's place."""
    return re.sub(r"[^\w -]", "", heading.replace("`", "").lower()).replace(" ", "-")


@pytest.mark.parametrize("name", PAGES)
def test_every_link_and_file_that_is_named_exists(name):
    page, folder = PAGES[name], (ROOT / name).parent
    for target in re.findall(r"\]\(([^)]+)\)", page):
        if "://" in target:
            continue
        path, _, place = target.partition("#")
        found = (folder / path).resolve() if path else ROOT / name
        assert found.exists(), target
        if place:
            headings = re.findall(r"^#+ (.*)$", found.read_text("utf-8"), flags=re.M)
            assert place in map(anchor, headings), target
    for path in re.findall(r"(?<![\w/.])((?:scripts|examples|tests|docs|adv_plugins)/[\w/.-]*\w)", page):
        if "NAME" not in path:
            assert (ROOT / path).exists(), path


def test_files_that_are_named_beside_another_exist():
    """`freelb.py` after `adv_plugins/criterions/rat.py`."""
    everything = {path.name for path in ROOT.rglob("*") if ".git" not in path.parts}
    everything |= {f"{path.parent.name}/{path.name}" for path in ROOT.rglob("*.py")}
    for path in re.findall(r"`([\w/]+\.(?:py|tsv|sh|yaml))`", PAGES["docs/reading-the-code.md"]):
        assert path in everything or (ROOT / path).exists(), path


@pytest.mark.parametrize("name", PAGES)
def test_python_blocks_compile(name):
    for block in blocks(PAGES[name], "python"):
        compile(block, name, "exec")


def test_the_readme_is_a_page_and_begins_with_what_runs():
    lines = README.splitlines()
    assert len(lines) <= 120 and max(map(len, lines)) <= 110
    first, second = blocks(README, "bash")[:2]
    assert (first.strip(), second.strip()) == ("bash scripts/demo.sh", "bash scripts/test.sh")
    assert second.strip() in (ROOT / ".ci" / "run").read_text().splitlines()
    for address in re.findall(r"git clone (\S+)", "".join(PAGES.values())):
        assert re.match(r"https://|git@|file://", address), f"cannot be pasted: {address}"


def rows(text):
    """The cells of a table's rows."""
    for line in text.splitlines():
        if line.startswith("|"):
            yield [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def section(page, heading):
    """What lies between a heading and the next one."""
    return re.split(r"^#+ .*$", page.split(f"{heading}\n", 1)[1], maxsplit=1, flags=re.M)[0]


def test_both_tables_of_methods_are_those_that_are_registered():
    listed = {cells[0].strip("`"): cells for cells in rows(section(README, "## The methods"))}
    described = {
        cells[0].strip("`"): cells for cells in rows(section(PAGES["docs/methods.md"], "# The methods"))
    }
    addresses = dict(re.findall(r"^\[([^]]+)\]: (\S+)$", README, flags=re.M))
    for method in METHODS.values():
        if method.criterion.endswith("_release"):  # of the measuring tools
            continue
        _, paper, passes, _ = listed.pop(method.name)
        (title,) = re.findall(r"^\[([^]]+)\], ", paper)
        assert method.title.startswith(title) and addresses[title] == method.address
        assert passes == method.passes
        _, criterion, paper, summary, passes = described.pop(method.name)
        assert criterion == f"`{method.criterion}`" and summary == method.summary
        assert paper == f"[{title}]({method.address}), {method.paper}"
        assert passes == method.passes
    assert set(listed) | set(described) == {"", "method", "---"}, "of methods that are not registered"


def documented(heading):
    """Option -> (choices, default) of a table of options."""
    text = section(PAGES["docs/methods.md"], heading)
    same = re.search(r"^Options as for `(\w+)`", text, flags=re.M)
    found = documented(f"### `{same[1]}`") if same else {}
    for option, default, _ in rows(text):
        if option.startswith("`--"):
            flag, _, choices = option.strip("`").partition(" ")
            found[flag] = (choices, default.strip("`"))
    return found


def registered(fields):
    """The same of the fields of a criterion's options."""
    found = {}
    for field in fields:
        default = getattr(field.default, "value", field.default)
        shown = "none" if default is None else "off" if default is False else str(default)
        choices: list[str] = []
        if isinstance(field.type, enum.EnumMeta):
            choices = [each.value for each in cast(Any, field.type)]
        found["--" + field.name.replace("_", "-")] = ("|".join(choices), shown)
    return found


@pytest.mark.parametrize("name", [method.name for method in TESTED])
def test_the_tables_of_options_are_those_of_the_criterions(name):
    own_options = importlib.import_module("adv_plugins_cli.methods").own_options
    method = METHODS[name]
    own, told = registered(own_options(method)), documented(f"### `{method.criterion}`")
    if not method.adversaries:
        told.update(documented("### ASA with another method"))
    assert told == own
    every = registered(dataclasses.fields(method.options))
    choices, default = every["--base-criterion"]
    assert documented("### Of every method") == {
        "--base-criterion": ("", default),
        "--sequential-passes": every["--sequential-passes"],
    }
    assert choices


def test_the_table_of_tasks_names_each():
    known = known_tasks()
    section_of_tasks = section(PAGES["docs/recipes-and-data.md"], "## The tasks")
    named = {}
    for kind, tasks in list(rows(section_of_tasks))[2:]:
        kinds = re.findall(r"`(\w+)`", kind) or ["sentence_ranking"]
        for task in re.findall(r"[A-Z][\w-]*(?: \([^)]*\))?", tasks):
            named.update(
                {each: kinds for each in re.findall(r"[A-Z][\w]*(?:-\w+)*", task) if each in known}
            )
    assert set(named) == set(known)
    assert all(known[task] in kinds for task, kinds in named.items())
    assert f"{len(known)} tasks" in README


def test_the_picture_is_drawn_from_the_table(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from PIL import Image

    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "measure"))
    import draw_costs

    costs = draw_costs.read_costs(DOCS / "costs.md")
    assert len(costs) >= 11 and all(each.least <= each.time <= each.most for each in costs)
    with Image.open(DOCS / "pictures" / "cost.png") as picture:
        drawn = json.loads(picture.info[draw_costs.ROWS])
    assert drawn == json.loads(json.dumps(costs)), "python scripts/measure/draw_costs.py"
    draw_costs.draw(costs, tmp_path / "new.png")
    with Image.open(tmp_path / "new.png") as picture:
        assert json.loads(picture.info[draw_costs.ROWS]) == drawn and min(picture.size) > 500
