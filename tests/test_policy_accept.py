"""`sqkit policy accept` and `show`: a fact of the audit log, signed where signers are set, that research judges by."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sqkit.audit_log import POLICY, read_audit
from sqkit.checklist import Policy
from sqkit.errors import (
    AuditBroken,
    ChecklistInputError,
    ConflictError,
    SignatureRefused,
    SigningFailed,
    SqkitError,
    UsageError,
)
from sqkit.files import canonical_json, write_json
from sqkit.people import Actor
from sqkit.policy_in_force import accepted_policy, policy_digest
from sqkit.production.audit import AuditLog
from sqkit.production.changes import Production
from sqkit.production.policy_acceptance import accept_policy, parse_policy, policy_about
from sqkit.production.signed_facts import signers_in_force
from sqkit.production.signing import POLICY as NAMESPACE
from sqkit.production.signing import has_ssh_keygen, principal_of
from sqkit.settings import Settings
from tests.policies import ACCEPTED_AT, accept, usual
from tests.project import Project

ASKED = replace(usual(), min_days=90, min_sharpe=0.5)
LOOSER = replace(ASKED, min_days=30, required_approvals=("ml_lead",))

needs_ssh_keygen = pytest.mark.skipif(not has_ssh_keygen(), reason="ssh-keygen is not installed")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project with two policies as files."""
    write_json(tmp_path / "asked.json", ASKED.to_dict())
    write_json(tmp_path / "looser.json", LOOSER.to_dict())
    return Project(tmp_path)


def entries(root: Path) -> list[dict[str, Any]]:
    """The verified audit log of a project."""
    return read_audit(root / "data/models")


