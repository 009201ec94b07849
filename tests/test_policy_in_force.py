"""The policy in force: accepted once, tightened by anybody, loosened by nobody, and said in every checklist."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from sqkit.audit_log import AUDIT_FILE, AUDIT_FORM, read_audit
from sqkit.chain import Entry, head_file, write_head
from sqkit.checklist import Policy, differences, generate_promotion_checklist, rederive
from sqkit.errors import AuditBroken, ChecklistInputError, UsageError
from sqkit.files import canonical_json, sha256_bytes, sha256_json
from sqkit.metrics import METRIC_KEYS
from sqkit.policy_in_force import (
    accepted_policy,
    held_against,
    looser,
    not_promotable,
    policy_digest,
    policy_in_force,
    policy_of_run,
    slot_of,
    tighter,
)
from sqkit.settings import Settings
from tests.policies import accept, usual

ASKED = replace(usual(), min_days=90, min_sharpe_uplift=0.08, checklist_max_age_days=20)
"""Tighter than the default settings in three fields."""


def settings(**changes: Any) -> Settings:
    """Settings by default, no .env read, with these set."""
    return Settings(_env_file=None, **changes)


@pytest.fixture
def log(tmp_path: Path) -> list[Entry]:
    """An audit log in which a policy was accepted for the default slot."""
    accept(tmp_path, ASKED)
    return read_audit(tmp_path / "data/models")


class TestBeforeTheFirstAccept:
    """Until somebody accepts a policy everything is as the user's text says: the settings are the policy."""

    def test_the_settings_are_the_policy(self) -> None:
        """Defaults, settings and flags give the policy of a run and of a promotion alike; nothing is marked."""
        ours = settings(promotion_min_days=30)
        flags = {"min_precision_uplift": 0.001, "min_sharpe_uplift": None}
        for policy in (policy_in_force, policy_of_run):
            assert policy(settings(), [], "default") == usual()
            assert policy(ours, [], "default", **flags) == replace(
                usual(), min_days=30, min_precision_uplift=0.001
            )
        assert accepted_policy([], "default") is None
        assert held_against(usual(), None) is None
        assert not_promotable(None) == []


