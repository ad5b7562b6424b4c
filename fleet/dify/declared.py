"""What Dify on a host is told: its secrets, its `.env`, and the Ollama that it reaches."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeAlias

from pydantic import SecretStr

from fleet.declare.types import Address, DifyModel, DifySettings, Network
from fleet.kit.secrets import host_secret
from fleet.ollama.models import AUTO

if TYPE_CHECKING:
    from fleet.declare.load import Endpoint, Fleet, FleetHost

Hosts: TypeAlias = "Fleet | list[FleetHost]"

PROJECT = "dify"
# A name of its own: the firewall opens Ollama to this bridge and no other.
BRIDGE = "br-dify"
APPS = ("chat", "workflow")
_CONTEXT, _ANSWER = (
    DifyModel.model_fields[name].default for name in ("context_size", "max_tokens")
)

# Printed in the release's own files, the same for every installation.
PUBLIC_DEFAULTS = (
    "difyai123456",
    "dify-sandbox",
    "dify-agent-run-token-for-dev-only",
    "sk-9f73s3lj",
    "lYkiYYT6owG+",
    "QaHbTe77CtuX",
    "WVF5YThaHlkY",
    "MDEyMzQ1",
)


def _password() -> str:
    """30 digits and letters, both kinds.

    Their number keeps them from being valid base64: Dify never mistakes the plain password for an
    encoded one, so a login may try it (docs/decisions/0010-dify.md).
    """
    while not re.search(r"(?=.*[a-z])(?=.*[0-9])", value := secrets.token_hex(15)):
        pass
    return value


@dataclass(frozen=True)
class _Secret:
    """How a secret is made, and what a value that somebody put in its place must be.

    No form allows what `.env`, Compose, a URL or a shell would read in another way.
    """

    make: Callable[[], str] = lambda: secrets.token_hex(32)
    form: str = r"[A-Za-z0-9_-]{16,}"
    words: str = "at least 16 letters, digits, - or _"


SECRETS: dict[str, _Secret] = {
    "secret_key": _Secret(),
    # Dify takes no longer one, and would be locked out by it.
    "init_password": _Secret(
        lambda: secrets.token_hex(15), r"[A-Za-z0-9_-]{16,30}", "16 to 30 letters, digits, - or _"
    ),
    "owner_password": _Secret(
        _password,
        r"(?=.*[A-Za-z])(?=.*[0-9])[^\s\"'\\]{8,}",
        "at least 8 characters, a letter and a digit among them, no quotes or spaces",
    ),
    "db_password": _Secret(),
    "redis_password": _Secret(),
    "sandbox_api_key": _Secret(),
    "plugin_daemon_key": _Secret(),
    "plugin_inner_api_key": _Secret(),
    "weaviate_api_key": _Secret(),
    "agent_api_token": _Secret(),
    # Unpadded base64url of exactly 32 bytes, or the agent's backend does not start.
    "agent_server_secret_key": _Secret(
        lambda: secrets.token_urlsafe(32), r"[A-Za-z0-9_-]{43}", "32 bytes in unpadded base64url"
    ),
    "agent_sandbox_token": _Secret(),
}


def secret_name(host: FleetHost, secret: str) -> str:
    """What the secrets store calls a secret of Dify on `host`."""
    return host_secret("dify", host.name, secret)


def secrets_of(host: FleetHost, fleet: Fleet) -> dict[str, str]:
    """Every secret of Dify on `host`, by its name in `SECRETS`; missing ones are made and kept."""
    return {
        name: fleet.secrets.text(secret_name(host, name), secret.make).get_secret_value()
        for name, secret in SECRETS.items()
    }


@dataclass(frozen=True)
class OllamaAccess:
    """How the plugin daemon reaches Ollama.

    `local` is the address when it is one of the host's own, which its firewall has to open.
    """

    url: str
    local: Endpoint | None
    key: SecretStr | None = None
    own_ca: bool = False


def ollama_access(host: FleetHost, fleet: Fleet) -> OllamaAccess:
    """The declared Ollama of Dify on `host`."""
    if host.dify.ollama == "host":
        return OllamaAccess(f"http://{host.ollama_endpoint}", host.ollama_endpoint)
    gateway = gateway_of(host, fleet)
    assert gateway is not None  # refused by fleet_problems
    return OllamaAccess(
        str(gateway.gateway_url),
        gateway.gateway_endpoints[0] if gateway.name == host.name else None,
        fleet.gateway_keys(gateway)[host.dify.gateway_key],
        gateway.gateway.tls == "private-ca",
    )


def daemon_address(settings: DifySettings) -> str:
    """The plugin daemon's fixed address in Dify's network; others get one of its first half."""
    return str(settings.subnet[-6])


def models_of(host: FleetHost, hosts: Hosts) -> tuple[DifyModel, ...]:
    """The models that Dify on `host` is told of; the first is its default."""
    if host.dify.models:
        return host.dify.models
    first = _serving(host, hosts)[0].ollama
    # What Ollama is told to hold, when it is told: more would be cut without a word.
    # Not told, Ollama holds 4096 on a small GPU.
    size = min(first.context_length or 4096, _CONTEXT)
    limits = {"context_size": size, "max_tokens": min(size, _ANSWER)}
    return (DifyModel.model_validate({"name": first.model_names[0], **limits}),)


def public_url(host: FleetHost) -> str:
    """The address in people's browsers."""
    return host.dify.public_url or f"http://{host.dify_endpoint}"


