"""The list of all capabilities: the only file that names them all.

Their settings are documented, and what is wrong with them is told, in this order. The order of a
deploy is in `deploy.py`.
"""

from __future__ import annotations

from fleet.container_toolkit import problems as container_toolkit_problems
from fleet.container_toolkit.footprint import footprint as container_toolkit_footprint
from fleet.container_toolkit.settings import ContainerToolkit
from fleet.declare.capability import Capability
from fleet.dify import cli as dify_cli
from fleet.dify import declared as dify
from fleet.dify import problems as dify_problems
from fleet.dify.footprint import footprint as dify_footprint
from fleet.dify.settings import Dify
from fleet.docker import declared as docker
from fleet.docker import problems as docker_problems
from fleet.docker.footprint import footprint as docker_footprint
from fleet.docker.settings import Docker
from fleet.driver.footprint import footprint as driver_footprint
from fleet.driver.settings import Driver
from fleet.firewall import declared as firewall
from fleet.firewall import problems as firewall_problems
from fleet.firewall.footprint import footprint as firewall_footprint
from fleet.firewall.settings import Firewall
from fleet.gateway import cli as gateway_cli
from fleet.gateway import declared as gateway
from fleet.gateway import problems as gateway_problems
from fleet.gateway.footprint import footprint as gateway_footprint
from fleet.gateway.settings import Gateway
from fleet.models import problems as models_problems
from fleet.models.footprint import footprint as models_footprint
from fleet.models.settings import Models
from fleet.ollama import problems as ollama_problems
from fleet.ollama import servers as ollama
from fleet.ollama import storage as ollama_storage
from fleet.ollama.footprint import footprint as ollama_footprint
from fleet.ollama.settings import Ollama
from fleet.platform import declared as platform
from fleet.platform import problems as platform_problems
from fleet.platform.footprint import footprint as platform_footprint
from fleet.platform.settings import Platform
from fleet.webui import declared as webui
from fleet.webui import problems as webui_problems
from fleet.webui.footprint import footprint as webui_footprint
from fleet.webui.settings import Webui

CAPABILITIES = (
    Capability(
        Platform,
        problems=platform_problems.problems,
        directories=platform.directories,
        footprint=platform_footprint,
    ),
    Capability(
        Firewall,
        services=firewall.services,
        problems=firewall_problems.problems,
        footprint=firewall_footprint,
    ),
    Capability(
        Ollama,
        group="gpu",
        services=ollama.services,
        servers=ollama.servers,
        directories=ollama_storage.directories,
        problems=ollama_problems.problems,
        footprint=ollama_footprint,
    ),
    Capability(Models, group="gpu", problems=models_problems.problems, footprint=models_footprint),
    Capability(
        Gateway,
        group="gateway",
        calls_servers="www-data",
        services=gateway.services,
        directories=gateway.directories,
        footprint=gateway_footprint,
        retire=gateway_cli.drain,
        problems=gateway_problems.problems,
        keeps_secrets=True,
        stored_problems=gateway_problems.stored_problems,
        commands=gateway_cli.COMMANDS,
    ),
    Capability(Driver, group="gpu", footprint=driver_footprint),
    Capability(
        Docker,
        switch="enabled",
        problems=docker_problems.problems,
        directories=docker.directories,
        footprint=docker_footprint,
    ),
    Capability(
        ContainerToolkit,
        problems=container_toolkit_problems.problems,
        footprint=container_toolkit_footprint,
    ),
    Capability(
        Dify,
        group="dify",
        needs=(Docker,),
        services=dify.services,
        grants=dify.grants,
        directories=dify.directories,
        footprint=dify_footprint,
        problems=dify_problems.problems,
        keeps_secrets=True,
        stored_problems=dify_problems.stored_problems,
        commands=dify_cli.COMMANDS,
    ),
    Capability(
        Webui,
        group="webui",
        needs=(Docker,),
        services=webui.services,
        grants=webui.grants,
        footprint=webui_footprint,
        directories=webui.directories,
        problems=webui_problems.problems,
        keeps_secrets=True,
        stored_problems=webui_problems.stored_problems,
    ),
)
