"""Who acts: the name a person goes by here, and the account and machine behind it.

A name that is typed, or that the environment gives, is no authentication; an SSH signature is
(`sqkit.production.signing`). The audit log keeps both: the name, and who the system says it was.
"""

from __future__ import annotations

import getpass
import os
import pwd
import socket
from dataclasses import asdict, dataclass
from typing import Any, Final


def one_line(text: str) -> str:
    """A text that a person typed, as a line of the audit log holds it: without line breaks and control characters."""
    return "".join(one if one.isprintable() else "?" for one in " ".join(text.split()))


AUTOMATIC: Final = "automatic"
"""The name under which a machine rolls back."""


def account_name() -> str:
    """The account's name as the environment gives it; ``uid 1000`` for an account without a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


@dataclass(frozen=True)
class Actor:
    """Who did something, as the audit log keeps it.

    Attributes
    ----------
    name
        As typed with ``--as``, else the account's name; ``automatic`` for a machine.
    user
        The account the process ran under, from the system's user table and not from the environment.
    host
        Name of the machine.
    principal
        Who signed, of the signers file; None without a signature.
    """

    name: str
    user: str
    host: str
    principal: str | None = None

    @classmethod
    def here(cls, name: str = "", principal: str | None = None) -> Actor:
        """Whoever runs this process."""
        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            user = f"uid {os.getuid()}"
        host = socket.gethostname() or "unknown"
        return cls(one_line(name) or one_line(account_name()) or user, user, host, principal)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)
