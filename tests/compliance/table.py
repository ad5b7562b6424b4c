"""The compliance table: one row a claim, over all hosts that it is about."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

import pytest


class Mark(Enum):
    """How a claim fared, as the table has it."""

    HELD = "ok"
    FAILED = "FAIL"
    SKIPPED = "skip"


@dataclass
class Row:
    """A claim and how it fared, by the hosts that it was asked of."""

    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    measured: list[str] = field(default_factory=list)

    @property
    def mark(self) -> Mark:
        """How it fared in all: one failure is one."""
        if self.failed:
            return Mark.FAILED
        return Mark.HELD if self.passed else Mark.SKIPPED


def rows(reports: Iterable[pytest.TestReport]) -> dict[tuple[str, str], Row]:
    """(capability, claim) to its row, in the order of the source."""
    table: dict[tuple[str, str], Row] = {}
    for report in sorted(reports, key=lambda report: (report.location[0], report.location[1] or 0)):
        facts = dict(report.user_properties)
        if "claim" not in facts:
            continue
        row = table.setdefault((str(facts["capability"]), str(facts["claim"])), Row())
        # A failed setup or teardown is a failure of the claim too.
        if report.when == "call" or not report.passed:
            getattr(row, report.outcome).append(facts["host"])
        if report.when == "call" and "measured" in facts:
            row.measured.append(f"{facts['host']} {facts['measured']}")
    return table


def to_json(table: dict[tuple[str, str], Row]) -> str:
    """The table as a list of objects, for other programs."""
    return json.dumps(
        [
            {"capability": capability, "claim": claim, **vars(row)}
            for (capability, claim), row in table.items()
        ],
        indent=2,
    )


def render(table: dict[tuple[str, str], Row]) -> list[tuple[Mark, str]]:
    """The table's lines, each with its mark, which it begins with too."""
    width = max((len(claim) for _, claim in table), default=0)
    names = max([9, *(len(capability) for capability, _ in table)])
    lines = []
    for (capability, claim), row in table.items():
        failed = sorted(set(row.failed))
        passed = sorted(set(row.passed) - set(failed))
        total = len({*passed, *failed, *row.skipped})
        notes = [f"FAILED on {', '.join(failed)}"] if failed else []
        notes += sorted(row.measured)
        text = (
            f"{row.mark.value:<4}  {capability:<{names}} {claim:<{width}}  {len(passed)}/{total}  "
            f"{'; '.join(notes)}"
        )
        lines.append((row.mark, text.rstrip()))
    return lines
