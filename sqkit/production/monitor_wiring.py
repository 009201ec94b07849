"""Monitoring, put together: for an engine, and for ``sqkit monitor``. The place that knows monitoring and promoter."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqkit.errors import SqkitError
from sqkit.production.engine_config import Config, Sink
from sqkit.production.monitor_actions import PromoterActions
from sqkit.production.monitor_log import COMPONENT, logger
from sqkit.production.monitor_store import IN_MEMORY
from sqkit.production.monitoring import MonitoringService
from sqkit.production.scorer import StudentScorer
from sqkit.production.slots import slot_named
from sqkit.production.telemetry import TelemetryWriter
from sqkit.settings import Settings


def monitoring_service(
    settings: Settings,
    *,
    strategy: str,
    market: str,
    interval: str,
    root: Path = Path(),
    now_ns: Callable[[], int] | None = None,
    keeps: bool = True,
) -> MonitoringService:
    """A service whose steps go to the audit log, and that acts through the promoter where the settings allow.

    Parameters
    ----------
    now_ns
        Gives the present, UTC nanoseconds; by default the promoter's clock.
    keeps
        False: it only looks; nothing is kept, sent or done.
    """
    if not keeps:
        return MonitoringService(
            settings,
            strategy=strategy,
            market=market,
            interval=interval,
            root=root,
            state=IN_MEMORY,
        )
    slot = slot_named(settings, strategy, root).name
    clock = None if now_ns is None else lambda: dt.datetime.fromtimestamp(now_ns() // 10**9, dt.UTC)
    actions = PromoterActions(slot, settings, root, clock)
    return MonitoringService(
        settings,
        now_ns=now_ns or time.time_ns,
        strategy=strategy,
        market=market,
        interval=interval,
        root=root,
        on_breach=actions if _may_act(settings) else None,
        on_steps=actions.keep_steps,
    )


def _may_act(settings: Settings) -> bool:
    return settings.student_auto_rollback_enabled or settings.student_behaviour_halt_enabled


def own_monitor(
    config: Config, settings: Settings, root: Path, scorer: StudentScorer, now_ns: Callable[[], int]
) -> MonitoringService | None:
    """The service of an engine, running; None where the settings ask for none, or this engine's slot is another strategy's.

    What goes wrong is logged: trading goes on unwatched.
    """
    if not settings.student_monitoring_enabled or scorer.refusal in (
        "strategy_mismatch",
        "disabled",
        "no_student",
    ):
        return None
    try:
        service = monitoring_service(
            settings,
            strategy=config.strategy,
            market=config.calendar,
            interval=config.interval,
            root=root,
            now_ns=now_ns,
        )
    except (SqkitError, OSError) as problem:
        logger.error("the live model is not monitored: %s", problem, extra=COMPONENT)
        return None
    service.start()
    return service


def hearing(monitor: MonitoringService | None, sink: Sink) -> Callable[[Mapping[str, Any]], None] | None:
    """Let a service hear what an engine writes; what the engine has to tell it itself where the sink does not."""
    if monitor is None:
        return None
    if isinstance(sink, TelemetryWriter):
        sink.heard = monitor.hear
        return None
    return monitor.record_student_prediction
