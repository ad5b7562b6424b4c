"""The loader of weights, its configuration, its token and its unit."""

from __future__ import annotations

import json
from typing import Any

from pydantic import SecretStr

from fleet.declare.fleet import Fleet, FleetHost
from fleet.kit.durations import seconds
from fleet.kit.files import ManagedFile
from fleet.kit.host_programs import program_files
from fleet.kit.proxy import proxy_environment
from fleet.kit.render import render
from fleet.weights.declared import DeclaredWeights, declared, is_off, token_name
from fleet.weights.paths import (
    WEIGHTS_CONFIG,
    WEIGHTS_PROGRAM,
    WEIGHTS_STATE,
    WEIGHTS_TIMER,
    WEIGHTS_TIMER_FILE,
    WEIGHTS_TOKEN,
    WEIGHTS_UNIT,
    WEIGHTS_UNIT_FILE,
    WEIGHTS_USER,
)
from fleet.weights.settings import Weights


def managed_files(me: FleetHost, fleet: Fleet) -> list[ManagedFile]:
    """Every file of the loader; none where there are no weights."""
    if is_off(me):
        return []
    return [*loader_files(me), *token_files(me, fleet), *unit_files(me)]


def loader_files(me: FleetHost) -> list[ManagedFile]:
    """The loader with its modules, and last its configuration."""
    if is_off(me):
        return []
    config = json.dumps(loader_config(me), indent=2) + "\n"
    return [*program_files("weights", "weights_loader"), ManagedFile(WEIGHTS_CONFIG, config)]


def token_files(me: FleetHost, fleet: Fleet) -> list[ManagedFile]:
    """What lets into gated repositories; systemd hands it to the unit, whose user cannot read it.

    Without one it is empty: nothing is left of one that was declared before.
    """
    if is_off(me):
        return []
    name = token_name(me[Weights])
    token = fleet.secrets.text(name, str).get_secret_value() if name else ""
    return [ManagedFile(WEIGHTS_TOKEN, SecretStr(f"{token}\n"), mode="600")]


def unit_files(me: FleetHost) -> list[ManagedFile]:
    """The unit that runs the loader, after the timer that begins anew after a failed run."""
    if is_off(me):
        return []
    settings = me[Weights]
    timer = render(
        "weights/llm-fleet-weights-again.timer.j2",
        loader=WEIGHTS_UNIT,
        delay=seconds(settings.retry_delay_max),
    )
    unit = render(
        "weights/llm-fleet-weights.service.j2",
        program=WEIGHTS_PROGRAM,
        config=WEIGHTS_CONFIG,
        weights_dir=settings.dir,
        user=WEIGHTS_USER,
        timer=WEIGHTS_TIMER,
        token=WEIGHTS_TOKEN,
        environment=proxy_environment(settings.https_proxy, settings.no_proxy),
        restart_delay=seconds(settings.retry_delay),
    )
    return [ManagedFile(WEIGHTS_TIMER_FILE, timer), ManagedFile(WEIGHTS_UNIT_FILE, unit)]


def loader_config(me: FleetHost) -> dict[str, Any]:
    """What `weights_loader.py` reads."""
    settings = me[Weights]
    return {
        "dir": settings.dir,
        "state": WEIGHTS_STATE,
        "prune": settings.prune,
        "limits": settings.limits,
        "weights": [_for_loader(settings, item) for item in declared(me).values()],
    }


def endpoint_of(settings: Weights, item: DeclaredWeights) -> str:
    """Where the repository is asked for."""
    is_modelscope = item.declaration.source == "modelscope"
    return settings.modelscope_endpoint if is_modelscope else settings.endpoint


def _for_loader(settings: Weights, item: DeclaredWeights) -> dict[str, Any]:
    return {
        "name": item.name,
        "source": item.declaration.source,
        "endpoint": endpoint_of(settings, item),
        "repository": item.declaration.repository,
        "revision": item.declaration.revision,
        "token": settings.token is not None and item.declaration.source == "huggingface",
        "files": [file.model_dump() for file in item.lock.files],
    }
