"""The market of ``make tour``: planted bars in three chapters, and the dates on which things happen in it.

In the first chapter nothing inside a bar tells what comes next; a student can only learn that moves go on. From the
second on a hidden flow shows in where each bar closes, and a student can read it. In the third, which is
traded live, that sign turns round after a while; moves still go on.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from sqkit.records import iso_date
from sqkit.research.planted import planted_market, write_market
from sqkit.sessions import load_sessions

MARKET: Final = "us"
INTERVAL: Final = "1d"
SYMBOLS: Final = 8
HORIZON_BARS: Final = 1
CHAPTER_SESSIONS: Final = 500
TRAINING_SESSIONS: Final = 300
LIVE_SESSIONS: Final = 300
BREAKS_AFTER: Final = 40
"""Live sessions before the signal turns round."""

SEED: Final = 3
EDGE: Final = 0.9
"""With most seeds both students earn their promotion under the default policy; with this one the story is short."""


@dataclass(frozen=True)
class Chapter:
    """When a student is trained, judged and promoted.

    Attributes
    ----------
    version
        Its tag: the evening of the last day.
    kind
        What is trained.
    start, training_end, judged_from, end
        Session dates.
    evening
        What the time is when it is trained, judged and signed, UTC.
    """

    version: str
    kind: str
    start: str
    training_end: str
    judged_from: str
    end: str
    evening: dt.datetime

    @property
    def folder(self) -> str:
        """Where teacher and student lie."""
        return f"data/models/{self.version}"

    @property
    def model(self) -> str:
        """The student's file."""
        return f"{self.folder}/student/student_model.onnx"


@dataclass(frozen=True)
class Story:
    """The market on disk, and its dates.

    Attributes
    ----------
    bars
        Folder of the bars.
    symbols
        What is traded.
    first, second
        The two students.
    live_from, breaks_on
        Session days: of the first live bar, and of the first on which the signal points the wrong way.
    """

    bars: str
    symbols: tuple[str, ...]
    first: Chapter
    second: Chapter
    live_from: int
    breaks_on: int


def plant(root: Path) -> Story:
    """Simulate the market and store its bars where sqkit looks for them."""
    sessions = 2 * CHAPTER_SESSIONS + LIVE_SESSIONS
    live = 2 * CHAPTER_SESSIONS
    frames = planted_market(
        SEED,
        SYMBOLS,
        sessions,
        INTERVAL,
        EDGE,
        live + BREAKS_AFTER,
        shown_from=CHAPTER_SESSIONS,
        market=MARKET,
    )
    bars = f"data/bars/{INTERVAL}"
    write_market(frames, root / bars)
    zone = load_sessions(MARKET).zone
    stamps = next(iter(frames.values()))["timestamp"].dt.tz_convert(str(zone))
    days = stamps.dt.tz_localize(None).to_numpy().astype("datetime64[D]").astype(np.int64)
    return Story(
        bars,
        tuple(frames),
        _chapter(days[:CHAPTER_SESSIONS], "logistic"),
        _chapter(days[CHAPTER_SESSIONS:live], "gradient_boosting"),
        int(days[live]),
        int(days[live + BREAKS_AFTER]),
    )


def _chapter(days: np.ndarray, kind: str) -> Chapter:
    end = iso_date(int(days[-1]))
    evening = dt.datetime.fromisoformat(f"{end}T23:00:00+00:00")
    return Chapter(
        f"{evening:%Y%m%d_%H%M%S}",
        kind,
        iso_date(int(days[0])),
        iso_date(int(days[TRAINING_SESSIONS - 1])),
        iso_date(int(days[TRAINING_SESSIONS])),
        end,
        evening,
    )
