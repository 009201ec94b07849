"""Sealed days: who is refused, who may open them, and that the ledger remembers."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqkit.errors import HoldoutSealed, LedgerBroken, UsageError
from sqkit.research.holdout import (
    Seal,
    holdout_lines,
    record_opening,
    refuse_sealed,
    seal,
    sealed_windows,
)
from sqkit.research.trials import TrialLedger
from tests.test_trials import look

AT = "2025-01-01T00:00:00Z"


@pytest.fixture
def ledger(tmp_path: Path) -> TrialLedger:
    """A ledger with the second quarter of 2024 sealed for swing."""
    ledger = TrialLedger(tmp_path / "trials.jsonl")
    seal(ledger, "swing", "2024-04-01", "2024-06-30")
    return ledger


def refuse(
    ledger: TrialLedger,
    first: str,
    last: str,
    strategy: str = "swing",
    *,
    open_holdout: bool = False,
    reason: str = "",
) -> None:
    """A training that wants these days."""
    refuse_sealed(
        ledger, strategy, first, last, open_holdout=open_holdout, reason=reason, what="training of v1", at=AT
    )


# --- sealing


def test_sealing_twice_adds_nothing(ledger: TrialLedger) -> None:
    """The same days of the same strategy are sealed once."""
    seal(ledger, "swing", "2024-04-01", "2024-06-30")

    assert len(ledger.entries()) == 1
    assert sealed_windows(ledger, "swing") == [Seal("swing", "2024-04-01", "2024-06-30")]


def test_a_seal_is_not_shortened_by_another(ledger: TrialLedger) -> None:
    """Sealing fewer days, before or after, leaves the longer seal in force."""
    seal(ledger, "swing", "2024-05-01", "2024-05-31")

    with pytest.raises(HoldoutSealed):
        refuse(ledger, "2024-06-30", "2024-06-30")
    with pytest.raises(HoldoutSealed):
        refuse(ledger, "2024-04-01", "2024-04-01")
    assert len(sealed_windows(ledger, "swing")) == 2


def test_a_seal_is_not_lifted_by_deleting_the_ledger(ledger: TrialLedger) -> None:
    """Without a single validation the head file still shows that the seals are gone."""
    ledger.path.unlink()

    with pytest.raises(LedgerBroken):
        refuse(ledger, "2024-05-01", "2024-05-31")


@pytest.mark.parametrize(
    ("strategy", "start", "end"),
    [
        ("swing", "2024-06-30", "2024-04-01"),
        ("swing", "2024-04-31", "2024-06-30"),
        ("swing", "01.04.2024", "2024-06-30"),
        ("swing", "2024-04-01", ""),
        ("swng", "2024-04-01", "2024-06-30"),
        ("", "2024-04-01", "2024-06-30"),
    ],
)
def test_what_cannot_be_meant_is_not_sealed(tmp_path: Path, strategy: str, start: str, end: str) -> None:
    """Dates that are none, a start after the end, a strategy that does not exist: one line, nothing kept."""
    ledger = TrialLedger(tmp_path / "trials.jsonl")

    with pytest.raises(UsageError):
        seal(ledger, strategy, start, end)
    with pytest.raises(UsageError):
        refuse(ledger, start, end, strategy)

    assert ledger.entries() == []


# --- refusing


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("2024-01-01", "2024-04-01"),
        ("2024-06-30", "2024-12-31"),
        ("2024-05-15", "2024-05-15"),
        ("2024-04-01", "2024-06-30"),
        ("2020-01-01", "2030-01-01"),
    ],
)
def test_one_sealed_day_is_enough_to_refuse(ledger: TrialLedger, first: str, last: str) -> None:
    """Touching the seal at either end, inside or around: exit 4, the days and the way out in one line."""
    with pytest.raises(HoldoutSealed, match="2024-04-01 to 2024-06-30") as refused:
        refuse(ledger, first, last)

    assert refused.value.exit_code == 4
    assert "training of v1" in str(refused.value)
    assert "--open-holdout --reason" in str(refused.value)
    assert len(ledger.entries()) == 1


def test_days_beside_the_seal_are_free(ledger: TrialLedger) -> None:
    """The day before and the day after are development days and leave no trace."""
    refuse(ledger, "2023-01-01", "2024-03-31")
    refuse(ledger, "2024-07-01", "2024-12-31", open_holdout=True, reason="not needed")

    assert len(ledger.entries()) == 1


def test_another_strategy_is_free(ledger: TrialLedger) -> None:
    """A seal binds the strategy it names."""
    refuse(ledger, "2024-04-01", "2024-06-30", "intraday")

    assert sealed_windows(ledger, "intraday") == []


@pytest.mark.parametrize(("open_holdout", "reason"), [(True, ""), (True, "  "), (False, "I want to")])
def test_opening_needs_the_flag_and_a_reason(ledger: TrialLedger, open_holdout: bool, reason: str) -> None:
    """A flag without a reason and a reason without the flag open nothing."""
    with pytest.raises(HoldoutSealed, match="--reason TEXT"):
        refuse(ledger, "2024-05-01", "2024-05-31", open_holdout=open_holdout, reason=reason)

    assert len(ledger.entries()) == 1


# --- opening


def test_an_opening_is_kept_once(ledger: TrialLedger) -> None:
    """The same opening at another time adds no line; another reason does."""
    for at, reason in ((AT, "a bug"), ("2026-01-01T00:00:00Z", " a bug "), (AT, "another bug")):
        refuse_sealed(
            ledger, "swing", "2024-05-01", "2024-05-31", open_holdout=True, reason=reason, what="x", at=at
        )

    opened = [entry for entry in ledger.entries() if entry["kind"] == "opened"]
    assert [(entry["reason"], entry["at"], entry["by"]) for entry in opened] == [
        ("a bug", AT, "x"),
        ("another bug", AT, "x"),
    ]


def test_opening_once_lifts_nothing(ledger: TrialLedger) -> None:
    """After an opening the same days are refused to whoever comes next."""
    refuse(ledger, "2024-05-01", "2024-05-31", open_holdout=True, reason="a bug")

    with pytest.raises(HoldoutSealed):
        refuse(ledger, "2024-05-01", "2024-05-31")


def test_a_validation_opens_by_itself_and_is_kept(ledger: TrialLedger) -> None:
    """A validation of sealed days leaves one line however often it is repeated; elsewhere it leaves none."""
    words = {"reason": "validation of v1", "what": "sqkit validate", "at": AT}

    for _ in range(2):
        assert record_opening(ledger, "swing", "2024-06-01", "2024-08-31", **words) == [
            Seal("swing", "2024-04-01", "2024-06-30")
        ]
    assert record_opening(ledger, "swing", "2024-07-01", "2024-08-31", **words) == []
    assert record_opening(ledger, "intraday", "2024-04-01", "2024-06-30", **words) == []

    assert [entry["kind"] for entry in ledger.entries()] == ["seal", "opened"]


@pytest.mark.parametrize("reason", ["", " ", "two\nlines"])
def test_an_opening_says_why_in_one_line(ledger: TrialLedger, reason: str) -> None:
    """An opening without a printable reason is refused."""
    with pytest.raises(UsageError):
        record_opening(ledger, "swing", "2024-05-01", "2024-05-31", reason=reason, what="x", at=AT)


def test_seals_and_openings_are_no_trials(ledger: TrialLedger) -> None:
    """Only a look counts, and only where it overlaps: validations of development days are free here."""
    refuse(ledger, "2024-05-01", "2024-05-31", open_holdout=True, reason="a bug")
    ledger.record_look(look("a", "2024-01-01", "2024-03-31"))
    ledger.record_look(look("b", "2024-01-01", "2024-03-31"))
    assert ledger.trials("2024-04-01", "2024-06-30", ["X"]).n_trials == 0

    assert ledger.record_look(look("c", "2024-04-01", "2024-06-30")).n_trials == 1


# --- listing


def test_the_list_shows_every_seal_with_its_openings(ledger: TrialLedger) -> None:
    """One line a seal in order, its openings below it; a strategy can be picked."""
    seal(ledger, "intraday", "2024-01-01", "2024-01-31")
    refuse(ledger, "2024-05-01", "2024-05-31", open_holdout=True, reason="a bug")

    assert holdout_lines(ledger) == [
        "intraday  2024-01-01 to 2024-01-31  sealed, never opened",
        "swing  2024-04-01 to 2024-06-30  sealed, opened once",
        f"  {AT}  training of v1, 2024-05-01 to 2024-05-31: a bug",
    ]
    assert len(holdout_lines(ledger, "intraday")) == 1


def test_an_empty_list_says_so(tmp_path: Path) -> None:
    """Without seals one line says that there are none, and no file is made."""
    ledger = TrialLedger(tmp_path / "trials.jsonl")

    assert holdout_lines(ledger) == ["no sealed days"]
    assert holdout_lines(ledger, "swing") == ["no sealed days of swing"]
    assert list(tmp_path.iterdir()) == []
