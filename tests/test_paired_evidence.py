"""The records a verdict may rest on: their symmetries, uplift that never trades, and no harm at its edges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sqkit.checklist import rederive
from sqkit.errors import UsageError
from sqkit.evidence_grade import (
    FIRST_BRIER,
    FIRST_DAILY_PNL,
    FIRST_PRECISION,
    FIRST_RULE_BRIER,
    LOSS_ACTED_ON,
    LOSS_ALL_ROWS,
    PRECISION_ACTED_ON,
    PRECISION_ALL_ROWS,
    evidence_grade,
)
from sqkit.records import DOWN, FLAT, INSIDE, LONG, SHORT, UP
from sqkit.research.paired_evidence import (
    HARM_HIT_RATIO,
    HARM_PRECISION,
    HARM_SHARPE,
    HIT_RATIO_ACTED_ON,
    HIT_RATIO_ALL_ROWS,
    Record,
    blocking_records,
    daily_sharpe_difference,
    share_records,
)
from sqkit.research.paired_rows import PairedReturns, PairedRows
from tests.paired import (
    by_name,
    judged,
    made_returns,
    made_rows,
    problems_of,
    session_days,
    swapped,
    with_rows,
)

REPS = 199
CLUSTERED = (
    *(LOSS_ALL_ROWS, LOSS_ACTED_ON, PRECISION_ALL_ROWS, PRECISION_ACTED_ON),
    *(HIT_RATIO_ALL_ROWS, HIT_RATIO_ACTED_ON, HARM_PRECISION, HARM_HIT_RATIO),
)
FIRST = (FIRST_PRECISION, FIRST_DAILY_PNL, FIRST_BRIER, FIRST_RULE_BRIER)
NUMBERS = ("estimate", "se", "p_value")

seeds = st.integers(0, 10_000)
overlaps = st.sampled_from([1, 1, 5])


def found_in(rows: PairedRows, returns: PairedReturns, overlap: int = 1) -> dict[str, Record]:
    """The blocking records by name, against the rule where the baseline has no probabilities."""
    rule = bool(np.isnan(rows.probability_baseline).all())
    sharpe = daily_sharpe_difference(returns, block=overlap, reps=REPS)
    records = blocking_records(
        rows, returns, base_rate=0.48 if rule else None, overlap=overlap, sharpe=sharpe
    )
    assert [problem for record in records for problem in problems_of(record)] == []
    return by_name(records)


def assert_alike(here: Record, there: Record, *, tolerance: float = 1e-9) -> None:
    """Two records that say the same, up to the order in which floats were added."""
    assert (here["name"], here["status"], here["n"]) == (there["name"], there["status"], there["n"])
    assert here["note"] == there["note"]
    for key in NUMBERS:
        assert there[key] == pytest.approx(here[key], rel=tolerance, abs=1e-12), key
    assert there["ci"] == pytest.approx(here["ci"], rel=tolerance, abs=1e-12)


def mirrored(here: Record, there: Record, draws: int | None = None) -> None:
    """`there` is `here` with the sides exchanged: sign, interval and one-sided p."""
    assert there["estimate"] == pytest.approx(-here["estimate"], rel=1e-9, abs=1e-15)
    assert there["se"] == pytest.approx(here["se"], rel=1e-6)
    assert there["ci"] == pytest.approx([-here["ci"][1], -here["ci"][0]], rel=1e-6, abs=1e-12)
    # (1 + count) / (draws + 1) counts the observed difference itself on both sides
    slack = 1e-9 if draws is None else 2.5 / (draws + 1)
    assert there["p_value"] == pytest.approx(1.0 - here["p_value"], abs=slack)
    assert (there["n"], there["method"]) == (here["n"], here["method"])


class TestSymmetries:
    """What a paired comparison must not depend on, and what must turn with the sides."""

    @settings(max_examples=15, deadline=None)
    @given(seeds, overlaps)
    def test_swapping_the_models_flips_every_difference(self, seed: int, overlap: int) -> None:
        """Signs flip, intervals are mirrored, a one-sided p becomes 1 - p; harm of one is uplift of the other."""
        rows, returns = made_rows(seed), made_returns(seed)
        here, there = found_in(rows, returns, overlap), found_in(*swapped(rows, returns), overlap)
        assert here.keys() == there.keys()
        for name in CLUSTERED:
            mirrored(here[name], there[name])
            assert here[name]["params"]["student"] == there[name]["params"]["baseline"]
        mirrored(here[HARM_SHARPE], there[HARM_SHARPE], draws=REPS)

    @settings(max_examples=15, deadline=None)
    @given(seeds, st.floats(-0.02, 0.02))
    def test_a_constant_on_both_return_series_changes_no_difference_of_means(
        self, seed: int, constant: float
    ) -> None:
        """The daily P&L test sees the difference only; nothing but the Sharpe ratios may move."""
        rows, returns = made_rows(seed, rule=True), made_returns(seed)
        moved = replace(returns, student=returns.student + constant, baseline=returns.baseline + constant)
        here, there = found_in(rows, returns), found_in(rows, moved)
        for name in here.keys() - {HARM_SHARPE}:
            assert_alike(here[name], there[name], tolerance=1e-7)

    @settings(max_examples=15, deadline=None)
    @given(seeds, st.floats(-3.0, 3.0), overlaps)
    def test_a_constant_on_both_losses_changes_nothing(
        self, seed: int, constant: float, overlap: int
    ) -> None:
        """Neither against a model nor against the rule."""

        class Dearer(PairedRows):
            def brier_losses(self, rows: np.ndarray, probability: np.ndarray) -> np.ndarray:
                return super().brier_losses(rows, probability) + constant

        returns = made_returns(seed)
        for rule in (False, True):
            rows = made_rows(seed, rule=rule)
            dearer = Dearer(**{name: getattr(rows, name) for name in rows.__dataclass_fields__})
            here, there = found_in(rows, returns, overlap), found_in(dearer, returns, overlap)
            for name in here:
                assert_alike(here[name], there[name], tolerance=1e-7)

    @settings(max_examples=15, deadline=None)
    @given(seeds)
    def test_permuting_days_leaves_day_clustered_results_unchanged(self, seed: int) -> None:
        """With labels that end on their day a day's place in time says nothing."""
        generator = np.random.default_rng(seed)
        returns = made_returns(seed)
        order = generator.permutation(63)
        moved = replace(returns, student=returns.student[order], baseline=returns.baseline[order])
        for rule in (False, True):
            rows = made_rows(seed, rule=rule)
            renamed = replace(rows, session_days=session_days(63)[order][rows.day_index])
            here, there = found_in(rows, returns), found_in(renamed, moved)
            for name in FIRST if rule else CLUSTERED:
                assert_alike(here[name], there[name])

    def test_permuting_days_matters_where_labels_overlap(self) -> None:
        """The other way round: with an overlap neighbours count, so another order is another result."""
        rows = made_rows(1, student=0.9)
        first_half = rows.day_index < 31
        rows = replace(rows, probability_student=np.where(first_half, rows.probability_student, 0.5))
        order = np.random.default_rng(0).permutation(63)
        renamed = replace(rows, session_days=session_days(63)[order][rows.day_index])
        here, there = (found_in(one, made_returns(), 5)[LOSS_ALL_ROWS] for one in (rows, renamed))
        assert here["estimate"] == pytest.approx(there["estimate"], rel=1e-9)
        assert here["se"] > 1.2 * there["se"]

    @settings(max_examples=15, deadline=None)
    @given(seeds, overlaps, st.booleans())
    def test_permuting_rows_leaves_everything_unchanged(self, seed: int, overlap: int, rule: bool) -> None:
        """The order in which rows were stored carries nothing."""
        rows, returns = made_rows(seed, rule=rule), made_returns(seed)
        order = np.random.default_rng(seed).permutation(len(rows))
        here, there = found_in(rows, returns, overlap), found_in(with_rows(rows, order), returns, overlap)
        for name in here:
            assert_alike(here[name], there[name])

    @settings(max_examples=10, deadline=None)
    @given(seeds, st.integers(2, 5), st.booleans())
    def test_copies_of_every_symbol_are_no_new_evidence(self, seed: int, copies: int, rule: bool) -> None:
        """Rows of a day are not independent: the same calls on twice the symbols leave se and p as they are."""
        rows, returns = made_rows(seed, rule=rule), made_returns(seed)
        more = with_rows(rows, np.tile(np.arange(len(rows)), copies))
        names = tuple(f"{name}#{copy}" for copy in range(copies) for name in rows.symbol_names)
        number = np.repeat(np.arange(copies), len(rows)) * len(rows.symbol_names) + more.symbols
        more = replace(more, symbols=number, symbol_names=names)
        here, there = found_in(rows, returns), found_in(more, returns)
        for name in FIRST if rule else CLUSTERED:
            assert there[name]["se"] == pytest.approx(here[name]["se"], rel=1e-9)
            assert there[name]["p_value"] == pytest.approx(here[name]["p_value"], rel=1e-7)
            assert there[name]["n"]["clusters"] == here[name]["n"]["clusters"]
        assert there[PRECISION_ALL_ROWS]["n"]["rows"] == copies * here[PRECISION_ALL_ROWS]["n"]["rows"]


