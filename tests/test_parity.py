"""Parity, as a specification: the live engine does what the backtest did, and where it does not, it is named.

The premise of every planted defect is the test beside it: without the defect the very same replay passes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sqkit.artifacts import PARITY_FILE
from sqkit.bars import BarArrays
from sqkit.files import read_json
from sqkit.production.replay import Replayed, replay_model
from sqkit.records import FLAT, LONG, REASON_CODES, SHORT, TRADE_FIELDS, iso_instant, session_day
from sqkit.research import parity
from sqkit.research.backtest import SymbolRun, Window, backtest_symbol
from sqkit.research.distil import train_student
from sqkit.research.parity import Asked, Share, choose_share, parity_line, parity_record, parity_rows
from sqkit.research.sources import load_bars
from sqkit.research.teacher import train_teacher
from sqkit.research.validation import run_validation
from sqkit.research.validation_plan import ValidationPlan, plan_validation
from sqkit.settings import Settings
from sqkit.student import StudentModel
from sqkit.trading_rules import TradingRules
from sqkit.versions import version_ns
from tests.market import Market, build_market, settings_of, validate

KINDS = ("gradient_boosting", "logistic", "mlp", "random_forest")
SYMBOL = "PLANT03"


@pytest.fixture(scope="module")
def swing(tmp_path_factory: pytest.TempPathFactory) -> Market:
    """Four planted symbols daily, with a student of every kind."""
    return build_market(tmp_path_factory.mktemp("swing"), symbols=4, sessions=520, training=400, kinds=KINDS)


@pytest.fixture(scope="module")
def intraday(tmp_path_factory: pytest.TempPathFactory) -> Market:
    """Two planted symbols by five minutes, with a student of three kinds."""
    return build_market(
        tmp_path_factory.mktemp("intraday"),
        symbols=2,
        sessions=45,
        training=30,
        strategy="intraday",
        interval="5m",
        horizon_bars=15,
        kinds=("gradient_boosting", "logistic", "mlp"),
    )


@pytest.fixture(scope="module")
def asked(planted: Market) -> Asked:
    """The planted market's validation."""
    return _asked(_plan(planted))


@pytest.fixture(scope="module")
def runs(planted: Market, asked: Asked) -> dict[str, SymbolRun]:
    """Its backtest."""
    rules = _plan(planted).rules
    return {
        name: backtest_symbol(bars, asked.model, asked.window, rules) for name, bars in asked.bars.items()
    }


@pytest.fixture(scope="module")
def replayed(asked: Asked) -> Mapping[str, Replayed]:
    """What the live engine does with its bars."""
    return _replay(asked)


def _plan(market: Market, kind: str = "gradient_boosting") -> ValidationPlan:
    return plan_validation(str(market.students[kind]), settings=settings_of(market.folder / "home"))


def _asked(plan: ValidationPlan) -> Asked:
    return Asked(plan.model, plan.bars, plan.window, plan.settings)


def _replay(asked: Asked, most_bars: int | None = None) -> Mapping[str, Replayed]:
    window = asked.window
    return replay_model(
        asked.model,
        asked.bars,
        window.first_day,
        window.last_day,
        asked.settings,
        now_ns=version_ns(asked.model.version),
        most_bars=most_bars,
    )


def _judged(
    asked: Asked,
    runs: Mapping[str, SymbolRun],
    replayed: Mapping[str, Replayed],
    most_bars: int | None = None,
) -> dict[str, Any]:
    return parity_record(asked, Share(tuple(sorted(replayed)), most_bars), runs, replayed)


