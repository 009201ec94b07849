"""The planted market: the same bits for the same arguments, a rule that earns, a signal that must be found."""

from __future__ import annotations

import ast
import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sqkit
from sqkit.bars import CLOSE, HIGH, LOW, BarArrays
from sqkit.errors import UsageError
from sqkit.metrics import accuracy_metrics, financial_metrics
from sqkit.research.backtest import Window, backtest_symbol
from sqkit.research.barchecks import check_bars
from sqkit.research.planted import FIRST_SESSION, planted_market, write_market
from sqkit.research.sources import load_bars
from sqkit.sessions import load_sessions
from sqkit.settings import Settings
from sqkit.trading_rules import TradingRules
from tests.market import Market, arrays_of, build_market, rules_of, settings_of, validate, verdict

SEEDS = range(20)
PARAMETERS = {"symbols": 10, "sessions": 900, "training": 600}
"""The one fixed parameter set of the PROMOTE count."""
EDGE = 0.3


def rule_sharpe(bars: dict[str, BarArrays], first: int, last: int) -> float:
    """Net Sharpe ratio of the baseline rule over a window, equal capital per symbol."""
    rules = TradingRules.from_settings(
        Settings(_env_file=None), strategy="swing", market="us", horizon_bars=5, dead_zone=0.5
    )
    runs = [backtest_symbol(series, None, Window(first, last), rules) for series in bars.values()]
    returns = np.mean([run.fills.net_pnl for run in runs], axis=0) / rules.capital
    sharpe = financial_metrics(returns, np.array([]))["sharpe_ratio"]
    assert sharpe is not None
    return float(sharpe)


def place_in_range(series: BarArrays) -> np.ndarray:
    """Where each close stands in its bar's range, 0 at the low and 1 at the high."""
    rows = series.rows
    return np.asarray((rows[:, CLOSE] - rows[:, LOW]) / (rows[:, HIGH] - rows[:, LOW]))


def signal(series: BarArrays, part: slice) -> float:
    """Correlation of the close's place in the range with the next bar's return, over a part."""
    returns = np.diff(np.log(series.rows[:, CLOSE]))
    return float(np.corrcoef(place_in_range(series)[:-1][part], returns[part])[0, 1])


def mean_signal(bars: dict[str, BarArrays], part: slice) -> float:
    """`signal`, averaged over the symbols."""
    return float(np.mean([signal(series, part) for series in bars.values()]))


class TestBars:
    """What comes out is a clean market."""

    @pytest.mark.parametrize(
        ("interval", "sessions", "per_session"), [("1d", 300, 1), ("5m", 12, 78), ("1m", 4, 390)]
    )
    @pytest.mark.parametrize("market", ["us", "nse"])
    def test_every_bar_is_in_session(
        self, interval: str, sessions: int, per_session: int, market: str
    ) -> None:
        """Every interval in either market: the asked sessions, whole, and `check_bars` finds no error."""
        frames = planted_market(5, 2, sessions, interval, 0.3, market=market)
        assert list(frames) == ["PLANT01", "PLANT02"]
        table = load_sessions(market)
        for symbol, frame in frames.items():
            report = check_bars(frame, interval=interval, market=market, sessions=table)
            assert report.ok
            assert [found for found in report.problems if found.severity == "error"] == []
            assert set(frame["symbol"]) == {symbol}
            assert str(frame["timestamp"].dt.tz) == "UTC"
            days = table.local_days(frame["timestamp"].dt.as_unit("ns").astype("int64").to_numpy())
            assert table.is_session(days).all()
            assert len(np.unique(days)) == sessions
            assert pd.Timestamp(int(days[0]), unit="D") >= pd.Timestamp(FIRST_SESSION)
            if interval == "1d" or market == "us":
                assert len(frame) == sessions * per_session

    def test_prices_are_a_market(self) -> None:
        """High and low bound open and close, prices are positive, volume is whole and positive."""
        for frame in planted_market(6, 3, 500, "1d", 0.5).values():
            body = frame[["open", "close"]]
            assert (frame["high"] >= body.max(axis=1)).all()
            assert (frame["low"] <= body.min(axis=1)).all()
            assert (frame["low"] > 0).all()
            assert (frame["volume"] > 0).all()
            assert (frame["volume"] % 1 == 0).all()

    def test_it_loads_as_written(self, tmp_path: Path) -> None:
        """Stored and loaded, the bars are those simulated and nothing is dropped or doubted."""
        frames = planted_market(7, ["AAA", "M&M"], 300, "1d", 0.3)
        location = write_market(frames, tmp_path / "bars")
        bars, notes = load_bars(str(location), ["AAA", "M&M"], interval="1d", market="us")
        assert notes == []
        for symbol, series in arrays_of(frames).items():
            assert bars[symbol].digest() == series.digest()

    @pytest.mark.parametrize(("interval", "sessions"), [("1h", 10), ("1d", 10**6)])
    def test_what_cannot_be_simulated(self, interval: str, sessions: int) -> None:
        """An unknown interval, or more sessions than the calendar holds, is refused in one line."""
        with pytest.raises(UsageError, match=f"{interval}|{sessions}"):
            planted_market(1, 1, sessions, interval, 0.3)


