"""Reports as pytest makes them of checks, for what is made of reports."""

from __future__ import annotations

from typing import Any, Literal

import pytest


def report(
    claim: str,
    host: str,
    outcome: Literal["passed", "failed", "skipped"] = "passed",
    *said: tuple[str, Any],
    capability: str = "models",
    longrepr: Any = None,
    when: Literal["setup", "call", "teardown"] = "call",
    line: int = 1,
) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=f"test_{capability}.py::test_x[{host}]",
        location=(f"tests/compliance/test_{capability}.py", line, "test_x"),
        keywords={},
        outcome=outcome,
        longrepr=longrepr,
        when=when,
        user_properties=[
            ("capability", capability), ("claim", claim), ("host", host), ("case", host), *said,
        ],
    )  # fmt: skip


def reached(*hosts: str) -> list[pytest.TestReport]:
    return [report("reached", host, capability="reach") for host in hosts]


def unreached(host: str, reason: str) -> pytest.TestReport:
    return report("reached", host, "failed", capability="reach", longrepr=reason)


def unchecked(claim: str, host: str) -> pytest.TestReport:
    reason = ("unchecked", f"{host}: down")
    return report(claim, host, "skipped", reason, when="setup", longrepr=("f", 1, "Skipped: down"))
