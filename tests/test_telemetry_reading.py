"""One function reads what engines and validations recorded: the same columns, whatever stands between the lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqkit.errors import ArtifactChanged, TelemetryMixed, TelemetryNotFound, UsageError
from sqkit.production.admission import Admission
from sqkit.production.engine import Config, Engine
from sqkit.production.engine_time import SetClock
from sqkit.production.replay import replay_feed
from sqkit.production.scorer import StudentScorer
from sqkit.production.telemetry import TelemetryWriter
from sqkit.records import (
    BAR_STATUS_CODES,
    PREDICTION_FIELDS,
    TRADE_FIELDS,
    UNKNOWN,
    decode,
    encode,
    iso_date,
)
from sqkit.research.telemetry import LIVE_FIELDS, Telemetry, read_predictions, read_records, read_trades
from sqkit.versions import version_ns
from tests.market import Market, settings_of

Columns = dict[str, np.ndarray]
TORN = (b'{"event":"prediction","id":"swing/PLAN', b"\xff\xfe\x00", b"[]", b"7", b"NaN", b'{"event": 3}x')
FOREIGN = (b"{}", b'{"event":"prediction"}', b'{"event":"trade_closed","symbol":"PLANT01"}', b'{"event":[]}')


@pytest.fixture(scope="module")
def written(planted: Market, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data/telemetry`` of an engine that was fed the window of the planted validation."""
    return write_live(planted, tmp_path_factory.mktemp("live"))


def write_live(market: Market, home: Path) -> Path:
    """Feed a market's validation window to an engine that writes real telemetry; the telemetry folder."""
    model, given_settings, clock = market.model(), settings_of(home), SetClock()
    window = market.window
    spans = {name: bars.window(window.first_day, window.last_day) for name, bars in market.bars.items()}
    scorer = StudentScorer(
        given_settings,
        market.strategy,
        now_ns=lambda: version_ns(model.version),
        admission=Admission(model, "", "", "default", home / "student_model.onnx"),
    )
    config = Config(market.strategy, tuple(market.bars), interval="1d", calendar="us")
    sink = TelemetryWriter(home / "telemetry", "test", 0)
    engine = Engine(
        config,
        given_settings,
        root=home,
        clock=clock,
        scorer=scorer,
        challengers=(),
        sink=sink,
        keep_state=False,
        watch=False,
    )
    with engine:
        engine.warm_up({name: bars.slice(0, spans[name][0]) for name, bars in market.bars.items()})
        replay_feed(engine, clock, {name: bars.slice(*spans[name]) for name, bars in market.bars.items()})
    return home / "telemetry"


def same(ours: Columns, theirs: Columns, names: Any) -> None:
    """The same bits, column by column; NaN is like NaN."""
    for name in names:
        assert ours[name].dtype == theirs[name].dtype, name
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def is_the_validation(live: Telemetry, stored: Telemetry) -> None:
    """Every column but the outcome, which an engine does not know."""
    assert set(live.symbols) == set(stored.symbols)
    for symbol, columns in stored.symbols.items():
        same(live.symbols[symbol], columns, set(PREDICTION_FIELDS) - {"outcome"})
        assert (live.symbols[symbol]["outcome"] == UNKNOWN).all()
        assert list(live.symbols[symbol]) == list(PREDICTION_FIELDS)


