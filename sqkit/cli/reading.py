"""Commands that show what is there: ``sqkit report`` and ``sqkit inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqkit.cli.words import Json, app, show
from sqkit.files import canonical_json


@app.command
def report(*, json: Json = False) -> int:
    """Rebuild reports/index.html and index.md from the stored runs.

    Parameters
    ----------
    json
        Print the list of runs as JSON.
    """
    from sqkit.research.validation_jobs import report_job

    listing = report_job()
    lines = [f"{run['folder']}: {run['recommendation'] or run['reason']}" for run in listing["runs"]]
    show(listing, json, [*lines, listing["index"]])
    return 0


@app.command
def inspect(file: str, /, *, json: Json = False) -> int:
    """Show what a model file says of itself.

    Parameters
    ----------
    file
        An ONNX file written by sqkit.
    json
        Print everything as JSON.
    """
    from sqkit.student import inspect_model

    about = inspect_model(Path(file))
    said = {name: value for name, value in about.items() if name != "metadata"} | (about["metadata"] or {})
    lines = [f"{name:20} {_short(value)}" for name, value in said.items()]
    show(about, json, lines)
    return 0


def _short(value: Any) -> str:
    text = canonical_json(value, indent=None).strip() if isinstance(value, (dict, list)) else str(value)
    return text if len(text) <= 100 else text[:97] + "..."