class TestByAnotherWay:
    """The same numbers from definitions written out."""

    def test_the_loss_differential_is_a_t_test_of_day_means(self) -> None:
        """SciPy's one-sample t test on the daily mean Brier difference of decisive, scored rows."""
        rows = made_rows(3)
        rows.probability_student[::7] = np.nan
        decisive = (rows.outcomes != INSIDE) & np.isfinite(rows.probability_student)
        up = rows.outcomes == UP
        gain = (rows.probability_baseline - up) ** 2 - (rows.probability_student - up) ** 2
        for name, chosen in ((LOSS_ALL_ROWS, decisive), (LOSS_ACTED_ON, decisive & rows.acted_on)):
            daily = [gain[chosen & (rows.session_days == day)].mean() for day in rows.days]
            known = stats.ttest_1samp(daily, 0.0, alternative="greater")
            found = found_in(rows, made_returns())[name]
            assert found["estimate"] == pytest.approx(np.mean(daily), rel=1e-12)
            assert found["p_value"] == pytest.approx(known.pvalue, rel=1e-9)
            assert found["n"]["rows"] == chosen.sum()

    def test_shares_are_those_of_the_rows(self) -> None:
        """Precision over LONG calls, hit ratio over directional calls, each side with its own denominator."""
        rows = made_rows(4)
        found = found_in(rows, made_returns())
        for family, sides in (
            ("precision_difference", (LONG,)),
            ("hit_ratio_difference", (LONG, SHORT)),
        ):
            for where, chosen in (("all_rows", rows.everywhere), ("acted_on_rows", rows.acted_on)):
                record = found[f"{family}.{where}"]
                for side, calls in (("student", rows.calls_student), ("baseline", rows.calls_baseline)):
                    called = chosen & np.isin(calls, sides)
                    share = np.mean(calls[called] == rows.outcomes[called])
                    assert record["params"][side] == pytest.approx(share, rel=1e-12)
                assert record["estimate"] == pytest.approx(
                    record["params"]["student"] - record["params"]["baseline"], abs=1e-15
                )

    def test_the_first_models_opponents(self) -> None:
        """A constant at the training base rate, and the rule's own hit rates by what it said."""
        rows = made_rows(5, rule=True)
        found = found_in(rows, made_returns())
        up, decisive = (rows.outcomes == UP).astype(float), rows.outcomes != INSIDE
        forecast = np.full(len(rows), np.nan)
        called = rows.calls_baseline
        for group in (
            called == LONG,
            called == SHORT,
            (called == FLAT) & rows.acted_on,
            (called == FLAT) & ~rows.acted_on,
        ):
            forecast[group] = up[group & decisive].mean()
        for name, opponent in ((FIRST_BRIER, np.full(len(rows), 0.48)), (FIRST_RULE_BRIER, forecast)):
            gain = (opponent - up) ** 2 - (rows.probability_student - up) ** 2
            daily = [gain[decisive & (rows.session_days == day)].mean() for day in rows.days]
            assert found[name]["estimate"] == pytest.approx(np.mean(daily), rel=1e-9)
            p = stats.ttest_1samp(daily, 0.0, alternative="greater").pvalue
            assert found[name]["p_value"] == pytest.approx(p, rel=1e-9)
        returns = made_returns()
        assert found[FIRST_DAILY_PNL]["estimate"] == pytest.approx(
            np.mean(returns.student - returns.baseline)
        )
        assert found[FIRST_PRECISION]["estimate"] == found[PRECISION_ACTED_ON]["estimate"]


