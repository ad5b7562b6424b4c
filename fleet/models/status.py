"""The models of a host that runs: which are ready, and how far the others are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pyinfra.api import QuoteString, StringCommand

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.status import Look, Told
from fleet.models.paths import LOADER_STATE
from fleet.models.progress import ModelProgress, read_state, show_state
from fleet.ollama.models import full_name, is_auto
from fleet.ollama.paths import LOADER_UNIT
from fleet.ollama.settings import Ollama

_READY, _FAILED = "ready", "failed"


def looks(me: FleetHost, _: Fleet) -> Iterator[Look]:
    """What the loader has written down, and whether it is at work."""
    unit = StringCommand("systemctl show --value -p ActiveState --", QuoteString(LOADER_UNIT))
    yield Look((show_state(LOADER_STATE), unit), lambda found: _tell(me, *found))


def _tell(me: FleetHost, state: list[str], unit: list[str]) -> Iterator[Told]:
    models = read_state("\n".join(state))
    names = [model.name for model in me[Ollama].models if not is_auto(model.name)]
    missing = [name for name in map(full_name, names) if name not in models]
    ready = [name for name, item in models.items() if item.phase == _READY]
    values: dict[str, Any] = {
        "loader": unit[0] if unit else None,
        "models": {
            **{name: _values(item) for name, item in models.items()},
            **{name: {"phase": None} for name in missing},
        },
    }
    all_of_them = len(models) + len(missing)
    is_ready = len(ready) == all_of_them > 0
    yield Told(f"models {len(ready)}/{all_of_them}{' ready' if is_ready else ''}", values)
    yield from _not_ready(models)
    for name in missing:
        yield Told(problem=f"{name} is declared, and the loader does not know of it: deploy")
    if not all_of_them:
        yield Told(problem="the loader of models has told of nothing yet: deploy")


def _not_ready(models: Mapping[str, ModelProgress]) -> Iterator[Told]:
    for name, item in models.items():
        if item.phase == _READY:
            continue
        remedy = (
            f"; `journalctl -u {LOADER_UNIT}` there has the reason, and a deploy tries again"
            if item.phase == _FAILED
            else ""
        )
        yield Told(f"{name} {item.phase}", problem=f"{name} is not ready: {item}{remedy}")


def _values(item: ModelProgress) -> dict[str, Any]:
    left = item.total - item.completed
    return {
        "phase": item.phase,
        "completed": item.completed,
        "total": item.total,
        "rate": item.rate,
        "left": round(left / item.rate) if item.rate and left > 0 else None,
        "error": item.error,
    }
