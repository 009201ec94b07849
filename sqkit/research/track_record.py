"""Is the track record long enough for its Sharpe ratio, and for the number of trials behind it?

The evidence of a validation asks this module: daily returns and the count of the trial ledger go in,
four advisory records (`sqkit.research.evidence_records`) come out. A confidence here is one minus the
p-value of a one-sided test; it does not say that a strategy makes money.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from sqkit.errors import UsageError
from sqkit.metrics import TRADING_DAYS_PER_YEAR
from sqkit.research.evidence_records import FAIL, INSUFFICIENT, PASS, UNDEFINED, evidence_record
from sqkit.research.sharpe_statistics import (
    ReturnMoments,
    deflated_sharpe_ratio,
    expected_max_z,
    min_backtest_length,
    min_track_record_length,
    probabilistic_sharpe_ratio,
    return_moments,
    sharpe_standard_error,
)

CONFIDENCE: Final = 0.95
CONVENTION: Final = (
    "Bailey and Lopez de Prado 2012 (PSR, MinTRL) and 2014 (DSR): variance at the observed Sharpe ratio, "
    "n - 1; Sharpe ratio per day with ddof 1, biased moments, raw kurtosis"
)
FROM_TRIALS: Final = "variance of the trials' Sharpe ratios per day, ddof 1"
STAND_IN: Final = "1/(n - 1), the variance of a worthless trial's Sharpe ratio, because fewer than two trials have series that differ"

_NAMES: Final = ("psr", "dsr", "min_trl", "min_btl")
_METHODS: Final = {
    "psr": "probabilistic Sharpe ratio against 0",
    "dsr": "deflated Sharpe ratio",
    "min_trl": "minimum track record length against 0 at 95 % confidence",
    "min_btl": "minimum backtest length for the number of trials (Bailey et al. 2014)",
}


def track_record(
    daily_returns: ArrayLike, n_trials: int, trial_returns: Sequence[ArrayLike] = ()
) -> list[dict[str, Any]]:
    """Records ``psr``, ``dsr``, ``min_trl`` and ``min_btl`` of one track record.

    Parameters
    ----------
    daily_returns
        float (t,), daily net returns of the judged model, zero on idle days.
    n_trials
        Every configuration that was looked at in this window, the judged one included; at least 1.
    trial_returns
        Daily net returns of those trials that have them, each float (t_i,). From two with a Sharpe
        ratio on, their variance enters the DSR; else the stand-in 1/(n - 1), named in the params.

    Returns
    -------
    list of dict
        In the order of the names. ``psr`` and ``dsr``: confidence, passed from .95 on. ``min_trl``: in
        observations, with years in the params, passed when the record has as many. ``min_btl``: in years
        at the annual Sharpe ratio, passed when the record is as long. Insufficient below two days;
        undefined for returns that are constant or not finite and, the last two, for a Sharpe ratio that is
        not positive.

    Raises
    ------
    UsageError
        Fewer than one trial, fewer trials than series, or a series that is not one-dimensional.
    """
    moments = return_moments(daily_returns)
    largest = expected_max_z(n_trials)
    if n_trials < len(trial_returns):
        raise UsageError(
            f"{n_trials} trials but {len(trial_returns)} series of trials: count every trial",
            n_trials=n_trials,
        )
    sharpes = [found.sr for found in map(return_moments, trial_returns) if found.sr is not None]
    if moments.sr is None or moments.skew is None or moments.kurt is None:
        status = INSUFFICIENT if moments.n < 2 else UNDEFINED
        return [_record(name, status, moments, n_trials, note=moments.reason) for name in _NAMES]

    variance, source = _variance_of_trials(sharpes, moments.n)
    sr, skew, kurt = moments.sr, moments.skew, moments.kurt
    years = moments.n / TRADING_DAYS_PER_YEAR
    annual = sr * math.sqrt(TRADING_DAYS_PER_YEAR)
    observations = min_track_record_length(sr, skew, kurt, confidence=CONFIDENCE)
    backtest_years = min_backtest_length(n_trials, annual)
    not_positive = "the Sharpe ratio does not exceed 0"
    return [
        _confidence("psr", probabilistic_sharpe_ratio(sr, moments.n, skew, kurt), moments, n_trials),
        _confidence(
            "dsr",
            deflated_sharpe_ratio(sr, moments.n, skew, kurt, variance, n_trials),
            moments,
            n_trials,
            variance_of_trials=variance,
            variance_source=source,
            trials_with_series=len(sharpes),
            reference_sharpe=math.sqrt(variance) * largest,
        ),
        _length(
            "min_trl",
            observations,
            float(moments.n),
            moments,
            n_trials,
            unit="observations",
            reason=not_positive if sr <= 0.0 else _NOT_USABLE,
            years=None if observations is None else observations / TRADING_DAYS_PER_YEAR,
        ),
        _length(
            "min_btl",
            backtest_years,
            years,
            moments,
            n_trials,
            unit="years",
            reason=not_positive if sr <= 0.0 else _NOT_USABLE,
            sharpe_annual=annual,
        ),
    ]


_NOT_USABLE: Final = "the moments of these returns allow no standard error"


def _variance_of_trials(sharpes: Sequence[float], n: int) -> tuple[float, str]:
    """Variance of the trials' Sharpe ratios and where it comes from."""
    if len(sharpes) >= 2:
        with np.errstate(all="ignore"):
            variance = float(np.var(sharpes, ddof=1))
        if math.isfinite(variance) and variance > 0.0:
            return variance, FROM_TRIALS
    return 1.0 / (n - 1), STAND_IN


