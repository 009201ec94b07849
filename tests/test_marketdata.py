"""Reading, storing and loading bars: what is dropped, shifted or refused, and the real files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
import pytest

from sqkit.bars import CLOSE, MINUTE, SESSION, VOLUME
from sqkit.errors import BarsFormatRefused, BarsNotFound, BarsUnusable, UsageError
from sqkit.research.marketdata import (
    available_symbols,
    check_files,
    import_bars,
    load_symbol,
    load_symbols,
    parquet_bytes,
    read_bars,
)
from sqkit.sessions import load_sessions


def bar_frame(market: str, interval: str, sessions: int = 12, symbol: str = "GLOOP") -> pd.DataFrame:
    """Made-up bars of whole sessions from 2019-03-01 on, START-stamped, in canonical columns."""
    table = load_sessions(market)
    days = table.session_days(17956, 17956 + 2 * sessions + 10)[:sessions]
    opens, closes = table.open_close_ns(days)
    if interval == "1d":
        stamps = pd.DatetimeIndex(days.astype("datetime64[D]")).tz_localize(table.zone).tz_convert("UTC")
    else:
        step = {"1m": 60, "5m": 300}[interval] * 1_000_000_000
        nanoseconds = np.concatenate([np.arange(a, b, step) for a, b in zip(opens, closes, strict=True)])
        stamps = pd.DatetimeIndex(nanoseconds.astype("datetime64[ns]")).tz_localize("UTC")
    random = np.random.default_rng(3)
    close = 700 * np.exp(np.cumsum(random.normal(0, 0.001, len(stamps))))
    opened = close * (1 + random.normal(0, 0.0005, len(stamps)))
    return pd.DataFrame(
        {
            "timestamp": stamps.as_unit("ns"),
            "symbol": symbol,
            "open": opened,
            "high": np.maximum(opened, close) * 1.0005,
            "low": np.minimum(opened, close) * 0.9995,
            "close": close,
            "volume": random.integers(10, 9_000, len(stamps)).astype(float),
        }
    )


def store(folder: Path, frame: pd.DataFrame, name: str = "GLOOP") -> Path:
    """A frame as a Parquet file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.parquet"
    frame.to_parquet(path)
    return path


@pytest.mark.parametrize("market", ["nse", "us"])
@pytest.mark.parametrize("interval", ["1m", "5m", "1d"])
def test_import_then_load_gives_the_same_bars(tmp_path: Path, market: str, interval: str) -> None:
    """What is imported from a CSV comes back as arrays with the same prices, session dates and minutes."""
    frame = bar_frame(market, interval)
    frame.to_csv(tmp_path / "source.csv", index=False)
    stored = import_bars(tmp_path / "source.csv", symbol="G&P", market=market, data_dir=tmp_path / "data")
    assert stored.path == tmp_path / "data" / "bars" / interval / "G&P.parquet"
    bars, report = load_symbol(stored.path.parent, "G&P", interval=interval, market=market)
    np.testing.assert_array_equal(bars.rows[:, CLOSE], frame["close"])
    np.testing.assert_array_equal(bars.rows[:, VOLUME], frame["volume"])
    local = frame["timestamp"].dt.tz_convert(load_sessions(market).zone)
    assert [str(day) for day in bars.session_days.astype("datetime64[D]")] == local.dt.strftime(
        "%Y-%m-%d"
    ).tolist()
    assert bars.rows[0, MINUTE] == 0
    assert report.ok
    assert not report.dropped


def test_stored_bytes_are_the_same_each_time_and_hold_no_pandas_metadata(tmp_path: Path) -> None:
    """Importing twice gives the same bytes; the schema carries no index and no wall time."""
    bar_frame("nse", "1d").to_csv(tmp_path / "s.csv", index=False)
    first = import_bars(tmp_path / "s.csv", symbol="GLOOP", data_dir=tmp_path / "one").path
    second = import_bars(tmp_path / "s.csv", symbol="GLOOP", data_dir=tmp_path / "two").path
    assert first.read_bytes() == second.read_bytes()
    schema = parquet.read_schema(first)
    assert schema.metadata is None
    assert str(schema.field("timestamp").type) == "timestamp[ns, tz=UTC]"
    assert [path.name for path in first.parent.iterdir()] == ["GLOOP.parquet"]


