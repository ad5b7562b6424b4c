"""What may be loaded for a check without pushing out what is to stay in memory."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fleet.gates.fit import Budget
from fleet.gates.memory import HEADROOM
from fleet.models.on_host.ollama_protocol import is_pinned

# With more models a GPU than these, Ollama unloads one, pinned or not.
_MODELS_PER_GPU = 3

Entry = dict[str, Any]  # of /api/ps


def may_load(budget: Budget, need: int | None, running: Collection[Entry], beside: int) -> bool:
    """Whether a model surely leaves the pinned ones among the `running` models of `budget` alone.

    `need` are its bytes in memory, None where they are not known, and `beside` those that other
    instances have loaded into the same memory.
    """
    if not any(map(is_pinned, running)):
        return True
    if need is None:
        return False
    most = budget.instance.settings.max_loaded_models or _MODELS_PER_GPU * max(len(budget.gpus), 1)
    free = budget.capacity - beside - sum(int(entry["size"]) for entry in running)
    return len(running) < most and need <= HEADROOM * free
