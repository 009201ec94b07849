"""The process that delivers one webhook: ``python -m sqkit.production.webhook_delivery``.

In: one JSON object on standard input, from `sqkit.production.webhook`. Out: a signed POST, tried three
times, and one line in ``data/models/webhooks.jsonl`` that says how it went and holds no secret.
Loads next to nothing, so that it has started before the command that began it is over.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime as dt
import hashlib
import hmac
import http.client
import json
import signal
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

TIMEOUT_SECONDS: Final = 15.0
BACK_OFF_SECONDS: Final = (2.0, 10.0)
"""Waits between the attempts; there is one attempt more."""

KEPT_LINES: Final = 1000

_KEY_BYTES: Final = range(24, 65)
_KEY_FORM: Final = (
    "is not whsec_ followed by 24 to 64 random bytes in base64; make one with "
    """python -c "import base64, secrets; print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())\""""
)
_GONE: Final = 410
_LOG_SECONDS: Final = 10.0

Limit = Callable[[float], contextlib.AbstractContextManager[None]]


def signing_key(secret: str) -> bytes:
    """The key inside a secret such as ``whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw``.

    Raises
    ------
    ValueError
        It has another form; the message does not show it.
    """
    text = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(_KEY_FORM) from None
    if text == secret or len(key) not in _KEY_BYTES:
        raise ValueError(_KEY_FORM)
    return key


def split_url(url: str) -> SplitResult:
    """The parts of a URL that can be posted to.

    Raises
    ------
    ValueError
        It is none; the message shows no more of it than its scheme.
    """
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        raise ValueError("is no URL; give one like https://alerts.example.com/sqkit") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{parts.scheme[:20] or 'no scheme'} is neither https nor http")
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("is no URL; give one like https://alerts.example.com/sqkit")
    return parts


def signature(key: bytes, event_id: str, timestamp: int, body: bytes) -> str:
    """What stands in the ``webhook-signature`` header."""
    signed = b".".join((event_id.encode(), str(timestamp).encode(), body))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def deliver(
    job: Mapping[str, Any], limit: Limit = lambda seconds: contextlib.nullcontext()
) -> dict[str, Any]:
    """Try until the receiver takes it, three times at most; the line that the log gets.

    Parameters
    ----------
    job
        As `sqkit.production.webhook.announce` makes it.
    limit
        Ends an attempt after so many seconds, for a receiver that answers a byte at a time.
    """
    status, problem, attempts = None, "", 0
    for pause in (0.0, *job["back_off_seconds"]):
        time.sleep(pause)
        attempts += 1
        try:
            with limit(job["timeout_seconds"]):
                status, problem = _post(job), ""
        except (OSError, http.client.HTTPException) as failure:
            status, problem = None, _said(failure)
        if status is not None and (200 <= status < 400 or status == _GONE):
            break  # taken, or another try would meet the same redirect
    delivered = status is not None and 200 <= status < 300
    return {
        "at": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "attempts": attempts,
        "delivered": delivered,
        "id": job["id"],
        "line": job["line"],
        "problem": problem or ("" if delivered else f"answered {status}"),
        "status": status,
        "to": _origin(job["url"]),
        "type": job["type"],
    }


def _post(job: Mapping[str, Any]) -> int:
    """One attempt; the status of the answer, whatever it is. A redirect is an answer like others."""
    parts, body, timestamp = split_url(job["url"]), job["body"].encode(), int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "sqkit",
        "webhook-id": job["id"],
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(signing_key(job["secret"]), job["id"], timestamp, body),
    }
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    opener = urllib.request.OpenerDirector()  # bare: follows no redirect, knows no file: and no ftp:
    opener.add_handler(urllib.request.ProxyHandler())
    opener.add_handler(urllib.request.HTTPHandler())
    opener.add_handler(urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    request = urllib.request.Request(address, data=body, headers=headers, method="POST")  # noqa: S310
    with contextlib.closing(opener.open(request, timeout=job["timeout_seconds"])) as answer:
        return int(answer.status)


def _origin(url: str) -> str:
    """Scheme, host and port: a path or query is often the secret itself."""
    parts = split_url(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _said(failure: Exception) -> str:
    """What went wrong, without anything of the URL."""
    reason = failure.reason if isinstance(failure, urllib.error.URLError) else failure
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"the certificate was refused ({reason.verify_message})"
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    return getattr(reason, "strerror", None) or type(reason).__name__


def keep(line: Mapping[str, Any], log: Path) -> None:
    """Append one line to the log of deliveries, which keeps the newest thousand."""
    from sqkit.chain import held  # numpy comes with these: only once the event is on its way
    from sqkit.files import canonical_json, make_folder, write_bytes

    make_folder(log.parent)
    with held(log.with_name(f".{log.stem}.lock"), log, _LOG_SECONDS):
        lines = log.read_bytes().splitlines() if log.exists() else []
        lines = [*lines, canonical_json(line, indent=None).strip().encode()][-KEPT_LINES:]
        write_bytes(log, b"\n".join(lines) + b"\n")


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def main() -> None:
    """Deliver what standard input says."""
    job = json.load(sys.stdin.buffer)
    keep(deliver(job, _alarm), Path(job["log"]))


if __name__ == "__main__":
    main()
