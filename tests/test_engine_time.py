"""An engine's time goes on evenly when the machine's clock does not."""

from __future__ import annotations

from sqkit.production.engine_time import SECOND_NS, EngineClock, SetClock

HOUR = 3600 * SECOND_NS


class Clocks:
    """A machine whose two clocks are set by hand."""

    def __init__(self) -> None:
        self.wall, self.steady = 1_000 * HOUR, 5 * HOUR

    def go(self, seconds: float, *, jump: int = 0) -> None:
        self.steady += int(seconds * SECOND_NS)
        self.wall += int(seconds * SECOND_NS) + jump

    def clock(self) -> EngineClock:
        return EngineClock(lambda: self.wall, lambda: self.steady)


def test_a_clock_that_runs_is_followed() -> None:
    """Without a jump the time is the machine's."""
    clocks = Clocks()
    clock = clocks.clock()
    clocks.go(60)

    assert clock.now_ns() == clocks.wall
    assert not clock.jumped


def test_small_corrections_are_followed() -> None:
    """Many small ones add up, as a time server makes them."""
    clocks = Clocks()
    clock = clocks.clock()
    for _ in range(100):
        clocks.go(60, jump=SECOND_NS)
        assert clock.now_ns() == clocks.wall
    assert not clock.jumped


def test_a_jump_is_noticed_and_time_goes_on() -> None:
    """An hour back or half a year ahead: the time goes on as if nothing had happened, and it is said."""
    for jump in (-HOUR, 180 * 24 * HOUR):
        clocks = Clocks()
        clock = clocks.clock()
        before = clocks.wall
        clocks.go(60, jump=jump)

        assert clock.now_ns() == before + 60 * SECOND_NS
        assert clock.jumped


def test_a_jump_that_is_undone_is_over() -> None:
    """Once the machine's clock is right again it is followed."""
    clocks = Clocks()
    clock = clocks.clock()
    clocks.go(60, jump=-HOUR)
    assert clock.now_ns()
    assert clock.jumped
    clocks.go(60, jump=HOUR)

    assert clock.now_ns() == clocks.wall
    assert not clock.jumped


def test_a_corrected_clock_can_be_accepted() -> None:
    """A clock that was wrong at the start is right from the moment a person says so."""
    clocks = Clocks()
    clock = clocks.clock()
    clocks.go(60, jump=HOUR)
    clock.now_ns()
    clock.accept()

    assert clock.now_ns() == clocks.wall
    assert not clock.jumped


def test_the_real_clocks_agree() -> None:
    """The defaults are clocks of this machine and start without a jump."""
    clock = EngineClock()

    assert clock.now_ns() <= clock.now_ns()
    assert not clock.jumped


def test_a_set_clock_shows_what_it_was_set_to() -> None:
    """A replay sets it to the end of each bar."""
    clock = SetClock(5)
    assert clock.now_ns() == 5
    clock.set_ns = 7
    assert clock.now_ns() == 7
