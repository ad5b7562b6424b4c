"""The list of all capabilities: the only file that names them all.

Their settings are documented, and what is wrong with them is told, in this order. The order of a
deploy is in `deploy.py`.
"""

from __future__ import annotations

from fleet.container_toolkit import checks as container_toolkit_checks
from fleet.container_toolkit import declared as container_toolkit
from fleet.container_toolkit import paths as container_toolkit_paths
from fleet.container_toolkit import problems as container_toolkit_problems
from fleet.container_toolkit.footprint import footprint as container_toolkit_footprint
from fleet.container_toolkit.settings import ContainerToolkit
from fleet.declare.capability import Capability
from fleet.dify import checks as dify_checks
from fleet.dify import cli as dify_cli
from fleet.dify import declared as dify
from fleet.dify import problems as dify_problems
from fleet.dify import status as dify_status
from fleet.dify.footprint import footprint as dify_footprint
from fleet.dify.settings import Dify
from fleet.docker import checks as docker_checks
from fleet.docker import declared as docker
from fleet.docker import paths as docker_paths
from fleet.docker import problems as docker_problems
from fleet.docker.footprint import footprint as docker_footprint
from fleet.docker.settings import Docker
from fleet.driver import checks as driver_checks
from fleet.driver import paths as driver_paths
from fleet.driver import status as driver_status
from fleet.driver.footprint import footprint as driver_footprint
from fleet.driver.settings import Driver
from fleet.firewall import checks as firewall_checks
from fleet.firewall import declared as firewall
from fleet.firewall import paths as firewall_paths
from fleet.firewall import problems as firewall_problems
from fleet.firewall.footprint import footprint as firewall_footprint
from fleet.firewall.settings import Firewall
from fleet.gates import checks as gates_checks
from fleet.gateway import backends as gateway_backends
from fleet.gateway import checks as gateway_checks
from fleet.gateway import cli as gateway_cli
from fleet.gateway import declared as gateway
from fleet.gateway import paths as gateway_paths
from fleet.gateway import problems as gateway_problems
from fleet.gateway import status as gateway_status
from fleet.gateway.footprint import footprint as gateway_footprint
from fleet.gateway.settings import Gateway
from fleet.gpu import checks as gpu_checks
from fleet.gpu import status as gpu_status
from fleet.gpu.footprint import footprint as gpu_footprint
from fleet.gpu.settings import Gpus
from fleet.models import paths as models_paths
from fleet.models import problems as models_problems
from fleet.models import status as models_status
from fleet.models.footprint import footprint as models_footprint
from fleet.models.settings import Models
from fleet.ollama import checks as ollama_checks
from fleet.ollama import paths as ollama_paths
from fleet.ollama import problems as ollama_problems
from fleet.ollama import servers as ollama
from fleet.ollama import status as ollama_status
from fleet.ollama import storage as ollama_storage
from fleet.ollama.footprint import footprint as ollama_footprint
from fleet.ollama.settings import Ollama
from fleet.platform import checks as platform_checks
from fleet.platform import declared as platform
from fleet.platform import problems as platform_problems
from fleet.platform import status as platform_status
from fleet.platform.footprint import footprint as platform_footprint
from fleet.platform.settings import Platform
from fleet.vllm import checks as vllm_checks
from fleet.vllm import paths as vllm_paths
from fleet.vllm import problems as vllm_problems
from fleet.vllm import servers as vllm
from fleet.vllm import status as vllm_status
from fleet.vllm.footprint import footprint as vllm_footprint
from fleet.vllm.settings import Vllm
from fleet.webui import checks as webui_checks
from fleet.webui import declared as webui
from fleet.webui import paths as webui_paths
from fleet.webui import problems as webui_problems
from fleet.webui import status as webui_status
from fleet.webui.footprint import footprint as webui_footprint
from fleet.webui.settings import Webui
from fleet.weights import checks as weights_checks
from fleet.weights import cli as weights_cli
from fleet.weights import declared as weights
from fleet.weights import paths as weights_paths
from fleet.weights import problems as weights_problems
from fleet.weights import status as weights_status
from fleet.weights.footprint import footprint as weights_footprint
from fleet.weights.settings import Weights

