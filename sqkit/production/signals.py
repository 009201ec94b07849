"""What an engine says of a bar: a signal, and the orders it comes with."""

from __future__ import annotations

from typing import NamedTuple


class Order(NamedTuple):
    """An order for the next open.

    Attributes
    ----------
    side
        ``BUY`` or ``SELL``.
    quantity
        Whole shares, positive.
    reason
        ``entry``, or why the position is left (`sqkit.records.EXIT_REASONS`).
    """

    symbol: str
    side: str
    quantity: int
    reason: str


class Signal(NamedTuple):
    """What is wanted after a bar.

    Attributes
    ----------
    bar_time, session_date
        Start of the bar in UTC nanoseconds; its session date as days since 1970-01-01.
    direction, baseline_strength
        The rule's side and strength, before the student.
    strength
        After the student's factor, clipped to [0, 1].
    target
        Signed position wanted after this bar, in [-1, 1].
    orders
        What to send for the next open: at most one that closes and one that opens.
    prediction_source
        ``student_model`` exactly when a factor other than 1 was applied.
    student_prediction, student_confidence, student_model_version, reason
        What the student said, or why it said nothing.
    prediction_id
        Names this decision in the telemetry.
    """

    symbol: str
    bar_time: int
    session_date: int
    direction: str
    baseline_strength: float
    strength: float
    target: float
    orders: tuple[Order, ...]
    prediction_source: str
    student_prediction: str
    student_confidence: float
    student_model_version: str
    reason: str
    prediction_id: str
