"""What the GPU driver puts on a host."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.fleet import FleetHost
from fleet.driver.files import DEVICES_PROGRAM
from fleet.driver.paths import (
    DEVICES_UNIT,
    DRIVER_LOGS,
    DRIVER_NOUVEAU,
    DRIVER_PREFERENCES,
    DRIVER_UNATTENDED,
    FABRIC_DROPIN,
    PERSISTENCED_UNIT,
)
from fleet.kit import paths
from fleet.kit.footprint import Part, Trace, dropins, files, holds, packages, repository, units
from fleet.kit.host_programs import program_files

_PACKAGES = (
    "nvidia-*", "libnvidia-*", "libcuda*", "cuda-drivers*", "linux-modules-nvidia-*", "nvlsm",
)  # fmt: skip


def footprint(_: FleetHost) -> Iterator[Trace]:
    """What keeps the driver as it is; the driver itself stays."""
    yield Trace(
        "`/etc/apt`: NVIDIA's repository with its key, pins and holds, where declared; "
        f"`{DRIVER_NOUVEAU}`",
        "the driver stays of the declared branch, and nouveau away; "
        f"`{DEVICES_UNIT}` and `{PERSISTENCED_UNIT}`",
        (
            *units(DEVICES_UNIT, PERSISTENCED_UNIT),
            *holds(DRIVER_UNATTENDED, *_PACKAGES),
            *dropins(FABRIC_DROPIN),
            *repository("nvidia"),
            *files(DRIVER_PREFERENCES, DRIVER_UNATTENDED, DEVICES_PROGRAM),
            *files(f"{paths.LIB}/when-apt-is-free"),
            *files(*(file.path for file in program_files("driver", "driver_install"))),
        ),
    )
    yield Trace(
        "the NVIDIA driver, on hosts with an NVIDIA GPU",
        "packages, kernel modules by DKMS, and a **reboot** when the loaded driver is not the "
        'installed one, one host at a time (`driver_reboot`); `driver_source = "none"` leaves the '
        "driver to you",
        (
            *packages("nvidia-smi", "nvidia-driver", "nvidia-open", "cuda-drivers"),
            Part("file", DRIVER_NOUVEAU),
        ),
        "stays",
        "other programs may use the GPUs, and without it nouveau would take them at a boot; "
        f"`apt-get purge 'nvidia-*'`, rm {DRIVER_NOUVEAU} and update-initramfs -u take it away",
    )
    yield Trace(
        f"`{DRIVER_LOGS}`",
        "what building a module said",
        (Part("tree", DRIVER_LOGS),),
        "data",
        "logs may be the only record of what was done",
    )
