"""A candidate: the files of a student's folder that a promotion is about, each read exactly once.

Checks, approvals and the archive all work on these bytes, so what was examined is what is archived.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqkit.artifacts import (
    ACCURACY_FILE,
    APPROVALS_FILE,
    CHECKLIST_FILE,
    COMPARISON_FILE,
    EVIDENCE_FILE,
    PARITY_FILE,
    RESULTS_FILE,
    STUDENT_FILE,
    VERIFICATION_FILE,
)
from sqkit.errors import ArtifactChanged, ModelFileMissing, ModelIsSymlink, ModelOutside, ModelPathRefused
from sqkit.files import open_plain, parse_json, sha256_bytes
from sqkit.model_file import read_model_bytes
from sqkit.report_manifest import MANIFEST, run_naming
from sqkit.settings import Settings

MAX_ARTIFACT_BYTES: Final = 256 * 1024 * 1024

RELEASE_FILES: Final = (
    STUDENT_FILE,
    CHECKLIST_FILE,
    EVIDENCE_FILE,
    RESULTS_FILE,
    ACCURACY_FILE,
    COMPARISON_FILE,
    PARITY_FILE,
    VERIFICATION_FILE,
    APPROVALS_FILE,
    MANIFEST,
)
"""What a release holds: the model and everything its decision names, but for the single predictions."""


@dataclass(frozen=True)
class Candidate:
    """What was read of a student's folder and of its report's manifest.

    Attributes
    ----------
    model_path
        As resolved below the project's root; the other files lie beside it.
    typed
        The path as given, relative to the project's root: what messages name.
    files
        Name of `RELEASE_FILES` to bytes; a file that is not there is absent here.
    report
        Folder of the report whose manifest names these artifacts; None where there is none.
    """

    model_path: Path
    typed: str
    files: Mapping[str, bytes]
    report: Path | None
    _parsed: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def folder(self) -> Path:
        """The student's folder."""
        return self.model_path.parent

    @property
    def about(self) -> dict[str, Any]:
        """The model's metadata, from the very bytes that were read."""
        from sqkit.student import read_metadata  # compiled code: most readers of a folder need none

        if _ABOUT not in self._parsed:
            self._parsed[_ABOUT] = read_metadata(self.require(STUDENT_FILE), Path(self.typed))
        return self._parsed[_ABOUT]  # type: ignore[no-any-return]

    def digest(self, name: str) -> str:
        """SHA-256 of a file that is there."""
        return sha256_bytes(self.require(name))

    def require(self, name: str) -> bytes:
        """The bytes of a file; a missing one is a refusal.

        Raises
        ------
        ArtifactChanged
            The file is not there.
        """
        if name not in self.files:
            raise ArtifactChanged(
                f"{Path(self.typed).parent / name}: missing; {_WAYS_OUT.get(name, 'validate the model again with sqkit validate')}",
                artifact=name,
            )
        return self.files[name]

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file as an object, read strictly.

        Raises
        ------
        ArtifactChanged
            The file is not there, or is no strict JSON object.
        """
        if name not in self._parsed:
            self._parsed[name] = strict_object(self.require(name), Path(self.typed).parent / name)
        return self._parsed[name]  # type: ignore[no-any-return]


_ABOUT: Final = "metadata of the model"

_WAYS_OUT: Final = {
    MANIFEST: "no report in the reports folder names these artifacts; validate the model again with sqkit validate",
    VERIFICATION_FILE: "run sqkit verify on the student's folder",
    APPROVALS_FILE: "approve with sqkit approve",
}


def strict_object(data: bytes, place: Path) -> dict[str, Any]:
    """A JSON object from bytes, read strictly.

    Raises
    ------
    ArtifactChanged
        It is not strict JSON, or no object.
    """
    value = parse_json(data, place)
    if not isinstance(value, dict):
        raise ArtifactChanged(f"{place}: is no JSON object; write it again", path=str(place))
    return value


def candidate_path(model_path: str | Path, models_dir: Path, root: Path = Path()) -> Path:
    """Where a candidate lies; a symlink, and a place outside the models folder, are refused.

    What is examined lies below the models folder, else below the project: how one gets there is no matter.

    Raises
    ------
    ModelIsSymlink
        A part of the path is a symlink.
    ModelOutside
        It leads outside the models folder.
    ModelPathRefused
        It is empty.
    """
    place = root / model_path
    if not str(model_path):
        raise ModelPathRefused("--model is empty; name a student's ONNX file", path="")
    base, full = models_dir.resolve(), place.resolve()
    if any(part.is_symlink() for part in _below(place, base, root.resolve())):
        raise ModelIsSymlink(
            f"{model_path}: is a symlink, or lies behind one; give the path of the model file itself",
            path=str(model_path),
        )
    if base not in full.parents:
        raise ModelOutside(
            f"{model_path}: lies outside the models folder {models_dir}; train or copy the student's folder there",
            path=str(model_path),
        )
    return place


def _below(place: Path, *bases: Path) -> list[Path]:
    """A path and those of its parents that lie below the first of these folders that it leads through."""
    parts = [place, *place.parents]
    for base in bases:
        for number, part in enumerate(parts[1:], 1):
            if part.resolve() == base:
                return parts[:number]
    return parts[:1]


def read_candidate(
    model_path: str | Path, *, settings: Settings, models_dir: Path, root: Path = Path()
) -> Candidate:
    """Read everything a promotion is about, each file once.

    Raises
    ------
    ModelPathRefused, ModelFileMissing, PickleRefused, ModelFileInvalid
        The model cannot be one.
    ArtifactChanged
        An artifact cannot be read.
    """
    place = candidate_path(model_path, models_dir, root)
    if place.name != STUDENT_FILE:
        raise ModelFileMissing(
            f"{model_path}: a candidate's file is called {STUDENT_FILE}; give the path of that file",
            path=str(model_path),
        )
    files = {STUDENT_FILE: read_model_bytes(place)}
    for name in RELEASE_FILES[1:-1]:
        data = _read(place.parent / name)
        if data is not None:
            files[name] = data
    here, base = place.parent.resolve(), root.resolve()
    typed = (here.relative_to(base) if here.is_relative_to(base) else here).as_posix()
    report = run_naming(root / settings.reports_dir, typed, sha256_bytes(files.get(CHECKLIST_FILE, b"")))
    if report is not None:
        data = _read(report / MANIFEST)
        if data is not None:
            files[MANIFEST] = data
    return Candidate(place, str(model_path), files, report)


def _read(path: Path) -> bytes | None:
    try:
        with open_plain(path, follow=False) as stream:
            data = stream.read(MAX_ARTIFACT_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as problem:
        reasons = {
            errno.ELOOP: "is a symlink",
            errno.EINVAL: "is no plain file",
            errno.ENXIO: "is no plain file",
        }
        said = reasons.get(problem.errno or 0, f"cannot be read ({problem.strerror})")
        raise ArtifactChanged(f"{path}: {said}; put the file itself there", path=str(path)) from None
    if len(data) > MAX_ARTIFACT_BYTES:
        raise ArtifactChanged(
            f"{path}: larger than {MAX_ARTIFACT_BYTES >> 20} MB, sqkit writes none of that size; validate the model again",
            path=str(path),
        )
    return data
