"""Which driver a host gets: packages, modules and repository, as data and as pure functions.

Names and rules: NVIDIA's driver installation guide ("Kernel modules", "Compute-only and
desktop-only installation", "Version locking") and Ubuntu's and Debian's own archives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from fleet.driver.facts import Flavor, Generation, Gpu, GpuHardware
from fleet.driver.on_host.driver_kernel import kernel_flavor
from fleet.driver.settings import Driver, branch_in

# Ollama drops a device whose driver is older, and goes on with the CPU (discover/cuda_compat.go).
OLLAMA_FLOOR = 550
OLLAMA_FLOOR_PASCAL = 570
# Supported until June 2028 (NVIDIA's "Supported drivers and CUDA toolkit versions").
DEFAULT_BRANCH = 580
# What NVIDIA's repositories of newer distributions begin with: debian13 never got 580
# (NVIDIA/cuda-repo-management, issue 38), and the index of ubuntu2604 begins with 595.45.04.
LOWEST_BRANCH = {"debian13": 590, "ubuntu2604": 595}
# The default where there is no 580: 590 has ended, 595 is supported until March 2027.
DEFAULT_BRANCH_THERE = 595
# The last branch for the generations without a GPU System Processor (GSP).
LAST_BRANCH_WITHOUT_GSP = 580
# "R620: Proprietary Kernel Modules Removed" (release notes of the driver guide).
LAST_PROPRIETARY_BRANCH = 610
# From this branch on Ubuntu's packages in NVIDIA's repository have no branch in their names.
UBUNTU_UNSUFFIXED = 590

_NO_GSP = frozenset({Generation.MAXWELL, Generation.PASCAL, Generation.VOLTA})
_BEFORE_VOLTA = _NO_GSP - {Generation.VOLTA}
_OPEN_ONLY = frozenset({Generation.BLACKWELL, Generation.GRACE_HOPPER})
# What each distribution's own archive has. Debian's carries one branch a release.
DEBIAN_BRANCH = {"12": 535, "13": 550}


class Refusal(Exception):  # noqa: N818 - not an error of the deploy: a host that cannot be served
    """Why a host cannot get a working driver, and what to do, in an operator's words."""


@dataclass(frozen=True)
class System:
    """What decides the names: `debian` or `ubuntu`, its release, and `uname -m`."""

    distribution: str
    release: str
    machine: str = "x86_64"

    def __str__(self) -> str:
        """`Debian 13`."""
        return f"{self.distribution.capitalize()} {self.release}"

    @property
    def nvidia_name(self) -> str:
        """The distribution's folder in NVIDIA's repository, such as `ubuntu2404`."""
        return f"{self.distribution}{self.release.replace('.', '')}"

    @property
    def nvidia_arch(self) -> str:
        """The architecture's folder there; Arm servers are `sbsa`."""
        return {"x86_64": "x86_64", "aarch64": "sbsa"}[self.machine]


@dataclass(frozen=True)
class Plan:
    """What is installed.

    `fabric` gets exactly the version of the driver. Of `for_kernel` there is a package for each
    kernel, whose name ends with it: `on_kernel` has them among the packages.
    """

    flavor: Flavor
    branch: int
    pinning: tuple[str, ...]
    packages: tuple[str, ...]
    fabric: tuple[str, ...] = ()
    for_kernel: str | None = None
    dkms: bool = True


def branch_of(settings: Driver, system: System) -> int:
    """The branch that is declared for a host, or its system's default."""
    if settings.source == "distribution" and system.distribution == "debian":
        return DEBIAN_BRANCH[system.release]
    if settings.version:
        return branch_in(settings.version)
    if settings.branch:
        return settings.branch
    if settings.source == "nvidia" and system.nvidia_name in LOWEST_BRANCH:
        return DEFAULT_BRANCH_THERE
    return DEFAULT_BRANCH


