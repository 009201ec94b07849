"""States of a slot: what leads from one to the next, and what must not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from sqkit.production.bar_clock import BarClock
from sqkit.production.live_outcomes import ClosedBar, Contract, OutcomeBook
from sqkit.production.monitor_machine import (
    ALERTING,
    CONFIRMING,
    HALT,
    HALTED,
    INCONCLUSIVE,
    OK,
    REFUSED,
    ROLL_BACK,
    ROLLED_BACK,
    ROLLING_BACK,
    STUDENT_HALTED,
    VERIFYING,
    Done,
    Request,
    SlotMachine,
    Step,
)
from sqkit.sessions import load_sessions
from tests.monitored import EARLIER, HIT_RATE, LIVE, Market, baseline_of, rules


class Rig:
    """A machine with its book; it does what the machine asks for, as told."""

    def __init__(
        self, *, acts: bool = True, answer: Callable[[Request], Done] | None = None, **changes: Any
    ) -> None:
        clock = BarClock(load_sessions("us"), "1m")
        self.book = OutcomeBook(clock, lambda model: Contract(1, 0.5) if model else None)
        self.machine = SlotMachine("default", clock, rules(**changes), baseline_of, acts=acts)
        self.answer = answer or (lambda request: Done(ROLLED_BACK, request.restores))
        self.steps: list[Step] = []
        self.requests: list[Request] = []
        self.closed: list[ClosedBar] = []

    def feed(self, records: Iterable[dict[str, Any]]) -> Rig:
        """Take records; what is asked for on the way is done at their end."""
        at = ""
        for record in records:
            self.book.add(record)
            at = record["decision_time"]
        for bar in self.book.closed():
            self.closed.append(bar)
            self.steps += self.machine.add(bar)
            if self.machine.request is not None:
                self.requests.append(self.machine.request)
                done = replace(self.answer(self.machine.request), at=at)
                self.steps += self.machine.acted(done, bar)
        return self

    @property
    def path(self) -> list[str]:
        """The states it went through."""
        return [step.after for step in self.steps]


GOOD, BAD = (HIT_RATE, HIT_RATE), (0.45, HIT_RATE)


def test_a_model_as_good_as_validated_becomes_ok_and_stays() -> None:
    """INCONCLUSIVE until the window has outcomes enough, then OK for ten sessions."""
    rig = Rig().feed(Market(10, {0: GOOD}).records(range(10)))

    assert rig.path == [INCONCLUSIVE, OK]
    assert rig.machine.figures()["rolling"]["hit_ratio"]["value"] == pytest.approx(HIT_RATE, abs=0.05)


def test_a_model_that_fails_is_rolled_back_and_the_restored_one_verified() -> None:
    """The whole way: OK, CONFIRMING, ROLLING_BACK, VERIFYING, OK; the rollback goes to the release that did better."""
    market = Market(12, {0: GOOD, 3: BAD}, seed=2)
    rig = Rig().feed(market.records(range(6)))
    assert [request.kind for request in rig.requests] == [ROLL_BACK]
    assert rig.requests[0].restores == EARLIER
    assert rig.machine.state == VERIFYING
    rig.feed(market.records(range(6, 12), model=EARLIER, previous=None))

    path = [state for state in rig.path if state != ALERTING]
    assert path[:5] == [INCONCLUSIVE, OK, CONFIRMING, ROLLING_BACK, VERIFYING]
    assert path[-1] == OK
    assert rig.machine.watch is not None
    assert rig.machine.watch.model == EARLIER


def test_confirmation_counts_fresh_outcomes_only() -> None:
    """None whose label overlaps those of the alert, and not before the confirmation hours are over."""
    rig = Rig().feed(Market(8, {0: GOOD, 3: BAD}).records(range(8)))
    confirming = next(step for step in rig.steps if step.after == CONFIRMING)
    rolling = next(step for step in rig.steps if step.after == ROLLING_BACK)

    assert rig.machine.rules.confirmation_hours == 12
    assert rolling.at[:10] > confirming.at[:10]
    assert rolling.evidence["calls"] >= rig.machine.rules.min_samples


def test_without_leave_to_act_it_says_so_and_waits() -> None:
    """Automatic rollback off: it stays in CONFIRMING with the evidence, and asks for nothing."""
    rig = Rig(acts=False).feed(Market(8, {0: GOOD, 3: BAD}).records(range(8)))

    assert rig.machine.state == CONFIRMING
    assert rig.requests == []
    assert rig.machine.figures()["confirmation"]["confirmed"]


def test_where_both_models_fail_the_student_is_halted() -> None:
    """The market changed for both: going back would not help, and nothing is rolled back."""
    rig = Rig(answer=lambda request: Done(STUDENT_HALTED))
    rig.feed(Market(9, {0: GOOD, 3: (0.45, 0.45)}).records(range(9)))

    assert [request.kind for request in rig.requests] == [HALT]
    assert "so is the release before it" in rig.requests[0].reason
    assert rig.machine.state == HALTED


def test_without_an_earlier_release_the_student_is_halted() -> None:
    """There is nothing to restore: the baseline trades on."""
    rig = Rig(answer=lambda request: Done(STUDENT_HALTED))
    rig.feed(Market(8, {0: GOOD, 3: BAD}).records(range(8), previous=None))

    assert [request.kind for request in rig.requests] == [HALT]
    assert "no earlier release" in rig.requests[0].reason


def test_the_restored_release_fails_too_and_the_student_is_halted() -> None:
    """No second automatic rollback."""
    market = Market(12, {0: GOOD, 3: BAD, 6: (0.45, 0.42)})
    rig = Rig().feed(market.records(range(6)))
    rig.answer = lambda request: Done(STUDENT_HALTED)
    rig.feed(market.records(range(6, 12), model=EARLIER, previous=LIVE))

    assert [request.kind for request in rig.requests] == [ROLL_BACK, HALT]
    assert rig.machine.state == HALTED


def test_a_second_loss_after_a_verified_rollback_halts() -> None:
    """Verified and later failing: a machine rolls back once, then a person has to look."""
    market = Market(20, {0: GOOD, 3: BAD, 12: (HIT_RATE, 0.42)})
    rig = Rig().feed(market.records(range(6)))
    rig.answer = lambda request: Done(STUDENT_HALTED)
    rig.feed(market.records(range(6, 20), model=EARLIER, previous=LIVE))

    assert VERIFYING in rig.path
    assert [request.kind for request in rig.requests] == [ROLL_BACK, HALT]
    assert "rolls back once" in rig.requests[1].reason


def test_missing_data_neither_clears_nor_advances() -> None:
    """While no bar of the model is closed, nothing changes, however many sessions pass."""
    market = Market(12, {0: GOOD, 3: BAD})
    rig = Rig(confirmation_hours=48.0).feed(market.records(range(5)))
    assert rig.machine.state == CONFIRMING
    before, steps = rig.machine.figures()["confirmation"], len(rig.steps)
    rig.feed(market.records(range(5, 9), reason="warm_up", previous=None))

    assert rig.machine.state == CONFIRMING
    assert len(rig.steps) == steps
    after = rig.machine.figures()["confirmation"]
    assert after["bars"] - before["bars"] <= 6  # those of the last session that waited to be closed


def test_an_alert_that_fresh_outcomes_refute_is_cleared() -> None:
    """One bad session: the detector alerts, confirmation says no, and its evidence begins again."""
    market = Market(12, {0: GOOD, 3: (0.52, 0.6), 4: (0.66, 0.6)})
    rig = Rig().feed(market.records(range(12)))

    assert CONFIRMING in rig.path
    cleared = next(step for step in rig.steps if step.before == CONFIRMING)
    assert cleared.after in (OK, ALERTING)
    assert "do not confirm" in cleared.reason
    assert rig.requests == []


def test_a_refusal_is_kept_and_tried_again_with_the_next_session() -> None:
    """Not at every bar: the promoter said no, and says it once a day."""
    market = Market(9, {0: GOOD, 3: BAD})
    rig = Rig(answer=lambda request: Done(REFUSED, reason="the disk is full"))
    rig.feed(market.records(range(9)))

    days = [step.at[:10] for step in rig.steps if step.before == ROLLING_BACK]
    assert len(days) == len(set(days)) >= 2
    assert rig.machine.refused == "the disk is full"
    assert rig.machine.state == CONFIRMING


def test_another_model_begins_afresh() -> None:
    """A promotion: nothing that was counted of the model before counts for it, and its alerts end."""
    market = Market(9, {0: GOOD, 3: BAD})
    rig = Rig(acts=False).feed(market.records(range(6)))
    assert rig.machine.broken
    rig.feed(market.records(range(6, 7), model=EARLIER, previous=LIVE))

    assert rig.machine.watch is not None
    assert rig.machine.watch.model == EARLIER
    assert rig.machine.confirmation is None
    assert rig.machine.broken == {}


def test_a_persons_halt_and_resume_are_followed() -> None:
    """Halted while every row says so; resumed, the model is judged afresh."""
    market = Market(6, {0: GOOD})
    rig = Rig().feed(market.records(range(2)))
    rig.feed(market.records(range(2, 4), reason="halted", previous=None))
    assert rig.machine.state == HALTED
    rig.feed(market.records(range(4, 6)))

    assert rig.path == [INCONCLUSIVE, OK, HALTED, INCONCLUSIVE, OK]


@pytest.mark.parametrize("session", [1, 3, 4, 5, 6, 8])
def test_state_goes_on_to_the_bit(session: int) -> None:
    """Kept after any session and restored: the same steps, the same evidence, the same request."""
    market = Market(10, {0: GOOD, 3: BAD})

    def served(number: int) -> dict[str, Any]:
        return {"model": LIVE} if number < 6 else {"model": EARLIER, "previous": None}

    whole, cut = Rig(), Rig()
    for number in range(10):
        whole.feed(market.records(range(number, number + 1), **served(number)))
        cut.feed(market.records(range(number, number + 1), **served(number)))
        if number == session:
            again = Rig()
            again.machine.restore(cut.machine.to_state())
            again.book, again.steps, again.requests = cut.book, cut.steps, cut.requests
            cut = again

    assert cut.steps == whole.steps
    assert cut.machine.to_state() == whole.machine.to_state()
    assert VERIFYING in whole.path
