"""The live student in a loop of one's own: bars in, decisions out. Needs sqkit's base install only.

    SENSEQUANT_STUDENT_MODEL_ENABLED=true python docs/examples/own_loop.py MSFT < bars.csv

In the project's folder, with daily bars of one symbol, oldest first, under the header
``date,open,high,low,close,volume``; a pipe that stays open is a live feed. Once enough bars have come to warm
the features, it prints for each its date and the `Score`: direction, confidence, P(up), version, reason.

A scorer never raises and a loop needs no second path: without a release, or with one that may not speak, each
decision is FLAT and its reason says why (`sqkit.records.REASONS`). It looks for a halt at every row; a promotion
or rollback reaches it by ``refresh``, here before each bar. The reference engine, `sqkit.production.Engine`, does
that beside its ticks, and knows positions, gaps, late bars and restarts.
"""

import csv
import datetime as dt
import sys

import numpy as np

from sqkit.bars import bar_rows
from sqkit.features import FeatureStream, student_set
from sqkit.production import StudentScorer
from sqkit.sessions import load_sessions
from sqkit.settings import Settings

STRATEGY, MARKET, INTERVAL = "swing", "us", "1d"  # what the student was made for; `sqkit inspect` shows it

scorer = StudentScorer(Settings(), STRATEGY)
stream = FeatureStream(scorer.feature_set or student_set(STRATEGY))
sessions = load_sessions(MARKET)
print(scorer.note or f"student {scorer.version} is served", file=sys.stderr)

for bar in csv.DictReader(sys.stdin):
    # A bar is stamped with its start; a daily one begins at midnight of its session's date, in the market's zone.
    start = dt.datetime.fromisoformat(bar["date"]).replace(tzinfo=sessions.zone)
    ohlcv = [float(bar[name]) for name in ("open", "high", "low", "close", "volume")]
    stamps = np.array([int(start.timestamp()) * 10**9])
    for row in bar_rows(INTERVAL, stamps, np.array([ohlcv]), sessions)[0]:  # none where there is no session
        scorer.refresh()
        score = scorer.score(stream.update(row), sys.argv[1])
        if stream.warm:
            print(bar["date"], *score, sep=",", flush=True)