def environment(host: FleetHost, fleet: Fleet) -> dict[str, str]:
    """What we say in the release's `.env`; everything else stays as the release has it."""
    declared = host.dify
    return _secret_values(secrets_of(host, fleet)) | _addresses(host) | {
        "COMPOSE_PROJECT_NAME": PROJECT,
        "CHECK_UPDATE_URL": "",
        "MARKETPLACE_ENABLED": _word(declared.plugin is not None),
        "FORCE_VERIFYING_SIGNATURE": _word(declared.plugin_signature),
        # Unasked, the daemon may choose a mirror in another country.
        "PIP_MIRROR_AUTO_DETECT": "false",
        "PIP_MIRROR_URL": declared.pip_index or "",
        # The plugin's lock names the public index by address, mirror or not.
        "PLUGIN_IGNORE_UV_LOCK": _word(declared.pip_index is not None),
        "PLUGIN_PYTHON_ENV_INIT_TIMEOUT": "600",
        "WEAVIATE_AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false",
    } | declared.env  # fmt: skip


def _secret_values(values: dict[str, str]) -> dict[str, str]:
    """Secrets as `.env` names them; those that two services share are equal."""
    return {
        "SECRET_KEY": values["secret_key"],
        "INIT_PASSWORD": values["init_password"],
        "DB_PASSWORD": values["db_password"],
        "REDIS_PASSWORD": values["redis_password"],
        "CELERY_BROKER_URL": f"redis://:{values['redis_password']}@redis:6379/1",
        "SANDBOX_API_KEY": values["sandbox_api_key"],
        "CODE_EXECUTION_API_KEY": values["sandbox_api_key"],
        "PLUGIN_DAEMON_KEY": values["plugin_daemon_key"],
        "PLUGIN_DIFY_INNER_API_KEY": values["plugin_inner_api_key"],
        "WEAVIATE_API_KEY": values["weaviate_api_key"],
        "WEAVIATE_AUTHENTICATION_APIKEY_ALLOWED_KEYS": values["weaviate_api_key"],
        "DIFY_AGENT_API_TOKEN": values["agent_api_token"],
        "DIFY_AGENT_SERVER_SECRET_KEY": values["agent_server_secret_key"],
        "DIFY_AGENT_LOCAL_SANDBOX_AUTH_TOKEN": values["agent_sandbox_token"],
    }


def _addresses(host: FleetHost) -> dict[str, str]:
    """Dify's own addresses; empty is the address that the browser asked, which is best."""
    url = public_url(host)
    socket = re.sub("^http", "ws", url)
    same_origin = ("CONSOLE_API_URL", "CONSOLE_WEB_URL", "SERVICE_API_URL", "APP_API_URL",
                   "APP_WEB_URL")  # fmt: skip
    return dict.fromkeys(same_origin, host.dify.public_url or "") | {
        "FILES_URL": url,
        # For plugins and agents: the browsers' address may not be reached from a container.
        "INTERNAL_FILES_URL": "http://api:5001",
        "TRIGGER_URL": url,
        "ENDPOINT_URL_TEMPLATE": f"{url}/e/{{hook_id}}",
        "NEXT_PUBLIC_SOCKET_URL": socket,
    }


