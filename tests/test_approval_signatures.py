"""Signed approvals: real keys, real ssh-keygen; only whom the signers file names, and only what they signed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sqkit.artifacts import APPROVALS_FILE
from sqkit.errors import (
    ApprovalVoid,
    SelfApproval,
    SignatureRefused,
    SigningFailed,
    UsageError,
)
from sqkit.files import canonical_json, sha256_file
from sqkit.production.approval_facts import signed_text
from sqkit.production.approvals import (
    Signer,
    attest,
    parse_book,
    verified_later,
)
from sqkit.production.signing import sign
from sqkit.settings import Settings
from tests.policies import accept, usual
from tests.sign_offs import DAY, NOW, PEOPLE, VERSION, Case, Keys, make_keys, rewrite, sign_all
from tests.small_candidate import small_candidate
from tests.ssh_keys import signers_line


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Nobody has said anything yet."""
    small_candidate(tmp_path, VERSION)
    return Case(tmp_path, Settings(_env_file=None))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Made once; read only."""
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def signed(case: Case, keys: Keys) -> Case:
    """Signatures are asked for."""
    (case.root / "signers").write_text("".join(keys.lines.values()))
    return case.under(promotion_allowed_signers="signers")


# --- signatures


def test_signed_approvals_complete_a_candidate(signed: Case, keys: Keys) -> None:
    """Everybody is who the signers file says, and the facts hold the signatures."""
    sign_all(signed, keys)
    stands = signed.standing()

    assert stands.problems == ()
    assert not stands.unsigned
    assert [one.principal for one in stands.roles] == [
        "asha@example.com",
        "bo@example.com",
        "chen@example.com",
    ]
    assert all(fact["signature"].startswith("-----BEGIN SSH") for fact in signed.book["facts"])
    assert "authentication" not in "".join(signed.approve("ml_lead", key=keys.key("asha")).lines())


def test_the_name_is_the_principals_unless_the_typed_one_agrees(
    signed: Case, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typed name that is not the key's is refused; the account's name gives way to the principal."""
    monkeypatch.setenv("LOGNAME", "root")
    assert signed.approve("ml_lead", key=keys.key("asha")).fact["name"] == "asha@example.com"
    assert signed.approve("ml_lead", "Asha", keys.key("asha")).fact["name"] == "Asha"
    monkeypatch.setenv("LOGNAME", "asha")
    assert signed.approve("ml_lead", key=keys.key("asha")).fact["name"] == "asha"

    with pytest.raises(SignatureRefused, match=r"--as Bo: the key .* is that of asha@example.com"):
        signed.approve("ml_lead", "Bo", keys.key("asha"))


