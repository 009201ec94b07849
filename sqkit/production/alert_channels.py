"""Where alerts go: the log, a file, a signed webhook, an Alertmanager.

`Channels.send` tells an alert everywhere and returns: what a receiver does delays nobody and fails nobody. The
webhook has a process of its own (`sqkit.production.webhook_delivery`), the Alertmanager a daemon thread. What goes
wrong is counted for each channel, and logged once for each cause until the channel works again.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import errno
import json
import logging
import os
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from sqkit.errors import SqkitError
from sqkit.files import canonical_json, make_folder, read_plain
from sqkit.production.alerts import Alert, posted, webhook_event, webhook_id
from sqkit.production.monitor_log import COMPONENT, logger
from sqkit.production.monitor_store import MONITORING_FOLDER
from sqkit.production.slots import models_folder
from sqkit.production.webhook import DELIVERIES_FILE, start_delivery, webhook_problems
from sqkit.production.webhook_delivery import BACK_OFF_SECONDS, TIMEOUT_SECONDS, split_url
from sqkit.settings import PREFIX, Settings

ALERTS_FILE: Final = "alerts.jsonl"
LOG: Final = "log"
FILE: Final = "file"
WEBHOOK: Final = "webhook"
ALERTMANAGER: Final = "alertmanager"

REPEAT: Final = dt.timedelta(minutes=1)
"""An Alertmanager is told again what fires after this time, as Prometheus does."""

EXPIRY: Final = dt.timedelta(minutes=4)
"""An Alertmanager that hears nothing for so long takes an alert as ended: a dead monitor keeps none alive."""

RESOLVED_FOR: Final = dt.timedelta(minutes=5)
"""So long it is told again of an end, for one that was down just then."""

DELIVERED_WITHIN: Final = dt.timedelta(minutes=5)
"""A delivery that has not ended after this time was killed."""

MOST_ALERTS: Final = 500
POST_SECONDS: Final = 5.0

_LEVELS: Final = {"critical": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO}

Clock = Callable[[], dt.datetime]
Outcome = Callable[[str, str], None]
"""Told the name of a channel, and why it failed; an empty text where it did not."""


class _Undelivered(Exception):
    """Why a channel did not take an alert, in words that hold no secret."""


def channel_problems(settings: Settings) -> list[str]:
    """Which channels cannot work with these settings, one line each without any secret."""
    problems = webhook_problems(settings)
    if settings.alertmanager_url:
        try:
            split_url(settings.alertmanager_url)
        except ValueError as problem:
            problems.append(f"{PREFIX}ALERTMANAGER_URL: {problem}; it gets no alert until that is corrected")
    return problems


class Channels:
    """Every place that the settings send alerts to.

    Parameters
    ----------
    settings, root
        Settings, and the project's root; settings of None tell nobody.
    clock
        Now, UTC.

    Attributes
    ----------
    failures
        How often each channel in use failed since the start.
    """

    def __init__(
        self,
        settings: Settings | None,
        root: Path = Path(),
        *,
        clock: Clock = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._lock = threading.Lock()
        self._failing: dict[str, set[str]] = {}
        self._unusable: list[str] = []
        self._tellers: dict[str, Callable[[Alert], None]] = {}
        self._webhook: _Webhook | None = None
        self._alertmanager: _Alertmanager | None = None
        if settings is not None:
            self._unusable = channel_problems(settings)
            self._open(settings, root, clock)
        self.failures = dict.fromkeys(self._tellers, 0)

    @classmethod
    def none(cls) -> Channels:
        """Channels that tell nobody, not even the log."""
        return cls(None)

    def _open(self, settings: Settings, root: Path, clock: Clock) -> None:
        file = root / settings.data_dir / MONITORING_FOLDER / ALERTS_FILE
        self._tellers[LOG] = _log
        self._tellers[FILE] = lambda alert: self._keep(file, alert)
        if settings.webhook_url:
            deliveries = models_folder(settings, root).resolve() / DELIVERIES_FILE
            self._webhook = _Webhook(settings, deliveries, clock, self._came_of)
            self._tellers[WEBHOOK] = self._webhook.tell
        if settings.alertmanager_url:
            try:
                self._alertmanager = _Alertmanager(settings.alertmanager_url, clock, self._came_of)
            except ValueError:
                self._tellers[ALERTMANAGER] = lambda alert: _refuse(self._unusable[-1])
            else:
                self._tellers[ALERTMANAGER] = self._alertmanager.tell

    def send(self, alert: Alert) -> None:
        """Tell an alert, or its end, everywhere; never waits for a receiver and never raises."""
        for channel, tell in self._tellers.items():
            try:
                tell(alert)
            except Exception as problem:  # noqa: BLE001 - an alert never stops what it tells of
                self._came_of(channel, cause_of(problem))

    def repeat(self, firing: Iterable[Alert]) -> None:
        """Tell an Alertmanager what fires now and what ended lately, once a minute however often this is called.

        Takes note of what came of webhooks, too.
        """
        if self._webhook is not None:
            self._webhook.look()
        if self._alertmanager is not None:
            self._alertmanager.repeat(firing)

    def problems(self) -> list[str]:
        """What does not work, one line each without any secret: wrong settings, and channels that fail now."""
        with self._lock:
            failing = [
                f"{channel}: alerts do not arrive ({'; '.join(sorted(causes))}); {self.failures[channel]} failed"
                for channel, causes in sorted(self._failing.items())
                if not causes & set(self._unusable)
            ]
        return [*self._unusable, *failing]

    def close(self, wait_seconds: float = 2.0) -> None:
        """End; an Alertmanager that answers gets what waits, one that does not holds nobody up for longer."""
        if self._alertmanager is not None:
            self._alertmanager.close(wait_seconds)

    def _keep(self, file: Path, alert: Alert) -> None:
        _append(file, alert)
        self._came_of(FILE, "")

    def _came_of(self, channel: str, cause: str) -> None:
        """Count a failure, and say its cause the first time; the next success makes it news again."""
        with self._lock:
            if not cause:
                self._failing.pop(channel, None)
                return
            self.failures[channel] += 1
            causes = self._failing.setdefault(channel, set())
            known = cause in causes
            causes.add(cause)
        if not known:
            logger.warning(
                "alerts do not arrive by %s (%s); monitoring goes on", channel, cause, extra=COMPONENT
            )


def _refuse(problem: str) -> None:
    raise _Undelivered(problem)


def cause_of(problem: Exception) -> str:
    """What went wrong, without anything of an address."""
    reason = problem.reason if isinstance(problem, urllib.error.URLError) else problem
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"the certificate was refused ({reason.verify_message})"
    if isinstance(reason, _Undelivered | SqkitError):
        return str(reason)
    return getattr(reason, "strerror", None) or type(reason).__name__


def _log(alert: Alert) -> None:
    state = "resolved" if alert.resolved else alert.severity
    said = f"{state}: {alert.summary}; what sqkit does: {alert.will}"
    if alert.commands:
        said += f"; to act: {' | '.join(alert.commands)}"
    level = logging.INFO if alert.resolved else _LEVELS.get(alert.severity, logging.WARNING)
    extra = {
        **COMPONENT,
        "alert": alert.name,
        "fingerprint": alert.fingerprint,
        "model_version": alert.model_version,
        "slot": alert.slot,
    }
    logger.log(level, "%s", said, extra=extra)


def _append(file: Path, alert: Alert) -> None:
    """Add one line; what a full disk left half of the last one is closed first."""
    line = canonical_json(alert.to_dict(), indent=None).encode()
    make_folder(file.parent)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    handle = os.open(file, flags, 0o644)
    try:
        size = os.fstat(handle).st_size
        torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        data = b"\n" + line if torn else line
        if os.write(handle, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(handle)


class _Webhook:
    """Starts a process for every alert, and reads in the log of deliveries what came of it."""

    def __init__(self, settings: Settings, deliveries: Path, clock: Clock, came_of: Outcome) -> None:
        self._settings = settings
        self._deliveries = deliveries
        self._clock = clock
        self._came_of = came_of
        self._under_way: dict[str, dt.datetime] = {}
        self._looked_at_ns = -1

    def tell(self, alert: Alert) -> None:
        """Begin to deliver an alert.

        Raises
        ------
        _Undelivered, OSError
            No process could be started, or none would be of use.
        """
        problems = webhook_problems(self._settings)
        if problems:
            raise _Undelivered(problems[0])
        event, event_id = webhook_event(alert), webhook_id(alert)
        start_delivery(
            {
                "back_off_seconds": BACK_OFF_SECONDS,
                "body": canonical_json(event, indent=None).strip(),
                "id": event_id,
                "line": None,
                "log": str(self._deliveries),
                "secret": self._settings.webhook_secret.get_secret_value(),
                "timeout_seconds": TIMEOUT_SECONDS,
                "type": event["type"],
                "url": self._settings.webhook_url,
            }
        )
        self._under_way[event_id] = self._clock() + DELIVERED_WITHIN

    def look(self) -> None:
        """Take note of deliveries that ended, or should have by now."""
        if not self._under_way:
            return
        for line in self._new_lines():
            if self._under_way.pop(str(line.get("id")), None) is not None:
                self._came_of(
                    WEBHOOK, "" if line.get("delivered") else line.get("problem") or "not delivered"
                )
        now = self._clock()
        for event_id in [name for name, until in self._under_way.items() if until < now]:
            del self._under_way[event_id]
            self._came_of(WEBHOOK, "its process did not end")

    def _new_lines(self) -> list[dict[str, Any]]:
        """The log of deliveries if it was written since the last look."""
        try:
            changed_ns = self._deliveries.stat().st_mtime_ns
            if changed_ns == self._looked_at_ns:
                return []
            data = read_plain(self._deliveries)
        except OSError:
            return []
        self._looked_at_ns = changed_ns
        lines = []
        for line in data.splitlines():
            with contextlib.suppress(ValueError):  # one that a crash left half
                lines.append(json.loads(line))
        return [line for line in lines if isinstance(line, dict)]


class _Alertmanager:
    """What an Alertmanager is to know, and the daemon thread that posts it.

    It is told states, not events: all that fires and all that ended lately goes in one request, so
    nothing piles up behind one that is slow, and one that was down is right again with the next request.
    """

    def __init__(self, url: str, clock: Clock, came_of: Outcome) -> None:
        self._post = _poster(url)
        self._clock = clock
        self._came_of = came_of
        self._lock = threading.Lock()
        self._firing: dict[str, Alert] = {}
        self._ended: dict[str, tuple[Alert, dt.datetime]] = {}
        self._told_at: dt.datetime | None = None
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._due = self._closed = False

    def tell(self, alert: Alert) -> None:
        """Post an alert, or its end, soon."""
        now = self._clock()
        with self._lock:
            self._forget(now)
            self._firing.pop(alert.fingerprint, None)
            self._ended.pop(alert.fingerprint, None)
            kept: dict[str, Any] = self._ended if alert.resolved else self._firing
            if len(kept) >= MOST_ALERTS:
                raise _Undelivered(f"more than {MOST_ALERTS} at once")
            kept[alert.fingerprint] = (alert, now + RESOLVED_FOR) if alert.resolved else alert
            self._told_at = now
        self._post_soon()

    def repeat(self, firing: Iterable[Alert]) -> None:
        """Take what fires now, and post it if a minute has gone by."""
        now = self._clock()
        with self._lock:
            self._forget(now)
            self._firing = {alert.fingerprint: alert for alert in list(firing)[:MOST_ALERTS]}
            for fingerprint in self._firing:
                self._ended.pop(fingerprint, None)
            recent = self._told_at is not None and dt.timedelta() <= now - self._told_at < REPEAT
            if recent or not (self._firing or self._ended):
                return
            self._told_at = now
        self._post_soon()

    def close(self, wait_seconds: float) -> None:
        """Let the thread post what waits, and end."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(wait_seconds)

    def _forget(self, now: dt.datetime) -> None:
        self._ended = {name: (alert, until) for name, (alert, until) in self._ended.items() if now < until}

    def _post_soon(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sqkit-alertmanager", daemon=True)
            self._thread.start()
        self._due = True
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._due:
                self._due = False
                self._post_all()
            if self._closed and not self._due:
                return

    def _post_all(self) -> None:
        now = self._clock()
        with self._lock:
            alerts = [*self._firing.values(), *(alert for alert, _ in self._ended.values())]
        if not alerts:
            return
        try:
            status = self._post(json.dumps([posted(alert, now, EXPIRY) for alert in alerts]).encode())
        except Exception as problem:  # noqa: BLE001 - the next request tries again
            self._came_of(ALERTMANAGER, cause_of(problem))
            return
        self._came_of(ALERTMANAGER, "" if 200 <= status < 300 else f"answered {status}")


def _poster(url: str) -> Callable[[bytes], int]:
    """Posts to the API below a URL and gives the status; follows no redirect, knows no ``file:``."""
    parts = split_url(url)
    address = parts._replace(
        netloc=parts.netloc.rpartition("@")[2], path=parts.path.rstrip("/") + "/api/v2/alerts", fragment=""
    ).geturl()
    headers: Mapping[str, str] = {"Content-Type": "application/json", "User-Agent": "sqkit"}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers = {**headers, "Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.ProxyHandler())
    opener.add_handler(urllib.request.HTTPHandler())
    opener.add_handler(urllib.request.HTTPSHandler(context=ssl.create_default_context()))

    def post(body: bytes) -> int:
        request = urllib.request.Request(address, data=body, headers=dict(headers), method="POST")  # noqa: S310
        with contextlib.closing(opener.open(request, timeout=POST_SECONDS)) as answer:
            return int(answer.status)

    return post
