"""Track records: published confidences and lengths out of real series, and what is undefined."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from sqkit.errors import UsageError
from sqkit.files import canonical_json
from sqkit.research.track_record import track_record

SEEDS = st.integers(0, 10_000)


def returns(seed: int, days: int = 250, mean: float = 0.001) -> np.ndarray:
    """Daily returns of one per cent volatility."""
    return np.random.default_rng(seed).normal(mean, 0.01, days)


def records(*arguments: Any) -> dict[str, dict[str, Any]]:
    """The four records by name."""
    return {record["name"]: record for record in track_record(*arguments)}


def series_with(n: int, sr: float, skew: float, kurt: float) -> np.ndarray:
    """A series of n returns with exactly this Sharpe ratio (ddof 1), biased skewness and raw kurtosis."""
    z = stats.norm.ppf((np.arange(n) + 0.5) / n)

    def bent(b: np.ndarray) -> np.ndarray:
        x = z + b[0] * z**2 + b[1] * z**3
        shape: np.ndarray = (x - x.mean()) / x.std()
        return shape

    def miss(b: np.ndarray) -> list[float]:
        x = bent(b)
        return [float(np.mean(x**3)) - skew, float(np.mean(x**4)) - kurt]

    x = bent(optimize.fsolve(miss, [0.1 * np.sign(skew), 0.05], xtol=1e-13))
    assert np.mean(x**3) == pytest.approx(skew)
    assert np.mean(x**4) == pytest.approx(kurt)
    made: np.ndarray = x / np.std(x, ddof=1) + sr
    return made


def test_published_psr() -> None:
    """Bailey and Lopez de Prado (2012): Sharpe ratio .458 over 24 observations, skew -2.448, kurtosis 10.164."""
    found = records(series_with(24, 0.458, -2.448, 10.164), 1)
    assert found["psr"]["estimate"] == pytest.approx(0.91336, abs=5e-5)
    assert (found["psr"]["status"], found["psr"]["threshold"]) == ("fail", 0.95)


def test_published_dsr() -> None:
    """Bailey and Lopez de Prado (2014): annual 2.5 over 1250 days, 100 trials, variance .5 a year: .90040."""
    two_points = np.where(np.arange(1250) < 105, -1.0, 0.0)  # the only series with skew -3 and kurtosis 10
    record = (two_points - two_points.mean()) / np.std(two_points, ddof=1) + 2.5 / math.sqrt(250)
    half = math.sqrt(0.5 / 250 / 2)  # two Sharpe ratios at +- this have the published variance, ddof 1
    base = returns(0, mean=0.0)
    base = (base - base.mean()) / np.std(base, ddof=1)
    found = records(record, 100, [base + half, base - half])["dsr"]
    assert found["params"]["variance_of_trials"] == pytest.approx(0.5 / 250)
    assert found["params"]["reference_sharpe"] == pytest.approx(0.11317, abs=5e-6)
    assert found["estimate"] == pytest.approx(0.90040, abs=5e-5)
    assert found["status"] == "fail"
    assert records(record, 46, [base + half, base - half])["dsr"]["estimate"] == pytest.approx(
        0.9505, abs=5e-5
    )
    assert records(record, 46, [base + half, base - half])["dsr"]["status"] == "pass"


def test_published_lengths() -> None:
    """MinTRL of the 2012 paper's monthly hedge fund index, .7152 years; MinBTL of 45 trials at 1: 5 years."""
    found = records(series_with(60, 0.7079, -0.2250, 2.9570), 1)["min_trl"]
    assert found["estimate"] == pytest.approx(0.7152 * 12, abs=1e-3)
    assert found["params"]["years"] == pytest.approx(found["estimate"] / 252)
    assert (found["status"], found["threshold"]) == ("pass", 60.0)
    one_a_year = series_with(1250, 1.0 / math.sqrt(252), 0.1, 3.1)
    found = records(one_a_year, 45)["min_btl"]
    assert found["estimate"] == pytest.approx(4.99809, abs=1e-5)
    assert found["status"] == "fail"  # 1250 of 252 days a year are 4.96 years
    assert records(one_a_year, 44)["min_btl"]["status"] == "pass"


