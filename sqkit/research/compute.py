"""Running one function over many symbols, in a fixed order whatever runs it.

The backtest hands over a function of one symbol and gets small results back in the order
of the symbols, so the numbers never depend on who finished first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from sqkit.research.progress import progress_over

Result = TypeVar("Result")


def map_symbols(
    function: Callable[[str], Result], symbols: Sequence[str], *, label: str
) -> dict[str, Result]:
    """Apply `function` to every symbol and return the results by symbol, in the given order.

    A symbol that fails fails the run: its error names it, nothing is dropped in silence.
    """
    return {symbol: function(symbol) for symbol in progress_over(symbols, label)}
