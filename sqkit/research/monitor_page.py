"""How the dashboard shows what it knows: the status panel of a slot, and tables that say so when they are empty.

JupyterLab, Voila and the static page show the same HTML, so colours stand beside the text; the Markdown says the same.
Called from ``notebooks/05_monitor.ipynb``.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Final

from sqkit.research.display import show_markdown, show_page, show_table
from sqkit.research.monitor_figures import STATE_COLOURS, UNKNOWN_STATE
from sqkit.research.monitor_text import Reading, Row
from sqkit.research.monitor_views import has_differences, panel_rows, slot_line

_TONES: Final = {"bad": "#b3261e", "warn": "#8a4b08", "": "#1f2933"}
_MARKS: Final = {"bad": "❌ ", "warn": "", "": ""}
_LEFT: Final = (
    "<style>.jp-RenderedHTMLCommon :is(th, td):not(.number), .jp-RenderedHTMLCommon caption "
    "{ text-align: left; caption-side: top; }</style>\n"
)
"""JupyterLab and Voila set every cell to the right; reports drop this block and use their own style sheet."""
_UNWATCHED: Final = "NOT MONITORED"


def show_panel(known: Reading) -> None:
    """Show a slot's panel."""
    show_page(panel_html(known), panel_markdown(known))


def show_rows(rows: Sequence[Row], title: str, *, nothing: str = "") -> None:
    """Show a table below its title; where there are no rows, the title and what that means."""
    if rows:
        show_table(list(rows), caption=title)
    else:
        show_line(f"{title}: {nothing}" if nothing else title)


def show_line(text: str) -> None:
    """Show a line, if there is one."""
    if text:
        show_markdown(text)


def panel_html(known: Reading) -> str:
    """The panel: a band in the state's colour, red where engines serve something else than the log has, and rows."""
    state, reason = _heading(known)
    pale, strong = STATE_COLOURS.get(state, UNKNOWN_STATE)
    colour = _TONES["bad"] if has_differences(known) else strong
    band = (
        f'<div role="status" style="margin:0.8rem 0 0.2rem;padding:0.7rem 1.1rem;border-left:8px solid {colour};'
        f'background:{pale};color:#1f2933">'
        f'<span style="font-size:0.95rem">slot {html.escape(known["slot"])}</span><br>'
        f'<strong style="font-size:1.5rem;color:{strong}">{html.escape(state)}</strong> '
        f"<span>{html.escape(reason)}</span></div>"
    )
    rows = "\n".join(
        f'<tr><td style="text-align:left;white-space:nowrap;vertical-align:top;padding-right:1.2rem">{html.escape(what)}</td>'
        f'<td style="text-align:left;color:{_TONES[tone]};font-weight:{600 if tone else 400}">{html.escape(said)}</td></tr>'
        for what, said, tone in panel_rows(known)
    )
    return f"{_LEFT}{band}\n<table>\n<tbody>\n{rows}\n</tbody>\n</table>"


def panel_markdown(known: Reading) -> str:
    """The panel as a line and a table."""
    rows = [f"| {_MARKS[tone]}{_cell(what)} | {_cell(said)} |" for what, said, tone in panel_rows(known)]
    return "\n".join([slot_line(known), "", "| what | now |", "| --- | --- |", *rows])


def _heading(known: Reading) -> tuple[str, str]:
    status = known["status"]
    if status is None:
        return _UNWATCHED, known["problem"] or "nothing is monitored yet: no outcome of this slot was judged"
    return status["state"], status["reason"] or "no bar was judged yet"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
