"""What a run found: its object, its status, and when nobody can tell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.compliance.results import Selection, checks_of, records_of, status_of, to_object
from tests.fleets import EDGE, GPU, fleet_of
from tests.unit.compliance.reports import reached, report, unchecked, unreached

GOOD = [*reached("gpu1"), report("present", "gpu1")]


@pytest.mark.parametrize(
    ("reports", "status", "why"),
    [
        (GOOD, "good", ""),
        ([*GOOD, report("pinned", "gpu1", "passed", ("warning", "w"))], "good", ""),
        ([*GOOD, report("custom", "gpu1", "skipped", longrepr=("f", 1, "no"))], "good", ""),
        ([*GOOD, report("whole", "gpu1", "failed", longrepr="E  x")], "findings", ""),
        # A dead host among others is a finding, with or without what follows from it.
        ([*GOOD, unreached("gpu2", "down"), unchecked("present", "gpu2")], "findings", ""),
        ([*GOOD, unchecked("whole", "gpu1")], "could-not-tell", "not everything could be checked"),
        (
            [unreached("gpu1", "down"), unchecked("present", "gpu1")],
            "could-not-tell",
            "no host can be reached",
        ),
        (reached("gpu1"), "could-not-tell", "nothing of what was selected is about any of these"),
        ([], "could-not-tell", "no host can be reached"),
    ],
)
def test_status(reports: list[pytest.TestReport], status: str, why: str) -> None:
    found, said = status_of(checks_of(reports))
    assert found == status
    assert said.startswith(why) if why else said == ""


def test_a_failed_setup_is_a_failure_and_a_passed_one_is_nothing() -> None:
    reports = [
        report("present", "gpu1", when="setup"),
        report("present", "gpu1", "failed", when="setup", longrepr="E  broken"),
    ]
    [check] = checks_of(reports)
    assert [(item.outcome, item.reason) for item in check.results] == [("failed", "broken")]


def test_what_is_reached_comes_first_and_the_rest_as_in_the_source() -> None:
    reports = [report("second", "h", line=9), report("first", "h", line=2), *reached("h")]
    assert [check.claim for check in checks_of(reports)] == ["reached", "first", "second"]


@pytest.mark.usefixtures("own_secrets")
def test_who_ran_it_needs_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """... as in a container whose user id no file has."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    fleet = fleet_of({"gpu1": GPU})
    found = to_object([], {}, fleet, Path("inventory/prod.py"), Selection())
    assert found["by"].startswith("somebody@")


@pytest.mark.usefixtures("own_secrets")
def test_object_has_what_its_page_tells() -> None:
    fleet = fleet_of({"gpu1": GPU, "edge": EDGE})
    reports = [
        *reached("gpu1"),
        report("present", "gpu1", "passed", ("measured", "3 of 3")),
        report("present", "gpu1", "passed", ("record", json.dumps(["versions", "Ollama", "1.2"]))),
    ]
    selection = Selection(names=("gpu",), capabilities=("models",), left_out=("edge",))
    found = to_object(
        checks_of(reports), records_of(reports), fleet, Path("inventory/prod.py"), selection
    )
    assert json.loads(json.dumps(found)) == found
    page = (Path(__file__).parents[3] / "docs" / "operating" / "verify.md").read_text()
    check, result = found["checks"][1], found["checks"][1]["results"][0]
    for key in (*found, *found["selection"], *check, *result, "groups", "versions"):
        assert f"`{key}`" in page, key
    assert found["schema"] == "fleet-verify/1"
    assert found["selection"] == {
        "names": ["gpu"], "capabilities": ["models"], "left_out": ["edge"],
    }  # fmt: skip
    # A host that nothing was asked of is not in it.
    assert found["hosts"] == {"gpu1": {"groups": ["gpu"], "versions": {"Ollama": "1.2"}}}
    assert result == {
        "host": "gpu1", "case": "gpu1", "outcome": "held", "reason": "", "measured": ["3 of 3"],
        "evidence": "",
    }  # fmt: skip
