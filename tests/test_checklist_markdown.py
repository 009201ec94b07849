"""The Markdown checklist: the user's template line for line, and numbers that do not mislead."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqkit.checklist import Adequacy, Policy, generate_promotion_checklist, render_markdown
from sqkit.checklist_markdown import compare, shortfall
from sqkit.checklist_signoffs import Signature, SignOffs
from sqkit.files import canonical_json
from sqkit.settings import Settings

GIVEN_CANDIDATE = {
    "precision_long": 0.712,
    "hit_ratio": 0.668,
    "accuracy": 0.687,
    "sharpe_ratio": 1.85,
    "total_return": 0.142,
    "max_drawdown": 0.083,
    "win_rate": 0.583,
}
GIVEN_BASELINE = {
    "precision_long": 0.685,
    "hit_ratio": 0.632,
    "accuracy": 0.654,
    "sharpe_ratio": 1.72,
    "total_return": 0.118,
    "max_drawdown": 0.091,
    "win_rate": 0.557,
}
GIVEN_BLOCKS = """\
## Performance Summary

### Candidate Model Performance
- **Precision (LONG)**: 71.2%
- **Hit Ratio**: 66.8%
- **Overall Accuracy**: 68.7%
- **Sharpe Ratio**: 1.85
- **Total Return**: 14.2%
- **Max Drawdown**: 8.3%
- **Win Rate**: 58.3%

### Baseline Model Performance
- **Precision (LONG)**: 68.5%
- **Hit Ratio**: 63.2%
- **Overall Accuracy**: 65.4%
- **Sharpe Ratio**: 1.72
- **Total Return**: 11.8%
- **Max Drawdown**: 9.1%
- **Win Rate**: 55.7%

### Delta (Candidate - Baseline)
- **Precision Uplift**: +2.7% ✅ (threshold: +2.0%)
- **Hit Ratio Uplift**: +3.6% ✅ (threshold: +2.0%)
- **Sharpe Uplift**: +7.6% ✅ (threshold: +5.0%)
- **Return Uplift**: +2.4%
- **Drawdown Improvement**: -0.8%
- **Win Rate Uplift**: +2.6%

## Validation Criteria

✅ **Precision Uplift**: 2.7% ≥ 2.0% (PASS)
✅ **Hit Ratio Uplift**: 3.6% ≥ 2.0% (PASS)
✅ **Sharpe Uplift**: 7.6% ≥ 5.0% (PASS)
✅ **All Criteria**: PASS (require_all_criteria=true)
"""


def checklist(
    candidate: dict[str, Any] | None = None,
    baseline: dict[str, Any] | None = None,
    flags: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A checklist of the given metrics with changes, flags and other values."""
    values: dict[str, Any] = {
        "timestamp": "2025-01-12T15:30:00Z",
        "candidate_model": "data/models/20250112_143000/student/student_model.onnx",
        "baseline_model": "data/models/baseline/student_model.onnx",
        "start": "2024-07-01",
        "end": "2024-09-30",
        "symbols": ["RELIANCE", "M&M"],
        "candidate_metrics": GIVEN_CANDIDATE | (candidate or {}),
        "baseline_metrics": GIVEN_BASELINE | (baseline or {}),
        "policy": Policy.from_settings(Settings(_env_file=None), **{"min_evidence": "none"} | (flags or {})),
        "adequacy": Adequacy(session_days=63, day_clusters=61, candidate_calls=400, baseline_calls=500),
        "digests": {"model": "a" * 64, "predictions": "b" * 64},
    }
    return generate_promotion_checklist(**values | more)


def page(*arguments: Any, **more: Any) -> str:
    """Its Markdown."""
    return render_markdown(checklist(*arguments, **more))


def lines_of(*arguments: Any, **more: Any) -> list[str]:
    """Its Markdown as lines."""
    return page(*arguments, **more).splitlines()


def test_the_given_metrics_give_the_given_blocks() -> None:
    """Performance Summary, Delta and Validation Criteria come out line for line as the user wrote them."""
    assert GIVEN_BLOCKS in page()


