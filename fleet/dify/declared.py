"""What Dify on a host is told: its secrets, its `.env`, and the Ollama that it reaches."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import SecretStr

from fleet.declare.capability import Grant, Service
from fleet.declare.fleet import Endpoint, Fleet, FleetHost, Url
from fleet.declare.logs import Logs
from fleet.declare.secrets import OwnSecrets, Secret
from fleet.dify.paths import (
    DIFY_BACKUP_UNIT,
    DIFY_BOOT_UNIT,
    DIFY_JOB,
    DIFY_PRISTINE,
    DIFY_ROOT,
    DIFY_SETUP_JOB,
)
from fleet.dify.settings import Dify, DifyModel
from fleet.gateway.declared import gateway_access, gateway_of, local_gateway
from fleet.gateway.offered import meant, offered, plain_of
from fleet.gateway.settings import Gateway
from fleet.kit.places import Directory
from fleet.ollama.servers import instances_of, ollama_endpoint
from fleet.ollama.settings import Ollama
from fleet.platform.declared import endpoint

PROJECT = "dify"
LOGS = Logs(
    units=(DIFY_JOB, DIFY_SETUP_JOB, DIFY_BOOT_UNIT, DIFY_BACKUP_UNIT),
    project=PROJECT,
)
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


SECRETS = OwnSecrets(
    "dify",
    {
        "secret_key": Secret(),
        # Dify takes no longer one, and would be locked out by it.
        "init_password": Secret(
            lambda: secrets.token_hex(15),
            r"[A-Za-z0-9_-]{16,30}",
            "16 to 30 letters, digits, - or _",
        ),
        "owner_password": Secret(
            _password,
            r"(?=.*[A-Za-z])(?=.*[0-9])[^\s\"'\\]{8,}",
            "at least 8 characters, a letter and a digit among them, no quotes or spaces",
        ),
        "db_password": Secret(),
        "redis_password": Secret(),
        "sandbox_api_key": Secret(),
        "plugin_daemon_key": Secret(),
        "plugin_inner_api_key": Secret(),
        "weaviate_api_key": Secret(),
        "agent_api_token": Secret(),
        # Unpadded base64url of exactly 32 bytes, or the agent's backend does not start.
        "agent_server_secret_key": Secret(
            lambda: secrets.token_urlsafe(32),
            r"[A-Za-z0-9_-]{43}",
            "32 bytes in unpadded base64url",
        ),
        "agent_sandbox_token": Secret(),
    },
)


def dify_endpoint(host: FleetHost) -> Endpoint:
    """Where Dify's pages and API are published."""
    return endpoint(host, host[Dify].listen, host[Dify].port)


def services(host: FleetHost, _: Fleet) -> Iterator[Service]:
    """Dify's pages and API; nothing else is published."""
    private = "dify_listen" if host[Dify].listen == "private" else None
    where = (dify_endpoint(host),)
    yield Service(
        "dify_port", "dify", where, host[Dify].allow_from, "dify", private, published=True,
        held_by=(PROJECT,),
    )  # fmt: skip


def directories(host: FleetHost) -> Iterator[Directory]:
    """Its releases, its data, and its backups."""
    for path in (DIFY_PRISTINE, DIFY_ROOT):
        yield Directory(path, path)
    yield Directory("dify_backup_dir", host[Dify].backup_dir)


def grants(host: FleetHost, fleet: Fleet) -> Iterator[Grant]:
    """Ollama, or the gateway to it, for the plugin daemon alone: nothing else of Dify calls it."""
    local = local_server(host, fleet)
    if local is not None:
        yield Grant(
            BRIDGE,
            local.port,
            "dify's plugin daemon",
            source=daemon_address(host[Dify]),
            # An Ollama in a container of its own is a published port, too.
            published=_is_own(host) and instances_of(host)[0].runtime == "docker",
        )


def local_server(host: FleetHost, fleet: Fleet) -> Endpoint | None:
    """What the plugin daemon calls when it is on this very host, whose firewall has to open it."""
    return ollama_endpoint(host) if _is_own(host) else local_gateway(host, fleet)


