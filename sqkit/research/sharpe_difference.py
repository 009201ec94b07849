"""Whether two Sharpe ratios differ: Memmel, Ledoit and Wolf's HAC errors, and a studentized bootstrap of pairs.

The evidence of a validation asks this module; two daily return series go in, plain numbers come
out. Sharpe ratios are per period, as in `sqkit.research.sharpe_statistics`. What is not defined
is None and no pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from sqkit.errors import UsageError
from sqkit.research.sharpe_statistics import (
    CONSTANT,
    OUT_OF_RANGE,
    return_moments,
    return_series,
    two_sided,
)

FEWEST_DAYS: Final = 10
"""Below this many common days a difference of Sharpe ratios has no usable standard error."""

FEWEST_REPS: Final = 19
"""Fewer bootstrap draws have no 95th percentile."""

_LARGEST_SINGULAR_VALUE: Final = 0.97
_DRAWN_AT_ONCE: Final = 1_000_000


@dataclass(frozen=True)
class SharpeDifference:
    """Difference of two Sharpe ratios, per period, first minus second, with four tests.

    Attributes
    ----------
    status, reason
        ``"ok"`` and empty, or ``"undefined"`` and one line saying why. Then no standard error,
        p-value or interval is given; the Sharpe ratios stay where they exist.
    n
        Common periods.
    sharpe_1, sharpe_2, difference, correlation
        Per period.
    memmel_se, memmel_z, memmel_p
        Memmel (2003), independent normal returns.
    hac_se, hac_p
        Ledoit and Wolf (2008), Parzen kernel with Andrews' AR(1) bandwidth.
    hac_prewhitened_se, hac_prewhitened_p
        The same after VAR(1) prewhitening.
    bootstrap_p, bootstrap_p_one_sided, bootstrap_ci95
        Ledoit and Wolf's studentized circular block bootstrap; one-sided: the first is better.
    block, reps, seed
        As used by the bootstrap. All p-values without "one_sided" are two-sided.
    """

    status: str
    reason: str
    n: int
    sharpe_1: float | None = None
    sharpe_2: float | None = None
    difference: float | None = None
    correlation: float | None = None
    memmel_se: float | None = None
    memmel_z: float | None = None
    memmel_p: float | None = None
    hac_se: float | None = None
    hac_p: float | None = None
    hac_prewhitened_se: float | None = None
    hac_prewhitened_p: float | None = None
    bootstrap_p: float | None = None
    bootstrap_p_one_sided: float | None = None
    bootstrap_ci95: tuple[float, float] | None = None
    block: int | None = None
    reps: int | None = None
    seed: int | None = None


# --- one track record


def sharpe_difference(
    r1: ArrayLike, r2: ArrayLike, *, block: int | None = None, reps: int = 4999, seed: int = 0
) -> SharpeDifference:
    """Sharpe ratio of `r1` minus that of `r2`, with Memmel's and Ledoit and Wolf's tests.

    Memmel (2003), closed form; Ledoit and Wolf (2008): delta method on (mean 1, mean 2, mean square 1,
    mean square 2), plain and prewhitened HAC standard errors with the factor T/(T - 4), and the
    studentized circular block bootstrap on pairs, whose statistic is ``|D* - D| / se(D*)`` against
    ``|D| / se(D)`` with the prewhitened standard error, ``p = (1 + count) / (reps + 1)``, interval
    ``D -+ q95 se(D)``. As in the authors' code the HAC bandwidth depends on the unit of the returns.

    Parameters
    ----------
    r1, r2
        float (t,), net returns of the same periods, zero on days without trades.
    block
        Days a block holds: the label horizon in sessions. None means 1 (independent days); at most a
        quarter of the days is used. The optimal block length of Politis and White is the caller's to
        look up and pass.
    reps
        Bootstrap draws, at least 19.
    seed
        Of the bootstrap; the same seed gives the same numbers.

    Returns
    -------
    SharpeDifference
        Undefined below ten days, and for returns that are constant, not finite or, up to scale, equal.

    Raises
    ------
    UsageError
        Series of different lengths or not one-dimensional, a block below 1, too few draws.
    """
    first, second = return_series("r1", r1), return_series("r2", r2)
    n = len(first)
    if len(second) != n:
        raise UsageError(f"r1 {n} and r2 {len(second)} periods: give the returns of the same days")
    if block is not None and not 1 <= block < math.inf:
        raise UsageError(f"block {block}: give at least 1 day", block=block)
    if reps < FEWEST_REPS:
        raise UsageError(f"{reps} bootstrap draws: give at least {FEWEST_REPS}", reps=reps)

    records = return_moments(first), return_moments(second)
    s1, s2 = records[0].sr, records[1].sr
    known = SharpeDifference("ok", "", n, s1, s2)
    if s1 is None or s2 is None:
        name, record = ("r1", records[0]) if s1 is None else ("r2", records[1])
        return replace(known, status="undefined", reason=f"{name}: {record.reason}")
    known = replace(known, difference=s1 - s2)
    if n < FEWEST_DAYS:
        reason = f"{n} common days, fewer than {FEWEST_DAYS}"
        return replace(known, status="undefined", reason=reason)
    with np.errstate(all="ignore"):
        return _tested(known, (s1, s2), first, second, min(int(block or 1), n // 4), reps, seed)


def _tested(
    known: SharpeDifference,
    sharpes: tuple[float, float],
    first: np.ndarray,
    second: np.ndarray,
    block: int,
    reps: int,
    seed: int,
) -> SharpeDifference:
    """The difference with its tests, or undefined where a standard error vanishes."""
    n, (s1, s2), difference = known.n, sharpes, sharpes[0] - sharpes[1]
    correlation = float(np.clip(np.corrcoef(first, second)[0, 1], -1.0, 1.0))
    variance = (2 * (1 - correlation) + (s1 * s1 + s2 * s2 - 2 * s1 * s2 * correlation**2) / 2) / n
    memmel = math.sqrt(max(variance, 0.0))

    raw = np.column_stack([first, second, first * first, second * second])
    means = raw.mean(axis=0)
    gradient = _gradient(means)
    deviations = raw - means
    if not (np.isfinite(deviations).all() and np.isfinite(gradient).all()):
        return replace(known, status="undefined", reason=OUT_OF_RANGE)
    hac = _standard_error(_long_run_covariance(deviations), gradient, n)
    prewhitened = _standard_error(_prewhitened_covariance(deviations), gradient, n)
    errors = (memmel, hac, prewhitened)
    known = replace(known, correlation=correlation)
    if not np.isfinite([correlation, *errors]).all():
        return replace(known, status="undefined", reason=OUT_OF_RANGE)
    if abs(correlation) >= 1.0 - CONSTANT and difference * difference < CONSTANT:
        return replace(known, status="undefined", reason="the two return series are, up to scale, the same")
    if min(errors) <= CONSTANT:
        return replace(known, status="undefined", reason="the difference does not vary")

    distances = _bootstrap_distances(raw, difference, block, reps, seed)
    observed = difference / prewhitened
    width = float(np.sort(np.abs(distances))[math.ceil(0.95 * (reps + 1)) - 1]) * prewhitened
    return replace(
        known,
        memmel_se=memmel,
        memmel_z=difference / memmel,
        memmel_p=two_sided(difference / memmel),
        hac_se=hac,
        hac_p=two_sided(difference / hac),
        hac_prewhitened_se=prewhitened,
        hac_prewhitened_p=two_sided(observed),
        bootstrap_p=(1 + int(np.count_nonzero(np.abs(distances) >= abs(observed)))) / (reps + 1),
        bootstrap_p_one_sided=(1 + int(np.count_nonzero(distances >= observed))) / (reps + 1),
        bootstrap_ci95=(difference - width, difference + width) if math.isfinite(width) else None,
        block=block,
        reps=reps,
        seed=seed,
    )


def _gradient(means: np.ndarray) -> np.ndarray:
    """Derivative of the difference by (mean 1, mean 2, mean square 1, mean square 2); (..., 4)."""
    mean, square = means[..., :2], means[..., 2:]
    cubed = np.maximum(square - mean * mean, 0.0) ** 1.5
    sign = np.array([1.0, -1.0])
    return np.concatenate([sign * square / cubed, -0.5 * sign * mean / cubed], axis=-1)


def _standard_error(covariance: np.ndarray, gradient: np.ndarray, n: int) -> float:
    return math.sqrt(max(float(gradient @ covariance @ gradient) / n, 0.0))


def _long_run_covariance(deviations: np.ndarray) -> np.ndarray:
    """Parzen kernel estimate with Andrews' AR(1) bandwidth and the factor T/(T - 4); (4, 4)."""
    n = len(deviations)
    bandwidth = 2.6614 * (_andrews_alpha(deviations) * n) ** 0.2
    covariance: np.ndarray = deviations.T @ deviations / n
    for lag in range(1, n):
        if lag >= bandwidth:
            break
        lagged = deviations[lag:].T @ deviations[:-lag] / n
        covariance = covariance + _parzen(lag / bandwidth) * (lagged + lagged.T)
    covariance *= n / (n - 4)
    return covariance


