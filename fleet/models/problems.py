"""What of the settings of models cannot work."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.refusals import hint
from fleet.models.settings import Models
from fleet.ollama.models import full_name
from fleet.ollama.settings import Ollama


def problems(host: FleetHost, _: Fleet) -> Iterator[str]:
    """Models that may be offloaded to the CPU, but are none of the host's."""
    declared = {
        full_name(name)
        for model in host[Ollama].models
        for name in (model.name, model.base or model.name)
    }
    for name in host[Models].cpu_offload:
        if full_name(name) not in declared:
            yield (
                f"{host.name}: models_cpu_offload: {name!r} is none of ollama_models; "
                f"{hint(name, host[Ollama].model_names)}"
            )