@pytest.mark.parametrize(("market", "interval"), [("nse", "1m"), ("nse", "5m"), ("us", "5m")])
def test_end_stamped_bars_are_moved_to_their_start(tmp_path: Path, market: str, interval: str) -> None:
    """Bars labelled by their end come back one bar earlier, counted in the report; twice is not needed."""
    frame = bar_frame(market, interval)
    step = pd.Timedelta(minutes=int(interval[0]))
    store(tmp_path, frame.assign(timestamp=frame["timestamp"] + step))
    loaded = read_bars(tmp_path / "GLOOP.parquet", market=market)
    assert (loaded.frame["timestamp"].array == frame["timestamp"].array).all()
    assert any(f"{len(frame):,} bars labelled by their END" in note for note in loaded.report.notes)
    assert loaded.report.ok
    store(tmp_path, frame)
    assert not any(
        "END" in note for note in read_bars(tmp_path / "GLOOP.parquet", market=market).report.notes
    )


def test_duplicates_are_dropped_and_counted(tmp_path: Path) -> None:
    """Rows that repeat another exactly are dropped and counted, also when they stand far apart."""
    frame = bar_frame("nse", "1m", sessions=2)
    store(tmp_path, pd.concat([frame, frame.iloc[5:300], frame.iloc[:1]]))
    loaded = read_bars(tmp_path / "GLOOP.parquet", market="nse")
    assert loaded.report.dropped == {"duplicate rows": 296}
    pd.testing.assert_frame_equal(loaded.frame, frame, check_dtype=False)


def test_two_different_bars_for_one_time_are_refused(tmp_path: Path) -> None:
    """Which of two contradicting bars is right, nobody can say."""
    frame = bar_frame("nse", "1d")
    other = frame.iloc[3:4].assign(close=frame["close"].iloc[3] + 0.01)
    with pytest.raises(BarsUnusable, match="rows 3 and 12: two different bars for 2019-03-07, 1 such case"):
        read_bars(store(tmp_path, pd.concat([frame, other])), market="nse")


def test_minutes_inside_a_daily_file_are_dropped_and_counted(tmp_path: Path) -> None:
    """A day whose minutes stand beside its daily bar keeps the daily bar."""
    daily, minutes = bar_frame("nse", "1d"), bar_frame("nse", "1m", sessions=1)
    mixed = pd.concat([daily.iloc[:1], minutes, daily.iloc[1:]])
    loaded = read_bars(store(tmp_path, mixed), market="nse")
    assert loaded.report.interval == "1d"
    assert list(loaded.report.dropped.values()) == [375]
    np.testing.assert_array_equal(loaded.frame["close"], daily["close"])


def test_a_company_renamed_inside_the_file_is_one_series(tmp_path: Path) -> None:
    """A name that ends where another begins, at the same price, is noted and read on."""
    frame = bar_frame("nse", "1d")
    frame.loc[:5, "symbol"] = "GL00P"
    loaded = read_bars(store(tmp_path, frame), market="nse")
    assert loaded.report.symbol == "GLOOP"
    assert loaded.report.bars == len(frame)
    assert any("'GL00P' then 'GLOOP'" in note for note in loaded.report.notes)


def test_two_companies_in_one_file_are_refused_until_one_is_named(tmp_path: Path) -> None:
    """Interleaved symbols, or a change of name with a jump in price, are two companies."""
    frame = bar_frame("nse", "1d")
    other = frame.assign(
        symbol="OTHER", **{name: frame[name] * 3 for name in ("open", "high", "low", "close")}
    )
    both = store(tmp_path, pd.concat([frame, other]).sort_values("timestamp"))
    with pytest.raises(BarsUnusable, match=r"holds 2 symbols \(GLOOP, OTHER\)"):
        read_bars(both, market="nse")
    loaded = read_bars(both, symbol="OTHER", market="nse")
    np.testing.assert_array_equal(loaded.frame["close"], other["close"])
    assert loaded.report.dropped == {"rows of 1 other symbols": len(frame)}
    in_turn = store(tmp_path, pd.concat([frame.iloc[:6], other.iloc[6:]]), "turn")
    with pytest.raises(BarsUnusable, match="holds 2 symbols"):
        read_bars(in_turn, market="nse")


@pytest.mark.parametrize(("have", "asked"), [("1m", "1d"), ("1d", "1m"), ("5m", "1m"), ("1m", "5m")])
def test_another_interval_than_asked_is_refused(tmp_path: Path, have: str, asked: str) -> None:
    """Minutes are not read as days, nor the other way round; the message names the interval found."""
    path = store(tmp_path, bar_frame("nse", have))
    with pytest.raises(BarsUnusable, match=f"lie {have} apart, not {asked}; ask for {have}"):
        read_bars(path, interval=asked, market="nse")