class TestDeterminism:
    """Arguments decide."""

    def test_the_same_arguments_give_the_same_bits(self) -> None:
        """Twice the same market; another seed, edge or number of sessions is another one."""
        first = arrays_of(planted_market(1, 3, 300, "1d", 0.3))
        again = arrays_of(planted_market(1, 3, 300, "1d", 0.3))
        digests = {symbol: series.digest() for symbol, series in first.items()}
        assert digests == {symbol: series.digest() for symbol, series in again.items()}
        assert len(set(digests.values())) == 3
        for other in (planted_market(2, 3, 300, "1d", 0.3), planted_market(1, 3, 300, "1d", 0.0)):
            assert arrays_of(other)["PLANT01"].digest() != digests["PLANT01"]

    def test_more_symbols_leave_the_first_alone(self) -> None:
        """A market of more symbols begins with the same ones, and names do not move the numbers."""
        few, many = (planted_market(4, count, 200, "1d", 0.3) for count in (2, 5))
        named = planted_market(4, ["XXX", "YYY"], 200, "1d", 0.3)
        for ours, theirs, also in zip(few.values(), list(many.values())[:2], named.values(), strict=True):
            pd.testing.assert_frame_equal(ours, theirs)
            pd.testing.assert_frame_equal(ours.drop(columns="symbol"), also.drop(columns="symbol"))


