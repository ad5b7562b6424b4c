"""Settings of vLLM: the servers of a host, and how they run."""

from __future__ import annotations

import re
from math import prod
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from fleet.declare.settings import Item, Settings
from fleet.declare.types import (
    MOST,
    EnvName,
    EnvValue,
    HttpUrl,
    ImageReference,
    Listen,
    Port,
    PositiveDuration,
    ProjectFile,
    Words,
    check_absolute,
    looks_secret,
    text_form,
)
from fleet.ollama.models import ModelName
from fleet.ollama.settings import ALL_GPUS, Gpus
from fleet.vllm.flags import PARALLEL, FlagName, FlagValue, contradictions

Runtime = Literal["docker", "venv"]
KvCache = Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2"]
AUTO: Literal["auto"] = "auto"
NONE: Literal["none"] = "none"
# GPUs that one server cannot have more of.
_MOST_GPUS = 64
# What names a number of tokens, and no key.
_COUNTED = re.compile("TOKENS_PER|(MAX|NUM)_([A-Z0-9]+_)*TOKENS")
_ENV_REFUSED = {
    "VLLM_API_KEY": ("guards a part of the API only; the gateway has the keys"),
    "VLLM_SERVER_DEV_MODE": "opens calls of any function of the server; it is for its developers",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "lets requests run code",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "lets requests load files of the host",
    "CUDA_VISIBLE_DEVICES": "is what `gpus` sets",
    "LD_PRELOAD": "runs other code than what is pinned",
    "PYTHONPATH": "runs other code than what is pinned",
    "PYTHONSTARTUP": "runs other code than what is pinned",
}


def _check_weights(value: str) -> str:
    """An absolute path in one form, or a name."""
    if not value.startswith("/"):
        return value
    path = check_absolute(value)
    if any(path == top or path.startswith(f"{top}/") for top in ("/home", "/root", "/run/user")):
        raise ValueError(
            f"{path} is under {PurePosixPath(path).parts[1]}, which the server's unit is not shown;"
            " use another place, such as /srv/weights"
        )
    return path


WeightsPlace = Annotated[
    str,
    text_form(r"/.*|[a-z0-9][a-z0-9._-]{0,62}", "a name of lower-case letters, nor a path"),
    AfterValidator(_check_weights),
    Words("name of weights, or directory"),
]
ServerName = Annotated[
    str,
    text_form(
        r"[a-z0-9][a-z0-9-]{0,30}",
        "a server's name of lower-case letters, digits and '-', such as gpt-oss",
    ),
    Words("name"),
]
ParserName = Annotated[
    str, text_form(r"[a-z][a-z0-9_]{0,62}", "a parser's name, such as openai or hermes")
]


