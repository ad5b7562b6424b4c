"""Settings of Ollama: the server of a GPU host, or several."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from fleet import pins
from fleet.declare.settings import Item, Settings
from fleet.declare.types import (
    MOST,
    Duration,
    EnvName,
    EnvValue,
    HttpUrl,
    ImageReference,
    Listen,
    NoProxy,
    Port,
    Sha256,
    Words,
    directory_for_data,
    looks_secret,
    text_form,
)
from fleet.kit.proxy import proxy_environment
from fleet.ollama.models import (
    Model,
    ModelDeclaration,
    ModelName,
    contradictions,
    full_name,
    is_auto,
)
from fleet.ollama.paths import OLLAMA_HOME

Architecture = Literal["amd64", "arm64"]
Runtime = Literal["systemd", "docker"]
KvCacheType = Literal["f16", "q8_0", "q4_0"]
ALL_GPUS: Literal["all"] = "all"
_GPU_UUID = re.compile(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
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


Gpus = Annotated[
    tuple[int | str, ...] | Literal["all"],
    BeforeValidator(_check_gpus),
    Words('`"all"` or list of GPUs'),
]
ModelsDirectory = Annotated[str, directory_for_data(f"{OLLAMA_HOME}/"), Words("directory")]
OllamaOrigin = Annotated[
    str,
    text_form(
        r"[a-z][a-z0-9+.-]*://[A-Za-z0-9.:*\[\]_-]+",
        "an origin, which may have a '*' in it, such as https://chat.internal or app://*",
    ),
    Words("origin"),
]
OllamaVersion = Annotated[
    str,
    text_form(
        r"\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?",
        "a version of three numbers, such as 0.32.7 or 0.40.0-rc1",
    ),
]
# What an instance may have otherwise than its host.
ContextLength = Annotated[int, Field(ge=256, le=MOST)]
Parallel = Annotated[int, Field(ge=1, le=1024)]
LoadedModels = Annotated[int, Field(ge=0, le=MOST)]
QueueLength = Annotated[int, Field(ge=1, le=MOST)]
InstanceName = Annotated[
    str,
    text_form(
        r"[a-z0-9][a-z0-9-]{0,30}",
        "an instance's name of lower-case letters, digits and '-', such as gpu-a",
    ),
    Words("name"),
]


class OllamaInstance(Item):
    """One of several Ollama servers of a host; what it leaves out is as the host has it."""

    heading = "An instance"
    introduction = (
        '`{"name": "a", "port": 11434, "gpus": [0, 1], "context_length": 32768}`. '
        "What else there is to know of them is in "
        "[operating/ollama.md](operating/ollama.md#several-instances)."
    )
    words = Words("instance")

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
    models: tuple[ModelName, ...] | None = Field(
        None,
        strict=False,
        min_length=1,
        description="Which of `ollama_models` it serves, by name; unset: all of them.",
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

    def serves(self, model: ModelDeclaration) -> bool:
        """Whether the model is one of those that it serves."""
        return self.models is None or model.full_name in map(full_name, self.models)

    def shares_with(self, other: OllamaInstance) -> bool:
        """Whether both were given a GPU by the same word; other words only the host can compare."""
        if ALL_GPUS in (self.gpus, other.gpus):
            return bool(self.gpus and other.gpus)
        return bool(set(self.gpus) & set(other.gpus))


class Ollama(Settings):
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
    models_dir: ModelsDirectory = Field(
        f"{OLLAMA_HOME}/models",
        description="OLLAMA_MODELS: where weights are kept. May be another mount.",
    )
    models: tuple[Model, ...] = Field(
        (ModelDeclaration.named("gpt-oss:20b"),),
        strict=False,
        min_length=1,
        description="Models that the host serves: names, or declarations as described below.",
    )
    origins: tuple[OllamaOrigin, ...] = Field(
        (), strict=False, description="OLLAMA_ORIGINS: browser origins allowed besides localhost."
    )
    keep_alive: Duration = Field(
        "5m",
        description="OLLAMA_KEEP_ALIVE: how long an idle model stays loaded; negative is for ever.",
    )
    load_timeout: Duration = Field(
        "5m",
        description="OLLAMA_LOAD_TIMEOUT: a load without progress for so long is given up.",
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
    no_proxy: tuple[NoProxy, ...] = Field(
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
            "Several Ollama servers instead of one, as described below: each with its port, its "
            "GPUs and its models, all with the same models directory."
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
    def _relations(self) -> Ollama:
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
        if self.instances and any(
            is_auto(name) for model in self.models for name in (model.name, model.base) if name
        ):
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

    def of(self, instance: OllamaInstance) -> Ollama:
        """The settings as they hold for `instance`."""
        own = {name: getattr(instance, name) for name in _OWN}
        own = {name: value for name, value in own.items() if value is not None}
        env = self.env | instance.env
        models = tuple(model for model in self.models if instance.serves(model))
        return self.model_copy(
            update={**own, "port": instance.port, "env": env, "models": models, "instances": ()}
        )

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
        exposed = sorted(name for name in self.env if looks_secret(name))
        exposed += sorted(name for name, value in self.env.items() if re.search("://[^/]*@", value))
        if exposed:
            raise ValueError(
                f"ollama_env: {', '.join(exposed)} looks like a secret, and a unit's environment "
                "can be read by every user of the host; leave it out"
            )
        if self.kv_cache_type != "f16" and self.flash_attention is False:
            raise ValueError(
                f"ollama_kv_cache_type: {self.kv_cache_type} needs flash attention; set "
                "ollama_flash_attention = True or leave it unset"
            )
        if problems := contradictions(self.models, self.max_loaded_models, self.context_length):
            raise ValueError("; ".join(f"ollama_models: {line}" for line in problems))

    @property
    def model_names(self) -> tuple[str, ...]:
        """The models by name alone, as they are declared; `auto` where the host chooses."""
        return tuple(model.name for model in self.models)

    def tarball_sha256(self, arch: Architecture) -> str | None:
        """SHA-256 of the release tarball: `ollama_sha256`, else the pin, else None."""
        return self.sha256 or pins.OLLAMA_SHA256.get((self.version, arch))


def ollama_environment(settings: Ollama, address: str) -> dict[str, str]:
    """The server's whole environment, name to value; what is unset is left out.

    `address` is the one that the API binds.
    """
    env = _own_environment(settings, address) | settings.env
    return {name: value for name, value in env.items() if value}


def ollama_host(address: str, port: int) -> str:
    """OLLAMA_HOST of a server that binds `address`; port 0 is any free one."""
    return f"{f'[{address}]' if ':' in address else address}:{port}"


def _own_environment(settings: Ollama, address: str) -> dict[str, str]:
    return {
        "HOME": OLLAMA_HOME,
        "OLLAMA_HOST": ollama_host(address, settings.port),
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
