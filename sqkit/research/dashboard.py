"""The dashboard outside JupyterLab: static pages under ``reports/live/``, and the command of the live one.

``make dashboard-static`` runs ``notebooks/05_monitor.ipynb`` through the runner of all reports and puts its pages in place
of the last ones, each by a rename: a reader finds the old page or the new one. They speak of now, so they carry no
version and no manifest. ``make dashboard`` has Voila run the same notebook for each visitor.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from sqkit.errors import UsageError
from sqkit.files import exclusive, make_folder, read_plain, staging_folder, write_bytes
from sqkit.research.notebooks import run_notebook
from sqkit.research.progress import say
from sqkit.research.report_index import LIVE_FOLDER, build_index
from sqkit.research.reporting import notebook_path
from sqkit.research.reports import FIGURES, write_report
from sqkit.settings import Settings

NOTEBOOK: Final = "05_monitor"
ALL_SLOTS: Final = "all"
LOOKS_AGAIN_SECONDS: Final = 120

_IDLE_SECONDS: Final = 60
_HEADERS: Final = {
    "Refresh": str(LOOKS_AGAIN_SECONDS),
    # Voila's page would fetch its icons from elsewhere; a trading host asks nobody.
    "Content-Security-Policy": (
        "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' ws: wss:; frame-ancestors 'self'"
    ),
}


def write_dashboard(slot: str = "", days: int | None = None) -> dict[str, Any]:
    """Draw the dashboard of a slot, by default of all, from what is stored now.

    Parameters
    ----------
    days
        Session days of its figures; None: as the notebook says.

    Returns
    -------
    dict
        ``page`` (the HTML file), ``markdown`` and ``states`` (slot to its state; None where it is not monitored).

    Raises
    ------
    UsageError
        The settings know no slot of that name.
    """
    settings = Settings()
    if slot and slot not in settings.slot_paths():
        raise UsageError(f"slot {slot!r}: choose one of {', '.join(settings.slot_paths())}", slot=slot)
    reports, name = Path(settings.reports_dir), slot or ALL_SLOTS
    target = reports / LIVE_FOLDER
    parameters: dict[str, Any] = {"slot": slot} | ({} if days is None else {"days": days})
    make_folder(target)
    source = notebook_path(NOTEBOOK)
    say(f"running {source.name}")
    with exclusive(target, "this dashboard", name=f".{name}.lock"), staging_folder(target / name) as staging:
        executed = staging / f"{name}.ipynb"
        records = run_notebook(
            source,
            executed,
            parameters,
            cwd=Path.cwd(),
            required_records=("states",),
            staging=staging,
            progress=say,
        )
        pages = write_report(executed, staging, name, links={"All reports": "../index.html"})
        # Figures first: whoever reads the Markdown while it changes finds them.
        for page in sorted(pages, key=lambda page: not page.startswith(f"{FIGURES}/")):
            write_bytes(target / page, read_plain(staging / page))
    for figure in (target / FIGURES).glob(f"{name}-*.png"):
        if f"{FIGURES}/{figure.name}" not in pages:
            figure.unlink(missing_ok=True)
    build_index(reports)
    return {
        "markdown": str(target / f"{name}.md"),
        "page": str(target / f"{name}.html"),
        "states": records["states"],
    }


def voila_command(notebook: Path | None = None) -> list[str]:
    """What serves the dashboard live on this machine: its page runs the notebook anew and asks again by itself.

    Every visit starts a kernel; it is stopped soon after its page was drawn, because nothing on the page needs it.
    """
    return [
        *(sys.executable, "-m", "voila", str(notebook or notebook_path(NOTEBOOK))),
        f"--Voila.tornado_settings={ {'headers': _HEADERS}!r}",
        f"--MappingKernelManager.cull_idle_timeout={_IDLE_SECONDS}",
        f"--MappingKernelManager.cull_interval={_IDLE_SECONDS}",
        "--MappingKernelManager.cull_connected=True",
        "--KernelManager.transport_encryption=auto",
    ]
