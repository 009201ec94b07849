"""Prometheus metrics of an engine and its monitoring, at ``http://<metrics_host>:<metrics_port>/metrics``.

`Exporter.observe` counts predictions as they are made and is cheap enough for a tick. Everything else is asked for
when somebody scrapes: the status of every slot, and how often a channel of alerts failed. A figure that is not
defined is absent, never NaN. Names end in their unit; what each means stands in its help text.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter as PlainCounter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from sqkit.production.monitor_log import COMPONENT, logger
from sqkit.production.monitor_machine import STATES
from sqkit.records import PREDICTION
from sqkit.settings import Settings

LATENCY_SECONDS: Final = (5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
"""Bounds of the buckets of the latency histogram."""

_SLOT: Final = ("slot", "strategy")
_US_PER_SECOND: Final = 1_000_000.0

Clock = Callable[[], dt.datetime]
Status = Callable[[], Iterable[Mapping[str, Any]]]
Failures = Callable[[], Mapping[str, int]]


class Exporter:
    """Metrics in a registry of their own: nothing of a host's is exported, and nothing of ours collides with it.

    Parameters
    ----------
    status
        Gives the status of every slot, one dict each; called at every scrape.
    failures
        Gives how often each channel of alerts failed.
    clock
        Now, UTC; for the age of the last tick.
    """

    def __init__(
        self,
        status: Status,
        *,
        failures: Failures = dict,
        clock: Clock = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self.registry = CollectorRegistry()
        self._predictions = Counter(
            "sqkit_predictions",
            "Predictions that were recorded.",
            (*_SLOT, "direction", "source"),
            registry=self.registry,
        )
        self._abstentions = Counter(
            "sqkit_abstentions",
            "Predictions on which the student said nothing, by reason.",
            (*_SLOT, "reason"),
            registry=self.registry,
        )
        self._latency = Histogram(
            "sqkit_prediction_latency_seconds",
            "Time from a bar's arrival to its record.",
            _SLOT,
            buckets=LATENCY_SECONDS,
            registry=self.registry,
        )
        self._children: dict[tuple[str, str, str, str, str], _Children] = {}
        self.registry.register(_StatusCollector(status, failures, clock))
        self._server: WSGIServer | None = None

    def observe(self, record: Mapping[str, Any]) -> None:
        """Count a telemetry record; what is no prediction is passed over."""
        if record.get("event") != PREDICTION:
            return
        try:
            key = (
                record["slot"],
                record["strategy"],
                record["student_prediction"],
                record["prediction_source"],
                record["reason"],
            )
        except KeyError:
            return
        children = self._children.get(key)
        if children is None:
            children = self._children[key] = self._children_of(*key)
        children.prediction.inc()
        if children.abstention is not None:
            children.abstention.inc()
        latency_us = record.get("latency_us")
        if latency_us is not None:
            children.latency.observe(latency_us / _US_PER_SECOND)

    def _children_of(self, slot: str, strategy: str, direction: str, source: str, reason: str) -> _Children:
        return _Children(
            self._predictions.labels(slot, strategy, direction, source),
            None if reason == "scored" else self._abstentions.labels(slot, strategy, reason),
            self._latency.labels(slot, strategy),
        )

    def start(self, host: str, port: int) -> int:
        """Serve ``/metrics`` on a daemon thread.

        Parameters
        ----------
        port
            0 takes a free one.

        Returns
        -------
        int
            The port.

        Raises
        ------
        OSError
            Host or port cannot be had.
        """
        self._server, _ = start_http_server(port, host, registry=self.registry)
        return self._server.server_port

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def serve_metrics(
    settings: Settings,
    status: Status,
    *,
    failures: Failures = dict,
    clock: Clock = lambda: dt.datetime.now(dt.UTC),
) -> Exporter | None:
    """An exporter that serves where the settings say; None where they say nowhere, or the port cannot be had.

    An engine does not fail for want of a port: that is one warning.
    """
    if not settings.metrics_port:
        return None
    exporter = Exporter(status, failures=failures, clock=clock)
    try:
        exporter.start(settings.metrics_host, settings.metrics_port)
    except OSError as problem:
        logger.warning(
            "no metrics are served at %s:%d (%s); trading and monitoring go on",
            settings.metrics_host,
            settings.metrics_port,
            problem.strerror or type(problem).__name__,
            extra=COMPONENT,
        )
        return None
    return exporter


class _Children(NamedTuple):
    """What one kind of prediction counts in, looked up once."""

    prediction: Counter
    abstention: Counter | None
    latency: Histogram


class _StatusCollector(Collector):
    """Turns statuses into metrics, at the moment of a scrape."""

    def __init__(self, status: Status, failures: Failures, clock: Clock) -> None:
        self._status = status
        self._failures = failures
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Every metric; where no status can be had, that it cannot."""
        try:
            slots = {(one["slot"], one.get("strategy") or ""): one for one in self._status() if "slot" in one}
        except Exception:  # noqa: BLE001 - the scrape says so, and gives the rest
            slots = {}
        yield GaugeMetricFamily(
            "sqkit_monitoring_up", "Whether the status of any slot is known.", value=float(bool(slots))
        )
        yield _channel_failures(self._failures())
        yield _models(slots)
        yield _records(slots)
        now = self._clock()
        for gauge in _GAUGES:
            yield gauge.family(slots, now)


