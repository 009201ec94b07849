"""Rollback by machine: what monitoring must say before one happens, and where it goes then.

Releases, log and archive are real; the alert is what monitoring would say.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest

from sqkit.artifacts import STUDENT_FILE
from sqkit.audit_log import ROLLBACK
from sqkit.errors import AutoRollbackRefused, ConflictError, SlotMismatch
from sqkit.people import AUTOMATIC
from sqkit.production.outcomes import DegradationAlert
from sqkit.production.promoter import StudentModelPromoter
from tests.releases import ASHA, Slotted, files_below

HOURS = dt.timedelta(hours=1)
REASON = "precision fell from 0.61 to 0.47"


@pytest.fixture
def slotted(tmp_path: Path) -> Slotted:
    """A scratch project in which release 3 is live, and 1 and 2 were."""
    project = Slotted(tmp_path)
    for number, day in enumerate(("2025-01-01", "2025-02-01", "2025-03-01"), 1):
        project.promote(number, day)
    project.on("2025-03-10")
    return project


def alert_about(
    slotted: Slotted, number: int, *, confirmed: bool = True, hours: float = 13
) -> DegradationAlert:
    """What monitoring says of a release, raised so many hours ago."""
    model = slotted.entries[number - 1]["digests"]["model"]
    raised = slotted.now - hours * HOURS
    return DegradationAlert("default", model, raised, confirmed, REASON, {"calls": 240, "precision": 0.47})


def promoter(
    slotted: Slotted, alert: DegradationAlert | None = None, *, enabled: bool = True
) -> StudentModelPromoter:
    """The promoter of a project whose monitoring says this."""
    return StudentModelPromoter(
        slotted.settings.model_copy(update={"student_auto_rollback_enabled": enabled}),
        root=slotted.root,
        clock=lambda: slotted.now,
        actor=ASHA,
        alerts=lambda slot: alert if slot == "default" else None,
        environ={},
    )


def no_alert(slotted: Slotted) -> None:
    """Monitoring has nothing to say."""


def unconfirmed(slotted: Slotted) -> DegradationAlert:
    """Raised long ago, and nothing since has confirmed it."""
    return alert_about(slotted, 3, confirmed=False, hours=100)


def too_young(slotted: Slotted) -> DegradationAlert:
    """Confirmed, but one minute short of the twelve hours."""
    return alert_about(slotted, 3, hours=12 - 1 / 60)


def about_another(slotted: Slotted) -> DegradationAlert:
    """About the release that was live before."""
    return alert_about(slotted, 2)


@pytest.mark.parametrize(
    ("alert", "said"),
    [
        (no_alert, "no alert about 20240104_000003"),
        (unconfirmed, "is not confirmed yet"),
        (too_young, "is younger than 12 hours yet"),
        (about_another, "no alert about 20240104_000003"),
    ],
)
def test_what_does_not_ask_for_a_rollback_is_refused_with_its_reason(
    slotted: Slotted, alert: Callable[[Slotted], DegradationAlert | None], said: str
) -> None:
    """Advice and refusal say the same, and nothing is written."""
    machine, before = promoter(slotted, alert(slotted)), files_below(slotted.root)
    advice = machine.should_rollback()

    assert not advice.should
    assert said in advice.reason
    with pytest.raises(AutoRollbackRefused, match=said):
        machine.execute_auto_rollback()
    assert files_below(slotted.root) == before


def test_disabled_nothing_is_rolled_back_whatever_the_alert(slotted: Slotted) -> None:
    """By default: the advice stands, the deed is a person's, and the line says how."""
    machine, before = promoter(slotted, alert_about(slotted, 3), enabled=False), files_below(slotted.root)

    assert not StudentModelPromoter(slotted.settings).settings.student_auto_rollback_enabled
    assert machine.should_rollback().should
    with pytest.raises(
        AutoRollbackRefused, match=r"is disabled; set SENSEQUANT_STUDENT_AUTO_ROLLBACK_ENABLED"
    ):
        machine.execute_auto_rollback()
    assert files_below(slotted.root) == before


def test_where_no_student_is_live_there_is_nothing_to_roll_back(slotted: Slotted) -> None:
    """An alert that outlives its release asks for nothing."""
    alert = alert_about(slotted, 3)
    slotted.roll_back("none")

    assert "no student is live" in promoter(slotted, alert).should_rollback().reason
    with pytest.raises(AutoRollbackRefused, match="no student is live"):
        promoter(slotted, alert).execute_auto_rollback()


@pytest.mark.parametrize("hours", [12, 13, 500])
def test_a_confirmed_alert_that_is_old_enough_rolls_back(slotted: Slotted, hours: float) -> None:
    """To the release before; the line names the machine, the alert with its evidence, and waits for nobody."""
    machine = promoter(slotted, alert_about(slotted, 3, hours=hours))
    assert machine.should_rollback().should

    done = machine.execute_auto_rollback()

    assert slotted.live == 2
    assert done.entry == slotted.entries[-1]
    assert (done.entry["kind"], done.entry["automatic"], done.entry["reason"]) == (ROLLBACK, True, REASON)
    assert done.entry["alert"] == {"calls": 240, "precision": 0.47, "reason": REASON}
    assert done.entry["actor"]["name"] == AUTOMATIC
    assert set(slotted.state.quarantined) == {slotted.entries[2]["digests"]["model"]}
    assert slotted.state.unratified == ()


