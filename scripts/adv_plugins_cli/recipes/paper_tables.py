"""The papers' tables and figures as data: ``papers/papers.tsv`` lists them, ``papers/ID.tsv`` is one.

A row of one is a training: a method (``-``: published only, nothing is run), whose recipe's settings it
has (``recipe``: where they are another method's), the options that it changes of them, the paper's
encoder, and the architecture where the model is not the given one. A column is ``TASK=METERS``: those
of the validation, ``/`` between several scores, ``+`` between those that the paper averages,
``valid1:`` for the second validation set; ``TASK@10%`` is a tenth of the training set; ``x3`` a number
of runs. A cell is ``SCORES (SPREAD) xRUNS``, ``-`` where the paper (or its copied text) has none.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from adv_plugins_cli.command import UserError
from adv_plugins_cli.recipes import recipes, run_folder
from adv_plugins_cli.recipes.methods import load_methods
from adv_plugins_cli.recipes.recipes import Recipe

TABLES = Path(__file__).resolve().parents[1] / "papers"
ROW_FACTS = ("row", "method", "recipe", "flags", "encoder", "arch")
NOTHING = "-"
AVERAGE = "Avg"
CELL = re.compile(r"([\d.]+(?:/[\d.]+)*)(?: \(([\d.]+)\))?(?: x(\d+))?")
COLUMN = re.compile(r"(?P<task>[\w-]+)(?:@(?P<share>\d+)%)?=(?P<meters>\S+)(?: x(?P<runs>\d+))?")
PRODUCT = re.compile(r"\{(--[\w-]+) \* (\d+)\}")  # in a row's flags: an option of the recipe, times n


@dataclass(frozen=True)
class Cell:
    """Published numbers. text: as they are printed; values: one a score; runs: None for the column's."""

    text: str
    values: tuple[float, ...] = ()
    spread: float | None = None
    runs: int | None = None


@dataclass(frozen=True)
class Column:
    """name: what it is printed as; task: of tasks.tsv, None for an average over the others and for the
    columns of times; meters: of each score, those that it is the mean of; share: of the training set, in
    percent; runs: None for the table's."""

    name: str
    task: str | None = None
    meters: tuple[tuple[str, ...], ...] = ()
    share: int = 100
    runs: int | None = None

    @property
    def metric(self) -> str:
        """The scores in words."""
        return "/".join("+".join(score) for score in self.meters)


@dataclass(frozen=True)
class Row:
    """name: in the paper; method: None for what is only published; recipe: the method whose settings it
    has; flags: what it changes of them; encoder: the paper's; arch: None for the given encoder."""

    name: str
    method: str | None
    recipe: str
    flags: str
    encoder: str
    arch: str | None
    cells: Mapping[str, Cell]

    def cell(self, column: Column) -> Cell:
        """What is published in a column; nothing where the paper does not have that."""
        return self.cells.get(column.name, Cell(NOTHING))


@dataclass(frozen=True)
class PaperTable:
    """A table or figure; the fields of ``papers.tsv``, its columns and its rows."""

    id: str
    paper: str
    place: str
    shows: str
    measures: str
    statistic: str
    spread: str
    runs: str
    split: str
    note: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def facts(self) -> dict[str, str]:
        """Those of papers.tsv."""
        names = (field.name for field in fields(self) if field.name not in ("columns", "rows"))
        return {name: getattr(self, name) for name in names}

    def how_published(self) -> str:
        """What its numbers are."""
        if self.measures != "scores":
            return self.measures
        if self.statistic == NOTHING:
            return "no statistic is named"
        spread = "" if self.spread == NOTHING else f" ({self.spread})"
        return f"{self.statistic}{spread} of {self.runs} runs, {self.split} set"

    def chosen(self, rows: Sequence[str] | None, columns: Sequence[Column]) -> PaperTable:
        """The same with a part of its rows (None: all) and these columns.

        Raises:
            UserError: it has no such row.
        """
        known = {row.name: row for row in self.rows}
        for name in rows or ():
            if name not in known:
                raise UserError(f"--rows {name!r}: {self.id} has {', '.join(map(repr, known))}")
        kept = tuple(row for row in self.rows if rows is None or row.name in rows)
        return replace(self, columns=tuple(columns), rows=kept)


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of cells as text, with the columns below one another."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]


def load_all() -> dict[str, PaperTable]:
    """All of them, by their ids."""
    return {facts["id"]: _load(facts) for facts in recipes.read_table(TABLES / "papers.tsv")}


