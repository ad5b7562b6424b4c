"""What `fleet doctor` looks at before Dify is installed."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.preflight import Ask, Line, reached
from fleet.dify.settings import Dify
from fleet.docker.checks import registry_reached
from fleet.kit.proxy import proxy_environment


def checks(me: FleetHost, _: Fleet, ask: Ask) -> Iterator[Line]:
    """Where the release and the first of its images are from.

    Nobody publishes the checksum of a source tarball: the deploy alone compares the pinned one.
    """
    environment = proxy_environment(me[Dify].http_proxy, me[Dify].no_proxy)
    url = f"{me[Dify].release_url}/{me[Dify].version}.tar.gz"
    yield reached(ask, f"Dify {me[Dify].version}", url, environment)
    for image in list(me[Dify].images)[:1]:
        yield registry_reached(ask, me, image)
