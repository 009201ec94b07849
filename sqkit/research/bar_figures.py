"""Figures of bars, features and labels, for exploring: plain arrays in, a matplotlib Figure out.

Called from the notebooks through `sqkit.research.figures`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

from sqkit.records import DOWN, INSIDE, UNKNOWN, UP
from sqkit.research.figure_style import COLOURS, PALE, as_dates, date_axis, new_figure, no_data, style


def price_and_sessions(dates: ArrayLike, close: ArrayLike, *, symbol: str) -> Figure:
    """Closing prices and how many bars each session has, by session date.

    Parameters
    ----------
    dates
        (n,) session date of each bar: days since 1970-01-01 or ISO text, ascending.
    close
        (n,) prices; a session's last one is drawn.
    """
    title = f"{symbol}: close by session"
    days, prices = as_dates(dates), np.asarray(close, dtype=np.float64)
    if not len(days):
        return no_data(title)
    sessions, first, bars = np.unique(days, return_index=True, return_counts=True)
    with style():
        figure = new_figure()
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2.6, 1])
        top.plot(sessions, prices[first + bars - 1], color=COLOURS[0], linewidth=1.3)
        top.set_title(f"{title} ({len(sessions):,} sessions, {len(days):,} bars)")
        bottom.fill_between(sessions, bars, step="mid", color=PALE, linewidth=0)
        bottom.set_ylim(0, float(bars.max()) * 1.15)
        bottom.set_title("Bars a session", fontweight="normal")
        date_axis(bottom)
    return figure


def feature_histograms(features: ArrayLike, names: Sequence[str], *, bins: int = 40) -> Figure:
    """One small histogram per feature, cut at the 0.5 and 99.5 percentiles.

    Parameters
    ----------
    features
        (n, k); rows that are not finite are left out, feature by feature.
    names
        (k,) column names.
    """
    matrix = np.asarray(features, dtype=np.float64)
    if matrix.size == 0 or not np.isfinite(matrix).any():
        return no_data("Features")
    across = 4
    down = -(-len(names) // across)
    with style():
        figure = new_figure(1.25 * down + 0.3)
        grid = figure.subplots(down, across, squeeze=False).ravel()
        for axes, name, column in zip(grid, names, matrix.T, strict=False):
            values = column[np.isfinite(column)]
            axes.set_title(name, fontsize=8.5, fontweight="normal")
            axes.tick_params(labelsize=7)
            axes.set_yticks([])
            axes.grid(False)
            axes.spines["left"].set_visible(False)
            if len(values):
                low, high = np.percentile(values, [0.5, 99.5])
                axes.hist(np.clip(values, low, high), bins=bins, color=COLOURS[0])
        for axes in grid[len(names) :]:
            axes.set_axis_off()
    return figure


def label_balance(dates: ArrayLike, outcomes: ArrayLike) -> Figure:
    """Share of up, inside and down moves, year by year (month by month below three years).

    Parameters
    ----------
    dates
        (n,) session dates; ``outcomes`` (n,) codes of ``records.OUTCOMES``.
    """
    days, outcome = as_dates(dates), np.asarray(outcomes)
    days, outcome = days[outcome != UNKNOWN], outcome[outcome != UNKNOWN]
    if not len(days):
        return no_data("Labels")
    unit = "datetime64[Y]" if (days.max() - days.min()).astype(int) > 3 * 365 else "datetime64[M]"
    periods, place = np.unique(days.astype(unit), return_inverse=True)
    total = np.bincount(place)
    with style():
        figure = new_figure(3.2)
        axes = figure.subplots()
        bottom = np.zeros(len(periods))
        for code, colour, name in (
            (DOWN, COLOURS[1], "down"),
            (INSIDE, PALE, "inside the dead zone"),
            (UP, COLOURS[3], "up"),
        ):
            share = np.bincount(place, weights=outcome == code, minlength=len(periods)) / total
            axes.bar(range(len(periods)), share, 0.85, bottom=bottom, color=colour, label=name)
            bottom += share
        step = max(1, len(periods) // 12)
        axes.set_xticks(range(0, len(periods), step), [str(period) for period in periods[::step]])
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid(axis="x", visible=False)
        axes.set_title(f"Labels of {len(days):,} bars")
        figure.legend(loc="outside lower center", ncols=3)
    return figure
