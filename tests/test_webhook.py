"""Webhooks: signed as standard-webhooks has it, in a process of their own, never in anybody's way."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import hmac
import json
import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sqkit.audit_log import (
    ATTEST,
    DRILL,
    HALT,
    OBJECTION,
    POLICY,
    PROMOTE,
    QUARANTINE_RELEASE,
    RATIFY,
    RESUME,
    ROLLBACK,
    UNMANAGED,
)
from sqkit.chain import Entry
from sqkit.people import Actor
from sqkit.production.audit import AuditLog
from sqkit.production.webhook import announce, event_of, start_delivery, webhook_problems
from sqkit.production.webhook_delivery import deliver, keep, signature, signing_key
from sqkit.settings import Settings

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
A, B = "a" * 64, "b" * 64
NOW = dt.datetime(2025, 3, 1, 9, 30, tzinfo=dt.UTC)
DELIVERIES = "data/models/webhooks.jsonl"

UNSIGNED = {"statement": None, "signature": None, "signers": None}
HALTED = {"level": "no_new_entries", "reason": "prices stood still"}
PROMOTED = {
    "approvals": {"ml_lead": {"name": "Ana", "signed": True}},
    "boxes": {"criteria-met": "evidence"},
    "digests": {"model": B, "checklist": "c" * 64, "manifest": "d" * 64, "approvals": "e" * 64},
    "environment": None,
    "files": {"student_model.onnx": B},
    "market": "us",
    "model_version": "20250301_090000",
    "reduced_control": False,
    "release": "20250301_150000_bbbbbbbb",
    "replaces": {"release": "20250101_120000_aaaaaaaa", "model": A},
    "strategy": "swing",
    "symbols": ["AAA"],
}
ROLLED_BACK = {
    "alert": None,
    "automatic": False,
    "environment": None,
    "model": A,
    "model_version": "20250101_110000",
    "quarantines": B,
    "reason": "drawdown",
    "release": "20250101_120000_aaaaaaaa",
    "replaces": {"release": "20250301_150000_bbbbbbbb", "model": B},
}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The receivers of these tests are on this machine."""
    monkeypatch.setenv("no_proxy", "*")


@dataclass
class Receiver:
    """A real HTTP server: what it was sent, and how it answers one request after the other."""

    answers: list[tuple[int, dict[str, str], float]]
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    def answer(self) -> tuple[int, dict[str, str], float]:
        """Status, headers and seconds to wait first; the last one for good."""
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextlib.contextmanager
def receiving(
    *statuses: int, location: str = "", wait: float = 0.0, context: ssl.SSLContext | None = None
) -> Iterator[Receiver]:
    """A receiver on a free port of this machine."""
    headers = {"Location": location} if location else {}
    receiver = Receiver([(status, headers, wait) for status in statuses or (204,)])
    released = threading.Event()

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            status, headers, wait = receiver.answer()
            released.wait(wait)
            with contextlib.suppress(OSError):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    receiver.url = f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"
    try:
        yield receiver
    finally:
        released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _settings(url: str, secret: str = SECRET) -> Settings:
    return Settings(_env_file=None, webhook_url=url, webhook_secret=secret)


def _entry(root: Path, kind: str = HALT, content: dict[str, Any] | None = None) -> Entry:
    """A real line of a real audit log."""
    return AuditLog(root / "data/models").append(
        kind,
        HALTED if content is None else content,
        slot="default",
        actor=Actor("Ana", "ana", "desk-1", "ana@example.com"),
        now=NOW,
        zone="Asia/Kolkata",
    )


def _deliveries(root: Path, number: int = 1) -> list[dict[str, Any]]:
    """The log of deliveries once it has so many lines."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        lines = (root / DELIVERIES).read_text().splitlines() if (root / DELIVERIES).exists() else []
        if len(lines) >= number:
            return [json.loads(line) for line in lines]
        time.sleep(0.02)
    raise AssertionError("nothing was delivered")


def _job(url: str, **changes: Any) -> dict[str, Any]:
    job = {
        "back_off_seconds": (0.0, 0.0),
        "body": '{"type":"slot.halted"}',
        "id": f"audit_{A}",
        "line": 7,
        "log": "/nonexistent",
        "secret": SECRET,
        "timeout_seconds": 10.0,
        "type": "slot.halted",
        "url": url,
    }
    return job | changes


def _verified(headers: dict[str, str], body: bytes) -> bool:
    """The signature as the standard describes it, computed here and not by sqkit."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(KEY, signed, hashlib.sha256)).decode()
    return headers["webhook-signature"] == f"v1,{expected}"


