"""The only door to papermill: run a notebook and accept nothing but a whole run.

``sqkit train``, ``validate`` and ``checklist`` call `run_notebook`; ``make lint`` calls
``python -m sqkit.research.notebooks check``. In: a source notebook and plain parameters.
Out: an executed notebook without times or places, and the values it recorded. papermill's
own metadata says "completed" after a dead kernel, so every claim of it is checked here.
"""

from __future__ import annotations

import errno
import json
import logging
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sqkit import errors
from sqkit.errors import NotebookFailed, OutputError, ReportIncomplete, SqkitError, UsageError
from sqkit.files import make_folder, output_errors, write_text
from sqkit.research.display import SENTINEL, STAGING_VARIABLE
from sqkit.research.notebook_kernel import PrivateKernel, private_kernel
from sqkit.research.notebook_parameters import Parameter, cell_source, coerce_parameters, parse_parameters
from sqkit.research.notebook_store import (
    INJECTED,
    absolute_paths_in,
    check_stored,
    clean_stored,
    figures_in,
    notebook_text,
    places_in,
    records_in,
    standard_error_of,
    strip_execution,
)

_NO_ROOM: Final = rf"\[Errno ({errno.ENOSPC}|{errno.EDQUOT}|{errno.EFBIG}|{errno.EROFS}|{errno.EACCES})\]"

__all__ = [
    "Parameter",
    "absolute_paths_in",
    "check_stored",
    "clean_stored",
    "coerce_parameters",
    "parse_parameters",
    "read_records",
    "run_notebook",
    "strip_execution",
]


