"""What a notebook file may hold: sources clean, executed notebooks free of times and places.

`check_stored` is the lint of the source notebooks and `clean_stored` mends what a machine can
mend; `strip_execution` makes an executed notebook the same bytes for the same inputs. Called
by `sqkit.research.notebooks` and by ``make lint``.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from sqkit.errors import UsageError
from sqkit.files import write_text
from sqkit.research.display import RECORD_MIME
from sqkit.research.notebook_parameters import cell_source, parse_parameters, read_cells

INJECTED: Final = "injected-parameters"

_MEANINGFUL_ID: Final = re.compile(r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")
_RANDOM_ID: Final = re.compile(r"^(?=.*\d)[0-9a-f]{6,}$|^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_CODE_IN_PROSE: Final = re.compile(r"```.*?```|~~~.*?~~~|`[^`\n]*`|\]\([^)]*\)|<?https?://\S+", re.DOTALL)
_RESULT_IN_PROSE: Final = re.compile(r"\d[\d,]*\.\d+\s*%?|\d+\s*%|\d+ percent")
_ADDRESS: Final = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")
_SOURCE_METADATA: Final = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def check_stored(path: Path) -> list[str]:
    """What is wrong with a notebook as it is stored, one line each; nothing when it is clean."""
    try:
        cells = read_cells(path)
    except UsageError as problem:
        return [problem.message]
    problems: list[str] = []
    seen: set[str] = set()
    for number, cell in enumerate(cells, start=1):
        name = str(cell.get("id", ""))
        place = f"{path}: cell {number} ({name or 'no id'})"
        if not _MEANINGFUL_ID.match(name) or _RANDOM_ID.match(name):
            problems.append(f"{place}: give the cell a meaningful id such as load-bars")
        elif name in seen:
            problems.append(f"{place}: the id is used twice")
        seen.add(name)
        if cell.get("cell_type") == "code":
            problems += [f"{place}: {what}" for what in _code_problems(cell)]
        elif cell.get("cell_type") == "markdown":
            prose = _CODE_IN_PROSE.sub(" ", cell_source(cell))
            problems += [
                f"{place}: {match.group().strip()!r} looks like a result typed into prose; "
                "show it with show_markdown from a value"
                for match in _RESULT_IN_PROSE.finditer(prose)
            ]
    try:
        parse_parameters(path)
    except UsageError as problem:
        problems.append(f"{path.parent / problem.message}")
    code = [
        cell_source(cell) for cell in cells if cell.get("cell_type") == "code" and cell_source(cell).strip()
    ]
    if not code or not code[-1].rstrip().endswith("finish()"):
        problems.append(f"{path}: the last code cell must end with finish()")
    if not cells or not cell_source(cells[0]).startswith("# "):
        problems.append(f"{path}: the first cell must be the title, a markdown heading")
    return problems


def _code_problems(cell: dict[str, Any]) -> list[str]:
    problems = []
    if cell.get("outputs"):
        problems.append("outputs are stored; clear them")
    if cell.get("execution_count") is not None:
        problems.append("an execution count is stored; clear it")
    try:
        tree = ast.parse(cell_source(cell))
    except SyntaxError as problem:
        return [*problems, f"not plain Python ({problem.msg})"]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            word = "class" if isinstance(node, ast.ClassDef) else "def"
            problems.append(f"{word} {node.name}: logic belongs into the package")
    return problems


def clean_stored(path: Path) -> bool:
    """Clear outputs, execution counts and what an editor left; True when the file changed.

    Ids, tags, the ``nbmake`` mock and the sources stay as they are.
    """
    cells = read_cells(path)
    before = path.read_text(encoding="utf-8")
    for cell in cells:
        kept = cell.get("metadata", {})
        cell["metadata"] = {key: kept[key] for key in sorted(kept) if key in {"tags", "nbmake"} and kept[key]}
        cell["source"] = cell_source(cell).splitlines(keepends=True)
        if cell.get("cell_type") == "code":
            cell["outputs"], cell["execution_count"] = [], None
    after = notebook_text({"cells": cells, "metadata": _SOURCE_METADATA, "nbformat": 4, "nbformat_minor": 5})
    if after != before:
        write_text(path, after)
    return after != before


def notebook_text(notebook: dict[str, Any]) -> str:
    """A notebook as its file holds it: one-space indent, sorted keys, strict JSON."""
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def strip_execution(notebook: dict[str, Any]) -> dict[str, Any]:
    """An executed notebook without anything that another run of the same inputs would change.

    Dropped: times, papermill's and nbclient's bookkeeping (its parameters stay), the random
    id of the injected cell, the interpreter's version, what was written to standard error.
    """
    cells = [_stripped_cell(cell) for cell in notebook["cells"]]
    parameters = notebook["metadata"].get("papermill", {}).get("parameters", {})
    metadata: dict[str, Any] = {**_SOURCE_METADATA, "papermill": {"parameters": parameters}}
    plain = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return dict(json.loads(json.dumps(plain)))


def _stripped_cell(cell: dict[str, Any]) -> dict[str, Any]:
    tags = list(cell["metadata"].get("tags", []))
    stripped: dict[str, Any] = {
        "cell_type": cell["cell_type"],
        "id": INJECTED if INJECTED in tags else cell["id"],
        "metadata": {"tags": tags} if tags else {},
        "source": cell["source"],
    }
    if cell["cell_type"] == "code":
        stripped["execution_count"] = cell["execution_count"]
        stripped["outputs"] = [output for output in cell["outputs"] if output.get("name") != "stderr"]
    return stripped


def standard_error_of(notebook: dict[str, Any]) -> list[str]:
    """What cells wrote to standard error, one line each, without the kernel's random file names."""
    lines = [
        line
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if output.get("name") == "stderr"
        for line in output["text"].splitlines()
        if line.strip()
    ]
    return [re.sub(r"\S*ipykernel_\d+/\d+\.py", "<cell>", line) for line in lines]


