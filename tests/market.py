"""A planted market on disk, its teacher and its students: the real chain, for tests that need one.

Plain functions, no notebook. `build_market` trains, `validate` backtests and writes every
artifact of a validation; the fixtures `planted` and `validated` of conftest.py call them once.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sqkit.artifacts import VALIDATION_ARTIFACTS
from sqkit.bars import BarArrays, make_bar_arrays
from sqkit.checklist import Policy
from sqkit.production.replay import replay_model
from sqkit.records import iso_date
from sqkit.research.backtest import ValidationBacktest, Window
from sqkit.research.decision import decide
from sqkit.research.distil import train_student
from sqkit.research.planted import planted_market, write_market
from sqkit.research.sources import load_bars
from sqkit.research.teacher import train_teacher
from sqkit.research.validation import run_validation
from sqkit.research.validation_plan import plan_validation
from sqkit.sessions import load_sessions
from sqkit.settings import Settings
from sqkit.student import StudentModel
from sqkit.trading_rules import TradingRules

VERSION = "20120101_000000"
KINDS = ("gradient_boosting", "logistic")
DECIDED_AT = "2025-01-12T15:30:00Z"


@dataclass(frozen=True)
class Market:
    """What lies in the folder of a planted market.

    Attributes
    ----------
    bars
        Series by symbol, as loaded from `location`.
    training_end, last_day
        Session dates as days since 1970-01-01.
    students
        Model file by kind; all are students of the one teacher.
    """

    folder: Path
    location: Path
    bars: dict[str, BarArrays]
    strategy: str
    training_end: int
    last_day: int
    teacher: Path
    students: dict[str, Path]

    @property
    def window(self) -> Window:
        """Everything after the training window."""
        return Window(self.training_end + 1, self.last_day)

    def model(self, kind: str = "gradient_boosting") -> StudentModel:
        """A student, loaded."""
        return StudentModel.load(self.students[kind])

    def session(self, number: int) -> str:
        """ISO date of the session so many sessions after the training window (0: the first)."""
        days = np.unique(next(iter(self.bars.values())).session_days)
        return iso_date(days[days > self.training_end][number])


def build_market(
    folder: Path,
    *,
    seed: int = 1,
    symbols: int = 6,
    sessions: int = 600,
    training: int = 400,
    edge: float = 0.5,
    strategy: str = "swing",
    interval: str = "1d",
    horizon_bars: int = 5,
    kinds: tuple[str, ...] = KINDS,
) -> Market:
    """Simulate, store, train a teacher on the first `training` sessions and a student of each kind."""
    location = write_market(planted_market(seed, symbols, sessions, interval, edge), folder / "bars")
    names = sorted(path.stem for path in location.glob("*.parquet"))
    bars, _ = load_bars(str(location), names, interval=interval, market="us")
    days = np.unique(next(iter(bars.values())).session_days)
    version = folder / "models" / VERSION
    train_teacher(
        bars,
        strategy=strategy,
        market="us",
        interval=interval,
        first_day=int(days[0]),
        last_day=int(days[training - 1]),
        horizon_bars=horizon_bars,
        seed=0,
        output_dir=version / "teacher",
        version=VERSION,
        bars_location=str(location),
        created_by="test",
    )
    students = {}
    for kind in kinds:
        place = version / (f"student_{kind}" if students else "student")
        train_student(
            version / "teacher",
            bars,
            model_type=kind,
            output_dir=place,
            version=VERSION,
            seed=0,
            created_by="test",
        )
        students[kind] = place / "student_model.onnx"
    return Market(
        folder,
        location,
        bars,
        strategy,
        int(days[training - 1]),
        int(days[-1]),
        version / "teacher",
        students,
    )


def settings_of(folder: Path, **changes: Any) -> Settings:
    """Settings by default, no .env read, whose places lie in `folder`."""
    places = {
        "student_model_path": str(folder / "production" / "student_model.onnx"),
        "data_dir": str(folder / "data"),
        "reports_dir": str(folder / "reports"),
    }
    return Settings(_env_file=None, **(places | changes))


def rules_of(market: Market, **changes: Any) -> TradingRules:
    """Rules of the default settings; names of `StrategyParameters` change its parameters."""
    about = market.model(next(iter(market.students))).metadata
    rules = TradingRules.from_settings(
        settings_of(market.folder),
        strategy=market.strategy,
        market="us",
        horizon_bars=about["horizon_bars"],
        dead_zone=about["dead_zone"],
    )
    ours = {name: value for name, value in changes.items() if hasattr(rules, name)}
    parameters = replace(
        rules.parameters, **{name: value for name, value in changes.items() if name not in ours}
    )
    return replace(rules, parameters=parameters, **ours)


def validate(
    market: Market,
    output: Path,
    *,
    kind: str = "gradient_boosting",
    settings: Settings | None = None,
    **plan: Any,
) -> ValidationBacktest:
    """Plan and run a validation of a student; every artifact goes to `output`."""
    settings = settings or settings_of(output.with_name(f"{output.name}@home"))
    asked = plan_validation(str(market.students[kind]), settings=settings, **plan)
    return run_validation(asked, output, replay=replay_model)


def policy_of(**changes: Any) -> Policy:
    """The policy of the default settings with thresholds in place."""
    return Policy.from_settings(Settings(_env_file=None), **changes)


def verdict(validated: Path, output: Path, **policy: Any) -> dict[str, Any]:
    """The checklist of a validation under the default policy with `policy` in place."""
    return decide(validated, output, policy_of(**policy), DECIDED_AT)


def copy_validation(validated: Path, target: Path) -> Path:
    """A copy of a validation's artifacts, for a test that changes them."""
    for name in VALIDATION_ARTIFACTS:
        source = validated / name
        if source.is_dir():
            shutil.copytree(source, target / name)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name)
    return target


def arrays_of(frames: dict[str, pd.DataFrame], interval: str = "1d") -> dict[str, BarArrays]:
    """Canonical frames as series, without a file between."""
    sessions = load_sessions("us")
    arrays = {}
    for symbol, frame in frames.items():
        stamps = frame["timestamp"].dt.as_unit("ns").astype("int64").to_numpy()
        ohlcv = frame[["open", "high", "low", "close", "volume"]].to_numpy()
        arrays[symbol], outside = make_bar_arrays(symbol, interval, "us", stamps, ohlcv, sessions)
        assert outside == 0, f"{symbol}: {outside} bars out of session"
    return arrays


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by relative path, with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
