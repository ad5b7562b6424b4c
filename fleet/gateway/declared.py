"""What follows from the gateway's settings: where it listens, its keys, and how it is reached."""

from __future__ import annotations

import atexit
import ssl
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import SecretStr

from fleet.declare.capability import Service
from fleet.declare.fleet import Endpoint, Fleet, FleetHost, Url
from fleet.gateway import tls
from fleet.gateway.paths import (
    ACME_ROOT,
    GATEWAY_DIR,
    GATEWAY_STATE,
    GATEWAY_UNIT,
    METRICS_UNIT,
)
from fleet.gateway.settings import Gateway
from fleet.kit.places import Directory
from fleet.kit.secrets import Previous
from fleet.platform.declared import endpoint
from fleet.platform.settings import Platform

# Of nginx's workers.
STATE = Directory(GATEWAY_STATE, GATEWAY_STATE, "www-data")
# Exporter to the setting of its port.
_METRICS_PORTS = {
    "requests": "metrics_port", "nginx": "metrics_nginx_port", "node": "metrics_node_port",
}  # fmt: skip


def gateway_endpoints(host: FleetHost) -> tuple[Endpoint, ...]:
    """Where the gateway listens."""
    declared = host[Gateway]
    if declared.listen == "any":
        return tuple(Endpoint(address, declared.port) for address in ("0.0.0.0", "::"))  # noqa: S104 - declared
    return (endpoint(host, declared.listen, declared.port),)


def redirect_endpoints(host: FleetHost) -> tuple[Endpoint, ...]:
    """Where plain HTTP is redirected."""
    port = host[Gateway].http_port
    return tuple(Endpoint(item.address, port) for item in gateway_endpoints(host) if port)


def metrics_endpoints(host: FleetHost) -> dict[str, Endpoint]:
    """Exporter (`requests`, `nginx`, `node`) to where Prometheus finds it."""
    listen = host[Gateway].metrics
    if listen == "off":
        return {}
    return {
        name: endpoint(host, listen, getattr(host[Gateway], port))
        for name, port in _METRICS_PORTS.items()
    }


def services(host: FleetHost, _: Fleet) -> Iterator[Service]:
    """The gateway itself, the redirect to it, and its exporters."""
    declared = host[Gateway]
    callers = declared.allow_from if declared.listen != "loopback" else ()
    private = "gateway_listen" if declared.listen == "private" else None
    yield Service(
        "gateway_port",
        "gateway",
        gateway_endpoints(host),
        callers,
        # Kept: another word would have each gateway try its ruleset anew.
        "front door",
        private,
        held_by=(GATEWAY_UNIT,),
    )
    if redirect := redirect_endpoints(host):
        yield Service(
            "gateway_http_port", "gateway redirect", redirect, callers, "gateway",
            held_by=(GATEWAY_UNIT,),
        )  # fmt: skip
    for name, where in metrics_endpoints(host).items():
        is_private = declared.metrics == "private"
        yield Service(
            f"{Gateway.prefix}{_METRICS_PORTS[name]}",
            f"gateway metrics {name}",
            (where,),
            declared.metrics_from if is_private else (),
            "gateway",
            "gateway_metrics" if is_private else None,
            held_by=(
                METRICS_UNIT if name == "requests" else f"prometheus-{name}-exporter.service",
            ),
        )


def directories(host: FleetHost) -> Iterator[Directory]:
    """Its settings, and what the certificate authority asks for."""
    yield Directory(GATEWAY_DIR, GATEWAY_DIR)
    yield STATE
    if host[Gateway].tls == "acme":
        yield Directory(ACME_ROOT, ACME_ROOT)


def gateway_url(host: FleetHost) -> Url | None:
    """Where clients find the gateway; None when it is open to its own host only."""
    declared = host[Gateway]
    if declared.listen == "loopback":
        return None
    if declared.names:
        where = Endpoint(declared.names[0], declared.port)
    elif declared.listen == "private":
        where = gateway_endpoints(host)[0]
    else:
        where = Endpoint(host.outside_address, declared.port)
    return Url("http" if declared.tls == "off" else "https", where)


