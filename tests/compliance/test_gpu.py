"""A host has the GPUs that it is declared to have, or that a deploy has seen on it."""

from __future__ import annotations

from fleet.driver.settings import Driver
from fleet.gpu.asked import find
from fleet.gpu.presence import missing_in_driver, missing_on_bus, warnings
from fleet.gpu.settings import Gpus
from fleet.ollama.servers import wants_gpus
from fleet.vllm import servers as vllm

from .connection import Target
from .outcomes import Say


def test_none_is_missing(driven_host: Target, measured: Say, warns: Say) -> None:
    """Every GPU that is declared, or was once seen, is on the bus and in the driver."""
    declared = driven_host.declared
    found = find(driven_host.fact)
    measured(f"{len(found.hardware.gpus)} on the bus")
    for text in warnings(declared[Gpus], found):
        warns(text)
    problem = missing_on_bus(declared[Gpus], found)
    # Nobody has to bring a driver where no server uses a GPU.
    needs = wants_gpus(declared) or vllm.wants_gpus(declared)
    if problem is None and (declared[Driver].source != "none" or needs):
        problem = missing_in_driver(declared[Gpus], found)
    assert problem is None, problem
