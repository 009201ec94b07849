"""Every odd form a file of bars can have, written here with names and values of our own."""

from __future__ import annotations

import datetime as dt
import gzip
import os
import pickle
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqkit.errors import BarsFormatRefused, BarsNotFound, BarsUnusable, SqkitError
from sqkit.research.marketdata import COLUMNS, Loaded, parquet_bytes, read_bars
from sqkit.sessions import load_sessions


def session_dates(count: int, first: str = "2019-03-01", market: str = "nse") -> list[dt.date]:
    """The first `count` session dates from a date on."""
    start = int(np.datetime64(first, "D").astype(int))
    days = load_sessions(market).session_days(start, start + 2 * count + 40)[:count]
    return [dt.date(1970, 1, 1) + dt.timedelta(days=int(day)) for day in days]


def prices(count: int, seed: int = 7, level: float = 512.0) -> np.ndarray:
    """Open, high, low, close and volume of a made-up walk, two decimals, well-formed."""
    random = np.random.default_rng(seed)
    close = np.round(level + np.cumsum(random.normal(0, 1.5, count)), 2)
    opens = np.round(close + random.normal(0, 1, count), 2)
    high = np.round(np.maximum(opens, close) + random.uniform(0.01, 2, count), 2)
    low = np.round(np.minimum(opens, close) - random.uniform(0.01, 2, count), 2)
    return np.column_stack([opens, high, low, close, random.integers(1_000, 90_000, count)])


def read(path: Path | str, **options: object) -> Loaded:
    """`read_bars` of an NSE file unless told otherwise."""
    return read_bars(path, **{"market": "nse", **options})  # type: ignore[arg-type]


def assert_daily(loaded: Loaded, dates: list[dt.date], values: np.ndarray, volume: bool = True) -> None:
    """The bars are exactly those dates and values."""
    frame = loaded.frame
    assert tuple(frame.columns) == COLUMNS
    assert str(frame["timestamp"].dtype) == "datetime64[ns, UTC]"
    local = frame["timestamp"].dt.tz_convert(load_sessions(loaded.report.market).zone)
    assert (local == local.dt.normalize()).all()
    assert local.dt.date.tolist() == dates
    np.testing.assert_array_equal(frame[list(COLUMNS[2:6])].to_numpy(), values[:, :4])
    if volume:
        np.testing.assert_array_equal(frame["volume"].to_numpy(), values[:, 4])
    else:
        assert frame["volume"].isna().all()


DATES, VALUES = session_dates(30), prices(30)


def rows(date_form: str, delimiter: str = ",", columns: tuple[int, ...] = (0, 1, 2, 3, 4)) -> list[str]:
    """The daily bars as text lines."""
    return [
        delimiter.join([date.strftime(date_form), *(f"{VALUES[i, c]:g}" for c in columns)])
        for i, date in enumerate(DATES)
    ]


def write(path: Path, lines: list[str], newline: str = "\n", encoding: str = "utf-8") -> Path:
    """Lines as a file."""
    path.write_bytes((newline.join(lines) + newline).encode(encoding))
    return path


@pytest.mark.parametrize(
    "date_form",
    ["%Y-%m-%d", "%d-%m-%Y", "%m/%d/%Y", "%d/%m/%y", "%Y%m%d", "%d%m%Y", "%d-%b-%Y", "%d-%b-%y", "%b %d; %Y", "%d.%m.%Y",
     "%Y/%m/%d", "%d %B %Y", "%Y-%m-%dT00:00:00", "%Y-%m-%d 00:00:00+05:30"],
)  # fmt: skip
def test_dates_in_any_spelling(tmp_path: Path, date_form: str) -> None:
    """The same bars come out of every common way to write a date."""
    delimiter = ";" if "," in date_form else ","
    form = date_form.replace(";", ",")
    delimiter = ";" if "," in form else ","
    head = delimiter.join(["Date", "Open", "High", "Low", "Close", "Volume"])
    path = write(tmp_path / "ZORBA.csv", [head, *rows(form, delimiter)])
    assert_daily(read(path), DATES, VALUES)


