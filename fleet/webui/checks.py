"""What `fleet doctor` looks at before Open WebUI is installed."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.preflight import Ask, Line
from fleet.docker.checks import registry_reached
from fleet.webui.settings import Webui


def checks(me: FleetHost, _: Fleet, ask: Ask) -> Iterator[Line]:
    """Where its image is from; its digest is pinned, and Docker compares it."""
    yield registry_reached(ask, me, str(me[Webui].image))
