"""Commands that change production: ``sqkit promote``, ``rollback``, ``halt``, ``resume`` and what follows them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from sqkit.cli.words import Json, Switch, app, group, show
from sqkit.errors import SqkitError, UsageError

if TYPE_CHECKING:
    from sqkit.people import Actor
    from sqkit.production.changes import Production
    from sqkit.production.interventions import Halted
    from sqkit.production.promoter import Promoted, RolledBack, StudentModelPromoter
    from sqkit.settings import Settings

Verify = Callable[[Path], Mapping[str, Any]]

quarantine = group("quarantine", "Models that were rolled back and must not come back unseen.")

As = Annotated[str, Parameter(name="--as", show_default=False)]
Text = Annotated[str, Parameter(show_default=False)]
Every = Annotated[bool, Parameter(name="--all", negative=())]
Level = Literal["student_off", "no_new_entries"]


@app.command
def promote(
    *,
    model: str,
    enable: Switch = False,
    env_file: str | None = None,
    dry_run: Switch = False,
    json: Json = False,
) -> int:
    """Put an approved student into production, as one transaction; there is no force.

    The decision is verified first where the research extra is installed. Everything is checked
    again under the lock; a refusal changes nothing.

    Parameters
    ----------
    model
        The student's ONNX file, below data/models.
    enable
        Also set SENSEQUANT_STUDENT_MODEL_ENABLED=true in what is printed and in --env-file.
    env_file
        File whose version pin and paths are brought in line in the same step, such as .env.
    dry_run
        Show every check and every step; write nothing.
    json
        Print the outcome as JSON.
    """
    promoter = _promoter(verify=_verifier())
    if dry_run:
        outcome = promoter.plan_promotion(model, enable=enable, env_file=env_file)
        show(_promoted(outcome, planned=True), json, _promotion_lines(outcome, model, planned=True))
        return next((check.error.exit_code for check in outcome.result.checks if check.error), 0)
    outcome = promoter.promote_model(model, enable=enable, env_file=env_file)
    show(_promoted(outcome, planned=False), json, _promotion_lines(outcome, model, planned=False))
    _refresh_index(promoter.settings)
    return 0


def _verifier() -> Verify | None:
    """Computes a decision again, where the research extra is installed."""
    try:
        from sqkit.research.verification import verify
    except ModuleNotFoundError:
        _say("the research extra is not installed; verification.json is taken as it is")
        return None
    from sqkit.settings import Settings

    reports_dir = Path(Settings().reports_dir)
    return lambda folder: verify(folder, reports_dir=reports_dir)


def _promoted(outcome: Promoted, *, planned: bool) -> dict[str, Any]:
    return {
        **outcome.result.to_dict(),
        "dry_run": planned,
        "environment": list(outcome.environment),
        "promotion": outcome.entry,
        "steps": list(outcome.steps),
    }


def _promotion_lines(outcome: Promoted, model: str, *, planned: bool) -> list[str]:
    if planned:
        lines = outcome.result.lines()
        if not outcome.result.can_promote:
            return [*lines, f"{model}: would be refused; nothing was written"]
        steps = [f"{number:2}. {step}" for number, step in enumerate(outcome.steps, 1)]
        return [
            *lines,
            "",
            *steps,
            "",
            *_environment(outcome.environment),
            f"{model}: would be promoted; nothing was written",
        ]
    entry = outcome.entry
    assert entry is not None
    replaced = f", replaces {entry['replaces']['release']}" if entry["replaces"] else ", no earlier release"
    notes = ["reduced control: fewer than three roles approve"] if entry["reduced_control"] else []
    return [
        *notes,
        *_environment(outcome.environment, entry["environment"]),
        f"promoted {entry['model_version']} in slot {entry['slot']}{replaced}; it may trade {' '.join(entry['symbols'])}",
        f"archived as {_archive(entry['release'])}; audit line {entry['digest'][:12]}",
    ]


def _archive(release: str) -> str:
    """Where a release lies, as somebody in the project's folder finds it."""
    from sqkit.production.archive import archive_folder
    from sqkit.production.slots import models_folder
    from sqkit.settings import Settings

    return archive_folder(models_folder(Settings.usable()[0]), release).as_posix()


