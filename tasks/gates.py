"""The gates: no model that cannot fit is fetched, and none runs silently on the CPU."""

from __future__ import annotations

from pyinfra.api import deploy

from fleet.declare.fleet import Fleet, FleetHost
from fleet.gates.operations import judge_memory, judge_placement
from fleet.kit.packages import install_packages
from fleet.serving.operations import roll_too_early


@deploy("Memory")
def memory(me: FleetHost) -> None:
    """Refuse models that do not fit, before anything is changed; as far as the host can tell."""
    judge_memory(name="Judge whether the models fit", me=me, final=False)


@deploy("Memory")
def memory_with_driver(me: FleetHost) -> None:
    """The same, once the driver tells the GPUs' memory, and before Ollama is touched."""
    install_packages(name="Install tools", packages=["ca-certificates", "curl"])
    judge_memory(name="Judge whether the models fit the GPUs", me=me, final=True)


@deploy("Placement")
def gpus_found(me: FleetHost, fleet: Fleet) -> None:
    """Have Ollama look for its GPUs again where they came later than it did."""
    roll_too_early(name="Restart what started before its GPUs", me=me, fleet=fleet)


@deploy("Placement")
def placement(me: FleetHost) -> None:
    """Fail a host whose models are silently on the CPU."""
    judge_placement(name="Judge where the models are", me=me)
