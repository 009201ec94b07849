"""Detectors: published run lengths, the promises about false alarms, delays, verdicts, and states that go on."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from sqkit.errors import UsageError
from sqkit.production.detectors import (
    PAIR_BETS,
    BernoulliCusum,
    MixtureEvidence,
    MixtureShiryaevRoberts,
    RiskAdjustedCusum,
    Sprt,
    confirmation_verdict,
    cusum_step,
    shiryaev_roberts_step,
)
from sqkit.production.run_lengths import closed_form_run_length, cusum_run_length, cusum_threshold
from sqkit.sequential_bets import SHIFTS, wilson_upper
from tests import arl

BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "monitor.py"

shares = st.floats(0.0, 1.0)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- published run lengths: normal data


@pytest.mark.parametrize(("mean", "length"), [(0, 168), (0.5, 26.6), (1, 8.38), (2, 3.34)])
def test_two_sided_cusum_of_lucas_and_crosier(mean: float, length: float) -> None:
    """k = .5, h = 4, both directions: the run lengths of Lucas and Crosier (1982)."""
    assert arl.two_sided_cusum_run_length(0.5, 4.0, mean) == pytest.approx(length, rel=0.01)


@pytest.mark.parametrize(("mean", "length"), [(0, 117.59), (1.5, 3.75)])
def test_one_sided_cusum_of_brook_and_evans(mean: float, length: float) -> None:
    """k = .5, h = 3: the run lengths of Brook and Evans (1972)."""
    assert arl.normal_cusum_run_length(0.5, 3.0, mean) == pytest.approx(length, rel=0.01)


@pytest.mark.parametrize(("mean", "length"), [(-0.25, 2071.51), (0, 124.66), (0.5, 20.37), (1, 10.75)])
def test_cusum_of_vance(mean: float, length: float) -> None:
    """k = 0, h = 10: the run lengths of Vance (1986)."""
    assert arl.normal_cusum_run_length(0.0, 10.0, mean) == pytest.approx(length, rel=0.01)


@pytest.mark.parametrize(
    ("shift", "threshold", "run_length", "delay"),
    [
        (0.5, 37.38, 49.45, 12.30),
        (0.5, 74.76, 99.45, 16.60),
        (0.5, 373.81, 499.45, 28.05),
        (0.5, 747.62, 999.45, 33.33),
        (1.0, 56.04, 99.79, 6.22),
        (1.0, 560.37, 999.79, 10.66),
        (1.0, 5603.7, 9999.87, 15.24),
    ],
)
def test_shiryaev_roberts_of_moustakides_and_others(
    shift: float, threshold: float, run_length: float, delay: float
) -> None:
    """Run length and delay of tables 3 and 4 (2009), to the digits that are printed, counted as there."""
    found, late = arl.shiryaev_roberts_lengths(shift, threshold)

    assert found == pytest.approx(run_length, abs=0.01, rel=1e-5)
    assert late == pytest.approx(delay, abs=0.01)


@given(level=st.floats(0.0, 1e6), after=st.floats(1e-3, 1e6), parameter=st.floats(0.1, 2.0))
def test_the_kernels_are_those_of_the_production_steps(level: float, after: float, parameter: float) -> None:
    """The observation that the quadrature takes from u to y takes the production's step from u to y."""
    observed = arl.shiryaev_roberts_observation(level, after, parameter)
    ratio = math.exp(parameter * observed - parameter**2 / 2.0)
    assert shiryaev_roberts_step(level, ratio) == pytest.approx(after, rel=1e-9)

    observed = arl.cusum_observation(level, after, parameter)
    assert cusum_step(level, observed - parameter) == pytest.approx(after, abs=1e-8)
    assert cusum_step(level, observed - parameter - after - 1.0) == 0.0


# --- published run lengths: misses


