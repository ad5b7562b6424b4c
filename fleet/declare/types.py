"""Typed settings: the only place with names, types, units, defaults and meanings.

Keys are flat in inventory and group_data (`ollama_port = 11434`) and typed here: each class below
holds the keys of one capability, whose prefix is the class's `prefix`. `docs/settings.md` is
generated from this file. What relates hosts to each other is checked in `fleet.inventory`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyAddress,
    IPvAnyNetwork,
    model_validator,
)

from fleet import pins
from fleet.kit.durations import check_duration, seconds
from fleet.ollama.models import (
    AUTO,
    Declared,
    Model,
    ModelDeclaration,
    check_model_name,
    contradictions,
    full_name,
    hidden_from_units,
)

Listen = Literal["loopback", "private"]
GatewayListen = Literal["loopback", "private", "any"]
GatewayTls = Literal["private-ca", "given", "acme", "off"]
MetricsListen = Literal["off", "loopback", "private"]
Role = Literal["inference", "admin"]
Architecture = Literal["amd64", "arm64"]
FirewallBackend = Literal["nftables", "none"]
Runtime = Literal["systemd", "docker"]
KvCacheType = Literal["f16", "q8_0", "q4_0"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_GPU_UUID = re.compile(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Nothing below these, and none of the others themselves, is a place for a user's files.
_SYSTEM_DIRECTORY = re.compile(
    r"/((bin|boot|etc|lib\w*|sbin|usr|var/log)/.*|(var|var/lib|srv|opt|mnt)/)$"
)
_LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")


def _form(pattern: str, words: str) -> AfterValidator:
    """Text that `pattern` matches as a whole; `words` say what it is, with an example."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"not {words}")
        return value

    return AfterValidator(check)


def _number_to_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _check_positive(value: str) -> str:
    if seconds(value) < 1:
        raise ValueError("shorter than a second; there is no 'for ever' here")
    return value


def _only_text(value: Any) -> Any:
    # ipaddress takes a number for an address: 17 would be 0.0.0.17.
    if isinstance(value, int):
        raise ValueError("not text: write an address or a network, such as '10.0.0.0/8'")
    return value


def _check_network(value: Any) -> Any:
    if isinstance(value, str):
        try:
            host = ipaddress.ip_interface(value)
        except ValueError:
            raise ValueError("not a network: write one such as '10.0.0.0/8'") from None
        if host.ip != host.network.network_address:
            raise ValueError(f"host bits are set; write '{host.network}' for the network")
    return value


def _check_sha256(value: str) -> str:
    if not _SHA256.fullmatch(value):
        raise ValueError("not a SHA-256: 64 lower-case hexadecimal digits")
    return value


def _check_absolute(value: str) -> str:
    parts = value.split("/")
    if (
        not value.startswith("/")
        or value == "/"
        or ".." in parts
        or re.search(r"\s|[%\"'\\]", value)
    ):
        raise ValueError("not an absolute path without spaces, quotes, '%' or '..'")
    return value.rstrip("/")


