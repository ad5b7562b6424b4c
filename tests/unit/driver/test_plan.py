"""Which driver follows from the hardware."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.driver.facts import (
    Gpu,
    GpuHardware,
)
from fleet.driver.on_host.driver_kernel import kernel_flavor
from fleet.driver.plan import Refusal, System, make_plan, on_kernel
from fleet.driver.settings import Driver

H100, T4, P100, V100, B200, GH200, KEPLER = 0x2330, 0x1EB8, 0x15F8, 0x1DB1, 0x2901, 0x2342, 0x102D
DEBIAN = System("debian", "13")
DEBIAN_12 = System("debian", "12")
UBUNTU_26 = System("ubuntu", "26.04")


def hardware(*devices: int, **more: Any) -> GpuHardware:
    gpus = tuple(Gpu(f"0000:{i:02x}:00.0", device) for i, device in enumerate(devices, 0x17))
    return GpuHardware(gpus, **more)


class TestFlavor:
    @pytest.mark.parametrize(
        ("devices", "flavor"),
        [
            ([H100], "open"),
            ([T4], "open"),
            ([B200], "open"),
            ([GH200], "open"),
            ([0x7777], "open"),
            ([P100], "proprietary"),
            ([V100], "proprietary"),
            ([0x13F2], "proprietary"),
            ([P100, T4], "proprietary"),
        ],
    )
    def test_auto(self, devices: list[int], flavor: str) -> None:
        assert make_plan(Driver(), DEBIAN_12, hardware(*devices)).flavor == flavor

    def test_proprietary_by_choice(self) -> None:
        chosen = Driver(modules="proprietary")
        assert make_plan(chosen, DEBIAN, hardware(T4)).flavor == "proprietary"


class TestBranch:
    @pytest.mark.parametrize(
        ("settings", "system", "branch"),
        [
            ({}, DEBIAN_12, 580),
            ({}, System("ubuntu", "22.04"), 580),
            ({}, System("ubuntu", "24.04"), 580),
            # NVIDIA's repositories for these two have no 580.
            ({}, DEBIAN, 595),
            ({}, UBUNTU_26, 595),
            ({"branch": 590}, DEBIAN, 590),
            ({"version": "590.48.01"}, DEBIAN, 590),
            # Ubuntu's own archive has it for every release; Debian's has one branch a release.
            ({"source": "distribution"}, UBUNTU_26, 580),
            ({"source": "distribution"}, DEBIAN, 550),
        ],
    )
    def test_of_the_platform(self, settings: dict[str, Any], system: System, branch: int) -> None:
        plan = make_plan(Driver(**settings), system, hardware(T4))
        assert plan.branch == branch
        if settings.get("source") != "distribution":
            assert plan.pinning == (f"nvidia-driver-pinning-{settings.get('version', branch)}",)


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "system", "found", "words"),
        [
            ({}, DEBIAN, hardware(KEPLER), "Ollama needs compute capability 5.0"),
            ({}, DEBIAN, hardware(P100, B200), "put them into two hosts"),
            ({"branch": 595}, DEBIAN_12, hardware(P100), "and driver_branch = 580"),
            ({}, DEBIAN, hardware(P100), "install Debian 12 or Ubuntu on this host"),
            ({"branch": 580}, DEBIAN, hardware(P100), "install Debian 12 or Ubuntu"),
            ({}, DEBIAN, hardware(V100), "set driver_source = 'distribution'"),
            ({}, UBUNTU_26, hardware(P100), "set driver_source = 'distribution'"),
            ({"branch": 580}, DEBIAN, hardware(T4), "Debian 13 begins with branch 590"),
            ({"version": "590.48.01"}, UBUNTU_26, hardware(T4), "begins with branch 595"),
            ({"modules": "open"}, DEBIAN_12, hardware(P100), "set driver_modules = 'auto'"),
            ({"modules": "proprietary"}, DEBIAN, hardware(B200), "open modules only"),
            (
                {"modules": "proprietary", "branch": 620},
                DEBIAN,
                hardware(H100),
                "branch 620 has open modules only",
            ),
            ({"source": "distribution"}, System("debian", "12"), hardware(H100), "is 535"),
            ({"source": "distribution"}, DEBIAN, hardware(P100), "needs driver 570"),
            (
                {"source": "distribution"},
                DEBIAN,
                hardware(H100, nvswitches=4),
                "Debian does not have",
            ),
            ({}, DEBIAN, hardware(H100, secure_boot=True), "driver_mok_enrolled = True"),
            (
                {},
                System("ubuntu", "24.04"),
                hardware(H100, secure_boot=True),
                "driver_source = 'distribution'",
            ),
            ({}, DEBIAN, hardware(B200, nvlink5=True), "nvlsm"),
        ],
    )
    def test_says_what_to_do(
        self, settings: dict[str, Any], system: System, found: GpuHardware, words: str
    ) -> None:
        with pytest.raises(Refusal, match=words):
            make_plan(Driver(**settings), system, found)

    def test_volta_has_a_driver_where_pascal_has_none(self) -> None:
        """Ollama's floor of 570 is for compute capability 5.0 to 6.2; Volta has 7.0."""
        chosen = Driver(source="distribution")
        assert make_plan(chosen, DEBIAN, hardware(V100)).branch == 550

    def test_enrolled_key_lifts_the_refusal(self) -> None:
        chosen = Driver(mok_enrolled=True)
        assert make_plan(chosen, DEBIAN, hardware(H100, secure_boot=True)).dkms


@pytest.mark.parametrize(
    ("kernel", "flavor"),
    [
        ("6.8.0-45-generic", "generic"),
        ("6.17.0-1005-nvidia-64k", "nvidia-64k"),
        ("6.1.0-18-amd64", "amd64"),
        ("6.1.0-18-cloud-amd64", "cloud-amd64"),
        ("6.12.94+deb13-amd64", "amd64"),
        ("6.12.94+deb13-cloud-arm64", "cloud-arm64"),
        ("6.14.8", ""),
    ],
)
def test_kernel_flavor(kernel: str, flavor: str) -> None:
    """The host's program has a copy of its own, for it imports nothing of ours."""
    assert kernel_flavor(kernel) == flavor


@pytest.mark.parametrize(
    ("kernel", "installed", "suffixes"),
    [
        ("6.8.0-45-generic", ["linux-image-generic"], ["generic"]),
        ("6.17.0-14-generic", ["linux-image-generic-hwe-24.04"], ["generic-hwe-24.04"]),
        (
            "6.17.0-14-generic",
            ["linux-image-generic-hwe-24.04", "linux-image-generic"],
            ["generic-hwe-24.04"],
        ),
        ("6.8.0-1015-aws", ["linux-image-aws", "linux-image-generic"], ["aws"]),
        ("6.8.0-45-generic", ["linux-image-6.8.0-45-generic", "linux-image-generic-64k"], []),
    ],
)
def test_signed_modules(kernel: str, installed: list[str], suffixes: list[str]) -> None:
    chosen = Driver(source="distribution")
    plan = make_plan(chosen, System("ubuntu", "24.04"), hardware(H100, secure_boot=True))
    names = [name for name in on_kernel(plan, kernel, installed).packages if "modules" in name]
    prefix = "linux-modules-nvidia-580-server-open-"
    assert names == [f"{prefix}{suffix}" for suffix in (kernel, *suffixes)]
