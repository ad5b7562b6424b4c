"""NVIDIA hardware on the PCI bus, and the state of its driver, read from sysfs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from pyinfra.api import FactBase, StringCommand
from typing_extensions import override

from fleet.driver.settings import branch_in
from fleet.kit.on_host.outside import counted

Flavor = Literal["open", "proprietary"]


class Generation(Enum):
    """Architectures of NVIDIA's GPUs, in the order of their appearance."""

    OLDER = "older than Maxwell"
    MAXWELL = "Maxwell"
    PASCAL = "Pascal"
    VOLTA = "Volta"
    TURING = "Turing"
    AMPERE = "Ampere"
    ADA = "Ada"
    HOPPER = "Hopper"
    GRACE_HOPPER = "Grace Hopper"
    BLACKWELL = "Blackwell"
    UNKNOWN = "unknown"


# First and last device id of each range. Source: the PCI ID database (pci.ids, vendor 10de), by the
# chip's name: GM* Maxwell, GP* Pascal, GV* Volta, TU* Turing, GA* Ampere, AD* Ada, GH* Hopper,
# GB* Blackwell; the Grace Hopper and Blackwell ids also in NVIDIA's list of products that its open
# modules support (open-gpu-kernel-modules, README.md, "Compatible GPUs"). A range ends where the
# next chip's begins, so that an id which was given out later falls into its neighbours' range.
_RANGES: tuple[tuple[int, int, Generation], ...] = (
    (0x0001, 0x133F, Generation.OLDER),  # Kepler and before end with GK* 12ba
    (0x1340, 0x15EF, Generation.MAXWELL),  # GM108, GM107, GM204, GM206
    (0x15F0, 0x15FF, Generation.PASCAL),  # GP100
    (0x1600, 0x171F, Generation.MAXWELL),  # GM204 mobile
    (0x1720, 0x173F, Generation.PASCAL),  # GP100
    (0x1740, 0x1AFF, Generation.MAXWELL),  # GM108, GM200
    (0x1B00, 0x1D7F, Generation.PASCAL),  # GP102 to GP108
    (0x1D80, 0x1DFF, Generation.VOLTA),  # GV100
    (0x1E00, 0x1FFF, Generation.TURING),  # TU102 to TU107
    (0x2080, 0x20FF, Generation.AMPERE),  # GA100
    (0x2180, 0x21FF, Generation.TURING),  # TU116
    (0x2200, 0x22B9, Generation.AMPERE),  # GA102
    (0x2300, 0x233F, Generation.HOPPER),  # GH100
    (0x2340, 0x237F, Generation.GRACE_HOPPER),  # GH200: 2342, 2345, 2348
    (0x2400, 0x25FF, Generation.AMPERE),  # GA103 to GA107
    (0x2600, 0x28FF, Generation.ADA),  # AD102 to AD107
    (0x2900, 0x29FF, Generation.BLACKWELL),  # GB100: B200 2901, GB200 2941
    (0x2B00, 0x2FFF, Generation.BLACKWELL),  # GB202 to GB207, GB20B
    (0x3180, 0x31FF, Generation.BLACKWELL),  # GB110: B300 3182
)
# pci.ids: 1ac2 HGX-2, 1af1 "A100 NVSwitch", 22a3 "H100 NVSwitch". The switches of NVLink 5 (HGX
# B200) are no PCI devices of the host: they show as ConnectX functions, see `nvlink5`.
NVSWITCHES = (0x1AC2, 0x1AF1, 0x22A3)


def generation_of(device: int) -> Generation:
    """The architecture of the GPU with this PCI device id."""
    for first, last, generation in _RANGES:
        if first <= device <= last:
            return generation
    return Generation.UNKNOWN


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU: its PCI address, device id and architecture."""

    address: str
    device: int

    @property
    def generation(self) -> Generation:
        """Its architecture."""
        return generation_of(self.device)

    def __str__(self) -> str:
        """`0000:17:00.0 [10de:2330] (Hopper)`."""
        return f"{self.address} [10de:{self.device:04x}] ({self.generation.value})"


@dataclass(frozen=True)
class GpuHardware:
    """What no deploy can change: GPUs and NVSwitches on the bus, and the firmware's Secure Boot."""

    gpus: tuple[Gpu, ...] = ()
    nvswitches: int = 0
    nvlink5: bool = False
    secure_boot: bool = False


_FUNCTION = re.compile(r"pci (\S+) 0x([0-9a-f]{1,8}) 0x([0-9a-f]{1,8})")


class GpuHardwareFact(FactBase[GpuHardware]):
    """The NVIDIA hardware of a host."""

    default = GpuHardware

    @override
    def command(self) -> StringCommand:
        # NVLink 5 is recognised as NVIDIA's own containers do it: by the switch's management
        # function (SW_MNG) among the InfiniBand devices. The fifth byte of the EFI variable is its
        # value; without EFI there is no Secure Boot.
        return StringCommand(
            "for d in /sys/bus/pci/devices/*; do"
            ' [ "$(cat "$d/vendor" 2>/dev/null)" = 0x10de ] || continue;'
            ' echo "pci ${d##*/} $(cat "$d/device") $(cat "$d/class")"; done;'
            " grep -qs SW_MNG /sys/class/infiniband/*/device/vpd && echo nvlink5;"
            ' echo "secure-boot $(od -An -tu1 -j4 -N1'
            " /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
            ' 2>/dev/null | tr -d " ")"'
        )

    @override
    def process(self, output: list[str]) -> GpuHardware:
        gpus, switches, nvlink5, secure_boot = [], 0, False, False
        for line in output:
            # A device that leaves the bus meanwhile has a name and no more.
            if function := _FUNCTION.fullmatch(line):
                device, device_class = int(function[2], 16), int(function[3], 16)
                # 0300 VGA and 0302 3D controllers; sound and USB functions of a card are others.
                if device_class >> 16 == 0x03:
                    gpus.append(Gpu(function[1], device))
                switches += device in NVSWITCHES
            nvlink5 |= line == "nvlink5"
            secure_boot |= line.split() == ["secure-boot", "1"]
        return GpuHardware(tuple(gpus), switches, nvlink5, secure_boot)


