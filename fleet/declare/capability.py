"""What a capability tells of itself, so that nobody has to ask for it by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import click

from fleet.declare.fleet import Endpoint, Fleet, FleetHost
from fleet.declare.logs import NO_LOGS, Logs
from fleet.declare.preflight import Ask, Line
from fleet.declare.settings import Settings
from fleet.declare.status import Look
from fleet.declare.types import AnyNetwork
from fleet.kit.footprint import Trace
from fleet.kit.places import Directory


@dataclass(frozen=True)
class Service:
    """A TCP port that a host answers on.

    `setting` declares the port, and `endpoints` are where it listens, all with that port. `callers`
    are the networks that the firewall lets in; without any, only the host itself calls. `comment`
    is what the ruleset says of it. `private` is the setting whose value `private` put it on the
    host's private address. Of a container, Docker publishes the port (`published`). What is not
    `ours` may listen on other addresses, too: sshd. `held_by` are the units, containers and Compose
    projects that listen there, or did for a deploy of before, as shell patterns.
    """

    setting: str
    name: str
    endpoints: tuple[Endpoint, ...]
    callers: tuple[AnyNetwork, ...] = ()
    comment: str = ""
    private: str | None = None
    published: bool = False
    ours: bool = True
    held_by: tuple[str, ...] = ()

    @property
    def port(self) -> int:
        """The port of all its endpoints."""
        return self.endpoints[0].port


@dataclass(frozen=True)
class Grant:
    """A port of the host that its own containers may call.

    They come from the network interface `bridge`, and where `source` is set from that address only.
    `published` says that another container has the port.
    """

    bridge: str
    port: int
    comment: str
    source: str | None = None
    published: bool = False


@dataclass(frozen=True)
class Server:
    """An inference server as a gateway sees it; `instance` is None for a host's only one.

    `surfaces` are the APIs that it speaks: `ollama` (its own), `openai`, `anthropic`. `models` are
    the declared names of those that it is to have; `closed` says that it is asked for these alone,
    whatever else is there. What is not `ours` is somebody else's: its `host` is none of the
    inventory's, and nothing is deployed or asked there.
    """

    host: FleetHost
    instance: str | None
    endpoint: Endpoint
    surfaces: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    closed: bool = False
    ours: bool = True

    @property
    def name(self) -> str:
        """`host[/instance]`, which no other server of the fleet is called."""
        return f"{self.host.name}/{self.instance}" if self.instance else self.host.name


def _none(*_: object) -> tuple[()]:
    return ()


# What is refused of a host among the fleet's: a line each, in an operator's words.
Problems = Callable[[FleetHost, Fleet], Iterable[str]]


def _never(_: FleetHost) -> bool:
    return False


@dataclass(frozen=True)
class Capability:
    """What there is to know of a capability: `fleet/capabilities.py` is the list of all.

    A host has it when it is in `group`, when the boolean setting `switch` is on, or when it has a
    capability that `needs` it; without group and switch every host has it. `problems` are the
    contradictions of its settings on a host, with each other and with the fleet's;
    `stored_problems` those of the secrets store. `calls_servers` is the account whose processes
    send requests to the inference servers of other hosts, `keeps_secrets` says that its hosts hold
    secrets of the store. `directories` are where it keeps data, which an operator may have put on
    another disk, `footprint` is all that it may have put on a host, in the order in which it was.
    `is_off` tells of a host that has it whether settings let it put nothing there: then its
    footprint is taken back, as of a host that has it no more.
    `retire` is that one of its commands, of an inventory and a host, after which nobody calls the
    host's servers any more. `urls` are what people open or call there, each after what it is;
    `logs` are where it says what it does. `preflight` are its checks of a host that is to be
    deployed, by the deploy's own judgement; they read only, on bare hosts too. `status` is what it
    asks of a host that runs. `commands` are its own of the command `fleet`.
    """

    settings: type[Settings]
    group: str | None = None
    switch: str | None = None
    needs: tuple[type[Settings], ...] = ()
    calls_servers: str | None = None
    keeps_secrets: bool = False
    services: Callable[[FleetHost, Fleet], Iterable[Service]] = _none
    grants: Callable[[FleetHost, Fleet], Iterable[Grant]] = _none
    servers: Callable[[FleetHost], Iterable[Server]] = _none
    directories: Callable[[FleetHost], Iterable[Directory]] = _none
    urls: Callable[[FleetHost, Fleet], Iterable[tuple[str, str]]] = _none
    footprint: Callable[[FleetHost], Iterable[Trace]] = _none
    is_off: Callable[[FleetHost], bool] = _never
    retire: click.Command | None = None
    problems: Problems = _none
    stored_problems: Problems = _none
    logs: Logs = NO_LOGS
    preflight: Callable[[FleetHost, Fleet, Ask], Iterable[Line]] = _none
    status: Callable[[FleetHost, Fleet], Iterable[Look]] = _none
    commands: tuple[click.Command, ...] = ()
