"""Parity: does the live engine, given the bars of a validation, do what the backtest did?

`run_validation` replays bars of the window through the engine and hands both runs to `parity_record`, which
says what ``parity.json`` holds: pass, or fail with the first bar on which they part. The two rooms do not know
each other, so the replay is a callable (`Replay`); the notebooks give `sqkit.production.replay.replay_model`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from sqkit.bars import BarArrays
from sqkit.features import feature_matrix
from sqkit.records import decode, iso_instant
from sqkit.research.backtest import SymbolRun, Window
from sqkit.research.parity_compare import Divergence, Replayed, first_divergence
from sqkit.settings import Settings
from sqkit.student import StudentModel
from sqkit.versions import version_ns

MOST_BARS: Final = 50_000
"""So many bars of the window are replayed unless all are asked for."""

NOT_RUN: Final = {
    "note": "the live engine was not asked: sqkit validate replays the validation through it (run_validation "
    "takes the replay as an argument)",
    "status": "not_run",
}
"""What ``parity.json`` says without a replay."""


class Replay(Protocol):
    """Bars of a window, one after the other, through the live engine."""

    def __call__(
        self,
        model: StudentModel,
        bars: Mapping[str, BarArrays],
        first_day: int,
        last_day: int,
        settings: Settings,
        *,
        now_ns: int,
        most_bars: int | None = None,
    ) -> Mapping[str, Replayed]:
        """What the engine did with each symbol."""


class Share(NamedTuple):
    """What of a validation is replayed.

    Attributes
    ----------
    symbols
        In alphabetical order.
    most_bars
        Each ends after so many bars of the window; None: at the window's end.
    """

    symbols: tuple[str, ...]
    most_bars: int | None


@dataclass(frozen=True)
class Asked:
    """A validation that is to be replayed.

    Attributes
    ----------
    bars
        Every series of the validation, by symbol.
    settings
        Those the backtest's rules were made from.
    full
        Whether every bar is replayed, instead of at most `MOST_BARS`.
    """

    model: StudentModel
    bars: Mapping[str, BarArrays]
    window: Window
    settings: Settings
    full: bool = False

    @property
    def seed(self) -> int:
        """The model's own; it chooses the symbols."""
        return int(self.model.metadata["seed"])

    def window_bars(self) -> dict[str, int]:
        """How many bars each symbol has in the window."""
        spans = {
            name: one.window(self.window.first_day, self.window.last_day) for name, one in self.bars.items()
        }
        return {name: stop - start for name, (start, stop) in spans.items()}


def choose_share(window_bars: Mapping[str, int], seed: int, *, most_bars: int | None = MOST_BARS) -> Share:
    """Which symbols are replayed: whole ones in an order given by the seed, while they fit.

    One symbol is always replayed, cut to `most_bars` when it has more.

    Parameters
    ----------
    window_bars
        Bars of the window by symbol.
    most_bars
        None: everything.
    """
    names = sorted(window_bars)
    if most_bars is None:
        return Share(tuple(names), None)
    chosen: list[str] = []
    total = 0
    for place in np.random.default_rng(seed).permutation(len(names)):
        total += window_bars[names[place]]
        if chosen and total > most_bars:
            break
        chosen.append(names[place])
    single_too_long = len(chosen) == 1 and window_bars[chosen[0]] > most_bars
    return Share(tuple(sorted(chosen)), most_bars if single_too_long else None)


def replay_validation(asked: Asked, runs: Mapping[str, SymbolRun], replay: Replay) -> dict[str, Any]:
    """Replay a share of a validation and hold it against the backtest: the content of ``parity.json``.

    The model's age is counted to the time in its own version, so it is 0 and an old tag validates too.

    Parameters
    ----------
    runs
        The candidate's backtest, by symbol.
    replay
        Gives what the engine does.
    """
    share = choose_share(asked.window_bars(), asked.seed, most_bars=None if asked.full else MOST_BARS)
    replayed = replay(
        asked.model,
        {symbol: asked.bars[symbol] for symbol in share.symbols},
        asked.window.first_day,
        asked.window.last_day,
        asked.settings,
        now_ns=version_ns(asked.model.version),
        most_bars=share.most_bars,
    )
    return parity_record(asked, share, runs, replayed)


