"""Fee schedules: published golden values, effective dates, the compiled function, refusals."""

from __future__ import annotations

import datetime as dt
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqkit.costs import BUY, RATE_NAMES, SELL, fee_schedule, fees
from sqkit.errors import SettingsError
from sqkit.records import session_day
from sqkit.sessions import MARKETS

RECENT = dt.date(2025, 1, 10)


def test_delivery_golden_value() -> None:
    """5,000 shares at 1,000 bought and sold for delivery cost 11,124.06, to the paisa."""
    schedule = fee_schedule("nse_cnc")
    bought, sold = (fees(schedule, side, 1000.0, 5000, RECENT) for side in (BUY, SELL))
    assert (bought, sold) == (5937.03, 5187.03)
    assert round(bought + sold, 10) == 11124.06


def test_intraday_golden_value() -> None:
    """Rs 1,00,000 in and out within a session costs 82.68, to the paisa."""
    schedule = fee_schedule("nse_mis")
    bought, sold = (fees(schedule, side, 100.0, 1000, RECENT) for side in (BUY, SELL))
    assert (bought, sold) == (30.34, 52.34)
    assert round(bought + sold, 10) == 82.68


def test_intraday_brokerage_is_capped() -> None:
    """Brokerage is 0.03 % of a small order and 20 rupees of a large one."""
    schedule = fee_schedule("nse_mis")
    # 0.03 % of 10,000 is 3; transaction .307, regulator .01, stamp .3, GST 18 % of 3.317
    assert fees(schedule, BUY, 100.0, 100, RECENT) == pytest.approx(
        3 + 0.307 + 0.01 + 0.3 + 0.18 * 3.317, abs=0.005
    )
    large = fees(schedule, BUY, 100.0, 100_000, RECENT)
    assert large == pytest.approx(20 + 307 + 10 + 300 + 0.18 * 337, abs=0.005)


@pytest.mark.parametrize(
    ("before", "change"),
    [
        ("2024-09-30", "transaction charge 0.00332 % to 0.00307 %"),
        ("2023-03-31", "transaction charge 0.00345 % to 0.00335 %"),
        ("2020-12-31", "transaction charge 0.00325 % to 0.00345 %"),
        ("2020-06-30", "stamp duty of a state to one rate"),
        ("2017-06-30", "service tax 15 % to GST 18 %"),
        ("2012-06-30", "delivery transaction tax 0.125 % to 0.1 %"),
    ],
)
def test_rates_change_on_their_date(before: str, change: str) -> None:
    """The last day of the old rates and the first of the new ones differ; each holds on its own side."""
    schedule = fee_schedule("nse_cnc")
    last_old = session_day(dt.date.fromisoformat(before))
    rows = schedule.rows_on(np.array([last_old - 1, last_old, last_old + 1, last_old + 2]))
    assert rows[0] == rows[1] == rows[2] - 1, change
    assert rows[2] == rows[3], change


def test_known_rates_of_some_dates() -> None:
    """What was charged in 2012, 2019 and 2021 is what the schedules say."""
    place = {name: RATE_NAMES.index(name) for name in RATE_NAMES}
    early = fee_schedule("nse_cnc").rates_on(session_day(dt.date(2012, 6, 29)))
    assert early[place["transaction_tax_buy"]] == 0.00125
    assert early[place["service_tax"]] == 0.1236
    before_stamp = fee_schedule("nse_mis").rates_on(session_day(dt.date(2019, 5, 2)))
    assert before_stamp[place["stamp_sell"]] == before_stamp[place["stamp_buy"]] == 0.00002
    assert before_stamp[place["regulator"]] == pytest.approx(10 / 1e7)
    after = fee_schedule("nse_mis").rates_on(session_day(dt.date(2021, 2, 1)))
    assert after[place["transaction"]] == pytest.approx(0.0000345)
    assert after[place["stamp_sell"]] == 0.0
    assert after[place["regulator"]] == pytest.approx(5 / 1e7)


def test_dates_before_the_first_row_use_it() -> None:
    """A date before every change is charged the oldest known rates, not nothing."""
    assert fees(fee_schedule("nse_cnc"), BUY, 100.0, 100, dt.date(1969, 12, 1)) > 0.0


def test_transaction_tax_is_rounded_to_the_rupee() -> None:
    """0.025 % of 2,000 is half a rupee and rounds up; of 1,990 it rounds away."""
    schedule = fee_schedule("nse_mis")
    half, below = (fees(schedule, SELL, price, 1, RECENT) for price in (2000.0, 1990.0))
    other = [0.0003 + 0.0000307 + 0.000001, 0.18]
    expected = [price * other[0] * (1 + other[1]) for price in (2000.0, 1990.0)]
    assert half == pytest.approx(expected[0] + 1.0, abs=0.0051)
    assert below == pytest.approx(expected[1], abs=0.0051)


def test_flat_schedules() -> None:
    """Basis points a side, whatever the date; a share of a cent is not rounded."""
    assert fees(fee_schedule("flat_bps:7.5"), SELL, 33.37, 3, RECENT) == pytest.approx(33.37 * 3 * 7.5e-4)
    assert fees(fee_schedule("flat_bps:0"), BUY, 100.0, 100, RECENT) == 0.0
    us = fee_schedule("us_flat")
    assert fees(us, BUY, 50.0, 10, dt.date(2005, 3, 1)) == fees(us, SELL, 50.0, 10, RECENT) > 0.0


def test_every_market_names_known_schedules() -> None:
    """The schedules a market names exist."""
    for market in MARKETS.values():
        for name in (market.intraday_cost_schedule, market.swing_cost_schedule):
            assert fee_schedule(name).name == name


@pytest.mark.parametrize(
    "name", ["nse", "flat_bps", "flat_bps:", "flat_bps:-1", "flat_bps:nan", "flat_bps:inf", ""]
)
def test_an_unknown_schedule_is_refused_in_one_line(name: str) -> None:
    """The refusal names the variable and the schedules that exist."""
    with pytest.raises(SettingsError, match="SENSEQUANT_COST_SCHEDULE") as refused:
        fee_schedule(name)
    assert "\n" not in str(refused.value)
    assert "nse_mis" in str(refused.value)


def test_a_schedule_describes_itself_in_json() -> None:
    """Name, notes and dated rates are strict JSON, an infinite cap included."""
    for name in ("nse_mis", "nse_cnc", "us_flat", "flat_bps:3"):
        text = json.dumps(fee_schedule(name).describe(), allow_nan=False)
        assert json.loads(text)["name"] == name
    assert any("Maharashtra" in note for note in fee_schedule("nse_mis").notes)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["nse_mis", "nse_cnc", "us_flat", "flat_bps:10"]),
    side=st.sampled_from([BUY, SELL]),
    price=st.floats(1.0, 50_000.0),
    quantity=st.integers(1, 10_000),
    more=st.integers(1, 10_000),
    day=st.dates(dt.date(2000, 1, 1), dt.date(2026, 1, 1)),
)
def test_more_shares_never_cost_less(
    name: str, side: int, price: float, quantity: int, more: int, day: dt.date
) -> None:
    """Charges are not negative and do not fall when the order grows."""
    schedule = fee_schedule(name)
    small, large = (fees(schedule, side, price, size, day) for size in (quantity, quantity + more))
    assert 0.0 <= small <= large
