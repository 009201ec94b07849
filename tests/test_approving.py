"""Sign-offs at the command line and on the checklist's page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import sqkit.cli.approving
from sqkit.artifacts import CHECKLIST_PAGE
from sqkit.cli import main
from sqkit.production.approvals import (
    render_view,
)
from sqkit.settings import Settings
from tests.sign_offs import NOW, VERSION, Case, Keys, make_keys
from tests.small_candidate import small_candidate


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


# --- the page and the commands


def test_the_page_shows_who_signed(signed: Case, keys: Keys) -> None:
    """Signed, typed, rejected and void approvals each read as what they are."""
    plain = signed.under()
    plain.approve("ml_lead", "Asha")
    assert "- [x] **ML Lead**: Asha (typed name, not authenticated) Date: 2025-01-10\n" in plain.page
    assert "- [ ] **Quant Team Lead**: _______________ Date: ___________\n" in plain.page
    assert "A typed name is not authentication" in plain.page

    signed.approve("ml_lead", "Asha", keys.key("asha"))
    signed.approve("quant_lead", "Bo", keys.key("bo"), symbols=["AAA"], comment="small first")
    signed.reject("risk_manager", "Chen", comment="too thin")
    assert "- [x] **ML Lead**: Asha (signed, asha@example.com) Date: 2025-01-10\n" in signed.page
    assert "(signed, bo@example.com) Date: 2025-01-10: small first; only AAA\n" in signed.page
    assert (
        "- [ ] **Risk Manager**: ❌ rejected by Chen (typed name, not authenticated) Date: 2025-01-10: too thin"
        in signed.page
    )
    assert signed.page.count("**Risk Manager**") == 1
    assert "The approvals allow AAA." in signed.page

    small_candidate(signed.root, VERSION, grade="strong")
    render_view(signed.folder, settings=signed.settings, root=signed.root, now=NOW)
    assert re.search(r"- \[ \] \*\*ML Lead\*\*: _+ Date: _+ \(.*something changed .*is void", signed.page)


def test_a_page_that_cannot_be_drawn_takes_no_approval_back(case: Case) -> None:
    """The fact is on disk; the command says that the page is not."""
    (case.folder / CHECKLIST_PAGE).unlink()
    (case.folder / CHECKLIST_PAGE).mkdir()

    lines = case.approve("ml_lead", "Asha").lines()

    assert any("promotion_checklist.md was not drawn again" in line for line in lines)
    assert case.standing().roles[0].problem is None


def _run(words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    assert sqkit.cli.approving
    with pytest.raises(SystemExit) as leaving:
        main(shlex.split(words))
    said = capsys.readouterr()
    return int(str(leaving.value.code)), said.out, said.err


@pytest.fixture
def at_home(case: Case, monkeypatch: pytest.MonkeyPatch) -> Case:
    """Commands run in the project's folder, at a fixed time."""
    monkeypatch.chdir(case.root)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(int(NOW.timestamp())))
    return case


def test_the_printed_approvals_run_as_printed(
    at_home: Case, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each person copies their line from the page; afterwards every role is filled."""
    lines = re.findall(r"^sqkit (?:approve|attest) .*$", at_home.page, flags=re.MULTILINE)
    assert len(lines) == 4

    for number, line in enumerate(lines):
        monkeypatch.setenv("LOGNAME", f"person{number}")
        code, _, said = _run(line.removeprefix("sqkit "), capsys)
        assert (code, said) == (0, "")
    assert at_home.problems() == []
    assert "- [x] Out-of-sample period representative" in at_home.page


def test_approve_at_the_command_line(at_home: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what was done, what is missing with the very command, and that a typed name proves nothing."""
    code, out, _ = _run(f"approve --model {at_home.model} --role ml_lead --as Asha --symbols AAA", capsys)
    assert code == 0
    first, missing, *rest = out.splitlines()
    assert re.fullmatch(
        r"approved by Asha \(typed name, not authenticated\) as ml_lead for AAA, up to 2025-01-24 \(fact \w{12}\)",
        first,
    )
    assert f"run sqkit approve --model {at_home.model} --role quant_lead" in missing
    assert any("a typed name is not authentication" in line for line in rest)

    fact = first[-13:-1]
    code, out, _ = _run(f"approve --model {at_home.model} --revoke {fact} --reason oops --as Asha", capsys)
    assert code == 0
    assert f"the approval by Asha as ml_lead (fact {fact})" in out


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ("approve --model {model} --role cto --as A", 2, "give one of ml_lead"),
        ("approve --model {model} --as A", 2, "give --role ROLE"),
        ("approve --model {model} --role ml_lead --reason x", 2, "give --role ROLE"),
        ("approve --model {model} --revoke 1 --role ml_lead --reason x", 2, "--revoke takes --reason"),
        ("approve --model {model} --role ml_lead --as trainer", 1, "who made the model"),
        ("approve --model data/models/x/student_model.onnx --role ml_lead", 2, "no such model file"),
        ("approve --model ../student_model.onnx --role ml_lead", 2, "outside the models folder"),
        ("attest no-such-box --model {model} --note x", 2, "give one of criteria-met, period-representative"),
        ("attest rollback-tested --model {model} --note x", 2, "nobody's word ticks it: no rollback drill"),
        ("attest period-representative --note x", 2, "give --model for a candidate, or --slot"),
        ("attest config-updated --slot swing --note x", 2, "no release is live"),
        ("attest config-updated --slot forex --note x", 2, "slot 'forex'"),
    ],
)
def test_refusals_at_the_command_line(
    at_home: Case, capsys: pytest.CaptureFixture[str], words: str, code: int, line: str
) -> None:
    """One line on standard error, the right exit code, and nothing written."""
    before = sorted(path for path in at_home.folder.iterdir() if not path.name.endswith(".lock"))

    found, out, said = _run(words.format(model=at_home.model), capsys)

    assert (found, out) == (code, "")
    assert line in said
    assert len(said.splitlines()) == 1
    assert sorted(path for path in at_home.folder.iterdir() if not path.name.endswith(".lock")) == before
