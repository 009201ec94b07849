"""Candidates made by the real chain: planted bars, training, validation, report, verification, approvals.

`make_candidate` is where tests, chaos runs and benchmarks of the promotion start. The real functions and
commands do everything, in the given root. What comes before the approvals takes some thirteen seconds
and is kept for the next call with the same inputs; approvals are always made afresh.

``python -m tests.factory VERSION SEED`` is the part that is kept, run in the root by `make_candidate`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import json
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Final

import sqkit
from sqkit.files import sha256_file, sha256_json
from sqkit.people import account_name
from sqkit.report_manifest import RUN_FOLDER

FIRST: Final = "20250101_150000"
SECOND: Final = "20250301_150000"
"""Tags that tests share, so that they share what is kept; an hour later it is morning in New York."""

APPROVERS: Final = {"ml_lead": "Asha", "quant_lead": "Bela", "risk_manager": "Chen"}

MARKET_SEED, SYMBOLS, SESSIONS, TRAINING_SESSIONS, EDGE = 8, 4, 500, 300, 0.5
"""The smallest planted market found whose candidates are PROMOTE with strong evidence for every seed."""

WINDOWS: Final = 10
"""A logistic student knows no chance, so the seed shortens its training by up to nine sessions."""

PROJECT: Final = Path(sqkit.__file__).parents[1]
BARS: Final = "data/bars/1d"
KEPT_CANDIDATES: Final = 32


def make_candidate(
    root: Path,
    version_tag: str,
    seed: int = 0,
    approved: bool = True,
    *,
    now: dt.datetime | None = None,
    environment: Mapping[str, str] | None = None,
) -> Path:
    """A candidate of the planted market that may be promoted: the path of its model.

    Parameters
    ----------
    root
        The project's root; bars are planted below it if there are none.
    version_tag
        The candidate lies in ``data/models/<version_tag>/student``.
    seed
        Seeds that differ modulo `WINDOWS` give students that answer differently, others differ in their bytes.
    approved
        Tick the boxes by a drill and an attestation and let the three default roles approve.
    now
        The time of everything; by default `clock_of` the tag.
    environment
        Settings beside those of ``.env`` in the root.
    """
    root = root.resolve()
    student = f"data/models/{version_tag}/student"
    variables = {"SOURCE_DATE_EPOCH": _epoch(now or clock_of(version_tag)), **(environment or {})}
    inputs = inputs_of(root, version_tag, seed, variables)
    with kept_files(sha256_json(inputs)) as kept:
        if not restore(kept, root):
            before = _digests(root)
            _run(root, ["-m", "tests.factory", version_tag, str(seed)], variables)
            made = [name for name, digest in _digests(root).items() if before.get(name) != digest]
            if _sources() == inputs["sources"]:  # nobody edited sqkit meanwhile
                keep(kept, root, made)
    model = root / student / "student_model.onnx"
    if approved:
        approve_candidate(root, model, now or clock_of(version_tag), environment)
    return model


def clock_of(version_tag: str) -> dt.datetime:
    """When a candidate is made and signed: an hour after the time its tag names, in UTC."""
    tagged = dt.datetime.strptime(version_tag, "%Y%m%d_%H%M%S").replace(tzinfo=dt.UTC)
    return tagged + dt.timedelta(hours=1)


def approve_candidate(
    root: Path, model: Path, now: dt.datetime, environment: Mapping[str, str] | None = None
) -> None:
    """Everything a validated candidate needs before its promotion: drill, attestation, three approvals."""
    typed = model.relative_to(root).as_posix()
    attested = ("--note", "the newest months of the planted market", "--as", APPROVERS["ml_lead"])
    run_commands(
        root,
        [
            ["rollback", "--slot", "swing", "--drill"],
            ["attest", "period-representative", "--model", typed, *attested],
            *(
                ["approve", "--model", typed, "--role", role, "--as", name]
                for role, name in APPROVERS.items()
            ),
        ],
        now,
        environment,
    )


def run_commands(
    root: Path,
    commands: Sequence[Sequence[str]],
    now: dt.datetime,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run ``sqkit`` commands in a root, one after the other in one process; what they printed.

    A command that does not exit with 0 ends it with an AssertionError.
    """
    given = ["-c", _COMMANDS, json.dumps([list(words) for words in commands])]
    return _run(root, given, {"SOURCE_DATE_EPOCH": _epoch(now), **(environment or {})})


_COMMANDS: Final = """
import json, sys
from sqkit.cli import main
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit as leaving:
        if leaving.code:
            sys.exit(f"sqkit {' '.join(words)}: exit {leaving.code}")
"""