class TestCommands:
    """The real commands, in a process of their own."""

    def test_what_show_prints_is_what_accept_takes(self, project: Project) -> None:
        """The settings first; accepted as they are they are in force, and standard error says where from."""
        first = project.sqkit("policy", "show")
        assert json.loads(first.stdout) == usual().to_dict()
        assert first.stderr == (
            "sqkit: slot default: no policy was accepted yet, the settings are the policy\n"
        )
        (project.root / "present.json").write_text(first.stdout)

        run = project.sqkit("policy", "accept", "present.json", "--as", "Ann", "--reason", "as it was")
        again = project.sqkit("policy", "show")

        assert (run.returncode, run.stderr) == (0, "")
        assert run.stdout.splitlines() == [
            f"slot default: policy {policy_digest(usual())[:12]} is in force, accepted by Ann "
            "(unsigned: a typed name is not authentication)"
        ]
        assert again.stdout == first.stdout
        assert "accepted at 2020-01-01T00:00:00Z by Ann (unsigned): as it was" in again.stderr

    def test_the_line_of_the_log(self, project: Project) -> None:
        """Policy, digest, who, when, why; nothing else of the project is written."""
        before = project.files()
        run = project.sqkit("policy", "accept", "asked.json", "--as", "Ann", "--reason", "as agreed")
        [line] = entries(project.root)

        assert run.returncode == 0, run.stderr
        assert (line["kind"], line["slot"], line["reason"]) == (POLICY, "default", "as agreed")
        assert Policy.from_dict(line["policy"]) == ASKED
        assert line["policy_digest"] == policy_digest(ASKED)
        assert (line["at"], line["actor"]["name"], line["actor"]["principal"]) == (
            "2020-01-01T00:00:00Z",
            "Ann",
            None,
        )
        assert (line["statement"], line["signature"], line["signers"]) == (None, None, None)
        assert project.files() - before == {"data/models/audit.jsonl", "data/models/audit.head"}

    def test_each_field_that_becomes_looser_is_printed(self, project: Project) -> None:
        """A looser policy is accepted, and whoever accepts reads what it gives up, against what was in force."""
        first = project.sqkit("policy", "accept", "asked.json")
        second = project.sqkit("policy", "accept", "looser.json")

        assert first.stdout.splitlines()[:-1] == [
            "SENSEQUANT_PROMOTION_MIN_SHARPE=0.5 is tighter than 0.0",
            "SENSEQUANT_PROMOTION_MIN_DAYS=90 is tighter than 60",
        ]
        assert second.returncode == 0
        assert second.stdout.splitlines()[:-1] == [
            "SENSEQUANT_PROMOTION_MIN_DAYS=30 is looser than 90",
            "SENSEQUANT_PROMOTION_REQUIRED_APPROVALS=ml_lead is looser than ml_lead,quant_lead,risk_manager",
        ]
        assert accepted_policy(entries(project.root), "default") == LOOSER

    def test_accepting_the_same_again_writes_nothing(self, project: Project) -> None:
        """It says since when it is in force, exit 0."""
        project.sqkit("policy", "accept", "asked.json")
        again = project.sqkit("policy", "accept", "asked.json", "--as", "Bob")
        assert (again.returncode, len(entries(project.root))) == (0, 1)
        assert "is in force since 2020-01-01T00:00:00Z; nothing to accept" in again.stdout

    def test_what_is_set_beside_it_is_said(self, project: Project) -> None:
        """Show gives the policy a promotion demands: a tighter setting counts, a looser one has no effect."""
        project.sqkit("policy", "accept", "asked.json")
        own = {
            "SENSEQUANT_PROMOTION_MIN_DAYS": "100",
            "SENSEQUANT_PROMOTION_MIN_SHARPE": "0.1",
            "SENSEQUANT_PROMOTION_REQUIRED_APPROVALS": "cro",
        }
        run = project.sqkit("policy", "show", "--json", environment=own)
        about = json.loads(run.stdout)

        assert about["policy"]["min_days"] == 100
        assert about["policy"]["min_sharpe"] == 0.5
        assert about["policy"]["required_approvals"] == ["ml_lead", "quant_lead", "risk_manager", "cro"]
        assert about["accepted"]["policy_digest"] == policy_digest(ASKED) != about["digest"]
        assert about["tightened"] == [
            "SENSEQUANT_PROMOTION_MIN_DAYS=100 is tighter than 90",
            "SENSEQUANT_PROMOTION_REQUIRED_APPROVALS=ml_lead,quant_lead,risk_manager,cro is tighter than "
            "ml_lead,quant_lead,risk_manager",
        ]
        assert about["without_effect"] == ["SENSEQUANT_PROMOTION_MIN_SHARPE=0.1 is looser than 0.5"]
        said = project.sqkit("policy", "show", environment=own).stderr
        assert "without effect on a promotion: SENSEQUANT_PROMOTION_MIN_SHARPE=0.1" in said

    def test_slots(self, project: Project) -> None:
        """A strategy with a place of its own has its own policy; one without goes to the default slot."""
        own = {"SENSEQUANT_STUDENT_MODEL_PATHS": '{"swing": "data/models/swing/student_model.onnx"}'}
        for slot in ("swing", "intraday"):
            run = project.sqkit("policy", "accept", "asked.json", "--slot", slot, environment=own)
            assert run.returncode == 0, run.stderr
        assert [line["slot"] for line in entries(project.root)] == ["swing", "default"]
        assert project.json("policy", "show", "--slot", "intraday")["slot"] == "default"

    @pytest.mark.parametrize(
        ("words", "code", "said"),
        [
            (["nowhere.json"], 2, "nowhere.json: cannot be read"),
            (["."], 2, "cannot be read"),
            (["bytes"], 2, "cannot be read"),
            (["empty.json"], 2, "empty.json: policy: missing"),
            (["asked.json", "--slot", "forex"], 2, "choose one of default"),
            (["asked.json", "--slot", "../x"], 2, "choose one of default"),
            (["asked.json", "--reason", "two\nlines"], 2, "reason in one line"),
            (["asked.json", "--key", "key"], 2, "no signers file is set"),
        ],
    )
    def test_what_cannot_be_accepted(self, project: Project, words: list[str], code: int, said: str) -> None:
        """One line, and no line in the log."""
        (project.root / "empty.json").write_text("{}")
        (project.root / "bytes").write_bytes(b"\xff\xfe")
        run = project.sqkit("policy", "accept", *words)
        assert (run.returncode, len(run.stderr.splitlines()), run.stdout) == (code, 1, ""), run.stderr
        assert said in run.stderr
        assert entries(project.root) == []

    def test_a_broken_log_takes_no_policy_and_gives_none(self, project: Project) -> None:
        """Exit 4 for accepting, for showing and for judging: what is in force is not known."""
        project.sqkit("policy", "accept", "asked.json")
        log = project.root / "data/models/audit.jsonl"
        log.write_text(log.read_text().replace('"min_days":90', '"min_days":10'))
        metrics = canonical_json(dict.fromkeys(("precision_long",), 0.5))
        (project.root / "m.json").write_text(metrics)
        judge = ["--candidate-metrics", "m.json", "--baseline-metrics", "m.json", "--output-dir", "out"]
        for words in (["policy", "accept", "looser.json"], ["policy", "show"], ["checklist", *judge]):
            run = project.sqkit(*words)
            assert (run.returncode, len(run.stderr.splitlines()), run.stdout) == (4, 1, ""), run.stderr
            assert "line 1 was edited" in run.stderr

    def test_a_folder_that_cannot_be_written(self, project: Project, without_root_rights: list[str]) -> None:
        """No rights: one line, exit 2, nothing in force."""
        (project.root / "data").mkdir()
        (project.root / "data").chmod(0o555)
        try:
            run = project.sqkit("policy", "accept", "asked.json", prefix=without_root_rights)
        finally:
            (project.root / "data").chmod(0o755)
        assert (run.returncode, len(run.stderr.splitlines())) == (2, 1)
        assert "no permission to write here" in run.stderr

    def test_metrics_from_elsewhere_are_held_against_it_too(self, project: Project) -> None:
        """Their checklist belongs to no slot; it names the default one's policy and where a flag is looser."""
        project.sqkit("policy", "accept", "asked.json")
        metrics = dict.fromkeys(("precision_long", "hit_ratio", "accuracy", "win_rate"), 0.6)
        metrics |= dict.fromkeys(("sharpe_ratio", "total_return", "max_drawdown"), 1.0)
        write_json(project.root / "m.json", metrics)
        words = ["--candidate-metrics", "m.json", "--baseline-metrics", "m.json", "--output-dir", "out"]
        project.sqkit("checklist", *words, "--precision-uplift-threshold", "0.001")
        made = json.loads((project.root / "out/promotion_checklist.json").read_text())

        assert made["policy"] == ASKED.to_dict() | {"min_precision_uplift": 0.001}
        assert made["digests"]["policy_in_force"] == policy_digest(ASKED)
        assert (
            "not promotable under this policy: SENSEQUANT_PROMOTION_MIN_PRECISION_UPLIFT=0.001 is looser than 0.02 "
            "in force"
        ) in made["verdict_reasons"]
        assert "not promotable under this policy" in (project.root / "out/promotion_checklist.md").read_text()


