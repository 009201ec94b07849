"""Why was this decided? And does the model still say so? By the real commands, on a real release."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sqkit.errors import UsageError
from sqkit.production.explain import explain
from tests.engines import SYMBOL, Bench, Trading, series

DAYS = series("swing", sessions=150)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trading, Bench]:
    """A released student that has decided on 150 days; read only."""
    project = Trading(tmp_path_factory.mktemp("told"))
    project.promote(1, "2003-01-02T10:00:00+00:00")
    bench = Bench(project.root, settings=project.enabled(), keep_state=False)
    bench.feed(DAYS)
    return project, bench


def scored(bench: Bench) -> dict[str, Any]:
    """The last record on which the student spoke and changed a strength."""
    return [one for one in bench.predictions() if one["prediction_source"] == "student_model"][-1]


def test_a_decision_is_told_whole(told: tuple[Trading, Bench]) -> None:
    """Bars, named features, score and threshold, the strategy step, the release and who approved it."""
    project, bench = told
    record = scored(bench)
    found = explain(record["id"], project.enabled(), project.root)

    assert found["record"] == record
    assert [bar["bar_time"] for bar in found["bars"]][-1] == record["bar_time"]
    assert len(found["bars"]) == 5
    assert list(found["features"].values()) == record["features"]
    assert next(iter(found["features"])) == "return_1"
    assert found["strategy"]["factor"] in (1.2, 0.5)
    assert found["strategy"]["strength"] == min(
        found["strategy"]["baseline_strength"] * found["strategy"]["factor"], 1.0
    )
    assert found["release"]["approvals"] == {"ml_lead": {"name": "Asha", "signed": False}}
    assert found["release"]["release"] == project.state.live.name  # type: ignore[union-attr]


def test_the_model_says_the_same_again(told: tuple[Trading, Bench]) -> None:
    """Every scored record, to the bit, out of the archive."""
    project, bench = told
    spoken = [one for one in bench.predictions() if one["reason"] in ("scored", "low_confidence")]

    assert len(spoken) == 50
    for record in spoken[::10]:
        found = explain(record["id"], project.enabled(), project.root)
        assert found["scored_again"]["status"] == "same"
        assert found["scored_again"]["probability_up"] == record["student_probability_up"]


def test_an_abstention_is_told_with_its_reason(told: tuple[Trading, Bench]) -> None:
    """Nothing was asked, so nothing is asked again."""
    project, bench = told
    found = explain(bench.predictions()[3]["id"], project.enabled(), project.root)

    assert found["scored_again"] == {
        "note": "the student said nothing: warm_up",
        "status": "not_scored",
    }
    assert len(found["bars"]) == 4


def test_a_record_that_was_edited_is_noticed(told: tuple[Trading, Bench], tmp_path: Path) -> None:
    """Another probability than the model gives for these features: different."""
    project, bench = told
    record = scored(bench)
    forged = record | {"student_probability_up": record["student_probability_up"] + 1e-9}
    place = tmp_path / record["session_date"] / "forged.jsonl"
    place.parent.mkdir()
    place.write_text("no json\n" + json.dumps(forged) + "\n")
    found = explain(record["id"], project.enabled(), project.root, telemetry=tmp_path)

    assert found["scored_again"]["status"] == "different"


def test_a_model_that_is_gone_is_said(told: tuple[Trading, Bench], tmp_path: Path) -> None:
    """Elsewhere, with the records alone, everything but the model is told."""
    project, bench = told
    settings = project.enabled()
    found = explain(scored(bench)["id"], settings, tmp_path, telemetry=project.root / "data/telemetry")

    assert found["scored_again"]["status"] == "not_found"
    assert found["model"] is None
    assert found["release"] is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nonsense", "no prediction's id"),
        (f"swing/{SYMBOL}/yesterday", "no prediction's id"),
        (f"swing/{SYMBOL}/2003-01-01T05:00:00Z", "no such prediction"),
        ("swing/ZZZ/2003-01-02T05:00:00Z", "no such prediction"),
        ("intraday/../etc/2003-01-02T05:00:00Z", "no prediction's id"),
    ],
)
def test_what_was_never_decided_is_refused(told: tuple[Trading, Bench], given: str, said: str) -> None:
    """One line that says what an id is."""
    project, _ = told

    with pytest.raises(UsageError, match=said):
        explain(given, project.enabled(), project.root)
