"""The driver on hosts that show GPUs: eight H100 with NVSwitches, and a Pascal that nouveau holds.

The packages are the lab's own, with the real names and relations; their modules are built by DKMS
against the real headers. The real packages have a test of their own: test_driver_build.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import LabUnderTest, Result, _lab

pytestmark = pytest.mark.slow

INVENTORY = Path("tests/lab/gpu.py")
GPU_HOSTS = ("gpu1", "gpu2")
LOADED = "The loaded driver is the installed one, and new enough for Ollama"


@pytest.fixture(scope="module")
def lab() -> Iterator[LabUnderTest]:
    """The fleet after its first deploy."""
    for lab in _lab("driver", "--gpu", "gpu1=8xh100", "--gpu", "gpu2=pascal"):
        result = pyinfra(lab)
        # nouveau holds the Pascal; the H100 had nothing that a reboot would chase away.
        assert "[gpu2] nouveau holds the GPU, driver 580.178.04 waits for a reboot" in said(result)
        assert "[gpu1] nouveau" not in said(result)
        yield lab


def pyinfra(lab: LabUnderTest, *, check: bool = True, **settings: Any) -> Result:
    environment = {"LAB_SETTINGS": json.dumps(settings)}
    return lab.pyinfra("-y", inventory=INVENTORY, check=check, **environment)


def failing(lab: LabUnderTest, **settings: Any) -> dict[str, list[str]]:
    return lab.failing(inventory=INVENTORY, LAB_SETTINGS=json.dumps(settings))


def changes(lab: LabUnderTest, **settings: Any) -> dict[str, list[str]]:
    return lab.deploy(inventory=INVENTORY, LAB_SETTINGS=json.dumps(settings))


def said(result: Result) -> str:
    return result.stdout + result.stderr


def loaded(lab: LabUnderTest, host: str) -> str:
    return lab.ssh(host, "cat /sys/module/nvidia/version")


def test_one_run_is_enough(lab: LabUnderTest) -> None:
    """Not the newest branch of the repository, but the declared one, and no step is left over."""
    assert failing(lab) == {}
    assert [loaded(lab, host) for host in GPU_HOSTS] == ["580.178.04", "580.178.04"]
    assert changes(lab) == {}


def test_modules_follow_the_generation(lab: LabUnderTest) -> None:
    assert "Open Kernel Module" in lab.ssh("gpu1", "cat /proc/driver/nvidia/version")
    assert "Open" not in lab.ssh("gpu2", "cat /proc/driver/nvidia/version")


def test_fabric_manager_where_there_are_switches(lab: LabUnderTest) -> None:
    assert lab.ssh("gpu1", "systemctl is-active nvidia-fabricmanager") == "active"
    assert lab.ssh("gpu2", "systemctl cat nvidia-fabricmanager 2>/dev/null; true") == ""
    assert len(lab.ssh("gpu1", "nvidia-smi -L").splitlines()) == 8


def test_upgrade_of_everything_leaves_the_driver(lab: LabUnderTest) -> None:
    """The repository has branch 595, and the packages that are named in no hold are pinned too."""
    lab.ssh("gpu1", "DEBIAN_FRONTEND=noninteractive apt-get -y -q dist-upgrade")
    assert lab.ssh("gpu1", "nvidia-smi --query-gpu=driver_version --format=csv,noheader").split()[
        0
    ] == ("580.178.04")
    assert failing(lab) == {}


def test_other_key_is_not_trusted(lab: LabUnderTest) -> None:
    keyring = "/etc/apt/keyrings/llm-fleet-nvidia.gpg"
    before = lab.ssh("gpu1", f"sha256sum {keyring}")
    actual = lab.state["upstream"]["driver_fingerprint"]
    # The file that it is published in has the same name.
    other = "0" * 32 + actual[-8:]
    result = pyinfra(lab, check=False, driver_repository_fingerprint=other)
    assert result.returncode != 0
    assert f"has the fingerprint {actual}, expected is {other}: not trusted" in said(result)
    assert lab.ssh("gpu1", f"sha256sum {keyring}") == before


def test_reboot_is_the_operators_then_ours(lab: LabUnderTest) -> None:
    """Another version without a reboot is said, and seen by the checks; a later run makes up."""
    version = "580.159.03"
    result = pyinfra(lab, driver_version=version, driver_reboot="never")
    for host in GPU_HOSTS:
        assert (
            f"[{host}] driver {version} is installed, 580.178.04 is still loaded; reboot this host "
            "yourself"
        ) in said(result)
    broken = failing(lab, driver_version=version, driver_reboot="never")
    assert broken[LOADED] == list(GPU_HOSTS)
    result = pyinfra(lab, driver_version=version)
    lines = [
        line
        for line in said(result).splitlines()
        if "rebooting" in line or line.strip().endswith("Connected")
    ]
    hosts = [line.split("]")[0].split("[")[-1] for line in lines if "rebooting" in line]
    assert sorted(hosts) == list(GPU_HOSTS)
    # One after the other: the second goes down when the first is back.
    first, second = (
        next(i for i, line in enumerate(lines) if f"[{host}]" in line and "rebooting" in line)
        for host in hosts
    )
    assert any(f"[{hosts[0]}]" in line and "Connected" in line for line in lines[first:second])
    assert failing(lab, driver_version=version) == {}
    assert changes(lab, driver_version=version) == {}


def test_module_that_does_not_build(lab: LabUnderTest) -> None:
    """The compiler's line and the log's place; the former driver is back and works."""
    version = "580.170.01"
    result = pyinfra(lab, check=False, driver_version=version)
    assert result.returncode != 0
    assert "no_such_function_in_this_kernel" in said(result)
    kernel = lab.ssh("gpu1", "uname -r")
    log = f"/var/log/llm-fleet/driver-build-{kernel}.log"
    assert f"The whole log is {log}" in said(result)
    for host in GPU_HOSTS:
        assert "no_such_function" in lab.ssh(host, f"cat {log}")
        assert lab.ssh(host, "dpkg --audit; apt-get check -q >/dev/null && echo usable") == "usable"
        assert loaded(lab, host) == "580.159.03"
        assert lab.ssh(host, "nvidia-smi -L | head -n 1 | cut -c1-5") == "GPU 0"
    pyinfra(lab, driver_version="580.159.03")
    assert failing(lab, driver_version="580.159.03") == {}


def test_secure_boot_fails_its_host_alone(lab: LabUnderTest) -> None:
    lab.command("gpu", "gpu2", "secure-boot")
    result = pyinfra(lab, check=False)
    assert result.returncode != 0
    assert "[gpu2] gpu2: Secure Boot is on" in said(result)
    assert "driver_mok_enrolled = True" in said(result)
    assert loaded(lab, "gpu1") == "580.178.04"


def test_host_without_a_gpu_is_normal(lab: LabUnderTest) -> None:
    lab.command("gpu", "gpu2", "none")
    pyinfra(lab)
    assert failing(lab) == {}
    assert changes(lab) == {}