def _run(root: Path, words: Sequence[str], variables: Mapping[str, str]) -> str:
    """Run this interpreter in the root without the caller's settings; its standard output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SENSEQUANT_")}
    paths = [str(PROJECT), *filter(None, [kept.get("PYTHONPATH")])]
    run = subprocess.run(
        [sys.executable, *words],
        cwd=root,
        env=kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, f"{run.stdout[-2000:]}\n{run.stderr[-4000:]}"
    return run.stdout


def _epoch(now: dt.datetime) -> str:
    return str(int(now.timestamp()))


# --- the part that trains, in its own process


def _train_and_validate(version_tag: str, seed: int) -> None:
    """Plant bars, train teacher and student, validate by the notebooks, verify; in the working folder.

    The student is trained by the function that notebook 02 calls: the notebook and the plan that
    ``train-student`` simulates first would take as long again and decide nothing.
    """
    from sqkit.cli import main
    from sqkit.research.distil import train_student
    from sqkit.research.planted import planted_market, write_market
    from sqkit.research.sources import open_teacher

    frames = planted_market(MARKET_SEED, SYMBOLS, SESSIONS, "1d", EDGE)
    if not any(Path(BARS).glob("*.parquet")):
        write_market(frames, Path(BARS))
    stamps = next(iter(frames.values()))["timestamp"].dt.tz_convert("America/New_York")
    end = stamps.iloc[TRAINING_SESSIONS - 1 - seed % WINDOWS].date().isoformat()

    def sqkit_command(*words: str) -> None:
        try:
            main(list(words))
        except SystemExit as leaving:
            if leaving.code:
                raise

    teacher, student = (f"data/models/{version_tag}/{part}" for part in ("teacher", "student"))
    sqkit_command(
        *("train-teacher", "--market", "us", "--end", end, "--seed", str(seed), "--output-dir", teacher)
    )
    train_student(
        Path(teacher),
        open_teacher(teacher)[1],
        model_type="logistic",
        output_dir=Path(student),
        version=version_tag,
        seed=seed,
        created_by=account_name(),
    )
    sqkit_command("validate", "--model", f"{student}/student_model.onnx", "--baseline-model", "rule")
    sqkit_command("verify", student)


# --- what was made before


def inputs_of(root: Path, version_tag: str, seed: int, variables: Mapping[str, str]) -> dict[str, object]:
    """Everything the unapproved part of a candidate follows from."""
    read = [root / name for name in (".env", "constraints.txt", "data/models/trials.jsonl")]
    read += [*(root / BARS).glob("*.parquet"), *(root / "data/models").glob("**/student_model.onnx")]
    reports = root / "reports"
    return {
        "version_tag": version_tag,
        "seed": seed,
        "variables": dict(variables),
        "author": account_name(),
        "interpreter": [sys.version, *(f"{name} {installed_version(name)}" for name in _LIBRARIES)],
        "sources": _sources(),
        "files": {path.relative_to(root).as_posix(): sha256_file(path) for path in read if path.is_file()},
        "reports": sorted(path.name for path in reports.glob("*-v*") if RUN_FOLDER.match(path.name)),
        "policies": _policies(root / "data/models/audit.jsonl"),
    }


_LIBRARIES: Final = (
    "matplotlib",
    "nbconvert",
    "numba",
    "numpy",
    "onnx",
    "onnxruntime",
    "pandas",
    "scikit-learn",
)


def _sources() -> dict[str, str]:
    places = [PROJECT / "sqkit", PROJECT / "notebooks", PROJECT / "constraints.txt", Path(__file__)]
    found = [path for place in places for path in ([place] if place.is_file() else place.rglob("*"))]
    return {
        path.relative_to(PROJECT).as_posix(): sha256_file(path)
        for path in found
        if path.is_file() and "__pycache__" not in path.parts
    }


def _policies(audit: Path) -> list[object]:
    """Policies that were accepted: a validation asks which one is in force."""
    lines = audit.read_text(encoding="utf-8").splitlines() if audit.is_file() else []
    entries = [json.loads(line) for line in lines if '"policy_digest"' in line]
    return [[entry["slot"], entry["policy_digest"]] for entry in entries if entry["kind"] == "policy"]


def _digests(root: Path) -> dict[str, str]:
    """Every file below a root, locks left out, by relative path."""
    files = [path for path in root.rglob("*") if path.is_file() and not path.name.endswith(".lock")]
    return {path.relative_to(root).as_posix(): sha256_file(path) for path in files}


@contextlib.contextmanager
def kept_files(digest: str, folder: Path | None = None) -> Iterator[Path]:
    """The archive that is kept for a digest, there or not; nobody else makes the same one meanwhile.

    Parameters
    ----------
    folder
        By default one of this user's below the system's temporary folder.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"sqkit-candidates-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    about = folder.lstat()
    assert stat.S_ISDIR(about.st_mode), f"{folder} is no folder"
    assert about.st_uid == os.getuid(), f"{folder} belongs to somebody else"
    with open(folder / f"{digest[:2]}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder / f"{digest}.tar"


def keep(kept: Path, root: Path, names: Sequence[str], most: int = KEPT_CANDIDATES) -> None:
    """Keep files of a root in an archive that appears when it is whole; drop what was unused longest."""
    with tempfile.NamedTemporaryFile(dir=kept.parent, suffix=".part", delete=False) as part:
        try:
            with tarfile.open(fileobj=part, mode="w") as archive:
                for name in names:
                    archive.add(root / name, arcname=name, recursive=False)
            part.flush()
            os.replace(part.name, kept)
        except BaseException:
            Path(part.name).unlink()
            raise
    used = sorted(kept.parent.glob("*.tar"), key=_last_use, reverse=True)
    for path in used[most:]:
        path.unlink(missing_ok=True)  # whoever reads it has it open


def restore(kept: Path, root: Path) -> bool:
    """Put what was kept into a root; False where nothing is kept."""
    try:
        with open(kept, "rb") as stream, tarfile.open(fileobj=stream) as archive:
            os.utime(stream.fileno())
            archive.extractall(root, filter="data")
    except FileNotFoundError:
        return False
    return True


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


if __name__ == "__main__":
    _train_and_validate(sys.argv[1], int(sys.argv[2]))
