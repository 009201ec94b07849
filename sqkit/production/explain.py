"""Why was this decided? One prediction, from its telemetry record back to the people who approved the model.

``sqkit explain PREDICTION_ID`` calls this. In: the id and the project's places. Out: plain values: the bars, the
features, the score and its threshold, the strategy step, the release and its approvers; and whether the archived
model, asked again, says the same.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from sqkit.artifacts import ARCHIVE_FOLDER, STUDENT_FILE
from sqkit.audit_log import PROMOTE, read_audit
from sqkit.errors import ArtifactChanged, SqkitError, UsageError
from sqkit.files import sha256_file
from sqkit.production.slots import models_folder
from sqkit.production.telemetry import TELEMETRY_FOLDER
from sqkit.records import PREDICTION
from sqkit.settings import Settings
from sqkit.strategy import AGREE_FACTOR, DISAGREE_FACTOR
from sqkit.student import StudentModel

SHOWN_BARS: Final = 5


def explain(
    prediction_id: str, settings: Settings, root: Path = Path(), *, telemetry: Path | None = None
) -> dict[str, Any]:
    """Everything that is known of one decision.

    Parameters
    ----------
    prediction_id
        ``<strategy>/<symbol>/<bar time>``, as a signal and its record have it.
    telemetry
        Folder of the records; by default ``data/telemetry``.

    Raises
    ------
    UsageError
        No such prediction is in the telemetry.
    """
    telemetry = telemetry or root / settings.data_dir / TELEMETRY_FOLDER
    record, bars = _find(telemetry, prediction_id)
    models_dir = models_folder(settings, root)
    digest = record["student_model_digest"]
    model, where = _model(models_dir, digest) if digest else (None, None)
    return {
        "bars": bars,
        "features": _named(record, model),
        "model": None
        if model is None
        else {"digest": model.digest, "path": str(where), "version": model.version},
        "record": record,
        "release": _release(models_dir, digest) if digest else None,
        "scored_again": _again(record, model, settings),
        "strategy": _strategy(record),
    }


def _find(telemetry: Path, prediction_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The record, and the last bars of its symbol up to it."""
    strategy, symbol, instant = _parts(prediction_id)
    for folder in _folders(telemetry, instant):
        for record in _decisions(folder, strategy, symbol):
            if record["id"] == prediction_id:
                return record, _bars_until(telemetry, record)
    raise UsageError(
        f"{prediction_id}: no such prediction under {telemetry}; an id is <strategy>/<symbol>/<bar time>, as the "
        "records and signals of an engine have it",
        prediction=prediction_id,
    )