@dataclass(frozen=True)
class DrivenGpu:
    """A GPU as its driver knows it: index in the order of the bus, UUID, name and PCI address."""

    index: int
    uuid: str
    name: str
    address: str = ""

    def __str__(self) -> str:
        """`0: NVIDIA H100 80GB HBM3 (GPU-...)`."""
        return f"{self.index}: {self.name} ({self.uuid})"


class DrivenGpus(FactBase[tuple[DrivenGpu, ...]]):
    """The GPUs that nvidia-smi tells of; none while no driver is loaded."""

    default = tuple

    @override
    def command(self) -> StringCommand:
        return StringCommand(
            "nvidia-smi --query-gpu=index,uuid,pci.bus_id,name --format=csv,noheader"
            " 2>/dev/null || true"
        )

    @override
    def process(self, output: list[str]) -> tuple[DrivenGpu, ...]:
        # Without a driver it says so on standard output.
        found = [line.split(", ", 3) for line in output]
        return tuple(
            # nvidia-smi writes the domain with eight digits and in capitals, sysfs with four.
            DrivenGpu(index, parts[1], parts[3], parts[2].lower()[-12:])
            for parts in found
            if len(parts) == 4
            and (index := counted(parts[0])) is not None
            # Of a card that does not answer it writes `[Unknown Error]`.
            and parts[1].startswith("GPU-")
        )


@dataclass(frozen=True)
class Module:
    """The driver's kernel module: NVIDIA's version, such as `580.178.04`, and its flavor."""

    version: str
    flavor: Flavor

    @property
    def branch(self) -> int:
        """The driver branch: 580 of `580.178.04`."""
        return branch_in(self.version)

    def __str__(self) -> str:
        """The version."""
        return self.version


@dataclass(frozen=True)
class DriverState:
    """The driver as it is `loaded`, and as it is `installed` on disk for the running kernel.

    `stale_initramfs`: it is older than the file that keeps nouveau away. `held` are all packages
    that apt holds.
    """

    kernel: str = ""
    headers: bool = False
    loaded: Module | None = None
    installed: Module | None = None
    nouveau: bool = False
    stale_initramfs: bool = False
    held: frozenset[str] = frozenset()

    @property
    def needs_reboot(self) -> bool:
        """Whether only a boot can bring the installed module to the GPUs."""
        if self.installed is None:
            return False
        return self.nouveau or self.loaded not in (None, self.installed)


class DriverStateFact(FactBase[DriverState]):
    """The driver's state; `nouveau_conf` is the file whose change an initramfs must follow."""

    default = DriverState

    @override
    def command(self, nouveau_conf: str) -> StringCommand:
        # Debian installs the module as nvidia-current(-open).ko and gives it its name by an
        # "install" line of modprobe, which modinfo does not follow.
        return StringCommand(
            'k=$(uname -r); echo "kernel $k";'
            ' [ -e "/lib/modules/$k/build/Makefile" ] && echo headers;'
            ' echo "loaded $(cat /sys/module/nvidia/version 2>/dev/null)";'
            " for m in nvidia nvidia-current-open nvidia-current; do"
            ' v=$(modinfo -k "$k" -F version "$m" 2>/dev/null) && [ -n "$v" ]'
            ' && { echo "installed $v"; modinfo -k "$k" -F license "$m" | sed "s/^/license /";'
            " break; }; done;"
            " [ -d /sys/module/nouveau ] && echo nouveau;"
            " grep -qs 'Open Kernel Module' /proc/driver/nvidia/version && echo open;"
            f" i=/boot/initrd.img-$k; [ -e $i ] && [ {nouveau_conf} -nt $i ] && echo stale;"
            " apt-mark showhold 2>/dev/null | sed 's/^/held /'; true"
        )

    @override
    def process(self, output: list[str]) -> DriverState:
        values: dict[str, list[str]] = {}
        for line in output:
            name, _, value = line.partition(" ")
            values.setdefault(name, []).append(value)

        def first(name: str) -> str:
            return values.get(name, [""])[0]

        def module(version: str, *, is_open: bool) -> Module | None:
            return Module(version, "open" if is_open else "proprietary") if version else None

        return DriverState(
            kernel=first("kernel"),
            headers="headers" in values,
            loaded=module(first("loaded"), is_open="open" in values),
            # "Dual MIT/GPL" is the license of the open ones, "NVIDIA" that of the others.
            installed=module(first("installed"), is_open="GPL" in first("license")),
            nouveau="nouveau" in values,
            stale_initramfs="stale" in values,
            held=frozenset(name.split(":")[0] for name in values.get("held", [])),
        )


class BootId(FactBase[str | None]):
    """The random id of the running boot; None when it cannot be read."""

    @override
    @staticmethod
    def default() -> None:
        return None

    @override
    def command(self) -> StringCommand:
        return StringCommand("cat /proc/sys/kernel/random/boot_id 2>/dev/null || true")

    @override
    def process(self, output: list[str]) -> str | None:
        return output[0].strip() if output else None
