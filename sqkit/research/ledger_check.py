"""Does the trial ledger say the same as a validation's stored results? The ledger was written first.

A decision that is repeated (``sqkit checklist --model``) and ``sqkit verify`` ask this: whoever rewrites
predictions, returns and every digest of a folder consistently still contradicts the ledger's line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqkit.errors import IntegrityError
from sqkit.files import sha256_json
from sqkit.research.stored_values import same_values
from sqkit.research.trials import LEDGER_FILE, RETURNS, TrialLedger, count_trials


def candidate_predictions_digest(files: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 over the candidate's prediction and trade files, as the ledger keeps it with the returns."""
    return sha256_json({entry["file"]: entry["digest"] for entry in files if entry["role"] == "candidate"})


def ledger_above(folder: Path) -> Path | None:
    """The trial ledger of the models folder that `folder` lies in; None where there is none."""
    for parent in folder.absolute().parents:
        if (parent / LEDGER_FILE).is_file():
            return parent / LEDGER_FILE
    return None


def refuse_other_ledger(place: Path, ledger: TrialLedger) -> None:
    """What lies beside one trial ledger is not trained or judged under another.

    Raises
    ------
    IntegrityError
        A ledger above `place` is not this one.
    """
    beside = ledger_above(place)
    if beside is not None and beside.resolve() != ledger.path.resolve():
        raise IntegrityError(
            f"{place}: lies beside the trial ledger {beside}, but the data folder's is {ledger.path}; set "
            "SENSEQUANT_DATA_DIR to the folder whose ledger counts this model's looks",
            path=str(place),
        )


def ledger_contradictions(ledger: TrialLedger, results: Mapping[str, Any]) -> list[str]:
    """What the ledger knows better than the stored results; one line each, empty when they agree.

    Raises
    ------
    LedgerBroken
        The chain itself does not hold.
    """
    kept, period = results["trials"], results["validation_period"]
    entries, lines = ledger.entries(), kept["ledger_lines"]
    if not 1 <= lines <= len(entries) or entries[lines - 1]["digest"] != kept["ledger_head"]:
        return [f"the trial ledger has no line {lines} with the digest that the results keep"]
    known = entries[:lines]
    found = []
    counted = count_trials(known, period["start"], period["end"], period["symbols"]).n_trials
    if counted != kept["n_trials"]:
        found.append(
            f"the trial ledger counts {counted} trials of this window, the results {kept['n_trials']}"
        )
    window = {
        "behaviour": results["digests"]["model_behaviour"],
        "first_session_date": period["start"],
        "last_session_date": period["end"],
        "symbols": sorted(period["symbols"]),
    }
    recorded = [entry for entry in known if entry["kind"] == RETURNS and window.items() <= entry.items()]
    if not recorded:
        return [*found, "the trial ledger has no returns of this model on these days and symbols"]
    newest, series = recorded[-1], results["daily_returns"]["candidate"]
    if newest["predictions"] != candidate_predictions_digest(results["files"]):
        found.append("the candidate's predictions are not those that the trial ledger has seen")
    if not same_values(dict(zip(newest["days"], newest["returns"], strict=True)), dict(series)):
        found.append("the candidate's daily returns are not those that the trial ledger has seen")
    return found