@pytest.mark.parametrize(
    "header",
    [
        "timestamp,open,high,low,close,volume",
        "DATE,OPEN,HIGH,LOW,CLOSE,VOLUME",
        " Date , Open Price , High Price , Low Price , Close Price , Total Traded Quantity ",
        "Trade Date,OPEN_PRICE,HIGH_PRICE,LOW_PRICE,CLOSE_PRICE,TTL_TRD_QNTY",
        ",Open,High,Low,Close,Volume",
        "Datetime,o,h,l,c,v",
    ],
)
def test_headers_in_any_spelling(tmp_path: Path, header: str) -> None:
    """Columns are found by the names vendors give them, and a nameless first column is the date."""
    assert_daily(read(write(tmp_path / "Q.csv", [header, *rows("%Y-%m-%d")])), DATES, VALUES)


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize(("newline", "encoding"), [("\r\n", "utf-8-sig"), ("\n", "utf-16")])
def test_delimiters_line_ends_and_encodings(
    tmp_path: Path, delimiter: str, newline: str, encoding: str
) -> None:
    """Semicolons, tabs and bars separate; byte order marks and Windows line ends do not matter."""
    head = delimiter.join(["date", "open", "high", "low", "close", "volume"])
    path = write(tmp_path / "Q.txt", [head, *rows("%Y-%m-%d", delimiter)], newline, encoding)
    assert_daily(read(path), DATES, VALUES)


def test_columns_in_another_order_and_columns_of_no_use(tmp_path: Path) -> None:
    """Order does not matter; what is not used is named, and its empty cells do no harm."""
    lines = [
        f"{date:%Y-%m-%d},GLOOP,EQ,,{v[3]},{v[2]},{v[1]},{v[0]},{v[4]:.0f},"
        for date, v in zip(DATES, VALUES, strict=True)
    ]
    header = "Date,Symbol,Series,Prev Close,Close,Low,High,Open,Volume,%Deliverble"
    loaded = read(write(tmp_path / "x.csv", [header, *lines]))
    assert_daily(loaded, DATES, VALUES)
    assert loaded.report.symbol == "GLOOP"
    assert "columns not used: Series, Prev Close, %Deliverble" in loaded.report.notes


def test_lines_above_the_header_are_skipped_and_said(tmp_path: Path) -> None:
    """A vendor's title does not hide the header."""
    lines = ["Historical data of Gloop Ltd", "date,open,high,low,close,volume", *rows("%Y-%m-%d")]
    loaded = read(write(tmp_path / "x.csv", lines))
    assert_daily(loaded, DATES, VALUES)
    assert "1 line(s) above the header skipped" in loaded.report.notes


def test_thousands_separators(tmp_path: Path) -> None:
    """Quoted numbers with Indian or western grouping are numbers."""
    lines = [
        f'{date:%Y-%m-%d},"{v[0] + 100_000:,.2f}","{v[1] + 100_000:,.2f}","{v[2] + 100_000:,.2f}","1,00,{v[3]:06.2f}","{v[4]:,.0f}"'
        for date, v in zip(DATES, VALUES, strict=True)
    ]
    loaded = read(write(tmp_path / "x.csv", ["date,open,high,low,close,volume", *lines]))
    expected = VALUES.copy()
    expected[:, :4] += 100_000
    np.testing.assert_allclose(loaded.frame[list(COLUMNS[2:])].to_numpy(), expected, rtol=1e-12)


def test_no_header_all_quoted_two_digit_years_and_turnover(tmp_path: Path) -> None:
    """ddmmyy with its leading zero is told from yymmdd by order; turnover gives the volume away."""
    lines = [
        ",".join(
            f'"{cell}"'
            for cell in (
                f"{date:%d%m%y}", f"{v[0]:.2f}", f"{v[1]:.2f}", f"{v[2]:.2f}", f"{v[3]:.2f}",
                f"{v[4] * v[:4].mean():.2f}", f"{v[4]:.0f}", f"{v[4] // 30:.0f}",
            )
        )
        for date, v in zip(DATES, VALUES, strict=True)
    ]  # fmt: skip
    loaded = read(write(tmp_path / "A&B.csv", lines))
    assert_daily(loaded, DATES, VALUES)
    assert loaded.report.symbol == "A&B"
    assert any("%d%m%y" in note for note in loaded.report.notes)
    assert any("column 7 read as volume" in note for note in loaded.report.notes)


