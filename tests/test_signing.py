"""Signatures by OpenSSH: real keys, real ssh-keygen; who signed is said by the signers file and nobody else."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sqkit.errors import SignatureRefused, SigningFailed
from sqkit.production.signing import (
    has_ssh_keygen,
    key_of,
    likely_principal,
    principal_of,
    read_signers,
    role_namespace,
    sign,
)
from tests.ssh_keys import make_key, signers_line

ROOT = Path(__file__).resolve().parents[1]
NOW = dt.datetime(2025, 1, 10, 12, tzinfo=dt.UTC)
TEXT = '{"kind":"approve","role":"ml_lead"}'
SPACE = "sqkit-ml_lead"


@dataclass(frozen=True)
class Keys:
    """Keys of two people, one locked by a passphrase, and a signers file that names them."""

    asha: Path
    bo: Path
    locked: Path
    signers: str


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Made once; read only."""
    folder = tmp_path_factory.mktemp("keys")
    asha, bo = make_key(folder, "asha"), make_key(folder, "bo")
    locked = make_key(folder, "locked", "open sesame")
    signers = "# who may sign\n" + signers_line("asha@example.com", asha) + signers_line("bo@example.com", bo)
    return Keys(asha, bo, locked, signers)


def test_a_signature_names_its_principal(keys: Keys) -> None:
    """What a key signed is verified, and the name is the one the signers file gives the key."""
    signature = sign(TEXT, keys.asha, SPACE)

    assert signature.startswith("-----BEGIN SSH SIGNATURE-----")
    assert principal_of(TEXT, signature, keys.signers, SPACE, NOW) == "asha@example.com"
    assert not list(keys.asha.parent.glob("*.sig"))


def test_another_text_is_refused(keys: Keys) -> None:
    """One changed letter and the signature is of nobody."""
    signature = sign(TEXT, keys.asha, SPACE)

    with pytest.raises(SignatureRefused, match="changed after it was signed") as refusal:
        principal_of(TEXT.replace("ml_lead", "ml_leader"), signature, keys.signers, SPACE, NOW)
    assert refusal.value.values["principal"] == "asha@example.com"


def test_a_signature_for_another_role_is_refused(keys: Keys) -> None:
    """A signature is made for one namespace and counts in no other."""
    signature = sign(TEXT, keys.asha, SPACE)

    with pytest.raises(SignatureRefused, match="made for something else than sqkit-risk_manager"):
        principal_of(TEXT, signature, keys.signers, role_namespace("risk_manager"), NOW)


def test_a_line_may_restrict_a_key_to_roles(keys: Keys) -> None:
    """``namespaces=`` in the signers file lets a key sign for those roles only."""
    signers = signers_line("asha@example.com", keys.asha, f'namespaces="{SPACE},sqkit-attest"')

    assert principal_of(TEXT, sign(TEXT, keys.asha, SPACE), signers, SPACE, NOW) == "asha@example.com"
    with pytest.raises(SignatureRefused, match="does not let this key sign as sqkit-quant_lead"):
        principal_of(TEXT, sign(TEXT, keys.asha, "sqkit-quant_lead"), signers, "sqkit-quant_lead", NOW)


def test_a_key_that_is_in_no_line_is_refused(keys: Keys) -> None:
    """Whoever is not in the signers file is nobody."""
    signers = signers_line("bo@example.com", keys.bo)

    with pytest.raises(SignatureRefused, match="not in the signers file"):
        principal_of(TEXT, sign(TEXT, keys.asha, SPACE), signers, SPACE, NOW)


@pytest.mark.parametrize(
    "text", ["", "garbage", "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"]
)
def test_garbage_is_no_signature(keys: Keys, text: str) -> None:
    """What is no signature is refused as one, never a crash."""
    with pytest.raises(SignatureRefused):
        principal_of(TEXT, text, keys.signers, SPACE, NOW)
    assert key_of(text) == ""


