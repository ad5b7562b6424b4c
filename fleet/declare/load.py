"""From an inventory to checked settings for every host.

Both a deploy and the compliance checks start here, so what is checked is what was declared.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import pyinfra
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pyinfra.api.arguments import AllArguments
from pyinfra.api.connectors import get_all_connectors
from pyinfra.api.inventory import Inventory

from fleet import pins
from fleet.declare.types import (
    ALL_GPUS,
    CAPABILITIES,
    DifySettings,
    DockerSettings,
    DriverSettings,
    FirewallSettings,
    GatewaySettings,
    Gpus,
    HostSettings,
    ModelsSettings,
    Network,
    OllamaSettings,
    Runtime,
    Settings,
    ToolkitSettings,
    WebuiSettings,
    ollama_environment,
)
from fleet.dify import declared as dify
from fleet.gateway import tls
from fleet.kit import paths
from fleet.kit.errors import FleetError, SettingsError
from fleet.kit.secrets import EXAMPLE_KEY, Previous, SecretStore
from fleet.ollama.models import full_name
from fleet.webui import declared as webui

GPU_GROUP = "gpu"
GATEWAY_GROUP = "gateway"
DIFY_GROUP = "dify"
WEBUI_GROUP = "webui"
PROJECT_ROOT = Path(__file__).resolve().parents[2]

_API_KEY = re.compile(r"sk-[0-9a-f]{64}")
_Settings = TypeVar("_Settings", bound=Settings)


@dataclass(frozen=True)
class Endpoint:
    """A TCP address of a service."""

    address: str
    port: int

    def __str__(self) -> str:
        """`address:port`, with brackets around IPv6."""
        return (
            f"[{self.address}]:{self.port}"
            if ":" in self.address
            else f"{self.address}:{self.port}"
        )


@dataclass(frozen=True)
class Instance:
    """One Ollama server of a host: the only one, or one of `ollama_instances`.

    `name` is empty for the only one. `settings` are the host's, with what the instance has
    otherwise. `gpus` are as they are declared; the only server sees whatever the host has. `env` is
    its environment but for the GPUs, whose UUIDs the host alone knows: see `environment`.
    """

    name: str
    endpoint: Endpoint
    settings: OllamaSettings
    gpus: Gpus
    shared_gpus: bool
    runtime: Runtime
    env: Mapping[str, str]

    @property
    def unit(self) -> str:
        """The systemd unit that runs it."""
        return paths.ollama_instance_unit(self.name) if self.name else paths.OLLAMA_UNIT

    @property
    def url(self) -> str:
        """Its API, asked on its own host."""
        return f"http://{self.endpoint}"

    def environment(self, uuids: Iterable[str]) -> dict[str, str]:
        """The server's whole environment when its GPUs are those with `uuids`.

        CUDA takes -1 for no GPU at all. Where there is nothing to choose from, nothing is said.
        """
        if not self.name:
            return dict(self.env)
        visible = ",".join(uuids) or ("" if self.gpus == ALL_GPUS else "-1")
        return {**self.env, **({"CUDA_VISIBLE_DEVICES": visible} if visible else {})}


@dataclass(frozen=True)
class FleetHost:
    """One host and what is declared for it.

    `outside_address` is where the machine that deploys reaches it.
    """

    name: str
    groups: frozenset[str]
    outside_address: str
    host: HostSettings
    ollama: OllamaSettings
    models: ModelsSettings
    gateway: GatewaySettings
    firewall: FirewallSettings
    driver: DriverSettings
    docker: DockerSettings
    toolkit: ToolkitSettings
    dify: DifySettings
    webui: WebuiSettings

    @property
    def is_gpu(self) -> bool:
        """Whether the host runs Ollama."""
        return GPU_GROUP in self.groups

    @property
    def is_gateway(self) -> bool:
        """Whether the host runs the front door."""
        return GATEWAY_GROUP in self.groups

    @property
    def is_dify(self) -> bool:
        """Whether the host runs Dify."""
        return DIFY_GROUP in self.groups

    @property
    def is_webui(self) -> bool:
        """Whether the host runs Open WebUI."""
        return WEBUI_GROUP in self.groups

    @property
    def has_docker(self) -> bool:
        """Whether the host runs containers."""
        return self.docker.enabled or self.is_dify or self.is_webui

    @cached_property
    def instances(self) -> tuple[Instance, ...]:
        """The Ollama servers of the host: one without a name, or those of `ollama_instances`."""
        if not self.is_gpu:
            return ()
        if not self.ollama.instances:
            return (self._instance("", self.ollama, ALL_GPUS, False, "systemd"),)
        return tuple(
            self._instance(
                item.name, self.ollama.of(item), item.gpus, item.shared_gpus, item.runtime
            )
            for item in self.ollama.instances
        )

    def _instance(
        self, name: str, settings: OllamaSettings, gpus: Gpus, shared: bool, runtime: Runtime
    ) -> Instance:
        endpoint = Endpoint(self._bind(settings.listen), settings.port)
        # A container has addresses of its own; Docker publishes the port on the declared one.
        address = endpoint.address if runtime == "systemd" else "0.0.0.0"  # noqa: S104
        env = ollama_environment(settings, address)
        return Instance(name, endpoint, settings, gpus, shared, runtime, env)

    @property
    def ollama_endpoint(self) -> Endpoint:
        """Where Ollama's API listens: the first instance's, for what all of them share."""
        return self.instances[0].endpoint

    @property
    def gateway_endpoints(self) -> tuple[Endpoint, ...]:
        """Where the front door listens."""
        if self.gateway.listen == "any":
            return tuple(Endpoint(address, self.gateway.port) for address in ("0.0.0.0", "::"))  # noqa: S104 - declared
        return (Endpoint(self._bind(self.gateway.listen), self.gateway.port),)

    @property
    def gateway_url(self) -> str | None:
        """Where clients find the front door; None when it is open to its own host only."""
        if self.gateway.listen == "loopback":
            return None
        scheme = "http" if self.gateway.tls == "off" else "https"
        if self.gateway.names:
            return f"{scheme}://{Endpoint(self.gateway.names[0], self.gateway.port)}"
        if self.gateway.listen == "private":
            return f"{scheme}://{self.gateway_endpoints[0]}"
        return f"{scheme}://{Endpoint(self.outside_address, self.gateway.port)}"

    @property
    def gateway_names(self) -> tuple[str, ...]:
        """Every name and address that the front door's own certificate is for."""
        addresses = [str(self.host.private_address)] if self.host.private_address else []
        names = {*self.gateway.names, self.name, self.outside_address, *addresses, "localhost"}
        return tuple(sorted({*names, "127.0.0.1"}))

    @property
    def dify_endpoint(self) -> Endpoint:
        """Where Dify's pages and API are published."""
        return Endpoint(self._bind(self.dify.listen), self.dify.port)

    @property
    def webui_endpoint(self) -> Endpoint:
        """Where Open WebUI's pages and API are published."""
        return Endpoint(self._bind(self.webui.listen), self.webui.port)

    @property
    def redirect_endpoints(self) -> tuple[Endpoint, ...]:
        """Where plain HTTP is redirected."""
        port = self.gateway.http_port
        return tuple(Endpoint(item.address, port) for item in self.gateway_endpoints if port)

    @property
    def metrics_endpoints(self) -> dict[str, Endpoint]:
        """Exporter (`requests`, `nginx`, `node`) to where Prometheus finds it."""
        if self.gateway.metrics == "off":
            return {}
        address = self._bind(self.gateway.metrics)
        ports = {
            "requests": self.gateway.metrics_port,
            "nginx": self.gateway.metrics_nginx_port,
            "node": self.gateway.metrics_node_port,
        }
        return {name: Endpoint(address, port) for name, port in ports.items()}

    @property
    def gateway_openings(self) -> Iterator[tuple[Endpoint, tuple[Network, ...]]]:
        """What the firewall lets through besides the front door itself, and from where."""
        if self.is_gateway:
            if self.gateway.listen != "loopback":
                for endpoint in self.redirect_endpoints[:1]:
                    yield endpoint, self.gateway.allow_from
            if self.gateway.metrics == "private":
                for endpoint in self.metrics_endpoints.values():
                    yield endpoint, self.gateway.metrics_from

    def _bind(self, listen: str) -> str:
        return "127.0.0.1" if listen == "loopback" else str(self.host.private_address)