def test_intervals_sqkit_does_not_take(tmp_path: Path) -> None:
    """Quarter hours and weeks are named and refused."""
    quarter = bar_frame("nse", "5m").iloc[::3]
    with pytest.raises(BarsUnusable, match="lie 15m apart; use bars of 1d, 1m or 5m"):
        read_bars(store(tmp_path, quarter), market="nse")
    with pytest.raises(BarsUnusable, match="lie 7d apart"):
        read_bars(store(tmp_path, bar_frame("nse", "1d", 60).iloc[::5].iloc[:5]), market="nse")
    with pytest.raises(UsageError, match="interval '1h' is unknown"):
        load_symbol(tmp_path, "GLOOP", interval="1h", market="nse")


def test_utc_times_without_a_zone_are_refused(tmp_path: Path) -> None:
    """Intraday times that only fit the sessions when read as UTC are not guessed at."""
    frame = bar_frame("nse", "5m")
    path = store(tmp_path, frame.assign(timestamp=frame["timestamp"].dt.tz_localize(None)))
    with pytest.raises(BarsUnusable, match=r"read as Asia/Kolkata but look like UTC"):
        read_bars(path, market="nse")


def test_the_wrong_market_is_refused_for_times_without_zone(tmp_path: Path) -> None:
    """New York times read as Indian ones lie outside the sessions, and the message says so."""
    frame = bar_frame("us", "5m")
    local = frame["timestamp"].dt.tz_convert("America/New_York").dt.tz_localize(None) + pd.Timedelta(hours=4)
    with pytest.raises(BarsUnusable, match="or name the right market"):
        read_bars(store(tmp_path, frame.assign(timestamp=local)), market="nse")


def test_bars_outside_sessions_are_left_out_and_counted(tmp_path: Path) -> None:
    """Pre-open and after-hours bars are kept in the file and left out of the arrays, with their number."""
    frame = bar_frame("nse", "1m", sessions=3)
    early = frame.iloc[:7].assign(timestamp=frame["timestamp"].iloc[:7] - pd.Timedelta(minutes=8))
    store(tmp_path, pd.concat([early, frame]))
    bars, report = load_symbol(tmp_path, "GLOOP", interval="1m", market="nse")
    assert len(bars) == len(frame)
    assert report.dropped == {"bars outside every session": 7}
    assert [finding.kind for finding in report.problems] == ["out_of_session"]


def test_nothing_inside_a_session_is_refused(tmp_path: Path) -> None:
    """A file of weekends has nothing to load."""
    dates = ["2019-03-02", "2019-03-03", "2019-03-09", "2019-03-10", "2019-03-16", "2019-03-17"]
    weekends = pd.DatetimeIndex(dates).tz_localize("Asia/Kolkata")
    store(tmp_path, bar_frame("nse", "1d").iloc[: len(dates)].assign(timestamp=weekends))
    with pytest.raises(BarsUnusable, match="no bar lies inside a session of nse"):
        load_symbol(tmp_path, "GLOOP", interval="1d", market="nse")


def test_a_missing_price_refuses_the_load_with_row_and_time(tmp_path: Path) -> None:
    """NaN in a stored file stops load and import with one line, and nothing is written."""
    frame = bar_frame("nse", "1m", sessions=1)
    frame.loc[17, "high"] = np.nan
    path = store(tmp_path, frame)
    for act in (
        lambda: load_symbol(tmp_path, "GLOOP", interval="1m", market="nse"),
        lambda: import_bars(path, symbol="NEW", data_dir=tmp_path / "data"),
    ):
        with pytest.raises(
            BarsUnusable, match=r"row 17 \(2019-03-01 04:02:00\): high is not a number"
        ) as refused:
            act()
        assert "\n" not in refused.value.message
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("column", "value", "said"), [("low", 0.0, "zero or below"), ("high", 1.0, "high is below")]
)
def test_impossible_prices_are_neither_stored_nor_loaded(
    tmp_path: Path, column: str, value: float, said: str
) -> None:
    """Zero prices and a high below the low are reported by a check and refused by import and load."""
    frame = bar_frame("nse", "1d")
    frame.loc[4, column] = value
    path = store(tmp_path, frame)
    assert not read_bars(path, market="nse").report.ok
    with pytest.raises(BarsUnusable, match=said):
        import_bars(path, symbol="NEW", data_dir=tmp_path / "data")
    with pytest.raises(BarsUnusable, match=said):
        load_symbol(tmp_path, "GLOOP", interval="1d", market="nse")


