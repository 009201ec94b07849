"""The figures of the decision page: uplifts with their intervals, uplift by symbol, Sharpe under costs.

Called from notebook 04. Records and rows of ``evidence.json`` go in, matplotlib Figures come out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from sqkit.evidence_grade import PRECISION_ACTED_ON, PRECISION_ALL_ROWS
from sqkit.research.figure_style import COLOURS, INK, MUTED, new_figure, no_data, style
from sqkit.research.paired_evidence import HIT_RATIO_ACTED_ON, HIT_RATIO_ALL_ROWS

MOST_SYMBOLS: Final = 40
_SHARES: Final = {
    PRECISION_ALL_ROWS: "precision (LONG), all rows",
    PRECISION_ACTED_ON: "precision (LONG), acted-on rows",
    HIT_RATIO_ALL_ROWS: "hit ratio, all rows",
    HIT_RATIO_ACTED_ON: "hit ratio, acted-on rows",
}


def uplift_intervals(
    records: Sequence[Mapping[str, Any]],
    thresholds: Mapping[str, float],
    *,
    title: str = "Uplift, 95 % interval",
) -> Figure:
    """Differences of shares with their intervals and thresholds; beside them the Sharpe difference.

    Parameters
    ----------
    thresholds
        Record name to the policy's threshold, drawn as a mark on its line.
    """
    known = {record["name"]: record for record in records}
    shares = [name for name in _SHARES if known.get(name, {}).get("estimate") is not None]
    sharpe = known.get("sharpe_difference", {})
    if not shares and sharpe.get("estimate") is None:
        return no_data(title)
    with style():
        figure = new_figure(3.9)
        above, below = figure.subplots(2, 1, height_ratios=[4, 1.2])
        for place, name in enumerate(shares):
            _interval(above, place, known[name])
            if name in thresholds:
                above.plot(thresholds[name], place, "|", color=COLOURS[1], markersize=16, markeredgewidth=2)
        above.set_yticks(range(len(shares)), [_SHARES[name] for name in shares])
        above.set_ylim(len(shares) - 0.4, -0.6)
        above.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        above.set_title(title)
        above.set_xlabel("student minus baseline; upright mark: threshold")
        if sharpe.get("estimate") is not None:
            _interval(below, 0, sharpe)
        below.set_yticks([0], ["Sharpe ratio"])
        below.set_ylim(0.6, -0.6)
        below.set_xlabel("student minus baseline, annualised")
        for axes in (above, below):
            axes.axvline(0.0, color=MUTED, linewidth=0.8)
            axes.grid(axis="y", visible=False)
    return figure


def _interval(axes: Any, place: int, record: Mapping[str, Any]) -> None:
    if record["ci"]:
        axes.plot(record["ci"], [place, place], color=COLOURS[0], linewidth=2.2, solid_capstyle="butt")
    axes.plot(record["estimate"], place, "o", color=INK, markersize=6)


def symbol_uplifts(rows: Sequence[Mapping[str, Any]], *, title: str = "Hit-ratio uplift by symbol") -> Figure:
    """Uplift of every symbol, the worst first; the pool's worst and best where there are too many."""
    known = sorted(
        (row for row in rows if row["hit_ratio_uplift"] is not None),
        key=lambda row: (row["hit_ratio_uplift"], row["symbol"]),
    )
    if not known:
        return no_data(title)
    if len(known) > MOST_SYMBOLS:
        half = MOST_SYMBOLS // 2
        known, title = [*known[:half], *known[-half:]], f"{title}: {half} worst and {half} best"
    values = np.array([row["hit_ratio_uplift"] for row in known])
    with style():
        figure = new_figure(1.1 + 0.2 * len(known))
        axes = figure.subplots()
        colours = [COLOURS[1] if value <= 0.0 else COLOURS[0] for value in values]
        axes.barh(np.arange(len(known)), values, 0.7, color=colours)
        axes.axvline(0.0, color=MUTED, linewidth=0.8)
        axes.set_yticks(range(len(known)), [row["symbol"] for row in known])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_xlabel("student minus baseline, all rows with a directional call")
        axes.set_title(title)
    return figure
