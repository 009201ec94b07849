"""The trial ledger: who looked at which days, so that a result can be judged among its rivals.

``data/models/trials.jsonl`` is written here only. In: looks of validations, the returns they saw,
and (from `sqkit.research.holdout`) seals and openings. Out: how many trials a window has had. A
*trial* of a window is a behaviour digest that was validated on any of its days with any of its
symbols; looking again, or retraining the same thing, adds nothing.

One line an entry, canonical JSON: ``previous`` is the SHA-256 of the previous line's bytes,
``digest`` that of the entry itself without ``digest``. The last line is noted beside the ledger
(``trials.head``) and in every validation that counted (its *witnesses*), so that a ledger that was
edited, cut or deleted is refused. A line torn by a crash was counted by nobody and is dropped.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from sqkit.chain import (
    Chain,
    ChainForm,
    ChainHead,
    ChainWitness,
    Entry,
    head_in,
    head_of,
    held,
    json_of,
    read_chain,
    torn_line,
    write_head,
    write_line,
)
from sqkit.errors import LedgerBroken, UsageError
from sqkit.files import canonical_json, make_folder
from sqkit.research.progress import say

__all__ = [
    "Entry",
    "Look",
    "TrialCount",
    "TrialLedger",
    "open_ledger",
    "require_date",
    "witnesses_in",
]

LEDGER_FILE: Final = "trials.jsonl"
LOOK, RETURNS, SEAL, OPENED = "look", "returns", "seal", "opened"

_WINDOW: Final = ("behaviour", "first_session_date", "last_session_date", "symbols")
_LINES: Final[dict[str, tuple[str, ...]]] = {
    LOOK: (*_WINDOW, "baseline", "interval", "market", "model_digest", "model_version", "strategy"),
    RETURNS: (*_WINDOW, "days", "predictions", "returns"),
    SEAL: ("strategy", "first_session_date", "last_session_date"),
    OPENED: ("strategy", "first_session_date", "last_session_date", "reason", "by", "at"),
}
_WAIT_SECONDS: Final = 30.0

Returns = tuple[list[str], list[float]]


# --- what goes in and out


@dataclass(frozen=True)
class Look:
    """A validation looked at a window.

    Attributes
    ----------
    first_day, last_day
        Session dates, ISO, both included.
    behaviour, model_digest, model_version
        Of the candidate; the behaviour digest identifies the trial.
    baseline
        Path of the baseline model as typed, None for the rule.
    """

    strategy: str
    market: str
    interval: str
    first_day: str
    last_day: str
    symbols: Sequence[str]
    behaviour: str
    model_digest: str
    model_version: str
    baseline: str | None

    def window(self) -> Entry:
        """What tells one look from another: days, symbols and behaviour."""
        return {
            "behaviour": self.behaviour,
            "first_session_date": self.first_day,
            "last_session_date": self.last_day,
            "symbols": sorted(set(self.symbols)),
        }

    def line(self) -> Entry:
        """The look as the ledger keeps it."""
        names = ("baseline", "interval", "market", "model_digest", "model_version", "strategy")
        return {**self.window(), **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True)
class TrialCount:
    """How often a window was looked at.

    Attributes
    ----------
    n_trials
        Distinct behaviours among the looks that share a day and a symbol with the window.
    looks
        Those looks; one behaviour looking at several windows counts several times.
    head
        The last line this count rests on (not the ledger's end: a later look elsewhere changes no
        byte of a validation that is repeated).
    returns
        Behaviour digest to (session dates, daily net returns) inside the window, where recorded:
        those of the very same window, else of the look that shares most days, then most symbols.
    """

    n_trials: int
    looks: int
    head: ChainHead
    returns: Mapping[str, Returns] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """What results, evidence and manifest keep; a later ledger must still contain this line."""
        return {
            "n_trials": self.n_trials,
            "looks": self.looks,
            "ledger_lines": self.head.lines,
            "ledger_head": self.head.digest,
        }


# --- the ledger


def open_ledger(data_dir: str | Path, reports_dir: str | Path) -> TrialLedger:
    """The ledger of a data folder, held against every validation kept there and every report."""
    path = Path(data_dir) / "models" / LEDGER_FILE
    return TrialLedger(path, witnesses=lambda: witnesses_in(data_dir, reports_dir))


class TrialLedger:
    """Append-only, hash-chained, shared by processes.

    Parameters
    ----------
    path
        The ledger's file; it need not exist.
    witnesses
        Asked once, at first use: what earlier validations say about the chain.
    wait_seconds
        How long an append waits for another process.

    Every method raises LedgerBroken when the ledger was edited, cut or deleted.
    """

    def __init__(
        self,
        path: Path,
        *,
        witnesses: Callable[[], Iterable[ChainWitness]] = tuple,
        wait_seconds: float = _WAIT_SECONDS,
    ) -> None:
        self.path = path
        self._witnesses: Callable[[], Iterable[ChainWitness]] | None = witnesses
        self._wait_seconds = wait_seconds
        self._known: Chain | None = None

    def entries(self) -> list[Entry]:
        """Every line of the verified chain, oldest first; empty when nothing was ever recorded."""
        return self._read().entries

    def head(self) -> ChainHead:
        """Where the chain ends."""
        return head_of(self.entries())

    def record_look(self, look: Look) -> TrialCount:
        """Count a look before its result is known; a look that is recorded already adds no line.

        Returns
        -------
        TrialCount
            Of the look's window, this look included.

        Raises
        ------
        UsageError
            A date that is none, no symbol, an empty text.
        ConflictError
            Another process held the ledger for too long.
        OutputError
            The folder cannot be written.
        """
        window = look.window()
        entries = self.append(LOOK, look.line(), unless=lambda lines: _has(lines, LOOK, window))
        return count_trials(entries, look.first_day, look.last_day, look.symbols)

    def record_returns(
        self, look: Look, days: Sequence[str], returns: Sequence[float], *, predictions: str
    ) -> None:
        """Keep the daily net returns that a look saw; recording the same again adds no line.

        Returns of a window that differ from the recorded ones (other costs) are added: the newest count.

        Parameters
        ----------
        look
            Recorded first where it is not yet.
        days, returns
            Session dates (n,), ISO, ascending, inside the look's window, and fractions of capital (n,).
        predictions
            Digest of the predictions and trades that earned them.

        Raises
        ------
        UsageError
            Lengths that differ, days out of order or outside, a return that is not finite.
        ConflictError, OutputError
            As for `record_look`.
        """
        window = look.window()
        line = {
            **window,
            "days": list(days),
            "predictions": predictions,
            "returns": [float(value) for value in returns],
        }
        _require_content(RETURNS, line)
        self.record_look(look)
        self.append(RETURNS, line, unless=lambda lines: _newest_returns(lines, window) == line)

    def trials(self, window_first: str, window_last: str, symbols: Iterable[str]) -> TrialCount:
        """The trials of a window (session dates, both included), without counting a new look."""
        window = {
            "first_session_date": window_first,
            "last_session_date": window_last,
            "symbols": sorted(set(symbols)),
        }
        _require_fields(window)
        return count_trials(self.entries(), window_first, window_last, window["symbols"])

    def append(
        self, kind: str, content: Mapping[str, Any], *, unless: Callable[[list[Entry]], bool]
    ) -> list[Entry]:
        """Add one line, durably, unless the chain as it stands says that it is there; the chain afterwards.

        Looking and adding happen under one lock, so two processes never add the same twice. Raises as
        `record_look`.
        """
        line = _require_content(kind, content)
        make_folder(self.path.parent)
        with held(self.path.with_name(f".{self.path.stem}.lock"), self.path, self._wait_seconds):
            chain = self._read()
            if not unless(chain.entries):
                if chain.torn:
                    say(torn_line(self.path, chain))
                write_line(self.path, chain, {**line, "kind": kind})
            write_head(self.path, chain.entries, _FORM)
        return chain.entries

    def _read(self) -> Chain:
        expected = list(self._witnesses()) if self._witnesses else []  # before the chain: it only grows
        chain = read_chain(self.path, expected, _FORM, self._known)
        self._witnesses, self._known = None, chain
        return chain


def witnesses_in(data_dir: str | Path, reports_dir: str | Path) -> list[ChainWitness]:
    """What the validations and reports kept below these folders say about the ledger; never fails.

    A report whose artifacts lie beside another ledger belongs to that one and is left out.
    """
    models, found = Path(data_dir) / "models", []
    for pattern in ("*/*/validation_results.json", "*/*/validations/*/validation_results.json"):
        for path in sorted(models.glob(pattern)):
            results = json_of(path)
            found.append((path, results.get("trials") if isinstance(results, dict) else None))
    for path in sorted(Path(reports_dir).glob("*/manifest.json")):
        with contextlib.suppress(KeyError, TypeError):
            manifest = json_of(path)
            other = Path(manifest["artifacts"]["folder"]).parent.parent / LEDGER_FILE
            if not other.is_file() or other.resolve() == (models / LEDGER_FILE).resolve():
                found.append((path, manifest["summary"]["trials"]))
    heads = [(path, head_in(said, "ledger_lines", "ledger_head")) for path, said in found]
    return [
        ChainWitness(path, head.lines, head.digest)
        for path, head in heads
        if head is not None and head.digest is not None and not path.parent.name.startswith(".")
    ]


# --- counting


def count_trials(entries: list[Entry], first: str, last: str, symbols: Iterable[str]) -> TrialCount:
    """The trials of a window (session dates, both included) in these lines of a ledger."""
    asked = set(symbols)
    touching = [
        (number, entry)
        for number, entry in enumerate(entries, 1)
        if entry["kind"] in (LOOK, RETURNS)
        and entry["first_session_date"] <= last
        and first <= entry["last_session_date"]
        and asked.intersection(entry["symbols"])
    ]
    looks = [(number, entry["behaviour"]) for number, entry in touching if entry["kind"] == LOOK]
    series = _best_returns(touching, first, last, asked)
    rests_on = max([number for number, _ in looks] + [number for number, _ in series.values()], default=0)
    return TrialCount(
        n_trials=len({behaviour for _, behaviour in looks}),
        looks=len(looks),
        head=head_of(entries[:rests_on]),
        returns={behaviour: returns for behaviour, (_, returns) in sorted(series.items())},
    )


def _best_returns(
    touching: list[tuple[int, Entry]], first: str, last: str, asked: set[str]
) -> dict[str, tuple[int, Returns]]:
    """Of every behaviour the line and the returns inside the window that fit it best."""
    newest = {  # a later line of the same window replaces the earlier one
        canonical_json([entry[name] for name in _WINDOW]): (number, entry)
        for number, entry in touching
        if entry["kind"] == RETURNS
    }
    fits: dict[str, list[tuple[tuple[int, ...], Returns]]] = {}
    for number, entry in newest.values():
        pairs = zip(entry["days"], entry["returns"], strict=True)
        inside = {day: value for day, value in pairs if first <= day <= last}
        there = set(entry["symbols"])
        same = (entry["first_session_date"], entry["last_session_date"], there) == (first, last, asked)
        fit = (int(same), len(inside), len(asked & there), -len(there), number)
        if inside:
            fits.setdefault(entry["behaviour"], []).append((fit, (list(inside), list(inside.values()))))
    best = {behaviour: max(found) for behaviour, found in fits.items()}
    return {behaviour: (fit[-1], returns) for behaviour, (fit, returns) in best.items()}


def _has(entries: list[Entry], kind: str, content: Mapping[str, Any]) -> bool:
    wanted = content.items()
    return any(entry["kind"] == kind and wanted <= entry.items() for entry in entries)


def _newest_returns(entries: list[Entry], window: Entry) -> Entry | None:
    for entry in reversed(entries):
        if entry["kind"] == RETURNS and all(entry[name] == window[name] for name in _WINDOW):
            return {name: entry[name] for name in _LINES[RETURNS]}
    return None


# --- what a line may hold


def _require_content(kind: Any, content: Mapping[str, Any]) -> Entry:
    """The content of a line, checked; the same rules for writing and for reading back."""
    names = _LINES.get(kind) if isinstance(kind, str) else None
    if names is None or set(names) != set(content):
        raise UsageError(f"{kind!r} with {', '.join(sorted(content))}: no kind of line of the trial ledger")
    _require_fields(content)
    return dict(content)


def _require_fields(content: Mapping[str, Any]) -> None:
    for name, value in content.items():
        if name in ("first_session_date", "last_session_date"):
            require_date(value, name)
        elif name in ("symbols", "days"):
            _require_ascending(value, name)
        elif name == "returns":
            _require_returns(value, content["days"])
        elif not (name == "baseline" and value is None):
            _require_text(value, name)
    first, last = content["first_session_date"], content["last_session_date"]
    if first > last:
        raise UsageError(f"the window starts {first} and ends {last}: start must not be after end")
    if "days" in content and not first <= content["days"][0] <= content["days"][-1] <= last:
        raise UsageError(f"returns outside the window {first} to {last}; give those of its session dates")


def require_date(text: Any, name: str) -> None:
    """Refuse what is not a session date ``YYYY-MM-DD`` (UsageError)."""
    try:
        fits = isinstance(text, str) and dt.date.fromisoformat(text).isoformat() == text
    except ValueError:
        fits = False
    if not fits:
        raise UsageError(f"{name} {text!r}: give a session date as YYYY-MM-DD", value=text)


def _require_ascending(values: Any, name: str) -> None:
    if not isinstance(values, list) or not values:
        raise UsageError(f"{name}: give at least one")
    for value in values:
        require_date(value, name) if name == "days" else _require_text(value, name)
    if any(later <= earlier for earlier, later in pairwise(values)):
        raise UsageError(f"{name}: give each once, in ascending order")


def _require_returns(values: Any, days: Any) -> None:
    if not isinstance(values, list) or not isinstance(days, list) or len(values) != len(days):
        raise UsageError("returns: give one for each day")
    for day, value in zip(days, values, strict=True):
        if type(value) is not float or not math.isfinite(value):
            raise UsageError(f"returns: {value!r} on {day} is not finite; nothing is recorded", day=day)


def _require_text(value: Any, name: str) -> None:
    fits = isinstance(value, str) and bool(value.strip()) and value.isprintable()
    if not fits:
        raise UsageError(f"{name} {value!r}: give one line of text", value=value)


_FORM: Final = ChainForm(
    begins="sqkit trial ledger 1",
    check=_require_content,
    broken=LedgerBroken,
    word="ledger",
    if_broken="restore {name} from a backup; if it is lost for good, move it, {head} and the validations and "
    "reports it counted away",
    if_cut="restore {name} from a backup; if it is lost for good, move {witnesses} out of the models and reports",
)
