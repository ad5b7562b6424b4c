"""The report of `fleet verify`: one page of HTML that needs no network, made of its results."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fleet.kit.render import TEMPLATES

# From good to bad; a cell shows its worst result.
_ORDER = ("skipped", "held", "warned", "unchecked", "failed")
MARKS = {"held": "ok", "skipped": "skip", "warned": "WARN", "unchecked": "?", "failed": "FAIL"}
WORDS = {
    "held": "held",
    "warned": "with a warning",
    "failed": "failed",
    "unchecked": "not checked",
    "skipped": "not declared",
}


@dataclass(frozen=True)
class Cell:
    """A claim on one host: how it fared, and what is to be read of it."""

    host: str
    outcome: str
    notes: tuple[tuple[str, str], ...]  # which case, and what is said of it

    @property
    def mark(self) -> str:
        """What the cell shows."""
        return MARKS[self.outcome]


@dataclass(frozen=True)
class Plot:
    """Times to a first token, in milliseconds, and where each is between 0 and 100."""

    host: str
    model: str
    times: tuple[float, ...]
    places: tuple[float, ...]

    @property
    def median(self) -> float:
        """Half of them are shorter."""
        return statistics.median(self.times)


@cache
def _environment() -> Environment:
    # What checks have seen comes from outside: all of it is escaped.
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(found: Mapping[str, Any], signed_by: str | None) -> str:
    """The report on what `fleet verify --json` prints; `signed_by` is the public key, if any."""
    hosts = list(found["hosts"])
    return (
        _environment()
        .get_template("report/report.html.j2")
        .render(
            found=found,
            hosts=hosts,
            groups=list(_groups(found["checks"], hosts)),
            facts={kind: _facts(found["hosts"], kind) for kind in ("deployed", "versions")},
            digests=_facts(found["hosts"], "digests"),
            exposure=_facts(found["hosts"], "exposure"),
            plots=_plots(found["hosts"]),
            words=WORDS,
            signed_by=signed_by,
        )
    )


def _groups(
    checks: list[Mapping[str, Any]], hosts: list[str]
) -> Iterator[tuple[str, list[tuple[Mapping[str, Any], list[Cell | None]]]]]:
    """Capability to its claims, each with a cell a host; None where it is not about the host."""
    for capability in dict.fromkeys(check["capability"] for check in checks):
        rows = [check for check in checks if check["capability"] == capability]
        yield capability, [(check, [_cell(check, host) for host in hosts]) for check in rows]


def _cell(check: Mapping[str, Any], host: str) -> Cell | None:
    results = [item for item in check["results"] if item["host"] == host]
    if not results:
        return None
    worst = max((item["outcome"] for item in results), key=_ORDER.index)
    notes = [(item["case"], text) for item in results if (text := _note(item))]
    return Cell(host, worst, tuple(notes))


def _note(result: Mapping[str, Any]) -> str:
    own = result["evidence"] or result["reason"]
    return "\n".join([*result["measured"], *([own] if own else [])])


def _facts(hosts: Mapping[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """Name to the value on each host that has one."""
    table: dict[str, dict[str, Any]] = {}
    for host, noted in hosts.items():
        for name, value in noted.get(kind, {}).items():
            table.setdefault(name, {})[host] = value
    return table


def _plots(hosts: Mapping[str, Any]) -> list[Plot]:
    times = {
        (host, model): tuple(found)
        for host, noted in hosts.items()
        for model, found in noted.get("first_tokens", {}).items()
    }
    longest = max((max(found) for found in times.values()), default=0) or 1
    return [
        Plot(host, model, found, tuple(round(100 * time / longest, 2) for time in found))
        for (host, model), found in times.items()
    ]