def _environment(lines: tuple[str, ...], written: Mapping[str, Any] | None = None) -> list[str]:
    """What the engine needs; where an env file was asked for, that it says so now."""
    if written is not None:
        return [f"rewritten: {written['file']} says now", *(f"  {line}" for line in written["lines"])]
    return ["set in the engine's environment:", *(f"  {line}" for line in lines)] if lines else []


@app.command
def rollback(
    *,
    slot: str = "default",
    to: Text = "",
    reason: Text = "",
    as_: As = "",
    env_file: str | None = None,
    drill: Switch = False,
    dry_run: Switch = False,
    json: Json = False,
) -> int:
    """Go back to an earlier release at once; needs no approval, evidence, network or research extra.

    What is live now is quarantined: it is not promoted again until sqkit quarantine release.

    Parameters
    ----------
    slot
        default, or a strategy.
    to
        The date a release left production (YYYYMMDD), its archive folder, its version, the beginning of
        its digest, or none for no student; by default the release that was live before.
    reason
        Why; kept in the audit log. A rollback needs one.
    as_
        Who you are; by default the account's name.
    env_file
        File whose version pin is brought in line in the same step.
    drill
        Try it in a scratch folder instead; ticks the box "rollback tested" for 30 days.
    dry_run
        Show the target and every step; write nothing.
    json
        Print the outcome as JSON.
    """
    if drill:
        if to or env_file or dry_run:
            raise UsageError(
                "--drill tries the rollback in a scratch folder and changes nothing; leave out --to, --env-file and "
                "--dry-run"
            )
        return _drill(_production(as_), slot, json)
    promoter = _promoter(as_, at_once=True)
    planned = promoter.plan_rollback(
        to, slot=slot, reason="dry run" if dry_run else reason, env_file=env_file
    )
    for note in planned.target.notes:
        print(f"sqkit: {note}", file=sys.stderr)
    if dry_run and planned.target.already:
        show(_rolled_back(planned), json, _rollback_lines(planned))
        return 0
    if dry_run:
        steps = [f"{number:2}. {step}" for number, step in enumerate(planned.steps, 1)]
        lines = [
            f"slot {planned.slot}: would go back to {planned.target.described}",
            "",
            *steps,
            "",
            *_environment(planned.environment),
            "nothing was written",
        ]
        show(_rolled_back(planned), json, lines)
        return 0
    if not planned.target.already:
        _say(f"slot {planned.slot}: going back to {planned.target.described}")
    done = promoter.rollback(to, slot=slot, reason=reason, env_file=env_file, shown=planned.target)
    show(_rolled_back(done), json, _rollback_lines(done))
    _refresh_index(promoter.settings)
    return 0


def _rolled_back(outcome: RolledBack) -> dict[str, Any]:
    release = outcome.target.release
    return {
        "already": outcome.target.already,
        "environment": list(outcome.environment),
        "notes": list(outcome.target.notes),
        "rollback": outcome.entry,
        "slot": outcome.slot,
        "steps": list(outcome.steps),
        "target": {"model": release.model, "release": release.name, "version": release.model_version}
        if release
        else None,
    }


def _rollback_lines(done: RolledBack) -> list[str]:
    entry = done.entry
    if entry is None:
        return [f"slot {done.slot}: already at {done.target.described}; nothing to do"]
    barred = [f"quarantined: {entry['quarantines'][:12]}"] if entry["quarantines"] else []
    return [
        *_environment(done.environment, entry["environment"]),
        *barred,
        f"slot {done.slot}: rolled back to {done.target.described}; audit line {entry['digest'][:12]}",
        f"nobody approved this: somebody else ratifies it with sqkit ratify{_slot_words(done.slot)}",
    ]


def _slot_words(slot: str) -> str:
    """What a command needs to mean that slot."""
    return "" if slot == "default" else f" --slot {slot}"