def run_notebook(
    source: Path,
    output: Path,
    parameters: Mapping[str, Any],
    *,
    cwd: Path,
    timeout_seconds: int = 1800,
    required_records: Sequence[str] = (),
    required_figures: Sequence[str] = (),
    staging: Path | None = None,
    variables: Mapping[str, str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Execute a notebook and return what it recorded; `output` appears only when it is whole.

    Parameters
    ----------
    source
        The notebook; it is never changed.
    output
        Where the executed notebook goes.
    parameters
        Values for its parameters cell; the others keep their defaults.
    cwd
        The kernel's working folder, to which paths in parameters are relative.
    timeout_seconds
        Of each cell.
    required_records, required_figures
        Names the run must have recorded, file names it must have shown.
    staging
        What ``display.staged`` answers inside the kernel.
    variables
        Further environment variables of the kernel.
    progress
        Called with one line per titled section, and with what cells wrote to standard
        error. On a terminal papermill's progress bar over the cells stands for the sections.

    Raises
    ------
    UsageError
        Parameters that the notebook does not take.
    NotebookFailed
        A cell raised, the kernel died or did not start, a cell ran out of time.
    ReportIncomplete
        A cell did not run, or a required record or figure is absent.
    SqkitError
        Whatever refusal of sqkit a cell raised, as itself with its own exit code.
    OutputError
        `output` cannot be written.
    """
    values = coerce_parameters(source, parameters)
    make_folder(output.parent)
    with output_errors(output), tempfile.TemporaryFile(dir=output.parent):
        pass  # refused now, not after the work is done
    environment = {**(variables or {}), STAGING_VARIABLE: str(staging.resolve()) if staging else ""}
    with output_errors(Path(tempfile.gettempdir())), private_kernel(environment) as kernel:
        executed = _execute(source, values, cwd, timeout_seconds, kernel, progress)
        roots = [cwd.resolve(), kernel.folder, *([staging.resolve()] if staging else [])]
    notebook = strip_execution(executed)
    records = _require_whole(source.name, notebook, required_records, required_figures)
    places = places_in(notebook, roots)
    if places:
        raise ReportIncomplete(f"{source.name}: {places[0]}", places=places)
    write_text(output, notebook_text(notebook))
    if progress:
        for line in standard_error_of(executed):
            progress(f"{source.stem}: {line}")
    del records[SENTINEL]
    return records


def _execute(
    source: Path,
    values: dict[str, Any],
    cwd: Path,
    timeout_seconds: int,
    kernel: PrivateKernel,
    progress: Callable[[str], None] | None,
) -> dict[str, Any]:
    """Run under papermill; every way it can fail ends in one line of ours."""
    import nbformat  # Jupyter is imported only to run a notebook
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillException, PapermillExecutionError

    reached: dict[int, str] = {}

    def on_cell_start(cell: Any, cell_index: int) -> None:
        reached[cell_index] = INJECTED if INJECTED in cell.metadata.get("tags", []) else cell.id
        title = re.match(r"#{1,2} +(.+)", cell.source) if cell.cell_type == "markdown" else None
        if title and progress and not bar:
            progress(f"{source.stem}: {title.group(1).strip()}")

    bar: bool | dict[str, Any] = {"desc": source.stem, "leave": False} if sys.stderr.isatty() else False
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it logs is said in our own line
    try:
        notebook = nbformat.reads(source.read_text(encoding="utf-8"), as_version=4)
        # As a node, not as paths: papermill takes braces in a path for format fields.
        executed = papermill.execute_notebook(
            _prepared(notebook),
            None,
            values,
            kernel_name="python3",
            language="python",
            progress_bar=bar,
            request_save_on_cell_execute=False,
            execution_timeout=timeout_seconds,
            kernel_manager_class=kernel.kernel_manager_class,
            record_timing=False,
            on_cell_start=on_cell_start,
            # The kernel starts in cwd; papermill's own cwd would move this whole process.
            resources={"metadata": {"path": str(cwd)}},
        )
    except PapermillExecutionError as problem:
        failed = reached[problem.cell_index]
        raise _cell_error(source, failed, problem.ename, problem.evalue, problem.traceback) from None
    except CellTimeoutError:
        cell = _last(reached)
        raise NotebookFailed(
            f"{source.name}, cell {cell}: ran longer than {timeout_seconds} s and was stopped",
            notebook=source.name,
            cell=cell,
        ) from None
    except DeadKernelError:
        cell, words = _last(reached), kernel.last_words()
        raise NotebookFailed(
            f"{source.name}, cell {cell}: the kernel died (out of memory?)"
            + (f"; its last line: {words}" if words else ""),
            notebook=source.name,
            cell=cell,
        ) from None
    except (NoSuchKernel, PapermillException, ValueError, RuntimeError) as problem:
        raise NotebookFailed(
            f"{source.name}: could not be run ({type(problem).__name__}: {_one_line(str(problem))})",
            notebook=source.name,
        ) from None
    return dict(executed)


def _last(reached: dict[int, str]) -> str:
    return reached[max(reached)] if reached else "none"


def _prepared(notebook: Any) -> Any:
    """A source without stored outputs and with the metadata papermill expects in a node."""
    for cell in notebook.cells:
        cell.metadata["papermill"] = {}
        cell.metadata.setdefault("tags", [])
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata["papermill"] = {"parameters": {}, "environment_variables": {}, "default_parameters": {}}
    return notebook


def _cell_error(source: Path, cell: str, name: str, value: str, traceback: list[str]) -> SqkitError:
    """The error of a cell: a refusal of sqkit comes back as itself, anything else as a failure."""
    kind = getattr(errors, name, None)
    values = {"notebook": source.name, "cell": cell, "traceback": "\n".join(traceback)}
    if isinstance(kind, type) and issubclass(kind, SqkitError):
        return kind(_one_line(value), **values)
    if re.match(_NO_ROOM, value):
        return OutputError(
            f"{source.name}, cell {cell}: {_one_line(value)}; free some space or choose another folder, "
            "then run again",
            **values,
        )
    said = f"{name}: {_one_line(value)}" if value.strip() else name
    return NotebookFailed(f"{source.name}, cell {cell}: {said}", **values)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _require_whole(
    name: str, notebook: dict[str, Any], required_records: Sequence[str], required_figures: Sequence[str]
) -> dict[str, Any]:
    """The records of a run in which every cell ran and everything required is there."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and cell_source(cell).strip()]
    for expected, cell in enumerate(code, start=1):
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                raise _cell_error(Path(name), cell["id"], output["ename"], output["evalue"], [])
        if cell["execution_count"] != expected:
            raise ReportIncomplete(
                f"{name}, cell {cell['id']}: did not run (execution count {cell['execution_count']}, "
                f"expected {expected})"
            )
    try:
        records = records_in(notebook)
    except UsageError as problem:
        raise ReportIncomplete(f"{name}, {problem.message}") from None
    if records.get(SENTINEL) is not True:
        raise ReportIncomplete(
            f"{name}: the notebook did not reach its end; its last cell must call finish()"
        )
    shown = figures_in(notebook)
    for kind, wanted, found in (("record", required_records, records), ("figure", required_figures, shown)):
        missing = [item for item in wanted if item not in found]
        if missing:
            raise ReportIncomplete(f"{name}: the {kind} {', '.join(missing)} is missing from the run")
    repeated = sorted({figure for figure in shown if shown.count(figure) > 1})
    if repeated:
        raise ReportIncomplete(f"{name}: the figure {repeated[0]} is shown twice; give each its own name")
    return records


def read_records(executed: Path) -> dict[str, Any]:
    """The values an executed notebook recorded, without the runner's own mark."""
    records = records_in(json.loads(executed.read_text(encoding="utf-8")))
    records.pop(SENTINEL, None)
    return records


def main(arguments: Sequence[str]) -> int:
    """``check FILE...`` prints what is wrong with stored notebooks; ``clean FILE...`` mends them."""
    if len(arguments) < 2 or arguments[0] not in {"check", "clean"}:
        print("usage: python -m sqkit.research.notebooks check|clean NOTEBOOK.ipynb ...", file=sys.stderr)
        return 2
    paths = [Path(name) for name in arguments[1:]]
    if arguments[0] == "clean":
        for path in paths:
            if clean_stored(path):
                print(f"{path}: cleaned")
        return 0
    problems = [problem for path in paths for problem in check_stored(path)]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
