"""report.html, which needs nothing beside it, its pictures as files, and results.json."""

from __future__ import annotations

import base64
import difflib
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from adv_plugins_cli.robustness.figures import figures
from adv_plugins_cli.robustness.tables import Table, tables
from fairseq_compat.files import write_json, write_text, written_beside

STYLE = """
body { font: 15px/1.45 sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: .6em 0 1.6em; font-size: 14px }
th, td { border-bottom: 1px solid #ccc; padding: .25em .7em; text-align: left; vertical-align: top }
th { background: #f2f2f2 } td:first-child { font-weight: bold }
p.note { color: #555; margin: .2em 0 } img { max-width: 100%; margin: .4em 1em 1em 0 }
del { background: #fdd; text-decoration: none } ins { background: #dfd; text-decoration: none }
""".strip()


def write_report(folder: Path, results: Mapping[str, Any]) -> None:
    """Write all of it into the folder."""
    write_json(folder / "results.json", results)
    pictures = figures(results)
    for name, content in pictures.items():
        with written_beside(folder / name) as path:
            path.write_bytes(content)
    write_text(folder / "report.html", page(results, pictures))


def page(results: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """The page, its pictures inside."""
    checkpoints = "".join(
        f"<li><b>{escape(name)}</b>: {escape(path)}</li>"
        for name, path in zip(results["names"], results["checkpoints"])
    )
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        f"<title>Evaluation</title><style>{STYLE}</style></head><body>",
        f"<h1>Evaluation</h1><ul>{checkpoints}</ul>",
        *map(_table, tables(results)),
        *(_picture(name, content) for name, content in pictures.items()),
        *_confusions(results),
        *_examples(results),
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in table.header)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in table.rows
    )
    title, note = escape(table.title), escape(table.note)
    return f'<h2>{title}</h2><p class="note">{note}</p><table><tr>{head}</tr>{rows}</table>'


def _picture(name: str, content: bytes) -> str:
    data = base64.b64encode(content).decode("ascii")
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{data}">'


def _confusions(results: Mapping[str, Any]) -> Iterator[str]:
    labels = results["labels"]
    for name, each in results.get("calibration", {}).items():
        rows = [[label, *map(str, row)] for label, row in zip(labels, each["confusion"])]
        note = "A row is a true class, a column what was chosen."
        yield _table(Table(f"Confusion: {name}", note, ["", *labels], rows))


def _examples(results: Mapping[str, Any]) -> Iterator[str]:
    """What was changed in the rows whose right class fell most."""
    for attack, found in results.get("attacks", {}).items():
        for name, examples in found["examples"].items():
            if not examples:
                continue
            rows = "".join(
                f"<tr><td>{escape(each['label'])}</td>"
                f"<td>{each['before']:.2f} &rarr; {each['after']:.2f}</td>"
                f"<td>{changes(each['original'], each['adversarial'], old=True)}</td>"
                f"<td>{changes(each['original'], each['adversarial'], old=False)}</td></tr>"
                for each in examples
            )
            yield (
                f"<h2>Worst examples: {escape(attack)}, {escape(name)}</h2><table><tr><th>label</th>"
                f"<th>its probability</th><th>original</th><th>adversarial</th></tr>{rows}</table>"
            )


def changes(original: Sequence[str], changed: Sequence[str], *, old: bool) -> str:
    """One side of a comparison, as HTML: the words that are not the other's are marked."""
    mark, parts = ("del" if old else "ins"), []
    for one, other in zip(original, changed):
        words = [one.split(), other.split()]
        words_of_side = words[0] if old else words[1]
        shown = []
        matcher = difflib.SequenceMatcher(a=words[0], b=words[1], autojunk=False)
        for kind, a, b, c, d in matcher.get_opcodes():
            text = escape(" ".join(words_of_side[a:b] if old else words_of_side[c:d]))
            if text:
                shown.append(text if kind == "equal" else f"<{mark}>{text}</{mark}>")
        parts.append(" ".join(shown))
    return "<br>".join(parts)