class TestTheSignal:
    """Planted in the price path, nowhere else."""

    def test_the_edge_is_in_the_next_bar(self) -> None:
        """With an edge the close's place in its range tells the next return, more with more edge, and not at 0."""
        strengths = [
            mean_signal(arrays_of(planted_market(8, 6, 900, "1d", edge)), slice(None))
            for edge in (0.0, 0.3, 0.6)
        ]
        assert abs(strengths[0]) < 0.05
        assert 0.1 < strengths[1] < strengths[2]

    def test_it_shows_from_a_session_on(self) -> None:
        """Before that session the close's place tells no more than the last move does; from it on it tells as ever."""
        late = arrays_of(planted_market(8, 6, 1200, "1d", 0.6, shown_from=600))
        always = arrays_of(planted_market(8, 6, 1200, "1d", 0.6))
        before, after = slice(0, 598), slice(600, None)

        assert mean_signal(late, before) < 0.6 * mean_signal(always, before)
        assert mean_signal(late, after) == pytest.approx(mean_signal(always, after), abs=0.05)
        closes = [bars["PLANT01"].rows[:, CLOSE] for bars in (late, always)]
        assert np.array_equal(*closes), "what shows changes no price that follows"

    def test_no_feature_or_label_code_knows_of_it(self) -> None:
        """No module but the tour's market imports `planted`: the signal can only be found in prices."""
        root = Path(sqkit.__file__).parent
        for path in set(root.rglob("*.py")) - {root / "cli/tour_market.py"}:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = (
                    [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
                    if isinstance(node, ast.ImportFrom)
                    else [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else []
                )
                assert "sqkit.research.planted" not in names, path

    def test_the_bars_carry_nothing_else(self) -> None:
        """A planted frame has the canonical columns of any market and no column that tells the answer."""
        (frame,) = planted_market(1, 1, 50, "1d", 0.9).values()
        assert list(frame.columns) == ["timestamp", "symbol", "open", "high", "low", "close", "volume"]
        assert frame.attrs == {}

    def test_break_at(self) -> None:
        """From `break_at` on the signal points the wrong way, before it nothing changes to the bit."""
        whole = arrays_of(planted_market(9, 12, 900, "1d", 0.5))
        broken = arrays_of(planted_market(9, 12, 900, "1d", 0.5, break_at=450))
        for symbol, series in whole.items():
            assert np.array_equal(series.rows[:450], broken[symbol].rows[:450])
            assert not np.array_equal(series.rows[450:], broken[symbol].rows[450:])
        assert mean_signal(broken, slice(0, 449)) > 0.2
        assert mean_signal(broken, slice(450, None)) < -0.05  # se 0.014
        assert mean_signal(whole, slice(450, None)) > 0.2

    def test_a_break_degrades_a_real_student(self, planted: Market) -> None:
        """A student that is right on the unbroken market loses ten points of hit ratio or more after a break."""
        hit_ratios = []
        for break_at in (None, 400):
            bars = arrays_of(planted_market(1, 6, 600, "1d", 0.5, break_at=break_at))
            runs = [
                backtest_symbol(series, planted.model(), planted.window, rules_of(planted))
                for series in bars.values()
            ]
            calls, outcomes = (
                np.concatenate([run.predictions[name] for run in runs])
                for name in ("student_prediction", "outcome")
            )
            hit_ratios.append(accuracy_metrics(calls, outcomes)["hit_ratio"])
        assert hit_ratios[0] > hit_ratios[1] + 0.1

    def test_break_at_keeps_the_rule_alive(self) -> None:
        """A broken signal alone leaves the trends; `break_baseline` ends them, and with them the rule's living."""
        alive, ended = [], []
        for seed in range(6):
            for sharpes, break_baseline in ((alive, False), (ended, True)):
                bars = arrays_of(
                    planted_market(seed, 8, 1000, "1d", 0.0, break_at=500, break_baseline=break_baseline)
                )
                days = next(iter(bars.values())).session_days
                sharpes.append(rule_sharpe(bars, int(days[520]), int(days[-1])))
        assert np.mean(alive) > 1.0
        assert np.mean(ended) < 0.3

    def test_break_baseline_needs_a_break(self) -> None:
        """Without `break_at` nothing breaks, whatever `break_baseline` says."""
        plain = planted_market(3, 1, 200, "1d", 0.3)["PLANT01"]
        pd.testing.assert_frame_equal(
            plain, planted_market(3, 1, 200, "1d", 0.3, break_baseline=True)["PLANT01"]
        )

    def test_break_counts_sessions_not_bars(self) -> None:
        """Intraday a break begins with the first bar of its session."""
        frames = [planted_market(3, 1, 6, "5m", 0.5, break_at=at)["PLANT01"] for at in (None, 3)]
        same = frames[0]["close"] == frames[1]["close"]
        assert same[: 3 * 78].all()
        assert not same[3 * 78 + 1 :].any()


class TestTheRule:
    """The baseline rule lives on the trends."""

    @pytest.mark.parametrize("edge", [0.0, EDGE])
    def test_net_sharpe_of_the_rule(self, edge: float) -> None:
        """Costs in, the rule's Sharpe is at least 0.5 on each of 20 seeds, over all and after training alone."""
        for seed in SEEDS:
            bars = arrays_of(planted_market(seed, PARAMETERS["symbols"], PARAMETERS["sessions"], "1d", edge))
            days = next(iter(bars.values())).session_days
            for first in (0, PARAMETERS["training"]):
                sharpe = rule_sharpe(bars, int(days[first]), int(days[-1]))
                assert sharpe >= 0.5, f"seed {seed} from session {first}: {sharpe:.2f}"


def recommendations(folder: Path, seed: int, edge: float) -> tuple[str, str]:
    """Train and validate one seed under the fixed parameters; decide by thresholds alone, then as the policy says."""
    place = folder / f"{seed}"
    market = build_market(place, seed=seed, edge=edge, kinds=("gradient_boosting",), **PARAMETERS)
    validate(market, place / "validated")
    lenient = verdict(place / "validated", place / "decided", min_evidence="none")
    return str(lenient["recommendation"]), str(
        verdict(place / "validated", place / "decided")["recommendation"]
    )


@dataclass(frozen=True)
class Counts:
    """Recommendations of all seeds: by thresholds alone, and under the default policy."""

    thresholds_only: Counter[str]
    with_evidence: Counter[str]


def counted(folder: Path, edge: float) -> Counts:
    """Every seed, over two processes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        runs = [pool.submit(recommendations, folder, seed, edge) for seed in SEEDS]
        thresholds_only, with_evidence = zip(*(run.result() for run in runs), strict=True)
    counts = Counts(Counter(thresholds_only), Counter(with_evidence))
    print(f"edge {edge}, {len(SEEDS)} seeds: {counts}")
    return counts


@pytest.fixture(scope="module")
def with_edge(tmp_path_factory: pytest.TempPathFactory) -> Counts:
    """What is said of 20 markets with the edge."""
    return counted(tmp_path_factory.mktemp("edge"), EDGE)


@pytest.fixture(scope="module")
def without_edge(tmp_path_factory: pytest.TempPathFactory) -> Counts:
    """What is said of 20 markets without one."""
    return counted(tmp_path_factory.mktemp("no-edge"), 0.0)


class TestTheGate:
    """What the whole chain says of planted markets."""

    @pytest.mark.slow
    def test_the_edge_is_promoted(self, with_edge: Counts, record_property: pytest.RecordProperty) -> None:
        """Over 20 seeds with the edge, thresholds alone promote at least 16 times."""
        record_property("recommendations", dict(with_edge.thresholds_only))
        assert with_edge.thresholds_only["PROMOTE"] >= 16, with_edge

    @pytest.mark.slow
    def test_the_edge_is_promoted_under_the_default_grade(
        self, with_edge: Counts, record_property: pytest.RecordProperty
    ) -> None:
        """Over 20 seeds with the edge, evidence asked for as by default promotes at least 14 times."""
        record_property("recommendations", dict(with_edge.with_evidence))
        assert Settings(_env_file=None).promotion_min_evidence == "moderate"
        assert with_edge.with_evidence["PROMOTE"] >= 14, with_edge
        assert with_edge.with_evidence["PROMOTE"] <= with_edge.thresholds_only["PROMOTE"], with_edge

    @pytest.mark.slow
    def test_without_an_edge_hardly_any_is_promoted_under_the_default_grade(
        self, without_edge: Counts, record_property: pytest.RecordProperty
    ) -> None:
        """Over 20 seeds without an edge, evidence asked for as by default promotes at most once."""
        record_property("recommendations", dict(without_edge.with_evidence))
        assert without_edge.with_evidence["PROMOTE"] <= 1, without_edge

    @pytest.mark.slow
    def test_without_an_edge_the_count_is_stated(
        self, without_edge: Counts, record_property: pytest.RecordProperty
    ) -> None:
        """Without an edge every run ends in a recommendation; how many thresholds alone promote is stated, not asked."""
        record_property("recommendations", dict(without_edge.thresholds_only))
        for counts in (without_edge.thresholds_only, without_edge.with_evidence):
            assert sum(counts.values()) == len(SEEDS)
            assert set(counts) <= {"PROMOTE", "REJECT", "INSUFFICIENT_EVIDENCE"}

    def test_a_short_window_is_not_enough(self, planted: Market, tmp_path: Path) -> None:
        """Fifty-nine sessions of a market with a plain edge are INSUFFICIENT_EVIDENCE, one more are not."""
        found = []
        for sessions in (59, 60):
            folder = tmp_path / f"{sessions}"
            # The last five bars before the data end have no outcome; here the data go on.
            end = planted.session(sessions - 1)
            validate(planted, folder, settings=settings_of(tmp_path), end=end)
            checklist = verdict(folder, folder / "decided", min_evidence="none", min_calls=0)
            assert checklist["evidence"]["adequacy"]["session_days"] == sessions
            found.append(checklist["recommendation"])
        assert found[0] == "INSUFFICIENT_EVIDENCE"
        assert found[1] != "INSUFFICIENT_EVIDENCE"
