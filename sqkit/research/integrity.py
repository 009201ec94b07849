"""Integrity: was the comparison clean? Items that block a promotion however good the figures are.

`integrity_items` reads what a validation stored and says of each item whether it passed; the decision
puts them into the checklist. What needs bars is measured while the validation runs
(`prefix_invariance`) and stored with its result. Look-ahead itself is found by `lookahead`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from sqkit.bars import BarArrays
from sqkit.features import feature_matrix
from sqkit.records import iso_date, session_day
from sqkit.research.accuracy import AccuracyAnalyzer
from sqkit.research.backtest import Window
from sqkit.research.lookahead import feature_look_ahead, prediction_look_ahead
from sqkit.student import StudentModel
from sqkit.trading_rules import TradingRules

Item = dict[str, Any]

CHECKED_SYMBOLS: Final = 3
"""Features and predictions of so many symbols, chosen by seed, are recomputed on cut data."""

CHECKED_BARS: Final = 40_000
"""Of each, at most so many bars up to the window's end: the cost of a minute series stays bounded."""

_KEPT: Final = (
    "behaviour",
    "dead_zone",
    "feature_set",
    "horizon_bars",
    "interval",
    "last_label_end",
    "market",
    "out_of_fold",
    "strategy",
    "teacher_digest",
    "training_base_rate",
    "training_window",
)


def model_facts(model: StudentModel, threshold: float) -> dict[str, Any]:
    """What integrity and evidence need to know of a model, kept with the results."""
    known = {**model.metadata, "behaviour": model.behaviour_digest(threshold)}
    return {name: known[name] for name in _KEPT}


def prefix_invariance(
    model: StudentModel, bars: Mapping[str, BarArrays], window: Window, rules: TradingRules, *, seed: int
) -> dict[str, Any]:
    """Recompute features and predictions on cut and perturbed data; what changes has seen the future.

    Returns
    -------
    dict
        ``symbols`` checked, ``findings`` (one line each, empty when nothing looked ahead),
        ``unjudged`` (features of which nothing could be said, with the reason), ``seed``.
    """
    names = sorted(bars)
    chosen = np.random.default_rng(seed).permutation(len(names))[:CHECKED_SYMBOLS]
    checked = sorted(names[place] for place in chosen)
    findings, unjudged = [], []
    for symbol in checked:
        _, stop = bars[symbol].window(window.first_day, window.last_day)
        series = bars[symbol].slice(max(0, stop - CHECKED_BARS), stop)

        def scores(part: BarArrays) -> np.ndarray:
            said = model.score_rows(
                feature_matrix(model.feature_set, part),
                rules.threshold,
                warm_up_rows=min(model.feature_set.warmup_bars - 1, len(part)),
            )
            return np.column_stack([said.probability_up, said.confidence, said.direction])

        features = feature_look_ahead(model.feature_set, series, seed=seed)
        predictions = prediction_look_ahead(scores, series, 0, seed=seed)
        for what, report in (("feature", features), ("prediction", predictions)):
            findings += [f"{symbol}: {what} {finding.line()}" for finding in report.findings]
        if features.status == "undefined":  # a model that never speaks is left to the metrics
            unjudged.append(f"{symbol}: {features.reason}")
    return {"findings": findings, "seed": seed, "symbols": checked, "unjudged": unjudged}


def integrity_items(
    results: Mapping[str, Any], analyzer: AccuracyAnalyzer, parity: Mapping[str, Any]
) -> list[Item]:
    """Every item of the checklist's ``integrity``, from what a validation stored."""
    candidate, baseline = results["models"]["candidate"], results["models"]["baseline"]
    first_day = session_day(dt.date.fromisoformat(results["validation_period"]["start"]))
    items = [
        _time_order("time_order", candidate, first_day, blocking=True),
        _prefix_item(results["prefix_invariance"]),
        _identical_rows(analyzer),
        _distinct_models(results["digests"], candidate, baseline, analyzer),
        _out_of_fold(candidate),
        _teacher_agrees(results["teacher_disagrees"]),
        _fits_run(results, candidate, baseline),
        _trial_ledger(results["trials"]),
    ]
    if baseline is not None:  # a baseline that saw the window is flattered: no fault of the candidate
        items.append(_time_order("baseline_time_order", baseline, first_day, blocking=False))
    return [*items, _parity(parity, results["digests"]["model"])]


def _item(name: str, status: str, note: str, *, blocking: bool = True) -> Item:
    return {"name": name, "blocking": blocking, "status": status, "note": note}


def _passed(condition: bool) -> str:
    return "pass" if condition else "fail"


def _time_order(name: str, model: Mapping[str, Any], first_day: int, *, blocking: bool) -> Item:
    """Every window the model has seen, its labels' ends included, lies before the first decision.

    The last training decision lies a whole horizon before the last label's end, so a window that
    starts on a later session keeps the embargo of that horizon.
    """
    training_end = session_day(dt.date.fromisoformat(model["training_window"]["end"]))
    last_label = session_day(dt.date.fromisoformat(model["last_label_end"][:10]))
    seen = max(training_end, last_label)
    return _item(
        name,
        _passed(seen < first_day),
        f"training ended {iso_date(training_end)}, the last label {iso_date(last_label)} "
        f"(embargo {model['horizon_bars']} bars), the window starts {iso_date(first_day)}",
        blocking=blocking,
    )


