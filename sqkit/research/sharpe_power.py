"""Power of Memmel's test of two Sharpe ratios in closed form: how many years an uplift would take to show.

`sqkit.research.window_plan` says it beside what a planned window can show.
"""

from __future__ import annotations

import math

from scipy.special import ndtri

from sqkit.evidence_grade import MODERATE_P
from sqkit.metrics import TRADING_DAYS_PER_YEAR
from sqkit.research.power import POWER, power_of


def memmel_years(
    sharpe_annual: float,
    relative_uplift: float,
    correlation: float,
    *,
    alpha: float = MODERATE_P,
    power: float = POWER,
) -> float | None:
    """Years of daily returns that detect a relative Sharpe uplift; None where nothing can.

    Memmel (2003), independent normal returns: ``Var = (2 (1 - r) + (S1^2 + S2^2 - 2 S1 S2 r^2) / 2) / T``.

    Parameters
    ----------
    sharpe_annual, relative_uplift
        Of the baseline; the student's is ``sharpe_annual (1 + relative_uplift)``.
    correlation
        Of the daily returns, in [-1, 1].
    """
    difference = sharpe_annual * relative_uplift
    if not difference > 0.0 or not -1.0 <= correlation <= 1.0:
        return None
    return (
        (float(ndtri(1.0 - alpha)) + float(ndtri(power))) ** 2
        * memmel_variance(sharpe_annual, relative_uplift, correlation)
        / (difference**2 / TRADING_DAYS_PER_YEAR)
        / TRADING_DAYS_PER_YEAR
    )


def memmel_power(
    sharpe_annual: float, relative_uplift: float, correlation: float, days: int, *, alpha: float = MODERATE_P
) -> float | None:
    """Power of Memmel's one-sided test over so many days; None where it has none to speak of."""
    variance = memmel_variance(sharpe_annual, relative_uplift, correlation)
    if days < 2 or not variance > 0.0:
        return None
    effect = sharpe_annual * relative_uplift / math.sqrt(TRADING_DAYS_PER_YEAR)
    return power_of(effect, math.sqrt(variance / days), alpha)


def memmel_variance(sharpe_annual: float, relative_uplift: float, correlation: float) -> float:
    """Variance of the difference of two daily Sharpe ratios, times the number of days."""
    first = sharpe_annual / math.sqrt(TRADING_DAYS_PER_YEAR)
    second = first * (1.0 + relative_uplift)
    return 2.0 * (1.0 - correlation) + 0.5 * (first**2 + second**2 - 2.0 * first * second * correlation**2)
