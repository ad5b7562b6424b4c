"""The loader of models, its configuration and its unit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fleet.declare.fleet import FleetHost
from fleet.kit.durations import seconds
from fleet.kit.files import ManagedFile
from fleet.kit.host_programs import program_files
from fleet.kit.proxy import proxy_environment
from fleet.kit.render import render
from fleet.models.paths import (
    LOADER_CONFIG,
    LOADER_MEMORY,
    LOADER_PROGRAM,
    LOADER_STATE,
    LOADER_TIMER,
    LOADER_TIMER_FILE,
    MODEL_CHOICE,
)
from fleet.models.settings import Models
from fleet.ollama.models import FOR_EVER, ModelDeclaration, full_name, pull_name, with_bases
from fleet.ollama.paths import LOADER_UNIT, LOADER_UNIT_FILE
from fleet.ollama.servers import Instance, instances_of
from fleet.ollama.settings import Ollama


def names_in_use(me: FleetHost) -> set[str]:
    """Every name of a declaration, bases too, as it is written."""
    return {name for model in me[Ollama].models for name in (model.name, model.base) if name}


def managed_files(me: FleetHost) -> list[ManagedFile]:
    """Every file of the loader."""
    return [*loader_files(me), *unit_files(me)]


def loader_files(me: FleetHost) -> list[ManagedFile]:
    """The loader with its modules, and last its configuration."""
    config = json.dumps(loader_config(me), indent=2) + "\n"
    return [*program_files("models", "model_loader"), ManagedFile(LOADER_CONFIG, config)]


def unit_files(me: FleetHost) -> list[ManagedFile]:
    """The unit that runs the loader, after the timer that begins anew after a failed run."""
    servers = [instance.unit for instance in instances_of(me)]
    timer = render(
        "models/ollama-models-again.timer.j2",
        loader=LOADER_UNIT,
        servers=servers,
        delay=seconds(me[Models].retry_delay_max),
    )
    unit = render(
        "models/ollama-models.service.j2",
        program=LOADER_PROGRAM,
        config=LOADER_CONFIG,
        models_dir=me[Ollama].models_dir,
        servers=servers,
        timer=LOADER_TIMER,
        several=bool(me[Ollama].instances),
        environment=proxy_environment(me[Ollama].https_proxy, me[Ollama].no_proxy),
        restart_delay=seconds(me[Models].retry_delay),
    )
    return [ManagedFile(LOADER_TIMER_FILE, timer), ManagedFile(LOADER_UNIT_FILE, unit)]


def loader_config(me: FleetHost, servers: Sequence[Instance] = ()) -> dict[str, Any]:
    """What `model_loader.py` reads; of `servers` only, where some are given."""
    first, *others = servers or instances_of(me)
    return {
        "api": first.url,
        "models_dir": me[Ollama].models_dir,
        "state": LOADER_STATE,
        "memory": LOADER_MEMORY,
        "choice": MODEL_CHOICE,
        "prune": me[Models].prune,
        "context": first.settings.context_length,
        **_serves(me, first),
        # What is on the disk is the same for all of them; what is in memory is each one's own.
        "others": [
            {"api": item.url, "context": item.settings.context_length, **_serves(me, item)}
            for item in others
        ],
        "limits": me[Models].limits,
        "models": [_for_loader(me, model) for model in with_bases(me[Ollama].models)],
    }


def _serves(me: FleetHost, item: Instance) -> dict[str, list[str]]:
    """The models that are for a server, where it has not all of its host's; bases too."""
    if item.settings.models == me[Ollama].models:
        return {}
    return {"serves": [model.full_name for model in with_bases(item.settings.models)]}


def _for_loader(me: FleetHost, model: ModelDeclaration) -> dict[str, Any]:
    made = bool(model.base or model.gguf)
    source = model.full_name if made else pull_name(model.name, me[Models].registry)
    return {
        "name": model.full_name,
        "source": source,
        # Other registries keep TLS, whatever the mirror speaks.
        "insecure": me[Models].registry_insecure and source != model.full_name,
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
