"""The models that a host serves: pulled by the host itself, in a unit of their own."""

from __future__ import annotations

import json
from pathlib import Path

from pyinfra.api import deploy

from fleet import paths
from fleet.durations import seconds
from fleet.inventory import FleetHost
from fleet.operations.commands import verify_unit
from fleet.operations.files import ManagedFile, install_files
from fleet.operations.ollama import provide_models
from fleet.operations.units import enable_unit
from fleet.render import render

_LOADER = Path(__file__).resolve().parent.parent / "fleet" / "host" / "model_loader.py"


@deploy("Models")
def models(me: FleetHost) -> None:
    """Have the declared models present; the pull shows its progress and outlives this deploy."""
    install_files(name="Install the loader", files=managed_files(me)[:2])
    install_files(
        name="Install the loader's unit",
        files=managed_files(me)[2:],
        check=verify_unit(paths.LOADER_UNIT),
    )
    enable_unit(name="Run the loader at boot", unit=paths.LOADER_UNIT)
    provide_models(
        name="Provide the models",
        url=f"http://{me.ollama_endpoint}",
        models=[full_name(model) for model in me.ollama.models],
        wait_timeout=seconds(me.models.wait_timeout) if me.models.wait else None,
    )


def managed_files(me: FleetHost) -> list[ManagedFile]:
    """The loader, its configuration, and its unit."""
    program = f"{paths.LIB}/model_loader.py"
    unit = render("models/ollama-models.service.j2", program=program, config=paths.LOADER_CONFIG)
    return [
        ManagedFile(program, _LOADER.read_text(), mode="755"),
        ManagedFile(paths.LOADER_CONFIG, json.dumps(loader_config(me), indent=2) + "\n"),
        ManagedFile(paths.LOADER_UNIT_FILE, unit),
    ]


def loader_config(me: FleetHost) -> dict[str, object]:
    """What `model_loader.py` reads."""
    return {
        "api": f"http://{me.ollama_endpoint}",
        "state": paths.LOADER_STATE,
        "models": [
            {
                "name": full_name(model),
                "source": pull_name(model, me.models.registry),
                # Other registries keep TLS, whatever the mirror speaks.
                "insecure": me.models.registry_insecure
                and pull_name(model, me.models.registry) != full_name(model),
            }
            for model in me.ollama.models
        ],
    }


def full_name(model: str) -> str:
    """The name as Ollama lists it: with its tag."""
    return model if ":" in model.rsplit("/", 1)[-1] else f"{model}:latest"


def pull_name(model: str, registry: str | None) -> str:
    """The name to pull `model` under: Ollama has no setting for a mirror, only longer names.

    A model that names its own registry (`hf.co/...`) is pulled from there.
    """
    parts = full_name(model).split("/")
    if registry is None or len(parts) > 2:
        return full_name(model)
    namespace = parts[:-1] or ["library"]
    return "/".join([registry, *namespace, parts[-1]])
