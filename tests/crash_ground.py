"""What people do to production, each change on a ground of its own, and what must hold after it was disturbed.

`CHANGES` are the changes: what is before, and what is done, so written that doing it again changes nothing.
`Ground` prepares one, has it done undisturbed, and judges what a kill left: first as a reader sees it, then
after a recovery in a new process, then after the same command again.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sqkit.artifacts import APPROVALS_FILE, ARCHIVE_FOLDER, CHECKLIST_PAGE, HALT_FILE, STUDENT_FILE
from sqkit.audit_log import AUDIT_FILE, NO_NEW_ENTRIES, STUDENT_OFF
from sqkit.chain import head_file
from sqkit.files import canonical_json, sha256_bytes, temporaries
from sqkit.people import Actor
from sqkit.production.approval_book import Book, parse_book
from sqkit.production.approval_facts import APPROVE, ATTEST
from sqkit.production.approvals import Recorded, Signer, approve, attest
from sqkit.production.archive import SET_ASIDE
from sqkit.production.audit_check import check_audit
from sqkit.production.changes import Production
from sqkit.production.drill import drill
from sqkit.production.interventions import halt, ratify, release_quarantine, resume
from sqkit.production.live_boxes import attest_live
from sqkit.production.policy_acceptance import accept_policy
from sqkit.production.promotion import Promotion, promote
from sqkit.production.release import production_bytes, read_release, served_release
from sqkit.production.rollback import find_target, roll_back, rollback_content
from sqkit.settings import Settings
from tests.crash_driver import Points, copied, die, ended, tree
from tests.policies import usual
from tests.releases import Slotted, promotion_of
from tests.small_candidate import small_candidate

DAY: Final = "2025-04-01"
"""When a change is made; what was before was made earlier."""

APPROVED: Final = "2025-01-02"
"""When people sign off a candidate, a day after it was decided."""

CANDIDATE: Final = "data/models/20250101_000000/student/student_model.onnx"
BOX: Final = "period-representative"

ENV_FILE: Final = ".env"
ENV_BEFORE: Final = "# ours\nOTHER=1\nSENSEQUANT_STUDENT_MODEL_VERSION=20240103_000002\n"
ENV_LINES: Final = (
    "SENSEQUANT_STUDENT_MODEL_PATH=data/models/production/student_model.onnx",
    "SENSEQUANT_STUDENT_MODEL_VERSION=20240104_000003",
)


@functools.cache
def _settings(slot: str) -> Settings:
    paths = {} if slot == "default" else {slot: f"data/models/{slot}/student_model.onnx"}
    return Settings(_env_file=None, market="us", student_model_paths=paths)


@functools.cache
def release(number: int, strategy: str = "swing") -> Promotion:
    """Release number so-and-so, with a book of approvals that holds none."""
    made = promotion_of(number, strategy)
    book = canonical_json(Book(_statement(made.files[STUDENT_FILE])).to_dict()).encode()
    files = {**made.files, APPROVALS_FILE: book}
    digests = {**made.content["digests"], "approvals": sha256_bytes(book)}
    return Promotion(files, {**made.content, "digests": digests})


def _statement(model: bytes) -> dict[str, Any]:
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": STUDENT_FILE, "digest": {"sha256": sha256_bytes(model)}}],
        "predicateType": "https://sqkit.invalid/promotion-approval/v1",
        "predicate": {"symbols": ["AAA"]},
    }


@dataclass
class Project(Slotted):
    """`Slotted`, with settings and releases made once: it is built again and again.

    Attributes
    ----------
    said
        Lines that a person would have read.
    """

    said: list[str] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        """Those of `Slotted`."""
        return _settings(self.slot_name)

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

    def put(self, number: int, environment: Mapping[str, Any] | None = None) -> None:
        """What `sqkit promote` does below its checks: what is live already is not promoted again."""
        made, production = release(number, self.strategy), self.production
        slot = production.slot(self.slot_name)
        with production.changing(slot), production.committed(slot):
            live = production.state(slot).live
            if live is None or live.model != made.model:
                content = {**made.content, "environment": environment}
                promote(production.place(slot, "us"), replace(made, content=content))

    def back(self, to: str = "", environment: Mapping[str, Any] | None = None) -> None:
        """What `sqkit rollback` does."""
        production = self.production
        slot = production.slot(self.slot_name)
        with production.changing(slot), production.committed(slot):
            place = production.place(slot, "us")
            target = find_target(place.models_dir, place.state(), to)
            if not target.already:
                content = rollback_content(
                    place.state(), target, reason="test", automatic=False, alert=None, environment=environment
                )
                roll_back(place, content)

    def halt(self) -> None:
        """What `sqkit halt` does."""
        halt(self.production, self.slot_name, "feed looks wrong", STUDENT_OFF)

    def halt_entries(self) -> None:
        """What `sqkit halt --level no_new_entries` does."""
        halt(self.production, self.slot_name, "prices look wrong", NO_NEW_ENTRIES)

    def resume(self) -> None:
        """What `sqkit resume` does."""
        resume(self.production, self.slot_name, "feed is back")

    def approve(self) -> None:
        """What `sqkit approve` does; who approved already does not approve again."""
        if APPROVE not in self.book:
            self._sign(approve(CANDIDATE, "ml_lead", ASHA_TYPED, **self._desk))

    def attest(self) -> None:
        """What `sqkit attest --model` does."""
        if ATTEST not in self.book:
            self._sign(attest(CANDIDATE, BOX, "looked at it", ASHA_TYPED, **self._desk))

    @property
    def _desk(self) -> dict[str, Any]:
        return {"settings": self.settings, "root": self.root, "now": self.now}

    def _sign(self, done: Recorded) -> None:
        """A person reads what is beside the fact; that a name was typed they read every time."""
        self.said += [note for note in done.notes if "typed name" not in note]

    @property
    def book(self) -> tuple[str, ...]:
        """Kinds of the facts that stand in the candidate's book, which is whole; none where there is no book."""
        place = self.root / Path(CANDIDATE).parent / APPROVALS_FILE
        if not place.exists():
            return ()
        return tuple(fact["kind"] for fact in parse_book(json.loads(place.read_text()), place).facts)

    def drill(self) -> None:
        """What `sqkit rollback --drill` does; its scratch folder lies beside the project."""
        scratch = self.root.parent / "scratch"
        scratch.mkdir(exist_ok=True)
        tempfile.tempdir = str(scratch)
        if self.state.drill is None:
            assert drill(self.production, self.slot_name).passed

    def attest_live(self) -> None:
        """What `sqkit attest --slot` does."""
        if not self.state.attested:
            attest_live(self.production, "config-updated", "deployed", slot=self.slot_name)

    def ratify(self) -> None:
        """What `sqkit ratify` does, by somebody else than who rolled back."""
        self.actor = BELA
        if self.state.unratified:
            ratify(self.production, self.slot_name, "agreed")

    def release_quarantine(self) -> None:
        """What `sqkit quarantine release` does."""
        for digest in self.state.quarantined:
            release_quarantine(self.production, self.slot_name, digest, "it was the feed")

    def accept_policy(self) -> None:
        """What `sqkit policy accept` does."""
        accept_policy(self.production, self.slot_name, usual(min_days=80), reason="agreed")

    def recover(self) -> list[str]:
        """What every start of a promoter, and `sqkit doctor --fix`, do."""
        return self.production.recover()


