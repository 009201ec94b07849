"""One report run: notebooks executed into a staging folder, rendered, sealed, published whole.

The jobs drive it. ``reports/<model version>-v<n>`` appears by one rename when every page is
there; until then, and after any failure, nothing of it exists under its final name.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import sqkit
from sqkit.errors import ConflictError, ReportIncomplete
from sqkit.files import exclusive, make_folder, output_errors, publish, staging_folder
from sqkit.report_manifest import MANIFEST, run_folder
from sqkit.research.manifest import (
    NotebookRun,
    carry_page,
    next_run_number,
    page_records,
    training_report_folder,
    write_manifest,
)
from sqkit.research.notebooks import run_notebook
from sqkit.research.progress import say
from sqkit.research.report_index import build_index
from sqkit.research.report_view import set_verdict
from sqkit.research.reports import write_report
from sqkit.research.sources import BARS_VARIABLE
from sqkit.research.views import lead_line

PAGES: Final = {"train": "02_train", "validate": "03_validate", "checklist": "04_checklist"}
TITLES: Final = {"train": "Training", "validate": "Validation", "checklist": "Decision"}
REQUIRED_FIGURES: Final = {
    "train": ("distillation.png",),
    "validate": ("equity.png", "confidence.png", "calibration.png", "confusion.png"),
    "checklist": ("uplifts.png", "symbols.png"),
}
REQUIRED_RECORDS: Final = {
    "train": ("model_digest", "model_version", "distillation", "largest_session_date"),
    "validate": ("candidate_metrics", "baseline_metrics", "symbols", "short_history", "untrained_symbols"),
    "checklist": (
        "recommendation",
        "reason",
        "candidate_metrics",
        "baseline_metrics",
        "evidence_grade",
        "evidence_summary",
        "trials",
    ),
}


def notebook_path(name: str) -> Path:
    """A shipped notebook: in a checkout under ``notebooks/``, in an installed package inside it."""
    package = Path(sqkit.__file__).parent
    for folder in (package.parent / "notebooks", package / "notebooks"):
        if (folder / f"{name}.ipynb").is_file():
            return folder / f"{name}.ipynb"
    raise ReportIncomplete(
        f"{name}.ipynb is not part of this installation; install sqkit again", notebook=name
    )


@dataclass(frozen=True)
class ReportRun:
    """A run that has a folder name but nothing in it yet."""

    reports_dir: Path
    version: str
    folder: Path

    @classmethod
    def for_training(cls, reports_dir: Path, version: str) -> ReportRun:
        """Training alone: ``<version>-v1``, without a manifest."""
        return cls(reports_dir, version, training_report_folder(reports_dir, version))

    @classmethod
    def for_validation(cls, reports_dir: Path, version: str) -> ReportRun:
        """The next validation: it completes v1, or counts on."""
        return cls(
            reports_dir, version, run_folder(reports_dir, version, next_run_number(reports_dir, version))
        )

    @contextlib.contextmanager
    def staged(self) -> Iterator[StagedReport]:
        """A staging folder beside the final one; whatever happens, it is gone afterwards."""
        make_folder(self.reports_dir)
        held = exclusive(self.reports_dir, "a report of this version", name=f".{self.version}.lock")
        with held, staging_folder(self.folder) as staging:
            if (self.folder / MANIFEST).is_file():
                raise ConflictError(
                    f"{self.folder}: was written meanwhile; run again", folder=str(self.folder)
                )
            # mkdtemp makes folders private; a published report is for everybody who may read here
            staging.chmod(0o755)
            yield StagedReport(self, staging)


@dataclass
class StagedReport:
    """A report in the making.

    Attributes
    ----------
    runs
        Page name to the notebook run behind it, as the manifest will say.
    records
        Page name to the values its notebook recorded.
    """

    run: ReportRun
    staging: Path
    runs: dict[str, NotebookRun] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run_notebook(self, page: str, parameters: dict[str, Any], *, workspace: Path, bars: str = "") -> None:
        """Execute the page's notebook; its artifacts go to `workspace`.

        Where the bars lie is said beside the parameters: the same bars in another place give
        the same report.
        """
        source = notebook_path(PAGES[page])
        say(f"running {source.name}")
        self.records[page] = run_notebook(
            source,
            self.staging / f"{page}.ipynb",
            parameters,
            cwd=Path.cwd(),
            required_records=REQUIRED_RECORDS[page],
            required_figures=REQUIRED_FIGURES[page],
            staging=workspace.resolve(),
            variables={BARS_VARIABLE: bars},
            progress=say,
        )
        self.runs[page] = NotebookRun(source, parameters)

    def require_same(self, page: str, name: str, stored: Any) -> None:
        """A value the notebook recorded must equal the one in the file that the gate reads.

        Raises
        ------
        ReportIncomplete
            They differ: the page would say one thing and the gate judge another.
        """
        if self.records[page][name] != stored:
            raise ReportIncomplete(f"{page}: the recorded {name} differs from the artifact the gate reads")

    def carry_over(self, page: str, **recorded: Any) -> None:
        """Copy a page of an earlier run whose notebook recorded these values, byte for byte."""
        carry_page(self.run.reports_dir, self.run.version, self.staging, page, recorded)

    def refuse_other_training(self) -> None:
        """A training report of another student under this version is not replaced.

        Raises
        ------
        ConflictError
            Another student of this version has been trained.
        """
        stored = page_records(self.run.folder, "train", ["model_digest"])
        if stored is not None and stored["model_digest"] != self.records["train"]["model_digest"]:
            raise ConflictError(
                f"{self.run.folder}: holds the training report of another student of version {self.run.version}; "
                "train under a version of its own (--version-tag, or another version folder)",
                folder=str(self.run.folder),
            )

    def render(self, *, checklist: dict[str, Any] | None = None) -> None:
        """Draw the pages of this run; with a checklist each opens with its verdict."""
        present = [page for page in PAGES if (self.staging / f"{page}.ipynb").is_file()]
        for page in self.runs:
            executed = self.staging / f"{page}.ipynb"
            if checklist is not None:
                set_verdict(executed, lead_line(checklist))
            links = {TITLES[other]: f"{other}.html" for other in present if other != page}
            write_report(executed, self.staging, page, links=links if checklist is not None else None)

    def seal(
        self,
        *,
        checklist: dict[str, Any],
        artifacts_folder: Path,
        artifacts_name: str,
        artifacts: Sequence[str],
    ) -> None:
        """Write the manifest over everything that lies here and over the artifacts."""
        period = checklist["validation_period"]
        constraints = Path("constraints.txt")
        write_manifest(
            self.staging,
            version=self.run.version,
            notebooks=self.runs,
            artifacts_folder=artifacts_folder,
            artifacts_name=artifacts_name,
            artifacts=artifacts,
            summary={
                "strategy": checklist["runtime"]["strategy"],
                "window": f"{period['start']} to {period['end']}",
                "symbols": period["symbols"],
                "recommendation": checklist["recommendation"],
                "reason": checklist["reason"],
                "grade": checklist["evidence"]["grade"],
                "trials": checklist["evidence"]["trials"],
            },
            constraints=constraints if constraints.is_file() else None,
        )

    def publish(self) -> None:
        """Give the report its final name and bring the index up to date."""
        finished = self.staging.with_name(f".{self.run.folder.name}.finished")
        with output_errors(finished):
            shutil.rmtree(finished, ignore_errors=True)
            self.staging.rename(finished)
        try:
            publish(finished, self.run.folder)
        finally:
            shutil.rmtree(finished, ignore_errors=True)
        build_index(self.run.reports_dir)
