"""What of Open WebUI's settings and secrets cannot work."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.relations import missing, not_for_env, unreachable
from fleet.gateway.declared import gateway_of
from fleet.gateway.problems import call_problems
from fleet.gateway.settings import Gateway
from fleet.webui.declared import FIXED, SECRETS
from fleet.webui.settings import Webui

_OWN_VALUES = frozenset(
    {
        *FIXED, "WEBUI_SECRET_KEY", "WEBUI_ADMIN_EMAIL", "WEBUI_ADMIN_PASSWORD",
        "OPENAI_API_BASE_URL", "OPENAI_API_BASE_URLS", "OPENAI_API_KEY", "OPENAI_API_KEYS",
        "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PORT", "DATA_DIR", "DATABASE_URL", "STATIC_DIR",
    }
)  # fmt: skip


def problems(host: FleetHost, fleet: Fleet) -> Iterator[str]:
    """What Open WebUI on `host` lacks or contradicts, but for its secrets."""
    settings = host[Webui]
    fixes = {
        "image": "'ghcr.io/open-webui/open-webui:<version>@sha256:<digest>'",
        "admin_email": "the address that the administrator logs in with",
    }
    yield from missing(host, settings, fixes)
    yield from unreachable(host, settings, settings.listen, settings.allow_from)
    yield from not_for_env(host, settings, settings.env, _OWN_VALUES)
    yield from _gateway_problems(host, fleet)


def _gateway_problems(host: FleetHost, fleet: Fleet) -> Iterator[str]:
    """What of `host` does not fit the gateway that it asks."""
    gateway = gateway_of(host, fleet)
    if gateway is None:
        yield (
            f"{host.name}: Open WebUI asks the fleet's gateway, but no gateway of the inventory "
            "can be reached by others; declare one with gateway_listen = 'private'"
        )
        return
    wanted = host[Webui].gateway_key
    roles = {key.name: key.role for key in gateway[Gateway].keys}
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


def stored_problems(host: FleetHost, fleet: Fleet) -> Iterator[str]:
    """Values in the secrets store that Open WebUI could not be given."""
    for path, value, secret in SECRETS.stored(host, fleet):
        if problem := secret.problem(path, value):
            yield f"{host.name}: {problem}"
