"""What a validation window can show, said before training: ``sqkit plan`` and the first lines of ``train-student``.

`plan_window` simulates the gate (`sqkit.research.gate_simulation`) in a world of that many symbols and
sessions, and finds the shortest window, or number of symbols, that would promote a really better student
with power .80. The world is a guess about the market; its assumptions are `sqkit.research.gate_world`'s,
without a drift, so that a student is as much better in precision as in hit ratio.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
from scipy.special import ndtri

from sqkit.checklist_inputs import Policy
from sqkit.checklist_rules import unrounded_deltas
from sqkit.errors import UsageError
from sqkit.evidence_grade import (
    FIRST_BRIER,
    FIRST_DAILY_PNL,
    FIRST_PRECISION,
    FIRST_PRECISION_P,
    FIRST_RULE_BRIER,
    LOSS_ACTED_ON,
    LOSS_ALL_ROWS,
    MODERATE_P,
)
from sqkit.research.gate_attempts import attempts_of
from sqkit.research.gate_simulation import deciding_records, judge_attempt
from sqkit.research.gate_world import World
from sqkit.research.power import LONGEST_DAYS, LONGEST_YEARS, POWER, memmel_power, memmel_years

_ROWS_AN_ATTEMPT: Final = 12_000
"""Above this the rows of a day are thinned: what days share decides by then, and a plan stays quick."""

_ROWS_AN_ARM: Final = 1_500_000
_FEWEST_ATTEMPTS: Final = 60
_MORE_SYMBOLS: Final = 4
_MOST_SYMBOLS: Final = 20
_TESTS: Final = {
    True: ((LOSS_ALL_ROWS, MODERATE_P), (LOSS_ACTED_ON, MODERATE_P)),
    False: (
        (FIRST_PRECISION, FIRST_PRECISION_P),
        (FIRST_BRIER, MODERATE_P),
        (FIRST_RULE_BRIER, MODERATE_P),
        (FIRST_DAILY_PNL, 0.5),
    ),
}


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
    size = _size(strategy, symbols, sessions, horizon_bars, bars_per_session)
    world = replace(size.world, uplift=uplift)
    rows = world.days * world.symbols * world.slots
    attempts = max(1, min(attempts, max(_FEWEST_ATTEMPTS, _ROWS_AN_ARM // rows)))
    equal = _simulate(world, "equal", policy, incumbent=incumbent, attempts=attempts, seed=seed)
    better = _simulate(world, "better", policy, incumbent=incumbent, attempts=attempts, seed=seed)
    adequacy = {
        "session_days": sessions,
        "min_session_days": policy.min_days,
        "day_clusters": round(float(np.mean(equal.day_clusters))),
        "min_day_clusters": policy.min_day_clusters,
        "directional_calls": round(size.rows * world.coverage),
        "min_directional_calls": policy.min_calls,
    }
    correlation = float(np.mean(better.correlation))
    sharpe_uplift = policy.min_sharpe_uplift
    return {
        "strategy": strategy,
        "symbols": symbols,
        "sessions": sessions,
        "horizon_bars": horizon_bars,
        "bars_per_session": bars_per_session,
        "label_sessions": world.horizon_sessions,
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
        "suffices": _what_suffices(better, world, size, policy, incumbent=incumbent, seed=seed),
        "sharpe": {
            "baseline_annual": world.annual_sharpe,
            "relative_uplift": sharpe_uplift,
            "correlation": correlation,
            "power": memmel_power(world.annual_sharpe, sharpe_uplift, correlation, sessions),
            "years": memmel_years(world.annual_sharpe, sharpe_uplift, correlation),
        },
        "attempts": attempts,
        "seed": seed,
        "world": asdict(world),
    }


def plan_lines(plan: dict[str, Any]) -> list[str]:
    """The plan for a reader, one line each."""
    counts, equal, better = plan["adequacy"], plan["equal_models"], plan["better_student"]
    points = 100.0 * better["uplift"]
    against = "an incumbent model" if plan["incumbent"] else "the baseline rule (no incumbent)"
    lines = [
        f"{plan['symbols']} symbols, {plan['sessions']} session days, {plan['strategy']}, against {against}; "
        f"simulated, {plan['attempts']} attempts, seed {plan['seed']}",
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
    """The world to simulate, symbols and rows of the real window, and independent decisions a symbol and day."""

    world: World
    symbols: int
    rows: int
    slots: int


def _size(strategy: str, symbols: int, sessions: int, horizon_bars: int, bars_per_session: int) -> _Size:
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
    kept = min(symbols * slots, max(20, _ROWS_AN_ATTEMPT // sessions))
    world = World(days=sessions, symbols=kept, slots=1, horizon_sessions=overlap, drift=0.0)
    return _Size(world, symbols, rows, slots)


@dataclass(frozen=True)
class _Simulated:
    """One arm: verdicts (n,), sizes, and the estimates the verdicts rest on by name, (n,) each."""

    thresholds_only: np.ndarray
    with_evidence: np.ndarray
    day_clusters: np.ndarray
    correlation: np.ndarray
    estimates: dict[str, np.ndarray]

    def rates(self) -> dict[str, float]:
        """Pass rates, and the larger binomial standard error."""
        shares = {
            "thresholds_only": float(self.thresholds_only.mean()),
            "with_evidence": float(self.with_evidence.mean()),
        }
        errors = [math.sqrt(share * (1.0 - share) / len(self.with_evidence)) for share in shares.values()]
        return shares | {"standard_error": max(errors)}


def _simulate(
    world: World, student: Any, policy: Policy, *, incumbent: bool, attempts: int, seed: int
) -> _Simulated:
    """Judge an arm; adequacy is said apart, so thresholds and evidence are judged whatever the size."""
    lenient = replace(policy, min_days=0, min_day_clusters=0, min_calls=0)
    overlap = world.horizon_sessions
    verdicts, sizes, rows = [], [], []
    for attempt in attempts_of(world, student, incumbent=incumbent, attempts=attempts, seed=seed):
        judged = judge_attempt(attempt, lenient, overlap=overlap)
        verdicts.append((judged.thresholds_only, judged.with_evidence))
        returns, paired = attempt.returns, attempt.rows
        calls = paired.directional_counts(paired.everywhere)
        with np.errstate(all="ignore"):
            correlation = np.corrcoef(returns.student, returns.baseline)[0, 1]
        sizes.append((int((calls[:, [1, 3]] > 0).sum(axis=0).min()), np.nan_to_num(correlation, nan=1.0)))
        if student != "better":
            continue
        known = {record["name"]: record["estimate"] for record in deciding_records(attempt, overlap=overlap)}
        ours, theirs = judged.candidate, judged.baseline
        deltas = unrounded_deltas(ours, theirs, policy)
        found = {
            "precision": deltas["precision_uplift"],
            "hit_ratio": deltas["hit_ratio_uplift"],
            "sharpe_baseline": theirs["sharpe_ratio"],
            "sharpe_difference": deltas["sharpe_difference"],
            **{name: known[name] for name, _ in _TESTS[incumbent]},
        }
        if all(value is not None for value in found.values()):
            rows.append(found)
    passed, sized = np.array(verdicts, dtype=bool), np.array(sizes, dtype=np.float64)
    estimates = {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else ())}
    return _Simulated(passed[:, 0], passed[:, 1], sized[:, 0], sized[:, 1], estimates)


def _what_suffices(
    better: _Simulated, world: World, size: _Size, policy: Policy, *, incumbent: bool, seed: int
) -> dict[str, Any]:
    """Shortest window, and fewest symbols at the same days, that promote the better student with power .80.

    The simulated estimates are rescaled: over k times the days their spread falls by sqrt(k); over more
    symbols only the part that a second simulation with four times the symbols shows to be the rows' own.
    """
    nothing = {"session_days": None, "symbols": None, "power": POWER}
    if len(better.estimates.get("precision", ())) < 10:
        return nothing
    wider = replace(world, symbols=world.symbols * _MORE_SYMBOLS)
    attempts = max(
        _FEWEST_ATTEMPTS // 2, min(len(better.with_evidence), _ROWS_AN_ARM // (wider.days * wider.symbols))
    )
    more = _simulate(wider, "better", policy, incumbent=incumbent, attempts=attempts, seed=seed)
    truth = dict.fromkeys(("precision", "hit_ratio"), world.uplift)
    scaled = _Scaled.of(better.estimates, more.estimates, truth)

    def chance(times_days: float, times_symbols: float) -> float:
        return _pass_share(scaled.at(times_days, times_symbols), policy, incumbent=incumbent)

    longest = max(LONGEST_DAYS / world.days, 1.0)
    days = _first(lambda times: chance(times, 1.0), longest)
    times_symbols = _first(lambda times: chance(1.0, times), float(_MOST_SYMBOLS))
    return nothing | {
        "session_days": None if days is None else math.ceil(days * world.days),
        "symbols": None
        if times_symbols is None
        else max(math.ceil(times_symbols * world.symbols / size.slots), size.symbols),
    }


@dataclass(frozen=True)
class _Scaled:
    """Estimates with what is known about how they behave in larger windows.

    Attributes
    ----------
    centred
        Standardised estimates by name, (n,).
    mean, own_mean
        Mean by name with many symbols, and what is added for few.
    common, own
        Variance by name that more symbols do not shrink, and that they do.
    """

    centred: dict[str, np.ndarray]
    mean: dict[str, float]
    own_mean: dict[str, float]
    common: dict[str, float]
    own: dict[str, float]

    @classmethod
    def of(cls, few: dict[str, np.ndarray], many: dict[str, np.ndarray], truth: dict[str, float]) -> _Scaled:
        """From the same student with few and with `_MORE_SYMBOLS` times the symbols, and known means."""
        whole = _MORE_SYMBOLS / (_MORE_SYMBOLS - 1.0)
        centred, mean, own_mean, common, own = {}, {}, {}, {}, {}
        for name, values in few.items():
            spread = float(np.std(values)) or 1.0
            centred[name] = (values - values.mean()) / spread
            wide = many.get(name, values)
            shrinks = whole * (spread**2 - float(np.var(wide))) if len(wide) > 1 else 0.0
            own[name] = min(max(shrinks, 0.0), spread**2)
            common[name] = spread**2 - own[name]
            moves = name.startswith("sharpe") and len(wide) > 1
            own_mean[name] = whole * float(values.mean() - wide.mean()) if moves else 0.0
            mean[name] = truth.get(name, float(values.mean())) - own_mean[name]
        return cls(centred, mean, own_mean, common, own)

    def at(self, times_days: float, times_symbols: float) -> dict[str, tuple[np.ndarray, float]]:
        """Estimates (n,) and standard error by name, in a window so many times as large."""
        larger = {}
        for name, centred in self.centred.items():
            spread = math.sqrt((self.common[name] + self.own[name] / times_symbols) / times_days)
            level = self.mean[name] + self.own_mean[name] / times_symbols
            larger[name] = (level + spread * centred, spread)
        return larger


def _pass_share(larger: dict[str, tuple[np.ndarray, float]], policy: Policy, *, incumbent: bool) -> float:
    """Share of rescaled attempts that reach the thresholds and pass the tests."""
    precision, hit_ratio = larger["precision"][0], larger["hit_ratio"][0]
    theirs, gain = larger["sharpe_baseline"][0], larger["sharpe_difference"][0]
    uplift = np.where(
        theirs >= policy.relative_sharpe_floor,
        gain >= policy.min_sharpe_uplift * theirs,
        gain >= policy.min_sharpe_uplift_absolute,
    )
    reached = (precision >= policy.min_precision_uplift, hit_ratio >= policy.min_hit_ratio_uplift, uplift)
    passed = np.logical_and.reduce(reached) if policy.require_all_criteria else np.logical_or.reduce(reached)
    passed &= theirs + gain >= policy.min_sharpe
    if policy.min_evidence not in ("none", "weak"):
        for name, level in _TESTS[incumbent]:
            estimate, error = larger[name]
            passed &= estimate >= float(ndtri(1.0 - level)) * error
    return float(passed.mean())


def _first(chance: Callable[[float], float], most: float) -> float | None:
    """Smallest factor in [1, most] from which on the chance is at least `POWER`; None beyond."""
    factors = np.geomspace(1.0, most, 200) if most > 1.0 else np.ones(1)
    below = [at for at, times in enumerate(factors) if chance(float(times)) < POWER]
    if not below:
        return 1.0
    return None if below[-1] + 1 == len(factors) else float(factors[below[-1] + 1])


def _suffices_line(suffices: dict[str, Any], plan: dict[str, Any]) -> str:
    days, symbols, power = suffices["session_days"], suffices["symbols"], f".{round(100 * suffices['power'])}"
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