def flavor_of(settings: Driver, system: System, hardware: GpuHardware, branch: int) -> Flavor:
    """Open or proprietary modules for these GPUs.

    Raises:
        Refusal: no modules of this branch drive all of them.
    """
    old = _before_turing(hardware)
    new = [gpu for gpu in hardware.gpus if gpu.generation in _OPEN_ONLY]
    ancient = [gpu for gpu in hardware.gpus if gpu.generation is Generation.OLDER]
    if ancient:
        raise Refusal(
            f"{_list(ancient)}: Ollama needs compute capability 5.0, which came with Maxwell; take "
            "the card out, or take the host out of the group gpu"
        )
    if old and new:
        raise Refusal(
            f"{_list(old)} need proprietary modules and {_list(new)} open ones, never both; "
            "put them into two hosts"
        )
    if old and branch > LAST_BRANCH_WITHOUT_GSP:
        raise Refusal(
            f"{_list(old)}: branch {branch} no longer drives this generation; "
            f"{_remedy_for_old(system, hardware)}"
        )
    pascal = [g for g in old if g.generation in _BEFORE_VOLTA]
    if pascal and branch < OLLAMA_FLOOR_PASCAL:
        raise Refusal(
            f"{_list(pascal)}: Ollama needs driver {OLLAMA_FLOOR_PASCAL} or newer for this "
            f"generation, and declared is {branch}; {_remedy_for_old(system, hardware)}"
        )
    chosen: Flavor = "proprietary" if old else "open"
    if settings.modules == "auto":
        return chosen
    if settings.modules == "open" and old:
        raise Refusal(
            f"driver_modules = 'open': {_list(old)} have no GPU System Processor, which open "
            "modules need; set driver_modules = 'auto'"
        )
    if settings.modules == "proprietary" and new:
        raise Refusal(
            f"driver_modules = 'proprietary': {_list(new)} work with open modules only; set "
            "driver_modules = 'auto'"
        )
    return settings.modules


def make_plan(settings: Driver, system: System, hardware: GpuHardware) -> Plan:
    """What is installed on a host with this hardware.

    Raises:
        Refusal: it cannot work.
    """
    if hardware.nvlink5:
        raise Refusal(
            "an NVLink 5 fabric (HGX B200 and later) needs nvlsm besides the fabric manager, which "
            "this project does not set up; install the driver by NVIDIA's guide and set "
            "driver_source = 'none'"
        )
    native = settings.source == "distribution"
    branch = branch_of(settings, system)
    if branch < OLLAMA_FLOOR:
        raise Refusal(
            f"Debian {system.release}'s own driver is {branch}, and Ollama needs "
            f"{OLLAMA_FLOOR} or newer; set driver_source = 'nvidia'"
        )
    lowest = LOWEST_BRANCH.get(system.nvidia_name, 0)
    if not native and branch < lowest:
        raise Refusal(
            f"NVIDIA's repository for {system} begins with branch {lowest}, and declared is "
            f"{branch}; "
            + (
                _remedy_for_old(system, hardware)
                if _before_turing(hardware)
                else "leave driver_branch and driver_version unset"
            )
        )
    flavor = flavor_of(settings, system, hardware, branch)
    if flavor == "proprietary" and branch > LAST_PROPRIETARY_BRANCH:
        raise Refusal(
            f"driver_modules = 'proprietary': branch {branch} has open modules only; leave "
            "driver_branch and driver_version unset"
        )
    if hardware.secure_boot and not settings.mok_enrolled and not _is_signed(settings, system):
        raise Refusal(
            "Secure Boot is on, and the kernel would refuse a module that was built on this host: "
            + (
                "set driver_source = 'distribution' for Ubuntu's signed modules, "
                if system.distribution == "ubuntu"
                else ""
            )
            + "enrol the host's DKMS key at its console (mokutil --import /var/lib/dkms/mok.pub, "
            "reboot, confirm) and set driver_mok_enrolled = True, or turn Secure Boot off"
        )
    if native:
        plan = _native(system, flavor, branch, hardware)
    elif system.distribution == "debian":
        plan = _nvidia_debian(settings, flavor, branch)
    else:
        plan = _nvidia_ubuntu(settings, flavor, branch)
    if not hardware.nvswitches:
        return replace(plan, fabric=())
    if native and system.distribution == "debian":
        raise Refusal(
            "NVSwitches need NVIDIA's fabric manager, which Debian does not have; set "
            "driver_source = 'nvidia'"
        )
    return plan


def floor_of(hardware: GpuHardware) -> int:
    """The oldest branch with which Ollama uses all of these GPUs."""
    early = any(gpu.generation in _BEFORE_VOLTA for gpu in hardware.gpus)
    return OLLAMA_FLOOR_PASCAL if early else OLLAMA_FLOOR


def _is_signed(settings: Driver, system: System) -> bool:
    return settings.source == "distribution" and system.distribution == "ubuntu"


