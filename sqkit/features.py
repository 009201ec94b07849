"""Feature sets: one compiled step, called per bar by `FeatureStream` and looped by `feature_matrix`.

Research calls `feature_matrix` over a symbol's history, the live engine `FeatureStream` bar by
bar; both run the same machine code and give the same bits. The shipped sets come from
`sqkit.indicators`; `feature_set` registers a user's own.

A step ``step(state, bar_row, out)`` takes float64 arrays, C-contiguous: `state` starts as zeros
and is the step's only memory, `bar_row` is a row of `sqkit.bars`, `out` receives every column on
every bar. It writes NaN until `warmup_bars` bars were seen. Afterwards a value that is not finite
comes from a price that is not a finite positive number, an infinite or negative volume, or a
session of no length: it is passed on, the row is not scored, and the recursions (EMA, RSI, ATR)
stay broken until a new state is warmed.
"""

from __future__ import annotations

import difflib
import functools
import logging
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sqkit import indicators
from sqkit.bars import ROW_WIDTH, BarArrays
from sqkit.errors import FeatureSetMismatch, FeatureSetRefused, FeatureSetUnknown, UsageError
from sqkit.files import canonical_json, sha256_bytes
from sqkit.fingerprint import fingerprint
from sqkit.steptrial import Step, try_step

import numba  # isort: skip  (after sqkit.indicators, which sets how numba compiles)

STRATEGIES: Final = ("intraday", "swing")