Slots = Mapping[tuple[str, str], Mapping[str, Any]]
Values = Iterable[tuple[tuple[str, ...], Any]]
"""Values of the further labels, and the number; one that is undefined is left out."""


class _Gauge(NamedTuple):
    """A gauge of every slot, and how to find it in a status."""

    name: str
    help: str
    labels: tuple[str, ...]
    values: Callable[[Mapping[str, Any], dt.datetime], Values]

    def family(self, slots: Slots, now: dt.datetime) -> GaugeMetricFamily:
        """Its samples."""
        family = GaugeMetricFamily(self.name, self.help, labels=(*_SLOT, *self.labels))
        for slot, status in slots.items():
            for labels, value in self.values(status, now):
                if value is not None and not math.isnan(value):
                    family.add_metric((*slot, *labels), value)
        return family


def _channel_failures(failures: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(
        "sqkit_channel_failures", "Alerts that did not arrive, by channel.", labels=("channel",)
    )
    for channel, number in sorted(failures.items()):
        family.add_metric((channel,), number)
    return family


def _models(slots: Slots) -> InfoMetricFamily:
    family = InfoMetricFamily("sqkit_student_model", "The student that is watched.", labels=_SLOT)
    for slot, status in slots.items():
        if status.get("model_digest"):
            about = {"digest": status["model_digest"], "version": status.get("model_version") or ""}
            family.add_metric(slot, about)
    return family


def _records(slots: Slots) -> CounterMetricFamily:
    family = CounterMetricFamily(
        "sqkit_monitoring_records",
        "Telemetry records that monitoring took, by what became of them.",
        labels=(*_SLOT, "kind"),
    )
    for slot, status in slots.items():
        for kind, number in sorted(status.get("counts", {}).items()):
            family.add_metric((*slot, kind), number)
    return family


def _each(section: str, field: str) -> Callable[[Mapping[str, Any], dt.datetime], Values]:
    """A field of every metric in a section of the status."""

    def values(status: Mapping[str, Any], now: dt.datetime) -> Values:
        return [((metric,), said.get(field)) for metric, said in status.get(section, {}).items()]

    return values


def _state(status: Mapping[str, Any], now: dt.datetime) -> Values:
    return [((state,), float(status.get("state") == state)) for state in STATES]


def _state_age(status: Mapping[str, Any], now: dt.datetime) -> Values:
    return [((), _age_seconds([status.get("since")], now))]


def _tick_age(status: Mapping[str, Any], now: dt.datetime) -> Values:
    """A bar is stamped with its start: when it was decided on is nearer to when it came."""
    heard = [status.get(name) for name in ("last_heard", "last_decision_time", "last_bar_time")]
    return [((), _age_seconds(heard, now))]


def _age_seconds(instants: Sequence[str | None], now: dt.datetime) -> float | None:
    known = [dt.datetime.fromisoformat(instant) for instant in instants if instant]
    return (now - max(known)).total_seconds() if known else None


def _firing(status: Mapping[str, Any], now: dt.datetime) -> Values:
    alerts = PlainCounter((alert["name"], alert["severity"]) for alert in status.get("alerts", ()))
    return sorted(alerts.items())


_GAUGES: Final = (
    _Gauge(
        "sqkit_rolling_metric_ratio",
        "Precision of LONG calls, hit ratio and accuracy over the monitoring window.",
        ("metric",),
        _each("rolling", "value"),
    ),
    _Gauge(
        "sqkit_rolling_metric_samples",
        "Judged predictions behind the rolling metric.",
        ("metric",),
        _each("rolling", "count"),
    ),
    _Gauge(
        "sqkit_validated_metric_ratio",
        "The same metric as the model was validated at.",
        ("metric",),
        _each("rolling", "baseline"),
    ),
    _Gauge(
        "sqkit_detector_level",
        "Sequential evidence that the metric fell below its validated value.",
        ("metric",),
        _each("detectors", "level"),
    ),
    _Gauge(
        "sqkit_detector_threshold",
        "Level at which the detector alerts.",
        ("metric",),
        _each("detectors", "threshold"),
    ),
    _Gauge("sqkit_monitoring_state", "1 for the state that monitoring is in.", ("state",), _state),
    _Gauge("sqkit_monitoring_state_age_seconds", "Time in this state.", (), _state_age),
    _Gauge(
        "sqkit_pending_outcomes",
        "Predictions whose outcome is not known yet.",
        (),
        lambda status, now: [((), status.get("pending_outcomes"))],
    ),
    _Gauge("sqkit_last_tick_age_seconds", "Time since a bar was last decided on.", (), _tick_age),
    _Gauge("sqkit_alerts_firing", "Alerts that fire, by name.", ("alert", "severity"), _firing),
)
