"""Alerts: one fingerprint whatever is said, said once, and told everywhere without waiting for anybody."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sqkit.production import alert_channels
from sqkit.production.alert_channels import EXPIRY, RESOLVED_FOR, Channels, channel_problems
from sqkit.production.alerts import ENDED_KEPT, Alert, AlertBook, posted, webhook_event, webhook_id
from sqkit.settings import Settings
from tests.test_webhook import SECRET, Receiver, _verified, receiving

MODEL = "0123456789ab"
HOUR_NS = 3_600_000_000_000
NOW = dt.datetime(2025, 3, 3, 10, 30, tzinfo=dt.UTC)
DROP = Alert(
    name="precision_drop",
    slot="default",
    strategy="intraday",
    model=MODEL,
    model_version="20250101_120000",
    severity="warning",
    since="2025-03-03T10:00:00Z",
    summary="slot default: precision 48 % over 240 samples, validated 60 %",
    will="nothing by itself",
    commands=("sqkit monitor --slot default", "sqkit halt --slot default --reason TEXT"),
    evidence={"live": 0.48, "samples": 240},
)
HALTED = replace(DROP, name="student_halted", severity="critical", summary="the student is halted")
ENDED = replace(DROP, resolved="2025-03-03T10:20:00Z")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The receivers of these tests are on this machine."""
    monkeypatch.setenv("no_proxy", "*")


