"""Every knob of sqkit: environment variables with the prefix ``SENSEQUANT_``, or ``.env``.

Building `Settings` refuses a value that cannot be used, in one line that names the
variable. What is merely inconsistent (scoring enabled but no model file, say) is listed
by `Settings.startup_problems` and never stops a trading engine from starting.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from sqkit.artifacts import RELEASE_FILE
from sqkit.errors import SettingsError

PREFIX = "SENSEQUANT_"
GRADES = ("none", "weak", "moderate", "strong")

Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Whole = Annotated[int, Field(ge=1)]
Words = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """All settings; safe by default: scoring off, approvals required, no automatic rollback.

    Raises
    ------
    SettingsError
        A variable's value cannot be used.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True
    )

    # The active student
    student_model_enabled: bool = False
    student_model_path: str = "data/models/production/student_model.onnx"
    student_model_version: str = ""
    student_model_confidence_threshold: Annotated[float, Field(ge=0.5, lt=1.0, allow_inf_nan=False)] = 0.6
    student_model_paths: dict[str, str] = Field(default_factory=dict)
    student_model_require_release: bool = True
    student_model_reload: Literal["session", "flat", "immediate"] = "session"
    student_model_max_age_days: Whole = 180
    student_challenger_path: str = ""
    student_fallback: Literal["baseline", "no_new_entries"] = "baseline"
    feed_stale_seconds: Positive = 180.0

    # Promotion
    promotion_min_precision_uplift: Finite = 0.02
    promotion_min_hit_ratio_uplift: Finite = 0.02
    promotion_min_sharpe_uplift: Finite = 0.05
    promotion_min_sharpe_uplift_absolute: Finite = 0.10
    promotion_min_sharpe: Finite = 0.0
    promotion_require_all_criteria: bool = True
    promotion_min_evidence: Literal["none", "weak", "moderate", "strong"] = "moderate"
    promotion_min_days: Count = 60
    promotion_min_calls: Count = 200
    promotion_required_approvals: Words = ("ml_lead", "quant_lead", "risk_manager")
    promotion_allowed_signers: str = ""
    promotion_allow_self_approval: bool = False
    promotion_approval_max_age_days: Whole = 14
    promotion_checklist_max_age_days: Whole = 30
    webhook_url: str = ""
    webhook_secret: SecretStr = SecretStr("")

    # Monitoring
    student_monitoring_enabled: bool = False
    student_monitoring_window_hours: Positive = 24.0
    student_monitoring_min_samples: Whole = 100
    student_monitoring_precision_drop_threshold: Share = 0.10
    student_monitoring_hit_ratio_drop_threshold: Share = 0.10
    student_monitoring_alert_cooldown_hours: NonNegative = 6.0
    student_monitoring_accuracy_floor_ratio: Share = 0.90
    student_monitoring_accuracy_floor_days: Whole = 3
    student_monitoring_days_between_false_alerts: Positive = 100.0
    student_auto_rollback_enabled: bool = False
    student_auto_rollback_confirmation_hours: NonNegative = 12.0
    student_auto_rollback_alpha: Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)] = 0.05
    student_behaviour_halt_enabled: bool = False
    alertmanager_url: str = ""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    metrics_host: Annotated[str, Field(min_length=1)] = "127.0.0.1"

    # Market and strategy
    market: Literal["nse", "us", "nse_index", "us_index"] = "nse"
    sessions_file: str = ""
    square_off_minutes: Count = 20
    strategy_entry_strength: Share = 0.5
    strategy_exit_strength: Share = 0.25
    strategy_ema_fast: Whole = 12
    strategy_ema_slow: Whole = 26
    strategy_atr_bars: Whole = 14
    strategy_rsi_bars: Whole = 14
    strategy_rsi_high: Annotated[float, Field(ge=50.0, le=100.0, allow_inf_nan=False)] = 80.0
    strategy_rsi_low: Annotated[float, Field(ge=0.0, le=50.0, allow_inf_nan=False)] = 20.0
    swing_max_holding_days: Whole = 10
    swing_allow_short: bool = False
    slippage_bps_intraday: NonNegative = 2.0
    slippage_bps_swing: NonNegative = 5.0
    cost_schedule: str = ""
    backtest_capital_per_symbol: Positive = 100_000.0

    # Places
    data_dir: Annotated[str, Field(min_length=1)] = "data"
    reports_dir: Annotated[str, Field(min_length=1)] = "reports"
    scheduler: str = ""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as problem:
            raise SettingsError(_one_line(problem), names=_names(problem)) from None
        except Exception as problem:  # a JSON setting that pydantic-settings could not decode
            if type(problem).__name__ != "SettingsError" or isinstance(problem, SettingsError):
                raise
            field = str(problem).split('"')[1] if '"' in str(problem) else "a setting"
            raise SettingsError(
                f"{PREFIX}{field.upper()}: not valid JSON; correct it or unset it", names=[field]
            ) from None

    @classmethod
    def usable(cls) -> tuple[Settings, list[str]]:
        """Settings in which what cannot be used has its default, and one line for each such variable.

        For what must not hang on an unrelated typing error: stopping a model.
        """
        defaults: dict[str, Any] = {}
        problems: list[str] = []
        while True:
            try:
                return cls(**defaults), problems
            except SettingsError as problem:
                fields = [name for name in problem.values.get("names", []) if name in cls.model_fields]
                fresh = [name for name in fields if name not in defaults]
                if not fresh:
                    raise
                problems.append(problem.message)
                defaults |= {
                    name: cls.model_fields[name].get_default(call_default_factory=True) for name in fresh
                }

    @field_validator("promotion_required_approvals", mode="before")
    @classmethod
    def _split_words(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(word.strip() for word in value.split(",") if word.strip())
        return value

    @field_validator("student_model_paths")
    @classmethod
    def _known_slots(cls, value: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(value) - {"intraday", "swing"})
        if unknown:
            raise ValueError(f"slots are strategies, intraday or swing, not {', '.join(unknown)}")
        return value

    @field_validator("strategy_ema_slow")
    @classmethod
    def _slow_is_slower(cls, value: int, info: Any) -> int:
        if "strategy_ema_fast" in info.data and value <= info.data["strategy_ema_fast"]:
            raise ValueError(f"must be above {PREFIX}STRATEGY_EMA_FAST ({info.data['strategy_ema_fast']})")
        return value

    @field_validator("strategy_exit_strength")
    @classmethod
    def _exit_below_entry(cls, value: float, info: Any) -> float:
        if "strategy_entry_strength" in info.data and value > info.data["strategy_entry_strength"]:
            raise ValueError(
                f"must not be above {PREFIX}STRATEGY_ENTRY_STRENGTH ({info.data['strategy_entry_strength']})"
            )
        return value

    def slot_paths(self) -> dict[str, str]:
        """Production model path of every slot; ``default`` is `student_model_path`."""
        return {"default": self.student_model_path, **self.student_model_paths}

    def challenger_paths(self) -> list[str]:
        """Students that are asked beside the served one; the setting names them with commas between."""
        return [path.strip() for path in self.student_challenger_path.split(",") if path.strip()]

    def production_path(self, strategy: str) -> Path:
        """Where the production model of a strategy's slot lies."""
        return Path(self.student_model_paths.get(strategy, self.student_model_path))

    def slippage_bps(self, strategy: str) -> float:
        """Slippage per side, in basis points of the fill price."""
        return self.slippage_bps_intraday if strategy == "intraday" else self.slippage_bps_swing

    def startup_problems(self) -> list[str]:
        """What is inconsistent, one line each; an engine logs these and falls back to its baseline."""
        problems = []
        for slot, name in sorted(self.slot_paths().items()):
            path = Path(name)
            if path.suffix in {".pkl", ".pickle", ".joblib"}:
                problems.append(
                    f"slot {slot}: {path} is a pickle and is never loaded; "
                    "train again with sqkit train-student, which writes ONNX"
                )
            elif self.student_model_enabled and not path.is_file():
                problems.append(
                    f"slot {slot}: {PREFIX}STUDENT_MODEL_ENABLED=true but {path} does not exist; "
                    "promote a model or disable scoring"
                )
        problems += self._shared_folders()
        release = Path(self.student_model_path).with_name(RELEASE_FILE)
        if self.student_model_version and not release.is_file():
            problems.append(
                f"{PREFIX}STUDENT_MODEL_VERSION={self.student_model_version} pins a release but {release} "
                "does not exist; promote that version or empty the pin"
            )
        if self.student_auto_rollback_enabled and not self.student_monitoring_enabled:
            problems.append(
                f"{PREFIX}STUDENT_AUTO_ROLLBACK_ENABLED=true needs {PREFIX}STUDENT_MONITORING_ENABLED=true"
            )
        if not self.student_monitoring_enabled:
            problems += [
                f"{PREFIX}{name.upper()} needs {PREFIX}STUDENT_MONITORING_ENABLED=true"
                for name in ("student_behaviour_halt_enabled", "alertmanager_url", "metrics_port")
                if getattr(self, name)
            ]
        problems += [
            f"{PREFIX}STUDENT_CHALLENGER_PATH: {path} does not exist"
            for path in self.challenger_paths()
            if not Path(path).is_file()
        ]
        if self.sessions_file and not Path(self.sessions_file).is_file():
            problems.append(f"{PREFIX}SESSIONS_FILE: {self.sessions_file} does not exist")
        problems += self._cost_problems()
        problems += _unknown_variables(type(self).model_fields)
        return problems

    def _shared_folders(self) -> list[str]:
        """Slots whose release records would be one file."""
        taken: dict[Path, str] = {}
        problems = []
        for slot, path in sorted(self.slot_paths().items()):
            other = taken.setdefault(Path(path).parent, slot)
            if other != slot:
                problems.append(
                    f"slots {other} and {slot} share the folder {Path(path).parent}; give each its own in "
                    f"{PREFIX}STUDENT_MODEL_PATHS"
                )
        return problems

    def _cost_problems(self) -> list[str]:
        if not self.cost_schedule:
            return []
        from sqkit.costs import fee_schedule  # compiled code: not needed to build settings

        try:
            fee_schedule(self.cost_schedule)
        except SettingsError as problem:
            return [str(problem)]
        return []


def _unknown_variables(fields: dict[str, Any]) -> list[str]:
    known = {PREFIX + name.upper() for name in fields}
    problems = []
    written = dotenv_values(".env") if Path(".env").is_file() else {}
    for name in sorted({*os.environ, *written}):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            close = difflib.get_close_matches(name.upper(), sorted(known), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            problems.append(f"{name} is no setting of sqkit{hint}")
    return problems


def _names(problem: ValidationError) -> list[str]:
    return [str(error["loc"][0]) for error in problem.errors() if error["loc"]]


def _one_line(problem: ValidationError) -> str:
    lines = []
    for error in problem.errors():
        name = PREFIX + str(error["loc"][0]).upper() if error["loc"] else "settings"
        message = error["msg"].removeprefix("Value error, ")
        shown = error.get("input")
        lines.append(f"{name}={shown}: {message[0].lower()}{message[1:]}")
    return "; ".join(lines)
