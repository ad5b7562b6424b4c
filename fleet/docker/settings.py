"""Settings of Docker."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from fleet import pins
from fleet.declare.settings import Settings
from fleet.declare.types import (
    Fingerprint,
    HttpUrl,
    NoProxy,
    Version,
    Words,
    directory_for_data,
    text_form,
)
from fleet.docker.paths import DOCKER_ROOT
from fleet.kit.proxy import LOCAL_HOSTS


def _check_compose(value: str) -> str:
    if tuple(int(part) for part in value.split(".")) < (2, 24, 0):
        raise ValueError("older than 2.24, the first Compose with what the stacks here need")
    return value


UserName = Annotated[
    str,
    text_form(
        r"[a-z_][a-z0-9_-]{0,31}",
        "a user name of lower-case letters, digits, '_' and '-', such as ops",
    ),
    Words("user name"),
]
DataRoot = Annotated[str, directory_for_data(DOCKER_ROOT), Words("directory")]
RegistryName = Annotated[
    str,
    text_form(
        r"[A-Za-z0-9][A-Za-z0-9.-]*(:\d{1,5})?|[0-9a-f.:]+/\d{1,3}",
        "a host and its port, or a network, such as registry.internal:5000 or 10.0.0.0/8",
    ),
    Words("host (`name:port`) or network", "hosts (`name:port`) or networks"),
]


class Docker(Settings):
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
    data_root: DataRoot | None = Field(
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
    no_proxy: tuple[NoProxy, ...] = Field(
        (), strict=False, description="NO_PROXY of the daemon; localhost is always added."
    )
    users: tuple[UserName, ...] = Field(
        (),
        strict=False,
        description="Members of the group `docker`, exactly. They must exist.",
        json_schema_extra={"exposes": "A member of this group is root on the host."},
    )

    @model_validator(mode="after")
    def _relations(self) -> Docker:
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


def docker_configuration(settings: Docker) -> dict[str, Any]:
    """What of `daemon.json` is declared; what is left at Docker's own default is left out."""
    proxies = {
        "http-proxy": settings.http_proxy,
        "https-proxy": settings.https_proxy,
        "no-proxy": ",".join((*LOCAL_HOSTS, *settings.no_proxy)),
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
