"""How long changes to production take: ``.venv/bin/python benchmarks/promotion.py [--json] [--repeats N]``.

In a warm process, on this machine's temporary folder: `rollback_model` (target: under 100 ms) with an audit log
of 20 and of 500 lines, `promote_model` of a real candidate with every check, and what a reader pays: the
served release, the verified log, the whole audit. Each is the median of `--repeats` on fresh copies.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tests' factory and releases

from sqkit.production.audit import AuditLog
from sqkit.production.audit_check import check_audit
from sqkit.production.promoter import StudentModelPromoter
from sqkit.production.release import served_release
from tests.crash_driver import copied
from tests.crash_ground import Project, two
from tests.factory import FIRST, clock_of, make_candidate
from tests.releases import ASHA

TARGET_MS = 100
LINES = (20, 500)
REPEATS = 9

Work = Callable[[], object]


def measure(repeats: int) -> dict[str, Any]:
    """Milliseconds of everything."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sqkit-benchmark-") as folder:
        scratch = Path(folder)
        measured: dict[str, Any] = {
            "target_ms": TARGET_MS,
            "flush_ms": _median(repeats, lambda: _flush(scratch / "flushed")),
            "log": {str(lines): _with_log(scratch, lines, repeats) for lines in LINES},
            **_promotion(scratch, repeats),
        }
    return {**measured, "repeats": repeats, "seconds": round(time.perf_counter() - begun, 1)}


def _with_log(scratch: Path, lines: int, repeats: int) -> dict[str, float]:
    """A rollback, and what readers do, with a log of so many lines."""
    template = scratch / f"log{lines}"
    project = _project_with(template, lines)
    here = scratch / "here"
    left = project.state.stays[-2].left
    assert left is not None
    date = left["date"].replace("-", "")
    slot = project.production.slot("default")
    return {
        "releases": len(project.state.releases),
        "rollback_model_ms": _median(
            repeats, lambda: _rollback(here, template, project, date, read_before=True)
        ),
        "rollback_model_first_ms": _median(
            repeats, lambda: _rollback(here, template, project, date, read_before=False)
        ),
        "served_release_ms": _median(
            repeats, lambda: _timed(lambda: served_release(template / "data/models", slot))
        ),
        "verified_log_ms": _median(
            repeats,
            lambda: _timed(lambda: AuditLog(template / "data/models", (slot.release_path,)).entries()),
        ),
        "check_audit_ms": _median(repeats, lambda: _timed(lambda: check_audit(project.settings, template))),
    }


def _project_with(root: Path, lines: int) -> Project:
    """Two releases; between them halts and ends of halts, and a release for every tenth line."""
    root.mkdir()
    project = Project(root)
    two(project)
    number = 3
    while (count := len(project.production.log.entries())) < lines - 1:
        project.on("")
        if count % 10 == 0:
            project.put(number)
            number += 1
        elif project.state.halted is None:
            project.halt()
        else:
            project.resume()
    project.on("2026-01-01")
    project.put(number)
    return project


def _rollback(here: Path, template: Path, project: Project, date: str, *, read_before: bool) -> float:
    """Milliseconds of `rollback_model`, in a promoter that read the log before, or at first use."""
    promoter = StudentModelPromoter(
        project.settings,
        root=copied(template, here),
        clock=lambda: project.now,
        actor=ASHA,
        environ={},
    )
    if read_before:
        promoter.should_rollback()
    milliseconds = _timed(lambda: promoter.rollback_model(date))
    state = promoter.production.state(promoter.production.slot("default"))
    assert state.placed_by is not None
    assert state.placed_by["kind"] == "rollback"
    return milliseconds


def _promotion(scratch: Path, repeats: int) -> dict[str, float]:
    """A promotion of a real candidate, every check made; and the checks alone."""
    template = scratch / "candidate"
    template.mkdir()
    typed = make_candidate(template, FIRST).relative_to(template)
    here = scratch / "here"

    def promoter() -> StudentModelPromoter:
        settings = Project(here).settings
        return StudentModelPromoter(
            settings, root=here, clock=lambda: clock_of(FIRST), actor=ASHA, environ={}
        )

    def promotion() -> float:
        copied(template, here)
        ready = promoter()
        return _timed(lambda: ready.promote_model(typed))

    def checks() -> float:
        copied(template, here)
        ready = promoter()
        return _timed(lambda: ready.validate_promotion(typed))

    return {
        "promote_model_ms": _median(repeats, promotion),
        "validate_promotion_ms": _median(repeats, checks),
    }


def _flush(place: Path) -> float:
    """Milliseconds of one small write that is flushed to the disk: what the rest is made of."""
    with open(place, "wb", buffering=0) as stream:
        stream.write(b"x" * 1000)
        return _timed(lambda: os.fsync(stream.fileno()))


def _timed(work: Work) -> float:
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


def _median(repeats: int, once: Callable[[], float]) -> float:
    once()
    return round(statistics.median(once() for _ in range(repeats)), 2)


def table(measured: dict[str, Any]) -> str:
    """For a reader."""
    logs = measured["log"]
    by_log = {key: [log[key] for log in logs.values()] for key in next(iter(logs.values()))}
    alone = {key: [measured[key]] for key in ("promote_model_ms", "validate_promotion_ms", "flush_ms")}
    slowest = max(by_log["rollback_model_ms"])
    verdict = "met" if slowest < measured["target_ms"] else "MISSED"
    return "\n".join(
        [
            _line("milliseconds, median", [f"{name} lines" for name in logs]),
            *(
                _line(key.removesuffix("_ms").replace("_", " "), row)
                for key, row in {**by_log, **alone}.items()
            ),
            f"rollback under {measured['target_ms']} ms: {verdict}; {measured['seconds']} s in all",
        ]
    )


def _line(title: str, row: Sequence[object]) -> str:
    return f"{title:<32}" + "".join(f"{value:>12}" for value in row)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    given = parser.parse_args()
    if given.repeats < 1:
        parser.error("--repeats: give at least 1")
    measured = measure(given.repeats)
    print(json.dumps(measured, indent=2, sort_keys=True) if given.json else table(measured))


if __name__ == "__main__":
    main()