class TestLiveAndValidationAlike:
    """The same bars through an engine and through a backtest, read by one function."""

    def test_predictions(self, written: Path, validated: Path) -> None:
        """Equal columns; nothing is said, for nothing was wrong."""
        live = read_predictions(written)
        is_the_validation(live, read_predictions(validated / "validation_telemetry"))
        assert (live.duplicates, live.broken, live.notes, live.live) == (0, 0, (), {})

    def test_trades(self, written: Path, validated: Path) -> None:
        """Equal columns of every trade; one that is still open has what it was entered with."""
        live = read_trades(written)
        stored = read_trades(validated / "validation_telemetry")
        traded = {symbol for symbol, columns in stored.symbols.items() if len(columns["entry_time"])}
        assert set(live.symbols) == traded
        assert live.duplicates == live.broken == 0
        for symbol in traded:
            ours, theirs = live.symbols[symbol], stored.symbols[symbol]
            closed = theirs["exit_time"] != 0
            assert len(ours["entry_time"]) == len(closed)
            same(
                {name: column[closed] for name, column in ours.items()},
                {name: column[closed] for name, column in theirs.items()},
                TRADE_FIELDS,
            )
            same(ours, theirs, ("entry_time", "entry_price", "quantity", "direction", "exit_time"))

    @given(data=st.data())
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def test_however_the_lines_lie(
        self, written: Path, validated: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        """Lines of several processes, repeated, torn and foreign: the columns are the same, and all is counted."""
        draw = data.draw
        folder = tmp_path_factory.mktemp("mixed")
        lines = [
            line for file in sorted(written.glob("2*/*.jsonl")) for line in file.read_bytes().splitlines()
        ]
        seed = draw(st.integers(0, 2**32 - 1), label="seed")
        generator = np.random.default_rng(seed)
        repeated = [
            line for line in lines if b'"prediction"' in line and generator.random() < draw(st.just(0.05))
        ]
        torn = draw(st.lists(st.sampled_from(TORN + FOREIGN), max_size=12), label="torn")
        mixed = [*lines, *repeated, *torn]
        sessions = [iso_date(15_000 + number) for number in range(draw(st.integers(1, 4), label="folders"))]
        for place in generator.permutation(len(mixed)):
            file = folder / generator.choice(sessions) / f"host-{generator.integers(3)}.jsonl"
            file.parent.mkdir(exist_ok=True)
            with file.open("ab") as handle:
                handle.write(mixed[place] + b"\n" * int(generator.integers(1, 3)))

        live = read_predictions(folder)

        is_the_validation(live, read_predictions(validated / "validation_telemetry"))
        foreign_trades = sum(line == FOREIGN[2] for line in torn)
        assert live.duplicates == len(repeated)
        assert live.broken == len(torn) - foreign_trades
        assert bool(live.broken) == any("torn or foreign" in note for note in live.notes)
        trades, whole = read_trades(folder), read_trades(written)
        assert set(trades.symbols) == set(whole.symbols)
        for symbol, columns in whole.symbols.items():
            same(trades.symbols[symbol], columns, TRADE_FIELDS)


class TestPlaces:
    """What may be named."""

    def test_a_session_or_one_file(self, written: Path) -> None:
        """A session's folder and one file of it give its rows, a Parquet file its symbol."""
        session = sorted(written.glob("2*"))[5]
        (file,) = session.glob("*.jsonl")
        for place in (session, file):
            found = read_predictions(place)
            days = np.concatenate([columns["session_date"] for columns in found.symbols.values()])
            assert {iso_date(day) for day in days} == {session.name}

    def test_one_parquet_file_and_the_baseline(self, validated: Path) -> None:
        """A file by itself, and the other role of a folder."""
        folder = validated / "validation_telemetry"
        single = read_predictions(folder / "PLANT02.parquet")
        assert list(single.symbols) == ["PLANT02"]
        same(single.symbols["PLANT02"], read_records(folder / "PLANT02.parquet").columns, PREDICTION_FIELDS)
        baseline = read_predictions(folder, role="baseline").symbols
        assert set(baseline) == set(read_predictions(folder).symbols)
        assert not any(columns["student_prediction"].any() for columns in baseline.values())

    @pytest.mark.parametrize("read", [read_predictions, read_trades])
    def test_nothing_there(self, tmp_path: Path, read: Any) -> None:
        """An empty folder, one that is not there and a file of another kind are refused with the way out."""
        (tmp_path / "notes.txt").write_text("x")
        for place in (tmp_path, tmp_path / "nowhere", tmp_path / "nowhere.jsonl", tmp_path / "notes.txt"):
            with pytest.raises(TelemetryNotFound, match="give a validation_telemetry folder"):
                read(place)

    def test_the_other_kind(self, validated: Path) -> None:
        """A file of trades holds no predictions."""
        with pytest.raises(TelemetryNotFound, match="read_trades trades"):
            read_predictions(validated / "validation_telemetry" / "PLANT02@trades.parquet")

    def test_a_broken_parquet_file(self, tmp_path: Path) -> None:
        """A validation's artifact is whole or refused, as ever."""
        (tmp_path / "PLANT01.parquet").write_bytes(b"PAR1")
        with pytest.raises(ArtifactChanged):
            read_predictions(tmp_path)


class TestLines:
    """What single lines may hold."""

    def test_what_only_live_has(self, written: Path, planted: Market) -> None:
        """Features, times, latency, locks and bar statuses stand beside the columns when asked for."""
        found = read_predictions(written, live=True)
        columns = planted.model().feature_set.columns
        for symbol, beside in found.live.items():
            assert tuple(beside) == LIVE_FIELDS
            rows = len(found.symbols[symbol]["bar_time"])
            assert {len(column) for column in beside.values()} == {rows}
            assert all(len(features) == len(columns) for features in beside["features"])
            assert all(value >= 0.0 for value in beside["latency_us"])
            assert set(beside["bar_status"]) == {BAR_STATUS_CODES["ok"]}
            assert set(beside["student_model_version"]) == {planted.model().version}
            assert all(one.startswith(f"swing/{symbol}/") for one in beside["id"])
            assert (np.diff(beside["decision_time"]) > 0).all()

    def test_the_first_of_two_counts(self, written: Path, tmp_path: Path) -> None:
        """Two engines decided on one bar: what was decided first counts, whichever file is read first."""
        (first, *_) = sorted(written.glob("2*/*.jsonl"))
        record = next(
            one for one in map(json.loads, first.read_bytes().splitlines()) if one["event"] == "prediction"
        )
        later = record | {"decision_time": "2030-01-01T00:00:00.000000Z", "target": 0.125}
        (tmp_path / "a.jsonl").write_text(json.dumps(later) + "\n")
        (tmp_path / "b.jsonl").write_text(json.dumps(record))  # no newline at the end: whole all the same
        found = read_predictions(tmp_path)
        assert found.symbols[record["symbol"]]["target"].tolist() == [record["target"]]
        assert found.duplicates == 1
        assert any("repeat" in note for note in found.notes)

    def test_two_strategies(self, written: Path, tmp_path: Path) -> None:
        """A symbol of two strategies is refused until one is chosen."""
        (first, *_) = sorted(written.glob("2*/*.jsonl"))
        record = json.loads(first.read_bytes().splitlines()[0])
        other = record | {"strategy": "intraday", "id": record["id"].replace("swing", "intraday")}
        (tmp_path / "a.jsonl").write_text(f"{json.dumps(record)}\n{json.dumps(other)}\n")
        with pytest.raises(TelemetryMixed, match="choose one with strategy"):
            read_predictions(tmp_path)
        for strategy in ("swing", "intraday"):
            assert len(read_predictions(tmp_path, strategy=strategy).symbols) == 1
        assert issubclass(TelemetryMixed, UsageError)

    @pytest.mark.parametrize(
        "change",
        [
            {"reason": "mood"},
            {"student_prediction": ["LONG"]},
            {"bar_time": "yesterday"},
            {"bar_time": "2024-01-02T09:15:00"},
            {"bar_time": "9999-01-01T00:00:00Z"},
            {"session_date": "2024-13-01"},
            {"target": "0.5"},
            {"target": True},
            {"features": 3},
            {"entry_lock": "bored"},
            {"symbol_": None},
        ],
    )
    def test_a_record_of_another_form(self, written: Path, tmp_path: Path, change: dict[str, Any]) -> None:
        """Words that no code has, instants without a zone or out of range, texts for numbers: counted, not believed."""
        (first, *_) = sorted(written.glob("2*/*.jsonl"))
        record = json.loads(first.read_bytes().splitlines()[0])
        changed = record | change
        (tmp_path / "a.jsonl").write_text(json.dumps(changed) + "\n")
        found = read_predictions(tmp_path)
        if "symbol_" in change:
            assert found.broken == 0, "a field that is new is no matter"
            return
        assert (found.symbols, found.broken) == ({}, 1)
        assert found.notes == (f"{tmp_path / 'a.jsonl'}: 1 torn or foreign lines, the first is line 1",)

    def test_words_and_codes_are_inverse(self, validated: Path) -> None:
        """`encode` undoes `decode` for every stored prediction and trade, to the bit."""
        folder = validated / "validation_telemetry"
        for fields, found in (
            (PREDICTION_FIELDS, read_predictions(folder)),
            (TRADE_FIELDS, read_trades(folder)),
        ):
            for columns in found.symbols.values():
                for row in range(len(next(iter(columns.values())))):
                    record = {name: column[row].item() for name, column in columns.items()}
                    again = dict(zip(fields, encode(decode(record), fields), strict=True))
                    np.testing.assert_equal(again, record)