def test_the_given_blocks_are_those_of_the_users_text(shared_data: Path) -> None:
    """The blocks pinned here stand in the user's own document, and every heading and box of it is kept."""
    document = shared_data.parent / "us-021.md"
    if not document.is_file():
        pytest.skip(f"no user text at {document}")
    text = document.read_text(encoding="utf-8")
    template = text[
        text.index("# Student Model Promotion Checklist") : text.index("**Promotion Checklist JSON**")
    ]
    ours = lines_of()

    assert GIVEN_BLOCKS in template
    kept = [
        line for line in template.splitlines() if line.startswith(("## ", "### ", "- [ ]", "**", "If live"))
    ]
    assert len(kept) > 20
    for line in kept:
        assert line.replace(".pkl", ".onnx") in ours


def test_the_headings_keep_the_templates_order() -> None:
    """Ours come in between, the template's own headings keep their order."""
    headings = [line for line in lines_of() if line.startswith("## ")]
    template = [
        "## Performance Summary",
        "## Validation Criteria",
        "## Pre-Deployment Checklist",
        "## Approval Sign-offs",
        "## Promotion Commands",
        "## Rollback Procedure",
    ]

    assert [heading for heading in headings if heading in template] == template


def test_the_first_line_says_the_verdict_and_by_how_much() -> None:
    """Directly under the title stand recommendation, the gate that failed, and the shortfall."""
    rejected = lines_of({"precision_long": 0.697})
    promoted = lines_of()

    assert rejected[2] == ("**Recommendation**: REJECT — Precision uplift 1.2% < 2.0%, short by 0.8 points.")
    assert promoted[2].startswith("**Recommendation**: PROMOTE — All validation criteria passed.")


def test_a_failed_criterion() -> None:
    """A failed line shows ❌, <, and FAIL; the total fails with it."""
    lines = lines_of({"precision_long": 0.697}, flags={"require_all_criteria": False})

    assert "❌ **Precision Uplift**: 1.2% < 2.0% (FAIL)" in lines
    assert "- **Precision Uplift**: +1.2% ❌ (threshold: +2.0%)" in lines
    assert "❌ **All Criteria**: FAIL (require_all_criteria=false)" in lines


def test_a_near_miss_shows_as_many_decimals_as_differ() -> None:
    """A criterion missed by a hair never reads 2.0% < 2.0%."""
    lines = lines_of({"precision_long": 0.705 - 4e-7}, {"precision_long": 0.685})

    assert "❌ **Precision Uplift**: 1.99996% < 2.00000% (FAIL)" in lines


def test_an_absolute_sharpe_criterion() -> None:
    """With a low baseline Sharpe the criterion is the difference; the relative uplift prints n/a."""
    passed = lines_of({"sharpe_ratio": 0.24}, {"sharpe_ratio": 0.10})
    failed = lines_of({"sharpe_ratio": 0.14}, {"sharpe_ratio": 0.10})

    assert "✅ **Sharpe Uplift**: +0.14 ≥ 0.10 absolute (PASS)" in passed
    assert "- **Sharpe Uplift**: n/a ✅ (threshold: +0.10 absolute)" in passed
    assert "❌ **Sharpe Uplift**: +0.04 < 0.10 absolute (FAIL)" in failed


def test_null_prints_not_available() -> None:
    """An undefined metric prints n/a in the summary, the delta and its criterion, and fails."""
    lines = lines_of({"precision_long": None, "win_rate": None})

    assert "- **Precision (LONG)**: n/a" in lines
    assert "- **Precision Uplift**: n/a ❌ (threshold: +2.0%)" in lines
    assert "❌ **Precision Uplift**: n/a, threshold 2.0% (FAIL)" in lines
    assert "- **Win Rate Uplift**: n/a" in lines


def test_a_rule_baseline_is_named() -> None:
    """A baseline that is null in JSON reads as the strategy's rule; the incumbent is said beside it."""
    runtime = {"strategy_parameters": {"strategy": "swing"}, "zone": "Asia/Kolkata"}
    digests = {"model": "a" * 64, "predictions": "b" * 64, "incumbent": "c" * 64}
    named = page(
        baseline_model=None,
        runtime=runtime,
        digests=digests,
        evidence={"incumbent_model": "data/models/production/student_model.onnx"},
    )

    assert "**Baseline**: baseline rule (swing)\n" in named
    assert "`data/models/production/student_model.onnx`, not the baseline" in named
    assert "(Asia/Kolkata)" in named
    assert "**Baseline**: baseline rule (intraday)\n" in page(
        baseline_model=None, runtime={"strategy": "intraday"}
    )
    assert "in production when this was validated): none\n" in page()
    assert "the baseline itself" in page(digests=digests | {"baseline": "c" * 64})


