"""The audit check: whatever is done to log, archive or production is found and located; nothing is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqkit.artifacts import APPROVALS_FILE, STUDENT_FILE
from sqkit.audit_log import AUDIT_FORM
from sqkit.chain import head_file
from sqkit.checklist_inputs import Policy
from sqkit.files import canonical_json, sha256_bytes, sha256_file, sha256_json, write_bytes, write_json
from sqkit.people import Actor
from sqkit.production.approval_book import new_fact
from sqkit.production.approval_facts import APPROVE, namespace_of, signed_text
from sqkit.production.audit_check import audit_lines, check_audit
from sqkit.production.changes import Production
from sqkit.production.interventions import ratify
from sqkit.production.policy_acceptance import accept_policy
from sqkit.production.signing import has_ssh_keygen, sign
from tests.audited import BELA, Audited, book_about, with_a_past
from tests.ssh_keys import make_key, signers_line

LINES = 12
EVERY = range(1, LINES + 1)
WITNESSED = 11
"""The last line that a sealed release counts; what follows is known from audit.head, and from whoever noted it."""


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a past of twelve lines; never changed."""
    return with_a_past(tmp_path_factory.mktemp("past")).root


@pytest.fixture
def project(past: Path, tmp_path: Path) -> Audited:
    """A copy of it to do harm to."""
    shutil.copytree(past, tmp_path / "project")
    return Audited(tmp_path / "project")


def found(project: Audited) -> list[str]:
    """Every difference the check names."""
    outcome = check_audit(project.settings, project.root)
    assert (outcome["status"] == "verified") == (not outcome["differences"])
    return [difference["what"] for difference in outcome["differences"]]


def named(project: Audited, *words: str) -> str:
    """The one difference that has all these words."""
    fitting = [what for what in found(project) if all(word in what for word in words)]
    assert len(fitting) == 1, (words, found(project))
    return fitting[0]


# --- a whole project


def test_a_whole_project_is_verified_and_nothing_is_written(project: Audited) -> None:
    """No difference, the head to note elsewhere, and every file is as it was before."""
    before = {path: path.stat().st_mtime_ns for path in project.root.rglob("*")}

    outcome = check_audit(project.settings, project.root)

    assert outcome["status"] == "verified"
    assert outcome["differences"] == []
    assert (outcome["lines"], outcome["releases"]) == (LINES, 4)
    assert outcome["head"] == project.production.log.entries()[-1]["digest"]
    assert "4 releases were approved by typed names" in outcome["notes"][0]
    assert {path: path.stat().st_mtime_ns for path in project.root.rglob("*")} == before


def test_the_last_line_says_the_outcome(project: Audited) -> None:
    """For a person the status stands last, whole or not."""
    whole = audit_lines(check_audit(project.settings, project.root))
    (project.models / "production" / STUDENT_FILE).write_bytes(b"other")
    harmed = audit_lines(check_audit(project.settings, project.root))

    assert whole[-1] == "audit: verified; 12 lines, 4 releases, 0 signatures agree"
    assert harmed[-1].startswith("audit: differs in 1 place")


def test_a_project_without_a_past_is_verified(tmp_path: Path) -> None:
    """Nothing was ever promoted: no difference, and no file is made."""
    outcome = check_audit(Audited(tmp_path).settings, tmp_path)

    assert audit_lines(outcome) == ["audit: nothing was ever promoted here"]
    assert list(tmp_path.iterdir()) == []


# --- the log, tampered with at every line


def lines_of(project: Audited) -> list[bytes]:
    """The log's lines without their ends."""
    return project.log.read_bytes().splitlines()


def write(project: Audited, lines: list[bytes]) -> None:
    """Put these lines in place of the log; its noted head stays."""
    project.log.write_bytes(b"".join(line + b"\n" for line in lines))


def chained(contents: list[dict[str, Any]]) -> list[bytes]:
    """Lines of these contents with every digest right, as a forger would write them."""
    lines, previous = [], AUDIT_FORM.genesis
    for content in contents:
        plain = {name: value for name, value in content.items() if name != "digest"} | {"previous": previous}
        lines.append(canonical_json(plain | {"digest": sha256_json(plain)}, indent=None).strip().encode())
        previous = sha256_bytes(lines[-1])
    return lines


