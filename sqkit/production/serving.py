"""Who speaks in an engine: the student that is served, and the challengers beside it.

A release that changes is prepared beside the ticks (`sqkit.production.reload`) and taken here when the settings
allow: before the next open, when all is flat, or at once; a rollback always at once. The old student stays when
a promoted one cannot be served; after a rollback it never does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from sqkit.artifacts import HALT_FILE
from sqkit.errors import SqkitError
from sqkit.features import FeatureSet, student_set
from sqkit.production.admission import Admission
from sqkit.production.archive import archived_model
from sqkit.production.engine_config import Config
from sqkit.production.engine_log import EngineLog, served
from sqkit.production.halt_watch import HaltWatch
from sqkit.production.live_outcomes import PREVIOUS
from sqkit.production.reload import Prepared, SlotWatch, identity
from sqkit.production.rollback import find_target
from sqkit.production.scorer import StudentScorer, slot_log
from sqkit.production.slots import models_folder
from sqkit.settings import Settings
from sqkit.student import StudentModel

CHALLENGER: Final = "challenger"
"""Role of a student that is asked beside the one that is served."""

WARN_SESSIONS = 10
"""So many sessions before a model is too old this is said."""


class Serving:
    """The student of one engine.

    Attributes
    ----------
    scorer
        What is served now.
    beside
        Students that are asked on the same bars, recorded, and trade nothing, each with its role: challengers, and
        where the live model is monitored the release before it.
    watch
        Looks at the slot beside the ticks; a student it has prepared waits in ``watch.ready``.
    taken
        The prepared one that was looked at last and needs no other look.
    """

    def __init__(
        self,
        config: Config,
        settings: Settings,
        root: Path,
        now_ns: Callable[[], int],
        scorer: StudentScorer | None,
        challengers: Iterable[StudentScorer] | None,
    ) -> None:
        self._config = config
        self._settings = settings
        self._root = root
        self._now_ns = now_ns
        self._log = slot_log(settings, config.strategy, root)
        self.scorer = scorer or self._build()
        self.taken: Prepared | None = None
        self.challengers = list(self._configured() if challengers is None else challengers)
        self.beside = self._roles(self._previous())
        slot = self.scorer.admission
        self.halts = HaltWatch(slot.path.with_name(HALT_FILE), self._log, slot.slot)
        self.watch = SlotWatch(
            self._log.path,
            slot.path,
            self._build,
            lambda: identity(self.scorer),
            self.halts.read_log,
            self.halts.look,
            self._previous,
        )

    def feature_sets(self) -> list[FeatureSet]:
        """What has to be computed: the served student's set first; nothing where none will ever be asked."""
        sets = [one.feature_set for _, one in self.beside if one.feature_set is not None]
        if self.scorer.refusal == "disabled":
            return sets
        # Without a student the strategy's own set is kept warm: one may come.
        return [self.scorer.feature_set or student_set(self._config.strategy), *sets]

    def take_ready(self, log: EngineLog, *, new_session: bool, flat: Callable[[], bool]) -> None:
        """Serve what was prepared, if it is time for it."""
        prepared = self.watch.ready
        if prepared is None or prepared is self.taken:
            self.taken = prepared
            return
        when = self._settings.student_model_reload
        if not (new_session or prepared.at_once or when == "immediate" or (when == "flat" and flat())):
            return
        self.taken = (
            prepared  # never cleared there: the watch may have put another one in its place meanwhile
        )
        fresh, before = prepared.scorer, self.scorer
        log.loading(fresh.admission, fresh.version)
        if before.ready and not fresh.ready and not fresh.admission.ends_service:
            log.event("reload_failed", self._now_ns(), **served(fresh), kept=before.digest)
            return
        self.scorer, self.beside = fresh, self._roles(prepared.previous)
        self.watch.again()
        log.event("reload", self._now_ns(), **served(fresh), replaced=before.digest or None)

    def warn_of_age(self, log: EngineLog, day: int, shift: Callable[[int, int], int]) -> None:
        """Say that the student will be too old within ten sessions."""
        left = self.scorer.days_left() if self.scorer.ready else None
        if left is not None and 0 <= left <= shift(day, WARN_SESSIONS) - day:
            log.once(
                f"age {day}",
                "Student model %s is too old in %d days; train and validate a new one",
                self.scorer.version,
                left,
            )

    def _build(self) -> StudentScorer:
        config = self._config
        return StudentScorer(
            self._settings,
            config.strategy,
            interval=config.interval,
            market=config.calendar,
            root=self._root,
            now_ns=self._now_ns,
            log=self._log,
        )

    def _roles(self, previous: StudentScorer | None) -> tuple[tuple[str, StudentScorer], ...]:
        earlier = () if previous is None else ((PREVIOUS, previous),)
        return (*earlier, *((CHALLENGER, one) for one in self.challengers))

    def _previous(self) -> StudentScorer | None:
        """The release to which a rollback would go, where somebody watches the live one."""
        if not self._settings.student_monitoring_enabled or not self._log.path.exists():
            return None
        slot = self.scorer.admission.slot
        try:
            models = models_folder(self._settings, self._root)
            release = find_target(models, self._log.state(slot), automatic=True).release
            if release is None:
                return None
            model = StudentModel(archived_model(models, release.name, release.model), Path(release.name))
        except (SqkitError, OSError):  # then nobody can say whether it would do better
            return None
        return beside(self._settings, model, self._config.strategy, self._now_ns)

    def _configured(self) -> list[StudentScorer]:
        return [
            challenger(self._settings, self._root / path, self._config.strategy, self._now_ns)
            for path in self._settings.challenger_paths()
        ]


def challenger(settings: Settings, path: Path, strategy: str, now_ns: Callable[[], int]) -> StudentScorer:
    """A student that is asked beside the one that is served, from its file; it needs no release."""
    try:
        return beside(settings, StudentModel.load(path), strategy, now_ns)
    except Exception as problem:  # noqa: BLE001 - a challenger that cannot be loaded stops nothing
        admission = Admission(None, "error", str(problem), CHALLENGER, path, problem=problem)
        return StudentScorer(settings, strategy, now_ns=now_ns, admission=admission)


def beside(
    settings: Settings, model: StudentModel, strategy: str, now_ns: Callable[[], int]
) -> StudentScorer:
    """A loaded student that is asked beside the one that is served."""
    wrong = model.metadata["strategy"] != strategy
    said = f"made for {model.metadata['strategy']}, not {strategy}" if wrong else ""
    admission = Admission(model, "strategy_mismatch" if wrong else "", said, CHALLENGER, model.path)
    return StudentScorer(settings, strategy, now_ns=now_ns, admission=admission)
