"""The driver on hosts that show GPUs: eight H100 with NVSwitches, and a Pascal that nouveau holds.

The former is Debian 13, the latter Debian 12: NVIDIA's last branch for Pascal is not in the newer
one's repository, so both defaults are seen.

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
NEWEST = {"gpu1": "595.91.07", "gpu2": "580.178.04"}
FORMER = {"gpu1": "595.71.05", "gpu2": "580.159.03"}
BROKEN = {"gpu1": "595.80.01", "gpu2": "580.170.01"}
LOADED = "The loaded driver is the installed one, and new enough for Ollama"


@pytest.fixture(scope="module")
def lab() -> Iterator[LabUnderTest]:
    """The fleet after its first deploy."""
    show = ["--gpu", "gpu1=8xh100", "--gpu", "gpu2=pascal"]
    for lab in _lab("driver", "--debian-12", "gpu2", *show):
        result = pyinfra(lab)
        # nouveau holds the Pascal; the H100 had nothing that a reboot would chase away.
        assert f"[gpu2] nouveau holds the GPU, driver {NEWEST['gpu2']} waits for a reboot" in said(
            result
        )
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


def of_hosts(versions: dict[str, str]) -> dict[str, Any]:
    """Settings that declare a version of its own for each host."""
    return {host: {"driver_version": version} for host, version in versions.items()}


def loaded(lab: LabUnderTest, host: str) -> str:
    return lab.ssh(host, "cat /sys/module/nvidia/version")


def test_one_run_is_enough(lab: LabUnderTest) -> None:
    """Not the newest branch of the repository, but the declared one, and no step is left over."""
    assert failing(lab) == {}
    assert {host: loaded(lab, host) for host in NEWEST} == NEWEST
    assert changes(lab) == {}


def test_modules_follow_the_generation(lab: LabUnderTest) -> None:
    assert "Open Kernel Module" in lab.ssh("gpu1", "cat /proc/driver/nvidia/version")
    assert "Open" not in lab.ssh("gpu2", "cat /proc/driver/nvidia/version")


def test_fabric_manager_where_there_are_switches(lab: LabUnderTest) -> None:
    assert lab.ssh("gpu1", "systemctl is-active nvidia-fabricmanager") == "active"
    assert lab.ssh("gpu2", "systemctl cat nvidia-fabricmanager 2>/dev/null; true") == ""
    assert len(lab.ssh("gpu1", "nvidia-smi -L").splitlines()) == 8


def test_upgrade_of_everything_leaves_the_driver(lab: LabUnderTest) -> None:
    """The repository has branch 610, and the packages that are named in no hold are pinned too."""
    lab.ssh("gpu1", "DEBIAN_FRONTEND=noninteractive apt-get -y -q dist-upgrade")
    assert (
        lab.ssh("gpu1", "nvidia-smi --query-gpu=driver_version --format=csv,noheader").split()[0]
        == (NEWEST["gpu1"])
    )
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
    former = of_hosts(FORMER)
    result = pyinfra(lab, **former, driver_reboot="never")
    for host, newest in NEWEST.items():
        assert (
            f"[{host}] driver {FORMER[host]} is installed, {newest} is still loaded; reboot "
            "this host yourself"
        ) in said(result)
    assert failing(lab, **former, driver_reboot="never")[LOADED] == list(NEWEST)
    result = pyinfra(lab, **former)
    lines = [
        line
        for line in said(result).splitlines()
        if "rebooting" in line or line.strip().endswith("Connected")
    ]
    hosts = [line.split("]")[0].split("[")[-1] for line in lines if "rebooting" in line]
    assert sorted(hosts) == list(NEWEST)
    # One after the other: the second goes down when the first is back.
    first, second = (
        next(i for i, line in enumerate(lines) if f"[{host}]" in line and "rebooting" in line)
        for host in hosts
    )
    assert any(f"[{hosts[0]}]" in line and "Connected" in line for line in lines[first:second])
    assert failing(lab, **former) == {}
    assert changes(lab, **former) == {}


def test_module_that_does_not_build(lab: LabUnderTest) -> None:
    """The compiler's line and the log's place; the former driver is back and works."""
    result = pyinfra(lab, check=False, **of_hosts(BROKEN))
    assert result.returncode != 0
    assert "no_such_function_in_this_kernel" in said(result)
    for host in NEWEST:
        log = f"/var/log/llm-fleet/driver-build-{lab.ssh(host, 'uname -r')}.log"
        assert f"The whole log is {log}" in said(result)
        assert "no_such_function" in lab.ssh(host, f"cat {log}")
        assert lab.ssh(host, "dpkg --audit; apt-get check -q >/dev/null && echo usable") == "usable"
        assert loaded(lab, host) == FORMER[host]
        assert lab.ssh(host, "nvidia-smi -L | head -n 1 | cut -c1-5") == "GPU 0"
    pyinfra(lab, **of_hosts(FORMER))
    assert failing(lab, **of_hosts(FORMER)) == {}


def test_other_modules_of_the_same_version(lab: LabUnderTest) -> None:
    """They take a reboot, and no other version although none is declared any more."""
    settings = {"gpu1": {"driver_modules": "proprietary"}}
    assert (
        f"[gpu1] driver {FORMER['gpu1']} is installed with proprietary modules, open ones are "
        "still loaded; rebooting"
    ) in said(pyinfra(lab, **settings))
    assert failing(lab, **settings) == {}
    assert changes(lab, **settings) == {}
    assert loaded(lab, "gpu1") == FORMER["gpu1"]


def test_secure_boot_fails_its_host_alone(lab: LabUnderTest) -> None:
    lab.command("gpu", "gpu2", "secure-boot")
    result = pyinfra(lab, check=False)
    assert result.returncode != 0
    assert "[gpu2] gpu2: Secure Boot is on" in said(result)
    assert "driver_mok_enrolled = True" in said(result)
    assert loaded(lab, "gpu1") == FORMER["gpu1"]


def test_host_without_a_gpu_is_normal(lab: LabUnderTest) -> None:
    lab.command("gpu", "gpu2", "none")
    pyinfra(lab)
    assert failing(lab) == {}
    assert changes(lab) == {}