def note_head(project: Audited) -> None:
    """Forge the noted head to fit the log as it lies there."""
    lines = lines_of(project)
    write_json(head_file(project.log), {"lines": len(lines), "digest": json.loads(lines[-1])["digest"]})


def with_other_name(line: bytes) -> bytes:
    """A line by somebody else, its digest left as it was."""
    return line.replace(b'"name":"', b'"name":"X', 1)


def with_own_digest(line: bytes) -> bytes:
    """The same with the digest that fits it."""
    content = json.loads(line)
    del content["digest"]
    return canonical_json(content | {"digest": sha256_json(content)}, indent=None).strip().encode()


@pytest.mark.parametrize("line", EVERY)
def test_an_edited_line_is_named(project: Audited, line: int) -> None:
    """A line that does not have its own digest is blamed, and no other for not following it."""
    lines = lines_of(project)
    lines[line - 1] = with_other_name(lines[line - 1])
    write(project, lines)

    broken = [what for what in found(project) if what.startswith("audit.jsonl: ")]
    assert broken == [f"audit.jsonl: line {line} was edited: it does not have its own digest"]


@pytest.mark.parametrize("line", EVERY)
def test_a_line_edited_with_its_digest_is_named(project: Audited, line: int) -> None:
    """The next line does not follow it; of the last one the noted head knows better."""
    lines = lines_of(project)
    lines[line - 1] = with_own_digest(with_other_name(lines[line - 1]))
    write(project, lines)

    if line < LINES:
        broken = named(project, f"audit.jsonl: line {line + 1} does not follow line {line}")
        assert f"line {line} was edited, or lines were removed" in broken
    else:
        assert f"line {line} was written anew" in named(project, "audit.head")


@pytest.mark.parametrize("line", EVERY)
def test_a_line_that_is_no_json_is_named(project: Audited, line: int) -> None:
    """Rubbish in place of a line is blamed at its number."""
    lines = lines_of(project)
    lines[line - 1] = b"\xff rubbish"
    write(project, lines)

    assert named(project, f"line {line} was edited: it is no entry")


@pytest.mark.parametrize("line", range(1, LINES))
def test_two_lines_that_changed_places_are_named(project: Audited, line: int) -> None:
    """Both are: the first follows one that stands below it, the second one that is no longer above it."""
    lines = lines_of(project)
    lines[line - 1], lines[line] = lines[line], lines[line - 1]
    write(project, lines)

    assert named(project, f"audit.jsonl: line {line} follows line {line + 1}", "reordered")
    assert named(project, f"audit.jsonl: line {line + 1} follows", "not line", "moved")


@pytest.mark.parametrize("line", range(1, LINES))
def test_a_removed_line_is_located(project: Audited, line: int) -> None:
    """What stands there now does not follow what stands above; the counts disagree too."""
    lines = lines_of(project)
    del lines[line - 1]
    write(project, lines)

    above = f"line {line - 1}" if line > 1 else "the beginning of the log"
    assert named(project, f"audit.jsonl: line {line} does not follow {above}", "removed between them")
    assert named(project, "audit.head counted 12 lines", "that is line 11 now: lines above it are missing")


@pytest.mark.parametrize("line", EVERY)
def test_an_inserted_line_is_named(project: Audited, line: int) -> None:
    """A forged line with every digest right but for those that follow: the line after it tells."""
    lines = lines_of(project)
    before = json.loads(lines[line - 2]) if line > 1 else None
    forged = json.loads(lines[1]) | {
        "previous": sha256_bytes(lines[line - 2]) if before else AUDIT_FORM.genesis
    }
    lines.insert(line - 1, with_own_digest(canonical_json(forged, indent=None).strip().encode()))
    write(project, lines)

    assert named(project, f"line {line + 1} follows", f"line {line} was inserted or moved")