def _until(true: Callable[[], Any]) -> Any:
    """What is awaited, once it is there."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if found := true():
            return found
        time.sleep(0.005)
    raise AssertionError("it never came")


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> dt.datetime:
        return self.now


@contextlib.contextmanager
def channels(root: Path, clock: Clock | None = None, **settings: Any) -> Iterator[Channels]:
    """Channels of a project with these settings."""
    made = Channels(Settings(_env_file=None, **settings), root, clock=clock or Clock())
    try:
        yield made
    finally:
        made.close(wait_seconds=20)


def _posts(receiver: Receiver) -> list[list[dict[str, Any]]]:
    """What an Alertmanager was sent, request by request."""
    return [json.loads(body) for _, _, body in receiver.requests]


def _kept(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "data/monitoring/alerts.jsonl").read_text().splitlines()]


# --- an alert


def test_the_fingerprint_names_the_thing_and_not_the_words() -> None:
    """Other words, figures, times and severity are the same alert; another thing, place or model is not."""
    same = replace(
        DROP, summary="else", will="", severity="critical", since="2026-01-01T00:00:00Z", evidence={}
    )

    assert re.fullmatch("[0-9a-f]{16}", DROP.fingerprint)
    assert {same.fingerprint, ENDED.fingerprint, replace(DROP, commands=()).fingerprint} == {DROP.fingerprint}
    others = [replace(DROP, **{name: "other"}) for name in ("name", "slot", "strategy", "model")]
    assert len({DROP.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_the_fingerprint_stays_what_it_was() -> None:
    """A later version of sqkit must know the alerts that an earlier one raised."""
    assert DROP.fingerprint == "8339557e04f267a9"


@pytest.mark.parametrize("alert", [DROP, ENDED, HALTED])
def test_an_alert_comes_back_from_its_plain_form(alert: Alert) -> None:
    """Through JSON text and back, nothing is lost."""
    assert Alert.from_dict(json.loads(json.dumps(alert.to_dict()))) == alert
    assert alert.to_dict()["fingerprint"] == alert.fingerprint


def test_a_figure_that_is_not_finite_keeps_no_alert_from_being_told() -> None:
    """JSON has no word for it; the rest of the alert is more important."""
    odd = replace(DROP, evidence={"level": float("inf"), "days": [(1, float("nan"))], "live": 0.5})

    assert odd.to_dict()["evidence"] == {"level": None, "days": [[1, None]], "live": 0.5}
    assert json.loads(odd.annotations()["evidence"])["live"] == 0.5


def test_what_an_alertmanager_gets_of_an_alert() -> None:
    """Labels route and name it, annotations are text, what fires ends by itself, and no label is empty."""
    said = posted(DROP, NOW, EXPIRY)

    assert said["labels"] == {
        "alertname": "precision_drop",
        "model": MODEL,
        "severity": "warning",
        "slot": "default",
        "strategy": "intraday",
    }
    assert said["annotations"]["summary"] == DROP.summary
    assert said["annotations"]["commands"].splitlines() == list(DROP.commands)
    assert all(isinstance(text, str) for text in said["annotations"].values())
    assert (said["startsAt"], said["endsAt"]) == ("2025-03-03T10:00:00+00:00", "2025-03-03T10:34:00+00:00")
    assert set(said) == {"annotations", "endsAt", "labels", "startsAt"}
    assert "model" not in replace(DROP, model="").labels()


@pytest.mark.parametrize(
    ("since", "resolved", "starts", "ends"),
    [
        ("2025-03-03T10:00:00Z", "2025-03-03T10:20:00Z", "10:00", "10:20"),
        ("2025-03-03T10:00:00Z", "2025-03-03T11:00:00Z", "10:00", "10:30"),
        ("2025-03-03T11:00:00Z", "2025-03-03T11:30:00Z", "10:30", "10:30"),
        ("2025-03-03T10:20:00Z", "2025-03-03T10:10:00Z", "10:20", "10:20"),
    ],
)
def test_an_end_is_an_end_whatever_the_clocks_say(since: str, resolved: str, starts: str, ends: str) -> None:
    """It never lies in the future, where it would not be one, nor before the beginning, which is refused."""
    said = posted(replace(DROP, since=since, resolved=resolved), NOW, EXPIRY)

    assert (said["startsAt"][11:16], said["endsAt"][11:16]) == (starts, ends)


# --- what was said


def test_what_fires_is_said_once_and_takes_new_figures() -> None:
    """While it lasts it is updated, with the time at which it began."""
    book = AlertBook()
    later = replace(DROP, since="2025-03-03T11:00:00Z", summary="worse", severity="critical")

    assert book.raise_(DROP, 0, 6.0)
    assert not book.raise_(later, 100 * HOUR_NS, 6.0)
    assert book.firing() == [replace(later, since=DROP.since)]
    assert book.raise_(HALTED, 100 * HOUR_NS, 6.0)


def test_what_comes_back_is_said_again_after_the_cooldown() -> None:
    """Not before it, neither its return nor its end; but what still lasts when it is over is said then."""
    book = AlertBook()
    assert book.raise_(DROP, 0, 6.0)
    assert book.resolve(DROP.fingerprint, "2025-03-03T11:00:00Z") is not None

    assert not book.raise_(DROP, HOUR_NS, 6.0)
    assert book.firing() == [DROP]
    assert book.resolve(DROP.fingerprint, "2025-03-03T12:00:00Z") is None

    assert not book.raise_(DROP, 2 * HOUR_NS, 6.0)
    assert book.raise_(DROP, 6 * HOUR_NS, 6.0)
    assert not book.raise_(DROP, 20 * HOUR_NS, 6.0)
    ended = book.resolve(DROP.fingerprint, "2025-03-04T12:00:00Z")

    assert ended is not None
    assert (ended.resolved, ended.commands, ended.fingerprint) == (
        "2025-03-04T12:00:00Z",
        (),
        DROP.fingerprint,
    )
    assert book.raise_(DROP, 20 * HOUR_NS, 6.0)


def test_an_alert_of_another_model_has_a_cooldown_of_its_own() -> None:
    """A promotion hides nothing of the new model."""
    book = AlertBook()
    book.raise_(DROP, 0, 6.0)
    book.resolve(DROP.fingerprint, "2025-03-03T11:00:00Z")

    assert book.raise_(replace(DROP, model="ba9876543210"), 1, 6.0)


def test_only_what_fires_ends() -> None:
    """An end of something else is nothing."""
    book = AlertBook()

    assert book.resolve(DROP.fingerprint, "2025-03-03T11:00:00Z") is None
    assert book.recent(10) == []


def test_a_book_goes_on_after_a_restart_as_if_there_was_none() -> None:
    """State through JSON: what fires, what ended, and every cooldown."""
    book, again = AlertBook(), AlertBook()
    book.raise_(DROP, 0, 6.0)
    book.raise_(HALTED, 0, 6.0)
    book.resolve(DROP.fingerprint, "2025-03-03T11:00:00Z")
    again.restore(json.loads(json.dumps(book.state())))

    assert again.state() == book.state()
    for one in (book, again):
        assert not one.raise_(DROP, HOUR_NS, 6.0)
        assert one.raise_(DROP, 6 * HOUR_NS, 6.0)
    assert again.state() == book.state()


def test_a_book_forgets_what_is_long_over() -> None:
    """A thousand models leave the newest ends, and no cooldown that has passed."""
    book = AlertBook()
    for number in range(1000):
        alert = replace(DROP, model=f"{number:012d}")
        book.raise_(alert, number * HOUR_NS, 6.0)
        book.resolve(alert.fingerprint, f"2025-03-03T10:00:00.{number:06d}Z")

    assert [alert.model for alert in book.recent(2)] == ["000000000999", "000000000998"]
    assert len(book.recent(10_000)) == ENDED_KEPT
    assert len(book.state()["said_ns"]) < 10


# --- where they go


def test_an_alert_is_told_in_the_log_and_in_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The line says what is wrong, what happens and what to type; the file has one JSON line each."""
    with caplog.at_level(logging.INFO), channels(tmp_path) as told:
        for alert in (DROP, HALTED, ENDED):
            told.send(alert)

    records = [record for record in caplog.records if record.name == "sqkit.production.monitoring"]
    assert [record.levelname for record in records] == ["WARNING", "ERROR", "INFO"]
    assert all(words in records[0].getMessage() for words in (DROP.summary, DROP.will, *DROP.commands))
    assert records[2].getMessage().startswith("resolved: ")
    assert vars(records[0])["component"] == "monitoring"
    assert vars(records[0])["fingerprint"] == DROP.fingerprint
    assert [Alert.from_dict(line) for line in _kept(tmp_path)] == [DROP, HALTED, ENDED]
    assert told.failures == {"log": 0, "file": 0}
    assert told.problems() == []


