"""The state of one slot's live model, bar after bar: OK, alerting, confirming, rolling back, verifying, halted.

::

    INCONCLUSIVE -> OK -> ALERTING -> CONFIRMING -> ROLLING_BACK -> VERIFYING -> OK | HALTED

A threshold rule alerts. Only a sequential detector leads to CONFIRMING; only fresh outcomes, and an earlier release
that did better on the same bars, lead to ROLLING_BACK; where both are bad, or there is no earlier release, the student is
halted. No bar, no change: missing data neither clears an alert nor advances it.

Everything here follows from closed bars and from what came of a `Request`; no clock, file or promoter is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqkit.monitoring_baseline import MonitoringBaseline, MonitoringRules
from sqkit.production.bar_clock import HOURS_PER_DAY, BarClock
from sqkit.production.confirmation import Confirmation, in_words
from sqkit.production.detectors import Sprt
from sqkit.production.live_outcomes import PREVIOUS, ClosedBar, Row
from sqkit.production.model_watch import HIT_RATIO, ModelWatch, missed, stream_of
from sqkit.production.monitor_rules import TITLES
from sqkit.records import instant_ns, iso_instant
from sqkit.sequential_bets import miss_rate_bound

OK: Final = "OK"
ALERTING: Final = "ALERTING"
CONFIRMING: Final = "CONFIRMING"
ROLLING_BACK: Final = "ROLLING_BACK"
VERIFYING: Final = "VERIFYING"
HALTED: Final = "HALTED"
INCONCLUSIVE: Final = "INCONCLUSIVE"
STATES: Final = (INCONCLUSIVE, OK, ALERTING, CONFIRMING, ROLLING_BACK, VERIFYING, HALTED)

ROLL_BACK: Final = "roll_back"
HALT: Final = "halt"

ROLLED_BACK: Final = "rolled_back"
STUDENT_HALTED: Final = "halted"
REFUSED: Final = "refused"

SEQUENTIAL: Final = "sequential_"
"""Before the metric's name: the alert of a detector."""

SWITCH_BARS: Final = {False: 3, True: 1}
"""So many bars in a row another model must have the majority before it is taken for the served one; by daily bars."""

FOLLOW_NS: Final = 300_000_000_000
"""So long engines may take to follow a rollback or halt."""

QUIET_SESSIONS: Final = 10
_NS_PER_HOUR: Final = 3_600_000_000_000
_WATCHING: Final = (OK, INCONCLUSIVE, ALERTING)


@dataclass(frozen=True)
class Step:
    """One change of state, a fact.

    Attributes
    ----------
    number
        Counted from 1 in the slot.
    at
        UTC, when the outcomes that caused it were known.
    """

    number: int
    at: str
    before: str
    after: str
    model: str
    reason: str
    evidence: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Request:
    """What the machine wants done; nothing goes on before it is told what came of it.

    Attributes
    ----------
    id
        The same after a restart, so that it is done once.
    kind
        `ROLL_BACK` or `HALT`.
    model, restores
        First digits of the live model's digest, and of the one that is to come back.
    raised_at
        When the alert was raised, UTC.
    """

    id: str
    kind: str
    slot: str
    model: str
    restores: str
    raised_at: str
    reason: str
    evidence: Mapping[str, Any]


@dataclass(frozen=True)
class Done:
    """What came of a request.

    Attributes
    ----------
    kind
        `ROLLED_BACK`, `STUDENT_HALTED` or `REFUSED`.
    model
        First digits of the digest that is live now; empty for none.
    reason
        Why it was refused; what was done.
    at
        When it was done, UTC ISO: what was decided before says nothing about it.
    """

    kind: str
    model: str = ""
    reason: str = ""
    at: str = ""


