"""Checks of whether the decision still holds: against what is live, who approved, today's rules, the clock.

Each function looks at a `Case`, returns one line for a person, or raises. Called by
`sqkit.production.promotion_checks`, which says in which order and what needs what.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from sqkit.artifacts import APPROVALS_FILE, CHECKLIST_FILE
from sqkit.audit_log import OBJECTION
from sqkit.checklist_inputs import Policy
from sqkit.errors import (
    ApprovalVoid,
    BoxOpen,
    ClockBackwards,
    DecisionStale,
    PolicyWeaker,
    Quarantined,
    SlotMismatch,
    SqkitError,
)
from sqkit.files import sha256_file
from sqkit.model_file import model_age_days
from sqkit.policy_in_force import looser
from sqkit.production.audit import CLOCK_TOLERANCE
from sqkit.production.boxes import BoxState
from sqkit.production.env_file import pin_problem
from sqkit.production.promotion_case import Advisory, Case
from sqkit.production.slot_check import STRAY
from sqkit.production.slot_state import fold
from sqkit.settings import PREFIX
from sqkit.student import StudentModel
from sqkit.trading_rules import decision_differences

TAG_TOLERANCE_DAYS: Final = 1.0
"""A version tag may be a time in any zone."""

_AGAIN: Final = (
    "validate it again with sqkit validate, a copy in another version's folder where it is approved already"
)
_SHOWN: Final = 12


def live_digest(case: Case) -> str | None:
    """SHA-256 of what is in production in the slot: what the log names, else the file that lies there."""
    if case.state.live is not None:
        return case.state.live.model
    path = case.slot.model_path
    return sha256_file(path) if path.is_file() else None


def check_already_live(case: Case) -> str:
    """The candidate is not what is live already."""
    if live_digest(case) == case.model_digest:
        raise DecisionStale(
            f"{case.typed}: is live in slot {case.slot.name} already; there is nothing to promote, see sqkit status",
            model=case.model_digest,
        )
    return f"not live in slot {case.slot.name}"


def check_incumbent(case: Case) -> str:
    """The decision was made against what is live now."""
    judged, live = case.checklist["digests"]["incumbent"], live_digest(case)
    if judged != live and live is not None and (case.state.live is None or case.state.live.unmanaged):
        raise DecisionStale(
            f"{case.folder_name(CHECKLIST_FILE)}: judged against {_incumbent(judged)}, but {case.slot.model_path} holds "
            f"{_incumbent(live)}: an unmanaged file lies there: {STRAY}",
            judged=judged,
            live=live,
        )
    if judged != live:
        raise DecisionStale(
            f"{case.folder_name(CHECKLIST_FILE)}: judged against {_incumbent(judged)}, but {_incumbent(live)} is "
            f"live in slot {case.slot.name} now; {_AGAIN}",
            judged=judged,
            live=live,
        )
    return f"judged against {_incumbent(live)}, as live now"


def check_approvals(case: Case) -> str:
    """Everybody whom the policy asks for has approved exactly these bytes, and it still counts."""
    _require_objections(case)
    stands = case.standing
    if stands.problems:
        raise _all_of(stands.problems)
    said = ", ".join(f"{one.role} {one.name}" for one in stands.roles) or "nobody has to approve"
    remarks = [
        remark
        for remark, holds in (
            ("reduced control: fewer than three roles", stands.reduced_control),
            ("unsigned: a typed name is no authentication", stands.unsigned),
        )
        if holds
    ]
    return Advisory("; ".join([said, *remarks])) if remarks else said


def check_boxes(case: Case) -> str:
    """Every box that a promotion needs is ticked."""
    boxes = case.boxes
    still_open = [box for box in boxes if box.required and not box.ticked]
    if still_open:
        raise BoxOpen(
            "; ".join(_open_line(case, box) for box in still_open), boxes=[box.box for box in still_open]
        )
    return f"{sum(box.ticked for box in boxes)} of {len(boxes)} ticked, every required one among them"


def check_policy(case: Case) -> str:
    """The decision was made under a policy that asks for no less than the one in force."""
    weaker = looser(Policy.from_dict(case.checklist["policy"]), than=case.policy)
    if weaker:
        raise PolicyWeaker(
            f"{case.folder_name(CHECKLIST_FILE)}: decided under a weaker policy than the one in force: "
            f"{'; '.join(weaker)}; {_AGAIN} under today's policy",
            weaker=weaker,
        )
    return f"as strict as the policy in force in slot {case.slot.name}"


def check_runtime(case: Case) -> str:
    """Today's settings trade as the decision's did."""
    different = decision_differences(case.settings, case.model.metadata, case.checklist)
    if different:
        raise DecisionStale(
            f"{case.folder_name(CHECKLIST_FILE)}: {'; '.join(different)}; set that as it was, or {_AGAIN}",
            differences=different,
        )
    return "threshold, factors, strategy, sessions, slippage and costs as in today's settings"


def check_age(case: Case) -> str:
    """Neither the decision nor the model is too old, or dated ahead of the clock."""
    made = dt.datetime.fromisoformat(case.checklist["timestamp"])
    place, most = case.folder_name(CHECKLIST_FILE), case.policy.checklist_max_age_days
    if made - case.now > CLOCK_TOLERANCE:
        raise ClockBackwards(
            f"{place}: decided {_at(made)}, but the clock says {_at(case.now)}; correct the clock",
            decided=_at(made),
            now=_at(case.now),
        )
    if case.now - made > dt.timedelta(days=most):
        raise DecisionStale(
            f"{place}: decided {_at(made)}, more than {most} days ago "
            f"({PREFIX}PROMOTION_CHECKLIST_MAX_AGE_DAYS); {_AGAIN}",
            decided=_at(made),
            days=most,
        )
    age, allowed = model_age_days(case.model.version, case.now), case.settings.student_model_max_age_days
    if age < -TAG_TOLERANCE_DAYS:
        raise ClockBackwards(
            f"{case.typed}: its version {case.model.version} lies ahead of the clock ({_at(case.now)}); correct the "
            "clock, or train again under a version of today",
            version=case.model.version,
            now=_at(case.now),
        )
    if age > allowed:
        raise DecisionStale(
            f"{case.typed}: version {case.model.version} is {age:.0f} days old, more than {allowed} "
            f"({PREFIX}STUDENT_MODEL_MAX_AGE_DAYS); train again on newer bars",
            version=case.model.version,
            days=allowed,
        )
    return (
        f"decided {_at(made)} (at most {most} days), model {max(age, 0.0):.0f} days old (at most {allowed})"
    )


def check_slot(case: Case) -> str:
    """The model is made for the strategy that the slot serves."""
    strategy, slot = case.model.metadata["strategy"], case.slot.name
    if slot != "default" and slot != strategy:
        raise SlotMismatch(
            f"slot {slot} serves {slot} models, this one is made for {strategy}; promote it into its own slot "
            f"({PREFIX}STUDENT_MODEL_PATHS), or train one for {slot}",
            slot=slot,
            strategy=strategy,
        )
    if slot == "default" and strategy in case.settings.student_model_paths:
        raise SlotMismatch(
            f"the default slot: {strategy} has a slot of its own ({PREFIX}STUDENT_MODEL_PATHS), where its engine "
            f"looks; promote it into slot {strategy}",
            slot=slot,
            strategy=strategy,
        )
    live = _live_strategy(case) if slot == "default" else None
    if live not in (None, strategy):
        raise SlotMismatch(
            f"the default slot serves {live}, this model is made for {strategy}; give it a slot of its own, such as "
            f'{PREFIX}STUDENT_MODEL_PATHS=\'{{"{strategy}": "data/models/production_{strategy}/student_model.onnx"}}\', '
            f"and {_AGAIN}",
            slot=slot,
            strategy=strategy,
            live=live,
        )
    if case.state.halted is not None:
        return Advisory(
            f"slot {slot} is halted since {case.state.halted['at']}; nothing is served before sqkit resume"
        )
    return f"slot {slot} takes {strategy} models"


def check_quarantine(case: Case) -> str:
    """These bytes were not rolled back in any slot, or were released since."""
    others = sorted({entry["slot"] for entry in case.entries} - {case.slot.name})
    for state in (case.state, *(fold(case.entries, slot) for slot in others)):
        barred = state.quarantined.get(case.model_digest)
        if barred is not None:
            where = "" if state.slot == "default" else f" --slot {state.slot}"
            raise Quarantined(
                f"{case.typed}: was rolled back on {barred['date']} ({barred['reason']}); release it with "
                f"sqkit quarantine release {case.model_digest}{where} --reason TEXT, or train another",
                model=case.model_digest,
                slot=state.slot,
            )
    return "never rolled back, or released since"


def check_pin(case: Case) -> str:
    """No version pin that is known here would keep the release from being served."""
    problem = pin_problem(
        case.settings, case.slot, case.model.version, case.env_file, case.environ, root=case.root
    )
    if problem is not None:
        raise problem
    return f"no pin blocks version {case.model.version}"


def check_clock(case: Case) -> str:
    """The clock has not gone back behind what was recorded last."""
    if not case.entries:
        return "nothing was recorded before"
    last = dt.datetime.fromisoformat(case.entries[-1]["at"])
    if last - case.now > CLOCK_TOLERANCE:
        raise ClockBackwards(
            f"the clock says {_at(case.now)}, but the last line of the audit log was written {_at(last)}; correct "
            "the clock",
            last=_at(last),
            now=_at(case.now),
        )
    return f"after the last recorded line ({_at(last)})"


def _require_objections(case: Case) -> None:
    """Every rejection and revocation that the log names is in the book: it can be cut, the log cannot."""
    kept = {fact["id"] for fact in case.book.facts} if case.book else set()
    for entry in case.entries:
        if entry["kind"] != OBJECTION or entry["model"] != case.model_digest or entry["fact"] in kept:
            continue
        word = "rejection" if entry["what"] == "reject" else "revocation"
        raise ApprovalVoid(
            f"{case.folder_name(APPROVALS_FILE)}: lacks the {word} by {entry['actor']['name']} of {entry['date']} "
            f"(fact {entry['fact']}: {entry['reason']}), which the audit log names; restore the file from a backup",
            fact=entry["fact"],
            line=entry["digest"],
        )


def _live_strategy(case: Case) -> str | None:
    """Strategy of what is live in the slot; None where nothing is, or where it does not say."""
    live = case.state.live
    if live is not None and not live.unmanaged:
        return str(live.entry["strategy"])
    try:
        return str(StudentModel.load(case.slot.model_path).metadata["strategy"])
    except SqkitError:
        return None


def _incumbent(digest: Any) -> str:
    if digest is None:
        return "no student"
    return f"model {digest[:_SHOWN]}" if isinstance(digest, str) else repr(digest)


def _at(moment: dt.datetime) -> str:
    return f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _all_of(problems: tuple[SqkitError, ...]) -> SqkitError:
    """The first problem, its line followed by the others': a person wants to hear of all of them at once."""
    first = problems[0]
    if len(problems) > 1:
        first.message = "; ".join(problem.message for problem in problems)
        first.args = (first.message,)
    return first


def _open_line(case: Case, box: BoxState) -> str:
    command = f" with sqkit attest {box.box} --model {case.typed} --note TEXT" if box.attestable else ""
    return f"box {box.box} is open ({box.title}): {box.open_because}{command}"
