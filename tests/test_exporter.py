"""Metrics: what is exported, that nothing undefined is, and that dashboard and rules name what there is."""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from sqkit.production.exporter import Exporter, serve_metrics
from sqkit.production.monitor_machine import STATES
from sqkit.records import BAR_REFUSED, PREDICTION
from sqkit.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
DASHBOARD = ROOT / "docs/grafana/sqkit-dashboard.json"
RULES = ROOT / "docs/grafana/sqkit-alert-rules.yml"
NOW = dt.datetime(2025, 3, 3, 10, 30, tzinfo=dt.UTC)

RECORD = {
    "event": PREDICTION,
    "slot": "default",
    "strategy": "intraday",
    "student_prediction": "LONG",
    "prediction_source": "student_model",
    "reason": "scored",
    "latency_us": 42.0,
}
STATUS = {
    "slot": "default",
    "strategy": "intraday",
    "state": "CONFIRMING",
    "since": "2025-03-03T10:00:00Z",
    "model_version": "20250101_120000",
    "model_digest": "0123456789ab",
    "rolling": {
        "precision_long": {"value": 0.48, "count": 120, "baseline": 0.6},
        "hit_ratio": {"value": 0.55, "count": 240, "baseline": 0.58},
        "accuracy": {"value": None, "count": 0, "baseline": None},
    },
    "detectors": {
        "hit_ratio": {"level": 12.5, "threshold": 100.0},
        "precision_long": {"level": 130.0, "threshold": 100.0},
    },
    "pending_outcomes": 7,
    "last_bar_time": "2025-03-03T10:27:00Z",
    "last_decision_time": "2025-03-03T10:28:00.500000Z",
    "counts": {"duplicate": 1, "late": 2},
    "alerts": [
        {"name": "sequential_precision", "severity": "critical"},
        {"name": "precision_drop", "severity": "warning"},
    ],
}
SLOT = (("slot", "default"), ("strategy", "intraday"))

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def _exporter(*statuses: dict[str, Any], failures: dict[str, int] | None = None) -> Exporter:
    return Exporter(lambda: list(statuses), failures=lambda: failures or {}, clock=lambda: NOW)


def _filled() -> Exporter:
    """One that has seen every kind of record, status and failure."""
    exporter = _exporter(STATUS, failures={"webhook": 3, "file": 0})
    exporter.observe(RECORD)
    exporter.observe(RECORD | {"reason": "low_confidence", "student_prediction": "FLAT"})
    return exporter


def _samples(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _scraped(exporter: Exporter) -> Samples:
    return _samples(generate_latest(exporter.registry).decode())


def _of(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, tuple(sorted((*SLOT, *labels.items())))))


def test_a_scrape_gives_every_figure_of_the_status() -> None:
    """Over HTTP, as Prometheus reads it, with the content type that it asks for."""
    exporter = _filled()
    port = exporter.start("127.0.0.1", 0)
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            kind, text = answer.headers["Content-Type"], answer.read().decode()
    finally:
        exporter.close()
    found = _samples(text)

    assert kind.startswith("text/plain")
    about = {"digest": "0123456789ab", "version": "20250101_120000"}
    assert _of(found, "sqkit_student_model_info", **about) == 1
    assert _of(found, "sqkit_rolling_metric_ratio", metric="precision_long") == 0.48
    assert _of(found, "sqkit_validated_metric_ratio", metric="hit_ratio") == 0.58
    assert _of(found, "sqkit_rolling_metric_samples", metric="hit_ratio") == 240
    assert _of(found, "sqkit_detector_level", metric="precision_long") == 130
    assert _of(found, "sqkit_detector_threshold", metric="hit_ratio") == 100
    assert _of(found, "sqkit_pending_outcomes") == 7
    assert _of(found, "sqkit_last_tick_age_seconds") == 119.5
    assert _of(found, "sqkit_monitoring_state_age_seconds") == 1800
    assert _of(found, "sqkit_alerts_firing", alert="precision_drop", severity="warning") == 1
    assert _of(found, "sqkit_monitoring_records_total", kind="late") == 2
    assert found["sqkit_channel_failures_total", (("channel", "webhook"),)] == 3
    assert found["sqkit_channel_failures_total", (("channel", "file"),)] == 0
    assert found["sqkit_monitoring_up", ()] == 1
    states = {state: _of(found, "sqkit_monitoring_state", state=state) for state in STATES}
    assert {state for state, value in states.items() if value} == {"CONFIRMING"}
    assert set(states.values()) == {0.0, 1.0}


