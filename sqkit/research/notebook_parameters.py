"""The typed parameters cell of a notebook: read it, and refuse what does not fit it.

The cell tagged ``parameters`` holds lines ``name: type = default  # help`` and nothing else.
It is the schema: it is parsed, never executed, and values are coerced by its annotations
before a kernel starts. Called by `sqkit.research.notebooks` and by the command line.
"""

from __future__ import annotations

import ast
import datetime as dt
import io
import json
import math
import numbers
import re
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqkit.errors import UsageError

_SCALARS: Final[dict[str, type]] = {"str": str, "int": int, "float": float, "bool": bool}
_LIST: Final = re.compile(r"^list\[(str|int|float|bool)\]$")
_DICT: Final = re.compile(r"^dict\[str, (str|int|float|bool)\]$")
_WORDS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell.

    Attributes
    ----------
    annotation
        ``str``, ``int``, ``float``, ``bool``, a list or a ``dict[str, ...]`` of these, or any
        of them with ``| None``.
    default
        A plain value of that type.
    help
        The comment behind it.
    """

    name: str
    annotation: str
    default: Any
    help: str


def parse_parameters(path: Path) -> list[Parameter]:
    """The parameters a notebook takes, in the order of its cell.

    Raises
    ------
    UsageError
        The file is no notebook, has no parameters cell or more than one, or a line of the
        cell is not ``name: type = default``.
    """
    cells = [cell for cell in read_cells(path) if "parameters" in cell.get("metadata", {}).get("tags", [])]
    if len(cells) != 1:
        found = "no cell" if not cells else f"{len(cells)} cells"
        raise UsageError(f"{path.name}: {found} tagged 'parameters'; tag exactly one", path=str(path))
    return parameters_of_source(cell_source(cells[0]), path.name)


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook file, as stored."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        return list(notebook["cells"])
    except OSError as problem:
        raise UsageError(f"{path}: cannot be read ({problem.strerror})", path=str(path)) from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{path}: no Jupyter notebook (JSON with cells)", path=str(path)) from None


def cell_source(cell: Mapping[str, Any]) -> str:
    """A cell's source; the format allows text or a list of lines."""
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)


def parameters_of_source(source: str, notebook: str) -> list[Parameter]:
    """Parse the source of a parameters cell; `notebook` is named in refusals."""
    try:
        tree = ast.parse(source)
    except SyntaxError as problem:
        raise UsageError(f"{notebook}: the parameters cell is not Python ({problem.msg})") from None
    comments = _comments(source)
    parameters: list[Parameter] = []
    for statement in tree.body:
        place = f"{notebook}: parameters cell, line {statement.lineno}"
        if (
            not isinstance(statement, ast.AnnAssign)
            or not isinstance(statement.target, ast.Name)
            or not statement.value
        ):
            raise UsageError(f"{place}: write name: type = default  # help")
        name, annotation = statement.target.id, _normal_annotation(statement.annotation, place)
        if name in {known.name for known in parameters}:
            raise UsageError(f"{place}: {name} is declared twice; keep one")
        try:
            literal = ast.literal_eval(statement.value)
        except ValueError:
            raise UsageError(f"{place}: the default of {name} is no plain value; write it out") from None
        default = coerce(literal, annotation, f"{place}: the default of {name}")
        about = comments.get(statement.end_lineno or statement.lineno) or comments.get(statement.lineno, "")
        parameters.append(Parameter(name, annotation, default, about))
    return parameters


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokens
        if token.type == tokenize.COMMENT
    }


def _normal_annotation(node: ast.expr, place: str) -> str:
    written = (
        node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ast.unparse(node)
    )
    annotation = ast.unparse(ast.parse(written, mode="eval"))
    base = annotation.removesuffix(" | None")
    if base not in _SCALARS and not _LIST.match(base) and not _DICT.match(base):
        raise UsageError(
            f"{place}: {annotation} is no type of a parameter; use str, int, float, bool, list[...], "
            "dict[str, ...], with | None where nothing may be given"
        )
    return annotation


def coerce_parameters(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter of a notebook with its value: the given one, else the default.

    Parameters
    ----------
    values
        Plain Python values, or text as typed on a command line.

    Raises
    ------
    UsageError
        A name the notebook does not declare, a value that does not fit its annotation, NaN.
    """
    parameters = parse_parameters(path)
    known = {parameter.name for parameter in parameters}
    unknown = sorted(set(values) - known)
    if unknown:
        raise UsageError(
            f"{path.name}: unknown parameter {', '.join(unknown)}; it takes {', '.join(sorted(known))}",
            unknown=unknown,
        )
    return {
        parameter.name: coerce(
            values[parameter.name], parameter.annotation, f"{path.name}: parameter {parameter.name}"
        )
        if parameter.name in values
        else parameter.default
        for parameter in parameters
    }


def coerce(value: Any, annotation: str, place: str) -> Any:
    """A plain value of the annotated type, or a refusal that begins with `place`.

    Raises
    ------
    UsageError
        The value does not fit or is not finite.
    """
    base = annotation.removesuffix(" | None")
    if value is None or (value == "None" and base != "str" and isinstance(value, str)):
        if base == annotation:
            raise UsageError(f"{place}: None given, {annotation} wanted")
        return None
    if base in _SCALARS:
        return _scalar(value, base, place)
    item_type = base[:-1].rpartition("[")[2].rpartition(" ")[2]
    if base.startswith("list"):
        items = _list_of_text(value, place) if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise UsageError(f"{place}: {value!r} given, {base} wanted")
        return [_scalar(item, item_type, place) for item in items]
    pairs = _json(value, place) if isinstance(value, str) else value
    if not isinstance(pairs, Mapping) or not all(isinstance(key, str) for key in pairs):
        raise UsageError(f"{place}: {value!r} given, {base} wanted")
    return {key: _scalar(item, item_type, f"{place}, key {key}") for key, item in pairs.items()}


def _list_of_text(text: str, place: str) -> Any:
    return _json(text, place) if text.lstrip().startswith("[") else text.replace(",", " ").split()


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise UsageError(f"{place}: {text!r} is not JSON") from None


def _scalar(value: Any, wanted: str, place: str) -> Any:
    found = {"str": _text, "int": _whole, "float": _number, "bool": _truth}[wanted](value)
    if found is None:
        raise UsageError(f"{place}: {value!r} given, {wanted} wanted", value=repr(value))
    if isinstance(found, float) and not math.isfinite(found):
        raise UsageError(f"{place}: {value!r} is not a finite number", value=repr(value))
    return found


def _text(value: Any) -> str | None:
    if isinstance(value, dt.date):
        return value.isoformat()
    return str(value) if isinstance(value, str | Path) else None


def _whole(value: Any) -> int | None:
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"[+-]?\d+", value.strip()) else None
    if isinstance(value, bool):
        return None
    return int(value) if isinstance(value, numbers.Integral) else None


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    if isinstance(value, bool):
        return None
    return float(value) if isinstance(value, numbers.Real) else None


def _truth(value: Any) -> bool | None:
    if isinstance(value, str):
        return _WORDS.get(value.strip().lower())
    return bool(value) if isinstance(value, bool) or type(value).__name__ == "bool" else None