class VllmServer(Item):
    """One vLLM server: one model, on GPUs of its own."""

    heading = "A vLLM server"
    introduction = (
        '`{"name": "gpt-oss", "weights": "gpt-oss-120b", "served_names": ["gpt-oss:120b", '
        '"openai/gpt-oss-120b"], "port": 8000, "gpus": [0, 1], "context": 131072}`. '
        "[operating/vllm.md](operating/vllm.md) says how to choose them."
    )
    words = Words("server")

    name: ServerName = Field(
        description="Its name: the unit is `vllm@<name>.service`, the gateway shows it."
    )
    weights: WeightsPlace = Field(
        description=(
            "What it serves: one of `weights` by its name, which the deploy provides; or an "
            "absolute directory on the host that somebody else keeps there, with `config.json` "
            "and the weights as `*.safetensors`."
        )
    )
    served_names: tuple[ModelName, ...] = Field(
        strict=False,
        min_length=1,
        description=(
            "What clients ask for; answers name the first. With `gpt-oss:120b` they need not know "
            "whether Ollama or vLLM answers."
        ),
    )
    port: Port = Field(description="Port of its API, on the address of `vllm_listen`.")
    gpus: Gpus = Field(
        ALL_GPUS,
        description=(
            "GPUs that it takes: indexes as `nvidia-smi -L` counts them, UUIDs (these outlive a "
            "changed slot), or `all`. An empty list is the CPU alone, of a build for it."
        ),
    )
    shared_gpus: bool = Field(
        False,
        description=(
            "Other servers may have GPUs of this one; each that shares must say so, and together "
            "their `memory_share` is at most 1."
        ),
    )
    tensor_parallel: Annotated[int, Field(ge=1, le=_MOST_GPUS)] | None = Field(
        None,
        description=(
            "GPUs that share each layer; unset is all of its GPUs. Times the flags "
            "`pipeline-parallel-size` and `data-parallel-size` it is the number of its GPUs."
        ),
    )
    context: Annotated[int, Field(ge=16, le=MOST)] | None = Field(
        None,
        description="Longest prompt and answer together; unset is what the model was made for.",
        json_schema_extra={"unit": "tokens"},
    )
    memory_share: Annotated[float, Field(ge=0.05, le=0.98)] = Field(
        0.9,
        description=(
            "Share of each GPU's memory that it takes at its start, whatever is asked of it: what "
            "the weights leave of that holds the requests' caches."
        ),
    )
    max_sequences: Annotated[int, Field(ge=1, le=65536)] = Field(
        128,
        description="Requests that each copy of the model answers at once; others wait.",
    )
    max_queued: Annotated[int, Field(ge=1, le=MOST)] = Field(
        256, description="Requests that wait; the next one is answered 503. vLLM itself has no end."
    )
    max_choices: Annotated[int, Field(ge=1, le=1024)] = Field(
        8, description="Largest `n` of a request: how many answers it may ask for at once."
    )
    kv_cache: KvCache = Field(
        "auto", description="Type of the cache; `auto` is the model's own, `fp8` takes half."
    )
    tool_parser: ParserName = Field(
        AUTO,
        description=(
            "What reads calls of tools from answers: `auto` is `openai` for gpt-oss and none for "
            "other models, whose right one vLLM's documentation names; `none` refuses tools."
        ),
    )
    reasoning_parser: ParserName = Field(
        AUTO,
        description=(
            "What parts reasoning from answers: `auto` is what vLLM takes for the architecture, "
            "which for gpt-oss is the right one."
        ),
    )
    flags: dict[FlagName, FlagValue] = Field(
        {},
        description=(
            "Further flags of `vllm serve`, without their dashes: `True` is `--<flag>`, `False` is "
            '`--no-<flag>`, for example `{"max-num-batched-tokens": 8192}`.'
        ),
    )
    env: dict[EnvName, EnvValue] = Field(
        {}, description="Further variables of the server, as text."
    )

    @model_validator(mode="after")
    def _relations(self) -> VllmServer:
        if problems := list(contradictions(self.flags)):
            raise ValueError(f"flags: {'; '.join(problems)}")
        if len(set(self.served_names)) != len(self.served_names):
            raise ValueError("served_names: names one twice; name each once")
        if isinstance(self.gpus, tuple) and self.parallel not in (None, max(1, len(self.gpus))):
            raise ValueError(
                f"tensor_parallel: with the parallel flags it takes {self.parallel} GPUs, and "
                f"gpus = {list(self.gpus)!r} are {len(self.gpus)}; make them the same"
            )
        if not self.gpus and self.shared_gpus:
            raise ValueError("shared_gpus: it has no GPU to share; leave it out")
        self._check_env()
        return self

    def _check_env(self) -> None:
        for name, value in self.env.items():
            if why := _ENV_REFUSED.get(name):
                raise ValueError(f"env: {name} {why}; leave it out")
            if looks_secret(_COUNTED.sub("", name)) or re.search("://[^/]*@", value):
                raise ValueError(
                    f"env: {name} looks like a secret, and a unit's environment can be read by "
                    "every user of the host; leave it out"
                )
        if own := sorted(set(self.env) & set(OWN_ENVIRONMENT)):
            raise ValueError(f"env: {', '.join(own)} is set by this project; leave it out")

    @property
    def multiplied(self) -> int:
        """GPUs that it takes for each of `tensor_parallel`."""
        return prod(int(self.flags.get(name, 1)) for name in PARALLEL)

    @property
    def copies(self) -> int:
        """How many times it has the model, each for its own requests."""
        return int(self.flags.get("data-parallel-size", 1))

    @property
    def parallel(self) -> int | None:
        """GPUs that it takes, where that is declared."""
        return None if self.tensor_parallel is None else self.tensor_parallel * self.multiplied

    def shares_with(self, other: VllmServer) -> bool:
        """Whether both were given a GPU by the same word; other words only the host can compare."""
        if ALL_GPUS in (self.gpus, other.gpus):
            return bool(self.gpus and other.gpus)
        return bool(set(self.gpus) & set(other.gpus))