def _word(value: bool) -> str:
    return str(value).lower()


def host_problems(host: FleetHost) -> Iterator[str]:
    """What Dify on `host` lacks or contradicts, but for its secrets and other hosts."""
    settings = host.dify
    for key, fix in (
        ("sha256", "the SHA-256 of the release's tarball, as `curl -L URL | sha256sum` tells it"),
        ("owner_email", "the address that the owner logs in with"),
    ):
        if getattr(settings, key) is None:
            yield f"{host.name}: dify_{key} is missing; set it to {fix}"
    if not (settings.plugin or settings.plugin_package):
        yield (
            f"{host.name}: dify_plugin is missing: without it Dify knows no Ollama; set it to the "
            "identifier that its page in the marketplace shows, or dify_plugin_package to a file"
        )
    yield from _package_problems(host)
    if settings.listen == "private" and not settings.allow_from:
        yield (
            f"{host.name}: dify_listen = 'private' without dify_allow_from: nobody could reach it; "
            "name at least one network"
        )
    if not _covered(BRIDGE, host.firewall.container_interfaces):
        yield (
            f"{host.name}: firewall_container_interfaces = "
            f"{list(host.firewall.container_interfaces)} does not hold {BRIDGE}; add it, or Dify's "
            "containers are open to the neighbours"
        )
    own = sorted(set(settings.env) & set(_OWN_VALUES))
    if own:
        yield f"{host.name}: dify_env: {', '.join(own)} is set by this project, use its setting"
    ours = sorted(set(settings.env) & _FIXED_VALUES)
    if ours:
        yield (
            f"{host.name}: dify_env: {', '.join(ours)} would change which parts of Dify there are, "
            "or where they listen, behind this project's back; leave it out"
        )
    read = sorted(name for name, value in settings.env.items() if "$" in value)
    if read:
        yield (
            f"{host.name}: dify_env: {', '.join(read)} has a $ in it, which Compose would take for "
            "a variable; leave it out, or set it in Dify"
        )
    shown = sorted(name for name in settings.env if re.search("TOKEN|SECRET|PASS|_KEY$", name))
    if shown:
        yield (
            f"{host.name}: dify_env: {', '.join(shown)} looks like a secret, and an inventory is "
            "no place for one; leave it out"
        )


def _package_problems(host: FleetHost) -> Iterator[str]:
    from fleet.declare.load import PROJECT_ROOT  # noqa: PLC0415 - it imports this file

    package = host.dify.plugin_package
    if package is None or package.startswith(("http://", "https://")):
        return
    if not (PROJECT_ROOT / package).is_file():
        yield (
            f"{host.name}: dify_plugin_package = {package!r}: no such file; paths are relative to "
            f"{PROJECT_ROOT}"
        )


_OWN_VALUES = frozenset(
    {
        *_secret_values(dict.fromkeys(SECRETS, "")),
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


def _covered(name: str, patterns: tuple[str, ...]) -> bool:
    return any(
        name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1]))
        for pattern in patterns
    )


def fleet_problems(host: FleetHost, hosts: list[FleetHost]) -> Iterator[str]:
    """What of `host` does not fit the hosts that it reaches its models on."""
    if host.dify.ollama == "host":
        yield from _own_ollama_problems(host)
    else:
        yield from _gateway_problems(host, hosts)
    serving = _serving(host, hosts)
    if not serving:
        return
    declared = {model.full_name: model for model in serving[0].ollama.models}
    if not host.dify.models and AUTO in serving[0].ollama.model_names[:1]:
        yield f"{host.name}: dify_models is missing: 'auto' is no name to tell Dify; name the model"
    for model in host.dify.models:
        if model.full_name not in declared:
            yield (
                f"{host.name}: dify_models: {model.name!r} is not in ollama_models of "
                f"{serving[0].name}, which has {list(serving[0].ollama.model_names)}"
            )
    limit = serving[0].ollama.context_length
    for model in host.dify.models:
        if limit and model.context_size > limit:
            yield (
                f"{host.name}: dify_models: {model.name!r}: context_size = {model.context_size} is "
                f"above ollama_context_length = {limit} of {serving[0].name}: Ollama would cut the "
                "prompt without a word; lower the one or raise the other"
            )