class TestPolicyFile:
    """What `sqkit policy accept` reads."""

    def test_round_trip(self) -> None:
        """The file of a policy gives the policy again; whole numbers in place of decimals are the same policy."""
        stored = ASKED.to_dict()
        assert parse_policy(canonical_json(stored), "p.json") == ASKED
        whole = parse_policy(canonical_json(stored | {"min_sharpe": 0}), "p.json")
        assert policy_digest(whole) == policy_digest(replace(ASKED, min_sharpe=0.0))

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("{", "not strict JSON"),
            ('{"min_days": NaN}', "not strict JSON"),
            ('{"min_days": 1, "min_days": 2}', "given twice"),
            ("[" * 100_000, "not strict JSON"),
            ("[]", "give an object"),
            ("5", "give an object"),
            ("{}", "missing min_precision_uplift"),
        ],
    )
    def test_what_is_no_policy(self, text: str, said: str) -> None:
        """One line that names the file and what to start from."""
        with pytest.raises(ChecklistInputError, match=said) as refusal:
            parse_policy(text, "p.json")
        assert refusal.value.message.startswith("p.json: ")
        assert "\n" not in refusal.value.message

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"min_dayz": 1}, "unknown min_dayz"),
            ({"min_days": 60.5}, "min_days=60.5"),
            ({"min_days": -1}, "min_days=-1"),
            ({"min_days": True}, "min_days=True"),
            ({"min_sharpe": "0.5"}, "min_sharpe='0.5'"),
            ({"min_evidence": "huge"}, "none, weak, moderate, strong"),
            ({"require_all_criteria": 1}, "require_all_criteria=1"),
            ({"relative_sharpe_floor": 0.0}, "above 0"),
            ({"approval_max_age_days": 0}, "at least 1 day"),
            ({"checklist_max_age_days": 0}, "at least 1 day"),
            ({"required_approvals": "ml_lead"}, "list of words"),
            ({"required_approvals": ["ml_lead", "ml_lead"]}, "each role once"),
            ({"required_approvals": ["ml_lead,cro"]}, "without a comma"),
            ({"required_approvals": [""]}, "each role once"),
            ({"required_approvals": ["cro\n"]}, "each role once"),
        ],
    )
    def test_what_cannot_be_used(self, change: dict[str, Any], said: str) -> None:
        """A value of another kind, out of range, or a role nobody could name."""
        with pytest.raises(ChecklistInputError, match=said):
            parse_policy(canonical_json(ASKED.to_dict() | change), "p.json")


