"""Hosts whose nginx serves sites of its own."""

from __future__ import annotations

from pyinfra import host

from fleet.declare.fleet import FleetHost
from fleet.gateway.paths import GATEWAY_DROPIN
from fleet.kit.errors import FleetError
from fleet.kit.facts.files import FileStates
from fleet.kit.facts.foreign import ForeignFiles


def refuse_foreign_sites(me: FleetHost) -> None:
    """nginx serves one configuration: taking a host over would end the sites that it has."""
    if GATEWAY_DROPIN in host.get_fact(FileStates, paths=[GATEWAY_DROPIN]):
        return
    found = host.get_fact(
        ForeignFiles, patterns=["/etc/nginx/sites-enabled/*", "/etc/nginx/conf.d/*.conf"]
    )
    sites = [path for path in found if path != "/etc/nginx/sites-enabled/default"]
    if sites:
        raise FleetError(
            f"{me.name}: nginx serves other sites here ({', '.join(sites)}), which the front door "
            "would replace; take another host for the gateway, or move the sites away"
        )
