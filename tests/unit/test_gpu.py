"""What is read of the hardware, and which driver follows from it."""

from __future__ import annotations

import argparse
import itertools
import os
import re
import stat
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import driver_install
from fleet.driver import facts as gpu
from fleet.driver.facts import (
    DriverState,
    DriverStateFact,
    Generation,
    Gpu,
    GpuHardware,
    GpuHardwareFact,
    generation_of,
)
from fleet.driver.files import repository
from fleet.driver.plan import Refusal, System, kernel_flavor, make_plan, on_kernel
from fleet.driver.settings import Driver
from tests.fleets import fleet_of

H100, T4, P100, V100, B200, GH200, KEPLER = 0x2330, 0x1EB8, 0x15F8, 0x1DB1, 0x2901, 0x2342, 0x102D
DEBIAN = System("debian", "13")
DEBIAN_12 = System("debian", "12")
UBUNTU_26 = System("ubuntu", "26.04")
DEVICES = Path(__file__).parents[2] / "fleet" / "driver" / "on_host" / "nvidia-devices"


def hardware(*devices: int, **more: Any) -> GpuHardware:
    gpus = tuple(Gpu(f"0000:{i:02x}:00.0", device) for i, device in enumerate(devices, 0x17))
    return GpuHardware(gpus, **more)


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
        ("loaded", "installed", "nouveau", "reboot", "running"),
        [
            ("", "", False, False, False),
            ("", "580.1", False, False, False),  # modprobe is enough
            ("580.1", "580.1", False, False, True),
            ("580.1", "580.2", False, True, False),
            ("", "580.2", True, True, False),
            ("", "", True, False, False),  # a reboot would change nothing
        ],
    )
    def test_needs_reboot(
        self, loaded: str, installed: str, nouveau: bool, reboot: bool, running: bool
    ) -> None:
        state = DriverState(loaded=loaded, installed=installed, nouveau=nouveau)
        assert (state.needs_reboot, state.is_running) == (reboot, running)

    @pytest.mark.parametrize(("on_disk", "reboot"), [("open", False), ("proprietary", True)])
    def test_other_modules_of_the_same_version_need_one(self, on_disk: str, reboot: bool) -> None:
        state = DriverState(
            loaded="580.1", flavor="open", installed="580.1", installed_flavor=on_disk
        )
        assert state.needs_reboot is reboot

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
            loaded="580.178.04",
            flavor="open",
            installed="580.178.04",
            installed_flavor="proprietary",
            stale_initramfs=True,
            held=frozenset({"nvidia-driver-cuda", "libnvidia-compute-580"}),
        )


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


class TestRepository:
    @pytest.mark.parametrize(
        ("system", "place", "key"),
        [
            (System("ubuntu", "22.04"), "ubuntu2204/x86_64", "3bf863cc.pub"),
            (System("ubuntu", "24.04", "aarch64"), "ubuntu2404/sbsa", "3bf863cc.pub"),
            (System("ubuntu", "26.04"), "ubuntu2604/x86_64", "60DF8A40.pub"),
            (System("debian", "12"), "debian12/x86_64", "3bf863cc.pub"),
            (System("debian", "13"), "debian13/x86_64", "8793F200.pub"),
            (System("debian", "13", "aarch64"), "debian13/sbsa", "8793F200.pub"),
        ],
    )
    def test_key_of_each_distribution(self, system: System, place: str, key: str) -> None:
        found = repository(fleet_of({"gpu1": ("gpu", {})})["gpu1"], system)
        base = "https://developer.download.nvidia.com/compute/cuda/repos"
        assert (found.url, found.key) == (f"{base}/{place}", f"{base}/{place}/{key}")
        assert found.fingerprint.lower().endswith(key.removesuffix(".pub").lower())


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
    assert kernel_flavor(kernel) == driver_install.kernel_flavor(kernel) == flavor


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


def test_no_packages_are_not_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """dpkg-query without a name tells of every package: they would all be held."""
    monkeypatch.setattr(driver_install, "output", lambda argv: "bash installed 5.2")
    ran: list[list[str]] = []
    monkeypatch.setattr(driver_install, "run", ran.append)
    assert driver_install.installed_versions(["bash"]) == {"bash": "5.2"}
    assert driver_install.installed_versions([]) == {}
    with driver_install.let_go([]):
        pass
    assert ran == []


