"""What of Dify's settings and secrets cannot work."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.relations import missing, not_for_env, unreachable
from fleet.declare.types import is_http
from fleet.dify.declared import (
    BRIDGE,
    PUBLIC_DEFAULTS,
    SECRETS,
    daemon_address,
    names_of,
    secret_values,
    serving,
)
from fleet.dify.settings import Dify
from fleet.firewall.settings import Firewall
from fleet.gateway.declared import gateway_of
from fleet.gateway.offered import plain_of
from fleet.gateway.problems import call_problems
from fleet.gateway.settings import Gateway
from fleet.ollama.settings import Ollama

_OWN_VALUES = frozenset(
    {
        *secret_values(dict.fromkeys(SECRETS.secrets, "")),
        "COMPOSE_PROJECT_NAME", "CHECK_UPDATE_URL", "MARKETPLACE_ENABLED",
        "FORCE_VERIFYING_SIGNATURE", "PIP_MIRROR_AUTO_DETECT", "PIP_MIRROR_URL",
        "PLUGIN_IGNORE_UV_LOCK", "WEAVIATE_AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED",
        "CONSOLE_API_URL", "CONSOLE_WEB_URL", "SERVICE_API_URL", "APP_API_URL", "APP_WEB_URL",
        "FILES_URL", "INTERNAL_FILES_URL", "TRIGGER_URL", "ENDPOINT_URL_TEMPLATE",
        "NEXT_PUBLIC_SOCKET_URL",
    }
)  # fmt: skip
# What the deploy, its backups and the firewall rely on.
_FIXED_VALUES = frozenset(
    {
        # The profile of another vector store comes with a password that everybody knows.
        "COMPOSE_PROFILES", "VECTOR_STORE",
        "DB_TYPE", "DB_HOST", "DB_PORT", "DB_USERNAME", "DB_DATABASE", "DB_PLUGIN_DATABASE",
        # In the volumes, where backups look for it.
        "PGDATA", "STORAGE_TYPE", "OPENDAL_SCHEME", "OPENDAL_FS_ROOT", "PLUGIN_STORAGE_TYPE",
        "PLUGIN_STORAGE_LOCAL_ROOT", "WEAVIATE_PERSISTENCE_DATA_PATH",
        "NGINX_PORT", "EXPOSE_NGINX_PORT", "EXPOSE_NGINX_SSL_PORT",
        "EXPOSE_PLUGIN_DEBUGGING_PORT",
    }
)  # fmt: skip


def problems(host: FleetHost, fleet: Fleet) -> Iterator[str]:
    """What Dify on `host` lacks or contradicts, but for its secrets."""
    yield from _own_problems(host, fleet)
    yield from _model_problems(host, fleet)


def _own_problems(host: FleetHost, fleet: Fleet) -> Iterator[str]:
    settings = host[Dify]
    fixes = {
        "sha256": "the SHA-256 of the release's tarball, as `curl -L URL | sha256sum` tells it",
        "owner_email": "the address that the owner logs in with",
    }
    yield from missing(host, settings, fixes)
    if not (settings.plugin or settings.plugin_package):
        yield (
            f"{host.name}: dify_plugin is missing: without it Dify knows no Ollama; set it to the "
            "identifier that its page in the marketplace shows, or dify_plugin_package to a file"
        )
    yield from _package_problems(host, fleet)
    yield from unreachable(host, settings, settings.listen, settings.allow_from)
    if not _covered(BRIDGE, host[Firewall].container_interfaces):
        listed = list(host[Firewall].container_interfaces)
        yield (
            f"{host.name}: firewall_container_interfaces = {listed} does not hold {BRIDGE}; add "
            "it, or Dify's containers reach nobody but each other"
        )
    yield from not_for_env(host, settings, settings.env, _OWN_VALUES)
    ours = sorted(set(settings.env) & _FIXED_VALUES)
    if ours:
        yield (
            f"{host.name}: dify_env: {', '.join(ours)} would change which parts of Dify there are, "
            "or where they listen, behind this project's back; leave it out"
        )


def _package_problems(host: FleetHost, fleet: Fleet) -> Iterator[str]:
    package = host[Dify].plugin_package
    if package is None or is_http(package):
        return
    if not (fleet.root / package).is_file():
        yield (
            f"{host.name}: dify_plugin_package = {package!r}: no such file; paths are relative to "
            f"{fleet.root}"
        )


def _covered(name: str, patterns: tuple[str, ...]) -> bool:
    return any(
        name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1]))
        for pattern in patterns
    )


def _model_problems(host: FleetHost, fleet: Fleet) -> Iterator[str]:
    """What of `host` does not fit the hosts that it reaches its models on."""
    if host[Dify].ollama == "host":
        yield from _own_ollama_problems(host)
    else:
        yield from _gateway_problems(host, fleet)
    names = names_of(host, fleet)
    known = set(map(plain_of, names))
    for model in host[Dify].models if names else ():
        if plain_of(model.name) not in known:
            yield (
                f"{host.name}: dify_models: {model.name!r} is none of the models that Dify may "
                f"ask for: {', '.join(names)}"
            )
            continue
        for server, settings in serving(host, fleet, model.name):
            limit = settings.context_length
            if limit and model.context_size > limit:
                yield (
                    f"{host.name}: dify_models: {model.name!r}: context_size = "
                    f"{model.context_size} is above ollama_context_length = {limit} of "
                    f"{server.name}: Ollama would cut the prompt without a word; lower the one or "
                    "raise the other"
                )
                break


def _own_ollama_problems(host: FleetHost) -> Iterator[str]:
    if not host.runs(Ollama):
        yield (
            f"{host.name}: dify_ollama = 'host', but the host is not in group gpu and has no "
            "Ollama; add it, or set dify_ollama = 'gateway'"
        )
    elif host[Ollama].listen != "private":
        yield (
            f"{host.name}: ollama_listen = {host[Ollama].listen!r}: Dify's containers could not "
            "reach it; set ollama_listen = 'private' and private_address (the firewall opens it to "
            "Dify's plugin daemon only)"
        )


def _gateway_problems(host: FleetHost, fleet: Fleet) -> Iterator[str]:
    gateway = gateway_of(host, fleet)
    if gateway is None:
        yield (
            f"{host.name}: dify_ollama = 'gateway', but no gateway of the inventory can be reached "
            "by others; declare one with gateway_listen = 'private', or use dify_ollama = 'host'"
        )
        return
    if host[Dify].gateway_key not in {key.name for key in gateway[Gateway].keys}:
        yield (
            f"{host.name}: dify_gateway_key = {host[Dify].gateway_key!r} is not in gateway_keys of "
            f"{gateway.name}; add "
            f'{{"name": "{host[Dify].gateway_key}", "overrides": "allow"}} there'
        )
        return
    daemon = ip_address(daemon_address(host[Dify]))
    yield from call_problems(host, gateway, "dify_gateway_key", host[Dify].gateway_key, daemon)


def stored_problems(host: FleetHost, fleet: Fleet) -> Iterator[str]:
    """Values in the secrets store that Dify would not start with, or that everybody knows."""
    for path, value, secret in SECRETS.stored(host, fleet):
        if any(value.startswith(known) for known in PUBLIC_DEFAULTS):
            yield (
                f"{host.name}: {path} holds a value that Dify's release prints for everybody; "
                "delete it to have one generated"
            )
        elif problem := secret.problem(path, value):
            yield f"{host.name}: {problem}"