def key_of(folder: Path, name: str) -> Path:
    """A new SSH key without a passphrase."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
    subprocess.run(command, check=True, capture_output=True)
    return folder / name


def signers_line(key: Path, options: str = "") -> str:
    """The line of a signers file that lets a key sign."""
    kind, text, name = key.with_name(f"{key.name}.pub").read_text().split()
    return f"{name} {options} {kind} {text}\n"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with keys of Ann, Bob and Eve, and a signers file that knows Ann and Bob."""
    folder = tmp_path_factory.mktemp("keys")
    ann, bob, _ = (key_of(folder, name) for name in ("ann", "bob", "eve"))
    (folder / "signers").write_text(signers_line(ann) + signers_line(bob, 'namespaces="sqkit-risk_manager"'))
    return folder


@needs_ssh_keygen
class TestSigned:
    """Where a signers file is set a policy is in force only with the signature of somebody it names."""

    def accept(self, root: Path, keys: Path, policy: Policy = ASKED, key: str = "ann") -> dict[str, Any]:
        """Accept a policy with somebody's key."""
        signer = keys / key if key else None
        return accept(root, policy, key=signer, promotion_allowed_signers=str(keys / "signers"))

    def test_the_line_keeps_all_that_proves_it(self, keys: Path, tmp_path: Path) -> None:
        """Statement, signature and the text of the signers file: whoever has the line can verify it."""
        line = self.accept(tmp_path, keys)
        said = json.loads(line["statement"])

        assert line["actor"]["principal"] == "ann"
        assert line["signers"] == (keys / "signers").read_text()
        found = principal_of(line["statement"], line["signature"], line["signers"], NAMESPACE, ACCEPTED_AT)
        assert found == "ann"
        assert said["policy"] == ASKED.to_dict()
        assert said["policy_digest"] == policy_digest(ASKED)
        assert (said["slot"], said["name"], said["replaces"]) == ("default", "Ann", None)
        assert accepted_policy(entries(tmp_path), "default") == ASKED

    @pytest.mark.parametrize(
        ("key", "refusal", "said"),
        [
            ("", SignatureRefused, "has to be signed here"),
            ("eve", SignatureRefused, "not in the signers file"),
            ("bob", SignatureRefused, "does not let this key sign as sqkit-policy"),
            ("nobody", SigningFailed, "no such key"),
        ],
    )
    def test_nobody_else(
        self, keys: Path, tmp_path: Path, key: str, refusal: type[SqkitError], said: str
    ) -> None:
        """No signature, a stranger's, one of a key meant for something else: nothing is written."""
        with pytest.raises(refusal, match=said):
            self.accept(tmp_path, keys, key=key)
        assert entries(tmp_path) == []

    def test_a_signature_fits_only_the_place_it_was_made_for(self, keys: Path, tmp_path: Path) -> None:
        """A line that brings an old, looser policy back with its old signature is refused."""
        loose = self.accept(tmp_path, keys, LOOSER)
        self.accept(tmp_path, keys, ASKED)
        kept = ("policy", "policy_digest", "reason", "statement", "signature", "signers")
        AuditLog(tmp_path / "data/models").append(
            POLICY,
            {name: loose[name] for name in kept},
            slot="default",
            actor=Actor(**loose["actor"]),
            now=ACCEPTED_AT,
            zone="Asia/Kolkata",
        )
        with pytest.raises(AuditBroken, match="not what was signed"):
            accepted_policy(entries(tmp_path), "default")

    def test_an_unsigned_policy_can_be_signed_later(self, keys: Path, tmp_path: Path) -> None:
        """The same policy again, now with a signature, is a new fact; a third time it is not."""
        accept(tmp_path, ASKED)
        signed = self.accept(tmp_path, keys)
        assert signed["actor"]["principal"] == "ann"
        assert self.accept(tmp_path, keys) == signed
        assert len(entries(tmp_path)) == 2

    def test_a_signed_policy_is_replaced_by_a_signature_only(self, keys: Path, tmp_path: Path) -> None:
        """Also in a slot that has no policy of its own: what is in force there is the default slot's."""
        self.accept(tmp_path, keys)
        for slot in ("default", "swing"):
            paths: dict[str, Any] = {"student_model_paths": {"swing": "data/models/swing/student_model.onnx"}}
            with pytest.raises(SignatureRefused, match="takes the place of one that was signed"):
                accept(tmp_path, LOOSER, slot, **paths)
        assert len(entries(tmp_path)) == 1

    def test_a_new_signers_file_is_accepted_by_somebody_of_the_old_one(
        self, keys: Path, tmp_path: Path
    ) -> None:
        """Ann lets Eve in; Eve, who names herself in a file of her own, lets nobody in."""
        self.accept(tmp_path, keys)
        (tmp_path / "own").write_text(signers_line(keys / "eve"))
        (tmp_path / "both").write_text(signers_line(keys / "eve") + signers_line(keys / "ann"))
        for name in ("own", "both"):
            with pytest.raises(SignatureRefused, match="changes the signers file, and by the one in force"):
                accept(tmp_path, LOOSER, key=keys / "eve", promotion_allowed_signers=str(tmp_path / name))
        rotated = accept(tmp_path, ASKED, key=keys / "ann", promotion_allowed_signers=str(tmp_path / "both"))
        assert rotated["signers"] == (tmp_path / "both").read_text()
        settings = Settings(_env_file=None, promotion_allowed_signers=str(tmp_path / "both"))
        assert signers_in_force(settings, tmp_path, entries(tmp_path), "default") == rotated["signers"]
        accept(tmp_path, LOOSER, key=keys / "eve", promotion_allowed_signers=str(tmp_path / "both"))

    def test_a_line_that_drops_the_signature_breaks_the_log(self, keys: Path, tmp_path: Path) -> None:
        """Written past the command, by somebody who knows how lines are made."""
        self.accept(tmp_path, keys)
        unsigned = dict.fromkeys(("statement", "signature", "signers"))
        said = {"policy": LOOSER.to_dict(), "policy_digest": policy_digest(LOOSER), "reason": "", **unsigned}
        AuditLog(tmp_path / "data/models").append(
            "policy",
            said,
            slot="default",
            actor=Actor("Eve", "eve", "desk"),
            now=ACCEPTED_AT,
            zone="America/New_York",
        )
        with pytest.raises(AuditBroken, match="is unsigned and takes the place of a signed one"):
            accepted_policy(entries(tmp_path), "default")

    def test_the_command_signs(self, keys: Path, project: Project) -> None:
        """--key at the command line; show says who signed."""
        own = {"SENSEQUANT_PROMOTION_ALLOWED_SIGNERS": str(keys / "signers")}
        refused = project.sqkit("policy", "accept", "asked.json", environment=own)
        run = project.sqkit("policy", "accept", "asked.json", "--key", str(keys / "ann"), environment=own)
        shown = project.sqkit("policy", "show", environment=own)

        assert (refused.returncode, len(refused.stderr.splitlines())) == (4, 1)
        assert "give --key FILE" in refused.stderr
        assert run.returncode == 0, run.stderr
        assert "(signed by ann)" in run.stdout
        assert "(signed by ann)" in shown.stderr

    def test_a_locked_key_is_one_line(self, keys: Path, project: Project) -> None:
        """Without a terminal nobody is asked for a passphrase and nothing hangs."""
        locked = project.root / "locked"
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-C", "ann", "-f", str(locked)]
        subprocess.run(words, check=True, capture_output=True)
        (project.root / "signers").write_text(signers_line(locked))
        own = {"SENSEQUANT_PROMOTION_ALLOWED_SIGNERS": "signers"}
        run = project.sqkit("policy", "accept", "asked.json", "--key", "locked", environment=own)
        assert (run.returncode, len(run.stderr.splitlines())) == (2, 1), run.stderr
        assert "locked" in run.stderr


