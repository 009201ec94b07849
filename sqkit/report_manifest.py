"""The manifest of a report, read: which run speaks of which artifacts, and whether it is whole.

`sqkit.research.manifest` writes manifests; verification and the promoter read them here. In: the
folder of reports. Out: run numbers, or one line for each thing that differs from its digest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sqkit.artifacts import CHECKLIST_FILE
from sqkit.errors import ArtifactChanged
from sqkit.files import read_json, sha256_file, sha256_json

MANIFEST: Final = "manifest.json"
RUN_FOLDER: Final = re.compile(r"^(?P<version>.+)-v(?P<number>[1-9]\d*)$")


def run_folder(reports_dir: Path, version: str, number: int) -> Path:
    """``<reports>/<model version>-v<number>``."""
    return reports_dir / f"{version}-v{number}"


def run_numbers(reports_dir: Path, version: str) -> list[int]:
    """Numbers of a version's runs, ascending."""
    if not reports_dir.is_dir():
        return []
    found = [RUN_FOLDER.match(folder.name) for folder in reports_dir.iterdir() if folder.is_dir()]
    return sorted(int(match["number"]) for match in found if match and match["version"] == version)


def run_of_artifacts(reports_dir: Path, version: str, folder: str, artifact: Path) -> int | None:
    """The number of the run whose manifest names this artifact in this folder with this digest."""
    if not artifact.is_file():
        return None
    digest = sha256_file(artifact)
    for number in reversed(run_numbers(reports_dir, version)):
        if _names(run_folder(reports_dir, version, number), folder, artifact.name, digest):
            return number
    return None


def run_naming(reports_dir: Path, folder: str, checklist_digest: str) -> Path | None:
    """The newest run of any version whose manifest names this checklist in this folder; None without one."""
    if not reports_dir.is_dir():
        return None
    matches = [(RUN_FOLDER.match(path.name), path) for path in reports_dir.iterdir()]
    runs = [(match["version"], int(match["number"]), path) for match, path in matches if match]
    for _, _, path in sorted(runs, reverse=True):
        if _names(path, folder, CHECKLIST_FILE, checklist_digest):
            return path
    return None


def _names(run: Path, folder: str, artifact: str, digest: str) -> bool:
    """Whether a run's manifest names an artifact; a damaged manifest names nothing, and hides no other run."""
    if not (run / MANIFEST).is_file():
        return False
    try:
        named = read_json(run / MANIFEST)["artifacts"]
        return bool(named["folder"] == folder and named["files"].get(artifact) == digest)
    except (ArtifactChanged, AttributeError, KeyError, TypeError):
        return False


def verify_manifest(folder: Path, root: Path) -> list[str]:
    """What differs between a report and its manifest, one line each; nothing when it is whole.

    Parameters
    ----------
    folder
        A published run folder.
    root
        The project's root, to which the artifacts' folder is relative. A later validation
        moves a run's artifacts to ``validations/v<number>/`` below it; both places are tried.

    Raises
    ------
    ArtifactChanged
        There is no manifest, or it cannot be read.
    """
    manifest = read_json(folder / MANIFEST)
    try:
        differences = _compare(folder, manifest["files"], folder.name)
        present = set(report_files(folder)) - {MANIFEST}
        differences += [
            f"{folder.name}/{name}: not in the manifest" for name in sorted(present - set(manifest["files"]))
        ]
        for page, notebook in sorted(manifest["notebooks"].items()):
            if sha256_json(notebook["parameters"]) != notebook["parameters_digest"]:
                differences.append(
                    f"{folder.name}/{MANIFEST}: the parameters of {page} differ from their digest"
                )
        name, artifacts = manifest["artifacts"]["folder"], manifest["artifacts"]["files"]
        here = _compare(root / name, artifacts, name)
        number = RUN_FOLDER.match(folder.name)
        if here and number:
            earlier = f"{name}/validations/v{number['number']}"
            if (root / earlier).is_dir():
                here = [
                    problem
                    for item, digest in sorted(artifacts.items())
                    if (root / earlier / item).is_file() or _compare(root / name, {item: digest}, name)
                    for problem in _compare(root / earlier, {item: digest}, earlier)
                ]
    except (KeyError, TypeError, AttributeError):
        raise ArtifactChanged(f"{folder / MANIFEST}: not a manifest of sqkit; validate again") from None
    return differences + here


def report_files(folder: Path) -> list[str]:
    """Names of the files of a report, relative to its folder; hidden ones are none."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    )


def _compare(folder: Path, digests: Mapping[str, str], shown: str) -> list[str]:
    differences = []
    for name, digest in sorted(digests.items()):
        path = folder / name
        if not path.is_file():
            differences.append(f"{shown}/{name}: missing")
        elif sha256_file(path) != digest:
            differences.append(f"{shown}/{name}: changed since the report was made")
    return differences
