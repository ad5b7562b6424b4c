"""The models of a host that runs: which are ready, and how far the others are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.loading_status import Loaded
from fleet.declare.status import Look, Told
from fleet.kit.loaders import ItemProgress
from fleet.models.paths import LOADER_STATE
from fleet.ollama.models import full_name, is_auto
from fleet.ollama.paths import LOADER_UNIT
from fleet.ollama.settings import Ollama


def looks(me: FleetHost, _: Fleet) -> Iterator[Look]:
    """What the loader has written down, and whether it is at work."""
    names = [full_name(model.name) for model in me[Ollama].models if not is_auto(model.name)]
    loader = Loaded("models", LOADER_UNIT, LOADER_STATE, tuple(names))

    def nothing(found: Mapping[str, ItemProgress]) -> Iterator[Told]:
        if not found and not names:
            yield Told(problem="the loader of models has told of nothing yet: deploy")

    yield loader.look(nothing)
