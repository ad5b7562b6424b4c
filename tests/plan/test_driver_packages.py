"""Which packages the driver is installed from, for every distribution and GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest
from pyinfra.facts.deb import DebPackages
from pyinfra.facts.files import File

from fleet import pins
from fleet.driver.facts import DriverState, DriverStateFact, GpuHardware
from fleet.kit.facts.apt import ExistingFiles, KeyringFingerprints
from fleet.kit.facts.units import UnitState
from fleet.platform.preflight import SUPPORTED
from tests.plan.driver_hosts import (
    BLACKWELL,
    H100,
    HGX,
    MIXED,
    PASCAL,
    REQUIRE,
    T4,
    TRUST,
    converged,
    driver_names,
    install_words,
    options,
    planned,
)
from tests.plan.simulation import RUNNING, bare

RELEASES = [(name, release) for name, releases in SUPPORTED.items() for release in releases]
DEBIAN = ("nvidia-driver-cuda", "{}", "nvidia-persistenced")
UBUNTU = ("libnvidia-compute-580", "nvidia-utils-580", "{}", "nvidia-compute-utils-580")
UNSUFFIXED = ("libnvidia-compute", "nvidia-utils", "{}", "nvidia-persistenced")
NATIVE_DEBIAN = ("{}", "nvidia-smi", "libcuda1", "nvidia-persistenced")
NATIVE_UBUNTU = (
    "{}",
    "libnvidia-compute-580-server",
    "nvidia-utils-580-server",
    "nvidia-compute-utils-580-server",
)
# NVIDIA's repositories of these have no 580.
BRANCHES = {("debian", "13"): 595, ("ubuntu", "26.04"): 595}


class TestPackages:
    # Source, platform, hardware, the set, and the package of the modules in it.
    CASES: ClassVar[list[tuple[str, tuple[str, str], GpuHardware, tuple[str, ...], str]]] = [
        *(
            ("nvidia", ("debian", release), hardware, DEBIAN, "nvidia-kernel-open-dkms")
            for release in ("12", "13")
            for hardware in (H100, HGX, T4, BLACKWELL)
        ),
        ("nvidia", ("debian", "12"), PASCAL, DEBIAN, "nvidia-kernel-dkms"),
        ("nvidia", ("debian", "12"), MIXED, DEBIAN, "nvidia-kernel-dkms"),
        ("nvidia", ("ubuntu", "26.04"), H100, UNSUFFIXED, "nvidia-dkms-open"),
        *(
            ("nvidia", ("ubuntu", release), hardware, UBUNTU, module)
            for release in ("22.04", "24.04")
            for hardware, module in (
                (H100, "nvidia-dkms-580-open"),
                (HGX, "nvidia-dkms-580-open"),
                (T4, "nvidia-dkms-580-open"),
                (PASCAL, "nvidia-dkms-580"),
                (MIXED, "nvidia-dkms-580"),
            )
        ),
        ("distribution", ("debian", "13"), T4, NATIVE_DEBIAN, "nvidia-open-kernel-dkms"),
        *(
            ("distribution", ("ubuntu", release), hardware, NATIVE_UBUNTU, module)
            for release in ("22.04", "24.04", "26.04")
            for hardware, module in (
                (H100, "nvidia-dkms-580-server-open"),
                (PASCAL, "nvidia-dkms-580-server"),
            )
        ),
    ]

    @pytest.mark.parametrize(("source", "platform", "hardware", "names", "module"), CASES)
    def test_headless_set(
        self,
        source: str,
        platform: tuple[str, str],
        hardware: GpuHardware,
        names: tuple[str, ...],
        module: str,
    ) -> None:
        done = planned(bare(*platform), hardware, driver_source=source)
        assert options(done, "--package") == [name.format(module) for name in names]
        assert "--dkms" in install_words(done)
        assert "--hold" in install_words(done)
        assert options(done, "--pinning") == (
            [f"nvidia-driver-pinning-{BRANCHES.get(platform, 580)}"] if source == "nvidia" else []
        )

    def test_ubuntu_from_590_on(self) -> None:
        done = planned(bare("ubuntu", "24.04"), driver_branch=595)
        assert options(done, "--package") == [n.format("nvidia-dkms-open") for n in UNSUFFIXED]
        assert options(done, "--pinning") == ["nvidia-driver-pinning-595"]

    @pytest.mark.parametrize(("distribution", "release"), RELEASES)
    def test_fabric_manager_on_nvswitches_only(self, distribution: str, release: str) -> None:
        done = planned(bare(distribution, release), HGX)
        assert options(done, "--fabric") == ["nvidia-fabricmanager", "libnvidia-nscq"]
        assert "Driver | Run the fabric manager" in driver_names(done)
        alone = planned(bare(distribution, release), H100)
        assert options(alone, "--fabric") == []
        assert not [name for name in driver_names(alone) if "fabric" in name]

    def test_running_fabric_manager_is_left_alone(self) -> None:
        """A restart ends CUDA jobs: neither our script's nor the drop-in's change asks for one."""
        text, _ = planned(bare(), HGX).files("gpu1")[
            "/etc/systemd/system/nvidia-fabricmanager.service.d/llm-fleet.conf"
        ]
        assert "\nWants=llm-fleet-gpu-devices.service\nAfter=llm-fleet-gpu-devices.service" in text
        assert not [line for line in text.splitlines() if line.startswith("Requires")]
        changed = {"nvidia-fabricmanager.service": replace(RUNNING, is_outdated=True)}
        state = converged() | {
            UnitState: lambda unit, files: changed.get(unit, RUNNING) if files else RUNNING
        }
        assert not [
            line
            for line in planned(state, HGX).lines("gpu1")
            if "restart nvidia-fabricmanager" in line
        ]

    def test_ubuntus_own_fabric_manager(self) -> None:
        done = planned(bare("ubuntu", "24.04"), HGX, driver_source="distribution")
        assert options(done, "--fabric") == ["nvidia-fabricmanager-580", "libnvidia-nscq-580"]

    def test_signed_modules_under_secure_boot(self) -> None:
        """The running kernel's, and what brings those of the kernels that its series gets."""
        answers = bare("ubuntu", "24.04") | {
            DriverStateFact: lambda nouveau_conf: DriverState("6.17.0-14-generic"),
            DebPackages: lambda: {
                "linux-image-generic": ["1"],
                "linux-image-generic-hwe-24.04": ["1"],
            },
        }
        done = planned(answers, replace(H100, secure_boot=True), driver_source="distribution")
        assert options(done, "--package")[:3] == [
            "linux-modules-nvidia-580-server-open-6.17.0-14-generic",
            "linux-modules-nvidia-580-server-open-generic-hwe-24.04",
            "nvidia-headless-no-dkms-580-server-open",
        ]
        assert "--dkms" not in install_words(done)

    def test_one_version(self) -> None:
        done = planned(driver_version="595.71.05")
        assert options(done, "--pinning") == ["nvidia-driver-pinning-595.71.05"]
        text, _ = done.files("gpu1")["/etc/apt/preferences.d/llm-fleet-nvidia"]
        assert "Pin: version 595.71.05*\nPin-Priority: 1001" in text

    def test_stays_with_what_is_there_unless_a_version_is_declared(self) -> None:
        assert options(planned(), "--stay") == ["595"]
        assert options(planned(driver_version="595.71.05"), "--stay") == []

    @pytest.mark.parametrize("source", ["nvidia", "distribution"])
    def test_installer_has_its_python(self, source: str) -> None:
        """A bare Debian has none."""
        done = planned(driver_source=source, hardware=T4)
        python = done.index("gpu1", r"apt-get install .*\bpython3\b")
        assert python < done.index("gpu1", "/usr/bin/python3")

    def test_not_held(self) -> None:
        assert "--hold" not in install_words(planned(driver_hold=False))


