"""The dashboard: made from a really monitored slot, read by a real browser, served live, and of use when there is nothing."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from statsmodels.stats.proportion import proportion_confint

from sqkit.errors import UsageError
from sqkit.files import canonical_json, parse_json
from sqkit.monitoring_baseline import SECTION
from sqkit.production.monitor_machine import CONFIRMING, STATES
from sqkit.production.monitor_reading import read_slot, slots_to_show
from sqkit.production.monitor_store import STATE_FILE
from sqkit.production.telemetry import host_name
from sqkit.research import monitor_figures as figures
from sqkit.research import monitor_page, monitor_tables, monitor_text, monitor_views
from sqkit.research.dashboard import LOOKS_AGAIN_SECONDS, voila_command
from sqkit.research.figure_style import png_bytes
from sqkit.research.maketargets import dashboard_static
from sqkit.settings import Settings
from tests.conftest import ROOT
from tests.project import clean_environment
from tests.test_reports import CHROMIUM, Page, screenshot
from tests.watched import LOST, Desk, Watched, feed_of

NOW = dt.datetime(2026, 1, 5, 12, 0, tzinfo=dt.UTC)
IMPLIES = {
    "behaviour": None,
    "rules": {
        "hit_ratio_drop": {
            "can_fire": False,
            "delay_days": {"10_points": None, "5_points": None},
            "false_alerts_per_quarter": 0.0,
            "reason": "too few calls in a window",
        },
        "sequential_hit_ratio": {
            "can_fire": True,
            "delay_days": {"10_points": 3.0, "5_points": 11.0},
            "false_alerts_per_quarter": 0.31,
            "reason": None,
        },
    },
    "warnings": [],
}
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


class Stated(Watched):
    """Its decisions say how soon a loss would be seen."""

    def checklist(self, model: bytes, **decided: Any) -> bytes:
        """The decision with what its rules imply."""
        said = parse_json(super().checklist(model, **decided), Path("checklist"))
        said[SECTION]["implies"] = IMPLIES
        return canonical_json(said).encode()


def promoted(root: Path) -> Stated:
    """Release 1 was live, release 2 is."""
    made = Stated(root)
    for number in (1, 2):
        made.promote(number, f"2002-12-{number:02d}T10:00:00+00:00")
    return made


@pytest.fixture(scope="module")
def degraded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stated]:
    """A slot whose model fails while nothing may act; its engine runs on."""
    made = promoted(tmp_path_factory.mktemp("degraded"))
    desk = Desk(made, student_auto_rollback_enabled=False)
    desk.feed(feed_of(LOST))
    yield made
    desk.close()


@pytest.fixture(scope="module")
def reading(degraded: Stated) -> dict[str, Any]:
    """What a page shows of it."""
    return read_slot(degraded.settings, "default", days=20, now=NOW, root=degraded.root)


def make(root: Path, target: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What the Makefile runs, in a project's folder."""
    return subprocess.run(
        [sys.executable, "-m", "sqkit.research.maketargets", target],
        cwd=root,
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )


def environment(**variables: str) -> dict[str, str]:
    return clean_environment() | {"PYTHONPATH": str(ROOT), "SENSEQUANT_MARKET": "us"} | variables


@pytest.fixture(scope="module")
def live(degraded: Stated) -> Path:
    """The folder of its static page, made as a person makes it."""
    before = (degraded.root / "data/monitoring" / STATE_FILE).read_bytes()
    run = make(degraded.root, "dashboard-static")
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [
        f"default: {CONFIRMING}",
        "reports/live/all.html",
        "reports/live/all.md",
    ]
    assert (degraded.root / "data/monitoring" / STATE_FILE).read_bytes() == before
    return degraded.root / "reports/live"


# --- the static page