# --- what is sent


def test_the_signature_is_that_of_the_published_example() -> None:
    """Secret, id, time and payload of the standard's own test give the standard's own signature."""
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")

    said = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')

    assert said == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_promotion_is_told_with_everything_a_receiver_needs(tmp_path: Path) -> None:
    """Type, time, slot, previous and new release, actor, decision, and the log's line as a witness."""
    _entry(tmp_path)
    entry = _entry(tmp_path, PROMOTE, PROMOTED)
    with receiving() as receiver:
        announce(
            _settings(f"{receiver.url}/hook"),
            entry,
            root=tmp_path,
            previous={"release": "20250101_120000_aaaaaaaa", "model": A, "model_version": "20250101_110000"},
        )
        delivered = _deliveries(tmp_path)

    (path, headers, body) = receiver.requests[0]
    assert path == "/hook"
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == f"audit_{entry['digest']}"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert _verified(headers, body)
    assert json.loads(body) == {
        "type": "release.promoted",
        "timestamp": "2025-03-01T09:30:00Z",
        "data": {
            "actor": {"name": "Ana", "user": "ana", "host": "desk-1", "principal": "ana@example.com"},
            "audit": {"digest": entry["digest"], "line": 2},
            "decision": "c" * 64,
            "new": {"release": "20250301_150000_bbbbbbbb", "model": B, "model_version": "20250301_090000"},
            "previous": {
                "release": "20250101_120000_aaaaaaaa",
                "model": A,
                "model_version": "20250101_110000",
            },
            "reason": "",
            "reduced_control": False,
            "slot": "default",
            "sqkit_version": entry["sqkit_version"],
        },
    }
    assert len(receiver.requests) == 1
    assert delivered[0] | {"at": ""} == {
        "at": "",
        "attempts": 1,
        "delivered": True,
        "id": f"audit_{entry['digest']}",
        "line": 2,
        "problem": "",
        "status": 204,
        "to": receiver.url,
        "type": "release.promoted",
    }


@pytest.mark.parametrize(
    ("kind", "content", "type_", "more"),
    [
        (
            ROLLBACK,
            ROLLED_BACK,
            "release.rolled_back",
            {"automatic": False, "quarantines": B, "reason": "drawdown"},
        ),
        (
            UNMANAGED,
            {"release": "20250301_150000_bbbbbbbb", "model": B, "files": {"student_model.onnx": B}},
            "release.found_unmanaged",
            {"new": None},
        ),
        (HALT, HALTED, "slot.halted", {**HALTED, "new": None, "previous": None}),
        (RESUME, {"reason": ""}, "slot.resumed", {"reason": ""}),
        (
            RATIFY,
            {"rollback": A, "comment": "seen", **UNSIGNED},
            "rollback.ratified",
            {"rollback": A, "reason": "seen"},
        ),
        (
            QUARANTINE_RELEASE,
            {"model": A, "reason": "mended", "rollback": A, **UNSIGNED},
            "quarantine.released",
            {"model": A},
        ),
        (
            POLICY,
            {
                "policy": {"min_days": 60},
                "policy_digest": A,
                "reason": "yearly",
                **UNSIGNED,
            },
            "policy.accepted",
            {"policy_digest": A, "reason": "yearly"},
        ),
        (DRILL, {"passed": True, "steps": ["one"], "milliseconds": 80}, "drill.passed", {"milliseconds": 80}),
        (
            DRILL,
            {"passed": False, "steps": ["one"], "milliseconds": 80},
            "drill.failed",
            {"milliseconds": 80},
        ),
        (
            ATTEST,
            {"box": "config-updated", "note": "done", "release": "20250301_150000_bbbbbbbb", **UNSIGNED},
            "box.attested",
            {"box": "config-updated", "reason": "done"},
        ),
        (
            OBJECTION,
            {"model": A, "fact": "0123456789ab", "what": "revoke", "reason": "a leak"},
            "candidate.objected",
            {"model": A, "fact": "0123456789ab", "what": "revoke", "reason": "a leak"},
        ),
    ],
)
def test_every_kind_of_line_has_its_event(
    kind: str, content: dict[str, Any], type_: str, more: dict[str, Any], tmp_path: Path
) -> None:
    """One event per line of the audit log, and only a promotion or rollback names releases."""
    event = event_of(_entry(tmp_path, kind, content), line=1, previous=None)

    assert event["type"] == type_
    assert more.items() <= event["data"].items()


