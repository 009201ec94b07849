"""The figures of the reports: plain arrays in, a matplotlib Figure out.

Called from the notebooks. Every function answers empty input with a figure that says so;
looks and determinism come from `sqkit.research.figure_style`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

from sqkit.records import DIRECTIONS, DOWN, FLAT, INSIDE, LONG, OUTCOMES, SHORT, UNKNOWN, UP
from sqkit.research.bar_figures import feature_histograms, label_balance, price_and_sessions
from sqkit.research.figure_style import (
    COLOURS,
    INK,
    MUTED,
    PALE,
    as_dates,
    date_axis,
    new_figure,
    no_data,
    png_bytes,
    style,
)
from sqkit.research.paired_statistics import wilson_interval

__all__ = [
    "calibration_curve",
    "confidence_histogram",
    "confusion_matrix",
    "distillation_bars",
    "equity_and_drawdown",
    "feature_histograms",
    "label_balance",
    "no_data",
    "per_symbol_bars",
    "png_bytes",
    "price_and_sessions",
]


def equity_and_drawdown(dates: ArrayLike, returns: Mapping[str, ArrayLike]) -> Figure:
    """Growth of one unit, and below it the distance from the running peak.

    Parameters
    ----------
    dates
        (d,) session dates: days since 1970-01-01 or ISO text.
    returns
        Daily net returns as fractions, (d,) each; the first is drawn strongest.
    """
    days = as_dates(dates)
    if not len(days) or not returns:
        return no_data("Equity and drawdown")
    with style():
        figure = new_figure(4.6)
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 1])
        for place, (name, daily) in enumerate(returns.items()):
            equity = np.cumprod(1.0 + np.asarray(daily, dtype=np.float64))
            drawdown = equity / np.maximum(np.maximum.accumulate(equity), 1.0) - 1.0
            line = {"color": COLOURS[place % len(COLOURS)], "linewidth": 1.9 if place == 0 else 1.2}
            top.plot(days, equity, label=f"{name}  {equity[-1] - 1.0:+.1%}", **line)
            bottom.plot(days, drawdown, **line)
            if place == 0:
                bottom.fill_between(days, drawdown, 0.0, color=line["color"], alpha=0.15, linewidth=0)
        top.axhline(1.0, color=MUTED, linewidth=0.8)
        top.set_title("Growth of one unit, net of costs")
        top.legend(loc="upper left", ncols=len(returns))
        top.margins(y=0.18)
        bottom.set_title("Drawdown")
        bottom.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        date_axis(bottom)
    return figure


def confidence_histogram(confidence: ArrayLike, threshold: float) -> Figure:
    """How sure the student was, from 0.5 to 1, and how much of it passes the threshold.

    Parameters
    ----------
    confidence
        ``max(p, 1 - p)`` per scored bar; NaN is left out.
    """
    values = np.asarray(confidence, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return no_data("Confidence of the student")
    with style():
        figure = new_figure(3.2)
        axes = figure.subplots()
        counts, edges = np.histogram(values, bins=50, range=(0.5, 1.0))
        passing = edges[:-1] >= threshold - 1e-9
        axes.bar(
            edges[:-1], counts, 0.01, align="edge", color=[COLOURS[0] if yes else PALE for yes in passing]
        )
        axes.axvline(threshold, color=COLOURS[1], linewidth=1.4)
        share = float(np.mean(values >= threshold))
        axes.set_title(f"Confidence on {len(values):,} scored bars: {share:.1%} at or above {threshold:g}")
        axes.set_xlabel("confidence")
        axes.set_ylabel("bars")
        top = 1.0 if float(values.max()) > 0.75 else 0.8
        axes.set_xlim(0.5, top)
    return figure


def calibration_curve(probability_up: ArrayLike, outcomes: ArrayLike, *, bins: int = 10) -> Figure:
    """Share of up moves against the predicted probability, with Wilson 95 % bars and counts.

    Parameters
    ----------
    probability_up
        (n,) in [0, 1], NaN where not scored.
    outcomes
        (n,) codes of ``records.OUTCOMES``; only UP and DOWN count.
    """
    p, outcome = np.asarray(probability_up, dtype=np.float64), np.asarray(outcomes)
    chosen = np.isfinite(p) & ((outcome == UP) | (outcome == DOWN))
    if not chosen.any():
        return no_data("Calibration on decisive moves")
    p, up = p[chosen], outcome[chosen] == UP
    place = np.searchsorted(np.linspace(0.0, 1.0, bins + 1)[1:-1], p, side="left")
    count = np.bincount(place, minlength=bins)
    filled = count > 0
    predicted = np.bincount(place, weights=p, minlength=bins)[filled] / count[filled]
    rises = np.bincount(place, weights=up, minlength=bins)[filled]
    realised = rises / count[filled]
    bounds = [wilson_interval(k, n) or (0.0, 1.0) for k, n in zip(rises, count[filled], strict=True)]
    low, high = np.array(bounds).T
    with style():
        figure = new_figure()
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        top.plot(
            [0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="perfectly calibrated"
        )
        top.errorbar(
            predicted,
            realised,
            yerr=np.vstack([realised - low, high - realised]).clip(0.0),
            fmt="o-",
            color=COLOURS[0],
            capsize=3,
            linewidth=1.3,
            markersize=4.5,
            label="realised, 95 % interval",
        )
        top.set_ylim(-0.02, 1.02)
        top.set_ylabel("share of up moves")
        top.set_title(f"Calibration on {len(p):,} decisive moves")
        top.legend(loc="upper left")
        middles = (np.arange(bins) + 0.5) / bins
        bottom.bar(middles, count, 0.9 / bins, color=PALE)
        bottom.set_xlim(0, 1)
        bottom.set_ylabel("rows")
        bottom.set_xlabel("predicted probability of up")
    return figure


def confusion_matrix(calls: ArrayLike, outcomes: ArrayLike) -> Figure:
    """Calls against what happened: counts, and the share of each call; the diagonal is right.

    Parameters
    ----------
    calls, outcomes
        (n,) codes of ``records.DIRECTIONS`` and ``records.OUTCOMES``; UNKNOWN is left out.
    """
    call, outcome = np.asarray(calls), np.asarray(outcomes)
    known = outcome != UNKNOWN
    if not known.any():
        return no_data("Calls against outcomes")
    rows, columns = (LONG, FLAT, SHORT), (UP, INSIDE, DOWN)
    count = np.array(
        [[np.sum(known & (call == row) & (outcome == column)) for column in columns] for row in rows]
    )
    share = count / np.maximum(count.sum(axis=1, keepdims=True), 1)
    with style():
        figure = new_figure(3.2)
        axes = figure.subplots()
        axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
        for row in range(3):
            for column in range(3):
                axes.text(
                    column,
                    row,
                    f"{count[row, column]:,}\n{share[row, column]:.1%}",
                    ha="center",
                    va="center",
                    color="white" if share[row, column] > 0.55 else INK,
                    fontweight="bold" if row == column else "normal",
                )
        axes.set_xticks(
            range(3), [f"moved {OUTCOMES[code]}" if code else "inside the dead zone" for code in columns]
        )
        axes.set_yticks(
            range(3),
            [f"{DIRECTIONS[code]}\n{total:,}" for code, total in zip(rows, count.sum(axis=1), strict=True)],
        )
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set_title(f"Calls against outcomes on {int(known.sum()):,} rows (bold: right)")
    return figure


def per_symbol_bars(
    symbols: Sequence[str], values: Mapping[str, ArrayLike], *, title: str, unit: str = ""
) -> Figure:
    """One group of horizontal bars per symbol, one colour per series.

    Parameters
    ----------
    symbols
        (s,) names, drawn from top to bottom.
    values
        Series name to (s,) numbers; NaN draws no bar.
    unit
        Label of the axis.
    """
    if not len(symbols) or not values:
        return no_data(title)
    with style():
        figure = new_figure(1.2 + 0.2 * len(symbols) * max(len(values), 2))
        axes = figure.subplots()
        places, thickness = np.arange(len(symbols), dtype=np.float64), 0.8 / len(values)
        for order, (name, series) in enumerate(values.items()):
            middles = places - 0.4 + thickness * (order + 0.5)
            heights = np.nan_to_num(np.asarray(series, dtype=np.float64))
            axes.barh(middles, heights, thickness * 0.92, color=COLOURS[order % len(COLOURS)], label=name)
        axes.axvline(0.0, color=MUTED, linewidth=0.8)
        axes.set_yticks(places, list(symbols))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(unit)
        axes.set_title(title)
        figure.legend(loc="outside lower center", ncols=len(values))
    return figure


def distillation_bars(
    models: Mapping[str, Mapping[str, float | None]], *, title: str = "What distillation keeps"
) -> Figure:
    """Groups of bars: one group a metric, one colour a model, the value on each bar.

    Parameters
    ----------
    models
        Model name to metric name to value; all models name the same metrics, None draws none.
    """
    if not models or not any(models.values()):
        return no_data(title)
    metrics = list(next(iter(models.values())))
    with style():
        figure = new_figure(3.4)
        panels = figure.subplots(1, len(metrics), squeeze=False)[0]
        for axes, metric in zip(panels, metrics, strict=True):
            for place, (name, values) in enumerate(models.items()):
                value = values.get(metric)
                colour = COLOURS[place % len(COLOURS)]
                axes.bar(place, value or 0.0, 0.8, color=colour, label=name if axes is panels[0] else None)
                label = "n/a" if value is None else f"{value:.3f}"
                axes.annotate(
                    label,
                    (place, value or 0.0),
                    (0, 3),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8.5,
                )
            axes.set_title(metric.replace("_", " "), fontweight="normal")
            axes.set_xticks([])
            axes.margins(y=0.15)
        figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
        figure.legend(loc="outside lower center", ncols=len(models))
    return figure