def test_no_header_with_symbol_date_and_time_columns(tmp_path: Path) -> None:
    """Symbol, yyyymmdd and HH:MM in three columns; the symbol's name and minutes are kept."""
    day, minutes = session_dates(1)[0], 375
    values = prices(minutes)
    lines = []
    for i in range(minutes):
        minute = 9 * 60 + 15 + i
        lines.append(
            f"GIZMO,{day:%Y%m%d},{minute // 60:02}:{minute % 60:02},"
            + ",".join(f"{x:g}" for x in values[i])
            + ",0"
        )
    loaded = read(write(tmp_path / "2019 MARCH GIZMO.txt", lines))
    assert (loaded.report.symbol, loaded.report.interval, loaded.report.bars) == ("GIZMO", "1m", minutes)
    assert loaded.frame["timestamp"].iloc[0] == pd.Timestamp(f"{day} 09:15", tz="Asia/Kolkata")
    assert not loaded.report.problems


@pytest.mark.parametrize("third_row", [True, False])
@pytest.mark.parametrize("interval", ["1d", "5m"])
def test_yfinance_header_rows(tmp_path: Path, third_row: bool, interval: str) -> None:
    """Two or three header rows, close first, the ticker as symbol, UTC stamps of five-minute bars."""
    if interval == "1d":
        stamps = [f"{date:%Y-%m-%d}" for date in DATES]
    else:
        first = pd.Timestamp(f"{DATES[0]} 09:15", tz="Asia/Kolkata").tz_convert("UTC")
        stamps = [str(first + pd.Timedelta(minutes=5 * i)) for i in range(30)]
    lines = ["Price,Close,High,Low,Open,Volume", "Ticker" + ",W&W.NS" * 5]
    lines += [("Date" if interval == "1d" else "Datetime") + "," * 5] if third_row else []
    lines += [f"{s},{v[3]},{v[1]},{v[2]},{v[0]},{v[4]:.0f}" for s, v in zip(stamps, VALUES, strict=True)]
    loaded = read(write(tmp_path / "x.csv", lines))
    assert (loaded.report.symbol, loaded.report.interval) == ("W&W.NS", interval)
    np.testing.assert_array_equal(loaded.frame[list(COLUMNS[2:])].to_numpy(), VALUES)
    assert loaded.report.ok


def test_yfinance_table_of_several_tickers(tmp_path: Path) -> None:
    """One ticker is taken by name; without a name the file is refused and lists them."""
    lines = [
        "Price" + ",Close,Close,High,High,Low,Low,Open,Open,Volume,Volume".replace(" ", ""),
        "Ticker" + ",AAX,BBX" * 5,
        "Date" + "," * 10,
    ]
    for date, v in zip(DATES, VALUES, strict=True):
        cells = [value for name in (3, 1, 2, 0, 4) for value in (v[name], v[name] * 2)]
        lines.append(f"{date}," + ",".join(f"{cell:g}" for cell in cells))
    path = write(tmp_path / "x.csv", lines)
    np.testing.assert_array_equal(read(path, symbol="BBX").frame["close"].to_numpy(), VALUES[:, 3] * 2)
    with pytest.raises(BarsFormatRefused, match=r"2 symbols side by side \(AAX, BBX\)"):
        read(path)


def test_newest_first_is_turned_round_and_said(tmp_path: Path) -> None:
    """A descending file loads in ascending order, and the report says so."""
    path = write(tmp_path / "x.csv", ["date,open,high,low,close,volume", *rows("%d-%b-%Y")[::-1]])
    loaded = read(path)
    assert_daily(loaded, DATES, VALUES)
    assert any("newest first" in note for note in loaded.report.notes)