def test_a_line_added_at_the_end_is_named(project: Audited) -> None:
    """A whole chain that goes on after the noted head: somebody was interrupted, or added it by hand."""
    contents = [json.loads(line) for line in lines_of(project)]
    write(project, chained([*contents, contents[-1]]))

    assert named(project, "audit.head ends at line 12, audit.jsonl at line 13")


@pytest.mark.parametrize("kept", range(LINES))
def test_a_log_cut_short_is_located(project: Audited, kept: int) -> None:
    """Which lines are gone is said, also where none is left."""
    write(project, lines_of(project)[:kept])

    gone = f"line {LINES} is" if kept == LINES - 1 else f"lines {kept + 1} to {LINES} are"
    assert named(project, "audit.head counted 12 lines", f"{gone} cut off")


@pytest.mark.parametrize("kept", range(WITNESSED))
def test_a_log_and_its_head_cut_short_are_found_by_the_releases(project: Audited, kept: int) -> None:
    """Whoever forges the head too is contradicted by what the sealed releases counted."""
    write(project, lines_of(project)[:kept])
    if kept:
        note_head(project)
    else:
        head_file(project.log).unlink()

    assert named(project, "release.json counted 11 lines", "cut off")


@pytest.mark.parametrize("line", range(1, WITNESSED + 1))
def test_a_log_written_anew_is_found_by_the_releases(project: Audited, line: int) -> None:
    """Every digest forged, the head too: the first release that knows better bounds the place."""
    contents = [json.loads(text) for text in lines_of(project)]
    contents[line - 1]["actor"]["name"] = "Mallory"
    write(project, chained(contents))
    note_head(project)

    broken = named(project, "written anew")
    first, last = next((a, b) for a, b in ((1, 1), (2, 5), (6, 6), (7, 7), (8, 11)) if a <= line <= b)
    said = f"line {last} was" if first == last else f"lines {first} to {last} were"
    assert broken.startswith(f"audit.jsonl: {said} written anew")


def test_a_missing_head_is_a_difference(project: Audited) -> None:
    """Without it nobody knows whether the end was cut off."""
    head_file(project.log).unlink()
    assert named(project, "audit.head is missing")


def test_a_damaged_head_is_a_difference(project: Audited) -> None:
    """As is one that names no line."""
    head_file(project.log).write_text("{}")
    assert named(project, "audit.head is damaged")


def test_a_torn_line_is_a_note(project: Audited) -> None:
    """What a crash tore never counted; it is said and nothing differs."""
    with project.log.open("ab") as log:
        log.write(b'{"actor":{"host":"de')

    outcome = check_audit(project.settings, project.root)
    assert outcome["status"] == "verified"
    assert any("line 13 was torn by a crash" in note for note in outcome["notes"])


def test_a_log_that_cannot_be_read_is_the_one_difference(project: Audited) -> None:
    """Nothing else can be held against it."""
    project.log.unlink()
    project.log.mkdir()

    assert found(project) == ["audit.jsonl: cannot be read (Is a directory)"]


@pytest.mark.parametrize(
    "line", ["[" * 900 + "]" * 900, '{"kind":' + "[" * 900 + "]" * 900 + "}", "1", "null", '"x"']
)
def test_json_that_is_no_line_is_named(project: Audited, line: str) -> None:
    """Deeply nested, or no object."""
    lines = lines_of(project)
    lines[5] = line.encode()
    write(project, lines)

    assert any("line 6 was edited" in what for what in found(project))


def test_times_that_run_backwards_are_named(project: Audited) -> None:
    """A line dated before the one it follows was not written by sqkit."""
    contents = [json.loads(text) for text in lines_of(project)]
    contents[7]["at"] = "2025-03-01T00:00:00Z"
    write(project, chained(contents))

    assert named(project, "line 8 says 2025-03-01T00:00:00Z, but line 7 before it")