def load(table: str) -> PaperTable:
    """One of them.

    Raises:
        UserError: there is none of this id.
    """
    known = {facts["id"]: facts for facts in recipes.read_table(TABLES / "papers.tsv")}
    if table not in known:
        raise UserError(f"no table {table!r}: choose one of {', '.join(known)}")
    return _load(known[table])


def _load(facts: Mapping[str, str]) -> PaperTable:
    path = TABLES / f"{facts['id']}.tsv"
    lines = recipes.read_table(path)
    columns = {header: parse_column(header) for header in lines[0] if header not in ROW_FACTS}
    rows = tuple(
        Row(
            name=line["row"],
            method=None if line["method"] == NOTHING else line["method"],
            recipe=line["recipe"] or line["method"],
            flags=line["flags"],
            encoder=line["encoder"],
            arch=line["arch"] or None,
            cells={column.name: parse_cell(line[header]) for header, column in columns.items()},
        )
        for line in lines
    )
    return PaperTable(**facts, columns=tuple(columns.values()), rows=rows)


def parse_column(header: str) -> Column:
    """A column of its header."""
    match = COLUMN.fullmatch(header)
    if match is None:
        return Column(header)
    share, runs = match["share"], match["runs"]
    return Column(
        name=f"{match['task']}@{share}%" if share else match["task"],
        task=match["task"],
        meters=tuple(tuple(score.split("+")) for score in match["meters"].split("/")),
        share=int(share or 100),
        runs=int(runs) if runs else None,
    )


def column_of_task(task: str) -> Column:
    """One for a task that the paper does not have, with the metric of its recipes.

    Raises:
        UserError: there is no such task.
    """
    return Column(task, task, ((recipes.get_recipe(task, recipes.PLAIN).best,),))


def parse_cell(text: str) -> Cell:
    """A cell; what is no number is none.

    Raises:
        ValueError: it is neither numbers nor ``-``.
    """
    if text == NOTHING:
        return Cell(text)
    match = CELL.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no cell of a paper's table")
    values, spread, runs = match.groups()
    return Cell(
        text,
        tuple(map(float, values.split("/"))),
        float(spread) if spread else None,
        int(runs) if runs else None,
    )


def recipe_of(row: Row, task: str, user_dir: Path | None = None, *, arch: str | None = None) -> Recipe:
    """The recipe of a row's training on a task.

    The method's own recipe with the row's flags. Where the row names another method's, all is that one's
    (learning rate, batch, epochs, fairseq's options, the options that both methods have), but for those
    that only the row's method has.

    Args:
        arch: the architecture of what is trained.

    Raises:
        UserError: there is no such task or method.
    """
    assert row.method is not None
    own = recipes.get_recipe(task, row.method, user_dir, arch=arch)
    if row.recipe == row.method:
        return replace(own, flags=f"{own.flags} {_computed(row.flags, own.flags)}".strip())
    base = recipes.get_recipe(task, row.recipe, user_dir, arch=arch)
    mine, theirs = _method_options(row.method, user_dir), _method_options(row.recipe, user_dir)
    flags = {key: value for key, value in _parsed(own.flags).items() if key in mine}
    flags.update(
        {key: value for key, value in _parsed(base.flags).items() if key in mine or key not in theirs}
    )
    text = " ".join(f"{key} {shlex.quote(value)}" if value else key for key, value in flags.items())
    return replace(
        own,
        **{name: getattr(base, name) for name in ("lr", "batch", "epochs", "updates", "warmup")},
        source=f"{base.source} ({row.recipe})",
        flags=f"{text} {_computed(row.flags, base.flags)}".strip(),
    )


def _parsed(flags: str) -> dict[str, str]:
    found = run_folder.options(["", *shlex.split(flags)])
    return {name: value for name, value in found.items() if name.startswith("--")}


def _computed(flags: str, recipe_flags: str) -> str:
    """The row's flags with ``{--option * n}`` computed from the recipe's value."""
    known = _parsed(recipe_flags)
    return PRODUCT.sub(lambda match: f"{float(known[match[1]]) * int(match[2]):.6g}", flags)


def _method_options(method: str, user_dir: Path | None) -> set[str]:
    """Its criterion's own options; those of ASA beside another method are no settings of that method."""
    if method == recipes.PLAIN:
        return set()
    from adv_plugins.criterions.with_asa import AsaAdditionConfig
    from adv_plugins_cli.methods import own_options

    facts = load_methods(user_dir)[method]
    addition = {field.name for field in fields(AsaAdditionConfig)}
    beside = set() if facts.adversaries else addition
    return {
        "--" + field.name.replace("_", "-") for field in own_options(facts) if field.name not in beside
    }