def test_an_unknown_symbol_lists_what_is_there(tmp_path: Path) -> None:
    """The message names the symbols of the folder; a symbol that leaves the folder is refused."""
    store(tmp_path, bar_frame("nse", "1d"))
    store(tmp_path, bar_frame("nse", "1d"), "A&B")
    assert available_symbols(tmp_path) == ["A&B", "GLOOP"]
    with pytest.raises(BarsNotFound, match=r"no bars of ZILCH in .* \(there are A&B, GLOOP\)") as refused:
        load_symbol(tmp_path, "ZILCH", interval="1d", market="nse")
    assert refused.value.values["available"] == ["A&B", "GLOOP"]
    with pytest.raises(BarsNotFound, match="no such folder here"):
        load_symbol(tmp_path / "empty", "ZILCH", interval="1d", market="nse")
    with pytest.raises(UsageError):
        load_symbol(tmp_path, "../GLOOP", interval="1d", market="nse")


def test_bars_from_a_url_folder() -> None:
    """A folder behind an fsspec URL is listed and loaded like a local one."""
    frame = bar_frame("nse", "1d")
    with fsspec.open("memory://shelf/GLOOP.parquet", "wb") as stream:
        stream.write(parquet_bytes(frame))
    assert available_symbols("memory://shelf") == ["GLOOP"]
    loaded, lines = load_symbols("memory://shelf", ["GLOOP"], interval="1d", market="nse")
    np.testing.assert_array_equal(loaded["GLOOP"].rows[:, CLOSE], frame["close"])
    assert lines == []
    with pytest.raises(BarsNotFound, match="GLOOP"):
        load_symbol("memory://shelf", "ZILCH", interval="1d", market="nse")
    with pytest.raises(BarsFormatRefused, match="cannot be listed"):
        available_symbols("nonsense://shelf")


@pytest.mark.parametrize("volume", [0.0, np.nan])
def test_a_volume_that_says_nothing_is_noted(tmp_path: Path, volume: float) -> None:
    """An index has a volume of null or zero throughout; the report says what follows from it."""
    store(tmp_path, bar_frame("nse", "5m").assign(volume=volume))
    _, report = load_symbol(tmp_path, "GLOOP", interval="5m", market="nse_index")
    assert any("throughout: volume features are 0" in note for note in report.notes)


_IMPORT_SCRIPT = """
import resource, sys
from sqkit.errors import OutputError
from sqkit.research.marketdata import import_bars
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
try:
    import_bars(sys.argv[1], symbol="NEW", data_dir=sys.argv[2])
except OutputError as problem:
    print(problem.message)
"""


def test_a_write_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    """A file system that stops taking bytes is one clear line, and no half file stays behind."""
    path = store(tmp_path, bar_frame("nse", "1m", sessions=3))
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_SCRIPT, str(path), str(tmp_path / "data")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "file size limit" in done.stdout
    assert not [left for left in (tmp_path / "data").rglob("*") if left.is_file()]


def test_check_of_a_folder_reports_every_file(tmp_path: Path) -> None:
    """A refused file is a finding among the reports of the others."""
    store(tmp_path, bar_frame("nse", "1d"))
    (tmp_path / "z.csv").write_text("date,open,high,low,close,volume\n")
    good, refused = check_files(tmp_path)
    assert good.ok
    assert (refused.ok, refused.problems[0].kind) == (False, "refused")
    assert refused.lines()[0].startswith("refused: ")
    with pytest.raises(BarsNotFound, match="no files lie in this folder"):
        (tmp_path / "none").mkdir()
        check_files(tmp_path / "none")


