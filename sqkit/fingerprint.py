"""A digest of what a compiled function does: its code, every function it calls, every constant it freezes.

`sqkit.features` stores it with a model so that a feature set whose meaning changed is noticed.
In: a Python function meant for numba. Out: 64 hexadecimal digits, the same under Python 3.11 to
3.13, unmoved by comments, docstrings, annotations and layout.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import textwrap
import types
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from sqkit.errors import FeatureSetRefused

_LIBRARIES: Final = {"numpy", "math", "cmath", "numba", "builtins", "operator"}
_NO_MEANING: Final = {"ctx", "type_comment", "type_params", "kind", "decorator_list", "annotation", "returns"}
_COMPILER_OPTIONS: Final = ("error_model", "fastmath", "parallel")


def fingerprint(function: Callable[..., Any]) -> str:
    """SHA-256 over a function, the functions it calls and the constants numba freezes into it.

    Raises
    ------
    FeatureSetRefused
        The source cannot be read, or a global it uses is of a kind no digest can cover.
    """
    text = json.dumps(_describe_function(function, ()), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _describe_function(function: Any, callers: tuple[Any, ...]) -> Any:
    options = getattr(function, "targetoptions", {})
    function = getattr(function, "py_func", function)
    if function in callers:
        return ["recursion", len(callers) - callers.index(function)]
    definition = _definition(function)
    scope = _scope(function)
    outside = {
        chain: _describe(_resolve(scope, chain), chain, (*callers, function))
        for chain in _outside_names(definition)
        if chain.partition(".")[0] in scope
    }
    return {
        "code": _canonical(definition),
        "defaults": [_describe(value, "a default", callers) for value in function.__defaults__ or ()],
        "options": {name: repr(options[name]) for name in _COMPILER_OPTIONS if name in options},
        "outside": outside,
    }


def _definition(function: Any) -> ast.FunctionDef:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError) as problem:
        raise FeatureSetRefused(
            f"{getattr(function, '__name__', function)!r}: its source cannot be read ({problem}); "
            "define it with def in a file or a notebook cell"
        ) from None
    node = tree.body[0]
    if not isinstance(node, ast.FunctionDef):
        raise FeatureSetRefused(
            f"{function.__name__!r}: only functions written with def have a digest; define it with def"
        )
    return node


def _scope(function: Any) -> dict[str, Any]:
    names = dict(function.__globals__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        names[name] = cell.cell_contents
    return names


def _outside_names(definition: ast.FunctionDef) -> list[str]:
    """Names and dotted chains (``module.constant``) that the function does not define itself."""
    own = {node.arg for node in ast.walk(definition) if isinstance(node, ast.arg)}
    own |= {node.name for node in ast.walk(definition) if isinstance(node, ast.FunctionDef)}
    own |= {
        node.id
        for node in ast.walk(definition)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    found: set[str] = set()
    waiting: list[ast.AST] = list(definition.body)
    while waiting:
        node = waiting.pop()
        chain = _dotted(node)
        if chain is None:
            waiting.extend(
                child
                for name, value in ast.iter_fields(node)
                if name not in _NO_MEANING
                for child in _nodes(value)
            )
        elif chain.partition(".")[0] not in own:
            found.add(chain)
    return sorted(found)


def _nodes(value: Any) -> list[ast.AST]:
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, ast.AST)]


def _dotted(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        root = _dotted(node.value)
        return None if root is None else f"{root}.{node.attr}"
    return None


def _resolve(scope: dict[str, Any], chain: str) -> Any:
    """The value of a dotted chain; attributes of anything but a module belong to the code, not to it."""
    root, *attributes = chain.split(".")
    value = scope[root]
    for attribute in attributes:
        if not isinstance(value, types.ModuleType):
            break
        value = getattr(value, attribute)
    return value


def _describe(value: Any, name: str, callers: tuple[Any, ...]) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return [type(value).__name__, repr(value)]
    if isinstance(value, np.ndarray | np.generic):
        array = np.ascontiguousarray(value)
        return ["array", array.dtype.str, list(np.shape(value)), hashlib.sha256(array.tobytes()).hexdigest()]
    if isinstance(value, float):
        return ["float", value.hex()]
    if isinstance(value, complex):
        return ["complex", value.real.hex(), value.imag.hex()]
    if isinstance(value, tuple):
        return ["tuple", [_describe(item, name, callers) for item in value]]
    if isinstance(value, types.ModuleType):
        return ["module", value.__name__]
    if isinstance(value, np.dtype) or type(value).__module__.startswith("numba.core.types"):
        return ["type", str(value)]
    compiled = hasattr(value, "py_func")
    home = getattr(value, "__module__", None) or type(value).__module__
    if not compiled and hasattr(value, "__name__") and home.partition(".")[0] in _LIBRARIES:
        return ["library", value.__name__]
    if compiled or isinstance(value, types.FunctionType):
        return _describe_function(value, callers)
    raise FeatureSetRefused(
        f"{name}: a {type(value).__name__} cannot be frozen into a feature set; "
        "use numbers, tuples, arrays or compiled functions",
        name=name,
    )


def _canonical(node: Any) -> Any:
    """A syntax tree as plain lists: same in every Python version, no positions, docstrings or annotations."""
    if isinstance(node, list):
        return [_canonical(item) for item in node]
    if isinstance(node, ast.Constant):
        return ["Constant", type(node.value).__name__, repr(node.value)]
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        return _canonical(ast.Assign(targets=[node.target], value=node.value))
    fields = []
    for name, value in ast.iter_fields(node):
        if name in _NO_MEANING or value is None or value == []:
            continue
        if name == "body" and isinstance(node, ast.FunctionDef):
            value = _without_docstring(value)
        fields.append([name, _canonical(value)])
    return [type(node).__name__, sorted(fields, key=lambda field: str(field[0]))]


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0]
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        return body[1:]
    return body