class TestRepository:
    @pytest.mark.parametrize(("distribution", "release"), RELEASES)
    @pytest.mark.parametrize(("machine", "arch"), [("x86_64", "x86_64"), ("aarch64", "sbsa")])
    def test_key_and_source(self, distribution: str, release: str, machine: str, arch: str) -> None:
        done = planned(bare(distribution, release, machine))
        name = f"{distribution}{release.replace('.', '')}"
        text, state = done.files("gpu1")["/etc/apt/sources.list.d/llm-fleet-nvidia.sources"]
        base = f"https://developer.download.nvidia.com/compute/cuda/repos/{name}/{arch}"
        assert f"URIs: {base}\nSuites: /\n" in text
        assert "Signed-By: /etc/apt/keyrings/llm-fleet-nvidia.gpg" in text
        assert state.mode == "644"
        _, fetch, check, export, *_ = done.step("gpu1", TRUST).lines
        fingerprint = pins.NVIDIA_FINGERPRINTS[name]
        keys = {"debian13": "8793F200", "ubuntu2604": "60DF8A40"}
        key = f"{base}/{keys.get(name, '3bf863cc')}.pub"
        assert f"download-file {key} " in fetch
        assert f"grep -qx {fingerprint} || " in check
        assert f"--export {fingerprint} " in export

    def test_pin_comes_before_the_source_and_the_source_before_the_driver(self) -> None:
        names = driver_names(planned())
        assert names == [
            "Driver | Keep nouveau and unattended upgrades away",
            "Driver | Install tools",
            "Driver | Pin the branch",
            TRUST,
            "Driver | Install the programs",
            "Driver | Install driver 595 (open modules)",
            "Driver | Install the unit of the device nodes",
            "Driver | Install the persistence daemon's unit",
            "Driver | Make the device nodes",
            "Driver | Run the persistence daemon",
            REQUIRE,
        ]

    def test_repository_gives_the_branch_and_nothing_else(self) -> None:
        text, _ = planned().files("gpu1")["/etc/apt/preferences.d/llm-fleet-nvidia"]
        assert "Pin: version 595.*\nPin-Priority: 1001" in text
        assert text.endswith("Package: *\nPin: release l=NVIDIA CUDA\nPin-Priority: -1\n")
        [patterns] = [
            line for line in text.splitlines() if line.startswith("Package: nvidia-driver*")
        ]
        # The container toolkit has a repository and versions of its own.
        assert "container" not in patterns
        assert "libnvidia-*" not in patterns
        assert " nvidia-* " not in patterns

    def test_other_key_is_replaced(self) -> None:
        answers = converged() | {KeyringFingerprints: lambda path: ("F" * 40,)}
        assert driver_names(planned(answers)) == [TRUST]

    def test_what_cuda_keyring_brought_goes(self) -> None:
        """Two sources of one repository with two keyrings: apt would refuse both."""
        answers = converged() | {ExistingFiles: lambda paths: paths}
        done = planned(answers)
        assert driver_names(done) == [TRUST]
        assert done.step("gpu1", TRUST).lines == [
            "rm -f /etc/apt/sources.list.d/cuda-debian13-x86_64.list"
        ]

    def test_distributions_own_driver_leaves_no_repository_of_ours(self) -> None:
        there = {"mode": 644, "user": "root", "group": "root"}
        answers = bare() | {File: lambda path: there, ExistingFiles: lambda paths: paths}
        done = planned(answers, T4, driver_source="distribution")
        assert done.step("gpu1", "Driver | Forget NVIDIA's repository").lines == [
            "rm -f /etc/apt/sources.list.d/llm-fleet-nvidia.sources "
            "/etc/apt/keyrings/llm-fleet-nvidia.gpg"
        ]
        assert "rm -f /etc/apt/preferences.d/llm-fleet-nvidia" in done.lines("gpu1")