def _confidence(
    name: str, confidence: float | None, moments: ReturnMoments, n_trials: int, **params: Any
) -> dict[str, Any]:
    if confidence is None:
        return _record(name, UNDEFINED, moments, n_trials, note=_NOT_USABLE, **params)
    status = PASS if confidence >= CONFIDENCE else FAIL
    return _record(
        name,
        status,
        moments,
        n_trials,
        estimate=confidence,
        threshold=CONFIDENCE,
        unit="confidence",
        **params,
    )


def _length(
    name: str,
    needed: float | None,
    at_hand: float,
    moments: ReturnMoments,
    n_trials: int,
    *,
    unit: str,
    reason: str,
    **params: Any,
) -> dict[str, Any]:
    if needed is None:
        return _record(name, UNDEFINED, moments, n_trials, unit=unit, note=reason, **params)
    status = PASS if at_hand >= needed else FAIL
    return _record(
        name, status, moments, n_trials, estimate=needed, threshold=at_hand, unit=unit,
        note=f"{at_hand:.4g} {unit} at hand, {needed:.4g} needed", **params,
    )  # fmt: skip


def _record(
    name: str,
    status: str,
    moments: ReturnMoments,
    n_trials: int,
    *,
    estimate: float | None = None,
    threshold: float | None = None,
    unit: str = "",
    note: str = "",
    **params: Any,
) -> dict[str, Any]:
    error = None
    if moments.sr is not None and moments.skew is not None and moments.kurt is not None:
        error = sharpe_standard_error(moments.sr, moments.n, moments.skew, moments.kurt)
    return evidence_record(
        name,
        kind="advisory",
        status=status,
        method=_METHODS[name],
        estimate=estimate,
        alternative="Sharpe ratio>reference" if name in ("psr", "dsr") else None,
        params={
            "convention": CONVENTION,
            "confidence": CONFIDENCE,
            "sharpe_per_day": moments.sr,
            "sharpe_se": error,
            "skew": moments.skew,
            "kurtosis": moments.kurt,
            **params,
        },
        n={"days": moments.n, "trials": n_trials},
        threshold=threshold,
        unit=unit,
        note=note,
    )
