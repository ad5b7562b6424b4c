"""The GPUs: as many as are declared or were once seen, or the host fails."""

from __future__ import annotations

from pyinfra import host, logger
from pyinfra.api import deploy

from fleet.declare.fleet import FleetHost
from fleet.driver.settings import Driver
from fleet.gpu.asked import find
from fleet.gpu.operations import hold_to_gpus
from fleet.gpu.presence import lost_by_driver, missing_on_bus, warnings
from fleet.gpu.settings import Gpus
from fleet.kit.refuse import refuse
from fleet.ollama.servers import wants_gpus
from fleet.vllm import servers as vllm


@deploy("GPUs")
def gpus(me: FleetHost) -> None:
    """Refuse a host that lacks a GPU before anything is changed, as far as it can tell."""
    found = find(host.get_fact)
    problem = missing_on_bus(me[Gpus], found) or lost_by_driver(me[Gpus], found)
    if problem:
        refuse(name="Refuse a host that lacks GPUs", message=problem)
        return
    for text in warnings(me[Gpus], found):
        host.log(f"WARN: {text}", log_func=logger.warning)


@deploy("GPUs")
def gpus_driven(me: FleetHost) -> None:
    """The same once the driver tells of them; and note them, so that none goes unnoticed."""
    hold_to_gpus(
        name="Hold the host to its GPUs",
        declared=me[Gpus],
        driven=me[Driver].source != "none" or wants_gpus(me) or vllm.wants_gpus(me),
    )