class TestBuildLog:
    def test_compilers_own_line(self) -> None:
        text = (
            "DKMS make.log for nvidia/550\nmake: Entering directory\n"
            "/var/lib/dkms/nvidia/550/build/nvidia/nv-pci.c: In function 'nv_resize_pcie_bars':\n"
            "/var/lib/dkms/nvidia/550/build/nvidia/nv-pci.c:237:9: error: too few arguments to "
            "function 'pci_resize_resource'\nmake[3]: *** [nv-pci.o] Error 1\n"
        )
        assert driver_install.first_error(text) == (
            "nvidia/nv-pci.c:237:9: error: too few arguments to function 'pci_resize_resource'"
        )

    def test_make_where_no_compiler_complains(self) -> None:
        text = "begin\nmake: *** No rule to make target 'modules'.  Stop.\nend"
        assert driver_install.first_error(text).startswith("make: *** No rule to make target")

    def test_anything_else(self) -> None:
        assert driver_install.first_error("one\nlast\n") == "last"
        assert driver_install.first_error("") == "the log is empty"


class Debian:
    """A host of which the installer's runs are recorded; `fails` breaks the first like it."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
        self.kernel, self.dkms, self.logs = kernel, tmp_path / "dkms", tmp_path / "logs"
        self.packages: dict[str, str] = {}  # to its dpkg state
        self.versions: dict[str, str] = {}
        self.modules, self.archive = "", "580.178.04-1"
        self.ran: list[str] = []
        self.held: list[str] = []
        self.builds_fail_for = ""
        self.no_builds = tmp_path / "no-autoinstall"
        monkeypatch.setattr(driver_install, "run", self.run)
        monkeypatch.setattr(driver_install, "output", self.output)
        monkeypatch.setattr(driver_install, "status", self.status)
        monkeypatch.setattr(driver_install, "DKMS", self.dkms)
        monkeypatch.setattr(driver_install, "NO_BUILDS", self.no_builds)
        self.boot, self.programs = tmp_path, {"update-initramfs", "dracut"}
        monkeypatch.setattr(driver_install, "BOOT", self.boot)
        monkeypatch.setattr(driver_install.shutil, "which", self.programs.__contains__)

    def output(self, argv: list[str]) -> str:
        answers = {
            "uname": self.kernel,
            "modinfo": self.modules,
            "apt-cache": f"Candidate: {self.archive}",
            "apt-mark": "\n".join(self.held),
        }
        return answers.get(argv[0], "")

    def status(self, names: Iterable[str], holds: Callable[[str], bool]) -> dict[str, str]:
        there = {name: self.packages[name] for name in names if name in self.packages}
        return {n: self.versions.get(n, "1") for n, state in there.items() if holds(state)}

    def run(self, argv: list[str], *, check: bool = True) -> bool:
        self.ran.append(" ".join(argv))
        if argv[:2] == ["dpkg", "--configure"] and self.no_builds.exists():
            self.packages |= dict.fromkeys(self.packages, "installed")
        if "--no-install-recommends" not in argv:
            return True
        names = argv[argv.index("--no-install-recommends") + 1 :]
        built = self.no_builds.exists() or not self.build(names)
        self.packages |= dict.fromkeys(names, "installed" if built else "half-configured")
        return built

    def build(self, names: list[str]) -> str:
        """Build with the packages, for the running kernel first; the one that it fails for."""
        if not any("dkms" in name or name == "linux-headers-amd64" for name in names):
            return ""
        if self.builds_fail_for != self.kernel:
            self.modules = "550.163.01"
        if self.builds_fail_for:
            log = self.dkms / "nvidia-current-open/550.163.01/build/make.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(
                f"DKMS (dkms-3.2.2) make.log for nvidia-current-open/550.163.01 for kernel "
                f"{self.builds_fail_for} (x86_64)\nnv-pci.c:237:9: error: too few arguments\n"
            )
        return self.builds_fail_for

    def install(self, **more: Any) -> None:
        given = {
            "pinning": [], "fabric": [], "dkms": True, "hold": True,
            "package": ["nvidia-open-kernel-dkms"], "logs": self.logs, "stay": "",
        }  # fmt: skip
        driver_install.install(argparse.Namespace(**given | more))


RUNS, NEXT = "6.12.94+deb13-amd64", "6.12.117+deb13-amd64"


class TestInstaller:
    @pytest.fixture
    def debian(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Debian:
        return Debian(tmp_path, monkeypatch, RUNS)

    def test_later_headers_come_after_the_driver(self, debian: Debian) -> None:
        """What they have DKMS build may fail, and must not take the running kernel's module."""
        debian.packages["linux-image-amd64"] = "installed"
        debian.install()
        installs = [line.split()[-1] for line in debian.ran if " install " in line]
        assert installs == [
            f"linux-headers-{RUNS}",
            "nvidia-open-kernel-dkms",
            "linux-headers-amd64",
        ]
        assert not debian.logs.exists()

    @pytest.mark.parametrize("headers", ["", "installed"], ids=["ours", "the operator's"])
    def test_next_kernel_without_a_module_is_said(
        self, debian: Debian, headers: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        debian.packages["linux-image-amd64"] = "installed"
        if headers:
            debian.packages["linux-headers-amd64"] = headers
        debian.builds_fail_for = NEXT
        debian.install()
        assert debian.packages["nvidia-open-kernel-dkms"] == "installed"
        assert not [line for line in debian.ran if "purge" in line]
        said = (debian.logs / "driver-warning").read_text()
        assert f"did not build for kernel {NEXT}:\n  nv-pci.c:237:9: error" in said
        assert f"there for the running kernel {RUNS}" in said
        assert (debian.logs / f"driver-build-{NEXT}.log").exists()
        assert not debian.no_builds.exists()

    def test_running_kernel_without_a_module_is_a_failure(self, debian: Debian) -> None:
        debian.builds_fail_for = RUNS
        with pytest.raises(driver_install.Failure, match=f"for kernel {re.escape(RUNS)}:\n  nv-p"):
            debian.install()
        assert [line for line in debian.ran if "purge" in line]

    def test_log_of_an_earlier_run_is_none_of_this_one(self, debian: Debian) -> None:
        debian.builds_fail_for = NEXT
        debian.build(["x-dkms"])
        debian.builds_fail_for = ""
        [log] = debian.dkms.rglob("make.log")
        os.utime(log, (1, 1))
        debian.install()
        assert not debian.logs.exists()

    @pytest.mark.parametrize(
        ("there", "installed"),
        [
            # A missing hold, or other modules: the rest follows what is there, not the newest.
            (
                {"cuda": "580.159.03-1", "dkms": "580.159.03-1"},
                "cuda=580.159.03-1 dkms=580.159.03-1",
            ),
            ({"cuda": "580.159.03-1"}, "cuda=580.159.03-1 dkms=580.159.03*"),
            # Nothing to stay with: of another branch, of two versions, or no more to be had.
            ({"cuda": "570.86.15-1"}, "cuda dkms"),
            ({"cuda": "580.159.03-1", "dkms": "580.178.04-1"}, "cuda dkms"),
            ({"cuda": "580.82.07-1"}, "cuda dkms"),
            ({}, "cuda dkms"),
        ],
    )
    def test_stays_with_the_version_that_is_there(
        self, debian: Debian, there: dict[str, str], installed: str
    ) -> None:
        debian.versions, debian.archive = there, "580.159.03-1 580.178.04-1"
        debian.packages |= dict.fromkeys(there, "installed")
        debian.install(package=["cuda", "dkms"], stay="580", dkms=False)
        assert [line.partition("--no-install-recommends ")[2] for line in debian.ran[2:3]] == [
            installed
        ]

    @pytest.mark.parametrize(
        ("programs", "command"),
        [
            ({"update-initramfs", "dracut"}, f"update-initramfs -u -k {RUNS}"),
            ({"dracut"}, "dracut --force {}/initrd.img-" + f"{RUNS} {RUNS}"),
        ],
    )
    def test_initramfs_without_nouveau(
        self, debian: Debian, programs: set[str], command: str
    ) -> None:
        """Debian's dracut brings no update-initramfs."""
        (debian.boot / f"initrd.img-{RUNS}").touch()
        debian.programs &= programs
        debian.install()
        assert command.format(debian.boot) in debian.ran

    def test_nobody_to_write_the_initramfs(self, debian: Debian) -> None:
        (debian.boot / f"initrd.img-{RUNS}").touch()
        debian.programs.clear()
        with pytest.raises(driver_install.Failure, match="Neither update-initramfs nor dracut"):
            debian.install()

    def test_former_modules_are_let_go_of(self, debian: Debian) -> None:
        """apt removes nothing that is held, and the other modules would be refused."""
        debian.held = ["cuda", "nvidia-kernel-dkms", "nvidia-container-toolkit"]
        debian.packages["nvidia-kernel-dkms"] = "installed"
        debian.install()
        marks = [line for line in debian.ran if line.startswith("apt-mark")]
        assert marks == [
            "apt-mark unhold nvidia-kernel-dkms",
            "apt-mark hold nvidia-kernel-dkms",  # it is still there
            "apt-mark hold nvidia-open-kernel-dkms",
        ]
        assert debian.ran.index(marks[0]) < debian.ran.index(
            next(line for line in debian.ran if line.endswith("nvidia-open-kernel-dkms"))
        )

    def test_former_modules_come_back(self, debian: Debian) -> None:
        debian.held = ["nvidia-kernel-dkms"]
        debian.packages["nvidia-kernel-dkms"] = "installed"
        debian.builds_fail_for = RUNS
        with pytest.raises(driver_install.Failure):
            debian.install()
        assert [line for line in debian.ran if line.endswith("nvidia-kernel-dkms=1")]

    def test_no_signed_module_for_the_running_kernel(self, debian: Debian) -> None:
        debian.archive = "(none)"
        with pytest.raises(
            driver_install.Failure, match=f"signed module .* kernel {re.escape(RUNS)} "
        ):
            debian.install(package=[f"linux-modules-nvidia-580-server-open-{RUNS}"], dkms=False)
        assert not [line for line in debian.ran if "purge" in line or " install " in line]

    def test_what_an_operator_switched_off_stays_so(self, debian: Debian) -> None:
        debian.no_builds.write_text("mine\n")
        debian.modules = "550.163.01"
        debian.install()
        assert debian.no_builds.exists()

    def test_what_a_run_that_was_killed_left_goes(self, debian: Debian) -> None:
        debian.no_builds.write_text(driver_install.NO_BUILDS_OURS)
        debian.install()
        assert not debian.no_builds.exists()


class TestDeviceNodes:
    """The program itself, with stand-ins for what only root and a GPU have."""

    def run(self, tmp_path: Path, devices: str, gpus: int) -> subprocess.CompletedProcess[str]:
        tools = tmp_path / "bin"
        tools.mkdir()
        made = tmp_path / "made"
        for name, text in (
            ("modprobe", 'echo "modprobe $*"'),
            ("mknod", 'echo "mknod $*"'),
            ("dmesg", "echo 'NVRM: no luck'"),
        ):
            (tools / name).write_text(f"#!/bin/sh\n{text} >> {made}\n")
            (tools / name).chmod(0o755)
        (tools / "dmesg").write_text("#!/bin/sh\necho 'NVRM: no luck'\n")
        (tmp_path / "devices").write_text(devices)
        for minor in range(gpus):
            folder = tmp_path / f"gpus/0000:{minor:02x}:00.0"
            folder.mkdir(parents=True)
            (folder / "information").write_text(f"Model: \t x\nDevice Minor: \t {minor}\n")
        text = (
            DEVICES.read_text()
            .replace("/proc/devices", f"{tmp_path}/devices")
            .replace("/proc/driver/nvidia/gpus", f"{tmp_path}/gpus")
            .replace("/dev/nvidia", f"{tmp_path}/dev-nvidia")
        )
        return subprocess.run(
            ["sh", "-c", text],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": f"{tools}:/usr/bin:/bin"},
        )

    @pytest.mark.parametrize("name", ["nvidia", "nvidia-frontend"])
    def test_makes_what_is_missing(self, tmp_path: Path, name: str) -> None:
        devices = f"Character devices:\n  1 mem\n195 {name}\n511 nvidia-uvm\n"
        assert self.run(tmp_path, devices, 2).returncode == 0
        made = (tmp_path / "made").read_text().replace(f"{tmp_path}/dev-", "/dev/").splitlines()
        assert made == [
            "modprobe nvidia",
            "modprobe nvidia-uvm",
            "mknod -m 666 /dev/nvidiactl c 195 255",
            "mknod -m 666 /dev/nvidia-uvm c 511 0",
            "mknod -m 666 /dev/nvidia-uvm-tools c 511 1",
            "mknod -m 666 /dev/nvidia0 c 195 0",
            "mknod -m 666 /dev/nvidia1 c 195 1",
        ]

    def test_no_gpu_is_an_error_with_the_kernels_words(self, tmp_path: Path) -> None:
        done = self.run(tmp_path, "195 nvidia\n511 nvidia-uvm\n", 0)
        assert done.returncode == 1
        assert "drive no GPU" in done.stderr
        assert "NVRM: no luck" in done.stderr

    def test_program_can_be_run(self) -> None:
        assert DEVICES.stat().st_mode & stat.S_IXUSR


def test_installer_takes_what_the_operation_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its options, read by itself: the operation's own words are in the plan tests."""
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(driver_install, "install", seen.append)
    words = [
        "--logs",
        "/l",
        "--stay",
        "580",
        "--dkms",
        "--hold",
        "--pinning",
        "p",
        "--package",
        "a",
        "--package",
        "b",
        "--fabric",
        "f",
    ]
    monkeypatch.setattr("sys.argv", ["driver_install.py", *words])
    assert driver_install.main() == 0
    assert (seen[0].package, seen[0].stay) == (["a", "b"], "580")
    assert (seen[0].dkms, seen[0].hold, seen[0].pinning) == (True, True, ["p"])


def test_installer_fails_with_the_reason_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: argparse.Namespace) -> None:
        raise driver_install.Failure("because")

    monkeypatch.setattr(driver_install, "install", refuse)
    monkeypatch.setattr("sys.argv", ["driver_install.py", "--logs", "/l"])
    assert driver_install.main() == 1
    assert capsys.readouterr().err == "because\n"
