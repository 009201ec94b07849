"""What a slot serves, and why not: release, scope, strategy, pin, settings, age. Nothing raises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sqkit.files import read_json, write_json
from sqkit.production.interventions import halt
from sqkit.production.scorer import StudentScorer
from sqkit.settings import Settings
from tests.engines import SYMBOL, Trading, scorer_of, settings_of, student, student_bytes
from tests.releases import model_bytes

DAY_NS = 86_400 * 10**9
K = 19
MIDDLE = np.full(K, 0.5)


@pytest.fixture
def slot(tmp_path: Path) -> Trading:
    """A project whose default slot has one release."""
    project = Trading(tmp_path)
    project.promote(1, "2025-01-02")
    return project


def test_a_release_is_served(slot: Trading) -> None:
    """It speaks, under the version and the digest that the log names."""
    scorer = slot.scorer()
    score = scorer.score(MIDDLE, SYMBOL)

    assert scorer.ready, scorer.note
    assert scorer.digest == slot.state.live.model  # type: ignore[union-attr]
    assert score.version == scorer.version == "20240102_000001"
    assert score.reason in ("scored", "low_confidence")
    assert score.confidence == max(score.probability_up, 1 - score.probability_up)


def test_scores_are_those_of_the_model(slot: Trading) -> None:
    """A vector, the same by name, and the matrix agree to the bit."""
    scorer = slot.scorer()
    rows = np.random.default_rng(3).normal(0, 2, (50, K))
    batch = scorer.admission.model.score_rows(rows, 0.6)  # type: ignore[union-attr]
    names = scorer.feature_set.columns  # type: ignore[union-attr]
    for row, probability in zip(rows, batch.probability_up, strict=True):
        assert scorer.score(row, SYMBOL).probability_up == probability
        assert scorer.score(dict(zip(names, row, strict=True)), SYMBOL).probability_up == probability


def test_scoring_that_is_disabled_says_so(slot: Trading) -> None:
    """Nothing is loaded, every score is FLAT."""
    scorer = slot.scorer(student_model_enabled=False)

    assert (scorer.ready, scorer.refusal) == (False, "disabled")
    assert scorer.score(MIDDLE, SYMBOL).direction == "FLAT"
    assert scorer.score(MIDDLE, SYMBOL).reason == "disabled"


def test_a_symbol_outside_the_scope(slot: Trading) -> None:
    """Only what the approvals allow is scored."""
    scorer = slot.scorer()

    assert scorer.symbols == {SYMBOL}
    assert scorer.score(MIDDLE, "ZZZ").reason == "out_of_scope"
    assert scorer.score(MIDDLE, SYMBOL).reason != "out_of_scope"


def test_nothing_promoted_is_no_student(tmp_path: Path) -> None:
    """Neither an empty slot nor a file that nobody promoted is served."""
    project = Trading(tmp_path)
    assert project.scorer().refusal == "no_student"
    project.copy_in(student_bytes())
    assert project.scorer().refusal == "no_student"


def test_a_release_is_needed_unless_the_settings_say_otherwise(tmp_path: Path) -> None:
    """With ``student_model_require_release`` off the file at the path is served, and that is said."""
    project = Trading(tmp_path)
    project.copy_in(student_bytes())
    scorer = project.scorer(student_model_require_release=False)

    assert scorer.ready
    assert scorer.note == "served without a release"


@pytest.mark.parametrize("pin", ["20240101_000000", "20240102_000001", ""])
def test_a_pin_holds_against_a_promotion(slot: Trading, pin: str) -> None:
    """Another version than the pin's is refused with both names."""
    scorer = slot.scorer(student_model_version=pin)

    if pin == "20240101_000000":
        assert scorer.refusal == "version_mismatch"
        assert "pins another version than 20240102_000001" in scorer.note
    else:
        assert scorer.ready