ASHA_TYPED: Final = Signer("Asha")
BELA: Final = Actor("Bela", "bela", "desk2")

# --- what was before


def nothing(project: Project) -> None:
    """A project in which nothing was ever promoted; the folder of models is there, as candidates lie in it."""
    (project.root / "data/models").mkdir(parents=True)


def one(project: Project) -> None:
    """A release is live."""
    project.on("2025-01-01")
    project.put(1)


def two(project: Project) -> None:
    """A release is live, and another was."""
    one(project)
    project.on("2025-03-01")
    project.put(2)


def rolled_back(project: Project) -> None:
    """A person went back to the first of two releases."""
    two(project)
    project.back()


def copied_by_hand(project: Project) -> None:
    """Nothing was ever promoted, but a model lies in production."""
    place = project.root / project.settings.student_model_path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(release(7).files[STUDENT_FILE])


def overwritten_by_hand(project: Project) -> None:
    """Another model lies in production than the one that is live."""
    two(project)
    copied_by_hand(project)


def with_a_candidate(project: Project) -> None:
    """A release is live, and a candidate was decided that nobody signed off."""
    one(project)
    version = Path(CANDIDATE).parts[2]
    assert small_candidate(project.root, version=version) == project.root / CANDIDATE


def halted(project: Project) -> None:
    """The slot is halted."""
    two(project)
    project.halt()