def test_without_volume(tmp_path: Path) -> None:
    """A file without volume loads with an empty one, and the report says so."""
    path = write(tmp_path / "x.csv", ["date,open,high,low,close", *rows("%d-%m-%Y", columns=(0, 1, 2, 3))])
    loaded = read(path)
    assert_daily(loaded, DATES, VALUES, volume=False)
    assert any("volume is empty throughout" in note for note in loaded.report.notes)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"date,open,high,low,close,volume\n", "holds no bars"),
        ("b.csv", b"", "holds no bars"),
        ("c.csv", b"DAY,CLOSE\n2019-03-01,10\n", "closing prices only"),
        ("d.csv", b"date,open,high,close\n2019-03-01,1,2,3\n", "no column for low"),
        ("e.csv", b"date,open,high,low,close\nsoon,1,2,1,2\n", "line 2: 'soon' is no date"),
        ("f.csv", b"date,open,high,low,close\n2019-03-01,1,2,1,abc\n", "line 2: close is 'abc'"),
        ("g.csv", b"date,open,high,low,close\n2019-03-01,1,2,1,2,3,4\n2019-03-02,1,2,1,2,3,4,5\n", "not a regular table"),
        ("h.csv", b"2019-03-01,5,4,3,9\n2019-03-04,5,4,3,9\n", "are not open, high, low, close"),
        ("i.csv", b"hello\nworld\n", "no header"),
        ("j.csv", b"date,open,high,low,close\n01-02-2019,1,2,1,2\n", "can be read as"),
        ("k.csv", b"date,time,open,high,low,close\n2019-03-01,25:15,1,2,1,2\n", "no time of day"),
        ("l.parquet", b"PAR1 and nothing more", "damaged Parquet"),
        ("m.xlsx", b"PK\x03\x04....", "Excel workbook"),
        ("n.h5", b"\x89HDF\r\n", "HDF5"),
        ("o.csv.gz", b"\x1f\x8bbroken", "damaged gzip"),
        ("p.csv", b"date,open,high,low,close\n2019-03-01T09:15Z,1,2,1,2\n2019-03-01T09:16,1,2,1,2\n", "has no zone"),
    ],
)  # fmt: skip
def test_refusals_name_file_fault_and_way_out(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    """A file that holds no usable bars is refused in one line that names it."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BarsFormatRefused, match=said) as refused:
        read(path)
    assert str(path) in refused.value.message
    assert "\n" not in refused.value.message


class _Trap:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["bars.pkl", "bars.pickle", "bars.joblib", "bars.csv", "bars.parquet"])
def test_a_pickle_is_never_opened(tmp_path: Path, name: str) -> None:
    """A pickle is refused by its name and by its first byte, and no code in it runs."""
    trap = tmp_path / "sprung"
    (tmp_path / name).write_bytes(pickle.dumps(_Trap(trap)))
    with pytest.raises(BarsFormatRefused, match="pickle"):
        read(tmp_path / name)
    assert not trap.exists()


def test_missing_file_and_folder(tmp_path: Path) -> None:
    """A path that leads nowhere, or to a folder, is named."""
    with pytest.raises(BarsNotFound, match="no such file"):
        read(tmp_path / "none.csv")
    with pytest.raises(BarsFormatRefused, match="is a folder"):
        read(tmp_path)


def test_missing_price_names_row_and_time(tmp_path: Path) -> None:
    """A price that is not a number stops the load with the line and the date it stands on."""
    lines = ["date,open,high,low,close,volume", *rows("%Y-%m-%d")]
    lines[5] = f"{DATES[4]},1,2,,2,5"
    with pytest.raises(BarsUnusable, match=rf"line 6 \({DATES[4]} 00:00:00\): low is not a number, 1 such"):
        read(write(tmp_path / "x.csv", lines))


def canonical(zone: str = "Asia/Kolkata", unit: str = "ms") -> pd.DataFrame:
    """The daily bars as a data frame stamped at midnight of a zone."""
    stamps = pd.DatetimeIndex(pd.to_datetime(DATES)).tz_localize(zone).as_unit(unit)
    frame = pd.DataFrame(VALUES, columns=["open", "high", "low", "close", "volume"])
    frame.insert(0, "symbol", "GLOOP")
    frame.insert(0, "timestamp", stamps)
    return frame


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_parquet_units_become_nanoseconds(tmp_path: Path, unit: str) -> None:
    """Whatever unit a Parquet file has, the bars come in nanoseconds and keep their session date."""
    canonical(unit=unit).to_parquet(tmp_path / "x.parquet")
    assert_daily(read(tmp_path / "x.parquet"), DATES, VALUES)


def test_parquet_with_index_dates_or_text(tmp_path: Path) -> None:
    """The time may stand in pandas' index, as dates without time, as text or as epoch numbers."""
    frame = canonical()
    indexed = frame.set_index("timestamp").drop(columns="symbol")
    indexed.index.name = None
    dates = frame.assign(timestamp=DATES)
    text = frame.assign(timestamp=[date.isoformat() for date in DATES])
    epoch = frame.assign(timestamp=frame["timestamp"].dt.as_unit("ms").astype("int64"))
    for name, variant in (("i", indexed), ("d", dates), ("t", text), ("e", epoch)):
        variant.to_parquet(tmp_path / f"{name}.parquet")
        assert_daily(read(tmp_path / f"{name}.parquet"), DATES, VALUES)


@pytest.mark.parametrize(
    ("market", "zone", "hour"),
    [
        ("nse", "Asia/Kolkata", 0), ("nse", "UTC", 0), ("nse", "Asia/Kolkata", 9), ("nse", "Asia/Kolkata", 15),
        ("us", "America/New_York", 0), ("us", "UTC", 0), ("us", "America/New_York", 16), ("us", "Europe/London", 0),
    ],
)  # fmt: skip
def test_daily_stamps_of_any_clock_keep_their_date(tmp_path: Path, market: str, zone: str, hour: int) -> None:
    """Midnight of the market, of UTC or of the file's clock, and hours inside the session, mean that date."""
    dates = session_dates(30, market=market)
    frame = canonical().assign(
        timestamp=(pd.DatetimeIndex(pd.to_datetime(dates)) + pd.Timedelta(hours=hour)).tz_localize(zone)
    )
    frame.to_parquet(tmp_path / "x.parquet")
    loaded = read(tmp_path / "x.parquet", market=market)
    assert_daily(loaded, dates, VALUES)
    assert loaded.report.ok


def test_daily_bars_dated_one_day_late_are_moved(tmp_path: Path) -> None:
    """Bars dated at the end of their day (a Friday's on Saturday) come back to their session, and it is said."""
    late = canonical().assign(timestamp=[date + dt.timedelta(days=1) for date in DATES])
    late.to_parquet(tmp_path / "x.parquet")
    loaded = read(tmp_path / "x.parquet")
    assert_daily(loaded, DATES, VALUES)
    assert any("one day late" in note for note in loaded.report.notes)


def test_gzip(tmp_path: Path) -> None:
    """A gzipped CSV is read as what it holds."""
    text = "\n".join(["date,open,high,low,close,volume", *rows("%Y-%m-%d")])
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert_daily(read(tmp_path / "x.csv.gz"), DATES, VALUES)


def test_fsspec_urls(tmp_path: Path) -> None:
    """memory:// and file:// addresses are read like paths; a bad address is one clear line."""
    with fsspec.open("memory://barbox/GLOOP.parquet", "wb") as stream:
        stream.write(parquet_bytes(canonical()))
    assert_daily(read("memory://barbox/GLOOP.parquet"), DATES, VALUES)
    path = write(tmp_path / "x.csv", ["date,open,high,low,close,volume", *rows("%Y-%m-%d")])
    assert_daily(read(path.as_uri()), DATES, VALUES)
    with pytest.raises(BarsNotFound, match="no such file"):
        read("memory://barbox/none.parquet")
    with pytest.raises(BarsFormatRefused, match=r"nonsense://x/y\.csv"):
        read("nonsense://x/y.csv")


@given(
    lines=st.lists(st.text(st.sampled_from(',;-/: \t"0123456789.ABdeuz\x00é'), max_size=40), max_size=8),
    head=st.sampled_from(["", "date,open,high,low,close,volume\n", "Price,Close,High\nTicker,A,A\n"]),
)
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_text_brings_anything_but_a_refusal(tmp_path: Path, head: str, lines: list[str]) -> None:
    """Whatever stands in a text file, it loads or is refused in one line."""
    (tmp_path / "x.csv").write_text(head + "\n".join(lines), encoding="utf-8")
    try:
        read(tmp_path / "x.csv")
    except SqkitError as refused:
        assert "\n" not in refused.message  # noqa: PT017 - loading is as good


_ZONE_SCRIPT = """
import sys
from sqkit.research.marketdata import load_symbol, read_bars
from sqkit.files import sha256_bytes
loaded = read_bars(sys.argv[1], market="nse")
print(loaded.report.lines()[1:], loaded.frame.to_csv())
"""


def test_the_machines_own_zone_changes_nothing(tmp_path: Path) -> None:
    """The same bars and the same report under TZ=UTC, Asia/Kolkata and America/New_York."""
    path = write(tmp_path / "x.csv", ["date,open,high,low,close,volume", *rows("%Y-%m-%d 00:00")])
    outputs = set()
    for zone in ("UTC", "Asia/Kolkata", "America/New_York"):
        done = subprocess.run(
            [sys.executable, "-c", _ZONE_SCRIPT, str(path)],
            env={**os.environ, "TZ": zone},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1
    assert (
        str(DATES[0] - dt.timedelta(days=1)) in outputs.pop()
    )  # midnight in Kolkata is the evening before in UTC