# Variables that every server has, whatever is declared; the others follow from settings.
OWN_ENVIRONMENT = {
    # Nothing is fetched at run time: the weights are there, and nobody is told of their use.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # The order of nvidia-smi, by which people count.
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    # Its workers talk to each other on this host alone.
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_MAX_N_SEQUENCES": "",
    "VLLM_CACHE_ROOT": "",
    "HOME": "",
    "HF_HOME": "",
    "XDG_CACHE_HOME": "",
    "TRITON_CACHE_DIR": "",
    "TORCHINDUCTOR_CACHE_DIR": "",
    "PYTHONUNBUFFERED": "1",
}


class Vllm(Settings):
    """vLLM's servers on a host in the group `vllm`, beside Ollama or instead of it."""

    prefix = "vllm_"

    servers: tuple[VllmServer, ...] = Field(
        (), strict=False, description="The servers, as described below: a model each."
    )
    runtime: Runtime = Field(
        "docker",
        description=(
            "How they run: `docker` is `vllm_image`, `venv` is what `vllm_lock` says, under a "
            "hardened unit and without Docker."
        ),
    )
    image: ImageReference | None = Field(
        None,
        description=(
            "Image of the servers, by its digest: `vllm/vllm-openai:<version>@sha256:<digest>`."
        ),
    )
    lock: ProjectFile | None = Field(
        None,
        description=(
            "Requirements of the virtual environment, each with its version and its hashes, as "
            "`uv pip compile --generate-hashes` writes them."
        ),
    )
    python: Annotated[str, AfterValidator(check_absolute), Words("path")] = Field(
        "/usr/bin/python3",
        description="Interpreter on the host that the virtual environment is made with.",
    )
    index_url: HttpUrl = Field(
        "https://pypi.org/simple", description="Index that packages are fetched from, or a mirror."
    )
    listen: Listen = Field(
        "loopback",
        description=(
            "Address of the APIs: `loopback`, or `private` for the host's `private_address`, which "
            "the firewall opens to the gateways only."
        ),
        json_schema_extra={
            "exposes": "`private` opens an API without authentication to the gateways' addresses."
        },
    )
    driver_branch: Annotated[int, Field(ge=550, le=999)] = Field(
        580,
        description=(
            "Oldest driver branch that its build runs with: 580 for those of CUDA 13, 575 for "
            "CUDA 12.9."
        ),
    )
    start_timeout: PositiveDuration = Field(
        "20m",
        description="How long a server may take from its start until it answers.",
    )
    shutdown_timeout: PositiveDuration = Field(
        "30s",
        description=(
            "How long answers that run may go on when a server is stopped. A deploy takes it out "
            "of the gateways before, and `fleet drain` does."
        ),
    )
    watch_every: PositiveDuration = Field(
        "30s", description="How often a server is asked for one token, to see that it still works."
    )
    watch_timeout: PositiveDuration = Field(
        "2m",
        description=(
            "How long that may take, while no token at all comes from the server: then it is "
            "restarted."
        ),
    )

    @model_validator(mode="after")
    def _relations(self) -> Vllm:
        names = [server.name for server in self.servers]
        for place, server in enumerate(self.servers):
            if names.count(server.name) > 1:
                raise ValueError(f"vllm_servers: {server.name!r} is declared twice; rename one")
            for other in self.servers[:place]:
                if why := _together(other, server):
                    raise ValueError(f"vllm_servers: {other.name} and {server.name} {why}")
        return self


def _together(one: VllmServer, other: VllmServer) -> str:
    """Why two servers of a host cannot be; empty when they can."""
    if one.shares_with(other):
        if not (one.shared_gpus and other.shared_gpus):
            return "both have the same GPU; give each its own, or shared_gpus = True to both"
        if one.memory_share + other.memory_share > 1:
            return (
                f"share a GPU with memory_share = {one.memory_share} and {other.memory_share}, "
                "which is more than there is; lower them to 1 together"
            )
    both = set(one.served_names) & set(other.served_names)
    if both and set(one.served_names) != set(other.served_names):
        return (
            f"both serve {', '.join(sorted(both))}, and otherwise not the same names, so a gateway "
            "would take two models for one; give both the same served_names, or other ones"
        )
    if both and one.weights != other.weights:
        return (
            f"both serve {', '.join(sorted(both))} with other weights, so whoever asks gets either;"
            " give them other served_names"
        )
    return ""
