"""A run has one version tag, and two that disagree are refused."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from sqkit.errors import UsageError
from sqkit.versions import is_version, resolve_version

NOW = dt.datetime(2026, 3, 1, 2, 30, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30)))


def test_order_of_sources() -> None:
    """The typed tag, else the folder's name, else SOURCE_DATE_EPOCH, else now, in UTC."""
    tagged = Path("data/models/20250112_143000/student")
    plain = Path("out/student")
    epoch = {"SOURCE_DATE_EPOCH": "86400"}
    assert resolve_version("20250112_143000", plain, epoch, NOW) == "20250112_143000"
    assert resolve_version("20250112_143000", tagged, epoch, NOW) == "20250112_143000"
    assert resolve_version(None, tagged, epoch, NOW) == "20250112_143000"
    assert resolve_version("", plain, epoch, NOW) == "19700102_000000"
    assert resolve_version(None, None, {}, NOW) == "20260228_210000"


def test_disagreement_is_refused() -> None:
    """A typed tag and a folder's tag that differ are a usage error, exit 2."""
    with pytest.raises(UsageError, match="20250112_143000") as refusal:
        resolve_version("20250112_143001", Path("models/20250112_143000/student"), {}, NOW)
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize(
    "tag", ["2025", "20250112-143000", "20251312_143000", "20250112_146000", "20250112_1430"]
)
def test_a_tag_is_a_real_time(tag: str) -> None:
    """Another form, or a date that does not exist, is no tag."""
    assert not is_version(tag)
    with pytest.raises(UsageError, match="YYYYMMDD_HHMMSS"):
        resolve_version(tag, None, {}, NOW)


@pytest.mark.parametrize("epoch", ["soon", "1e9", "99999999999999999999"])
def test_a_bad_epoch_is_refused(epoch: str) -> None:
    """SOURCE_DATE_EPOCH that is no count of seconds is named, not ignored."""
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
        resolve_version(None, None, {"SOURCE_DATE_EPOCH": epoch}, NOW)