def test_two_at_once(tmp_path: Path) -> None:
    """Of two people who accept at the same moment both lines stand in order, or one is told of the other."""
    outcomes: list[Any] = []
    ready = threading.Barrier(2)

    def run(days: int) -> None:
        production = Production(
            Settings(_env_file=None), tmp_path, clock=lambda: ACCEPTED_AT, actor=Actor("Ann", "ann", "desk")
        )
        ready.wait()
        try:
            outcomes.append(accept_policy(production, "default", usual(min_days=days)).new)
        except ConflictError as refusal:
            outcomes.append(refusal.exit_code)

    threads = [threading.Thread(target=run, args=(days,)) for days in (70, 80)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes, key=str) in ([True, True], [5, True])
    assert len(entries(tmp_path)) == outcomes.count(True)


def test_a_policy_accepted_meanwhile_is_not_overruled_unseen(tmp_path: Path) -> None:
    """What was compared is what is replaced: another accept between reading and writing is a conflict."""

    def meanwhile() -> dt.datetime:
        """The clock is asked after the log was read: somebody else accepts a policy then."""
        if not entries(tmp_path):
            accept(tmp_path, usual(min_days=70))
        return ACCEPTED_AT

    production = Production(Settings(_env_file=None), tmp_path, clock=meanwhile)
    with pytest.raises(ConflictError, match="accepted meanwhile"):
        accept_policy(production, "default", usual(min_days=80))
    assert [line["policy"]["min_days"] for line in entries(tmp_path)] == [70]


def test_python_users_get_the_same(tmp_path: Path) -> None:
    """`accept_policy` and `policy_about` without a command; a key nobody could verify is refused."""
    production = Production(Settings(_env_file=None), tmp_path, clock=lambda: ACCEPTED_AT)
    assert policy_about(production, "default")["accepted"] is None
    done = accept_policy(production, "swing", ASKED)
    assert (done.slot, done.new) == ("default", True)
    assert policy_about(production, "default")["digest"] == policy_digest(ASKED)
    with pytest.raises(UsageError, match="no signers file is set"):
        accept_policy(production, "default", LOOSER, key=tmp_path / "key")
