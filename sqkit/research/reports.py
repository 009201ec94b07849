"""Reports: an executed notebook as one self-contained HTML page and as Markdown with figure files.

The runner calls `write_report` into a staging folder. The HTML carries its figures and its
style inside, has no script and asks nothing of any network; the Markdown reads on GitHub.
nbconvert draws both from the templates beside this module.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sqkit.errors import ArtifactChanged, ReportIncomplete
from sqkit.files import read_json, write_bytes, write_text
from sqkit.research.report_view import report_view

TEMPLATES: Final = Path(__file__).parent / "templates"
FIGURES: Final = "figures"

_CODE: Final = re.compile(r"(```.*?```|~~~.*?~~~|`[^`\n]*`)", re.DOTALL)
_PAGE_LINK: Final = re.compile(r"(\]\((?!\w+:)[^)\s#]*)\.html(#[^)\s]*)?\)")


_MARKS: Final = {
    "✅": '<span class="yes" title="passed">✓</span>',
    "❌": '<span class="no" title="failed">✗</span>',
}
"""Emoji are not in every font a report is read or printed with; these signs are."""


def write_report(
    executed: Path, folder: Path, name: str, *, links: Mapping[str, str] | None = None
) -> list[str]:
    """Write ``<name>.html``, ``<name>.md`` and the figure files of an executed notebook.

    Parameters
    ----------
    executed
        As `sqkit.research.notebooks.run_notebook` wrote it.
    folder
        Where the pages go; it holds ``<name>.ipynb`` afterwards, too.
    name
        Stem of the pages, such as ``validate``.
    links
        Words to relative page, for the line on top: ``{"Training": "train.html"}``. Only
        pages that lie in the same folder for good, since a report never changes.

    Returns
    -------
    list
        Relative names of the files written, sorted.
    """
    notebook = _read(executed)
    page = render_markdown(notebook, name=name, links=links)
    write_text(folder / f"{name}.html", render_html(notebook, links=links))
    write_text(folder / f"{name}.md", page[0])
    for relative, picture in page[1].items():
        write_bytes(folder / relative, picture)
    kept = folder / f"{name}.ipynb"
    if executed.resolve() != kept.resolve():
        write_bytes(kept, executed.read_bytes())
    return sorted([f"{name}.html", f"{name}.md", f"{name}.ipynb", *page[1]])


def _read(executed: Path) -> dict[str, Any]:
    notebook = read_json(executed)
    if not isinstance(notebook, dict) or "cells" not in notebook:
        raise ArtifactChanged(f"{executed}: no executed notebook; run the step that writes it again")
    return notebook


def render_html(notebook: dict[str, Any], *, links: Mapping[str, str] | None = None) -> str:
    """The report as one HTML page that needs nothing beside itself.

    Raises
    ------
    ReportIncomplete
        The page would hold a script or load something from elsewhere.
    """
    page = _draw("report.html.j2", notebook, links)
    for sign, mark in _MARKS.items():
        page = page.replace(sign, mark)
    loads = re.search(
        r"<script|<link|<iframe|@import|\bsrc=[\"'](?!data:)|url\((?!data:)", page, re.IGNORECASE
    )
    if loads:
        around = page[max(loads.start() - 30, 0) : loads.end() + 50].replace("\n", " ")
        raise ReportIncomplete(f"the page would load something from outside itself: …{around}…")
    return page


def render_markdown(
    notebook: dict[str, Any], *, name: str, links: Mapping[str, str] | None = None
) -> tuple[str, dict[str, bytes]]:
    """The report as Markdown, and its figures as ``figures/<name>-<figure>.png`` to bytes."""
    figures = {
        f"{FIGURES}/{name}-{item.filename or f'figure_{number}.png'}": base64.b64decode(item.png)
        for number, item in enumerate(report_view(notebook).figures(), start=1)
    }
    page = _draw("report.md.j2", notebook, links, name=name, figure_files=list(figures))
    return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n", figures


def _draw(template: str, notebook: dict[str, Any], links: Mapping[str, str] | None, **more: Any) -> str:
    import nbformat  # Jupyter is imported only to draw a page
    from nbconvert.exporters import TemplateExporter

    exporter = TemplateExporter(
        template_paths=[str(TEMPLATES)],
        template_file=template,
        filters={
            "prose": prose_html,
            "github": github_markdown,
            "cell": markdown_cell,
            "fenced": fenced,
        },
    )
    resources = {"view": report_view(notebook), "links": dict(links or {}), **more}
    page, _ = exporter.from_notebook_node(nbformat.from_dict(notebook), resources=resources)
    return str(page)


def prose_html(text: str) -> str:
    """Markdown as HTML: tables and task lists, raw HTML escaped, dollars left as dollars."""
    import mistune

    # Lines stay lines: the checklist's criteria stand one below the other.
    render = mistune.create_markdown(
        escape=True, hard_wrap=True, plugins=["table", "strikethrough", "task_lists"]
    )
    page = str(render(text))
    return page.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")


def github_markdown(text: str) -> str:
    """Markdown as GitHub shows it right: no dollar opens maths, links lead to the Markdown pages."""
    parts = _CODE.split(text)
    parts[::2] = [re.sub(r"(?<!\\)\$", r"\\$", part) for part in parts[::2]]
    return _PAGE_LINK.sub(r"\1.md\2)", "".join(parts))


def markdown_cell(text: str) -> str:
    """Text for one cell of a Markdown table."""
    return github_markdown(text.replace("\n", " ").replace("|", "\\|").replace("<", "&lt;"))


def fenced(text: str) -> str:
    """Plain text as a fenced block, whatever fences it holds itself."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
