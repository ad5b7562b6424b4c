"""What of a gateway's settings cannot work."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.types import Address, Network
from fleet.firewall.settings import Firewall
from fleet.gateway import backends, tls
from fleet.gateway.offered import declared_names, plain_of
from fleet.gateway.settings import Gateway
from fleet.kit.errors import FleetError
from fleet.kit.secrets import EXAMPLE_KEY
from fleet.ollama.models import ModelDeclaration
from fleet.ollama.settings import Ollama
from fleet.platform.declared import is_unusable
from fleet.platform.settings import Platform
from fleet.vllm.settings import Vllm

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
    serving = tuple(item for item in fleet if item.runs(Ollama) or item.runs(Vllm))
    yield from _reach_problems(host, serving)
    yield from backends.problems(host, fleet)
    # What is wrong behind all gateways is said once.
    if host is fleet.running(Gateway)[0]:
        if not fleet.servers():
            yield (
                f"{host.name}: a gateway without any host in group gpu or vllm to serve, and "
                "without gateway_backends"
            )
        yield from _differing(gpu_hosts)
    if fleet.servers():
        yield from _name_problems(host, fleet)


def _differing(hosts: Iterable[FleetHost]) -> Iterator[str]:
    """Models that two hosts call alike and declare otherwise: whoever asks gets either."""
    seen: dict[str, tuple[FleetHost, ModelDeclaration]] = {}
    for host in hosts:
        for model in host[Ollama].models:
            first, other = seen.setdefault(plain_of(model.name), (host, model))
            if first is not host and other.served != model.served:
                yield (
                    f"{host.name}: ollama_models: {model.full_name!r} is declared in another way "
                    f"than for {first.name}, and a gateway would send its requests to both; "
                    "declare it alike, or give one of them another name"
                )


def _name_problems(host: FleetHost, fleet: Fleet) -> Iterator[str]:
    """Names of models in a gateway's settings that lead nowhere, or to two models."""
    models = declared_names(fleet)
    declared = {plain_of(name): name for name in models}
    yield from _alias_problems(host, declared)
    yield from _fallback_problems(host, declared)
    names = (*models, *host[Gateway].aliases)
    known = set(map(plain_of, names))
    for key in host[Gateway].keys:
        for name in key.models:
            if plain_of(name) not in known:
                yield (
                    f"{host.name}: gateway_keys: {key.name}: models: {name!r} is no model of any "
                    f"host, and no alias; there are {', '.join(names)}"
                )


def _alias_problems(host: FleetHost, declared: Mapping[str, str]) -> Iterator[str]:
    seen, there = dict[str, str](), ", ".join(declared.values())
    aliases = {plain_of(name) for name in host[Gateway].aliases}
    for alias, target in host[Gateway].aliases.items():
        said = f"{host.name}: gateway_aliases: {alias!r}"
        first = seen.setdefault(plain_of(alias), alias)
        if plain_of(alias) in declared:
            yield (
                f"{said} is a model of its own ({declared[plain_of(alias)]}), which nobody could "
                "ask for any more; take another name"
            )
        elif first != alias:
            yield f"{said} is the same name to clients as {first!r}; keep one of them"
        elif plain_of(target) in aliases:
            yield f"{said}: {target!r} is an alias itself; name the model that is meant"
        elif plain_of(target) not in declared:
            yield f"{said}: {target!r} is no model of any host; there are {there}"


def _fallback_problems(host: FleetHost, declared: Mapping[str, str]) -> Iterator[str]:
    seen, there = dict[str, str](), ", ".join(declared.values())
    instead = {plain_of(name): plain_of(other) for name, other in host[Gateway].fallbacks.items()}
    aliases = {plain_of(name) for name in host[Gateway].aliases}
    for model, other in host[Gateway].fallbacks.items():
        said = f"{host.name}: gateway_fallbacks: {model!r}"
        first = seen.setdefault(plain_of(model), model)
        if first != model:
            yield f"{said} is the same model as {first!r}; keep one of them"
            continue
        for name in (model, other):
            if plain_of(name) in aliases:
                yield f"{said}: {name!r} is an alias; name the model that is meant"
            elif plain_of(name) not in declared:
                yield f"{said}: {name!r} is no model of any host; there are {there}"
        if (circle := _circle(plain_of(model), instead)) and min(circle) == plain_of(model):
            yield (
                f"{said}: {' -> '.join((*circle, circle[0]))} goes round in a circle, and nobody "
                "would answer in the end; take one of them out"
            )


def _circle(model: str, instead: Mapping[str, str]) -> list[str]:
    """The models that stand in for each other, from `model` on; empty where that has an end."""
    path = [model]
    while (following := instead.get(path[-1])) is not None:
        if following == model:
            return path
        if following in path:
            return []
        path.append(following)
    return []


def _reach_problems(gateway: FleetHost, gpu_hosts: tuple[FleetHost, ...]) -> Iterator[str]:
    for gpu in gpu_hosts:
        if gpu.name == gateway.name:
            continue
        kinds: tuple[type[Ollama | Vllm], ...] = (Ollama, Vllm)
        for kind in kinds:
            if gpu.runs(kind) and gpu[kind].listen != "private":
                key = kind.key("listen")
                yield (
                    f"{gpu.name}: {key} = {gpu[kind].listen!r}: gateway {gateway.name} could "
                    f"not reach it; set {key} = 'private' and private_address"
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
    yield from backends.stored_problems(host, fleet)
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
