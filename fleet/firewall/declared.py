"""Who may log in."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.capability import Service
from fleet.declare.fleet import Endpoint, Fleet, FleetHost
from fleet.firewall.settings import Firewall
from fleet.platform.settings import Platform


def services(host: FleetHost, _: Fleet) -> Iterator[Service]:
    """sshd, which is the host's own and may use either or both families."""
    endpoint = Endpoint(host.outside_address, host[Platform].ssh_port)
    yield Service("ssh_port", "ssh", (endpoint,), host[Firewall].ssh_from, "ssh", ours=False)
