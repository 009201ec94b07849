"""Watches a slot beside an engine: a release that changes is verified and warmed before anything switches.

The work is done on a thread of its own, never inside a tick. It looks at the files that a promotion or a
rollback changes, decides again what may be served (`admit`), builds the scorer and asks it a row. What comes
out waits in `ready`; the engine takes it when its settings allow. Checkpoints are written here too.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from sqkit.artifacts import RELEASE_FILE
from sqkit.production.scorer import StudentScorer

POLL_SECONDS: Final = 0.2

_GIVE_WAY_SECONDS: Final = 1e-4


@dataclass(frozen=True)
class Prepared:
    """A scorer that is verified and warm, or a refusal.

    Attributes
    ----------
    at_once
        Whether a rollback put it there: nothing waits then.
    previous
        The release before it, to be asked beside it; None where nobody wants to know, or there is none.
    """

    scorer: StudentScorer
    at_once: bool
    previous: StudentScorer | None = None


class SlotWatch:
    """Keeps looking at a slot.

    Parameters
    ----------
    log_path, model_path
        Where the audit log, and the slot's model, lie.
    build
        Makes a scorer of what may be served now.
    served
        What the engine serves, as `identity` says it, so that nothing is prepared twice.
    read_log
        Reads the audit log for whoever wants to know; called when anything changes.
    look_for_halt
        Looks for halts that a tick cannot see; called every time.
    build_previous
        Makes a scorer of the release before what is served now.
    """

    def __init__(
        self,
        log_path: Path,
        model_path: Path,
        build: Callable[[], StudentScorer],
        served: Callable[[], tuple[str, str, str]],
        read_log: Callable[[], None],
        look_for_halt: Callable[[], None],
        build_previous: Callable[[], StudentScorer | None] = lambda: None,
    ) -> None:
        self._places = (log_path, model_path.with_name(RELEASE_FILE), model_path)
        self._build = build
        self._served = served
        self._read_log = read_log
        self._look_for_halt = look_for_halt
        self._build_previous = build_previous
        read_log()
        self._seen = self._look()
        self._task: Callable[[], Any] | None = None
        self._doing = threading.Lock()  # a host's thread may do it as well
        self._again = True  # what was served was decided before the first look
        self._wake = threading.Event()
        self._stop = False
        self._thread: threading.Thread | None = None
        self.failures = 0
        self.ready: Prepared | None = None

    def start(self) -> None:
        """Begin to look, on a thread that ends with the process."""
        self._thread = threading.Thread(target=self._run, name="sqkit-slot-watch", daemon=True)
        atexit.register(self.close)  # a thread inside a library must not outlive the interpreter
        self._thread.start()

    def close(self) -> None:
        """Do what waits, and end."""
        atexit.unregister(self.close)
        self._stop = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self.do_task()

    def again(self) -> None:
        """Decide again, also where nothing changed: what is served has, and a look may have missed that."""
        self._again = True
        self._wake.set()

    def later(self, task: Callable[[], Any]) -> None:
        """Do something on the watch's thread: write a checkpoint. One that still waits is replaced."""
        self._task = task
        self._wake.set()

    def do_task(self) -> None:
        """Do what waits, now."""
        with self._doing:
            task, self._task = self._task, None
            if task is not None:
                task()

    def check(self) -> bool:
        """Look now; True where something changed and `ready` was renewed."""
        self._look_for_halt()
        again, self._again = self._again, False
        seen = self._look()
        if seen == self._seen and not again:
            return False
        with _giving_way:
            self._read_log()
            scorer, previous = self._build(), self._build_previous()
            warm(scorer)
        if self._look() != seen:  # a change is under way: look again when it is over
            self._again = again
            return False
        self._seen = seen
        if identity(scorer) == self._served():
            self.ready = None
            return False
        self.ready = Prepared(scorer, scorer.admission.by_rollback, previous)
        return True

    def _run(self) -> None:
        while not self._stop:
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()
            if self._task is not None:
                with _giving_way:
                    self.do_task()
            try:
                self.check()
            except Exception:  # noqa: BLE001 - whatever it is, the engine goes on with what it has
                self.failures += 1

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_mark(place) for place in self._places)


class _GivingWay:
    """While watches work: a ticking thread gets the interpreter within a tenth of a millisecond, not five."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy = 0
        self._usual = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if self._busy == 0:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(min(self._usual, _GIVE_WAY_SECONDS))
            self._busy += 1

    def __exit__(self, *problem: object) -> None:
        with self._lock:
            self._busy -= 1
            if self._busy == 0:
                sys.setswitchinterval(self._usual)


_giving_way: Final = _GivingWay()


def _mark(place: Path) -> tuple[int, int, int] | None:
    try:
        about = place.stat()
    except OSError:
        return None
    return about.st_ino, about.st_size, about.st_mtime_ns


def identity(scorer: StudentScorer) -> tuple[str, str, str]:
    """What is served: digest, release, and why not."""
    return scorer.digest if scorer.ready else "", scorer.admission.release_name, scorer.refusal


def warm(scorer: StudentScorer) -> None:
    """Ask a scorer a few rows, so that its first real one is as quick as the others."""
    if scorer.feature_set is None or not scorer.ready:
        return
    model = scorer.admission.model
    assert model is not None
    middle = np.array(model.metadata["feature_ranges"]).mean(axis=1)
    for _ in range(20):
        scorer.score_codes(middle, next(iter(scorer.symbols or [""])))