def test_a_rollback_is_told_with_the_version_that_it_replaced(tmp_path: Path) -> None:
    """The line names release and model; their version comes from the line that promoted them."""
    _entry(tmp_path, PROMOTE, PROMOTED)
    entry = _entry(tmp_path, ROLLBACK, ROLLED_BACK)
    with receiving() as receiver:
        announce(_settings(receiver.url), entry, root=tmp_path, previous=entry["replaces"])
        _deliveries(tmp_path)

    data = json.loads(receiver.requests[0][2])["data"]
    assert data["previous"] == {
        "release": "20250301_150000_bbbbbbbb",
        "model": B,
        "model_version": "20250301_090000",
    }
    assert data["new"] == {
        "release": "20250101_120000_aaaaaaaa",
        "model": A,
        "model_version": "20250101_110000",
    }


def test_a_rollback_to_no_student_says_so(tmp_path: Path) -> None:
    """New is there and empty, which is not the same as an event that moved nothing."""
    nothing = ROLLED_BACK | {"release": None, "model": None, "model_version": None}

    event = event_of(_entry(tmp_path, ROLLBACK, nothing), line=1, previous=None)

    assert event["data"]["new"] == {"release": None, "model": None, "model_version": None}


def test_an_event_stays_small_whatever_a_person_writes(tmp_path: Path) -> None:
    """A reason of a megabyte is cut, and the log's digest still stands for all of it."""
    entry = _entry(tmp_path, HALT, HALTED | {"reason": "x" * 1_000_000})

    event = event_of(entry, line=1, previous=None)

    assert len(json.dumps(event)) < 5_000
    assert event["data"]["audit"]["digest"] == entry["digest"]


# --- what the receiver does


def test_a_receiver_that_fails_is_tried_again_with_the_same_id() -> None:
    """Two errors, then success: three attempts, one id, each signed with its own time."""
    with receiving(500, 503, 200) as receiver:
        said = deliver(_job(receiver.url, back_off_seconds=(1.1, 0.0)))

    assert (said["delivered"], said["attempts"], said["status"], said["problem"]) == (True, 3, 200, "")
    assert {headers["webhook-id"] for _, headers, _ in receiver.requests} == {f"audit_{A}"}
    assert len({headers["webhook-timestamp"] for _, headers, _ in receiver.requests}) == 2
    assert all(_verified(headers, body) for _, headers, body in receiver.requests)


def test_after_three_attempts_it_is_given_up() -> None:
    """A receiver that goes on failing is left alone, and the log says what it answered."""
    with receiving(500) as receiver:
        said = deliver(_job(receiver.url))

    assert (said["delivered"], said["attempts"], said["status"], said["problem"]) == (
        False,
        3,
        500,
        "answered 500",
    )
    assert len(receiver.requests) == 3


def test_a_receiver_that_is_gone_is_not_asked_again() -> None:
    """410 means never again."""
    with receiving(410) as receiver:
        said = deliver(_job(receiver.url))

    assert (said["delivered"], said["attempts"], said["problem"]) == (False, 1, "answered 410")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    """Whoever is named by a redirect gets nothing; the delivery failed."""
    with receiving() as other, receiving(status, location=other.url) as receiver:
        said = deliver(_job(receiver.url))

    assert (said["delivered"], said["attempts"], said["problem"]) == (False, 1, f"answered {status}")
    assert other.requests == []


def test_nobody_there_is_said_in_the_log(tmp_path: Path) -> None:
    """A refused connection is an undelivered webhook and nothing more."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        said = deliver(_job(f"http://127.0.0.1:{free.getsockname()[1]}"))

    assert (said["delivered"], said["attempts"], said["status"]) == (False, 3, None)
    assert said["problem"] == "Connection refused"


def test_a_receiver_that_does_not_answer_is_given_up_in_time() -> None:
    """An attempt ends when its time is over."""
    with receiving(200, wait=30) as receiver:
        started = time.monotonic()
        said = deliver(_job(receiver.url, timeout_seconds=0.1))

    assert said["problem"] == "no answer in time"
    assert time.monotonic() - started < 3


def test_an_answer_a_byte_at_a_time_is_given_up_in_time(tmp_path: Path) -> None:
    """A receiver that keeps the connection busy for ever does not keep the process."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=_drip_into, args=(connection,), daemon=True).start()

        threading.Thread(target=drip, daemon=True).start()
        job = _job(
            f"http://127.0.0.1:{server.getsockname()[1]}",
            timeout_seconds=0.4,
            log=str(tmp_path / DELIVERIES),
        )
        subprocess.run(
            [sys.executable, "-m", "sqkit.production.webhook_delivery"],
            input=json.dumps(job),
            text=True,
            check=True,
            timeout=20,
        )

    assert _deliveries(tmp_path)[0]["problem"] == "no answer in time"