def _own_ollama_problems(host: FleetHost) -> Iterator[str]:
    if not host.is_gpu:
        yield (
            f"{host.name}: dify_ollama = 'host', but the host is not in group gpu and has no "
            "Ollama; add it, or set dify_ollama = 'gateway'"
        )
    elif host.ollama.listen != "private":
        yield (
            f"{host.name}: ollama_listen = {host.ollama.listen!r}: Dify's containers could not "
            "reach it; set ollama_listen = 'private' and private_address (the firewall opens it to "
            "Dify's plugin daemon only)"
        )


def _gateway_problems(host: FleetHost, hosts: list[FleetHost]) -> Iterator[str]:
    gateway = gateway_of(host, hosts)
    if gateway is None:
        yield (
            f"{host.name}: dify_ollama = 'gateway', but no gateway of the inventory can be reached "
            "by others; declare one with gateway_listen = 'private', or use dify_ollama = 'host'"
        )
        return
    if host.dify.gateway_key not in {key.name for key in gateway.gateway.keys}:
        yield (
            f"{host.name}: dify_gateway_key = {host.dify.gateway_key!r} is not in gateway_keys of "
            f"{gateway.name}; add "
            f'{{"name": "{host.dify.gateway_key}", "overrides": True}} there'
        )
        return
    daemon = ip_address(daemon_address(host.dify))
    yield from call_problems(host, gateway, "dify_gateway_key", host.dify.gateway_key, daemon)


def call_problems(
    host: FleetHost, gateway: FleetHost, setting: str, name: str, inside: Address | None
) -> Iterator[str]:
    """Why `gateway` or its firewall turns away containers of `host`, whose key is called `name`.

    The gateway sees `inside`, the container's own address, when it is on the same host, and the
    host's private address otherwise. Nothing is said where that cannot be told, as of a gateway on
    all its addresses.
    """
    key = next(key for key in gateway.gateway.keys if key.name == name)
    said = f"{host.name}: {setting} = {name!r}, which in gateway_keys of {gateway.name}"
    is_here = host.name == gateway.name
    source = inside if is_here else host.host.private_address
    door = gateway.host.private_address if gateway.gateway.listen == "private" else None
    if not (source and door and source.version == door.version):
        return
    if key.allow_from and not _any_holds(key.allow_from, source):
        yield f"{said} has an allow_from without {source}, where its calls come from; add it there"
    filtered = gateway.firewall.backend != "none" and not is_here
    if filtered and not _any_holds(gateway.gateway.allow_from, source):
        listed = [str(network) for network in gateway.gateway.allow_from]
        yield (
            f"{gateway.name}: gateway_allow_from = {listed}: the firewall would drop the calls of "
            f"{host.name}; add '{source}' or its network"
        )


def _any_holds(networks: Iterable[Network], address: Address) -> bool:
    return any(address in network for network in networks)


def gateway_of(host: FleetHost, hosts: Hosts) -> FleetHost | None:
    """The gateway that containers of `host` use: the host's own, else the first; None without."""
    usable = [item for item in hosts if item.is_gateway and item.gateway_url]
    return next((item for item in usable if item.name == host.name), next(iter(usable), None))


def _serving(host: FleetHost, hosts: Hosts) -> list[FleetHost]:
    if host.dify.ollama == "host":
        return [host] if host.is_gpu else []
    return [item for item in hosts if item.is_gpu]


def secret_problems(fleet: Fleet) -> Iterator[str]:
    """Values in the secrets store that Dify would not start with, or that everybody knows."""
    for host in fleet:
        for name, secret in SECRETS.items() if host.is_dify else ():
            stored = fleet.secrets.read(secret_name(host, name))
            if stored is None:
                continue
            path = fleet.secrets.path(secret_name(host, name))
            value = stored.get_secret_value()
            if any(value.startswith(known) for known in PUBLIC_DEFAULTS):
                yield (
                    f"{host.name}: {path} holds a value that Dify's release prints for everybody; "
                    "delete it to have one generated"
                )
            elif not re.fullmatch(secret.form, value):
                yield f"{host.name}: {path} is not {secret.words}; delete it to have one generated"