class TestAfterIt:
    """The accepted policy holds; what was set may tighten it."""

    def test_a_run_that_sets_nothing_is_judged_by_it(self, log: list[Entry]) -> None:
        """A tighter accepted threshold holds although the setting's default is lower."""
        assert accepted_policy(log, "default") == ASKED
        assert policy_in_force(settings(), log, "default") == ASKED
        assert policy_of_run(settings(), log, "default") == ASKED
        assert held_against(ASKED, ASKED) == {"digest": policy_digest(ASKED), "looser": []}

    def test_a_tighter_setting_wins(self, log: list[Entry]) -> None:
        """Set explicitly and tighter it counts for runs and promotions, and no run is marked."""
        stricter = settings(promotion_min_days=120, promotion_checklist_max_age_days=5)
        expected = replace(ASKED, min_days=120, checklist_max_age_days=5)
        assert policy_in_force(stricter, log, "default") == expected
        assert policy_of_run(stricter, log, "default") == expected
        assert looser(expected, ASKED) == []

    def test_a_looser_setting_counts_for_its_run_only_and_marks_it(self, log: list[Entry]) -> None:
        """The run is judged by what was set and is marked; a promotion still demands the accepted policy."""
        weaker = settings(promotion_min_days=30)
        run = policy_of_run(weaker, log, "default")
        kept = held_against(run, accepted_policy(log, "default"))

        assert run == replace(ASKED, min_days=30)
        assert policy_in_force(weaker, log, "default") == ASKED
        assert kept == {
            "digest": policy_digest(ASKED),
            "looser": ["SENSEQUANT_PROMOTION_MIN_DAYS=30 is looser than 90"],
        }
        assert not_promotable(kept) == [
            "not promotable under this policy: SENSEQUANT_PROMOTION_MIN_DAYS=30 is looser than 90 in force"
        ]

    def test_a_default_that_is_written_down_is_set(self, log: list[Entry]) -> None:
        """A setting that says 60, the default, is looser than 90: it was asked for."""
        assert policy_of_run(settings(promotion_min_days=60), log, "default").min_days == 60
        assert policy_of_run(settings(), log, "default").min_days == 90

    def test_a_flag_wins_over_a_setting_and_may_only_tighten_a_promotion(self, log: list[Entry]) -> None:
        """As before: the flag is the run's threshold; None is no flag."""
        ours = settings(promotion_min_sharpe_uplift=0.2)
        low, high = {"min_sharpe_uplift": 0.01}, {"min_sharpe_uplift": 0.3}
        assert policy_of_run(ours, log, "default", min_sharpe_uplift=None).min_sharpe_uplift == 0.2
        assert policy_of_run(ours, log, "default", **low).min_sharpe_uplift == 0.01
        assert policy_in_force(ours, log, "default", **low).min_sharpe_uplift == 0.08
        assert policy_in_force(ours, log, "default", **high).min_sharpe_uplift == 0.3
        with pytest.raises(UsageError, match="no threshold named"):
            policy_of_run(ours, log, "default", profit=1.0)

    def test_roles_that_are_set_are_added_never_taken_away(self, log: list[Entry]) -> None:
        """Asking for one more role tightens a promotion, even where the setting leaves the others out."""
        other = settings(promotion_required_approvals=("cro",))
        asked = policy_in_force(other, log, "default").required_approvals
        assert asked == ("ml_lead", "quant_lead", "risk_manager", "cro")
        run = policy_of_run(other, log, "default")
        assert run.required_approvals == ("cro",)
        assert looser(run, ASKED) == [
            "SENSEQUANT_PROMOTION_REQUIRED_APPROVALS=cro is looser than ml_lead,quant_lead,risk_manager"
        ]

    def test_the_environment_and_a_dotenv_file_count_as_set(
        self, log: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a real process reads from its environment and from .env is explicit, and nothing else is."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("SENSEQUANT_PROMOTION_MIN_CALLS", "500")
        (tmp_path / ".env").write_text("SENSEQUANT_PROMOTION_MIN_DAYS=100\n")
        assert policy_in_force(Settings(), log, "default") == replace(ASKED, min_calls=500, min_days=100)

    def test_the_newest_accept_counts_and_slots_are_apart(self, tmp_path: Path) -> None:
        """Accepting a looser policy is allowed, it is the audited way; another slot keeps its own.

        A slot without an accepted policy of its own is under the default slot's: giving a strategy a place
        of its own by a setting loosens nothing.
        """
        paths = {"student_model_paths": {"swing": "data/models/swing/student_model.onnx"}}
        accept(tmp_path, ASKED, **paths)
        accept(tmp_path, usual(min_days=70), "swing", **paths)
        accept(tmp_path, usual(min_days=20), **paths)
        log = read_audit(tmp_path / "data/models")

        assert policy_in_force(settings(), log, "default").min_days == 20
        assert policy_in_force(settings(), log, "swing").min_days == 70
        assert policy_in_force(settings(), log, "intraday").min_days == 20

    def test_a_strategy_without_a_place_of_its_own_goes_to_the_default_slot(self) -> None:
        """The same place that its model would go to."""
        own = settings(student_model_paths={"swing": "elsewhere/student_model.onnx"})
        assert (slot_of(own, "swing"), slot_of(own, "intraday")) == ("swing", "default")


WAYS: dict[str, tuple[Any, Any, Any]] = {
    "min_precision_uplift": (0.01, 0.02, 0.03),
    "min_hit_ratio_uplift": (-0.01, 0.02, 0.03),
    "min_sharpe_uplift": (0.0, 0.05, 0.06),
    "min_sharpe_uplift_absolute": (0.05, 0.1, 0.2),
    "min_sharpe": (-1.0, 0.0, 0.5),
    "require_all_criteria": (False, True, None),
    "min_evidence": ("weak", "moderate", "strong"),
    "min_days": (59, 60, 61),
    "min_calls": (199, 200, 201),
    "required_approvals": (
        ("ml_lead", "risk_manager", "cro"),
        ("ml_lead", "quant_lead", "risk_manager"),
        ("risk_manager", "quant_lead", "ml_lead", "cro"),
    ),
    "allow_self_approval": (True, False, None),
    "approval_max_age_days": (15, 14, 13),
    "checklist_max_age_days": (31, 30, 29),
    "min_day_clusters": (39, 40, 41),
    "relative_sharpe_floor": (0.2, 0.25, None),
}
"""For every field a looser value, the usual one, and a tighter one where there is any."""


class TestLooser:
    """Which of two policies asks for less."""

    def test_every_field_has_a_direction(self) -> None:
        """A field added to the policy cannot be forgotten, and the table above starts from the usual values."""
        assert set(WAYS) == {field.name for field in fields(Policy)}
        assert {name: values[1] for name, values in WAYS.items()} == vars(usual())

    @pytest.mark.parametrize("name", WAYS)
    def test_one_field(self, name: str) -> None:
        """The looser value is named with its setting and both values; the tighter and the same are not."""
        less, _, more = WAYS[name]
        found = looser(replace(usual(), **{name: less}), usual())
        variable = f"SENSEQUANT_PROMOTION_{name.upper()}"
        assert len(found) == 1
        assert found[0].startswith(f"{variable if variable.lower()[11:] in Settings.model_fields else name}=")
        assert "is looser than" in found[0]
        assert tighter(replace(usual(), **{name: less}), usual()) == []
        if more is not None:
            assert looser(replace(usual(), **{name: more}), usual()) == []
            assert len(tighter(replace(usual(), **{name: more}), usual())) == 1
            assert len(looser(usual(), replace(usual(), **{name: more}))) == 1

    def test_a_floor_between_two_rules_is_another_policy_on_either_side(self) -> None:
        """Which of two Sharpe rules applies may ease either of them: any other floor counts as looser."""
        for floor in (0.1, 0.5):
            assert looser(usual(relative_sharpe_floor=floor), usual()) == [
                f"relative_sharpe_floor={floor} is looser than 0.25"
            ]

    def test_nothing_is_looser_than_itself(self) -> None:
        """The same policy, and the same roles in another order."""
        assert looser(ASKED, ASKED) == tighter(ASKED, ASKED) == []
        turned = replace(ASKED, required_approvals=ASKED.required_approvals[::-1])
        assert looser(turned, ASKED) == []

    def test_fields_do_not_hide_each_other(self) -> None:
        """One tighter field does not make up for a looser one, whichever two they are."""
        for one, other in itertools.permutations(WAYS, 2):
            changed = replace(usual(), **{one: WAYS[one][0]})
            if WAYS[other][2] is not None:
                changed = replace(changed, **{other: WAYS[other][2]})
            assert len(looser(changed, usual())) == 1, (one, other)


def rewritten(folder: Path, edit: Callable[[Entry], object]) -> list[Entry]:
    """The log whose lines were edited by somebody who mends every digest of the chain."""
    previous, lines = AUDIT_FORM.genesis, []
    for line in (folder / AUDIT_FILE).read_text().splitlines():
        entry = json.loads(line)
        del entry["digest"]
        edit(entry)
        entry["previous"] = previous
        lines.append(canonical_json(entry | {"digest": sha256_json(entry)}, indent=None))
        previous = sha256_bytes(lines[-1].encode()[:-1])
    (folder / AUDIT_FILE).write_text("".join(lines))
    head_file(folder / AUDIT_FILE).unlink()
    write_head(folder / AUDIT_FILE, [json.loads(line) for line in lines], AUDIT_FORM)
    return read_audit(folder)


class TestALineThatDoesNotHold:
    """A policy is taken from the log only where the line is what was accepted."""

    @pytest.mark.parametrize(
        ("edit", "said"),
        [
            (lambda entry: entry["policy"].update(min_days=1), "differs from its digest"),
            (lambda entry: entry["policy"].pop("min_days"), "cannot be used"),
            (lambda entry: entry["policy"].update(min_evidence="huge"), "cannot be used"),
            (lambda entry: entry.update(signature="x"), "signed in part"),
            (
                lambda entry: entry.update(signature="x", signers="y", statement="{}"),
                "not what was signed",
            ),
        ],
    )
    def test_it_is_refused(
        self, log: list[Entry], tmp_path: Path, edit: Callable[[Entry], object], said: str
    ) -> None:
        """Even with every digest of the chain mended: one line, exit 4, and no policy at all."""
        edited = rewritten(tmp_path / "data/models", edit)
        for ask in (policy_in_force, policy_of_run):
            with pytest.raises(AuditBroken, match=said) as refusal:
                ask(settings(), edited, "default")
            assert refusal.value.exit_code == 4
            assert "\n" not in refusal.value.message


def checklist(policy: Policy, kept: Any = None) -> dict[str, Any]:
    """A checklist judged by this policy, with what it keeps of the one in force."""
    metrics = dict(zip(METRIC_KEYS, (0.7, 0.7, 0.7, 1.0, 0.1, 0.1, 0.6), strict=True))
    return generate_promotion_checklist(
        timestamp="2025-01-12T15:30:00Z",
        candidate_model=None,
        baseline_model=None,
        start=None,
        end=None,
        symbols=None,
        candidate_metrics=metrics | {"precision_long": 0.75, "hit_ratio": 0.75, "sharpe_ratio": 1.5},
        baseline_metrics=metrics,
        policy=policy,
        adequacy=None,
        evidence={"policy_in_force": kept, "notes": ["a note"]},
    )


class TestChecklist:
    """Every checklist names the policy it was judged by and the one in force, and says where it is looser."""

    def test_both_digests_are_named(self) -> None:
        """The policy's always; that of the policy in force, or null where none was accepted."""
        before, after = checklist(usual()), checklist(ASKED, held_against(ASKED, ASKED))
        assert before["digests"]["policy"] == sha256_json(before["policy"]) == policy_digest(usual())
        assert (before["digests"]["policy_in_force"], before["evidence"]["policy_in_force"]) == (None, None)
        assert after["digests"]["policy"] == after["digests"]["policy_in_force"] == policy_digest(ASKED)
        assert before["verdict_reasons"] == [
            line for line in after["verdict_reasons"] if "asks for less" not in line
        ]

    def test_a_loosened_run_is_marked(self) -> None:
        """Each looser field is a line among the verdict's reasons; the recommendation itself is not touched."""
        loose = usual(min_evidence="none")
        marked, plain = checklist(loose, held_against(loose, ASKED)), checklist(loose)
        marks = [
            line for line in marked["verdict_reasons"] if line.startswith("not promotable under this policy")
        ]
        assert [line.split("PROMOTION_")[1].split("=")[0] for line in marks] == [
            "MIN_SHARPE_UPLIFT",
            "MIN_EVIDENCE",
            "MIN_DAYS",
            "CHECKLIST_MAX_AGE_DAYS",
        ]
        assert marked["recommendation"] == plain["recommendation"] == "PROMOTE"
        assert differences(marked) == []

    @pytest.mark.parametrize(
        ("edit", "said"),
        [
            (lambda c: c["policy"].update(min_days=1), "policy_digests"),
            (lambda c: c["digests"].update(policy="0" * 64), "policy_digests"),
            (lambda c: c["digests"].update(policy_in_force=None), "policy_digests"),
            (lambda c: c["verdict_reasons"].pop(-2), "verdict_reasons"),
            (lambda c: c["evidence"].update(policy_in_force=None), "verdict_reasons"),
        ],
    )
    def test_an_edited_mark_or_policy_is_noticed(self, edit: Callable[[Any], object], said: str) -> None:
        """Digests and marks follow from the rest of the checklist; the verdict can still be derived again."""
        loose = usual(min_evidence="none")
        made = checklist(loose, held_against(loose, ASKED))
        edit(made)
        assert any(line.startswith(said) for line in differences(made))
        assert rederive(made)[0] == "PROMOTE"

    @pytest.mark.parametrize(
        "kept", [[], "x", {"digest": "a"}, {"digest": 1, "looser": []}, {"digest": "a", "looser": [1]}]
    )
    def test_another_form_is_refused(self, kept: Any) -> None:
        """What is kept of the policy in force is null, or a digest with a list of lines."""
        with pytest.raises(ChecklistInputError, match="policy_in_force"):
            checklist(usual(), kept)
