"""Durations, against the table of Go's own tests for time.ParseDuration."""

from __future__ import annotations

import pytest

from fleet.kit.durations import seconds


# From src/time/time_test.go, parseDurationTests; and bare numbers, which Ollama reads as seconds.
@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("0", 0.0),
        ("5s", 5.0),
        ("30s", 30.0),
        ("1478s", 1478.0),
        ("-5s", -5.0),
        ("-0", 0.0),
        ("5.0s", 5.0),
        ("5.6s", 5.6),
        ("5.s", 5.0),
        (".5s", 0.5),
        ("1.0s", 1.0),
        ("1.004s", 1.004),
        ("100.00100s", 100.001),
        ("10ns", 1e-8),
        ("11us", 11e-6),
        ("12µs", 12e-6),
        ("13ms", 0.013),
        ("14s", 14.0),
        ("15m", 900.0),
        ("16h", 57600.0),
        ("3h30m", 12600.0),
        ("10.5s4m", 250.5),
        ("-2m3.4s", -123.4),
        ("1h2m3s4ms5us6ns", 3723.004005006),
        ("39h9m14.425s", 140954.425),
        ("300", 300.0),
        ("-1", -1.0),
    ],
)
def test_length(text: str, length: float) -> None:
    assert seconds(text) == pytest.approx(length)


# The refused ones of the same table, notations that people use elsewhere, and two that Go accepts
# and nobody needs: the plus sign, and the Greek letter beside the micro sign.
@pytest.mark.parametrize(
    "text",
    ["", "-", "s", ".", "-.", ".s", "+.s", "3000000h0", "1d", "5 m", " 5m", "5m ", "5 minutes",
     "5M", "5m30", "1h,30m", "--5s", "-1.5", "1e3", "infinity", "+5s", "12μs"],
)  # fmt: skip
def test_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration: write 30s, 5m, 24h"):
        seconds(text)


@pytest.mark.parametrize("text", ["٣s", "٣"])
def test_foreign_digits_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        seconds(text)
