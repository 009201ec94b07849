"""The log in words, and what was live at a past time: last March, a day, an instant."""

from __future__ import annotations

import datetime as dt
import json
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqkit.audit_log import DRILL, HALT, NO_NEW_ENTRIES, OBJECTION, PROMOTE, ROLLBACK, STUDENT_OFF, UNMANAGED
from sqkit.chain import Entry
from sqkit.errors import UsageError
from sqkit.production.as_of import as_of, as_of_lines
from sqkit.production.history import actor_words, event_lines, events
from sqkit.production.moment import moment, zone_of
from sqkit.production.slot_state import fold
from sqkit.settings import Settings
from tests.audited import Audited, with_a_past
from tests.project import Project

ZONE = "America/New_York"
A, B = "20240102_000001", "20240103_000002"
SLOTS = ["default", "swing"]
PATHS = '{"swing": "data/models/swing/student_model.onnx"}'


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a past; never changed."""
    return with_a_past(tmp_path_factory.mktemp("past")).root


@pytest.fixture(scope="module")
def log(past: Path) -> list[Entry]:
    """Its twelve lines."""
    return Audited(past).production.log.entries()


def at(log: list[Entry], text: str, slot: str = "default") -> dict[str, Any]:
    """What is said of a slot at a time."""
    answer = as_of(log, moment(text, ZONE), SLOTS)
    return next(one for one in answer["slots"] if one["slot"] == slot)


def version(said: dict[str, Any]) -> str | None:
    """The version that was live."""
    return said["live"] and said["live"]["model_version"]


# --- events


def test_every_line_is_an_event_in_order(log: list[Entry]) -> None:
    """Numbers, times, who and digests are the log's own."""
    found = events(log)

    assert [event["line"] for event in found] == list(range(1, 13))
    assert [event["digest"] for event in found] == [entry["digest"] for entry in log]
    assert [event["actor"]["name"] for event in found[:4]] == ["Asha", "Bela", "Asha", "Bela"]
    assert all(event["what"] and event["at"].endswith("Z") for event in found)


def test_what_changed_hands_is_told_from_and_to(log: list[Entry]) -> None:
    """Promotion and rollback name both versions, with their folders; the first promotion replaced nothing."""
    moves = {event["line"]: (event["from"], event["to"]) for event in events(log)}

    assert moves[1][0] == "no student"
    assert moves[6][0].startswith(f"{A} (20250101_120000_")
    assert moves[6][1].startswith(f"{B} (20250301_120000_")
    assert moves[7] == (moves[6][1], moves[6][0])
    assert moves[2] == ("running", "student_off")
    assert moves[3] == ("student_off", "running")
    assert moves[4][0] == "the settings"
    assert moves[10] == (None, None)


def test_later_lines_refer_to_earlier_ones_by_number(log: list[Entry]) -> None:
    """A ratification names the rollback's line."""
    told = {event["line"]: event["what"] for event in events(log)}

    assert told[8] == "ratified the rollback of line 7"
    assert told[10] == "rollback drill passed in 84 ms"


def test_reasons_are_kept(log: list[Entry]) -> None:
    """Each as the person gave it."""
    reasons = {event["line"]: event["reason"] for event in events(log)}

    assert reasons[2] == "feed looks wrong"
    assert reasons[8] == "agreed"
    assert reasons[9] == "it was the feed"


def test_one_slot_keeps_the_numbers_of_the_whole_log(log: list[Entry]) -> None:
    """Lines of another slot are left out, not counted anew."""
    assert [event["line"] for event in events(log, "swing")] == [5, 11]


def test_a_person_reads_everything_an_event_says(log: list[Entry]) -> None:
    """Number, time in UTC, the market's date and its zone, who on which machine, approvals, digest."""
    text = "\n".join(event_lines(events(log), ZONE))

    assert f"dates in brackets those of {ZONE}" in text
    assert "line 6   2025-03-01T17:00:00Z (2025-03-01)   slot default" in text
    assert "approved by ml_lead Asha (typed); reduced control" in text
    assert "by Bela (bela@desk2)" in text
    assert all(entry["digest"][:12] in text for entry in log)


def test_an_empty_log_says_so() -> None:
    """Nothing is recorded."""
    assert event_lines(events([]), ZONE) == ["nothing is recorded"]


def line(kind: str, **content: Any) -> Entry:
    """A line as the log holds it, made by hand."""
    actor = {"name": "asha", "user": "asha", "host": "desk1", "principal": "asha@firm"}
    common = {"kind": kind, "slot": "default", "at": "2025-01-01T00:00:00Z", "date": "2025-01-01"}
    return {**common, "actor": actor, "digest": "d" * 64, **content}


