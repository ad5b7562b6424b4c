"""The models that a host serves: provided by the host itself, in a unit of their own."""

from __future__ import annotations

import json
from typing import Any

from pyinfra.api import deploy

from fleet.declare.load import FleetHost
from fleet.declare.types import proxy_environment
from fleet.kit import paths
from fleet.kit.commands import verify_unit
from fleet.kit.durations import seconds
from fleet.kit.files import ManagedFile, install_files
from fleet.kit.packages import install_packages
from fleet.kit.render import host_program, render
from fleet.kit.units import enable_unit
from fleet.models.operations import choose_model, provide_models
from fleet.ollama.models import AUTO, FOR_EVER, ModelDeclaration, full_name, pull_name, with_bases

_MEGABYTE, _GIGABYTE = 1_000_000, 1_000_000_000


@deploy("Models")
def models(me: FleetHost) -> None:
    """Have the declared models present; the pull shows its progress and outlives this deploy."""
    install_packages(name="Install Python", packages=["python3"])
    install_files(name="Install the loader", files=managed_files(me)[:2])
    if AUTO in names_in_use(me):
        choose_model(name="Choose the model by the host's memory")
    install_files(
        name="Install the loader's unit",
        files=managed_files(me)[2:],
        check=verify_unit(paths.LOADER_UNIT),
    )
    enable_unit(name="Run the loader whenever Ollama starts", unit=paths.LOADER_UNIT)
    provide_models(
        name="Provide the models",
        config=json.dumps(loader_config(me)),
        wait_timeout=seconds(me.models.wait_timeout) if me.models.wait else None,
    )


def names_in_use(me: FleetHost) -> set[str]:
    """Every name of a declaration, bases too, as it is written."""
    return {name for model in me.ollama.models for name in (model.name, model.base) if name}


def managed_files(me: FleetHost) -> list[ManagedFile]:
    """The loader, its configuration, and its unit."""
    unit = render(
        "models/ollama-models.service.j2",
        program=paths.LOADER_PROGRAM,
        config=paths.LOADER_CONFIG,
        models_dir=me.ollama.models_dir,
        servers=[instance.unit for instance in me.instances],
        several=bool(me.ollama.instances),
        environment=proxy_environment(me.ollama.https_proxy, me.ollama.no_proxy),
        restart_delay=seconds(me.models.retry_delay_max),
    )
    return [
        ManagedFile(paths.LOADER_PROGRAM, host_program("models", "model_loader.py"), mode="755"),
        ManagedFile(paths.LOADER_CONFIG, json.dumps(loader_config(me), indent=2) + "\n"),
        ManagedFile(paths.LOADER_UNIT_FILE, unit),
    ]


def loader_config(me: FleetHost) -> dict[str, Any]:
    """What `model_loader.py` reads."""
    return {
        "api": me.instances[0].url,
        "models_dir": me.ollama.models_dir,
        "state": paths.LOADER_STATE,
        "memory": paths.LOADER_MEMORY,
        "choice": paths.MODEL_CHOICE,
        "prune": me.models.prune,
        "context": me.instances[0].settings.context_length,
        # What is on the disk is the same for all of them; what is in memory is each one's own.
        "others": [
            {"api": item.url, "context": item.settings.context_length} for item in me.instances[1:]
        ],
        "limits": {
            "no_progress": seconds(me.models.no_progress),
            "slow_rate": me.models.slow_rate * _MEGABYTE,
            "slow_window": seconds(me.models.slow_window),
            "attempts": me.models.attempts,
            "first_delay": seconds(me.models.retry_delay),
            "longest_delay": seconds(me.models.retry_delay_max),
            "disk_reserve": me.models.disk_reserve * _GIGABYTE,
        },
        "models": [_for_loader(me, model) for model in with_bases(me.ollama.models)],
    }


def _for_loader(me: FleetHost, model: ModelDeclaration) -> dict[str, Any]:
    made = bool(model.base or model.gguf)
    source = model.full_name if made else pull_name(model.name, me.models.registry)
    return {
        "name": model.full_name,
        "source": source,
        # Other registries keep TLS, whatever the mirror speaks.
        "insecure": me.models.registry_insecure and source != model.full_name,
        "digest": model.digest,
        "base": full_name(model.base) if model.base else None,
        "gguf": model.gguf,
        "sha256": model.sha256,
        "definition": model.definition,
        "load": model.load,
        "keep_alive": _keep_alive(model.keep_alive or FOR_EVER),
    }


def _keep_alive(text: str) -> str | int:
    """As Ollama's API reads it: a number is seconds, and text needs a unit."""
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    return int(sign + digits) if digits.isdecimal() else text