class Fleet:
    """Every host of an inventory, checked; iterates over `FleetHost`."""

    def __init__(self, hosts: Iterable[FleetHost], secrets: SecretStore) -> None:
        self._hosts = {host.name: host for host in hosts}
        self.secrets = secrets

    def __iter__(self) -> Iterator[FleetHost]:
        """Iterate in the inventory's order."""
        return iter(self._hosts.values())

    def __getitem__(self, name: str) -> FleetHost:
        """The host `name`; KeyError when the inventory has no such host."""
        return self._hosts[name]

    @cached_property
    def gpu_hosts(self) -> tuple[FleetHost, ...]:
        """Hosts that run Ollama."""
        return tuple(host for host in self if host.is_gpu)

    @cached_property
    def gateways(self) -> tuple[FleetHost, ...]:
        """Hosts that run the front door."""
        return tuple(host for host in self if host.is_gateway)

    def gateway_keys(self, host: FleetHost) -> dict[str, SecretStr]:
        """The API keys of a gateway: name to value. Missing ones are generated and kept."""
        return {
            key.name: self.secrets.api_key(f"gateway_key_{key.name}") for key in host.gateway.keys
        }

    def previous_gateway_key(self, name: str) -> Previous | None:
        """The value that the key `name` had before its rotation."""
        return self.secrets.previous(f"gateway_key_{name}")

    def trust_of(self, host: FleetHost) -> str | bool:
        """What a client of this machine verifies the gateway with, as `requests` takes it."""
        if host.gateway.tls != "private-ca":
            return True
        tls.ca_certificate(self.secrets)
        return str(self.secrets.path(tls.CA_CERTIFICATE))


