"""How every figure looks, and how it becomes the same PNG bytes every time.

Called by the figure functions and by `sqkit.research.display`. No pyplot, and nothing of the
user's matplotlib settings.
"""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

WIDTH, HEIGHT, DPI = 9.0, 4.0, 110
INK, MUTED, PALE, _GRID = "#1f2933", "#616e7c", "#cbd2d9", "#e4e7eb"
# Okabe and Ito's colours: told apart by every kind of colour vision, and in grey print.
COLOURS: Final = ("#0072b2", "#d55e00", "#7b8794", "#009e73", "#cc79a7", "#e69f00")
_STYLE: Final[Any] = {
    **{key: value for key, value in mpl.rcParamsDefault.items() if "backend" not in key},
    "figure.dpi": DPI,
    "savefig.dpi": "figure",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": "#9aa5b1",
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "axes.prop_cycle": cycler(color=COLOURS),
    "figure.constrained_layout.w_pad": 0.09,
    "figure.constrained_layout.h_pad": 0.09,
}


def style() -> AbstractContextManager[None]:
    """Figures are made and drawn inside this context."""
    return mpl.rc_context(_STYLE)


def new_figure(height: float = HEIGHT) -> Figure:
    """An empty figure of the reports' width, `height` inches high."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png_bytes(figure: Figure) -> bytes:
    """A figure as PNG with at most 256 colours, about a third of the size, and no software tag."""
    from PIL import Image  # comes with matplotlib

    raw, small = io.BytesIO(), io.BytesIO()
    with style():
        figure.savefig(raw, format="png", metadata={"Software": None})
    raw.seek(0)
    with Image.open(raw) as picture:
        flat = picture.convert("RGB")
    reduced = flat.quantize(colors=256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    reduced.save(small, format="png", optimize=True)
    return small.getvalue()


def no_data(title: str) -> Figure:
    """A figure that says there is nothing to show."""
    with style():
        figure = new_figure(1.6)
        axes = figure.subplots()
        axes.set_title(title)
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no data", ha="center", va="center", color=MUTED, fontsize=13)
    return figure


def as_dates(values: ArrayLike) -> np.ndarray:
    """Session dates as matplotlib draws them, from days since 1970-01-01, ISO text or dates."""
    array = np.asarray(values)
    return (
        array.astype("int64").astype("datetime64[D]")
        if array.dtype.kind in "iu"
        else array.astype("datetime64[D]")
    )


def date_axis(axes: Axes) -> None:
    """Label the horizontal axis with few, short dates."""
    locator = AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
