"""Go's duration notation, which Ollama's settings and this project's share."""

from __future__ import annotations

import re

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
LONGEST = 10 * 366 * 24 * 3600.0  # seconds: Go, nginx and systemd all know more
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|ms|s|m|h)")


def seconds(text: str) -> float:
    """Length of a duration such as `1h30m`, `90` (seconds) or `-1`, in seconds.

    Raises:
        ValueError: `text` is no duration.
    """
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text)
    if re.fullmatch("[0-9]+", rest):
        return sign * float(rest)
    parts = _PART.findall(rest)
    if not parts or "".join(number + unit for number, unit in parts) != rest:
        raise ValueError("not a duration: write 30s, 5m, 24h, or a number of seconds")
    return sign * sum(float(number) * _UNITS[unit] for number, unit in parts)


def check_duration(text: str) -> str:
    """`text`, when it is a duration or, below zero, for ever.

    Raises:
        ValueError: `text` is no duration.
    """
    try:
        length = seconds(text)
    except ValueError as error:
        raise ValueError(f"{error}; -1 is for ever") from None
    if abs(length) > LONGEST:
        raise ValueError("longer than ten years, which not every reader can count; -1 is for ever")
    return text


def due_after(every: str) -> float:
    """Seconds after which a job that is asked for every hour must be done again to be in time.

    An hour is not a promise: the host may be off for a while.
    """
    return seconds(every) - min(seconds(every) / 2, 5400)
