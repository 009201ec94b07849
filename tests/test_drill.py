"""The rollback drill: the real thing in a scratch folder, honest about damage, and quiet in production."""

from __future__ import annotations

import http.server
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sqkit.artifacts import STUDENT_FILE
from sqkit.audit_log import DRILL
from sqkit.chain import head_file
from sqkit.errors import AuditBroken, OutputError
from sqkit.production.drill import Drilled, drill
from sqkit.production.interventions import halt
from tests.releases import Slotted, files_below, model_bytes

MINE = model_bytes(7, model_version="20240108_000007")


@pytest.fixture
def slotted(tmp_path: Path) -> Slotted:
    """A scratch project."""
    return Slotted(tmp_path / "project")


def drilled(slotted: Slotted) -> Drilled:
    """A drill, a minute later."""
    slotted.on("")
    return drill(slotted.production, slotted.slot_name)


def nothing(slotted: Slotted) -> None:
    """Nothing was ever promoted."""


def one(slotted: Slotted) -> None:
    """A first release."""
    slotted.promote(1)


def several(slotted: Slotted) -> None:
    """Three, one after the other."""
    for number in (1, 2, 3):
        slotted.promote(number)


def rolled_back(slotted: Slotted) -> None:
    """Back to the first of two."""
    slotted.promote(1)
    slotted.promote(2)
    slotted.roll_back()


def no_student(slotted: Slotted) -> None:
    """The only release was rolled back."""
    slotted.promote(1)
    slotted.roll_back()


def none_by_choice(slotted: Slotted) -> None:
    """Two releases, and a person wanted neither."""
    slotted.promote(1)
    slotted.promote(2)
    slotted.roll_back("none")


def copied_first(slotted: Slotted) -> None:
    """A model that somebody copied there, and nothing else."""
    slotted.copy_in(MINE)


def copied_before(slotted: Slotted) -> None:
    """A first release, over a model that somebody had copied there."""
    slotted.copy_in(MINE)
    slotted.promote(1)


def copied_over(slotted: Slotted) -> None:
    """A model copied over the live one."""
    slotted.promote(1)
    slotted.promote(2)
    slotted.copy_in(MINE)


def copied_to_none(slotted: Slotted) -> None:
    """A model copied to where no student is."""
    no_student(slotted)
    slotted.copy_in(MINE)


def copied_nonsense(slotted: Slotted) -> None:
    """Something in production that is no model, and nothing else."""
    slotted.copy_in(b"no model at all")


def halted(slotted: Slotted) -> None:
    """A halted slot."""
    slotted.promote(1)
    halt(slotted.production, "default", "feed")


HISTORIES = [
    *(
        nothing,
        one,
        several,
        rolled_back,
        no_student,
        none_by_choice,
        copied_first,
        copied_before,
        copied_over,
    ),
    *(copied_to_none, copied_nonsense, halted),
]


@pytest.fixture(params=HISTORIES, ids=lambda history: history.__name__)
def sound(request: pytest.FixtureRequest, slotted: Slotted) -> Slotted:
    """A slot with a sound past."""
    request.param(slotted)
    return slotted


def test_a_sound_slot_passes(sound: Slotted) -> None:
    """Whatever its past is: the line says so, with what was tried, and the state knows it."""
    done = drilled(sound)

    assert done.passed, done.steps
    assert done.entry == sound.entries[-1] == sound.state.drill
    assert (done.entry["kind"], done.entry["passed"]) == (DRILL, True)
    assert tuple(done.entry["steps"]) == done.steps
    assert any("rolled back to" in step for step in done.steps)
    assert done.milliseconds == done.entry["milliseconds"] >= 0