def test_metrics_from_elsewhere_name_no_model() -> None:
    """Absent names print n/a, adequacy is said to be waived, and no promotion command is printed."""
    text = page(
        candidate_model=None,
        baseline_model=None,
        start=None,
        end=None,
        symbols=None,
        digests={},
        adequacy=None,
    )

    assert "**Model**: n/a\n" in text
    assert "**Baseline**: n/a\n" in text
    assert "**Validation Period**: n/a to n/a\n" in text
    assert "Adequacy: waived" in text
    assert "can never be promoted" in text
    assert "sqkit promote" not in text


def commands(text: str) -> list[str]:
    """Every line of the page that is a command."""
    return re.findall(r"^(sqkit .*)$", text, flags=re.MULTILINE)


def test_the_commands_are_sqkits() -> None:
    """From verify to status in the order in which they are run, with this model's path; no cp, no pickle."""
    text = page(
        candidate_model="my models/student_model.onnx", flags={"required_approvals": ("ml_lead", "desk head")}
    )

    model = "--model 'my models/student_model.onnx'"
    assert commands(text)[:8] == [
        "sqkit verify 'my models'",
        f"sqkit attest period-representative {model} --note 'window reviewed'",
        f"sqkit attest criteria-met {model} --note 'every symbol reviewed'",
        "sqkit rollback --drill",
        f"sqkit approve {model} --role ml_lead",
        f"sqkit approve {model} --role 'desk head'",
        f"sqkit promote {model} --dry-run",
        f"sqkit promote {model} --enable --env-file .env",
    ]
    assert "- [ ] **Desk Head**: _______________ Date: ___________" in text
    assert not re.search(r"\bcp\b|\.pkl|YYYY|<[a-z]", text)


def test_the_way_back_is_printed_too() -> None:
    """Halt, rollback, resume and history, for the slot of the strategy where the checklist names one."""
    reason = "--reason 'live accuracy below validation'"

    assert commands(page())[-4:] == [
        f"sqkit halt {reason}",
        f"sqkit rollback {reason}",
        "sqkit resume",
        "sqkit history",
    ]
    named = commands(page(runtime={"strategy": "swing"}))
    assert "sqkit rollback --drill --slot swing" in named
    assert named[-4:] == [
        f"sqkit halt --slot swing {reason}",
        f"sqkit rollback --slot swing {reason}",
        "sqkit resume --slot swing",
        "sqkit history --slot swing",
    ]


def test_the_steps_are_numbered_without_a_gap() -> None:
    """A policy that asks for nobody's approval leaves that step out."""
    text = page(flags={"required_approvals": ()})
    block = text[text.index("## Promotion Commands") : text.index("## Rollback Procedure")]

    assert re.findall(r"^# (\d)\.", block, flags=re.MULTILINE) == ["1", "2", "3", "4", "5", "6"]
    assert "sqkit approve --" not in block
    assert "No approval is required by the policy." in text


@pytest.mark.parametrize(
    ("status", "asked"), [("pass", False), ("fail", False), ("insufficient", True), (None, True)]
)
def test_only_what_a_person_must_tick_is_printed(status: str | None, asked: bool) -> None:
    """Where the evidence speaks about all symbols nobody is told to attest them."""
    records = [] if status is None else [{"name": "stability.symbols", "status": status}]

    said = [line for line in commands(page(evidence={"records": records})) if "criteria-met" in line]

    assert bool(said) == asked


# --- boxes and signatures


def signed_page(signoffs: SignOffs, **more: Any) -> list[str]:
    """The page with sign-offs, as lines."""
    return render_markdown(checklist(**more), signoffs).splitlines()


