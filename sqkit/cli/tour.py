"""``make tour``: a planted market through the whole loop, each step printed; ``python -m sqkit.cli.tour [FOLDER]``.

Two students of one market are trained, judged, approved and promoted. The second lives on a signal that later points
the wrong way: monitoring sees it, confirms it on fresh outcomes, brings the first back and verifies it. Every
part is the real one; only the market is made up, and with it the calendar. What is written lies in one folder.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import logging
import os
import shlex
import sys
import tempfile
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sqkit.audit_log import ROLLBACK, read_audit
from sqkit.cli import main as sqkit
from sqkit.cli.tour_live import Live
from sqkit.cli.tour_market import BREAKS_AFTER, HORIZON_BARS, Chapter, Story, plant
from sqkit.errors import SqkitError, UsageError
from sqkit.files import parse_json, read_json
from sqkit.leaving import leave
from sqkit.production.alert_channels import ALERTS_FILE
from sqkit.production.confirmation import in_words
from sqkit.production.monitor_store import MONITORING_FOLDER
from sqkit.records import iso_date

ALERTS: Final = Path("data") / MONITORING_FOLDER / ALERTS_FILE
APPROVERS: Final = {"ml_lead": "Asha", "quant_lead": "Bela", "risk_manager": "Chen"}

SETTINGS: Final = {
    "SENSEQUANT_MARKET": "us",
    "SENSEQUANT_STUDENT_MODEL_ENABLED": "true",
    "SENSEQUANT_STUDENT_MODEL_MAX_AGE_DAYS": "3650",
    "SENSEQUANT_STUDENT_MONITORING_ENABLED": "true",
    "SENSEQUANT_STUDENT_MONITORING_WINDOW_HOURS": "480",
    "SENSEQUANT_STUDENT_MONITORING_MIN_SAMPLES": "50",
    "SENSEQUANT_STUDENT_AUTO_ROLLBACK_ENABLED": "true",
}

_WIDTH: Final = 110
_MEANING: Final = {
    "INCONCLUSIVE": "too few of its predictions have an outcome to say anything",
    "OK": "enough outcomes, and nothing that speaks against the model",
    "ALERTING": "a given threshold is broken and people are told; chance does that now and then, so a threshold takes "
    "nothing back",
    "CONFIRMING": "the sequential detector has its evidence: an alert goes out, and the question is asked again, "
    "on outcomes that share no bar with those of the alert",
    "ROLLING_BACK": "confirmed, and the release before it does better on the same bars: the machine asks the "
    "promoter for a rollback",
    "VERIFYING": "the earlier release is served again, from the next bar on; a machine rolls back once, and now "
    "this one has to prove itself",
    "HALTED": "the student is silent, the baseline trades",
}


def tour(root: Path) -> None:
    """The whole loop, in a folder that is the working folder now."""
    say(f"Everything of this tour is written below {root}; your own data and reports are not touched.")
    make_settings(root)
    heading("A market with a known answer")
    story = plant_market(root)

    heading("First student: train, validate")
    explain(
        "A teacher learns from 300 sessions which way the next close goes, a small student from the teacher. It is judged on the 200 sessions after "
        "them, against the baseline rule: seven metrics, and how sure one can be that it is better."
    )
    train_and_validate(story.first)
    heading("First student: three approvals, promote")
    explain(
        "A verdict promotes nothing. The decision is computed again, somebody tries the rollback, somebody looks at "
        "the report, three people sign; then one transaction puts exactly the signed bytes into production."
    )
    approve_and_promote(story.first)

    heading("Second student, two years later: train, validate, approve, promote")
    explain(
        "A new signal shows in the bars. This student has to beat the one that is live, which is its baseline now."
    )
    train_and_validate(story.second)
    approve_and_promote(story.second)

    heading("Live: the market turns, and the model is taken back")
    watch_live(story)

    heading("What is on record")
    explain(
        "The second model is quarantined and is not promoted again unseen; somebody else than the machine ratifies the "
        "rollback with sqkit ratify. The log is a chain of digests: a line that is changed or cut shows."
    )
    at = dt.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), dt.UTC)
    run(at, "status")
    run(at, "monitor", allowed=(0, 1))
    run(at, "verify", "--audit")
    run(at, "history")
    close(root, story)


# --- the steps


def make_settings(root: Path) -> None:
    """Write the tour's own `.env`: the user's settings would change what happens."""
    (root / ".env").write_text("".join(f"{name}={value}\n" for name, value in SETTINGS.items()))
    explain(
        "Its .env enables scoring, monitoring and automatic rollback. Three more things differ from the defaults: the "
        "rolling window holds 20 sessions (480 hours of session days; with daily bars the default of 24 hours would "
        "hold one), a sample is enough at 50 instead of 100, and a model may be ten years old. What decides about the "
        "rollback is as by default: one false alert in 100 session days, one false confirmation in 20 alerts."
    )


def plant_market(root: Path) -> Story:
    """Simulate the market."""
    story = plant(root)
    explain(
        f"{len(story.symbols)} symbols, daily bars. Moves go on for a while; that is always so. From {story.second.start} "
        "on a hidden flow shows in where a bar closes inside its range and says more. From "
        f"{iso_date(story.breaks_on)}, {BREAKS_AFTER} sessions into live trading, it says the opposite. No code of sqkit "
        "knows any of this."
    )
    return story


def train_and_validate(chapter: Chapter) -> None:
    """Teacher, student, verdict."""
    teacher, student = f"{chapter.folder}/teacher", f"{chapter.folder}/student"
    dates = ("--start", chapter.start, "--end", chapter.training_end)
    horizon = ("--horizon-bars", str(HORIZON_BARS))
    run(chapter.evening, "train-teacher", "--strategy", "swing", *horizon, *dates, "--output-dir", teacher)
    window = ("--validation-start", chapter.judged_from, "--validation-end", chapter.end)
    run(
        chapter.evening,
        *("train-student", "--teacher-dir", teacher, "--output-dir", student, "--model-type", chapter.kind),
        *("--validate", *window, "--generate-checklist"),
    )
    checklist = read_json(Path(student) / "promotion_checklist.json")
    candidate, baseline = checklist["candidate_metrics"], checklist["baseline_metrics"]
    against = "the live student" if checklist["baseline_model"] else "the baseline rule"
    for name in ("precision_long", "hit_ratio", "sharpe_ratio"):
        say(f"    {name:14} {candidate[name]:.3f}, {against} {baseline[name]:.3f}")
    say(f"    {checklist['evidence']['summary']}")
    if checklist["recommendation"] != "PROMOTE":
        raise UsageError(f"the tour ends here: {checklist['recommendation']}, {checklist['reason']}")


def approve_and_promote(chapter: Chapter) -> None:
    """Drill, attestation, three signatures, promotion."""
    at, model = chapter.evening, ("--model", chapter.model)
    run(at, "verify", f"{chapter.folder}/student", shown=slice(-1, None))
    run(at, "rollback", "--drill", shown=slice(-1, None))
    note = ("--note", "the newest months of the planted market", "--as", APPROVERS["ml_lead"])
    run(at, "attest", "period-representative", *model, *note, shown=slice(1))
    for role, name in APPROVERS.items():
        run(at, "approve", *model, "--role", role, "--as", name, shown=slice(1))
    run(at, "promote", *model, shown=slice(-2, None))


def watch_live(story: Story) -> None:
    """Bars into the engine until the machine has come to rest."""
    explain(
        "An engine serves the second student, bar after bar, as a feed would deliver them; the first one is asked "
        "beside it and not listened to. A monitor joins each prediction to what became of it at the next close. "
        "You would start your host; sqkit replay feeds stored bars in its place."
    )
    say()
    served = ""
    with Live(story) as live:
        for day, steps in live.sessions():
            if live.engine.student_model_version != served:
                served = live.engine.student_model_version
                say(f"{iso_date(day)}  the engine serves {served}")
            if day == story.breaks_on:
                say(f"{iso_date(day)}  from this session on the signal points the wrong way; nobody is told")
            for step in steps:
                show_step(step)
        os.environ["SOURCE_DATE_EPOCH"] = str(live.now_seconds)


def show_step(step: Mapping[str, Any]) -> None:
    """One change of state, with what it rests on and what it left on record."""
    say(f"{step['at'][:10]}  {step['before']} -> {step['after']}")
    said = f"{step['reason']}. {_MEANING[step['after']]}"
    evidence = step["evidence"]
    if "threshold" in evidence:
        said += f" (evidence {evidence['level']:.0f} days, threshold {evidence['threshold']:.0f})"
    if "pair" in evidence:
        said += (
            f" (after {evidence['bars']} bars and {evidence['calls']} calls: evidence of the loss "
            f"{in_words(evidence['live'])}, of the earlier one being better {in_words(evidence['pair'])}; "
            f"{evidence['needed']:.0f} is enough)"
        )
    explain(said, indent=12)
    if step["after"] == "CONFIRMING":
        alert = parse_json(ALERTS.read_bytes().splitlines()[-1], ALERTS)
        say(f"            alert sent: {alert['summary']}")
        explain(f"it {alert['will']}", indent=24)
    if step["after"] == "VERIFYING":
        number, entry = next(
            one for one in enumerate(read_audit(Path("data/models")), 1) if one[1]["kind"] == ROLLBACK
        )
        say(f"            audit line {number}, {entry['digest'][:12]}: by {entry['actor']['name']}")


def close(root: Path, story: Story) -> None:
    """Where to look."""
    heading("Where to look")
    say(f"folder           {root}")
    for name, chapter in (("first", story.first), ("second", story.second)):
        say(f"{name:6} report    {root / 'reports' / f'{chapter.version}-v1' / 'checklist.html'}")
    say(f"alerts           {root / ALERTS}")
    say(f"telemetry        {root / 'data/telemetry'}")
    say(f"audit log        {root / 'data/models/audit.jsonl'}")
    say("In that folder, as in any project: sqkit history, sqkit monitor dry-run, sqkit monitor simulate.")


# --- telling it


def heading(text: str) -> None:
    """Begin a step."""
    say(f"\n== {text}")


def explain(text: str, indent: int = 0) -> None:
    """A paragraph."""
    margin = " " * indent
    say(textwrap.fill(text, _WIDTH, initial_indent=margin, subsequent_indent=margin))


def say(text: str = "") -> None:
    """One or more lines, at once."""
    print(text, flush=True)


def run(at: dt.datetime, *words: str, shown: slice = slice(None), allowed: tuple[int, ...] = (0,)) -> None:
    """Print a command of `sqkit` as one would type it, do it at a time, and print what it said.

    Parameters
    ----------
    shown
        Which of its lines.
    allowed
        Exit codes with which the tour goes on.
    """
    os.environ["SOURCE_DATE_EPOCH"] = str(int(at.timestamp()))
    say(f"\n$ {shlex.join(['sqkit', *words])}")
    said, code = io.StringIO(), 0
    with contextlib.redirect_stdout(said):
        try:
            sqkit(list(words))
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
    for line in said.getvalue().splitlines()[shown]:
        say(f"    {line}")
    if code not in allowed:
        raise UsageError(f"the tour ends here: sqkit {words[0]} ended with {code}")


def main(arguments: list[str]) -> int:
    """Take the tour in a folder that is kept: the given one, else a temporary one."""
    began = time.monotonic()
    root = Path(arguments[0]).absolute() if arguments else Path(tempfile.mkdtemp(prefix="sqkit-tour-"))
    if root.is_dir() and any(root.iterdir()):
        print(f"sqkit: {root}: is not empty; the tour writes into a folder of its own", file=sys.stderr)
        return UsageError.exit_code
    root.mkdir(parents=True, exist_ok=True)
    for name in [name for name in os.environ if name.startswith("SENSEQUANT_")]:
        del os.environ[name]
    logging.getLogger("sqkit").setLevel(logging.CRITICAL)
    try:
        with contextlib.chdir(root):
            tour(root)
    except SqkitError as problem:
        print(f"sqkit: {problem}", file=sys.stderr)
        return problem.exit_code
    except KeyboardInterrupt:
        print("sqkit: interrupted", file=sys.stderr)
        return 130
    say(f"\n{time.monotonic() - began:.0f} seconds")
    return 0


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