def with_env_file(project: Project) -> None:
    """An env file pins the version that is live."""
    two(project)
    (project.root / ENV_FILE).write_text(ENV_BEFORE)


def _other_slot(project: Project) -> None:
    one(Project(project.root))
    project.on("2025-03-01")
    project.put(2)


_ELSEWHERE: Final = 40
"""One in so many of the calls on files outside the project is disturbed."""


def _killed_before(step: str, command: Callable[[Project], object]) -> Callable[[Project], None]:
    """What a kill left before the step that begins so."""

    def prepare(project: Project) -> None:
        two(project)
        assert ended(run, project.root, command, at_step(step)).killed

    return prepare


# --- what is done


def _put_three(project: Project) -> None:
    project.put(3)


def _put_three_with_env_file(project: Project) -> None:
    project.put(3, asked_of_env_file())


def asked_of_env_file(*more: str) -> dict[str, Any]:
    """What a promotion with ``--env-file`` writes into its line."""
    return {"file": ENV_FILE, "lines": [*ENV_LINES, *more]}


@dataclass(frozen=True)
class Change:
    """One thing that people do to production.

    Attributes
    ----------
    prepare
        What was before.
    do
        Doing it again after it is done changes nothing.
    repairs
        Whether it first finishes what a crash left.
    timed
        Whether its line says how long it took, so that no two lines are alike.
    """

    prepare: Callable[[Project], object]
    do: Callable[[Project], object]
    slot: str = "default"
    day: str = DAY
    repairs: bool = True
    timed: bool = False


CHANGES: Final[dict[str, Change]] = {
    "first promotion": Change(nothing, _put_three),
    "promotion": Change(two, _put_three),
    "promotion over a model copied there by hand": Change(copied_by_hand, _put_three),
    "promotion over a release overwritten by hand": Change(overwritten_by_hand, _put_three),
    "promotion with an env file": Change(with_env_file, _put_three_with_env_file),
    "promotion in a slot of its own": Change(_other_slot, _put_three, "swing"),
    "rollback": Change(two, Project.back),
    "rollback with an env file": Change(with_env_file, lambda project: project.back("", asked_of_env_file())),
    "rollback to no student": Change(two, lambda project: project.back("none")),
    "rollback of the only release": Change(one, Project.back),
    "halt": Change(two, Project.halt, repairs=False),
    "halt at another level": Change(halted, Project.halt_entries, repairs=False),
    "resume": Change(halted, Project.resume, repairs=False),
    "approval": Change(with_a_candidate, Project.approve, day=APPROVED, repairs=False),
    "attestation": Change(with_a_candidate, Project.attest, day=APPROVED, repairs=False),
    "drill": Change(two, Project.drill, repairs=False, timed=True),
    "policy": Change(two, Project.accept_policy, repairs=False),
    "attestation of the live release": Change(two, Project.attest_live, repairs=False),
    "ratification": Change(rolled_back, Project.ratify, repairs=False),
    "release from quarantine": Change(rolled_back, Project.release_quarantine, repairs=False),
    "recovery of a promotion that counts": Change(
        _killed_before("seal", _put_three), Project.recover, repairs=False
    ),
    "recovery of a promotion that never counted": Change(
        _killed_before("append", _put_three), Project.recover, repairs=False
    ),
    "recovery of a rollback": Change(
        _killed_before("write release.json", Project.back), Project.recover, repairs=False
    ),
}


HALTING: Final = (Project.halt, Project.halt_entries, Project.resume)
"""What needs neither lock nor recovery: a flag and a line, each of which is enough."""


def project_of(change: Change, root: Path) -> Project:
    """A project as the change is made in it, on its day."""
    project = Project(root, slot_name=change.slot)
    project.on(change.day)
    return project


def unannounced(step: str) -> None:
    """Told of each step; does nothing."""


def at_step(begins: str) -> Callable[[str], None]:
    """Told of each step; kills the process before the one that begins so."""

    def before(step: str) -> None:
        if step.startswith(begins):
            die()

    return before


