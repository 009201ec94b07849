"""Releases put into a slot without a validation, for tests of log, archive, rollback and crashes.

`Slotted` works on the same functions as the promoter, below its checks: real files, a real log, real
ONNX models made by hand. What the checks ask is tested elsewhere.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sqkit.artifacts import APPROVALS_FILE, CHECKLIST_FILE, STUDENT_FILE
from sqkit.audit_log import (
    ATTEST,
    AUDIT_FILE,
    DRILL,
    HALT,
    OBJECTION,
    POLICY,
    PROMOTE,
    QUARANTINE_RELEASE,
    RATIFY,
    RESUME,
    ROLLBACK,
    STUDENT_OFF,
    UNMANAGED,
    require_content,
)
from sqkit.chain import Entry
from sqkit.files import canonical_json, sha256_bytes, sha256_json
from sqkit.people import Actor
from sqkit.production.audit import instant
from sqkit.production.changes import Production
from sqkit.production.promotion import Place, Promotion, promote
from sqkit.production.release import ServedRelease, read_release, served_release
from sqkit.production.rollback import find_target, roll_back, rollback_content
from sqkit.production.slot_state import SlotState, fold
from sqkit.production.slots import Slot, slot_named
from sqkit.report_manifest import MANIFEST
from sqkit.settings import Settings
from tests.small_student import small_student

START = dt.datetime(2025, 1, 1, 15, 0, tzinfo=dt.UTC)
ASHA = Actor("Asha", "asha", "desk1")


def model_bytes(number: int, **metadata: Any) -> bytes:
    """A student of its own for each number."""
    return small_student(bias=number / 100, **metadata)


@dataclass
class Slotted:
    """A scratch project whose slots are filled by hand; the clock stands where it is put.

    Attributes
    ----------
    now
        The present.
    before
        Told of each step.
    """

    root: Path
    now: dt.datetime = START
    before: Callable[[str], None] = lambda step: None
    slot_name: str = "default"
    strategy: str = "swing"
    market: str = "us"
    actor: Actor = ASHA
    said: list[str] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        """Settings by default; every place is below the root."""
        return Settings(_env_file=None, market=self.market, student_model_paths=self.paths)

    @property
    def paths(self) -> dict[str, str]:
        """A place of its own for the slot, unless it is the default one."""
        return (
            {}
            if self.slot_name == "default"
            else {self.slot_name: f"data/models/{self.slot_name}/student_model.onnx"}
        )

    @property
    def production(self) -> Production:
        """The real thing, with this clock."""
        return Production(
            self.settings,
            self.root,
            clock=lambda: self.now,
            actor=self.actor,
            on_step=lambda step: self.before(step),
            say=self.said.append,
        )

    @property
    def state(self) -> SlotState:
        """What the log says."""
        production = self.production
        return production.state(production.slot(self.slot_name))

    @property
    def place(self) -> Place:
        """The slot as the steps take it."""
        production = self.production
        return replace(production.place(production.slot(self.slot_name), self.market))

    @property
    def slot(self) -> Slot:
        """Where the model lies."""
        return slot_named(self.settings, self.slot_name, self.root)

    @property
    def models(self) -> Path:
        """``data/models``."""
        return self.root / "data/models"

    @property
    def log(self) -> Path:
        """``audit.jsonl``."""
        return self.models / AUDIT_FILE

    @property
    def entries(self) -> list[Entry]:
        """The lines of the log, as somebody reads them who has not read it before."""
        return self.production.log.entries()

    @property
    def served(self) -> ServedRelease:
        """What an engine serves now."""
        return served_release(self.models, self.slot)

    @property
    def live(self) -> int | None:
        """Number of the live release; None for no student. Log, record, file and engine agree on it."""
        live, record = self.state.live, read_release(self.slot.release_path)
        lying = self.slot.model_path.read_bytes() if self.slot.model_path.exists() else None
        digest = live.model if live else None
        assert record["model"] == digest == self.served.digest
        assert (sha256_bytes(lying) if lying is not None else None) == digest
        assert self.served.model == lying
        return None if live is None else int(live.model_version.split("_")[1])

    def archived(self, entry: Entry) -> Path:
        """Folder of the release that a line names."""
        return self.models / "archive" / str(entry["release"])

    def copy_in(self, data: bytes) -> None:
        """Somebody copies a file to the production path, as one does without sqkit."""
        self.slot.folder.mkdir(parents=True, exist_ok=True)
        self.slot.model_path.write_bytes(data)

    def promote(self, number: int, day: str = "") -> Entry:
        """Put release number so-and-so into the slot, on a day (ISO) if given, at noon in New York."""
        self.on(day)
        production = self.production
        with production.changing(production.slot(self.slot_name)):
            return promote(self.place, promotion_of(number, self.strategy, self.market))

    def roll_back(self, to: str = "", day: str = "") -> Entry | None:
        """Go back; None where nothing was to be done."""
        self.on(day)
        production = self.production
        with production.changing(production.slot(self.slot_name)):
            place = self.place
            target = find_target(place.models_dir, place.state(), to)
            if target.already:
                return None
            content = rollback_content(
                place.state(), target, reason="test", automatic=False, alert=None, environment=None
            )
            return roll_back(place, content)

    def on(self, day: str) -> None:
        """Set the clock to noon in New York of a day, to an instant with its zone, or a minute on."""
        if "T" in day:
            self.now = dt.datetime.fromisoformat(day).astimezone(dt.UTC)
        elif day:
            self.now = dt.datetime.fromisoformat(f"{day}T17:00:00+00:00")
        else:
            self.now += dt.timedelta(minutes=1)


def files_below(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a folder but locks: its bytes, and when it was written."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


@contextlib.contextmanager
def machine_zone(zone: str) -> Iterator[None]:
    """Another zone for this machine."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = zone
    time.tzset()
    try:
        yield
    finally:
        del os.environ["TZ"]
        os.environ |= {"TZ": before} if before is not None else {}
        time.tzset()