CAPABILITIES = (
    Capability(
        Platform,
        problems=platform_problems.problems,
        directories=platform.directories,
        footprint=platform_footprint,
        preflight=platform_checks.checks,
        status=platform_status.looks,
    ),
    Capability(
        Firewall,
        logs=firewall_paths.LOGS,
        services=firewall.services,
        problems=firewall_problems.problems,
        footprint=firewall_footprint,
        preflight=firewall_checks.checks,
    ),
    Capability(
        Ollama,
        logs=ollama_paths.LOGS,
        group="gpu",
        services=ollama.services,
        servers=ollama.servers,
        directories=ollama_storage.directories,
        problems=ollama_problems.problems,
        footprint=ollama_footprint,
        preflight=ollama_checks.checks,
        status=ollama_status.looks,
    ),
    Capability(
        Models,
        logs=models_paths.LOGS,
        group="gpu",
        problems=models_problems.problems,
        footprint=models_footprint,
        preflight=gates_checks.checks,
        status=models_status.looks,
    ),
    Capability(
        Weights,
        logs=weights_paths.LOGS,
        is_off=weights.is_off,
        directories=weights.directories,
        problems=weights_problems.problems,
        stored_problems=weights_problems.stored_problems,
        footprint=weights_footprint,
        preflight=weights_checks.checks,
        status=weights_status.looks,
        commands=weights_cli.COMMANDS,
    ),
    Capability(
        Vllm,
        logs=vllm_paths.LOGS,
        group="vllm",
        needs=(Gpus, Driver),
        services=vllm.services,
        servers=vllm.servers,
        directories=vllm.directories,
        problems=vllm_problems.problems,
        stored_problems=vllm_problems.stored_problems,
        footprint=vllm_footprint,
        preflight=vllm_checks.checks,
        status=vllm_status.looks,
    ),
    Capability(
        Gateway,
        logs=gateway_paths.LOGS,
        group="gateway",
        calls_servers="www-data",
        services=gateway.services,
        urls=gateway.urls,
        servers=gateway_backends.servers,
        directories=gateway.directories,
        footprint=gateway_footprint,
        retire=gateway_cli.drain,
        problems=gateway_problems.problems,
        keeps_secrets=True,
        stored_problems=gateway_problems.stored_problems,
        preflight=gateway_checks.checks,
        status=gateway_status.looks,
        commands=gateway_cli.COMMANDS,
    ),
    Capability(
        Gpus,
        group="gpu",
        footprint=gpu_footprint,
        preflight=gpu_checks.checks,
        status=gpu_status.looks,
    ),
    Capability(
        Driver,
        logs=driver_paths.LOGS,
        group="gpu",
        footprint=driver_footprint,
        preflight=driver_checks.checks,
        status=driver_status.looks,
    ),
    Capability(
        Docker,
        logs=docker_paths.LOGS,
        switch="enabled",
        problems=docker_problems.problems,
        directories=docker.directories,
        footprint=docker_footprint,
        preflight=docker_checks.checks,
    ),
    Capability(
        ContainerToolkit,
        logs=container_toolkit_paths.LOGS,
        problems=container_toolkit_problems.problems,
        footprint=container_toolkit_footprint,
        is_off=container_toolkit.is_off,
        preflight=container_toolkit_checks.checks,
    ),
    Capability(
        Dify,
        logs=dify.LOGS,
        group="dify",
        needs=(Docker,),
        services=dify.services,
        urls=dify.urls,
        grants=dify.grants,
        directories=dify.directories,
        footprint=dify_footprint,
        problems=dify_problems.problems,
        keeps_secrets=True,
        stored_problems=dify_problems.stored_problems,
        preflight=dify_checks.checks,
        status=dify_status.looks,
        commands=dify_cli.COMMANDS,
    ),
    Capability(
        Webui,
        logs=webui_paths.LOGS,
        group="webui",
        needs=(Docker,),
        services=webui.services,
        urls=webui.urls,
        grants=webui.grants,
        footprint=webui_footprint,
        directories=webui.directories,
        problems=webui_problems.problems,
        keeps_secrets=True,
        stored_problems=webui_problems.stored_problems,
        preflight=webui_checks.checks,
        status=webui_status.looks,
    ),
)
