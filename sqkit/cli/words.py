"""What every command of the `sqkit` command line shares: the app, types of options, ways to print.

The modules beside this one add their commands to `app`, or to the group they belong to.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import App, Parameter

import sqkit
from sqkit.files import canonical_json

if TYPE_CHECKING:
    from sqkit.research.requests import Thresholds

Strategy = Literal["intraday", "swing"]
Interval = Literal["1d", "1m", "5m"]
Market = Literal["nse", "us", "nse_index", "us_index"]
ModelType = Literal["logistic", "mlp", "gradient_boosting", "random_forest"]
Words = Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())]
Json = Annotated[bool, Parameter(name="--json", negative=())]
Switch = Annotated[bool, Parameter(negative=())]

app = App(
    name="sqkit",
    help="May this model trade? Train, validate, report and decide.",
    version=sqkit.__version__,
    help_format="plaintext",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)


def group(name: str, about: str) -> App:
    """A command that has commands of its own, such as ``sqkit data``."""
    below = App(name=name, help=about, result_action="return_value")
    app.command(below)
    return below


@Parameter(name="*")
@dataclass(frozen=True)
class ThresholdFlags:
    """Promotion thresholds in place of the settings.

    Parameters
    ----------
    precision_uplift_threshold
        In place of SENSEQUANT_PROMOTION_MIN_PRECISION_UPLIFT.
    hit_ratio_uplift_threshold
        In place of SENSEQUANT_PROMOTION_MIN_HIT_RATIO_UPLIFT.
    sharpe_uplift_threshold
        In place of SENSEQUANT_PROMOTION_MIN_SHARPE_UPLIFT.
    """

    precision_uplift_threshold: float | None = None
    hit_ratio_uplift_threshold: float | None = None
    sharpe_uplift_threshold: float | None = None

    def given(self) -> Thresholds:
        """As the jobs take them."""
        from sqkit.research.requests import Thresholds

        return Thresholds(
            self.precision_uplift_threshold, self.hit_ratio_uplift_threshold, self.sharpe_uplift_threshold
        )


@Parameter(name="*")
@dataclass(frozen=True)
class HoldoutFlags:
    """Leave to see sealed days.

    Parameters
    ----------
    open_holdout
        Open sealed days for this training; needs --reason and is kept in the trial ledger.
    reason
        Why sealed days are opened.
    """

    open_holdout: Annotated[bool, Parameter(negative=())] = False
    reason: str = ""


SEALED: Final = HoldoutFlags()
"""No flag given: sealed days stay sealed."""

_RED: Final = ("PROBLEM", "DIFFERS")

AS_SET: Final = ThresholdFlags()
"""No flag given: every threshold as the settings say."""


def show(value: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    """Print a result: as JSON, or its lines; on a terminal what must not be overlooked is red."""
    if not as_json and sys.stdout.isatty():
        lines = [f"\033[31m{line}\033[0m" if line.lstrip().startswith(_RED) else line for line in lines]
    text = canonical_json(value) if as_json else "\n".join([*lines, ""])
    print(text, end="", flush=True)


def report_verdict(verdict: Any, as_json: bool) -> int:
    """Print verdict, reason and report path last; the exit code is the verdict's."""
    show(verdict.to_dict(), as_json, verdict.lines())
    return int(verdict.exit_code)
