"""The figures of the dashboard: rolling metrics and evidence over session time, the state as background.

In: bars as the store keeps them, plain values. Bars stand side by side, one a place: nights and weekends take no
room. Empty input is answered with a figure that says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

from sqkit.records import iso_date
from sqkit.research.figure_style import COLOURS, INK, MUTED, new_figure, no_data, style
from sqkit.research.paired_statistics import wilson_interval
from sqkit.research.views import TITLES

Bars = Sequence[Mapping[str, Any]]

STATE_COLOURS: Final = {
    "INCONCLUSIVE": ("#eef1f4", "#52606d"),
    "OK": ("#e3f5ec", "#00694b"),
    "ALERTING": ("#fff4d6", "#8a4b08"),
    "CONFIRMING": ("#ffe3c7", "#b34700"),
    "ROLLING_BACK": ("#f9d3cf", "#b3261e"),
    "VERIFYING": ("#dcebf9", "#0b5cad"),
    "HALTED": ("#f3c1c6", "#8c1d18"),
}
"""State to its pale and its strong colour; a test holds the names against production's."""
UNKNOWN_STATE: Final = ("#eef1f4", "#52606d")

PLOTTED: Final = ("hit_ratio", "precision_long")
_FEWEST: Final = 30
_LOWEST_LEVEL: Final = 1e-3
_BEYOND: Final = 1e4
_MOST_TICKS: Final = 9
_MOST_IN_A_LINE: Final = 6


def rolling_metrics(bars: Bars, *, window: str = "") -> Figure:
    """Hit ratio and precision over the rolling window with Wilson 95 % bands, the validated ones as dashed lines.

    Parameters
    ----------
    bars
        Oldest first, each with ``session_day``, ``model``, ``state`` and, where a model was judged, ``rolling``.
    window
        Said in the titles, such as ``last 24 session hours``.
    """
    title = "Rolling metrics"
    if not any(bar.get("rolling") for bar in bars):
        return no_data(title)
    with style():
        figure = new_figure(5.4)
        panels = figure.subplots(len(PLOTTED), 1, sharex=True)
        for axes, name in zip(panels, PLOTTED, strict=True):
            _states(axes, bars)
            _rolling(axes, bars, name)
            axes.set_title(TITLES[name] + (f", {window}" if window else ""))
        _sessions(panels[-1], bars)
        handles = [
            Line2D([], [], color=COLOURS[0], linewidth=1.6, label="live, 95 % band"),
            Line2D([], [], color=COLOURS[1], linewidth=1.4, linestyle=(0, (4, 3)), label="validated"),
        ]
        _legend(figure, [*handles, *_state_patches(bars)])
    return figure


