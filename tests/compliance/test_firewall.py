"""What is open is what is declared, seen from inside and from outside."""

from __future__ import annotations

import re

import pytest

from fleet import paths
from fleet.facts.files import FileStates
from fleet.facts.firewall import RulesetState
from fleet.inventory import FleetHost
from tasks.firewall import managed_files
from tests.compliance.conftest import can_connect
from tests.compliance.connection import Target


def test_ruleset(each_host: Target) -> None:
    """The kernel's ruleset is exactly the declared one, and is loaded at boot."""
    _needs_firewall(each_host)
    files = managed_files(each_host.declared, each_host.fleet)
    states = each_host.fact(FileStates, paths=[file.path for file in files])
    assert states == {file.path: file.state for file in files}
    ruleset = each_host.fact(RulesetState, table=paths.FIREWALL_TABLE, path=paths.FIREWALL_RULESET)
    assert ruleset.declared, "the declared ruleset does not load"
    assert ruleset.live == ruleset.declared
    assert each_host.testinfra.service(paths.FIREWALL_UNIT).is_enabled


def test_sockets(each_host: Target) -> None:
    """TCP listens on exactly the declared addresses."""
    lines = each_host.run("ss -Hltn").splitlines()
    listening = {_endpoint(line.split()[3]) for line in lines}
    open_to_others = {item for item in listening if not _is_loopback(item[0])}
    declared = _declared_sockets(each_host.declared)
    # sshd and services outside this project may use either or both families.
    free_ports = {each_host.declared.host.ssh_port, *each_host.declared.firewall.open_tcp}
    surplus = {item for item in open_to_others - declared if item[1] not in free_ports}
    assert surplus == set(), f"not declared; processes: {each_host.run('ss -Hltnp')}"
    assert declared - listening == set(), "declared, but nothing listens"


def test_ollama_is_closed_to_others(gpu_host: Target) -> None:
    """Ollama's own port cannot be reached from this machine."""
    declared = gpu_host.declared
    addresses = {declared.outside_address, str(declared.host.private_address or "")} - {""}
    reached = [item for item in sorted(addresses) if can_connect(item, declared.ollama.port)]
    assert reached == [], f"port {declared.ollama.port} answers; the API has no authentication"


def _needs_firewall(target: Target) -> None:
    if not target.declared.firewall.enabled:
        pytest.skip("firewall_enabled = False")


def _declared_sockets(host: FleetHost) -> set[tuple[str, int]]:
    endpoints = []
    if host.is_gpu:
        endpoints.append(host.ollama_endpoint)
    if host.is_gateway:
        endpoints += host.gateway_endpoints + host.redirect_endpoints
        endpoints += host.metrics_endpoints.values()
    return {(endpoint.address, endpoint.port) for endpoint in endpoints}


def _endpoint(text: str) -> tuple[str, int]:
    """`ss` writes `10.0.0.1:22`, `[::]:22`, `*:22` and `127.0.0.53%lo:53`."""
    address, port = text.rsplit(":", 1)
    address = re.sub(r"%.*", "", address.strip("[]"))
    return {"*": "::"}.get(address, address), int(port)


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"
