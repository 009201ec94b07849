"""Commands that keep a result honest before it exists: ``sqkit lookahead``, ``plan`` and ``holdout``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from sqkit.cli.words import Interval, Json, Market, Strategy, Words, app, group, show

if TYPE_CHECKING:
    from sqkit.research.trials import TrialLedger

holdout = group("holdout", "Seal days that only a validation opens.")


@app.command
def lookahead(
    target: str,
    /,
    *,
    bars: str,
    symbol: str | None = None,
    market: Market | None = None,
    interval: Interval | None = None,
    seed: int = 0,
    json: Json = False,
) -> int:
    """Check a feature set for look-ahead on bars that are cut and changed; exit 4 when it has any.

    Parameters
    ----------
    target
        MODULE:FEATURE_SET or ./FILE.py:FEATURE_SET of your own, or the name of a shipped set.
    bars
        File, folder or URL of bars; of a folder three files are taken.
    symbol
        The one symbol to take of a folder, or what a file is of.
    market
        By default SENSEQUANT_MARKET.
    interval
        1d, 1m or 5m; by default guessed from the bars.
    seed
        Seed of the sampled places.
    json
        Print the findings as JSON.
    """
    from sqkit.research.lookahead_job import lookahead_job, lookahead_lines

    result = lookahead_job(target, bars=bars, symbol=symbol, market=market, interval=interval, seed=seed)
    show(result, json, lookahead_lines(result))
    return 0 if result["ok"] else 4


@app.command
def plan(
    *,
    strategy: Strategy,
    symbols: Words = None,
    start: str,
    end: str,
    market: Market | None = None,
    interval: Interval | None = None,
    horizon_bars: int | None = None,
    json: Json = False,
) -> int:
    """Say before training what a validation window can show, and what would suffice.

    Parameters
    ----------
    strategy
        intraday or swing.
    symbols
        Symbols you would validate on, separated by spaces.
    start
        First session date of the window.
    end
        Last session date, included.
    market
        By default SENSEQUANT_MARKET.
    interval
        By default 1d for swing and 1m for intraday.
    horizon_bars
        Bars a label looks ahead; by default 5 for swing and 15 for intraday.
    json
        Print the plan as JSON.
    """
    from sqkit.research.planning import plan_job
    from sqkit.research.window_plan import plan_lines

    planned = plan_job(
        strategy=strategy,
        symbols=symbols,
        start=start,
        end=end,
        market=market,
        interval=interval,
        horizon_bars=horizon_bars,
    )
    show(planned, json, plan_lines(planned))
    return 0


@holdout.command(name="set")
def holdout_set(*, strategy: Strategy, start: str, end: str) -> int:
    """Seal days of a strategy for good: training refuses them, a validation opens and counts them.

    Parameters
    ----------
    strategy
        intraday or swing.
    start
        First session date, YYYY-MM-DD.
    end
        Last session date, included.
    """
    from sqkit.research.holdout import seal

    sealed = seal(_ledger(), strategy, start, end)
    print(f"sealed for {sealed.strategy}: {sealed.start} to {sealed.end}", flush=True)
    return 0


@holdout.command(name="list")
def holdout_list(*, strategy: Strategy | None = None, json: Json = False) -> int:
    """List sealed days and who opened them when and why.

    Parameters
    ----------
    strategy
        intraday or swing; by default both.
    json
        Print seals and openings as JSON.
    """
    from sqkit.research.holdout import holdout_lines, sealed_windows
    from sqkit.research.trials import OPENED

    ledger = _ledger()
    openings = [
        {name: value for name, value in entry.items() if name not in ("digest", "kind", "previous")}
        for entry in ledger.entries()
        if entry["kind"] == OPENED and strategy in (None, entry["strategy"])
    ]
    sealed = [asdict(one) for one in sealed_windows(ledger, strategy)]
    show({"openings": openings, "sealed": sealed}, json, holdout_lines(ledger, strategy))
    return 0


def _ledger() -> TrialLedger:
    from sqkit.research.trials import open_ledger
    from sqkit.settings import Settings

    settings = Settings()
    return open_ledger(settings.data_dir, settings.reports_dir)
