"""What a host has of GPUs, asked of it.

`ask` is `host.get_fact` in a deploy and `Target.fact` in a compliance check: both decide alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fleet.driver.facts import DrivenGpus, GpuHardwareFact
from fleet.driver.paths import DEVICES_UNIT_FILE, DRIVER_NOUVEAU
from fleet.gpu.facts import GpuNoteFact
from fleet.gpu.presence import Found

Ask = Callable[..., Any]

# What only a host with GPUs gets: of hosts that were deployed to before there was a note.
TRACES = [DRIVER_NOUVEAU, DEVICES_UNIT_FILE]


def find(ask: Ask) -> Found:
    """The host's bus, what its driver tells of, and what was noted of it."""
    hardware = ask(GpuHardwareFact)
    driven = ask(DrivenGpus) if hardware.gpus else ()
    return Found(hardware, driven, ask(GpuNoteFact, traces=TRACES))