@pytest.mark.parametrize(
    ("rate", "steps", "without", "after"),
    [
        (0.45, 10, 254.13, 61.05),
        (0.45, 26, 9830.36, 215.24),
        (0.45, 37, 91814.98, 325.03),
        (0.40, 10, 799.98, 40.17),
        (0.40, 20, 49763.85, 90.00),
    ],
)
def test_the_closed_form(rate: float, steps: int, without: float, after: float) -> None:
    """The symmetric sum's run lengths are the table's, and the Markov chain's to one in a million."""
    threshold = steps * math.log((1.0 - rate) / rate)

    for true, printed in ((rate, without), (1.0 - rate, after)):
        exact = closed_form_run_length(true, steps)
        assert exact == pytest.approx(printed, abs=0.0051)
        assert cusum_run_length(threshold, rate, 1.0 - rate, true) == pytest.approx(exact, rel=1e-6)


def test_the_risk_adjusted_cusum_of_success() -> None:
    """Miss probability .4, odds ratio 2, h = 2.5: 209 (R package success); its steps are the Bernoulli sum's."""
    bad = 0.8 / 1.4
    adjusted, plain = RiskAdjustedCusum(2.0), BernoulliCusum(0.4, bad)
    for miss in (rng(1).random(500) < 0.5).tolist():
        assert adjusted.update(miss, 0.4) == pytest.approx(plain.update(miss), abs=1e-12)

    assert cusum_run_length(2.5, 0.4, bad, 0.4) == pytest.approx(209, rel=0.03)


@pytest.mark.parametrize(
    ("good", "bad", "threshold", "delay"),
    [(0.40, 0.45, 3.936, 591), (0.40, 0.50, 5.159, 213), (0.40, 0.55, 5.860, 112), (0.30, 0.40, 5.218, 195)],
)
def test_thresholds_of_ten_thousand_outcomes(good: float, bad: float, threshold: float, delay: float) -> None:
    """The threshold with one false alert in 10,000 outcomes, and the run after a change, within 5 %."""
    assert cusum_threshold(1e4, good, bad) == pytest.approx(threshold, rel=0.05)
    assert cusum_run_length(threshold, good, bad, good) == pytest.approx(1e4, rel=0.05)
    assert cusum_run_length(threshold, good, bad, bad) == pytest.approx(delay, rel=0.05)


def test_the_chain_agrees_with_the_class() -> None:
    """The mean of simulated runs of `BernoulliCusum` is the chain's run length, within four standard errors."""
    lengths = []
    stream = iter((rng(2).random(400_000) < 0.5).tolist())
    for _ in range(1000):
        detector, length = BernoulliCusum(0.4, 0.5), 1
        while detector.update(next(stream)) < 5.159:
            length += 1
        lengths.append(length)

    error = float(np.std(lengths)) / math.sqrt(len(lengths))
    assert np.mean(lengths) == pytest.approx(cusum_run_length(5.159, 0.4, 0.5, 0.5), abs=4 * error)


@settings(deadline=None, max_examples=10)
@given(good=st.floats(0.1, 0.6), loss=st.floats(0.05, 0.2), length=st.floats(100, 20_000))
def test_threshold_and_run_length_are_inverse(good: float, loss: float, length: float) -> None:
    """The run to the threshold is as long as was asked, or the next that its steps allow, and shorter after a loss."""
    threshold = cusum_threshold(length, good, good + loss)

    assert 0.8 * length < cusum_run_length(threshold, good, good + loss, good) < 1.6 * length
    assert cusum_run_length(threshold, good, good + loss, good + loss) < length


def test_a_run_beyond_all_counting_is_infinite() -> None:
    """A model far better than the good rate never alerts; rounding makes no finite number of that."""
    assert cusum_run_length(5.159, 0.4, 0.5, 0.1) == math.inf


