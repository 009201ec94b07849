"""Signatures by OpenSSH: who said something, proved by a key that the signers file names.

``ssh-keygen -Y`` does the work. A text is signed from standard input to standard output: given a file,
ssh-keygen keeps an old signature that lies beside it and exits 0. A signature is verified at the time
it was made, so a key that expires later takes nothing back. Dates in a signers file count in UTC.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from sqkit.errors import SignatureRefused, SigningFailed

PREFIX: Final = "sqkit-"
ATTEST: Final = f"{PREFIX}attest"
REVOKE: Final = f"{PREFIX}revoke"
POLICY: Final = f"{PREFIX}policy"
RATIFY: Final = f"{PREFIX}ratify"
QUARANTINE: Final = f"{PREFIX}quarantine"

_PROGRAM: Final = "ssh-keygen"
_SECONDS: Final = 30.0
_SECONDS_AT_A_TERMINAL: Final = 180.0
_MAGIC: Final = b"SSHSIG"
_PATTERN: Final = frozenset("*?!,")


def role_namespace(role: str) -> str:
    """What a signature for a role is made for; a signers line may restrict a key to it."""
    return f"{PREFIX}{role}"


def has_ssh_keygen() -> bool:
    """Whether signatures can be made and verified on this machine."""
    return shutil.which(_PROGRAM) is not None


def read_signers(path: str, root: Path = Path()) -> str | None:
    """The text of the allowed signers file; None where none is set, and typed names must do.

    Parameters
    ----------
    path
        Setting ``promotion_allowed_signers``, relative to `root`.

    Raises
    ------
    SigningFailed
        A file is set but cannot be read, or names nobody.
    """
    if not path:
        return None
    try:
        text = (root / path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8 text"
        raise SigningFailed(
            f"{path}: the signers file cannot be read ({reason}); correct SENSEQUANT_PROMOTION_ALLOWED_SIGNERS",
            path=path,
        ) from None
    if not any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines()):
        raise SigningFailed(
            f"{path}: the signers file names nobody; add a line: PRINCIPAL KEYTYPE KEY (man ssh-keygen, ALLOWED SIGNERS)",
            path=path,
        )
    return text


def sign(text: str, key: Path, namespace: str, *, terminal: bool = False) -> str:
    """A signature over a text.

    Parameters
    ----------
    key
        A private key, or the public key of one that an ssh-agent holds.
    namespace
        What it is signed for, such as ``sqkit-ml_lead``.
    terminal
        Whether a person sits at a terminal and may be asked for a passphrase there.

    Raises
    ------
    SigningFailed
        ssh-keygen is missing, or the key is missing, locked or not to be used.
    """
    if not key.is_file():
        raise SigningFailed(f"{key}: no such key; give --key the path of your SSH key", key=str(key))
    done = _run(["-Y", "sign", "-f", str(key), "-n", namespace], text, terminal=terminal)
    if done.returncode != 0 or not done.stdout.startswith("-----BEGIN SSH SIGNATURE-----"):
        raise SigningFailed(f"{key}: {_why_not_signed(done.stderr, key)}", key=str(key))
    return done.stdout


def principal_of(text: str, signature: str, signers: str, namespace: str, at: dt.datetime) -> str:
    """Who made a signature over this text, by the name the signers file gives the key.

    Parameters
    ----------
    signers
        The contents of the allowed signers file.
    at
        When it was made: keys that were valid then count.

    Raises
    ------
    SignatureRefused
        The key is in no line, was not valid at that time, may not sign in this namespace, or signed
        another text.
    SigningFailed
        ssh-keygen is missing or does not answer.
    """
    when = f"-Overify-time={at.astimezone(dt.UTC):%Y%m%d%H%M%S}"
    try:
        with tempfile.TemporaryDirectory(prefix="sqkit-") as scratch:
            allowed, made = Path(scratch, "allowed_signers"), Path(scratch, "signature")
            allowed.write_text(signers, encoding="utf-8")
            made.write_text(signature, encoding="utf-8")
            files = ["-f", str(allowed), "-s", str(made)]
            found = _run(["-Y", "find-principals", *files, when])
            principal = _one_principal(found, namespace, at)
            words = ["-Y", "verify", *files, "-I", principal, "-n", namespace, when]
            done = _run(words, text)
    except OSError as problem:
        raise SigningFailed(
            f"a signature cannot be verified: {problem.filename}: {problem.strerror}; free some space in the "
            "folder for temporary files and run again"
        ) from None
    if done.returncode != 0:
        raise SignatureRefused(
            f"the signature of {principal} {_why_refused(done.stderr, namespace)}",
            principal=principal,
            namespace=namespace,
        )
    return principal


def likely_principal(key: Path, signers: str) -> str:
    """The name a signers file gives a key whose public half lies beside it; empty where it cannot be told.

    For the first words of a text that is signed: who signed is only ever said by `principal_of`.
    """
    public = key if key.suffix == ".pub" else Path(f"{key}.pub")
    try:
        words = public.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return ""
    for line in signers.splitlines():
        fields = line.split()
        if len(words) > 1 and words[1] in fields and not line.startswith("#"):
            return fields[0].strip('"').split(",")[0]
    return ""


def key_of(signature: str) -> str:
    """Fingerprint of the key a signature was made with; empty where it is none.

    Two names in a signers file may stand for one key, and so for one person.
    """
    lines = [line for line in signature.splitlines() if line and not line.startswith("-----")]
    try:
        data = base64.b64decode("".join(lines), validate=True)
    except (binascii.Error, ValueError):
        return ""
    start = len(_MAGIC) + 8  # after the magic words: a version and the length of the public key
    length = int.from_bytes(data[start - 4 : start], "big")
    if not data.startswith(_MAGIC) or len(data) < start + length:
        return ""
    return hashlib.sha256(data[start : start + length]).hexdigest()


def _run(words: list[str], text: str = "", *, terminal: bool = False) -> subprocess.CompletedProcess[str]:
    """Run ssh-keygen with a text on its standard input; it never waits for somebody who is not there."""
    environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC", "SSH_ASKPASS_REQUIRE": "never"}
    try:
        return subprocess.run(
            [_PROGRAM, *words],
            input=text,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            env=environment,
            timeout=_SECONDS_AT_A_TERMINAL if terminal else _SECONDS,
            start_new_session=not terminal,  # no terminal to ask on: a locked key fails at once
        )
    except (FileNotFoundError, PermissionError):
        raise SigningFailed(
            f"{_PROGRAM} is not installed, and signatures need it; install the OpenSSH client"
        ) from None
    except subprocess.TimeoutExpired:
        raise SigningFailed(
            f"{_PROGRAM} did not answer in time; unlock or touch the key and run again"
        ) from None


def _why_not_signed(said: str, key: Path) -> str:
    if "incorrect passphrase" in said or "Enter passphrase" in said:
        return f"the key is locked and its passphrase was not given; load it first (ssh-add {key}) or run in a terminal"
    if "too open" in said:
        return f"others may read this key, so ssh-keygen does not use it; run chmod 600 {key}"
    if "No private key found" in said:
        return f"no private key for it here or in an ssh-agent; load it first (ssh-add {key.with_suffix('')})"
    if "Couldn't load public key" in said:
        return "is no SSH key; give --key the path of your SSH key"
    return f"does not sign ({_last_line(said)}); try ssh-keygen -Y sign with it"


def _one_principal(found: subprocess.CompletedProcess[str], namespace: str, at: dt.datetime) -> str:
    names = [line.strip() for line in found.stdout.splitlines() if line.strip()]
    if found.returncode != 0 or not names:
        if "Couldn't parse signature" in found.stderr or "incomplete message" in found.stderr:
            raise SignatureRefused("what is stored as a signature is none; sign again", namespace=namespace)
        timed = "has expired" in found.stderr or "not yet valid" in found.stderr
        hint = f", or its line was not valid on {at:%Y-%m-%d}" if timed else ""
        raise SignatureRefused(
            f"the key that signed is not in the signers file{hint}; have the line added, or sign with a key that is "
            "in it",
            namespace=namespace,
        )
    people = [name for name in names if not _PATTERN & set(name)]
    if not people:
        raise SignatureRefused(
            f"the signers file gives the key that signed only the pattern {names[0]}, which names nobody; "
            "write a person's name there",
            namespace=namespace,
        )
    return people[0]


def _why_refused(said: str, namespace: str) -> str:
    if "not permitted" in said:
        return (
            f"is not allowed here: the signers file does not let this key sign as {namespace}; use a key that may, or "
            "have namespaces= extended"
        )
    if "namespace does not match" in said:
        return f"was made for something else than {namespace}; sign again"
    return "is not of this text: something was changed after it was signed; sign again"


def _last_line(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[-1] if lines else "no reason given"