def _prewhitened_covariance(deviations: np.ndarray) -> np.ndarray:
    """Long-run covariance of VAR(1) residuals, recoloured (Andrews and Monahan 1992)."""
    before, after = deviations[:-1], deviations[1:]
    fitted = np.linalg.lstsq(before, after, rcond=None)[0].T
    left, singular, right = np.linalg.svd(fitted)
    fitted = left @ np.diag(np.minimum(singular, _LARGEST_SINGULAR_VALUE)) @ right
    recolour = np.linalg.inv(np.eye(4) - fitted)
    covariance: np.ndarray = recolour @ _long_run_covariance(after - before @ fitted.T) @ recolour.T
    return covariance


def _andrews_alpha(deviations: np.ndarray) -> float:
    """Andrews' (1991) alpha(2) from AR(1) fits with intercept of the four columns."""
    before = deviations[:-1] - deviations[:-1].mean(axis=0)
    after = deviations[1:] - deviations[1:].mean(axis=0)
    total = np.sum(before * before, axis=0)
    rho = np.divide(np.sum(before * after, axis=0), total, out=np.zeros(4), where=total > 0.0)
    rho = np.minimum(rho, _LARGEST_SINGULAR_VALUE)  # a unit root has no finite bandwidth
    fourth = np.mean((after - rho * before) ** 2, axis=0) ** 2
    below = float(np.sum(fourth / (1 - rho) ** 4))
    return float(np.sum(4 * rho**2 * fourth / (1 - rho) ** 8)) / below if below > 0.0 else 0.0


