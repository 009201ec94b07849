"""What a notebook says: values it records, tables, figures and prose built from values.

Called inside the cells of the notebooks; everything published here is read back by
`sqkit.research.notebooks` (records, completeness) and `sqkit.research.reports` (pages).
Values go in scrapbook's own MIME type, so ``scrapbook.read_notebook`` reads them too, but
neither scrapbook nor papermill is imported: that would cost every kernel two seconds.
Outside a kernel the same calls check their arguments and print text.
"""

from __future__ import annotations

import base64
import html
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sqkit.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECORD_MIME: Final = "application/scrapbook.scrap.json+json"
SENTINEL: Final = "notebook_complete"
"""The record that `finish` leaves; a notebook without it did not reach its end."""
STAGING_VARIABLE: Final = "SQKIT_STAGING"

_RECORD_NAME: Final = re.compile(r"^[a-z][a-z0-9_]*$")
_FIGURE_NAME: Final = re.compile(r"^[a-z][a-z0-9_]*\.png$")
_ABSENT: Final = "n/a"


def staged(folder: str | Path) -> Path:
    """Where to write what will end up at `folder`.

    Under the runner this is the staging folder it publishes from when the whole report is
    there; in JupyterLab it is `folder` itself.
    """
    return Path(os.environ.get(STAGING_VARIABLE) or folder)


def record(name: str, value: Any) -> None:
    """Leave a value in the executed notebook, for the gate, the manifest and the tests.

    Parameters
    ----------
    name
        Lower case letters, digits and underscores. Each name is recorded once.
    value
        Text, a truth value, a finite number, or lists and dicts of these; ``None`` only
        inside a list or dict. NumPy scalars are converted.

    Raises
    ------
    TypeError, ValueError
        The value has no strict JSON form.
    """
    if not _RECORD_NAME.match(name):
        raise ValueError(f"record {name!r}: lower case letters, digits and underscores only")
    if value is None:
        raise TypeError(f"record {name}: a bare None cannot be read back; put it into a dict")
    payload = {"name": name, "data": _plain(value, name), "encoder": "json", "version": 1}
    marker = {"scrapbook": {"name": name, "data": True, "display": False}}
    _publish({RECORD_MIME: payload}, marker, text="")


def finish() -> None:
    """The last line of every notebook: the runner accepts none that did not come this far."""
    record(SENTINEL, True)


