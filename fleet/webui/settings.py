"""Settings of Open WebUI."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from fleet.declare.settings import Settings
from fleet.declare.types import (
    BackupDirectory,
    EmailAddress,
    EnvName,
    EnvValue,
    ImageReference,
    KeyName,
    Listen,
    Network,
    Port,
    PositiveDuration,
)


class Webui(Settings):
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
    backup_dir: BackupDirectory = Field(
        "/var/backups/llm-fleet-webui",
        description="Where backups are kept on the host. Copy them elsewhere: they hold all chats.",
    )
    backup_every: PositiveDuration = Field(
        "24h",
        description="Longest time between two backups, made by the host itself.",
    )
    backup_keep: Annotated[int, Field(ge=1, le=1000)] = Field(
        7, description="Backups kept; the oldest beyond are deleted."
    )

    @model_validator(mode="after")
    def _relations(self) -> Webui:
        if self.allow_from and self.listen != "private":
            raise ValueError(
                "webui_allow_from: nobody else can reach loopback; set webui_listen = 'private'"
            )
        return self
