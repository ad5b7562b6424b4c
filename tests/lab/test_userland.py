"""A host with Ubuntu 26.04's userland, as its provider and somebody before us left it.

Debian's packages of uutils' coreutils and of sudo-rs stand in the places of GNU's and sudo, beside
ufw, needrestart, unattended-upgrades and netplan. Everything is done as `ops`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.lab.conftest import LabUnderTest, _lab

BOOT = "cat /proc/sys/kernel/random/boot_id"
OPS = {"LAB_USER": "ops"}
# Power was cut after dpkg had unpacked nginx and before it configured it.
CUT = """set -e
apt-get update -qq
cd /var/cache/apt/archives
apt-get install -qq -y --no-install-recommends --download-only nginx >/dev/null
dpkg --unpack ./*.deb >/dev/null 2>&1
rm -f ./*.deb
"""
WATCH = """#!/bin/sh
while sleep 0.1; do
    ! ss -Hltn 'sport = :80' | grep -q . || touch /run/seen
done
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[LabUnderTest]:
    yield from _lab("userland", "--hosts", "1", "--ubuntu-like", "gpu1")


def said_by(lab: LabUnderTest, *, check: bool = True) -> str:
    result = lab.pyinfra("-y", check=check, **OPS)
    assert (result.returncode == 0) is check, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_names_that_cannot_be_resolved_are_said(lab: LabUnderTest) -> None:
    """Of a source that does not answer apt only warns, and then knows no package."""
    lab.ssh("gpu1", "cp /etc/resolv.conf /root; echo nameserver 127.0.0.9 > /etc/resolv.conf")
    said = said_by(lab, check=False)
    lab.ssh("gpu1", "cp /root/resolv.conf /etc/resolv.conf")
    assert "Unable to locate package" not in said
    assert "Temporary failure resolving" in said
    assert "correct that source in /etc/apt/sources.list.d/" in said


def test_all_of_it_is_deployed_by_ops(lab: LabUnderTest) -> None:
    """Over a configuration file of the operator's own, and what a power cut left of nginx."""
    tools = lab.ssh("gpu1", "readlink -f /usr/bin/install /usr/bin/stat /usr/bin/sudo")
    assert tools.split() == [*["/usr/bin/coreutils"] * 2, "/usr/lib/cargo/bin/sudo"]
    lab.ssh("gpu1", "echo '# mine' > /etc/nftables.conf")
    lab.ssh("gpu1", CUT)
    lab.ssh("gpu1", f"cat > /run/watch <<'EOF'\n{WATCH}EOF")
    lab.ssh("gpu1", "systemd-run --quiet -u watch sh /run/watch")
    said = said_by(lab)
    assert "/etc/nftables.conf stays as it was" in said
    assert "/etc/nftables.conf.dpkg-dist" in said
    assert lab.ssh("gpu1", "cat /etc/nftables.conf") == "# mine"
    # The package's own site, which listens on every address, at no moment.
    assert lab.ssh(
        "gpu1", "systemctl is-active watch nginx; ls /run/seen 2>&1; true"
    ).splitlines() == [
        "active",
        "active",
        "ls: cannot access '/run/seen': No such file or directory",
    ]
    assert lab.ssh("gpu1", "stat -c %a /etc/llm-fleet") == "755"
    assert lab.deploy(**OPS) == {}


def test_complies_after_a_reboot(lab: LabUnderTest) -> None:
    before = lab.ssh("gpu1", BOOT)
    lab.ssh("gpu1", "systemctl reboot", check=False)
    until = time.monotonic() + 60
    while lab.ssh("gpu1", BOOT, check=False) in ("", before):
        assert time.monotonic() < until
        time.sleep(0.5)
    lab.ssh("gpu1", "systemctl is-system-running --wait")
    assert lab.failing(**OPS) == {}
    assert lab.deploy(**OPS) == {}
