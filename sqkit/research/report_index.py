"""The index of all reports: one table, rebuilt from the manifests, no server and no script.

``sqkit report`` and every runner call `build_index` after they published a run folder. A report never
changes once it is signed: who approved and what became of it show here.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any, Final

from sqkit.artifacts import CHECKLIST_FILE, EARLIER_FOLDER
from sqkit.errors import SqkitError
from sqkit.files import make_folder, read_json, sha256_file, write_text
from sqkit.report_manifest import MANIFEST, RUN_FOLDER
from sqkit.research.manifest import SUMMARY_KEYS
from sqkit.research.notebooks import read_records
from sqkit.research.promotion_state import Logs, state_words
from sqkit.research.reports import TEMPLATES, markdown_cell

SUMMARY_RECORD: Final = "report_summary"
"""What a training notebook records so that the index can describe a run without a manifest."""
LIVE_FOLDER: Final = "live"
"""Where the dashboard's pages lie; they are no runs."""
_REASON_LENGTH: Final = 160


def build_index(reports_dir: Path, root: Path = Path()) -> list[dict[str, Any]]:
    """Write ``index.html`` and ``index.md`` over every run folder; newest first.

    Parameters
    ----------
    root
        The project's root, to which the folders that manifests name are relative.

    Returns
    -------
    list
        One dict a run: ``folder``, ``version``, ``run``, the summary's keys, ``approvals`` (who signed
        and whether it is or was live, in words), ``pages``.
    """
    make_folder(reports_dir)
    logs: Logs = {}
    runs = [_run_row(folder, match, root, logs) for folder, match in _run_folders(reports_dir)]
    runs.sort(key=lambda run: (run["version"], run["run"]), reverse=True)
    live = sorted(page.stem for page in (reports_dir / LIVE_FOLDER).glob("*.html"))
    write_text(reports_dir / "index.html", _index_html(runs, live))
    write_text(reports_dir / "index.md", _index_markdown(runs, live))
    return runs


def _run_folders(reports_dir: Path) -> list[tuple[Path, re.Match[str]]]:
    found = [
        (folder, RUN_FOLDER.match(folder.name)) for folder in sorted(reports_dir.iterdir()) if folder.is_dir()
    ]
    return [(folder, match) for folder, match in found if match and not folder.name.startswith(".")]


def _run_row(folder: Path, match: re.Match[str], root: Path, logs: Logs) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(SUMMARY_KEYS, "") | {"symbols": [], "approvals": ""}
    try:
        if (folder / MANIFEST).is_file():
            manifest = read_json(folder / MANIFEST)
            summary = manifest["summary"]
            row |= {key: summary[key] for key in SUMMARY_KEYS if key in summary}
            row["approvals"] = _approvals(manifest["artifacts"], int(match["number"]), root, logs)
        else:
            if (folder / "train.ipynb").is_file():
                recorded = read_records(folder / "train.ipynb").get(SUMMARY_RECORD, {})
                row |= {key: recorded[key] for key in SUMMARY_KEYS if key in recorded}
            row |= {"recommendation": "", "reason": "trained, not validated yet"}
    except (SqkitError, KeyError, TypeError, ValueError):  # one broken run must not hide the others
        row |= {"recommendation": "", "reason": f"{MANIFEST} or train.ipynb cannot be read"}
    pages = [page for page in ("train", "validate", "checklist") if (folder / f"{page}.html").is_file()]
    return row | {
        "folder": folder.name,
        "pages": pages,
        "run": int(match["number"]),
        "version": match["version"],
    }


def _approvals(artifacts: dict[str, Any], number: int, root: Path, logs: Logs) -> str:
    """What became of a run's checklist, in words; empty where nobody speaks of it."""
    student, digest = root / artifacts["folder"], artifacts["files"].get(CHECKLIST_FILE)
    if digest is None:
        return ""
    try:
        return state_words(student, digest, _required_roles(student, number, digest), logs)
    except OSError:
        return f"{artifacts['folder']} cannot be read"


def _required_roles(student: Path, number: int, digest: str) -> list[str]:
    """Whose approval a run's checklist asks for; empty where it does not lie there any more."""
    for place in (student / CHECKLIST_FILE, student / EARLIER_FOLDER / f"v{number}" / CHECKLIST_FILE):
        if place.is_file() and sha256_file(place) == digest:
            policy = read_json(place).get("policy", {})
            return list(policy.get("required_approvals", ()))
    return []


def _short(reason: str) -> str:
    return reason if len(reason) <= _REASON_LENGTH else reason[: _REASON_LENGTH - 1].rstrip() + "…"


_HEADINGS: Final = (
    "Version",
    "Run",
    "Strategy",
    "Window",
    "Symbols",
    "Recommendation",
    "Evidence",
    "Approvals",
    "Why",
    "Pages",
)


def _index_html(runs: list[dict[str, Any]], live: list[str]) -> str:
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    rows = []
    for run in runs:
        links = " ".join(f'<a href="{run["folder"]}/{page}.html">{page}</a>' for page in run["pages"])
        word = html.escape(run["recommendation"])
        badge = f'<span class="badge {word.lower()}">{word.replace("_", " ")}</span>' if word else ""
        texts = [run["version"], f"v{run['run']}", run["strategy"], run["window"], " ".join(run["symbols"])]
        cells = [html.escape(str(text)) for text in texts] + [
            badge,
            html.escape(str(run["grade"])),
            html.escape(run["approvals"]),
            html.escape(_short(run["reason"])),
            links,
        ]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = "".join(f"<th>{heading}</th>" for heading in _HEADINGS)
    table = (
        f'<div class="wide"><table class="index">\n<thead><tr>{heads}</tr></thead>\n<tbody>\n'
        + "\n".join(rows)
    )
    body = (
        table + "\n</tbody>\n</table></div>"
        if runs
        else '<p class="empty">No report yet: run make validate.</p>'
    )
    pages = " ".join(f'<a href="{LIVE_FOLDER}/{name}.html">{html.escape(name)}</a>' for name in live)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f'<title>sqkit reports</title>\n<style>\n{style}</style>\n</head>\n<body class="index">\n<h1>Reports</h1>\n'
        + (f"<p>The live model, as the dashboard last saw it: {pages}.</p>\n" if live else "")
        + f"<p>Every run, newest model first.</p>\n{body}\n</body>\n</html>\n"
    )


def _index_markdown(runs: list[dict[str, Any]], live: list[str]) -> str:
    pages = " · ".join(f"[{name}]({LIVE_FOLDER}/{name}.md)" for name in live)
    top = ["# Reports", "", *([f"The live model, as the dashboard last saw it: {pages}", ""] if live else [])]
    if not runs:
        return "\n".join([*top, "No report yet: run `make validate`.", ""])
    lines = [*top, "Every run, newest model first.", ""]
    lines += ["| " + " | ".join(_HEADINGS) + " |", "|" + " --- |" * len(_HEADINGS)]
    for run in runs:
        links = " · ".join(f"[{page}]({run['folder']}/{page}.md)" for page in run["pages"])
        recommendation = f"**{run['recommendation']}**" if run["recommendation"] else ""
        texts = [run["version"], f"v{run['run']}", run["strategy"], run["window"], " ".join(run["symbols"])]
        cells = [str(text) for text in texts]
        cells += [recommendation, str(run["grade"]), run["approvals"], _short(run["reason"])]
        lines.append("| " + " | ".join(markdown_cell(cell) for cell in cells) + f" | {links} |")
    return "\n".join(lines) + "\n"
