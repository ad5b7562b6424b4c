"""Ports that several services of a host have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from fleet.declare.fleet import Fleet, FleetHost
from fleet.firewall.settings import Firewall


def problems(host: FleetHost, fleet: Fleet) -> Iterator[str]:
    """Ports that several services of the host have."""
    ports = [(item.setting, item.port) for item in fleet.services(host)]
    ports += [("firewall_open_tcp", port) for port in host[Firewall].open_tcp]
    for port, count in Counter(port for _, port in ports).items():
        if count > 1:
            names = " and ".join(name for name, number in ports if number == port)
            yield f"{host.name}: {names} are all {port}; give each service a port of its own"