class TestFirstModelDailyPnl:
    """Not worse than the rule in money, or it is no first model."""

    @pytest.mark.parametrize(
        ("change", "status"),
        [
            (lambda student, baseline: baseline, "pass"),
            (lambda student, baseline: student, "pass"),
            (lambda student, baseline: baseline - np.abs(student), "fail"),
            (lambda student, baseline: baseline + np.abs(student), "pass"),
            (lambda student, baseline: baseline + 0.001, "undefined"),
            (lambda student, baseline: np.where(student > 0, np.nan, student), "undefined"),
        ],
        ids=["the same", "better on average", "worse", "never worse", "a constant lead", "NaN"],
    )
    def test_its_status(self, change: Any, status: str) -> None:
        """The mean daily difference at or above zero passes; what does not vary or is no number is undefined."""
        returns = made_returns(student=0.004)
        returns = replace(returns, student=change(returns.student, returns.baseline))
        records = found_in(made_rows(student=0.9, symbols=8, rule=True), returns)
        record = records[FIRST_DAILY_PNL]
        assert record["status"] == status
        assert (record["estimate"] is None) is (status == "undefined")
        grade = evidence_grade(list(records.values()), thresholds_passed=True)
        assert (grade in ("moderate", "strong")) is (status == "pass")


class TestUpliftThatNeverTrades:
    """Better only where the rule is FLAT, and therefore never in the account."""

    @pytest.mark.parametrize("seed", range(8))
    def test_it_is_weak_at_most(self, seed: int) -> None:
        """The loss differential over all rows is certain, and the grade is WEAK."""
        rows = made_rows(seed, symbols=8, student=0.9, only_idle=True)
        records = list(found_in(rows, made_returns(seed)).values())
        assert by_name(records)[LOSS_ALL_ROWS]["p_value"] <= 0.01
        assert by_name(records)[PRECISION_ALL_ROWS]["ci"][0] > 0.0
        assert evidence_grade(records, thresholds_passed=True) == "weak"
        assert evidence_grade(records, thresholds_passed=False) == "none"

    @pytest.mark.parametrize("seed", range(8))
    def test_nor_is_a_little_noise_on_the_rows_that_trade(self, seed: int) -> None:
        """A student that is a shade worse where it trades does not live on the rest."""
        rows = made_rows(seed, symbols=8, student=0.9, only_idle=True)
        noise = np.random.default_rng(seed).normal(0.0, 0.03, len(rows))
        moved = np.clip(rows.probability_student + np.where(rows.acted_on, noise, 0.0), 0.01, 0.99)
        records = list(found_in(replace(rows, probability_student=moved), made_returns(seed)).values())
        assert by_name(records)[LOSS_ALL_ROWS]["p_value"] <= 0.01
        assert evidence_grade(records, thresholds_passed=True) == "weak"

    @pytest.mark.parametrize("seed", range(8))
    def test_the_same_uplift_everywhere_is_graded(self, seed: int) -> None:
        """The counterpart: seen on every row it is at least MODERATE."""
        records = found_in(made_rows(seed, symbols=8, student=0.9), made_returns(seed)).values()
        assert evidence_grade(list(records), thresholds_passed=True) in ("moderate", "strong")

    def test_no_row_that_trades(self) -> None:
        """A window on which the rule is always FLAT proves nothing about trading, for a first model either."""
        for rule, name in ((False, PRECISION_ACTED_ON), (True, FIRST_PRECISION)):
            rows = made_rows(student=0.9, acted_share=0.0, rule=rule)
            records = found_in(rows, made_returns())
            assert (records[name]["status"], records[name]["note"]) == (
                "undefined",
                "the student makes no call",
            )
            assert evidence_grade(list(records.values()), thresholds_passed=True) == "weak"