def _bars_until(telemetry: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
    """The last bars of its symbol up to a decision, over as many session dates as it takes."""
    known: dict[str, dict[str, Any]] = {}
    folders = [path for path in telemetry.iterdir() if path.is_dir() and path.name <= record["session_date"]]
    for folder in sorted(folders, reverse=True):
        for one in _decisions(folder, record["strategy"], record["symbol"]):
            if one["bar_time"] <= record["bar_time"]:
                known.setdefault(one["bar_time"], {"bar_time": one["bar_time"], **_ohlcv(one["bar"])})
        if len(known) >= SHOWN_BARS:
            break
    return [known[time] for time in sorted(known)][-SHOWN_BARS:]


def _decisions(folder: Path, strategy: str, symbol: str) -> Iterator[dict[str, Any]]:
    """Every decision of a strategy on a symbol in the files of one session date."""
    for path in sorted(folder.glob("*.jsonl")):
        for record in _records(path, symbol):
            if record.get("event") == PREDICTION and record["strategy"] == strategy:
                yield record


def _parts(prediction_id: str) -> tuple[str, str, dt.datetime]:
    try:
        strategy, symbol, instant = prediction_id.split("/")
        return strategy, symbol, dt.datetime.fromisoformat(instant).astimezone(dt.UTC)
    except ValueError:
        raise UsageError(
            f"{prediction_id!r}: no prediction's id; it is <strategy>/<symbol>/<bar time>, such as "
            "intraday/MSFT/2025-01-03T14:30:00Z",
            prediction=prediction_id,
        ) from None


def _folders(telemetry: Path, instant: dt.datetime) -> Iterator[Path]:
    """The session dates that an instant may belong to, whatever the market's zone."""
    for days in (0, -1, 1):
        folder = telemetry / (instant.date() + dt.timedelta(days=days)).isoformat()
        if folder.is_dir():
            yield folder


def _records(path: Path, symbol: str) -> Iterator[dict[str, Any]]:
    """Records of a symbol; what is no record is left out."""
    wanted = json.dumps(symbol, ensure_ascii=False).encode()
    with open(path, "rb") as lines:
        for line in lines:
            if wanted not in line:
                continue
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and record.get("symbol") == symbol:
                yield record


def _ohlcv(bar: list[float | None]) -> dict[str, float | None]:
    return dict(zip(("open", "high", "low", "close", "volume"), bar, strict=True))


def _model(models_dir: Path, digest: str) -> tuple[StudentModel | None, Path | None]:
    """The model whose digest begins so: archived, in production, or a candidate."""
    places = [
        *sorted((models_dir / ARCHIVE_FOLDER).glob(f"*_{digest[:8]}/{STUDENT_FILE}")),
        *sorted(models_dir.glob(f"*/{STUDENT_FILE}")),
        *sorted(models_dir.glob(f"*/student*/{STUDENT_FILE}")),
    ]
    for place in places:
        try:
            if sha256_file(place).startswith(digest):
                return StudentModel.load(place), place
        except (SqkitError, OSError):
            continue
    return None, None


def _named(record: dict[str, Any], model: StudentModel | None) -> dict[str, Any]:
    values = record["features"] or []
    names = model.feature_set.columns if model else [f"feature {place}" for place in range(len(values))]
    return dict(zip(names, values, strict=False))


def _again(record: dict[str, Any], model: StudentModel | None, settings: Settings) -> dict[str, Any]:
    """What the model says of the recorded features now, and whether it is the same."""
    said = record["student_probability_up"]
    if said is None:
        return {"status": "not_scored", "note": f"the student said nothing: {record['reason']}"}
    if model is None:
        return {
            "status": "not_found",
            "note": f"no model {record['student_model_digest']} lies here any more",
        }
    try:
        features = np.array([record["features"]], dtype=np.float64)
        threshold = settings.student_model_confidence_threshold
        scores = model.score_rows(features, threshold)
    except (SqkitError, TypeError, ValueError) as problem:
        raise ArtifactChanged(f"{record['id']}: its features cannot be scored again ({problem})") from None
    found = float(scores.probability_up[0])
    return {
        "note": "",
        "probability_up": found,
        "recorded": said,
        "status": "same" if found == said else "different",
        "threshold": threshold,
    }


def _strategy(record: dict[str, Any]) -> dict[str, Any]:
    factor = 1.0
    if record["prediction_source"] == "student_model":
        agrees = record["student_prediction"] == record["baseline_direction"]
        factor = AGREE_FACTOR if agrees else DISAGREE_FACTOR
    names = (
        "baseline_direction",
        "baseline_strength",
        "strength",
        "target",
        "entry_lock",
        "prediction_source",
    )
    return {"factor": factor, **{name: record[name] for name in names}}


def _release(models_dir: Path, digest: str) -> dict[str, Any] | None:
    """The promotion that made this model a release."""
    lines = [
        line
        for line in read_audit(models_dir)
        if line["kind"] == PROMOTE and line["digests"]["model"].startswith(digest)
    ]
    if not lines:
        return None
    line = lines[-1]
    return {
        "approvals": line["approvals"],
        "audit_line": line["digest"][:12],
        "date": line["date"],
        "release": line["release"],
        "symbols": line["symbols"],
        "version": line["model_version"],
    }