def _is_own(host: FleetHost) -> bool:
    return host[Dify].ollama == "host"


@dataclass(frozen=True)
class OllamaAccess:
    """How the plugin daemon reaches Ollama: a server as it is, or through a gateway with a key."""

    url: Url
    key: SecretStr | None = None
    own_ca: bool = False


def ollama_access(host: FleetHost, fleet: Fleet) -> OllamaAccess:
    """The declared Ollama of Dify on `host`."""
    if _is_own(host):
        return OllamaAccess(Url("http", ollama_endpoint(host)))
    gateway = gateway_access(host, fleet, host[Dify].gateway_key)
    return OllamaAccess(gateway.url, gateway.key, gateway.own_ca)


def daemon_address(settings: Dify) -> str:
    """The plugin daemon's fixed address in Dify's network; others get one of its first half."""
    return str(settings.subnet[-6])


def models_of(host: FleetHost, fleet: Fleet) -> tuple[DifyModel, ...]:
    """The models that Dify on `host` is told of; the first is its default."""
    if host[Dify].models:
        return host[Dify].models
    name = names_of(host, fleet)[0]
    # What Ollama is told to hold, when it is told: more would be cut without a word.
    # Not told, Ollama holds 4096 on a small GPU.
    told = [settings.context_length or 4096 for _, settings in serving(host, fleet, name)]
    size = min([*told, _CONTEXT])
    limits = {"context_size": size, "max_tokens": min(size, _ANSWER)}
    return (DifyModel.model_validate({"name": name, **limits}),)


def public_url(host: FleetHost) -> str:
    """The address in people's browsers."""
    return host[Dify].public_url or f"http://{dify_endpoint(host)}"


def urls(host: FleetHost, _: Fleet) -> Iterator[tuple[str, str]]:
    """The address in people's browsers."""
    yield "Dify", public_url(host)


def environment(host: FleetHost, fleet: Fleet) -> dict[str, str]:
    """What we say in the release's `.env`; everything else stays as the release has it."""
    declared = host[Dify]
    return secret_values(SECRETS.of(host, fleet)) | _addresses(host) | {
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
        # Or the first answer after a restart of the database is silence.
        "SQLALCHEMY_POOL_PRE_PING": "true",
        "WEAVIATE_AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false",
    } | declared.env  # fmt: skip


def secret_values(values: dict[str, str]) -> dict[str, str]:
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
    return dict.fromkeys(same_origin, host[Dify].public_url or "") | {
        "FILES_URL": url,
        # For plugins and agents: the browsers' address may not be reached from a container.
        "INTERNAL_FILES_URL": "http://api:5001",
        "TRIGGER_URL": url,
        "ENDPOINT_URL_TEMPLATE": f"{url}/e/{{hook_id}}",
        "NEXT_PUBLIC_SOCKET_URL": socket,
    }


def _word(value: bool) -> str:
    return str(value).lower()


def names_of(host: FleetHost, fleet: Fleet) -> tuple[str, ...]:
    """The models that Dify on `host` may ask for: those of its server, or of its key's gateway."""
    if _is_own(host):
        return tuple(name for item in instances_of(host)[:1] for name in item.settings.model_names)
    gateway = gateway_of(host, fleet)
    if gateway is None:
        return ()
    declared = gateway[Gateway]
    keys = [item for item in declared.keys if item.name == host[Dify].gateway_key]
    return tuple(name for key in keys for name in offered(fleet, declared, key))


def serving(host: FleetHost, fleet: Fleet, name: str) -> list[tuple[FleetHost, Ollama]]:
    """Whose Ollama answers Dify on `host` for `name`, each as it is set there."""
    gateway = None if _is_own(host) else gateway_of(host, fleet)
    wanted = meant(gateway[Gateway], name) if gateway else plain_of(name)
    servers = (
        [(host, instances_of(host)[:1])]
        if _is_own(host)
        else [(item, instances_of(item)) for item in fleet.running(Ollama)]
    )
    return [
        (item, instance.settings)
        for item, instances in servers
        for instance in instances
        if wanted in map(plain_of, instance.settings.model_names)
    ]