def run(
    root: Path, do: Callable[[Project], object], before: Callable[[str], None] = unannounced
) -> list[str]:
    """Make a change in the default slot; what a person would have read."""
    return made(Change(nothing, do), root, before)


def made(change: Change, root: Path, before: Callable[[str], None] = unannounced) -> list[str]:
    """Make a change on its day; what a person would have read."""
    project = project_of(change, root)
    project.before = before
    change.do(project)
    return project.said


# --- what is looked at


@dataclass(frozen=True)
class Seen:
    """What a reader sees: the digest that a slot serves, how far it is halted, the file's own digest, the book."""

    served: str | None
    halted: str | None
    lying: str | None
    book: tuple[str, ...] = ()


def seen(project: Project) -> Seen:
    """Look at a slot as an engine does; whatever does not hold together is an AssertionError."""
    production = project.production
    slot = production.slot(project.slot_name)
    served = served_release(production.models_dir, slot)
    given = None if served.model is None else sha256_bytes(served.model)
    assert given == served.digest, f"serves {given}, and calls it {served.digest}"
    if given is not None:
        assert served.placed_by in production.log.entries(), f"no line of the log placed {given}"
    if slot.release_path.exists():
        read_release(slot.release_path)
    lying = production_bytes(slot)
    return Seen(given, served.halt_level, None if lying is None else sha256_bytes(lying), project.book)


def files_of(root: Path) -> dict[str, str]:
    """The tree without what says nothing: locks, folders outside the archive, an empty log, a checklist's view.

    Nor does a stored release that never counted, once it is set aside: a person looks at it when there is time.
    Nor a book of approvals that was never finished: the next sign-off removes it.
    """
    log = f"data/models/{AUDIT_FILE}"
    return {
        name: about
        for name, about in tree(root).items()
        if (about != "folder" or ARCHIVE_FOLDER in Path(name).parent.parts)
        and not (name == log and (root / log).stat().st_size == 0)
        and CHECKLIST_PAGE not in name
        and SET_ASIDE not in name
        and not Path(name).match(f".{APPROVALS_FILE}.*.tmp")
    }