def test_predictions_are_counted_by_what_they_said() -> None:
    """Direction and source; abstentions by reason; latency in seconds with buckets of microseconds."""
    exporter = _exporter()
    for latency_us in (3.0, 42.0, 20_000.0):
        exporter.observe(RECORD | {"latency_us": latency_us})
    exporter.observe(RECORD | {"reason": "halted", "student_prediction": "FLAT", "latency_us": None})
    found = _scraped(exporter)

    assert _of(found, "sqkit_predictions_total", direction="LONG", source="student_model") == 3
    assert _of(found, "sqkit_predictions_total", direction="FLAT", source="student_model") == 1
    assert _of(found, "sqkit_abstentions_total", reason="halted") == 1
    assert _of(found, "sqkit_abstentions_total", reason="scored") is None
    assert _of(found, "sqkit_prediction_latency_seconds_count") == 3
    assert _of(found, "sqkit_prediction_latency_seconds_sum") == pytest.approx(0.020045)
    bounds = {"5e-06": 1, "2e-05": 1, "5e-05": 2, "0.01": 2, "+Inf": 3}
    for bound, number in bounds.items():
        assert _of(found, "sqkit_prediction_latency_seconds_bucket", le=bound) == number


@pytest.mark.parametrize(
    "record", [{}, {"event": BAR_REFUSED, "slot": "default"}, {"event": PREDICTION, "slot": "default"}]
)
def test_what_is_no_prediction_is_passed_over(record: dict[str, Any]) -> None:
    """A refused bar, a trade or a record of another form counts nothing and raises nothing."""
    exporter = _exporter()
    exporter.observe(record)

    assert not [name for name, _ in _scraped(exporter) if name.startswith("sqkit_predictions")]


def test_what_is_undefined_is_absent() -> None:
    """None or NaN is no sample, and no NaN is ever exported; zero is a value."""
    odd = STATUS | {
        "rolling": {"hit_ratio": {"value": float("nan"), "count": 0, "baseline": None}},
        "detectors": {},
        "pending_outcomes": 0,
        "since": None,
        "last_bar_time": None,
        "last_decision_time": None,
        "model_digest": None,
        "model_version": None,
    }
    exporter = _exporter(odd)
    text = generate_latest(exporter.registry).decode()
    found = _samples(text)

    assert "nan" not in text.lower()
    assert _of(found, "sqkit_rolling_metric_samples", metric="hit_ratio") == 0
    assert _of(found, "sqkit_pending_outcomes") == 0
    absent = ("rolling_metric_ratio", "validated", "detector", "age_seconds", "student_model_info")
    assert not [name for name, _ in found if any(word in name for word in absent)]


@pytest.mark.parametrize("status", [{}, {"holder": False}, {"slot": "default"}])
def test_a_slot_of_which_little_is_known_breaks_no_scrape(status: dict[str, Any]) -> None:
    """Before the first prediction a status is nearly empty."""
    found = _scraped(_exporter(status))

    assert found["sqkit_monitoring_up", ()] == float("slot" in status)


def test_the_newest_status_of_a_slot_counts() -> None:
    """Two of one slot are no two samples of one name, which Prometheus would refuse."""
    text = generate_latest(_exporter(STATUS, STATUS | {"pending_outcomes": 9}).registry).decode()

    assert [line for line in text.splitlines() if line.startswith("sqkit_pending_outcomes{")] == [
        'sqkit_pending_outcomes{slot="default",strategy="intraday"} 9.0'
    ]


def test_a_status_that_fails_is_seen_and_hides_nothing_else() -> None:
    """The scrape says that nothing is watched and still has the predictions."""

    def broken() -> list[dict[str, Any]]:
        raise OSError("the state cannot be read")

    exporter = Exporter(broken, failures=lambda: {"file": 1})
    exporter.observe(RECORD)
    found = _scraped(exporter)

    assert found["sqkit_monitoring_up", ()] == 0
    assert found["sqkit_channel_failures_total", (("channel", "file"),)] == 1
    assert _of(found, "sqkit_predictions_total", direction="LONG", source="student_model") == 1


