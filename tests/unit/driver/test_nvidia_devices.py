"""The program that makes the GPUs' device nodes."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from fleet.declare.fleet import PRODUCT_ROOT

DEVICES = PRODUCT_ROOT / "fleet" / "driver" / "on_host" / "nvidia-devices"


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