def test_a_key_counts_when_it_was_valid_at_the_time_of_signing(keys: Keys) -> None:
    """An expiry later takes nothing back; before its first and after its last moment a key is refused."""
    signature = sign(TEXT, keys.asha, SPACE)
    options = 'valid-after="20250101",valid-before="20250201"'
    signers = signers_line("asha@example.com", keys.asha, options)

    assert principal_of(TEXT, signature, signers, SPACE, NOW) == "asha@example.com"
    for day in (dt.datetime(2024, 12, 31, tzinfo=dt.UTC), dt.datetime(2025, 2, 2, tzinfo=dt.UTC)):
        with pytest.raises(SignatureRefused, match=f"was not valid on {day:%Y-%m-%d}"):
            principal_of(TEXT, signature, signers, SPACE, day)


def _knows_utc_dates() -> bool:
    """Whether this OpenSSH takes a date with a Z: from 9.1 on."""
    said = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr
    version = re.search(r"OpenSSH_(\d+)\.(\d+)", said)
    return version is not None and (int(version[1]), int(version[2])) >= (9, 1)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/New_York"])
def test_dates_of_the_signers_file_count_in_utc(
    keys: Keys, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file gives the same answer on every machine, whatever its time zone."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        signature = sign(TEXT, keys.asha, SPACE)
        for end in ("202501101200", "202501101200Z")[: 2 if _knows_utc_dates() else 1]:
            signers = signers_line("asha@example.com", keys.asha, f'valid-before="{end}"')
            assert principal_of(TEXT, signature, signers, SPACE, NOW) == "asha@example.com"
            with pytest.raises(SignatureRefused):
                principal_of(TEXT, signature, signers, SPACE, NOW + dt.timedelta(seconds=1))
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_pattern_is_nobody(keys: Keys) -> None:
    """A line for ``*@example.com`` does not say who signed; of several names the first counts."""
    signature = sign(TEXT, keys.asha, SPACE)

    with pytest.raises(SignatureRefused, match="names nobody"):
        principal_of(TEXT, signature, signers_line("*@example.com", keys.asha), SPACE, NOW)
    signers = signers_line("asha@example.com,asha@example.org", keys.asha)
    assert principal_of(TEXT, signature, signers, SPACE, NOW) == "asha@example.com"


def test_the_key_of_a_signature(keys: Keys) -> None:
    """Two signatures of one key have one fingerprint, two keys have two."""
    first, again = sign(TEXT, keys.asha, SPACE), sign("other", keys.asha, "sqkit-attest")

    assert key_of(first) == key_of(again) != ""
    assert key_of(first) != key_of(sign(TEXT, keys.bo, SPACE))


def test_whose_key_it_probably_is(keys: Keys, tmp_path: Path) -> None:
    """From the public half beside the key; nothing is said where that is missing or in no line."""
    alone = tmp_path / "alone"
    alone.write_bytes(keys.asha.read_bytes())
    signers = keys.signers + signers_line('"c@example.com,d@example.com"', keys.locked)

    assert likely_principal(keys.asha, signers) == "asha@example.com"
    assert likely_principal(Path(f"{keys.bo}.pub"), signers) == "bo@example.com"
    assert likely_principal(keys.locked, signers) == "c@example.com"
    assert likely_principal(alone, signers) == likely_principal(keys.locked, keys.signers) == ""


def test_a_key_that_is_not_there(keys: Keys, tmp_path: Path) -> None:
    """A missing key, a file that is no key, and a key that others may read are each one clear line."""
    no_key = tmp_path / "notes.txt"
    no_key.write_text("not a key")
    no_key.chmod(0o600)
    open_key = make_key(tmp_path, "open")
    open_key.chmod(0o644)

    for key, line in ((tmp_path / "gone", "no such key"), (no_key, "is no SSH key"), (open_key, "chmod 600")):
        with pytest.raises(SigningFailed, match=line) as refusal:
            sign(TEXT, key, SPACE)
        assert "\n" not in refusal.value.message


def test_a_locked_key_without_a_terminal_is_one_clear_line(keys: Keys) -> None:
    """Nobody is asked and nothing hangs: the message says what to do instead."""
    started = time.monotonic()

    with pytest.raises(SigningFailed, match=r"locked.*ssh-add") as refusal:
        sign(TEXT, keys.locked, SPACE)
    assert "\n" not in refusal.value.message
    assert time.monotonic() - started < 5


_SIGNING = """
import sys
from pathlib import Path
from sqkit.errors import SigningFailed
from sqkit.production.signing import sign
try:
    print("SIGNED" if sign("text", Path(sys.argv[1]), "sqkit-x", terminal=sys.argv[2] == "ask") else "")
except SigningFailed as problem:
    print("REFUSED", problem)
"""
_AT_A_TERMINAL = """
import os, pty, sys
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.executable, [sys.executable, "-c", *sys.argv[1:4]])
said, typed = b"", sys.argv[4].encode()
try:
    while chunk := os.read(terminal, 4096):
        said += chunk
        if typed and b"passphrase" in said:
            os.write(terminal, typed)
            typed = b""
except OSError:  # how Linux says that the other side is gone
    pass
os.waitpid(child, 0)
sys.stdout.buffer.write(said)
"""


def _at_a_terminal(key: Path, mode: str, typed: str = "") -> str:
    """What a process that has a terminal of its own prints, and is typed when it asks."""
    words = [sys.executable, "-c", _AT_A_TERMINAL, _SIGNING, str(key), mode, typed]
    run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return run.stdout


def test_at_a_terminal_the_passphrase_is_asked_for(keys: Keys) -> None:
    """A person at a terminal types it there; a wrong one is one clear line."""
    assert "SIGNED" in _at_a_terminal(keys.locked, "ask", "open sesame\n")
    assert "REFUSED" in _at_a_terminal(keys.locked, "ask", "wrong\n")


def test_a_program_never_asks_although_there_is_a_terminal(keys: Keys) -> None:
    """Unless it is allowed to, a locked key fails at once even where somebody could be asked."""
    said = _at_a_terminal(keys.locked, "never")

    assert "REFUSED" in said
    assert "passphrase:" not in said


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An ssh-agent of this test's own."""
    socket = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 5
    while not socket.exists() and time.monotonic() < until:
        time.sleep(0.01)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
    yield
    process.terminate()
    process.wait()


@pytest.mark.usefixtures("agent")
def test_a_key_in_an_agent_signs(keys: Keys, tmp_path: Path) -> None:
    """With the public key alone the agent signs; without the key in it that is said."""
    public = tmp_path / "asha.pub"
    public.write_text(Path(f"{keys.asha}.pub").read_text())

    with pytest.raises(SigningFailed, match="ssh-add"):
        sign(TEXT, public, SPACE)
    subprocess.run(["ssh-add", "-q", str(keys.asha)], check=True)
    assert principal_of(TEXT, sign(TEXT, public, SPACE), keys.signers, SPACE, NOW) == "asha@example.com"


def test_without_ssh_keygen(keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signing and verifying say that the OpenSSH client is missing."""
    signature = sign(TEXT, keys.asha, SPACE)
    assert has_ssh_keygen()
    monkeypatch.setenv("PATH", str(tmp_path))

    assert not has_ssh_keygen()
    with pytest.raises(SigningFailed, match="ssh-keygen is not installed"):
        sign(TEXT, keys.asha, SPACE)
    with pytest.raises(SigningFailed, match="ssh-keygen is not installed"):
        principal_of(TEXT, signature, keys.signers, SPACE, NOW)


def test_the_signers_file(tmp_path: Path) -> None:
    """No setting means typed names; a file that is missing, empty or no text is refused, each by name."""
    (tmp_path / "empty").write_text("# nobody yet\n\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "signers").write_text("asha@example.com ssh-ed25519 AAAA\n")

    assert read_signers("", tmp_path) is None
    assert read_signers("signers", tmp_path) == "asha@example.com ssh-ed25519 AAAA\n"
    for name, line in (("gone", "No such file"), ("empty", "names nobody"), ("binary", "not UTF-8")):
        with pytest.raises(SigningFailed, match=f"{name}: .*{line}"):
            read_signers(name, tmp_path)
