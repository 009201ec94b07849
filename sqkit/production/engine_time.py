"""What time it is for an engine: a clock that goes on evenly when the machine's clock jumps.

Bars are held against the time (finished, late, stale), so an engine that believed a clock set back by an
hour would refuse every bar. `EngineClock` counts on from where it started by a clock that nobody sets, follows
small corrections, and says when the machine's clock has jumped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

SECOND_NS: Final = 1_000_000_000
FOLLOWED_NS: Final = 2 * SECOND_NS
"""A correction up to this is followed; beyond it the machine's clock has jumped."""


class Clock(Protocol):
    """Gives an engine the time."""

    @property
    def jumped(self) -> bool:
        """Whether nobody knows what time it is."""

    def now_ns(self) -> int:
        """UTC nanoseconds."""


class EngineClock:
    """The machine's time, evenly.

    Parameters
    ----------
    wall_ns
        The machine's clock, UTC nanoseconds.
    steady_ns
        A clock that only goes forward; by default one that counts a suspended machine's time too.
    """

    def __init__(
        self, wall_ns: Callable[[], int] = time.time_ns, steady_ns: Callable[[], int] | None = None
    ) -> None:
        self._wall_ns = wall_ns
        self._steady_ns = steady_ns or _since_boot_ns
        self._offset_ns = self._wall_ns() - self._steady_ns()
        self.jumped = False

    def now_ns(self) -> int:
        """UTC nanoseconds: the machine's clock, or where it jumped, what it would have shown."""
        wall, steady = self._wall_ns(), self._steady_ns()
        even = steady + self._offset_ns
        ahead = wall - even
        if -FOLLOWED_NS <= ahead <= FOLLOWED_NS:
            self.jumped = False
            self._offset_ns += ahead
            return wall
        self.jumped = True
        return even

    def accept(self) -> None:
        """A person or a host says that the machine's clock is right now."""
        self._offset_ns = self._wall_ns() - self._steady_ns()
        self.jumped = False


def _since_boot_ns() -> int:
    """A suspended machine's time counts too, where the system has such a clock."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic_ns() if boot is None else time.clock_gettime_ns(boot)


class SetClock:
    """A clock that a replay sets to the end of each bar."""

    jumped = False

    def __init__(self, now_ns: int = 0) -> None:
        self.set_ns = now_ns

    def now_ns(self) -> int:
        """As it was set."""
        return self.set_ns