def _parzen(x: float) -> float:
    return 1 - 6 * x * x + 6 * x**3 if x <= 0.5 else 2 * (1 - x) ** 3


def _bootstrap_distances(raw: np.ndarray, difference: float, block: int, reps: int, seed: int) -> np.ndarray:
    """``(D* - D) / se(D*)`` of each draw, float (reps,); infinite where a draw does not vary.

    Only block means matter: of each draw's moments, and of its natural standard error.
    """
    n = len(raw)
    blocks = n // block
    wrapped = np.concatenate([raw, raw[: block - 1]])
    block_means = np.lib.stride_tricks.sliding_window_view(wrapped, block, axis=0).mean(axis=-1)
    drawn = blocks * block
    generator = np.random.default_rng(seed)
    distances = np.full(reps, np.inf)
    at_once = max(1, _DRAWN_AT_ONCE // blocks)
    for start in range(0, reps, at_once):
        stop = min(start + at_once, reps)
        sample = block_means[generator.integers(0, n, size=(stop - start, blocks))]
        means = sample.mean(axis=1)
        variance = (means[:, 2:] - means[:, :2] ** 2) * drawn / (drawn - 1)
        sharpe = means[:, :2] / np.sqrt(np.maximum(variance, 0.0))
        zeta = np.einsum("mbk,mk->mb", sample - means[:, None, :], _gradient(means))
        error = np.sqrt(block * np.mean(zeta * zeta, axis=1) / drawn)
        sound = np.all(variance > CONSTANT * means[:, 2:], axis=1) & (error > CONSTANT)
        found = (sharpe[:, 0] - sharpe[:, 1] - difference) / error
        distances[start:stop] = np.where(sound & np.isfinite(found), found, np.inf)
    return distances


# --- shared
