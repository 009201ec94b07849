"""`check_bars` finds each kind of trouble, counts it, and calls nothing trouble that is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sqkit.research.barchecks import CheckReport, Finding, check_bars
from sqkit.research.marketdata import available_symbols, read_bars
from sqkit.sessions import load_sessions
from tests.test_marketdata import bar_frame

PRICE_COLUMNS = ["open", "high", "low", "close"]


def check(frame: pd.DataFrame, interval: str = "1d", market: str = "nse") -> CheckReport:
    """`check_bars` with the market's own sessions; the frame must come out untouched."""
    before = frame.copy()
    report = check_bars(frame, interval=interval, market=market, sessions=load_sessions(market))
    pd.testing.assert_frame_equal(frame, before)
    return report


def only(report: CheckReport) -> Finding:
    """The single finding of a report."""
    assert len(report.problems) == 1, report.problems
    return report.problems[0]


@pytest.mark.parametrize("market", ["nse", "us"])
@pytest.mark.parametrize("interval", ["1m", "5m", "1d"])
def test_whole_sessions_have_no_findings(market: str, interval: str) -> None:
    """Complete, ordered, plausible bars pass without a word."""
    report = check(bar_frame(market, interval), interval, market)
    assert report.problems == []
    assert report.ok
    assert report.lines()[-1].strip() == "usable"


@pytest.mark.parametrize(
    ("changes", "kind", "severity"),
    [
        ({"close": np.nan}, "nan_price", "error"),
        ({"high": np.inf}, "nan_price", "error"),
        ({"low": 0.0}, "not_positive", "error"),
        ({"low": -3.0}, "not_positive", "error"),
        ({"high": 300.0}, "high_below_low", "error"),
        ({"open": 9_999.0}, "outside_range", "warning"),
    ],
)
def test_each_kind_of_bad_price(changes: dict[str, float], kind: str, severity: str) -> None:
    """A bad price is one finding with its count and its first session date."""
    frame = bar_frame("nse", "1d")
    for column, value in changes.items():
        frame.loc[[4, 7], column] = value
    found = next(finding for finding in check(frame).problems if finding.kind == kind)
    assert (found.severity, found.count, found.first) == (severity, 2, "2019-03-08")


def test_repeats_and_disorder() -> None:
    """Bars that repeat a session date, and bars out of order, are counted."""
    frame = bar_frame("nse", "1d")
    twice = check(pd.concat([frame, frame.iloc[2:4]]))
    assert {finding.kind: finding.count for finding in twice.problems} == {"duplicates": 2, "disorder": 1}
    newest_first = only(check(frame.iloc[::-1]))
    assert (newest_first.kind, newest_first.count) == ("disorder", len(frame) - 1)
    assert newest_first.message.startswith("newest first")


def test_mixed_symbols() -> None:
    """Two names in one series are an error."""
    frame = bar_frame("nse", "1d")
    frame.loc[5:, "symbol"] = "OTHER"
    assert (only(check(frame)).kind, only(check(frame)).first) == ("mixed_symbols", "2019-03-11")


def test_daily_gaps_are_sessions_without_a_bar() -> None:
    """Missing sessions are counted; weekends and holidays are not missing."""
    frame = bar_frame("nse", "1d", sessions=60)
    found = only(check(frame.drop(index=[10, 11, 40])))
    dates = frame["timestamp"].dt.tz_convert("Asia/Kolkata").dt.strftime("%Y-%m-%d")
    assert (found.kind, found.severity, found.count, found.first) == ("gaps", "warning", 3, dates[10])


def test_intraday_gaps_count_bars_and_sessions() -> None:
    """A lost session and lost minutes are told apart; a half session by the table is whole."""
    frame = bar_frame("nse", "1m", sessions=6)
    found = only(check(frame.drop(index=[*range(375, 750), 3, 4, 1600]), "1m"))
    assert (found.kind, found.count, found.first) == ("gaps", 378, "2019-03-01")
    assert "1 sessions have no bar (2019-03-05)" in found.message
    assert "2 sessions lack 3 bars" in found.message


def test_a_bar_on_a_holiday_is_outside() -> None:
    """A bar on a date without session is a warning that names the date."""
    frame = bar_frame("nse", "1d")
    holiday = frame.iloc[:1].assign(timestamp=pd.Timestamp("2019-03-04", tz="Asia/Kolkata").tz_convert("UTC"))
    found = only(check(pd.concat([frame.iloc[:1], holiday, frame.iloc[1:]])))
    assert (found.kind, found.first) == ("out_of_session", "2019-03-04")