def test_wilson_is_scipys() -> None:
    """The one-sided bound is SciPy's, and above every rate that rests on few outcomes."""
    for misses, count in ((0, 10), (40, 100), (200, 500), (2000, 5000), (10, 10)):
        interval = binomtest(misses, count, alternative="less").proportion_ci(0.9, method="wilson")
        assert wilson_upper(misses / count, count) == pytest.approx(interval.high, rel=1e-12)
    assert wilson_upper(0.4, 500) > wilson_upper(0.4, 5000) > 0.4
    assert wilson_upper(0.4, 5000, 0.5) == pytest.approx(0.4, abs=1e-4)


# --- what the evidence promises


@given(
    rate=st.floats(0.02, 0.98), past=st.lists(st.tuples(shares, st.floats(0.0, 2.0))), weight=st.floats(0, 2)
)
def test_a_fair_bar_adds_its_weight_and_no_more(
    rate: float, past: list[tuple[float, float]], weight: float
) -> None:
    """Whatever came before: over the two outcomes of a bar at the baseline, the level grows by its weight."""
    detector = MixtureShiryaevRoberts(rate)
    for miss, added in past:
        detector.update(miss, weight=added)
    state, before = detector.state(), detector.level
    after = []
    for miss in (1.0, 0.0):
        detector.restore(state)
        after.append(detector.update(miss, weight=weight))

    assert rate * after[0] + (1.0 - rate) * after[1] == pytest.approx(before + weight, rel=1e-9, abs=1e-12)
    assert after[0] >= after[1] >= 0.0


@given(past=st.lists(st.tuples(st.floats(-1.0, 1.0), st.integers(0, 2)), max_size=30), tie=shares)
def test_paired_evidence_is_a_fair_game(past: list[tuple[float, int]], tie: float) -> None:
    """Whatever came before: if both models are as good, the next pair leaves the evidence as it is on average."""
    evidence = MixtureEvidence.of_pairs(3)
    assert evidence.value == 1.0
    for x, stream in past:
        evidence.update(x, stream=stream)
    assert evidence.updates == len(past)
    state, before = evidence.state(), evidence.value
    after = {}
    for x in (-1.0, 0.0, 1.0):
        evidence.restore(state)
        after[x] = evidence.update(x, stream=1)

    assert after[0.0] == before
    mean = tie * after[0.0] + (1.0 - tie) * (after[-1.0] + after[1.0]) / 2.0
    assert mean == pytest.approx(before, rel=1e-9)


def _scaled(misses: Iterator[np.ndarray], symbols: int) -> Iterator[np.ndarray]:
    return (one / symbols for one in misses)


FAIR: dict[str, tuple[Callable[[], Iterator[np.ndarray]], float, int]] = {
    "independent": (lambda: arl.independent(rng(3), 0.4, 2000), 0.4, 1),
    "20 symbols, correlated .3": (
        lambda: _scaled(arl.correlated(rng(4), 0.4, 2000, 20, 0.3), 20),
        0.4,
        1,
    ),
    "labels of 10 bars, persistent calls": (
        lambda: arl.overlapping(rng(5), 2000, 3000, 10, 0.95),
        0.5,
        10,
    ),
}


@pytest.mark.parametrize("kind", FAIR)
@pytest.mark.parametrize(("threshold", "bars"), [(1e3, (200, 500)), (1e4, (3000,))])
def test_false_alarms_within_t_are_at_most_t_over_a(
    kind: str, threshold: float, bars: tuple[int, ...]
) -> None:
    """Without a change, the share of runs that alarm within T bars at threshold A is at most T / A."""
    misses, rate, streams = FAIR[kind]
    detector = arl.MixtureRuns(rate, 2000, streams=streams)
    alarms = arl.first_alarms(detector, misses(), threshold, max(bars), streams=streams)

    for within in bars:
        allowed = binom.ppf(0.999, 2000, within / threshold)
        assert np.count_nonzero(alarms <= within) <= allowed


