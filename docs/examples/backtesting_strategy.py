"""The live student in a backtesting.py strategy: the release of the slot, over stored daily bars.

    SENSEQUANT_STUDENT_MODEL_ENABLED=true python docs/examples/backtesting_strategy.py MSFT [decisions.csv]

In the project's folder; bars come from ``data/bars/1d``. Needs the research extra and backtesting.py. The
student decides alone: all in at LONG, out at SHORT, nothing at FLAT, orders filled at the next open. sqkit
itself lets a student only strengthen or weaken the baseline rule, so these figures are not those of the report.

The scorer's clock is the bar's: a student grows too old here on the bars on which it would live. Bars from before
its training's end are no test of it; its window is in ``sqkit inspect``.
"""

from __future__ import annotations

import sys
import warnings

import pandas as pd

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its plotting libraries warn while they load
    from backtesting import Backtest, Strategy

from sqkit.bars import VOLUME, BarArrays
from sqkit.features import FeatureStream
from sqkit.production import Score, StudentScorer
from sqkit.production.engine_time import SetClock
from sqkit.research.marketdata import load_symbol
from sqkit.sessions import MARKETS
from sqkit.settings import Settings

STRATEGY, MARKET, INTERVAL = "swing", "us", "1d"  # what the student was made for; `sqkit inspect` shows it


class FollowStudent(Strategy):
    """LONG: buy; SHORT: sell what is held."""

    bars: BarArrays
    scorer: StudentScorer
    clock: SetClock

    def init(self) -> None:
        """No bar has come yet."""
        self.stream = FeatureStream(self.scorer.feature_set)
        self.decisions: list[tuple[object, ...]] = []

    def next(self) -> None:
        """One bar has closed; the first call comes with the second bar."""
        while self.stream.bars_seen < len(self.data):
            features = self.stream.update(self.bars.rows[self.stream.bars_seen])
        if not self.stream.warm:
            return
        self.clock.set_ns = int(self.bars.available_ns[len(self.data) - 1])
        score = self.scorer.score(features, self.bars.symbol)
        self.decisions.append((self.data.index[-1], *score))
        if score.direction == "LONG" and not self.position:
            self.buy(size=0.95)  # of the equity; an open far above this close could not be paid for otherwise
        elif score.direction == "SHORT":
            self.position.close()


def main(symbol: str, decisions_file: str | None = None) -> None:
    """Run the strategy, print its statistics and what the student said how often."""
    clock = SetClock()
    scorer = StudentScorer(Settings(), STRATEGY, now_ns=clock.now_ns)
    if not scorer.ready:
        sys.exit(f"no student to test ({scorer.refusal}): {scorer.note}")
    bars, _ = load_symbol("data/bars/1d", symbol, interval=INTERVAL, market=MARKET)
    FollowStudent.bars, FollowStudent.scorer, FollowStudent.clock = bars, scorer, clock
    frame = pd.DataFrame(
        bars.rows[:, : VOLUME + 1],
        columns=["Open", "High", "Low", "Close", "Volume"],
        index=pd.to_datetime(bars.timestamp_ns, utc=True).tz_convert(MARKETS[MARKET].zone).tz_localize(None),
    )
    stats = Backtest(frame, FollowStudent, cash=100_000, commission=0.0005, finalize_trades=True).run()
    decisions = pd.DataFrame(stats["_strategy"].decisions, columns=["date", *Score._fields])
    print(stats.filter(regex="^[^_]").to_string())
    print(decisions.groupby(["direction", "reason"]).size().to_string())
    if decisions_file:
        decisions.to_csv(decisions_file, index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