def _drill(production: Production, slot: str, json: bool) -> int:
    from sqkit.production.drill import drill

    done = drill(production, slot)
    said = "passed" if done.passed else "failed"
    lines = [
        *done.steps,
        f"rollback drill {said} ({done.milliseconds} ms); audit line {done.entry['digest'][:12]}",
    ]
    show({"drill": done.entry}, json, lines)
    return 0 if done.passed else 1


@app.command
def halt(
    *,
    reason: str,
    slot: str | None = None,
    every: Every = False,
    level: Level | None = None,
    as_: As = "",
    json: Json = False,
) -> int:
    """Stop the student of a slot at once, or all new entries. Needs nobody's permission.

    Exits and the square-off go on. Exit 2 where a slot can be halted neither by its flag nor by the audit log.

    Parameters
    ----------
    reason
        Kept in the audit log.
    slot
        default, or a strategy.
    every
        Every slot of the settings.
    level
        student_off: the engine trades its baseline; no_new_entries: nor does that enter. By default
        student_off, and what is halted at no_new_entries stays so.
    as_
        Who you are; by default the account's name.
    json
        Print what came of it, with the audit lines, as JSON.
    """
    from sqkit.production.interventions import halt_slots

    production = _production(as_, at_once=True)
    done = halt_slots(production, _slots(production, slot, every=every), reason, level)
    for one in done:
        if one.refusal is not None:
            _say(str(one.refusal))
    lines = [_halt_line(one) for one in done if one.refusal is None]
    show({"slots": [_halt_record(one) for one in done]}, json, lines)
    refused = [one.refusal.exit_code for one in done if one.refusal is not None]
    return next(iter(refused), 0)


def _slots(production: Production, slot: str | None, *, every: bool) -> list[str]:
    if slot is not None and every:
        raise UsageError("--slot names one slot, --all means every one; give one of them")
    return list(production.settings.slot_paths()) if every else [slot or "default"]


def _halt_line(one: Halted) -> str:
    from sqkit.production.halting import MEANING

    assert one.level is not None
    said = "is halted already" if one.entry is None and one.before == one.level else "halted"
    before = f", before {one.before}" if one.before not in (None, one.level) else ""
    return (
        f"slot {one.slot}: {said}, {one.level}{before} ({MEANING[one.level]}); sqkit resume{_slot_words(one.slot)} "
        "ends it"
    )


def _halt_record(one: Halted) -> dict[str, Any]:
    return {
        "before": one.before,
        "halt": one.entry,
        "level": one.level,
        "problem": str(one.refusal or ""),
        "slot": one.slot,
    }


@app.command
def resume(
    *, slot: str | None = None, every: Every = False, reason: Text = "", as_: As = "", json: Json = False
) -> int:
    """End a halt, whatever its level: the student of the slot is served again.

    Parameters
    ----------
    slot
        default, or a strategy.
    every
        Every slot of the settings.
    reason
        Kept in the audit log.
    as_
        Who you are; by default the account's name.
    json
        Print what came of it, with the audit lines, as JSON.
    """
    from sqkit.production.interventions import resume as go_on

    production = _production(as_)
    found, lines, code = list[dict[str, Any]](), list[str](), 0
    for name in _slots(production, slot, every=every):
        entry, problem = None, ""
        try:
            entry = go_on(production, name, reason)
        except (SqkitError, OSError) as refusal:
            if not every:
                raise
            problem, code = str(refusal), code or getattr(refusal, "exit_code", 2)
            _say(f"slot {name} is not resumed: {problem}")
        else:
            said = "resumed" if entry else "is not halted; nothing to do"
            lines.append(f"slot {production.slot(name).name}: {said}")
        found.append({"problem": problem, "resume": entry, "slot": production.slot(name).name})
    show({"slots": found}, json, lines)
    return code


