"""Many trials in one window: is any of them better than the baseline, and does the search overfit?

The evidence of a validation asks this module when the trial ledger holds daily returns of five or more
trials. `align_trials` puts them on common days; the tests of arch answer with advisory records
(`sqkit.research.evidence_records`). `block_length` serves every block bootstrap of the evidence.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike

from sqkit.errors import UsageError
from sqkit.research.evidence_records import FAIL, INSUFFICIENT, PASS, UNDEFINED, evidence_record
from sqkit.research.overfitting import ROWS_PER_BLOCK, probability_of_backtest_overfitting
from sqkit.research.sharpe_statistics import CONSTANT, return_series, unusable

FEWEST_TRIALS: Final = 5
FEWEST_DAYS: Final = 20
"""Fewer common days carry neither a bootstrap of blocks nor an optimal block length (own rule)."""

SIZE: Final = 0.05
REPS: Final = 999
COVER: Final = 0.8
"""A trial that lacks more than a fifth of the baseline's days is left out, so that it cannot take the
days of all others."""

_FEWEST_BLOCKS: Final = 8
_NEVER_BEST: Final = -1000.0
"""In standard deviations: far below anything, and exact in a mean."""


@dataclass(frozen=True)
class AlignedTrials:
    """Daily returns of several trials on the days that all of them and the baseline have.

    Attributes
    ----------
    names
        Trials in order of name (their behaviour digests).
    left_out
        Trials that lack too many of the baseline's days.
    days
        int64 (t,), days since 1970-01-01, rising.
    baseline
        float (t,), daily net returns.
    returns
        float (t, n), one column a trial.
    """

    names: tuple[str, ...]
    left_out: tuple[str, ...]
    days: np.ndarray
    baseline: np.ndarray
    returns: np.ndarray


def align_trials(
    trials: Mapping[str, tuple[ArrayLike, ArrayLike]],
    baseline: tuple[ArrayLike, ArrayLike],
    *,
    cover: float = COVER,
) -> AlignedTrials:
    """Put the trials of one window and the baseline on their common days.

    Parameters
    ----------
    trials
        Behaviour digest to (session days, daily net returns), as the ledger keeps them.
    baseline
        The same of the baseline.
    cover
        Smallest share of the baseline's days a trial must have, in (0, 1].

    Raises
    ------
    UsageError
        Days and returns of different lengths, days that are not whole numbers or occur twice, a cover
        outside (0, 1].
    """
    if not 0.0 < cover <= 1.0:
        raise UsageError(f"cover {cover}: give a share above 0 and at most 1", cover=cover)
    base_days, base_returns = _dated("the baseline", *baseline)
    dated = {name: _dated(f"trial {name}", *trials[name]) for name in sorted(trials)}
    names = tuple(
        name
        for name, (days, _) in dated.items()
        if np.count_nonzero(np.isin(base_days, days)) >= max(1.0, cover * len(base_days))
    )
    common = base_days
    for name in names:
        common = np.intersect1d(common, dated[name][0])
    columns = [dated[name][1][np.searchsorted(dated[name][0], common)] for name in names]
    return AlignedTrials(
        names,
        tuple(name for name in dated if name not in names),
        common,
        base_returns[np.searchsorted(base_days, common)],
        np.column_stack(columns) if columns else np.empty((len(common), 0)),
    )


def _dated(whose: str, days: ArrayLike, returns: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Days and returns, days rising."""
    dates, series = np.asarray(days), return_series(f"returns of {whose}", returns)
    if dates.shape != series.shape:
        raise UsageError(f"{whose}: {dates.shape} days and {series.shape} returns; give one return a day")
    if dates.size and dates.dtype.kind not in "iu":
        raise UsageError(f"{whose}: days of type {dates.dtype}; give whole days since 1970-01-01")
    order = np.argsort(dates.astype(np.int64), kind="stable")
    dates = dates.astype(np.int64)[order]
    if np.any(dates[1:] == dates[:-1]):
        day = int(dates[1:][np.argmax(dates[1:] == dates[:-1])])
        raise UsageError(f"{whose}: day {day} occurs twice; give one return a day", day=day)
    return dates, series[order]