def test_correlated_symbols_alarm_a_sum_over_outcomes_and_not_the_bars() -> None:
    """Twenty symbols that move together: a CUSUM over their outcomes alarms over ten times as often as promised."""
    bars, runs = 1000, 50
    table = np.array(list(islice(arl.correlated(rng(6), 0.4, runs, 20, 0.3), bars)))
    outcomes = (
        (place < misses).astype(float)
        for misses in table
        for place in rng(7).permuted(np.tile(np.arange(20), (runs, 1)), axis=1).T
    )
    by_outcome = arl.alarms_per_bar(arl.CusumRuns(0.4, 0.5, runs), outcomes, 5.159, bars * 20)
    by_bar = arl.alarms_per_bar(arl.MixtureRuns(0.4, runs), iter(table / 20), 500.0, bars)

    assert by_outcome > 10 / 1e4
    assert by_bar <= 1 / 500


def test_the_average_run_is_at_least_the_threshold() -> None:
    """At threshold 100 the mixture runs for 100 outcomes or more on average."""
    alarms = arl.first_alarms(arl.MixtureRuns(0.4, 4000), arl.independent(rng(8), 0.4, 4000), 100.0, 5000)

    assert np.isfinite(alarms).all()
    assert alarms.mean() - 3 * alarms.std() / math.sqrt(4000) >= 100


def test_confirmation_by_chance_is_rarer_than_alpha() -> None:
    """Fresh evidence about a model as validated ever reaches 1/alpha in at most alpha of the runs; so do pairs."""
    runs = 2000
    for alpha in (0.05, 0.01):
        live = arl.MixtureRuns(0.4, runs, start=1.0)
        pair = arl.MixtureRuns(0.0, runs, start=1.0, bets=PAIR_BETS)
        ever = np.zeros((2, runs), bool)
        misses, others = arl.independent(rng(9), 0.4, runs), arl.independent(rng(10), 0.4, runs)
        for _ in range(1500):
            miss, other = next(misses), next(others)
            ever[0] |= live.update(miss, 0.0) >= 1.0 / alpha
            ever[1] |= pair.update(miss - other, 0.0) >= 1.0 / alpha
        assert (ever.sum(axis=1) <= binom.ppf(0.999, runs, alpha)).all()


# --- how soon


def test_a_loss_of_ten_points_is_seen_in_260_outcomes() -> None:
    """From .60 to .50 after 2,000 good outcomes, A = 1e4, baseline from 5,000: at most 260 outcomes on average."""
    rates = arl.validated_rates(rng(11), 0.4, 5000, 1000)
    delays = arl.detection_delays(
        rng(12),
        arl.MixtureRuns(rates, 1000),
        1e4,
        runs=1000,
        good=0.4,
        bad=0.5,
        before=2000,
        allowed=4000,
    )

    assert len(delays) > 850
    assert np.isfinite(delays).all()
    assert delays.mean() <= 260


@pytest.mark.parametrize(
    ("good", "bad", "if_good", "if_bad"), [(0.4, 0.5, 132, 130), (0.4, 0.45, 520, 515), (0.45, 0.5, 529, 527)]
)
def test_the_sprt_needs_what_wald_says(good: float, bad: float, if_good: float, if_bad: float) -> None:
    """Mean outcomes to a verdict lie between Wald's formula and 10 % more; at most 5 % are wrong."""
    runs = 400
    for true, right, expected in ((good, "good", if_good), (bad, "bad", if_bad)):
        random, said, lengths = rng(13), [], []
        for _ in range(runs):
            test, verdict = Sprt(good, bad), None
            taken = 0
            while verdict is None:
                verdict, taken = test.update(float(random.random() < true)), taken + 1
            said.append(verdict)
            lengths.append(taken)
        error = np.std(lengths) / math.sqrt(runs)
        assert 0.99 * expected - 3 * error <= np.mean(lengths) <= 1.1 * expected + 3 * error
        assert runs - said.count(right) <= binom.ppf(0.999, runs, 0.05)


