"""What runs on a host, whichever capability it is of: its last deploy, its ports, its units."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from ipaddress import ip_address

from pyinfra.api import StringCommand

from fleet.declare.capability import Service
from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.status import Look, Told
from fleet.kit.facts.listeners import Listener
from fleet.kit.on_host.outside import counted
from fleet.platform.record import DeployedRecord

# How the units of ours are called that no port tells of.
_UNITS = "'llm-fleet-*' 'ollama*'"
_MOST = 5  # units that are named


def looks(me: FleetHost, fleet: Fleet) -> Iterator[Look]:
    """Who deployed last, which ports nobody listens on, and which of our units failed."""
    yield Look(
        (
            StringCommand("ss -Hltn"),
            StringCommand(f"systemctl list-units --state=failed --plain --no-legend {_UNITS}"),
        ),
        lambda found: _tell(fleet.services(me), *found),
    )
    yield Look((DeployedRecord().command(),), lambda found: _tell_record(*found))


def _tell(services: Iterable[Service], sockets: list[str], units: list[str]) -> Iterator[Told]:
    closed = list(closed_ports(services, listeners_in(sockets)))
    # Their names are of our own pattern: what systemd prints is no secret and no surprise.
    failed = [line.split()[0] for line in units if line.split()]
    yield Told("", {"closed_ports": closed, "failed_units": failed})
    if closed:
        ports = ", ".join(closed)
        yield Told(problem=f"nobody listens on {ports}: see `systemctl --failed` there, and deploy")
    if failed:
        names = ", ".join(failed[:_MOST]) + (" and more" if len(failed) > _MOST else "")
        yield Told(problem=f"failed: {names}; see `journalctl -u {failed[0]}` there")


def _tell_record(lines: list[str]) -> Iterator[Told]:
    record = DeployedRecord().process(lines)
    last, begun = record.deployed, record.unfinished
    if last is not None:
        commit = f" {last.commit[:7]}{'-dirty' if last.dirty else ''}" if last.commit else ""
        when = last.when.replace("T", " ")[:16]
        yield Told(f"deployed{commit} {when} UTC by {last.who}", {"deployed": asdict(last)})
    if record.at_work:
        yield Told("deploy at work", {"at_work": record.at_work})
    elif begun is not None:
        yield Told(
            values={"unfinished": asdict(begun)},
            problem=(
                f"the deploy of {begun.who} (run {begun.run}) began at {begun.since} and did not "
                "end: deploy again"
            ),
        )
    for line in record.unreadable:
        yield Told(problem=f"{line}: deploy, which writes it anew")


def closed_ports(services: Iterable[Service], listeners: Iterable[Listener]) -> Iterator[str]:
    """`gateway_port = 8434 (gateway)` for each declared service that nobody listens for.

    Docker may publish a port without listening on it, and what is not ours may be elsewhere.
    """
    listeners = list(listeners)
    for service in services:
        if service.published or not service.ours:
            continue
        if not any(
            item.is_in_the_way(endpoint.address, endpoint.port)
            for endpoint in service.endpoints
            for item in listeners
        ):
            yield f"{service.setting} = {service.port} ({service.name})"


def listeners_in(lines: Iterable[str]) -> Iterator[Listener]:
    """The sockets of `ss -Hltn`."""
    for line in lines:
        words = line.split()
        if len(words) < 4:
            continue
        address, _, port = words[3].rpartition(":")
        number = counted(port)
        plain = address.partition("%")[0].strip("[]")
        if number is None:
            continue
        if plain == "*":
            yield Listener(None, number)
            continue
        try:
            yield Listener(ip_address(plain), number)
        except ValueError:
            continue
