"""Raw bars made one series: one symbol, one interval, START stamps, in order, nothing twice.

`marketdata.py` and `yahoo.py` call `tidy`. Each step either leaves the bars alone, or does
one thing and says so in the report, or refuses. Prices are never touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

import numpy as np
import pandas as pd

from sqkit.bars import INTERVAL_MINUTES, NANOSECONDS_PER_MINUTE
from sqkit.errors import BarsUnusable
from sqkit.files import symbol_file_name
from sqkit.records import iso_date, iso_instant
from sqkit.research.barchecks import PRICES, CheckReport, check_bars, distinct, guess_interval, is_end_stamped
from sqkit.research.barformats import RawBars
from sqkit.sessions import SessionTable

COLUMNS: Final = ("timestamp", "symbol", "open", "high", "low", "close", "volume")
_DAY_NS: Final = 86_400_000_000_000
_MOSTLY: Final = 0.9
_HALF: Final = 0.5
_RENAME_FACTOR: Final = 1.5


@dataclass(frozen=True)
class Loaded:
    """Bars in canonical columns (`COLUMNS`, timestamp tz-aware UTC in nanoseconds) and what was said about them."""

    frame: pd.DataFrame
    report: CheckReport


def tidy(
    raw: RawBars, *, source: str, symbol: str | None, interval: str, market: str, sessions: SessionTable
) -> Loaded:
    """One series in time order out of raw bars, and the report; see `read_bars`."""
    report = CheckReport(source, "", interval, market, notes=list(raw.notes))
    rows = _one_symbol(raw, symbol, source, report)
    _refuse_missing_prices(raw, rows, source)
    stamps = _instants(raw, sessions)[rows]
    wall = raw.stamps.wall_ns[rows]
    report.interval = _settle_interval(stamps, wall, interval, source, sessions)
    if report.interval == "1d":
        stamps = _session_midnights(raw, rows, stamps, sessions, report)
    rows, stamps = _sorted(rows, stamps, report)
    rows, stamps = _without_repeats(raw, rows, stamps, report, source)
    stamps = _to_start(stamps, report, sessions)
    _refuse_unmarked_utc(raw, stamps, report, sessions)
    frame = pd.DataFrame(
        {
            "timestamp": pd.DatetimeIndex(stamps.astype("datetime64[ns]")).tz_localize("UTC"),
            "symbol": report.symbol,
            **{name: raw.ohlcv[rows, position] for position, name in enumerate(COLUMNS[2:])},
        },
        columns=list(COLUMNS),
    )
    _note_empty_volume(frame, report)
    checked = check_bars(frame, interval=report.interval, market=market, sessions=sessions)
    report.bars, report.first, report.last = checked.bars, checked.first, checked.last
    report.problems = checked.problems
    return Loaded(frame, report)


def _one_symbol(raw: RawBars, symbol: str | None, source: str, report: CheckReport) -> np.ndarray:
    """Rows of the wanted symbol; a company renamed inside the file stays one series."""
    rows = np.arange(len(raw.ohlcv))
    names = [] if raw.symbols is None else [str(name) for name in pd.unique(raw.symbols)]
    if len(names) > 1:
        assert raw.symbols is not None
        if _is_renaming(raw, names):
            spelled = " then ".join(repr(name) for name in names)
            report.notes.append(f"the symbol changes inside the file ({spelled}); taken as one series")
            names = names[-1:]
        elif symbol in names:
            rows = np.flatnonzero(raw.symbols == symbol)
            report.dropped[f"rows of {len(names) - 1} other symbols"] = len(raw.ohlcv) - len(rows)
            names = [symbol]
        else:
            raise BarsUnusable(
                f"{source}: holds {len(names)} symbols ({', '.join(names[:5])}); name one of them as symbol",
                symbols=names,
            )
    report.symbol = symbol or (names[0] if names else "") or PurePosixPath(source).stem
    symbol_file_name(report.symbol)
    if names and names[0] != report.symbol:
        report.notes.append(f"the file calls it {names[0]!r}; taken as {report.symbol!r}")
    return rows


def _is_renaming(raw: RawBars, names: list[str]) -> bool:
    """One name ends where the next begins, and the price goes on."""
    order = np.argsort(raw.stamps.wall_ns, kind="stable")
    assert raw.symbols is not None
    ordered = raw.symbols[order]
    changes = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    if len(changes) != len(names) - 1:
        return False
    before, after = raw.ohlcv[order][changes - 1, 3], raw.ohlcv[order][changes, 0]
    steps = np.maximum(before / after, after / before)
    return bool((steps < _RENAME_FACTOR).all())


def _refuse_missing_prices(raw: RawBars, rows: np.ndarray, source: str) -> None:
    missing = ~np.isfinite(raw.ohlcv[rows, : len(PRICES)])
    if missing.any():
        at = int(rows[np.argmax(missing.any(axis=1))])
        price = PRICES[int(np.argmin(np.isfinite(raw.ohlcv[at, : len(PRICES)])))]
        written = np.datetime64(int(raw.stamps.wall_ns[at]), "ns").astype("datetime64[s]")
        count = int(missing.any(axis=1).sum())
        raise BarsUnusable(
            f"{source}, {raw.row_word} {raw.first_row + at} ({str(written).replace('T', ' ')}): {price} is not a "
            f"number, {count} such row(s) in all; correct or delete them",
            row=raw.first_row + at,
            count=count,
        )


def _instants(raw: RawBars, sessions: SessionTable) -> np.ndarray:
    """UTC nanoseconds of every row; a file without zones is in the market's."""
    if raw.stamps.offset_ns is not None:
        return np.asarray(raw.stamps.wall_ns - raw.stamps.offset_ns)
    return _in_zone(raw.stamps.wall_ns, sessions)