def _plain(value: Any, place: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (str, bool, int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(
                f"record {place}: {value} is not a JSON number; record None inside a dict instead"
            )
        return float(value)
    if isinstance(value, Mapping):
        odd = [key for key in value if not isinstance(key, str)]
        if odd:
            raise TypeError(f"record {place}: the key {odd[0]!r} is no text; keys of a record are text")
        return {key: _plain(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    raise TypeError(
        f"record {place}: {type(value).__name__} is not plain; record text, truth values, numbers, lists and dicts"
    )


def show_markdown(text: str) -> None:
    """Prose with numbers in it: the numbers come from values, never from a typed cell."""
    _publish({"text/markdown": text, "text/plain": text}, {}, text=text)


def show_page(page: str, markdown: str) -> None:
    """Show HTML of our own making, and beside it Markdown that says the same to whom sees no HTML.

    Parameters
    ----------
    page
        Without script, and with every text in it escaped.
    """
    _publish({"text/html": page, "text/markdown": markdown, "text/plain": markdown}, {}, text=markdown)


def show_figure(figure: Figure, filename: str, alt: str) -> None:
    """Show a figure under a name that stays, with words for who cannot see it.

    Parameters
    ----------
    filename
        Such as ``equity_and_drawdown.png``; unique within the notebook.
    alt
        What the picture shows, one sentence.
    """
    from sqkit.research.figure_style import png_bytes  # matplotlib only where a figure is shown

    if not _FIGURE_NAME.match(filename):
        raise UsageError(f"figure {filename!r}: lower case letters, digits and underscores, ending in .png")
    if not alt.strip():
        raise UsageError(f"figure {filename}: say in alt what the picture shows")
    picture = base64.b64encode(png_bytes(figure)).decode("ascii")
    about = {"filename": filename, "alt": " ".join(alt.split())}
    _publish({"image/png": picture, "text/plain": about["alt"]}, about, text=about["alt"])


def show_table(
    table: Any,
    *,
    columns: Mapping[str, str] | Sequence[str] | None = None,
    formats: Mapping[str, str] | None = None,
    caption: str = "",
) -> None:
    """Show a table as HTML, Markdown and plain text at once.

    Parameters
    ----------
    table
        A list of dicts (one per row), or a DataFrame (its index is not shown).
    columns
        Which columns in which order; a mapping also gives their headings.
    formats
        Format specification per column, such as ``{"hit_ratio": ".1%"}``. Otherwise whole
        numbers get thousands separators and others four significant digits; None and NaN
        read ``n/a``.
    caption
        A line above the table.
    """
    rows = table if isinstance(table, list) else table.to_dict("records")
    if columns is None:
        columns = list(rows[0]) if rows else [str(name) for name in getattr(table, "columns", [])]
    headings = dict(columns) if isinstance(columns, Mapping) else {name: _heading(name) for name in columns}
    formats = formats or {}
    cells = [[_cell(row.get(name), formats.get(name)) for name in headings] for row in rows]
    right = [_is_numeric([row.get(name) for row in rows]) for name in headings]
    heads = list(headings.values())
    text = _text_table(heads, cells, right, caption)
    _publish(
        {
            "text/html": _html_table(heads, cells, right, caption),
            "text/markdown": _markdown_table(heads, cells, right, caption),
            "text/plain": text,
        },
        {},
        text=text,
    )


def _heading(name: Any) -> str:
    words = str(name).replace("_", " ")
    return words[:1].upper() + words[1:]


def _is_absent(value: Any) -> bool:
    return value is None or (isinstance(value, float | np.floating) and not math.isfinite(value))


def _cell(value: Any, specification: str | None) -> str:
    if _is_absent(value):
        return _ABSENT
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if specification is not None:
        return format(value, specification)
    if isinstance(value, int | np.integer):
        return format(int(value), ",")
    if isinstance(value, float | np.floating):
        return format(float(value), ",.4g") if abs(float(value)) < 10_000 else format(float(value), ",.0f")
    return str(value)


def _is_numeric(values: list[Any]) -> bool:
    numbers = (int, float, np.integer, np.floating)
    return all(
        isinstance(value, numbers) and not isinstance(value, bool | np.bool_)
        for value in values
        if not _is_absent(value)
    )


def _html_table(heads: list[str], cells: list[list[str]], right: list[bool], caption: str) -> str:
    def row(values: list[str], tag: str) -> str:
        marks = [' class="number"' if numeric else "" for numeric in right]
        inner = "".join(
            f"<{tag}{mark}>{html.escape(value)}</{tag}>" for value, mark in zip(values, marks, strict=True)
        )
        return f"<tr>{inner}</tr>"

    title = f"<caption>{html.escape(caption)}</caption>\n" if caption else ""
    body = "\n".join(row(values, "td") for values in cells)
    return f"<table>\n{title}<thead>{row(heads, 'th')}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _markdown_table(heads: list[str], cells: list[list[str]], right: list[bool], caption: str) -> str:
    def row(values: list[str]) -> str:
        return "| " + " | ".join(value.replace("|", "\\|").replace("\n", " ") for value in values) + " |"

    rule = "| " + " | ".join("---:" if numeric else "---" for numeric in right) + " |"
    title = [f"**{caption}**", ""] if caption else []
    return "\n".join([*title, row(heads), rule, *(row(values) for values in cells)])


def _text_table(heads: list[str], cells: list[list[str]], right: list[bool], caption: str) -> str:
    widths = [max(len(line[place]) for line in [heads, *cells]) for place in range(len(heads))]

    def row(values: list[str]) -> str:
        padded = [
            value.rjust(width) if numeric else value.ljust(width)
            for value, width, numeric in zip(values, widths, right, strict=True)
        ]
        return "  ".join(padded).rstrip()

    return "\n".join([*([caption] if caption else []), row(heads), *(row(values) for values in cells)])


def _publish(data: dict[str, Any], metadata: dict[str, Any], *, text: str) -> None:
    """Send an output to the notebook; where there is no kernel, print its text."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is not None and getattr(shell, "kernel", None) is not None:
        from IPython.display import publish_display_data

        publish_display_data(data, metadata)
    elif text:
        print(text)