def _prefix_item(found: Mapping[str, Any]) -> Item:
    findings, unjudged = found["findings"], list(found["unjudged"])
    if not found["symbols"]:
        unjudged.append("no symbol was recomputed")
    if unjudged and not findings:
        return _item("prefix_invariance", "undefined", "; ".join(unjudged[:3]))
    checked = (
        f"features and predictions of {', '.join(found['symbols'])} recomputed on cut and perturbed data"
    )
    return _item("prefix_invariance", _passed(not findings), "; ".join(findings[:3]) if findings else checked)


def _identical_rows(analyzer: AccuracyAnalyzer) -> Item:
    unequal = [symbol for symbol in analyzer.symbols if not analyzer.has_identical_rows(symbol)]
    rows = sum(len(analyzer.judged_rows(symbol)) for symbol in analyzer.symbols)
    note = (
        f"{', '.join(unequal)}: candidate and baseline were run on other bars"
        if unequal
        else f"candidate and baseline ran over the same {rows} bars, one set of costs and rules"
    )
    return _item("identical_rows", _passed(not unequal), note)


def _distinct_models(
    digests: Mapping[str, Any],
    candidate: Mapping[str, Any],
    baseline: Mapping[str, Any] | None,
    analyzer: AccuracyAnalyzer,
) -> Item:
    if baseline is None:
        return _item("distinct_models", "pass", "the baseline is the rule")
    if digests["model"] == digests["baseline"]:
        return _item("distinct_models", "fail", "candidate and baseline are the same file")
    if candidate["behaviour"] == baseline["behaviour"]:
        note = "candidate and baseline behave alike: the same graph, features and threshold under two names"
        return _item("distinct_models", "fail", note)
    if _same_answers(analyzer):
        note = "candidate and baseline gave every row the same probability: one model in two files"
        return _item("distinct_models", "fail", note)
    note = "SHA-256, behaviour and probabilities of candidate and baseline differ"
    return _item("distinct_models", "pass", note)


def _same_answers(analyzer: AccuracyAnalyzer) -> bool:
    """Whether both models spoke and said the same: a graph saved again has another digest, no other answers."""
    candidate, baseline = (analyzer.pooled(role)["probability_up"] for role in ("candidate", "baseline"))
    return bool(np.isfinite(candidate).any()) and np.array_equal(candidate, baseline, equal_nan=True)


def _out_of_fold(candidate: Mapping[str, Any]) -> Item:
    proof = candidate["out_of_fold"]
    sound = proof["blocks"] >= 2 and 0 <= proof["refitted_block"] < proof["blocks"]
    return _item(
        "out_of_fold_teacher",
        _passed(sound),
        f"soft labels of {proof['blocks']} blocks; the teacher of block {proof['refitted_block'] + 1}, fitted again "
        f"without it, gives them to within {proof['largest_difference']:.2g}",
    )


def _teacher_agrees(disagrees: list[str] | None) -> Item:
    """Window, symbols and data of training, as the teacher's own folder says them."""
    if disagrees is None:
        note = "the teacher this student names was not found: its training is known from the student's file alone"
        return _item("teacher_agrees", "not_checked", note, blocking=False)
    return _item(
        "teacher_agrees",
        _passed(not disagrees),
        "; ".join(disagrees) or "the teacher's folder says the same of window, symbols and data of training",
    )


def _fits_run(
    results: Mapping[str, Any], candidate: Mapping[str, Any], baseline: Mapping[str, Any] | None
) -> Item:
    ran = {**results["runtime"], "interval": results["interval"]}
    problems = [
        f"{role}'s {key} is {model[key]}, the run's {ran[key]}"
        for role, model in (("candidate", candidate), ("baseline", baseline))
        if model is not None
        for key in ("strategy", "interval", "market")
        if model[key] != ran[key]
    ]
    problems += [
        f"candidate's {key} is {candidate[key]}, the run's {ran[key]}"
        for key in ("horizon_bars", "dead_zone")
        if candidate[key] != ran[key]
    ]
    fits = f"made for {ran['strategy']} on {ran['interval']} bars of {ran['market']}, and run as such"
    return _item("model_fits_run", _passed(not problems), "; ".join(problems) or fits)


def _parity(parity: Mapping[str, Any], model_digest: str) -> Item:
    """The live engine, given these bars, did what the backtest did; what was not replayed blocks as well."""
    status, note = str(parity["status"]), str(parity["note"])
    if status == "pass" and parity.get("model_digest") != model_digest:
        return _item("parity", "fail", "another model was replayed through the live engine")
    return _item("parity", status, note)


def _trial_ledger(trials: Mapping[str, Any]) -> Item:
    counted = trials["n_trials"] >= 1 and trials["ledger_head"] is not None
    return _item(
        "trial_ledger",
        _passed(counted),
        f"trial {trials['n_trials']} of this window, line {trials['ledger_lines']} of the ledger"
        if counted
        else "this look is not in the trial ledger",
    )