def test_a_promotion_that_rewrote_the_pin_moves_it(slot: Trading, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that read the file before knows the old pin; one that stands in its environment still holds."""
    pin = "SENSEQUANT_STUDENT_MODEL_VERSION"
    slot.environment = {"file": ".env", "lines": [f"{pin}=20240103_000002"]}
    slot.promote(2, "2025-02-03")
    old = {"student_model_version": "20240102_000001"}

    assert slot.scorer(**old).version == "20240103_000002"
    assert slot.scorer(**old).ready
    assert "rewrote the pin in .env" in slot.scorer(**old).note
    monkeypatch.setenv(pin, "20240102_000001")
    assert slot.scorer(**old).refusal == "version_mismatch"


def test_a_rollback_overrides_the_pin(slot: Trading) -> None:
    """What a rollback restored is served despite the pin, with a warning."""
    slot.promote(2, "2025-02-03")
    slot.roll_back(day="2025-02-04")
    scorer = slot.scorer(student_model_version="20240103_000002")

    assert scorer.ready
    assert scorer.version == "20240102_000001"
    assert "a rollback, which overrides the pin" in scorer.note


def test_other_settings_than_the_decisions_are_refused(tmp_path: Path) -> None:
    """The setting is named: what was validated is what runs."""
    project = Trading(tmp_path)
    project.promote(1, "2025-01-02", strategy_entry_strength=0.7)

    assert project.scorer().refusal == "settings_differ"
    assert "SENSEQUANT_STRATEGY_ENTRY_STRENGTH is 0.5, decided under 0.7" in project.scorer().note
    assert project.scorer(strategy_entry_strength=0.7).ready


def test_a_host_without_a_log_knows_the_decision_too(slot: Trading) -> None:
    """release.json embeds the decision: threshold and rules are held against it there."""
    for name in ("audit.jsonl", "audit.head"):
        (slot.models / name).unlink()
    (slot.models / "archive").rename(slot.root / "elsewhere")

    assert slot.scorer().ready
    assert slot.scorer(student_model_confidence_threshold=0.7).refusal == "settings_differ"


def test_a_decision_that_was_edited_in_the_record_is_noticed(slot: Trading) -> None:
    """The audit line inside names its digest."""
    for name in ("audit.jsonl", "audit.head"):
        (slot.models / name).unlink()
    record = read_json(slot.slot.release_path)
    record["checklist"]["runtime"]["confidence_threshold"] = 0.7
    write_json(slot.slot.release_path, record)
    scorer = slot.scorer(student_model_confidence_threshold=0.7)

    assert scorer.refusal == "error"
    assert "checklist is not what its audit lines say" in scorer.note


def test_a_model_of_another_strategy_is_refused(slot: Trading) -> None:
    """The default slot holds a swing model; an intraday engine looks there."""
    scorer = StudentScorer(slot.enabled(), "intraday", root=slot.root, now_ns=lambda: 0)

    assert scorer.refusal == "strategy_mismatch"
    assert "made for strategy swing, not intraday" in scorer.note


def test_changed_bytes_are_served_from_the_archive(slot: Trading) -> None:
    """A file that somebody replaced is not served; the release is, and it is said."""
    digest = slot.scorer().digest
    slot.slot.model_path.write_bytes(model_bytes(9))
    scorer = slot.scorer()

    assert scorer.digest == digest
    assert "served from the archive" in scorer.note


def test_a_path_at_which_nothing_lies_serves_nothing(slot: Trading) -> None:
    """The log has a release live, but the setting names another place: that is said, and not made up for."""
    scorer = slot.scorer(student_model_path="data/models/nowhere/student_model.onnx")

    assert scorer.refusal == "no_student"
    assert "correct the path" in scorer.note
    slot.slot.model_path.unlink()
    assert slot.scorer().ready, "with its record beside it a lost file is served from the archive"


def test_a_broken_log_serves_nothing(slot: Trading) -> None:
    """Nobody knows what is live: the baseline trades, with the reason."""
    slot.log.write_bytes(slot.log.read_bytes().replace(b'"promote"', b'"promoto"'))
    scorer = slot.scorer()

    assert scorer.refusal == "error"
    assert scorer.score(MIDDLE, SYMBOL).reason == "error"


def test_a_hostile_pickle_runs_nothing(tmp_path: Path) -> None:
    """Under the name of a model it is refused before it is opened."""
    project = Trading(tmp_path)
    project.copy_in(b"\x80\x04\x95cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    scorer = project.scorer(student_model_require_release=False)

    assert scorer.refusal == "error"
    assert not Path("/tmp/owned").exists()


@pytest.mark.parametrize(
    ("version", "now", "left"),
    [
        ("20240101_235959", "2024-01-02", 179),
        ("20240101_000000", "2024-01-01", 180),
        ("20250101_000000", "2024-01-01", 180),
        ("20240101_000000", "2024-06-29", 0),
    ],
)
def test_age_is_counted_from_date_to_date(version: str, now: str, left: int) -> None:
    """A date ahead counts 0."""
    model = student(model_version=version)
    at = int(np.datetime64(now, "ns").astype(np.int64)) + DAY_NS // 2

    assert scorer_of(model, settings_of(), now_ns=at).days_left() == left


def test_a_version_that_is_no_time_is_refused() -> None:
    """Nobody knows how old it is; nothing raises, then or later."""
    scorer = scorer_of(student(model_version="20240101_000060"), settings_of())

    assert (scorer.refusal, scorer.days_left()) == ("error", None)
    assert "no date and time" in scorer.note
    assert scorer.score(MIDDLE, SYMBOL).reason == "error"


def test_a_model_over_age_is_silent(slot: Trading) -> None:
    """From the day after the last allowed one, whatever asks; days are counted by the scorer's clock."""
    now = [0]
    scorer = StudentScorer(
        slot.enabled(student_model_max_age_days=10), "swing", root=slot.root, now_ns=lambda: now[0]
    )
    second_of_january = int(np.datetime64("2024-01-02", "ns").astype(np.int64))
    now[0] = second_of_january + 11 * DAY_NS - 1
    assert scorer.score(MIDDLE, SYMBOL).reason != "stale_model"
    assert scorer.days_left() == 0
    now[0] += 1
    assert scorer.score(MIDDLE, SYMBOL).reason == "stale_model"
    now[0] = second_of_january
    assert scorer.score(MIDDLE, SYMBOL).reason != "stale_model", "a clock that was set back is believed again"


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        (np.full(K, np.nan), "warm_up"),
        (np.append(np.full(K - 1, 0.5), np.nan), "non_finite_feature"),
        (np.full(K, 1e300), "out_of_distribution"),
        (np.zeros(3), "error"),
        ({"return_1": 0.5}, "error"),
        (None, "error"),
    ],
)
def test_no_exception_leaves_a_scorer(slot: Trading, features: object, reason: str) -> None:
    """Whatever it is given, the answer is FLAT with a reason."""
    score = slot.scorer().score(features, SYMBOL)  # type: ignore[arg-type]

    assert (score.direction, score.reason) == ("FLAT", reason)
    assert np.isnan(score.confidence)


