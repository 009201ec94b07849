"""After an alert: is the model really worse, and would the release before it do better?

Only outcomes count that overlap with none of those the alert came from. Three e-processes run over the same bars: the
live model's misses against its validated rate, the earlier release's against the same rate, and the two paired. By
Ville's inequality each passes 1/alpha by chance with a probability of alpha at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqkit.production.detectors import MixtureEvidence, confirmation_verdict
from sqkit.production.live_outcomes import PREVIOUS, ClosedBar, Row, Voice
from sqkit.production.model_watch import missed
from sqkit.records import FLAT, UNKNOWN

FEWEST_CALLED_BARS: Final = 20
"""A release that made calls on fewer bars after the alert says nothing: nobody goes back to it."""


class Confirmation:
    """The evidence after one alert.

    Parameters
    ----------
    metric
        Whose detector gave the alert.
    miss_rate
        What the live model is held against: see `sqkit.sequential_bets.miss_rate_bound`.
    streams
        Label horizon in bars.
    after
        Number of the first bar that counts.
    alpha
        Chance at which evidence is enough.

    Attributes
    ----------
    previous
        First digits of the earlier release's model; empty where none was asked on these bars.
    calls
        Directional calls of the live model so far.
    """

    def __init__(self, metric: str, miss_rate: float, streams: int, after: int, alpha: float) -> None:
        self.metric = metric
        self._miss_rate = miss_rate
        self._streams = streams
        self.after = after
        self._alpha = alpha
        self.calls = self.bars = 0
        self._begin("")
        self.live = MixtureEvidence.of_misses(miss_rate, streams)

    def _begin(self, previous: str) -> None:
        """Start on an earlier release: what was known of another one does not count."""
        self.previous = previous
        self.archived = MixtureEvidence.of_misses(self._miss_rate, self._streams)
        self.pair = MixtureEvidence.of_pairs(self._streams)

    def add(self, bar: ClosedBar, rows: Sequence[Row], stream: int) -> None:
        """Take a closed bar, with the live model's judged rows of it."""
        if bar.number < self.after or not rows:
            return
        self.bars += 1
        self.calls += sum(row.said.call != FLAT and row.outcome != UNKNOWN for row in rows)
        miss = missed(self.metric, ((row.said.call, row.outcome) for row in rows))
        if miss is not None:
            self.live.update(miss, stream=stream)
        shadows = [(row, shadow) for row in rows if (shadow := _previous(row)) is not None]
        asked = {shadow.model for _, shadow in shadows}
        if asked and self.previous not in asked:
            self._begin(min(asked))
        both = [(row, one) for row, one in shadows if one.model == self.previous and one.judged]
        miss = missed(self.metric, ((one.call, row.outcome) for row, one in both))
        if miss is not None:
            self.archived.update(miss, stream=stream)
        better = _better(both)
        if better is not None:
            self.pair.update(better, stream=stream)

    @property
    def confirmed(self) -> bool:
        """Whether fresh outcomes say, now, that the live model is worse than it was validated."""
        return self.live.value >= 1.0 / self._alpha

    @property
    def speaks(self) -> bool:
        """Whether the earlier release made calls enough on these bars to be gone back to."""
        return bool(self.previous) and self.archived.updates >= FEWEST_CALLED_BARS

    def verdict(self) -> str | None:
        """``cleared``, ``roll_back``, ``halt``, or None while nothing is proven."""
        if self.confirmed and not self.speaks:  # it gets as many bars again to say something
            silent = not self.previous or self.live.updates >= 2 * FEWEST_CALLED_BARS
            return "halt" if silent else None
        return confirmation_verdict(self.live.value, self.pair.value, self.archived.value, self._alpha)

    def figures(self) -> dict[str, Any]:
        """For an alert, a page and the audit log."""
        return {
            "alpha": self._alpha,
            "archived": self.archived.value,
            "bars": self.bars,
            "calls": self.calls,
            "confirmed": self.confirmed,
            "live": self.live.value,
            "metric": self.metric,
            "needed": 1.0 / self._alpha,
            "pair": self.pair.value,
            "previous": self.previous or None,
        }

    def state(self) -> dict[str, Any]:
        """Plain JSON values; the constructor's beside what has come in."""
        return {
            "after": self.after,
            "archived": self.archived.state(),
            "bars": self.bars,
            "calls": self.calls,
            "live": self.live.state(),
            "metric": self.metric,
            "pair": self.pair.state(),
            "previous": self.previous,
            "taken": [self._miss_rate, self._streams, self._alpha],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Confirmation:
        """The confirmation that `state` was of."""
        miss_rate, streams, alpha = state["taken"]
        one = cls(state["metric"], miss_rate, streams, state["after"], alpha)
        one._begin(state["previous"])
        for name in ("archived", "live", "pair"):
            getattr(one, name).restore(state[name])
        one.bars, one.calls = state["bars"], state["calls"]
        return one


def in_words(evidence: float) -> str:
    """Evidence for a person: beyond a million nobody counts."""
    return "over a million" if evidence >= 1e6 else f"{evidence:,.1f}"


def _previous(row: Row) -> Voice | None:
    return next((voice for role, voice in row.shadows if role == PREVIOUS), None)


def _better(both: Sequence[tuple[Row, Voice]]) -> float | None:
    """Mean over symbols of how much better the earlier release did, in [-1, 1]: half the difference of worth.

    A call is worth 1 where it was right, -1 where it was wrong, and 0 where there was none. Rows on which
    neither called say nothing.
    """
    differences = [
        (_worth(shadow.call, row.outcome) - _worth(row.said.call, row.outcome)) / 2.0
        for row, shadow in both
        if row.outcome not in (None, UNKNOWN) and (row.said.call != FLAT or shadow.call != FLAT)
    ]
    return sum(differences) / len(differences) if differences else None


def _worth(call: int, outcome: int | None) -> int:
    if call == FLAT:
        return 0
    return 1 if call == outcome else -1
