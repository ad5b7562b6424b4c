"""What Open WebUI on a host is told: its secrets, its environment, and the gateway it asks."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.capability import Grant, Service
from fleet.declare.fleet import Endpoint, Fleet, FleetHost
from fleet.declare.secrets import OwnSecrets, Secret
from fleet.gateway.declared import Access, gateway_access, local_gateway
from fleet.kit.places import Directory
from fleet.platform.declared import endpoint
from fleet.webui.settings import Webui

# Its container and its volume.
NAME = "llm-fleet-webui"
# Containers without a network of their own are here.
BRIDGE = "docker0"
CA_IN_CONTAINER = "/etc/ssl/llm-fleet-ca.pem"
# What is a database in its volume: its own, and that of the vectors (Chroma's, the default). Never
# told by what a file begins with: an upload may begin like one.
DATABASES = ("webui.db", "vector_db/chroma.sqlite3")
# No quotes or spaces: nothing on the way to the container reads them in another way.
_SECRET = Secret(form=r"[^\s\"'\\]{16,72}", words="16 to 72 characters without spaces and quotes")
SECRETS = OwnSecrets("webui", {"secret_key": _SECRET, "admin_password": _SECRET})
FIXED = {
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


def webui_endpoint(host: FleetHost) -> Endpoint:
    """Where Open WebUI's pages and API are published."""
    return endpoint(host, host[Webui].listen, host[Webui].port)


def urls(host: FleetHost, _: Fleet) -> Iterator[tuple[str, str]]:
    """The address in people's browsers."""
    yield "Open WebUI", f"http://{webui_endpoint(host)}"


def services(host: FleetHost, _: Fleet) -> Iterator[Service]:
    """Open WebUI's pages and API; nothing else is published."""
    private = "webui_listen" if host[Webui].listen == "private" else None
    where = (webui_endpoint(host),)
    yield Service(
        "webui_port", "webui", where, host[Webui].allow_from, "open webui", private, published=True,
        held_by=(NAME,),
    )  # fmt: skip


def directories(host: FleetHost) -> Iterator[Directory]:
    """Where its backups are; its data is in a volume of Docker's."""
    yield Directory("webui_backup_dir", host[Webui].backup_dir)


def grants(host: FleetHost, fleet: Fleet) -> Iterator[Grant]:
    """The gateway, when it is on the same host."""
    local = local_gateway(host, fleet)
    if local is not None:
        yield Grant(BRIDGE, local.port, "open webui")


def access(host: FleetHost, fleet: Fleet) -> Access:
    """How Open WebUI on `host` reaches the gateway."""
    return gateway_access(host, fleet, host[Webui].gateway_key)


def environment(host: FleetHost, fleet: Fleet) -> dict[str, str]:
    """The container's environment, beside what its image says.

    https://docs.openwebui.com/reference/env-configuration/ has the names.
    """
    own, gateway = SECRETS.of(host, fleet), access(host, fleet)
    return FIXED | {
        "WEBUI_SECRET_KEY": own["secret_key"],
        "WEBUI_ADMIN_EMAIL": str(host[Webui].admin_email),
        "WEBUI_ADMIN_PASSWORD": own["admin_password"],
        "OPENAI_API_BASE_URL": f"{gateway.url}/v1",
        "OPENAI_API_KEY": gateway.key.get_secret_value(),
    } | host[Webui].env  # fmt: skip