@app.command
def ratify(
    *,
    slot: str = "default",
    every: Every = False,
    comment: Text = "",
    as_: As = "",
    key: Text = "",
    json: Json = False,
) -> int:
    """Agree to the newest rollback that somebody made without approval; what still waits is said.

    Parameters
    ----------
    slot
        default, or a strategy.
    every
        Agree to every rollback that waits, not only to the newest.
    comment
        Kept in the audit log.
    as_
        Who you are; by default the account's name. Not whoever rolled back.
    key
        SSH key to sign with, where SENSEQUANT_PROMOTION_ALLOWED_SIGNERS is set.
    json
        Print the audit lines, and the rollbacks that still wait, as JSON.
    """
    from sqkit.production.interventions import ratify as agree

    production = _production(as_)
    entries = agree(production, slot, comment, every=every, key=_key(key), terminal=sys.stdin.isatty())
    place = production.slot(slot)
    waiting = production.state(place).unratified
    log = {entry["digest"]: (number, entry) for number, entry in enumerate(production.log.entries(), 1)}
    lines = [
        f"slot {place.name}: the rollback of {log[one['rollback']][1]['at']} (line {log[one['rollback']][0]}) is "
        f"ratified by {one['actor']['name']}"
        for one in entries
    ]
    lines += [
        f"slot {place.name}: the rollback of {one['at']} (line {log[one['digest']][0]}) still waits; sqkit ratify"
        f"{_slot_words(place.name)} again, or with --all"
        for one in reversed(waiting)
    ]
    show({"ratify": entries, "waiting": list(waiting)}, json, lines)
    return 0


def _key(path: str) -> Path | None:
    return Path(path).expanduser() if path else None


@quarantine.command(name="release")
def quarantine_release(
    digest: str, /, *, reason: str, slot: str = "default", as_: As = "", key: Text = "", json: Json = False
) -> int:
    """Let bytes that were rolled back be promoted, or be gone back to, again.

    Parameters
    ----------
    digest
        At least 8 digits of the model's SHA-256.
    reason
        Kept in the audit log.
    slot
        default, or a strategy.
    as_
        Who you are; by default the account's name.
    key
        SSH key to sign with, where SENSEQUANT_PROMOTION_ALLOWED_SIGNERS is set.
    json
        Print the audit line as JSON.
    """
    from sqkit.production.interventions import release_quarantine

    entry = release_quarantine(
        _production(as_), slot, digest, reason, key=_key(key), terminal=sys.stdin.isatty()
    )
    released = f"model {entry['model'][:12]} is released from quarantine; it may be promoted or gone back to"
    show({"quarantine_release": entry}, json, [f"slot {entry['slot']}: {released}"])
    return 0


def _refresh_index(settings: Settings) -> None:
    """Let the index of reports say what is live now, where there is one; a rollback does not hang on it."""
    reports_dir = Path(settings.reports_dir)
    if not (reports_dir / "index.html").is_file():
        return
    try:
        from sqkit.research.report_index import build_index

        build_index(reports_dir)
    except Exception as problem:  # noqa: BLE001 - production has changed already; this is a page
        print(f"sqkit: the index of reports was not rebuilt ({problem}); run sqkit report", file=sys.stderr)


def _promoter(name: str = "", *, verify: Verify | None = None, at_once: bool = False) -> StudentModelPromoter:
    from sqkit.production.promoter import StudentModelPromoter

    return StudentModelPromoter(
        _settings(at_once=at_once), actor=_actor(name), environ=os.environ, say=_say, verify=verify
    )


def _production(name: str = "", *, at_once: bool = False) -> Production:
    """For what needs no candidate and no approval: it loads no more than that."""
    from sqkit.production.changes import Production

    return Production(_settings(at_once=at_once), actor=_actor(name), say=_say)


def _actor(name: str) -> Actor:
    from sqkit.people import AUTOMATIC, Actor

    if name.strip().casefold() == AUTOMATIC:
        raise UsageError(f"--as {name}: is the name of a machine's own rollback; give a person's name")
    return Actor.here(name)


def _settings(*, at_once: bool) -> Settings:
    """The settings; what stops a model at once takes defaults for those that cannot be used."""
    from sqkit.settings import Settings

    if not at_once:
        return Settings()
    settings, problems = Settings.usable()
    for problem in problems:
        _say(f"{problem}; its default is used here")
    return settings


def _say(line: str) -> None:
    print(f"sqkit: {line}", file=sys.stderr, flush=True)