def test_nothing_of_production_changes_but_one_line(
    sound: Slotted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Model, record, archive, halt flag: byte and time as before. The log has one line more, and its head says so."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    lines = len(sound.entries)
    before = files_below(sound.root)
    drilled(sound)
    after = files_below(sound.root)

    log = {
        sound.log.relative_to(sound.root).as_posix(),
        head_file(sound.log).relative_to(sound.root).as_posix(),
    }
    assert {name for name in after if after[name] != before.get(name)} == log
    assert set(before) - set(after) == set()
    assert len(sound.entries) == lines + 1
    assert list((tmp_path / "scratch").iterdir()) == []


def test_after_a_rollback_it_says_why_no_earlier_release_was_tried(slotted: Slotted) -> None:
    """Not that there is none: a rollback without a name stays where one has put it."""
    rolled_back(slotted)
    live = slotted.state.live
    assert live is not None

    assert drilled(slotted).steps[-1] == (
        f"going back to an earlier release was not tried: a rollback put {live.described} there, and one without --to "
        "stays where it is"
    )


def test_a_copied_model_is_not_come_back_to(slotted: Slotted) -> None:
    """What lies in production before the first promotion was judged by nobody: a rollback ends without a student."""
    copied_first(slotted)

    assert any(step.startswith("rolled back to no student") for step in drilled(slotted).steps)


def test_drilling_twice_is_two_lines(slotted: Slotted) -> None:
    """Each drill is a fact of its own; the newest counts."""
    slotted.promote(1)
    first, second = drilled(slotted), drilled(slotted)

    assert [entry["kind"] for entry in slotted.entries[1:]] == [DRILL, DRILL]
    assert slotted.state.drill == second.entry != first.entry


def spoil(place: Path) -> None:
    """Damage a file of an archived release."""
    place.chmod(0o644)
    place.write_bytes(b"torn")


def link(place: Path) -> None:
    """The same bytes, behind a link."""
    place.rename(place.parents[4] / place.name)
    place.symlink_to(place.parents[4] / place.name)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: spoil(folder / STUDENT_FILE),
        lambda folder: spoil(folder / "approvals.json"),
        lambda folder: (folder / STUDENT_FILE).unlink(),
        lambda folder: link(folder / STUDENT_FILE),
        shutil.rmtree,
    ],
    ids=["model torn", "approvals edited", "model gone", "model linked", "folder gone"],
)
@pytest.mark.parametrize("earlier", [True, False])
def test_it_fails_where_the_live_release_could_not_come_back(
    slotted: Slotted, damage: Callable[[Path], object], *, earlier: bool
) -> None:
    """Its archive is damaged: a rollback of the next release would end elsewhere. That is a line, too, and counts."""
    if earlier:
        slotted.promote(1)
    live = slotted.promote(2)
    drilled(slotted)
    assert slotted.state.drill is not None
    assert slotted.state.drill["passed"]
    damage(slotted.archived(live))
    done = drilled(slotted)

    assert not done.passed
    assert done.entry["passed"] is False
    assert "the rollback ended at" in done.steps[-1]
    assert "sqkit verify --audit" in done.steps[-1]
    assert any("passed over" in step for step in done.steps)
    assert slotted.state.drill == done.entry
    assert not any("sqkit-drill-" in step for step in done.steps)


def test_damage_of_an_earlier_release_is_passed_over_and_said(slotted: Slotted) -> None:
    """The live one would come back; that the one before it would not stands in the line."""
    slotted.promote(1)
    slotted.promote(2)
    spoil(slotted.archived(slotted.entries[0]) / STUDENT_FILE)
    done = drilled(slotted)

    assert done.passed
    assert any("passed over 20240102_000001" in step for step in done.steps)


def test_production_may_be_damaged(slotted: Slotted) -> None:
    """The archive is what a rollback restores from."""
    slotted.promote(1)
    slotted.slot.model_path.write_bytes(b"torn")

    assert drilled(slotted).passed


def test_a_slot_drills_its_own(tmp_path: Path) -> None:
    """Damage in the other slot is the other slot's."""
    default, swing = Slotted(tmp_path), Slotted(tmp_path, slot_name="swing")
    default.promote(1)
    spoil(default.archived(swing.promote(2)) / STUDENT_FILE)

    assert drilled(default).passed
    assert not drilled(swing).passed
    assert default.state.drill is not None
    assert default.state.drill["passed"]
    assert swing.state.drill is not None
    assert not swing.state.drill["passed"]


def test_without_a_sound_log_nothing_can_be_tried(slotted: Slotted) -> None:
    """And nothing is written."""
    slotted.promote(1)
    slotted.log.write_bytes(slotted.log.read_bytes().replace(b'"market":"us"', b'"market":"nse"'))
    before = files_below(slotted.root)

    with pytest.raises(AuditBroken, match="line 1 was edited"):
        drilled(slotted)
    assert files_below(slotted.root) == before


def test_without_room_for_a_scratch_folder_it_is_no_verdict(slotted: Slotted) -> None:
    """A full or missing temporary folder says nothing about the rollback: refused, and no line."""
    slotted.promote(1)
    before, kept = files_below(slotted.root), tempfile.tempdir
    tempfile.tempdir = str(slotted.root / "no such folder")
    try:
        with pytest.raises(OutputError):
            drilled(slotted)
    finally:
        tempfile.tempdir = kept
    assert files_below(slotted.root) == before


# --- the webhook


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[bytes]]]:
    """A real receiver of events."""
    bodies: list[bytes] = []

    class Receives(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receives)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_webhook_hears_of_the_drill_and_of_nothing_in_it(
    slotted: Slotted, receiver: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The promotions and rollbacks of the scratch folder are nobody's events; the drill itself is one."""
    import base64
    import time

    monkeypatch.setenv("no_proxy", "*")
    url, bodies = receiver
    slotted.promote(1)
    slotted.promote(2)
    production = slotted.production
    secret = "whsec_" + base64.b64encode(bytes(range(32))).decode()
    production.settings = type(production.settings)(
        _env_file=None, market="us", webhook_url=url, webhook_secret=secret
    )
    assert drill(production, "default").passed

    deliveries = slotted.models / "webhooks.jsonl"
    until = time.monotonic() + 30
    while time.monotonic() < until and not (deliveries.exists() and deliveries.read_bytes()):
        time.sleep(0.05)
    assert len(bodies) == 1
    assert b'"type":"drill.passed"' in bodies[0].replace(b'": "', b'":"')
    assert os.linesep.encode() not in bodies[0]
