"""What is misplaced, and what to do about it."""

from __future__ import annotations

import pytest

from fleet.gates.placement import (
    Loaded,
    OnCpu,
    PartlyOnCpu,
    Placement,
    Problem,
    Silence,
    Surroundings,
    TooFewGpus,
    explain,
    problems,
)

FOUND = 'msg="inference compute" library=CUDA'
AROUND = Surroundings("580.178.04", uuids=("GPU-0",))
# A model's name is anybody's: no words in it decide anything.
ODD = "only to:1"


@pytest.mark.parametrize(
    ("placement", "expected"),
    [
        (Placement({}, answers=False), [Silence()]),
        (Placement({}, (FOUND,)), [TooFewGpus(1, 2)]),
        (Placement({"a": Loaded(100, 0)}, (FOUND, FOUND)), [OnCpu("a")]),
        (Placement({"a": Loaded(100, 70)}, (FOUND, FOUND)), [PartlyOnCpu("a", 70)]),
        (Placement({"a": Loaded(100, 100)}, (FOUND, FOUND)), []),
    ],
)
def test_problems(placement: Placement, expected: list[Problem]) -> None:
    assert list(problems(placement, 2, (), ())) == expected


@pytest.mark.parametrize(
    ("found", "remedy"),
    [
        ([PartlyOnCpu("a", 70)], "It does not fit"),
        ([PartlyOnCpu("a", 70), OnCpu("b")], "restart ollama.service"),
        ([OnCpu(ODD)], "restart ollama.service"),
        ([Silence(), OnCpu("a")], "See `systemctl status ollama.service`"),
    ],
)
def test_remedy_goes_by_the_kind_of_problem(found: list[Problem], remedy: str) -> None:
    text = explain(Placement({}), found, "ollama.service", AROUND, 1)
    assert remedy in text.splitlines()[-1]
    assert all(str(problem) in text for problem in found)
