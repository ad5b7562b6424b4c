"""The installer on the host."""

from __future__ import annotations

import argparse
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import driver_install
from fleet.driver.files import programs
from fleet.kit.apt import PATIENCE


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


class TestRoom:
    """1 GB of packages, fetched and unpacked, beside 2 GB that stay free."""

    PLAN = (
        "NOTE: This is only a simulation!\n"
        "Inst nvidia-modprobe (580.178.04-1 NVIDIA CUDA:x [amd64])\n"
        "Inst libnvidia-cfg1 [550.163.01-2] (580.178.04-1 NVIDIA CUDA:x [amd64]) []\n"
        "Conf libnvidia-cfg1 (580.178.04-1 NVIDIA CUDA:x [amd64])\n"
    )
    ABOUT = (
        "Package: nvidia-modprobe\nInstalled-Size: 390625\nSize: 100000000\n"
        "Description-en: x\n Size: 7\n\n"
        "Package: libnvidia-cfg1\nInstalled-Size: 390625\nSize: 100000000\n"
    )

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
        asked: list[list[str]] = []

        def output(argv: list[str]) -> str:
            asked.append(argv)
            return self.PLAN if argv[0] == "apt-get" else self.ABOUT

        monkeypatch.setattr(driver_install, "output", output)
        return asked

    def free(self, monkeypatch: pytest.MonkeyPatch, **counts: float) -> None:
        usage = shutil.disk_usage("/")
        monkeypatch.setattr(
            driver_install.shutil, "disk_usage",
            lambda place: usage._replace(free=int(counts[place[1:]])),
        )  # fmt: skip

    def test_there(self, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
        self.free(monkeypatch, usr=3.01e9, var=3.01e9)
        driver_install.refuse_without_room(["nvidia-open"])
        assert asked[0][-1] == "nvidia-open"
        assert asked[1][2:] == ["nvidia-modprobe=580.178.04-1", "libnvidia-cfg1=580.178.04-1"]

    @pytest.mark.parametrize("counts", [{"usr": 2.99e9, "var": 9e9}, {"usr": 9e9, "var": 2.99e9}])
    @pytest.mark.usefixtures("asked")
    def test_not_there(self, monkeypatch: pytest.MonkeyPatch, counts: dict[str, float]) -> None:
        self.free(monkeypatch, **counts)
        with pytest.raises(
            driver_install.Failure, match=r"2 packages take 1\.0 GB, .* 3\.0 GB are"
        ):
            driver_install.refuse_without_room(["nvidia-open"])

    def test_judged_before_anything_is_installed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host = Debian(tmp_path, monkeypatch, RUNS)

        def refuse(names: list[str]) -> None:
            raise driver_install.Failure(f"no room for {names}")

        monkeypatch.setattr(driver_install, "refuse_without_room", refuse)
        with pytest.raises(driver_install.Failure, match="no room"):
            host.install()
        assert not [line for line in host.ran if "install" in line]


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


def test_is_as_patient_as_a_deploy() -> None:
    program, seconds = driver_install.WHEN_APT_IS_FREE
    assert seconds == str(PATIENCE)
    names = [file.staged_name for file in programs()]
    # Put in place before whoever needs it.
    assert names.index(Path(program).name) < names.index("driver_install.py")


def test_every_call_waits_and_keeps_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the real `run`: apt's words, and no other program's, go to the patient one."""
    ran = tmp_path / "ran"
    patient = tmp_path / "patient"
    patient.write_text(f'#!/bin/sh\necho "$*" >> {ran}\n[ "$3" != update ]\n')
    patient.chmod(0o755)
    monkeypatch.setattr(driver_install, "WHEN_APT_IS_FREE", [str(patient), "600"])
    assert driver_install.apt_install(["curl"])
    assert not driver_install.run(["apt-get", "update"], check=False)
    assert driver_install.run(["apt-mark", "hold", "curl"])
    assert driver_install.run(["dpkg", "--configure", "-a"])
    assert driver_install.run(["true"])
    assert [line.split()[:3] for line in ran.read_text().splitlines()] == [
        ["600", "apt-get", "install"],
        ["600", "apt-get", "update"],
        ["600", "apt-mark", "hold"],
        ["600", "dpkg", "--configure"],
    ]