def _in_zone(wall_ns: np.ndarray, sessions: SessionTable) -> np.ndarray:
    wall = pd.DatetimeIndex(wall_ns.astype("datetime64[ns]"))
    local = wall.tz_localize(
        sessions.zone, ambiguous=np.ones(len(wall), dtype=bool), nonexistent="shift_forward"
    )
    return np.asarray(local.as_unit("ns").asi8)


def _settle_interval(
    stamps: np.ndarray, wall: np.ndarray, asked: str, source: str, sessions: SessionTable
) -> str:
    """The interval asked for, or the one found; one that the bars do not have is refused."""
    if asked and asked not in INTERVAL_MINUTES:
        raise BarsUnusable(f"interval {asked!r} is unknown; choose one of {', '.join(INTERVAL_MINUTES)}")
    found = guess_interval(distinct(np.sort(stamps)), sessions)
    if not found:
        found = asked or ("1d" if not (wall % _DAY_NS).any() else "")
    if not found:
        raise BarsUnusable(f"{source}: too few bars to see their interval; name it, 1d, 1m or 5m")
    if asked and found != asked:
        hint = f"ask for {found}" if found in INTERVAL_MINUTES else "use bars of 1d, 1m or 5m"
        raise BarsUnusable(f"{source}: bars lie {found} apart, not {asked}; {hint}", found=found, asked=asked)
    if found not in INTERVAL_MINUTES:
        raise BarsUnusable(f"{source}: bars lie {found} apart; use bars of 1d, 1m or 5m", found=found)
    return found


