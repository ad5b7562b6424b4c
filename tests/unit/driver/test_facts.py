"""What is read of the hardware and of the driver on it."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest

from fleet.driver import facts as gpu
from fleet.driver.facts import (
    DrivenGpu,
    DrivenGpus,
    DriverState,
    DriverStateFact,
    Flavor,
    Generation,
    GpuHardware,
    GpuHardwareFact,
    Module,
    generation_of,
)


class TestGeneration:
    # Products and their ids as pci.ids lists them, the first and last of each chip among them.
    @pytest.mark.parametrize(
        ("device", "generation"),
        [
            (0x102D, Generation.OLDER),  # Tesla K80
            (0x12BA, Generation.OLDER),  # GK208, the last of Kepler
            (0x1340, Generation.MAXWELL),  # GeForce 830M
            (0x13F2, Generation.MAXWELL),  # Tesla M60
            (0x1617, Generation.MAXWELL),  # GTX 980M
            (0x17FD, Generation.MAXWELL),  # Tesla M40
            (0x15F8, Generation.PASCAL),  # Tesla P100
            (0x172F, Generation.PASCAL),  # GP100
            (0x1B38, Generation.PASCAL),  # Tesla P40
            (0x1D56, Generation.PASCAL),  # GP108
            (0x1DB1, Generation.VOLTA),  # Tesla V100
            (0x1EB8, Generation.TURING),  # Tesla T4
            (0x21D1, Generation.TURING),  # GTX 1660 Ti mobile
            (0x20B0, Generation.AMPERE),  # A100
            (0x2204, Generation.AMPERE),  # RTX 3090
            (0x25B6, Generation.AMPERE),  # A2 and A16
            (0x2684, Generation.ADA),  # RTX 4090
            (0x26B9, Generation.ADA),  # L40S
            (0x27B8, Generation.ADA),  # L4
            (0x2330, Generation.HOPPER),  # H100 SXM
            (0x2335, Generation.HOPPER),  # H200
            (0x2342, Generation.GRACE_HOPPER),  # GH200
            (0x2901, Generation.BLACKWELL),  # B200
            (0x2B85, Generation.BLACKWELL),  # RTX 5090
            (0x2BB5, Generation.BLACKWELL),  # RTX PRO 6000
            (0x2F04, Generation.BLACKWELL),  # RTX 5070
            (0x3182, Generation.BLACKWELL),  # B300
            (0x7777, Generation.UNKNOWN),
        ],
    )
    def test_known_products(self, device: int, generation: Generation) -> None:
        assert generation_of(device) is generation

    def test_ranges_are_in_order_and_apart(self) -> None:
        for (first, last, _), (following, _, _) in itertools.pairwise(gpu._RANGES):
            assert first <= last < following


class TestHardwareFact:
    def test_reads_gpus_switches_and_secure_boot(self) -> None:
        found = GpuHardwareFact().process(
            [
                "pci 0000:17:00.0 0x2330 0x030200",
                "pci 0000:65:00.0 0x1eb8 0x030000",
                # A card's own sound and USB functions, and two NVSwitches.
                "pci 0000:65:00.1 0x10f8 0x040300",
                "pci 0000:65:00.2 0x1ad8 0x0c0330",
                "pci 0000:07:00.0 0x22a3 0x068000",
                "pci 0000:08:00.0 0x22a3 0x068000",
                "secure-boot 1",
            ]
        )
        assert [str(item) for item in found.gpus] == [
            "0000:17:00.0 [10de:2330] (Hopper)",
            "0000:65:00.0 [10de:1eb8] (Turing)",
        ]
        assert (found.nvswitches, found.secure_boot, found.nvlink5) == (2, True, False)

    @pytest.mark.parametrize("value", ["secure-boot ", "secure-boot 0"])
    def test_no_efi_or_no_secure_boot(self, value: str) -> None:
        assert GpuHardwareFact().process([value]) == GpuHardware()

    def test_command_runs_on_a_tree(self, tmp_path: Path) -> None:
        """The real command, in a real shell, over a folder in sysfs's form."""
        for address, vendor in (("0000:00:00.0", "0x8086"), ("0000:17:00.0", "0x10de")):
            folder = tmp_path / "sys/bus/pci/devices" / address
            folder.mkdir(parents=True)
            for name, text in (("vendor", vendor), ("device", "0x2330"), ("class", "0x030200")):
                (folder / name).write_text(f"{text}\n")
        efi = tmp_path / "sys/firmware/efi/efivars"
        efi.mkdir(parents=True)
        name = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
        (efi / name).write_bytes(b"\x06\x00\x00\x00\x01")
        command = GpuHardwareFact().command().get_raw_value().replace("/sys/", f"{tmp_path}/sys/")
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == ["pci 0000:17:00.0 0x2330 0x030200", "secure-boot 1"]


class TestDriverState:
    @pytest.mark.parametrize(
        ("loaded", "installed", "nouveau", "reboot"),
        [
            (None, None, False, False),
            (None, "580.1", False, False),  # modprobe is enough
            ("580.1", "580.1", False, False),
            ("580.1", "580.2", False, True),
            ("580.1", None, False, False),
            (None, "580.2", True, True),
            (None, None, True, False),  # a reboot would change nothing
        ],
    )
    def test_needs_reboot(
        self, loaded: str | None, installed: str | None, nouveau: bool, reboot: bool
    ) -> None:
        modules = [Module(version, "open") if version else None for version in (loaded, installed)]
        state = DriverState(loaded=modules[0], installed=modules[1], nouveau=nouveau)
        assert state.needs_reboot == reboot

    @pytest.mark.parametrize(("on_disk", "reboot"), [("open", False), ("proprietary", True)])
    def test_other_modules_of_the_same_version_need_one(
        self, on_disk: Flavor, reboot: bool
    ) -> None:
        state = DriverState(loaded=Module("580.1", "open"), installed=Module("580.1", on_disk))
        assert state.needs_reboot is reboot

    def test_no_module_is_none(self) -> None:
        """Debian's modinfo says nothing of a module that is not there."""
        state = DriverStateFact().process(["kernel 6.12", "loaded "])
        assert state == DriverState(kernel="6.12")

    def test_process(self) -> None:
        state = DriverStateFact().process(
            [
                "kernel 6.8.0-45-generic",
                "headers",
                "loaded 580.178.04",
                "installed 580.178.04",
                "license NVIDIA",
                "open",
                "stale",
                "held nvidia-driver-cuda",
                "held libnvidia-compute-580:amd64",
            ]
        )
        assert state == DriverState(
            kernel="6.8.0-45-generic",
            headers=True,
            loaded=Module("580.178.04", "open"),
            installed=Module("580.178.04", "proprietary"),
            stale_initramfs=True,
            held=frozenset({"nvidia-driver-cuda", "libnvidia-compute-580"}),
        )


def test_card_that_does_not_answer_is_none_that_is_driven() -> None:
    """Its UUID would be noted, and the note refused from then on."""
    output = [
        "0, GPU-5c4b3f5e-1111-2222-3333-444455556666, 00000000:17:00.0, NVIDIA H100",
        "1, [Unknown Error], 00000000:65:00.0, [Unknown Error]",
        "No devices were found",
    ]
    uuid = "GPU-5c4b3f5e-1111-2222-3333-444455556666"
    assert DrivenGpus().process(output) == (DrivenGpu(0, uuid, "NVIDIA H100", "0000:17:00.0"),)