def promotion_of(number: int, strategy: str = "swing", market: str = "us") -> Promotion:
    """A release that nobody checked: a real model, and files in the place of the others."""
    version = f"202401{number % 28 + 1:02d}_{number:06d}"
    files = {
        STUDENT_FILE: model_bytes(number, model_version=version),
        CHECKLIST_FILE: canonical_json({"number": number}).encode(),
        MANIFEST: canonical_json({"manifest": number}).encode(),
        APPROVALS_FILE: canonical_json({"approvals": number}).encode(),
    }
    words = {
        "model": STUDENT_FILE,
        "checklist": CHECKLIST_FILE,
        "manifest": MANIFEST,
        "approvals": APPROVALS_FILE,
    }
    content = {
        "approvals": {"ml_lead": {"name": "Asha", "signed": False}},
        "boxes": {"baseline-archived": "no earlier release"},
        "digests": {word: sha256_bytes(files[name]) for word, name in words.items()} | {"policy": "0" * 64},
        "environment": None,
        "market": market,
        "model_version": version,
        "reduced_control": True,
        "strategy": strategy,
        "symbols": ["AAA"],
    }
    return Promotion(files, content)


CONTENTS: Final[dict[str, dict[str, Any]]] = {
    PROMOTE: {
        "approvals": {"ml_lead": {"name": "Asha", "signed": False}},
        "boxes": {"baseline-archived": "no earlier release"},
        "digests": {"model": "a" * 64, "policy": "b" * 64},
        "environment": {"file": ".env", "lines": ["SENSEQUANT_STUDENT_MODEL_VERSION=20240101_000001"]},
        "files": {STUDENT_FILE: "a" * 64},
        "market": "us",
        "model_version": "20240101_000001",
        "reduced_control": False,
        "release": "20250101_120000_aaaaaaaa",
        "replaces": {"release": "20241201_120000_cccccccc", "model": "c" * 64},
        "strategy": "swing",
        "symbols": ["AAA"],
    },
    ROLLBACK: {
        "alert": {"reason": "precision fell"},
        "automatic": True,
        "environment": None,
        "model": "a" * 64,
        "model_version": "20240101_000001",
        "quarantines": "b" * 64,
        "reason": "precision fell",
        "release": "20250101_120000_aaaaaaaa",
        "replaces": {"release": "20250301_120000_bbbbbbbb", "model": "b" * 64},
    },
    UNMANAGED: {"release": "20250101_120000_aaaaaaaa", "model": "a" * 64, "files": {STUDENT_FILE: "a" * 64}},
    HALT: {"level": STUDENT_OFF, "reason": "the feed"},
    RESUME: {"reason": ""},
    RATIFY: {"rollback": "a" * 64, "comment": "", "statement": None, "signature": None, "signers": None},
    QUARANTINE_RELEASE: {
        "model": "a" * 64,
        "reason": "it was the feed",
        "rollback": "b" * 64,
        **dict.fromkeys(("statement", "signature", "signers")),
    },
    POLICY: {
        "policy": {"min_days": 60},
        "policy_digest": "a" * 64,
        "reason": "",
        "statement": None,
        "signature": None,
        "signers": None,
    },
    DRILL: {"passed": True, "steps": ["one"], "milliseconds": 3},
    ATTEST: {
        "box": "config-updated",
        "note": "",
        "release": "20250101_120000_aaaaaaaa",
        **dict.fromkeys(("statement", "signature", "signers")),
    },
    OBJECTION: {"model": "a" * 64, "fact": "0123456789ab", "what": "reject", "reason": "the costs"},
}
"""For each kind of line something that it may say."""


