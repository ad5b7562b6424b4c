"""Debian's own driver, built by DKMS on real hosts: once where it builds, once where it cannot.

Slow (minutes each), so it has a target of its own: `make test-driver`. Debian 13 has 550.163.01.
Its open module builds for kernel 6.12.94 and not for 6.12.117, whose pci_resize_resource() takes
another argument. Kernels leave the archive in time: a missing one skips its test and says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import BIN, LabUnderTest, _lab, _run

pytestmark = pytest.mark.slow

INVENTORY = Path("tests/lab/gpu.py")
BUILDS, BREAKS = "6.12.94+deb13-amd64", "6.12.117+deb13-amd64"
SETTINGS = {"LAB_SETTINGS": json.dumps({"driver_source": "distribution"})}


@pytest.fixture(scope="module")
def lab() -> Iterator[LabUnderTest]:
    """One host for everything."""
    yield from _lab("build", "--hosts", "1")


def bare(lab: LabUnderTest, kernel: str) -> None:
    """The host anew, with a T4, running `kernel`, and with the components that the driver is in."""
    lab.command("reset", "gpu1")
    lab.command("gpu", "gpu1", "t4", "--kernel", kernel)
    lab.ssh(
        "gpu1",
        "sed -i 's/^Components: .*/Components: main contrib non-free non-free-firmware/' "
        "/etc/apt/sources.list.d/*.sources && apt-get -qq update",
    )
    # Of what it has never heard, apt says nothing at all.
    if "Candidate: 6" not in lab.ssh("gpu1", f"apt-cache policy linux-headers-{kernel}"):
        pytest.skip(f"the archive has linux-headers-{kernel} no more")


def deploy(lab: LabUnderTest) -> tuple[int, str]:
    """Exit status of a deploy, and all that was said.

    A build may outlast a deploy on a busy machine: the host goes on alone, and the next attaches.
    """
    for _ in range(3):
        done = _run(
            ["timeout", "560", BIN / "pyinfra", "-y", INVENTORY, "deploy.py"],
            {"LLM_FLEET_LAB_ID": lab.id, "PYINFRA_PROGRESS": "off", **SETTINGS},
            check=False,
        )
        if done.returncode != 124:
            break
    return done.returncode, done.stdout + done.stderr


def test_build_that_fails(lab: LabUnderTest) -> None:
    bare(lab, BREAKS)
    status, said = deploy(lab)
    assert status != 0
    assert re.search(r"nv-pci\.c:\d+:\d+: error: too few arguments to function", said), said
    log = f"/var/log/llm-fleet/driver-build-{BREAKS}.log"
    assert f"The whole log is {log}" in said
    assert "too few arguments" in lab.ssh("gpu1", f"cat {log}")
    # dpkg is whole, apt works, and the host is as usable as before.
    assert lab.ssh("gpu1", "dpkg --audit") == ""
    assert lab.ssh("gpu1", "dpkg-query -W nvidia-open-kernel-dkms 2>/dev/null; true") == ""
    lab.ssh("gpu1", "DEBIAN_FRONTEND=noninteractive apt-get install -y -q tree && tree --version")
    assert lab.ssh("gpu1", "systemctl is-system-running; true") in ("running", "degraded")


def test_build_that_succeeds(lab: LabUnderTest) -> None:
    """... for the running kernel, beside the headers of one that it fails for."""
    bare(lab, BUILDS)
    lab.ssh("gpu1", f"DEBIAN_FRONTEND=noninteractive apt-get -qq install linux-headers-{BREAKS}")
    status, said = deploy(lab)
    # The real daemon asks for a real GPU: this is as far as a host without one can get.
    assert status != 0
    assert "Failed to query NVIDIA devices" in said, said[-6000:]
    assert "nouveau holds the GPU, driver 550.163.01 waits for a reboot; rebooting" in said
    assert f"{BUILDS}, x86_64: installed" in lab.ssh("gpu1", "dkms status")
    warned = lab.ssh("gpu1", "cat /var/log/llm-fleet/driver-warning")
    assert f"did not build for kernel {BREAKS}:" in warned
    assert re.search(r"nv-pci\.c:\d+:\d+: error: too few arguments", warned)
    assert lab.ssh("gpu1", "cat /sys/module/nvidia/version") == "550.163.01"
    assert lab.ssh("gpu1", "systemctl is-active llm-fleet-gpu-devices") == "active"
    assert "nvidia-open-kernel-dkms" in lab.ssh("gpu1", "apt-mark showhold")
    assert lab.ssh("gpu1", "dpkg --audit") == ""