class TestNoHarm:
    """Significantly worse is rejected, whatever else passes; the same is no harm; unknown is unknown."""

    def sharpe_of(self, interval: tuple[float, float] | None, **changes: Any) -> Record:
        """The Sharpe record of no harm when the bootstrap gives this interval."""
        returns = made_returns()
        found = replace(daily_sharpe_difference(returns, reps=REPS), bootstrap_ci95=interval, **changes)
        records = blocking_records(made_rows(), returns, base_rate=None, overlap=1, sharpe=found)
        return by_name(records)[HARM_SHARPE]

    @pytest.mark.parametrize(
        ("upper", "status"),
        [(-2.0, "fail"), (-1e-9, "fail"), (-1e-300, "fail"), (0.0, "pass"), (1e-300, "pass"), (1e-9, "pass")],
    )
    def test_the_upper_bound_at_its_edge(self, upper: float, status: str) -> None:
        """Below zero is harm, zero itself is not."""
        record = self.sharpe_of((-3.0, upper))
        assert (record["kind"], record["status"]) == ("blocking", status)

    def test_without_an_interval_it_is_undefined(self) -> None:
        """A bootstrap that does not vary leaves harm undecided, with its reason."""
        record = self.sharpe_of(None)
        assert (record["status"], record["note"]) == (
            "undefined",
            "no interval: a draw of the bootstrap does not vary",
        )

    @pytest.mark.parametrize("require_all", [True, False])
    def test_a_worse_model_is_rejected_although_a_threshold_passes(self, require_all: bool) -> None:
        """With require_all_criteria=False a high Sharpe ratio does not buy worse calls: REJECT, exit 1."""
        rows = made_rows(student=0.1, baseline=0.9, symbols=8)
        returns = made_returns(student=0.004, baseline=0.001)
        found, checklist = judged(rows, returns, policy={"require_all_criteria": require_all})
        records = by_name(found.records)
        assert checklist["validation_results"]["sharpe_pass"]
        assert records[HARM_PRECISION]["ci"][1] < 0.0
        assert records[HARM_PRECISION]["status"] == records[HARM_HIT_RATIO]["status"] == "fail"
        assert records[HARM_SHARPE]["status"] == "pass"
        assert checklist["recommendation"] == "REJECT"
        assert "no_harm.precision: significantly worse" in " ".join(checklist["verdict_reasons"])
        assert rederive(checklist)[1] == 1

    def test_a_worse_account_is_rejected_although_a_threshold_passes(self) -> None:
        """Better calls do not buy a Sharpe ratio that is significantly lower."""
        rows = made_rows(student=0.9, baseline=0.1, symbols=8)
        returns = made_returns(student=0.002, baseline=0.012)
        found, checklist = judged(
            rows, returns, policy={"require_all_criteria": False, "min_evidence": "none"}
        )
        assert checklist["validation_results"]["precision_pass"]
        assert by_name(found.records)[HARM_SHARPE]["status"] == "fail"
        assert checklist["recommendation"] == "REJECT"

    @pytest.mark.parametrize("rule", [False, True])
    def test_a_copy_harms_nobody(self, rule: bool) -> None:
        """Two sides that call and earn the same differ by exactly nothing: no harm, and no uplift either."""
        rows, returns = made_rows(), made_returns()
        rows = replace(
            rows,
            calls_baseline=rows.calls_student,
            probability_baseline=np.full(len(rows), np.nan) if rule else rows.probability_student,
        )
        found, checklist = judged(rows, replace(returns, baseline=returns.student))
        for name in (HARM_PRECISION, HARM_HIT_RATIO, HARM_SHARPE):
            record = by_name(found.records)[name]
            assert (record["status"], record["estimate"], record["ci"]) == ("pass", 0.0, None)
            assert "student and baseline" in record["note"]
        assert found.grade in ("none", "weak")
        assert checklist["recommendation"] == "REJECT"

    def test_equal_shares_by_chance_are_no_copy(self) -> None:
        """One day on which two different models are right alike often decides nothing."""
        rows = with_rows(made_rows(), np.arange(16))
        calls = np.tile([LONG, LONG, FLAT, FLAT], 4).astype(np.int8)
        others = np.tile([FLAT, LONG, LONG, FLAT], 2).repeat(2).astype(np.int8)
        rows = replace(
            rows,
            outcomes=np.tile([UP, DOWN], 8).astype(np.int8),
            calls_student=calls,
            calls_baseline=np.where(others == LONG, calls[::-1], FLAT).astype(np.int8),
        )
        returns = made_returns(days=1)
        record = found_in(rows, returns)[HARM_PRECISION]
        assert record["params"]["student"] == record["params"]["baseline"] == 0.5
        assert (record["status"], record["note"]) == ("undefined", "1 day, fewer than two")

    def test_undecided_harm_is_insufficient_evidence(self) -> None:
        """An account that earns the same every day has no Sharpe ratio to compare: exit 3, not a pass."""
        rows = made_rows(student=0.9, symbols=8)
        returns = replace(made_returns(), student=np.full(63, 0.01))
        found, checklist = judged(
            rows, returns, policy={"require_all_criteria": False, "min_evidence": "none"}
        )
        assert by_name(found.records)[HARM_SHARPE]["status"] == "undefined"
        assert checklist["recommendation"] == "INSUFFICIENT_EVIDENCE"
        assert rederive(checklist)[1] == 3
        assert any("no_harm.sharpe is undefined" in line for line in checklist["verdict_reasons"])