class SlotMachine:
    """The state of one slot.

    Parameters
    ----------
    baseline_of
        What a model was validated at, by the first digits of its digest.
    acts
        Whether it may ask for a rollback or halt; otherwise it says what a person should do.

    Attributes
    ----------
    state, since_ns, reason
        The state, since when, and why.
    watch
        What is counted of the model that is served; None before the first judged bar.
    broken
        Names of the rules that alert now, with their figures.
    acts
        As given.
    previous
        First digits of the earlier release's model that was asked on the last bar; empty where none was.
    refused
        Why the last request was refused; empty where none was.
    raised_ns
        When the alert that is being confirmed was raised; 0 before the first.
    request
        What is to be done before the next bar; None where nothing is.
    """

    def __init__(
        self,
        slot: str,
        clock: BarClock,
        rules: MonitoringRules,
        baseline_of: Callable[[str], MonitoringBaseline | None],
        *,
        acts: bool,
    ) -> None:
        self.slot = slot
        self._clock = clock
        self.rules = rules
        self._baseline_of = baseline_of
        self.acts = acts
        self.state = INCONCLUSIVE
        self.since_ns = 0
        self.reason = "no prediction has an outcome yet"
        self.watch: ModelWatch | None = None
        self.broken: dict[str, dict[str, Any]] = {}
        self.confirmation: Confirmation | None = None
        self.request: Request | None = None
        self.steps = 0
        self.previous = ""
        self.raised_ns = 0
        self._waited = self._hours = 0.0
        self._other: list[Any] = ["", 0]
        self._asked_in = INCONCLUSIVE
        self._quiet_days, self._quiet_day = 0, -1
        self._done_ns = 0
        self._last_broken: dict[str, int] = {}
        self._verified: Sprt | None = None
        self._demoted: list[str] = []
        self._silent_seen = False
        self.refused = ""
        self._refusal_day = -1

    # --- bars

    def add(self, bar: ClosedBar) -> list[Step]:
        """Take a closed bar; the changes of state it caused.

        Raises
        ------
        RuntimeError
            A request has not been answered: a bar now would be counted for the wrong state.
        """
        if self.request is not None:
            raise RuntimeError(f"slot {self.slot}: answer {self.request.id} first")
        steps: list[Step] = []
        self._follow_served(bar, steps)
        watch = self.watch
        if watch is not None and watch.baseline is None and self._baseline_of(watch.model) is not None:
            self._serve(watch.model, watch.version, bar)  # it could not be read before
            watch = self.watch
        rows = watch.rows_of(bar) if watch is not None else []
        if watch is None or watch.baseline is None or not rows:
            return steps  # missing data neither clears an alert nor advances it
        watch.version = rows[0].version
        hours = self._clock.hours(self._clock.available_ns(bar.start_ns, bar.day))
        watch.add(bar, hours)
        self._renew_broken(bar)
        if self.state in _WATCHING:
            self._judge(bar, steps)
        elif self.state == CONFIRMING:
            self._confirm(bar, hours, steps)
        elif self.state == VERIFYING:
            self._verify(bar, steps)
        return steps

    def ask_halt(self, alarm: str, evidence: Mapping[str, Any], bar: ClosedBar) -> list[Step]:
        """Ask for a halt because of what the model says; nothing where it is silent already, or something is asked for.

        Parameters
        ----------
        alarm
            Of the behaviour.
        bar
            The last one that was added, at the time of the alarm.
        """
        steps: list[Step] = []
        if self.watch is not None and self.state not in (HALTED, ROLLING_BACK):
            self._ask(HALT, bar, evidence, f"it does not behave as validated: {alarm}", steps)
        return steps

    def acted(self, done: Done, bar: ClosedBar) -> list[Step]:
        """What came of the request that the bar caused.

        Parameters
        ----------
        bar
            The last one that was added.
        """
        request, self.request = self.request, None
        assert request is not None
        steps: list[Step] = []
        evidence = {"done_at": done.at, "request": request.id, "said": done.reason}
        self._done_ns = instant_ns(done.at) if done.at else bar.known_at_ns
        if done.kind == ROLLED_BACK:
            self._demoted.append(request.model)
            self._serve(done.model, "", bar)
            self._verified = self._verification()
            self._step(bar, VERIFYING, f"{done.model} was restored and is verified", evidence, steps)
        elif done.kind == STUDENT_HALTED:
            self._silent_seen = False
            self.broken = {}
            self._step(bar, HALTED, request.reason, evidence, steps)
        else:
            self.refused, self._refusal_day = done.reason, bar.day
            self._step(bar, self._asked_in, f"refused: {done.reason}", evidence, steps)
        return steps

    def _follow_served(self, bar: ClosedBar, steps: list[Step]) -> None:
        """Notice that another model is served, that the student is silent, or that it speaks again."""
        shadows = {
            voice.model for row in bar.rows.values() for role, voice in row.shadows if role == PREVIOUS
        }
        if bar.rows:
            self.previous = min(shadows, default="")
        said = [row.said for row in bar.rows.values()]
        if said and all(voice.reason == "halted" for voice in said):
            self._silent_seen = True
            if self.state not in (HALTED, ROLLING_BACK) and self.watch is not None:
                self.broken, self.confirmation, self._verified = {}, None, None
                self._step(bar, HALTED, "the slot is halted", {}, steps)
            return
        judged = [row for row in bar.rows.values() if row.said.judged]
        models = sorted(row.said.model for row in judged)
        if not models:
            return
        usual = models[len(models) // 2]  # more than half of the rows, where one has so many
        known = self.watch.model if self.watch else ""
        waits = usual in self._demoted and not self._followed(judged)
        if not waits and self._takes_over(usual, known, models):
            version = next(row.version for row in judged if row.said.model == usual)
            self._demoted = []
            self._serve(usual, version, bar)
            reason = "a model is served" if not known else f"{usual} is served in place of {known}"
            self._step(bar, INCONCLUSIVE, reason, {}, steps)
        elif self.state == HALTED and usual == known and (self._silent_seen or self._followed(judged)):
            self._serve(known, self.watch.version if self.watch else "", bar)
            self._step(bar, INCONCLUSIVE, "the slot was resumed", {}, steps)

    def _takes_over(self, usual: str, known: str, models: list[str]) -> bool:
        """Whether another model is served now: it has the majority for some bars, not for one of two hosts' turns."""
        if usual == known or models.count(usual) * 2 <= len(models):
            self._other = ["", 0]
            return False
        bars = self._other[1] + 1 if self._other[0] == usual else 1
        self._other = [usual, bars]
        if known and bars < SWITCH_BARS[self._clock.daily]:
            return False
        self._other = ["", 0]
        return True

    def _followed(self, rows: Sequence[Row]) -> bool:
        """Whether a bar was decided on after the last rollback or halt, and engines had time to follow it."""
        return max(row.decided_ns for row in rows) > self._done_ns + FOLLOW_NS

    def _serve(self, model: str, version: str, bar: ClosedBar) -> None:
        """Begin to count for a model: nothing of the one before it, or of its own earlier service, counts."""
        self.watch = ModelWatch(model, version, self._baseline_of(model), self.rules, daily=self._clock.daily)
        self.broken, self.confirmation, self._verified = {}, None, None
        self._silent_seen = False
        self._quiet_days, self._quiet_day = 0, -1
        self.refused = ""

    def _verification(self) -> Sprt | None:
        """A test of the restored model: as good as validated, or worse by the points that alert."""
        baseline = self.watch.baseline if self.watch else None
        good = miss_rate_bound(baseline.hit_ratio) if baseline else None
        if baseline is None or good is None:
            return None
        bad = min(good + self.rules.hit_ratio_drop_threshold, 0.99)
        return Sprt(good, bad, streams=baseline.horizon_bars) if bad > good else None

    def _renew_broken(self, bar: ClosedBar) -> None:
        """Rules that are broken; one ends when it has held for the cooldown, and not for want of samples."""
        watch = self.watch
        assert watch is not None
        assert watch.rules is not None
        found = watch.rules.breaches()
        for detector in watch.alarms() if self.state != VERIFYING else []:  # there a test of its own decides
            found[SEQUENTIAL + detector.metric] = {"level": detector.level, "threshold": detector.threshold}
        lasts = set(found) | (watch.rules.undecided() & set(self.broken))
        if self.confirmation is not None:  # its alert lasts until the confirmation is over
            lasts.add(SEQUENTIAL + self.confirmation.metric)
        self._last_broken |= dict.fromkeys(sorted(lasts), bar.known_at_ns)
        cooldown_ns = int(self.rules.alert_cooldown_hours * _NS_PER_HOUR)
        kept = {
            name: said
            for name, said in self.broken.items()
            if name in lasts or bar.known_at_ns - self._last_broken[name] < cooldown_ns
        }
        self.broken = {**kept, **found}
        self._last_broken = {name: at for name, at in self._last_broken.items() if name in self.broken}

    # --- states

    def _judge(self, bar: ClosedBar, steps: list[Step]) -> None:
        """OK, INCONCLUSIVE or ALERTING, and from there to CONFIRMING."""
        watch = self.watch
        assert watch is not None
        assert watch.baseline is not None
        assert watch.rules is not None
        alarms = watch.alarms()
        if alarms:
            metric = alarms[0].metric
            bound = miss_rate_bound(getattr(watch.baseline, metric))
            assert bound is not None
            horizon = watch.baseline.horizon_bars
            self.confirmation = Confirmation(
                metric, bound, horizon, bar.number + horizon + 1, self.rules.alpha
            )
            self.raised_ns = bar.known_at_ns
            self._waited, self._hours = 0.0, self._clock.hours(bar.known_at_ns)
            self._step(
                bar,
                CONFIRMING,
                f"{TITLES[metric]}: evidence of a loss",
                self.broken[SEQUENTIAL + metric],
                steps,
            )
        elif self.broken and self.state != ALERTING:
            self._step(bar, ALERTING, ", ".join(sorted(self.broken)), dict(self.broken), steps)
        elif not self.broken and watch.rules.enough() and self.state != OK:
            self._step(bar, OK, "as validated", {}, steps)
        elif not self.broken and watch.rules.thinned() and self.state != INCONCLUSIVE:
            self._step(bar, INCONCLUSIVE, "too few outcomes in the window", {}, steps)

    def _confirm(self, bar: ClosedBar, hours: float, steps: list[Step]) -> None:
        """CONFIRMING, until fresh outcomes clear it or ask for a rollback or halt."""
        watch, confirmation = self.watch, self.confirmation
        assert watch is not None
        assert watch.baseline is not None
        assert confirmation is not None
        stream = stream_of(bar, watch.baseline.horizon_bars, daily=self._clock.daily)
        confirmation.add(bar, watch.rows_of(bar), stream)
        verdict = confirmation.verdict()
        if verdict == "cleared":
            figures = confirmation.figures()
            self.confirmation = None
            watch.begin_again()
            self.broken.pop(SEQUENTIAL + figures["metric"], None)
            after = ALERTING if self.broken else OK
            self._step(bar, after, "fresh outcomes do not confirm it", figures, steps)
            return
        self._waited += min(hours - self._hours, HOURS_PER_DAY)  # a session without data is no waiting
        self._hours = hours
        early = (
            self._waited < self.rules.confirmation_hours
            or confirmation.calls < self.rules.min_samples
            or bar.day == self._refusal_day
        )
        if verdict is None or early or not self.acts:
            return
        once = bool(self._demoted)  # a machine rolls back once; the next time it halts
        kind = ROLL_BACK if verdict == "roll_back" and not once else HALT
        self._ask(kind, bar, confirmation.figures(), _why(confirmation, once=once), steps)

    def _verify(self, bar: ClosedBar, steps: list[Step]) -> None:
        """VERIFYING: whether the restored model does what it was validated at."""
        watch, sprt = self.watch, self._verified
        assert watch is not None
        assert watch.baseline is not None
        rows = watch.rows_of(bar)
        miss = missed(HIT_RATIO, ((row.said.call, row.outcome) for row in rows))
        if sprt is None:
            self._step(bar, INCONCLUSIVE, "the restored release has no validated hit ratio", {}, steps)
            return
        self._count_quiet(bar.day, quiet=miss is None)
        if self._quiet_days >= QUIET_SESSIONS:
            self._verified = None
            self._step(bar, INCONCLUSIVE, "the restored release makes no calls", {}, steps)
            return
        if miss is None:
            return
        said = sprt.update(miss, stream=stream_of(bar, watch.baseline.horizon_bars, daily=self._clock.daily))
        figures = {"bars": watch.bars, "level": sprt.level}
        if said == "good":
            self._verified = None
            watch.begin_again()
            self.broken = {
                name: said for name, said in self.broken.items() if not name.startswith(SEQUENTIAL)
            }
            self._step(bar, OK, "the restored release does what it was validated at", figures, steps)
        elif (said == "bad" or sprt.level >= sprt.bound) and bar.day != self._refusal_day:
            self._ask(HALT, bar, figures, "the restored release fails as well", steps)

    def _count_quiet(self, day: int, *, quiet: bool) -> None:
        """Session days in a row on which the restored release made no call."""
        if not quiet:
            self._quiet_days, self._quiet_day = 0, day
        elif day != self._quiet_day:
            self._quiet_days, self._quiet_day = self._quiet_days + 1, day

    def _ask(
        self, kind: str, bar: ClosedBar, evidence: Mapping[str, Any], reason: str, steps: list[Step]
    ) -> None:
        watch = self.watch
        assert watch is not None
        restores = self.confirmation.previous if self.confirmation and kind == ROLL_BACK else ""
        self._asked_in = self.state
        raised = iso_instant(self.raised_ns if self.state == CONFIRMING else bar.known_at_ns)
        self._step(bar, ROLLING_BACK, reason, evidence, steps)
        self.request = Request(
            f"{self.slot}/{self.steps}/{watch.model}/{raised}",
            kind,
            self.slot,
            watch.model,
            restores,
            raised,
            reason,
            evidence,
        )

    def _step(
        self, bar: ClosedBar, after: str, reason: str, evidence: Mapping[str, Any], steps: list[Step]
    ) -> None:
        self.steps += 1
        model = self.watch.model if self.watch else ""
        at = iso_instant(bar.known_at_ns)
        steps.append(Step(self.steps, at, self.state, after, model, reason, dict(evidence)))
        self.state, self.since_ns, self.reason = after, bar.known_at_ns, reason

    # --- what a page and a restart need

    def figures(self) -> dict[str, Any]:
        """Everything a status shows of the slot's model."""
        watch = self.watch
        return {
            "acts": self.acts,
            "broken": self.broken,
            "confirmation": self.confirmation.figures() if self.confirmation else None,
            "model_digest": watch.model if watch else None,
            "model_version": (watch.version or None) if watch else None,
            "reason": self.reason,
            "refused": self.refused or None,
            "since": iso_instant(self.since_ns) if self.since_ns else None,
            "state": self.state,
            "validated": watch is not None and watch.baseline is not None,
            "verification": None if self._verified is None else {"level": self._verified.level},
            **(watch.figures() if watch else {"calibration": None, "detectors": {}, "rolling": {}}),
        }

    def to_state(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "broken": self.broken,
            "confirmation": self.confirmation.state() if self.confirmation else None,
            "demoted": self._demoted,
            "last_broken": self._last_broken,
            "previous": self.previous,
            "raised_ns": self.raised_ns,
            "reason": self.reason,
            "refused": [self.refused, self._refusal_day],
            "request": asdict(self.request) if self.request else None,
            "silent_seen": self._silent_seen,
            "since_ns": self.since_ns,
            "state": self.state,
            "steps": self.steps,
            "verified": self._verified.state() if self._verified else None,
            "turns": [self._other, self._asked_in, self._done_ns, self._quiet_days, self._quiet_day],
            "waited": [self._waited, self._hours],
            "watch": self.watch.state() if self.watch else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._demoted = list(state["demoted"])
        watch = state["watch"]
        if watch is not None:
            self.watch = ModelWatch(
                watch["model"],
                watch["version"],
                self._baseline_of(watch["model"]),
                self.rules,
                daily=self._clock.daily,
            )
            self.watch.restore(watch)
        self.broken, self._last_broken = dict(state["broken"]), dict(state["last_broken"])
        found = state["confirmation"]
        self.confirmation = Confirmation.from_state(found) if found else None
        self.request = Request(**state["request"]) if state["request"] else None
        self._verified = self._verification() if state["verified"] is not None else None
        if self._verified is not None:
            self._verified.restore(state["verified"])
        self.raised_ns, self._silent_seen = state["raised_ns"], state["silent_seen"]
        self.refused, self._refusal_day = state["refused"]
        self.state, self.since_ns, self.reason = state["state"], state["since_ns"], state["reason"]
        self.steps, self.previous = state["steps"], state["previous"]
        self._waited, self._hours = state["waited"]
        self._other, self._asked_in, self._done_ns, self._quiet_days, self._quiet_day = state["turns"]


def _why(confirmation: Confirmation, *, once: bool) -> str:
    """The reason of a rollback or halt, for the audit log."""
    said = (
        f"{TITLES[confirmation.metric]} is worse than validated (fresh evidence {in_words(confirmation.live.value)}, "
        f"{1.0 / confirmation.figures()['alpha']:.0f} needed)"
    )
    if once:
        return f"{said}; a machine rolls back once"
    if not confirmation.previous:
        return f"{said}; there is no earlier release to go back to"
    if not confirmation.speaks:
        return f"{said}; the release before it makes no calls on these bars"
    if confirmation.verdict() == "halt":
        return f"{said}; so is the release before it, on the same bars"
    return f"{said}; {confirmation.previous} does better on the same bars"