def _check_not_empty(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise ValueError("empty, so nobody could get in; name at least one network")
    return value


def _check_compose(value: str) -> str:
    if tuple(int(part) for part in value.split(".")) < (2, 24, 0):
        raise ValueError("older than 2.24, the first Compose with what the stacks here need")
    return value


def _check_http_url(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("not an http:// or https:// address")
    if url.username or url.password:
        raise ValueError(
            "holds a user or password: it would be readable in the unit; allow the host's address "
            "at the proxy instead"
        )
    return value.rstrip("/")


def _check_rate(value: str) -> str:
    match = re.fullmatch(r"([0-9]+)/([sm])", value)
    if not match or not 1 <= int(match[1]) <= 100_000:
        raise ValueError("not a rate: write requests a second or a minute, as in 5/s or 120/m")
    return value


def _check_expiry(value: Any) -> datetime:
    """The moment from which a key is refused; a mere day is still valid to its end, in UTC."""
    if isinstance(value, str):
        day_only = re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value)
        try:
            value = date.fromisoformat(value) if day_only else datetime.fromisoformat(value)
        except ValueError:
            value = None
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime.combine(value, time(), UTC) + timedelta(days=1)
    if not isinstance(value, datetime):
        raise ValueError("not a date: write 2027-06-30 or 2027-06-30T18:00:00+02:00")
    if value.tzinfo is None:
        raise ValueError("a time without its zone: add one, as in 2027-06-30T18:00:00+02:00")
    return value.astimezone(UTC)


def _check_origin(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[a-z0-9.-]+(:[0-9]+)?", value):
        raise ValueError("not an origin: write https://chat.example.com, without a path or *")
    return value


def _check_owner_email(value: str) -> str:
    # Dify answers 422 to these and never says why.
    domain = value.rpartition("@")[2]
    if value != value.lower():
        raise ValueError("write it in lower case: Dify stores it so")
    if "." not in domain or re.fullmatch(r"[\d.]+|\[.*\]", domain):
        raise ValueError("Dify refuses it: the part after @ must be a name with a dot in it")
    return value


def _check_subnet(value: IPvAnyNetwork) -> IPvAnyNetwork:
    if value.version != 4 or not value.is_private or not 16 <= value.prefixlen <= 26:
        raise ValueError("not a private IPv4 network of /16 to /26, such as 172.30.91.0/24")
    return value


def _name_to_model(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _check_dns_name(value: str) -> str:
    if not re.fullmatch(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]*", value):
        raise ValueError("not a DNS name in lower case, such as llm.example.com")
    return value


def _check_gpus(value: Any) -> Any:
    if value == ALL_GPUS:
        return value
    if not isinstance(value, list | tuple):
        raise ValueError("neither 'all' nor a list of GPUs: write [0, 1], or their UUIDs")
    for item in value:
        is_index = isinstance(item, int) and not isinstance(item, bool) and item >= 0
        if not is_index and not (isinstance(item, str) and _GPU_UUID.fullmatch(item)):
            raise ValueError(
                f"{item!r} is no GPU: write its index, or its UUID as `nvidia-smi -L` shows it "
                "(GPU-, then lower-case hexadecimal digits)"
            )
    if len(set(value)) != len(value):
        raise ValueError("names a GPU twice; name each once")
    return tuple(value)


def _name_to_key(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


ALL_GPUS: Literal["all"] = "all"
Gpus = Annotated[tuple[int | str, ...] | Literal["all"], BeforeValidator(_check_gpus)]
Duration = Annotated[str, BeforeValidator(_number_to_text), AfterValidator(check_duration)]
PositiveDuration = Annotated[str, BeforeValidator(_number_to_text), AfterValidator(_check_positive)]
Address = Annotated[IPvAnyAddress, BeforeValidator(_only_text)]
Network = Annotated[IPvAnyNetwork, BeforeValidator(_check_network), BeforeValidator(_only_text)]
Sha256 = Annotated[str, AfterValidator(_check_sha256)]
AbsolutePath = Annotated[str, AfterValidator(_check_absolute)]
HttpUrl = Annotated[str, AfterValidator(_check_http_url)]
Port = Annotated[int, Field(ge=1, le=65535)]
InterfaceName = Annotated[
    str,
    _form(
        r"[A-Za-z0-9][\w.-]{0,14}\*?",
        "an interface name of at most 15 letters, such as docker0 or br-*",
    ),
]
KeyName = Annotated[
    str,
    _form(
        r"[a-z0-9][a-z0-9-]{0,62}",
        "a key name of lower-case letters, digits and '-', such as team-a",
    ),
]
Fingerprint = Annotated[
    str, _form(r"[0-9A-F]{40}", "a fingerprint: 40 hexadecimal digits in capitals, without spaces")
]
Version = Annotated[str, _form(r"\d+\.\d+\.\d+", "a version of three numbers, such as 1.2.3")]
OllamaVersion = Annotated[
    str,
    _form(
        r"\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?",
        "a version of three numbers, such as 0.32.7 or 0.40.0-rc1",
    ),
]
ToolkitVersion = Annotated[
    str,
    _form(r"\d+\.\d+\.\d+-\d+", "a package's version, with its revision, such as 1.19.1-1"),
]
DriverVersion = Annotated[
    str, _form(r"\d{3}\.\d+(\.\d+)?", "a driver's version, such as 580.95.05")
]
UserName = Annotated[
    str,
    _form(
        r"[a-z_][a-z0-9_-]{0,31}",
        "a user name of lower-case letters, digits, '_' and '-', such as ops",
    ),
]
MirrorName = Annotated[
    str,
    _form(
        r"[\w.-]+(:\d+)?",
        "a host and its port, without http:// or a path, such as mirror.internal:5000",
    ),
]
RegistryName = Annotated[
    str,
    _form(
        r"[\w.-]+(:\d+)?|[0-9a-f.:]+/\d+",
        "a host and its port, or a network, such as registry.internal:5000 or 10.0.0.0/8",
    ),
]
EnvName = Annotated[
    str,
    _form(
        r"[A-Z][A-Z0-9_]*",
        "a variable's name of capitals, digits and '_', such as OLLAMA_VULKAN",
    ),
]
EnvValue = Annotated[
    str,
    _form(
        r"[^\x00-\x1f\"'\\]*",
        "text on one line without quotes and backslashes, such as 10.0.0.0/8",
    ),
]
# What an instance may have otherwise than its host.
ContextLength = Annotated[int, Field(ge=256)]
Parallel = Annotated[int, Field(ge=1, le=1024)]
LoadedModels = Annotated[int, Field(ge=0)]
QueueLength = Annotated[int, Field(ge=1)]
InstanceName = Annotated[
    str,
    _form(
        r"[a-z0-9][a-z0-9-]{0,30}",
        "an instance's name of lower-case letters, digits and '-', such as gpu-a",
    ),
]
ImageReference = Annotated[
    str,
    _form(
        r"[a-z0-9][\w.:/-]*:[\w][\w.-]*@sha256:[0-9a-f]{64}",
        "an image with its tag and its digest, such as ollama/ollama:0.32.7@sha256:<64 digits>, "
        "which `docker buildx imagetools inspect IMAGE:TAG` shows",
    ),
]
Rate = Annotated[str, AfterValidator(_check_rate)]
Expiry = Annotated[datetime, BeforeValidator(_check_expiry)]
Origin = Annotated[str, AfterValidator(_check_origin)]
DnsName = Annotated[str, AfterValidator(_check_dns_name)]
EmailAddress = Annotated[
    str, _form(r"[^@\s\"']+@[^@\s\"']+", "an email address, such as ops@example.com")
]
Subnet = Annotated[Network, AfterValidator(_check_subnet)]
OwnerEmail = Annotated[EmailAddress, AfterValidator(_check_owner_email)]
OwnerName = Annotated[
    str,
    _form(r"[^\s'\"\\][^'\"\\\n]{0,29}", "a name of 1 to 30 letters without quotes, such as Admin"),
]
Language = Annotated[str, _form(r"[a-z]{2}-[A-Z][A-Za-z]+", "a language, such as en-US or de-DE")]
AppName = Annotated[
    str,
    _form(
        r"[A-Za-z0-9][\w .-]{0,29}",
        "a name of 1 to 30 letters, digits, spaces, '.', '_' and '-', such as Fleet chat",
    ),
]
ImageName = Annotated[
    str,
    _form(
        r"[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9._-]+)*(:\w[\w.-]*)?",
        "an image as the compose file names it, such as nginx:latest",
    ),
]
ImageDigest = Annotated[
    str,
    _form(
        r"sha256:[0-9a-f]{64}",
        "a digest: sha256: and 64 digits, as `docker buildx imagetools inspect IMAGE:TAG` shows it",
    ),
]
PluginIdentifier = Annotated[
    str,
    _form(
        r"langgenius/ollama:\d+\.\d+\.\d+@[0-9a-f]{64}",
        "a plugin's identifier, such as langgenius/ollama:1.0.0@<64 digits>",
    ),
]


class Settings(BaseModel):
    """The keys of one capability, without their prefix.

    A field's `json_schema_extra` may hold `unit` (shown in the docs) and `exposes` (the warning
    shown beside a setting that opens something). `renamed` has each former key, as it was written,
    and what to write now: a refusal ends with it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)
    prefix: ClassVar[str]
    renamed: ClassVar[Mapping[str, str]] = {}


class HostSettings(Settings):
    """How the fleet sees a host."""

    prefix = ""

    private_address: Address | None = Field(
        None,
        description=(
            "The host's address inside the fleet: GPU hosts serve the gateway on it, and gateways "
            "call from it. Needed by every `..._listen` and `gateway_metrics` that is `private` "
            "(`gateway_listen` is by default), and by a gateway whose GPU hosts are other machines."
        ),
    )
    ssh_port: Port = Field(
        22, description="The port of sshd, kept open by the firewall and used to connect."
    )


class OllamaInstance(Declared):
    """One of several Ollama servers of a host; what it leaves out is as the host has it."""

    name: InstanceName = Field(
        description="Its name: the unit is `ollama@<name>.service`, the gateway shows it."
    )
    port: Port = Field(description="Port of its API, on the address of `ollama_listen`.")
    gpus: Gpus = Field(
        ALL_GPUS,
        description=(
            "GPUs that it sees: indexes as `nvidia-smi -L` counts them, UUIDs (these outlive a "
            "changed slot), or `all`. An empty list is the CPU alone."
        ),
    )
    shared_gpus: bool = Field(
        False,
        description=(
            "Other instances may have GPUs of this one; each that shares must say so. Ollama does "
            "not know what the other one loads there."
        ),
    )
    runtime: Runtime = Field(
        "systemd",
        description="How it runs: `systemd` is the release as a unit, `docker` is `ollama_image`.",
    )
    keep_alive: Duration | None = Field(None, description="Its own `ollama_keep_alive`.")
    load_timeout: Duration | None = Field(None, description="Its own `ollama_load_timeout`.")
    context_length: ContextLength | None = Field(
        None, description="Its own `ollama_context_length`."
    )
    num_parallel: Parallel | None = Field(None, description="Its own `ollama_num_parallel`.")
    max_loaded_models: LoadedModels | None = Field(
        None, description="Its own `ollama_max_loaded_models`."
    )
    max_queue: QueueLength | None = Field(None, description="Its own `ollama_max_queue`.")
    flash_attention: bool | None = Field(None, description="Its own `ollama_flash_attention`.")
    kv_cache_type: KvCacheType | None = Field(None, description="Its own `ollama_kv_cache_type`.")
    sched_spread: bool | None = Field(None, description="Its own `ollama_sched_spread`.")
    env: dict[EnvName, EnvValue] = Field(
        {}, description="Further variables, beside and before those of `ollama_env`."
    )

    def shares_with(self, other: OllamaInstance) -> bool:
        """Whether both were given a GPU by the same word; other words only the host can compare."""
        if ALL_GPUS in (self.gpus, other.gpus):
            return bool(self.gpus and other.gpus)
        return bool(set(self.gpus) & set(other.gpus))


# https://docs.ollama.com/faq warns of the proxy.
_NOT_FOR_ENV = {
    "CUDA_VISIBLE_DEVICES": (
        "is what `gpus` of ollama_instances sets; declare an instance with the GPUs that are meant"
    ),
    "HTTP_PROXY": (
        "would catch calls of Ollama's own API, and pulls are HTTPS; leave it out, and use "
        "ollama_https_proxy"
    ),
}
# The fields of an instance that take the place of the host's.
_OWN = (
    "keep_alive", "load_timeout", "context_length", "num_parallel", "max_loaded_models",
    "max_queue", "flash_attention", "kv_cache_type", "sched_spread",
)  # fmt: skip


class OllamaSettings(Settings):
    """The Ollama server of a GPU host, or what its several servers have in common."""

    prefix = "ollama_"

    version: OllamaVersion = Field(
        pins.OLLAMA_VERSION,
        description=(
            "Release to run, as in `0.32.7` or `0.40.0-rc1`. Releases stay side by side in "
            "`/opt/ollama/<version>`."
        ),
    )
    sha256: Sha256 | None = Field(
        None,
        description=(
            "SHA-256 of the release tarball. Needed for versions that `fleet/pins.py` does not pin."
        ),
    )
    release_url: HttpUrl = Field(
        "https://github.com/ollama/ollama/releases/download",
        description="Where releases are fetched: `<url>/v<version>/ollama-linux-<arch>.tar.zst`.",
    )
    port: Port = Field(11434, description="Port of the API.")
    listen: Listen = Field(
        "loopback",
        description=(
            "Address of the API: `loopback`, or `private` for the host's `private_address`, which "
            "the firewall opens to the gateways only."
        ),
        json_schema_extra={
            "exposes": "`private` opens an API without authentication to the gateways' addresses."
        },
    )
    models_dir: AbsolutePath = Field(
        "/var/lib/ollama/models",
        description="OLLAMA_MODELS: where weights are kept. May be another mount.",
    )
    models: tuple[Model, ...] = Field(
        (ModelDeclaration.named("gpt-oss:20b"),),
        strict=False,
        min_length=1,
        description="Models that the host serves: names, or declarations as described below.",
    )
    origins: tuple[EnvValue, ...] = Field(
        (), strict=False, description="OLLAMA_ORIGINS: browser origins allowed besides localhost."
    )
    keep_alive: Duration = Field(
        "5m",
        description="OLLAMA_KEEP_ALIVE: how long an idle model stays loaded; negative is for ever.",
        json_schema_extra={"unit": "duration"},
    )
    load_timeout: Duration = Field(
        "5m",
        description="OLLAMA_LOAD_TIMEOUT: a load without progress for so long is given up.",
        json_schema_extra={"unit": "duration"},
    )
    context_length: ContextLength | None = Field(
        None,
        description=(
            "OLLAMA_CONTEXT_LENGTH: default context. Unset, Ollama picks 4096 to 262144 by VRAM."
        ),
        json_schema_extra={"unit": "tokens"},
    )
    num_parallel: Parallel = Field(
        1, description="OLLAMA_NUM_PARALLEL: requests a model answers at once."
    )
    max_loaded_models: LoadedModels = Field(
        0, description="OLLAMA_MAX_LOADED_MODELS: 0 is three a GPU."
    )
    max_queue: QueueLength = Field(
        512, description="OLLAMA_MAX_QUEUE: requests that wait before Ollama answers 503."
    )
    flash_attention: bool | None = Field(
        None, description="OLLAMA_FLASH_ATTENTION: unset lets Ollama decide by the GPU."
    )
    kv_cache_type: KvCacheType = Field(
        "f16", description="OLLAMA_KV_CACHE_TYPE. The quantized types need flash attention."
    )
    sched_spread: bool = Field(
        False, description="OLLAMA_SCHED_SPREAD: spread every model over all GPUs."
    )
    no_cloud: bool = Field(
        True,
        description="OLLAMA_NO_CLOUD: refuse `:cloud` models.",
        json_schema_extra={"exposes": "`False` lets prompts leave the host for Ollama's cloud."},
    )
    debug: bool = Field(
        False,
        description="OLLAMA_DEBUG: verbose logs.",
        json_schema_extra={"exposes": "`True` may write prompts to the journal."},
    )
    https_proxy: HttpUrl | None = Field(
        None,
        description=(
            "HTTPS_PROXY of the server, for pulls; the release is fetched through it, too. Must "
            "not hold a password."
        ),
    )
    no_proxy: tuple[EnvValue, ...] = Field(
        (),
        strict=False,
        description=(
            "NO_PROXY of the server, and of what fetches the release; localhost is always added."
        ),
    )
    env: dict[EnvName, EnvValue] = Field(
        {}, description="Further variables of the server, as text, for example `OLLAMA_VULKAN`."
    )
    instances: tuple[OllamaInstance, ...] = Field(
        (),
        strict=False,
        description=(
            "Several Ollama servers instead of one, as described below: each with its port and its "
            "GPUs, all with the same models directory."
        ),
    )
    image: ImageReference | None = Field(
        None,
        description=(
            "Image of instances with `runtime` = `docker`, by its digest: "
            "`ollama/ollama:<version>@sha256:<digest>`, of `ollama_version`."
        ),
    )

    @model_validator(mode="after")
    def _relations(self) -> OllamaSettings:
        self._check()
        if self.no_proxy and not self.https_proxy:
            raise ValueError(
                "ollama_no_proxy: there is no proxy to leave out; set ollama_https_proxy"
            )
        names = [instance.name for instance in self.instances]
        for instance in self.instances:
            if names.count(instance.name) > 1:
                raise ValueError(
                    f"ollama_instances: {instance.name!r} is declared twice; rename one"
                )
            try:
                self.of(instance)._check()
            except ValueError as error:
                raise ValueError(f"ollama_instances: {instance.name}: {error}") from None
        self._check_gpus()
        self._check_image()
        if self.instances and any(AUTO in (model.name, model.base) for model in self.models):
            raise ValueError(
                "ollama_models: 'auto' goes by the memory of all GPUs, of which each of "
                "ollama_instances has a part; name the model"
            )
        return self

    def _check_gpus(self) -> None:
        for place, instance in enumerate(self.instances):
            for other in self.instances[:place]:
                shared = instance.shared_gpus and other.shared_gpus
                if instance.shares_with(other) and not shared:
                    raise ValueError(
                        f"ollama_instances: {other.name} has gpus = {_spoken(other.gpus)} and "
                        f"{instance.name} has {_spoken(instance.gpus)}, so each would load models "
                        "onto GPUs of the other; give each its own, or shared_gpus = True to both"
                    )

    def _check_image(self) -> None:
        contained = [item.name for item in self.instances if item.runtime == "docker"]
        if contained and self.image is None:
            raise ValueError(
                f"ollama_instances: {contained[0]}: runtime = 'docker' needs ollama_image; set it "
                f"to 'ollama/ollama:{self.version}@sha256:...', with the digest that `docker "
                f"buildx imagetools inspect ollama/ollama:{self.version}` shows"
            )
        tag = self.image.split("@")[0].rsplit(":", 1)[-1] if self.image else self.version
        if tag != self.version:
            raise ValueError(
                f"ollama_image: the tag {tag} is not ollama_version = {self.version!r}; an "
                "instance must be of the version that the host declares"
            )

    def of(self, instance: OllamaInstance) -> OllamaSettings:
        """The settings as they hold for `instance`."""
        own = {name: getattr(instance, name) for name in _OWN}
        own = {name: value for name, value in own.items() if value is not None}
        env = self.env | instance.env
        return self.model_copy(update={**own, "port": instance.port, "env": env, "instances": ()})

    def _check(self) -> None:
        own = sorted(set(self.env) & set(_own_environment(self, "")))
        if own:
            raise ValueError(
                f"ollama_env: {', '.join(own)} is set by this project, use its setting"
            )
        if refused := [f"{name} {why}" for name, why in _NOT_FOR_ENV.items() if name in self.env]:
            raise ValueError(f"ollama_env: {refused[0]}")
        if self.env.get("OLLAMA_DEBUG_LOG_REQUESTS", "0") not in ("0", "false"):
            raise ValueError("ollama_env: OLLAMA_DEBUG_LOG_REQUESTS writes prompts to disk")
        overhead = self.env.get("OLLAMA_GPU_OVERHEAD") or "0"
        if not re.fullmatch("[0-9]+", overhead):
            raise ValueError(
                f"ollama_env: OLLAMA_GPU_OVERHEAD = {overhead!r} is no number, and Ollama would "
                "leave nothing free; give the bytes that each GPU keeps, '1073741824' for a GiB"
            )
        if _SYSTEM_DIRECTORY.match(f"{self.models_dir}/"):
            raise ValueError(
                f"ollama_models_dir: {self.models_dir} belongs to the system, and would be given "
                "to the user ollama; use a directory of its own under /var/lib, /srv, /data or /mnt"
            )
        exposed = sorted(name for name in self.env if re.search("TOKEN|SECRET|PASS|_KEY$", name))
        exposed += sorted(name for name, value in self.env.items() if re.search("://[^/]*@", value))
        if exposed:
            raise ValueError(
                f"ollama_env: {', '.join(exposed)} looks like a secret, and a unit's environment "
                "can be read by every user of the host; leave it out"
            )
        if hidden := hidden_from_units(self.models_dir):
            raise ValueError(
                f"ollama_models_dir: {self.models_dir} is under {hidden}, which the "
                "hardened unit cannot see; use a directory under /var, /srv, /data or /mnt"
            )
        if self.kv_cache_type != "f16" and self.flash_attention is False:
            raise ValueError(
                f"ollama_kv_cache_type: {self.kv_cache_type} needs flash attention; set "
                "ollama_flash_attention = True or leave it unset"
            )
        if problems := contradictions(self.models, self.max_loaded_models):
            raise ValueError("; ".join(f"ollama_models: {line}" for line in problems))

    @property
    def model_names(self) -> tuple[str, ...]:
        """The models by name alone, as they are declared; `auto` where the host chooses."""
        return tuple(model.name for model in self.models)

    def tarball_sha256(self, arch: Architecture) -> str | None:
        """SHA-256 of the release tarball: `ollama_sha256`, else the pin, else None."""
        return self.sha256 or pins.OLLAMA_SHA256.get((self.version, arch))


class ModelsSettings(Settings):
    """The models of a GPU host."""

    prefix = "models_"

    registry: MirrorName | None = Field(
        None,
        description=(
            "Mirror to pull from, as `host` or `host:port`, without a scheme or a path; the models "
            "keep their short names. Unset is Ollama's own registry."
        ),
    )
    registry_insecure: bool = Field(
        False,
        description="Talk plain HTTP to the mirror.",
        json_schema_extra={"exposes": "`True` lets the network read and alter what is pulled."},
    )
    cpu_offload: tuple[str, ...] = Field(
        (),
        strict=False,
        description=(
            "Models that may run partly on the CPU of a GPU host, by their names in "
            "`ollama_models`; they are many times slower. Any other that does not fit is refused."
        ),
    )
    wait: bool = Field(
        True, description="Wait until the models are there. `False` leaves the host to it."
    )
    wait_timeout: PositiveDuration = Field(
        "6h",
        description="How long a deploy waits. The host goes on by itself after that.",
        json_schema_extra={"unit": "duration"},
    )

    prune: bool = Field(
        False,
        description=(
            "Remove models that are not declared, but never one that is loaded. `False` only "
            "reports them."
        ),
    )
    no_progress: PositiveDuration = Field(
        "3m",
        description=(
            "A pull without a new byte for so long is given up and begun anew; it goes on from "
            "where it was. Ollama by itself can wait for ever."
        ),
        json_schema_extra={"unit": "duration"},
    )
    slow_rate: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description=(
            "A pull slower than this is interrupted and resumed at once, as fresh connections "
            "often are faster. 0 is never."
        ),
        json_schema_extra={"unit": "MB/s"},
    )
    slow_window: PositiveDuration = Field(
        "2m",
        description="Over how long `models_slow_rate` is averaged; also the least time between two "
        "such interruptions.",
        json_schema_extra={"unit": "duration"},
    )
    attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        5,
        description=(
            "Attempts for a model, one after the other and without a new byte, before it counts "
            "as failed. The host begins anew by itself `models_retry_delay_max` later."
        ),
    )
    retry_delay: PositiveDuration = Field(
        "5s",
        description="Pause after a first failed attempt; doubled after each further one.",
        json_schema_extra={"unit": "duration"},
    )
    retry_delay_max: PositiveDuration = Field(
        "5m",
        description="Longest pause between two attempts, and between two runs of the loader.",
        json_schema_extra={"unit": "duration"},
    )
    disk_reserve: Annotated[float, Field(ge=0)] = Field(
        5.0,
        description="What a pull must leave free in `ollama_models_dir`; checked before it begins.",
        json_schema_extra={"unit": "GB"},
    )

    @model_validator(mode="after")
    def _relations(self) -> ModelsSettings:
        if seconds(self.retry_delay) > seconds(self.retry_delay_max):
            raise ValueError(
                f"models_retry_delay: {self.retry_delay} is longer than models_retry_delay_max = "
                f"{self.retry_delay_max}; exchange them"
            )
        if self.registry_insecure and not self.registry:
            raise ValueError(
                "models_registry_insecure: only a mirror can be plain HTTP; set models_registry"
            )
        return self


class GatewayKey(BaseModel):
    """An API key as it is declared: who may do what, from where, how often and until when."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    name: KeyName = Field(description="Name of the key: in logs, metrics and the secrets store.")
    role: Role = Field(
        "inference",
        description=(
            "What it may: `inference` reaches chat, completions, embeddings and the list of "
            "models; `admin` also pull, create, show, ps and delete, below `/hosts/<name>/`."
        ),
        json_schema_extra={"exposes": "An `admin` key can delete and replace models."},
    )
    rate: Rate | None = Field(
        None, description="Requests a second or a minute, as in `5/s` or `120/m`; unset: unlimited."
    )
    burst: int | None = Field(
        None,
        ge=0,
        le=100_000,
        description="Requests let through at once above the rate; unset: a second's worth.",
    )
    concurrent: int | None = Field(
        None, ge=1, le=65535, description="Requests in flight at once; unset: unlimited."
    )
    expires: Expiry | None = Field(
        None,
        description=(
            "Refused from then on: a day (to its end, UTC), or a time with its zone. Checked at "
            "each request, no deploy is needed."
        ),
    )
    allow_from: tuple[Network, ...] = Field(
        (), strict=False, description="Source networks the key works from; empty: all of them."
    )
    overrides: bool = Field(
        False,
        description=(
            "Let `/api` requests set `keep_alive` and the options that reload a model (`num_ctx` "
            "and its like). `admin` keys always may."
        ),
        json_schema_extra={"exposes": "`True` lets this client unload or reload all models."},
    )

    @model_validator(mode="after")
    def _relations(self) -> GatewayKey:
        if self.burst is not None and self.rate is None:
            raise ValueError(f"{self.name}: burst without a rate limits nothing; add rate")
        return self

    def has_ended(self, now: datetime) -> bool:
        """Whether it is refused at `now`."""
        return self.expires is not None and self.expires <= now

    @property
    def may_override(self) -> bool:
        """Whether its requests may change how long and how a model is loaded."""
        return self.overrides or self.role == "admin"


GatewayKeyDeclared = Annotated[GatewayKey, BeforeValidator(_name_to_key)]
# nginx keeps one table in shared memory for each different limit.
_MOST_LIMITS = 32


class GatewaySettings(Settings):
    """The nginx front door of a gateway host."""

    prefix = "gateway_"

    listen: GatewayListen = Field(
        "private",
        description="Where the front door is: `loopback`, `private` (`private_address`) or `any`.",
        json_schema_extra={"exposes": "`any` listens on every address, public ones too."},
    )
    port: Port = Field(8434, description="Port of the front door.")
    keys: tuple[GatewayKeyDeclared, ...] = Field(
        (),
        strict=False,
        description=(
            "API keys that are let in, one a client: a name, or a name and its limits as below. "
            "Values are in the secrets store as `gateway_key_<name>`, generated when missing."
        ),
    )
    names: tuple[DnsName, ...] = Field(
        (),
        strict=False,
        description=(
            "DNS names by which clients know the front door: the first is in its URL, and the "
            "certificate of `private-ca` or `acme` is for all of them."
        ),
    )
    tls: GatewayTls = Field(
        "private-ca",
        description=(
            "Where the certificate is from: `private-ca` is an authority of this fleet's own "
            "(`fleet ca` prints what clients must trust), `given` is `gateway_tls_certificate`, "
            "`acme` has certbot fetch and renew one, `off` is plain HTTP."
        ),
        json_schema_extra={
            "exposes": "`off` sends keys, prompts and answers over the network in plain text."
        },
    )
    tls_certificate: str | None = Field(
        None,
        min_length=1,
        description=(
            "For `given`: PEM file with the certificate and its chain, relative to the project. "
            "Its key is the secret `gateway_tls_key` of the secrets store."
        ),
    )
    acme_directory: HttpUrl = Field(
        "https://acme-v02.api.letsencrypt.org/directory",
        description="For `acme`: the authority's directory. By default Let's Encrypt.",
    )
    acme_email: EmailAddress | None = Field(
        None, description="For `acme`: the address that the authority may write to."
    )
    http_port: Port | None = Field(
        None,
        description=(
            "Port on which plain HTTP is answered by a redirect to the front door, and nothing "
            "else; `acme` needs it, as port 80, to prove the names."
        ),
        json_schema_extra={
            "exposes": "A client that calls it with a key has sent the key in plain text."
        },
    )
    cors_origins: tuple[Origin, ...] = Field(
        (),
        strict=False,
        description="Browser origins whose pages may call the front door, such as a web chat's.",
        json_schema_extra={
            "exposes": "Scripts of these pages can read answers, for whoever gives them a key."
        },
    )
    metrics: MetricsListen = Field(
        "loopback",
        description=(
            "Where Prometheus finds the gateway's exporters: `loopback`, `private` "
            "(`private_address`, opened to `gateway_metrics_from`), or `off` for none."
        ),
        json_schema_extra={
            "exposes": "`private` shows key names and request counts to the declared networks."
        },
    )
    metrics_port: Port = Field(9145, description="Port of the requests' metrics, by key name.")
    metrics_nginx_port: Port = Field(9113, description="Port of nginx's own exporter.")
    metrics_node_port: Port = Field(9100, description="Port of the host's exporter.")
    metrics_from: tuple[Network, ...] = Field(
        (), strict=False, description="Source networks that the firewall lets read the metrics."
    )
    allow_from: Annotated[tuple[Network, ...], AfterValidator(_check_not_empty)] = Field(
        (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")),
        strict=False,
        description="Source networks that the firewall lets reach the front door.",
    )
    read_timeout: PositiveDuration = Field(
        "15m",
        description=(
            "How long a backend may send nothing: a cold load of a large model must fit in it."
        ),
        json_schema_extra={"unit": "duration"},
    )
    max_body: Annotated[int, Field(ge=1, le=4096)] = Field(
        64,
        description="Largest request body, images included.",
        json_schema_extra={"unit": "MiB"},
    )

    @model_validator(mode="after")
    def _relations(self) -> GatewaySettings:
        names = [key.name for key in self.keys]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"gateway_keys: {', '.join(twice)} is declared more than once")
        limits = {(key.rate, key.burst) for key in self.keys if key.rate}
        limits_at_once = {key.concurrent for key in self.keys if key.concurrent}
        if max(len(limits), len(limits_at_once)) > _MOST_LIMITS:
            raise ValueError(
                f"gateway_keys: more than {_MOST_LIMITS} different limits; nginx would keep a "
                "table for each, give keys limits in common"
            )
        if (self.tls == "given") != (self.tls_certificate is not None):
            raise ValueError(
                "gateway_tls_certificate: belongs to gateway_tls = 'given', which needs it"
            )
        if self.tls == "acme" and not (self.names and self.acme_email and self.http_port == 80):
            raise ValueError(
                "gateway_tls: 'acme' needs gateway_names, gateway_acme_email and "
                f"gateway_http_port = 80, which is {self.http_port}: authorities ask no other port"
            )
        if self.tls == "off" and self.http_port is not None:
            raise ValueError(
                "gateway_http_port: redirects to https, which gateway_tls = 'off' turns off"
            )
        if self.metrics_from and self.metrics != "private":
            raise ValueError(
                f"gateway_metrics_from: with gateway_metrics = {self.metrics!r} nobody else can "
                "reach the metrics; set gateway_metrics = 'private'"
            )
        if self.metrics == "private" and not self.metrics_from:
            raise ValueError(
                "gateway_metrics = 'private' without gateway_metrics_from: nobody could read them; "
                "name at least one network"
            )
        return self

    def usable_keys(self, now: datetime) -> list[GatewayKey]:
        """Keys that are let in from anywhere at `now`; those without other limits first."""
        usable = [key for key in self.keys if not key.has_ended(now) and not key.allow_from]
        return sorted(usable, key=lambda key: bool(key.rate or key.concurrent))


class FirewallSettings(Settings):
    """What may reach a host and its containers: everything else is dropped."""

    prefix = "firewall_"
    renamed = {
        "firewall_enabled": 'firewall_backend = "none" for False, "nftables" for True',
    }

    backend: FirewallBackend = Field(
        "nftables",
        description=(
            "What closes the host: `nftables` is a table of this project's own, `inet llm_fleet`; "
            "a host where ufw or firewalld is in force is refused. `none` leaves filtering to "
            "others."
        ),
        json_schema_extra={
            "exposes": "`none` leaves every listening port as reachable as the network makes it."
        },
    )
    ssh_from: Annotated[tuple[Network, ...], AfterValidator(_check_not_empty)] = Field(
        (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")),
        strict=False,
        description="Source networks that may reach sshd. Must hold the machine that deploys.",
    )
    open_tcp: tuple[Port, ...] = Field(
        (),
        strict=False,
        description=(
            "Further TCP ports to open, for services that this project does not manage. A port "
            "that a container publishes is closed unless it is listed here, by its number on the "
            "host."
        ),
        json_schema_extra={"exposes": "Each port is opened to every address."},
    )
    open_to_containers: tuple[Port, ...] = Field(
        (),
        strict=False,
        description="TCP ports of the host that its own containers may reach.",
        json_schema_extra={"exposes": "Each port is opened to every container on the host."},
    )
    container_interfaces: tuple[InterfaceName, ...] = Field(
        ("docker0", "br-*", "podman*"),
        strict=False,
        description=(
            "The host's interfaces with containers behind them; a `*` at the end stands for any "
            "ending. A network card behind a bridge of such a name needs the exact names instead."
        ),
    )
    log_drops: bool = Field(
        True,
        description=(
            "Write dropped packets to the kernel's log, ten a minute, as `llm-fleet drop:`."
        ),
    )
    confirm_within: PositiveDuration = Field(
        "60s",
        description=(
            "New rules are put back by the host itself unless this machine logs in anew within "
            "this time, 5s to 10m."
        ),
        json_schema_extra={"unit": "duration"},
    )

    @model_validator(mode="after")
    def _relations(self) -> FirewallSettings:
        if not 5 <= seconds(self.confirm_within) <= 600:
            raise ValueError(
                f"firewall_confirm_within = {self.confirm_within!r}: 5s to 10m: a login must fit "
                "in it, and a host that shuts everybody out must come back"
            )
        return self


class DriverSettings(Settings):
    """The NVIDIA driver of a GPU host; a host without an NVIDIA GPU needs none of it."""

    prefix = "driver_"

    source: Literal["nvidia", "distribution", "none"] = Field(
        "nvidia",
        description=(
            "Where the driver comes from: NVIDIA's repository, the distribution's own archive, or "
            "`none` for a host whose driver is somebody else's: it is only "
            "verified then, and its device nodes are made at each boot."
        ),
    )
    branch: Annotated[int, Field(ge=550, le=999)] | None = Field(
        None,
        description=(
            "Driver branch that the host stays in. Unset is that of `driver_version`, or 580: it "
            "is supported until June 2028, and the last one for Maxwell, Pascal and Volta. NVIDIA "
            "does not publish it for Debian 13 and Ubuntu 26.04, where unset is 595. Debian's own "
            "archive has one branch only."
        ),
    )
    version: DriverVersion | None = Field(
        None,
        description=(
            "Exact driver version, from NVIDIA's repository, as in `595.91.07` or `580.95`: it "
            "begins with `driver_branch`, where that is set. Unset installs the branch's newest "
            "and stays with it; set it to move."
        ),
    )
    modules: Literal["auto", "open", "proprietary"] = Field(
        "auto",
        description="Kernel modules: `auto` is open ones from Turing on, proprietary ones before.",
    )
    hold: bool = Field(
        True,
        description=(
            "Hold the driver's packages, so that `apt upgrade` leaves the loaded module and its "
            "libraries at one version."
        ),
    )
    reboot: Literal["one-at-a-time", "together", "never"] = Field(
        "one-at-a-time",
        description=(
            "When the installed module is not the loaded one: reboot the hosts one after the "
            "other, all at once, or leave it to you; the compliance check fails until it is done."
        ),
    )
    reboot_timeout: PositiveDuration = Field(
        "15m",
        description="How long a host may take to come back from a reboot.",
        json_schema_extra={"unit": "duration"},
    )
    mok_enrolled: bool = Field(
        False,
        description=(
            "Secure Boot: the key that signs the modules built on this host is enrolled in its "
            "firmware. Ubuntu's own archive has signed modules and needs none."
        ),
    )
    repository_url: HttpUrl = Field(
        "https://developer.download.nvidia.com/compute/cuda/repos",
        description="NVIDIA's repositories: `<url>/<distribution>/<architecture>/`, or a mirror.",
    )
    repository_fingerprint: Fingerprint | None = Field(
        None,
        description=(
            "Fingerprint of the key that signs the repository, for a mirror with its own key."
        ),
    )

    @model_validator(mode="after")
    def _relations(self) -> DriverSettings:
        if self.version and self.source != "nvidia":
            raise ValueError(
                f"driver_version: only NVIDIA's repository has versions to choose from, and "
                f"driver_source is {self.source!r}"
            )
        if self.version and self.branch not in (None, int(self.version.split(".")[0])):
            raise ValueError(
                f"driver_version: {self.version} is not of branch {self.branch}; set driver_branch "
                f"= {self.version.split('.')[0]}"
            )
        return self


class DockerSettings(Settings):
    """Docker Engine and Compose."""

    prefix = "docker_"

    enabled: bool = Field(
        False,
        description="Run Docker on the host. A host that needs no containers stays without it.",
    )
    source: Literal["docker", "distribution"] = Field(
        "docker",
        description=(
            "Where the packages are from: `docker` is Docker CE at the versions below, held; "
            "`distribution` is `docker.io` and Compose as the distribution has them."
        ),
    )
    version: Version = Field(
        pins.DOCKER_VERSION, description="Docker CE to run, engine and command line."
    )
    containerd_version: Version = Field(
        pins.CONTAINERD_VERSION, description="Version of `containerd.io` under Docker CE."
    )
    compose_version: Annotated[Version, AfterValidator(_check_compose)] = Field(
        pins.COMPOSE_VERSION,
        description="Compose plugin of Docker CE, three numbers; 2.24.0 or newer.",
    )
    repository_url: HttpUrl = Field(
        "https://download.docker.com/linux",
        description="Docker's repositories, or a mirror: `<url>/debian`, `<url>/ubuntu`.",
    )
    repository_fingerprint: Fingerprint = Field(
        pins.DOCKER_KEY,
        description=(
            "Fingerprint of the key that signs the repository; it is fetched from "
            "`<url>/<distribution>/gpg` and trusted only when it is this one."
        ),
    )
    log_driver: Literal["local", "json-file", "journald"] = Field(
        "local",
        description=(
            "Where containers' output is kept. `local` and `json-file` are rotated by the sizes "
            "below; running containers keep the driver that they were created with."
        ),
    )
    log_max_size: Annotated[int, Field(ge=1, le=4096)] = Field(
        10,
        description="Size at which a container's log is rotated.",
        json_schema_extra={"unit": "MiB"},
    )
    log_max_files: Annotated[int, Field(ge=1, le=100)] = Field(
        5, description="Log files kept for each container."
    )
    live_restore: bool = Field(
        True, description="Containers go on while the daemon restarts or is upgraded."
    )
    data_root: AbsolutePath | None = Field(
        None,
        description=(
            "Where images, containers and volumes are kept. Unset leaves it as it is "
            "(`/var/lib/docker`). A host whose containers are elsewhere is refused."
        ),
    )
    registry_mirrors: tuple[HttpUrl, ...] = Field(
        (), strict=False, description="Mirrors of Docker Hub, asked before it."
    )
    insecure_registries: tuple[RegistryName, ...] = Field(
        (),
        strict=False,
        description="Registries (`host:port`, or a network) spoken to without verified TLS.",
        json_schema_extra={"exposes": "The network can read and alter what is pulled from them."},
    )
    http_proxy: HttpUrl | None = Field(
        None, description="HTTP_PROXY of the daemon. Must not hold a password."
    )
    https_proxy: HttpUrl | None = Field(
        None, description="HTTPS_PROXY of the daemon, for pulls. Must not hold a password."
    )
    no_proxy: tuple[EnvValue, ...] = Field(
        (), strict=False, description="NO_PROXY of the daemon; localhost is always added."
    )
    users: tuple[UserName, ...] = Field(
        (),
        strict=False,
        description="Members of the group `docker`, exactly. They must exist.",
        json_schema_extra={"exposes": "A member of this group is root on the host."},
    )

    @model_validator(mode="after")
    def _relations(self) -> DockerSettings:
        if self.no_proxy and not (self.http_proxy or self.https_proxy):
            raise ValueError(
                "docker_no_proxy: there is no proxy to leave out; set docker_https_proxy"
            )
        sized = {"log_max_size", "log_max_files"} & self.model_fields_set
        if self.log_driver == "journald" and sized:
            raise ValueError(
                f"docker_{min(sized)}: journald rotates by journald.conf; leave it out, or set "
                "docker_log_driver = 'local'"
            )
        return self


class ToolkitSettings(Settings):
    """NVIDIA Container Toolkit, on hosts with Docker and an NVIDIA GPU."""

    prefix = "toolkit_"

    enabled: bool = Field(
        True,
        description=(
            "Give containers the GPUs, by CDI (`--device nvidia.com/gpu=all`). Hosts without "
            "Docker or without an NVIDIA GPU have nothing to give, and are left alone."
        ),
    )
    version: ToolkitVersion = Field(
        pins.TOOLKIT_VERSION,
        description="Version of all four packages, held; with the packages' own number, `-1`.",
    )
    runtime: bool = Field(
        False,
        description=(
            "Also register the runtime `nvidia`, for `--gpus` and `--runtime=nvidia`. Containers "
            "started that way lose their GPUs at every `systemctl daemon-reload`; CDI's do not."
        ),
    )
    repository_url: HttpUrl = Field(
        "https://nvidia.github.io/libnvidia-container",
        description="NVIDIA's repository, or a mirror: `<url>/stable/deb/<architecture>/`.",
    )
    repository_fingerprint: Fingerprint = Field(
        pins.TOOLKIT_KEY,
        description=(
            "Fingerprint of the key that signs the repository; it is fetched from `<url>/gpgkey` "
            "and trusted only when it is this one."
        ),
    )


class DifyModel(BaseModel):
    """A model of the fleet as Dify is told of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    name: Annotated[str, AfterValidator(check_model_name)] = Field(
        description="The model, as it is declared in `ollama_models`."
    )
    context_size: int = Field(
        8192,
        ge=256,
        description=(
            "Longest prompt and answer together, in tokens, that Dify sends. Ollama is not told "
            "of it: it must not be above `ollama_context_length`."
        ),
    )
    max_tokens: int = Field(2048, ge=16, description="Longest answer that an app may ask for.")
    tools: bool = Field(True, description="Whether the model calls tools; gpt-oss does.")
    vision: bool = Field(False, description="Whether the model sees pictures.")

    @model_validator(mode="after")
    def _relations(self) -> DifyModel:
        if self.max_tokens > self.context_size:
            raise ValueError(
                f"{self.name}: max_tokens = {self.max_tokens} is above context_size = "
                f"{self.context_size}; an answer is part of the context"
            )
        return self

    @property
    def full_name(self) -> str:
        """The name with its tag."""
        return full_name(self.name)


DifyModelDeclared = Annotated[DifyModel, BeforeValidator(_name_to_model)]


class DifySettings(Settings):
    """Dify, wired to the fleet's models, on a host in the group `dify`."""

    prefix = "dify_"

    version: Version = Field(
        pins.DIFY_VERSION,
        description=(
            "Release to run. A higher one is an upgrade: backed up first, proven by a chat, and "
            "taken back when it does not come up."
        ),
    )
    sha256: Sha256 | None = Field(
        None, description="SHA-256 of the release's source tarball. Needed on a Dify host."
    )
    release_url: HttpUrl = Field(
        "https://github.com/langgenius/dify/archive/refs/tags",
        description="Where releases are fetched: `<url>/<version>.tar.gz`.",
    )
    images: dict[ImageName, ImageDigest] = Field(
        {},
        description=(
            "Digest of each image, by its name in the release's compose file. Images whose tag "
            "floats (`nginx:latest`, `postgres:15-alpine`) are refused without one."
        ),
    )
    listen: Listen = Field(
        "loopback",
        description=(
            "Where Dify is published: `loopback`, for a proxy or tunnel of your own, or `private` "
            "for the host's `private_address`."
        ),
        json_schema_extra={
            "exposes": "`private` serves logins and chats over plain HTTP to `dify_allow_from`."
        },
    )
    port: Port = Field(8480, description="Port of Dify's pages and API. Nothing else is published.")
    allow_from: tuple[Network, ...] = Field(
        (), strict=False, description="Source networks that may reach Dify under `private`."
    )
    public_url: HttpUrl | None = Field(
        None,
        description=(
            "The address in people's browsers, when a proxy of your own is in front. Unset is "
            "where Dify is published."
        ),
    )
    subnet: Subnet = Field(
        ipaddress.ip_network("172.30.91.0/24"),
        description=(
            "Network of Dify's containers: a private one of /16 to /26. Only its plugin daemon, at "
            "a fixed address in it, may reach Ollama."
        ),
    )
    owner_email: OwnerEmail | None = Field(
        None,
        description=(
            "The owner's account, made by the first deploy. Its password is in the secrets store "
            "as `dify_<host>_owner_password`. Needed on a Dify host."
        ),
    )
    owner_name: OwnerName = Field(
        "Admin", description="The owner's name; the workspace is called after it. 1 to 30 letters."
    )
    language: Language = Field("en-US", description="Language of the owner's pages.")
    plugin: PluginIdentifier | None = Field(
        None,
        description=(
            "The Ollama plugin from Dify's marketplace: `langgenius/ollama:<version>@<hash>`."
        ),
    )
    plugin_package: str | None = Field(
        None,
        min_length=1,
        description=(
            "The Ollama plugin as a `.difypkg` instead: an http(s) address, or a file relative to "
            "the project."
        ),
    )
    plugin_sha256: Sha256 | None = Field(
        None, description="SHA-256 of `dify_plugin_package`, which needs it."
    )
    plugin_signature: bool = Field(
        True,
        description="Install plugins that Dify's marketplace has signed, and no others.",
        json_schema_extra={
            "exposes": "`False` lets the owner install code that nobody vouches for."
        },
    )
    pip_index: HttpUrl | None = Field(
        None,
        description=(
            "Python index that the plugin's dependencies come from, where the public one cannot "
            "be reached. The plugin's own lock, which names the public one, is not used then."
        ),
    )
    ollama: Literal["host", "gateway"] = Field(
        "host",
        description=("Which Ollama answers: this host's own, or the fleet's through its gateway."),
    )
    gateway_key: KeyName = Field(
        "dify", description="For `gateway`: the name in `gateway_keys` whose key Dify uses."
    )
    models: tuple[DifyModelDeclared, ...] = Field(
        (),
        strict=False,
        description=(
            "Models that Dify may use: names, or names and limits as below. The first is the "
            "default. Unset is the first of `ollama_models`."
        ),
    )
    app_name: AppName = Field(
        "Fleet chat",
        description=(
            "Name of the sample app, and of its twin `<name> (workflow)` that proves the worker. "
            "Their API keys are in the secrets store as `dify_<host>_app_chat` and `..._workflow`."
        ),
    )
    http_proxy: HttpUrl | None = Field(
        None,
        description=(
            "Proxy of the API, the workers and the plugin daemon; Dify's own services and Ollama "
            "are left out of it. Must not hold a password."
        ),
    )
    no_proxy: tuple[EnvValue, ...] = Field(
        (), strict=False, description="Further names and addresses to be reached without the proxy."
    )
    start_timeout: PositiveDuration = Field(
        "15m",
        description="How long the containers may take to be healthy, migrations included.",
        json_schema_extra={"unit": "duration"},
    )
    backup_dir: AbsolutePath = Field(
        "/var/backups/llm-fleet-dify",
        description="Where backups are kept on the host. Copy them elsewhere: they hold secrets.",
    )
    backup_every: PositiveDuration = Field(
        "24h",
        description="Longest time between two backups, made by the host itself.",
        json_schema_extra={"unit": "duration"},
    )
    backup_keep: Annotated[int, Field(ge=1, le=1000)] = Field(
        7, description="Backups kept; the oldest beyond are deleted."
    )
    env: dict[EnvName, EnvValue] = Field(
        {}, description="Further values of Dify's `.env`, as text. Secrets are not for here."
    )

    @model_validator(mode="after")
    def _relations(self) -> DifySettings:
        if self.plugin and self.plugin_package:
            raise ValueError(
                "dify_plugin_package: the plugin comes from the marketplace (dify_plugin) already; "
                "leave one of them out"
            )
        if bool(self.plugin_package) != bool(self.plugin_sha256):
            raise ValueError("dify_plugin_sha256: belongs to dify_plugin_package; set both")
        if self.allow_from and self.listen != "private":
            raise ValueError(
                "dify_allow_from: nobody else can reach loopback; set dify_listen = 'private'"
            )
        if self.no_proxy and not self.http_proxy:
            raise ValueError("dify_no_proxy: there is no proxy to leave out; set dify_http_proxy")
        names = [model.full_name for model in self.models]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"dify_models: {', '.join(twice)} is declared more than once")
        return self


class WebuiSettings(Settings):
    """Open WebUI, which asks the fleet's gateway, on a host in the group `webui`."""

    prefix = "webui_"

    image: ImageReference | None = Field(
        None,
        description=(
            "Image to run: `ghcr.io/open-webui/open-webui:<version>@sha256:<digest>`, or a "
            "mirror's. Needed on an Open WebUI host. A higher version migrates the database, and "
            "there is no way down but a backup."
        ),
    )
    listen: Listen = Field(
        "loopback",
        description=(
            "Where Open WebUI is published: `loopback`, for a proxy or tunnel of your own, or "
            "`private` for the host's `private_address`."
        ),
        json_schema_extra={
            "exposes": "`private` serves logins and chats over plain HTTP to `webui_allow_from`."
        },
    )
    port: Port = Field(
        8380, description="Port of Open WebUI's pages and API. Nothing else is published."
    )
    allow_from: tuple[Network, ...] = Field(
        (), strict=False, description="Source networks that may reach Open WebUI under `private`."
    )
    gateway_key: KeyName = Field(
        "webui", description="The name in `gateway_keys` whose key Open WebUI uses."
    )
    admin_email: EmailAddress | None = Field(
        None,
        description=(
            "The administrator's account, made by the first start. Its password is in the secrets "
            "store as `webui_<host>_admin_password`. Needed on an Open WebUI host."
        ),
    )
    env: dict[EnvName, EnvValue] = Field(
        {},
        description=(
            "Further values of the container's environment, as Open WebUI's documentation names "
            "them. Secrets are not for here."
        ),
    )
    backup_dir: AbsolutePath = Field(
        "/var/backups/llm-fleet-webui",
        description="Where backups are kept on the host. Copy them elsewhere: they hold all chats.",
    )
    backup_every: PositiveDuration = Field(
        "24h",
        description="Longest time between two backups, made by the host itself.",
        json_schema_extra={"unit": "duration"},
    )
    backup_keep: Annotated[int, Field(ge=1, le=1000)] = Field(
        7, description="Backups kept; the oldest beyond are deleted."
    )

    @model_validator(mode="after")
    def _relations(self) -> WebuiSettings:
        if self.allow_from and self.listen != "private":
            raise ValueError(
                "webui_allow_from: nobody else can reach loopback; set webui_listen = 'private'"
            )
        return self


CAPABILITIES: tuple[type[Settings], ...] = (
    HostSettings,
    OllamaSettings,
    ModelsSettings,
    GatewaySettings,
    FirewallSettings,
    DriverSettings,
    DockerSettings,
    ToolkitSettings,
    DifySettings,
    WebuiSettings,
)


def ollama_environment(settings: OllamaSettings, address: str) -> dict[str, str]:
    """The server's whole environment, name to value; what is unset is left out.

    `address` is the one that the API binds.
    """
    env = _own_environment(settings, address) | settings.env
    return {name: value for name, value in env.items() if value}


def proxy_environment(proxy: str | None, direct: Iterable[str]) -> dict[str, str]:
    """What a program is told of the proxy for HTTPS, and of what is reached without it."""
    if proxy is None:
        return {}
    return {"HTTPS_PROXY": proxy, "NO_PROXY": ",".join((*_LOCAL_HOSTS, *direct))}


def docker_configuration(settings: DockerSettings) -> dict[str, Any]:
    """What of `daemon.json` is declared; what is left at Docker's own default is left out."""
    proxies = {
        "http-proxy": settings.http_proxy,
        "https-proxy": settings.https_proxy,
        "no-proxy": ",".join((*_LOCAL_HOSTS, *settings.no_proxy)),
    }
    declared: dict[str, Any] = {
        "live-restore": settings.live_restore,
        "log-driver": settings.log_driver,
        # Docker before 28.3 has CDI switched off; without a specification it gives nothing.
        "features": {"cdi": True},
    }
    if settings.log_driver != "journald":
        declared["log-opts"] = {
            "max-size": f"{settings.log_max_size}m",
            "max-file": str(settings.log_max_files),
        }
    if settings.data_root:
        declared["data-root"] = settings.data_root
    if settings.registry_mirrors:
        declared["registry-mirrors"] = list(settings.registry_mirrors)
    if settings.insecure_registries:
        declared["insecure-registries"] = list(settings.insecure_registries)
    if settings.http_proxy or settings.https_proxy:
        declared["proxies"] = {name: value for name, value in proxies.items() if value}
    return declared


def _own_environment(settings: OllamaSettings, address: str) -> dict[str, str]:
    host = f"[{address}]" if ":" in address else address
    return {
        "HOME": "/var/lib/ollama",
        "OLLAMA_HOST": f"{host}:{settings.port}",
        "OLLAMA_MODELS": settings.models_dir,
        "OLLAMA_ORIGINS": ",".join(settings.origins),
        "OLLAMA_KEEP_ALIVE": settings.keep_alive,
        "OLLAMA_LOAD_TIMEOUT": settings.load_timeout,
        "OLLAMA_CONTEXT_LENGTH": str(settings.context_length or ""),
        "OLLAMA_NUM_PARALLEL": str(settings.num_parallel),
        "OLLAMA_MAX_LOADED_MODELS": str(settings.max_loaded_models),
        "OLLAMA_MAX_QUEUE": str(settings.max_queue),
        "OLLAMA_FLASH_ATTENTION": _flag(settings.flash_attention),
        "OLLAMA_KV_CACHE_TYPE": settings.kv_cache_type,
        "OLLAMA_SCHED_SPREAD": _flag(settings.sched_spread),
        "OLLAMA_NO_CLOUD": _flag(settings.no_cloud),
        # A restart would delete partial downloads older than an hour; the loader removes what
        # nothing uses instead (docs/decisions/0007-models.md).
        "OLLAMA_NOPRUNE": _flag(True),
        "OLLAMA_DEBUG": _flag(settings.debug),
        "HTTPS_PROXY": "",
        "NO_PROXY": "",
        **proxy_environment(settings.https_proxy, settings.no_proxy),
    }


def _spoken(gpus: tuple[int | str, ...] | Literal["all"]) -> str:
    return repr(gpus if isinstance(gpus, str) else list(gpus))


def _flag(value: bool | None) -> str:
    """A boolean as Ollama reads it: any word that it cannot parse, `no` too, is true there."""
    return "" if value is None else str(int(value))
