"""How far a Sharpe ratio, or the difference of two, can be told from luck.

The evidence of a validation asks this module; daily returns or their moments go in, plain numbers
come out. Sharpe ratios here are per period (mean / standard deviation, ddof 1, risk-free rate 0),
NEVER annualised, unless an argument says so; skewness and kurtosis are biased moments, kurtosis raw
(normal = 3). What is not defined is None and no pass; a confidence is one minus the p-value of a
one-sided test, not the probability that a strategy works.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from sqkit.errors import UsageError

_EULER: Final = 0.5772156649015329
CONSTANT: Final = 1e-12
"""Relative spread below which a series counts as constant."""

_SMALLEST: Final = 2.2250738585072014e-308


@dataclass(frozen=True)
class ReturnMoments:
    """Moments of one return series, as the functions below take them.

    Attributes
    ----------
    status, reason
        ``"ok"`` and empty, or ``"undefined"`` and one line saying why; then the moments are None.
    n
        Observations.
    sr
        Mean / standard deviation (ddof 1), per period.
    skew, kurt
        Biased moments; kurtosis raw (normal = 3).
    """

    status: str
    reason: str
    n: int
    sr: float | None = None
    skew: float | None = None
    kurt: float | None = None


def return_moments(returns: ArrayLike) -> ReturnMoments:
    """Sharpe ratio (ddof 1), skewness and raw kurtosis (biased) of one return series.

    Parameters
    ----------
    returns
        float (t,), net return of each period.

    Raises
    ------
    UsageError
        The array is not one-dimensional.
    """
    series = return_series("returns", returns)
    n = len(series)
    problem = unusable(series)
    if problem:
        return ReturnMoments("undefined", problem, n)
    with np.errstate(all="ignore"):
        deviation = np.std(series, ddof=1)
        standard = (series - np.mean(series)) / np.std(series)
        found = (np.mean(series) / deviation, np.mean(standard**3), np.mean(standard**4))
    if not (np.isfinite(deviation) and np.isfinite(found).all()):
        return ReturnMoments("undefined", OUT_OF_RANGE, n)
    return ReturnMoments("ok", "", n, *(float(value) for value in found))


def sharpe_standard_error(sr: float, n: float, skew: float, kurt: float) -> float | None:
    """Standard error of a Sharpe ratio under non-normal independent returns (Mertens 2002).

    ``sqrt((1 - skew SR + (kurt - 1)/4 SR^2) / (n - 1))``.

    Returns
    -------
    float or None
        Per period; None with fewer than two observations, a number that is not finite, or moments
        that no distribution has.
    """
    spread = _spread(sr, skew, kurt)
    if spread is None or not math.isfinite(n) or n < 2:
        return None
    return math.sqrt(spread / (n - 1))


def probabilistic_sharpe_ratio(
    sr: float, n: float, skew: float, kurt: float, sr0: float = 0.0
) -> float | None:
    """Confidence that the true Sharpe ratio exceeds `sr0`.

    ``Phi((SR - SR0) sqrt(n - 1) / sqrt(1 - skew SR + (kurt - 1)/4 SR^2))``: Bailey and Lopez de
    Prado (2012), variance at the observed Sharpe ratio. (The 2026 convention of the same author,
    variance at `sr0`, gives other numbers.)

    Parameters
    ----------
    sr, sr0
        Observed and reference Sharpe ratio, per period.
    n
        Observations.
    skew, kurt
        Biased skewness and raw kurtosis (normal = 3).

    Returns
    -------
    float or None
        In [0, 1]; None where `sharpe_standard_error` is None or `sr0` is not finite.
    """
    error = sharpe_standard_error(sr, n, skew, kurt)
    if error is None or not math.isfinite(sr0):
        return None
    return float(ndtr((sr - sr0) / error))


def min_track_record_length(
    sr: float, skew: float, kurt: float, sr0: float = 0.0, confidence: float = 0.95
) -> float | None:
    """Observations after which `probabilistic_sharpe_ratio` reaches `confidence`.

    ``1 + (1 - skew SR + (kurt - 1)/4 SR^2) (z / (SR - SR0))^2``: Bailey and Lopez de Prado (2012).

    Parameters
    ----------
    sr, sr0
        Observed and reference Sharpe ratio, per period.
    skew, kurt
        Biased skewness and raw kurtosis (normal = 3).
    confidence
        At least 0.5 and below 1.

    Returns
    -------
    float or None
        Observations, not rounded; None where `sr` does not exceed `sr0` or a number is not usable.

    Raises
    ------
    UsageError
        A confidence outside [0.5, 1).
    """
    if not 0.5 <= confidence < 1.0:
        raise UsageError(f"confidence {confidence}: give at least 0.5 and less than 1", confidence=confidence)
    spread = _spread(sr, skew, kurt)
    if spread is None or not math.isfinite(sr0) or sr <= sr0:
        return None
    length = 1.0 + spread * float(ndtri(confidence)) ** 2 / (sr - sr0) / (sr - sr0)
    return length if math.isfinite(length) else None


# --- many trials


def expected_max_z(n_trials: float) -> float:
    """Expected largest of `n_trials` independent standard normals; 0 for one trial.

    ``(1 - g) Z^-1(1 - 1/N) + g Z^-1(1 - 1/(N e))``, g Euler's constant: Bailey and Lopez de Prado
    (2014). An effective number of trials need not be whole.

    Raises
    ------
    UsageError
        Fewer than one trial, or no finite number.
    """
    if not math.isfinite(n_trials) or n_trials < 1:
        raise UsageError(f"{n_trials} trials: count at least the one that is judged", n_trials=n_trials)
    if n_trials == 1:
        return 0.0
    largest = (1 - _EULER) * ndtri(1 - 1 / n_trials) + _EULER * ndtri(1 - 1 / (n_trials * math.e))
    return max(0.0, float(largest))  # the approximation is negative just above one trial


def deflated_sharpe_ratio(
    sr: float, n: float, skew: float, kurt: float, variance_of_trials: float, n_trials: float
) -> float | None:
    """Confidence that the true Sharpe ratio exceeds what the best of worthless trials would show.

    `probabilistic_sharpe_ratio` at ``SR0 = sqrt(V) expected_max_z(N)``: Bailey and Lopez de Prado
    (2014). With one trial SR0 is 0.

    Parameters
    ----------
    sr, n, skew, kurt
        As for `probabilistic_sharpe_ratio`.
    variance_of_trials
        Variance (not standard deviation) of the trials' per-period Sharpe ratios, not negative.
        Where the trials are not known, ``1 / (n - 1)`` is a stand-in that the caller must name.
    n_trials
        Every configuration that was looked at, at least 1.

    Returns
    -------
    float or None
        In [0, 1]; None where a number is not usable.

    Raises
    ------
    UsageError
        Fewer than one trial.
    """
    largest = expected_max_z(n_trials)
    if not math.isfinite(variance_of_trials) or variance_of_trials < 0.0:
        return None
    return probabilistic_sharpe_ratio(sr, n, skew, kurt, math.sqrt(variance_of_trials) * largest)


def min_backtest_length(n_trials: float, sr_annual: float) -> float | None:
    """Years of data below which the best of `n_trials` worthless trials is expected to show `sr_annual`.

    ``(expected_max_z(N) / SR)^2``: Bailey, Borwein, Lopez de Prado and Zhu (2014).

    Parameters
    ----------
    n_trials
        Every configuration that was looked at, at least 1.
    sr_annual
        The annualised Sharpe ratio.

    Returns
    -------
    float or None
        Years; None where the Sharpe ratio is not positive.

    Raises
    ------
    UsageError
        Fewer than one trial.
    """
    largest = expected_max_z(n_trials)
    if not math.isfinite(sr_annual) or sr_annual <= 0.0:
        return None
    years = largest / sr_annual
    return years * years if math.isfinite(years * years) else None


def annualisation_factor(periods: int, autocorrelation: float = 0.0) -> float | None:
    """Factor from a per-period to an annual Sharpe ratio under AR(1) returns.

    ``q / sqrt(q + 2 sum_k (q - k) rho^k)``: Lo (2002). Without autocorrelation it is sqrt(q).

    Parameters
    ----------
    periods
        Periods a year, at least 1.
    autocorrelation
        First-order, inside (-1, 1).

    Returns
    -------
    float or None
        None where the autocorrelation is not inside (-1, 1).

    Raises
    ------
    UsageError
        Fewer than one period.
    """
    if periods < 1:
        raise UsageError(f"{periods} periods a year: give at least 1", periods=periods)
    if not -1.0 < autocorrelation < 1.0:
        return None
    lags = np.arange(1, periods)
    with np.errstate(under="ignore"):
        total = periods + 2.0 * float(np.sum((periods - lags) * autocorrelation**lags))
    return periods / math.sqrt(total) if total > 0.0 else None


# --- two models


OUT_OF_RANGE: Final = "the returns are too large or too small to compute with"


def _spread(sr: float, skew: float, kurt: float) -> float | None:
    """``1 - skew SR + (kurt - 1)/4 SR^2``; None where it is not a positive number."""
    with np.errstate(all="ignore"):
        spread = 1.0 - skew * sr + (kurt - 1.0) / 4.0 * sr * sr
    return float(spread) if math.isfinite(spread) and spread > CONSTANT else None


def two_sided(z: float) -> float:
    """The two-sided p-value of a standard normal deviate."""
    return 2.0 * float(ndtr(-abs(z)))


def return_series(name: str, values: ArrayLike) -> np.ndarray:
    """Returns as a float64 vector; another shape is refused (`UsageError`)."""
    series = np.asarray(values, dtype=np.float64)
    if series.ndim != 1:
        raise UsageError(f"{name} {series.shape}: give a one-dimensional array, one return a period")
    return series


def unusable(series: np.ndarray) -> str:
    """Why a series has no Sharpe ratio; empty where it has one."""
    if len(series) < 2:
        return f"{len(series)} observations, fewer than two"
    if not np.isfinite(series).all():
        return "a return is not finite"
    if np.ptp(series / np.max(np.abs(series), initial=_SMALLEST)) <= CONSTANT:
        return "the returns do not vary"
    return ""
