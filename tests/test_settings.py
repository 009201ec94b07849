"""Settings: names and defaults as given, one-line refusals, startup problems, every knob turns something."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from sqkit.errors import SettingsError
from sqkit.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[1]

GIVEN = {
    "student_model_enabled": False,
    "student_model_path": "data/models/production/student_model.onnx",
    "student_model_version": "",
    "student_model_confidence_threshold": 0.6,
    "promotion_min_precision_uplift": 0.02,
    "promotion_min_hit_ratio_uplift": 0.02,
    "promotion_min_sharpe_uplift": 0.05,
    "promotion_require_all_criteria": True,
    "student_monitoring_enabled": False,
    "student_monitoring_window_hours": 24,
    "student_monitoring_min_samples": 100,
    "student_monitoring_precision_drop_threshold": 0.10,
    "student_monitoring_hit_ratio_drop_threshold": 0.10,
    "student_monitoring_alert_cooldown_hours": 6,
    "student_auto_rollback_enabled": False,
    "student_auto_rollback_confirmation_hours": 12,
    "promotion_min_sharpe": 0.0,
    "promotion_min_sharpe_uplift_absolute": 0.10,
    "promotion_min_evidence": "moderate",
    "promotion_required_approvals": ("ml_lead", "quant_lead", "risk_manager"),
    "promotion_allowed_signers": "",
    "promotion_allow_self_approval": False,
    "promotion_approval_max_age_days": 14,
    "promotion_checklist_max_age_days": 30,
    "webhook_url": "",
    "webhook_secret": SecretStr(""),
    "student_model_paths": {},
    "student_model_require_release": True,
    "student_model_reload": "session",
    "student_model_max_age_days": 180,
    "student_challenger_path": "",
    "student_monitoring_accuracy_floor_ratio": 0.90,
    "student_monitoring_accuracy_floor_days": 3,
    "student_monitoring_days_between_false_alerts": 100,
    "student_auto_rollback_alpha": 0.05,
    "promotion_min_days": 60,
    "promotion_min_calls": 200,
    "market": "nse",
    "sessions_file": "",
    "square_off_minutes": 20,
    "strategy_entry_strength": 0.5,
    "strategy_exit_strength": 0.25,
    "strategy_ema_fast": 12,
    "strategy_ema_slow": 26,
    "strategy_atr_bars": 14,
    "strategy_rsi_bars": 14,
    "strategy_rsi_high": 80,
    "strategy_rsi_low": 20,
    "swing_max_holding_days": 10,
    "swing_allow_short": False,
    "slippage_bps_intraday": 2,
    "slippage_bps_swing": 5,
    "cost_schedule": "",
    "backtest_capital_per_symbol": 100_000,
    "data_dir": "data",
    "reports_dir": "reports",
    "scheduler": "",
    "student_fallback": "baseline",
    "feed_stale_seconds": 180,
    "student_behaviour_halt_enabled": False,
    "alertmanager_url": "",
    "metrics_port": 0,
    "metrics_host": "127.0.0.1",
}


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the caller's and no .env file reaches a test."""
    import os

    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_every_setting_has_its_given_name_and_default() -> None:
    """Names and defaults are those of the design, no more and no fewer."""
    assert Settings().model_dump() == GIVEN


def test_env_example_lists_every_setting_with_its_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """.env.example names every setting once, and reading it gives exactly the defaults."""
    text = (ROOT / ".env.example").read_text()
    names = re.findall(rf"^{PREFIX}(\w+)=", text, flags=re.M)

    assert sorted(names) == sorted(name.upper() for name in Settings.model_fields)
    (tmp_path / ".env").write_text(text)
    assert Settings() == Settings(_env_file=None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STUDENT_MODEL_CONFIDENCE_THRESHOLD", "0.4"),
        ("STUDENT_MODEL_CONFIDENCE_THRESHOLD", "nan"),
        ("PROMOTION_MIN_SHARPE_UPLIFT", "inf"),
        ("PROMOTION_MIN_EVIDENCE", "lots"),
        ("STUDENT_MODEL_ENABLED", "perhaps"),
        ("MARKET", "moon"),
        ("STRATEGY_EMA_SLOW", "5"),
        ("STRATEGY_EXIT_STRENGTH", "0.9"),
        ("STUDENT_MODEL_PATHS", "{not json"),
        ("STUDENT_MODEL_PATHS", '{"overnight": "x.onnx"}'),
        ("STUDENT_AUTO_ROLLBACK_ALPHA", "0"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The refusal names the variable as the user wrote it, on a single line, and exits 2."""
    monkeypatch.setenv(PREFIX + name, value)

    with pytest.raises(SettingsError) as refused:
        Settings()

    assert PREFIX + name in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2


def test_roles_are_given_as_words_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Required approvals are a comma-separated list; spaces around a role do not count."""
    monkeypatch.setenv(PREFIX + "PROMOTION_REQUIRED_APPROVALS", "ml_lead , risk_manager")

    assert Settings().promotion_required_approvals == ("ml_lead", "risk_manager")


def test_the_environment_wins_over_the_env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """.env is read; a variable of the environment is stronger."""
    (tmp_path / ".env").write_text(f"{PREFIX}PROMOTION_MIN_DAYS=90\n{PREFIX}PROMOTION_MIN_CALLS=300\n")
    monkeypatch.setenv(PREFIX + "PROMOTION_MIN_DAYS", "120")

    assert (Settings().promotion_min_days, Settings().promotion_min_calls) == (120, 300)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"STUDENT_MODEL_ENABLED": "true"}, "does not exist"),
        ({"STUDENT_MODEL_PATH": "data/models/production/student_model.pkl"}, "pickle"),
        ({"STUDENT_MODEL_VERSION": "20250112_143000"}, "pins a release"),
        ({"STUDENT_AUTO_ROLLBACK_ENABLED": "true"}, "STUDENT_MONITORING_ENABLED=true"),
        ({"STUDENT_CHALLENGER_PATH": "none.onnx"}, "STUDENT_CHALLENGER_PATH"),
        ({"SESSIONS_FILE": "none.json"}, "SESSIONS_FILE"),
        ({"STUDENT_MODEL_ENABLE": "true"}, "did you mean SENSEQUANT_STUDENT_MODEL_ENABLED"),
    ],
)
def test_inconsistencies_are_listed_and_never_stop_a_start(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    """Building the settings works; startup_problems says in one line what does not fit."""
    for name, value in variables.items():
        monkeypatch.setenv(PREFIX + name, value)

    problems = Settings().startup_problems()

    assert len(problems) == 1
    assert words in problems[0]


def test_a_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Printing settings, or a refusal beside it, does not print the webhook's secret."""
    monkeypatch.setenv(PREFIX + "WEBHOOK_SECRET", "whsec_c2VjcmV0")
    settings = Settings()

    assert "whsec_" not in f"{settings!r} {settings} {settings.model_dump()} {settings.startup_problems()}"
    monkeypatch.setenv(PREFIX + "MARKET", "moon")
    with pytest.raises(SettingsError) as refused:
        Settings()
    assert "whsec_" not in str(refused.value)


def test_safe_defaults_have_no_problem() -> None:
    """A fresh checkout starts without a word."""
    assert Settings().startup_problems() == []
