"""What `fleet doctor` looks at before weights are fetched."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.preflight import Ask, Line, judged, reached
from fleet.kit.proxy import proxy_environment
from fleet.weights.declared import declared, is_off
from fleet.weights.files import endpoint_of
from fleet.weights.on_host.hub import file_url
from fleet.weights.preflight import refuse_without_room
from fleet.weights.settings import Weights

# Without a token; where that is needed, the answer says that the hub is there.
_ANSWERS = (200, 401, 403)


def checks(me: FleetHost, _: Fleet, ask: Ask) -> Iterator[Line]:
    """Whether they fit the disk, and whether each source answers."""
    if is_off(me):
        return
    yield judged("disk for weights", lambda: refuse_without_room(me, ask))
    settings = me[Weights]
    environment = proxy_environment(settings.https_proxy, settings.no_proxy)
    for name, item in declared(me).items():
        about, smallest = item.declaration, min(item.lock.files, key=lambda file: file.size)
        url = file_url(
            about.source,
            endpoint_of(settings, item),
            about.repository,
            about.revision,
            smallest.path,
        )
        yield reached(ask, f"weights {name}", url, environment, _ANSWERS)
