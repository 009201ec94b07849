"""Commands about the live engine: ``sqkit replay`` and ``sqkit explain``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqkit.cli.words import Interval, Json, Market, Strategy, Words, app, show
from sqkit.errors import UsageError

if TYPE_CHECKING:
    from sqkit.production.scorer import StudentScorer
    from sqkit.settings import Settings


@app.command
def replay(
    *,
    bars: str,
    strategy: Strategy,
    symbols: Words = None,
    start: str = "",
    end: str = "",
    interval: Interval | None = None,
    market: Market | None = None,
    model: str = "",
    speed: str = "max",
    telemetry: str = "",
    json: Json = False,
) -> int:
    """Feed stored bars to the live engine as a feed would, and write live telemetry.

    What the strategy's slot serves is asked, or with --model a student that needs no release. Its age is
    counted to the time at which it was validated. Nothing in production is touched.

    Parameters
    ----------
    bars
        Folder or URL of the bars.
    strategy
        intraday or swing.
    symbols
        Symbols, separated by spaces; by default every one that lies there.
    start
        First session date that is traded; bars before it warm the engine. By default the first stored.
    end
        Last session date, included; by default the last bar's.
    interval
        Length of a bar; by default the student's, else 1m for intraday and 1d for swing.
    market
        By default the student's, else the settings'.
    model
        A student's ONNX file, in place of what is served.
    speed
        max, or so many times as fast as the market, such as 60.
    telemetry
        Folder for the records; by default data/replay/telemetry, apart from what engines write.
    json
        Print the outcome as JSON.
    """
    from sqkit.production.engine import Config, Engine
    from sqkit.production.engine_time import SetClock
    from sqkit.production.replay import replay_feed
    from sqkit.production.telemetry import TelemetryWriter
    from sqkit.records import TRADE_CLOSED
    from sqkit.research.marketdata import available_symbols
    from sqkit.research.sources import load_bars
    from sqkit.settings import Settings

    settings = Settings()
    pace = _pace(speed)
    scorer = _candidate(model, strategy, settings) if model else _released(strategy, settings)
    about = scorer.admission.model.metadata if scorer.admission.model else {}
    config = Config(
        strategy,
        tuple(symbols or available_symbols(bars)),
        interval=interval or about.get("interval", ""),
        calendar=market or about.get("market", ""),
        name="replay",
    ).filled(settings)
    loaded, notes = load_bars(bars, list(config.symbols), interval=config.interval, market=config.calendar)
    first, last = _window(loaded, start, end)
    places = {name: series.window(first, last) for name, series in loaded.items()}
    folder = Path(telemetry or Path(settings.data_dir) / "replay" / "telemetry")
    began = min(int(series.timestamp_ns[0]) for series in loaded.values())
    clock, closed = SetClock(began), []
    with Engine(
        config,
        settings,
        clock=clock,
        scorer=scorer,
        sink=TelemetryWriter(folder, config.name, began),
        on_trade=lambda event, _symbol, trade: closed.append(trade) if event == TRADE_CLOSED else None,
        keep_state=False,
        watch=False,
    ) as engine:
        engine.warm_up({name: series.slice(0, places[name][0]) for name, series in loaded.items()})
        fed = replay_feed(
            engine, clock, {name: series.slice(*places[name]) for name, series in loaded.items()}, speed=pace
        )
        health = engine.health()
    net = sum(trade["net_pnl"] for trade in closed)
    done = {
        "bars": fed,
        "closed_trades": len(closed),
        "health": health,
        "net_pnl": net,
        "notes": notes,
        "refusal": scorer.refusal or None,
        "student_model_version": scorer.version or None,
        "telemetry": str(folder),
    }
    student = scorer.version if scorer.ready else f"none ({scorer.refusal}: {scorer.note})"
    lines = [
        *notes,
        f"student: {student}",
        *(f"refused or remarked: {cause}: {count}" for cause, count in health["counts"].items()),
        f"{fed:,} bars of {len(loaded)} symbols, {len(closed)} closed trades, net P&L {net:,.2f}",
        f"telemetry: {folder}",
    ]
    show(done, json, lines)
    return 0


@app.command
def explain(prediction_id: str, /, *, telemetry: str = "", json: Json = False) -> int:
    """Say why a decision was made: bars, features, score, strategy step, release and approvers.

    The model is asked again; exit 1 when it says something else than the record.

    Parameters
    ----------
    prediction_id
        As records and signals have it: STRATEGY/SYMBOL/BAR-TIME.
    telemetry
        Folder of the records; by default data/telemetry.
    json
        Print everything as JSON.
    """
    from sqkit.production.explain import explain as reasons
    from sqkit.settings import Settings

    found = reasons(prediction_id, Settings(), telemetry=Path(telemetry) if telemetry else None)
    show(found, json, _reason_lines(found))
    return 1 if found["scored_again"]["status"] == "different" else 0


def _pace(speed: str) -> float | None:
    if speed == "max":
        return None
    try:
        pace = float(speed)
    except ValueError:
        pace = 0.0
    if not 0.0 < pace < float("inf"):
        raise UsageError(f"--speed {speed}: max, or a number above 0 such as 60", speed=speed)
    return pace


def _candidate(model: str, strategy: str, settings: Settings) -> StudentScorer:
    """A student from its file, dated by its own version: a replay asks what it says, not how old it is."""
    from sqkit.production.serving import challenger
    from sqkit.student import StudentModel
    from sqkit.versions import version_ns

    version = StudentModel.load(model).version
    return challenger(settings, Path(model), strategy, lambda: version_ns(version))


def _released(strategy: str, settings: Settings) -> StudentScorer:
    """What the slot serves, dated by its decision."""
    import datetime as dt

    from sqkit.production.admission import admit
    from sqkit.production.scorer import StudentScorer

    admission = admit(settings, strategy)
    decision = admission.release.checklist if admission.release else None
    at = dt.datetime.fromisoformat(decision["timestamp"]) if decision else dt.datetime.now(dt.UTC)
    return StudentScorer(
        settings, strategy, now_ns=lambda: int(at.timestamp()) * 1_000_000_000, admission=admission
    )


def _window(loaded: dict[str, Any], start: str, end: str) -> tuple[int, int]:
    from sqkit.research.sources import parse_day

    days = [series.session_days for series in loaded.values()]
    first = parse_day(start, "--start") if start else min(int(one[0]) for one in days)
    last = parse_day(end, "--end") if end else max(int(one[-1]) for one in days)
    if first > last:
        raise UsageError(f"--start {start} lies after --end {end}")
    return first, last


def _reason_lines(found: dict[str, Any]) -> list[str]:
    record, strategy, again = found["record"], found["strategy"], found["scored_again"]
    release, model = found["release"], found["model"]
    lines = [f"{record['id']}, decided {record['decision_time']}", "", "bars up to it:"]
    lines += [
        f"  {bar['bar_time']}  open {bar['open']}  high {bar['high']}  low {bar['low']}  close {bar['close']}  "
        f"volume {bar['volume']}"
        for bar in found["bars"]
    ]
    lines += ["", "features:", *(f"  {name:28s} {value}" for name, value in found["features"].items())]
    lines += [
        "",
        f"student: {record['student_prediction']} ({record['reason']}), P(up) {record['student_probability_up']}, "
        f"confidence {record['student_confidence']}, threshold {again.get('threshold', 'not asked')}",
        f"rule: {strategy['baseline_direction']} with strength {strategy['baseline_strength']}; times "
        f"{strategy['factor']} is {strategy['strength']}; target {strategy['target']}"
        + (f"; entries locked: {strategy['entry_lock']}" if strategy["entry_lock"] else ""),
        f"model: {model['version']} ({model['digest'][:12]}, {model['path']})"
        if model
        else "model: none asked, or gone",
    ]
    if release:
        people = ", ".join(
            f"{role} {one['name']} ({'signed' if one['signed'] else 'typed'})"
            for role, one in sorted(release["approvals"].items())
        )
        lines.append(f"release: {release['release']} of {release['date']}, approved by {people}")
    else:
        lines.append("release: none, no promotion names this model")
    words = {
        "different": f"scored again: DIFFERENT, {again.get('probability_up')}",
        "not_found": f"scored again: no ({again['note']})",
        "not_scored": f"scored again: no ({again['note']})",
        "same": "scored again: the same to the bit",
    }
    return [*lines, words[again["status"]]]