def block_length(
    *series: ArrayLike, horizon_days: int = 1, bootstrap: Literal["circular", "stationary"] = "circular"
) -> int:
    """Days a block of a bootstrap holds: the label horizon, or more where returns remember longer.

    ``max(horizon, ceil(median of the optimal lengths))``, at least 1 and at most a quarter of the days.
    The optimal length is that of Politis and White (2004), corrected by Patton, Politis and White
    (2009), from arch; the median and the cap are own rules.

    Parameters
    ----------
    *series
        float (t,) each: daily returns of both models, or their difference. One without an optimal
        length (constant, not finite, fewer than 20 days) is passed over.
    horizon_days
        Sessions a label reaches over, at least 1.
    bootstrap
        Which bootstrap the blocks are for.

    Raises
    ------
    UsageError
        No series, series of different lengths, a horizon below 1.
    """
    values = [return_series("series", one) for one in series]
    if not values or len({len(one) for one in values}) != 1:
        raise UsageError(f"{[len(one) for one in values]} days: give series of the same days")
    if not 1 <= horizon_days < math.inf:
        raise UsageError(f"horizon_days {horizon_days}: give at least 1", horizon_days=horizon_days)
    days = len(values[0])
    length = float(horizon_days)
    usable = [one / np.max(np.abs(one)) for one in values if not unusable(one)]
    if usable and days >= FEWEST_DAYS:
        from arch.bootstrap import optimal_block_length

        with _quiet():
            optimal = optimal_block_length(np.column_stack(usable))[bootstrap].to_numpy(dtype=np.float64)
        known = optimal[np.isfinite(optimal)]
        if known.size:
            length = max(length, math.ceil(np.median(known)))
    return int(max(1.0, min(length, days // 4)))


# --- tests


def superior_predictive_ability(
    trials: AlignedTrials, *, horizon_days: int = 1, reps: int = REPS, seed: int = 0
) -> dict[str, Any]:
    """Is the best of the trials better than the baseline, given that it is the best of many?

    Hansen's (2005) test of superior predictive ability on losses -return, consistent p-value, stationary
    bootstrap of arch. It rejects "none is better" and names none; `step_multiple` does. A p-value of
    zero (no draw reached the observed value) is given as ``1 / (reps + 1)``.

    arch 8.0 takes `studentize` but does not divide by the standard deviation, so that one wild trial
    hides every other; the differences are divided by their standard deviations before they go in.
    Of eight worthless trials it rejects 5 % at 250 days and 8 to 12 % at 63 (300 to 500 simulated
    searches): at three months a p-value near .05 is no evidence.

    Parameters
    ----------
    trials
        On common days.
    horizon_days
        Sessions a label reaches over.
    reps, seed
        Of the bootstrap.

    Returns
    -------
    dict
        Record ``spa``; the estimate is the mean difference of daily returns of the trial with the largest
        standardised one, named in the params; passed at p <= .05. Insufficient below five trials or 20 common days; undefined for a return that
        is not finite, trials that are all alike, and when fewer than five differ from the baseline.

    Raises
    ------
    UsageError
        A horizon below 1 or fewer than 19 draws.
    """
    _check(horizon_days, reps)
    method = "SPA (Hansen 2005), consistent p-value, stationary bootstrap of arch"
    standard, names, status, note = _standard_differences(trials)
    if standard is None:
        return _record(trials, "spa", status, method, note=note)

    from arch.bootstrap import SPA

    block = block_length(*standard.T, horizon_days=horizon_days, bootstrap="stationary")
    with _quiet():
        test = SPA(np.zeros(len(standard)), -standard, block_size=block, reps=reps, seed=seed)
        test.compute()
        found = {name: max(float(p), 1 / (reps + 1)) for name, p in test.pvalues.items()}
    best = names[int(np.argmax(standard.mean(axis=0)))]
    earned = trials.returns[:, trials.names.index(best)] - trials.baseline
    p = found["consistent"]
    return _record(
        trials,
        "spa",
        PASS if p <= SIZE else FAIL,
        method,
        estimate=float(np.mean(earned)),
        p_value=p,
        alternative="best trial>baseline",
        params={
            "best": best,
            "block": block,
            "p_lower": found["lower"],
            "p_upper": found["upper"],
            "reps": reps,
            "seed": seed,
        },
        tested=len(names),
        threshold=SIZE,
        unit="return a day",
        note=note,
    )


def step_multiple(
    trials: AlignedTrials,
    *,
    candidate: str | None = None,
    horizon_days: int = 1,
    reps: int = REPS,
    seed: int = 0,
) -> dict[str, Any]:
    """Which trials are better than the baseline, with at most 5 % chance of one false name among them.

    Romano and Wolf's (2005) StepM of arch, on the same standardised differences as
    `superior_predictive_ability`.

    Parameters
    ----------
    trials, horizon_days, reps, seed
        As for `superior_predictive_ability`.
    candidate
        The trial that is judged; None asks whether any is superior.

    Returns
    -------
    dict
        Record ``stepm``; ``params["superior"]`` names the trials, passed when the candidate is among
        them. Statuses as for `superior_predictive_ability`; undefined also for a candidate that could
        not be tested.

    Raises
    ------
    UsageError
        A horizon below 1 or fewer than 19 draws.
    """
    _check(horizon_days, reps)
    method = "StepM (Romano and Wolf 2005), family-wise error 5 %, stationary bootstrap of arch"
    standard, names, status, note = _standard_differences(trials)
    if standard is None:
        return _record(trials, "stepm", status, method, note=note)

    from arch.bootstrap import StepM

    block = block_length(*standard.T, horizon_days=horizon_days, bootstrap="stationary")
    # A trial that never wins: arch 8.0 raises when the last trials are found in a later step (its issue 862).
    padded = np.column_stack([standard, np.full(len(standard), _NEVER_BEST)])
    with _quiet():
        test = StepM(np.zeros(len(padded)), -padded, size=SIZE, block_size=block, reps=reps, seed=seed)
        test.compute()
        superior = [names[column] for column in np.asarray(test.superior_models, dtype=np.int64)]
    status = PASS if (candidate in superior if candidate is not None else superior) else FAIL
    if candidate is not None and candidate not in names:
        status, note = UNDEFINED, f"trial {candidate} could not be tested; {note}".rstrip("; ")
    return _record(
        trials,
        "stepm",
        status,
        method,
        estimate=float(len(superior)),
        alternative="trial>baseline",
        params={
            "superior": superior,
            "candidate": candidate,
            "size": SIZE,
            "block": block,
            "reps": reps,
            "seed": seed,
        },
        tested=len(names),
        unit="superior trials",
        note=note,
    )


def overfitting(trials: AlignedTrials, *, blocks: int = 16) -> dict[str, Any]:
    """How often the best of the search in one half of the days is below average in the other.

    `probability_of_backtest_overfitting` as a record ``pbo``, failed above one half. It judges the search.

    Parameters
    ----------
    trials
        On common days; the baseline is no trial.
    blocks
        Even, 2 to 20.

    Raises
    ------
    UsageError
        An unusable number of blocks.
    """
    method = "combinatorially symmetric cross-validation (Bailey et al. 2017), Sharpe ratio"
    found = probability_of_backtest_overfitting(trials.returns, blocks)
    needed = min(blocks, _FEWEST_BLOCKS) * ROWS_PER_BLOCK
    status, note = UNDEFINED, found.reason
    if len(trials.names) < FEWEST_TRIALS:
        status, note = INSUFFICIENT, _too_few(trials)
    elif found.rows < needed:
        status, note = INSUFFICIENT, f"{found.rows} common days, fewer than {needed}"
    elif found.probability is not None:
        status, note = (PASS if found.probability <= 0.5 else FAIL), "judges the search, not one trial"
    known = status in (PASS, FAIL)
    return _record(
        trials,
        "pbo",
        status,
        method,
        estimate=found.probability if known else None,
        params={"blocks": found.blocks, "splits": found.splits} if known else {},
        threshold=0.5,
        unit="share of splits",
        note=note,
    )


def _standard_differences(
    trials: AlignedTrials,
) -> tuple[np.ndarray | None, tuple[str, ...], str, str]:
    """(trial - baseline) / its standard deviation of the trials that differ; or None, status and reason."""
    if len(trials.names) < FEWEST_TRIALS:
        return None, (), INSUFFICIENT, _too_few(trials)
    if len(trials.days) < FEWEST_DAYS:
        return None, (), INSUFFICIENT, f"{len(trials.days)} common days, fewer than {FEWEST_DAYS}"
    if not (np.isfinite(trials.baseline).all() and np.isfinite(trials.returns).all()):
        return None, (), UNDEFINED, "a daily return is not finite"
    if np.all(trials.returns == trials.returns[:, :1]):
        return None, (), UNDEFINED, "all trials have the same returns"
    with np.errstate(all="ignore"):
        difference = trials.returns - trials.baseline[:, None]
        deviation = difference.std(axis=0)
        size = np.maximum(np.max(np.abs(trials.returns), axis=0), np.max(np.abs(trials.baseline)))
        varies = deviation > CONSTANT * size
        standard = difference[:, varies] / deviation[varies]
    names = tuple(name for name, does in zip(trials.names, varies, strict=True) if does)
    if not (np.isfinite(deviation).all() and np.isfinite(standard).all()):
        return None, (), UNDEFINED, "the returns are too large or too small to compute with"
    same = len(trials.names) - len(names)
    if len(names) < FEWEST_TRIALS:
        reason = f"{same} of {len(trials.names)} trials do not differ from the baseline"
        return None, (), UNDEFINED, f"{reason}; fewer than {FEWEST_TRIALS} are left"
    return standard, names, "", f"{same} trials that do not differ from the baseline left out" if same else ""


def _record(
    trials: AlignedTrials, name: str, status: str, method: str, *, tested: int | None = None, **found: Any
) -> dict[str, Any]:
    counts = {"days": len(trials.days), "trials": len(trials.names), "left_out": len(trials.left_out)}
    if tested is not None:
        counts["tested"] = tested
    return evidence_record(name, kind="advisory", status=status, method=method, n=counts, **found)


def _too_few(trials: AlignedTrials) -> str:
    return f"{len(trials.names)} trials with returns on these days, fewer than {FEWEST_TRIALS}"


def _check(horizon_days: int, reps: int) -> None:
    if not 1 <= horizon_days < math.inf:
        raise UsageError(f"horizon_days {horizon_days}: give at least 1", horizon_days=horizon_days)
    if reps < 19:
        raise UsageError(f"{reps} bootstrap draws: give at least 19", reps=reps)


@contextmanager
def _quiet() -> Iterator[None]:
    """Other people's code divides by zero and deprecates; what it returns is checked here."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