def _drip_into(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        while True:
            connection.sendall(b"H")
            time.sleep(0.05)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_certificate_of_nobody_is_refused(tmp_path: Path) -> None:
    """TLS is verified: a receiver with a certificate of its own making gets nothing."""
    kind = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=127.0.0.1 -days 1"
    subprocess.run(
        ["openssl", "req", *kind.split(), "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    with receiving(context=context) as receiver:
        said = deliver(_job(receiver.url))

    assert said["problem"].startswith("the certificate was refused")
    assert receiver.requests == []


# --- never in anybody's way


def test_a_receiver_that_hangs_delays_nobody(tmp_path: Path) -> None:
    """The caller goes on at once while the receiver still has not answered."""
    entry = _entry(tmp_path)
    with receiving(200, wait=30) as receiver:
        started = time.monotonic()
        announce(_settings(receiver.url), entry, root=tmp_path)
        took = time.monotonic() - started
        until = time.monotonic() + 20
        while not receiver.requests and time.monotonic() < until:
            time.sleep(0.02)

    assert took < 1
    assert len(receiver.requests) == 1
    assert not (tmp_path / DELIVERIES).exists() or not _deliveries(tmp_path)[0]["delivered"]


def test_the_event_arrives_after_the_command_is_over(tmp_path: Path) -> None:
    """A command that ends without a goodbye right after announcing has announced nevertheless."""
    entry = _entry(tmp_path)
    with receiving() as receiver:
        script = (
            "import json, os, sys\nfrom pathlib import Path\nfrom sqkit.production.webhook import announce\n"
            "from sqkit.settings import Settings\n"
            "given = json.load(sys.stdin)\n"
            "settings = Settings(_env_file=None, webhook_url=given['url'], webhook_secret=given['secret'])\n"
            "announce(settings, given['entry'], root=Path(given['root']))\nos._exit(0)"
        )
        given = {"url": receiver.url, "secret": SECRET, "entry": entry, "root": str(tmp_path)}
        subprocess.run([sys.executable, "-c", script], input=json.dumps(given), text=True, check=True)
        assert _deliveries(tmp_path)[0]["delivered"]


def test_without_a_url_nothing_is_started(tmp_path: Path) -> None:
    """No webhook set: no process, no file, no word."""
    announce(_settings(""), _entry(tmp_path), root=tmp_path)

    assert not (tmp_path / DELIVERIES).exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "webhook"]


def test_what_goes_wrong_before_the_start_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Even an audit log that is not there raises nothing."""
    entry = _entry(tmp_path)

    with caplog.at_level(logging.WARNING):
        announce(_settings("http://127.0.0.1:9"), entry, root=tmp_path / "elsewhere")

    assert [record.getMessage() for record in caplog.records] == [
        "no webhook was sent: its process could not be started (FileNotFoundError)"
    ]


def test_a_pipe_that_is_full_is_not_waited_for() -> None:
    """More than a pipe holds is refused at once, not written while the other side wakes up."""
    started = time.monotonic()

    with pytest.raises(BlockingIOError):
        start_delivery(_job("http://127.0.0.1:9", body="x" * 10_000_000))

    assert time.monotonic() - started < 1


def test_no_zombie_stays_behind(tmp_path: Path) -> None:
    """A long-lived engine that announces keeps no dead process."""
    with receiving() as receiver:
        announce(_settings(receiver.url), _entry(tmp_path), root=tmp_path)
        _deliveries(tmp_path)
        for thread in threading.enumerate():
            if thread.name == "webhook":
                thread.join(20)

    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_the_process_loads_next_to_nothing() -> None:
    """It starts with the standard library alone; what writes its log comes after the event is sent."""
    script = "import sys, sqkit.production.webhook_delivery; print(*sys.modules)"

    loaded = set(
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout.split()
    )

    assert not {"numpy", "pydantic", "onnxruntime", "numba", "pandas"} & loaded


# --- secrets


def test_the_secret_is_seen_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither arguments nor environment of the process, nor log, nor warnings show secret, path or password."""
    entry = _entry(tmp_path)
    with receiving(200, wait=2) as receiver:
        url = receiver.url.replace("://", "://us3r:p4ss%20w0rd@") + "/T0KEN?key=QUERY"
        os.environ["SENSEQUANT_WEBHOOK_SECRET"] = SECRET
        try:
            announce(_settings(url), entry, root=tmp_path)
            until = time.monotonic() + 20
            while not receiver.requests and time.monotonic() < until:
                time.sleep(0.02)
            seen = _processes_of(os.getpid())
        finally:
            del os.environ["SENSEQUANT_WEBHOOK_SECRET"]
        _deliveries(tmp_path)

    path, headers, _ = receiver.requests[0]
    assert path == "/T0KEN?key=QUERY"
    assert headers["authorization"] == "Basic " + base64.b64encode(b"us3r:p4ss w0rd").decode()
    if seen is not None:
        assert "webhook_delivery" in seen
    said = (seen or "") + (tmp_path / DELIVERIES).read_text() + caplog.text
    for hidden in (SECRET, SECRET.removeprefix("whsec_"), "us3r", "p4ss", "T0KEN", "QUERY"):
        assert hidden not in said


def _processes_of(parent: int) -> str | None:
    """Arguments and environment of the deliveries that this process started; None where /proc is none."""
    if not Path("/proc/self/environ").exists():
        return None
    said = ""
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            status = (place / "stat").read_text().rsplit(")", 1)[1].split()
            if int(status[1]) == parent:
                command = (place / "cmdline").read_text()
                if "webhook_delivery" in command:
                    said += command + (place / "environ").read_bytes().decode(errors="replace")
    return said


@pytest.mark.parametrize(
    ("url", "secret", "words"),
    [
        ("https://alerts.example.com/x", SECRET, []),
        ("http://127.0.0.1:8080", SECRET, []),
        ("", "nonsense", []),
        ("ftp://example.com", SECRET, ["WEBHOOK_URL: ftp is neither https nor http"]),
        ("file:///etc/passwd", SECRET, ["WEBHOOK_URL: file is neither https nor http"]),
        ("alerts.example.com", SECRET, ["WEBHOOK_URL: no scheme is neither"]),
        ("https://", SECRET, ["WEBHOOK_URL: is no URL"]),
        ("https://a b.example.com", SECRET, ["WEBHOOK_URL: is no URL"]),
        ("https://example.com:port", SECRET, ["WEBHOOK_URL: is no URL"]),
        ("https://[1", SECRET, ["WEBHOOK_URL: is no URL"]),
        ("https://example.com/\r\nX: y", SECRET, ["WEBHOOK_URL: is no URL"]),
        ("https://example.com", "", ["WEBHOOK_SECRET: is not whsec_"]),
        ("https://example.com", SECRET.removeprefix("whsec_"), ["WEBHOOK_SECRET: is not whsec_"]),
        ("https://example.com", "whsec_!!!!", ["WEBHOOK_SECRET: is not whsec_"]),
        ("https://example.com", "whsec_c2hvcnQ=", ["WEBHOOK_SECRET: is not whsec_"]),
        ("gopher://x", "short", ["WEBHOOK_URL: gopher", "WEBHOOK_SECRET: is not whsec_"]),
    ],
)
def test_a_url_or_secret_that_cannot_be_used_is_said(
    url: str, secret: str, words: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line each for `sqkit doctor`; nothing is sent unsigned, and announcing is one warning."""
    problems = webhook_problems(_settings(url, secret))

    assert len(problems) == len(words)
    assert all(word in problem and "\n" not in problem for word, problem in zip(words, problems, strict=True))
    assert not secret or not any(secret in problem for problem in problems)
    if words:
        with caplog.at_level(logging.WARNING):
            announce(_settings(url, secret), _entry(tmp_path), root=tmp_path)
        assert [record.getMessage() for record in caplog.records] == [f"no webhook was sent: {problems[0]}"]


# --- the log of deliveries


def test_the_log_of_deliveries_keeps_the_newest_thousand(tmp_path: Path) -> None:
    """It grows no further, and a line that a crash left half is no obstacle."""
    log = tmp_path / "webhooks.jsonl"
    log.write_bytes(b"".join(b'{"line":%d}\n' % number for number in range(1200)) + b'{"li')

    keep({"line": 1200}, log)

    lines = log.read_bytes().splitlines()
    assert len(lines) == 1000
    assert lines[-1] == b'{"line":1200}'
    assert lines[-3] == b'{"line":1199}'


def test_deliveries_that_end_together_are_all_kept(tmp_path: Path) -> None:
    """Eight at once write eight lines."""
    log = tmp_path / "webhooks.jsonl"
    threads = [threading.Thread(target=keep, args=({"line": number}, log)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {json.loads(line)["line"] for line in log.read_text().splitlines()} == set(range(8))