def test_without_series_of_trials_the_stand_in_is_named() -> None:
    """Fewer than two series that differ: V = 1/(n - 1), and the record says so."""
    own = returns(0)
    for series in ([], [own], [own, np.zeros(250)], [own, own]):
        params = records(own, 5, series)["dsr"]["params"]
        assert params["variance_of_trials"] == 1 / 249
        assert params["variance_source"].startswith("1/(n - 1)")
    params = records(own, 5, [own, returns(1)])["dsr"]["params"]
    sharpes = [np.mean(r) / np.std(r, ddof=1) for r in (own, returns(1))]
    assert params["variance_of_trials"] == pytest.approx(np.var(sharpes, ddof=1))
    assert params["variance_source"].startswith("variance of the trials")
    assert params["trials_with_series"] == 2


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(2, 500))
def test_more_trials_deflate_and_stake_does_not_matter(seed: int, trials: int) -> None:
    """DSR = PSR with one trial, falls with more; MinBTL grows; order of days and stake change nothing."""
    own = returns(seed)
    one, many, more = records(own, 1), records(own, trials), records(own, 2 * trials)
    assert one["dsr"]["estimate"] == one["psr"]["estimate"]
    assert (
        one["psr"]["estimate"] == many["psr"]["estimate"] > many["dsr"]["estimate"] > more["dsr"]["estimate"]
    )
    if one["min_btl"]["estimate"] is not None:
        assert one["min_btl"]["estimate"] == 0.0
        assert many["min_btl"]["estimate"] < more["min_btl"]["estimate"]
    moved = records(np.random.default_rng(seed).permutation(own) * 3.0, trials)
    for name, record in many.items():
        assert moved[name]["status"] == record["status"]
        assert moved[name]["estimate"] == pytest.approx(record["estimate"])


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_mirrored_returns_mirror_the_confidence(seed: int) -> None:
    """PSR of -r is one minus PSR of r; MinTRL exists for one of them, and is reached where PSR passes."""
    here, there = records(returns(seed), 1), records(-returns(seed), 1)
    assert here["psr"]["estimate"] == pytest.approx(1 - there["psr"]["estimate"])
    assert [here["min_trl"]["status"], there["min_trl"]["status"]].count("undefined") == 1
    assert (here["min_trl"]["status"] == "pass") == (here["psr"]["status"] == "pass")


def test_a_losing_record_has_no_length() -> None:
    """Sharpe ratio not above zero: confidences are defined and fail, lengths are undefined with the reason."""
    found = records(returns(0, mean=-0.001), 3)
    assert (found["psr"]["status"], found["dsr"]["status"]) == ("fail", "fail")
    for name in ("min_trl", "min_btl"):
        assert (found[name]["status"], found[name]["estimate"]) == ("undefined", None)
        assert found[name]["note"] == "the Sharpe ratio does not exceed 0"


@pytest.mark.parametrize(
    ("series", "status", "reason"),
    [
        ([], "insufficient", "0 observations"),
        ([0.01], "insufficient", "1 observations"),
        (np.full(63, 0.01), "undefined", "do not vary"),
        (np.zeros(63), "undefined", "do not vary"),
        (np.where(np.arange(63) == 9, np.nan, 0.01), "undefined", "not finite"),
        (np.linspace(1e308, 1.7e308, 63), "undefined", "too large"),
    ],
)
def test_records_that_cannot_be_judged(series: Any, status: str, reason: str) -> None:
    """Empty, one day, constant, idle, NaN, huge: all four say why, and none passes."""
    found = track_record(series, 3, [returns(1), returns(2)])
    assert [record["name"] for record in found] == ["psr", "dsr", "min_trl", "min_btl"]
    for record in found:
        assert (record["status"], record["estimate"], record["kind"]) == (status, None, "advisory")
        assert reason in record["note"]
    canonical_json(found)


def test_every_record_names_its_convention_and_claims_no_probability() -> None:
    """2012 and 2014, ddof 1, biased moments; a confidence is never called a probability of success."""
    for record in track_record(returns(0), 3):
        assert "2012" in record["params"]["convention"]
        assert "ddof 1, biased moments" in record["params"]["convention"]
        text = canonical_json(record).lower()
        assert "probability" not in text
        canonical_json(record)


def test_counts_that_cannot_be_meant_are_refused() -> None:
    """No trial, more series than trials, a table instead of a series."""
    with pytest.raises(UsageError, match="at least the one"):
        track_record(returns(0), 0)
    with pytest.raises(UsageError, match="count every trial"):
        track_record(returns(0), 1, [returns(1), returns(2)])
    with pytest.raises(UsageError, match="one-dimensional"):
        track_record(np.zeros((3, 2)), 1)