@pytest.mark.parametrize("symbol", [["AAA"], None, 5, ""])
def test_a_symbol_that_is_none_is_not_scored(slot: Trading, symbol: object) -> None:
    """Whatever it is, it is not among those that were approved, and nothing raises."""
    assert slot.scorer().score(MIDDLE, symbol).reason in ("out_of_scope", "error")  # type: ignore[arg-type]


def test_a_clock_that_fails_is_an_error_and_no_exception(slot: Trading) -> None:
    """A host's clock may raise: the row is not scored."""

    def broken() -> int:
        raise OSError("no clock")

    scorer = StudentScorer(slot.enabled(), "swing", root=slot.root, now_ns=broken)

    assert scorer.score(MIDDLE, SYMBOL).reason == "error"
    assert scorer.failures == 1


def test_a_loop_of_ones_own_sees_a_halt(slot: Trading) -> None:
    """At the very next row; where only the log halts, at the next look."""
    scorer = slot.scorer()
    halt(slot.production, "default", "calls look wrong")
    assert scorer.score(MIDDLE, SYMBOL).reason == "halted"
    slot.slot.halt_path.unlink()
    assert scorer.score(MIDDLE, SYMBOL).reason != "halted"
    scorer.refresh()
    assert scorer.score(MIDDLE, SYMBOL).reason == "halted"


def test_a_loop_of_ones_own_follows_the_slot(slot: Trading) -> None:
    """`refresh` takes a promotion; keeps the old model where the new one is refused; never after a rollback."""
    scorer = slot.scorer()
    assert not scorer.refresh()
    slot.promote(2, "2025-02-03")
    assert scorer.refresh()
    assert scorer.version == "20240103_000002"
    slot.promote(3, "2025-02-04", strategy_entry_strength=0.7)
    assert not scorer.refresh()
    assert (scorer.version, scorer.ready) == ("20240103_000002", True)
    slot.roll_back("none", "2025-02-05")
    assert scorer.refresh()
    assert scorer.score(MIDDLE, SYMBOL).reason == "no_student"


def test_other_bars_than_the_models_are_refused(slot: Trading) -> None:
    """Interval and market are held against its metadata where they are said."""
    for given in ({"interval": "5m"}, {"market": "nse"}):
        scorer = StudentScorer(slot.enabled(), "swing", root=slot.root, **given)
        assert scorer.refusal == "strategy_mismatch"


def test_a_slot_that_cannot_be_meant_is_an_error(tmp_path: Path) -> None:
    """Two slots in one folder: nothing is served, nothing raises."""
    settings = settings_of(
        student_model_enabled=True,
        student_model_paths={"swing": "data/models/production/other.onnx"},
    )
    scorer = StudentScorer(settings, "swing", root=tmp_path)

    assert scorer.refusal == "error"
    assert "share the folder" in scorer.note


def test_defaults_are_safe() -> None:
    """Nothing is scored before somebody enables it."""
    assert StudentScorer(Settings(_env_file=None), "swing").refusal == "disabled"
    assert student().version == "20030101_000000"
