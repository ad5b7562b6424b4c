"""NVIDIA's container toolkit on a host."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pyinfra.api import FactBase, StringCommand
from typing_extensions import override

from fleet.driver.facts import DrivenGpu

ALL_GPUS = "nvidia.com/gpu=all"


class Cdi(NamedTuple):
    """CDI's names of the NVIDIA devices, and whether the kernel has a driver for them."""

    devices: tuple[str, ...] = ()
    has_driver: bool = False

    def lacks(self, gpus: Iterable[DrivenGpu]) -> list[str]:
        """What is not described of `gpus`: a description may be of other ones, or made by hand.

        A GPU that is divided (MIG) has names of its parts only, such as `nvidia.com/gpu=0:1`.
        """
        parted = {name.partition(":")[0] for name in self.devices if ":" in name}
        wanted = [
            f"nvidia.com/gpu={gpu.uuid}"
            for gpu in gpus
            if f"nvidia.com/gpu={gpu.index}" not in parted
        ]
        return [name for name in (ALL_GPUS, *wanted) if name not in self.devices]


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
