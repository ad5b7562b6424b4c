"""What a capability tells of itself is seen by everybody who reads it.

A capability that is left out somewhere cannot exist: each check below is made for every one of
them, and made again for one that tells nothing, to see that it would be noticed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner
from pydantic import BaseModel, SecretStr

from fleet import cli
from fleet.capabilities import CAPABILITIES
from fleet.declare import inventory_file
from fleet.declare.capability import Capability, Service
from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.load import group_names, load_fleet
from fleet.declare.refusals import nested
from fleet.declare.types import AnyNetwork
from fleet.firewall.rules import Rule, accept_rules, published_rules
from fleet.kit.errors import SettingsError
from fleet.platform.facts import HasIpv6
from tests.alternatives import vllm
from tests.compliance import test_firewall as compliance
from tests.fleets import EVERYTHING, FLEETS, Hosts, inventory_of
from tests.unit.rendered import make_files

Capabilities = tuple[Capability, ...]
TELLING = [item for item in CAPABILITIES if item.services is not Capability.services]


def loaded(hosts: Hosts, capabilities: Capabilities = CAPABILITIES) -> Fleet:
    return load_fleet(inventory_of(hosts), capabilities, deploys=True)


def name_of(item: Capability) -> str:
    return item.settings.__name__


def silent(item: Capability) -> Capabilities:
    """All capabilities, of which `item` tells no service."""
    return exchanged(item, replace(item, services=Capability.services))


def exchanged(item: Capability, other: Capability) -> Capabilities:
    return tuple(other if entry is item else entry for entry in CAPABILITIES)


def refused(data: dict[str, Any], capabilities: Capabilities) -> list[str]:
    """What is refused of a host with every capability, which has `data` otherwise."""
    declared = {key: value for key, value in {**EVERYTHING[1], **data}.items() if value is not None}
    try:
        loaded({"all": (EVERYTHING[0], declared)}, capabilities)
    except SettingsError as error:
        return error.problems
    return []


each = pytest.mark.parametrize("item", TELLING, ids=name_of)
each_fleet = pytest.mark.parametrize("hosts", FLEETS.values(), ids=FLEETS)


def is_port(name: str, annotation: Any) -> bool:
    """Whether a setting is a port, or a list of tables with one."""
    tables: Iterator[type[BaseModel]] = nested(annotation)
    return (
        name == "port"
        or name.endswith("_port")
        or any("port" in table.model_fields for table in tables)
    )


PORTS = [
    f"{item.settings.prefix}{name}"
    for item in CAPABILITIES
    for name, field in item.settings.model_fields.items()
    if is_port(name, field.annotation)
]
# Setting to the capability that has it.
PRIVATE = {
    f"{item.settings.prefix}{name}": item
    for item in CAPABILITIES
    for name, field in item.settings.model_fields.items()
    if "private" in get_args(field.annotation)
}


def told(services: Iterable[Service]) -> set[str]:
    """The settings of services; those of several servers have one setting."""
    return {service.setting.split()[0] for service in services}


def told_ports(capabilities: Capabilities) -> set[str]:
    """The settings of all services that the hosts of the fleets tell."""
    fleets = [loaded(hosts, capabilities) for hosts in FLEETS.values()]
    return {name for fleet in fleets for host in fleet for name in told(fleet.services(host))}


class TestServices:
    def test_every_port_is_told(self) -> None:
        assert told_ports(CAPABILITIES) == set(PORTS)

    @each
    def test_port_that_is_not_told_is_noticed(self, item: Capability) -> None:
        assert told_ports(silent(item)) < set(PORTS)

    def test_every_private_address_is_told(self) -> None:
        declared, told = self.private(CAPABILITIES)
        assert declared == told == set(PRIVATE)

    @each
    def test_private_address_that_is_not_told_is_noticed(self, item: Capability) -> None:
        def services(host: FleetHost, fleet: Fleet) -> Iterator[Service]:
            for service in item.services(host, fleet):
                yield replace(service, private=None)

        declared, told = self.private(exchanged(item, replace(item, services=services)))
        assert declared - told == {key for key, owner in PRIVATE.items() if owner is item}

    @staticmethod
    def private(capabilities: Capabilities) -> tuple[set[str], set[str]]:
        """Settings that are `private` on a host of the fleets, and those that services tell so."""
        declared, told = set[str](), set[str]()
        for hosts in FLEETS.values():
            fleet = loaded(hosts, capabilities)
            for host in fleet:
                told |= {service.private for service in fleet.services(host) if service.private}
                declared |= {key for key in PRIVATE if is_private(host, key)}
        return declared, told


def is_private(host: FleetHost, key: str) -> bool:
    settings = PRIVATE[key].settings
    name = key.removeprefix(settings.prefix)
    return host.runs(settings) and getattr(host[settings], name) == "private"


class TestFirewall:
    @each_fleet
    def test_callers_are_let_in(self, hosts: Hosts) -> None:
        fleet = loaded(hosts)
        for host in fleet:
            assert self.shut_out(fleet.services(host), host, fleet) == []

    @each
    def test_service_that_is_left_out_is_noticed(self, item: Capability) -> None:
        shut_out = set[str]()
        for hosts in FLEETS.values():
            fleet, without = loaded(hosts), loaded(hosts, silent(item))
            for host in without:
                shut_out |= set(self.shut_out(fleet.services(fleet[host.name]), host, without))
        assert shut_out

    def shut_out(self, services: Iterable[Service], host: FleetHost, fleet: Fleet) -> list[str]:
        """The names of services whose callers no rule lets in."""
        accepted, published = list(accept_rules(host, fleet)), list(published_rules(host, fleet))
        return [
            service.name
            for service in services
            for network in service.callers
            if not self.lets_in(accepted, service, network)
            or (service.published and not self.lets_in(published, service, network))
        ]

    @staticmethod
    def lets_in(rules: list[Rule], service: Service, network: AnyNetwork) -> bool:
        source = str(network) if network.prefixlen else f"nfproto ipv{network.version}"
        return any(
            rule.port == service.port and rule.comment == service.comment and source in rule.source
            for rule in rules
        )


PAIRS = list(itertools.combinations(PORTS, 2))


def on_one_port(first: str, second: str, capabilities: Capabilities) -> list[str]:
    """All that is refused where two settings are one port."""
    [server] = vllm.LEAST["vllm_servers"]
    tables = {
        "ollama_instances": [{"name": "a", "port": 7777}],
        "vllm_servers": [{**server, "port": 7777}],
    }
    data = {key: tables.get(key, 7777) for key in (first, second)}
    return refused(data, capabilities)


class TestPorts:
    @pytest.mark.parametrize(("first", "second"), PAIRS)
    def test_two_on_one_port_are_refused(self, first: str, second: str) -> None:
        [line] = on_one_port(first, second, CAPABILITIES)
        assert [part for part in (first, second, "7777") if part not in line] == [], line

    @each
    def test_port_that_is_left_out_is_noticed(self, item: Capability) -> None:
        fleet = loaded({"all": EVERYTHING})
        names = sorted(told(item.services(fleet["all"], fleet)))
        other = next(key for key in PORTS if key not in names)
        assert names
        for name in names:
            assert on_one_port(name, other, silent(item)) == []


class TestAddresses:
    @pytest.mark.parametrize("key", PRIVATE)
    def test_private_needs_an_address(self, key: str) -> None:
        [line] = self.without_address(key, CAPABILITIES)
        assert f"{key} = 'private' needs private_address" in line

    @pytest.mark.parametrize("key", PRIVATE)
    def test_setting_that_is_left_out_is_noticed(self, key: str) -> None:
        assert self.without_address(key, silent(PRIVATE[key])) == []

    @staticmethod
    def without_address(key: str, capabilities: Capabilities) -> list[str]:
        """All that is refused of a host without an address whose only private setting is `key`."""
        data: dict[str, Any] = {
            **dict.fromkeys(PRIVATE, "loopback"),
            # Containers find neither Ollama nor a gateway on loopback.
            "dify_ollama": "gateway",
            "gateway_listen": "any",
            "gateway_keys": ["webui", {"name": "dify", "overrides": "allow"}],
            key: "private",
            "private_address": None,
        }
        if key == "gateway_metrics":
            data["gateway_metrics_from"] = ["10.0.0.0/8"]
        elif "allow_from" in PRIVATE[key].settings.model_fields:
            data[key.replace("listen", "allow_from")] = ["10.0.0.0/8"]
        return refused(data, capabilities)


def file_of(hosts: Hosts) -> str:
    """The inventory file of `hosts`."""
    groups: dict[str, list[Any]] = {}
    for name, (names, data) in hosts.items():
        for group in names.split():
            groups.setdefault(group, []).append((name, dict(data)))
    return "".join(f"{group} = {members!r}\n" for group, members in groups.items())


@each_fleet
def test_check_prints_every_address(hosts: Hosts, inventory: Path) -> None:
    inventory.write_text(file_of(hosts))
    result = CliRunner().invoke(cli.main, ["check", str(inventory)])
    assert result.exit_code == 0, result.output
    fleet = loaded(hosts)
    for host in fleet:
        [line] = [line for line in result.output.splitlines() if line.startswith(f"{host.name} ")]
        addresses = [f"{item.name} {at}" for item in fleet.services(host) for at in item.endpoints]
        assert line.endswith(", ".join(addresses))
        assert addresses


class Listening:
    """A host under test, on which there are these sockets."""

    def __init__(self, declared: FleetHost, fleet: Fleet, sockets: list[str]) -> None:
        self.declared, self.fleet = declared, fleet
        self.sockets = sockets

    def run(self, command: str) -> str:
        assert command.startswith("ss ")
        return "\n".join(f"LISTEN 0 511 {socket} 0.0.0.0:*" for socket in self.sockets)

    def fact(self, asked: type) -> bool:
        assert asked is HasIpv6
        return True


class TestComplianceOfSockets:
    @each_fleet
    def test_every_endpoint_is_looked_for(self, hosts: Hosts) -> None:
        fleet = loaded(hosts)
        for host in fleet:
            sockets = [
                str(at) for item in fleet.services(host) if item.ours for at in item.endpoints
            ]
            compliance.test_sockets(Listening(host, fleet, sockets))
            for socket in sockets:
                others = [item for item in sockets if item != socket]
                with pytest.raises(AssertionError, match="declared, but nothing listens"):
                    compliance.test_sockets(Listening(host, fleet, others))

    @pytest.mark.parametrize("item", [x for x in TELLING if x.group], ids=name_of)
    def test_endpoint_that_is_left_out_is_noticed(self, item: Capability) -> None:
        noticed = 0
        for hosts in FLEETS.values():
            fleet, without = loaded(hosts), loaded(hosts, silent(item))
            for host in fleet.running(item.settings):
                services = item.services(host, fleet)
                sockets = [str(at) for service in services for at in service.endpoints]
                if all(socket.startswith("127.") for socket in sockets):
                    continue
                with pytest.raises(AssertionError, match="not declared"):
                    compliance.test_sockets(Listening(without[host.name], without, sockets))
                noticed += 1
        assert noticed


def ungrouped(group: str) -> Capabilities:
    """All capabilities, of which none has `group`."""
    return tuple(
        replace(item, group=None) if item.group == group else item for item in CAPABILITIES
    )


each_group = pytest.mark.parametrize("group", group_names(CAPABILITIES))


class TestGroups:
    @each_group
    def test_is_refused_what_pyinfra_would_lose(self, group: str, inventory: Path) -> None:
        inventory.write_text(f'{group} = "page"\nothers = ["b"]\n')
        with pytest.raises(SettingsError, match=f"{group}: not a list of hosts"):
            inventory_file.check(inventory, group_names(CAPABILITIES))
        inventory_file.check(inventory, group_names(ungrouped(group)))


@pytest.mark.parametrize("item", CAPABILITIES, ids=name_of)
def test_host_that_is_given_secrets_is_known_to_keep_some(item: Capability) -> None:
    files = make_files(item, loaded({"all": EVERYTHING}))
    assert any(isinstance(file.content, SecretStr) for file in files) == item.keeps_secrets
