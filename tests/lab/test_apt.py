"""A fresh machine upgrades itself in its first minutes: a deploy waits, but for no error."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.lab.conftest import LabUnderTest

pytestmark = pytest.mark.slow

INVENTORY = Path("tests/lab/containers.py")
# Where apt-daily fetches the lists, then upgrades: each lock for some seconds, one after the other.
HOLD = """import fcntl, time
for path, seconds in (
    ("/var/lib/apt/lists/lock", 20),
    ("/var/lib/dpkg/lock-frontend", 10),
    ("/var/lib/dpkg/lock", 5),
    ("/var/cache/apt/archives/lock", 5),
):
    with open(path, "a") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        time.sleep(seconds)
"""
SOURCE = "/etc/apt/sources.list.d/vendor.sources"


def test_source_that_is_gone_fails_at_once(containers_lab: LabUnderTest) -> None:
    """Its name speaks of a lock, and so does what apt says of it. The first package is missing."""
    url = containers_lab.state["upstream"]["url"]
    text = f"Types: deb\\nURIs: {url}/vendor-block-storage\\nSuites: /\\nTrusted: yes\\n"
    containers_lab.ssh("gpu1", f"printf '{text}' > {SOURCE}")
    began = time.monotonic()
    result = containers_lab.pyinfra("-y", inventory=INVENTORY, check=False)
    took = time.monotonic() - began
    containers_lab.ssh("gpu1", f"rm {SOURCE}")
    said = result.stdout + result.stderr
    assert result.returncode != 0
    assert "vendor-block-storage" in said
    assert "404" in said
    assert f"cannot be read: correct that source in {SOURCE}, or remove it" in said
    assert took < 60, said


def test_docker_comes_after_the_machines_own_upgrade(containers_lab: LabUnderTest) -> None:
    containers_lab.ssh("gpu1", "apt-get update -qq && apt-get install -y -qq python3")
    containers_lab.ssh("gpu1", f"cat > /run/hold.py <<'EOF'\n{HOLD}EOF")
    containers_lab.ssh("gpu1", "systemd-run --quiet --collect --unit upgrade python3 /run/hold.py")
    result = containers_lab.pyinfra("-y", inventory=INVENTORY)
    assert "/var/lib/apt/lists/lock is held by python3" in result.stdout + result.stderr
    assert containers_lab.ssh("gpu1", "systemctl is-active docker.service") == "active"
    # Nobody was cheated: the holder came to its end.
    assert containers_lab.ssh("gpu1", "systemctl is-active upgrade.service; true") == "inactive"
    assert containers_lab.deploy(inventory=INVENTORY) == {}
