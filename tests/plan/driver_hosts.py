"""Hosts with GPUs, and what is planned for their driver."""

from __future__ import annotations

import itertools
import shlex
from typing import Any

from pyinfra.facts.deb import DebPackages

from fleet import pins
from fleet.driver.facts import (
    DriverState,
    DriverStateFact,
    Gpu,
    GpuHardware,
    GpuHardwareFact,
    Module,
)
from fleet.kit.facts.apt import KeyringFingerprints
from fleet.kit.facts.files import FileStates
from fleet.kit.facts.units import UnitState
from tests.plan.simulation import RUNNING, Answers, Plan, bare, plan

H100 = GpuHardware((Gpu("0000:17:00.0", 0x2330),))
T4 = GpuHardware((Gpu("0000:17:00.0", 0x1EB8),))
PASCAL = GpuHardware((Gpu("0000:17:00.0", 0x15F8),))
HGX = GpuHardware(tuple(Gpu(f"0000:{i:02x}:00.0", 0x2330) for i in range(8)), nvswitches=4)
MIXED = GpuHardware((*PASCAL.gpus, Gpu("0000:65:00.0", 0x1EB8)))
BLACKWELL = GpuHardware((Gpu("0000:17:00.0", 0x2B85),))
KERNEL = "6.12.94+deb13-amd64"
REQUIRE = "Driver | Require what Ollama needs"
TRUST = "Driver | Trust NVIDIA's repository"
CURRENT = DriverState(
    kernel=KERNEL,
    headers=True,
    loaded=Module("595.91.07", "open"),
    installed=Module("595.91.07", "open"),
    held=frozenset({"nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-persistenced"}),
)


def planned(answers: Answers | None = None, hardware: GpuHardware = H100, **settings: Any) -> Plan:
    base = (answers or bare()) | {GpuHardwareFact: lambda: hardware}
    return plan({"gpu1": ("gpu", settings)}, {"gpu1": base})


def install_words(done: Plan) -> list[str]:
    [line] = [
        line for line in done.lines("gpu1") if "driver_install.py" in line and "systemd-run" in line
    ]
    return shlex.split(line.split("driver_install.py ")[1].removesuffix("; }"))


def options(done: Plan, name: str) -> list[str]:
    words = install_words(done)
    return [value for option, value in itertools.pairwise(words) if option == name]


def driver_names(done: Plan) -> list[str]:
    return [name for name in done.names("gpu1") if name.startswith("Driver")]


def converged(state: DriverState = CURRENT, **packages: str) -> Answers:
    """A Debian 13 host with an H100 whose driver is as declared."""
    first = planned()
    files = {path: state for path, (_, state) in first.files("gpu1").items()}
    names = [*options(first, "--package"), *options(first, "--pinning"), "nftables", "curl"]
    names += ["ca-certificates", "gpg", "python3", "zstd"]
    installed = {name: ["595.91.07-1"] for name in names} | {k: [v] for k, v in packages.items()}
    return bare() | {
        FileStates: lambda paths: {path: files[path] for path in paths if path in files},
        DebPackages: lambda: installed,
        DriverStateFact: lambda nouveau_conf: state,
        KeyringFingerprints: lambda path: (pins.NVIDIA_FINGERPRINTS["debian13"],),
        UnitState: lambda unit, files: RUNNING,
    }