def test_two_exporters_do_not_meet() -> None:
    """Each has a registry of its own; nothing of the process's own registry is exported."""
    one, other = _filled(), _exporter()

    assert not [name for name, _ in _scraped(other) if name.startswith("sqkit_predictions")]
    assert all(name.startswith("sqkit_") for name, _ in _scraped(one))


def test_every_name_keeps_the_conventions() -> None:
    """Prefix, base units, and a total only for what counts."""
    for family in text_string_to_metric_families(generate_latest(_filled().registry).decode()):
        assert re.fullmatch(r"sqkit_[a-z_]+", family.name)
        assert family.documentation.endswith(".")
        assert not re.search(r"_(ms|us|micros|millis|percent|minutes|hours)(_|$)", family.name)
        if family.type == "counter":
            assert all(re.search(r"_(total|created)$", sample.name) for sample in family.samples)


def test_nothing_is_served_unless_it_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    """Port 0 is no endpoint; a port that is taken is one warning and stops nothing."""
    assert serve_metrics(Settings(_env_file=None), list) is None
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with caplog.at_level(logging.WARNING):
            assert serve_metrics(Settings(_env_file=None, metrics_port=port), list) is None
    assert len(caplog.records) == 1
    assert f"127.0.0.1:{port}" in caplog.text

    exporter = serve_metrics(Settings(_env_file=None, metrics_port=port), lambda: [STATUS])
    assert exporter is not None
    exporter.close()
    exporter.close()


def test_an_engine_does_not_load_it() -> None:
    """Who asks for no endpoint does not even import prometheus_client."""
    script = "import sys, sqkit.production.engine; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert not {"prometheus_client", "sqkit.production.exporter"} & set(loaded.split())


# --- dashboard and rules


def _exported() -> set[str]:
    """Every name that a filled exporter has a sample of."""
    return {name for name, _ in _scraped(_filled())}


def _strings(value: Any, key: str) -> Iterator[str]:
    """Every text under a key, however deep."""
    if isinstance(value, dict):
        for name, one in value.items():
            if name == key and isinstance(one, str):
                yield one
            yield from _strings(one, key)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one, key)


def _metrics(text: str) -> set[str]:
    return set(re.findall(r"\bsqkit_[a-z_]+", text))


def test_the_dashboard_shows_what_is_exported_and_all_of_it() -> None:
    """It loads, every query names metrics that there are, and every metric has a panel."""
    board = json.loads(DASHBOARD.read_text())
    queries = [*_strings(board, "expr"), *_strings(board["templating"], "query")]
    used = set().union(*map(_metrics, queries))

    exported = {name for name in _exported() if not re.search(r"_(created|count|sum)$", name)}
    assert used == exported
    assert all(panel["targets"] and panel["title"] for panel in board["panels"])
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert all(text.count("(") == text.count(")") and text.count("{") == text.count("}") for text in queries)
    assert "http" not in DASHBOARD.read_text()


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    """Every place of Grafana's grid of 24 columns belongs to one panel."""
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_the_rules_watch_what_is_exported() -> None:
    """They load, each has an expression of metrics that there are, a time, a severity and words."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    rules = {rule["alert"]: rule for rule in group["rules"]}

    assert set(rules) == {
        "SqkitAlertsNotDelivered",
        "SqkitDetectorNearThreshold",
        "SqkitModelDegraded",
        "SqkitMonitorDown",
        "SqkitNoDailyBar",
        "SqkitNoTick",
        "SqkitRolledBack",
        "SqkitStudentHalted",
    }
    for rule in rules.values():
        assert _metrics(rule["expr"])
        assert _metrics(rule["expr"]) <= _exported()
        assert set(re.findall(r'state=~?"([^"]+)"', rule["expr"])) <= {
            "HALTED",
            "ALERTING|CONFIRMING",
            "ROLLING_BACK|VERIFYING",
        }
        assert re.fullmatch(r"\d+[mh]", rule["for"])
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert {"summary", "description"} <= set(rule["annotations"])
