"""A goal is held or missed, and a row without one is neither."""

import pytest

from lab.bench_gateway import goals

LOW = [0.7, 0.8, 0.9, 0.7, 0.8]
HIGH = [0.8, 0.81, 0.9, 0.85, 0.2]


@pytest.mark.parametrize(("values", "held"), [(LOW, True), (HIGH, True), ([0.79] * 4, False)])
def test_at_least(values: list[float], held: bool) -> None:
    assert goals.at_least("throughput", 0.8, values).held is held


@pytest.mark.parametrize(("values", "held"), [([1.02], True), ([1.03], False), (HIGH, True)])
def test_at_most(values: list[float], held: bool) -> None:
    assert goals.at_most("cost", 1.02, values).held is held


def test_a_line_says_whether_it_is_held() -> None:
    rows = [
        goals.at_least("a", 1, [1.0]),
        goals.at_least("a", 1, [0.5]),
        goals.told("a", [1.0, 2.0, 3.0], " ms"),
    ]
    assert [row.held for row in rows] == [True, False, None]
    assert [str(row).split()[-1] for row in rows[:2]] == ["yes", "NO"]
    assert str(rows[2]).endswith("2 ms (1 to 3)")


def test_rounds_are_compared_with_themselves() -> None:
    """... as what else the machine did met both."""
    assert goals.ratios([1.0, 20.0], [2.0, 40.0]) == [0.5, 0.5]
    assert goals.differences([1.0, 20.0], [0.5, 19.5]) == [0.5, 0.5]
