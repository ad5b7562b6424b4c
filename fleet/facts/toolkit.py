"""NVIDIA's container toolkit on a host."""

from __future__ import annotations

from typing import NamedTuple

from pyinfra.api import FactBase, StringCommand
from typing_extensions import override


class Cdi(NamedTuple):
    """CDI's names of the NVIDIA devices, and whether the kernel has a driver for them."""

    devices: tuple[str, ...] = ()
    has_driver: bool = False


class CdiDevices(FactBase[Cdi]):
    """What `nvidia-ctk cdi list` names; nothing where it is not installed."""

    default = Cdi

    @override
    def command(self) -> StringCommand:
        return StringCommand(
            "if [ -e /sys/module/nvidia/version ]; then echo driver; fi;"
            " nvidia-ctk cdi list 2>/dev/null || true"
        )

    @override
    def process(self, output: list[str]) -> Cdi:
        devices = tuple(line for line in output if line.startswith("nvidia.com/"))
        return Cdi(devices, "driver" in output)
