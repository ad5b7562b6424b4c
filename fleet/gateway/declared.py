"""What follows from the gateway's settings: where it listens, its keys, and how it is reached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import SecretStr

from fleet.declare.capability import Service
from fleet.declare.fleet import Endpoint, Fleet, FleetHost
from fleet.gateway import tls
from fleet.gateway.settings import Gateway
from fleet.kit.secrets import Previous
from fleet.platform.declared import endpoint
from fleet.platform.settings import Platform


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
    declared = host[Gateway]
    if declared.metrics == "off":
        return {}
    ports = {
        "requests": declared.metrics_port,
        "nginx": declared.metrics_nginx_port,
        "node": declared.metrics_node_port,
    }
    return {name: endpoint(host, declared.metrics, port) for name, port in ports.items()}


def services(host: FleetHost, _: Fleet) -> Iterator[Service]:
    """The gateway itself, the redirect to it, and its exporters."""
    declared = host[Gateway]
    callers = declared.allow_from if declared.listen != "loopback" else ()
    private = "gateway_listen" if declared.listen == "private" else None
    yield Service(
        "gateway_port", "gateway", gateway_endpoints(host), callers, "front door", private
    )
    if redirect := redirect_endpoints(host):
        yield Service("gateway_http_port", "gateway redirect", redirect, callers, "gateway")
    for name, where in metrics_endpoints(host).items():
        is_private = declared.metrics == "private"
        yield Service(
            "gateway_metrics_port" if name == "requests" else f"gateway_metrics_{name}_port",
            f"gateway metrics {name}",
            (where,),
            declared.metrics_from if is_private else (),
            "gateway",
            "gateway_metrics" if is_private else None,
        )


def gateway_url(host: FleetHost) -> str | None:
    """Where clients find the gateway; None when it is open to its own host only."""
    declared = host[Gateway]
    if declared.listen == "loopback":
        return None
    scheme = "http" if declared.tls == "off" else "https"
    if declared.names:
        return f"{scheme}://{Endpoint(declared.names[0], declared.port)}"
    if declared.listen == "private":
        return f"{scheme}://{gateway_endpoints(host)[0]}"
    return f"{scheme}://{Endpoint(host.outside_address, declared.port)}"


def gateway_names(host: FleetHost) -> tuple[str, ...]:
    """Every name and address that the gateway's own certificate is for."""
    private = host[Platform].private_address
    addresses = [str(private)] if private else []
    names = {*host[Gateway].names, host.name, host.outside_address, *addresses, "localhost"}
    return tuple(sorted({*names, "127.0.0.1"}))


def gateway_keys(fleet: Fleet, host: FleetHost) -> dict[str, SecretStr]:
    """The API keys of a gateway: name to value. Missing ones are generated and kept."""
    return {
        key.name: fleet.secrets.api_key(f"gateway_key_{key.name}") for key in host[Gateway].keys
    }


def previous_gateway_key(fleet: Fleet, name: str) -> Previous | None:
    """The value that the key `name` had before its rotation."""
    return fleet.secrets.previous(f"gateway_key_{name}")


def trust_of(fleet: Fleet, host: FleetHost) -> str | bool:
    """What a client of this machine verifies the gateway with, as `requests` takes it."""
    if host[Gateway].tls != "private-ca":
        return True
    tls.ca_certificate(fleet.secrets)
    return str(fleet.secrets.path(tls.CA_CERTIFICATE))


def gateway_of(host: FleetHost, hosts: Iterable[FleetHost]) -> FleetHost | None:
    """The gateway that containers of `host` use: the host's own, else the first; None without."""
    usable = [item for item in hosts if item.runs(Gateway) and gateway_url(item)]
    return next((item for item in usable if item.name == host.name), next(iter(usable), None))


@dataclass(frozen=True)
class Access:
    """How containers of a host reach a gateway; `own_ca`: its certificate is the fleet's own."""

    url: str
    key: SecretStr
    own_ca: bool


def gateway_access(host: FleetHost, fleet: Fleet, key: str) -> Access:
    """How containers of `host` reach the gateway that they use, with the key called `key`."""
    gateway = gateway_of(host, fleet)
    assert gateway is not None  # refused by the problems of whoever asks
    return Access(
        str(gateway_url(gateway)),
        gateway_keys(fleet, gateway)[key],
        gateway[Gateway].tls == "private-ca",
    )


def local_gateway(host: FleetHost, fleet: Fleet) -> Endpoint | None:
    """Where containers of `host` call the gateway, when it is on that host."""
    gateway = gateway_of(host, fleet)
    return gateway_endpoints(host)[0] if gateway is host else None
