"""Every setting changes behaviour: a knob that turns nothing is a lie.

A setting whose consumer is not built yet waits here with the issue that brings it. Nothing
else may enter that list, and it is empty at the end.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from sqkit.artifacts import APPROVALS_FILE
from sqkit.bars import BarArrays
from sqkit.checklist import Adequacy, Policy, generate_promotion_checklist, render_markdown
from sqkit.errors import SqkitError
from sqkit.metrics import METRIC_KEYS
from sqkit.production.alert_channels import Channels
from sqkit.production.alerts import Alert
from sqkit.production.approvals import Signer, approve
from sqkit.production.engine import Config
from sqkit.production.exporter import serve_metrics
from sqkit.production.monitor_machine import ROLLED_BACK, Done
from sqkit.production.monitor_store import IN_MEMORY
from sqkit.production.monitor_wiring import monitoring_service, own_monitor
from sqkit.production.monitoring import MonitoringService
from sqkit.production.promotion_checks import examine
from sqkit.production.scorer import StudentScorer
from sqkit.production.slot_state import SlotState
from sqkit.production.slots import slot_named
from sqkit.production.webhook import webhook_problems
from sqkit.research.backtest import Window, backtest_symbol
from sqkit.research.planted import planted_market, write_market
from sqkit.research.sources import load_bars
from sqkit.research.validation_plan import production_baseline
from sqkit.settings import PREFIX, Settings
from sqkit.student import Scores
from sqkit.trading_rules import TradingRules
from tests.engines import Bench, Trading, pairs, series, student, student_bytes
from tests.graded import graded_records
from tests.monitored import Market, baseline_of, write_telemetry
from tests.project import Project
from tests.small_candidate import small_candidate

WAITING: dict[str, int] = {
    # issue 7: the cluster
    "scheduler": 7,
}


class _AlwaysUp:
    """A scorer that is sure of up by 0.65 on every bar: enough to move with the threshold."""

    def __init__(self, feature_set: Any) -> None:
        self.feature_set = feature_set

    def score_rows(self, features: np.ndarray, threshold: float, *, warm_up_rows: int = 0) -> Scores:
        probability = np.full(len(features), 0.65)
        called = np.full(len(features), 1 if threshold <= 0.65 else 0, dtype=np.int8)
        return Scores(probability, probability, called, np.zeros(len(features), dtype=np.int8))


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BarArrays]:
    """One planted symbol of daily and one of five-minute bars."""
    series = {}
    for strategy, interval, sessions in (("swing", "1d", 500), ("intraday", "5m", 60)):
        place = write_market(planted_market(5, 1, sessions, interval, 0.2), tmp_path_factory.mktemp(strategy))
        loaded, _ = load_bars(str(place), ["PLANT01"], interval=interval, market="us")
        series[strategy] = loaded["PLANT01"]
    return series


def _traded(strategy: str) -> Callable[[Settings, dict[str, BarArrays]], Any]:
    """What a backtest under these settings trades and earns."""

    def observe(settings: Settings, bars: dict[str, BarArrays]) -> Any:
        from sqkit.features import student_set

        series = bars[strategy]
        rules = TradingRules.from_settings(
            settings, strategy=strategy, market="us", horizon_bars=5, dead_zone=0.5
        )
        days = series.session_days
        window = Window(int(days[len(days) // 3]), int(days[-1]))
        run = backtest_symbol(series, _AlwaysUp(student_set(strategy)), window, rules)  # type: ignore[arg-type]
        return run.fills.net_pnl.tolist(), {name: one.tolist() for name, one in run.fills.trades.items()}

    return observe


def _decided(
    candidate: dict[str, float], adequacy: Adequacy | None, grade: str = "none"
) -> Callable[..., Any]:
    """Recommendation and page of a checklist under these settings."""

    def observe(settings: Settings, _: Any) -> Any:
        baseline = dict(zip(METRIC_KEYS, (0.6, 0.6, 0.6, 1.0, 0.1, 0.1, 0.5), strict=True))
        checklist = generate_promotion_checklist(
            timestamp="2025-01-12T15:30:00Z",
            candidate_model=None,
            baseline_model=None,
            start=None,
            end=None,
            symbols=None,
            candidate_metrics=baseline | candidate,
            baseline_metrics=baseline
            | {"sharpe_ratio": 0.1 if candidate.get("sharpe_ratio") == 0.25 else 1.0},
            policy=Policy.from_settings(settings),
            adequacy=adequacy,
            evidence={"records": graded_records(grade)},
            digests={"predictions": "a" * 64} if adequacy else {},
        )
        return checklist["recommendation"], checklist["validation_results"], render_markdown(checklist)

    return observe


PEOPLE = ("Ana", "Ben", "Cem")
GOOD = {"precision_long": 0.65, "hit_ratio": 0.65, "sharpe_ratio": 1.5}
ENOUGH = Adequacy(100, 80, 300, 300)


def _checked(
    check: str, approvers: tuple[str, ...] = (), approved: str = "2025-01-20"
) -> Callable[[Settings, Any], Any]:
    """What a check of the promoter says of one small candidate, twenty days after its decision.

    The approvers type their names on the day they approve, each in the next role; what refuses one of
    them is what is said.
    """

    def observe(settings: Settings, _: Any) -> Any:
        root = Path()
        (root / "data/models/20250101_000000/student" / APPROVALS_FILE).unlink(missing_ok=True)
        model = small_candidate(root).relative_to(root)
        at = dt.datetime.fromisoformat(f"{approved}T12:00:00+00:00")
        try:
            for role, name in zip(settings.promotion_required_approvals, approvers, strict=False):
                approve(model, role, Signer(name), settings=settings, root=root, now=at)
        except SqkitError as refusal:
            return type(refusal).__name__, str(refusal)
        result, _candidate = examine(
            model,
            settings=settings,
            root=root,
            now=dt.datetime(2025, 1, 21, tzinfo=dt.UTC),
            entries=[],
            state=SlotState("default"),
            slot=slot_named(settings, "default"),
            environ={},
        )
        return next((one.status, one.detail) for one in result.checks if one.name == check)

    return observe


def _announced(**others: str) -> Callable[[Settings, Any], Any]:
    """Whether an event could be sent, where the other half of the webhook is as given."""
    return lambda settings, _: webhook_problems(settings.model_copy(update=others))


def _undelivered(settings: Settings, _: Any) -> Any:
    """Which channels an alert goes to, and how often each failed: nobody listens there."""
    channels = Channels(settings, Path(tempfile.mkdtemp(dir=Path())))
    channels.send(Alert("a", "default", "swing", "", "", "info", "2025-03-03T10:00:00Z", "", "", (), {}))
    channels.close(wait_seconds=20)
    return channels.failures


def _served_metrics(**others: Any) -> Callable[[Settings, Any], Any]:
    """Whether metrics are served, where the other half of the address is as given."""

    def observe(settings: Settings, _: Any) -> Any:
        exporter = serve_metrics(settings.model_copy(update=others), list)
        if exporter is not None:
            exporter.close()
        return exporter is not None

    return observe


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


METRICS_PORT = _free_port()


def _places(settings: Settings, _: Any) -> Any:
    return settings.slot_paths(), [production_baseline(settings, name) for name in ("intraday", "swing")]


def _engine(settings: Settings, **settled: Any) -> Bench:
    """A swing engine in a fresh project under these settings, with some in place."""
    root = Path(tempfile.mkdtemp(dir=Path()))
    shutil.copy("other.onnx", root / "other.onnx")
    given = settings.model_copy(update={"market": "us", **settled})
    return Bench(root, settings=given, keep_state=False)


def _admitted(settings: Settings, _: Any) -> Any:
    """What is served of a file that nobody promoted."""
    root = Path(tempfile.mkdtemp(dir=Path()))
    given = settings.model_copy(update={"student_model_enabled": True})
    place = root / given.student_model_path
    place.parent.mkdir(parents=True)
    place.write_bytes(student_bytes())
    return StudentScorer(given, "swing", root=root).refusal


def _reloaded(settings: Settings, _: Any) -> Any:
    """Which release decides on the bar after a promotion, within a session."""
    project = Trading(Path(tempfile.mkdtemp(dir=Path())), strategy="intraday")
    project.promote(1, "2003-01-02T10:00:00+00:00")
    given = settings.model_copy(update={"market": "us", "student_model_enabled": True})
    bench = Bench(project.root, "intraday", settings=given, keep_state=False)
    bars = pairs(series("intraday", sessions=1))
    bench.feed(bars[:5])
    project.promote(2)
    bench.engine._watch.check()
    bench.feed(bars[5:6])
    return bench.predictions()[-1]["student_model_version"]


def _locked(settings: Settings, _: Any) -> Any:
    """Why nothing is entered where scoring is enabled and there is no model."""
    bench = _engine(settings, student_model_enabled=True)
    bench.feed(series("swing", sessions=3))
    return [one["entry_lock"] for one in bench.predictions()]


def _late(settings: Settings, _: Any) -> Any:
    """Whether bars that come 100 seconds after their end are late."""
    given = settings.model_copy(update={"market": "us"})
    bench = Bench(Path(tempfile.mkdtemp(dir=Path())), "intraday", settings=given, keep_state=False)
    bench.feed([(bar, at + 100 * 10**9) for bar, at in pairs(series("intraday", sessions=1))[:3]])
    return [one["bar_status"] for one in bench.predictions()]


@functools.cache
def _lost() -> list[dict[str, Any]]:
    """Telemetry of a model that fails from the third session on."""
    return list(Market(5, {0: (0.6, 0.6), 2: (0.45, 0.6)}, symbols=2).records(range(5)))


def _monitored(**settled: Any) -> Callable[[Settings, Any], Any]:
    """Steps and alerts of monitoring over that, with some settings in place; what it asks for is done."""

    def observe(settings: Settings, _: Any) -> Any:
        root = Path(tempfile.mkdtemp(dir=Path()))
        given = settings.model_copy(update={"market": "us", **settled})
        service = MonitoringService(
            given,
            strategy="intraday",
            market="us",
            interval="1m",
            root=root,
            baseline_of=baseline_of,
            on_breach=lambda request: Done(ROLLED_BACK, request.restores),
            state=IN_MEMORY,
        )
        write_telemetry(root / given.data_dir / "telemetry", iter(_lost()))
        service.poll()
        assert service._store is not None
        said = service._store.steps("default"), service.status()
        service.close()
        return said

    return observe


def _watches(settings: Settings, _: Any) -> Any:
    """Whether an engine has a monitor of its own."""
    root = Path(tempfile.mkdtemp(dir=Path()))
    scorer = Bench(root, settings=settings, model=student("swing"), keep_state=False).engine.scorer
    given = settings.model_copy(update={"market": "us"})
    monitor = own_monitor(Config("swing", ("AAA",)).filled(given), given, Path(), scorer, time.time_ns)
    if monitor is not None:
        monitor.close()
    return monitor is not None


def _may_halt(settings: Settings, _: Any) -> Any:
    """Whether monitoring can ask for anything to be done."""
    service = monitoring_service(settings, strategy="swing", market="us", interval="1d")
    return service._on_breach is not None


EFFECTS: dict[str, tuple[Any, Callable[[Settings, dict[str, BarArrays]], Any]]] = {
    "student_model_enabled": (True, lambda settings, _: settings.startup_problems()),
    "student_model_path": ("other.onnx", _places),
    "student_model_paths": ({"swing": "other.onnx"}, _places),
    "student_model_confidence_threshold": (0.7, _traded("swing")),
    "promotion_min_precision_uplift": (0.06, _decided(GOOD, ENOUGH)),
    "promotion_min_hit_ratio_uplift": (0.06, _decided(GOOD, ENOUGH)),
    "promotion_min_sharpe_uplift": (0.6, _decided(GOOD, ENOUGH)),
    "promotion_min_sharpe_uplift_absolute": (0.2, _decided(GOOD | {"sharpe_ratio": 0.25}, ENOUGH)),
    "promotion_min_sharpe": (2.0, _decided(GOOD, ENOUGH)),
    "promotion_require_all_criteria": (False, _decided(GOOD | {"hit_ratio": 0.6}, ENOUGH)),
    "promotion_min_evidence": ("none", _decided(GOOD, ENOUGH)),
    "promotion_min_days": (200, _decided(GOOD, ENOUGH, "moderate")),
    "promotion_min_calls": (400, _decided(GOOD, ENOUGH, "moderate")),
    "promotion_required_approvals": (("risk_manager",), _decided(GOOD, ENOUGH)),
    "promotion_allowed_signers": ("allowed_signers", _checked("approvals", PEOPLE)),
    "promotion_allow_self_approval": (True, _checked("approvals", ("trainer", *PEOPLE[1:]))),
    "promotion_approval_max_age_days": (30, _checked("approvals", PEOPLE, "2025-01-02")),
    "promotion_checklist_max_age_days": (10, _checked("age")),
    "student_model_max_age_days": (10, _checked("age")),
    "student_model_version": ("20240601_120000", _checked("pin")),
    "webhook_url": ("https://alerts.example.com/sqkit", _announced()),
    "webhook_secret": (
        SecretStr("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        _announced(webhook_url="https://alerts.example.com/sqkit"),
    ),
    "alertmanager_url": ("http://127.0.0.1:9", _undelivered),
    "metrics_port": (METRICS_PORT, _served_metrics()),
    "metrics_host": ("192.0.2.1", _served_metrics(metrics_port=METRICS_PORT)),  # nobody's address
    "student_monitoring_enabled": (True, _watches),
    "student_monitoring_window_hours": (72.0, _monitored()),
    "student_monitoring_min_samples": (400, _monitored()),
    "student_monitoring_precision_drop_threshold": (0.02, _monitored()),
    "student_monitoring_hit_ratio_drop_threshold": (0.02, _monitored()),
    "student_monitoring_alert_cooldown_hours": (0.0, _monitored(student_monitoring_min_samples=20)),
    "student_monitoring_accuracy_floor_ratio": (0.5, _monitored(student_monitoring_accuracy_floor_days=1)),
    "student_monitoring_accuracy_floor_days": (1, _monitored()),
    "student_monitoring_days_between_false_alerts": (5.0, _monitored()),
    "student_auto_rollback_enabled": (True, _monitored()),
    "student_auto_rollback_confirmation_hours": (0.0, _monitored(student_auto_rollback_enabled=True)),
    "student_auto_rollback_alpha": (1e-4, _monitored(student_auto_rollback_enabled=True)),
    "student_behaviour_halt_enabled": (True, _may_halt),
    "student_model_require_release": (False, _admitted),
    "student_model_reload": ("immediate", _reloaded),
    "student_challenger_path": (
        "other.onnx",
        lambda settings, _: len(_engine(settings).events()[0]["challengers"]),
    ),
    "student_fallback": ("no_new_entries", _locked),
    "feed_stale_seconds": (60.0, _late),
    "square_off_minutes": (120, _traded("intraday")),
    "strategy_entry_strength": (0.8, _traded("swing")),
    "strategy_exit_strength": (0.5, _traded("swing")),
    "strategy_ema_fast": (5, _traded("swing")),
    "strategy_ema_slow": (60, _traded("swing")),
    "strategy_atr_bars": (40, _traded("swing")),
    "strategy_rsi_bars": (3, _traded("swing")),
    "strategy_rsi_high": (60.0, _traded("swing")),
    "strategy_rsi_low": (45.0, _traded("intraday")),
    "swing_max_holding_days": (3, _traded("swing")),
    "swing_allow_short": (True, _traded("swing")),
    "slippage_bps_intraday": (9.0, _traded("intraday")),
    "slippage_bps_swing": (9.0, _traded("swing")),
    "cost_schedule": ("flat_bps:25", _traded("swing")),
    "backtest_capital_per_symbol": (1_000_000.0, _traded("swing")),
}


@pytest.mark.parametrize("name", sorted(EFFECTS))
def test_a_setting_changes_what_happens(
    name: str, bars: dict[str, BarArrays], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With another value the same input gives another result."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.onnx").write_bytes(b"")
    (tmp_path / "allowed_signers").write_text(f"ana@example.com ssh-ed25519 {'A' * 68}\n")
    value, observe = EFFECTS[name]

    assert observe(Settings(**{name: value}), bars) != observe(Settings(), bars)


COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "market": ("us", ("data", "check", "ALPHA.csv", "--json")),
    "sessions_file": ("closed.json", ("data", "check", "ALPHA.csv", "--json")),
    "data_dir": ("elsewhere", ("train-teacher",)),
    "reports_dir": ("elsewhere", ("report", "--json")),
}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_setting_changes_what_a_command_does(name: str, tmp_path: Path) -> None:
    """Places and calendars take effect through the environment of a real command."""
    lines = ["date,open,high,low,close,volume"]
    lines += [f"2023-05-{day:02d},10,11,9,10,1000" for day in (2, 3, 4, 5)]
    (tmp_path / "ALPHA.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "closed.json").write_text(json.dumps({"holidays": ["2023-05-03"]}))
    value, words = COMMANDS[name]
    project = Project(tmp_path)

    usual = project.sqkit(*words)
    changed = project.sqkit(*words, environment={PREFIX + name.upper(): value})

    assert (usual.stdout, usual.stderr) != (changed.stdout, changed.stderr)


def test_every_setting_is_proved_or_waits_for_a_named_issue() -> None:
    """No setting is in neither list, none is in both, and only open issues may be waited for."""
    proved = set(EFFECTS) | set(COMMANDS)

    assert proved | set(WAITING) == set(Settings.model_fields)
    assert not proved & set(WAITING)
    assert set(WAITING.values()) <= {6, 7}