class Lines:
    """Lines of an audit log that lies nowhere: well formed, each with a digest of its own."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.models: dict[str, str] = {}

    def add(self, kind: str, slot: str = "default", **said: Any) -> Entry:
        """One more line; what is not given is as in `CONTENTS`."""
        at = START + dt.timedelta(minutes=len(self.entries))
        content = {
            **CONTENTS[kind],
            **said,
            "actor": ASHA.to_dict(),
            "at": instant(at),
            "date": at.date().isoformat(),
            "slot": slot,
            "sqkit_version": "0",
        }
        require_content(kind, content)
        entry = {**content, "kind": kind, "previous": str(len(self.entries))}
        self.entries.append({**entry, "digest": sha256_json(entry)})
        return self.entries[-1]

    def promote(self, number: int, slot: str = "default", replaces: dict[str, str] | None = None) -> Entry:
        """Release number so-and-so."""
        name, model = self._archived(number)
        said = {"release": name, "digests": {"model": model}, "files": {STUDENT_FILE: model}}
        return self.add(PROMOTE, slot, replaces=replaces, **said)

    def unmanaged(self, number: int, slot: str = "default") -> Entry:
        """A model that was found."""
        name, model = self._archived(number)
        return self.add(UNMANAGED, slot, release=name, model=model, files={STUDENT_FILE: model})

    def roll_back(
        self,
        name: str | None,
        slot: str = "default",
        replaces: dict[str, str] | None = None,
        *,
        automatic: bool = False,
    ) -> Entry:
        """Back to an archived release, or to none; by default from what is live."""
        live = fold(self.entries, slot).live
        if replaces is None and live is not None:
            replaces = {"release": live.name, "model": live.model}
        return self.add(
            ROLLBACK,
            slot,
            automatic=automatic,
            model=self.models[name] if name else None,
            model_version="20240101_000001" if name else None,
            quarantines=replaces["model"] if replaces else None,
            release=name,
            replaces=replaces,
        )

    def ratify(self, digest: str, slot: str = "default") -> Entry:
        """Somebody agrees to a rollback."""
        return self.add(RATIFY, slot, rollback=digest)

    def policy(self, policy: dict[str, Any], slot: str = "default") -> Entry:
        """A policy is accepted."""
        return self.add(POLICY, slot, policy=policy, policy_digest=sha256_json(policy))

    def _archived(self, number: int) -> tuple[str, str]:
        """A name of its own in the archive, and the model's digest."""
        model = sha256_bytes(str(number).encode())
        name = f"20250101_{len(self.entries):06d}_{model[:8]}"
        self.models[name] = model
        return name, model