# --- verdicts


def test_the_verdict_is_the_written_rule() -> None:
    """Each way out of a confirmation, at its bound."""
    enough = 1.0 / 0.05

    assert confirmation_verdict(0.05, 1e9, 1e9, 0.05) == "cleared"
    assert confirmation_verdict(0.051, 1e9, 1e9, 0.05) is None
    assert confirmation_verdict(enough - 1e-9, 1e9, 1e9, 0.05) is None
    assert confirmation_verdict(enough, enough, 1e9, 0.05) == "roll_back"
    assert confirmation_verdict(enough, 0.99, 10 * enough, 0.05) == "halt"
    assert confirmation_verdict(enough, 1.0, 10 * enough, 0.05) is None
    assert confirmation_verdict(enough, 0.99, 10 * enough - 1e-9, 0.05) is None


def test_a_regime_break_rolls_back_in_at_most_five_percent() -> None:
    """Where both models fall from .60 to .50, at most alpha of the runs roll back; the others are halted."""
    rates = arl.validated_rates(rng(14), 0.4, 5000, 1000)
    found = arl.verdicts(rng(15), live=0.5, archived=0.5, runs=1000, outcomes=4000, baseline=rates)

    assert found["roll_back"] <= 0.05 * 1000
    assert found["halt"] + found["roll_back"] >= 0.99 * 1000


def test_a_live_model_alone_that_broke_is_rolled_back() -> None:
    """Live at .50, archived still at .60: every run rolls back."""
    rates = arl.validated_rates(rng(16), 0.4, 5000, 1000)
    found = arl.verdicts(rng(17), live=0.5, archived=0.4, runs=1000, outcomes=4000, baseline=rates)

    assert found["roll_back"] == found["runs"] == 1000


# --- states, and one recursion


@pytest.mark.parametrize("rate", [0.4, 0.93])
def test_the_simulated_recursion_is_the_class(rate: float) -> None:
    """The runs of the simulations are the class to the bit in each level, and to 1e-12 in their mean."""
    bets = [bet for bet in (shift / (rate * (1.0 - rate)) for shift in SHIFTS) if bet < 0.95 / rate]
    random, streams = rng(18), 3
    detector, evidence = MixtureShiryaevRoberts(rate, streams), MixtureEvidence.of_misses(rate, streams)
    levels = arl.MixtureRuns(rate, 1, bets=bets, streams=streams)
    wealth = arl.MixtureRuns(rate, 1, bets=bets, start=1.0, streams=streams)
    for bar, miss in enumerate(random.binomial(20, rate, 900) / 20):
        weight, stream = float(random.random()), bar % streams
        level = detector.update(miss, weight=weight, stream=stream)
        value = evidence.update(miss, stream=stream)
        assert level == pytest.approx(levels.update(np.array([miss]), weight, stream)[0], rel=1e-12)
        assert value == pytest.approx(wealth.update(np.array([miss]), 0.0, stream)[0] / streams, rel=1e-12)

    assert detector.state() == levels.levels[:, :, 0].tolist()
    assert evidence.state() == [900, wealth.levels[:, :, 0].tolist()]


DETECTORS: dict[str, Callable[[], Any]] = {
    "shiryaev_roberts": lambda: MixtureShiryaevRoberts(0.4, 3),
    "misses": lambda: MixtureEvidence.of_misses(0.4, 3),
    "pairs": lambda: MixtureEvidence.of_pairs(3),
    "sprt": lambda: Sprt(0.4, 0.5, streams=3),
    "cusum": lambda: BernoulliCusum(0.4, 0.5),
    "adjusted": lambda: RiskAdjustedCusum(),
}


def feed(detector: Any, bar: int, miss: float) -> Any:
    """Give one miss to any of the detectors."""
    if isinstance(detector, RiskAdjustedCusum):
        return detector.update(float(miss > 0.5), miss)
    if isinstance(detector, BernoulliCusum):
        return detector.update(miss)
    return detector.update(miss, stream=bar % 3)


