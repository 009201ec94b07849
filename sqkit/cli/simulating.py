"""``sqkit monitor simulate``: every rule over one's own outcomes, as they were and as they would be by chance."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqkit.cli.monitoring import monitor
from sqkit.cli.words import Json, show
from sqkit.errors import UsageError

if TYPE_CHECKING:
    from sqkit.monitoring_baseline import MonitoringBaseline
    from sqkit.settings import Settings


@monitor.command
def simulate(
    *, slot: str = "", model: str = "", shuffles: int = 200, seed: int = 0, json: Json = False
) -> int:
    """Run every rule over the judged predictions of a slot: its alerts, its false alerts by chance, its delay.

    By chance: the session days in random order, calls made right as often as validated. Nothing is changed.

    Parameters
    ----------
    slot
        One slot; by default every one that is monitored.
    model
        First digits of a model's digest; by default the one that is served.
    shuffles
        Orders of the session days.
    seed
        The same seed, the same figures.
    json
        Print the figures as JSON.
    """
    from sqkit.monitoring_baseline import MonitoringRules
    from sqkit.production.bar_clock import BarClock
    from sqkit.production.monitor_simulation import lines as told_lines
    from sqkit.production.monitor_simulation import simulate as run_rules
    from sqkit.sessions import load_sessions
    from sqkit.settings import Settings

    settings = Settings()
    rules = MonitoringRules.from_settings(settings)
    found, lines = dict[str, Any](), list[str]()
    for name, outcomes, served in _logs(settings, slot):
        digits = _model(outcomes, model or served)
        mine = [row for row in outcomes if row[3] == digits]
        if not mine:
            found[name] = {"model": digits or None, "rules": {}}
            lines.append(f"slot {name}: no prediction has an outcome yet; there is nothing to simulate on")
            continue
        baseline = _baseline(settings, name, digits)
        clock = BarClock(load_sessions(baseline.market, settings.sessions_file), baseline.interval)
        print(
            f"slot {name}: every rule over {shuffles} orders of its session days", file=sys.stderr, flush=True
        )
        told = run_rules(mine, baseline, rules, clock, shuffles=shuffles, seed=seed)
        found[name] = {"model": digits, **told}
        lines += [f"slot {name}, model {digits}", *told_lines(told)]
    show({"slots": found}, json, lines or ["nothing is monitored here yet: no prediction has an outcome"])
    return 0


def _logs(settings: Settings, slot: str) -> list[tuple[str, list[tuple[Any, ...]], str]]:
    """Each slot with its outcomes and what it serves."""
    from sqkit.production.monitor_store import MONITORING_FOLDER, STATE_FILE, MonitorStore

    place = Path(settings.data_dir) / MONITORING_FOLDER / STATE_FILE
    if not place.is_file():
        return []
    store = MonitorStore(place, read_only=True)
    try:
        known = store.slots()
        if slot and slot not in known:
            raise UsageError(
                f"slot {slot}: it is not monitored; known: {', '.join(known) or 'none'}", slot=slot
            )
        found = []
        for name in [slot] if slot else known:
            stored = store.load(name)
            served = stored.state["status"].get("model_digest") if stored else ""
            found.append((name, store.outcomes(name), served or ""))
        return found
    finally:
        store.close()


def _model(outcomes: list[tuple[Any, ...]], asked: str) -> str:
    """The model whose digest begins so."""
    known = sorted({row[3] for row in outcomes})
    fits = [one for one in known if asked and one.startswith(asked)]
    if len(fits) != 1 and known:
        raise UsageError(
            f"model {asked or 'none is served'}: {len(fits)} models with outcomes begin so; known: {', '.join(known)}; "
            "give --model",
            model=asked,
        )
    return fits[0] if fits else ""


def _baseline(settings: Settings, slot: str, model: str) -> MonitoringBaseline:
    from sqkit.production.audit import AuditLog
    from sqkit.production.release_baselines import ReleaseBaselines
    from sqkit.production.slots import models_folder, slot_named

    place, models = slot_named(settings, slot), models_folder(settings)
    baseline = ReleaseBaselines(models, place, AuditLog(models, (place.release_path,)))(model)
    if baseline is None:
        raise UsageError(
            f"model {model}: its release does not say what it was validated at, so there is no chance to compare with; "
            "validate and promote it again with this version of sqkit",
            model=model,
        )
    return baseline