class TestTheEngineIsTheBacktest:
    """Nothing planted: every bar, trade and cent is the same."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_swing(self, swing: Market, tmp_path: Path, kind: str) -> None:
        """Daily bars, students of every kind."""
        self._passes(swing, tmp_path / "out", kind)

    @pytest.mark.parametrize("kind", ["gradient_boosting", "logistic", "mlp"])
    def test_intraday(self, intraday: Market, tmp_path: Path, kind: str) -> None:
        """Five-minute bars; a session's end and square-off lie in every day."""
        self._passes(intraday, tmp_path / "out", kind)

    def test_other_rules(self, intraday: Market, tmp_path: Path) -> None:
        """Rules, costs and threshold of the validation's settings are those the engine is given."""
        changed = settings_of(
            tmp_path / "home",
            square_off_minutes=90,
            strategy_entry_strength=0.3,
            student_model_confidence_threshold=0.53,
            slippage_bps_intraday=7.0,
            backtest_capital_per_symbol=12_345.0,
            student_fallback="no_new_entries",
        )
        self._passes(intraday, tmp_path / "out", "logistic", settings=changed)

    def test_a_model_with_an_old_tag(self, planted: Market, tmp_path: Path) -> None:
        """The tag is years before today and far over the age at which a model may trade: it validates all the same."""
        old = settings_of(tmp_path / "home", student_model_max_age_days=1)
        self._passes(planted, tmp_path / "out", "gradient_boosting", settings=old)

    def test_a_halted_slot(self, planted: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever is halted or disabled in production: a validation asks what the model would do."""
        monkeypatch.chdir(tmp_path)
        settings = settings_of(tmp_path, student_model_enabled=False)
        flag = settings.production_path("swing").with_name("halt.json")
        flag.parent.mkdir(parents=True)
        flag.write_text('{"level": "no_new_entries"}')
        self._passes(planted, tmp_path / "out", "gradient_boosting", settings=settings)

    @staticmethod
    def _passes(market: Market, output: Path, kind: str, settings: Settings | None = None) -> None:
        run = validate(market, output, kind=kind, settings=settings)
        record = read_json(output / PARITY_FILE)
        assert record["status"] == "pass", record["note"]
        assert record["first_divergence"] is None
        assert record["model_digest"] == market.model(kind).digest
        assert set(record["symbols"]) == set(market.bars)
        for symbol, row in record["symbols"].items():
            done = run.candidate.symbols[symbol]
            assert row["bars"] == row["window_bars"] == len(done.predictions["bar_time"])
            assert row["trades"] == len(done.fills.trades["entry_time"])
            assert row["whole"] is True
        assert any(row["trades"] for row in record["symbols"].values()), "the premise: something was traded"
        calls = [part.predictions["student_prediction"] != FLAT for part in run.candidate.symbols.values()]
        assert np.concatenate(calls).any(), "the premise: the student spoke"


def _one_ulp(one: Replayed, at: int) -> Replayed:
    features = one.features.copy()
    features[at, 2] = np.nextafter(features[at, 2], np.inf)
    return replace(one, features=features)


def _set(name: str, value: Callable[[Any], Any]) -> Callable[[Replayed, int], Replayed]:
    def changed(one: Replayed, at: int) -> Replayed:
        column = one.predictions[name].copy()
        column[at] = value(column[at])
        return replace(one, predictions=one.predictions | {name: column})

    return changed


def _missing(one: Replayed, at: int) -> Replayed:
    return replace(
        one,
        features=np.delete(one.features, at, axis=0),
        predictions={name: np.delete(column, at) for name, column in one.predictions.items()},
        refused={int(one.predictions["bar_time"][at]): "bad_price"},
    )


DEFECTS: dict[str, tuple[Callable[[Replayed, int], Replayed], str]] = {
    "a feature off by one ulp": (_one_ulp, "features."),
    "a confidence off by 1e-5": (_set("student_confidence", lambda was: was + 1e-5), "student_confidence"),
    "a probability off by 1e-5": (
        _set("student_probability_up", lambda was: was - 1e-5),
        "student_probability_up",
    ),
    "a reason": (_set("reason", lambda _: REASON_CODES["out_of_distribution"]), "reason"),
    "a flipped direction": (
        _set("student_prediction", lambda was: -was if was else LONG),
        "student_prediction",
    ),
    "a flipped rule": (_set("baseline_direction", lambda was: -was if was else SHORT), "baseline_direction"),
    "a strength off by one ulp": (_set("strength", lambda was: np.nextafter(was, 2.0)), "strength"),
    "a source": (_set("prediction_source", lambda was: 1 - was), "prediction_source"),
    "a target": (_set("target", lambda was: 0.25 - was), "target"),
    "a missing bar": (_missing, "bar"),
}


class TestPlantedDefects:
    """One thing is changed in what the engine is said to have done; it is found and named with its bar."""

    AT = 120

    @pytest.mark.parametrize("name", DEFECTS)
    def test_on_a_bar(
        self,
        asked: Asked,
        runs: dict[str, SymbolRun],
        replayed: Mapping[str, Replayed],
        name: str,
    ) -> None:
        """Symbol, bar and field are those of the defect; the other symbols have none."""
        assert _judged(asked, runs, replayed)["status"] == "pass"
        plant, field = DEFECTS[name]
        broken = {**replayed, SYMBOL: plant(replayed[SYMBOL], self.AT)}

        record = _judged(asked, runs, broken)

        first = record["first_divergence"]
        assert record["status"] == "fail"
        assert first["symbol"] == SYMBOL
        assert first["bar_time"] == iso_instant(runs[SYMBOL].predictions["bar_time"][self.AT])
        assert first["field"].startswith(field)
        assert first["backtest"] != first["engine"]
        assert first["bar_time"] in record["note"]
        assert SYMBOL in record["note"]
        assert "\n" not in record["note"]
        divergent = [symbol for symbol, row in record["symbols"].items() if row["first_divergence"]]
        assert divergent == [SYMBOL]
        assert record["symbols"][SYMBOL]["first_divergence"] == first

    def test_within_the_tolerance(
        self, asked: Asked, runs: dict[str, SymbolRun], replayed: Mapping[str, Replayed]
    ) -> None:
        """A confidence off by 1e-7 is none: processors round otherwise."""
        plant = _set("student_confidence", lambda was: was + 1e-7)
        assert (
            _judged(asked, runs, {**replayed, SYMBOL: plant(replayed[SYMBOL], self.AT)})["status"] == "pass"
        )

    @pytest.mark.parametrize(
        "name", ["entry_price", "exit_price", "fees", "net_pnl", "quantity", "exit_reason"]
    )
    def test_in_a_trade(
        self, asked: Asked, runs: dict[str, SymbolRun], replayed: Mapping[str, Replayed], name: str
    ) -> None:
        """One value of one trade, by one ulp or one unit: the bar is that of its entry or its exit."""
        symbol = next(symbol for symbol, one in replayed.items() if len(one.trades["entry_time"]) >= 3)
        column = replayed[symbol].trades[name].copy()
        column[1] = np.nextafter(column[1], np.inf) if column.dtype == np.float64 else column[1] + 1
        broken = replace(replayed[symbol], trades=replayed[symbol].trades | {name: column})

        first = _judged(asked, runs, {**replayed, symbol: broken})["first_divergence"]

        when = "entry_time" if name in ("entry_price", "quantity") else "exit_time"
        assert (first["symbol"], first["field"]) == (symbol, name)
        assert first["bar_time"] == iso_instant(runs[symbol].fills.trades[when][1])

    def test_a_trade_that_was_not_made(
        self, asked: Asked, runs: dict[str, SymbolRun], replayed: Mapping[str, Replayed]
    ) -> None:
        """The last trade is absent: it is named by its entry."""
        symbol = next(symbol for symbol, one in replayed.items() if len(one.trades["entry_time"]))
        cut = {name: column[:-1] for name, column in replayed[symbol].trades.items()}
        broken = replace(replayed[symbol], trades=cut)

        first = _judged(asked, runs, {**replayed, symbol: broken})["first_divergence"]

        assert (first["field"], first["backtest"], first["engine"]) == ("trade", "opened", "none")
        assert first["bar_time"] == iso_instant(runs[symbol].fills.trades["entry_time"][-1])

    @pytest.mark.parametrize("name", ["cash", "quantity"])
    def test_at_the_end(
        self, asked: Asked, runs: dict[str, SymbolRun], replayed: Mapping[str, Replayed], name: str
    ) -> None:
        """Money or shares that no trade explains."""
        value = {"cash": np.nextafter(replayed[SYMBOL].cash, 0.0), "quantity": replayed[SYMBOL].quantity + 1}
        broken = replace(replayed[SYMBOL], **{name: value[name]})
        first = _judged(asked, runs, {**replayed, SYMBOL: broken})["first_divergence"]
        assert first["field"] == name
        assert first["bar_time"] == iso_instant(runs[SYMBOL].predictions["bar_time"][-1])

    def test_the_first_of_several(
        self, asked: Asked, runs: dict[str, SymbolRun], replayed: Mapping[str, Replayed]
    ) -> None:
        """Of two symbols the earlier bar; on one bar the cause before what follows from it."""
        plant_features, plant_target = DEFECTS["a feature off by one ulp"][0], DEFECTS["a target"][0]
        early = plant_target(plant_features(replayed["PLANT04"], 60), 60)
        broken = {**replayed, "PLANT02": plant_target(replayed["PLANT02"], 61), "PLANT04": early}
        first = _judged(asked, runs, broken)["first_divergence"]
        assert first["symbol"] == "PLANT04"
        assert first["field"].startswith("features.")

    def test_a_bar_that_the_engine_refuses(self, planted: Market, tmp_path: Path) -> None:
        """Bars of which the backtest makes no fuss and a feed does: high below low is no bar to trade on."""
        plan = _plan(planted)
        series = plan.bars[SYMBOL]
        at = series.window(plan.window.first_day, plan.window.last_day)[0] + 30
        rows = series.rows.copy()
        rows[at, 1], rows[at, 2] = rows[at, 2], rows[at, 1]
        plan = replace(plan, bars=plan.bars | {SYMBOL: replace(series, rows=rows)})

        run_validation(plan, tmp_path / "out", replay=replay_model)

        first = read_json(tmp_path / "out" / PARITY_FILE)["first_divergence"]
        assert first == {
            "symbol": SYMBOL,
            "bar_time": iso_instant(series.timestamp_ns[at]),
            "field": "bar",
            "backtest": "used",
            "engine": "bad_price",
        }


class TestShare:
    """Which symbols are replayed, and how far."""

    def test_everything_that_fits(self) -> None:
        """Up to the limit all symbols are replayed, whole."""
        assert choose_share({"B": 30_000, "A": 20_000}, 7) == Share(("A", "B"), None)

    def test_whole_symbols_by_seed(self) -> None:
        """More than fits: whole symbols, never more bars than the limit; the seed decides which."""
        bars = {f"S{number:03d}": 8_000 for number in range(100)}
        chosen = {seed: choose_share(bars, seed) for seed in range(20)}
        for seed, share in chosen.items():
            assert share == choose_share(dict(reversed(bars.items())), seed), (
                "the order of the bars is no matter"
            )
            assert (len(share.symbols), share.most_bars) == (6, None)
            assert list(share.symbols) == sorted(share.symbols)
        assert len({share.symbols for share in chosen.values()}) == len(chosen)

    def test_at_least_one(self) -> None:
        """A single symbol with too many bars is cut; it stands for itself alone."""
        assert choose_share({"A": 90_000}, 0) == Share(("A",), 50_000)
        for seed in range(5):
            share = choose_share({"A": 90_000, "B": 70_000}, seed)
            assert (len(share.symbols), share.most_bars) == (1, 50_000)

    def test_all_of_it(self, planted: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """With full everything is replayed, however much it is; without, the record says what was left out."""
        monkeypatch.setattr(parity, "MOST_BARS", 450)
        plan = _plan(planted)
        for full in (False, True):
            run_validation(plan, tmp_path / f"{full}", replay=replay_model, full=full)
        part, whole = (read_json(tmp_path / name / PARITY_FILE) for name in ("False", "True"))
        assert (part["status"], whole["status"]) == ("pass", "pass")
        assert (part["bars"], len(part["symbols"]), len(part["left_out"])) == (400, 2, 4)
        assert (
            sorted([*part["symbols"], *part["left_out"]]) == sorted(planted.bars) == sorted(whole["symbols"])
        )
        assert "400 bars of 2 of 6 symbols, chosen by seed" in part["note"]
        assert (whole["bars"], whole["left_out"], whole["full"]) == (1200, [], True)

    @pytest.mark.parametrize("most_bars", [1, 37, 101, 150])
    def test_a_cut_replay(self, asked: Asked, runs: dict[str, SymbolRun], most_bars: int) -> None:
        """What was closed by the cut is compared, and what a position still open was entered with."""
        cut = _replay(asked, most_bars)
        record = _judged(asked, runs, cut, most_bars)
        assert record["status"] == "pass", record["note"]
        assert {row["bars"] for row in record["symbols"].values()} == {most_bars}
        assert not any(row["whole"] for row in record["symbols"].values())
        if most_bars < 100:
            return
        symbol = next(symbol for symbol, one in cut.items() if len(one.trades["entry_time"]))
        price = cut[symbol].trades["entry_price"].copy()
        price[-1] = np.nextafter(price[-1], 0.0)
        broken = replace(cut[symbol], trades=cut[symbol].trades | {"entry_price": price})
        first = _judged(asked, runs, {**cut, symbol: broken}, most_bars)["first_divergence"]
        assert (first["symbol"], first["field"]) == (symbol, "entry_price")

    def test_a_single_symbol_is_cut(
        self, planted: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Through the whole validation: the record says where it was cut."""
        monkeypatch.setattr(parity, "MOST_BARS", 120)
        validate(planted, tmp_path / "out", symbols=[SYMBOL])
        record = read_json(tmp_path / "out" / PARITY_FILE)
        assert record["status"] == "pass"
        assert (record["bars"], record["symbols"][SYMBOL]["window_bars"]) == (120, 200)
        assert f"{SYMBOL} cut at 120 of 200 bars" in record["note"]


class TestWhatIsShown:
    """The page of a validation."""

    def test_a_table_and_a_sentence(
        self, asked: Asked, runs: dict[str, SymbolRun], replayed: Mapping[str, Replayed]
    ) -> None:
        """A row a symbol; the verdict in words."""
        whole = _judged(asked, runs, replayed)
        assert [row["symbol"] for row in parity_rows(whole)] == sorted(runs)
        assert {row["first difference"] for row in parity_rows(whole)} == {"none"}
        assert parity_line(whole).startswith(
            "Parity pass: the live engine, given 1200 bars of 6 of 6 symbols"
        )
        broken = {**replayed, SYMBOL: _missing(replayed[SYMBOL], 3)}
        rows = {row["symbol"]: row["first difference"] for row in parity_rows(_judged(asked, runs, broken))}
        assert rows[SYMBOL].endswith(" bar")

    def test_without_a_replay(self) -> None:
        """One row that says so."""
        assert parity_rows(parity.NOT_RUN)[0]["first difference"] == "not run"
        assert parity_line(parity.NOT_RUN).startswith("Parity not_run: ")


def _on_real_bars(
    folder: Path, location: Path, symbols: list[str], market: str, days: tuple[str, str, str, str], kind: str
) -> tuple[Asked, dict[str, SymbolRun]]:
    """A student trained on the first two days given, asked about the last two."""
    bars, _ = load_bars(str(location), symbols, interval="1m", market=market)
    first, last, start, end = (session_day(dt.date.fromisoformat(day)) for day in days)
    known = {name: _between(one, first, end) for name, one in bars.items()}
    version = "20250112_143000"
    train_teacher(
        known,
        strategy="intraday",
        market=market,
        interval="1m",
        first_day=first,
        last_day=last,
        horizon_bars=15,
        seed=0,
        output_dir=folder / version / "teacher",
        version=version,
        bars_location=str(location),
    )
    place = folder / version / "student"
    train_student(
        folder / version / "teacher", known, model_type=kind, output_dir=place, version=version, seed=0
    )
    model, settings = StudentModel.load(place / "student_model.onnx"), settings_of(folder)
    asked = Asked(model, known, Window(start, end), settings, full=True)
    rules = TradingRules.from_settings(
        settings,
        strategy="intraday",
        market=market,
        horizon_bars=model.metadata["horizon_bars"],
        dead_zone=model.metadata["dead_zone"],
        last_day=end,
    )
    runs = {name: backtest_symbol(one, model, asked.window, rules) for name, one in known.items()}
    return asked, runs


def _between(bars: BarArrays, first_day: int, last_day: int) -> BarArrays:
    return bars.slice(*bars.window(first_day, last_day))


@pytest.mark.slow
class TestRealBars:
    """Minute bars of the exchange, with halts, outages and short sessions."""

    def test_an_index(self, tmp_path: Path, shared_data: Path) -> None:
        """NIFTY, January to March 2019: every one of its 23,250 bars."""
        asked, runs = _on_real_bars(
            tmp_path,
            shared_data / "nse" / "index_minute_2012_2021",
            ["NIFTY"],
            "nse_index",
            ("2018-11-01", "2018-12-31", "2019-01-01", "2019-03-31"),
            "gradient_boosting",
        )
        record = parity.replay_validation(asked, runs, replay_model)
        assert record["status"] == "pass", record["note"]
        assert (record["bars"], record["full"]) == (23_250, True)
        assert record["symbols"]["NIFTY"]["trades"] > 50

    def test_two_shares_with_feed_outages(self, tmp_path: Path, shared_data: Path) -> None:
        """RELIANCE and TCS, built from ticks: gaps and missing opens lie in the window and change nothing."""
        asked, runs = _on_real_bars(
            tmp_path,
            shared_data / "nse" / "minute_2021",
            ["RELIANCE", "TCS"],
            "nse",
            ("2021-03-30", "2021-05-07", "2021-05-10", "2021-06-11"),
            "logistic",
        )
        lengths = {
            symbol: np.unique(run.predictions["session_date"], return_counts=True)[1]
            for symbol, run in runs.items()
        }
        assert any((counts < 375).any() for counts in lengths.values()), "the premise: there are outages"
        record = parity.replay_validation(asked, runs, replay_model)
        assert record["status"] == "pass", record["note"]
        assert record["bars"] == sum(counts.sum() for counts in lengths.values())
        assert all(row["trades"] > 5 for row in record["symbols"].values())


def test_every_column_is_compared() -> None:
    """A field that is added to the records is compared from then on, or this fails."""
    from sqkit.records import PREDICTION_FIELDS
    from sqkit.research import parity_compare

    compared = {"bar_time", *parity_compare._IN_ORDER}
    assert set(PREDICTION_FIELDS) - compared == {"outcome"}
    assert {*parity_compare._AT_ENTRY, *parity_compare._AT_EXIT} == set(TRADE_FIELDS)
