"""How a claim may fare, and what a check says of it besides."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum

import pytest

# What a check notes of its host for the report: a kind, a name, a value.
Record = Callable[[str, str, object], None]
Say = Callable[[str], None]


class Outcome(StrEnum):
    """How a claim fared, from good to bad; what is printed as JSON has these words."""

    HELD = "held"
    SKIPPED = "skipped"
    WARNED = "warned"
    UNCHECKED = "unchecked"
    FAILED = "failed"


class NotCheckedError(pytest.skip.Exception):  # type: ignore[name-defined]
    """What a claim is about cannot be reached, so that nobody knows whether it holds.

    Another claim fails for that, and has the reason.
    """


def note_unchecked(report: pytest.TestReport, call: pytest.CallInfo[None]) -> None:
    """Tell of a `report` that its claim was not checked, where that is so."""
    if call.excinfo is not None and isinstance(call.excinfo.value, NotCheckedError):
        report.user_properties.append(("unchecked", str(call.excinfo.value)))


def outcome_of(report: pytest.TestReport) -> Outcome:
    """What a test's report says of its claim."""
    said = {name for name, _ in report.user_properties}
    if report.failed:
        return Outcome.FAILED
    if "unchecked" in said:
        return Outcome.UNCHECKED
    if report.skipped:
        return Outcome.SKIPPED
    return Outcome.WARNED if "warning" in said else Outcome.HELD


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Say:
    """Call it with a figure for the table."""
    return lambda text: request.node.user_properties.append(("measured", text))


@pytest.fixture
def warns(request: pytest.FixtureRequest) -> Say:
    """Call it with what somebody should look at, though the claim holds: its evidence."""
    return lambda text: request.node.user_properties.append(("warning", text))


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Call it with a kind, a name and a value that the report has of the host."""

    def note(kind: str, name: str, value: object) -> None:
        request.node.user_properties.append(("record", json.dumps([kind, name, value])))

    return note
