"""What a validation hands to monitoring: the gate's figures, the session's length, and a checklist that verifies."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sqkit.artifacts import CHECKLIST_FILE, CHECKLIST_PAGE, EVIDENCE_FILE
from sqkit.checklist import differences
from sqkit.files import read_json, write_json
from sqkit.model_file import STUDENT_FILE
from sqkit.monitoring_baseline import SECTION, MonitoringBaseline, MonitoringRules
from sqkit.production.behaviour import BehaviourWatch
from sqkit.records import FLAT, LONG, session_day
from sqkit.research.accuracy import AccuracyAnalyzer, read_results
from sqkit.research.decision import decide
from sqkit.research.live_baseline import _bar_in_session, bars_per_session, live_baseline
from sqkit.research.run_policy import judged_by
from sqkit.research.verification import verify
from sqkit.sessions import load_sessions
from sqkit.settings import Settings
from tests.market import DECIDED_AT, Market, copy_validation, policy_of

RULES = MonitoringRules.from_settings(Settings(_env_file=None))


@pytest.fixture(scope="module")
def analyzer(validated: Path) -> AccuracyAnalyzer:
    """The stored predictions of the planted market's validation."""
    return AccuracyAnalyzer(validated)


@pytest.fixture(scope="module")
def baseline(validated: Path, analyzer: AccuracyAnalyzer) -> MonitoringBaseline:
    """What that validation hands over."""
    return live_baseline(read_results(validated), analyzer)


@pytest.fixture
def decided(planted: Market, validated: Path, tmp_path: Path) -> Path:
    """A student's folder whose decision states how the model would be watched."""
    folder = copy_validation(validated, tmp_path / "student")
    shutil.copy(planted.students["gradient_boosting"], folder / STUDENT_FILE)
    decide(folder, folder, policy_of(), DECIDED_AT, rules=RULES)
    return folder


class TestBaseline:
    """Against the same stored predictions, counted otherwise."""

    def test_the_figures_are_the_gates(
        self, baseline: MonitoringBaseline, analyzer: AccuracyAnalyzer
    ) -> None:
        """Hit ratio, precision and accuracy with their counts are those that the gate judged."""
        gate = analyzer.metrics("candidate")
        for name, count in (("hit_ratio", "calls"), ("precision_long", "calls_long"), ("accuracy", "rows")):
            rate = getattr(baseline, name)
            assert rate.rate == pytest.approx(gate[name], abs=1e-12)
            assert rate.count == gate["counts"][count]
            assert 0.0 < rate.effective <= rate.count

    def test_bars_with_calls(self, baseline: MonitoringBaseline, analyzer: AccuracyAnalyzer) -> None:
        """A bar counts once, however many symbols called on it."""
        bars: dict[str, set[int]] = {"any": set(), "long": set()}
        for symbol in analyzer.symbols:
            said, judged = analyzer.said(symbol), analyzer.judged_rows(symbol)
            for at, call, counts in zip(said["bar_time"], said["student_prediction"], judged, strict=True):
                if counts and call != FLAT:
                    bars["any"].add(int(at))
                if counts and call == LONG:
                    bars["long"].add(int(at))
        assert (baseline.called_bars, baseline.long_called_bars) == (len(bars["any"]), len(bars["long"]))

    def test_what_it_is_of(
        self, baseline: MonitoringBaseline, validated: Path, analyzer: AccuracyAnalyzer
    ) -> None:
        """Market, strategy, interval, horizon and dead zone are the validation's."""
        results = read_results(validated)
        runtime = results["runtime"]
        assert (baseline.market, baseline.strategy) == (runtime["market"], runtime["strategy"])
        assert (baseline.horizon_bars, baseline.dead_zone) == (runtime["horizon_bars"], runtime["dead_zone"])
        assert (baseline.interval, baseline.bars_per_session) == (results["interval"], 1)
        assert baseline.symbols == len(analyzer.symbols)
        assert baseline.session_days == len(np.unique(analyzer.pooled("candidate")["session_days"]))

    def test_behaviour_is_of_all_rows(self, baseline: MonitoringBaseline, analyzer: AccuracyAnalyzer) -> None:
        """Rows without an outcome count as well, and the live watch accepts the profile."""
        assert baseline.behaviour is not None
        every = sum(len(analyzer.said(symbol)["bar_time"]) for symbol in analyzer.symbols)
        assert sum(one["rows"] for one in baseline.behaviour["buckets"]) == every
        assert baseline.accuracy is not None
        assert every > baseline.accuracy.count
        BehaviourWatch(baseline.behaviour, false_alarms_per_day=0.01, symbols=baseline.symbols)

    def test_there_and_back(self, baseline: MonitoringBaseline) -> None:
        """JSON and back gives the same baseline; so do the rules."""
        assert MonitoringBaseline.from_dict(json.loads(json.dumps(baseline.to_dict()))) == baseline
        assert MonitoringRules.from_dict(json.loads(json.dumps(RULES.to_dict()))) == RULES

    @pytest.mark.parametrize("value", ["24", None, True, float("inf")])
    def test_a_rule_that_is_no_number(self, value: Any) -> None:
        """Another form is refused."""
        with pytest.raises(TypeError, match="window_hours"):
            MonitoringRules.from_dict(RULES.to_dict() | {"window_hours": value})