@pytest.mark.parametrize(
    ("line", "changes", "said"),
    [
        (6, {"replaces": None}, "line 6 says it replaced nothing, but 20250101_120000_"),
        (7, {"release": "20240101_000000_{0}"}, "line 7 goes back to 20240101_000000_{0}, which no line"),
        (8, {"rollback": "0" * 64}, "line 8 ratifies a rollback that no line before it is"),
        (4, {"policy_digest": "0" * 64}, "line 4: audit log: the policy of slot default"),
    ],
)
def test_a_chain_that_holds_may_still_tell_nonsense(
    project: Audited, line: int, changes: dict[str, Any], said: str
) -> None:
    """Lines are held against each other, not only chained."""
    contents = [json.loads(text) for text in lines_of(project)]
    model = contents[0]["release"][-8:]
    contents[line - 1] |= {
        name: value.format(model) if isinstance(value, str) else value for name, value in changes.items()
    }
    write(project, chained(contents))

    assert named(project, said.format(model))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.binary(max_size=3), st.integers(0, 3))
def test_whatever_is_changed_in_the_log_is_found(project: Audited, place: int, put: bytes, cut: int) -> None:
    """Any bytes taken out and put in anywhere: there is a difference, unless the very same log came out."""
    whole = project.log.read_bytes()
    at = place % (len(whole) - 1)  # the end of the last line is no part of it
    changed = whole[:at] + put + whole[at + cut :]
    project.log.write_bytes(changed)
    try:
        lost = found(project)
    finally:
        project.log.write_bytes(whole)

    assert bool(lost) == (changed.removesuffix(b"\n") != whole.removesuffix(b"\n"))


# --- the archive


def releases_of(project: Audited) -> list[Path]:
    """Folders of the archive, oldest first."""
    return sorted((project.models / "archive").iterdir())


ARCHIVED = [
    (release, name)
    for release in range(4)
    for name in (STUDENT_FILE, "promotion_checklist.json", "manifest.json", APPROVALS_FILE)
]


@pytest.mark.parametrize(("release", "name"), ARCHIVED)
def test_a_changed_or_missing_file_of_a_release_is_named(project: Audited, release: int, name: str) -> None:
    """Each against the digest on its line."""
    place = releases_of(project)[release] / name
    place.chmod(0o644)
    with place.open("ab") as file:
        file.write(b" ")
    assert f"{place.parent.name}/{name}: changed" in named(project, name, "changed since it was archived")

    place.unlink()
    assert f"{place.parent.name}/{name}: missing" in named(project, name, "missing")


def test_what_no_line_names_is_named(project: Audited) -> None:
    """A file in a release, a sealed release, an unsealed one and a loose file."""
    first = releases_of(project)[0]
    (first / "notes.txt").write_text("mine")
    shutil.copytree(first, first.parent / "20250102_000000_00000000")
    (first.parent / ".20250103_000000_00000000.staging").mkdir()
    (first.parent / "loose").write_text("")

    assert named(project, f"archive/{first.name}/notes.txt: no line of the log names it")
    assert named(project, "archive/20250102_000000_00000000: no line of the log names it")
    assert named(project, "archive/.20250103_000000_00000000.staging", "interrupted before it counted")
    assert named(project, "archive/loose: no line of the log names it")


def test_a_missing_release_is_named(project: Audited) -> None:
    """A whole folder that is gone is one difference of the archive."""
    folder = releases_of(project)[1]
    shutil.rmtree(folder)

    assert named(project, f"archive/{folder.name}", "missing")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("promotion", None, "lines of two different releases"),
        ("approvals", {"facts": []}, "approvals is not what"),
        ("signers", "mallory ssh-ed25519 AAAA", "signers is not what"),
        ("replaces", {"release": "x", "model": "0" * 64}, "replaces is not what"),
    ],
)
def test_a_release_record_is_held_against_log_and_archive(
    project: Audited, name: str, value: Any, said: str
) -> None:
    """In an archived release and beside the production model: every part of it."""
    for place in (releases_of(project)[0] / "release.json", project.models / "production/release.json"):
        kept = place.read_bytes()
        write_json(place, json.loads(kept) | {name: value})
        shown = (
            "production/release.json"
            if place.parent.name == "production"
            else f"{place.parent.name}/release.json"
        )
        assert shown in named(project, said)
        place.write_bytes(kept)


def test_a_missing_seal_is_named(project: Audited) -> None:
    """A release without its record was interrupted."""
    (releases_of(project)[2] / "release.json").unlink()

    assert named(project, f"{releases_of(project)[2].name}/release.json: missing", "interrupted")