def test_without_sign_offs_only_the_evidence_ticks_a_box() -> None:
    """The page of a fresh decision: the first box by its record, with the weak symbols beside it."""
    record = {"name": "stability.symbols", "status": "pass", "params": {"weak": ["AAA"], "undefined": []}}
    lines = lines_of(evidence={"records": [record]})

    assert "- [x] Validation criteria met for all symbols; weak: AAA" in lines
    assert "- [ ] Rollback procedure documented and tested" in lines


def test_ticked_boxes_say_what_ticked_them() -> None:
    """With sign-offs a box is ticked exactly when somebody or something ticked it."""
    record = {"name": "stability.symbols", "status": "pass", "params": {"weak": ["AAA"]}}
    lines = signed_page(
        SignOffs(
            ticked={"criteria-met": "the evidence", "rollback-tested": "the rollback drill of 2025-01-10"}
        ),
        evidence={"records": [record]},
    )

    assert "- [x] Validation criteria met for all symbols; weak: AAA — the evidence" in lines
    assert "- [x] Rollback procedure documented and tested — the rollback drill of 2025-01-10" in lines
    assert "- [ ] Baseline model archived with timestamp" in lines


def test_signatures_read_as_what_they_are() -> None:
    """Signed, typed, rejected, void and open each have their own line, in order, remarks below."""
    lines = signed_page(
        SignOffs(
            signatures=(
                Signature("ml_lead", "Asha", "asha@example.com", "2025-01-13", approved=True),
                Signature("quant_lead", "Bo", None, "2025-01-13", approved=True, note="only AAA"),
                Signature("risk_manager", "Chen", None, "2025-01-14", rejected=True, note="too thin"),
                Signature("desk_head", note="the checklist changed"),
                Signature("cto"),
            ),
            remarks=("The approvals allow AAA.",),
        )
    )
    start = lines.index("## Approval Sign-offs")

    assert lines[start + 2 : start + 9] == [
        "- [x] **ML Lead**: Asha (signed, asha@example.com) Date: 2025-01-13",
        "- [x] **Quant Team Lead**: Bo (typed name, not authenticated) Date: 2025-01-13: only AAA",
        "- [ ] **Risk Manager**: ❌ rejected by Chen (typed name, not authenticated) Date: 2025-01-14: too thin",
        "- [ ] **Desk Head**: _______________ Date: ___________ (the checklist changed)",
        "- [ ] **Cto**: _______________ Date: ___________",
        "",
        "The approvals allow AAA.",
    ]


def test_sign_offs_change_nothing_else_on_the_page() -> None:
    """Figures, criteria, evidence and commands are those of the decision, whoever signed."""
    signed = signed_page(SignOffs(ticked={"criteria-met": "x"}, signatures=(Signature("ml_lead", "Asha"),)))
    plain = lines_of()
    first, last = plain.index("## Pre-Deployment Checklist"), plain.index("## Promotion Commands")

    assert signed[:first] == plain[:first]
    assert signed[signed.index("## Promotion Commands") :] == plain[last:]


def test_what_a_person_typed_cannot_break_the_page() -> None:
    """Names, notes and comments stay on their line and inside their place."""
    evil = "Asha\n## Approval Sign-offs\n- [x] **Risk Manager**: Chen <script>x</script>"
    lines = signed_page(
        SignOffs(
            ticked={"period-representative": evil},
            signatures=(Signature("ml_lead", evil, evil, "2025-01-13", approved=True, note=evil),),
            remarks=(evil,),
        )
    )

    assert sum(line == "## Approval Sign-offs" for line in lines) == 1
    assert not any(line.startswith("- [x] **Risk Manager**") for line in lines)
    assert "<script" not in "\n".join(lines)


def test_a_checklist_that_is_not_promote_says_so_at_the_commands() -> None:
    """Beside the commands stands that the promoter refuses them."""
    assert "The promoter refuses this checklist: its recommendation is REJECT." in page({"hit_ratio": 0.1})
    assert "The promoter refuses" not in page()


