"""How a claim fared: what pytest says, and what the check said besides."""

from __future__ import annotations

import pytest

from tests.compliance.outcomes import NotCheckedError, Outcome, note_unchecked, outcome_of
from tests.unit.compliance.reports import report, unchecked


def test_outcomes() -> None:
    warning = ("warning", "ends soon")
    assert outcome_of(report("a", "h")) is Outcome.HELD
    assert outcome_of(report("a", "h", "passed", warning)) is Outcome.WARNED
    assert outcome_of(report("a", "h", "skipped")) is Outcome.SKIPPED
    assert outcome_of(unchecked("a", "h")) is Outcome.UNCHECKED
    # What fails has failed, whatever it warned of before.
    assert outcome_of(report("a", "h", "failed", warning)) is Outcome.FAILED


def test_only_what_cannot_be_reached_is_not_checked() -> None:
    for error, noted in ((NotCheckedError("gpu1: down"), True), (ValueError("x"), False)):

        def fail(error: Exception = error) -> None:
            raise error

        call = pytest.CallInfo.from_call(fail, "call")
        found = report("a", "h", "skipped")
        note_unchecked(found, call)
        assert (("unchecked", "gpu1: down") in found.user_properties) is noted


def test_it_is_no_failure_to_pytest() -> None:
    assert issubclass(NotCheckedError, pytest.skip.Exception)
