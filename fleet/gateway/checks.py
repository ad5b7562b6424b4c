"""What `fleet doctor` looks at before a host is a gateway."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from pyinfra.facts.server import LinuxDistribution

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.preflight import Ask, Line, fail, judged, ok, reached, warn
from fleet.gateway.paths import GATEWAY_DROPIN
from fleet.gateway.preflight import SITE_PATTERNS, refuse_foreign_sites, refuse_without_lua
from fleet.gateway.settings import Gateway
from fleet.kit.errors import FleetError
from fleet.kit.facts.files import FileStates
from fleet.kit.facts.foreign import ForeignFiles
from fleet.platform.settings import Platform


def checks(me: FleetHost, fleet: Fleet, ask: Ask) -> Iterator[Line]:
    """nginx and its other sites, the gateway's names, its keys, and who gives the certificate."""
    yield judged("nginx", lambda: _nginx(me, ask))
    for name in me[Gateway].names:
        yield _name(me, name)
    yield judged("keys", lambda: _keys(me, fleet))
    for item in me[Gateway].backends:
        # With an authority of its own it is looked at by nginx alone, once that runs.
        if not (item.ca or item.tls_name):
            url = f"{item.address}{item.health}"
            # Without its key, which no command line is for.
            yield reached(ask, f"backend {item.name}", url, {}, (200, 401, 403))
    if me[Gateway].tls == "acme":
        yield reached(ask, "certificate authority", me[Gateway].acme_directory, {})


def _nginx(me: FleetHost, ask: Ask) -> str:
    refuse_without_lua(me, ask(LinuxDistribution)["release_meta"])
    if GATEWAY_DROPIN in ask(FileStates, paths=[GATEWAY_DROPIN]):
        return "is the gateway's"
    refuse_foreign_sites(me, ask(ForeignFiles, patterns=SITE_PATTERNS))
    return "serves no other site"


def _name(me: FleetHost, name: str) -> Line:
    """Whether a client that is where this machine is finds the gateway by `name`."""
    what = f"name {name}"
    found = _addresses(name)
    if not found:
        return fail(
            what,
            "has no address on this machine: add it to DNS, or take it out of gateway_names",
        )
    private = me[Platform].private_address
    own = _addresses(me.outside_address) | ({str(private)} if private else set())
    text = f"is {', '.join(sorted(found))}"
    if own and not found & own:
        return warn(
            what,
            f"{text}, and this host is {', '.join(sorted(own))}: clients come elsewhere, unless "
            "that is what leads here (a load balancer, address translation)",
        )
    return ok(what, text)


def _addresses(name: str) -> set[str]:
    try:
        return {str(item[4][0]).partition("%")[0] for item in socket.getaddrinfo(name, None)}
    except (OSError, UnicodeError):
        return set()


def _keys(me: FleetHost, fleet: Fleet) -> str:
    """Which keys have a value; what is not there yet, the deploy makes."""
    names = [key.name for key in me[Gateway].keys]
    missing = [name for name in names if fleet.secrets.read(f"gateway_key_{name}") is None]
    if not names:
        raise FleetError(f"{me.name}: gateway_keys is empty, so nobody is served; name a key")
    if missing:
        return f"{len(names)} declared; the deploy makes {', '.join(missing)}"
    return f"{len(names)} declared, all in {fleet.secrets.root}"