_log = logging.getLogger(__name__)
_NAME: Final = re.compile(r"^[a-z][a-z0-9_]*$")
_ARRAY: Final = numba.types.float64[::1]
_ROWS: Final = numba.types.float64[:, ::1]
_STEP: Final = numba.types.void(_ARRAY, _ARRAY, _ARRAY)
_LOOP: Final = numba.types.void(numba.types.FunctionType(_STEP), _ARRAY, _ROWS, _ROWS)


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """A named set of features.

    Attributes
    ----------
    name
        Stored in the model file, with `digest`.
    columns
        Names of the features in their order.
    warmup_bars
        The set's first row with values is the bar of this number, counted from 1.
    state_size
        Number of float64 slots of the step's memory.
    strategy
        ``intraday`` or ``swing``: the kind of bars it is made for.
    function
        The step in Python; `step` is the compiled one.
    shipped
        Comes with sqkit: its machine code is cached on disk.
    """

    name: str
    columns: tuple[str, ...]
    warmup_bars: int
    state_size: int
    strategy: str
    function: Step
    shipped: bool = False

    @functools.cached_property
    def step(self) -> Step:
        """The compiled step; compiled, or read from numba's cache, when first asked for."""
        compiled: Step = compile_kernel(_STEP, self.function, cache=self.shipped)
        return compiled

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over the definition: step, functions it calls, constants, names, sizes."""
        definition = {
            "name": self.name,
            "columns": list(self.columns),
            "warmup_bars": self.warmup_bars,
            "state_size": self.state_size,
            "strategy": self.strategy,
            "step": fingerprint(self.function),
        }
        return sha256_bytes(canonical_json(definition).encode())

    def __reduce__(self) -> tuple[Any, ...]:
        return (get_feature_set, (self.name,))


class FeatureStream:
    """A symbol's features bar by bar.

    Parameters
    ----------
    features
        The set; it is compiled here, not at the first bar.
    """

    def __init__(self, features: FeatureSet) -> None:
        self.features = features
        self.bars_seen = 0
        self._step = features.step
        self._state = np.zeros(features.state_size)
        self._row = np.zeros(ROW_WIDTH)
        self._out = np.full(len(features.columns), np.nan)

    def update(self, row: np.ndarray) -> np.ndarray:
        """Features after one more bar.

        Parameters
        ----------
        row
            float64 (9,), columns of `sqkit.bars`.

        Returns
        -------
        numpy.ndarray
            float64 (k,), valid until the next update; NaN until the set is warm.
        """
        self._row[:] = row
        self._step(self._state, self._row, self._out)
        self.bars_seen += 1
        return self._out

    @property
    def latest(self) -> np.ndarray:
        """float64 (k,), features after the last update, valid until the next one."""
        return self._out

    def warm_up(self, rows: np.ndarray) -> None:
        """Let bars pass, float64 (n, 9); the same bits as one by one."""
        rows = np.require(rows, np.float64, ["C", "W"])
        _batch_loop()(self._step, self._state, rows, np.empty((len(rows), len(self._out))))
        self.bars_seen += len(rows)

    @property
    def warm(self) -> bool:
        """Whether the last update gave values."""
        return self.bars_seen >= self.features.warmup_bars

    def snapshot(self) -> bytes:
        """Everything a restarted process needs to go on; `restore` reads it."""
        head = bytes.fromhex(self.features.digest) + self.bars_seen.to_bytes(8, "little")
        return head + self._state.astype("<f8").tobytes()

    def restore(self, snapshot: bytes) -> None:
        """Go on where `snapshot` was taken.

        Raises
        ------
        FeatureSetMismatch
            It was taken with another definition of the set, or is damaged.
        """
        if len(snapshot) != 40 + 8 * len(self._state) or snapshot[:32].hex() != self.features.digest:
            raise FeatureSetMismatch(
                f"feature set {self.features.name}: the snapshot belongs to another definition of it or is damaged; "
                f"warm the stream with {self.features.warmup_bars} bars instead"
            )
        self.bars_seen = int.from_bytes(snapshot[32:40], "little")
        self._state[:] = np.frombuffer(snapshot, "<f8", offset=40)
        self._out[:] = np.nan


def feature_matrix(features: FeatureSet, bars: BarArrays | np.ndarray) -> np.ndarray:
    """Features of a whole series, the same bits as `FeatureStream` gives.

    Parameters
    ----------
    bars
        A symbol's bars, or their rows, float64 (n, 9).

    Returns
    -------
    numpy.ndarray
        float64 (n, k); row i knows bars 0 to i. The first ``warmup_bars - 1`` rows are NaN.
    """
    rows = np.require(bars.rows if isinstance(bars, BarArrays) else bars, np.float64, ["C", "W"])
    if rows.ndim != 2 or rows.shape[1] != ROW_WIDTH:
        raise UsageError(
            f"bar rows have the shape (n, {ROW_WIDTH}), not {rows.shape}; build them with sqkit.bars"
        )
    out = np.empty((len(rows), len(features.columns)))
    _batch_loop()(features.step, np.zeros(features.state_size), rows, out)
    return out


def feature_set(
    *, name: str, columns: Sequence[str], warmup_bars: int, state_size: int, strategy: str
) -> Callable[[Step], FeatureSet]:
    """Register a step of your own; the decorated name becomes its `FeatureSet`.

    The step is compiled, and run once over made-up bars with bounds checks. It may call functions
    decorated with `sqkit.indicators.kernel` and use module-level numbers, tuples and arrays: all of
    them enter its digest. Registering the very same definition again changes nothing.

    Parameters
    ----------
    name
        Lower-case letters, digits and underscores.
    columns
        Names of the outputs, in the order the step writes them.
    warmup_bars
        The step writes NaN on the first ``warmup_bars - 1`` bars.
    state_size
        Slots of memory the step needs.
    strategy
        ``intraday`` or ``swing``.

    Raises
    ------
    FeatureSetRefused
        The name is taken, the step does not compile, or it does not keep the contract.
    """

    def register(function: Step) -> FeatureSet:
        made = FeatureSet(name, tuple(columns), warmup_bars, state_size, strategy, function)
        _check_declaration(made)
        known = _registered.get(name)
        if known is not None:
            if known.digest == made.digest:
                return known
            raise FeatureSetRefused(
                f"feature set {name}: another set has this name; a changed set needs a new name, "
                f"such as {name}_2, because models name the set they were trained with",
                name=name,
            )
        try:
            checked = compile_kernel(_STEP, function, boundscheck=True)
            step = made.step
        except numba.core.errors.NumbaError as problem:
            line = next(
                (text.strip() for text in str(problem).splitlines()[1:] if text.strip()), str(problem)
            )
            raise FeatureSetRefused(
                f"feature set {name}: numba cannot compile the step: {line}", name=name
            ) from problem
        try_step(name, made.columns, warmup_bars, state_size, strategy, step, checked)
        made.digest  # noqa: B018  (refuses what a digest cannot cover)
        _registered[name] = made
        return made

    return register


def get_feature_set(name: str) -> FeatureSet:
    """The registered set of that name.

    Raises
    ------
    FeatureSetUnknown
        None is registered.
    """
    try:
        return _registered[name]
    except KeyError:
        close = difflib.get_close_matches(name, _registered, n=1)
        hint = f"did you mean {close[0]}?" if close else "import the module that registers it first"
        raise FeatureSetUnknown(
            f"feature set {name!r} is not registered ({', '.join(feature_sets())} are); {hint}", name=name
        ) from None


def feature_sets() -> list[str]:
    """Names of all registered sets, sorted."""
    return sorted(_registered)


def student_set(strategy: str) -> FeatureSet:
    """The shipped student set of a strategy, ``intraday`` or ``swing``."""
    return get_feature_set(f"{_known_strategy(strategy)}_v1")


def teacher_set(strategy: str) -> FeatureSet:
    """The shipped teacher set of a strategy: the student's columns first, then more."""
    return get_feature_set(f"{_known_strategy(strategy)}_teacher_v1")


