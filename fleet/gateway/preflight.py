"""Hosts whose nginx serves sites of its own."""

from __future__ import annotations

from fleet.declare.fleet import FleetHost
from fleet.kit.errors import FleetError

SITE_PATTERNS = ["/etc/nginx/sites-enabled/*", "/etc/nginx/conf.d/*.conf"]
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