@pytest.mark.parametrize("interval", ["1m", "5m"])
def test_end_stamps_are_detected_and_start_stamps_are_not(interval: str) -> None:
    """Labels at the close and none at the open are ends, even with gaps; a closing bar alone is not."""
    frame = bar_frame("nse", interval, sessions=20)
    step = pd.Timedelta(minutes=int(interval[0]))
    ends = frame.assign(timestamp=frame["timestamp"] + step).drop(index=range(200, 260))
    assert "end_stamped" in {finding.kind for finding in check(ends, interval).problems}
    closing = frame.iloc[-1:].assign(timestamp=frame["timestamp"].iloc[-1:] + step)
    with_auction = check(pd.concat([frame, closing]), interval)
    assert {finding.kind for finding in with_auction.problems} == {"out_of_session"}


def test_interval_mismatch() -> None:
    """Minutes checked as days are one clear error."""
    kinds = {finding.kind for finding in check(bar_frame("nse", "1m", sessions=3), "1d").problems}
    assert "interval" in kinds


def split(frame: pd.DataFrame, row: int, ratio: float) -> pd.DataFrame:
    """The same bars as if not adjusted for a split before `row`."""
    changed = frame.copy()
    changed.loc[: row - 1, PRICE_COLUMNS] *= ratio
    changed.loc[: row - 1, "volume"] /= ratio
    return changed


@pytest.mark.parametrize("ratio", [1.5, 2.0, 3.0, 5.0, 10.0, 0.5, 0.1])
@pytest.mark.parametrize("interval", ["1d", "5m"])
def test_splits_and_reverse_splits_are_found(ratio: float, interval: str) -> None:
    """A jump by a simple ratio that stays is a split, named with its date."""
    frame = bar_frame("nse", interval, sessions=40)
    row = 20 if interval == "1d" else 20 * 75
    found = only(check(split(frame, row, ratio), interval))
    date = frame["timestamp"].dt.tz_convert("Asia/Kolkata").dt.strftime("%Y-%m-%d")[row]
    assert (found.kind, found.count, found.first) == ("unadjusted_split", 1, date)
    assert (f"({ratio:g}:1)" if ratio > 1 else f"(1:{1 / ratio:g})") in found.message


def test_what_is_no_split() -> None:
    """A rise of a fifth, one bad tick, a slide over days and a crash on enormous turnover are no splits."""
    frame = bar_frame("nse", "1d", sessions=60)
    assert check(split(frame, 20, 1 / 1.214)).problems == []
    tick = frame.copy()
    tick.loc[20, PRICE_COLUMNS] /= 2
    assert check(tick).problems == []
    slide = frame.copy()
    slide[PRICE_COLUMNS] = slide[PRICE_COLUMNS].mul(np.exp(-0.1 * np.arange(60)), axis=0)
    assert check(slide).problems == []
    crash = split(frame, 20, 1.92)
    crash["volume"] = 1_000.0
    crash.loc[20, "volume"] = 60_000.0
    assert check(crash).problems == []
    crash.loc[20, "volume"] = 1_920.0
    assert only(check(crash)).kind == "unadjusted_split"


def test_real_splits_and_real_moves(shared_data: Path) -> None:
    """Known splits of unadjusted files are found; the +21.4 % of 2009-05-18 and adjusted files are left alone."""
    unadjusted = shared_data / "nse" / "daily_unadjusted_2000_2021"
    for symbol, dates in {
        "RELIANCE": ["2009-11-26", "2017-09-07"],
        "TCS": ["2006-07-28", "2009-06-16", "2018-05-31"],
    }.items():
        found = only(read_bars(unadjusted / f"{symbol}.parquet", market="nse").report)
        assert (found.kind, found.count) == ("unadjusted_split", len(dates))
        assert all(f"{date} (2:1)" in found.message for date in dates)
    adjusted = shared_data / "nse" / "daily_adjusted_2008_2021"
    flagged = {
        symbol
        for symbol in available_symbols(adjusted)
        for finding in read_bars(adjusted / f"{symbol}.parquet", market="nse").report.problems
        if finding.kind == "unadjusted_split"
    }
    # This file's adjustment really breaks off on 2020-11-27: 589.25 to 421.20 on usual volume.
    assert flagged == {"UPL"}


def test_report_as_lines_and_as_json() -> None:
    """The report prints every drop, note and finding, and its JSON form holds the same."""
    report = CheckReport("f.csv", "GLOOP", "1d", "nse", 3, "2019-03-01", "2019-03-06")
    report.dropped["duplicate rows"] = 1234
    report.notes.append("turned round")
    report.problems.append(Finding("gaps", "warning", 1, "2019-03-05", "1 sessions have no bar (2019-03-05)"))
    text = "\n".join(report.lines())
    assert "dropped 1,234 duplicate rows" in text
    assert "note: turned round" in text
    assert "warning: 1 sessions have no bar" in text
    plain = report.to_dict()
    assert plain["ok"] is True
    assert plain["dropped"] == {"duplicate rows": 1234}
    assert plain["problems"][0]["kind"] == "gaps"