@pytest.mark.slow
def test_the_page_says_state_digest_and_host_and_stands_alone(live: Path, degraded: Stated) -> None:
    """No script, no address from elsewhere; what an engine proves to serve, how sure it is, what happens next."""
    text = (live / "all.html").read_text()
    page, said = Page(text), " ".join(Page(text).texts)
    assert not page.named("script")
    assert not page.named("link")
    assert not page.named("style")[1:]
    assert not re.findall(r"(?:src|href)=[\"']https?:", text)
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in page.named("img"))
    assert len(page.named("img")) == 3
    assert str(degraded.root) not in text
    served = degraded.entries[1]["digests"]["model"][:12]
    assert f"· {served} on {host_name()} (pid {os.getpid()})" in said
    for words in (
        CONFIRMING,
        "for 3.2 session days",
        "of 5 points after 11, of 10 points after 3 (session days, median)",
        "automatic rollback is off, so a person would have to act",
        "sqkit rollback --slot default --reason TEXT",
        "cannot fire",
    ):
        assert words in said, words
    assert not re.search(r"\d{12,}", re.sub(r"\b[0-9a-f]{12}\b|data:\S+", "", said))


@pytest.mark.slow
def test_the_markdown_reads_well(live: Path) -> None:
    """Prose, tables with as many cells as heads, figures that are there; no HTML but anchors and details."""
    text = (live / "all.md").read_text()
    assert text.startswith("[All reports](../index.md)")
    assert f"Slot **default** (intraday): **{CONFIRMING}**" in text
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert pictures == [f"figures/all-{name}_default.png" for name in ("rolling", "evidence", "symbols")]
    assert all((live / picture).is_file() for picture in pictures)
    assert set(re.findall(r"<(\w+)", text)) <= {"a", "details", "summary"}
    blocks = re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE)
    assert len(blocks) > 8
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.strip().splitlines()}) == 1, block


@pytest.mark.slow
def test_it_is_linked_and_replaced_and_leaves_nothing_behind(live: Path, degraded: Stated) -> None:
    """The index names it; a page for one slot lies beside it; no manifest, no half page; what was drawn before is gone."""
    stale = live / "figures/default-old.png"
    stale.write_bytes(b"")
    run = make(degraded.root, "dashboard-static", SLOT="default", DAYS="2")
    assert run.returncode == 0, run.stderr
    assert not stale.exists()
    names = {path.name for path in live.iterdir() if not path.name.endswith(".lock")}
    assert names == {
        "figures",
        *(f"{page}.{kind}" for page in ("all", "default") for kind in ("html", "md", "ipynb")),
    }
    index = (live.parent / "index.html").read_text()
    assert 'href="live/all.html"' in index
    assert "[default](live/default.md)" in (live.parent / "index.md").read_text()
    assert "2003-01-08 to 2003-01-09 (2 session days)" in (live / "default.md").read_text()


@needs_chromium
@pytest.mark.slow
def test_chromium_draws_it_without_the_network(live: Path, tmp_path: Path) -> None:
    """A real browser asks nobody, and shows the band of the state, the lines and the text."""
    picture = tmp_path / "page.png"
    asked = screenshot(live / "all.html", picture, tmp_path / "profile")
    assert [line for line in asked if line.startswith("GET")] == []
    with Image.open(picture) as drawn:
        pixels = np.asarray(drawn.convert("RGB")).astype(np.uint32) @ np.array(
            [1 << 16, 1 << 8, 1], np.uint32
        )
    pale, strong = (int(one[1:], 16) for one in figures.STATE_COLOURS[CONFIRMING])
    assert {pale, strong, 0x0072B2, 0xB3261E} <= set(np.unique(pixels).tolist())
    assert all(len(np.unique(part)) > 20 for part in np.array_split(pixels, 6))
    assert CONFIRMING in dom((live / "all.html").as_uri(), tmp_path / "profile2")


