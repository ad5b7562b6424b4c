"""What is open is what is declared, seen from inside and from outside."""

from __future__ import annotations

import fnmatch
import ipaddress
import json
import re
import socket
import time

import pytest

from fleet.declare.capability import Server
from fleet.firewall.facts import OtherFilters, RulesetState
from fleet.firewall.files import managed_files
from fleet.firewall.paths import FIREWALL_RULESET, FIREWALL_TABLE, FIREWALL_UNIT
from fleet.firewall.preflight import closed_by_others
from fleet.firewall.probes import bridges, probes
from fleet.firewall.rules import open_ports
from fleet.firewall.scan import ALL_PORTS, WELL_KNOWN, scan
from fleet.firewall.settings import Firewall
from fleet.kit.facts.files import FileStates
from fleet.ollama.servers import instances_of
from fleet.platform.facts import HasIpv6
from fleet.platform.settings import Platform

from .conftest import can_connect
from .connection import Target
from .outcomes import Say


def test_ruleset(each_host: Target) -> None:
    """The kernel's ruleset is exactly the declared one, and is loaded at boot."""
    _needs_firewall(each_host)
    files = managed_files(each_host.declared, each_host.fleet)
    states = each_host.fact(FileStates, paths=[file.path for file in files])
    assert states == {file.path: file.state for file in files}
    ruleset = each_host.fact(RulesetState, table=FIREWALL_TABLE, path=FIREWALL_RULESET)
    assert ruleset.declared, "the declared ruleset does not load"
    assert ruleset.live == ruleset.declared
    unit = each_host.testinfra.service(FIREWALL_UNIT)
    assert unit.is_enabled
    # Failed, what was loaded at boot is not this ruleset, whoever repaired it by hand since.
    assert unit.is_running, each_host.journal(FIREWALL_UNIT)


def test_other_filters(each_host: Target, warns: Say) -> None:
    """No other packet filter of the host closes what is declared."""
    login = each_host.login()
    needed = probes(each_host.declared, each_host.fleet, login.source if login else None)
    found = each_host.fact(
        OtherFilters,
        probes=[str(probe) for probe in needed],
        bridges=bridges(each_host.declared),
    )
    ours, _ = closed_by_others(needed, found)
    assert ours == []
    if found.unknown:
        warns(f"not to be judged: {'; '.join(found.unknown)}")


def test_gateway_account_alone_calls_servers(gateway_host: Target) -> None:
    """From the gateway's host, nginx reaches the other hosts' servers, and no local user does."""
    _needs_firewall(gateway_host)
    servers = [item for item in gateway_host.fleet.servers() if _is_private(gateway_host, item)]
    if not servers:
        pytest.skip("no server of another host")
    own = gateway_host.declared[Platform].private_address
    for account, reaches in (("www-data", True), ("nobody", False)):
        for item in servers:
            result = gateway_host.testinfra.run(
                f"setpriv --reuid {account} --regid nogroup --clear-groups "
                f"curl -sS --noproxy '*' --interface {own} --max-time 5 -o /dev/null "
                f"http://{item.endpoint}/"
            )
            if reaches and result.rc:
                # Of a server whose host is down, that host tells.
                gateway_host.connections.host(item.host.name)
            assert (result.rc == 0) == reaches, f"{account}, {item.name}: {result.stderr}"


def test_sockets(each_host: Target) -> None:
    """TCP listens on exactly the declared addresses."""
    lines = each_host.run("ss -Hltn").splitlines()
    listening = {_endpoint(line.split()[3]) for line in lines}
    open_to_others = {item for item in listening if not _is_loopback(item[0])}
    services = each_host.fleet.services(each_host.declared)
    declared = {
        (at.address, at.port)
        for item in services
        if item.ours
        for at in item.endpoints
        if at.address != "::" or each_host.fact(HasIpv6)
    }
    # sshd and services outside this project may use either or both families.
    free_ports = {item.port for item in services if not item.ours}
    free_ports |= set(each_host.declared[Firewall].open_tcp)
    surplus = {item for item in open_to_others - declared if item[1] not in free_ports}
    assert surplus == set(), f"not declared; processes: {each_host.run('ss -Hltnp')}"
    assert declared - listening == set(), "declared, but nothing listens"


def test_ollama_is_closed_to_others(gpu_host: Target) -> None:
    """Ollama's own port cannot be reached from this machine."""
    declared = gpu_host.declared
    addresses = {declared.outside_address, str(declared[Platform].private_address or "")} - {""}
    ports = [item.endpoint.port for item in instances_of(declared)]
    reached = [
        (item, port) for item in sorted(addresses) for port in ports if can_connect(item, port)
    ]
    assert reached == [], "answers, and the API has no authentication"


def test_nothing_undeclared_answers(
    each_host: Target, request: pytest.FixtureRequest, measured: Say, warns: Say
) -> None:
    """No TCP port but the declared ones answers this machine, over IPv4 and IPv6."""
    addresses = _scanned_addresses(each_host)
    if not addresses:
        pytest.skip("this machine has no address of the host to scan")
    declared = open_ports(each_host.declared, each_host.fleet)
    full = request.config.getoption("--full-scan")
    ports = ALL_PORTS if full else sorted({*WELL_KNOWN, *declared})
    began = time.monotonic()
    found = scan(addresses, ports, rate=request.config.getoption("--scan-rate"))
    measured(f"{len(ports)} ports of {len(addresses)} in {time.monotonic() - began:.0f} s")
    if not any(found.values()):
        warns("nothing answers this machine, not even sshd: verify from where it does")
    surplus = {address: sorted(ports - declared) for address, ports in found.items()}
    assert not any(surplus.values()), f"{surplus}; {each_host.run('ss -Hltnp')}"


def _scanned_addresses(target: Target) -> list[str]:
    """Addresses that are surely this host's, seen from here.

    Those that are declared; and of what the host has itself, those that are unique in the world: a
    private IPv4 address, such as Docker's, may be somebody else where we are.
    """
    outside = target.declared.outside_address
    if outside.startswith("@"):
        return []  # the host is this machine: every packet would stay on its loopback
    addresses = {
        str(item[4][0]) for item in socket.getaddrinfo(outside, None, type=socket.SOCK_STREAM)
    }
    if target.declared[Platform].private_address:
        addresses.add(str(target.declared[Platform].private_address))
    links = json.loads(target.run("ip -json address show up scope global"))
    own = [
        ipaddress.ip_address(item["local"])
        for link in links
        if not _has_containers(link["ifname"], target.declared[Firewall].container_interfaces)
        for item in link.get("addr_info", [])
        if "local" in item
    ]
    addresses |= {str(item) for item in own if item.is_global or item.version == 6}
    return [item for item in sorted(addresses) if _has_route(item)]


def _has_containers(interface: str, declared: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(interface, name) for name in declared)


def _has_route(address: str) -> bool:
    """Whether this machine has any way to `address`; a UDP connect sends nothing."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
        except OSError:
            return False
    return True


def _is_private(gateway: Target, server: Server) -> bool:
    if not server.ours or server.host.name == gateway.declared.name:
        return False
    return not _is_loopback(server.endpoint.address)


def _needs_firewall(target: Target) -> None:
    if target.declared[Firewall].backend == "none":
        pytest.skip('firewall_backend = "none"')


def _endpoint(text: str) -> tuple[str, int]:
    """`ss` writes `10.0.0.1:22`, `[::]:22`, `*:22` and `127.0.0.53%lo:53`."""
    address, port = text.rsplit(":", 1)
    address = re.sub(r"%.*", "", address.strip("[]"))
    return {"*": "::"}.get(address, address), int(port)


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"
