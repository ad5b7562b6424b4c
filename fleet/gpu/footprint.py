"""What is kept of a host's GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.fleet import FleetHost
from fleet.gpu.paths import GPU_NOTE
from fleet.kit.footprint import Trace, files


def footprint(_: FleetHost) -> Iterator[Trace]:
    """The note of which there are."""
    yield Trace(
        f"`{GPU_NOTE}`",
        "on hosts with an NVIDIA GPU: which there are, so that a lost one is a failure",
        files(GPU_NOTE),
    )