def parity_record(
    asked: Asked, share: Share, runs: Mapping[str, SymbolRun], replayed: Mapping[str, Replayed]
) -> dict[str, Any]:
    """What ``parity.json`` holds of a replay.

    Returns
    -------
    dict
        ``status`` (pass or fail), ``note`` (one line for the checklist), ``first_divergence`` (symbol, bar
        time, field and both values; None when both runs agree), ``symbols`` (by name: bars compared, bars of
        the window, trades, whether whole, first divergence), ``left_out``, ``bars``, ``seed``, ``full``,
        ``model_digest``.
    """
    window_bars = asked.window_bars()
    rows: dict[str, dict[str, Any]] = {}
    found: list[tuple[int, dict[str, Any]]] = []
    for symbol in share.symbols:
        bars = min(window_bars[symbol], share.most_bars or window_bars[symbol])
        whole = bars == window_bars[symbol]
        features = _features(asked, symbol, bars)
        divergence = first_divergence(replayed[symbol], runs[symbol], features, bars=bars, whole=whole)
        said = None if divergence is None else _in_words(symbol, divergence, asked.model)
        if divergence is not None and said is not None:
            found.append((divergence.bar_time, said))
        rows[symbol] = {
            "bars": bars,
            "first_divergence": said,
            "trades": len(replayed[symbol].trades["entry_time"]),
            "whole": whole,
            "window_bars": window_bars[symbol],
        }
    first = min(found, key=lambda pair: pair[0])[1] if found else None
    record = {
        "bars": sum(row["bars"] for row in rows.values()),
        "first_divergence": first,
        "full": asked.full,
        "left_out": sorted(set(window_bars) - set(rows)),
        "model_digest": asked.model.digest,
        "seed": asked.seed,
        "status": "fail" if first else "pass",
        "symbols": rows,
    }
    return record | {"note": _note(record)}


def _features(asked: Asked, symbol: str, bars: int) -> np.ndarray:
    """The backtest's features of the first bars of the window; history before it warms them."""
    series = asked.bars[symbol]
    start, _ = series.window(asked.window.first_day, asked.window.last_day)
    return feature_matrix(asked.model.feature_set, series.slice(0, start + bars))[start:]


def _in_words(symbol: str, divergence: Divergence, model: StudentModel) -> dict[str, Any]:
    field = divergence.field
    if divergence.column is not None:
        field = f"{field}.{model.feature_set.columns[divergence.column]}"
    values = [
        _plain(decode({divergence.field: value})[divergence.field])
        for value in (divergence.backtest, divergence.engine)
    ]
    return {
        "backtest": values[0],
        "bar_time": iso_instant(divergence.bar_time),
        "engine": values[1],
        "field": field,
        "symbol": symbol,
    }


def _plain(value: Any) -> Any:
    """JSON knows no infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _note(record: Mapping[str, Any]) -> str:
    rows = record["symbols"]
    first = record["first_divergence"]
    if first:
        return (
            f"the live engine parts from the backtest at {first['symbol']} {first['bar_time']} in {first['field']}: "
            f"backtest {_value(first['backtest'])}, engine {_value(first['engine'])}"
        )
    replayed = f"{record['bars']} bars of {len(rows)} of {len(rows) + len(record['left_out'])} symbols"
    cut = [name for name, row in rows.items() if not row["whole"]]
    asked = ", whole" if not (cut or record["left_out"]) else f", chosen by seed {record['seed']}"
    if cut:
        asked += f", {cut[0]} cut at {rows[cut[0]]['bars']} of {rows[cut[0]]['window_bars']} bars"
    return (
        f"the live engine, given {replayed}{asked}, had the same features and trades to the bit, the same "
        "decisions and the same confidences"
    )


def _value(value: Any) -> str:
    return "nothing" if value is None else str(value)


def parity_rows(parity: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a symbol for a table: what was replayed, and where the two runs part."""
    return list(_rows(parity)) or [
        {"symbol": "none", "bars": "0", "trades": "0", "first difference": "not run"}
    ]


def _rows(parity: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for symbol, row in parity.get("symbols", {}).items():
        first = row["first_divergence"]
        yield {
            "symbol": symbol,
            "bars": f"{row['bars']}" if row["whole"] else f"{row['bars']} of {row['window_bars']}",
            "trades": f"{row['trades']}",
            "first difference": f"{first['bar_time']} {first['field']}" if first else "none",
        }


def parity_line(parity: Mapping[str, Any]) -> str:
    """One sentence for a page: the verdict of the replay and what it rests on."""
    return f"Parity {parity['status']}: {parity['note']}."