def dom(address: str, profile: Path, *words: str) -> str:
    """What a headless browser has of a page once it is drawn."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={profile}", *words, "--dump-dom", address]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


# --- live


@contextlib.contextmanager
def served(root: Path) -> Iterator[str]:
    """Voila as ``make dashboard`` starts it, on a free port; its address."""
    (root / "notebooks").mkdir()
    (root / "pyproject.toml").touch()
    notebook = root / "notebooks/05_monitor.ipynb"
    shutil.copyfile(ROOT / "notebooks/05_monitor.ipynb", notebook)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = (root / "voila.log").open("wb")
    with (
        log,
        subprocess.Popen(
            [*voila_command(notebook), "--no-browser", f"--port={port}", "--port_retries=0"],
            env=environment(),
            cwd=root,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            for _ in range(200):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                assert process.poll() is None, (root / "voila.log").read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()
            process.wait(30)


@needs_chromium
@pytest.mark.slow
def test_voila_serves_it_live(degraded: Stated, tmp_path: Path) -> None:
    """The browser shows the state and asks again by itself; icons from elsewhere are forbidden; kernels are encrypted."""
    with served(degraded.root) as address:
        shown = dom(address, tmp_path / "profile", "--virtual-time-budget=20000")
        with pytest.raises(
            urllib.error.HTTPError
        ) as answer:  # every answer has them; this one starts no kernel
            urllib.request.urlopen(address + "voila/api/shutdown/nothing", timeout=60)
        assert answer.value.headers["Refresh"] == str(LOOKS_AGAIN_SECONDS)
        assert answer.value.headers["Content-Security-Policy"].startswith("default-src 'self'")
        answer.value.close()
    assert CONFIRMING in shown
    assert degraded.entries[1]["digests"]["model"][:12] in shown
    assert "Is the live model still as good as validated?" in shown
    assert "without encryption" not in (degraded.root / "voila.log").read_text()


# --- what it says, from values


def test_intervals_are_wilsons(reading: dict[str, Any]) -> None:
    """Of the rolling counts for the live model, of the effective count for the validated one; statsmodels agrees."""
    (hits, *_) = monitor_views.metric_rows(reading)
    one = reading["status"]["rolling"]["hit_ratio"]
    low, high = proportion_confint(round(one["value"] * one["count"]), one["count"], method="wilson")
    assert hits["live, 95 %"] == f"{100 * low:.1f}–{100 * high:.1f}%"
    rate = reading["baseline"]["hit_ratio"]
    low, high = proportion_confint(rate["rate"] * rate["effective"], rate["effective"], method="wilson")
    assert hits["validated, 95 %"] == f"{100 * low:.1f}–{100 * high:.1f}%"
    assert hits[""] == "❌ below"


def test_what_would_roll_back(reading: dict[str, Any]) -> None:
    """Every condition with its figure; only the leave to act is missing here."""
    rows = monitor_tables.rollback_rows(reading)
    assert [row["condition"] for row in rows if row[""] != "✅ holds"] == ["automatic rollback is allowed"]
    confirmation = reading["status"]["confirmation"]
    calls = next(row for row in rows if row["condition"] == "calls since the alert")
    assert calls["now"] == monitor_text.large(confirmation["calls"])
    waited = next(row for row in rows if row["condition"] == "session hours since the alert")
    assert float(waited["now"]) == pytest.approx(24 * reading["days_in_state"], abs=2)


def test_an_engine_that_serves_something_else_is_red(tmp_path: Path) -> None:
    """The log went back, the engine did not look yet: its own file says so, and the panel shows it in red."""
    made = promoted(tmp_path)
    desk = Desk(made)
    made.roll_back()
    known = read_slot(made.settings, "default", days=20, now=NOW, root=tmp_path)
    desk.close()

    (row,) = (row for row in monitor_views.panel_rows(known) if row[2] == "bad")
    assert row[0] == "NOT WHAT THE LOG HAS"
    assert f"on {host_name()}" in row[1]
    assert "#b3261e" in monitor_page.panel_html(known)
    assert "❌ NOT WHAT THE LOG HAS" in monitor_page.panel_markdown(known)
    assert "NOT MONITORED" in monitor_page.panel_html(known)


def test_nothing_at_all_reads_well(tmp_path: Path) -> None:
    """An empty project: every view has its answer, and each figure that could be asked for says so."""
    settings = Settings(_env_file=None, market="us")
    assert slots_to_show(settings, root=tmp_path) == ["default"]
    known = read_slot(settings, "default", days=20, now=NOW, root=tmp_path)
    assert "Nothing is monitored yet" in monitor_views.read_line([known])
    assert "no engine has run here" in monitor_page.panel_markdown(known)
    assert monitor_tables.rollback_line(known) == "nothing would be rolled back: nothing is monitored yet"
    views = monitor_views
    for rows in (
        *(
            views.alert_rows,
            monitor_tables.rollback_rows,
            views.metric_rows,
            monitor_tables.detector_rows,
            monitor_tables.rule_rows,
        ),
        *(
            monitor_tables.symbol_rows,
            monitor_tables.beside_rows,
            monitor_tables.step_rows,
            monitor_tables.count_rows,
        ),
    ):
        assert rows(known) == []
    assert monitor_views.with_bars([known]) == []
    assert not (tmp_path / "data").exists()
    with pytest.raises(UsageError, match="choose one of default"):
        slots_to_show(settings, "intraday_2", tmp_path)


def test_a_state_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    """Another version's file, or none of ours: the page has the reason, and the rest."""
    made = promoted(tmp_path)
    place = tmp_path / "data/monitoring" / STATE_FILE
    place.parent.mkdir(parents=True)
    for content, said in ((b"no database at all" * 100, "or damaged"), (b"", "no such table")):
        place.write_bytes(content)
        assert slots_to_show(made.settings, root=tmp_path) == ["default"]
        known = read_slot(made.settings, "default", days=20, now=NOW, root=tmp_path)
        assert said in known["problem"]
        assert said in monitor_page.panel_html(known)
        assert known["live"]["model"] == made.entries[1]["digests"]["model"]