def _nvidia_debian(settings: Driver, flavor: Flavor, branch: int) -> Plan:
    module = "nvidia-kernel-open-dkms" if flavor == "open" else "nvidia-kernel-dkms"
    return Plan(
        flavor,
        branch,
        (_pinning(settings, branch),),
        ("nvidia-driver-cuda", module, "nvidia-persistenced"),
        ("nvidia-fabricmanager", "libnvidia-nscq"),
    )


def _nvidia_ubuntu(settings: Driver, flavor: Flavor, branch: int) -> Plan:
    suffix = "-open" if flavor == "open" else ""
    if branch >= UBUNTU_UNSUFFIXED:
        packages = (
            "libnvidia-compute",
            "nvidia-utils",
            f"nvidia-dkms{suffix}",
            "nvidia-persistenced",
        )
    else:
        packages = (
            f"libnvidia-compute-{branch}",
            f"nvidia-utils-{branch}",
            f"nvidia-dkms-{branch}{suffix}",
            # nvidia-persistenced is in it.
            f"nvidia-compute-utils-{branch}",
        )
    fabric = ("nvidia-fabricmanager", "libnvidia-nscq")
    return Plan(flavor, branch, (_pinning(settings, branch),), packages, fabric)


def _native(system: System, flavor: Flavor, branch: int, hardware: GpuHardware) -> Plan:
    if system.distribution == "debian":
        module = "nvidia-open-kernel-dkms" if flavor == "open" else "nvidia-kernel-dkms"
        packages: tuple[str, ...] = (module, "nvidia-smi", "libcuda1", "nvidia-persistenced")
        return Plan(flavor, branch, (), packages)
    # Ubuntu's server branch: its names hold the branch, so an upgrade stays in it.
    server = f"{branch}-server"
    suffix = "-open" if flavor == "open" else ""
    user_space = (f"nvidia-utils-{server}", f"nvidia-compute-utils-{server}")
    fabric = (f"nvidia-fabricmanager-{branch}", f"libnvidia-nscq-{branch}")
    if hardware.secure_boot:
        packages = (f"nvidia-headless-no-dkms-{server}{suffix}", *user_space)
        signed = f"linux-modules-nvidia-{server}{suffix}"
        return Plan(flavor, branch, (), packages, fabric, signed, dkms=False)
    packages = (f"nvidia-dkms-{server}{suffix}", f"libnvidia-compute-{server}", *user_space)
    return Plan(flavor, branch, (), packages, fabric)


def _pinning(settings: Driver, branch: int) -> str:
    """NVIDIA's package that keeps apt to a branch, or to one version."""
    return f"nvidia-driver-pinning-{settings.version or branch}"


def _before_turing(hardware: GpuHardware) -> list[Gpu]:
    return [gpu for gpu in hardware.gpus if gpu.generation in _NO_GSP]


def _remedy_for_old(system: System, hardware: GpuHardware) -> str:
    """Where the GPUs before Turing get their last branch on this system."""
    if system.nvidia_name not in LOWEST_BRANCH:
        return f"set driver_source = 'nvidia' and driver_branch = {LAST_BRANCH_WITHOUT_GSP}"
    if system.distribution == "ubuntu" or floor_of(hardware) < OLLAMA_FLOOR_PASCAL:
        return "leave driver_branch unset and set driver_source = 'distribution'"
    return f"{system} has no driver for them: install Debian 12 or Ubuntu on this host"


def _list(gpus: Iterable[object]) -> str:
    return ", ".join(str(gpu) for gpu in gpus)


def on_kernel(plan: Plan, kernel: str, installed: Iterable[str]) -> Plan:
    """`plan` with the names that a host's running kernel and `installed` packages decide.

    Signed modules are a package for each kernel. What brings those of later kernels is named as
    what brings the kernels: `generic-hwe-24.04` of an installed `linux-image-generic-hwe-24.04`.
    """
    if plan.for_kernel is None:
        return plan
    series = re.compile(rf"linux-image-({kernel_flavor(kernel)}(-(hwe|lts)-[0-9.]+)?(-edge)?)")
    found = [match[1] for match in map(series.fullmatch, installed) if match]
    # The longest: an HWE kernel's host may have the general one's package too.
    suffixes = [kernel, *sorted(found, key=len)[-1:]]
    modules = [f"{plan.for_kernel}-{suffix}" for suffix in suffixes]
    return replace(plan, packages=(*modules, *plan.packages), for_kernel=None)