def _rolling(axes: Axes, bars: Bars, name: str) -> None:
    one = [bar.get("rolling", {}).get(name) or {"value": None, "count": 0, "baseline": None} for bar in bars]
    value, baseline = (_numbers([each[key] for each in one]) for key in ("value", "baseline"))
    count = np.array([each["count"] for each in one])
    enough = count >= (_FEWEST if np.any(count >= _FEWEST) else 1)  # a share of five calls jumps about
    value[~enough] = np.nan
    bounds = [
        wilson_interval(round(share * n), n) if np.isfinite(share) and n else None
        for share, n in zip(value, count, strict=True)
    ]
    low, high = np.array([each or (np.nan, np.nan) for each in bounds]).T
    place = np.arange(len(bars))
    for part in _models(bars):
        axes.fill_between(place[part], low[part], high[part], color=COLOURS[0], alpha=0.22, linewidth=0)
        axes.plot(place[part], value[part], color=COLOURS[0], linewidth=1.6)
        axes.plot(place[part], baseline[part], color=COLOURS[1], linewidth=1.4, linestyle=(0, (4, 3)))
    drawn = np.concatenate([low, high, baseline])
    drawn = drawn[np.isfinite(drawn)]
    lowest, highest = (float(drawn.min()), float(drawn.max())) if len(drawn) else (0.0, 1.0)
    margin = max(0.08 * (highest - lowest), 0.01)
    axes.set_ylim(max(lowest - margin, 0.0), min(highest + margin, 1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def evidence_levels(bars: Bars) -> Figure:
    """Level of each detector in session days on a log scale, with the threshold at which it alerts.

    Parameters
    ----------
    bars
        As `rolling_metrics`, each with ``detectors``.
    """
    title = "Evidence of a loss"
    names = list(dict.fromkeys(name for bar in bars for name in bar.get("detectors", {})))
    if not names:
        return no_data(title)
    with style():
        figure = new_figure(3.9)
        axes = figure.subplots()
        _states(axes, bars)
        place = np.arange(len(bars))
        thresholds = sorted({one["threshold"] for bar in bars for one in bar.get("detectors", {}).values()})
        beyond, highest = thresholds[-1] * _BEYOND, 0.0
        for order, name in enumerate(names):
            level = _numbers([(bar.get("detectors", {}).get(name) or {}).get("level") for bar in bars])
            highest = max(highest, float(np.nanmax(level)))
            level = np.where(level > 0.0, np.clip(level, _LOWEST_LEVEL, beyond), np.nan)
            for part in _models(bars):
                axes.plot(place[part], level[part], color=(COLOURS[0], COLOURS[4])[order % 2], linewidth=1.6)
        for threshold in thresholds:
            axes.axhline(threshold, color=COLOURS[1], linewidth=1.4, linestyle=(0, (4, 3)))
        axes.set_yscale("log")
        axes.set_ylim(_LOWEST_LEVEL, max(min(highest, beyond), thresholds[-1]) * 12.0)
        axes.yaxis.set_major_locator(LogLocator(numticks=8))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel("session days, log scale")
        axes.set_title(f"{title}: a level of D comes by chance once in D session days")
        if highest > beyond:
            axes.annotate(
                f"cut at {beyond:,.0f} ",
                (1.0, 0.98),
                xycoords="axes fraction",
                ha="right",
                va="top",
                fontsize=8.5,
                color=INK,
            )
        _sessions(axes, bars)
        handles = [
            Line2D([], [], color=(COLOURS[0], COLOURS[4])[order % 2], linewidth=1.6, label=TITLES[name])
            for order, name in enumerate(names)
        ]
        said = ", ".join(f"{threshold:g}" for threshold in thresholds)
        handles.append(
            Line2D([], [], color=COLOURS[1], linewidth=1.4, linestyle=(0, (4, 3)), label=f"alert at {said}")
        )
        _legend(figure, [*handles, *_state_patches(bars)])
    return figure


def symbol_ratios(rows: Sequence[Mapping[str, Any]], validated: float | None, *, most: int = 20) -> Figure:
    """Hit ratio of the worst symbols with Wilson 95 % bars, the validated one as a line.

    Parameters
    ----------
    rows
        Worst first, each with ``symbol``, ``hit_ratio`` and ``calls``.
    """
    known = [row for row in rows if row["hit_ratio"] is not None][:most]
    title = "Hit ratio by symbol, worst first"
    if not known:
        return no_data(title)
    with style():
        figure = new_figure(1.4 + 0.27 * len(known))
        axes = figure.subplots()
        place = np.arange(len(known))
        share = np.array([row["hit_ratio"] for row in known])
        bounds = np.array(
            [
                wilson_interval(round(row["hit_ratio"] * row["calls"]), row["calls"]) or (0.0, 1.0)
                for row in known
            ]
        )
        around = np.vstack([share - bounds[:, 0], bounds[:, 1] - share]).clip(0.0)
        axes.errorbar(share, place, xerr=around, fmt="o", color=COLOURS[0], capsize=3, markersize=5)
        if validated is not None:
            axes.axvline(validated, color=COLOURS[1], linewidth=1.4, linestyle=(0, (4, 3)))
            axes.annotate(
                f"validated {validated:.1%}",
                (validated, 1.0),
                xycoords=("data", "axes fraction"),
                ha="center",
                va="bottom",
                color=COLOURS[1],
            )
        axes.set_yticks(place, [f"{row['symbol']}  ({row['calls']:,})" for row in known], color=INK)
        axes.set_ylim(len(known) - 0.4, -0.6)
        axes.margins(x=0.08)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_title(f"{title}, with 95 % intervals (calls)", pad=18 if validated is not None else 6)
    return figure


def _legend(figure: Figure, handles: Sequence[Patch | Line2D]) -> None:
    rows = -(-len(handles) // _MOST_IN_A_LINE)
    figure.legend(handles=handles, loc="outside lower center", ncols=-(-len(handles) // rows))


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _runs(keys: Sequence[Any]) -> list[slice]:
    """Stretches of equal neighbours."""
    cuts = [at for at in range(1, len(keys)) if keys[at] != keys[at - 1]]
    edges = [0, *cuts, len(keys)]
    return [slice(begin, end) for begin, end in pairwise(edges)]


def _models(bars: Bars) -> list[slice]:
    """Stretches of one model: no line leads from one to the other."""
    return _runs([bar["model"] for bar in bars])


def _states(axes: Axes, bars: Bars) -> None:
    """The state as background, and a thin line where another model began."""
    for part in _runs([bar["state"] for bar in bars]):
        colour = STATE_COLOURS.get(bars[part.start]["state"], UNKNOWN_STATE)[0]
        axes.axvspan(part.start - 0.5, part.stop - 0.5, color=colour, linewidth=0, zorder=0)
    for part in _models(bars)[1:]:
        axes.axvline(part.start - 0.5, color=INK, linewidth=1.0)
        axes.annotate(
            f" {bars[part.start]['model'][:8]}",
            (part.start, 0.98),
            xycoords=("data", "axes fraction"),
            va="top",
            fontsize=8.5,
            color=INK,
        )
    axes.set_xlim(-0.5, max(len(bars) - 0.5, 0.5))


def _state_patches(bars: Bars) -> list[Patch]:
    present = {bar["state"] for bar in bars}
    listed = [*(state for state in STATE_COLOURS if state in present), *sorted(present - set(STATE_COLOURS))]
    return [
        Patch(
            facecolor=STATE_COLOURS.get(state, UNKNOWN_STATE)[0],
            edgecolor=STATE_COLOURS.get(state, UNKNOWN_STATE)[1],
            linewidth=0.8,
            label=state,
        )
        for state in listed
    ]


def _sessions(axes: Axes, bars: Bars) -> None:
    """Name the sessions below their first bars, as many as are readable."""
    parts = _runs([bar["session_day"] for bar in bars])
    step = -(-len(parts) // _MOST_TICKS)
    chosen = parts[::step]
    dates = [iso_date(bars[part.start]["session_day"]) for part in chosen]
    axes.set_xticks([part.start for part in chosen], dates, ha="left", color=MUTED)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("session day; every judged bar has the same width")