def test_channels_to_nobody_tell_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """For a look that changes nothing: no log line, no file, no thread."""
    nobody = Channels.none()
    with caplog.at_level(logging.DEBUG):
        nobody.send(DROP)
        nobody.repeat([DROP])
        nobody.close()

    assert not caplog.records
    assert not list(tmp_path.iterdir())
    assert (nobody.failures, nobody.problems()) == ({}, [])


def test_a_file_that_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Counted each time, in the problems while it lasts, and news again after it has worked."""
    place = tmp_path / "data/monitoring/alerts.jsonl"
    place.mkdir(parents=True)
    with channels(tmp_path) as told:
        told.send(DROP)
        told.send(DROP)
        assert told.failures["file"] == 2
        assert [line.split(":")[0] for line in told.problems()] == ["file"]
        place.rmdir()
        told.send(DROP)
        assert told.problems() == []
        place.unlink()
        place.mkdir()
        told.send(DROP)

    said = [record.getMessage() for record in caplog.records if "by file" in record.getMessage()]
    assert len(said) == 2


def test_a_line_that_a_full_disk_left_half_spoils_no_other(tmp_path: Path) -> None:
    """The next alert begins a line of its own."""
    place = tmp_path / "data/monitoring/alerts.jsonl"
    place.parent.mkdir(parents=True)
    place.write_text('{"name": "hal')

    with channels(tmp_path) as told:
        told.send(DROP)

    assert Alert.from_dict(json.loads(place.read_text().splitlines()[1])) == DROP


def test_a_webhook_gets_alert_and_end_signed(tmp_path: Path) -> None:
    """Two events, two ids that repeat with the same alert, each verified by the standard's rule."""
    clock = Clock()
    with receiving() as receiver:
        with channels(tmp_path, clock, webhook_url=receiver.url, webhook_secret=SECRET) as told:
            told.send(DROP)
            told.send(ENDED)
            _until(lambda: len(receiver.requests) == 2)

    events = {headers["webhook-id"]: json.loads(body) for _, headers, body in receiver.requests}
    assert events == {webhook_id(DROP): webhook_event(DROP), webhook_id(ENDED): webhook_event(ENDED)}
    assert [event["type"] for event in map(webhook_event, (DROP, ENDED))] == [
        "monitoring.alert",
        "monitoring.resolved",
    ]
    assert webhook_event(ENDED)["timestamp"] == ENDED.resolved
    assert Alert.from_dict(webhook_event(DROP)["data"]) == DROP
    assert all(_verified(headers, body) for _, headers, body in receiver.requests)
    assert webhook_id(DROP) == f"alert_{DROP.fingerprint}_20250303T100000Z"
    assert webhook_id(replace(DROP, summary="else")) == webhook_id(DROP)
    assert webhook_id(replace(DROP, since="2025-03-04T10:00:00Z")) != webhook_id(DROP)


