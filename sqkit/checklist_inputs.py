"""What the gate is given, read strictly: policy, counts of data, the seven metrics, plain JSON.

`sqkit.checklist` decides on these. A value that is missing, unknown or not finite is refused
here with one line that names it, so that nothing undefined ever reaches a comparison.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any, Final

from sqkit.errors import ChecklistInputError, UsageError
from sqkit.files import refuse_constant, refuse_twins
from sqkit.metrics import METRIC_KEYS
from sqkit.settings import GRADES, Settings

_SHARES: Final = ("precision_long", "hit_ratio", "accuracy", "win_rate")


@dataclass(frozen=True)
class Policy:
    """What a candidate must reach; every number the gate uses.

    Attributes
    ----------
    min_precision_uplift, min_hit_ratio_uplift
        Candidate minus baseline, as fractions (0.02 is two points).
    min_sharpe_uplift
        Relative uplift, used where the baseline's Sharpe is at least `relative_sharpe_floor`.
    min_sharpe_uplift_absolute
        Candidate minus baseline Sharpe, used below that floor.
    min_sharpe
        The candidate's own Sharpe.
    min_evidence
        One of ``none``, ``weak``, ``moderate``, ``strong``.
    min_days, min_day_clusters, min_calls
        Session days; session days with a directional call; directional calls of either side.
    require_all_criteria
        False: one passed criterion is enough, and none may be undefined.

    Raises
    ------
    UsageError
        A value is not finite, or not of its kind.
    """

    min_precision_uplift: float
    min_hit_ratio_uplift: float
    min_sharpe_uplift: float
    min_sharpe_uplift_absolute: float
    min_sharpe: float
    require_all_criteria: bool
    min_evidence: str
    min_days: int
    min_calls: int
    required_approvals: tuple[str, ...]
    allow_self_approval: bool
    approval_max_age_days: int
    checklist_max_age_days: int
    min_day_clusters: int = 40
    relative_sharpe_floor: float = 0.25

    def __post_init__(self) -> None:
        for field in fields(self):
            problem = _policy_problem(str(field.type), getattr(self, field.name))
            if problem:
                raise UsageError(
                    f"policy {field.name}={getattr(self, field.name)!r}: {problem}", name=field.name
                )
        if self.min_evidence not in GRADES:
            raise UsageError(f"policy min_evidence={self.min_evidence!r}: give one of {', '.join(GRADES)}")
        if self.relative_sharpe_floor <= 0.0:
            raise UsageError(f"policy relative_sharpe_floor={self.relative_sharpe_floor}: must be above 0")

    @classmethod
    def from_settings(cls, settings: Settings, **overrides: Any) -> Policy:
        """The policy of the settings; an override that is not None (a flag that was given) wins."""
        values: dict[str, Any] = {
            field.name: getattr(settings, f"promotion_{field.name}")
            for field in fields(cls)
            if hasattr(settings, f"promotion_{field.name}")
        }
        unknown = sorted(set(overrides) - {field.name for field in fields(cls)})
        if unknown:
            raise UsageError(f"policy has no threshold named {', '.join(unknown)}")
        return cls(**values | {name: value for name, value in overrides.items() if value is not None})

    @classmethod
    def from_dict(cls, stored: Any) -> Policy:
        """A stored policy; refused (`ChecklistInputError`) unless every threshold is there and usable."""
        names = [field.name for field in fields(cls)]
        values = dict(_keys(stored, names, "policy"))
        if isinstance(values["required_approvals"], list):
            values["required_approvals"] = tuple(values["required_approvals"])
        try:
            return cls(**values)
        except UsageError as problem:
            raise ChecklistInputError(problem.message, **problem.values) from None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for the checklist's ``policy``."""
        return asdict(self) | {"required_approvals": list(self.required_approvals)}


@dataclass(frozen=True)
class Adequacy:
    """How much data a validation holds (see `sqkit.metrics.adequacy_counts`)."""

    session_days: int
    day_clusters: int
    candidate_calls: int
    baseline_calls: int

    @classmethod
    def from_dict(cls, stored: Any) -> Adequacy:
        """Counts by name; refused (`ChecklistInputError`) unless all four are whole numbers."""
        names = [field.name for field in fields(cls)]
        counts = _keys(stored, names, "adequacy")
        for name in names:
            if not _is_count(counts[name]):
                raise ChecklistInputError(f"adequacy {name}={counts[name]!r}: give a count of at least 0")
        return cls(**counts)

    def to_dict(self) -> dict[str, int]:
        """Plain JSON values."""
        return asdict(self)