class TestRefusals:
    """Rows that do not belong together are refused where they meet, in one line."""

    @pytest.mark.parametrize(
        "name",
        [
            *("session_days", "symbols", "acted_on", "outcomes", "calls_student", "calls_baseline"),
            *("probability_student", "probability_baseline"),
        ],
    )
    def test_rows_of_another_length(self, name: str) -> None:
        """One value less, one value for all, or a table."""
        rows = made_rows()
        column = getattr(rows, name)
        for wrong in (column[:-1], column[:1], column[:0], column[None, :]):
            with pytest.raises(UsageError, match="on the same rows") as refusal:
                replace(rows, **{name: wrong})
            assert "\n" not in str(refusal.value)

    def test_days_of_another_length(self) -> None:
        """Returns, costs and dates are one a day."""
        returns = made_returns()
        for name in returns.__dataclass_fields__:
            with pytest.raises(UsageError, match="on the same days"):
                replace(returns, **{name: getattr(returns, name)[1:]})

    def test_a_symbol_without_a_name(self) -> None:
        """A symbol that is not in the list is in no table, so it is refused."""
        rows = made_rows()
        for wrong in (rows.symbols + 1, rows.symbols - 1):
            with pytest.raises(UsageError, match="give every symbol its name"):
                replace(rows, symbols=wrong)

    def test_an_overlap_of_no_day(self) -> None:
        """A label reaches over at least its own day."""
        with pytest.raises(UsageError, match="overlap 0"):
            share_records(made_rows(), 0)
