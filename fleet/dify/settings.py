"""Settings of Dify."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    model_validator,
)

from fleet import pins
from fleet.declare.settings import FROM_NAME, Item, Settings
from fleet.declare.types import (
    MOST,
    AnyNetwork,
    BackupDirectory,
    DotenvValue,
    EmailAddress,
    EnvName,
    FileSource,
    HttpUrl,
    KeyName,
    Listen,
    Network,
    NoProxy,
    Port,
    PositiveDuration,
    Sha256,
    Version,
    Words,
    one_line,
    text_form,
)
from fleet.ollama.models import ModelName, full_name


def _check_owner_email(value: str) -> str:
    # Dify answers 422 to these and never says why.
    domain = value.rpartition("@")[2]
    if value != value.lower():
        raise ValueError("write it in lower case: Dify stores it so")
    if "." not in domain or re.fullmatch(r"[\d.]+|\[.*\]", domain):
        raise ValueError("Dify refuses it: the part after @ must be a name with a dot in it")
    return value


def _check_subnet(value: AnyNetwork) -> AnyNetwork:
    if value.version != 4 or not value.is_private or not 16 <= value.prefixlen <= 26:
        raise ValueError("not a private IPv4 network of /16 to /26, such as 172.30.91.0/24")
    return value


Subnet = Annotated[Network, AfterValidator(_check_subnet), Words("IPv4 network")]
# Before it other releases hand every container passwords that they print, and know no way to keep a
# plugin at its version.
_LOWEST = "1.15.0"


def _check_release(value: str) -> str:
    if tuple(map(int, value.split("."))) < tuple(map(int, _LOWEST.split("."))):
        raise ValueError(f"this project deploys {_LOWEST} and above; declare a higher one")
    return value


Release = Annotated[Version, AfterValidator(_check_release)]
OwnerEmail = Annotated[EmailAddress, AfterValidator(_check_owner_email)]
_OWNER_NAME = "a name of 1 to 30 letters without quotes, such as Admin"
OwnerName = Annotated[
    str,
    one_line(_OWNER_NAME),
    text_form(r"\S(.{0,28}\S)?", _OWNER_NAME),
]
Language = Annotated[
    str, text_form(r"[a-z]{2}-[A-Z][A-Za-z]+", "a language, such as en-US or de-DE")
]
AppName = Annotated[
    str,
    text_form(
        r"[A-Za-z0-9][\w .-]{0,29}",
        "a name of 1 to 30 letters, digits, spaces, '.', '_' and '-', such as Fleet chat",
    ),
]
ImageName = Annotated[
    str,
    text_form(
        r"[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9._-]+)*(:\w[\w.-]*)?",
        "an image as the compose file names it, such as nginx:latest",
    ),
    Words("image"),
]
ImageDigest = Annotated[
    str,
    text_form(
        r"sha256:[0-9a-f]{64}",
        "a digest: sha256: and 64 digits, as `docker buildx imagetools inspect IMAGE:TAG` shows it",
    ),
    Words("digest (`sha256:...`)"),
]
PluginIdentifier = Annotated[
    str,
    text_form(
        r"langgenius/ollama:\d+\.\d+\.\d+@[0-9a-f]{64}",
        "a plugin's identifier, such as langgenius/ollama:1.0.0@<64 digits>",
    ),
    Words("plugin identifier"),
]


class DifyModel(Item):
    """A model of the fleet as Dify is told of it."""

    heading = "A model"
    introduction = (
        'A name alone, `"gpt-oss:20b"`, or its limits too: '
        '`{"name": "gpt-oss:20b", "context_size": 32768, "max_tokens": 8192}`.'
    )
    words = Words("model")

    name: ModelName = Field(description="The model, as it is declared in `ollama_models`.")
    context_size: int = Field(
        8192,
        ge=256,
        le=MOST,
        description=(
            "Longest prompt and answer together, in tokens, that Dify sends. Ollama is not told "
            "of it: it must not be above `ollama_context_length`."
        ),
    )
    max_tokens: int = Field(
        2048, ge=16, le=MOST, description="Longest answer that an app may ask for."
    )
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


DifyModelDeclared = Annotated[
    DifyModel, FROM_NAME, Words("model name or model", "model names or models")
]


class Dify(Settings):
    """Dify, wired to the fleet's models, on a host in the group `dify`."""

    prefix = "dify_"

    version: Release = Field(
        pins.DIFY_VERSION,
        description=(
            "Release to run, 1.15.0 or above. A higher one is an upgrade: backed up first, proven "
            "by a chat, and taken back when it does not come up."
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
    plugin_package: FileSource | None = Field(
        None,
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
            "default. Unset is the first that Dify may ask for."
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
            "are left out of it. Must not hold a password. Dify fetches the marketplace's packages "
            "without it: the plugin has to come from `dify_plugin_package`."
        ),
    )
    no_proxy: tuple[NoProxy, ...] = Field(
        (), strict=False, description="Further names and addresses to be reached without the proxy."
    )
    start_timeout: PositiveDuration = Field(
        "15m",
        description="How long the containers may take to be healthy, migrations included.",
    )
    backup_dir: BackupDirectory = Field(
        "/var/backups/llm-fleet-dify",
        description="Where backups are kept on the host. Copy them elsewhere: they hold secrets.",
    )
    backup_every: PositiveDuration = Field(
        "24h",
        description="Longest time between two backups, made by the host itself.",
    )
    backup_keep: Annotated[int, Field(ge=1, le=1000)] = Field(
        7, description="Backups kept; the oldest beyond are deleted."
    )
    env: dict[EnvName, DotenvValue] = Field(
        {}, description="Further values of Dify's `.env`, as text. Secrets are not for here."
    )

    @model_validator(mode="after")
    def _relations(self) -> Dify:
        if self.plugin and self.plugin_package:
            raise ValueError(
                "dify_plugin_package: the plugin comes from the marketplace (dify_plugin) already; "
                "leave one of them out"
            )
        if self.plugin and self.http_proxy:
            raise ValueError(
                "dify_plugin: Dify fetches it through a proxy of its own, which does not know "
                "dify_http_proxy; set dify_plugin_package and dify_plugin_sha256 instead"
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