def test_a_webhook_that_does_not_arrive_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What its process wrote into the log of deliveries is counted and said; so is one that was killed."""
    monkeypatch.setattr(alert_channels, "BACK_OFF_SECONDS", ())
    clock = Clock()
    with receiving(500) as receiver:
        with channels(tmp_path, clock, webhook_url=receiver.url, webhook_secret=SECRET) as told:
            told.send(DROP)
            _until(lambda: told.repeat([]) or told.failures["webhook"])
            assert told.problems() == ["webhook: alerts do not arrive (answered 500); 1 failed"]

            monkeypatch.setattr(alert_channels, "start_delivery", lambda job: None)
            told.send(HALTED)
            clock.now += dt.timedelta(minutes=6)
            told.repeat([])
            assert told.failures["webhook"] == 2
    assert "alerts do not arrive by webhook (answered 500)" in caplog.text


def test_an_alertmanager_is_told_again_while_it_fires_and_after_it_ended(tmp_path: Path) -> None:
    """At once, then once a minute with a later end; an end is repeated for five minutes, then forgotten."""
    clock = Clock()
    with receiving(200) as receiver:
        with channels(tmp_path, clock, alertmanager_url=f"{receiver.url}/am/") as told:
            told.send(DROP)
            _until(lambda: len(receiver.requests) == 1)
            told.repeat([DROP])  # within the minute: nothing
            clock.now += dt.timedelta(minutes=1)
            told.repeat([DROP])
            _until(lambda: len(receiver.requests) == 2)

            told.send(ENDED)
            _until(lambda: len(receiver.requests) == 3)
            clock.now += RESOLVED_FOR - dt.timedelta(seconds=1)
            told.repeat([])
            _until(lambda: len(receiver.requests) == 4)
            clock.now += dt.timedelta(minutes=2)
            told.repeat([])
        posts = _posts(receiver)

    assert {path for path, _, _ in receiver.requests} == {"/am/api/v2/alerts"}
    assert receiver.requests[0][1]["content-type"] == "application/json"
    assert [[one["endsAt"][11:19] for one in post] for post in posts] == [
        ["10:34:00"],
        ["10:35:00"],
        ["10:20:00"],
        ["10:20:00"],
    ]
    assert len({json.dumps(one["labels"]) for post in posts for one in post}) == 1


def test_after_a_restart_an_alertmanager_is_told_what_fires(tmp_path: Path) -> None:
    """The first call is enough, with all that fires in one request; nothing that fires is nothing to say."""
    with receiving(200) as receiver:
        with channels(tmp_path, alertmanager_url=receiver.url) as told:
            told.repeat([])
            told.repeat([DROP, HALTED])
            _until(lambda: receiver.requests)
        assert [[one["labels"]["alertname"] for one in post] for post in _posts(receiver)] == [
            ["precision_drop", "student_halted"]
        ]


def test_what_comes_back_is_no_end_any_more(tmp_path: Path) -> None:
    """A resolved alert that fires again is told as firing only."""
    clock = Clock()
    with receiving(200) as receiver:
        with channels(tmp_path, clock, alertmanager_url=receiver.url) as told:
            told.send(ENDED)
            clock.now += dt.timedelta(minutes=2)
            told.repeat([DROP])
            _until(lambda: _posts(receiver) and _posts(receiver)[-1][0]["endsAt"][11:16] == "10:36")
        assert len(_posts(receiver)[-1]) == 1


def test_a_receiver_that_never_answers_holds_nobody_up(tmp_path: Path) -> None:
    """While both receivers hang, an alert is in the file when `send` returns, and closing does not wait for them."""
    with receiving(200, wait=60) as receiver:
        told = Channels(
            Settings(
                _env_file=None,
                alertmanager_url=receiver.url,
                webhook_url=receiver.url,
                webhook_secret=SECRET,
            ),
            tmp_path,
        )
        told.send(DROP)
        _until(lambda: any("api/v2" in path for path, _, _ in receiver.requests))  # its thread hangs now
        for number in range(50):
            told.repeat([DROP])
            if number < 3:
                told.send(HALTED)
        assert len(_kept(tmp_path)) == 4
        told.close(wait_seconds=0.01)
        assert sum("api/v2" in path for path, _, _ in receiver.requests) == 1


def test_a_receiver_that_does_not_answer_in_time_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread gives up and says so, and the next request has everything."""
    monkeypatch.setattr(alert_channels, "POST_SECONDS", 0.05)
    clock = Clock()
    with receiving(200, wait=60) as receiver:
        with channels(tmp_path, clock, alertmanager_url=receiver.url) as told:
            told.send(DROP)
            _until(lambda: told.failures["alertmanager"] == 1)
            assert told.problems() == ["alertmanager: alerts do not arrive (no answer in time); 1 failed"]
            receiver.answers[:] = [(200, {}, 0.0)]
            monkeypatch.setattr(alert_channels, "POST_SECONDS", 5.0)
            told.send(HALTED)
            _until(lambda: not told.problems())
        assert len(_posts(receiver)[-1]) == 2


