"""What of a gateway's settings cannot work."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.types import Address, Network
from fleet.firewall.settings import Firewall
from fleet.gateway import tls
from fleet.gateway.settings import Gateway
from fleet.kit.errors import FleetError
from fleet.kit.secrets import EXAMPLE_KEY
from fleet.ollama.settings import Ollama
from fleet.platform.declared import is_unusable
from fleet.platform.settings import Platform

_API_KEY = re.compile(r"sk-[0-9a-f]{64}")


def problems(host: FleetHost, fleet: Fleet) -> Iterator[str]:
    """What of the gateway `host` cannot work, alone or with the GPU hosts behind it."""
    if not host[Gateway].keys:
        yield (
            f"{host.name}: gateway_keys = (): nobody could use the gateway; declare a "
            'name, such as gateway_keys = ["team-a"]'
        )
    elif all(key.has_ended(datetime.now(UTC)) for key in host[Gateway].keys):
        ends = "; ".join(
            f"{key.name} at {key.expires:%Y-%m-%d %H:%M} UTC" for key in host[Gateway].keys
        )
        yield (
            f"{host.name}: gateway_keys: every key has ended ({ends}), so nobody could use the "
            "gateway; declare one that is valid, or a later `expires`"
        )
    gpu_hosts = fleet.running(Ollama)
    yield from _reach_problems(host, gpu_hosts)
    # What is wrong behind all gateways is said once.
    if host is fleet.running(Gateway)[0]:
        if not gpu_hosts:
            yield f"{host.name}: a gateway without any host in group gpu to serve"
        for gpu in gpu_hosts[1:]:
            yield from _model_problems(gpu, gpu_hosts[0])


def _model_problems(host: FleetHost, first: FleetHost) -> Iterator[str]:
    why = "a gateway sends any request to any host, so all hosts behind it need the same models"
    mine, theirs = (
        {model.full_name: model.served for model in item[Ollama].models} for item in (host, first)
    )
    if set(mine) != set(theirs):
        yield (
            f"{host.name}: ollama_models = {list(host[Ollama].model_names)}, but {first.name} has "
            f"{list(first[Ollama].model_names)}: {why}"
        )
        return
    for name in sorted(mine):
        if mine[name] != theirs[name]:
            yield (
                f"{host.name}: ollama_models: {name!r} is declared in another way than for "
                f"{first.name}: {why}"
            )


def _reach_problems(gateway: FleetHost, gpu_hosts: tuple[FleetHost, ...]) -> Iterator[str]:
    for gpu in gpu_hosts:
        if gpu.name == gateway.name:
            continue
        if gpu[Ollama].listen != "private":
            yield (
                f"{gpu.name}: ollama_listen = {gpu[Ollama].listen!r}: gateway {gateway.name} could "
                "not reach it; set ollama_listen = 'private' and private_address"
            )
        mine, theirs = gateway[Platform].private_address, gpu[Platform].private_address
        usable = [address for address in (mine, theirs) if address and not is_unusable(address)]
        if len({address.version for address in usable}) > 1:
            yield (
                f"{gateway.name}: private_address = '{mine}' and that of {gpu.name}, "
                f"'{theirs}', are of two families and cannot reach each other; declare addresses "
                "of one"
            )
        if mine is None:
            yield (
                f"{gateway.name}: private_address is missing; {gpu.name} opens its API only to the "
                "gateways' addresses"
            )


def stored_problems(host: FleetHost, fleet: Fleet) -> Iterator[str]:
    """Keys and certificates that a gateway could not be given."""
    yield from _certificate_problems(host, fleet)
    for name in (key.name for key in host[Gateway].keys):
        stored = fleet.secrets.read(f"gateway_key_{name}")
        path = fleet.secrets.path(f"gateway_key_{name}")
        if stored is None:
            continue
        if stored.get_secret_value() == EXAMPLE_KEY:
            yield (
                f"{host.name}: gateway_keys: {name!r} has the example key of the "
                f"documentation; delete {path} to have one generated"
            )
        elif not _API_KEY.fullmatch(stored.get_secret_value()):
            yield (
                f"{host.name}: gateway_keys: {name!r} in {path} is not sk- and 64 "
                "lower-case hexadecimal digits; delete the file to have one generated"
            )


def _certificate_problems(gateway: FleetHost, fleet: Fleet) -> Iterator[str]:
    certificate = gateway[Gateway].tls_certificate
    if certificate is None:
        return
    path = fleet.root / certificate
    where = f"{gateway.name}: gateway_tls_certificate = {certificate!r}"
    key = fleet.secrets.read(tls.GIVEN_KEY)
    if not path.is_file():
        yield f"{where}: no such file; paths are relative to {fleet.root}"
    elif key is None:
        wanted = fleet.secrets.path(tls.GIVEN_KEY)
        yield f"{where}: its key is missing; put it, mode 600, at {wanted}"
    else:
        try:
            tls.check_given(path.read_text(), key)
        except FleetError as error:
            yield f"{where}: {error}"


def call_problems(
    host: FleetHost, gateway: FleetHost, setting: str, name: str, inside: Address | None
) -> Iterator[str]:
    """Why `gateway` or its firewall turns away containers of `host`, whose key is called `name`.

    The gateway sees `inside`, the container's own address, when it is on the same host, and the
    host's private address otherwise. Nothing is said where that cannot be told, as of a gateway on
    all its addresses.
    """
    declared = gateway[Gateway]
    key = next(key for key in declared.keys if key.name == name)
    said = f"{host.name}: {setting} = {name!r}, which in gateway_keys of {gateway.name}"
    if key.has_ended(datetime.now(UTC)):
        yield f"{said} ended at {key.expires:%Y-%m-%d %H:%M} UTC; declare a later `expires` there"
    is_here = host.name == gateway.name
    source = inside if is_here else host[Platform].private_address
    where = gateway[Platform].private_address if declared.listen == "private" else None
    if not (source and where and source.version == where.version):
        return
    if key.allow_from and not _any_holds(key.allow_from, source):
        yield f"{said} has an allow_from without {source}, where its calls come from; add it there"
    filtered = gateway[Firewall].backend != "none" and not is_here
    if filtered and not _any_holds(declared.allow_from, source):
        listed = [str(network) for network in declared.allow_from]
        yield (
            f"{gateway.name}: gateway_allow_from = {listed}: the firewall would drop the calls of "
            f"{host.name}; add '{source}' or its network"
        )


def _any_holds(networks: Iterable[Network], address: Address) -> bool:
    return any(address in network for network in networks)
