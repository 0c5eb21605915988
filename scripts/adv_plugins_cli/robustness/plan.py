"""What is to be evaluated, all of it checked before a model is loaded."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adv_plugins_cli.checkpoints.checkpoint_file import read_checkpoint, section
from adv_plugins_cli.checkpoints.trained_model import TrainedModel, check_alike, read_trained_model
from adv_plugins_cli.command import UserError
from adv_plugins_cli.robustness.attacks.search import Limits
from adv_plugins_cli.robustness.attacks.synonyms import Neighbours, read_neighbours
from adv_plugins_cli.robustness.embedding_study import Curves, WorstCases
from adv_plugins_cli.robustness.rows import TextRow, check_split, read_labelled, read_table
from adv_plugins_cli.robustness.sets.common import TextSet
from adv_plugins_cli.robustness.text_study import LabelledText, labelled

if TYPE_CHECKING:
    from adv_plugins_cli.data.binarize import TextEncoder

# What an option needs to do anything: option -> what it is an option of.
OF_EMBEDDING = ("embedding_rows", "eps", "steps", "step_size", "starts", "search_eps")
OF_CURVES = ("curve_rows", "curve_eps", "noise_draws", "layer_noise")
OF_ATTACKS = ("attack_rows", "candidates", "changed", "queries", "neighbors")


@dataclass(frozen=True)
class Attacks:
    """names: of ``ATTACKS``; rows: at most; candidates: changes of a word to try."""

    names: tuple[str, ...]
    rows: int
    candidates: int
    limits: Limits
    neighbours: Neighbours | None


@dataclass(frozen=True)
class Plan:
    """models: in the order of the command, names: theirs in tables; flags: the metrics that the first
    one's training reported; split: of the models' data, or text: the labelled rows in its place (or
    neither); sets: others; reference: the number of the model whose epsilon is searched."""

    models: list[TrainedModel]
    names: list[str]
    flags: list[str]
    data: str
    split: str | None
    text: LabelledText | None
    rows: int | None
    sets: list[LabelledText]
    encoder: TextEncoder | None
    worst_cases: WorstCases | None
    worst_rows: int
    reference: int | None
    curves: Curves | None
    curve_rows: int
    attacks: Attacks | None
    folder: Path | None
    seed: int
    batch_size: int
    bootstrap: int


def refuse_useless(arguments: argparse.Namespace) -> None:
    """Find what is missing, or would do nothing, without reading a file.

    Raises:
        UserError: naming the option.
    """
    from adv_plugins_cli.evaluate import make_parser

    if arguments.data is None and not arguments.set:
        raise UserError("nothing to evaluate on: give --data or --set")
    parser = make_parser()
    for options, asked, flag in (
        (OF_EMBEDDING, arguments.embedding, "--embedding"),
        (OF_CURVES, arguments.curves, "--curves"),
        (OF_ATTACKS, arguments.attack, "--attack"),
    ):
        if asked and arguments.data is None:
            raise UserError(f"{flag} needs --data")
        for option in options:
            if not asked and getattr(arguments, option) != parser.get_default(option):
                raise UserError(f"--{option.replace('_', '-')} does nothing without {flag}")
    for option in ("split", "rows"):
        if arguments.data is None and getattr(arguments, option) is not None:
            raise UserError(f"--{option} does nothing without --data")
    for option in ("text2", "label"):
        if getattr(arguments, option) is not None and arguments.text is None:
            raise UserError(f"--{option} does nothing without --text")
    if "synonyms" in arguments.attack and arguments.neighbors is None:
        raise UserError("--attack synonyms needs a list of them: give --neighbors")
    if "synonyms" not in arguments.attack and arguments.neighbors is not None:
        raise UserError("--neighbors does nothing without --attack synonyms")
    if arguments.search_eps is not None and arguments.search_eps not in arguments.checkpoints:
        raise UserError(f"--search-eps {arguments.search_eps}: is none of the checkpoints")
    if arguments.report is not None:
        if arguments.report.exists() and not arguments.report.is_dir():
            raise UserError(f"{arguments.report}: is no folder (--report)")
        import matplotlib  # noqa: F401 - missed now rather than after hours
    if len(set(arguments.checkpoints)) < len(arguments.checkpoints):
        raise UserError("a checkpoint is there twice")
    if arguments.changed > 1:
        raise UserError(f"--changed {arguments.changed:g}: a share of the words, so at most 1")
    names = [each.partition("=")[0] for each in arguments.set]
    if len(set(names)) < len(names):
        raise UserError("a set is there twice (--set)")


def make_plan(arguments: argparse.Namespace) -> Plan:
    """Read everything but the models' weights.

    Raises:
        UserError: of checkpoints, data, sets or lists that do not fit.
    """
    neighbours = read_neighbours(arguments.neighbors) if arguments.neighbors else None
    sets, named = read_sets(arguments)
    folder = None if named or arguments.data is None else Path(arguments.data)
    if folder is not None and not folder.exists():
        raise UserError(f"{folder}: no such folder or file (--data)")
    is_folder = folder is not None and folder.is_dir()
    if arguments.text is not None and (folder is None or is_folder):
        raise UserError(f"--text does nothing with {arguments.data}: it is no table (--data)")
    if is_folder and arguments.data_bin is not None:
        raise UserError("--data-bin does nothing with a folder for --data")
    if not is_folder and arguments.split is not None:
        raise UserError(f"--split does nothing with {arguments.data}: it is no folder of a task")
    if is_folder and arguments.attack:
        raise UserError("--attack needs text: give --data a labelled file, or NAME=PATH of a set")
    data = folder if is_folder else arguments.data_bin
    models = [read_trained_model(path, data) for path in arguments.checkpoints]
    check_alike(models, "they cannot be compared")
    first = models[0]
    split = (arguments.split or "valid") if is_folder else None
    if split is not None:
        check_split(first, split)
    if first.kind == "regression" and arguments.curves:
        raise UserError("--curves: a regression has no accuracy")
    if first.kind != "classification" and arguments.attack:
        raise UserError("--attack: only classifications are attacked in text")
    texts = []
    for each, path_rows in sets:
        for model in models:
            meaning = each.meaning(model)
        texts.append(labelled(each.name, path_rows, first.labels, meaning))
    text = texts.pop() if named else None
    several = text is not None and any(len(right) > 1 for right in text.right)
    if several and (arguments.embedding or arguments.curves):
        raise UserError(
            f"--embedding and --curves need one right class a row; in {arguments.data} several of "
            f"{', '.join(first.labels)} are right (--data)"
        )
    if folder is not None and not is_folder:
        columns = [column for column in (arguments.text, arguments.text2) if column]
        if columns:
            rows = read_table(folder, columns, arguments.label or "label", first)
        else:
            rows = read_labelled(folder, first)
        if first.kind == "regression":  # which has no classes that are right
            text = LabelledText(str(folder), rows, [frozenset()] * len(rows))
        else:
            text = labelled(str(folder), rows, first.labels)
    encoder = None
    if text is not None or texts:
        from adv_plugins_cli.predict import find_encoder

        encoder = find_encoder(arguments, models)
    reference = None
    if arguments.search_eps is not None:
        reference = arguments.checkpoints.index(arguments.search_eps)
    return Plan(
        models=models,
        names=short_names(arguments.checkpoints),
        flags=reported(arguments.checkpoints[0]),
        data=str(arguments.data or ""),
        split=split,
        text=text,
        rows=arguments.rows,
        sets=texts,
        encoder=encoder,
        worst_cases=WorstCases(arguments.eps, arguments.steps, arguments.step_size, arguments.starts)
        if arguments.embedding
        else None,
        worst_rows=arguments.embedding_rows,
        reference=reference,
        curves=Curves(
            tuple(sorted({0.0, *arguments.curve_eps})), arguments.noise_draws, arguments.layer_noise
        )
        if arguments.curves
        else None,
        curve_rows=arguments.curve_rows,
        attacks=Attacks(
            tuple(dict.fromkeys(arguments.attack)),
            arguments.attack_rows,
            arguments.candidates,
            Limits(arguments.changed, arguments.queries),
            neighbours,
        )
        if arguments.attack
        else None,
        folder=arguments.report,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
        bootstrap=arguments.bootstrap,
    )


def reported(checkpoint: Path) -> list[str]:
    """The flags of GLUE's metrics that a checkpoint was trained with."""
    from adv_plugins.scores import SCORES

    options = section(checkpoint, read_checkpoint(checkpoint), "criterion")
    return [flag for flag in SCORES if options.get(flag) is True]