def test_a_key_without_its_public_half_is_named_all_the_same(
    signed: Case, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose key it is only shows in the signature then; the fact still names its principal."""
    monkeypatch.setenv("LOGNAME", "root")
    alone = tmp_path / "alone"
    alone.write_bytes(keys.key("asha").read_bytes())
    alone.chmod(0o600)

    fact = signed.approve("ml_lead", key=alone).fact
    assert (fact["name"], fact["principal"]) == ("asha@example.com", "asha@example.com")
    assert signed.standing().roles[0].problem is None


def test_a_signature_that_is_asked_for_must_be_there(signed: Case, keys: Keys) -> None:
    """Without --key nobody approves or attests; with a key where nobody asks, that is said too."""
    with pytest.raises(SignatureRefused, match=r"has to be signed here .*; give --key"):
        signed.approve("ml_lead", "Asha")
    with pytest.raises(SignatureRefused, match="give --key"):
        attest(
            signed.model,
            "period-representative",
            "seen",
            Signer("Asha"),
            settings=signed.settings,
            root=signed.root,
            now=NOW,
        )
    with pytest.raises(UsageError, match="nobody could verify the signature"):
        signed.under().approve("ml_lead", "Asha", keys.key("asha"))
    assert not (signed.folder / APPROVALS_FILE).exists()


def test_typed_names_stop_counting_when_signatures_are_asked_for(
    case: Case, signed: Case, keys: Keys
) -> None:
    """Approvals from before do not count; signing suffices."""
    case.under().approve_all()

    problems = signed.problems()
    assert [type(problem) for problem in problems] == [SignatureRefused] * 3
    assert "is a typed name without a signature" in problems[0].message
    sign_all(signed, keys)
    assert signed.problems() == []


def test_who_is_taken_out_of_the_signers_file_counts_no_more(signed: Case, keys: Keys) -> None:
    """At the promotion the signers file of that day decides."""
    sign_all(signed, keys)
    (signed.root / "signers").write_text(keys.lines["asha"] + keys.lines["chen"])

    (problem,) = signed.problems()
    assert isinstance(problem, SignatureRefused)
    assert "approval by bo" in problem.message
    assert "not in the signers file" in problem.message


def test_a_key_that_expires_later_takes_nothing_back(signed: Case, keys: Keys) -> None:
    """A signature is verified at the time it was made."""
    sign_all(signed, keys)
    expired = "".join(
        signers_line(f"{name.lower()}@example.com", keys.key(name.lower()), 'valid-before="20250112"')
        for name in PEOPLE.values()
    )
    (signed.root / "signers").write_text(expired)

    assert signed.at(NOW + 5 * DAY).problems() == []
    with pytest.raises(SignatureRefused, match="was not valid on 2025-01-15"):
        signed.at(NOW + 5 * DAY).approve("ml_lead", key=keys.key("asha"))


def test_a_key_may_be_limited_to_its_role(signed: Case, keys: Keys) -> None:
    """``namespaces=`` keeps a risk manager's key from approving as the ML lead."""
    line = signers_line("chen@example.com", keys.key("chen"), 'namespaces="sqkit-risk_manager"')
    (signed.root / "signers").write_text(line)

    with pytest.raises(SignatureRefused, match="does not let this key sign as sqkit-ml_lead"):
        signed.approve("ml_lead", key=keys.key("chen"))
    signed.approve("risk_manager", key=keys.key("chen"))


def test_edited_facts_lose_their_signature(signed: Case, keys: Keys) -> None:
    """Whoever edits a fact and mends every id still has no signature over it."""
    sign_all(signed, keys)
    rewrite(signed, lambda fact: fact | {"comment": "also for other symbols"})

    assert [type(problem) for problem in signed.problems()] == [SignatureRefused] * 3
    assert "changed after it was signed" in signed.problems()[0].message


def test_a_signature_is_of_whom_the_fact_names(signed: Case, keys: Keys) -> None:
    """A fact cannot carry another name than its signer's, neither beside nor inside the signed text."""
    sign_all(signed, keys)
    rewrite(signed, lambda fact: fact | {"principal": "dana@example.com"})
    assert len(signed.problems()) == 3
    assert all("but the key is that of" in problem.message for problem in signed.problems())

    def by_asha(fact: dict[str, Any]) -> dict[str, Any]:
        named = fact | {"name": "Bo"}
        return named | {"principal": "asha@example.com"}

    (signed.folder / APPROVALS_FILE).unlink()
    signed.approve("quant_lead", key=keys.key("asha"))
    rewrite(signed, by_asha)
    book = signed.book
    text = signed_text(book["facts"][0])
    book["facts"][0]["signature"] = sign(text, keys.key("asha"), "sqkit-quant_lead")
    (signed.folder / APPROVALS_FILE).write_text(canonical_json(book))
    assert any("but the key is that of asha@example.com" in problem.message for problem in signed.problems())


def test_one_key_under_two_names_is_one_person(signed: Case, keys: Keys) -> None:
    """A second line for the same key makes no second person."""
    signed.approve("ml_lead", key=keys.key("asha"))
    twice = signers_line("asha@example.com", keys.key("asha"), 'valid-before="20250111"')
    twice += signers_line("other@example.com", keys.key("asha"), 'valid-after="20250111"')
    (signed.root / "signers").write_text(twice)

    with pytest.raises(SelfApproval, match="one person fills one role"):
        signed.at(NOW + DAY).approve("quant_lead", key=keys.key("asha"))


def test_the_author_cannot_sign_either(signed: Case, keys: Keys) -> None:
    """The principal counts as the author, whole or before the ``@``."""
    with pytest.raises(SelfApproval, match="who made the model"):
        signed.approve("ml_lead", key=keys.key("trainer"))
    small_candidate(signed.root, VERSION, created_by="Asha@Example.com")
    with pytest.raises(SelfApproval, match="who made the model"):
        signed.approve("ml_lead", key=keys.key("asha"))


def test_stopping_is_free_and_starting_is_not(signed: Case, keys: Keys) -> None:
    """Rejecting and taking an approval back need no key; taking a rejection back does."""
    sign_all(signed, keys)
    rejection = signed.reject("compliance", "Somebody", comment="wait")
    assert "rejected by Somebody" in signed.problems()[0].message

    with pytest.raises(SignatureRefused, match="give --key"):
        signed.revoke(rejection.fact["id"], "Dana")
    signed.revoke(rejection.fact["id"], "", keys.key("dana"))
    assert signed.problems() == []
    signed.revoke(signed.book["facts"][0]["id"], "Somebody")
    assert "nobody has approved as ml_lead" in signed.problems()[0].message


def test_a_typed_revocation_frees_no_rejection(case: Case, signed: Case, keys: Keys) -> None:
    """What was taken back by a typed name, before signatures were asked for, is in force again."""
    plain = case.under()
    plain.revoke(plain.reject("ml_lead", "Asha").fact["id"])
    sign_all(signed.under(promotion_allowed_signers="signers"), keys)

    assert plain.standing().rejections == ()
    assert signed.problems() == []  # Asha approved after all
    other = plain.reject("risk_manager", "Dana")
    plain.revoke(other.fact["id"])
    assert len(signed.problems()) == 1


def test_a_typed_name_takes_no_signed_word_back(case: Case, signed: Case, keys: Keys) -> None:
    """Neither does a typed approval lift a signed rejection, nor does it replace a signed approval."""
    sign_all(signed, keys)
    case.under().approve("risk_manager", "Chen")
    assert signed.problems() == []
    assert signed.standing().roles[2].principal == "chen@example.com"

    signed.reject("risk_manager", "", keys.key("chen"))
    case.under().approve("risk_manager", "Chen")
    assert len(signed.standing().rejections) == 1
    signed.approve("risk_manager", "", keys.key("chen"))
    assert signed.problems() == []


def test_without_ssh_keygen_nothing_is_promoted(
    signed: Case, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the promotion a signature that cannot be verified does not count."""
    sign_all(signed, keys)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert [type(problem) for problem in signed.problems()] == [SigningFailed] * 3


def test_a_running_release_is_verified_later(
    signed: Case, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the stored signers: nothing to say when all holds; another model or a bad signature is refused;
    a missing ssh-keygen is only said."""
    sign_all(signed, keys)
    book, signers = parse_book(signed.book), (signed.root / "signers").read_text()
    digest = sha256_file(signed.root / signed.model)

    assert verified_later(book, signers, model=digest) == []
    assert verified_later(book, None, model=digest) == []
    with pytest.raises(ApprovalVoid, match="not about 000000000000"):
        verified_later(book, signers, model="0" * 64)
    with pytest.raises(SignatureRefused):
        verified_later(book, keys.lines["asha"] + keys.lines["bo"])
    roles = {role: {"name": name, "signed": True} for role, name in PEOPLE.items()}
    assert verified_later(book, signers, roles=roles) == []
    monkeypatch.setenv("PATH", str(tmp_path))
    assert verified_later(book, signers) == [
        "the signatures of the approvals were not verified: ssh-keygen is not installed"
    ]


def test_whom_the_promotion_calls_signed_must_have_signed(signed: Case, case: Case, keys: Keys) -> None:
    """An empty book, one without a role, a typed name, a signers file that is gone: nobody signed there."""
    signed.approve("ml_lead", key=keys.key("asha"))
    signed.under().approve("quant_lead", "Bo")
    book, signers = parse_book(signed.book), (signed.root / "signers").read_text()
    asha = {"ml_lead": {"name": "Asha", "signed": True}}
    bo = {"quant_lead": {"name": "Bo", "signed": True}}
    chen = {"risk_manager": {"name": "Chen", "signed": True}}

    assert verified_later(replace(book, facts=book.facts[:1]), signers, roles=asha) == []
    typed = {role: {"name": "x", "signed": False} for role in (*asha, *bo, *chen)}
    assert verified_later(book, None, roles=typed) == []
    for facts, roles in (((), asha), (book.facts[:1], asha | chen), (book.facts, bo)):
        with pytest.raises(SignatureRefused):
            verified_later(replace(book, facts=facts), signers, roles=roles)
    with pytest.raises(SignatureRefused, match="the signers file is not stored with it"):
        verified_later(book, None, roles=asha)


# --- who may sign, once a policy was accepted with a signature


def test_the_signers_file_is_part_of_a_signed_policy(signed: Case, keys: Keys) -> None:
    """Neither unset nor replaced by another: whoever sets the environment does not say who may sign."""
    sign_all(signed, keys)
    accept(signed.root, usual(), key=keys.key("asha"), promotion_allowed_signers=str(signed.root / "signers"))
    signed.approve("ml_lead", key=keys.key("asha"))
    assert signed.problems() == []

    (signed.root / "own").write_text(keys.lines["trainer"])
    with pytest.raises(
        SignatureRefused, match=r"ALLOWED_SIGNERS is not set, but policy .* put that signers file"
    ):
        signed.under().approve("ml_lead", "Asha")
    with pytest.raises(SignatureRefused, match="ALLOWED_SIGNERS=own is not the signers file of policy"):
        signed.under(promotion_allowed_signers="own").approve("ml_lead", key=keys.key("trainer"))
    (signed.root / "signers").write_text(keys.lines["trainer"])
    with pytest.raises(
        SignatureRefused, match="sqkit policy accept FILE --key KEY, signed by somebody of the old"
    ):
        signed.problems()