def _session_midnights(
    raw: RawBars, rows: np.ndarray, stamps: np.ndarray, sessions: SessionTable, report: CheckReport
) -> np.ndarray:
    """Daily bars stamped with their session date, whatever hour the file gives them.

    Midnight of the market, of UTC or of the file's own clock all mean the date on that
    clock; any other hour means the market's date at that instant.
    """
    own_days = raw.stamps.wall_ns[rows] // _DAY_NS
    market_days = sessions.local_days(stamps)
    if raw.stamps.offset_ns is None:
        days = own_days
    else:
        at_market_midnight = _in_zone(market_days.astype(np.int64) * _DAY_NS, sessions) == stamps
        at_utc_midnight = stamps % _DAY_NS == 0
        at_own_midnight = raw.stamps.wall_ns[rows] % _DAY_NS == 0
        days = np.select(
            [at_market_midnight, at_own_midnight, at_utc_midnight],
            [market_days, own_days, stamps // _DAY_NS],
            market_days,
        )
        moved = int((~at_market_midnight).sum())
        if moved:
            report.notes.append(
                f"{moved:,} daily bars not stamped at the market's midnight: their date was taken"
            )
    present = distinct(np.sort(days))
    if (
        len(present) > 4
        and sessions.is_session(present).mean() < _MOSTLY
        and sessions.is_session(present - 1).mean() > _MOSTLY
    ):
        days = days - 1
        report.notes.append(
            f"{len(days):,} daily bars were dated one day late (END of the day): moved to their session"
        )
    return _in_zone(days.astype(np.int64) * _DAY_NS, sessions)


def _sorted(rows: np.ndarray, stamps: np.ndarray, report: CheckReport) -> tuple[np.ndarray, np.ndarray]:
    backwards = int((np.diff(stamps) < 0).sum())
    if not backwards:
        return rows, stamps
    if (np.diff(stamps) <= 0).all():
        report.notes.append(f"newest first: {len(rows):,} bars turned round")
    else:
        report.notes.append(f"not in time order ({backwards:,} steps back): sorted")
    order = np.argsort(stamps, kind="stable")
    return rows[order], stamps[order]


def _without_repeats(
    raw: RawBars, rows: np.ndarray, stamps: np.ndarray, report: CheckReport, source: str
) -> tuple[np.ndarray, np.ndarray]:
    """Drop rows that say the same twice; refuse rows that contradict each other."""
    if not (np.diff(stamps) == 0).any():
        return rows, stamps
    if report.interval == "1d":
        rows, stamps = _without_intraday_rows(raw, rows, stamps, report)
    values = np.nan_to_num(raw.ohlcv[rows], nan=-1.0)
    same_time = np.diff(stamps, prepend=stamps[0] - 1) == 0
    same_bar = same_time & (values == np.roll(values, 1, axis=0)).all(axis=1)
    contradicting = same_time & ~same_bar
    if contradicting.any():
        at = int(np.argmax(contradicting))
        raise BarsUnusable(
            f"{source}, {raw.row_word}s {raw.first_row + rows[at - 1]} and {raw.first_row + rows[at]}: two different "
            f"bars for {_named(stamps[at], report.interval)}, {int(contradicting.sum())} such case(s); keep one of each",
            row=int(raw.first_row + rows[at]),
        )
    if same_bar.any():
        report.dropped["duplicate rows"] = int(same_bar.sum())
    return rows[~same_bar], stamps[~same_bar]


def _without_intraday_rows(
    raw: RawBars, rows: np.ndarray, stamps: np.ndarray, report: CheckReport
) -> tuple[np.ndarray, np.ndarray]:
    """In a daily file, a date that has its daily bar and minutes besides keeps the daily bar."""
    hours = raw.stamps.wall_ns[rows] % _DAY_NS
    values, counts = np.unique(hours, return_counts=True)
    usual = hours == values[np.argmax(counts)]
    has_daily = np.isin(stamps, stamps[usual])
    extra = has_daily & ~usual
    if extra.any():
        date = iso_date(int(raw.stamps.wall_ns[rows][extra][0] // _DAY_NS))
        report.dropped[f"rows of a shorter interval inside a daily file (first {date})"] = int(extra.sum())
    return rows[~extra], stamps[~extra]


def _to_start(stamps: np.ndarray, report: CheckReport, sessions: SessionTable) -> np.ndarray:
    if report.interval == "1d" or not is_end_stamped(stamps, report.interval, sessions):
        return stamps
    minutes = INTERVAL_MINUTES[report.interval]
    report.notes.append(
        f"{len(stamps):,} bars labelled by their END: moved {minutes} min back to their START"
    )
    return stamps - minutes * NANOSECONDS_PER_MINUTE


def _refuse_unmarked_utc(
    raw: RawBars, stamps: np.ndarray, report: CheckReport, sessions: SessionTable
) -> None:
    """Intraday stamps without a zone that fit the sessions only when read as UTC."""
    if report.interval == "1d" or raw.stamps.offset_ns is not None:
        return
    if sessions.locate(stamps)[3].mean() < _HALF:
        as_utc = sessions.locate(np.sort(raw.stamps.wall_ns))[3].mean() > _MOSTLY
        raise BarsUnusable(
            f"{report.source}: times without a zone were read as {sessions.zone.key} but "
            f"{'look like UTC' if as_utc else 'lie outside its sessions'}; write the offset with each time "
            "(2024-01-31 03:45:00+00:00) or name the right market"
        )
    report.notes.append(f"times without a zone read as {sessions.zone.key}")


def _note_empty_volume(frame: pd.DataFrame, report: CheckReport) -> None:
    volume = frame["volume"].to_numpy()
    if np.isnan(volume).all():
        report.notes.append("volume is empty throughout: volume features are 0")
    elif not np.nan_to_num(volume).any():
        report.notes.append("volume is zero throughout: volume features are 0")


def _named(stamp: int, interval: str) -> str:
    if interval == "1d":  # midnight somewhere between UTC-12 and UTC+14
        return iso_date((int(stamp) + _DAY_NS // 2 + _DAY_NS // 24) // _DAY_NS)
    return iso_instant(int(stamp))
