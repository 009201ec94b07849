"""A candidate made by hand, PROMOTE and reported, for tests of the production room that need no validation.

`small_candidate` writes a student's folder and its report under a scratch root in a fraction of a
second: a real ONNX file, a checklist that the gate itself derived, a verification and a manifest in
their real forms. Nothing is trained or backtested, so ``sqkit verify`` does not hold for it.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any, Final

import numpy as np

import sqkit
from sqkit.artifacts import (
    ACCURACY_FILE,
    CHECKLIST_FILE,
    CHECKLIST_PAGE,
    COMPARISON_FILE,
    EVIDENCE_FILE,
    PARITY_FILE,
    RESULTS_FILE,
    STUDENT_FILE,
    VERIFICATION_FILE,
)
from sqkit.checklist import Adequacy, Policy, generate_promotion_checklist, render_markdown
from sqkit.checklist_signoffs import ALL_SYMBOLS
from sqkit.features import FeatureSet, student_set
from sqkit.files import sha256_bytes, sha256_file, sha256_json, write_json, write_text
from sqkit.records import session_day
from sqkit.report_manifest import MANIFEST
from sqkit.research.manifest import NotebookRun, write_manifest
from sqkit.research.onnx_export import dense_graph, model_bytes
from sqkit.settings import Settings
from sqkit.trading_rules import TradingRules
from tests.graded import graded_records
from tests.small_student import small_metadata

SYMBOLS: Final = ("AAA", "BBB")
WINDOW: Final = {"start": "2024-07-01", "end": "2024-09-30"}
PARITY_NOTE: Final = "the live engine did the same"
BETTER: Final = {
    "precision_long": 0.712,
    "hit_ratio": 0.668,
    "accuracy": 0.687,
    "sharpe_ratio": 1.85,
    "total_return": 0.142,
    "max_drawdown": 0.083,
    "win_rate": 0.583,
}
BASELINE: Final = {
    "precision_long": 0.685,
    "hit_ratio": 0.632,
    "accuracy": 0.654,
    "sharpe_ratio": 1.72,
    "total_return": 0.118,
    "max_drawdown": 0.091,
    "win_rate": 0.557,
}


def small_candidate(root: Path, version: str = "20250101_000000", **changes: Any) -> Path:
    """Write a candidate to ``root/data/models/<version>/student`` and its report; the path of its model.

    Parameters
    ----------
    root
        The project's root.
    version
        Of the model; by default its time is also that of the decision.
    **changes
        ``settings`` (default settings), ``created_by`` ("trainer"), ``strategy`` ("swing"), ``market``
        ("us"), ``symbols``, ``decided_at`` (ISO 8601), ``policy`` (values of `Policy` by name),
        ``candidate_metrics``, ``grade`` ("moderate"), ``all_symbols`` (status of the record behind the
        first box, None for no such record), ``integrity`` (items), ``incumbent`` (digest of what is in
        production, by default of what lies there now), ``bias`` and ``slope`` of the model,
        ``verified`` and ``reported`` (False: no verification.json, no report). Other names change
        the model's metadata.
    """
    settings: Settings = changes.pop("settings", None) or Settings(_env_file=None)
    strategy = changes.pop("strategy", "swing")
    market = changes.pop("market", "us")
    symbols = list(changes.pop("symbols", SYMBOLS))
    verified, reported = changes.pop("verified", True), changes.pop("reported", True)
    decision = {
        name: changes.pop(name)
        for name in ("decided_at", "policy", "candidate_metrics", "grade", "all_symbols", "integrity")
        if name in changes
    }
    incumbent = changes.pop("incumbent", _digest_of(root / settings.production_path(strategy)))
    bias, slope = changes.pop("bias", 0.0), changes.pop("slope", 1.0)
    features = student_set(strategy)
    metadata = small_metadata(
        **_metadata_of(features)
        | {
            "model_version": version,
            "created_by": "trainer",
            "market": market,
            "strategy": strategy,
            "interval": "1d" if strategy == "swing" else "1m",
            "horizon_bars": 5 if strategy == "swing" else 15,
            "symbols": symbols,
            "training_window": {"start": "2003-01-02", "end": "2023-12-29"},
            "last_label_end": "2023-12-29T21:00:00Z",
        }
        | changes
    )
    model = _model(len(features.columns), bias, slope, metadata)
    folder = root / settings.data_dir / "models" / version / "student"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STUDENT_FILE).write_bytes(model)

    rules = TradingRules.from_settings(
        settings,
        strategy=strategy,
        market=market,
        horizon_bars=metadata["horizon_bars"],
        dead_zone=metadata["dead_zone"],
        last_day=session_day(dt.date.fromisoformat(WINDOW["end"])),
    )
    production = str(settings.production_path(strategy)) if incumbent else None
    checklist = _checklist(
        candidate_model=(folder / STUDENT_FILE).relative_to(root).as_posix(),
        baseline_model=production,
        symbols=symbols,
        runtime=rules.describe(),
        digests={
            "model": sha256_bytes(model),
            "baseline": incumbent,
            "incumbent": incumbent,
            "data": "d" * 64,
            "predictions": "e" * 64,
            "runtime": sha256_json(rules.describe()),
        },
        version=version,
        settings=settings,
        **decision,
    )
    _write_artifacts(folder, checklist, metadata)
    if verified:
        _write_verification(folder, checklist)
    if reported:
        _write_report(root / settings.reports_dir / f"{version}-v1", folder, root, checklist)
    return folder / STUDENT_FILE


def _metadata_of(features: FeatureSet) -> dict[str, Any]:
    return {
        "feature_set": features.name,
        "feature_set_digest": features.digest,
        "feature_names": list(features.columns),
        "feature_ranges": [[-3.0, 3.0]] * len(features.columns),
    }


def _model(columns: int, bias: float, slope: float, metadata: dict[str, Any]) -> bytes:
    """A file whose log-odds are ``slope x first feature + bias``."""
    weights = np.zeros((columns, 1))
    weights[0] = slope
    graph = dense_graph([(weights, np.array([bias]))], mean=np.zeros(columns), scale=np.ones(columns))
    return model_bytes(graph, metadata)


def _digest_of(path: Path) -> str | None:
    return sha256_file(path) if path.is_file() else None


def _checklist(
    *,
    candidate_model: str,
    baseline_model: str | None,
    symbols: list[str],
    runtime: dict[str, Any],
    digests: dict[str, Any],
    version: str,
    settings: Settings,
    decided_at: str = "",
    policy: dict[str, Any] | None = None,
    candidate_metrics: dict[str, Any] | None = None,
    grade: str = "moderate",
    all_symbols: str | None = "pass",
    integrity: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    records = graded_records(grade)
    if all_symbols is not None:
        records.append(
            {"name": ALL_SYMBOLS, "kind": "advisory", "status": all_symbols, "params": {"weak": []}}
        )
    made = dt.datetime.strptime(version, "%Y%m%d_%H%M%S").replace(tzinfo=dt.UTC)
    return generate_promotion_checklist(
        timestamp=decided_at or made.isoformat(),
        candidate_model=candidate_model,
        baseline_model=baseline_model,
        **WINDOW,
        symbols=symbols,
        candidate_metrics=BETTER | (candidate_metrics or {}),
        baseline_metrics=BASELINE,
        policy=Policy.from_settings(settings, **(policy or {})),
        adequacy=Adequacy(session_days=63, day_clusters=61, candidate_calls=400, baseline_calls=500),
        integrity=integrity
        if integrity is not None
        else [
            {"name": "time_order", "status": "pass", "blocking": True, "note": ""},
            {"name": "teacher_agrees", "status": "pass", "blocking": True, "note": ""},
            {"name": "parity", "status": "pass", "blocking": True, "note": PARITY_NOTE},
        ],
        evidence={
            "records": records,
            "summary": "made by hand",
            "incumbent_model": baseline_model,
            "trials": {"n_trials": 1, "looks": 1},
        },
        runtime=runtime,
        digests=digests,
    )


def _write_artifacts(folder: Path, checklist: dict[str, Any], metadata: dict[str, Any]) -> None:
    """What a validation and its decision leave; the promoter reads no more of the first than digests."""
    write_json(folder / CHECKLIST_FILE, checklist)
    write_text(folder / CHECKLIST_PAGE, render_markdown(checklist))
    write_json(folder / EVIDENCE_FILE, {"grade": checklist["evidence"]["grade"], "records": []})
    write_json(
        folder / RESULTS_FILE,
        {
            "candidate_model": checklist["candidate_model"],
            "baseline_model": checklist["baseline_model"],
            "digests": checklist["digests"],
            "files": [],
            "interval": metadata["interval"],
            "model_version": metadata["model_version"],
            "runtime": checklist["runtime"],
            "validation_period": checklist["validation_period"],
        },
    )
    write_json(folder / ACCURACY_FILE, {"candidate": {}, "baseline": {}})
    write_json(folder / COMPARISON_FILE, {"all_rows": {}, "acted_on_rows": {}})
    write_json(folder / PARITY_FILE, _parity(checklist))


def _parity(checklist: dict[str, Any]) -> dict[str, Any]:
    """As `sqkit.research.parity` writes it of a replay in which nothing differed."""
    symbols = checklist["validation_period"]["symbols"]
    row = {"bars": 63, "first_divergence": None, "trades": 4, "whole": True, "window_bars": 63}
    return {
        "bars": 63 * len(symbols),
        "first_divergence": None,
        "full": False,
        "left_out": [],
        "model_digest": checklist["digests"]["model"],
        "note": PARITY_NOTE,
        "seed": 0,
        "status": "pass",
        "symbols": dict.fromkeys(symbols, row),
    }


def _write_verification(folder: Path, checklist: dict[str, Any]) -> None:
    read = {
        path.name: sha256_file(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != CHECKLIST_PAGE
    }
    write_json(
        folder / VERIFICATION_FILE,
        {
            "differences": [],
            "notes": [],
            "read": read,
            "sqkit_version": sqkit.__version__,
            "status": "verified",
            "trials": checklist["evidence"]["trials"],
            "unchecked": [],
        },
    )


def _write_report(report: Path, folder: Path, root: Path, checklist: dict[str, Any]) -> None:
    """Two pages and the manifest that `sqkit.research.manifest` writes over them and the artifacts."""
    report.mkdir(parents=True, exist_ok=True)
    (report / MANIFEST).unlink(missing_ok=True)
    for page in ("validate", "checklist"):
        for suffix in ("html", "ipynb", "md"):
            (report / f"{page}.{suffix}").write_text(f"{page} of {checklist['digests']['model']}\n")
    period = checklist["validation_period"]
    write_manifest(
        report,
        version=report.name.removesuffix("-v1"),
        notebooks={
            page: NotebookRun(report / f"{page}.ipynb", {"model": checklist["candidate_model"]})
            for page in ("validate", "checklist")
        },
        artifacts_folder=folder,
        artifacts_name=folder.relative_to(root).as_posix(),
        artifacts=[ACCURACY_FILE, CHECKLIST_FILE, COMPARISON_FILE, EVIDENCE_FILE, PARITY_FILE, RESULTS_FILE],
        summary={
            "strategy": checklist["runtime"]["strategy"],
            "window": f"{period['start']} to {period['end']}",
            "symbols": period["symbols"],
            "recommendation": checklist["recommendation"],
            "reason": checklist["reason"],
            "grade": checklist["evidence"]["grade"],
            "trials": checklist["evidence"]["trials"],
        },
    )
