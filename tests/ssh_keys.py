"""Real SSH keys and signers files, for tests of signatures."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_key(folder: Path, name: str, passphrase: str = "") -> Path:
    """A new ed25519 key; its public half lies beside it."""
    path = folder / name
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f", str(path)],
        check=True,
        capture_output=True,
    )
    return path


def signers_line(principal: str, key: Path, options: str = "") -> str:
    """One line of an allowed signers file."""
    public = Path(f"{key}.pub").read_text(encoding="utf-8").strip()
    return f"{principal} {options}{' ' if options else ''}{public}\n"