# --- production


def test_a_production_model_that_is_not_the_live_one_is_named(project: Audited) -> None:
    """An older release, a stranger's model, or none at all: said with what the log has live."""
    place = project.models / "production" / STUDENT_FILE
    place.write_bytes((releases_of(project)[2] / STUDENT_FILE).read_bytes())
    assert named(project, "holds 20240103_000002 (20250301_120000_", "the log has 20240102_000001")

    place.write_bytes(b"copied by hand")
    assert named(project, "holds a model that no line names")

    place.unlink()
    assert named(project, "missing, but the log has 20240102_000001", "live in slot default")


def test_a_model_in_a_slot_without_a_student_is_named(project: Audited) -> None:
    """After a rollback to none the place is empty."""
    project.roll_back("none", "2025-04-03")
    assert found(project) == []
    (project.models / "production" / STUDENT_FILE).write_bytes(b"copied by hand")

    assert named(project, "holds a model that no line names, but the log has no student in slot default")


def test_a_model_that_nobody_ever_promoted_is_named(tmp_path: Path) -> None:
    """Also where there is no log yet."""
    project = Audited(tmp_path)
    place = tmp_path / "data/models/production" / STUDENT_FILE
    place.parent.mkdir(parents=True)
    place.write_bytes(b"copied by hand")

    assert named(project, "nobody promoted this model")


def test_halt_flag_and_log_have_to_agree(project: Audited) -> None:
    """A flag that was taken away by hand, and one that no line knows."""
    (project.models / "production/halt.json").unlink()
    assert named(project, "halt.json: missing, but slot default was halted")

    (project.models / "swing/halt.json").write_text("{}")
    assert named(project, "halts slot swing, but no line of the log does")

    (project.models / "production/halt.json").write_text('{"level": "no_new_entries"}')
    assert named(project, "halts slot default at no_new_entries, the log at student_off")


def test_the_check_goes_on_past_what_it_finds(project: Audited) -> None:
    """Log, archive, production and halt are each named in one run."""
    lines = lines_of(project)
    lines[2] = with_other_name(lines[2])
    write(project, lines)
    (releases_of(project)[3] / "manifest.json").unlink()
    (project.models / "production" / STUDENT_FILE).write_bytes(b"other")
    (project.models / "production/halt.json").unlink()

    said = found(project)
    for words in (
        "line 3 was edited",
        "manifest.json: missing",
        "holds a model that no line names",
        "halt.json",
    ):
        assert any(words in what for what in said), (words, said)


# --- signatures


@pytest.fixture
def signed(tmp_path: Path) -> Audited:
    """A project with one release approved by a signature, and a policy and a rollback signed for."""
    if not has_ssh_keygen():
        pytest.skip("ssh-keygen is not installed")
    keys = {name: make_key(tmp_path, name) for name in ("asha", "bela")}
    project = Audited(tmp_path / "signed")
    signers = "".join(signers_line(name, key) for name, key in keys.items())
    write_bytes(project.root / "signers", signers.encode())
    project.variables = {"promotion_allowed_signers": "signers"}
    project.signers = signers
    project.promote(1, "2025-01-01", signed_book(1, keys["asha"], "asha"))
    project.promote(2, "2025-01-10", signed_book(2, keys["bela"], "bela"))
    project.on("2025-01-11")
    accept_policy(
        project.production,
        "default",
        Policy.from_settings(project.settings),
        key=keys["asha"],
        reason="as it is",
    )
    project.roll_back("", "2025-01-12")
    ratify(replaced_actor(project, BELA), "default", "agreed", key=keys["bela"])
    return project


def replaced_actor(project: Audited, actor: Actor) -> Production:
    """Production as somebody else."""
    project.actor = actor
    return project.production


def signed_book(number: int, key: Path, principal: str) -> dict[str, Any]:
    """An approval as ML lead, signed on 1 January 2025."""
    book = book_about(number)
    said = {"kind": APPROVE, "role": "ml_lead", "symbols": None, "expires": None, "comment": ""}
    who = {"at": "2025-01-01T12:00:00Z", "name": principal, "user": principal, "host": "desk1"}
    fact = new_fact(book, {**said, **who})
    signature = sign(signed_text(fact), key, namespace_of(fact))
    return book.with_fact({**fact, "principal": principal, "signature": signature}).to_dict()