@lru_cache(maxsize=1)
def load_fleet(inventory: Inventory) -> Fleet:
    """Check the whole inventory; once, though every host's deploy asks for it.

    Raises:
        SettingsError: anything declared is unknown, of a wrong type or contradictory. Every wrong
            value of every host is listed; without any, every contradiction.
    """
    here = Path(__file__).resolve().parents[2]
    if pyinfra.is_cli and Path.cwd() != here:
        # pyinfra reads group_data from where it is run, and says nothing when there is none.
        raise FleetError(f"run pyinfra in {here}, or group_data there is not read")
    problems: list[str] = []
    hosts = []
    for item in inventory:
        data = item.data.dict()  # type: ignore[no-untyped-call]
        if host := _load_host(item.name, item.groups, data, problems):
            hosts.append(host)
    if not problems:
        for host in hosts:
            problems += _host_problems(host)
        problems += _fleet_problems(hosts)
    if problems:
        raise SettingsError(problems)
    fleet = Fleet(hosts, SecretStore(_secrets_root(inventory)))
    problems = [*_key_problems(fleet), *dify.secret_problems(fleet), *webui.secret_problems(fleet)]
    if problems:
        raise SettingsError(problems)
    return fleet


def _load_host(
    name: str, groups: Iterable[str], data: Mapping[str, Any], problems: list[str]
) -> FleetHost | None:
    before = len(problems)
    problems += [f"{name}: {text}" for text in _unknown_keys(data)]

    def build(model: type[_Settings]) -> _Settings | None:
        keys = {f"{model.prefix}{field}": field for field in model.model_fields}
        values = {field: data[key] for key, field in keys.items() if key in data}
        try:
            return model(**values)
        except ValidationError as error:
            problems.extend(_explain(name, model, values, error))
            return None

    built = [build(model) for model in CAPABILITIES]
    if len(problems) > before:
        return None
    outside_address = str(data.get("ssh_hostname") or name)
    return FleetHost(name, frozenset(groups), outside_address, *built)  # type: ignore[arg-type]


# What to write, where pydantic says only what it is not.
_FIXES = {
    "bool_type": "write True or False",
    "dict_type": 'write {"name": value}',
    "float_type": "write a number, without quotes",
    "int_type": "write a whole number, without quotes",
    "ip_any_address": "write one such as '10.20.0.11'",
    "model_type": 'write {"name": value}',
    "string_type": "write text, in quotes",
}


def _explain(
    name: str, model: type[Settings], values: Mapping[str, Any], error: ValidationError
) -> Iterator[str]:
    for item in error.errors():
        if not item["loc"]:
            yield f"{name}: {_worded(model, item, '')}"
            continue
        field, *place = item["loc"]
        key = f"{model.prefix}{field}"
        value: Any = values[str(field)]
        for part in place:
            if not _holds(value, part):
                break
            key, value = f"{key}[{part!r}]", value[part]
        if item["type"] == "too_short" and value:
            continue  # pydantic counts the right items only; the wrong ones have their lines.
        shown = _shown(key, value)
        yield f"{name}: {key} = {shown}: {_worded(model, item, shown)}"


