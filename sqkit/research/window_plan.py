"""What a validation window can show, said before training: ``sqkit plan`` and the first lines of ``train-student``.

`plan_window` simulates the gate (`sqkit.research.gate_simulation`) in a world of that many symbols and
sessions, and finds the shortest window, or number of symbols, that would promote a really better student
with power .80. The world is a guess about the market; its assumptions are `sqkit.research.gate_world`'s,
without a drift, so that a student is as much better in precision as in hit ratio. A window too large to
simulate is computed from a smaller one (`sqkit.research.window_scaling`), and so is what would suffice, from
a window that depends on the symbols alone: windows of any length name the same number of days.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from sqkit.checklist_inputs import Policy
from sqkit.errors import UsageError
from sqkit.research.gate_attempts import Student
from sqkit.research.gate_world import World
from sqkit.research.power import LONGEST_DAYS, LONGEST_YEARS, POWER
from sqkit.research.sharpe_power import memmel_power, memmel_years
from sqkit.research.window_scaling import ScaledWindow, Symbols, first_enough
from sqkit.research.window_simulation import Arm, Observed, Simulation

_ROWS_AN_ATTEMPT: Final = 12_000
_SESSIONS: Final = 120
"""Sessions that are simulated however many rows a day has."""

_ROWS_A_DAY: Final = 100
_LABELS: Final = 6
"""Labels, one after the other, that a simulated window holds at least: the tests ask for three."""

_WIDER_ATTEMPTS: Final = 40
_MORE_SYMBOLS: Final = 4
_MOST_SYMBOLS: Final = 20
_STUDENTS: Final[tuple[Student, Student]] = ("equal", "better")


def plan_window(
    strategy: str,
    symbols: int,
    sessions: int,
    *,
    policy: Policy,
    horizon_bars: int,
    bars_per_session: int = 1,
    incumbent: bool = True,
    uplift: float = 0.025,
    attempts: int = 300,
    seed: int = 0,
) -> dict[str, Any]:
    """What a window of so many symbols and sessions can show.

    Parameters
    ----------
    strategy
        ``intraday`` (labels end on their day) or ``swing`` (labels reach over sessions).
    symbols, sessions
        Size of the validation window.
    horizon_bars, bars_per_session
        Label horizon, and bars of one symbol a session, 1 for daily bars.
    incumbent
        Whether the student meets a model, or the baseline rule.
    uplift
        True uplift in precision and hit ratio of the student whose power is asked.
    attempts
        Simulated validations an arm at most; fewer for large windows.

    Returns
    -------
    dict
        Plain JSON values: ``adequacy``, ``equal_models`` and ``better_student`` (pass rates),
        ``suffices`` (``session_days`` and ``symbols``, None where not reachable), ``sharpe`` (Memmel).

    Raises
    ------
    UsageError
        A size below 1, fewer than two sessions, an unknown strategy.
    """
    size = _size(strategy, symbols, sessions, horizon_bars, bars_per_session, uplift)
    gate = Simulation(policy, incumbent, attempts, seed)
    observed = gate.observe(size.reference, "better")
    wider = replace(size.reference, symbols=size.reference.symbols * _MORE_SYMBOLS)
    brings = Symbols.of(observed, gate.observe(wider, "better", most=_WIDER_ATTEMPTS), _MORE_SYMBOLS)
    scaled = ScaledWindow.of(observed, brings, size.reference, "better", incumbent=incumbent)
    if size.simulated is not None:
        equal, better = (gate.judge(size.simulated, student) for student in _STUDENTS)
    else:
        same = gate.observe(size.reference, "equal")
        scaled_same = ScaledWindow.of(same, brings, size.reference, "equal", incumbent=incumbent)
        equal = _computed(same, scaled_same, brings, size, policy)
        better = _computed(observed, scaled, brings, size, policy)
    adequacy = {
        "session_days": sessions,
        "min_session_days": policy.min_days,
        "day_clusters": round(sessions * (1.0 - equal.idle_days)),
        "min_day_clusters": policy.min_day_clusters,
        "directional_calls": round(size.rows * size.reference.coverage),
        "min_directional_calls": policy.min_calls,
    }
    correlation, annual = better.correlation, size.reference.annual_sharpe
    sharpe_uplift = policy.min_sharpe_uplift
    return {
        "strategy": strategy,
        "symbols": symbols,
        "sessions": sessions,
        "horizon_bars": horizon_bars,
        "bars_per_session": bars_per_session,
        "label_sessions": size.reference.horizon_sessions,
        "incumbent": incumbent,
        "min_evidence": policy.min_evidence,
        "adequacy": adequacy
        | {
            "enough": sessions >= policy.min_days
            and adequacy["day_clusters"] >= policy.min_day_clusters
            and adequacy["directional_calls"] >= policy.min_calls
        },
        "equal_models": equal.rates(),
        "better_student": {"uplift": uplift} | better.rates(),
        "suffices": _what_suffices(scaled, size, policy),
        "sharpe": {
            "baseline_annual": annual,
            "relative_uplift": sharpe_uplift,
            "correlation": correlation,
            "power": memmel_power(annual, sharpe_uplift, correlation, sessions),
            "years": memmel_years(annual, sharpe_uplift, correlation),
        },
        "attempts": better.attempts,
        "seed": seed,
        "computed": size.simulated is None,
        "world": asdict(size.simulated or size.reference),
    }


def plan_lines(plan: dict[str, Any]) -> list[str]:
    """The plan for a reader, one line each."""
    counts, equal, better = plan["adequacy"], plan["equal_models"], plan["better_student"]
    points = 100.0 * better["uplift"]
    against = "an incumbent model" if plan["incumbent"] else "the baseline rule (no incumbent)"
    lines = [
        f"{plan['symbols']} symbols, {plan['sessions']} session days, {plan['strategy']}, against {against}; "
        f"{_source(plan)}, {plan['attempts']} attempts, seed {plan['seed']}",
        f"data: {counts['session_days']} session days (at least {counts['min_session_days']}), "
        f"{counts['day_clusters']} of them with a call (at least {counts['min_day_clusters']}), about "
        f"{counts['directional_calls']} directional calls (at least {counts['min_directional_calls']}): "
        + (
            "enough to judge"
            if counts["enough"]
            else "too little, the verdict would be INSUFFICIENT_EVIDENCE"
        ),
        f"two equal models: promoted in {_percent(equal['thresholds_only'])} of attempts by thresholds alone, "
        f"{_percent(equal['with_evidence'])} with evidence",
        f"a student really {points:g} points better: {_percent(better['thresholds_only'])} by thresholds alone, "
        f"{_percent(better['with_evidence'])} with evidence",
        _suffices_line(plan["suffices"], plan),
        _sharpe_line(plan["sharpe"]),
    ]
    if plan["label_sessions"] > 1:
        lines.insert(
            2, f"labels reach over {plan['label_sessions']} sessions, so neighbouring days say the same twice"
        )
    return lines


@dataclass(frozen=True)
class _Size:
    """How large the asked window is, and which windows stand for it.

    Attributes
    ----------
    reference
        The world that larger windows are computed from; its size depends on the rows of a day alone.
    simulated
        The asked window itself, where it is small enough to be simulated; else None.
    symbols, sessions, rows
        Of the asked window; rows are all its decisions.
    slots
        Independent decisions a symbol and day.
    """

    reference: World
    simulated: World | None
    symbols: int
    sessions: int
    rows: int
    slots: int

    @property
    def times_symbols(self) -> float:
        """Rows of a day in the asked window, over those of the reference."""
        return self.symbols * self.slots / self.reference.symbols


def _size(
    strategy: str, symbols: int, sessions: int, horizon_bars: int, bars_per_session: int, uplift: float
) -> _Size:
    if strategy not in ("intraday", "swing"):
        raise UsageError(f"{strategy}: no such strategy; use intraday or swing")
    for name, value, least in (
        ("symbols", symbols, 1),
        ("sessions", sessions, 2),
        ("horizon_bars", horizon_bars, 1),
        ("bars_per_session", bars_per_session, 1),
    ):
        if value < least:
            raise UsageError(f"{name} {value}: give at least {least}", name=name)
    if strategy == "intraday":
        overlap, slots = 1, max(1, bars_per_session // horizon_bars)
        rows = symbols * sessions * max(1, bars_per_session - horizon_bars)
    else:
        overlap, slots = math.ceil(horizon_bars / bars_per_session), 1
        rows = symbols * sessions * bars_per_session
    kept = min(symbols * slots, _ROWS_A_DAY)
    days = max(_SESSIONS, _LABELS * overlap, min(_ROWS_AN_ATTEMPT // kept, LONGEST_DAYS))
    reference = World(days=days, symbols=kept, slots=1, horizon_sessions=overlap, drift=0.0, uplift=uplift)
    whole = kept == symbols * slots and sessions <= days
    return _Size(
        reference, replace(reference, days=sessions) if whole else None, symbols, sessions, rows, slots
    )


def _computed(
    observed: Observed, scaled: ScaledWindow | None, symbols: Symbols, size: _Size, policy: Policy
) -> Arm:
    """The asked window from the reference; nothing passes where the reference defines no test."""
    times, passed = size.times_symbols, (0.0, 0.0)
    if scaled is not None:
        passed = scaled.pass_share(policy, days=size.sessions, times_symbols=times)
    idle = symbols.idle(observed.idle_days, times)
    return Arm(*passed, idle, observed.correlation, observed.attempts)


def _what_suffices(scaled: ScaledWindow | None, size: _Size, policy: Policy) -> dict[str, Any]:
    """Shortest window, and fewest symbols at the same days, that promote the better student with power .80."""
    nothing: dict[str, Any] = {"session_days": None, "symbols": None, "power": POWER}
    if scaled is None:
        return nothing

    def chance(days: float, times_symbols: float) -> float:
        return scaled.pass_share(policy, days=days, times_symbols=times_symbols)[1]

    now = size.times_symbols
    days = first_enough(lambda days: chance(days, now), size.sessions, LONGEST_DAYS)
    times = first_enough(lambda times: chance(size.sessions, times), now, now * _MOST_SYMBOLS)
    needed = None if times is None else math.ceil(times * size.reference.symbols / size.slots - 1e-9)
    return nothing | {
        "session_days": None if days is None else math.ceil(days - 1e-9),
        "symbols": None if needed is None else max(needed, size.symbols),
    }


def _source(plan: dict[str, Any]) -> str:
    world = plan["world"]
    if not plan["computed"]:
        return "simulated"
    return f"computed from simulated windows of {world['days']} sessions with {world['symbols']} rows a day"


def _suffices_line(suffices: dict[str, Any], plan: dict[str, Any]) -> str:
    days, symbols, power = suffices["session_days"], suffices["symbols"], f".{round(100 * suffices['power'])}"
    if days == plan["sessions"]:
        return f"power {power} for that student: this window suffices"
    ways = []
    if days is not None:
        ways.append(f"about {days} session days with {plan['symbols']} symbols")
    if symbols is not None:
        ways.append(f"{symbols} symbols at {plan['sessions']} session days")
    if ways:
        return f"power {power} for that student: {' or '.join(ways)}"
    return (
        f"power {power} for that student is out of reach: more than {LONGEST_YEARS} years, and more symbols "
        "alone are not enough"
    )


def _sharpe_line(sharpe: dict[str, Any]) -> str:
    years = sharpe["years"]
    needed = "no window" if years is None else f"{years:.0f} years" if years >= 2 else f"{years:.1f} years"
    now = "undefined" if sharpe["power"] is None else f"{sharpe['power']:.2f}"
    return (
        f"a Sharpe uplift of {100.0 * sharpe['relative_uplift']:g} % on {sharpe['baseline_annual']:g} "
        f"(daily correlation {sharpe['correlation']:.3f}): power {now} in this window, {needed} for power .80"
    )


def _percent(share: float) -> str:
    return f"{100.0 * share:.1f} %"