def test_evidence_integrity_and_digests_are_shown() -> None:
    """Counts, records, items, summary line, figures beside the metrics, notes and digests all reach the reader."""
    record = {
        "name": "loss_diff",
        "kind": "blocking",
        "status": "pass",
        "estimate": 0.0123456,
        "ci": [-0.01, 0.5],
        "p_value": 0.004,
        "unit": "share",
        "n": {"clusters": 63, "rows": 6300},
        "note": "",
    }
    advice = {"name": "dsr", "kind": "advisory", "status": "fail", "estimate": 0.61, "unit": "confidence"}
    text = page(
        evidence={
            "grade": "moderate",
            "records": [record, advice],
            "summary": "Brier p = .004; grade MODERATE",
            "context": [{"figure": "coverage", "candidate": 0.25, "baseline": None}],
            "notes": ["FB: short history, 155 scored sessions"],
        },
        integrity=[{"name": "parity", "status": "not_run", "blocking": False, "note": "no engine | yet"}],
    )

    assert text.splitlines()[4] == "Brier p = .004; grade MODERATE"
    deciding, advisory = text.split("Advice: none of these changes the verdict.")
    assert "| loss_diff | pass | +1.2% | -1.0% .. +50.0% | .004 | share | 63 days |  |" in deciding
    assert "| dsr | fail | 0.61 | n/a | n/a | confidence | n/a |  |" in advisory
    assert "| coverage | 0.25 | n/a |" in text
    assert "| parity | not_run | advisory | no engine \\| yet |" in text
    assert "| session days with a directional call | 61 |" in text
    assert "- FB: short history, 155 scored sessions" in text
    assert f"| model | {'a' * 64} |" in text
    assert "M&M" in text


def test_the_page_is_the_same_from_memory_and_from_the_file() -> None:
    """Rendering the stored JSON gives the same bytes as rendering the fresh checklist."""
    made = checklist(
        {"precision_long": 0.69},
        evidence={"context": [{"figure": "coverage", "candidate": 0.25, "baseline": 0.5}]},
        digests={"model": "a" * 64, "predictions": {"TCS": "1", "RELIANCE": "2"}, "zebra": "3", "apple": "4"},
    )

    assert render_markdown(json.loads(canonical_json(made))) == render_markdown(made)


def test_text_from_elsewhere_cannot_break_the_page() -> None:
    """Line breaks, tags and backticks in names stay inside their place."""
    text = page(candidate_model="a`b\n# Approved", evidence={"notes": ["<script>x</script>\n\n# Approved"]})

    assert "# Approved" not in text.splitlines()
    assert "<script" not in text
    assert "`` a`b # Approved ``" in text


@settings(deadline=None)
@given(
    reached=st.floats(-3.0, 3.0).filter(lambda value: value == 0.0 or abs(value) > 1e-6),
    threshold=st.decimals(0, 1, places=4).map(float),
    absolute=st.booleans(),
)
def test_compared_numbers_read_as_they_compare(reached: float, threshold: float, absolute: bool) -> None:
    """The printed numbers stand in the printed relation, and the shortfall is above zero when one is missed."""
    text = compare(reached, threshold, absolute=absolute).removesuffix(" absolute")
    left, sign, right = text.split()
    shown = [float(side.rstrip("%")) for side in (left, right)]

    assert shown[1] == pytest.approx(threshold * (1 if absolute else 100), abs=1e-12)
    assert shown[0] >= shown[1] if sign == "≥" else shown[0] < shown[1]
    assert sign == ("≥" if reached >= threshold - 1e-12 else "<")
    if sign == "<":
        assert float(shortfall(reached, threshold, absolute=absolute).split()[0]) > 0.0


@pytest.mark.parametrize(
    ("reached", "threshold", "absolute", "expected"),
    [
        (0.012, 0.02, False, "1.2% < 2.0%"),
        (0.027, 0.02, False, "2.7% ≥ 2.0%"),
        (0.02 - 1e-13, 0.02, False, "2.0% ≥ 2.0%"),
        (0.0225, 0.0225, False, "2.25% ≥ 2.25%"),
        (-0.5, 0.02, False, "-50.0% < 2.0%"),
        (-0.0001, 0.0, False, "-0.01% < 0.00%"),
        (0.14, 0.10, True, "+0.14 ≥ 0.10 absolute"),
        (0.099, 0.10, True, "+0.099 < 0.100 absolute"),
    ],
)
def test_compare_examples(reached: float, threshold: float, absolute: bool, expected: str) -> None:
    """Written examples of the comparison line."""
    assert compare(reached, threshold, absolute=absolute) == expected