def test_a_closed_port_is_said_once_and_without_secrets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Counted with every try; neither the log nor the problems show user, password or path."""
    with socket.socket() as taken:  # bound and not listening: refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://us3r:p4ss@127.0.0.1:{taken.getsockname()[1]}/T0KEN"
        with channels(tmp_path, alertmanager_url=url) as told:
            for number in range(1, 4):
                told.send(DROP)
                _until(lambda number=number: told.failures["alertmanager"] == number)
            problems = told.problems()

    said = [record.getMessage() for record in caplog.records if "do not arrive" in record.getMessage()]
    assert said == ["alerts do not arrive by alertmanager (Connection refused); monitoring goes on"]
    assert problems == ["alertmanager: alerts do not arrive (Connection refused); 3 failed"]
    assert not any(hidden in caplog.text for hidden in ("us3r", "p4ss", "T0KEN"))


def test_user_and_password_of_the_url_go_as_authorization(tmp_path: Path) -> None:
    """An Alertmanager behind a proxy that asks for them."""
    with receiving(200) as receiver:
        with channels(tmp_path, alertmanager_url=receiver.url.replace("://", "://ana:p%20w@")) as told:
            told.send(DROP)
            _until(lambda: receiver.requests)
    assert receiver.requests[0][1]["authorization"] == "Basic YW5hOnAgdw=="


def test_closing_lets_what_waits_go_out(tmp_path: Path) -> None:
    """The last alert of an engine that ends arrives, and no thread stays behind."""
    with receiving(200) as receiver:
        with channels(tmp_path, alertmanager_url=receiver.url) as told:
            told.send(HALTED)
        assert len(receiver.requests) == 1
    told.close()
    _until(lambda: not [one for one in threading.enumerate() if one.name == "sqkit-alertmanager"])


def test_more_alerts_than_anybody_reads_do_not_pile_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limit an alert is not posted, which is counted; those that are known stay."""
    monkeypatch.setattr(alert_channels, "MOST_ALERTS", 2)
    alerts = [replace(DROP, name=f"rule_{number}") for number in range(3)]
    with receiving(200) as receiver:
        with channels(tmp_path, alertmanager_url=receiver.url) as told:
            for alert in [*alerts, alerts[0]]:
                told.send(alert)
            assert told.failures["alertmanager"] == 1
            told.repeat(alerts)
        assert {len(post) for post in _posts(receiver)} <= {1, 2}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, []),
        ({"alertmanager_url": "http://127.0.0.1:9093"}, []),
        ({"alertmanager_url": "ftp://us3r@host"}, ["ALERTMANAGER_URL: ftp is neither https nor http"]),
        ({"alertmanager_url": "us3r"}, ["ALERTMANAGER_URL: no scheme"]),
        ({"webhook_url": "https://host/us3r"}, ["WEBHOOK_SECRET: is not whsec_"]),
        (
            {"webhook_url": "us3r", "alertmanager_url": "us3r"},
            ["WEBHOOK_URL", "WEBHOOK_SECRET", "ALERTMANAGER"],
        ),
    ],
)
def test_settings_that_cannot_work_are_said_and_stop_nothing_else(
    tmp_path: Path, settings: dict[str, str], words: list[str]
) -> None:
    """One line each without any secret; the other channels go on, and each failure is counted."""
    problems = channel_problems(Settings(_env_file=None, **settings))

    assert len(problems) == len(words)
    assert all(word in line for word, line in zip(words, problems, strict=True))
    assert "us3r" not in "".join(problems)
    if words:
        with channels(tmp_path, **settings) as told:
            told.send(DROP)
            assert told.problems() == problems
        assert len(_kept(tmp_path)) == 1
        assert sum(told.failures.values()) == len(settings)