def short_names(paths: Sequence[Path]) -> list[str]:
    """What tells the checkpoints apart: their paths without the parts that all have at either end."""
    if len(paths) == 1:
        return [paths[0].parent.name or paths[0].stem]
    parts = [path.with_suffix("").parts for path in paths]
    begin = end = 0
    shortest = min(map(len, parts))
    while begin < shortest - 1 and len({each[begin] for each in parts}) == 1:
        begin += 1
    while end < shortest - begin - 1 and len({each[-1 - end] for each in parts}) == 1:
        end += 1
    names = ["/".join(each[begin : len(each) - end]) for each in parts]
    return names if len(set(names)) == len(names) else list(map(str, paths))


def read_sets(arguments: argparse.Namespace) -> tuple[list[tuple[TextSet, list[TextRow]]], bool]:
    """The rows of the sets, with --data's at the end where it names one; whether it does.

    Raises:
        UserError: a set is not known, or its file is not what it should be.
    """
    named = arguments.data is not None and _set_name(arguments.data) is not None
    texts = [*arguments.set, *([arguments.data] if named else [])]
    return [_read_set(each) for each in texts], named


def _set_name(text: str) -> str | None:
    """NAME of NAME=PATH, unless there is a file or folder of this name."""
    name, equals, _ = text.partition("=")
    return name if equals and not Path(text).exists() else None


def _read_set(text: str) -> tuple[TextSet, list[TextRow]]:
    from adv_plugins_cli.robustness.sets import SETS

    name, equals, path = text.partition("=")
    if not equals or not path:
        raise UserError(f"{text}: give NAME=PATH (--set)")
    if name not in SETS:
        raise UserError(f"{name}: no set with a reader; known are {', '.join(SETS)} (--set)")
    return SETS[name], SETS[name].read(Path(path))