@pytest.mark.parametrize(
    ("entry", "what", "details"),
    [
        (
            line(
                ROLLBACK,
                release=None,
                model=None,
                model_version=None,
                replaces=None,
                quarantines="a" * 64,
                automatic=True,
                alert={"drop": 0.2, "confirmed": True},
                reason="hit ratio fell",
                environment={"file": ".env", "lines": ["SENSEQUANT_X=1"]},
            ),
            "rolled back by the machine",
            [
                "the engine runs its baseline",
                "quarantined model aaaaaaaaaaaa",
                'alert {"confirmed":true,"drop":0.2}',
                "set SENSEQUANT_X=1 in .env",
            ],
        ),
        (
            line(UNMANAGED, release="20250101_000000_aaaaaaaa", model="a" * 64, files={}),
            "archived as 20250101_000000_aaaaaaaa a model that was found in production without a record",
            ["model aaaaaaaaaaaa"],
        ),
        (
            line(DRILL, passed=False, steps=["promote", "roll back"], milliseconds=12),
            "rollback drill FAILED after 12 ms, at: roll back",
            [],
        ),
        (
            line(OBJECTION, model="a" * 64, fact="0123456789ab", what="reject", reason="the costs"),
            "model aaaaaaaaaaaa was rejected by asha (fact 0123456789ab)",
            [],
        ),
        (
            line(OBJECTION, model="a" * 64, fact="0123456789ab", what="revoke", reason="a leak"),
            "asha took back a sign-off of model aaaaaaaaaaaa (fact 0123456789ab)",
            [],
        ),
    ],
)
def test_rarer_lines_are_told_too(entry: Entry, what: str, details: list[str]) -> None:
    """A rollback by the machine to no student, a model without a record, a drill that failed, an objection."""
    (event,) = events([entry])

    assert event["what"] == what
    assert event["details"] == details


def test_who_signed_is_said() -> None:
    """A name that is the account's stands once; a signature names its principal."""
    signed = {"name": "asha", "user": "asha", "host": "desk1", "principal": "asha@firm"}

    assert actor_words(signed) == "asha@desk1, signed as asha@firm"
    assert actor_words(signed | {"name": "Asha"}) == "Asha (asha@desk1, signed as asha@firm)"
    assert actor_words(signed | {"principal": None}) == "asha@desk1"


def test_a_second_policy_says_what_changed(log: list[Entry]) -> None:
    """Field by field against the one before it."""
    first = log[3]
    second = first | {"policy": first["policy"] | {"min_days": 120, "required_approvals": ["ml_lead"]}}

    details = events([*log, second | {"policy_digest": "e" * 64}])[-1]["details"]

    assert details == ["min_days 90 -> 120, required_approvals ml_lead quant_lead risk_manager -> ml_lead"]


# --- what was live then


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-12-31", None),
        ("2025-01-01", A),
        ("20250228", A),
        ("2025-03-01", B),
        ("2025-03-04", B),
        ("2025-03-05", A),
        ("2025-03", A),
        ("2025-02", A),
        ("2025-03-01T16:59:59Z", A),
        ("2025-03-01T17:00:00Z", B),
        ("2025-03-01T22:30:00+05:30", B),
        ("2025-03-01T22:29:59+05:30", A),
    ],
)
def test_what_was_live_at_a_time(log: list[Entry], text: str, expected: str | None) -> None:
    """A promoted on 1 January, B on 1 March, rolled back to A on 5 March; each at noon in New York."""
    assert version(at(log, text)) == expected


def test_a_month_tells_everything_that_was_live_in_it(log: list[Entry]) -> None:
    """What was live last March: A at its end, and before that A and B, from when until when."""
    march = at(log, "2025-03")

    assert version(march) == A
    assert [(one["live"]["model_version"], one["until"][:10]) for one in march["during"]] == [
        (A, "2025-03-01"),
        (B, "2025-03-05"),
    ]
    assert at(log, "2025-03-31T12:00:00Z")["during"] == []


def test_since_when_and_until_when(log: list[Entry]) -> None:
    """Until is empty for what is still live."""
    february, april = at(log, "2025-02-15"), at(log, "2025-04-15")

    assert (february["since"], february["until"]) == ("2025-01-01T17:00:00Z", "2025-03-01T17:00:00Z")
    assert (april["since"], april["until"]) == ("2025-03-05T17:00:00Z", None)