def test_reading_takes_no_lock(degraded: Stated) -> None:
    """A monitor in the middle of its transaction is neither waited for nor disturbed."""
    place = degraded.root / "data/monitoring" / STATE_FILE
    base = sqlite3.connect(place, isolation_level=None)
    try:
        base.execute("begin immediate")
        base.execute("update slots set state = state")
        begun = time.monotonic()
        known = read_slot(degraded.settings, "default", days=1, now=NOW, root=degraded.root)
        assert time.monotonic() - begun < 5
        assert known["status"]["state"] == CONFIRMING
        base.execute("commit")
    finally:
        base.close()


@pytest.mark.parametrize(
    ("variables", "said"),
    [({"DAYS": "0"}, "DAYS=0"), ({"DAYS": "x"}, "DAYS=x"), ({"SLOT": "../x"}, "choose one of default")],
)
def test_odd_choices_are_refused(
    variables: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, nothing written."""
    monkeypatch.chdir(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=re.escape(said)):
        dashboard_static()
    assert list(tmp_path.iterdir()) == []


# --- figures


def test_every_state_has_a_colour() -> None:
    """Research does not know production: here their names are held together."""
    assert set(figures.STATE_COLOURS) == set(STATES)


def bars(count: int, states: tuple[str, ...] = STATES) -> list[dict[str, Any]]:
    """Made-up bars through all states, over many sessions, with a change of model and bars that nobody judged."""
    made: list[dict[str, Any]] = []
    for number in range(count):
        judged = number % 50 > 2
        share = 0.5 + 0.1 * np.sin(number / 40)
        one = {"baseline": 0.55, "count": number % 300, "value": float(share) if number % 300 else None}
        made.append(
            {
                "session_day": 12054 + number // 20,
                "model": "aaaaaaaaaaaa" if number < count // 2 else "bbbbbbbbbbbb",
                "state": states[number * len(states) // count],
                **({"rolling": {"hit_ratio": one, "precision_long": one, "accuracy": one}} if judged else {}),
                **({"detectors": {"hit_ratio": {"level": 0.0, "threshold": 200.0}}} if judged else {}),
            }
        )
    return made


@pytest.mark.parametrize("count", [1, 2, 400])
def test_figures_draw_whatever_bars_there_are(count: int) -> None:
    """One bar, levels of zero, all states, unknown states: a picture, and no warning."""
    for listed in (bars(count), bars(count, ("NEW_STATE",))):
        for figure in (figures.rolling_metrics(listed), figures.evidence_levels(listed)):
            with Image.open(io.BytesIO(png_bytes(figure))) as picture:
                assert picture.width == 990


def test_empty_figures_say_no_data() -> None:
    """Nothing to draw is said."""
    for figure in (
        figures.rolling_metrics([]),
        figures.evidence_levels([{"session_day": 1, "model": "", "state": "OK"}]),
        figures.symbol_ratios([{"symbol": "A", "hit_ratio": None, "calls": 0}], 0.5),
    ):
        assert "no data" in [text.get_text() for axes in figure.axes for text in axes.texts]
