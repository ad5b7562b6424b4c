"""What a gateway has counted: tokens by key, model and host, a file for each day of UTC.

`fleet/gateway/on_host/gateway_kept.lua` writes the files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from datetime import date, timedelta
from typing import Any

from fleet.kit.errors import FleetError

SCHEMA = "llm-fleet-usage/1"
KEPT = 400  # days that a gateway keeps
# Parts of a name that counts can be summed by.
PARTS = ("key", "model", "host", "day")


@dataclass(frozen=True)
class Used:
    """Requests that were answered, and the tokens of them.

    `cached` is a part of `prompt`; `estimated` of `prompt` and `completion` together: what no
    server told, as somebody had hung up.
    """

    requests: int = 0
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    estimated: int = 0

    def __add__(self, other: Used) -> Used:
        return Used(*(one + two for one, two in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Count:
    """A row of a day: whose (`name`, by `PARTS`), and how much."""

    name: Mapping[str, str]
    used: Used


def days_since(text: str, today: date) -> list[date]:
    """The days that `30d` or `2026-11-01` asks for, up to `today`, which is the last of 30.

    Raises:
        ValueError: it is neither, lies ahead, or before what a gateway keeps.
    """
    number = text.removesuffix("d")
    if text.endswith("d") and number.isdecimal() and number.isascii():
        first = today - timedelta(days=min(int(number), 10 * KEPT) - 1)
    else:
        try:
            first = date.fromisoformat(text)
        except ValueError:
            raise ValueError("days (30d) or a day (2026-11-01) are known here") from None
    if first > today:
        raise ValueError(f"that is no day up to today, which is {today} in UTC")
    length = (today - first).days + 1
    if length > KEPT:
        raise ValueError(f"gateways keep {KEPT} days")
    return [first + timedelta(days=number) for number in range(length)]


def counts_of(files: Iterable[str]) -> Iterator[Count]:
    """The rows of a gateway's `files`, each the text of a day.

    Raises:
        FleetError: one is damaged, or of another version.
    """
    for text in files:
        try:
            kept: dict[str, Any] = json.loads(text)
            if kept["schema"] != SCHEMA:
                raise FleetError(
                    f"its files are of {kept['schema']}, and {SCHEMA} is known here: use the "
                    "version of llm-fleet that it was deployed with"
                )
            day = str(kept["day"])
            rows = [_count(day, row) for row in kept["rows"]]
        except (ValueError, KeyError, TypeError):
            raise FleetError(
                "a file of its usage is damaged: see its error log, where nginx says so as well"
            ) from None
        yield from rows


def _count(day: str, row: Mapping[str, Any]) -> Count:
    name = {"key": str(row["key"]), "model": str(row["model"]), "host": str(row["host"])}
    numbers = (row[kind] for kind in ("requests", "prompt", "cached", "completion", "estimated"))
    return Count({**name, "day": day}, Used(*(int(number) for number in numbers)))


def summed(counts: Iterable[Count], by: Iterable[str]) -> dict[tuple[str, ...], Used]:
    """All that is counted, by the parts `by` of its names; in their order."""
    parts = tuple(by)
    found: dict[tuple[str, ...], Used] = {}
    for count in counts:
        name = tuple(count.name[part] for part in parts)
        found[name] = found.get(name, Used()) + count.used
    return dict(sorted(found.items()))
