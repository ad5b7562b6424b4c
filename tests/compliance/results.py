"""What a run of the checks found: the object that `fleet verify --json` prints."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fleet.declare.fleet import Fleet
from fleet.kit.connection.lock import who
from fleet.version import version

from .outcomes import Outcome, outcome_of

SCHEMA = "fleet-verify/1"
REACH = "reach"  # what everything else follows from


@dataclass(frozen=True)
class Selection:
    """What was asked for: hosts or groups and capabilities, all of them when there is none.

    `left_out` are the hosts of the inventory that nothing was asked of.
    """

    names: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """How one claim fared on one host; `case` tells several apart, `evidence` is for people."""

    host: str
    case: str
    outcome: Outcome
    evidence: str
    measured: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """Why it fared so, in a line; empty when there is nothing to say."""
        if self.outcome is Outcome.WARNED:
            return "; ".join(self.warnings)
        lines = [line.strip() for line in self.evidence.splitlines()]
        # pytest marks what it says of an error so, and its own words come first.
        marked = [line.removeprefix("E ").strip() for line in lines if line.startswith("E ")]
        return next(filter(None, [*marked, *lines]), "")


@dataclass
class Check:
    """A claim, with its results on all hosts that it is about."""

    capability: str
    claim: str
    results: list[Result] = field(default_factory=list)

    def hosts(self, *outcomes: Outcome) -> list[str]:
        """The hosts on which any case of it fared so."""
        return sorted({item.host for item in self.results if item.outcome in outcomes})

    @property
    def outcome(self) -> Outcome:
        """How it fared in all: the worst, but a host that skips it takes nothing from another."""
        found = {item.outcome for item in self.results}
        for outcome in (Outcome.FAILED, Outcome.UNCHECKED, Outcome.WARNED, Outcome.HELD):
            if outcome in found:
                return outcome
        return Outcome.SKIPPED


def checks_of(reports: Iterable[pytest.TestReport]) -> list[Check]:
    """Every claim that was asked about: first what is reached, then in the order of the source."""
    found: dict[tuple[str, str], Check] = {}
    for report in sorted(reports, key=_place):
        said = dict(report.user_properties)
        # A failed setup or teardown is a failure of the claim too.
        if "claim" not in said or (report.when != "call" and report.passed):
            continue
        key = str(said["capability"]), str(said["claim"])
        found.setdefault(key, Check(*key)).results.append(_result(report, said))
    return list(found.values())


def records_of(reports: Iterable[pytest.TestReport]) -> dict[str, dict[str, dict[str, Any]]]:
    """Host to what was noted of it: kind to name to value."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for report in reports:
        host = str(dict(report.user_properties).get("host"))
        for text in _all(report, "record") if report.when == "call" else ():
            kind, name, value = json.loads(text)
            found.setdefault(host, {}).setdefault(kind, {})[name] = value
    return found


def status_of(checks: Iterable[Check]) -> tuple[str, str]:
    """`good`, `findings` or `could-not-tell`, and of the last why; empty of the others.

    Nobody can tell when nothing was reached, or when no more is wrong than that something was not
    checked.
    """
    checks = list(checks)
    reached = [item for item in checks if item.capability == REACH]
    asked = [item for item in checks if item.capability != REACH]
    known = {Outcome.HELD, Outcome.WARNED}
    outcomes = {item.outcome for item in checks}
    if not any(item.hosts(*known) for item in reached):
        return "could-not-tell", "no host can be reached"
    if not asked:
        return "could-not-tell", "nothing of what was selected is about any of these hosts"
    if Outcome.FAILED in outcomes:
        return "findings", ""
    if Outcome.UNCHECKED in outcomes:
        return "could-not-tell", "not everything could be checked"
    return "good", ""


def to_object(
    checks: list[Check],
    records: Mapping[str, Any],
    fleet: Fleet,
    inventory: Path,
    selection: Selection,
) -> dict[str, Any]:
    """All of it, as docs/operating/verify.md tells it."""
    status, why = status_of(checks)
    counts = {outcome.value: 0 for outcome in Outcome}
    for check in checks:
        counts[check.outcome.value] += 1
    named = {result.host for check in checks for result in check.results}
    return {
        "schema": SCHEMA,
        "status": status,
        "why": why,
        "inventory": str(inventory),
        "llm_fleet": version(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "by": who(),
        "selection": {name: list(value) for name, value in vars(selection).items()},
        "counts": counts,
        "hosts": {
            host.name: {"groups": sorted(host.groups), **records.get(host.name, {})}
            for host in fleet
            if host.name in named
        },
        "checks": [
            {
                "capability": check.capability,
                "claim": check.claim,
                "outcome": check.outcome.value,
                "results": [_plain(item) for item in check.results],
            }
            for check in checks
        ],
    }


def _plain(result: Result) -> dict[str, Any]:
    return {
        "host": result.host,
        "case": result.case,
        "outcome": result.outcome.value,
        "reason": result.reason,
        "measured": list(result.measured),
        "evidence": result.evidence,
    }


def _result(report: pytest.TestReport, said: Mapping[str, object]) -> Result:
    return Result(
        host=str(said["host"]),
        case=str(said["case"]),
        outcome=outcome_of(report),
        evidence=_evidence(report, said),
        measured=tuple(_all(report, "measured")),
        warnings=tuple(_all(report, "warning")),
    )


def _evidence(report: pytest.TestReport, said: Mapping[str, object]) -> str:
    if report.failed:
        return str(report.longrepr)
    if "unchecked" in said:
        return str(said["unchecked"])
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return ""


def _all(report: pytest.TestReport, name: str) -> Iterator[str]:
    return (str(value) for key, value in report.user_properties if key == name)


def _place(report: pytest.TestReport) -> tuple[bool, str, int]:
    path, line, _ = report.location
    return Path(path).stem != f"test_{REACH}", path, line or 0
