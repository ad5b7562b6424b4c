"""`fleet status`: how a fleet is just now, by one question to each host."""

from __future__ import annotations

import json
import secrets
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from pyinfra.api import Host, State

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.open import open_asked
from fleet.declare.settings import Settings
from fleet.declare.status import Look, Told
from fleet.kit.errors import FleetError
from fleet.kit.facts.sections import Sections
from fleet.operate.ask import asked_together
from fleet.operate.command import COULD_NOT_TELL, FINDINGS, GOOD, SCHEMA, json_option
from fleet.operate.hosts import chosen_hosts, hosts_argument, inventory_argument

_CONNECT = 2  # seconds until a host that does not answer counts as dead
_DEADLINE = 10  # seconds until one that answered its login does
_NARROW = 60  # columns, below which nothing is read well anyway
_MOST_OF_A_TEXT, _MOST_OF_A_FINDING = 120, 1_000  # characters


@dataclass
class Row:
    """What is told of one host; `reason` is why it does not answer, empty when it does."""

    host: FleetHost
    reason: str = ""
    texts: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """In a word or two."""
        if self.reason:
            return "no answer"
        number = len(self.findings)
        return f"{number} finding{'s' if number > 1 else ''}" if number else "ok"

    def add(self, capability: type[Settings], told: Told) -> None:
        """Note a part of it."""
        if told.text:
            self.texts.append(_shown(told.text, _MOST_OF_A_TEXT))
        if told.problem:
            self.findings.append(_shown(told.problem, _MOST_OF_A_FINDING))
        if told.values:
            name = capability.prefix.rstrip("_") or capability.__name__.lower()
            _merge(self.facts.setdefault(name, {}), told.values)


@click.command()
@inventory_argument
@hosts_argument
@json_option
@click.option(
    "--connect-timeout", type=click.IntRange(1, 60), default=_CONNECT,
    show_default=True, help="Seconds until a host that does not answer counts as dead.",
)  # fmt: skip
@click.pass_context
def status(
    context: click.Context,
    inventory: Path,
    hosts: tuple[str, ...],
    as_json: bool,
    connect_timeout: int,
) -> None:
    """Show how INVENTORY's hosts are now: GPUs, versions, models, requests, what ends soon.

    Asks each HOST (or group), by default all, one question at the same time, and changes nothing.
    A host that does not answer is a line with the reason.

    Ends with 0 when all is well, 1 when there is something to do about a host (it says what), 2
    when no host answered.

    \b
    Example, the hosts of which something is to be done:
      fleet status inventory/prod.py --json | jq '.hosts[].findings'
    """
    state, fleet = open_asked(inventory)
    rows = look_at(state, fleet, chosen_hosts(fleet, hosts, or_groups=True), connect_timeout)
    if as_json:
        click.echo(json.dumps(_as_object(rows), indent=2))
    else:
        width = max(_NARROW, shutil.get_terminal_size().columns)
        click.echo("\n".join(table(rows, width)))
    context.exit(_ends_with(rows))


def look_at(
    state: State, fleet: Fleet, hosts: Iterable[FleetHost], connect_timeout: int
) -> list[Row]:
    """What is told of `hosts`, by themselves and by those that send requests to them."""
    rows = {host.name: Row(host) for host in hosts}
    callers = (other for host in fleet if host.name in rows for other in fleet.callers(host))
    asked = {name: fleet[name] for name in [*rows, *(other.name for other in callers)]}
    looks = {name: _looks_of(host, fleet) for name, host in asked.items()}
    state.config.CONNECT_TIMEOUT = connect_timeout

    def ask(host: Host) -> list[list[str]]:
        commands = [item for _, look in looks[host.name] for item in look.commands]
        # Nobody on the host knows it beforehand.
        mark = f"llm-fleet {secrets.token_hex(16)}"
        lines: list[list[str]] = host.get_fact(Sections, commands=commands, mark=mark)
        if len(lines) != len(commands):
            raise FleetError("its answer was cut short")
        return lines

    targets = [item for item in state.inventory if item.name in asked]
    answers = asked_together(state, targets, ask, connect_timeout + _DEADLINE)
    for name in asked:
        answer = answers[name]
        if isinstance(answer, FleetError):
            if name in rows:
                rows[name].reason = " ".join(str(answer).split())
            continue
        for capability, told in _told(looks[name], answer):
            row = rows.get(told.about or name)
            if row is not None:
                row.add(capability, told)
    return list(rows.values())


def _looks_of(host: FleetHost, fleet: Fleet) -> list[tuple[type[Settings], Look]]:
    return [
        (item.settings, look)
        for item in fleet.capabilities_of(host)
        for look in item.status(host, fleet)
    ]


def _told(
    looks: Iterable[tuple[type[Settings], Look]], answer: list[list[str]]
) -> Iterator[tuple[type[Settings], Told]]:
    rest = iter(answer)
    for capability, look in looks:
        lines = [next(rest) for _ in look.commands]
        for told in look.tell(lines):
            yield capability, told


def table(rows: Iterable[Row], width: int) -> Iterator[str]:
    """A line or more for each host, of `width` columns at most, and then what is to be done."""
    rows = list(rows)
    names = max(len("HOST"), *(len(row.host.name) for row in rows))
    states = max(len("STATE"), *(len(row.state) for row in rows))
    yield f"{'HOST':<{names}}  {'STATE':<{states}}  NOW"
    for row in rows:
        begin = f"{row.host.name:<{names}}  {row.state:<{states}}  "
        # What belongs together is not torn apart.
        parts = [text.replace(" ", "\N{NO-BREAK SPACE}") for text in row.texts]
        text = row.reason or ", ".join(parts) or "nothing to tell"
        yield from (
            line.replace("\N{NO-BREAK SPACE}", " ") for line in _wrapped(begin, text, width)
        )
    findings = [(row.host.name, text) for row in rows for text in row.findings]
    if findings:
        yield ""
    for name, text in findings:
        yield from _wrapped(f"{name}: ", text, width, indent=2)


def _wrapped(begin: str, text: str, width: int, indent: int | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=begin,
        subsequent_indent=" " * (len(begin) if indent is None else indent),
        break_on_hyphens=False,
    )


def _as_object(rows: Iterable[Row]) -> dict[str, Any]:
    return {
        SCHEMA: "fleet-status/1",
        "asked_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "hosts": [
            {
                "name": row.host.name,
                "groups": sorted(row.host.groups),
                "reachable": not row.reason,
                "reason": row.reason or None,
                "findings": row.findings,
                "facts": row.facts,
            }
            for row in rows
        ],
    }


def _ends_with(rows: list[Row]) -> int:
    if all(row.reason for row in rows):
        return COULD_NOT_TELL
    return FINDINGS if any(row.reason or row.findings for row in rows) else GOOD


def _shown(text: str, most: int) -> str:
    """`text` as it can be shown: another program had a part in it, and terminals take orders."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return plain if len(plain) <= most else f"{plain[: most - 3]}..."


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value