def test_who_put_it_there_and_on_which_decision(log: list[Entry]) -> None:
    """After a rollback: who rolled back and why, and the promotion that the release once came by."""
    said = at(log, "2025-03-20")

    assert (said["placed_by"]["line"], said["placed_by"]["entry"]["kind"]) == (7, ROLLBACK)
    assert said["placed_by"]["entry"]["reason"] == "test"
    assert (said["decision"]["line"], said["decision"]["entry"]["kind"]) == (1, PROMOTE)
    text = "\n".join(as_of_lines(as_of(log, moment("2025-03-20", ZONE), SLOTS), moment("2025-03-20", ZONE)))
    assert "approved by ml_lead Asha (typed); reduced control" in text
    assert f"decision {log[0]['digests']['checklist'][:12]}" in text


def test_halts_and_policies_of_then(log: list[Entry]) -> None:
    """Halted in between, and said for the month after it ended; the policy in force since February."""
    assert at(log, "2025-01-15")["halted"]["line"] == 2
    assert at(log, "2025-01-16")["halted"] is None
    assert at(log, "2025-01")["halts"] == [
        {"level": "student_off", "since": "2025-01-15T17:00:00Z", "until": "2025-01-16T17:00:00Z"}
    ]
    assert at(log, "2025-01-31")["policy"] is None
    assert at(log, "2025-02-01")["policy"]["line"] == 4
    assert at(log, "2025-02-01", "swing")["policy"] is None


@pytest.fixture
def twice_halted(tmp_path: Path) -> list[Entry]:
    """Halted at 10, further at 11, said again at 12, resumed at 13 o'clock in New York, all on 5 May."""
    project = Audited(tmp_path)
    for hour, level in (("14", STUDENT_OFF), ("15", NO_NEW_ENTRIES), ("16", NO_NEW_ENTRIES)):
        project.on(f"2025-05-05T{hour}:00:00+00:00")
        content = {"level": level, "reason": "feed"}
        project.production.append(project.slot, HALT, content)
    project.do("resume", "2025-05-05T17:00:00+00:00")
    return project.entries


def test_each_level_of_a_halt_is_told(twice_halted: list[Entry]) -> None:
    """What went from what to what, in the words of a halt."""
    told = [(event["what"], event["from"], event["to"]) for event in events(twice_halted)]

    assert told == [
        ("halted the student", "running", STUDENT_OFF),
        ("halted the student and new entries", STUDENT_OFF, NO_NEW_ENTRIES),
        ("halted the student and new entries", NO_NEW_ENTRIES, NO_NEW_ENTRIES),
        ("resumed the student", NO_NEW_ENTRIES, "running"),
    ]


def test_the_level_of_then_is_said(twice_halted: list[Entry]) -> None:
    """At an instant the one in force; for a day each that ended in it, from when until when."""
    asked = moment("2025-05-05T15:30:00Z", ZONE)
    assert "HALTED (no_new_entries) since 2025-05-05T15:00:00Z" in "\n".join(
        as_of_lines(as_of(twice_halted, asked, SLOTS), asked)
    )

    assert at(twice_halted, "2025-05-05")["halts"] == [
        {"level": STUDENT_OFF, "since": "2025-05-05T14:00:00Z", "until": "2025-05-05T15:00:00Z"},
        {"level": NO_NEW_ENTRIES, "since": "2025-05-05T15:00:00Z", "until": "2025-05-05T17:00:00Z"},
    ]
    day = moment("2025-05-05", ZONE)
    text = "\n".join(as_of_lines(as_of(twice_halted, day, SLOTS), day))
    assert "halted (student_off) earlier that day: from 2025-05-05T14:00:00Z" in text


def test_a_rollback_is_unratified_until_somebody_agreed(log: list[Entry]) -> None:
    """As it stood then."""
    assert [waiting["line"] for waiting in at(log, "2025-03-05")["unratified"]] == [7]
    assert at(log, "2025-03-06")["unratified"] == []


def test_before_the_first_line_nothing_had_been_promoted(log: list[Entry]) -> None:
    """Said in words, not by an empty answer."""
    asked = moment("2020-01-01", ZONE)
    lines = as_of_lines(as_of(log, asked, SLOTS), asked)

    assert "before the first line" in lines[0]
    assert "slot default: no student; nothing had ever been promoted here" in lines


def test_a_time_that_lies_ahead_is_said(log: list[Entry]) -> None:
    """The answer is what stands now."""
    now = dt.datetime(2025, 5, 1, tzinfo=dt.UTC)

    assert "lies ahead" in as_of(log, moment("2030-01-01", ZONE), SLOTS, now)["notes"][0]
    assert as_of(log, moment("2025-04-29", ZONE), SLOTS, now)["notes"] == []


def test_the_order_of_the_chain_counts_and_not_a_wrong_clock(log: list[Entry]) -> None:
    """A line dated years ahead by a wrong clock still stands before the next one; that is noted."""
    wrong = [
        entry | ({"at": "2031-01-01T00:00:00Z"} if number == 6 else {}) for number, entry in enumerate(log, 1)
    ]
    answer = as_of(wrong, moment("2025-03-20", ZONE), SLOTS)

    assert answer["line"] == 10
    assert "line 6 says 2031" in answer["notes"][0]


