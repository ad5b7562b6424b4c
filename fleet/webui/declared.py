"""What Open WebUI on a host is told: its secrets, its environment, and the gateway it asks."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import SecretStr

from fleet.dify.declared import Hosts, call_problems, gateway_of
from fleet.kit.secrets import host_secret

if TYPE_CHECKING:
    from fleet.declare.load import Endpoint, Fleet, FleetHost

# Its container and its volume.
NAME = "llm-fleet-webui"
# Containers without a network of their own are here.
BRIDGE = "docker0"
CA_IN_CONTAINER = "/etc/ssl/llm-fleet-ca.pem"
# No quotes or spaces: nothing on the way to the container reads them in another way.
_SECRET = re.compile(r"[^\s\"'\\]{16,72}")
SECRETS = ("secret_key", "admin_password")


def secret_name(host: FleetHost, secret: str) -> str:
    """What the secrets store calls a secret of Open WebUI on `host`."""
    return host_secret("webui", host.name, secret)


def secrets_of(host: FleetHost, fleet: Fleet) -> dict[str, str]:
    """Every secret of its own, by its name in `SECRETS`; missing ones are made and kept."""
    return {
        name: fleet.secrets.text(
            secret_name(host, name), lambda: secrets.token_hex(32)
        ).get_secret_value()
        for name in SECRETS
    }


@dataclass(frozen=True)
class Door:
    """The gateway as Open WebUI sees it.

    `local` is its address when it is one of the host's own, which the firewall has to open.
    """

    url: str
    key: SecretStr
    local: Endpoint | None
    own_ca: bool


def door_of(host: FleetHost, fleet: Fleet) -> Door:
    """The gateway that Open WebUI on `host` asks, and the key that it has."""
    gateway = gateway_of(host, fleet)
    assert gateway is not None  # refused by fleet_problems
    return Door(
        f"{gateway.gateway_url}/v1",
        fleet.gateway_keys(gateway)[host.webui.gateway_key],
        gateway.gateway_endpoints[0] if gateway.name == host.name else None,
        gateway.gateway.tls == "private-ca",
    )


def environment(host: FleetHost, fleet: Fleet) -> dict[str, str]:
    """The container's environment, beside what its image says.

    https://docs.openwebui.com/reference/env-configuration/ has the names.
    """
    own, door = secrets_of(host, fleet), door_of(host, fleet)
    trust = dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), CA_IN_CONTAINER)
    return _FIXED | {
        "WEBUI_SECRET_KEY": own["secret_key"],
        "WEBUI_ADMIN_EMAIL": str(host.webui.admin_email),
        "WEBUI_ADMIN_PASSWORD": own["admin_password"],
        "OPENAI_API_BASE_URL": door.url,
        "OPENAI_API_KEY": door.key.get_secret_value(),
        **(trust if door.own_ca else {}),
    } | host.webui.env  # fmt: skip


_FIXED = {
    # Or what its database remembers of the first start would count, whatever is declared later.
    "ENABLE_PERSISTENT_CONFIG": "False",
    "WEBUI_AUTH": "True",
    "ENABLE_SIGNUP": "False",
    "ENABLE_INITIAL_ADMIN_SIGNUP": "False",
    "ENABLE_OLLAMA_API": "False",
    "ENABLE_OPENAI_API": "True",
    # Or whoever is not the administrator sees no model until each is shared by hand.
    "BYPASS_MODEL_ACCESS_CONTROL": "True",
    # A model that is none: it stands for a random one of the others.
    "ENABLE_EVALUATION_ARENA_MODELS": "False",
    "ENABLE_COMMUNITY_SHARING": "False",
    "OFFLINE_MODE": "True",
    "HF_HUB_OFFLINE": "1",
    # The image's own home cannot be written.
    "HOME": "/tmp",  # noqa: S108 - in a container, of nobody else
}
_OWN_VALUES = frozenset(
    {
        *_FIXED, "WEBUI_SECRET_KEY", "WEBUI_ADMIN_EMAIL", "WEBUI_ADMIN_PASSWORD",
        "OPENAI_API_BASE_URL", "OPENAI_API_BASE_URLS", "OPENAI_API_KEY", "OPENAI_API_KEYS",
        "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PORT", "DATA_DIR", "DATABASE_URL", "STATIC_DIR",
    }
)  # fmt: skip


def host_problems(host: FleetHost) -> Iterator[str]:
    """What Open WebUI on `host` lacks or contradicts, but for its secrets and other hosts."""
    settings = host.webui
    for key, fix in (
        ("image", "'ghcr.io/open-webui/open-webui:<version>@sha256:<digest>'"),
        ("admin_email", "the address that the administrator logs in with"),
    ):
        if getattr(settings, key) is None:
            yield f"{host.name}: webui_{key} is missing; set it to {fix}"
    if settings.listen == "private" and not settings.allow_from:
        yield (
            f"{host.name}: webui_listen = 'private' without webui_allow_from: nobody could reach "
            "it; name at least one network"
        )
    own = sorted(set(settings.env) & _OWN_VALUES)
    if own:
        yield (
            f"{host.name}: webui_env: {', '.join(own)} is set by this project; leave it out, or "
            "use its setting"
        )
    shown = sorted(
        name for name in set(settings.env) - _OWN_VALUES if re.search("TOKEN|SECRET|PASS|KEY", name)
    )
    if shown:
        yield (
            f"{host.name}: webui_env: {', '.join(shown)} looks like a secret, and an inventory is "
            "no place for one; leave it out"
        )


def fleet_problems(host: FleetHost, hosts: Hosts) -> Iterator[str]:
    """What of `host` does not fit the gateway that it asks."""
    gateway = gateway_of(host, hosts)
    if gateway is None:
        yield (
            f"{host.name}: Open WebUI asks the fleet's gateway, but no gateway of the inventory "
            "can be reached by others; declare one with gateway_listen = 'private'"
        )
        return
    wanted = host.webui.gateway_key
    roles = {key.name: key.role for key in gateway.gateway.keys}
    if wanted not in roles:
        yield (
            f"{host.name}: webui_gateway_key = {wanted!r} is not in gateway_keys of "
            f"{gateway.name}; add {wanted!r} there"
        )
    elif roles[wanted] != "inference":
        yield (
            f"{host.name}: webui_gateway_key = {wanted!r} is an {roles[wanted]} key of "
            f"{gateway.name}, and whoever chats would have it; declare one with role = 'inference'"
        )
    else:
        # Docker chooses the addresses in its own bridge.
        yield from call_problems(host, gateway, "webui_gateway_key", wanted, None)


def secret_problems(fleet: Fleet) -> Iterator[str]:
    """Values in the secrets store that Open WebUI could not be given."""
    for host in fleet:
        for name in SECRETS if host.is_webui else ():
            stored = fleet.secrets.read(secret_name(host, name))
            if stored is not None and not _SECRET.fullmatch(stored.get_secret_value()):
                yield (
                    f"{host.name}: {fleet.secrets.path(secret_name(host, name))} is not 16 to 72 "
                    "characters without spaces and quotes; delete it to have one generated"
                )