@pytest.mark.parametrize("name", DETECTORS)
@settings(deadline=None, max_examples=25)
@given(misses=st.lists(shares, max_size=40), cut=st.integers(0, 40))
def test_a_restored_detector_goes_on_to_the_bit(name: str, misses: list[float], cut: int) -> None:
    """Stored as JSON at any point and restored into a new one, it says and holds the same bits from there on."""
    whole = DETECTORS[name]()
    for bar, miss in enumerate(misses[:cut]):
        feed(whole, bar, miss)
    again = DETECTORS[name]()
    again.restore(json.loads(json.dumps(whole.state())))

    for bar, miss in enumerate(misses[cut:]):
        assert feed(again, bar, miss) == feed(whole, bar, miss)
    assert again.state() == whole.state()
    assert getattr(again, "level", None) == getattr(whole, "level", None)
    assert getattr(again, "value", None) == getattr(whole, "value", None)


@pytest.mark.parametrize("name", ["shiryaev_roberts", "misses", "pairs"])
def test_a_reset_detector_is_a_new_one(name: str) -> None:
    """After `reset` nothing is left of what came before."""
    detector = DETECTORS[name]()
    for bar in range(20):
        feed(detector, bar, 1.0)
    detector.reset()

    assert detector.state() == DETECTORS[name]().state()


@pytest.mark.parametrize("name", ["shiryaev_roberts", "misses", "pairs"])
def test_evidence_without_end_stays_a_number(name: str) -> None:
    """Misses for ever leave a level that JSON can hold, and a state that can be restored."""
    detector = DETECTORS[name]()
    for bar in range(6000):
        feed(detector, bar, 1.0)

    again = DETECTORS[name]()
    again.restore(json.loads(json.dumps(detector.state(), allow_nan=False)))
    assert again.state() == detector.state()


@pytest.mark.parametrize("rate", [1e-9, 0.5, 0.9, 0.97, 0.999])
def test_a_mixture_works_at_every_baseline(rate: float) -> None:
    """At least one bet is left, misses raise the level, and no bar takes all of it."""
    detector = MixtureShiryaevRoberts(rate)

    assert detector.update(1.0) > 1.0
    assert detector.update(0.0, weight=0.0) > 0.0


