"""Figures show what the arrays say, the same every time, and say so when there is nothing."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import binomtest

from sqkit.metrics import accuracy_metrics, financial_metrics
from sqkit.records import DOWN, INSIDE, UNKNOWN, UP
from sqkit.research import figures

DAYS = np.arange(15000, 15300)
RNG = np.random.default_rng(11)
RETURNS = {"candidate": RNG.normal(0.0005, 0.01, 300), "baseline": RNG.normal(0, 0.01, 300)}
PROBABILITY = RNG.uniform(0, 1, 3000)
OUTCOMES = np.where(RNG.random(3000) < 0.3, INSIDE, np.where(RNG.random(3000) < PROBABILITY, UP, DOWN))
CALLS = np.where(PROBABILITY > 0.6, 1, np.where(PROBABILITY < 0.4, -1, 0))

FULL: dict[str, Callable[[], Figure]] = {
    "equity": lambda: figures.equity_and_drawdown(DAYS, RETURNS),
    "confidence": lambda: figures.confidence_histogram(np.maximum(PROBABILITY, 1 - PROBABILITY), 0.6),
    "calibration": lambda: figures.calibration_curve(PROBABILITY, OUTCOMES),
    "confusion": lambda: figures.confusion_matrix(CALLS, OUTCOMES),
    "symbols": lambda: figures.per_symbol_bars(["A", "B"], {"net": [1.0, float("nan")]}, title="P&L"),
    "price": lambda: figures.price_and_sessions(DAYS, np.cumprod(1 + RETURNS["baseline"]), symbol="A"),
    "features": lambda: figures.feature_histograms(RNG.normal(size=(50, 5)), list("abcde")),
    "labels": lambda: figures.label_balance(np.repeat(DAYS, 10), OUTCOMES),
    "distillation": lambda: figures.distillation_bars({"student": {"brier": 0.2, "hit_ratio": None}}),
}
NOTHING: np.ndarray = np.array([])
EMPTY: dict[str, Callable[[], Figure]] = {
    "equity": lambda: figures.equity_and_drawdown(NOTHING, {"candidate": NOTHING}),
    "equity without series": lambda: figures.equity_and_drawdown(DAYS, {}),
    "confidence": lambda: figures.confidence_histogram([float("nan")], 0.6),
    "calibration": lambda: figures.calibration_curve([0.5], [INSIDE]),
    "confusion": lambda: figures.confusion_matrix([1], [UNKNOWN]),
    "symbols": lambda: figures.per_symbol_bars([], {}, title="P&L"),
    "price": lambda: figures.price_and_sessions(NOTHING, NOTHING, symbol="A"),
    "features": lambda: figures.feature_histograms(np.empty((0, 3)), list("abc")),
    "labels": lambda: figures.label_balance(NOTHING, NOTHING),
    "distillation": lambda: figures.distillation_bars({}),
}


def words(figure: Figure) -> list[str]:
    """Every text of a figure."""
    return [text.get_text() for axes in figure.axes for text in [*axes.texts, axes._left_title, axes.title]]


@pytest.mark.parametrize("name", FULL)
def test_a_figure_is_a_readable_picture(name: str) -> None:
    """Every figure draws at the reports' width, with something on it, in a size a repository can hold."""
    png = figures.png_bytes(FULL[name]())
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.width == 990
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 20
    assert len(png) < 80_000
    assert b"Software" not in png


@pytest.mark.parametrize("name", EMPTY)
def test_empty_input_says_no_data(name: str) -> None:
    """Nothing to show is said in the figure, which still has its title."""
    said = words(EMPTY[name]())
    assert "no data" in said
    assert len([text for text in said if text]) == 2


