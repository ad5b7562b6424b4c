"""What `fleet doctor` looks at before Docker is installed."""

from __future__ import annotations

from collections.abc import Iterator

from pyinfra.facts.server import LinuxDistribution

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.preflight import (
    Ask,
    Line,
    UnansweredError,
    judged,
    not_checked,
    ok,
    reached,
    warn,
)
from fleet.docker.packages import repository
from fleet.docker.paths import DOCKER_ROOT
from fleet.docker.preflight import UNIT_PATTERNS, refuse_snap
from fleet.docker.settings import Docker
from fleet.kit.facts.foreign import ForeignFiles
from fleet.kit.facts.reach import FreeRoom
from fleet.kit.on_host.common import size_text

_SCARCE = 20_000_000_000  # bytes, with which the images of a stack hardly fit


def checks(me: FleetHost, _: Fleet, ask: Ask) -> Iterator[Line]:
    """Another installer's Docker, where ours is from, and the disk for images."""
    yield judged("other Docker", lambda: _snap(me, ask))
    try:
        if me[Docker].source == "docker":
            release = ask(LinuxDistribution)["release_meta"]
            yield reached(ask, "Docker's repository", repository(me, release).key, {})
        yield _disk(me, ask)
    except UnansweredError as error:
        yield not_checked("disk for images", str(error))


def _snap(me: FleetHost, ask: Ask) -> str:
    refuse_snap(me, ask(ForeignFiles, patterns=UNIT_PATTERNS))
    return "no snap of it"


def _disk(me: FleetHost, ask: Ask) -> Line:
    """An image tells no size before it is there: what is free is all that can be said."""
    what, place = "disk for images", me[Docker].data_root or DOCKER_ROOT
    free = ask(FreeRoom, paths=[place]).get(place)
    if free is None:
        return not_checked(what, f"{place}: df does not tell of it")
    text = f"{place}: {size_text(free)} free; images tell no size before they are pulled"
    if free < _SCARCE:
        return warn(what, f"{text}, and a stack's are often more: make room")
    return ok(what, text)


def registry_reached(ask: Ask, me: FleetHost, image: str) -> Line:
    """The check that the host reaches the registry of `image`: who is not logged in is asked to."""
    first = image.partition("/")[0]
    is_named = "." in first or ":" in first
    registry = first if is_named and "/" in image else "registry-1.docker.io"
    scheme = "http" if registry in me[Docker].insecure_registries else "https"
    return reached(ask, f"registry {registry}", f"{scheme}://{registry}/v2/", {}, (200, 401))
