"""The table that an operator reads."""

from __future__ import annotations

from tests.compliance.results import checks_of
from tests.compliance.table import render, summary
from tests.unit.compliance.reports import reached, report, unchecked, unreached


def test_a_dead_host_has_its_reason_once() -> None:
    claims = [f"claim {number}" for number in range(30)]
    checks = checks_of(
        [
            *reached("gpu1"),
            unreached("gpu2", "connection timed out"),
            *(report(claim, "gpu1") for claim in claims),
            *(unchecked(claim, "gpu2") for claim in claims),
        ]
    )
    lines = render(checks)
    assert len(lines) == 31
    text = "\n".join(line for _, line in lines)
    assert text.count("connection timed out") == 1
    assert text.count("FAIL") == 1
    assert {color for color, line in lines[1:]} == {"yellow"}
    assert lines[1][1].startswith("?  ")
    assert lines[1][1].endswith("1/2  not checked on gpu2")
    assert summary(checks) == "1 failed, 30 not checked"


def test_a_warning_is_yellow_holds_and_is_counted() -> None:
    said = [("warning", "drained: gpu2"), ("measured", "7 files")]
    checks = checks_of([*reached("edge"), report("configured", "edge", "passed", *said)])
    color, line = render(checks)[1]
    assert color == "yellow"
    assert line == "WARN  models    configured  1/1  edge: drained: gpu2; edge 7 files"
    assert summary(checks) == "1 held, 1 with a warning"


def test_the_same_reason_of_several_hosts_is_one() -> None:
    failed = [
        report("whole", host, "failed", longrepr="test.py:1: in x\nE   assert 1 == 2\nE    more")
        for host in ("gpu1", "gpu2")
    ]
    [(color, line)] = render(checks_of(failed))
    assert color == "red"
    assert line.endswith("0/2  gpu1, gpu2: assert 1 == 2")


def test_one_bad_case_of_several_is_bad() -> None:
    checks = checks_of([report("a", "h"), report("a", "h", "failed", longrepr="E  x")])
    assert render(checks)[0][1].startswith("FAIL  models    a  0/1")