def test_equity_and_drawdown_agree_with_the_metrics() -> None:
    """The last return named in the legend and the lowest drawdown are those of the gate's metrics."""
    figure = figures.equity_and_drawdown(DAYS, RETURNS)
    top, bottom = figure.axes
    for place, (name, daily) in enumerate(RETURNS.items()):
        metrics = financial_metrics(daily, np.array([]))
        total, drawdown = metrics["total_return"], metrics["max_drawdown"]
        assert total is not None
        assert top.get_legend_handles_labels()[1][place] == f"{name}  {total:+.1%}"
        assert -np.min(bottom.lines[place].get_ydata()) == pytest.approx(drawdown, abs=1e-12)


def test_calibration_points_are_those_of_the_metrics() -> None:
    """The points drawn are the bins of `metrics.accuracy_metrics`; the bars are Wilson's interval."""
    figure = figures.calibration_curve(PROBABILITY, OUTCOMES)
    container = figure.axes[0].containers[0]
    points = np.asarray(container.lines[0].get_xydata())
    bins = accuracy_metrics(CALLS, OUTCOMES, PROBABILITY)["calibration"]
    assert points[:, 0] == pytest.approx([one["mean_predicted"] for one in bins if one["count"]])
    for (_, share), one, bar in zip(points, bins, container.lines[2][0].get_segments(), strict=True):
        interval = binomtest(round(share * one["count"]), one["count"]).proportion_ci(method="wilson")
        assert bar[:, 1] == pytest.approx([interval.low, interval.high], abs=1e-9)


def test_confusion_matrix_counts_every_known_row() -> None:
    """The nine counts are those of the arrays; rows without a known outcome are left out."""
    outcomes = OUTCOMES.copy()
    outcomes[:100] = UNKNOWN
    figure = figures.confusion_matrix(CALLS, outcomes)
    drawn = [int(text.get_text().split("\n")[0].replace(",", "")) for text in figure.axes[0].texts]
    expected = [
        int(np.sum((call == CALLS) & (outcomes == outcome)))
        for call in (1, 0, -1)
        for outcome in (UP, INSIDE, DOWN)
    ]
    assert drawn == expected
    assert sum(drawn) == 2900


def test_confidence_share_in_the_title_is_of_the_rows_at_the_threshold() -> None:
    """At or above counts: a row exactly on the threshold passes."""
    said = words(figures.confidence_histogram([0.5, 0.6, 0.7, float("nan")], 0.6))
    assert "Confidence on 3 scored bars: 66.7% at or above 0.6" in said


def test_dates_may_be_days_or_text() -> None:
    """Days since 1970-01-01, int32 as the session table has them, and ISO text draw the same."""
    text = np.datetime_as_string(DAYS.astype("datetime64[D]"))
    pictures = [
        figures.png_bytes(figures.equity_and_drawdown(dates, RETURNS))
        for dates in (DAYS.astype("int32"), list(text))
    ]
    assert pictures[0] == pictures[1]


def test_the_same_arrays_give_the_same_bytes_under_any_settings(tmp_path: Path) -> None:
    """A user's matplotlibrc, backend, locale and time zone do not reach a figure."""
    code = (
        "import sys, numpy as np\nfrom sqkit.research import figures\n"
        "days, one = np.arange(15000, 15300), np.random.default_rng(5).normal(0, 0.01, 300)\n"
        "sys.stdout.buffer.write(figures.png_bytes(figures.equity_and_drawdown(days, {'candidate': one})))"
    )
    (tmp_path / "matplotlibrc").write_text(
        "font.size: 22\nlines.linewidth: 9\nsavefig.dpi: 40\naxes.grid: False\n"
    )
    common = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    outputs: list[Any] = [
        subprocess.run(
            [sys.executable, "-c", code], env={**common, **extra}, cwd=cwd, capture_output=True, check=True
        ).stdout
        for cwd, extra in (
            (None, {"TZ": "UTC"}),
            (tmp_path, {"TZ": "America/New_York", "MPLBACKEND": "svg", "PYTHONHASHSEED": "5"}),
        )
    ]
    assert outputs[0][:4] == b"\x89PNG"
    assert outputs[0] == outputs[1]
