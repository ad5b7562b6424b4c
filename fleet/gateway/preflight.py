"""Hosts that cannot be a gateway: nginx serves other sites there, or has no Lua."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleet.declare.fleet import FleetHost
from fleet.gateway.settings import Gateway
from fleet.kit.errors import FleetError

SITE_PATTERNS = ["/etc/nginx/sites-enabled/*", "/etc/nginx/conf.d/*.conf"]
# Of the releases that a fleet's hosts may have, those without the package of nginx's Lua module.
WITHOUT_LUA = {("ubuntu", "22.04")}
_PACKAGES_OWN = "/etc/nginx/sites-enabled/default"


def refuse_foreign_sites(me: FleetHost, found: list[str]) -> None:
    """Refuse a host that is no gateway yet and whose files of `SITE_PATTERNS` are `found`.

    nginx serves one configuration: taking a host over would end the sites that it has.

    Raises:
        FleetError: there are sites but the package's own.
    """
    sites = [path for path in found if path != _PACKAGES_OWN]
    if sites:
        raise FleetError(
            f"{me.name}: nginx serves other sites here ({', '.join(sites)}), which the gateway "
            "would replace; take another host for the gateway, or move the sites away"
        )


def refuse_without_dns(me: FleetHost, nameservers: Sequence[str]) -> None:
    """Refuse a gateway with a backend by name, when `nameservers` are no DNS servers to ask.

    Raises:
        FleetError: there is none.
    """
    named = [item.address for item in me[Gateway].backends if not item.is_number]
    if named and not nameservers:
        raise FleetError(
            f"{me.name}: gateway_backends: {', '.join(named)}: nginx asks the DNS servers of "
            "/etc/resolv.conf for names, and none is there; add one, or write IP addresses"
        )


def refuse_without_lua(me: FleetHost, release: Mapping[str, str]) -> None:
    """Refuse a gateway whose os-release is `release`, when its distribution has no Lua for nginx.

    Raises:
        FleetError: it has none.
    """
    name, version = release.get("ID", "unknown"), release.get("VERSION_ID", "unknown")
    if (name, version) in WITHOUT_LUA:
        raise FleetError(
            f"{me.name}: {name} {version} has no libnginx-mod-http-lua, with which the gateway "
            "judges requests; take a host with Debian 12 or 13, or Ubuntu 24.04 or later, for the "
            f"gateway ({name} {version} can stay a GPU host)"
        )