def metrics_from_elsewhere(
    candidate: Mapping[str, Any], baseline: Mapping[str, Any]
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Both sides' seven metrics, checked; None stays None.

    Raises
    ------
    ChecklistInputError
        A key is missing or unknown, a value is no finite number, a share lies outside
        [0, 1], or a drawdown is negative.
    """
    return _seven(candidate, "candidate metrics"), _seven(baseline, "baseline metrics")


def parse_metrics(text: str, source: str) -> dict[str, float | None]:
    """The seven metrics from JSON text, read strictly.

    Parameters
    ----------
    text
        A JSON object.
    source
        Where the text came from, for the message.

    Raises
    ------
    ChecklistInputError
        Not strict JSON (``NaN``, a key given twice), or not the seven metrics.
    """
    try:
        value = json.loads(text, parse_constant=refuse_constant, object_pairs_hook=refuse_twins)
    except (ValueError, RecursionError) as problem:
        raise ChecklistInputError(
            f"{source}: not strict JSON ({problem}); correct it", source=source
        ) from None
    return _seven(value, source)


def named_items(value: Any, source: str, needed: Sequence[str]) -> list[Mapping[str, Any]]:
    """A list of objects that each have a ``name`` and the needed keys; anything else is refused."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ChecklistInputError(f"checklist {source}: give a list; validate the model again")
    for item in value:
        absent = [name for name in ("name", *needed) if not isinstance(item, Mapping) or name not in item]
        if absent:
            raise ChecklistInputError(f"checklist {source}: an item has no {', '.join(absent)}")
    return list(value)


def plain_json(value: Any, where: str) -> Any:
    """A copy of plain JSON values only, all finite; anything else is refused with its place."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain_json(part, f"{where}.{name}") for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(part, f"{where}[{place}]") for place, part in enumerate(value)]
    if isinstance(value, Integral):
        return int(value)
    if is_number(value):
        return float(value)
    raise ChecklistInputError(
        f"{where}={value!r}: give a finite number, text, true, false or null", where=where
    )


def utc_timestamp(timestamp: str) -> str:
    """An ISO 8601 instant in UTC, to the second; refused without a zone."""
    try:
        instant = dt.datetime.fromisoformat(timestamp)
    except (TypeError, ValueError):
        instant = None
    if instant is None or instant.tzinfo is None:
        raise ChecklistInputError(
            f"timestamp {timestamp!r}: give ISO 8601 with a zone, 2025-01-12T15:30:00Z", timestamp=timestamp
        )
    return instant.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def is_number(value: Any) -> bool:
    """True for a finite number that fits a float; a bool is none."""
    try:
        return (
            isinstance(value, Real)
            and value is not True
            and value is not False
            and math.isfinite(float(value))
        )
    except OverflowError:
        return False


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _policy_problem(kind: str, value: Any) -> str:
    """What is wrong with a policy value of an annotated kind; empty when nothing is."""
    if kind == "float":
        return "" if is_number(value) else "give a finite number"
    if kind == "int":
        return "" if _is_count(value) else "give a whole number of at least 0"
    if kind == "bool":
        return "" if isinstance(value, bool) else "give true or false"
    if kind == "str":
        return "" if isinstance(value, str) else "give a word"
    words = isinstance(value, tuple) and all(isinstance(word, str) for word in value)
    return "" if words else "give a list of words"


def _seven(metrics: Any, source: str) -> dict[str, float | None]:
    given = _keys(metrics, METRIC_KEYS, source)
    return {name: _metric(name, given[name], source) for name in METRIC_KEYS}


def _metric(name: str, value: Any, source: str) -> float | None:
    if value is None:
        return None
    if not is_number(value):
        raise ChecklistInputError(
            f"{source}: {name}={value!r} is not a finite number; give one, or null where it is undefined",
            metric=name,
        )
    number = float(value)
    if name in _SHARES and not 0.0 <= number <= 1.0:
        raise ChecklistInputError(
            f"{source}: {name}={value!r} is not a share; give a fraction from 0 to 1 (0.712 for 71.2%)",
            metric=name,
        )
    if name == "max_drawdown" and number < 0.0:
        raise ChecklistInputError(
            f"{source}: max_drawdown={value!r}; give it as a positive fraction (0.083 for 8.3%)", metric=name
        )
    return number


def _keys(value: Any, names: Sequence[str], source: str) -> Mapping[str, Any]:
    """`value` when it is an object with exactly these keys."""
    if not isinstance(value, Mapping):
        raise ChecklistInputError(f"{source}: give an object with {', '.join(names)}", source=source)
    missing = [name for name in names if name not in value]
    unknown = sorted(str(name) for name in value if name not in names)
    if missing or unknown:
        parts = [
            f"{word} {', '.join(those)}"
            for word, those in (("missing", missing), ("unknown", unknown))
            if those
        ]
        raise ChecklistInputError(
            f"{source}: {'; '.join(parts)}; the keys are {', '.join(names)}", missing=missing, unknown=unknown
        )
    return value