class TestSessions:
    """Lengths and places by the session table, not by the data."""

    @pytest.mark.parametrize(
        ("market", "minutes", "bars"),
        [("nse", 1, 375), ("us", 1, 390), ("nse", 5, 75), ("us", 5, 78), ("us", 0, 1), ("nse", 0, 1)],
    )
    def test_bars_of_a_regular_session(self, market: str, minutes: int, bars: int) -> None:
        """Half days and special sessions of the window change nothing; a date without session is left out."""
        table = load_sessions(market)
        first, last = (session_day(dt.date.fromisoformat(day)) for day in ("2023-10-01", "2024-03-31"))
        assert bars_per_session(table, np.arange(first, last), minutes) == bars

    def test_numbers_count_from_the_open(self) -> None:
        """A missing first bar shifts nothing; a day that the table does not know counts from its first bar."""
        table = load_sessions("nse")
        monday, sunday = (session_day(dt.date.fromisoformat(day)) for day in ("2024-01-08", "2024-01-07"))
        opens = int(table.open_close_ns(np.array([monday]))[0][0])
        minute = 60_000_000_000
        bar_time = np.array(
            [opens + 2 * minute, opens + 7 * minute, opens - 1440 * minute, opens - 1439 * minute]
        )
        days = np.array([monday, monday, sunday, sunday])
        assert _bar_in_session(bar_time, days, table, 1).tolist() == [2, 7, 0, 1]
        assert _bar_in_session(bar_time, days, table, 0).tolist() == [0, 0, 0, 0]


class TestChecklist:
    """The section of the decision."""

    def test_it_changes_nothing_else(self, decided: Path, validated: Path, tmp_path: Path) -> None:
        """With rules there is one more key and one more section; evidence and every other line are the same."""
        without = decide(validated, tmp_path / "without", policy_of(), DECIDED_AT)
        having = read_json(decided / CHECKLIST_FILE)
        page = (decided / CHECKLIST_PAGE).read_text()
        section = page[page.index("## Live Monitoring") : page.index("## Pre-Deployment Checklist")]

        assert {name: part for name, part in having.items() if name != SECTION} == without
        assert set(having[SECTION]) == {"baseline", "implies", "rules"}
        assert page.replace(section, "") == (tmp_path / "without" / CHECKLIST_PAGE).read_text()
        assert all(line in section for line in having[SECTION]["implies"]["warnings"])
        assert read_json(decided / EVIDENCE_FILE) == read_json(tmp_path / "without" / EVIDENCE_FILE)
        assert differences(having) == []

    def test_it_is_read_where_it_is_needed(self, decided: Path, baseline: MonitoringBaseline) -> None:
        """From the stored checklist come the same baseline and rules; from one without the section, none."""
        stored = read_json(decided / CHECKLIST_FILE)
        assert MonitoringBaseline.of_checklist(stored) == baseline
        assert MonitoringRules.of_checklist(stored) == RULES
        del stored[SECTION]
        assert MonitoringBaseline.of_checklist(stored) is None
        assert MonitoringRules.of_checklist(stored) is None

    def test_it_verifies(self, decided: Path) -> None:
        """A verification judges with the stored rules and finds no difference."""
        assert verify(decided, reports_dir=decided / "none")["differences"] == []

    @pytest.mark.parametrize(
        "edit",
        [
            lambda section: section["baseline"]["hit_ratio"].update(effective=1e6),
            lambda section: section["baseline"]["behaviour"]["daily_maxima"]["silent"].update(largest=1e6),
            lambda section: section["implies"]["warnings"].clear(),
            lambda section: section["rules"].update(window_hours=240.0),
            lambda section: section["rules"].update(window_hours="x"),
            lambda section: section.pop("rules"),
        ],
        ids=["baseline", "behaviour", "warnings", "rules", "no number", "no rules"],
    )
    def test_what_was_changed_is_found(self, decided: Path, edit: Callable[[Any], object]) -> None:
        """Anything that does not follow from predictions and rules is a difference, never a traceback."""
        checklist = read_json(decided / CHECKLIST_FILE)
        edit(checklist[SECTION])
        write_json(decided / CHECKLIST_FILE, checklist)
        assert verify(decided, reports_dir=decided / "none")["differences"]

    def test_rules_come_from_where_the_policy_comes_from(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A run is judged with the settings' rules."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("SENSEQUANT_STUDENT_MONITORING_WINDOW_HOURS", "48")
        assert judged_by("swing").rules == replace(RULES, window_hours=48.0)
