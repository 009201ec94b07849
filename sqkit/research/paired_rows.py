"""Student and baseline on the same rows and days: what every test of the evidence is computed from.

`AccuracyAnalyzer.paired_rows` fills these from stored predictions, the gate's simulation from
made-up ones; the tests do not know the difference.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from sqkit.errors import UsageError
from sqkit.records import DOWN, FLAT, LONG, SHORT, UP

STUDENT_COLUMNS = (0, 1)
BASELINE_COLUMNS = (2, 3)


@dataclass(frozen=True)
class PairedRows:
    """Rows that both sides are judged on: scored for both, outcome known.

    Attributes
    ----------
    session_days
        int (n,), session date of each row as days since 1970-01-01.
    symbols
        int (n,), which symbol; positions in `symbol_names`.
    symbol_names
        Names of the symbols.
    acted_on
        bool (n,), rows on which the baseline rule is not FLAT: only they can trade.
    outcomes
        int8 (n,), UP, INSIDE or DOWN.
    calls_student, calls_baseline
        int8 (n,), LONG, FLAT or SHORT.
    probability_student, probability_baseline
        float (n,), P(up | decisive move), NaN where not scored; all NaN for a rule.

    Raises
    ------
    UsageError
        Arrays that are not one-dimensional or differ in length, or a symbol without a name.
    """

    session_days: np.ndarray
    symbols: np.ndarray
    symbol_names: tuple[str, ...]
    acted_on: np.ndarray
    outcomes: np.ndarray
    calls_student: np.ndarray
    calls_baseline: np.ndarray
    probability_student: np.ndarray
    probability_baseline: np.ndarray

    def __post_init__(self) -> None:
        _same_length(self, "rows", leaving_out="symbol_names")
        if len(self) and not 0 <= self.symbols.min() <= self.symbols.max() < len(self.symbol_names):
            raise UsageError(
                f"symbols {self.symbols.min()} to {self.symbols.max()} of {len(self.symbol_names)} names: "
                "give every symbol its name"
            )

    def __len__(self) -> int:
        return len(self.session_days)

    @cached_property
    def days(self) -> np.ndarray:
        """Session dates with a row, ascending."""
        return self._places[0]

    @cached_property
    def day_index(self) -> np.ndarray:
        """int (n,), position of each row's date in `days`."""
        return self._places[1]

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        days, index = np.unique(self.session_days, return_inverse=True)
        return days, index.astype(np.int32)

    @cached_property
    def everywhere(self) -> np.ndarray:
        """bool (n,), all rows."""
        return np.ones(len(self), dtype=bool)

    def long_counts(self, rows: np.ndarray) -> np.ndarray:
        """Right LONG calls and LONG calls a day, of student then baseline; float (g, 4)."""
        return self._counts(rows, self.calls_student == LONG, self.calls_baseline == LONG)

    def directional_counts(self, rows: np.ndarray) -> np.ndarray:
        """Right directional calls and directional calls a day, of student then baseline; float (g, 4)."""
        return self._counts(rows, self.calls_student != FLAT, self.calls_baseline != FLAT)

    def _counts(self, rows: np.ndarray, student: np.ndarray, baseline: np.ndarray) -> np.ndarray:
        """Every date of the window has its line, so that neighbours in the table are neighbours in time."""
        table = np.zeros((len(self.days), 4))
        for called, calls, columns in (
            (student & rows, self.calls_student, STUDENT_COLUMNS),
            (baseline & rows, self.calls_baseline, BASELINE_COLUMNS),
        ):
            right = called & (calls == self.outcomes)
            for column, mask in zip(columns, (right, called), strict=True):
                table[:, column] = np.bincount(self.day_index[mask], minlength=len(self.days))
        return table

    def decisive(self, rows: np.ndarray) -> np.ndarray:
        """Those of `rows` with a decisive outcome that the student scored; bool (n,)."""
        chosen: np.ndarray = (
            rows & ((self.outcomes == UP) | (self.outcomes == DOWN)) & np.isfinite(self.probability_student)
        )
        return chosen

    def rule_forecast(self, rows: np.ndarray) -> np.ndarray:
        """P(up) as the baseline's calls give it: the share of up moves among `rows` it calls alike; float (n,).

        The rule has no probabilities. These are the best it could have had, since they come from the
        very outcomes it is judged on: LONG, SHORT, not called although it has a side, and no side.
        """
        said = np.where(
            self.calls_baseline == LONG,
            0,
            np.where(self.calls_baseline == SHORT, 1, np.where(self.acted_on, 2, 3)),
        )
        called = np.bincount(said[rows], minlength=4)
        up = np.bincount(said[rows], self.outcomes[rows] == UP, minlength=4)
        share: np.ndarray = np.divide(up, called, out=np.full(4, 0.5), where=called > 0)
        return share[said]

    def against_rule(self, rule_calls: np.ndarray) -> PairedRows:
        """The same rows with the rule in the baseline's place; `rule_calls` int8 (n,)."""
        return replace(self, calls_baseline=rule_calls, probability_baseline=np.full(len(self), np.nan))

    def brier_losses(self, rows: np.ndarray, probability: np.ndarray) -> np.ndarray:
        """Squared distance of a probability, float (n,), and the outcome on these decisive rows; float (k,)."""
        losses: np.ndarray = (probability[rows] - (self.outcomes[rows] == UP)) ** 2
        return losses


@dataclass(frozen=True)
class PairedReturns:
    """Daily net returns of student and baseline on the same session dates.

    Attributes
    ----------
    session_days
        int (d,), ascending, as days since 1970-01-01.
    student, baseline
        float (d,), net of costs, zero on idle days.
    student_costs, baseline_costs
        float (d,), fees and slippage as a share of capital, already inside the returns.

    Raises
    ------
    UsageError
        Arrays that are not one-dimensional or differ in length.
    """

    session_days: np.ndarray
    student: np.ndarray
    baseline: np.ndarray
    student_costs: np.ndarray
    baseline_costs: np.ndarray

    def __post_init__(self) -> None:
        _same_length(self, "days")


def _same_length(paired: PairedRows | PairedReturns, what: str, leaving_out: str = "") -> None:
    shapes = {
        field.name: np.shape(getattr(paired, field.name))
        for field in fields(paired)
        if field.name != leaving_out
    }
    if len(set(shapes.values())) > 1 or len(shapes["session_days"]) != 1:
        said = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise UsageError(f"{said}: give student and baseline on the same {what}, one value each")