def _known_strategy(strategy: str) -> str:
    if strategy not in STRATEGIES:
        raise UsageError(f"strategy {strategy!r}: choose {' or '.join(STRATEGIES)}", strategy=strategy)
    return strategy


def _check_declaration(made: FeatureSet) -> None:
    wrong = ""
    if not _NAME.match(made.name):
        wrong = "a name has lower-case letters, digits and underscores"
    elif not made.columns or len(set(made.columns)) != len(made.columns) or not all(made.columns):
        wrong = "columns must be named, each once"
    elif made.warmup_bars < 1 or made.state_size < 0:
        wrong = "warmup_bars is at least 1 and state_size at least 0"
    elif made.strategy not in STRATEGIES:
        wrong = f"strategy is {' or '.join(STRATEGIES)}, not {made.strategy!r}"
    if wrong:
        raise FeatureSetRefused(f"feature set {made.name}: {wrong}", name=made.name)


def compile_kernel(
    signature: Any, function: Callable[..., Any], *, cache: bool = False, boundscheck: bool = False
) -> Any:
    """Compile for one explicit signature; without a usable cache folder, compile at every start."""
    options = {"error_model": "numpy", "boundscheck": boundscheck}
    with warnings.catch_warnings():
        # numba calls functions as typed arguments experimental; the parity tests hold them.
        warnings.simplefilter("ignore", numba.core.errors.NumbaExperimentalFeatureWarning)
        if cache:
            try:
                return numba.njit(signature, cache=True, **options)(function)
            except Exception as problem:  # noqa: BLE001  (a damaged cache raises anything; a bad step raises again)
                reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
                _log.warning(
                    "compiled features are not cached (%s): every start compiles them again; "
                    "point NUMBA_CACHE_DIR to an empty writable folder",
                    reason,
                )
        return numba.njit(signature, **options)(function)


@functools.cache
def _batch_loop() -> Callable[[Step, np.ndarray, np.ndarray, np.ndarray], None]:
    # The step is a typed argument, not a captured function: only so does numba find the loop in its cache.
    compiled: Callable[[Step, np.ndarray, np.ndarray, np.ndarray], None] = compile_kernel(
        _LOOP, _loop, cache=True
    )
    return compiled


def _loop(step: Step, state: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(rows)):
        step(state, rows[i], out[i])


def _shipped(
    name: str, columns: tuple[str, ...], warmup_bars: int, strategy: str, function: Step
) -> FeatureSet:
    return FeatureSet(name, columns, warmup_bars, indicators.STATE_SIZE, strategy, function, shipped=True)


_registered: Final[dict[str, FeatureSet]] = {
    made.name: made
    for made in (
        _shipped(
            "intraday_v1",
            indicators.INTRADAY_COLUMNS,
            indicators.STUDENT_WARMUP,
            "intraday",
            indicators.intraday_step,
        ),
        _shipped(
            "swing_v1",
            indicators.SWING_COLUMNS,
            indicators.STUDENT_WARMUP,
            "swing",
            indicators.swing_step,
        ),
        _shipped(
            "intraday_teacher_v1",
            indicators.INTRADAY_TEACHER_COLUMNS,
            indicators.TEACHER_WARMUP,
            "intraday",
            indicators.intraday_teacher_step,
        ),
        _shipped(
            "swing_teacher_v1",
            indicators.SWING_TEACHER_COLUMNS,
            indicators.TEACHER_WARMUP,
            "swing",
            indicators.swing_teacher_step,
        ),
    )
}