def absolute_paths_in(text: str, roots: Iterable[str | Path]) -> list[str]:
    """The places in `text` that name something below one of `roots`, as written there.

    A root that is the file system's own top is no place of anybody and is skipped.
    """
    found = []
    for root in sorted({str(root) for root in roots}):
        if Path(root).is_absolute() and len(Path(root).parts) > 1:
            found += re.findall(rf"(?<![\w.]){re.escape(root)}(?:/[^\s\"'`,;:)\]}}<>\\]*)?(?![\w.-])", text)
    return found


def places_in(notebook: dict[str, Any], roots: Iterable[str | Path]) -> list[str]:
    """What in an executed notebook differs from machine to machine, one line each."""
    roots = list(roots)
    problems = []
    for cell in notebook["cells"]:
        texts = [cell["source"]]
        for output in cell.get("outputs", []):
            shown = {mime: value for mime, value in output.get("data", {}).items() if mime != "image/png"}
            texts.append(json.dumps([output.get("text"), shown], ensure_ascii=False))
        for text in texts:
            named = absolute_paths_in(text, roots)
            address = _ADDRESS.search(text)
            if named:
                problems.append(
                    f"cell {cell['id']} names the place {named[0]}; use a path relative to the project"
                )
            elif address:
                problems.append(
                    f"cell {cell['id']} shows an object by its memory address ({address.group()})"
                )
    return problems


def records_in(notebook: dict[str, Any]) -> dict[str, Any]:
    """The recorded values by name; a name recorded twice is refused.

    Raises
    ------
    UsageError
        The same name was recorded twice.
    """
    records: dict[str, Any] = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            payload = output.get("data", {}).get(RECORD_MIME)
            if payload is None:
                continue
            if payload["name"] in records:
                raise UsageError(f"cell {cell.get('id')}: {payload['name']} is recorded twice")
            records[payload["name"]] = payload["data"]
    return records


def figures_in(notebook: dict[str, Any]) -> list[str]:
    """File names of the figures shown, in order."""
    return [
        output["metadata"]["filename"]
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {}) and "filename" in output.get("metadata", {})
    ]