@pytest.mark.parametrize("by", ["a person", "the machine"])
def test_an_alert_about_what_a_rollback_put_there_goes_further_back(slotted: Slotted, by: str) -> None:
    """That release 2 came by a rollback is no reason to keep it when it fails too: release 1 follows, then no student."""
    if by == "a person":
        slotted.roll_back()
    else:
        promoter(slotted, alert_about(slotted, 3)).execute_auto_rollback()
    assert slotted.live == 2

    done = promoter(slotted, alert_about(slotted, 2)).execute_auto_rollback()
    assert done.entry is not None
    assert slotted.live == 1

    done = promoter(slotted, alert_about(slotted, 1)).execute_auto_rollback()
    assert done.entry is not None
    assert slotted.live is None


def test_the_same_alert_rolls_back_once(slotted: Slotted) -> None:
    """What it was about is not live any more."""
    machine = promoter(slotted, alert_about(slotted, 3))
    machine.execute_auto_rollback()
    before = files_below(slotted.root)

    with pytest.raises(AutoRollbackRefused, match="no alert about"):
        machine.execute_auto_rollback()
    assert files_below(slotted.root) == before


def test_damaged_releases_are_passed_over_and_said(slotted: Slotted) -> None:
    """Release 2 was damaged in the archive: the machine goes to 1, and the outcome names what it passed over."""
    torn = slotted.archived(slotted.entries[1]) / STUDENT_FILE
    torn.chmod(0o644)
    torn.write_bytes(b"torn")

    done = promoter(slotted, alert_about(slotted, 3)).execute_auto_rollback()

    assert slotted.live == 1
    assert "passed over 20240103_000002" in done.target.notes[0]


def test_a_strategy_without_a_slot_of_its_own_is_not_taken_for_another(slotted: Slotted) -> None:
    """The default slot serves swing: whoever names intraday did not mean to take that out, not even to no student."""
    before = files_below(slotted.root)

    for to in ("", "none"):
        for ask in (promoter(slotted).plan_rollback, promoter(slotted).rollback):
            with pytest.raises(
                SlotMismatch, match="the default slot serves swing; if that is meant, say --slot default"
            ):
                ask(to, slot="intraday", reason="worse live")
    assert files_below(slotted.root) == before
    promoter(slotted).rollback(slot="swing", reason="worse live")
    assert slotted.live == 2


def test_what_was_shown_is_what_is_done(slotted: Slotted) -> None:
    """A person read where it goes; what is live changed before the lock: exit 5, and nothing is rolled back."""
    shown = promoter(slotted).plan_rollback(reason="worse live").target
    slotted.promote(4, "2025-03-11")
    before = files_below(slotted.root)

    with pytest.raises(
        ConflictError, match=r"what is live changed meanwhile: .*look at sqkit status"
    ) as caught:
        promoter(slotted).rollback(reason="worse live", shown=shown)
    assert caught.value.exit_code == 5
    assert files_below(slotted.root) == before


def test_what_was_shown_as_done_is_not_done_unseen(slotted: Slotted) -> None:
    """There was nothing to do when a person looked, and there would be now; what somebody else did already is fine."""
    seen = promoter(slotted).plan_rollback(reason="worse live").target
    slotted.roll_back()
    assert promoter(slotted).rollback(reason="worse live", shown=seen).target.already
    shown = promoter(slotted).plan_rollback(reason="worse live").target
    assert shown.already
    slotted.promote(4, "2025-03-11")

    with pytest.raises(ConflictError, match="what is live changed meanwhile"):
        promoter(slotted).rollback(reason="worse live", shown=shown)
    assert slotted.live == 4


def test_between_alert_and_lock_somebody_may_have_acted(slotted: Slotted) -> None:
    """The alert is held against what is live once the slot is held: a person was faster, nothing more is done."""
    alert = alert_about(slotted, 3)
    slotted.roll_back()
    before = files_below(slotted.root)

    with pytest.raises(AutoRollbackRefused, match="which is not live any more"):
        promoter(slotted, alert).rollback(reason=REASON, alert=alert)
    assert files_below(slotted.root) == before


def test_an_alert_never_ends_in_nothing_done(slotted: Slotted) -> None:
    """Sent to the very release that it is about, a rollback by machine is refused and not called done."""
    alert, live = alert_about(slotted, 3), slotted.entries[2]["release"]

    with pytest.raises(AutoRollbackRefused, match="that is where the rollback would go"):
        promoter(slotted, alert).rollback(live, reason=REASON, alert=alert)
    assert slotted.live == 3