def _worded(model: type[Settings], item: ErrorDetails, shown: str) -> str:
    """What is wrong and what to write, of a problem that pydantic found in the value `shown`."""
    kind, loc, text = item["type"], item["loc"], item["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        return f"unknown key; {_hint(str(loc[-1]), _keys_at(model, loc[:-1]))}"
    if kind == "missing":
        return f"{loc[-1]!r} is missing; add it"
    if kind == "tuple_type":
        return f"not a list; write [{shown}]"
    if kind == "too_short":
        return "empty; name at least one"
    return f"{text}; {_FIXES[kind]}" if kind in _FIXES else text


def _keys_at(model: type[BaseModel], place: Iterable[int | str]) -> set[str]:
    """What may be declared in the table at `place` of `model`, whose lists have their indexes."""
    models = [model]
    for part in place:
        if isinstance(part, str):
            owners = [item for item in models if part in item.model_fields]
            models = [
                nested for item in owners for nested in _nested(item.model_fields[part].annotation)
            ]
    return {key for item in models for key in item.model_fields}


def _nested(hint: Any) -> Iterator[type[BaseModel]]:
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        yield hint
    for argument in get_args(hint):
        yield from _nested(argument)


def _hint(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else "docs/settings.md lists every key"


def _holds(value: Any, part: Any) -> bool:
    if isinstance(value, list | tuple):
        return part in range(len(value))
    return isinstance(value, dict) and part in value


def _shown(key: str, value: Any) -> str:
    """A refused value as it may be printed: it could be a password in the wrong place."""
    if re.search("pass|secret|token", key):
        return "(not shown)"
    return re.sub(
        r"sk-\w+", "sk-(not shown)", re.sub(r"://[^/@]*@", "://(not shown)@", repr(value))
    )


def _unknown_keys(data: Mapping[str, Any]) -> Iterator[str]:
    ours = {f"{model.prefix}{field}" for model in CAPABILITIES for field in model.model_fields}
    known = ours | _pyinfra_keys()
    renamed = {key: text for model in CAPABILITIES for key, text in model.renamed.items()}
    for key in sorted(set(data) - known):
        hint = f"write {renamed[key]}" if key in renamed else _hint(key, known)
        yield f"{key} = {_shown(f'{key} {hint}', data[key])}: unknown setting; {hint}"


def _pyinfra_keys() -> set[str]:
    connectors = get_all_connectors()  # type: ignore[no-untyped-call]
    keys = {key for item in connectors.values() for key in getattr(item, "data_meta", {})}
    return keys | set(get_type_hints(AllArguments))


def _host_problems(host: FleetHost) -> Iterator[str]:
    if not (host.is_gpu or host.is_gateway or host.has_docker):
        groups = ", ".join(sorted(host.groups)) or "none"
        yield (
            f"{host.name}: in groups {groups}, but a host needs {GPU_GROUP} or {GATEWAY_GROUP} or "
            f"{DIFY_GROUP} or {WEBUI_GROUP}, or docker_enabled = True, to have anything to do; a "
            "list that is no group needs a name that begins with _"
        )
    yield from _address_problems(host)
    yield from _port_problems(host)
    yield from _gpu_problems(host)
    yield from _instance_problems(host)
    yield from _offload_problems(host)
    yield from _docker_problems(host)
    if host.is_dify:
        yield from dify.host_problems(host)
    if host.is_webui:
        yield from webui.host_problems(host)
    if host.is_gateway and not host.gateway.keys:
        yield (
            f"{host.name}: gateway_keys = (): nobody could use the front door; declare a "
            'name, such as gateway_keys = ["team-a"]'
        )


def _address_problems(host: FleetHost) -> Iterator[str]:
    address = host.host.private_address
    needed_by = [
        f"{key} = 'private'"
        for key, used in (
            ("ollama_listen", host.is_gpu and host.ollama.listen == "private"),
            ("gateway_listen", host.is_gateway and host.gateway.listen == "private"),
            ("gateway_metrics", host.is_gateway and host.gateway.metrics == "private"),
            ("dify_listen", host.is_dify and host.dify.listen == "private"),
            ("webui_listen", host.is_webui and host.webui.listen == "private"),
        )
        if used
    ]
    if needed_by and address is None:
        yield f"{host.name}: {needed_by[0]} needs private_address; declare it for this host"
    if address is not None and _unusable(address):
        yield (
            f"{host.name}: private_address = '{address}': not a private address; "
            "declare the one that the fleet uses inside, or gateway_listen = 'any' to be public"
        )


def _unusable(address: IPv4Address | IPv6Address) -> bool:
    return (
        address.is_global or address.is_unspecified or address.is_loopback or address.is_link_local
    )


def _port_problems(host: FleetHost) -> Iterator[str]:
    services = [("ssh_port", host.host.ssh_port)]
    services += [
        (f"ollama_instances {item.name}" if item.name else "ollama_port", item.endpoint.port)
        for item in host.instances
    ]
    if host.is_gateway:
        services.append(("gateway_port", host.gateway.port))
        if host.gateway.http_port is not None:
            services.append(("gateway_http_port", host.gateway.http_port))
        if host.gateway.metrics != "off":
            services += [
                ("gateway_metrics_port", host.gateway.metrics_port),
                ("gateway_metrics_nginx_port", host.gateway.metrics_nginx_port),
                ("gateway_metrics_node_port", host.gateway.metrics_node_port),
            ]
    if host.is_dify:
        services.append(("dify_port", host.dify.port))
    if host.is_webui:
        services.append(("webui_port", host.webui.port))
    services += [("firewall_open_tcp", port) for port in host.firewall.open_tcp]
    for port, count in Counter(port for _, port in services).items():
        if count > 1:
            names = " and ".join(name for name, number in services if number == port)
            yield f"{host.name}: {names} are all {port}; give each service a port of its own"


def _gpu_problems(host: FleetHost) -> Iterator[str]:
    if not host.is_gpu:
        return
    pinned = {arch for version, arch in pins.OLLAMA_SHA256 if version == host.ollama.version}
    if host.ollama.sha256 is None and not pinned:
        versions = ", ".join(sorted({version for version, _ in pins.OLLAMA_SHA256}))
        yield (
            f"{host.name}: ollama_version = {host.ollama.version!r}: no checksum; set "
            f"ollama_sha256 to the one in the release's sha256sum.txt, or use a pinned version "
            f"({versions})"
        )


def _instance_problems(host: FleetHost) -> Iterator[str]:
    if host.ollama.instances and "port" in host.ollama.model_fields_set:
        yield (
            f"{host.name}: ollama_port = {host.ollama.port}: has no effect beside "
            "ollama_instances, whose own ports count; leave it out"
        )
    for item in host.instances:
        if item.runtime != "docker":
            continue
        if not host.has_docker:
            yield (
                f"{host.name}: ollama_instances: {item.name}: runtime = 'docker' needs Docker on "
                "this host; set docker_enabled = True"
            )
        if item.gpus and not host.toolkit.enabled:
            yield (
                f"{host.name}: toolkit_enabled = False: the container of {item.name} could not see "
                "a GPU; leave it out, or declare gpus = [] for that instance"
            )


def _offload_problems(host: FleetHost) -> Iterator[str]:
    declared = {
        full_name(name)
        for model in host.ollama.models
        for name in (model.name, model.base or model.name)
    }
    for name in host.models.cpu_offload:
        if full_name(name) not in declared:
            yield (
                f"{host.name}: models_cpu_offload: {name!r} is none of ollama_models; "
                f"{_hint(name, host.ollama.model_names)}"
            )


def _docker_problems(host: FleetHost) -> Iterator[str]:
    """What would have no effect on the host."""
    if host.has_docker and host.docker.source == "distribution":
        unused = ("version", "containerd_version", "compose_version")
        idle = sorted(f"docker_{name}" for name in host.docker.model_fields_set & set(unused))
        if idle:
            yield (
                f"{host.name}: {', '.join(idle)}: the distribution has one version only; leave it "
                "out, or set docker_source = 'docker'"
            )
    if host.toolkit.runtime and not host.has_docker:
        yield (
            f"{host.name}: toolkit_runtime = True: there is no Docker to register it with; set "
            "docker_enabled = True"
        )


def _fleet_problems(hosts: list[FleetHost]) -> Iterator[str]:
    gateways = [host for host in hosts if host.is_gateway]
    gpu_hosts = [host for host in hosts if host.is_gpu]
    if gateways and not gpu_hosts:
        yield f"{gateways[0].name}: a gateway without any host in group {GPU_GROUP} to serve"
    for gateway in gateways:
        yield from _reach_problems(gateway, gpu_hosts)
    for host in hosts:
        yield from dify.fleet_problems(host, hosts) if host.is_dify else ()
        yield from webui.fleet_problems(host, hosts) if host.is_webui else ()
    for host in gpu_hosts[1:] if gateways else []:
        yield from _model_problems(host, gpu_hosts[0])
    addresses = Counter(host.host.private_address for host in hosts if host.host.private_address)
    for address, count in addresses.items():
        if count > 1:
            names = ", ".join(host.name for host in hosts if host.host.private_address == address)
            yield f"{names}: private_address = '{address}' is declared for {count} hosts"


def _model_problems(host: FleetHost, first: FleetHost) -> Iterator[str]:
    why = "a gateway sends any request to any host, so all hosts behind it need the same models"
    mine, theirs = (
        {model.full_name: model.served for model in item.ollama.models} for item in (host, first)
    )
    if set(mine) != set(theirs):
        yield (
            f"{host.name}: ollama_models = {list(host.ollama.model_names)}, but {first.name} has "
            f"{list(first.ollama.model_names)}: {why}"
        )
        return
    for name in sorted(mine):
        if mine[name] != theirs[name]:
            yield (
                f"{host.name}: ollama_models: {name!r} is declared in another way than for "
                f"{first.name}: {why}"
            )


def _reach_problems(gateway: FleetHost, gpu_hosts: list[FleetHost]) -> Iterator[str]:
    for gpu in gpu_hosts:
        if gpu.name == gateway.name:
            continue
        if gpu.ollama.listen != "private":
            yield (
                f"{gpu.name}: ollama_listen = {gpu.ollama.listen!r}: gateway {gateway.name} could "
                "not reach it; set ollama_listen = 'private' and private_address"
            )
        mine, theirs = gateway.host.private_address, gpu.host.private_address
        usable = [address for address in (mine, theirs) if address and not _unusable(address)]
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


def _key_problems(fleet: Fleet) -> list[str]:
    problems: list[str] = []
    for gateway in fleet.gateways:
        problems += _certificate_problems(gateway, fleet)
        for name in (key.name for key in gateway.gateway.keys):
            stored = fleet.secrets.read(f"gateway_key_{name}")
            path = fleet.secrets.path(f"gateway_key_{name}")
            if stored is None:
                continue
            if stored.get_secret_value() == EXAMPLE_KEY:
                problems.append(
                    f"{gateway.name}: gateway_keys: {name!r} has the example key of the "
                    f"documentation; delete {path} to have one generated"
                )
            elif not _API_KEY.fullmatch(stored.get_secret_value()):
                problems.append(
                    f"{gateway.name}: gateway_keys: {name!r} in {path} is not sk- and 64 "
                    "lower-case hexadecimal digits; delete the file to have one generated"
                )
    return problems


def _certificate_problems(gateway: FleetHost, fleet: Fleet) -> Iterator[str]:
    if gateway.gateway.tls_certificate is None:
        return
    path = PROJECT_ROOT / gateway.gateway.tls_certificate
    where = f"{gateway.name}: gateway_tls_certificate = {gateway.gateway.tls_certificate!r}"
    key = fleet.secrets.read(tls.GIVEN_KEY)
    if not path.is_file():
        yield f"{where}: no such file; paths are relative to {PROJECT_ROOT}"
    elif key is None:
        wanted = fleet.secrets.path(tls.GIVEN_KEY)
        yield f"{where}: its key is missing; put it, mode 600, at {wanted}"
    else:
        try:
            tls.check_given(path.read_text(), key)
        except FleetError as error:
            yield f"{where}: {error}"


def _secrets_root(inventory: Inventory) -> Path:
    """`.secrets/<name>` for the inventory file that every host came from.

    pyinfra puts all hosts of `inventory/prod.py` in a group `prod` and keeps the path nowhere.
    """
    everyone = {host.name for host in inventory}
    names = [
        name
        for name, hosts in sorted(inventory.groups.items())
        if {host.name for host in hosts} == everyone
        and name not in (GPU_GROUP, GATEWAY_GROUP, DIFY_GROUP, WEBUI_GROUP)
    ]
    with_file = [name for name in names if (PROJECT_ROOT / "inventory" / f"{name}.py").exists()]
    return PROJECT_ROOT / ".secrets" / (with_file or names or ["default"])[0]
