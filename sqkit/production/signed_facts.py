"""What an audit line keeps of a signature: the text, the signature and who was allowed to sign.

Accepting a policy and ratifying a rollback are signed where a signers file is set, and only there.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from sqkit.errors import SignatureRefused, UsageError
from sqkit.production.signing import principal_of, read_signers, sign
from sqkit.settings import PREFIX, Settings


def signature_of(
    statement: str,
    *,
    settings: Settings,
    root: Path,
    namespace: str,
    key: Path | None,
    now: dt.datetime,
    what: str,
    terminal: bool = False,
) -> tuple[dict[str, Any], str | None]:
    """The fields ``statement``, ``signature`` and ``signers`` of a line, and who signed.

    Parameters
    ----------
    statement
        Exactly what is signed.
    what
        Such as ``slot default: a policy``, for the message.
    terminal
        Whether a person sits at a terminal and may be asked for the key's passphrase.

    Returns
    -------
    tuple
        All None where no signers file is set.

    Raises
    ------
    SignatureRefused, SigningFailed
        A signers file is set, and nobody of it signed.
    UsageError
        A key where no signers file is set.
    """
    signers = read_signers(settings.promotion_allowed_signers, root)
    if signers is None:
        if key is not None:
            raise UsageError(
                f"--key {key}: no signers file is set, so nobody could verify the signature; set "
                f"{PREFIX}PROMOTION_ALLOWED_SIGNERS, or leave --key out"
            )
        return dict.fromkeys(("statement", "signature", "signers")), None
    if key is None:
        raise SignatureRefused(
            f"{what} has to be signed here ({PREFIX}PROMOTION_ALLOWED_SIGNERS="
            f"{settings.promotion_allowed_signers}); give --key FILE"
        )
    signature = sign(statement, key, namespace, terminal=terminal)
    principal = principal_of(statement, signature, signers, namespace, now)
    return {"statement": statement, "signature": signature, "signers": signers}, principal
