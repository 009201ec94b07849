"""The live student in a nautilus_trader strategy, run by its backtest engine over a file of daily bars.

    make setup-nautilus
    SENSEQUANT_STUDENT_MODEL_ENABLED=true .venv-nautilus/bin/python docs/examples/nautilus_strategy.py \\
        data/bars/1d/MSFT.parquet [decisions.csv]

In the project's folder. nautilus_trader needs pandas 2, so it has an environment of its own, with sqkit's base
install beside it. `FollowStudent` knows nothing of the backtest; a live node needs history for it before the
first bar, and a look at the flag of ``sqkit halt``, as in ``own_loop.py``.

Nautilus stamps a bar with its end, sqkit with its start; for a daily bar any instant of its session's date says
the same. Its prices have the instrument's precision: the student is asked about cents, also where the file has
more digits. A market order sent when a bar closes is filled at that close here; sqkit fills at the next open.
"""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.config import LoggingConfig, StrategyConfig
from nautilus_trader.model.currencies import USD
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue
from nautilus_trader.model.instruments import Equity
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.trading.strategy import Strategy

from sqkit.bars import VOLUME, bar_rows
from sqkit.features import FeatureStream, student_set
from sqkit.production import Score, StudentScorer
from sqkit.sessions import load_sessions
from sqkit.settings import Settings

STRATEGY, MARKET, INTERVAL = "swing", "us", "1d"  # what the student was made for; `sqkit inspect` shows it
VENUE = Venue("SIM")


class FollowStudentConfig(StrategyConfig, frozen=True):
    """What to trade, and how many shares of it."""

    instrument_id: InstrumentId
    bar_type: BarType
    shares: int = 100


class FollowStudent(Strategy):
    """LONG: buy; SHORT: sell what is held; FLAT: nothing."""

    def on_start(self) -> None:
        """Load the release; the strategy's clock, simulated or live, tells the student's age."""
        self.scorer = StudentScorer(Settings(), STRATEGY, now_ns=self.clock.timestamp_ns)
        self.stream = FeatureStream(self.scorer.feature_set or student_set(STRATEGY))
        self.sessions = load_sessions(MARKET)
        self.decisions: list[tuple[object, ...]] = []
        self.subscribe_bars(self.config.bar_type)

    def on_bar(self, bar: Bar) -> None:
        """One bar has closed."""
        values = [float(value) for value in (bar.open, bar.high, bar.low, bar.close, bar.volume)]
        rows, _, _ = bar_rows(INTERVAL, np.array([bar.ts_event]), np.array([values]), self.sessions)
        for row in rows:  # none where there is no session
            features = self.stream.update(row)
            if self.stream.warm:
                score = self.scorer.score(features, self.config.instrument_id.symbol.value)
                self.decisions.append((bar.ts_event, *score))
                self.follow(score)

    def follow(self, score: Score) -> None:
        """Turn a decision into an order, or none."""
        instrument_id = self.config.instrument_id
        if score.direction == "LONG" and self.portfolio.is_flat(instrument_id):
            shares = Quantity.from_int(self.config.shares)
            self.submit_order(self.order_factory.market(instrument_id, OrderSide.BUY, shares))
        elif score.direction == "SHORT":
            self.close_all_positions(instrument_id)


def equity(symbol: str) -> Equity:
    """A share that trades in cents, at five basis points a fill."""
    return Equity(
        instrument_id=InstrumentId(Symbol(symbol), VENUE),
        raw_symbol=Symbol(symbol),
        currency=USD,
        price_precision=2,
        price_increment=Price.from_str("0.01"),
        lot_size=Quantity.from_int(1),
        ts_event=0,
        ts_init=0,
        taker_fee=Decimal("0.0005"),
    )


def nautilus_bars(file: Path, share: Equity, bar_type: BarType) -> list[Bar]:
    """Bars of a Parquet file as sqkit stores them, stamped with the close of their session."""
    frame = pd.read_parquet(file)
    stamps = pd.DatetimeIndex(frame["timestamp"]).as_unit("ns").asi8
    ohlcv = frame[["open", "high", "low", "close", "volume"]].to_numpy(dtype=float)
    rows, close_ns, _ = bar_rows(INTERVAL, stamps, ohlcv, load_sessions(MARKET))
    return [
        Bar(bar_type, *map(share.make_price, row[:VOLUME]), share.make_qty(row[VOLUME]), close, close)
        for row, close in zip(rows.tolist(), close_ns.tolist(), strict=True)
    ]


def main(file: str, decisions_file: str | None = None) -> None:
    """Run the strategy, print its positions, the cash at the end and what the student said how often."""
    share = equity(Path(file).stem)
    bar_type = BarType.from_str(f"{share.id}-1-DAY-LAST-EXTERNAL")
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(log_level="ERROR")))
    engine.add_venue(VENUE, OmsType.NETTING, AccountType.CASH, [Money(100_000, USD)], base_currency=USD)
    engine.add_instrument(share)
    engine.add_data(nautilus_bars(Path(file), share, bar_type))
    strategy = FollowStudent(FollowStudentConfig(instrument_id=share.id, bar_type=bar_type))
    engine.add_strategy(strategy)
    engine.run()
    print(strategy.scorer.note or f"student {strategy.scorer.version} was asked")
    decisions = pd.DataFrame(strategy.decisions, columns=["time_ns", *Score._fields])
    positions = engine.trader.generate_positions_report()
    print(
        positions.filter(
            ["ts_opened", "ts_closed", "avg_px_open", "avg_px_close", "realized_pnl"]
        ).to_string()
    )
    print(engine.trader.generate_account_report(VENUE).tail(1)["total"].to_string())
    print(decisions.groupby(["direction", "reason"]).size().to_string())
    if decisions_file:
        decisions.to_csv(decisions_file, index=False)
    engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
