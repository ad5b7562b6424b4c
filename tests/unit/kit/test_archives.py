"""Which backup is the oldest, and whether one is due, whatever the clock was meanwhile."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import archives


def _made(directory: Path, **ages: float) -> None:
    for name, age in ages.items():
        path = directory / f"{name}.tar"
        path.touch()
        os.utime(path, (time.time() - age, time.time() - age))


@pytest.mark.parametrize(
    ("ages", "due"),
    [
        ({}, True),
        ({"a": 100.0}, False),
        ({"a": 7200.0}, True),
        ({"a": 7200.0, "b": 100.0}, False),
        # Of a clock that was ahead: for years there would be no other.
        ({"a": -90_000_000.0}, True),
        ({"a": -90_000_000.0, "b": 100.0}, False),
    ],
)
def test_due(tmp_path: Path, ages: dict[str, float], due: bool) -> None:
    _made(tmp_path, **ages)
    assert archives.is_due(tmp_path, "*.tar", 3600) == due


def test_those_of_the_future_go_first(tmp_path: Path) -> None:
    """... or each new one would be pruned as the oldest."""
    _made(tmp_path, new=10.0, old=500.0, future=-90_000_000.0)
    found = [path.stem for path in archives.by_age(tmp_path, "*.tar")]
    assert found == ["future", "old", "new"]