@given(st.integers(0, 500))
def test_every_day_agrees_with_the_log_read_up_to_it(log: list[Entry], days: int) -> None:
    """For any day: what is live is what the lines written by its end say, and the stays leave no gap."""
    day = dt.date(2024, 12, 1) + dt.timedelta(days)
    end = dt.datetime.combine(day + dt.timedelta(1), dt.time(), ZoneInfo(ZONE))
    until = [entry for entry in log if dt.datetime.fromisoformat(entry["at"]) < end]

    for slot in SLOTS:
        said, state = at(log, day.isoformat(), slot), fold(until, slot)
        assert version(said) == (state.live.model_version if state.live else None)
        stays = fold(log, slot).stays
        assert all(one.left == other.entered for one, other in pairwise(stays))


# --- times as typed


@pytest.mark.parametrize(
    ("text", "zone", "end"),
    [
        ("2025-03-09", "America/New_York", "2025-03-10T03:59:59+00:00"),  # clocks go forward that day
        ("2025-11-02", "America/New_York", "2025-11-03T04:59:59+00:00"),  # and back
        ("20250331", "Asia/Kolkata", "2025-03-31T18:29:59+00:00"),
        ("2025-03", "Asia/Kolkata", "2025-03-31T18:29:59+00:00"),
        ("2024-02", "UTC", "2024-02-29T23:59:59+00:00"),
        ("2025-12", "UTC", "2025-12-31T23:59:59+00:00"),
        ("2025-03-31T23:00:00+05:30", "UTC", "2025-03-31T17:30:00+00:00"),
    ],
)
def test_a_date_is_the_market_s_and_its_end_counts(text: str, zone: str, end: str) -> None:
    """Whatever zone this machine is in; the zone is said."""
    asked = moment(text, zone)

    assert asked.end.isoformat() == end
    assert zone in asked.described


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2025-13", "2025-02-30", "20250001", "2025-03-01T25:00Z", "9999-12-31", "0000-01"],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    """One line that says what to give."""
    with pytest.raises(UsageError, match="give a date as YYYY-MM-DD"):
        moment(text, ZONE)


@pytest.mark.parametrize("text", ["2025-03-01T10:00", "2025-03-01 10:00:00"])
def test_an_instant_without_a_zone_is_refused(text: str) -> None:
    """Nobody guesses which."""
    with pytest.raises(UsageError, match="a time needs its zone"):
        moment(text, ZONE)


def test_the_zone_is_that_of_what_was_promoted_last(log: list[Entry]) -> None:
    """The market of the model wins over the settings', which fill it only where it is absent."""
    settings = Settings(_env_file=None, market="nse")

    assert zone_of(settings, log) == "America/New_York"
    assert zone_of(settings, []) == "Asia/Kolkata"


# --- the command


def test_the_command_answers_what_was_live_last_march(past: Path) -> None:
    """``sqkit history --at 2025-03``: in words and as JSON, the same under any machine's zone."""
    project, paths = Project(past), {"SENSEQUANT_STUDENT_MODEL_PATHS": PATHS}

    said = [
        project.sqkit("history", "--at", "2025-03", environment=paths | {"TZ": zone})
        for zone in ("UTC", "Asia/Kolkata")
    ]
    answer = json.loads(project.sqkit("history", "--at", "2025-03", "--json", environment=paths).stdout)

    assert said[0].returncode == 0, said[0].stderr
    assert said[0].stdout == said[1].stdout
    assert f"slot default: {A}" in said[0].stdout
    assert f"earlier that month: {B}" in said[0].stdout
    assert [slot["slot"] for slot in answer["slots"]] == ["default", "swing"]


def test_the_command_tells_every_line(past: Path) -> None:
    """Also of a slot that the settings no longer name; an unknown one is refused."""
    project = Project(past)

    assert len(json.loads(project.sqkit("history", "--json").stdout)["events"]) == 12
    assert project.sqkit("history", "--slot", "swing").stdout.count("line ") == 2
    assert project.sqkit("history", "--slot", "futures").returncode == 2


def test_the_command_stops_at_a_log_that_does_not_hold(tmp_path: Path) -> None:
    """Exit 4 and one line that names the place."""
    project = with_a_past(tmp_path)
    project.log.write_bytes(project.log.read_bytes().replace(b"Bela", b"Mela", 1))

    run = Project(tmp_path).sqkit("history")

    assert run.returncode == 4
    assert "line 2 was edited" in run.stderr
    assert len(run.stderr.splitlines()) == 1