def urls(host: FleetHost, _: Fleet) -> Iterator[tuple[str, str]]:
    """The gateway's URL; none when only its own host can call it."""
    if url := gateway_url(host):
        yield "gateway", str(url)


def gateway_names(host: FleetHost) -> tuple[str, ...]:
    """Every name and address that the gateway's own certificate is for."""
    private = host[Platform].private_address
    addresses = [str(private)] if private else []
    names = {*host[Gateway].names, host.name, host.outside_address, *addresses, "localhost"}
    return tuple(sorted({*names, "127.0.0.1"}))


def gateway_keys(fleet: Fleet, host: FleetHost) -> dict[str, SecretStr]:
    """The API keys of a gateway: name to value. A deploy makes what is missing."""
    return {key.name: gateway_key(fleet, key.name) for key in host[Gateway].keys}


def gateway_key(fleet: Fleet, name: str) -> SecretStr:
    """The API key `name`; made by a deploy when missing."""
    return fleet.secrets.api_key(f"gateway_key_{name}")


def previous_gateway_key(fleet: Fleet, name: str) -> Previous | None:
    """The value that the key `name` had before its rotation."""
    return fleet.secrets.previous(f"gateway_key_{name}")


def authority_certificate(fleet: Fleet) -> str:
    """The certificate of the fleet's own authority, in PEM."""
    return tls.ca_certificate(fleet.secrets, authority_names(fleet))


def authority_names(fleet: Fleet) -> list[str]:
    """What the fleet's own authority may speak for: what its gateways are called."""
    return [name for gateway in fleet.running(Gateway) for name in gateway_names(gateway)]


def trust_of(fleet: Fleet, host: FleetHost) -> str | bool:
    """What a client of this machine verifies the gateway with, as `requests` takes it."""
    if host[Gateway].tls != "private-ca":
        return True
    return _trust_file(authority_certificate(fleet))


def context_of(fleet: Fleet, host: FleetHost) -> ssl.SSLContext | bool:
    """The same, as `httpx` takes it."""
    trust = trust_of(fleet, host)
    return ssl.create_default_context(cafile=trust) if isinstance(trust, str) else trust


@cache
def _trust_file(certificate: str) -> str:
    """A file that holds `certificate` until the program ends: stores may be encrypted, it is not.

    A certificate is no secret.
    """
    folder = tempfile.TemporaryDirectory(prefix="llm-fleet-")
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "authority.pem"
    path.write_text(certificate)
    return str(path)


def gateway_of(host: FleetHost, hosts: Iterable[FleetHost]) -> FleetHost | None:
    """The gateway that containers of `host` use: the host's own, else the first; None without."""
    usable = [item for item in hosts if item.runs(Gateway) and gateway_url(item)]
    return next((item for item in usable if item.name == host.name), next(iter(usable), None))


@dataclass(frozen=True)
class Access:
    """How containers of a host reach a gateway; `own_ca`: its certificate is the fleet's own."""

    url: Url
    key: SecretStr
    own_ca: bool


def gateway_access(host: FleetHost, fleet: Fleet, key: str) -> Access:
    """How containers of `host` reach the gateway that they use, with the key called `key`."""
    gateway = gateway_of(host, fleet)
    url = gateway_url(gateway) if gateway else None
    # Both are refused by the problems of whoever asks.
    assert gateway is not None
    assert url is not None
    return Access(
        url,
        gateway_key(fleet, key),
        gateway[Gateway].tls == "private-ca",
    )


def local_gateway(host: FleetHost, fleet: Fleet) -> Endpoint | None:
    """Where containers of `host` call the gateway, when it is on that host."""
    gateway = gateway_of(host, fleet)
    return gateway_endpoints(host)[0] if gateway is host else None
