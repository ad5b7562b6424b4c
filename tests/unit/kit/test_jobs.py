"""The line that a deploy shows while a host works."""

from __future__ import annotations

import pytest

from fleet.kit import jobs
from fleet.kit.jobs import Meter, progress
from fleet.kit.on_host.common import size_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_900, "999.9 kB"),
        (13_780_162_412, "13.8 GB"),
        (65_290_180_000, "65.3 GB"),
        (1e12, "1.0 TB"),
        (5.2e15, "5200.0 TB"),
    ],
)
def test_size(count: float, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("completed", "total", "rate", "text"),
    [
        (0, 0, 0, "0 B so far"),
        (2_500_000, 0, 1e6, "2.5 MB so far"),
        (0, 1000, 0, "0 % of 1.0 kB"),
        (430, 1000, 10, "43 % of 1.0 kB, 10 B/s, 0m57s left"),
        (999, 1000, 1, "99 % of 1.0 kB, 1 B/s, 0m01s left"),
        (1000, 1000, 5, "100 % of 1.0 kB, 5 B/s, 0m00s left"),
        (0, 13_800_000_000, 118_200_000, "0 % of 13.8 GB, 118.2 MB/s, 1m57s left"),
        (0, 65_000_000_000, 10_000_000, "0 % of 65.0 GB, 10.0 MB/s, 1h48m left"),
    ],
)
def test_progress(completed: int, total: int, rate: float, text: str) -> None:
    assert progress(completed, total, rate) == text


def test_meter_counts_from_its_first_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed download would look fast if what was there already counted."""
    now = iter([100.0, 101.0, 110.0])
    monkeypatch.setattr(jobs.time, "monotonic", lambda: next(now))
    meter = Meter()
    assert meter.read(600, 1000) == "60 % of 1.0 kB"
    assert meter.read(700, 1000) == "70 % of 1.0 kB, 10 B/s, 0m30s left"