BAD: dict[str, Callable[[], Any]] = {
    "rate 0": lambda: MixtureShiryaevRoberts(0.0),
    "rate 1": lambda: MixtureShiryaevRoberts(1.0),
    "rate nan": lambda: MixtureEvidence.of_misses(math.nan),
    "no stream": lambda: MixtureShiryaevRoberts(0.4, 0),
    "half a stream": lambda: MixtureShiryaevRoberts(0.4, cast(Any, 1.5)),
    "no bet": lambda: MixtureEvidence(0.0, ()),
    "a bet of everything": lambda: MixtureEvidence(0.0, (1.0,)),
    "a mean of 1": lambda: MixtureEvidence(1.0, (0.1,)),
    "miss 1.1": lambda: MixtureShiryaevRoberts(0.4).update(1.1),
    "miss nan": lambda: MixtureShiryaevRoberts(0.4).update(math.nan),
    "pair -1.1": lambda: MixtureEvidence.of_pairs().update(-1.1),
    "miss below 0": lambda: MixtureEvidence.of_misses(0.4).update(-0.1),
    "weight below 0": lambda: MixtureShiryaevRoberts(0.4).update(1.0, weight=-1.0),
    "weight inf": lambda: MixtureShiryaevRoberts(0.4).update(1.0, weight=math.inf),
    "stream too high": lambda: MixtureShiryaevRoberts(0.4, 2).update(1.0, stream=2),
    "stream below 0": lambda: MixtureEvidence.of_pairs(2).update(1.0, stream=-1),
    "state of other streams": lambda: MixtureShiryaevRoberts(0.4, 2).restore([[0.0] * 6]),
    "state of other bets": lambda: MixtureShiryaevRoberts(0.4).restore([[0.0] * 5]),
    "state with nan": lambda: MixtureShiryaevRoberts(0.4).restore([[math.nan] * 6]),
    "state with null": lambda: MixtureShiryaevRoberts(0.4).restore([[cast(Any, None)] * 6]),
    "state below 0": lambda: MixtureEvidence.of_pairs().restore([1, [[-1.0, 1.0, 1.0]]]),
    "state without updates": lambda: MixtureEvidence.of_pairs().restore([[1.0, 1.0, 1.0]]),
    "state below 0 of a sum": lambda: BernoulliCusum(0.4, 0.5).restore([-0.1]),
    "state of no test": lambda: Sprt(0.4, 0.5).restore([math.inf]),
    "bad is better": lambda: Sprt(0.5, 0.4),
    "bad is 1": lambda: BernoulliCusum(0.5, 1.0),
    "error of a half": lambda: Sprt(0.4, 0.5, error=0.5),
    "test's stream": lambda: Sprt(0.4, 0.5).update(1.0, stream=1),
    "test's miss": lambda: Sprt(0.4, 0.5).update(2.0),
    "odds ratio 1": lambda: RiskAdjustedCusum(1.0),
    "half a miss": lambda: RiskAdjustedCusum().update(0.5, 0.4),
    "expected 1.1": lambda: RiskAdjustedCusum().update(1.0, 1.1),
    "alpha 0": lambda: confirmation_verdict(1.0, 1.0, 1.0, 0.0),
    "wilson of nothing": lambda: wilson_upper(0.4, 0.0),
    "wilson rate": lambda: wilson_upper(1.1, 10),
    "closed form rate": lambda: closed_form_run_length(0.0, 3),
    "closed form steps": lambda: closed_form_run_length(0.4, 0),
    "threshold 0": lambda: cusum_run_length(0.0, 0.4, 0.5, 0.4),
    "true rate 1": lambda: cusum_run_length(5.0, 0.4, 0.5, 1.0),
    "too few nodes": lambda: cusum_run_length(50.0, 0.4, 0.5, 0.5, 10),
    "run length 1": lambda: cusum_threshold(1.0, 0.4, 0.5),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_meant_is_refused(what: str) -> None:
    """Rates, bets, misses, weights, streams, states and thresholds outside their range are refused."""
    with pytest.raises(UsageError):
        BAD[what]()


@pytest.mark.parametrize("name", DETECTORS)
def test_numpy_numbers_leave_plain_ones(name: str) -> None:
    """A miss that is a NumPy number leaves a state of plain floats, which every JSON writer takes."""
    detector = DETECTORS[name]()
    feed(detector, 0, np.float64(0.6))

    assert orjson.loads(orjson.dumps(detector.state())) == detector.state()


def test_a_refused_update_changes_nothing() -> None:
    """After a refusal the level is what it was."""
    for name in ("shiryaev_roberts", "pairs", "sprt"):
        detector = DETECTORS[name]()
        feed(detector, 0, 1.0)
        before = json.dumps(detector.state())
        with pytest.raises(UsageError):
            feed(detector, 0, 1.5)
        assert json.dumps(detector.state()) == before


def test_the_benchmark_runs() -> None:
    """Its short form gives every figure beside its target, and no timing."""
    if not BENCHMARK.is_file():
        pytest.skip("benchmarks are not part of this copy")
    spec = importlib.util.spec_from_file_location("monitor_benchmark", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    found = benchmark.measure(short=True)

    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert "updates_per_second" not in found
    assert found["detection_delay"]["n_val_5000"]["target"] == 260
    assert found["confirmation"]["regime_break"]["target"] == 0.05
