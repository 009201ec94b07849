"""Comparing what is stored with what is computed again, value by value, each difference with its place.

Floats may differ by what another kind of machine rounds otherwise; everything else must be equal.
Called by `sqkit.research.decision` and `sqkit.research.verification`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

RELATIVE_TOLERANCE: Final = 1e-9
ABSOLUTE_TOLERANCE: Final = 1e-12
_SHOWN: Final = 120

Difference = dict[str, Any]
"""``what`` (place or plain line), and where two values differ ``stored`` and ``computed``."""


def value_differences(stored: Any, computed: Any, place: str) -> list[Difference]:
    """Every place at which two plain JSON values differ; empty when they say the same.

    Parameters
    ----------
    stored, computed
        Plain JSON values. Items of a list that carry a ``name`` are named by it.
    place
        How the whole is called, ``promotion_checklist.json``.
    """
    if isinstance(stored, dict) and isinstance(computed, dict):
        names = sorted(stored.keys() | computed.keys())
        return [
            difference
            for name in names
            for difference in (
                value_differences(stored[name], computed[name], f"{place}: {name}")
                if name in stored and name in computed
                else [_one_sided(stored, computed, name, f"{place}: {name}")]
            )
        ]
    if isinstance(stored, list) and isinstance(computed, list) and len(stored) == len(computed):
        return [
            difference
            for number, (ours, theirs) in enumerate(zip(stored, computed, strict=True))
            for difference in value_differences(ours, theirs, f"{place}[{_item_name(theirs, number)}]")
        ]
    if _equal(stored, computed):
        return []
    return [{"what": place, "stored": plain(stored), "computed": plain(computed)}]


def same_values(stored: Any, computed: Any) -> bool:
    """Whether two plain JSON values say the same."""
    return not value_differences(stored, computed, "")


def difference_line(difference: Mapping[str, Any]) -> str:
    """A difference as one line for a person."""
    if "stored" not in difference and "computed" not in difference:
        return str(difference["what"])
    said = [f"{side} {_short(difference[side])}" for side in ("stored", "computed") if side in difference]
    return f"{difference['what']}: {', '.join(said)}"


def plain(value: Any) -> Any:
    """A copy that canonical JSON can hold, whatever a damaged file contained."""
    if isinstance(value, dict):
        return {plain(str(name)): plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return value


def _equal(stored: Any, computed: Any) -> bool:
    if isinstance(stored, bool) or isinstance(computed, bool):
        return stored is computed
    if isinstance(stored, float) and isinstance(computed, float):
        return math.isclose(stored, computed, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)
    return bool(stored == computed)


def _one_sided(stored: dict[str, Any], computed: dict[str, Any], name: str, place: str) -> Difference:
    if name in stored:
        return {"what": f"{place}: does not follow from the stored files", "stored": plain(stored[name])}
    return {"what": f"{place}: missing", "computed": plain(computed[name])}


def _item_name(item: Any, number: int) -> str:
    return str(item["name"]) if isinstance(item, dict) and "name" in item else str(number)


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
