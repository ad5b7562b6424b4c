"""Servers that are not ours: what gateways call them, and the files by which nginx reaches them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cryptography import x509
from pydantic import SecretStr

from fleet.declare.capability import Server
from fleet.declare.fleet import Endpoint, Fleet, FleetHost
from fleet.gateway.backend import Backend
from fleet.gateway.paths import GATEWAY_BACKENDS, GATEWAY_DIR, GATEWAY_STATE
from fleet.gateway.settings import Gateway
from fleet.kit.files import ManagedFile
from fleet.kit.render import render

# What a key may consist of: nginx would take a `$` for a variable.
_KEY = re.compile(r"[A-Za-z0-9._~+/=:-]{1,4096}")
DISTRIBUTIONS_CAS = "/etc/ssl/certs/ca-certificates.crt"  # of the package ca-certificates


def servers(host: FleetHost) -> Iterator[Server]:
    """The backends of the gateway `host`, each as a server of a host that has its name."""
    for item in host[Gateway].backends:
        yield Server(
            foreign_host(item),
            None,
            Endpoint(item.host, item.port),
            item.surfaces,
            tuple(item.models),
            closed=True,
            ours=False,
        )


def foreign_host(backend: Backend) -> FleetHost:
    """What stands for whoever runs `backend`: a host without any capability."""
    return FleetHost(backend.name, frozenset(), backend.host, (), frozenset())


def backends_of(fleet: Fleet) -> dict[str, Backend]:
    """The fleet's backends by name; all gateways have the same ones."""
    return {item.name: item for host in fleet.running(Gateway) for item in host[Gateway].backends}


def secret_name(key: str) -> str:
    """What the store calls the key of a backend whose setting `key` is this."""
    return f"gateway_backend_{key}"


def socket_of(name: str) -> str:
    """Where nginx passes requests on to the backend `name`: none but its workers may open it."""
    return f"{GATEWAY_STATE}/backend-{name}.sock"


def needs_authorities(me: FleetHost) -> bool:
    """Whether a backend's certificate is verified with the distribution's own authorities."""
    return any(item.is_https and item.ca is None for item in me[Gateway].backends)


def backend_files(me: FleetHost, fleet: Fleet, resolvers: tuple[str, ...]) -> list[ManagedFile]:
    """What has nginx pass requests on to the backends of `me`, their keys and authorities.

    `resolvers` are the gateway's own DNS servers.
    """
    declared = me[Gateway].backends
    if not declared:
        return []
    relays = [
        {
            "name": item.name,
            "socket": socket_of(item.name),
            "scheme": "https" if item.is_https else "http",
            "address": str(Endpoint(item.host, item.port)),
            "by_name": not item.is_number,
            # As clients write it: without the port that everybody knows.
            "host": item.address.partition("://")[2],
            "key": _key(fleet, item),
            "tls_name": item.tls_name or item.host,
            "authorities": _authorities_file(item) if item.ca else DISTRIBUTIONS_CAS,
        }
        for item in declared
    ]
    text = render("gateway/backends.conf.j2", relays=relays, resolvers=resolvers)
    return [
        ManagedFile(GATEWAY_BACKENDS, SecretStr(text), mode="600"),
        *(
            ManagedFile(f"{GATEWAY_DIR}/{_authorities_file(item)}", _read(fleet, item.ca))
            for item in declared
            if item.ca
        ),
    ]


def backend_paths(me: FleetHost) -> list[str]:
    """The same files' paths."""
    declared = me[Gateway].backends
    authorities = [f"{GATEWAY_DIR}/{_authorities_file(item)}" for item in declared if item.ca]
    return [GATEWAY_BACKENDS, *authorities] if declared else []


def _authorities_file(item: Backend) -> str:
    # Relative to nginx's configuration, so that it is judged with the files that it will meet.
    return f"backend-{item.name}.pem"


def _read(fleet: Fleet, path: str) -> str:
    return (fleet.root / path).read_text().rstrip("\n") + "\n"


def _key(fleet: Fleet, item: Backend) -> str:
    if item.key is None:
        return ""
    # There and usable: stored_problems has seen to it.
    return fleet.secrets.text(secret_name(item.key), str).get_secret_value()


def problems(host: FleetHost, fleet: Fleet) -> Iterator[str]:
    """What of the backends of the gateway `host` cannot be."""
    first = fleet.running(Gateway)[0]
    if host[Gateway].backends != first[Gateway].backends:
        yield (
            f"{host.name}: gateway_backends is not that of {first.name}, and drains, usage and "
            "status are about both; declare it for the whole group"
        )
        return
    names = {item.name for item in fleet}
    for item in host[Gateway].backends:
        said = f"{host.name}: gateway_backends: {item.name}"
        if item.name in names:
            yield f"{said} is a host of this inventory; give the backend another name"
        if item.ca is not None:
            yield from _authority_problems(said, fleet, item.ca)


def _authority_problems(said: str, fleet: Fleet, ca: str) -> Iterator[str]:
    path = fleet.root / ca
    if not path.is_file():
        yield f"{said}: ca = {ca!r}: no such file; paths are relative to {fleet.root}"
        return
    try:
        x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError:
        yield f"{said}: ca = {ca!r}: {path} holds no certificate in PEM"


def stored_problems(host: FleetHost, fleet: Fleet) -> Iterator[str]:
    """Keys of backends that the secrets store lacks, or that no HTTP header could have."""
    for item in host[Gateway].backends:
        if item.key is None:
            continue
        name = secret_name(item.key)
        value, path = fleet.secrets.read(name), fleet.secrets.path(name)
        said = f"{host.name}: gateway_backends: {item.name}: key = {item.key!r}"
        if value is None:
            yield (
                f"{said}: the secrets store has no {name}: put the key that its operator gave you "
                f"at {path}, mode 600, or import it (`fleet secrets import`)"
            )
        elif not _KEY.fullmatch(value.get_secret_value()):
            yield (
                f"{said}: what is in {path} is no key: letters, digits and ._~+/=:- on one line are"
            )
