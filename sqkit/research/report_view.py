"""What a reader of a report sees, before it is HTML or Markdown.

`report_view` turns an executed notebook into a title, a verdict and sections; both pages of
`sqkit.research.reports` are drawn from it, so they cannot tell different stories.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqkit.checklist import INSUFFICIENT_EVIDENCE, PROMOTE, REJECT
from sqkit.files import read_json, write_text
from sqkit.research.notebook_parameters import cell_source, parameters_of_source
from sqkit.research.notebook_store import INJECTED, notebook_text

_VERDICT: Final = re.compile(
    rf"^[#>*_\s]*({PROMOTE}|{REJECT}|{INSUFFICIENT_EVIDENCE})\b[*_]*\s*[:.,–—-]?\s*(.*)", re.DOTALL
)
_COLOUR_CODES: Final = re.compile(r"\x1b\[[0-9;]*m")
_STYLE_BLOCK: Final = re.compile(r"<style.*?</style>", re.DOTALL)


@dataclass(frozen=True)
class Item:
    """One thing on the page.

    Attributes
    ----------
    kind
        ``prose`` (Markdown in `text`), ``table`` (`html` and, as Markdown, `text`), ``figure``
        (`png` in base64, `filename`, alternative words in `text`), ``output`` (plain text),
        ``code`` or ``parameters`` (`rows`).
    """

    kind: str
    text: str = ""
    html: str = ""
    png: str = ""
    filename: str = ""
    rows: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    """The visible part of one cell; `id` is the cell's, and the anchor to link to."""

    id: str
    items: list[Item]


@dataclass(frozen=True)
class Verdict:
    """The recommendation a report opens with, and the sentence that says why."""

    word: str
    reason: str


@dataclass(frozen=True)
class ReportView:
    """A report, ready to be drawn."""

    title: str
    verdict: Verdict | None
    sections: list[Section]

    def figures(self) -> Iterator[Item]:
        """The figures in the order they appear."""
        return (item for section in self.sections for item in section.items if item.kind == "figure")


def set_verdict(executed: Path, line: str) -> None:
    """Let a page open with a verdict that was reached after its notebook had run."""
    notebook = read_json(executed)
    notebook["metadata"]["sqkit"] = {"verdict": line}
    write_text(executed, notebook_text(notebook))


def report_view(notebook: dict[str, Any]) -> ReportView:
    """Read an executed notebook as a report.

    Tags decide what shows: ``remove_cell`` nothing, ``remove_input`` no code, ``remove_output``
    no outputs. The parameters cell becomes a table of the values that were used. When the first
    Markdown *output* opens with a recommendation, its first paragraph becomes the verdict; so
    does the line that `set_verdict` left.
    """
    verdict, _ = _split_verdict(notebook["metadata"].get("sqkit", {}).get("verdict", ""))
    looking = True
    sections: list[Section] = []
    used = notebook["metadata"].get("papermill", {}).get("parameters", {})
    for cell in notebook["cells"]:
        items = _items(cell, used)
        for place, item in enumerate(items):
            if looking and cell["cell_type"] == "code" and item.kind == "prose":
                looking = False
                found, rest = _split_verdict(item.text)
                if found:
                    verdict = found
                    items[place : place + 1] = [Item("prose", rest)] if rest else []
                break
        if items:
            sections.append(Section(str(cell["id"]), items))
    return ReportView(_title(notebook), verdict, sections)


def _title(notebook: dict[str, Any]) -> str:
    for cell in notebook["cells"]:
        found = re.match(r"# +(.+)", cell_source(cell)) if cell["cell_type"] == "markdown" else None
        if found:
            return found.group(1).strip()
    return "Report"


def _split_verdict(text: str) -> tuple[Verdict | None, str]:
    first, _, rest = text.strip().partition("\n\n")
    found = _VERDICT.match(first)
    if not found:
        return None, text
    return Verdict(found.group(1), " ".join(found.group(2).split())), rest.strip()


def _items(cell: dict[str, Any], used: dict[str, Any]) -> list[Item]:
    tags = cell["metadata"].get("tags", [])
    source = cell_source(cell)
    if "remove_cell" in tags or INJECTED in tags or not source.strip():
        return []
    if cell["cell_type"] == "markdown":
        return [Item("prose", source)]
    if cell["cell_type"] != "code":
        return []
    if "parameters" in tags:
        return [Item("parameters", rows=_parameter_rows(source, used))]
    items = [] if "remove_input" in tags else [Item("code", source)]
    if "remove_output" not in tags:
        items += [item for output in cell["outputs"] if (item := _output(output)) is not None]
    return items


def _parameter_rows(source: str, used: dict[str, Any]) -> list[dict[str, str]]:
    return [
        {
            "name": parameter.name,
            "value": _shown(used.get(parameter.name, parameter.default)),
            "default": _shown(parameter.default),
            "help": parameter.help,
        }
        for parameter in parameters_of_source(source, "notebook")
    ]


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value or "(empty)"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return " ".join(value) or "(empty)"
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _output(output: dict[str, Any]) -> Item | None:
    if output["output_type"] == "stream":
        return Item("output", output["text"].rstrip("\n")) if output["name"] == "stdout" else None
    if output["output_type"] == "error":
        return Item("output", _COLOUR_CODES.sub("", "\n".join(output["traceback"])))
    data, about = output["data"], output.get("metadata", {})
    plain = data.get("text/plain", "")
    if "image/png" in data:
        png = data["image/png"].replace("\n", "")
        return Item("figure", about.get("alt", plain), png=png, filename=about.get("filename", ""))
    if "text/html" in data:
        table = _STYLE_BLOCK.sub("", data["text/html"])
        return Item("table", data.get("text/markdown", f"```text\n{plain}\n```"), html=table)
    if "text/markdown" in data:
        return Item("prose", data["text/markdown"])
    return Item("output", plain) if plain else None