def test_stored_signatures_are_verified(signed: Audited) -> None:
    """Two approvals, a policy and a ratification: each against the signers file stored with it."""
    outcome = check_audit(signed.settings, signed.root)

    assert outcome["differences"] == []
    assert outcome["signatures"] == 4
    assert outcome["notes"] == []


def test_a_signer_who_left_takes_nothing_back(signed: Audited) -> None:
    """Today's signers file is not asked: the one stored with each signature is."""
    (signed.root / "signers").write_text("nobody ssh-ed25519 AAAA\n")

    assert check_audit(signed.settings, signed.root)["signatures"] == 4


def test_an_approval_by_a_key_of_nobody_is_named(tmp_path: Path, signed: Audited) -> None:
    """A book signed with a key that its signers file does not name."""
    stranger = make_key(tmp_path, "stranger")
    signed.promote(3, "2025-02-01", signed_book(3, stranger, "asha"))

    assert named(
        signed, f"{releases_of(signed)[2].name}/approvals.json", "the key that signed is not in the signers"
    )


@pytest.mark.parametrize(
    ("line", "said"), [(3, "is not what was signed for it"), (5, "not what was signed for it")]
)
def test_a_line_that_says_something_else_than_was_signed_is_named(
    signed: Audited, line: int, said: str
) -> None:
    """A policy accepted for another reason, a ratification with another comment: every digest forged."""
    contents = [json.loads(text) for text in lines_of(signed)]
    contents[line - 1] |= {"reason": "forged"} if line == 3 else {"comment": "forged"}
    write(signed, chained(contents))

    assert named(signed, f"line {line}", said)


def test_a_line_signed_by_somebody_else_is_named(signed: Audited) -> None:
    """The signature is good, but not of whom the line names."""
    contents = [json.loads(text) for text in lines_of(signed)]
    contents[2]["actor"]["principal"] = "bela"
    write(signed, chained(contents))

    assert named(signed, "line 3: signed by asha, not by bela")


def test_a_machine_without_ssh_keygen_says_so(signed: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be verified here is a note and no difference."""
    monkeypatch.setenv("PATH", "")
    outcome = check_audit(signed.settings, signed.root)

    assert outcome["status"] == "verified"
    assert any("ssh-keygen is not installed" in note for note in outcome["notes"])


# --- a host that has only the record beside the model


@pytest.fixture
def host(project: Audited, tmp_path: Path) -> Audited:
    """Model and record of the live release, copied to a machine without log and archive."""
    folder = tmp_path / "host/data/models/production"
    folder.mkdir(parents=True)
    for name in (STUDENT_FILE, "release.json"):
        shutil.copy(project.models / "production" / name, folder)
    return Audited(tmp_path / "host")


def test_a_host_without_a_log_is_verified_by_its_record(host: Audited) -> None:
    """The record proves itself; that it stands alone is a note."""
    outcome = check_audit(host.settings, host.root)

    assert outcome["status"] == "verified"
    assert any("no audit.jsonl here" in note for note in outcome["notes"])


def test_a_host_without_a_log_is_held_against_its_record(host: Audited) -> None:
    """Other bytes, or approvals that its audit line does not name, differ."""
    (host.models / "production" / STUDENT_FILE).write_bytes(b"other")
    assert named(host, "is not the model that release.json names")

    record = host.models / "production/release.json"
    write_json(record, json.loads(record.read_bytes()) | {"approvals": {"facts": []}})
    assert named(host, "approvals is not what its audit lines say")


def test_a_deleted_log_is_no_host_without_one(project: Audited) -> None:
    """Where an archive lies, the log that names it is missed."""
    project.log.unlink()
    head_file(project.log).unlink()

    assert named(project, "audit.jsonl is missing or empty", "lines 1 to 11 are cut off")
    assert sha256_file(project.models / "production" / STUDENT_FILE)