REAL_FILES = {
    # bars, interval, dropped, a note that must be there
    "bhavcopy/M&M.csv": (1277, "1d", {}, "%d%m%y"),
    "bhavcopy/RELIANCE.csv": (1277, "1d", {}, "column 7 read as volume"),
    "bhavcopy/TCS.csv": (1277, "1d", {}, "no header"),
    "kaggle/HINDALCO.csv": (5306, "1d", {}, "'HINDALC0' then 'HINDALCO'"),
    "kaggle/MM.csv": (5306, "1d", {}, "columns not used"),
    "kaggle/RELIANCE.csv": (5306, "1d", {}, "columns not used"),
    "eod/RELIANCE_ddmmyyyy_novolume.csv": (1220, "1d", {}, "volume is empty"),
    "index_txt/2016 JULY NIFTY.txt": (7500, "1m", {"duplicate rows": 7125}, "labelled by their END"),
    "yfinance/M&M_5min_multiheader.csv": (1650, "5m", {}, "header of 3 rows"),
}


@pytest.mark.parametrize("name", list(REAL_FILES))
def test_real_odd_files_load(shared_data: Path, name: str) -> None:
    """Every usable odd file loads whole, with what was dropped and assumed said."""
    bars, interval, dropped, note = REAL_FILES[name]
    loaded = read_bars(shared_data / "raw" / name, market="nse")
    assert (loaded.report.bars, loaded.report.interval, loaded.report.dropped) == (bars, interval, dropped)
    assert any(note in said for said in loaded.report.notes), loaded.report.notes
    frame = loaded.frame
    assert frame["timestamp"].is_monotonic_increasing
    assert (frame["high"] >= frame[["open", "close", "low"]].max(axis=1)).all()
    kinds = {finding.kind for finding in loaded.report.problems}
    assert kinds <= {"gaps", "unadjusted_split"}


def test_every_real_odd_file_is_covered(shared_data: Path) -> None:
    """No file of the folder is forgotten by the tests above and below."""
    files = {
        str(path.relative_to(shared_data / "raw"))
        for path in (shared_data / "raw").rglob("*")
        if path.is_file()
    }
    assert files == {*REAL_FILES, "eod/RELIANCE_header_only.csv", "eod/RELIANCE_close_only_desc.csv"}


@pytest.mark.parametrize(
    ("name", "said"),
    [("RELIANCE_header_only.csv", "holds no bars"), ("RELIANCE_close_only_desc.csv", "closing prices only")],
)
def test_real_unusable_files_are_refused(shared_data: Path, name: str, said: str) -> None:
    """A header alone and closing prices alone are refused with the way out."""
    with pytest.raises(BarsFormatRefused, match=said):
        read_bars(shared_data / "raw" / "eod" / name, market="nse")


def test_real_odd_files_agree_with_the_clean_ones(shared_data: Path) -> None:
    """The bars of odd files equal those of the clean daily files on common dates."""
    clean = read_bars(
        shared_data / "nse" / "daily_unadjusted_2000_2021" / "RELIANCE.parquet", market="nse"
    ).frame.set_index("timestamp")
    for name in ("bhavcopy/RELIANCE.csv", "kaggle/RELIANCE.csv"):
        odd = read_bars(shared_data / "raw" / name, market="nse").frame.set_index("timestamp")
        common = odd.index.intersection(clean.index)
        assert len(common) > 1000
        columns = ["open", "high", "low", "close", "volume"]
        same = np.isclose(odd.loc[common, columns], clean.loc[common, columns], rtol=1e-4).all(axis=1)
        assert same.mean() > 0.99, name


@pytest.mark.parametrize(
    ("folder", "interval", "market"),
    [
        ("daily_adjusted_2008_2021", "1d", "nse"),
        ("daily_unadjusted_2000_2021", "1d", "nse"),
        ("minute_2016", "1m", "nse"),
        ("minute_2021", "1m", "nse"),
        ("index_minute_2012_2021", "1m", "nse_index"),
        ("five_minute_2025_01", "5m", "nse"),
    ],
)
def test_real_clean_files_lose_no_bar(shared_data: Path, folder: str, interval: str, market: str) -> None:
    """No bar of the clean files is dropped, except minutes that one daily file holds by mistake."""
    location = shared_data / "nse" / folder
    for symbol in available_symbols(location):
        bars, report = load_symbol(location, symbol, interval=interval, market=market)
        stored = parquet.read_metadata(location / f"{symbol}.parquet").num_rows
        assert len(bars) == stored - sum(report.dropped.values())
        assert sum(report.dropped.values()) == (
            375 if (folder, symbol) == ("daily_adjusted_2008_2021", "UPL") else 0
        )
        assert (np.diff(bars.rows[:, SESSION]) >= 0).all()
        errors = {finding.kind for finding in report.problems if finding.severity == "error"}
        assert errors <= {"unadjusted_split"}