def difference(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Names of the files that are not the same in both."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


class Ground:
    """One change, prepared, and what was found wrong after it was disturbed.

    Attributes
    ----------
    steps, points
        What it does, undisturbed: its steps in words, and each call that touches the disk.
    disturbed
        Numbers of the calls at which something happens to it: every one on a file of the project, and some of those
        on files elsewhere.
    seconds
        How long that takes.
    after, sizes
        The files that it ends with.
    old, new
        What a reader sees before and after it.
    mended
        What a reader sees when only a recovery came after what was before.
    """

    def __init__(self, name: str, folder: Path, change: Change | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.name, self.change = name, change or CHANGES[name]
        self.before, self.here = folder / "before", folder / "here"
        self.before.mkdir()
        self.change.prepare(Project(self.before, slot_name=self.change.slot))
        self.made(self.fresh())  # what is loaded at first use is loaded now
        started = time.perf_counter()
        ended(self.made, self.fresh())
        self.seconds = time.perf_counter() - started
        watched = ended(self._watched, self.fresh())
        self.points, self.steps = watched.value["points"], watched.value["steps"]
        here: list[bool] = watched.value["here"]
        self.disturbed = [number for number, own in enumerate(here) if own or number % _ELSEWHERE == 0]
        self.old, self.new = self.look(self.before), self.look(self.here)
        self.after = files_of(self.here)
        self.sizes = {name: (self.here / name).stat().st_size for name in self.after}
        ended(self._recovered, self.fresh())
        self.settled, self.mended = files_of(self.here), self.look(self.here)
        self.kills, self.wrong = 0, list[str]()

    def fresh(self) -> Path:
        """The project as it was before, again."""
        return copied(self.before, self.here)

    def look(self, root: Path) -> Seen:
        """As a reader sees it."""
        return seen(project_of(self.change, root))

    def made(self, root: Path, before: Callable[[str], None] = unannounced) -> list[str]:
        """Make the change; what a person would have read."""
        return made(self.change, root, before)

    def _watched(self, root: Path) -> dict[str, Any]:
        points, steps = Points(), list[str]()
        points.watch()
        self.made(root, steps.append)
        here = [call.below(root) for call in points.calls]
        return {"points": [str(call) for call in points.calls], "steps": steps, "here": here}

    def _recovered(self, root: Path) -> list[str]:
        return project_of(self.change, root).recover()

    def judge(self, where: str) -> None:
        """Look at what a kill left, recover, go on; note what is not as it must be."""
        self.kills += 1
        self.wrong += [f"{self.name}, killed {where}: {problem}" for problem in self._problems()]

    def _problems(self) -> Iterator[str]:
        left = files_of(self.here)
        yield from self.problems_of_a_reader()
        for path in self.here.rglob(f".{HALT_FILE}.*.tmp"):
            os.utime(path, (0, 0))  # an hour passes: a halt takes no lock, so what is new may be at work
        if self.kills % 2 or not self.change.repairs:
            yield from self.problems_of_recovery(left)
            yield from self.problems_of_going_on()
        else:
            yield from self.problems_of_going_on(left)

    def problems_of_a_reader(self) -> Iterator[str]:
        """Before anybody repaired anything: old or new, never an error."""
        try:
            found = self.look(self.here)
        except Exception as problem:  # noqa: BLE001 - whatever it is, a reader must not meet it
            yield f"a reader meets {type(problem).__name__}: {problem}"
            return
        if found.served not in (self.old.served, self.new.served):
            yield f"a reader is served {found.served}"
        without_room = self.new.halted and found.halted == NO_NEW_ENTRIES  # an empty flag
        if found.halted not in (self.old.halted, self.new.halted) and not without_room:
            yield f"a reader finds halted: {found.halted}"
        if found.lying not in (self.old.lying, self.new.lying, self.mended.lying):
            yield f"a reader finds {found.lying} in production"

    def problems_of_recovery(self, left: Mapping[str, str]) -> Iterator[str]:
        """Once recovered it is, to the byte, as if nothing had been done or everything; what was done is said."""
        recovery = ended(self._recovered, self.here)
        if recovery.error:
            yield f"recovery refuses: {recovery.message}"
            return
        state = files_of(self.here)
        if bool(recovery.value) != (state != left):
            yield f"recovery says {recovery.value}, and changed {difference(left, state)}"
        if any(map(self.same, (state, state), (self.settled, self.after))):
            return
        if self.change.do in HALTING:
            return
        if self.only_archived():
            return
        yield f"recovered to neither: {difference(self.settled, state)}; {self._audit()}"

    def same(self, files: Mapping[str, str], other: Mapping[str, str]) -> bool:
        """Whether two states are the same to the byte, but for a line that says how long something took."""
        loose = self.change.timed and len(files) == len(other)
        said = (
            {f"data/models/{AUDIT_FILE}", f"data/models/{head_file(Path(AUDIT_FILE)).name}"} if loose else ()
        )
        return set(difference(files, other)) <= set(said)

    def only_archived(self) -> bool:
        """Whether what somebody copied into production is archived by now, and nothing else happened."""
        return "by hand" in self.name and self.look(self.here) == self.mended and not self._audit()

    def problems_of_going_on(self, left: Mapping[str, str] | None = None) -> Iterator[str]:
        """The same command ends where it does undisturbed; without a recovery before, it says what it finished."""
        again = ended(self.made, self.here)
        if again.error:
            yield f"the same command again is refused: {again.message}"
            return
        said = any(line.startswith("finished what was interrupted") for line in again.value)
        if left is not None and said != (left not in (self.settled, self.after)):
            yield f"the same command again says {again.value}"
        ends = files_of(self.here)
        if self.change.do is not Project.resume and not self.same(ends, self.after):
            yield f"the same command again ends elsewhere: {difference(self.after, ends)}"
        if temporaries(self.here / Path(CANDIDATE).parent / APPROVALS_FILE):
            yield "the same command again leaves what was never finished"
        if self.look(self.here) != self.new:
            yield f"at the end a reader sees {self.look(self.here)}, not {self.new}"
        if self._audit():
            yield f"verify --audit at the end: {self._audit()}"

    def _audit(self) -> list[dict[str, str]]:
        found = check_audit(_settings(self.change.slot), self.here)["differences"]
        return [one for one in found if SET_ASIDE not in one["what"]]
