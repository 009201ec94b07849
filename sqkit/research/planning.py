"""The plan of a window before anything is trained: sessions and bars counted, the gate simulated.

``sqkit plan`` calls `plan_job`, ``train-student`` prints `lines_before_training` first. No bar is
looked at: the calendar says how many sessions and bars a window holds.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from sqkit.bars import INTERVAL_MINUTES, NANOSECONDS_PER_MINUTE
from sqkit.checklist import Policy
from sqkit.errors import UsageError, WindowEmpty
from sqkit.records import iso_date
from sqkit.research.accuracy import RULE
from sqkit.research.backtest import Window
from sqkit.research.requests import ValidationRequest
from sqkit.research.run_policy import judged_by
from sqkit.research.sources import HORIZON_BARS, INTERVALS, parse_day
from sqkit.research.validation_plan import distinct, production_baseline
from sqkit.research.window_plan import plan_lines, plan_window
from sqkit.sessions import load_sessions
from sqkit.settings import Settings

USUAL_SESSIONS: Final = 63
"""Three months, the window a validation usually has."""


def plan_job(
    *,
    strategy: str,
    symbols: list[str] | None,
    start: str,
    end: str,
    market: str | None = None,
    interval: str | None = None,
    horizon_bars: int | None = None,
) -> dict[str, Any]:
    """What a validation of these symbols over these session dates can show; plain JSON values.

    Raises
    ------
    UsageError
        No symbol, a date that is none, or a start after the end.
    WindowEmpty
        The calendar has no session there.
    """
    settings = Settings()
    if not symbols:
        raise UsageError("--symbols is empty; name the symbols you would validate on")
    window = Window(parse_day(start, "start"), parse_day(end, "end"))
    if window.first_day > window.last_day:
        raise UsageError(f"the window starts {start} and ends {end}: start must not be after end")
    return _plan(
        settings,
        judged_by(strategy).policy,
        strategy=strategy,
        symbols=distinct(symbols),
        window=window,
        market=market or settings.market,
        interval=interval or INTERVALS[strategy],
        horizon_bars=HORIZON_BARS[strategy] if horizon_bars is None else horizon_bars,
        incumbent=production_baseline(settings, strategy) is not None,
    )


def lines_before_training(
    request: ValidationRequest | None,
    teacher: dict[str, Any],
    window: Window | None,
    settings: Settings,
) -> list[str]:
    """The plan of the validation that will follow a training, for a reader.

    Without a request it is that of the next three months after the training, as far as the calendar goes.
    """
    strategy = teacher["strategy"]
    request, window = request or ValidationRequest(model=""), window or _next_months(teacher, settings)
    if window is None:
        return []
    incumbent = (
        request.baseline_model != RULE
        if request.baseline_model
        else production_baseline(settings, strategy) is not None
    )
    plan = _plan(
        settings,
        request.thresholds.policy(strategy),
        strategy=strategy,
        symbols=request.symbols or teacher["symbols"],
        window=window,
        market=teacher["market"],
        interval=teacher["interval"],
        horizon_bars=teacher["horizon_bars"],
        incumbent=incumbent,
    )
    return [f"plan: {line}" for line in plan_lines(plan)]


def _next_months(teacher: dict[str, Any], settings: Settings) -> Window | None:
    """The `USUAL_SESSIONS` sessions after the training window; None where the calendar ends before two."""
    table = load_sessions(teacher["market"], settings.sessions_file)
    ended = parse_day(teacher["training_window"]["end"], "end")
    last = min(ended + 3 * USUAL_SESSIONS, table.horizon_day)
    if last <= ended:
        return None
    days = table.session_days(ended + 1, last)[:USUAL_SESSIONS]
    return Window(int(days[0]), int(days[-1])) if len(days) >= 2 else None


def _plan(
    settings: Settings,
    policy: Policy,
    *,
    strategy: str,
    symbols: list[str],
    window: Window,
    market: str,
    interval: str,
    horizon_bars: int,
    incumbent: bool,
) -> dict[str, Any]:
    table = load_sessions(market, settings.sessions_file)
    days = table.session_days(window.first_day, window.last_day)
    if len(days) < 2:
        raise WindowEmpty(
            f"{iso_date(window.first_day)} to {iso_date(window.last_day)}: the {market} calendar has {len(days)} "
            "sessions there, at least 2 are needed; choose a longer window"
        )
    plan = plan_window(
        strategy,
        len(symbols),
        len(days),
        policy=policy,
        horizon_bars=horizon_bars,
        bars_per_session=1 if interval == "1d" else _bars_per_session(table.open_close_ns(days), interval),
        incumbent=incumbent,
    )
    return plan | {"window": window.describe(), "market": market, "interval": interval, "names": symbols}


def _bars_per_session(open_close_ns: tuple[np.ndarray, np.ndarray], interval: str) -> int:
    """Bars of a usual session of the window: short ones do not count."""
    opened, closed = open_close_ns
    minutes = float(np.median(closed - opened)) / NANOSECONDS_PER_MINUTE
    return max(1, int(minutes // INTERVAL_MINUTES[interval]))
