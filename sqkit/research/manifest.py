"""The manifest of a report: what it was made of, by digest.

The runner writes ``manifest.json`` last, only after every page is there: digests of the
notebooks, their parameters, the pages, the figures, the artifacts, the package and its
constraints. No wall time and no absolute place, so the same inputs give the same bytes.
`verify_manifest` computes every digest again. Called by the runner.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sqkit
from sqkit.artifacts import CHECKLIST_PAGE
from sqkit.errors import ConflictError, ReportIncomplete, UsageError
from sqkit.files import (
    canonical_json,
    make_folder,
    output_errors,
    sha256_file,
    sha256_json,
    write_json,
)
from sqkit.report_manifest import MANIFEST, report_files, run_folder, run_numbers
from sqkit.research.notebook_store import absolute_paths_in
from sqkit.research.notebooks import read_records
from sqkit.research.reports import FIGURES, TEMPLATES

SUMMARY_KEYS: Final = ("strategy", "window", "symbols", "recommendation", "reason", "grade", "trials")


@dataclass(frozen=True)
class NotebookRun:
    """One notebook of a report: its source as named in the manifest, and what it was given."""

    source: Path
    parameters: dict[str, Any]


def next_run_number(reports_dir: Path, version: str) -> int:
    """The number of the next validation: 1 completes a training report, later ones count on."""
    taken = run_numbers(reports_dir, version)
    if not taken or (taken == [1] and not (run_folder(reports_dir, version, 1) / MANIFEST).is_file()):
        return 1
    return taken[-1] + 1


def training_report_folder(reports_dir: Path, version: str) -> Path:
    """Where training alone writes its report.

    Raises
    ------
    ConflictError
        The version has been validated already; a signed report never changes.
    """
    folder = run_folder(reports_dir, version, 1)
    if (folder / MANIFEST).is_file():
        raise ConflictError(
            f"{folder}: model version {version} has been validated, its report stays; train under a new version",
            folder=str(folder),
        )
    return folder


def carry_page(
    reports_dir: Path, version: str, staging: Path, page: str, recorded: Mapping[str, Any]
) -> list[str]:
    """Copy a page of an earlier run into a new one, byte for byte, if it speaks of the same thing.

    Two students may share a version, so the version alone does not tell whose page it is.

    Parameters
    ----------
    page
        Such as ``train``.
    recorded
        Values that the page's executed notebook must have recorded.

    Returns
    -------
    list
        Names of the files copied, from the newest run that fits; empty when none does.
    """
    for number in reversed(run_numbers(reports_dir, version)):
        source = run_folder(reports_dir, version, number)
        if page_records(source, page, recorded) != recorded:
            continue
        files = [source / f"{page}.{suffix}" for suffix in ("html", "ipynb", "md")]
        carried = []
        for path in [*files, *sorted((source / FIGURES).glob(f"{page}-*.png"))]:
            relative = path.relative_to(source)
            make_folder((staging / relative).parent)
            with output_errors(staging / relative):
                shutil.copyfile(path, staging / relative)
            carried.append(relative.as_posix())
        return carried
    return []


def page_records(run: Path, page: str, names: Iterable[str]) -> dict[str, Any] | None:
    """What a page's executed notebook recorded under these names; None where the page is not whole."""
    executed = run / f"{page}.ipynb"
    if not all((run / f"{page}.{suffix}").is_file() for suffix in ("html", "ipynb", "md")):
        return None
    found = read_records(executed)
    return {name: found.get(name) for name in names}


def package_digest() -> str:
    """SHA-256 over the package's own code and templates, by relative name."""
    root = Path(sqkit.__file__).parent
    files = [*root.rglob("*.py"), *TEMPLATES.iterdir(), *(root / "data_files").glob("*")]
    return sha256_json(
        {path.relative_to(root).as_posix(): sha256_file(path) for path in files if path.is_file()}
    )


def write_manifest(
    folder: Path,
    *,
    version: str,
    notebooks: Mapping[str, NotebookRun],
    artifacts_folder: Path,
    artifacts_name: str,
    artifacts: Sequence[str],
    summary: Mapping[str, Any],
    constraints: Path | None = None,
) -> dict[str, Any]:
    """Write ``manifest.json`` over everything that lies in a report's folder.

    Parameters
    ----------
    folder
        The staging folder of the report, complete but for the manifest.
    notebooks
        Page name (``validate``) to the run behind it.
    artifacts_folder, artifacts_name, artifacts
        Where the artifacts lie now, how that folder is called relative to the project once
        published, and the files in it (names relative to it, sub-folders allowed). The checklist's
        page is left out: it is a view that every approval draws again.
    summary
        ``strategy``, ``window`` (text), ``symbols`` (list), ``recommendation`` and ``reason``.
    constraints
        The file of pinned versions, where there is one.

    Raises
    ------
    ReportIncomplete
        A page or an artifact is missing, or a value names an absolute place of this run.
    """
    _require_summary(summary)
    files = _digests(folder, [name for name in report_files(folder) if name != MANIFEST])
    missing = [f"{page}.{suffix}" for page in notebooks for suffix in ("html", "ipynb", "md")]
    missing = [name for name in missing if name not in files]
    if missing:
        raise ReportIncomplete(f"{folder.name}: {', '.join(missing)} missing from the report")
    absent = [name for name in artifacts if not (artifacts_folder / name).is_file()]
    if absent:
        raise ReportIncomplete(f"{artifacts_name}: {', '.join(absent)} was not written by the run")
    hashed = [name for name in artifacts if name != CHECKLIST_PAGE]
    manifest = {
        "artifacts": {"files": _digests(artifacts_folder, hashed), "folder": artifacts_name},
        "constraints": sha256_file(constraints) if constraints else None,
        "files": files,
        "model_version": version,
        "notebooks": {
            page: {
                "parameters": run.parameters,
                "parameters_digest": sha256_json(run.parameters),
                "source": run.source.name,
                "source_digest": sha256_file(run.source),
            }
            for page, run in notebooks.items()
        },
        "package": package_digest(),
        "schema_version": 1,
        "sqkit_version": sqkit.__version__,
        "summary": {key: summary[key] for key in SUMMARY_KEYS},
    }
    named = absolute_paths_in(canonical_json(manifest), [folder.resolve(), artifacts_folder.resolve()])
    if named:
        raise ReportIncomplete(f"{MANIFEST}: names the place {named[0]}; give paths relative to the project")
    write_json(folder / MANIFEST, manifest)
    return manifest


def _require_summary(summary: Mapping[str, Any]) -> None:
    missing = [key for key in SUMMARY_KEYS if key not in summary]
    if missing:
        raise UsageError(f"summary of a report: {', '.join(missing)} missing")


def _digests(folder: Path, names: Sequence[str]) -> dict[str, str]:
    return {name: sha256_file(folder / name) for name in sorted(names)}
